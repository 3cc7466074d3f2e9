"""What a run was made from, how far it came and what was left out, as the report says it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from birdlib import chunks, metadata, overview, report_notebooks, runs, splits
from birdlib import config as configs
from birdlib.runs import Run
from birdlib.stages import STAGES, files, record

SHOWN_ERRORS = 200


def table(run: Run, name: str) -> pd.DataFrame | None:
    """A table of the run folder; None where it is not there."""
    return run.read_table(name) if (run.dir / "tables" / f"{name}.parquet").exists() else None


def books(run: Run) -> dict[str, dict[str, Any]]:
    """The executed notebooks that there are, by stage."""
    paths = {one.name: run.dir / "notebooks" / f"{one.name}.ipynb" for one in STAGES}
    return {name: report_notebooks.read(path) for name, path in paths.items() if path.exists()}


def stages(run: Run, executed: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each notebook: its name, title, ``state`` in words, whether it is ``done``, seconds, and what it lacks."""
    return [_stage(run, one, executed.get(one.name)) for one in STAGES]


def _stage(run: Run, one: Any, book: Mapping[str, Any] | None) -> dict[str, Any]:
    done = bool(record(one, run.dir))
    missing = [name for name in files(one.writes, run.config) if not (run.dir / name).exists()]
    if done and runs.is_current(one, run.config, run.dir):
        state = "finished"
    elif done:
        state = "finished, but what it was made from, or what it made, has changed since"
    elif error := report_notebooks.failure(book) if book else "":
        state = f"stopped: {error}"
    else:
        state = "not finished" if book else "has not run"
    about = (book or {}).get("metadata", {}).get("papermill", {})
    return {
        "name": one.name,
        "title": (report_notebooks.title(book) if book else "") or one.name.replace("_", " "),
        "state": state,
        "done": done,
        "current": state == "finished",
        "has_book": book is not None,
        "seconds": about.get("duration"),
        "ended": (about.get("end_time") or "")[:16].replace("T", " "),
        "missing": [] if done else missing,
    }


def data(run: Run, recordings: pd.DataFrame | None) -> dict[str, Any]:
    """What the recordings are: ``folder``, ``synthetic``, and where they have been looked at, how many of what."""
    about: dict[str, Any] = {"folder": str(run.data_dir), "name": run.data_dir.name, "synthetic": bool(run.synthetic)}
    if recordings is None:
        return about
    known = recordings["duration_s"].dropna() if "duration_s" in recordings else pd.Series(dtype=float)
    return about | {
        "recordings": len(recordings),
        "species": recordings["primary_label"].nunique(),
        "people": recordings["author"].nunique(),
        "hours": float(known.sum()) / 3600,
    }


def sides(run: Run) -> list[dict[str, Any]]:
    """How many recordings and chunks each side of the split has, silent chunks not counted."""
    split_table, every = table(run, "splits"), table(run, "chunks")
    if split_table is None or every is None:
        return []
    kept = every[chunks.kept(every, run.config.silence)].groupby("filename").size()
    rows = [("test", splits.side(split_table, "test"))]
    for fold in sorted(set(run.config.folds) & set(split_table["fold"])):  # the third notebook stops at one of nobody
        rows.append((f"training, fold {fold}", splits.side(split_table, "train", fold)))
        rows.append((f"validation, fold {fold}", splits.side(split_table, "validation", fold)))
    return [
        {
            "name": name,
            "recordings": len(side),
            "groups": side["group"].nunique(),
            "species": side["primary_label"].nunique(),
            "chunks": int(kept.reindex(side["filename"]).fillna(0).sum()),
        }
        for name, side in rows
    ]


def errors(run: Run) -> dict[str, Any]:
    """The files and rows that were set aside or repaired, each with its reason; ``more``: so many are not shown."""
    found = table(run, "errors")
    rows = [] if found is None else found.head(SHOWN_ERRORS).to_dict("records")
    return {"rows": rows, "count": 0 if found is None else len(found), "known": found is not None}


def silence(run: Run, names: Mapping[str, str]) -> dict[str, Any] | None:
    """How many chunks are silent, of how many, by which measure, and who lost most: rows (name, silent, chunks)."""
    every = table(run, "chunks")
    recordings = table(run, "recordings")
    if every is None or recordings is None or every.empty:
        return None
    silent = ~chunks.kept(every, run.config.silence)
    label = every["filename"].map(recordings.set_index("filename")["primary_label"])
    by = silent.groupby(label).agg(["sum", "size"]).sort_values("sum", ascending=False, kind="stable")
    return {
        "silent": int(silent.sum()),
        "chunks": len(every),
        "measure": run.config.silence.measure,
        "threshold": run.config.silence.threshold,
        "recordings": int(silent.groupby(every["filename"]).all().sum()),
        "rows": [(names.get(key, key), int(row["sum"]), int(row["size"])) for key, row in by.iterrows() if row["sum"]],
    }


def columns(run: Run, recordings: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    """Every column of the metadata and what becomes of it; None where the data are not there any more."""
    if recordings is None or not (run.data_dir / "train_metadata.csv").is_file():
        return None
    found = overview.columns(metadata.load(run.data_dir).table, run.data_dir)
    return found.rename_axis("column").reset_index().to_dict("records")


def settings(run: Run) -> list[dict[str, Any]]:
    """Every setting, in the order of the settings: ``key``, ``value``, the paper's, and whether they ``differ``."""
    paper = configs.load("paper")
    keys = configs.keys()
    values = ((key, configs.value(run.config, key), configs.value(paper, key)) for key in keys)
    return [
        {"key": key, "value": _told(one), "paper": _told(other), "differs": one != other} for key, one, other in values
    ]


def _told(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    return str(value) if value is not None else "none"


def versions(run: Run) -> dict[str, list[str]]:
    """With what the finished notebooks were made: name -> its versions, one where all had the same."""
    made = [record(one, run.dir).get("made_with", {}) for one in STAGES]
    names = dict.fromkeys(name for one in made for name in one)
    return {name: sorted({one[name] for one in made if name in one}) for name in names}


def figures(run: Run) -> dict[str, list[Path]]:
    """The figures that each notebook kept, by stage, in the order of their names."""
    return {one.name: sorted((run.dir / "figures").glob(f"{one.name[:2]}_*.png")) for one in STAGES}
