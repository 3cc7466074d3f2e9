"""Rows of probabilities -> what was heard, when: threshold, the likeliest few, a species list, runs of rows merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from birdlib import recorders

COLUMNS = (
    *("filename", "start_s", "end_s", "primary_label", "common_name", "scientific_name", "confidence"),
    "begins_at",
)
ROWS_AT_ONCE = 10_000


class DetectionError(ValueError):
    """A choice of detections that cannot be made: what is wrong with it."""


@dataclass(frozen=True)
class Choice:
    """Which probabilities count as a detection.

    Attributes
    ----------
    threshold : the least probability.
    top_k : at most so many species a row, the likeliest; None: all.
    species : labels to keep; None: all.
    merge : whether rows side by side with the same species become one detection, as likely as its likeliest row.
    """

    threshold: float = 0.5
    top_k: int | None = None
    species: frozenset[str] | None = None
    merge: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise DetectionError(f"the threshold is a probability, 0 to 1, not {self.threshold}")
        if self.top_k is not None and self.top_k < 1:
            raise DetectionError(f"at most {self.top_k} species a row would be none")


def chosen(values: np.ndarray, labels: Sequence[str], choice: Choice) -> np.ndarray:
    """Which probabilities (rows, classes) are detections: bool of the same shape.

    Of species that are as likely as the last of the `top_k`, the earlier ones are taken.
    """
    found = values >= choice.threshold
    if choice.species is not None:
        found &= np.isin(np.asarray(labels, dtype=str), sorted(choice.species))
    if choice.top_k is not None and choice.top_k < values.shape[1]:
        order = np.argsort(np.where(found, -values, np.inf), axis=1, kind="stable")
        best = np.zeros_like(found)
        np.put_along_axis(best, order[:, : choice.top_k], True, axis=1)
        found &= best
    return found


def tables(
    filename: str, values: np.ndarray, row_s: float, duration_s: float, species: pd.DataFrame, choice: Choice
) -> Iterator[pd.DataFrame]:
    """The detections of one recording, by beginning, then class; in pieces, for a long one may have millions.

    Parameters
    ----------
    values : float32 (rows, classes), a row every `row_s` seconds; the last ends with the recording, at `duration_s`.
    species : primary_label, common_name, scientific_name, a row a class in the order of the values.

    Yields
    ------
    table : `COLUMNS`, of `ROWS_AT_ONCE` rows at most; the first also where there is no detection. ``begins_at`` is the
        time of day where the file's name tells when it began (else NaT), in whole milliseconds.
    """
    began = np.datetime64(recorders.began(filename), "us")
    runs = _runs(values, chosen(values, species["primary_label"].tolist(), choice), choice.merge)
    begins = np.flatnonzero(runs.begins)
    for at in range(0, max(1, len(begins)), ROWS_AT_ONCE):
        row, place = np.divmod(begins[at : at + ROWS_AT_ONCE], values.shape[1])
        start_s = row * row_s
        columns = {
            "filename": filename,
            "start_s": start_s,
            "end_s": np.minimum((runs.last[row, place] + 1) * row_s, duration_s),
            **species[["primary_label", "common_name", "scientific_name"]].iloc[place].reset_index(drop=True),
            "confidence": runs.likeliest[row, place].astype(float),
            "begins_at": (began + np.rint(start_s * 1e6).astype("timedelta64[us]")).astype("datetime64[ms]"),
        }
        yield pd.DataFrame(columns)


class _Runs(NamedTuple):
    """Where detections begin, bool (rows, classes); there, the last row of each, and its largest probability."""

    begins: np.ndarray
    last: np.ndarray
    likeliest: np.ndarray


def _runs(values: np.ndarray, found: np.ndarray, merge: bool) -> _Runs:
    """Each run of True in `found` (rows, classes) down its column, or each True by itself."""
    last = np.repeat(np.arange(len(values), dtype=np.int32)[:, None], values.shape[1], axis=1)
    if not merge:
        return _Runs(found, last, values)
    likeliest = values.copy()
    for row in range(len(values) - 2, -1, -1):
        on = found[row] & found[row + 1]
        np.copyto(last[row], last[row + 1], where=on)
        np.maximum(likeliest[row], likeliest[row + 1], out=likeliest[row], where=on)
    begins = found.copy()
    begins[1:] &= ~found[:-1]
    return _Runs(begins, last, likeliest)
