"""Rows of probabilities -> ``submission.csv``: the rows, row ids and columns that a competition asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from birdlib import audio, soundscapes

if TYPE_CHECKING:
    from birdlib.config import Config


class SampleError(ValueError):
    """A ``sample_submission.csv`` that does not say which columns to submit: which, why, and what to do."""


class Wanted(NamedTuple):
    """What a submission is to have: ``columns``, its classes, and ``prefix``, with which its row ids begin.

    Whether they do is said by the rows of the sample submission; where it has none, they are as they were till 2025.
    """

    columns: list[str]
    prefix: str = soundscapes.PREFIX


def wanted(sample: Path) -> Wanted:
    """What a sample submission asks for: as classes, all its columns but row_id and those without a name, in its order.

    Raises
    ------
    SampleError
        if it cannot be read, or lacks row_id.
    """
    advice = "it should be the competition's sample_submission.csv, with row_id and a column a class"
    try:
        found = pd.read_csv(sample, nrows=1, index_col=False, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise SampleError(f"{sample} is not readable as CSV ({reason}): {advice}") from None
    # A table that was saved with its index has a column more, which pandas calls "Unnamed: 0".
    classes = [name for name in found if name != "row_id" and not name.startswith("Unnamed: ")]
    if "row_id" not in found or not classes:
        lacking = "a column a class" if "row_id" in found else "the column row_id"
        raise SampleError(f"{sample} lacks {lacking}: {advice}")
    return Wanted(classes, soundscapes.PREFIX if found["row_id"].str.startswith(soundscapes.PREFIX).all() else "")


def wanted_in(data_dir: Path, labels: list[str]) -> Wanted:
    """What the ``sample_submission.csv`` of a data folder asks for; without one, a column for each of `labels`.

    Raises
    ------
    SampleError
        as `wanted` does.
    """
    sample = data_dir / "sample_submission.csv"
    return wanted(sample) if sample.exists() else Wanted(labels)


def submitted(predictions: pd.DataFrame, labels: list[str], columns: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The table to submit: row_id, then the classes asked for, in that order.

    Returns
    -------
    table, unknown : the classes in ``unknown`` are asked for and not known to the model; their column is 0.
    """
    unknown = [column for column in columns if column not in labels]
    table = predictions.reindex(columns=["row_id", *columns])
    table[unknown] = 0.0
    return table, unknown


def complete(
    table: pd.DataFrame,
    paths: Sequence[Path],
    share: np.ndarray,
    labels: list[str],
    config: Config,
    durations_s: Callable[[list[Path]], dict[Path, float]],
    prefix: str = soundscapes.PREFIX,
) -> tuple[pd.DataFrame, int]:
    """The rows of all recordings, since a submission that lacks some is refused; and how many of them are filled.

    Parameters
    ----------
    table : the rows of those that were heard, as `birdlib.soundscapes.rows` gives them.
    share : what is said of a window that nobody heard, float32 (classes,). A recording that was not heard has as many
        rows as its header says, or else as most have.
    durations_s : how long recordings are, nan where that is not known, such as `birdlib.hearing.durations_s`.
    """
    heard = dict(iter(table.groupby("filename", sort=False)))
    names = {path: audio.as_text(path.name) for path in paths}
    others = durations_s([path for path, name in names.items() if name not in heard])
    known = [len(heard[name]) if name in heard else _rows_of(others[path], config) for path, name in names.items()]
    counts = pd.Series(known, dtype=float)
    counts = counts.fillna(np.ceil(counts.median())).fillna(0).astype(int)
    filled = {
        path: soundscapes.rows(path, np.tile(share, (many, 1)), labels, config, prefix)
        for (path, name), many in zip(names.items(), counts, strict=True)
        if name not in heard
    }
    tables = [filled[path] if path in filled else heard[name] for path, name in names.items()]
    return soundscapes.together(tables, labels), sum(map(len, filled.values()))


def _rows_of(duration_s: float, config: Config) -> float:
    """nan where the duration is not known, or nothing."""
    samples = 0 if math.isnan(duration_s) else round(duration_s * config.audio.sample_rate_hz)
    return soundscapes.count(samples, config.chunk_samples, config) or math.nan
