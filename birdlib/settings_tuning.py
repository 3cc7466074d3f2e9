"""The settings of the search for settings: which are tried, over which values, and how long.

What a space may hold, and whether its values are values of its keys, `birdlib.config` says when it reads one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from birdlib.settings_section import Count, Section

# By stage, the sections and keys that its trials may change: what that phase reads and nothing before it. The loss is
# not among them, since different losses cannot be compared, nor is which chunks are validated on.
SEARCHABLE = {1: ("phase_1", "batches.threshold", "augmentation", "model", "spectrogram"), 2: ("phase_2",)}


class Range(Section):
    """All values from ``low`` to ``high``; with ``log``, as many below the geometric mean as above it."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _from_low_to_high(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"a range goes from low to high, not from {self.low:g} to {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a range with log begins above 0, not at {self.low:g}")
        return self


Space = dict[str, Range | tuple[Any, ...]]


class Tuning(Section):
    """What `birdlib tune` tries: ``stage_1`` for phase I, then ``stage_2`` for phase II from stage one's best weights.

    A space gives, for a dotted key, a list of choices or a range (``{low: 1e-4, high: 1e-2, log: true}``); one that is
    set takes the place of the whole of the preset's. The thresholds and the dropouts are the paper's; it names the
    other settings that it tuned, but not over what: those values are ours, around what it kept.

    ``trials`` are tried in each stage: the settings as they are, then at random until there are ``random_trials``,
    then by what has been learnt. A trial is given up whose lowest validation loss is above the median of the others' at
    the same epoch, once ``prune_after_trials`` have finished, and from its epoch ``prune_from_epoch`` on. All these
    numbers are ours.
    """

    stage_1: Space = Field(
        default={
            "phase_1.learning_rate": Range(low=1e-4, high=1e-2, log=True),
            "phase_1.plateau_patience": (1, 2, 3, 4),
            "phase_1.batch_size": (32, 64, 128, 256),
            "batches.threshold": (32, 64, 128, 256),
            "augmentation.strength": (0.0, 0.5, 1.0, 1.5),
            "model.hidden": ((512,), (1024,), (1024, 512), (2048, 1024), (1024, 512, 256)),
            "model.dropout": (0.3, 0.5),
        },
        min_length=1,
    )
    stage_2: Space = Field(
        default={
            "phase_2.learning_rate": Range(low=4e-6, high=4e-4, log=True),
            "phase_2.plateau_patience": (1, 2, 3, 4),
            "phase_2.batch_size": (8, 16, 32),
        },
        min_length=1,
    )
    trials: Count = 40
    random_trials: Count = 10
    prune_after_trials: Count = 5
    prune_from_epoch: Count = 3

    def __hash__(self) -> int:  # settings are keys of caches, and a dictionary has no hash
        return hash((*self.stage_1, *self.stage_2, self.trials))

    @field_validator("stage_1", "stage_2", mode="before")
    @classmethod
    def _each_is_choices_or_a_range(cls, space: Any) -> Any:
        if not isinstance(space, Mapping):
            raise ValueError("a space is a mapping of dotted keys to a list of choices, or to low and high")
        for key, values in space.items():
            if isinstance(values, Mapping) and {"low", "high"} <= values.keys():
                try:
                    Range.model_validate(values)
                except ValidationError as error:
                    message = error.errors()[0]["msg"].removeprefix("Value error, ")
                    raise ValueError(f"{key}: {message}") from None
            elif not isinstance(values, Range | list | tuple) or values in ([], ()):
                raise ValueError(f"{key}: give a list of choices, or low and high (and log: true), not {values!r}")
        return {key: _fixed(values) for key, values in space.items()}


def _fixed(values: Any) -> Any:
    """Lists as tuples, as what is frozen has them."""
    return tuple(map(_fixed, values)) if isinstance(values, list | tuple) else values


# The preset `sample`'s, small enough for its data.
SAMPLE: dict[str, Any] = {
    "tuning.stage_1": {
        "phase_1.learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
        "phase_1.plateau_patience": (1, 2, 3),
        "phase_1.batch_size": (16, 32, 64),
        "batches.threshold": (12, 24, 48),
        "augmentation.strength": (0.0, 0.5, 1.0),
        "model.hidden": ((64,), (128,), (128, 64)),
        "model.dropout": (0.3, 0.5),
    },
    "tuning.stage_2": {
        "phase_2.learning_rate": {"low": 3e-5, "high": 1e-3, "log": True},
        "phase_2.plateau_patience": (1, 2, 3),
        "phase_2.batch_size": (8, 16, 32),
    },
    "tuning.trials": 8,
    "tuning.random_trials": 4,
    "tuning.prune_after_trials": 3,
}
