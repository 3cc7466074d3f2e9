"""Run folders side by side: the settings in which they differ, and their results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from birdlib import config as configs
from birdlib.config import ConfigError
from birdlib.stages import STAGES, record
from birdlib.writing import read_json

DEPTH = 3  # how far below a folder run folders are looked for
RESULTS = {
    "validation I": ("phase_1", "val_accuracy"),
    "validation II": ("phase_2", "val_accuracy"),
    "test": ("test", "accuracy"),
    "test by recording": ("test", "recording_accuracy"),
    "macro ROC-AUC": ("test", "macro_roc_auc"),
    "class-mean AP": ("test", "mean_average_precision"),
    "chunks": ("test", "chunks"),
}


def find(root: Path) -> list[Path]:
    """The run folders at or below `root`: those with a ``config.yaml`` and a folder ``stages``, sorted."""
    found = {path.parent for depth in range(DEPTH + 1) for path in root.glob("*/" * depth + "config.yaml")}
    return sorted(folder for folder in found if (folder / "stages").is_dir())


def table(folders: list[Path], root: Path) -> pd.DataFrame:
    """A row a run folder, by its path below `root`.

    Returns
    -------
    table : the dotted settings that are not the same in all; `RESULTS` (accuracies by chunk, 0..1; missing where there
        is none), "interval" of the test's accuracy, "finished" (the last stage that has), and "problem", where a
        folder's settings cannot be read.
    """
    rows: dict[str, dict[str, Any]] = {}
    for folder in folders:
        name = folder.relative_to(root).as_posix() if folder != root else folder.name
        rows[name] = {**_settings(folder), **_results(folder)}
    found = pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")
    settings = found.columns.intersection(configs.keys())
    known = found[found["problem"].isna()] if "problem" in found else found
    same = [key for key in settings if known[key].nunique(dropna=False) < 2]
    return found.drop(columns=same)


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = configs.load(folder / "config.yaml")
    except ConfigError as error:
        return {"problem": str(error)}
    values = zip(dotted := configs.keys(), (configs.value(settings, key) for key in dotted), strict=True)
    return {key: value if isinstance(value, int | float | str | None) else str(value) for key, value in values}


def _results(folder: Path) -> dict[str, Any]:
    metrics = read_json(folder / "metrics.json")
    finished = [one.name for one in STAGES if record(one, folder)]
    low, high = metrics.get("test", {}).get("intervals", {}).get("accuracy", (None, None))
    return {
        **{name: metrics.get(section, {}).get(key) for name, (section, key) in RESULTS.items()},
        "interval": "" if low is None else f"{low:.3f} to {high:.3f}",
        "finished": finished[-1] if finished else "",
    }
