"""Writing so that nothing is ever half there: aside first, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ASIDE = ".writing-"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the name `path` when the block ends well and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=path.parent))
    try:
        aside = folder / path.name
        yield aside
        with open(aside, "rb") as file:  # the bytes before the name: a power cut leaves the old file or the new one
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_aside(path: Path) -> bool:
    """Whether it is what a writer leaves aside that was killed."""
    return path.name.startswith(_ASIDE)


def sweep(folder: Path) -> None:
    """Takes away what writers that were killed have left aside, anywhere below a folder that nobody else writes to."""
    for left in list(folder.rglob(f"{_ASIDE}*")):
        shutil.rmtree(left, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, whole or not at all; what is no finite number is null, as JSON has no other word."""
    with replacing(path) as aside:
        aside.write_text(json.dumps(_plain(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """What a JSON file holds; an empty dictionary where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
