"""A search over settings as an Optuna study: trials that are counted, seeded by their turn, shared, and gone on with.

What a trial does is the caller's, a function from settings to a loss; nothing here knows of training. A study lies in a
database, SQLite or any other that Optuna takes, and any number of processes add trials to it. A trial that was stopped
is not counted but put back, and is the next one to run: at once after Ctrl-C, and when its process has given no sign of
life for `birdlib.studies.GRACE_S` after anything worse.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from birdlib import studies
from birdlib.settings_tuning import Range

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

    from birdlib.settings_tuning import Space, Tuning

LOOK_S = 2.0  # how often it is looked whether the trials of others have ended
FEW = 30  # with fewer finished trials, importances are mostly chance
STATES = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}

Report = Callable[[int, float], None]  # told of each epoch and its validation loss; raises to prune
Objective = Callable[[int, dict[str, Any], Report], tuple[float, dict[str, Any]]]


class UnusableError(Exception):
    """Raised by an objective: its settings cannot be trained. The trial counts, as failed, with this as its reason."""


class TimeOverError(Exception):
    """Raised by an objective: the time of the search is over. Its trial is put back."""


class Best(NamedTuple):
    """A search's best trial: its number, its loss, and its settings."""

    number: int
    loss: float
    settings: dict[str, Any]


class Search:
    """A study. Get one from `begin`."""

    def __init__(self, study: optuna.Study, space: Space) -> None:
        self.study, self.space = study, space

    def run(
        self,
        objective: Objective,
        trials: int,
        description: str,
        until: float | None = None,
        each: Callable[[], None] = lambda: None,
    ) -> None:
        """Tries settings until the study has so many trials, those of other processes among them.

        Parameters
        ----------
        objective : from a trial's number, settings and `Report` to the loss that is to be small, and what else is to be
            kept of the trial.
        until : no trial begins after this, by ``time.monotonic()``.
        each : called after each trial of this process.

        Raises
        ------
        TimeOverError
            where time was over before.
        SearchError
            if the first trials all fail, or the database does.
        """
        with studies.database(), tqdm(total=trials, desc=description, unit="trial", mininterval=0.5) as bar:
            waited = False
            while (done := self._show(bar)) < trials:
                if until is not None and time.monotonic() >= until:
                    raise TimeOverError
                if done + len(self._running()) < trials or self._waiting():
                    self._one(objective, trials)
                    each()
                    continue
                if not waited:
                    bar.write(f"{description}: waiting for trials that run elsewhere, or have ended without a word")
                waited = True
                time.sleep(LOOK_S)
                studies.quietly(studies.loaded().storages.fail_stale_trials, self.study)
            self._show(bar)

    def best(self) -> Best | None:
        """The finished trial with the lowest loss; None if none has finished."""
        finished = [trial for trial in self._trials() if trial.state.name == "COMPLETE"]
        if not finished:
            return None
        one = min(finished, key=lambda trial: (trial.value, trial.number))
        return Best(one.number, float(one.value), dict(one.params))

    def counted(self) -> int:
        """How many trials have finished, were pruned, or have failed by their settings."""
        return sum(studies.counts(trial) for trial in self._trials())

    def table(self) -> pd.DataFrame:
        """The trials that count, a row each, in their order.

        Returns
        -------
        table : trial, state ("finished", "pruned" or "failed"), val_loss (of a pruned trial its last epoch's), a column
            a searched key, then what the objective gave besides, reason (of those that failed), worker, seconds.
        """
        rows = []
        for trial in filter(studies.counts, self._trials()):
            taken = (trial.datetime_complete - trial.datetime_start).total_seconds()
            front = {"trial": trial.number, "state": STATES[trial.state.name], "val_loss": trial.value}
            settings = {key: trial.params.get(key) for key in self.space}
            more = {name: value for name, value in trial.user_attrs.items() if name != "died"}
            rows.append({**front, **settings, **more, "seconds": round(taken, 1)})
        return pd.DataFrame(rows, columns=None if rows else ["trial", "state", "val_loss", *self.space])

    def log_keys(self) -> list[str]:
        """The keys whose ranges are logarithmic."""
        return [key for key, values in self.space.items() if isinstance(values, Range) and values.log]

    def importance(self) -> pd.Series:
        """How much of the finished trials' differences each key explains (fANOVA), from 0 to 1, largest first.

        Empty where there is nothing to explain: under four finished trials, or all with one loss. With fewer than
        `FEW`, it is mostly chance.
        """
        optuna = studies.loaded()
        losses = [trial.value for trial in self._trials() if trial.state.name == "COMPLETE"]
        if len(losses) < 4 or len(set(losses)) == 1:
            return pd.Series(dtype=float, name="importance")
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = studies.quietly(optuna.importance.get_param_importances, self.study, evaluator=evaluator)
        return pd.Series(found, name="importance").sort_values(ascending=False, kind="stable")

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _running(self) -> list[FrozenTrial]:
        return [trial for trial in self._trials() if trial.state.name == "RUNNING"]

    def _waiting(self) -> bool:
        """Whether a trial was put back that has not begun again."""
        return any(trial.state.name == "WAITING" for trial in self._trials())

    def _show(self, bar: tqdm) -> int:
        bar.n = done = self.counted()
        if best := self.best():
            bar.set_postfix({"best": f"{best.loss:.4f}", "trial": best.number}, refresh=False)
        bar.refresh()
        return done

    def _one(self, objective: Objective, trials: int) -> None:
        """Runs a trial; if it is stopped, it is put back."""
        begun: list[int] = []
        given_up = False

        def tried(trial: Trial) -> float:
            nonlocal given_up
            begun.append(trial.number)
            try:
                return self._tried(trial, objective, trials)
            finally:
                given_up = self._trials()[trial.number].state.name != "RUNNING"

        try:
            studies.quietly(self.study.optimize, tried, n_trials=1, catch=(_Left,))
        except (KeyboardInterrupt, TimeOverError):
            if begun and not given_up:
                studies.put_back(self.study, self._trials()[begun[0]])
            raise
        except Exception:
            if not given_up:  # for dead, and put back: this computer must have slept
                raise
        self._refuse_to_fail_on()

    def _tried(self, trial: Trial, objective: Objective, trials: int) -> float:
        optuna = studies.loaded()
        params = {key: _suggested(trial, key, values) for key, values in self.space.items()}
        if studies.turn(self.study, trial.number) >= trials:
            raise _Left  # two processes began the last trial at once
        trial.set_user_attr("worker", socket.gethostname())
        if same := self._same(trial.number, params):
            trial.set_user_attr("same_as", same.number)
            if same.state.name == "PRUNED":
                raise optuna.TrialPruned
            return same.value

        def report(epoch: int, loss: float) -> None:
            trial.report(loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            loss, more = objective(trial.number, params, report)
        except UnusableError as error:
            trial.set_user_attr("reason", str(error))
            raise _Left from None
        for name, value in more.items():
            trial.set_user_attr(name, value)
        return loss

    def _same(self, number: int, params: Mapping[str, Any]) -> FrozenTrial | None:
        """An earlier trial with the same settings, whose outcome would be the same."""
        ended = [trial for trial in self._trials()[:number] if trial.state.name in ("COMPLETE", "PRUNED")]
        return next((trial for trial in ended if trial.params == params and trial.value is not None), None)

    def _refuse_to_fail_on(self, most: int = 3) -> None:
        counted = [trial for trial in self._trials() if studies.counts(trial)]
        if len(counted) >= most and all(trial.state.name == "FAIL" for trial in counted):
            reason = counted[-1].user_attrs["reason"]
            raise studies.SearchError(f"all of the first {len(counted)} trials failed, the last one so: {reason}")


class _Left(Exception):
    """Ends a trial as failed, while the search goes on."""


def begin(
    name: str, storage: str | Path, space: Space, first: Mapping[str, Any], settings: Tuning, seed: int
) -> Search:
    """Opens the study of this name, or makes it; `first` is then its first trial, as far as it lies in the space.

    Parameters
    ----------
    storage : the file of an SQLite database, or the URL of any that Optuna takes.
    seed : rules what is tried: the same seed gives one process the same trials, whether it was stopped or not.

    Raises
    ------
    SearchError
        if Optuna is missing, or the database cannot be opened.
    """
    optuna = studies.loaded()
    with studies.database():
        opened = studies.opened(storage)
        sampler, pruner = studies.sampler(seed, name, settings), studies.pruner(settings)
        try:
            study = optuna.create_study(storage=opened, study_name=name, sampler=sampler, pruner=pruner)
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=opened, study_name=name, sampler=sampler, pruner=pruner)
        else:
            if inside := {key: _label(value) for key, value in first.items() if _holds(space[key], value)}:
                study.enqueue_trial(inside)
    return Search(study, space)


def _suggested(trial: Trial, key: str, values: Range | tuple[Any, ...]) -> Any:
    if not isinstance(values, Range):
        return trial.suggest_categorical(key, [_label(value) for value in values])
    if _whole(values):
        return trial.suggest_int(key, int(values.low), int(values.high), log=values.log)
    return trial.suggest_float(key, values.low, values.high, log=values.log)


def _whole(values: Range) -> bool:
    return isinstance(values.low, int) and isinstance(values.high, int)


def _label(value: Any) -> Any:
    """A choice as a database can hold it, and as a setting takes it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def _holds(values: Range | tuple[Any, ...], value: Any) -> bool:
    if isinstance(values, Range):
        return isinstance(value, int | float) and values.low <= value <= values.high
    return value in values
