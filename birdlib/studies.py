"""Optuna's side of a search: the database, what it does with a trial that died, whose turn draws what, when to prune.

Optuna is imported where it is used: it is an extra.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from birdlib import chance

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from birdlib.settings_tuning import Tuning

HEARTBEAT_S, GRACE_S = 15, 90  # how often a trial says that it runs; when it is given up
RETRIES = 2  # of a trial whose process died, which may be the trial's own doing


class SearchError(RuntimeError):
    """A search that cannot be made as asked: what is wrong, and what to do."""


def loaded() -> Any:
    """The module optuna. Raises `SearchError` if it is missing."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise SearchError("tuning needs Optuna, which is missing: pip install 'birdlib[tune]'") from None
    return optuna


def quietly(function: Callable, *arguments: Any, **named: Any) -> Any:
    """Calls it without Optuna's remarks: on what it calls experimental, and on trials that failed."""
    optuna = loaded()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return function(*arguments, **named)


def opened(storage: str | Path) -> optuna.storages.RDBStorage:
    """The database at a path (SQLite) or a URL, made where it is missing; it gives up trials whose process died."""
    url = str(storage) if "://" in str(storage) else f"sqlite:///{storage}"
    if not url.startswith("sqlite:///"):
        return _connected(url)
    file = Path(url.removeprefix("sqlite:///"))
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):  # two that make the tables at once make them twice
        return _connected(url, engine_kwargs={"connect_args": {"timeout": 60}})


def _connected(url: str, **more: Any) -> optuna.storages.RDBStorage:
    kind = loaded().storages.RDBStorage
    # Optuna 5 has another name for what is called when a trial has given no sign of life.
    names = ("heartbeat_stale_trial_callback", "failed_trial_callback")
    callback = next(one for one in names if one in inspect.signature(kind).parameters)
    return quietly(kind, url, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S, **{callback: _died}, **more)


@contextmanager
def database() -> Iterator[None]:
    """Within it, an error of the database is a `SearchError` of one line, without a password."""
    try:
        yield
    except Exception as error:
        kind = type(error)
        known = kind.__module__.startswith("sqlalchemy") or kind.__name__ == "StorageInternalError"
        if not (known or isinstance(error, ImportError)):  # a database's driver may be missing
            raise
        text = " ".join(str(error.__cause__ or error).split()).split(" (Background")[0]
        raise SearchError(f"the study's database: {re.sub('://[^@/ ]*@', '://...@', text)}") from None


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial has an outcome: finished, pruned, or failed by its settings, which is then its reason."""
    failed = trial.state.name == "FAIL" and "reason" in trial.user_attrs
    return failed or trial.state.name in ("COMPLETE", "PRUNED")


def turn(study: optuna.Study, number: int) -> int:
    """Which trial this is, from 0, when those that were put back, and run again under another number, don't count."""
    before = study.get_trials(deepcopy=False)[:number]
    return sum(counts(trial) or trial.state.name in ("RUNNING", "WAITING") for trial in before)


def put_back(study: optuna.Study, trial: FrozenTrial, died: int = 0) -> None:
    """Has a trial run again, before any new one."""
    if trial.params:
        study.enqueue_trial(trial.params, user_attrs={"died": died} if died else None)


def _died(study: optuna.Study, trial: FrozenTrial) -> None:
    times = trial.user_attrs.get("died", 0) + 1
    if times <= RETRIES:
        put_back(study, trial, times)


def sampler(seed: int, name: str, settings: Tuning) -> optuna.samplers.BaseSampler:
    """TPE, anew for every trial, from a seed that is an address: a study that goes on does not begin it again."""
    optuna = loaded()

    class ByTurn(optuna.samplers.BaseSampler):
        def before_trial(self, study, trial):
            place = chance.rng(seed, "tuning", name.partition("-")[0], turn(study, trial.number))
            self._tpe = quietly(
                optuna.samplers.TPESampler,
                n_startup_trials=settings.random_trials,
                seed=int(place.integers(2**31)),
                constant_liar=True,  # what others are trying counts as tried
            )

        def infer_relative_search_space(self, study, trial):
            return self._tpe.infer_relative_search_space(study, trial)

        def sample_relative(self, study, trial, search_space):
            return self._tpe.sample_relative(study, trial, search_space)

        def sample_independent(self, study, trial, param_name, param_distribution):
            return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    return ByTurn()


def pruner(settings: Tuning) -> optuna.pruners.BasePruner:
    """Gives up what is worse than the median of the others at the same epoch."""
    return loaded().pruners.MedianPruner(settings.prune_after_trials, settings.prune_from_epoch)
