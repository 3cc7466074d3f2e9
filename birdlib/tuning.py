"""The paper's search for settings (its section IV.C): stage one for phase I, then stage two for phase II.

A trial trains as a run with its settings would, from the same seeds, on the run folder's own chunks and splits; what
the earlier notebooks made is not made again. It is judged by its lowest validation loss, the mean over the settings'
``folds``, and never sees the test. Stage two begins from the weights of stage one's best trial. With several folds, it
is by the first that a trial is pruned.

The loss of the best of many trials flatters: it was the lowest of that many draws on the same validation recordings.
Run the series with the settings that were found, and believe its test.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import pandas as pd

from birdlib import callbacks, device, models, plots, runs, search, sources, stages, standins, training
from birdlib import config as configs
from birdlib.config import ConfigError
from birdlib.search import Report, Search, TimeOverError, UnusableError
from birdlib.settings_tuning import Range
from birdlib.standins import Noted
from birdlib.writing import read_json, replacing

if TYPE_CHECKING:
    from birdlib.config import Config
    from birdlib.plots import Figure
    from birdlib.runs import Run

STAGE = "appendix_tuning"
BEST = "tuning/best.yaml"


class TuningError(RuntimeError):
    """A tuning that cannot go on: why, and what to do."""


def tune(
    run: Run,
    which: Sequence[int] = (1, 2),
    trials: int | None = None,
    storage: str | None = None,
    until: float | None = None,
) -> dict[int, Search]:
    """Searches until each stage has its trials, and writes what is best so far after each of them.

    Writes ``tuning/best.yaml``, which `birdlib run --config` takes, and ``tuning/trials_<stage>.csv``. What was stopped
    goes on where it was, and processes that share a database share the trials.

    Parameters
    ----------
    which : the stages; the second needs the first, now or before.
    trials : of each stage, in all; None: ``tuning.trials``.
    storage : the URL of a database; None: an SQLite file in the run folder.
    until : when to stop, by ``time.monotonic()``; a trial that runs then is put back.

    Raises
    ------
    birdlib.search.TimeOverError
        where time was over before the trials were done.
    TuningError, birdlib.search.SearchError, birdlib.config.ConfigError
        if stage two has nothing to begin from; for the database, or trials that all fail; for a space that cannot be.
    """
    trainer, done = _Trainer(run, storage, until), {}
    for stage in which:
        done[stage] = searched = trainer.begin(stage)
        try:
            title = f"tuning, stage {'one' if stage == 1 else 'two'}"
            objective, count = trainer.objective(stage, searched), trials or run.config.tuning.trials
            searched.run(objective, count, title, until, each=lambda: trainer.write(stage, searched))  # noqa: B023
        finally:
            trainer.write(stage, searched)
            standins.record(run, trainer.source.broken)
    return done


def open_folder(folder: Path, config: Config) -> Run:
    """A run folder whose first two notebooks are done, for `tune`; the folder is locked, but not against its like.

    Raises
    ------
    birdlib.stages.RunError
        if something else works in the folder, or a table is missing.
    """
    try:
        runs.lock(folder, "birdlib tune")
    except stages.RunError:
        if read_json(folder / ".lock.json").get("doing") != "birdlib tune":
            raise
    this = stages.stage(STAGE, appendices=True)
    runs.require_inputs(this, config, folder)
    return runs.Run(folder, config, this)


def figures(run: Run, stage: int, searched: Search) -> list[Figure]:
    """A stage's trials in their order, its settings against their losses, and its importances; kept in ``figures/``."""
    table, hung_on = searched.table(), f"Stage {stage}: what the loss hung on. {told_importance(searched)}"
    drawn = {
        "trials": plots.trials(table, f"Stage {stage}"),
        "tried": plots.tried(table, list(searched.space), searched.log_keys(), f"Stage {stage}: what was tried"),
        "importance": plots.importance(searched.importance(), hung_on),
    }
    return [run.save_figure(figure, f"{name}_stage_{stage}") for name, figure in drawn.items()]


def spaces(config: Config) -> pd.DataFrame:
    """What both stages search, a row a setting: stage, setting, values in words, and what it is now."""
    rows = [
        {"stage": stage, "setting": key, "values": _in_words(values), "now": str(configs.value(config, key))}
        for stage in (1, 2)
        for key, values in configs.space(config, stage).items()
    ]
    return pd.DataFrame(rows)


def summary(searched: Search) -> dict[str, Any]:
    """A stage's outcome as plain numbers: best trial, its loss and settings, how many trials finished, and how."""
    best, states = searched.best(), searched.table()["state"].value_counts()
    outcome = {"trial": None, "val_loss": None, "settings": {}} if best is None else {}
    if best:
        outcome = {"trial": best.number, "val_loss": best.loss, "settings": best.settings}
    return {**outcome, "trials": {state: int(states.get(state, 0)) for state in search.STATES.values()}}


def best_settings(config: Config, found: Mapping[int, Search]) -> Config:
    """The settings with those of each stage's best trial in them, as far as there is one."""
    for searched in found.values():
        if best := searched.best():
            config = configs.override(config, best.settings)
    return config


def told(searched: Search, stage: int) -> str:
    """What a stage has found, and how far to believe it, in two or three sentences."""
    best, table = searched.best(), searched.table()
    counts = [f"{(table['state'] == state).sum()} {state}" for state in search.STATES.values()]
    if best is None:
        return f"Stage {stage}: no trial has finished ({', '.join(counts)})."
    settings = ", ".join(f"{key}={_shown(value)}" for key, value in best.settings.items())
    return (
        f"Stage {stage}: trial {best.number} has the lowest validation loss, {best.loss:.4f}, of {len(table)} "
        f"({', '.join(counts)}): {settings}. As the best of {len(table)} tries on the same validation recordings, this "
        "loss is optimistic; a run's test, which no trial has seen, is not."
    )


def told_importance(searched: Search) -> str:
    """How many trials the importances are from, and whether these are few."""
    finished = (searched.table()["state"] == "finished").sum()
    if searched.importance().empty:
        return f"From {finished} finished trials no importance can be told."
    few = f"; under {search.FEW}, so that the order is mostly chance" if finished < search.FEW else ""
    return f"From {finished} finished trials{few}."


def _in_words(values: Range | tuple[Any, ...]) -> str:
    if isinstance(values, Range):
        return f"{values.low:g} to {values.high:g}{', logarithmic' if values.log else ''}"
    return " | ".join(map(str, values))


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class _Trainer:
    """Trains the trials of both stages on one run folder's data."""

    def __init__(self, run: Run, storage: str | None, until: float | None) -> None:
        self.run, self.until = run, until
        self.storage = storage or run.path("tuning/trials.db")
        self.base = run.config  # of the stage at work: stage one's best settings are in stage two's
        self.data = {fold: training.fold_of(run, fold) for fold in run.config.folds}
        self.source = Noted(sources.open_source(run))
        self.found: dict[int, Search] = {}

    def begin(self, stage: int) -> Search:
        """Opens a stage's study: another one for other settings or other data, so that what is compared can be."""
        if stage == 2:
            self._take_stage_one()
        space, tuning = configs.space(self.base, stage), self.base.tuning
        name = f"stage{stage}-{self._digest(stage, space)}"
        first = {key: configs.value(self.base, key) for key in space}
        self.found[stage] = search.begin(name, self.storage, space, first, tuning, self.base.seed)
        return self.found[stage]

    def objective(self, stage: int, searched: Search) -> search.Objective:
        """From a trial's settings to its loss."""

        def of(number: int, settings: dict[str, Any], report: Report) -> tuple[float, dict[str, Any]]:
            with tempfile.TemporaryDirectory(prefix="birdlib-tuning-") as folder:
                histories = {}
                for place, fold in enumerate(self.base.folds):
                    title, best = f"phase_{stage}, trial {number}, fold {fold}", self._weights(Path(folder), fold)
                    watch = self._watch(report if place == 0 else None)
                    histories[fold] = self._train(stage, settings, fold, best, title, watch)
                rows = pd.DataFrame([history.loc[history["val_loss"].idxmin()] for history in histories.values()])
                loss, so_far = float(rows["val_loss"].mean()), searched.best()
                if stage == 1 and (so_far is None or loss < so_far.loss):
                    self._keep_weights(number, Path(folder))
                epochs = sum(map(len, histories.values()))
                return loss, {"val_accuracy": float(rows["val_accuracy"].mean()), "epochs": epochs}

        return of

    def write(self, stage: int, searched: Search) -> None:
        """Writes what has been found so far."""
        with replacing(self.run.path(f"tuning/trials_{stage}.csv")) as aside:
            searched.table().to_csv(aside, index=False)
        if any(one.best() for one in self.found.values()):
            about = "\n".join(told(one, number) for number, one in self.found.items())
            about = textwrap.fill(about, 118, initial_indent="# ", subsequent_indent="# ")
            settings = configs.brief(best_settings(self.run.config, self.found))
            with replacing(self.run.path(BEST)) as aside:
                aside.write_text(f"{about}\n{settings}", encoding="utf-8")

    def _train(
        self, stage: int, settings: Mapping[str, Any], fold: int, best: Path, title: str, watch: Callable | None
    ) -> pd.DataFrame:
        """The history of one fold of a trial; its best classifier is saved as `best`."""
        keras.utils.clear_session()
        try:
            config = configs.override(self.base, settings)
            keras.utils.set_random_seed(training.keras_seed(config, stage, fold))
            with device.spread(config):
                model = self._model(stage, config, fold)
                return training.train(
                    model,
                    self.data[fold],
                    self.source,
                    config,
                    getattr(config, f"phase_{stage}"),
                    best,
                    title,
                    training.first_epoch(config, stage),
                    more=[watch] if watch else [],
                )
        except Exception as error:
            raise (UnusableError(_reason(error)) if _by_settings(error) else error) from None

    def _model(self, stage: int, config: Config, fold: int) -> keras.Model:
        if stage == 1:
            return models.build(config, len(self.data[fold].labels))
        return training.thawed(self._weights(self._kept_weights(), fold))

    def _watch(self, report: Report | None) -> keras.callbacks.Callback:
        """Tells the search of each epoch, and looks at the clock after each batch."""

        def in_time(batch: int, logs: dict | None = None) -> None:
            if self.until is not None and time.monotonic() >= self.until:
                raise TimeOverError

        def told(epoch: int, logs: dict | None = None) -> None:
            if report:
                report(epoch, float((logs or {})["val_loss"]))

        return keras.callbacks.LambdaCallback(on_train_batch_end=in_time, on_epoch_end=told)

    def _take_stage_one(self) -> None:
        """Puts stage one's best settings under stage two, and sees to its weights."""
        one = self.found.get(1) or self.begin(1)
        best = one.best()
        if best is None:
            raise TuningError("stage two begins from stage one's best weights, and none of its trials has finished yet")
        self.base = configs.override(self.base, best.settings)
        folder = self._kept_weights()
        for fold in self.base.folds:
            if not (path := self._weights(folder, fold)).exists():  # on the machine that trained them
                with replacing(path) as aside:
                    title = f"phase_1, trial {best.number} again, fold {fold}"
                    self._train(1, {}, fold, aside, title, self._watch(None))

    def _kept_weights(self) -> Path:
        """Where the weights of stage one's best trial are."""
        return self._of_trial(self.found[1].best().number)

    def _of_trial(self, number: int | str) -> Path:
        """Where the weights of a trial of stage one are kept; "*" is any."""
        return self.run.dir / "tuning" / f"{self.found[1].study.study_name}-trial{number}"

    def _keep_weights(self, number: int, folder: Path) -> None:
        """Keeps a trial's weights, the best so far, and drops those of the trials that it is better than."""
        kept = self._of_trial(number)
        before = [path for path in kept.parent.glob(self._of_trial("*").name) if path != kept]
        for path in folder.glob("*.keras"):
            with replacing(kept / path.name) as aside:
                shutil.copyfile(path, aside)
        for path in before:
            shutil.rmtree(path, ignore_errors=True)

    def _weights(self, folder: Path, fold: int) -> Path:
        return folder / f"phase_1_fold_{fold}.keras"

    def _digest(self, stage: int, space: Mapping[str, Any]) -> str:
        """What the losses of a stage's trials follow from, in short; the same on any machine."""
        read = {}
        for name in ("04_phase_1", "05_phase_2")[:stage]:
            read |= stages.settings(stages.stage(name), self.base)
        read.pop("comparison", None)
        sides = [side[["filename", "start_s", "primary_label"]] for data in self.data.values() for side in data[:2]]
        parts = [_placeless(read), {key: str(values) for key, values in space.items()}]
        parts += [hashlib.sha256(side.to_csv(index=False).encode()).hexdigest() for side in sides]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _placeless(value: Any) -> Any:
    """Settings with files by their names: they may lie elsewhere on another machine."""
    if isinstance(value, dict):
        return {key: _placeless(inner) for key, inner in value.items()}
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _by_settings(error: Exception) -> bool:
    """Whether it is a trial's settings that cannot be trained, and others may well be."""
    short = isinstance(error, MemoryError) or type(error).__name__ in ("ResourceExhaustedError", "OutOfMemoryError")
    known = isinstance(error, callbacks.TrainingError | models.ModelError | ConfigError)
    return known or short or "RESOURCE_EXHAUSTED" in str(error)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or "out of memory"
