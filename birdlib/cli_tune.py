"""``birdlib tune``."""

from __future__ import annotations

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdlib.cli_settings import ConfigOption, DataDir, RunDir, Setting, settings
from birdlib.cli_stopping import stoppable

if TYPE_CHECKING:
    from birdlib.config import Config


class Which(StrEnum):
    """The stages of the search."""

    one = "1"
    two = "2"
    both = "both"


def tune(
    config: ConfigOption = None,
    data_dir: DataDir = None,
    run_dir: RunDir = None,
    setting: Setting = None,
    stage: Annotated[Which, typer.Option(help="1: phase I's settings; 2: phase II's, from the weights of 1.")] = (
        Which.both
    ),
    trials: Annotated[int | None, typer.Option(help="Of each stage, in all. [default: tuning.trials]", min=1)] = None,
    timeout_minutes: Annotated[float | None, typer.Option(help="Stop then; the same command goes on.", min=0)] = None,
    storage: Annotated[
        str | None, typer.Option(help="URL of a database to share. [default: a file in the run folder]")
    ] = None,
) -> None:
    """Search for better settings, and write them as a configuration file. What was stopped goes on."""
    until = None if timeout_minutes is None else time.monotonic() + 60 * timeout_minutes
    which = (1, 2) if stage is Which.both else (int(stage),)
    from birdlib import runs, search, studies

    studies.loaded()  # said to be missing before anything runs
    folder = Path(run_dir or runs.default_dir(config)).expanduser().absolute()
    try:
        with stoppable("the same command goes on where it was"):
            settled = _prepared(folder, config, data_dir, settings(setting or []))
            _search(folder, settled, which, trials, storage, until)
    except typer.Exit:
        _tell_best(folder)
        raise
    except search.TimeOverError:
        print("birdlib: the time is over; the same command goes on where it was", file=sys.stderr)
    _tell_best(folder)


def _tell_best(folder: Path) -> None:
    if (best := folder / "tuning" / "best.yaml").exists():
        print(f"best settings: {best}  (birdlib run --config {best})")


def _prepared(folder: Path, config: str | None, data_dir: Path | None, overrides: dict[str, str]) -> Config:
    """The settings of a run folder, after the notebooks that a search needs."""
    from birdlib import runs, stages

    needed = stages.upstream(stages.stage("appendix_tuning", appendices=True))
    settled = runs.settle(folder, config, data_dir, overrides)
    if not all(runs.is_current(one, settled, folder) for one in needed):
        from birdlib import series

        series.run(config, data_dir, folder, overrides, last=needed[-1].name)
        settled = runs.settle(folder, config, data_dir, overrides)
    return settled


def _search(
    folder: Path,
    settled: Config,
    which: tuple[int, ...],
    trials: int | None,
    storage: str | None,
    until: float | None,
) -> None:
    from birdlib import tuning

    run = tuning.open_folder(folder, settled)
    for number, searched in tuning.tune(run, which, trials, storage, until).items():
        tuning.figures(run, number, searched)
        print(tuning.told(searched, number))
        for key, share in searched.importance().items():
            print(f"  {key:<28}{share:>5.0%} of the loss's differences")
        print(f"  {tuning.told_importance(searched)}")
