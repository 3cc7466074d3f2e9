"""What Kaggle's image lacks of what birdlib can use: as a data set of wheels, for notebooks without internet."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import birdlib
from birdlib import wheel
from birdlib.writing import read_json, write_json

METADATA = "dataset-metadata.json"
# The extra `augment`, with what it requires in turn and Kaggle has not got.
LACKING = ("audiomentations>=0.43.1,<0.44", "numpy-minmax", "numpy-rms", "python-stretch")
# The extra `runtime`, likewise: it predicts from an exported folder.
RUNTIME = ("openvino>=2025", "openvino-telemetry", "onnxruntime")
PYTHON = "3.12"  # of Kaggle's image
# audiomentations asks for an older soxr than Kaggle has, and works with that one too: in the folder, so that pip can
# get birdlib[augment] from it alone, and not installed by the notebooks, which leave what Kaggle has as it is.
_TOO_NEW = ("soxr<1",)
_PLATFORMS = ("manylinux_2_35_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


class WheelsError(RuntimeError):
    """Wheels that cannot be had: which, and pip's reason."""


def make(out: Path, python: str, user: str) -> Path:
    """Writes a folder for ``kaggle datasets create -p``: the wheels, the library's among them, licence and metadata.

    Parameters
    ----------
    out : the folder, made if it is missing; wheels of an earlier call are replaced.
    python : Kaggle's, such as "3.12".
    user : the Kaggle user whose data set it is to be.

    Raises
    ------
    WheelsError
        if a wheel for that Python cannot be downloaded, or the folder holds something else.
    """
    if not re.fullmatch(r"3\.\d+", python):
        raise WheelsError(f"--python {python}: give a version such as 3.12")
    description = _metadata(python, user)
    if (
        out.exists()
        and any(out.iterdir())
        and read_json(out / METADATA).get("description") != description["description"]
    ):
        raise WheelsError(f"{out} holds something else: name a folder that is missing or empty")
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.whl"):
        old.unlink()
    platforms = [part for name in _PLATFORMS for part in ("--platform", name)]
    target = ["--python-version", python, "--implementation", "cp", "--only-binary", ":all:", *platforms]
    if reason := _pip(["download", "--no-deps", *target, "--dest", str(out), *LACKING, *RUNTIME, *_TOO_NEW]):
        raise WheelsError(f"the wheels for Python {python} cannot be downloaded: {reason}")
    (out / wheel.name()).write_bytes(wheel.build())
    (out / "LICENSE").write_text(wheel.licence(), encoding="utf-8")
    write_json(out / METADATA, description)
    return out


def install(options: list[str], packages: Sequence[str] = LACKING) -> str | None:
    """Installs what is lacking into this Python; returns pip's reason where that fails, else None."""
    return _pip(["install", "--quiet", "--no-deps", "--root-user-action=ignore", *options, *packages])


def slug(python: str) -> str:
    """The last part of the data set's address."""
    return f"birdlib-wheels-{python.replace('.', '')}"


def _metadata(python: str, user: str) -> dict[str, object]:
    return {
        "title": f"birdlib wheels {python.replace('.', '')}",
        "id": f"{user}/{slug(python)}",
        "subtitle": f"birdlib {birdlib.__version__} and what Kaggle lacks for it, Python {python}",
        "description": "Made by `birdlib kaggle wheels`. birdlib is under the MIT licence (LICENSE); the others under "
        "theirs, inside each wheel.",
        "licenses": [{"name": "other"}],
        "isPrivate": True,
    }


def _pip(arguments: list[str]) -> str | None:
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    return lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with {done.returncode}"
