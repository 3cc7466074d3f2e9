"""What lies in a folder, through links as well."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def files(top: Path) -> Iterator[Path]:
    """All that is in a folder and below it and is no folder, in no order; a link that leads back up is not followed.

    Data sets are often folders of links to where the recordings lie, and `os.walk` and `Path.rglob` stop at those.
    """
    for root, folders, names in os.walk(top, followlinks=True):
        here = Path(root).resolve()
        folders[:] = [name for name in folders if not here.is_relative_to((here / name).resolve())]
        yield from (Path(root) / name for name in names)
