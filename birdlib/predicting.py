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

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from birdlib import asked, audio, classifier, detections, exported, formats, hearing, kept, soundscapes, submissions
from birdlib.detections import Choice
from birdlib.kept import PredictError
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
        if the recordings, the options or the folder do not do, if another process predicts into that, or if a model
        cannot be loaded.
    birdlib.exported.ExportError, birdlib.runtimes.MissingExtraError
        if a model cannot be used.
    """
    until = math.inf if options.budget_minutes is None else time.monotonic() + 60 * options.budget_minutes
    out = out.absolute()  # pyarrow takes what stands before a colon for the name of a file system
    opened = [exported.read(Path(model)) for model in models]
    _refuse(options, opened)
    found, labels = asked.recordings(paths, config), opened[0].species["primary_label"].tolist()
    wanted, notes = None, [*asked.stand_ins(paths, config), *asked.unread(paths)]
    if options.format == "submission":
        wanted, note = asked.wanted(options.sample, paths, found, labels)
        notes.append(note)
    else:
        notes += asked.unknown_species(options.choice, labels)
    job = hearing.Job(tuple(map(Path, models)), options.runtime, config, options.embeddings)
    runtime = " and ".join(dict.fromkeys(classifier.runtime_of(one, options.runtime) for one in opened))
    with kept.locked(out):
        kept.settle(out, opened, config, runtime)
        left = hearing.unheard(found, out, options.embeddings)
        failed, reached = hearing.hear_all(job, left, out, opened, until, options.workers, options.cluster)
        kept.write_errors(out, failed)
        unreached = [one for one in left if one.name not in reached]
        missing = set(failed) | {one.name for one in unreached}
        heard = kept.Kept(out, [one for one in found if one.name not in missing])
        _remove(out, missing)
        filled, unknown, written = _write(found, heard, out, opened[0], config, options, wanted)
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


# ---- what is written

_FILES = {"raven": ".selections.txt", "audacity": ".txt"}  # the formats that are a file a recording; how its name ends


def _remove(out: Path, missing: set[str]) -> None:
    """Takes away the files of recordings that were not heard as they are now: what was heard before was another."""
    for name in missing:
        for format, suffix in _FILES.items():
            kept.own_file(out / format, name, suffix).unlink(missing_ok=True)


def _write(found, heard, out, model, config, options, wanted) -> tuple[int, list[str], Path]:
    if options.format == "submission":
        return _write_submission(found, heard, out, model, config, wanted)
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
        path = kept.own_file(out / options.format, name, _FILES[options.format])
        if options.format == "raven":
            formats.write_raven(pieces, path, config)
        else:
            formats.write_audacity(pieces, path)
    return 0, [], out / options.format


def _write_submission(found, heard, out, model, config, wanted) -> tuple[int, list[str], Path]:
    labels = model.species["primary_label"].tolist()
    share = model.species["share"].to_numpy(np.float32)
    known = [
        soundscapes.rows(one.path, heard[one.name].values, labels, config, wanted.prefix)
        for one in found
        if one.name in heard
    ]
    paths, table = [one.path for one in found], soundscapes.together(known, labels)
    lengths = hearing.durations_s
    table, filled = submissions.complete(table, paths, share, labels, config, lengths, wanted.prefix)
    table, unknown = submissions.submitted(table, labels, wanted.columns)
    with replacing(out / "submission.csv") as aside:
        table.to_csv(aside, index=False)
    return filled, unknown, out / "submission.csv"


def _refuse(options: Options, opened: list[Exported]) -> None:
    if options.format not in FORMATS:
        raise PredictError(f"there is no format {options.format!r}; there are {', '.join(FORMATS)}")
    if options.embeddings and (len(opened) > 1 or len(opened[0].models) > 1 or opened[0].about["format"] == "keras"):
        raise PredictError("embeddings are of one exported model: name one folder, of a run with one fold")
    if options.choice.species is not None:
        known = set(opened[0].species["primary_label"])
        if not options.choice.species & known:
            raise PredictError("the model knows none of the species in the list: they are labels, one a line")
