"""The kernel that a competition scores: on a CPU, without internet, in two hours. Staged here, and what it does there.

It trains nothing and loads no Keras. An exported model (`birdlib.export`) and the wheels of `birdlib.kaggle_wheels`,
which carry what runs it, are attached; it hears the soundscapes until its time is over.
"""

from __future__ import annotations

import importlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from birdlib import config as configs
from birdlib import (
    exported,
    hearing,
    kaggle_cells,
    kaggle_places,
    kaggle_wheels,
    kernels,
    predicting,
    runtimes,
    soundscapes,
    submissions,
)
from birdlib.kernels import KernelError, Wishes
from birdlib.writing import replacing

if TYPE_CHECKING:
    from birdlib.config import Config
    from birdlib.exported import Exported

TITLE = "birdlib submission"
NOTEBOOK = "submission.ipynb"
BUDGET_MINUTES = 110  # of 120; the rest is for Kaggle's start, and for writing what was heard
_SECTION = "soundscapes."


class SubmissionError(RuntimeError):
    """A session in which nothing can be predicted: what is not attached, and how it is made."""


class Found(NamedTuple):
    """What is attached, and when (`time.monotonic`) the notebook began."""

    data_dir: Path
    models: list[Path]
    began: float


# ---- staging


def stage(out: Path | None = None, wishes: Wishes | None = None) -> Path:
    """Writes the push folder of the submission's kernel: no GPU, no internet, wheels and model attached.

    Parameters
    ----------
    out : the folder; None: ``build/kaggle/<slug>``.
    wishes : what else is attached; the user's own data set of wheels is, if none is named. Of the settings, those of
        the section ``soundscapes`` may be changed; the others are the exported model's.

    Raises
    ------
    birdlib.kernels.KernelError, birdlib.config.ConfigError
        for what Kaggle would refuse, and if nothing is attached that could hold a model.
    """
    wishes = wishes or Wishes()
    if not any(map(_is_wheels, wishes.datasets)):
        wheels = f"{kernels.user_name(wishes.user)}/{kaggle_wheels.slug(kaggle_wheels.PYTHON)}"
        wishes = replace(wishes, datasets=[*wishes.datasets, wheels])
    metadata = kernels.described(replace(wishes, cpu=True, internet=False), wishes.title or TITLE, NOTEBOOK)
    kernels.check_sources(metadata)
    if all(map(_is_wheels, metadata["dataset_sources"])) and not (
        metadata["kernel_sources"] or metadata["model_sources"]
    ):
        raise KernelError(
            "a submission needs an exported model: birdlib export writes one; make a data set of that folder and "
            "attach it (--dataset), or a notebook's output or Kaggle model that holds one (--kernel, --model)"
        )
    competition = next(iter(metadata["competition_sources"]), None)
    book = _book(competition, _smoothing(wishes))
    return kernels.write(out or Path("build/kaggle") / kernels.slug_of(metadata), metadata, book)


def _is_wheels(dataset: str) -> bool:
    return "birdlib-wheels" in dataset


def _smoothing(wishes: Wishes) -> dict[str, Any]:
    """The changed settings of the section ``soundscapes``, by their names in it."""
    others = [key for key in wishes.overrides if not key.startswith(_SECTION)]
    if others or wishes.config != "paper":
        raise KernelError(
            f"{others[0] if others else '--config'}: a submission has the settings of its exported model; only "
            "those of soundscapes can be changed (--set soundscapes.step_s=2.5)"
        )
    changed = configs.load("paper", wishes.overrides).soundscapes.model_dump(mode="json")
    return {key.removeprefix(_SECTION): changed[key.removeprefix(_SECTION)] for key in wishes.overrides}


def _book(competition: str | None, smoothing: dict[str, Any]) -> dict[str, Any]:
    """The notebook."""
    quoted = json.dumps(competition) if competition else None
    parameters = kaggle_cells.code("parameters", _PARAMETERS.format(minutes=BUDGET_MINUTES, smoothing=smoothing))
    parameters["metadata"] = {"tags": ["parameters"]}
    cells = [
        kaggle_cells.text("title", _TITLE),
        parameters,
        kaggle_cells.text("attached", _ATTACHED),
        kaggle_cells.code("begin", _BEGIN.format(competition=quoted)),
        kaggle_cells.text("hearing", _HEARING),
        kaggle_cells.code("predict", _PREDICT),
        kaggle_cells.code("look", _LOOK),
    ]
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "metadata": {"kernelspec": spec},
        "nbformat": 4,
        "nbformat_minor": 5,
        "cells": [kaggle_cells.library(), *cells],
    }


_TITLE = """\
# Soundscapes, predicted

This notebook predicts a competition's hidden soundscapes on a CPU, without internet, and writes `submission.csv`. The
classifier was trained elsewhere and is attached as `birdlib export` wrote it. In this notebook we

- find what is attached: the competition, an exported model, wheels with what runs it;
- hear every soundscape in windows of 5 s, until the time is over;
- look at what is handed in."""
_PARAMETERS = """\
models: list = []  # exported folders, which are averaged; none: the one that is attached
data_dir: str = None  # the folder of recordings; None: the competition's, as attached
budget_minutes: float = {minutes}  # what is not heard by then is filled up with class priors
smoothing: dict = {smoothing}  # settings of soundscapes, such as {{"neighbours": 0.1}}"""
_ATTACHED = "What is attached. A runtime that Kaggle's image lacks is installed from the wheels."
_BEGIN = """\
from birdlib import kaggle_submission

found = kaggle_submission.begin(models, data_dir, competition={competition})"""
_HEARING = """\
Each core hears a soundscape at a time. A classifier with a softmax names some bird in every window, also where there
is none; the competition's score, a ranking within each species, does not mind."""
_PREDICT = "kaggle_submission.predict(found, budget_minutes, smoothing)"
_LOOK = """\
import pandas as pd

table = pd.read_csv("submission.csv")
print(f"{len(table):,} rows, {table.shape[1] - 1} species, {table.isna().sum().sum()} empty cells")
table.iloc[:3, :7]"""


# ---- on Kaggle


def begin(models: Sequence[str | Path], data_dir: str | Path | None, competition: str | None) -> Found:
    """Finds what is attached, says so, and installs the runtime that the models need.

    Parameters
    ----------
    models : exported folders; empty: the one that is attached.
    data_dir : None: the competition's data, else the only data folder that is attached.

    Raises
    ------
    SubmissionError, birdlib.kaggle_places.PlacesError, birdlib.exported.ExportError
        for what is missing.
    """
    began = time.monotonic()
    where = Path(data_dir) if data_dir else kaggle_places.data(competition)
    if where is None:
        raise SubmissionError("no data folder is attached: add the competition's as an input")
    chosen = [Path(one) for one in models] or [_only_export()]
    opened = [exported.read(one) for one in chosen]
    _install(opened)
    print(f"data: {where}")
    for one in opened:
        print(f"model: {one.folder}, {len(one.species)} species, {one.about['format']} in {one.about['precision']}")
    return Found(where, chosen, began)


def predict(found: Found, budget_minutes: float = BUDGET_MINUTES, smoothing: Mapping[str, Any] | None = None) -> Path:
    """Hears the soundscapes and writes ``submission.csv`` where Kaggle looks for it; says what came of it.

    The hidden folder is empty until the notebook is scored: then a few unlabelled soundscapes stand in for it, and
    where there are none either, the table gets its header and no rows.

    Parameters
    ----------
    budget_minutes : from `begin` on; what is not reached by then has class priors.
    smoothing : settings of the section ``soundscapes``.
    """
    config = predicting.together(found.models, dict(smoothing or {}))
    aside = kaggle_places.scratch()
    aside.mkdir(parents=True, exist_ok=True)
    out = Path(tempfile.mkdtemp(dir=aside, prefix="heard_"))
    taken = soundscapes.find(found.data_dir, config)
    if taken.folder != "test_soundscapes":
        print("test_soundscapes/ is empty, as it is until this notebook is scored")
    if not taken.paths:
        print("there are no unlabelled soundscapes to stand in for it: submission.csv gets no rows")
        return _without_rows(found, config)
    print(f"{len(taken.paths):,} soundscapes from {taken.folder}/")
    left = max(0.0, budget_minutes - (time.monotonic() - found.began) / 60)
    options = predicting.Options(format="submission", sample=_sample(found.data_dir), budget_minutes=left)
    summary = predicting.predict([found.data_dir], found.models, out, config, options)
    print("\n".join(summary.lines()[:-1]))
    with replacing(kaggle_places.working() / "submission.csv") as beside:
        shutil.copyfile(summary.written, beside)
    return kaggle_places.working() / "submission.csv"


def _without_rows(found: Found, config: Config) -> Path:
    hearing.require_loadable(found.models)  # else it would be known when the notebook is scored
    labels = exported.read(found.models[0]).species["primary_label"].tolist()
    nothing = pd.DataFrame(columns=["row_id", *labels])
    table, _ = submissions.submitted(nothing, labels, submissions.wanted_in(found.data_dir, labels).columns)
    with replacing(kaggle_places.working() / "submission.csv") as aside:
        table.to_csv(aside, index=False)
    return kaggle_places.working() / "submission.csv"


def _sample(data_dir: Path) -> Path | None:
    path = data_dir / "sample_submission.csv"
    return path if path.is_file() else None


def _only_export() -> Path:
    attached = kaggle_places.exports()
    if len(attached) == 1:
        return attached[0]
    if attached:
        places = ", ".join(map(str, attached))
        raise SubmissionError(f"several exported models are attached, {places}: name those that are meant in models")
    raise SubmissionError(
        f"no exported model is attached: there is no export.json below {kaggle_places.root() / 'input'}. Attach a data "
        "set of the folder that birdlib export writes"
    )


def _install(opened: Sequence[Exported]) -> None:
    """Installs from the attached wheels what runs the models, where it is lacking."""
    if all(map(_runs, opened)):
        return
    folder = kaggle_places.wheels()
    advice = "attach what birdlib kaggle wheels makes"
    if folder is None:
        raise SubmissionError(f"nothing here runs the model, and there are no wheels: {advice}")
    offline = ["--no-index", "--find-links", str(folder)]
    if reason := kaggle_wheels.install(offline, kaggle_wheels.RUNTIME):
        raise SubmissionError(f"{folder}: the runtime cannot be installed ({reason}): {advice}, made anew")
    importlib.invalidate_caches()
    for one in opened:
        runtimes.choose(one.about["format"], one.about["precision"])


def _runs(one: Exported) -> bool:
    try:
        runtimes.choose(one.about["format"], one.about["precision"])
    except runtimes.MissingExtraError:
        return False
    return True
