"""What lies in a folder, through links as well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files(top: Path) -> Iterator[Path]:
    """All that is in a folder and below it and is no folder, in no order.

    Data sets are often folders of links to where the recordings lie, and `os.walk` and `Path.rglob` stop at those. A
    link that leads back to a folder on the way to it is not followed. What cannot be looked into is taken for empty.
    """
    yield from _files(Path(top), ())


def _files(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    if (real := os.path.realpath(folder)) in above:
        return
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        # Of a link that leads nowhere or to itself, entry.is_dir may raise.
        if os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
            yield from _files(folder / entry.name, (*above, real))
        else:
            yield folder / entry.name
