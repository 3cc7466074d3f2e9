"""The whole of `birdlib predict`: recordings and models in, a folder of what was heard out.

OUT/predict.json                 which model, by which runtime, with which settings
OUT/rows/<recording>.parquet     every probability, a file a recording: an interrupted prediction goes on after
                                 these, and another format, threshold or species list is made of them at once
OUT/embeddings/<recording>.parquet   if they are asked for
OUT/errors.csv                   the recordings that could not be read: path, reason
OUT/submission.csv, table.csv (or .parquet), raven/, audacity/
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import cpu_count
from tqdm.auto import tqdm

from birdlib import audio, classifier, detections, exported, formats, kept, soundscapes
from birdlib.detections import Choice
from birdlib.kept import PredictError, Recording
from birdlib.parallel import Failure, map_files
from birdlib.soundscapes import Heard
from birdlib.writing import replacing

if TYPE_CHECKING:
    from birdlib.config import Config
    from birdlib.exported import Exported

FORMATS = ("submission", "table", "raven", "audacity")


@dataclass(frozen=True)
class Options:
    """How to predict.

    Attributes
    ----------
    format : one of `FORMATS`.
    choice : what counts as a detection; a submission has every probability and knows no detections.
    parquet : writes the table as Parquet and not as CSV.
    embeddings : keeps what the network makes of each row before its head; of one model alone.
    sample : the ``sample_submission.csv`` whose columns a submission takes; None: the one beside the recordings.
    budget_minutes : stop hearing then; a submission is filled up with class priors. None: go on to the end.
    workers : processes (0: one a core); it changes the speed and nothing else.
    cluster : the address of a Dask scheduler, whose workers then hear (`birdlib.parallel`).
    runtime : "auto", "openvino", "onnxruntime"; or "keras", of run folders.
    """

    format: str = "table"
    choice: Choice = field(default_factory=Choice)
    parquet: bool = False
    embeddings: bool = False
    sample: Path | None = None
    budget_minutes: float | None = None
    workers: int = 0
    runtime: str = "auto"
    cluster: str | None = None


class Summary(NamedTuple):
    """What came of a prediction.

    ``heard`` and ``kept`` count recordings: heard now, and known from an earlier call; ``failed`` is name -> reason;
    ``unreached`` are those the budget left out; ``filled`` rows of the submission are class priors; ``unknown`` are the
    classes of the submission that the model does not know; ``written`` is what was written; ``softmax`` whether
    detections were asked of a model that can only tell which, and not whether.
    """

    runtime: str
    heard: int
    kept: int
    failed: dict[str, str]
    unreached: list[str]
    filled: int
    unknown: list[str]
    written: Path
    softmax: bool

    def lines(self) -> list[str]:
        """The summary in words."""
        told = [f"by {self.runtime}: {self.heard:,} recordings heard, {self.kept:,} known already"]
        told += [f"{name}: {reason}" for name, reason in sorted(self.failed.items())[:10]]
        if len(self.failed) > 10:
            told.append(f"... and {len(self.failed) - 10:,} more in errors.csv")
        if self.unreached:
            told.append(f"the budget left {len(self.unreached):,} recordings unheard, the first {self.unreached[0]}")
        if self.filled:
            told.append(f"{self.filled:,} rows are filled with class priors")
        if self.unknown:
            told.append(f"not known to the model, so 0: {', '.join(self.unknown)}")
        if self.softmax:
            told.append("the model has a softmax: it names some species in every window, also where there is none")
        return [*told, f"written: {self.written}"]


def recordings(paths: Sequence[Path], config: Config) -> list[Recording]:
    """The audio files among files and folders, each by its name below what was given, sorted by it.

    A folder in BirdCLEF's layout gives its soundscapes (`birdlib.soundscapes.find`), any other all that is in it.

    Raises
    ------
    PredictError
        if a path is missing, if two files have the same name, or if there is no audio.
    """
    found: list[Recording] = []
    for path in map(Path, paths):
        if not path.exists():
            raise PredictError(f"{path}: no such file or folder")
        if any((path / folder).is_dir() for folder in ("test_soundscapes", "unlabeled_soundscapes")):
            found += [Recording(one, one.name) for one in soundscapes.find(path, config).paths]
        elif path.is_dir():
            inside = sorted(one for one in path.rglob("*") if audio.is_audio(one) and one.is_file())
            found += [Recording(one, one.relative_to(path).as_posix()) for one in inside]
        else:
            found.append(Recording(path, path.name))
    names = pd.Series([one.name for one in found], dtype=object)
    if names.duplicated().any():
        raise PredictError(f"two recordings are called {names[names.duplicated()].iloc[0]}: predict them one by one")
    if not found:
        raise PredictError(f"there is no audio in {', '.join(map(str, paths))} ({' '.join(audio.SUFFIXES)})")
    return sorted(found, key=lambda one: one.name)


def predict(paths: Sequence[Path], models: Sequence[Path], out: Path, config: Config, options: Options) -> Summary:
    """Hears recordings and writes what was heard.

    Parameters
    ----------
    paths : audio files, and folders of them.
    models : folders that `birdlib export` wrote, or run folders; several are averaged.
    config : the models' settings, with those for soundscapes as wanted; `together` gives them.

    Raises
    ------
    PredictError
        if the recordings, the options or the folder do not do.
    birdlib.exported.ExportError, birdlib.runtimes.MissingExtraError
        if a model cannot be used.
    """
    until = math.inf if options.budget_minutes is None else time.monotonic() + 60 * options.budget_minutes
    opened = [exported.read(Path(model)) for model in models]
    _refuse(options, opened)
    asked = recordings(paths, config)
    job = _Job(tuple(map(Path, models)), options.runtime, 0, config, options.embeddings)
    runtime = kept.settle(out, opened, config, options.runtime)
    left = [one for one in asked if not kept.has(out, one, options.embeddings)]
    failed, reached = _hear_all(job, left, out, options, opened, until)
    kept.write_errors(out, failed)
    unreached = [one for one in left if one.name not in reached]
    missing = set(failed) | {one.name for one in unreached}
    heard = kept.Kept(out, [one for one in asked if one.name not in missing])
    filled, unknown, written = _write(asked, heard, out, opened[0], config, options, paths)
    return Summary(
        runtime=runtime,
        heard=len(reached) - len(failed),
        kept=len(asked) - len(left),
        failed=failed,
        unreached=[one.name for one in unreached],
        filled=filled,
        unknown=unknown,
        written=written,
        softmax=options.format != "submission" and opened[0].about["activation"] == "softmax",
    )


def together(models: Sequence[Path], settings: dict[str, Any]) -> Config:
    """The settings of models that are to be averaged, with changed ones of the section ``soundscapes``.

    Raises
    ------
    PredictError
        if the models differ in their classes or in how they make an image of a sound.
    """
    first, *others = (exported.read(Path(model)) for model in models)
    for other in others:
        if list(other.species["primary_label"]) != list(first.species["primary_label"]):
            raise PredictError(f"{first.folder} and {other.folder} know other classes: they cannot be averaged")
        if any(
            getattr(other.config, name) != getattr(first.config, name) for name in ("audio", "chunks", "spectrogram")
        ):
            raise PredictError(
                f"{first.folder} and {other.folder} make other images of a sound: they cannot be averaged"
            )
    from birdlib import config as configs

    return configs.override(first.config, {f"soundscapes.{name}": value for name, value in settings.items()})


# ---- hearing


class _Job(NamedTuple):
    models: tuple[Path, ...]
    runtime: str
    threads: int
    config: Config
    embeddings: bool


def _hear_all(
    job: _Job, left: list[Recording], out: Path, options: Options, opened: list[Exported], until: float
) -> tuple[dict[str, str], set[str]]:
    """Hears and keeps; the failures (name -> reason), and the names that were reached."""
    failed: dict[str, str] = {}
    reached: set[str] = set()
    if not left or time.monotonic() >= until:
        return failed, reached
    # Keras shares its work out to all cores by itself; other runtimes do better with a core a recording.
    most = 1 if any(one.about["format"] == "keras" for one in opened) else options.workers or cpu_count()
    workers = min(most, len(left))
    threads = 1 if options.cluster else max(1, cpu_count() // workers)
    # Other processes may stand in another folder.
    job = job._replace(threads=threads, models=tuple(model.absolute() for model in job.models))
    left = [one._replace(path=one.path.absolute()) for one in left]
    needs = [*job.models, Path(os.path.commonpath([one.path.parent for one in left]))] if options.cluster else []
    # The longest first, so that no core waits for one at the end.
    order = sorted(left, key=lambda one: -one.path.stat().st_size)
    work, limit_s = functools.partial(_hear, job), _time_limit_s(left, job.config)
    results = map_files(work, order, limit_s, workers, cluster=options.cluster, needs=needs)
    with closing(results), tqdm(total=len(left), desc="hearing", unit="file", mininterval=1.0) as bar:
        for recording, result in results:
            bar.update()
            reached.add(recording.name)
            if isinstance(result, Failure):
                failed[recording.name] = result.reason.removeprefix(f"{recording.path}: ")
            else:
                kept.keep(out, recording, result, opened[0], job.config)
            if time.monotonic() >= until:
                break
    return failed, reached


def _hear(job: _Job, recording: Recording) -> Heard:
    """In the working process."""
    model = _loaded(job.models, job.runtime, job.threads)
    return soundscapes.hear(recording.path, model, job.config, job.embeddings)


@functools.lru_cache(maxsize=1)
def _loaded(models: tuple[Path, ...], runtime: str, threads: int) -> classifier.Classifier:
    return classifier.average([classifier.load(model, None, runtime, threads) for model in models])


def _time_limit_s(left: list[Recording], config: Config) -> float:
    """A recording that takes longer than it lasts hangs; one whose length is not known has an hour."""
    return max([config.compute.file_time_limit_s, *(duration_s(one.path, 3600.0) for one in left)])


def duration_s(path: Path, otherwise: float) -> float:
    """How long a recording is by its header; `otherwise` where that does not say."""
    try:
        found = audio.info(path).duration_s
    except audio.AudioError:
        return otherwise
    return otherwise if math.isnan(found) else found


# ---- what is written


def _write(asked, heard, out, model, config, options, paths) -> tuple[int, list[str], Path]:
    if options.format == "submission":
        return _write_submission(asked, heard, out, model, config, options, paths)
    tables = (
        detections.table(name, one.values, config.chunks.length_s, one.duration_s, model.species, options.choice)
        for name, one in heard.items()
    )
    if options.format == "table":
        path = out / ("table.parquet" if options.parquet else "table.csv")
        formats.write_table(tables, path)
        return 0, [], path
    for name, table in zip(heard, tables, strict=True):
        if options.format == "raven":
            formats.write_raven(table, out / "raven" / f"{name}.selections.txt", config)
        else:
            formats.write_audacity(table, out / "audacity" / f"{name}.txt")
    return 0, [], out / options.format


def _write_submission(asked, heard, out, model, config, options, paths) -> tuple[int, list[str], Path]:
    labels = model.species["primary_label"].tolist()
    share = model.species["share"].to_numpy(np.float32)
    tables, filled = [], 0
    for one, length_s in zip(asked, _lengths_s(asked, heard), strict=True):
        if one.name in heard:
            values = heard[one.name].values
        else:
            samples = round(length_s * config.audio.sample_rate_hz)
            values = np.tile(share, (soundscapes.count(samples, config.chunk_samples, config), 1))
            filled += len(values)
        tables.append(soundscapes.rows(one.path, values, labels, config))
    sample = options.sample or _beside(Path(paths[0]))
    table, unknown = soundscapes.submission(pd.concat(tables, ignore_index=True), labels, sample)
    with replacing(out / "submission.csv") as aside:
        table.to_csv(aside, index=False)
    return filled, unknown, out / "submission.csv"


def _lengths_s(asked: list[Recording], heard: kept.Kept) -> list[float]:
    """How long each recording is; one that cannot be read is taken to be as long as most, as a submission wants rows
    of it too."""
    found = [heard.duration_s(one.name) if one.name in heard else duration_s(one.path, math.nan) for one in asked]
    lengths = pd.Series(found)
    return lengths.fillna(lengths.median()).fillna(0.0).tolist()


def _beside(path: Path) -> Path:
    """Where ``sample_submission.csv`` would be: in the data folder, or beside the folder of soundscapes."""
    return next((folder for folder in (path, path.parent) if (folder / "sample_submission.csv").exists()), path.parent)


def _refuse(options: Options, opened: list[Exported]) -> None:
    if options.format not in FORMATS:
        raise PredictError(f"there is no format {options.format!r}; there are {', '.join(FORMATS)}")
    if options.embeddings and (len(opened) > 1 or len(opened[0].models) > 1 or opened[0].about["format"] == "keras"):
        raise PredictError("embeddings are of one exported model: name one folder, of a run with one fold")
    if options.choice.species is not None:
        known = set(opened[0].species["primary_label"])
        if not options.choice.species & known:
            raise PredictError("the model knows none of the species in the list: they are labels, one a line")


def choice(threshold: float, top_k: int | None, species: Path | None, merge: bool) -> Choice:
    """A choice of detections; `species` is a text file of labels, one a line, with comments after a #.

    Raises
    ------
    PredictError
        if the file cannot be read.
    birdlib.detections.DetectionError
        if a number is out of its range.
    """
    if species is None:
        return Choice(threshold, top_k, None, merge)
    try:
        lines = species.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PredictError(f"{species}: not readable as a species list: {error}") from None
    return Choice(threshold, top_k, frozenset(filter(None, (line.partition("#")[0].strip() for line in lines))), merge)
