"""Detections as files that others read: a long table, Raven selection tables, Audacity labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow
import pyarrow.parquet

from birdlib.detections import COLUMNS, ROWS_AT_ONCE
from birdlib.writing import replacing

if TYPE_CHECKING:
    from birdlib.config import Config

# Raven wants the first seven; what comes after them it shows as columns of the user's.
RAVEN_COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Species Code", "Common Name", "Confidence", "Begin File", "Begin Date Time"),
)

_NUMBERS = ("start_s", "end_s", "confidence")
_SCHEMA = pyarrow.schema(
    [(name, pyarrow.float64() if name in _NUMBERS else pyarrow.string()) for name in COLUMNS[:-1]]
    + [(COLUMNS[-1], pyarrow.timestamp("ms"))]
)


def write_table(tables: Iterable[pd.DataFrame], path: Path, at_once: int = ROWS_AT_ONCE) -> None:
    """The long table, a row a detection (`birdlib.detections.COLUMNS`), as CSV or Parquet by the suffix of `path`.

    Parameters
    ----------
    tables : the detections of one recording after the other, as `birdlib.detections.tables` gives them; some `at_once`
        of rows are all that memory holds.
    """
    with replacing(path) as aside:
        if path.suffix == ".parquet":
            with pyarrow.parquet.ParquetWriter(aside, _SCHEMA) as file:
                for table in _together(tables, at_once):
                    file.write_table(pyarrow.Table.from_pandas(table, _SCHEMA, preserve_index=False))
        else:
            with open(aside, "w", encoding="utf-8", newline="") as file:
                file.write(",".join(COLUMNS) + "\n")
                for table in _together(tables, at_once):
                    # Else it would hang on the recordings side by side whether a time has its milliseconds.
                    table["begins_at"] = table["begins_at"].map(_moment)
                    for column in ("start_s", "end_s"):  # six digits, as of a confidence, end within a day
                        table[column] = table[column].map(_seconds)
                    table.to_csv(file, index=False, header=False, float_format="%.6g", lineterminator="\n")


def _together(tables: Iterable[pd.DataFrame], at_once: int) -> Iterator[pd.DataFrame]:
    """Tables one below the other, until they are long enough."""
    held: list[pd.DataFrame] = []
    rows = 0
    for table in tables:
        if len(table):
            held.append(table)
            rows += len(table)
        if rows >= at_once:
            yield pd.concat(held, ignore_index=True)
            held, rows = [], 0
    if held:
        yield pd.concat(held, ignore_index=True)


def _seconds(at_s: float) -> str:
    """To the millisecond, without zeros at the end."""
    return f"{round(at_s, 3):.15g}"


def _moment(at: pd.Timestamp) -> str:
    return "" if pd.isna(at) else at.isoformat(sep=" ", timespec="milliseconds")


def write_raven(tables: Iterable[pd.DataFrame], path: Path, config: Config) -> None:
    """A Raven selection table of one recording: tab-separated, a selection a detection over the whole of the mel range.

    The image has no word on which pitch a bird sang at, so every selection is as high as the image.
    """
    _write_lines(path, itertools.chain([RAVEN_COLUMNS], _selections(tables, config)))


def _selections(tables: Iterable[pd.DataFrame], config: Config) -> Iterator[tuple]:
    number = itertools.count(1)
    for found in tables:
        columns = [
            itertools.islice(number, len(found)),
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
            found["begins_at"].map(_moment),
        ]
        yield from zip(*columns, strict=True)


def write_audacity(tables: Iterable[pd.DataFrame], path: Path) -> None:
    """An Audacity label track of one recording: begin, end, then the name with its probability, tab-separated."""
    rows = (
        (f"{row.start_s:.6f}", f"{row.end_s:.6f}", f"{_cell(row.common_name)} {row.confidence:.2f}")
        for table in tables
        for row in table.itertuples()
    )
    _write_lines(path, rows)


def _write_lines(path: Path, rows: Iterable[tuple]) -> None:
    with replacing(path) as aside, open(aside, "w", encoding="utf-8") as file:
        file.writelines("\t".join(map(str, row)) + "\n" for row in rows)


def _cell(text: str) -> str:
    """Text without what would end its cell or its line."""
    return " ".join(str(text).split())
