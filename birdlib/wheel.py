"""The library as a wheel, made from its installed files: no build, no network, the same files give the same bytes."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import zipfile
from pathlib import Path

import birdlib
from birdlib.stages import APPENDICES, STAGES, notebook

KERNEL = "kaggle-metadata.json"
_DATE = (1980, 1, 1, 0, 0, 0)  # the zip format's first day
_WHEEL = "Wheel-Version: 1.0\nGenerator: birdlib\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


class WheelError(RuntimeError):
    """The library cannot be packed: what is missing of it."""


def name() -> str:
    """The file name of the wheel."""
    return f"birdlib-{birdlib.__version__}-py3-none-any.whl"


def build() -> bytes:
    """The wheel, as ``pip install`` takes it: modules, tables, templates, notebooks, the kernel's metadata, licence.

    Raises
    ------
    WheelError
        if the library is not installed, so that what it requires is not known.
    """
    files = _files()
    record = f"birdlib-{birdlib.__version__}.dist-info/RECORD"
    rows = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in files.items()]
    files[record] = "\n".join([*rows, f"{record},,", ""]).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, _DATE)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, content)
    return packed.getvalue()


def licence() -> str:
    """The library's licence."""
    return _about()[f"birdlib-{birdlib.__version__}.dist-info/licenses/LICENSE"].decode()


def kernel_metadata() -> Path:
    """The final notebook's kernel metadata: inside the installed package, or in the repository it is run from."""
    package = Path(birdlib.__file__).parent
    for folder in (package, package.parent):
        if (path := folder / KERNEL).is_file():
            return path
    raise WheelError(f"{KERNEL} is neither in {package} nor beside it: reinstall birdlib")


def _files() -> dict[str, bytes]:
    package = Path(birdlib.__file__).parent
    inside = sorted(path for path in package.glob("*") if path.suffix in {".py", ".csv", ".html", ".css", ".js"})
    files = {f"birdlib/{path.name}": path.read_bytes() for path in inside}
    files |= {f"birdlib/notebooks/{one.name}.ipynb": notebook(one.name).read_bytes() for one in STAGES + APPENDICES}
    files[f"birdlib/{KERNEL}"] = kernel_metadata().read_bytes()
    return files | _about()


def _about() -> dict[str, bytes]:
    try:
        installed = importlib.metadata.distribution("birdlib")
    except importlib.metadata.PackageNotFoundError:
        raise WheelError("birdlib is not installed, only lies here: pip install --no-deps -e .") from None
    if installed.version != birdlib.__version__:
        raise WheelError(
            f"birdlib {birdlib.__version__} is installed as {installed.version}: install it again (pip install "
            "--no-deps -e .)"
        )
    texts = {"WHEEL": _WHEEL}
    for part in ("METADATA", "entry_points.txt", "licenses/LICENSE"):
        if (text := installed.read_text(part)) is None:
            raise WheelError(f"the installed birdlib has no {part}: reinstall it")
        texts[part] = text
    return {f"birdlib-{birdlib.__version__}.dist-info/{part}": text.encode() for part, text in texts.items()}


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
