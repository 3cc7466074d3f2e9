"""Stages the notebooks as Kaggle kernels: a folder each, as ``kaggle kernels push -p`` takes it.

That command sends one notebook and nothing else, so the notebook brings the library along: its first cell holds it as a
wheel. What the kernel runs on, and what is attached to it, stands in ``kernel-metadata.json`` beside it.
"""

from __future__ import annotations

import json
import os
import pprint
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import birdlib
from birdlib import config as configs
from birdlib import kaggle_cells, wheel
from birdlib.config import Config
from birdlib.stages import STAGES, Stage, notebook, upstream
from birdlib.writing import replacing, write_json

SESSION_H = 12.0  # how long Kaggle lets a session with a GPU run
LARGEST_BYTES = 1_000_000  # of a notebook
FINAL = STAGES[-1]
_TRAINS = ("04_phase_1", "05_phase_2", "06_testing")  # what a GPU is for; the others would only use up its quota
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_SOURCES = {
    "competition_sources": (r"[\w-]+", "a competition's slug, such as birdclef-2024"),
    "dataset_sources": (r"[\w-]+/[\w-]+(/\d+)?", "OWNER/SLUG, as in the data set's address"),
    "kernel_sources": (r"[\w-]+/[\w-]+", "OWNER/SLUG, as in the notebook's address"),
    "model_sources": (r"[\w-]+/[\w.-]+/\w+/[\w.-]+(/\d+)?", "OWNER/MODEL/FRAMEWORK/VARIATION/VERSION"),
}


class KernelError(RuntimeError):
    """A kernel that cannot be staged or pushed as asked: what is wrong, and what to do."""


@dataclass(frozen=True)
class Wishes:
    """How the kernels are to be, beside what ``kaggle-metadata.json`` says.

    ``datasets``, ``kernels`` and ``models`` are attached beside those the metadata name; ``competition`` "none"
    attaches none. ``cpu``: without a GPU. ``internet`` None: as the metadata say. ``hours``: what a session may take.
    ``title``: the final notebook's, from which its address follows.
    """

    user: str | None = None
    title: str | None = None
    config: str | Path = "paper"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    competition: str | None = None
    datasets: Sequence[str] = ()
    kernels: Sequence[str] = ()
    models: Sequence[str] = ()
    cpu: bool = False
    internet: bool | None = None
    hours: float = 11.0
    metadata: Path | None = None


def stage(out: Path | None = None, wishes: Wishes | None = None) -> Path:
    """Writes the push folder of the final notebook, which stands alone.

    Parameters
    ----------
    out : the folder; None: ``build/kaggle/<slug>``.

    Returns
    -------
    the folder, with ``kernel-metadata.json`` and the notebook in it, and nothing that is secret.

    Raises
    ------
    KernelError, birdlib.config.ConfigError
        for what Kaggle would refuse, or what would stop the notebook there after hours.
    """
    wishes = wishes or Wishes()
    metadata = _metadata(FINAL, wishes)
    settings = _checked(wishes, metadata)
    return _write(out or Path("build/kaggle") / slug_of(metadata), FINAL, wishes, metadata, settings, alone=True)


def stage_all(out: Path | None = None, wishes: Wishes | None = None) -> list[Path]:
    """Writes a push folder for each of the six notebooks, below `out` (None: ``build/kaggle``), in their order.

    Each names those before it whose results it reads in its ``kernel_sources``. The GPU is for those that train or
    test.
    """
    wishes, folders = wishes or Wishes(), []
    metadata = {one.name: _metadata(one, wishes) for one in STAGES}
    for one in STAGES:
        mine = metadata[one.name]
        earlier = [metadata[before.name]["id"] for before in upstream(one)]
        mine["kernel_sources"] = [*mine["kernel_sources"], *earlier]
        if one.name not in _TRAINS:
            mine.update(enable_gpu=False, machine_shape="")
        settings = _checked(wishes, mine)
        folders.append(_write((out or Path("build/kaggle")) / slug_of(mine), one, wishes, mine, settings, alone=False))
    return folders


def user_name(given: str | None = None) -> str:
    """The Kaggle user's name: the one given, else from the environment, else from the credentials file.

    Raises
    ------
    KernelError
        if there is none, or it cannot be one.
    """
    home = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle")
    xdg = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
    files = [folder / name for folder in (home, xdg) for name in ("kaggle.json", "credentials.json")]
    named = [given, os.environ.get("KAGGLE_USERNAME"), *map(_user_in, files)]
    name = next((name for name in named if name), None)
    if not name:
        raise KernelError(
            f"whose kernel is it? There is no Kaggle user name in KAGGLE_USERNAME or in {home / 'kaggle.json'}: give "
            "it with --user (it is in your profile's address, https://www.kaggle.com/NAME)"
        )
    if not _USER.fullmatch(name):
        raise KernelError(f"{name!r} is no Kaggle user name: it is what follows kaggle.com/ in your profile's address")
    return name


def slugified(title: str) -> str:
    """What Kaggle makes of a title in an address: "birdlib 6: testing" -> "birdlib-6-testing"."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _user_in(path: Path) -> str | None:
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("username")
    except (OSError, ValueError, AttributeError):
        return None


def slug_of(metadata: dict[str, Any]) -> str:
    """The last part of a kernel's address."""
    return metadata["id"].partition("/")[2]


def _metadata(one: Stage, wishes: Wishes) -> dict[str, Any]:
    return described(wishes, wishes.title if one == FINAL else _title(one), f"{one.name}.ipynb")


def described(wishes: Wishes, title: str | None, code_file: str) -> dict[str, Any]:
    """A kernel's metadata: the template's, with the user's name, a title (None: its own) and what is wished.

    Raises
    ------
    KernelError
        for a template that cannot be read, or a title that does not fit.
    """
    path = wishes.metadata or wheel.kernel_metadata()
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        own, slug = metadata["title"], slug_of(metadata)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise KernelError(f"{path} cannot be read as a kernel's metadata: {error!r}") from None
    title, slug = (title, slugified(title)) if title else (own, slug)
    if slugified(title) != slug or not 5 <= len(title) <= 50:
        raise KernelError(
            f"{path}: the title {title!r} becomes {slugified(title)!r} in Kaggle's address, and the id ends in "
            f"{slug!r}: write them so that they fit (a title has 5 to 50 characters)"
        )
    metadata.update(id=f"{user_name(wishes.user)}/{slug}", title=title, code_file=code_file)
    if wishes.cpu:
        metadata.update(enable_gpu=False, machine_shape="")
    if wishes.internet is not None:
        metadata["enable_internet"] = wishes.internet
    if wishes.competition:
        metadata["competition_sources"] = [] if wishes.competition == "none" else [wishes.competition]
    for key, more in (("dataset", wishes.datasets), ("kernel", wishes.kernels), ("model", wishes.models)):
        metadata[f"{key}_sources"] = [*metadata.get(f"{key}_sources", []), *more]
    return metadata


def _title(one: Stage) -> str:
    """A kernel's title: "birdlib 4: phase 1". From the stage's name, since a new title would be another kernel."""
    number, _, words = one.name.partition("_")
    return f"birdlib {int(number)}: {words.replace('_', ' ')}"


def check_sources(metadata: dict[str, Any]) -> None:
    """Raises `KernelError` for what cannot be attached to a kernel."""
    for key, (pattern, form) in _SOURCES.items():
        if bad := [source for source in metadata.get(key, []) if not re.fullmatch(pattern, source)]:
            raise KernelError(f"{key}: {bad[0]!r} is not {form}")
    if metadata["id"] in metadata["kernel_sources"]:
        raise KernelError(f"{metadata['id']} cannot read its own output: give the new kernel another title (--title)")


def _checked(wishes: Wishes, metadata: dict[str, Any]) -> Config:
    """The settings that the kernel is staged with; raises for what Kaggle would refuse, or would stop it there."""
    check_sources(metadata)
    if not 0 < wishes.hours < SESSION_H:
        raise KernelError(
            f"--hours {wishes.hours:g}: Kaggle ends a session after {SESSION_H:g} hours, and what it has made is lost"
        )
    settings = configs.load(wishes.config, wishes.overrides)
    _check_files(settings)
    if not metadata["enable_internet"] and not any(
        metadata[f"{key}_sources"] for key in ("dataset", "kernel", "model")
    ):
        _check_offline(settings)
    return settings


def _check_files(settings: Config) -> None:
    """Raises for settings that name a place on this machine."""
    if settings.data.dir:
        raise KernelError("data.dir is a folder of this machine; on Kaggle the data are what is attached: leave it out")
    if settings.testing.traits_file:
        raise KernelError("testing.traits_file is a file of this machine: put it into the data folder as traits.csv")
    weights = settings.model.weights
    if weights not in (None, "imagenet"):
        raise KernelError(
            f"model.weights={weights} is a file of this machine: put it into a data set, attach that (--dataset), and "
            "leave model.weights=imagenet; the notebook finds it by its name"
        )
    if weights and settings.model.backbone == "custom_cnn":
        raise KernelError("model.weights: custom_cnn has no pretrained weights; set model.weights=null")


def _check_offline(settings: Config) -> None:
    """Raises for settings that need a download."""
    if settings.model.weights:
        raise KernelError(
            f"without internet the ImageNet weights of {settings.model.backbone} cannot be downloaded: attach a data "
            "set or model that holds its ..._notop.h5 (--dataset, --model), or a trained run (--kernel, --dataset)"
        )
    if settings.augmentation.where == "host":
        raise KernelError(
            "augmentation.where=host needs audiomentations, which Kaggle lacks: attach what birdlib kaggle wheels makes"
        )


def _write(out: Path, one: Stage, wishes: Wishes, metadata: dict[str, Any], settings: Config, alone: bool) -> Path:
    cells = json.loads(notebook(one.name).read_text(encoding="utf-8"))
    competition = next(iter(metadata["competition_sources"]), None)
    return write(out, metadata, _staged(cells, one, settings, competition, wishes.hours, metadata["enable_gpu"], alone))


def write(out: Path, metadata: dict[str, Any], book: dict[str, Any]) -> Path:
    """Writes a push folder: a notebook and its metadata. Raises `KernelError` if the notebook is too large."""
    text = json.dumps(book, indent=1) + "\n"
    if len(text.encode()) > LARGEST_BYTES:
        raise KernelError(
            f"{metadata['code_file']} has {len(text.encode()):,} bytes with the library inside, and Kaggle takes "
            f"{LARGEST_BYTES:,}: are there large files in {Path(birdlib.__file__).parent}?"
        )
    with replacing(out / metadata["code_file"]) as aside:
        aside.write_text(text, encoding="utf-8")
    write_json(out / "kernel-metadata.json", metadata)
    return out


def _staged(
    book: dict[str, Any], one: Stage, settings: Config, competition: str | None, hours: float, gpu: bool, alone: bool
) -> dict[str, Any]:
    """A notebook with the library, its parameters and its places on Kaggle put in, and without outputs."""
    cells = [cell for cell in book["cells"] if "install" not in cell["metadata"].get("tags", [])]
    empty = {"outputs": [], "execution_count": None}
    cells = [cell | (empty if cell["cell_type"] == "code" else {}) for cell in cells]
    place = next(at for at, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", []))
    parameters = {**cells[place], "source": _parameters("".join(cells[place]["source"]), settings)}
    quoted = f'"{competition}"' if competition else None
    begin = textwrap.dedent(f"""\
        from birdlib import kaggle_session

        config, run_dir, data_dir, overrides = kaggle_session.begin(
            "{one.name}", config, run_dir, data_dir, overrides,
            competition={quoted}, hours={hours:g}, gpu={gpu}, alone={alone},
        )""")
    added = [kaggle_cells.text("kaggle-about", _about(alone)), kaggle_cells.code("kaggle-begin", begin)]
    report = kaggle_cells.code("kaggle-report", _REPORT)
    return {**book, "cells": [kaggle_cells.library(), *cells[:place], parameters, *added, *cells[place + 1 :], report]}


def _parameters(source: str, settings: Config) -> str:
    """The parameters cell with the staged settings as a preset and what differs from it."""
    name, overrides = configs.nearest(settings)
    text = pprint.pformat(overrides, width=100, sort_dicts=False)
    source = re.sub(r"^(config.*?) = None", rf'\1 = "{name}"', source, count=1, flags=re.MULTILINE)
    return re.sub(r"^(overrides.*?) = \{\}", lambda found: f"{found[1]} = {text}", source, count=1, flags=re.MULTILINE)


_REPORT = """\
from birdlib import report

try:
    print("the whole run on one page:", report.write(run.dir))
except Exception as error:  # what counts here is done, and stays
    print(f"no report: {error!r}")"""


def _about(alone: bool) -> str:
    shared = (
        "On Kaggle, the next cell finds what is attached: the data, run folders that other notebooks or data sets "
        "hold, weights, wheels. Results go to `/kaggle/working`."
    )
    if not alone:
        return f"{shared} This notebook reads what those before it have made: they have to be attached."
    return (
        f"{shared} With a trained run attached, it goes straight to the test, with that run's settings. With none, "
        "**the five notebooks before this one run now, in this session**, with the settings above: training is stopped "
        "in time for the test. Their executed copies are in `/kaggle/working/notebooks`."
    )
