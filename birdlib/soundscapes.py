"""Soundscapes: recordings of any length -> a row of probabilities every five seconds.

A recording is heard in windows of a chunk's length, which begin every ``soundscapes.step_s`` and may overlap. Rows are
as long, side by side; a row's probabilities are the mean of the windows that overlap it, each weighing as much as it
overlaps. With a step of a chunk's length, a row is a window. Recordings are read from front to back: memory holds a
batch of windows and the rows made so far, however many windows there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from birdlib import audio, evaluation, intervals

if TYPE_CHECKING:
    from birdlib.classifier import Classifier
    from birdlib.config import Config

# What is left of a recording beyond its last window is no window of its own if it is shorter: decoding and resampling
# may leave a sample too many.
REST_S = 0.1
PREFIX = "soundscape_"  # what row ids began with up to 2025; in 2026 they begin with the file's name


class Soundscapes(NamedTuple):
    """Soundscapes of a data folder, which folder they are from ("" when there are none), and how many that holds."""

    paths: list[Path]
    folder: str
    there: int


class Heard(NamedTuple):
    """What a classifier makes of one recording, in rows of a chunk's length.

    ``values`` float32 (rows, classes); ``duration_s`` of the recording; ``embeddings`` float32 (rows, features), where
    they are asked for.
    """

    values: np.ndarray
    duration_s: float
    embeddings: np.ndarray | None = None


class Predictions(NamedTuple):
    """A table with row_id, filename, start_s and a column a class; and the files that could not be read."""

    table: pd.DataFrame
    problems: dict[str, str]


def find(data_dir: Path, config: Config) -> Soundscapes:
    """All of ``test_soundscapes/``; a few of ``unlabeled_soundscapes/`` where that is empty, as it is on Kaggle."""
    for folder, limit in (("test_soundscapes", None), ("unlabeled_soundscapes", config.testing.unlabeled_soundscapes)):
        there = sorted(path for path in (data_dir / folder).glob("*") if audio.is_audio(path))
        if paths := there[:limit]:
            return Soundscapes(paths, folder, len(there))
    return Soundscapes([], "", 0)


def count(samples: int, step: int, config: Config) -> int:
    """Windows of a recording of so many samples that begin every `step` samples: they reach its end, and no further.

    One at least, however short the recording, unless it is empty.
    """
    rest = samples - config.chunk_samples - round(REST_S * config.audio.sample_rate_hz)
    return 1 + max(0, math.ceil(rest / step)) if samples else 0


class Windows:
    """A recording's windows from front to back, each int16 (samples,), the last zero-padded; to be gone over once.

    ``samples`` is how many samples have been read so far. Going over them raises `birdlib.audio.AudioError` when it
    comes to what cannot be read, and if there is no audio at all in the file.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config, self.samples = path, config, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        length, step = self.config.chunk_samples, self.config.window_step_samples
        held, given = np.zeros(0, np.int16), 0
        for block in audio.blocks(self.path, self.config.audio.sample_rate_hz):
            held, self.samples = np.concatenate([held, audio.to_int16(block)]), self.samples + len(block)
            while len(held) >= length:
                yield held[:length]
                held, given = held[step:], given + 1
        if not self.samples:
            raise audio.AudioError(f"{self.path}: holds no samples")
        if given < count(self.samples, step, self.config):
            yield np.pad(held, (0, length - len(held)))


class Averaged:
    """Windows, added from front to back -> rows: the mean of the windows that overlap each, by their overlap.

    A row is made when it is passed by: of windows that begin a fifth of a second apart there are 25 a row, and those of
    a long recording would fill the memory.
    """

    def __init__(self, config: Config) -> None:
        self.length, self.step = config.chunk_samples, config.window_step_samples
        self.made: list[np.ndarray] = []
        self.open: dict[int, tuple[np.ndarray, int]] = {}  # row -> the weighted sum so far, and the sum of the weights
        self.added = 0

    def add(self, windows: np.ndarray) -> None:
        """The next windows (windows, anything)."""
        self.dtype = windows.dtype
        if self.step == self.length:
            self.made += list(windows)
            return
        for window in windows:
            row, within = divmod(self.step * self.added, self.length)
            self._close(row)
            self._weigh(row, window, self.length - within)
            self._weigh(row + 1, window, within)
            self.added += 1

    def rows(self, count: int) -> np.ndarray:
        """The first so many rows (count, anything), of the windows added; to be asked for at the end."""
        self._close(math.inf)
        return np.stack(self.made[:count])

    def _weigh(self, row: int, window: np.ndarray, weight: int) -> None:
        if weight:
            total, weights = self.open.get(row, (0.0, 0))
            self.open[row] = total + np.multiply(window, weight, dtype=np.float64), weights + weight

    def _close(self, before: float) -> None:
        """Makes the rows before this one, which no further window overlaps."""
        for row in [row for row in self.open if row < before]:
            total, weights = self.open.pop(row)
            self.made.append((total / weights).astype(self.dtype))


def smoothed(values: np.ndarray, neighbours: float, file_mean: float) -> np.ndarray:
    """Rows (rows, classes) of one recording, each drawn towards those beside it and then to the recording's mean.

    Parameters
    ----------
    neighbours : share of each of the two rows beside it, 0 to 0.5; at an end, the row itself stands in.
    file_mean : share of the mean over the recording, 0 to 1.
    """
    if neighbours and len(values):
        before, after = np.concatenate([values[:1], values[:-1]]), np.concatenate([values[1:], values[-1:]])
        values = (1 - 2 * neighbours) * values + neighbours * (before + after)
    if file_mean and len(values):
        values = (1 - file_mean) * values + file_mean * values.mean(axis=0, keepdims=True)
    return values.astype(np.float32, copy=False)


def hear(path: Path, classifier: Classifier, config: Config, embeddings: bool = False) -> Heard:
    """One recording as the settings want it: in windows, averaged to rows, smoothed.

    Raises
    ------
    birdlib.audio.AudioError
        if it cannot be read to its end.
    """
    found = Windows(path, config)
    values, features = Averaged(config), Averaged(config)
    for images in classifier.batches(found):
        said, *made = classifier.outputs(images) if embeddings else (classifier.predict(images),)
        values.add(said)
        for each in made:
            features.add(each)
    rows = count(found.samples, config.chunk_samples, config)
    settings = config.soundscapes
    said = smoothed(values.rows(rows), settings.neighbours, settings.file_mean)
    made = features.rows(rows) if embeddings else None
    return Heard(said, found.samples / config.audio.sample_rate_hz, made)


def predict(
    paths: list[Path], classifier: Classifier, labels: list[str], config: Config, prefix: str = PREFIX
) -> Predictions:
    """Probabilities of every row of every soundscape; a file that cannot be read is listed and left out.

    Returns
    -------
    table : as `rows` gives it, one recording after the other.
    """
    tables, problems = [], {}
    for path in tqdm(paths, desc="soundscapes", unit="file", mininterval=1.0):
        try:
            tables.append(rows(path, hear(path, classifier, config).values, labels, config, prefix))
        except audio.AudioError as error:
            name = audio.as_text(f"{path.parent.name}/{path.name}")
            problems[name] = audio.as_text(str(error).removeprefix(f"{path}: "))
    return Predictions(together(tables, labels), problems)


def together(tables: Sequence[pd.DataFrame], labels: list[str]) -> pd.DataFrame:
    """Rows of recordings, as `rows` gives them, one below the other; no rows where there are no recordings."""
    nothing = pd.DataFrame(columns=["row_id", "filename", "start_s", *labels])
    return pd.concat(tables, ignore_index=True) if tables else nothing


def rows(path: Path, values: np.ndarray, labels: list[str], config: Config, prefix: str = PREFIX) -> pd.DataFrame:
    """A recording's rows as a table: `row_id`, filename, start_s, a column a class."""
    start_s = np.arange(len(values)) * config.chunks.length_s
    table = pd.DataFrame(values, columns=labels, dtype="float32")
    table.insert(0, "row_id", [row_id(path, start + config.chunks.length_s, prefix) for start in start_s])
    table.insert(1, "filename", audio.as_text(path.name))
    table.insert(2, "start_s", start_s)
    return table


def truth(data_dir: Path, filename: str) -> pd.DataFrame | None:
    """What sings in a soundscape, where ``test_soundscapes_truth.csv`` says so: start_s, end_s, primary_label."""
    table = _truths(data_dir)
    return None if table is None else table[table["filename"] == filename].reset_index(drop=True)


def _truths(data_dir: Path) -> pd.DataFrame | None:
    """All of ``test_soundscapes_truth.csv``. A label may read as a number, or as "nan": it is text."""
    path = data_dir / "test_soundscapes_truth.csv"
    if not path.exists():
        return None
    text = {"filename": "str", "primary_label": "str"}
    return pd.read_csv(path, dtype=text, na_values={"start_s": [""], "end_s": [""]}, keep_default_na=False)


def present(table: pd.DataFrame, truths: pd.DataFrame, labels: list[str], config: Config) -> np.ndarray:
    """Which species sing in which row: bool (rows, classes).

    Parameters
    ----------
    table : filename and start_s of each row.
    truths : filename, start_s, end_s, primary_label; a song that only touches a row is not in it.
    """
    found, length_s = np.zeros((len(table), len(labels)), bool), config.chunks.length_s
    names, start_s = table["filename"].to_numpy(), table["start_s"].to_numpy(float)
    place = {label: at for at, label in enumerate(labels)}
    for song in truths.itertuples():
        if song.primary_label in place:
            within = (start_s < song.end_s) & (song.start_s < start_s + length_s) & (names == song.filename)
            found[within, place[song.primary_label]] = True
    return found


class Score(NamedTuple):
    """How well rows say what sings in them: macro ROC-AUC over the ``species`` that sing in some row, of ``rows``.

    Its interval, in ``intervals``, resamples whole soundscapes.
    """

    macro_roc_auc: float
    species: int
    rows: int
    intervals: dict[str, list[float]]


def score(table: pd.DataFrame, labels: list[str], data_dir: Path, config: Config) -> Score | None:
    """Scores rows as the competition does; None where ``test_soundscapes_truth.csv`` knows none of their recordings."""
    truths = _truths(data_dir)
    if truths is None or (known := table[table["filename"].isin(truths["filename"])].reset_index(drop=True)).empty:
        return None
    sings, said = present(known, truths, labels, config), known[labels].to_numpy()
    weights = np.vstack([np.ones((1, len(known)), np.int32), intervals.resampled(known["filename"], config.seed)])
    areas = np.array([intervals.ranking(yes, of, weights)[0] for yes, of in zip(sings.T, said.T, strict=True)])
    value, *limits = evaluation.bounded(evaluation.over_classes(areas.T), known["filename"])
    return Score(value, int(np.isfinite(areas[:, 0]).sum()), len(known), {"macro_roc_auc": limits})


def row_id(path: Path, end_s: float, prefix: str = PREFIX) -> str:
    """The competition's name of a row, ``<prefix><id>_<end second>``; a file's name may have the prefix itself."""
    stem = audio.as_text(path.stem)
    return f"{stem if stem.startswith(prefix) else prefix + stem}_{round(end_s)}"
