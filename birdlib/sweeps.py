"""Batch runs: the series over every combination of some settings, a run folder each.

A stage whose fingerprint another folder of the sweep has already is not run again: its files are taken from there. A
sweep that is started again goes on where it stopped, since every run folder does.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from birdlib import config as configs
from birdlib import runs, sample, series
from birdlib.stages import STAGES, RunError, Stage, files, fingerprint, record, record_path, whole
from birdlib.writing import read_json, replacing, write_json


class SweepError(RuntimeError):
    """A sweep that cannot be run as asked, or of which some runs failed: which, and why."""


class RunsError(SweepError):
    """A sweep that was gone through, and of which some runs failed; ``folder`` holds what the others have made."""

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder


def combinations(swept: Sequence[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Every combination of the values of each key: the run folder's name -> its overrides.

    Parameters
    ----------
    swept : pairs of a dotted key and one of its values; a key comes again for each value more.
    """
    values: dict[str, list[str]] = {}
    for key, value in swept:
        values.setdefault(key, []).append(value)
    chosen = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    found = {_name(overrides): overrides for overrides in chosen}
    if len(found) < len(chosen):
        raise SweepError("--sweep: the same value twice, or values that only differ in signs that no file name has")
    return found


def _name(overrides: Mapping[str, str]) -> str:
    text = ",".join(f"{key}={value}" for key, value in overrides.items())
    return re.sub(r"[^\w.,=+-]+", "_", text)[:200]


def run(
    swept: Sequence[tuple[str, str]],
    config: str | Path | None = None,
    data_dir: str | Path | None = None,
    run_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Runs the series for every combination, into folders below `run_dir`.

    Parameters
    ----------
    swept : as in `combinations`.
    config, data_dir, overrides : as in `birdlib.series.run`; without a data folder, all share one sample data set.

    Returns
    -------
    the run folders.

    Raises
    ------
    RunsError
        when all have been gone through, if some failed; the message has a line for each.
    SweepError
        before anything runs, for a sweep that cannot be.
    birdlib.config.ConfigError
        before anything runs, if a combination's settings do not hold.
    """
    root = Path(run_dir or runs.default_dir(config)).expanduser().absolute()
    if (root / "config.yaml").exists():
        raise SweepError(f"{root} is a run folder itself: name another one for the sweep (--run-dir)")
    wanted = {root / name: {**(overrides or {}), **chosen} for name, chosen in combinations(swept).items()}
    settled = {folder: configs.load(config or "sample", chosen) for folder, chosen in wanted.items()}
    if data_dir is None and next(iter(settled.values())).data.dir is None:
        data_dir = root / "sample_data"
        if not data_dir.exists():
            sample.write(data_dir)
    failed = {}
    for number, (folder, chosen) in enumerate(wanted.items(), 1):
        print(f"--- run {number} of {len(wanted)}: {folder.name}", flush=True)
        try:
            _prepare(folder, list(wanted), config, data_dir, chosen)
            series.run(config or "sample", data_dir, folder, chosen)
        except Exception as error:
            # A file that is gone, or a disk that is full, is one run's trouble too.
            if not (isinstance(error, OSError) or type(error).__module__.startswith("birdlib.")):
                raise
            print(f"failed: {error}", flush=True)
            failed[folder.name] = str(error)
    if failed:
        lines = "".join(f"\n  {name}: {reason}" for name, reason in failed.items())
        message = f"{len(failed)} of {len(wanted)} runs failed; the same command tries them again:{lines}"
        raise RunsError(message, root)
    return list(wanted)


def _prepare(
    folder: Path, others: Sequence[Path], config: str | Path | None, data_dir: str | Path | None, overrides: dict
) -> None:
    """Takes what other folders of the sweep have done already, as far as it is just what this one would do."""
    taken = runs.lock(folder, "birdlib run --sweep")
    try:
        settled = runs.settle(folder, config or "sample", data_dir, overrides)
        runs.keep_settings(folder, settled)
        for one in STAGES:
            known: dict[str, str] = {}
            if runs.is_current(one, settled, folder, known):
                continue
            mine = fingerprint(one, settled, folder, known)
            same = (other for other in others if other != folder and _has(one, other, mine))
            if (source := next(same, None)) is None:
                return
            _take(one, settled, source, folder)
    finally:
        if taken:
            runs.unlock(folder)


def _has(one: Stage, other: Path, wanted: str) -> bool:
    """Whether a folder has this stage, of this fingerprint, with all that is to be taken: some may be deleted since."""
    there = (other / "notebooks" / f"{one.name}.ipynb").is_file() and whole(one, other)
    return there and record(one, other)["fingerprint"] == wanted


def _take(one: Stage, config: configs.Config, source: Path, folder: Path) -> None:
    """A finished stage's files, figures, notebook and errors from another run folder; its record comes last."""
    number = one.name[:2]
    names = [*files(one.writes, config), *(name for name in one.beside if (source / name).is_file())]
    names += [f"figures/{path.name}" for path in (source / "figures").glob(f"{number}_*.png")]
    for name in names:
        _link(source / name, folder / name)
    with replacing(folder / "notebooks" / f"{one.name}.ipynb") as aside:  # which papermill writes in its place
        shutil.copy2(source / "notebooks" / aside.name, aside)
    held = [each / "tables" / "errors.parquet" for each in (source, folder)]
    if held[0].exists():
        theirs, mine = (pd.read_parquet(path) if path.exists() else None for path in held)
        parts = [theirs[theirs["stage"] == one.name], *([] if mine is None else [mine[mine["stage"] != one.name]])]
        with replacing(held[1]) as aside:
            pd.concat(parts).sort_values(["stage", "path"]).reset_index(drop=True).to_parquet(aside, index=False)
    write_json(folder / "metrics.json", runs.Run(folder, config, one).metrics())
    write_json(record_path(one, folder), read_json(record_path(one, source)))


def _link(source: Path, target: Path) -> None:
    """The same file under another name where the disk can do that; these files are replaced, never changed."""
    with replacing(target) as aside:
        try:
            os.link(source, aside)
        except OSError:
            shutil.copy2(source, aside)


def refuse_redo(first: str | None, only: str | None) -> None:
    """A sweep runs whole series. Raises `birdlib.stages.RunError` for an option that says otherwise."""
    if first or only:
        raise RunError("--sweep runs the whole series: give neither --from nor --only with it")
