"""The whole of `birdlib predict`: recordings and models in, a folder of what was heard out.

OUT/predict.json                 which model, by which runtime, with which settings
OUT/rows/<recording>.parquet     every probability, a file a recording: an interrupted prediction goes on after
                                 these, and another format, threshold or species list is made of them at once
                                 (`birdlib.kept.own_file` shortens a name that would be too long)
OUT/embeddings/<recording>.parquet   if they are asked for
OUT/errors.csv                   the recordings that could not be read: path, reason
OUT/submission.csv, table.csv (or .parquet), raven/, audacity/
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import cpu_count
from tqdm.auto import tqdm

from birdlib import asked, audio, classifier, detections, exported, formats, kept, soundscapes
from birdlib.detections import Choice
from birdlib.kept import PredictError, Recording
from birdlib.parallel import Failure, map_files
from birdlib.processes import why
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
    detections were asked of a model that can only tell which, and not whether; ``notes`` are what else is to be known.
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
    notes: list[str]

    @property
    def nothing(self) -> bool:
        """Whether recordings failed, and all that were reached did."""
        return bool(self.failed) and not self.heard and not self.kept

    def lines(self) -> list[str]:
        """The summary in words, as a terminal may have them."""
        told = [f"by {self.runtime}: {self.heard:,} recordings heard, {self.kept:,} known already"]
        told += [f"{name}: {reason}" for name, reason in sorted(self.failed.items())[:10]]
        if len(self.failed) > 10:
            told.append(f"... and {len(self.failed) - 10:,} more in errors.csv")
        if self.unreached:
            told.append(f"the budget left {len(self.unreached):,} recordings unheard, the first {self.unreached[0]}")
        if self.filled:
            told.append(f"{self.filled:,} rows are filled with class priors")
        told += self.notes
        if self.unknown:
            told.append(f"not known to the model, so 0: {', '.join(self.unknown)}")
        if self.softmax:
            told.append("the model has a softmax: it names some species in every window, also where there is none")
        return [audio.printable(line) for line in (*told, f"written: {self.written}")]


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
        if the recordings, the options or the folder do not do, or a model cannot be loaded.
    birdlib.exported.ExportError, birdlib.runtimes.MissingExtraError
        if a model cannot be used.
    """
    until = math.inf if options.budget_minutes is None else time.monotonic() + 60 * options.budget_minutes
    opened = [exported.read(Path(model)) for model in models]
    _refuse(options, opened)
    found, labels = asked.recordings(paths, config), opened[0].species["primary_label"].tolist()
    columns, notes = [], [*asked.stand_ins(paths, config), *asked.unread(paths)]
    if options.format == "submission":
        columns, note = asked.columns(options.sample, paths, found, labels)
        notes.append(note)
    else:
        notes += asked.unknown_species(options.choice, labels)
    job = _Job(tuple(map(Path, models)), options.runtime, 0, config, options.embeddings)
    runtime = kept.settle(out, opened, config, options.runtime)
    left = _unheard(found, out, options.embeddings)
    failed, reached = _hear_all(job, left, out, options, opened, until)
    kept.write_errors(out, failed)
    unreached = [one for one in left if one.name not in reached]
    missing = set(failed) | {one.name for one in unreached}
    heard = kept.Kept(out, [one for one in found if one.name not in missing])
    filled, unknown, written = _write(found, heard, out, opened[0], config, options, columns)
    return Summary(
        runtime=runtime,
        heard=len(reached) - len(failed),
        kept=len(found) - len(left),
        failed=failed,
        unreached=[one.name for one in unreached],
        filled=filled,
        unknown=unknown,
        written=written,
        softmax=options.format != "submission" and opened[0].about["activation"] == "softmax",
        notes=notes,
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


class _NotLoaded(NamedTuple):
    """What hearing a recording gives where the model cannot be loaded, which is not the recording's fault."""

    reason: str


def _unheard(found: list[Recording], out: Path, embeddings: bool) -> list[Recording]:
    """Those that were not heard before. To know them a little of each is read: many at once, for disks far away."""
    if not (out / "rows").exists():
        return found
    with ThreadPoolExecutor(16) as pool, tqdm(found, "known already?", unit="file", delay=2, leave=False) as bar:
        known = list(pool.map(lambda one: (kept.has(out, one, embeddings), bar.update())[0], found))
    return [one for one, heard in zip(found, known, strict=True) if not heard]


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
    order = sorted(left, key=lambda one: -_bytes(one.path))
    work, limit_s = functools.partial(_hear, job), _time_limit_s(left, job.config)
    results = map_files(work, order, limit_s, workers, cluster=options.cluster, needs=needs)
    with closing(results), tqdm(total=len(left), desc="hearing", unit="file", mininterval=1.0) as bar:
        for recording, result in results:
            bar.update()
            if isinstance(result, _NotLoaded):
                raise _unloadable(job.models, result.reason)
            reached.add(recording.name)
            if isinstance(result, Failure):
                failed[recording.name] = result.reason.removeprefix(f"{recording.path}: ")
            else:
                mark, heard = result
                kept.keep(out, recording, heard, opened[0], job.config, mark)
            if time.monotonic() >= until:
                break
    return failed, reached


def _hear(job: _Job, recording: Recording) -> tuple[str, Heard] | _NotLoaded:
    """In the working process. The recording's stamp is from before: one that is still written to is heard again."""
    try:
        model = _loaded(job.models, job.runtime, job.threads)
    except Exception as error:
        return _NotLoaded(why(error))
    return kept.stamp(recording.path), soundscapes.hear(recording.path, model, job.config, job.embeddings)


def require_loadable(models: Sequence[Path]) -> None:
    """Loads models that nothing is to be heard with yet. Raises `PredictError` where they cannot be."""
    try:
        _loaded(tuple(models), "auto", 0)
    except Exception as error:
        raise _unloadable(models, why(error)) from None


def _unloadable(models: Sequence[Path], reason: str) -> PredictError:
    names = " and ".join(map(str, models))
    return PredictError(f"{names} cannot be loaded ({reason}): copy the whole folder again, or make it anew")


def _bytes(path: Path) -> int:
    """0 for what is gone, or a link to nowhere: hearing it says so."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


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


def _write(found, heard, out, model, config, options, columns) -> tuple[int, list[str], Path]:
    if options.format == "submission":
        return _write_submission(found, heard, out, model, config, columns)
    row_s, choice = config.chunks.length_s, options.choice
    tables = (
        detections.tables(audio.as_text(name), one.values, row_s, one.duration_s, model.species, choice)
        for name, one in heard.items()
    )
    if options.format == "table":
        path = out / ("table.parquet" if options.parquet else "table.csv")
        formats.write_table(itertools.chain.from_iterable(tables), path)
        return 0, [], path
    for name, pieces in zip(heard, tables, strict=True):
        if options.format == "raven":
            formats.write_raven(pieces, kept.own_file(out / "raven", name, ".selections.txt"), config)
        else:
            formats.write_audacity(pieces, kept.own_file(out / "audacity", name, ".txt"))
    return 0, [], out / options.format


def _write_submission(found, heard, out, model, config, columns) -> tuple[int, list[str], Path]:
    labels = model.species["primary_label"].tolist()
    share = model.species["share"].to_numpy(np.float32)
    tables, filled = [], 0
    for one, length_s in zip(found, _lengths_s(found, heard), strict=True):
        if one.name in heard:
            values = heard[one.name].values
        else:
            samples = round(length_s * config.audio.sample_rate_hz)
            values = np.tile(share, (soundscapes.count(samples, config.chunk_samples, config), 1))
            filled += len(values)
        tables.append(soundscapes.rows(one.path, values, labels, config))
    table, unknown = soundscapes.submitted(pd.concat(tables, ignore_index=True), labels, columns)
    with replacing(out / "submission.csv") as aside:
        table.to_csv(aside, index=False)
    return filled, unknown, out / "submission.csv"


def _lengths_s(found: list[Recording], heard: kept.Kept) -> list[float]:
    """How long each recording is; one that cannot be read is taken to be as long as most, as a submission wants rows
    of it too."""
    known = [heard.duration_s(one.name) if one.name in heard else duration_s(one.path, math.nan) for one in found]
    lengths = pd.Series(known)
    return lengths.fillna(lengths.median()).fillna(0.0).tolist()


def _refuse(options: Options, opened: list[Exported]) -> None:
    if options.format not in FORMATS:
        raise PredictError(f"there is no format {options.format!r}; there are {', '.join(FORMATS)}")
    if options.embeddings and (len(opened) > 1 or len(opened[0].models) > 1 or opened[0].about["format"] == "keras"):
        raise PredictError("embeddings are of one exported model: name one folder, of a run with one fold")
    if options.choice.species is not None:
        known = set(opened[0].species["primary_label"])
        if not options.choice.species & known:
            raise PredictError("the model knows none of the species in the list: they are labels, one a line")
