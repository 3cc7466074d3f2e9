"""What a staged notebook does first on Kaggle: finds its inputs, and runs the notebooks before it if those are missing.

What would stop it after hours stops it here, within a minute: no data, no GPU, no way to the weights.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from birdlib import competition as competitions
from birdlib import config as configs
from birdlib import deadline, folders, kaggle_places, kaggle_wheels, sample, series
from birdlib.config import Config
from birdlib.runs import epochs_path, parts_path
from birdlib.stages import STAGES, Stage, files, record, record_path, stage, upstream, whole
from birdlib.writing import read_json

TRAINING_SHARE = 0.9  # of the session; the rest is for the test
_TRAINS = ("04_phase_1", "05_phase_2")


class SessionError(RuntimeError):
    """A Kaggle session in which the notebook cannot do its work: what is missing, and where to set it."""


class Parameters(NamedTuple):
    """A notebook's four parameters."""

    config: str | None
    run_dir: str
    data_dir: str | None
    overrides: dict[str, Any]


def begin(
    stage_name: str,
    config: str | None,
    run_dir: str | None,
    data_dir: str | None,
    overrides: Mapping[str, Any] | str | None,
    competition: str | None,
    hours: float,
    gpu: bool,
    alone: bool,
) -> Parameters:
    """Prepares the session, and returns the parameters with which the notebook goes on.

    Parameters
    ----------
    stage_name : the notebook's, such as "06_testing".
    config, run_dir, data_dir, overrides : the notebook's parameters. An attached run's own settings take the place of
        `config`, and of those `overrides` that one of its finished notebooks has read.
    competition : whose data have to be attached; None: any data folder, else the built-in sample data set is written.
    hours : what the session may take; training is stopped in time for the test.
    gpu : training without a GPU is refused.
    alone : the notebooks before this one run here if what they make is not attached.

    Raises
    ------
    SessionError, birdlib.kaggle_places.PlacesError, birdlib.stages.RunError, birdlib.config.ConfigError
        before anything runs, for what is missing.
    birdlib.series.SeriesError
        if a notebook before this one fails; what the others made stays in the run folder.
    """
    ends, this = time.time() + 3600 * hours * TRAINING_SHARE, stage(stage_name)
    folder = Path(run_dir or kaggle_places.working())
    where = competitions.folder(data_dir) if data_dir else kaggle_places.data(competition) or _sample()
    print(f"data: {where}")
    taken = adopt(folder, this, kaggle_places.runs())
    own = folder / "config.yaml"
    chosen = str(own) if taken else config
    found = configs.mapping(overrides)
    if taken:
        found = _still_open(found, taken, own)
    settings = configs.load(chosen or "sample", found)
    wanted = [one for one in upstream(this) if one.name not in taken]
    training = alone and bool(wanted)
    go_on(wanted[0] if training else this, settings, folder, kaggle_places.runs())
    if training or this.name == _TRAINS[0]:
        found |= _weights(settings)
    _extras(settings, needed=training or this.name in ("03_augmentation", *_TRAINS))
    if gpu and (training or this.name in _TRAINS):
        _require_gpu()
    if training:
        print(f"no trained run is attached: the notebooks before this one run here, for at most {hours:g} hours")
        series.run(chosen, where, folder, found, last=STAGES[STAGES.index(this) - 1].name, training_ends=ends)
        return Parameters(None, str(folder), str(where), {})
    deadline.set_end(ends)
    return Parameters(None if taken else chosen, str(folder), str(where), found)


def adopt(folder: Path, this: Stage, attached: list[Path]) -> dict[str, Path]:
    """Copies into the run folder what attached runs hold of the stages before `this` one, each whole or not at all.

    The run that came furthest leads, with its settings; others fill in what it lacks.

    Returns
    -------
    taken : stage -> the run folder that it came from (or `folder` itself, if it was there before).

    Raises
    ------
    SessionError
        if two runs came equally far and are not the same.
    """
    before = STAGES[: STAGES.index(this)]
    taken = {one.name: folder for one in before if whole(one, folder)}
    far = {run: [one.name for one in before if whole(one, run)] for run in attached}
    ordered = sorted((run for run in attached if far[run]), key=lambda run: (far[run][-1], len(far[run])), reverse=True)
    if len(ordered) > 1 and far[ordered[0]] == far[ordered[1]] and not _same(*ordered[:2], far[ordered[0]]):
        raise SessionError(f"two runs are attached, {ordered[0]} and {ordered[1]}: detach the one that is not meant")
    for run in ordered:
        for one in before:
            if one.name in far[run] and one.name not in taken:
                _copy(one, run, folder)
                taken[one.name] = run
                print(f"{one.name}: from {run}")
    return taken


def go_on(this: Stage, config: Config, folder: Path, attached: list[Path]) -> None:
    """Copies into the run folder what an attached run holds of a stage in which it stopped.

    That is its finished folds, with their files, and the epochs of the one in which it was. Only a run counts whose
    stages before are the folder's; what was made otherwise all the same, the stage does not take up.
    """
    before = [one.name for one in upstream(this)]
    stopped = [run for run in attached if _begun(this, run) and _same(run, folder, before)]
    if _begun(this, folder) or not stopped:
        return
    run = max(stopped, key=lambda each: len(read_json(parts_path(each, this)).get("parts", {})))
    kept = [parts_path(run, this), *folders.files(epochs_path(run, this))]
    names = [*files(this.writes, config), *this.beside, *(path.relative_to(run).as_posix() for path in kept)]
    _copy_files([name for name in names if (run / name).is_file()], run, folder)
    print(f"{this.name}: goes on where {run} stopped")


def _begun(this: Stage, folder: Path) -> bool:
    return parts_path(folder, this).is_file() or epochs_path(folder, this).is_dir()


def _same(one: Path, other: Path, names: list[str]) -> bool:
    return all(record(stage(name), one) == record(stage(name), other) for name in names)


def _copy(one: Stage, run: Path, folder: Path) -> None:
    names = [*record(one, run)["outputs"], record_path(one, run).relative_to(run).as_posix()]
    beside = ["config.yaml", "metrics.json", "tables/errors.parquet", *one.beside]
    names += [name for name in beside if (run / name).is_file() and not (folder / name).exists()]
    _copy_files(names, run, folder)


def _copy_files(names: list[str], run: Path, folder: Path) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, folder / name)


def _still_open(overrides: dict[str, Any], taken: dict[str, Path], own: Path) -> dict[str, Any]:
    """Those overrides that no finished stage has read; says which others differ from the attached run's."""
    read = {section for name in taken for section in stage(name).sections}
    flat = dict(configs.flat(overrides))
    open_ = {key: value for key, value in flat.items() if key.split(".")[0] not in read}
    settings = configs.load(own)
    print("settings: those of the attached run")
    differ = configs.changed(settings, configs.load(own, {key: flat[key] for key in flat if key not in open_}))
    if differ:
        print(f"not taken from overrides, since the attached run has them otherwise: {', '.join(differ)}")
    return open_


def _sample() -> Path:
    folder = kaggle_places.scratch() / "sample_data"
    if not (folder / kaggle_places.METADATA).exists():
        sample.write(folder)
    return folder


def _weights(settings: Config) -> dict[str, str]:
    """The attached weights file, as an override, where ImageNet weights are asked for."""
    if settings.model.weights != "imagenet":
        return {}
    if file := kaggle_places.weights(settings.model.backbone):
        print(f"weights: {file}")
        return {"model.weights": str(file)}
    if not _reachable("storage.googleapis.com"):
        raise SessionError(
            f"there is no internet to download the ImageNet weights of {settings.model.backbone}, and no attached file "
            f"{settings.model.backbone}_notop.h5: switch the internet on in the notebook's settings, or attach one"
        )
    return {}


def _extras(settings: Config, needed: bool) -> None:
    """Installs what Kaggle lacks, from attached wheels or, if it is needed, the package index."""
    if importlib.util.find_spec("audiomentations"):
        return
    if folder := kaggle_places.wheels():
        done = kaggle_wheels.install(["--no-index", "--find-links", str(folder)])
    elif needed and _reachable("pypi.org"):
        done = kaggle_wheels.install([])
    else:
        done = "there are neither wheels attached (birdlib kaggle wheels) nor internet"
    if done and needed and settings.augmentation.where == "host":
        raise SessionError(f"augmentation.where=host needs audiomentations, and it cannot be installed: {done}")
    if done and needed:
        print(f"without audiomentations, which the third notebook plays: {done}")


def _reachable(host: str) -> bool:
    try:
        socket.create_connection((host, 443), timeout=5).close()
    except OSError:
        return False
    return True


def _require_gpu() -> None:
    """Raises without a GPU. Another process looks: this one must not take the memory of those that train."""
    look = "from birdlib import device; print(device.kind())"
    backend = {"KERAS_BACKEND": "tensorflow", **os.environ}
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False, env=backend)
    kind = (done.stdout.split() or ["nothing"])[-1]
    if kind not in ("gpu", "tpu"):
        said = (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else ""
        raise SessionError(
            f"training wants a GPU, and the backend sees {kind} here{f' ({said})' if said else ''}: choose GPU T4 x2 "
            "as the accelerator in the notebook's settings (is this week's quota used up?), or set gpu=False above"
        )
    print(f"accelerator: {kind}")
