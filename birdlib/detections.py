"""Rows of probabilities -> what was heard, when: threshold, the likeliest few, a species list, runs of rows merged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from birdlib import recorders

COLUMNS = (
    *("filename", "start_s", "end_s", "primary_label", "common_name", "scientific_name", "confidence"),
    "begins_at",
)


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


def table(
    filename: str, values: np.ndarray, row_s: float, duration_s: float, species: pd.DataFrame, choice: Choice
) -> pd.DataFrame:
    """The detections of one recording, by beginning, then class.

    Parameters
    ----------
    values : float32 (rows, classes), a row every `row_s` seconds; the last ends with the recording, at `duration_s`.
    species : primary_label, common_name, scientific_name, a row a class in the order of the values.

    Returns
    -------
    table : `COLUMNS`; ``begins_at`` is the time of day where the file's name tells when it began (else NaT), in whole
        milliseconds.
    """
    found = chosen(values, species["primary_label"].tolist(), choice)
    began, rows = recorders.began(filename), []
    for place, names in enumerate(species[["primary_label", "common_name", "scientific_name"]].itertuples(index=False)):
        for first, last in _runs(found[:, place], choice.merge):
            start_s, end_s = first * row_s, min((last + 1) * row_s, duration_s)
            at = pd.NaT if began is None else began + timedelta(seconds=start_s)
            rows.append((filename, start_s, end_s, *names, float(values[first : last + 1, place].max()), at))
    made = pd.DataFrame(rows, columns=list(COLUMNS)).astype({"start_s": float, "end_s": float, "confidence": float})
    made["begins_at"] = pd.to_datetime(made["begins_at"]).astype("datetime64[ms]")
    return made.sort_values("start_s", kind="stable", ignore_index=True)


def _runs(found: np.ndarray, merge: bool) -> Iterator[tuple[int, int]]:
    """First and last row of each run of True in `found` (rows,), or each True by itself."""
    if not merge:
        yield from ((int(row), int(row)) for row in np.flatnonzero(found))
        return
    edges = np.diff(np.concatenate([[0], found.astype(np.int8), [0]]))
    yield from zip(np.flatnonzero(edges == 1).tolist(), (np.flatnonzero(edges == -1) - 1).tolist(), strict=True)
