"""The six notebooks in order, through papermill, into one run folder."""

from __future__ import annotations

import importlib.util
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from birdlib import augment, cluster, competition, deadline, metadata, report, runs
from birdlib.config import Config
from birdlib.stages import STAGES, RunError, Stage, notebook, stage

try:
    import papermill
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import Engine, papermill_engines
except ModuleNotFoundError as error:  # Colab has none
    raise RunError(f"the series is run by papermill, and {error.name} is missing: pip install papermill") from error


class SeriesError(RuntimeError):
    """A notebook of the series failed: which, in which cell, of what, and where it is saved as far as it came."""


def run(
    config: str | Path | None = None,
    data_dir: str | Path | None = None,
    run_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | str | None = None,
    first: str | None = None,
    only: str | None = None,
    last: str | None = None,
    training_ends: float | None = None,
) -> Path:
    """Runs the series; what is unchanged since an earlier run is not run again. Ends with the run's report.

    Parameters
    ----------
    config, data_dir, run_dir, overrides : as in `birdlib.runs.open_run`.
    first : a stage or its number ("03"): it and all after it run again.
    only : a stage or its number: it alone runs.
    last : a stage or its number: those after it do not run.
    training_ends : when all training has to be over, in seconds since the epoch; each training gets its share of the
        time (`birdlib.deadline`). None: it takes as long as it takes.

    Returns
    -------
    the run folder.

    Raises
    ------
    SeriesError
        if a notebook fails; those after it do not run.
    birdlib.stages.RunError, birdlib.config.ConfigError
        before anything runs, if the folder or the settings cannot be used.
    birdlib.report.ReportError
        when all has run, if the report cannot be written.
    """
    folder = Path(run_dir or runs.default_dir(config)).expanduser().absolute()
    chosen, again = _chosen(first, only, last)
    with _locked(folder):
        if data_dir:
            data_dir = competition.folder(data_dir)
            metadata.load(data_dir)  # a folder that is none is said to be none, not to be another
        settings = runs.settle(folder, config, data_dir, overrides, redo=again)
        _check_early(settings, chosen)
        if only:
            runs.require_inputs(chosen[0], settings, folder)
        runs.keep_settings(folder, settings)
        for one in again:
            runs.forget_parts(folder, one)
        try:
            _run_all(chosen, again, settings, folder, training_ends)
        except SeriesError:
            report.write(folder)  # which says what stopped, and shows what there is
            raise
        report.write(folder)
    return folder


def _run_all(
    chosen: Sequence[Stage], again: Sequence[Stage], settings: Config, folder: Path, training_ends: float | None
) -> None:
    """Runs the stages that are not current, and those of `again` in any case."""
    cells = [notebook(one.name).read_text(encoding="utf-8").count('"cell_type"') + 1 for one in chosen]
    with tqdm(total=sum(cells), unit="cell", mininterval=0.5) as bar:
        for one, count in zip(chosen, cells, strict=True):
            bar.set_description(one.name)
            # Asked of each when its turn comes: those before it may have given it other inputs.
            if one in again or not runs.is_current(one, settings, folder):
                began = time.monotonic()
                with _in_time(one, settings, training_ends):
                    _execute(one, folder, bar)
                bar.write(f"{one.name}: finished in {timedelta(seconds=round(time.monotonic() - began))}")
            else:
                bar.write(f"{one.name}: unchanged, not run again")
                bar.update(count)


def _check_early(settings: Config, chosen: Sequence[Stage]) -> None:
    """Raises now what would stop one of the chosen notebooks minutes later."""
    augment.Chain(settings)  # audiomentations may be missing
    if settings.compute.cluster:
        with cluster.connected(settings.compute.cluster):
            pass
    if settings.compute.tensorboard and not importlib.util.find_spec("tensorboard"):
        raise RunError("compute.tensorboard: tensorboard is not installed: pip install 'birdlib[tensorboard]'")
    weights = settings.model.weights
    if settings.model.backbone == "custom_cnn" and weights:
        raise RunError("model.weights: custom_cnn has no pretrained weights; set model.weights=null")
    if weights not in (None, "imagenet") and not Path(weights).is_file():
        raise RunError(f"model.weights: there is no file {weights}; give a weights file, imagenet or null")
    read = {section for one in chosen for section in one.sections}
    traits, background = settings.testing.traits_file, settings.augmentation.background
    if "testing" in read and traits and not Path(traits).is_file():
        raise RunError(f"testing.traits_file: there is no file {traits}")
    if "augmentation" in read and background.probability > 0 and not Path(background.dir).is_dir():
        raise RunError(f"augmentation.background.dir: there is no folder {background.dir}")
    if settings.data.dir:
        metadata.load(settings.data.dir)


@contextmanager
def _in_time(one: Stage, settings: Config, training_ends: float | None) -> Iterator[None]:
    """Within it, a kernel that starts knows when the trainings of this stage have to be over."""
    if training_ends is None:
        yield
        return
    before = deadline.end()
    deadline.set_end(deadline.stage_end(one.name, settings, training_ends))
    try:
        yield
    finally:
        deadline.set_end(before)


def _chosen(first: str | None, only: str | None, last: str | None) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """The stages to go through, and those whose earlier results do not count."""
    if first and only:
        raise RunError("give --from or --only, not both")
    if only:
        one = stage(only, appendices=True)
        return (one,), (one,)
    until = STAGES.index(stage(last)) + 1 if last else len(STAGES)
    if first:
        begin = STAGES.index(stage(first))
        return STAGES[begin:until], STAGES[begin:]
    return STAGES[:until], ()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    taken = runs.lock(folder, "birdlib run")
    before = os.environ.get(runs.LOCK_HELD)
    os.environ[runs.LOCK_HELD] = str(folder)  # the kernels inherit it
    try:
        yield
    finally:
        if before is None:
            del os.environ[runs.LOCK_HELD]
        else:
            os.environ[runs.LOCK_HELD] = before
        if taken:
            runs.unlock(folder)


def _execute(one: Stage, folder: Path, bar: tqdm) -> None:
    output = folder / "notebooks" / f"{one.name}.ipynb"
    log = output.with_suffix(".log")
    output.parent.mkdir(parents=True, exist_ok=True)
    papermill_engines.register("birdlib", _engine(bar, log))
    try:
        papermill.execute_notebook(
            str(notebook(one.name)),
            str(output),
            parameters={"run_dir": str(folder)},
            engine_name="birdlib",
            progress_bar=False,
        )
    except papermill.PapermillExecutionError as error:
        message = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(error.evalue.split()))
        raise SeriesError(
            f"{one.name} stopped in cell [{error.exec_count}]: {error.ename}: {message} (as far as it came: {output})"
        ) from error
    except RuntimeError as error:  # nbclient's: the kernel died, or did not start
        reason = " ".join(str(error).split())
        raise SeriesError(
            f"{one.name} stopped: {reason} (its last words: {log}; as far as it came: {output})"
        ) from error


def _engine(bar: tqdm, log: Path) -> type[Engine]:
    """papermill's own client, moving `bar` on at each finished cell.

    What the kernel's process prints past its notebook (the start-up notes of TensorFlow, the trace of a crash) goes
    to `log` instead of across the bar.
    """

    class Counting(Engine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, start_timeout=120, **_):
            complete = nb_man.cell_complete

            def counted(*arguments, **named):
                complete(*arguments, **named)
                bar.update()

            nb_man.cell_complete = counted
            client = PapermillNotebookClient(
                nb_man,
                kernel_name=kernel_name,
                startup_timeout=start_timeout,
                extra_arguments=["--IPKernelApp.capture_fd_output=False"],
            )
            with open(log, "wb") as file:
                return client.execute(stdout=file, stderr=file)

    return Counting
