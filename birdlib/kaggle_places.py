"""Where things are on Kaggle: what is attached, where results go, where there is room.

Kaggle mounts what is attached to a notebook in one of two ways: flat, as ``input/<slug>``, or by kind, as
``input/competitions/<slug>``, ``input/datasets/<owner>/<slug>``, ``input/notebooks/<owner>/<slug>`` and
``input/models/<owner>/<model>/<framework>/<variation>/<version>``. So a folder is told by what it holds, not by its
path. All of this is below one root: ``/kaggle``, unless the environment variable ``BIRDLIB_KAGGLE_ROOT`` names another.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = "BIRDLIB_KAGGLE_ROOT"
METADATA = "train_metadata.csv"
_DEEP = 8  # folders below input: a model's files lie six down
_AUDIO = {"train_audio", "test_soundscapes", "unlabeled_soundscapes", "sample_data"}  # large, and nothing in them


class PlacesError(RuntimeError):
    """What a notebook needs is not attached to it, or more than one thing could be it: what to attach."""


def root() -> Path:
    """The folder that holds ``input`` and ``working``."""
    return Path(os.environ.get(ROOT) or "/kaggle")


def here() -> bool:
    """Whether this is Kaggle, or laid out as Kaggle is."""
    return working().is_dir()


def working() -> Path:
    """Where results go: what lies there when a notebook ends is its output."""
    return root() / "working"


def scratch() -> Path:
    """A folder for what need not be kept, on the disk with the most room; once one is in use, it stays that one."""
    places = [root() / "tmp" / "birdlib", root() / "temp" / "birdlib", Path(tempfile.gettempdir()) / "birdlib"]
    for place in places:
        if place.is_dir():
            return place
    return max(places, key=_room_gb)


def data(competition: str | None) -> Path | None:
    """The attached data folder: the competition's in either place, else the only folder that holds such metadata.

    Raises
    ------
    PlacesError
        if the competition is not attached, or several other folders could be meant.
    """
    named = [root() / "input" / "competitions" / competition, root() / "input" / competition] if competition else []
    others = [folder for folder in folders() if (folder / METADATA).is_file() and not is_run(folder)]
    for folder in [*named, *others]:
        if (folder / METADATA).is_file() and (folder in named or len(others) == 1):
            return folder
    if others:
        places = ", ".join(map(str, others))
        raise PlacesError(f"several attached folders hold a {METADATA}: {places}; set data_dir to one of them")
    if competition:
        raise PlacesError(
            f"the competition's data are not attached: there is no {METADATA} below {root() / 'input'}. Add the input "
            f"{competition}, after accepting its rules on https://www.kaggle.com/competitions/{competition}/rules"
        )
    return None


def runs() -> list[Path]:
    """The attached run folders: outputs of other notebooks, or data sets that hold one."""
    return [folder for folder in folders() if is_run(folder)]


def is_run(folder: Path) -> bool:
    """Whether a folder is a run folder in which something has finished."""
    return (folder / "config.yaml").is_file() and any((folder / "stages").glob("[0-9]*.json"))


def weights(backbone: str) -> Path | None:
    """An attached weights file of a backbone without its top, by its name: ``convnext_tiny_notop.h5``, say."""
    pattern = re.compile(backbone.replace("_", "_?") + r"[_.].*notop.*\.h5|" + backbone + r"_notop\.h5", re.IGNORECASE)
    found = [path for folder in folders() for path in sorted(folder.glob("*.h5")) if pattern.fullmatch(path.name)]
    return found[0] if found else None


def exports() -> list[Path]:
    """The attached folders that ``birdlib export`` wrote."""
    return [folder for folder in folders() if (folder / "export.json").is_file()]


def wheels() -> Path | None:
    """The attached folder of wheels that ``birdlib kaggle wheels`` made; None if there is none."""
    return next((folder for folder in folders() if any(folder.glob("birdlib-*.whl"))), None)


def folders() -> Iterator[Path]:
    """Every folder below ``input``, but those of audio, the nearest first."""
    level = [root() / "input"]
    for _ in range(_DEEP):
        level = [below for folder in level for below in _inside(folder)]
        yield from level


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry) for entry in os.scandir(folder) if entry.name not in _AUDIO and entry.is_dir())
    except OSError:
        return []


def _room_gb(place: Path) -> int:
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return shutil.disk_usage(there).free // 10**9
