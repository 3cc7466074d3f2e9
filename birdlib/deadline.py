"""Time that is short: a session that ends at a fixed hour takes its results along only if training ends before.

The end of training stands in the environment, from where the notebooks of a series inherit it. Each training gets its
share of what is left; what one does not use goes to those after it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from birdlib.config import Config

TRAINING_ENDS = "BIRDLIB_TRAINING_ENDS"  # seconds since the epoch
WHOLE = 3.0  # what an epoch costs that trains the backbone too, where one with the backbone frozen costs 1


def set_end(when_s: float | None) -> None:
    """Has every training that begins from now on, in this process and its children, end by `when_s`; None: any time."""
    os.environ.pop(TRAINING_ENDS, None)
    if when_s is not None:
        os.environ[TRAINING_ENDS] = f"{when_s:.0f}"


def end() -> float | None:
    """When training has to be over, in seconds since the epoch; None if there is no such time."""
    text = os.environ.get(TRAINING_ENDS)
    return float(text) if text else None


def trainings(config: Config) -> dict[tuple[str, str], float]:
    """Every training of the series, in order: (stage, part) -> what it costs beside the others at its full length."""
    first = 1.0 if config.model.weights else WHOLE
    costs = {("04_phase_1", f"fold_{fold}"): first * config.phase_1.epochs for fold in config.folds}
    costs |= {("04_phase_1", name): WHOLE * config.comparison.epochs for name in config.comparison.models}
    return costs | {("05_phase_2", f"fold_{fold}"): WHOLE * config.phase_2.epochs for fold in config.folds}


def stage_end(stage: str, config: Config, whole_end_s: float) -> float:
    """When the trainings of a stage that begins now have to be over, so that the stages after it get their shares."""
    costs = {key: cost for key, cost in trainings(config).items() if key[0] >= stage}
    own = sum(cost for (name, _), cost in costs.items() if name == stage)
    return time.time() + (whole_end_s - time.time()) * own / max(sum(costs.values()), 1e-9)


def allowance_s(stage: str, part: str, config: Config) -> float | None:
    """Seconds that a training of a stage may take from now on, so that those after it in the stage get their shares."""
    if (until := end()) is None:
        return None
    costs = {name: cost for (one, name), cost in trainings(config).items() if one == stage}
    names = list(costs)
    left = sum(costs[name] for name in names[names.index(part) :])
    return max(until - time.time(), 0.0) * costs[part] / left
