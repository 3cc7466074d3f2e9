"""Detections as files that others read: a long table, Raven selection tables, Audacity labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from birdlib.writing import replacing

if TYPE_CHECKING:
    from birdlib.config import Config

# Raven wants the first seven; what comes after them it shows as columns of the user's.
RAVEN_COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Species Code", "Common Name", "Confidence", "Begin File", "Begin Date Time"),
)


def write_table(detections: pd.DataFrame, path: Path) -> None:
    """The long table, a row a detection (`birdlib.detections.COLUMNS`), as CSV or Parquet by the suffix of `path`."""
    with replacing(path) as aside:
        if path.suffix == ".parquet":
            detections.to_parquet(aside, index=False)
        else:
            detections.to_csv(aside, index=False, float_format="%.6g")


def write_raven(detections: pd.DataFrame, path: Path, config: Config) -> None:
    """A Raven selection table of one recording: tab-separated, a selection a detection over the whole of the mel range.

    The image has no word on which pitch a bird sang at, so every selection is as high as the image.
    """
    found = detections
    columns = [
        range(1, len(found) + 1),
        ["Spectrogram 1"] * len(found),
        [1] * len(found),
        found["start_s"].map("{:.3f}".format),
        found["end_s"].map("{:.3f}".format),
        [f"{config.spectrogram.fmin_hz:.1f}"] * len(found),
        [f"{config.spectrogram.fmax_hz:.1f}"] * len(found),
        found["primary_label"].map(_cell),
        found["common_name"].map(_cell),
        found["confidence"].map("{:.4f}".format),
        [_cell(Path(name).name) for name in found["filename"]],
        found["begins_at"].map(lambda at: "" if pd.isna(at) else at.isoformat(sep=" ", timespec="milliseconds")),
    ]
    _write_lines(path, [RAVEN_COLUMNS, *zip(*columns, strict=True)])


def write_audacity(detections: pd.DataFrame, path: Path) -> None:
    """An Audacity label track of one recording: begin, end, then the name with its probability, tab-separated."""
    rows = (
        (f"{row.start_s:.6f}", f"{row.end_s:.6f}", f"{_cell(row.common_name)} {row.confidence:.2f}")
        for row in detections.itertuples()
    )
    _write_lines(path, rows)


def _write_lines(path: Path, rows) -> None:
    with replacing(path) as aside:
        aside.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def _cell(text: str) -> str:
    """Text without what would end its cell or its line."""
    return " ".join(str(text).split())
