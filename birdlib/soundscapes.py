"""Soundscapes: long recordings -> a row of probabilities every five seconds -> ``submission.csv``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from birdlib import audio

if TYPE_CHECKING:
    from birdlib.classifier import Classifier
    from birdlib.config import Config

SUFFIXES = (".ogg", ".wav", ".flac", ".mp3")


class Soundscapes(NamedTuple):
    """The soundscapes of a data folder, and which folder they are from ("" when there are none)."""

    paths: list[Path]
    folder: str


class Predictions(NamedTuple):
    """A table with row_id, filename, start_s and a column a class; and the files that could not be read."""

    table: pd.DataFrame
    problems: dict[str, str]


def find(data_dir: Path, config: Config) -> Soundscapes:
    """All of ``test_soundscapes/``; a few of ``unlabeled_soundscapes/`` where that is empty, as it is on Kaggle."""
    for folder, limit in (("test_soundscapes", None), ("unlabeled_soundscapes", config.testing.unlabeled_soundscapes)):
        paths = sorted(path for path in (data_dir / folder).glob("*") if path.suffix.lower() in SUFFIXES)[:limit]
        if paths:
            return Soundscapes(paths, folder)
    return Soundscapes([], "")


def windows(path: Path, config: Config) -> np.ndarray:
    """A soundscape cut into windows side by side: int16 (windows, samples), the last one zero-padded.

    Raises
    ------
    birdlib.audio.AudioError
        if it cannot be read, or holds nothing.
    """
    length = config.chunk_samples
    samples = audio.to_int16(audio.read(path, config.audio.sample_rate_hz))
    if not len(samples):
        raise audio.AudioError(f"{path}: holds no samples")
    return np.pad(samples, (0, -len(samples) % length)).reshape(-1, length)


def predict(paths: list[Path], classifier: Classifier, labels: list[str], config: Config) -> Predictions:
    """Probabilities of every window of every soundscape; a file that cannot be read is listed and left out.

    Returns
    -------
    table : row_id (``soundscape_<id>_<end second>``), filename, start_s (float64), then float32 columns `labels`.
    """
    tables, problems = [], {}
    for path in paths:
        try:
            found = windows(path, config)
        except audio.AudioError as error:
            problems[f"{path.parent.name}/{path.name}"] = str(error).removeprefix(f"{path}: ")
            continue
        probabilities = classifier.over(len(found), found.__getitem__, path.name)
        start_s = np.arange(len(found)) * config.chunks.length_s
        table = pd.DataFrame(probabilities.reshape(-1, len(labels)), columns=labels)
        table.insert(0, "row_id", [row_id(path, start + config.chunks.length_s) for start in start_s])
        table.insert(1, "filename", path.name)
        table.insert(2, "start_s", start_s)
        tables.append(table)
    nothing = pd.DataFrame(columns=["row_id", "filename", "start_s", *labels])
    return Predictions(pd.concat(tables, ignore_index=True) if tables else nothing, problems)


def truth(data_dir: Path, filename: str) -> pd.DataFrame | None:
    """What sings in a soundscape, where ``test_soundscapes_truth.csv`` says so: start_s, end_s, primary_label."""
    path = data_dir / "test_soundscapes_truth.csv"
    if not path.exists():
        return None
    table = pd.read_csv(path)
    return table[table["filename"] == filename].reset_index(drop=True)


def row_id(path: Path, end_s: float) -> str:
    """The competition's name of a window: ``soundscape_<id>_<end second>``."""
    stem = path.stem if path.stem.startswith("soundscape_") else f"soundscape_{path.stem}"
    return f"{stem}_{round(end_s)}"


def submission(predictions: pd.DataFrame, labels: list[str], data_dir: Path) -> tuple[pd.DataFrame, list[str]]:
    """The table to submit: row_id, then the columns of ``sample_submission.csv`` in its order (else `labels`).

    Returns
    -------
    table, unknown : the classes in ``unknown`` are asked for and not known to the model; their column is 0.
    """
    sample = data_dir / "sample_submission.csv"
    columns = list(pd.read_csv(sample, nrows=0).columns[1:]) if sample.exists() else labels
    unknown = [column for column in columns if column not in labels]
    table = predictions.reindex(columns=["row_id", *columns])
    table[unknown] = 0.0
    return table, unknown
