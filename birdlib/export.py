"""A run's classifiers -> a folder that predicts without Keras, checked against Keras before it is kept.

The check and the calibration of int8 both take the run's own chunks: the check those that no training has seen, the
calibration those that did train.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

import birdlib
from birdlib import (
    calibration,
    chance,
    chunks,
    classifier,
    competition,
    evaluation,
    exported,
    features,
    int8,
    models,
    runs,
    runtimes,
    sources,
    spectrogram,
    splits,
    stages,
    standins,
)
from birdlib import config as configs
from birdlib.exported import ExportError
from birdlib.writing import digest

if TYPE_CHECKING:
    from birdlib.runs import Run

CALIBRATION_CHUNKS = 128
CHECKED_CHUNKS = 500


class Tolerance(NamedTuple):
    """How far an export may be from Keras: largest probability difference, top-1 agreement, loss of macro ROC-AUC."""

    difference: float
    agreement: float
    roc_auc: float


TOLERANCES = {"f32": Tolerance(1e-3, 0.99, 0.002), "bf16": Tolerance(1, 0.99, 0.002), "int8": Tolerance(1, 0.99, 0.002)}


class Parity(NamedTuple):
    """How an export compares with Keras on the same chunks."""

    chunks: int
    difference: float
    agreement: float
    roc_auc: float
    roc_auc_keras: float

    def fails(self, tolerance: Tolerance) -> list[str]:
        """What is out of tolerance, in words; a macro ROC-AUC that does not exist is in, no probability is out."""
        if not math.isfinite(self.difference):
            return ["a probability is no finite number"]
        loss = self.roc_auc_keras - self.roc_auc
        told = [
            (self.difference > tolerance.difference, f"a probability is {self.difference:.2g} off"),
            (self.agreement < tolerance.agreement, f"top-1 agreement is {self.agreement:.1%}"),
            (loss > tolerance.roc_auc, f"macro ROC-AUC falls by {loss:.4f} from {self.roc_auc_keras:.4f}"),
        ]
        return [text for out, text in told if out]


def export(
    run_dir: Path,
    out: Path,
    format: str = "openvino",
    precision: str = "f32",
    data_dir: str | Path | None = None,
) -> list[Parity]:
    """Writes the phase II classifiers of a run as a folder to predict from, whole or not at all.

    Parameters
    ----------
    run_dir : a run folder whose fifth notebook is done.
    out : a folder that is missing, empty, or an earlier export, which is replaced.
    format : "openvino" or "onnx".
    precision : "f32", "bf16" (OpenVINO alone: float32 weights that compute in bfloat16 where the processor can) or
        "int8" (all but the head. OpenVINO: weights and activations, calibrated on training chunks, of a ConvNeXt but
        for its convolutions; ONNX: the matrix products alone, whose activations are scaled window by window).

    data_dir : where the run's recordings are by now (a run that was trained elsewhere); None: where they were.

    Returns
    -------
    parities : a fold each; also in the folder's export.json.

    Raises
    ------
    ExportError
        for a format without that precision, a run without a classifier, recordings that are not there to check it on, a
        place that cannot be taken, or a model that is out of `TOLERANCES`.
    birdlib.runtimes.MissingExtraError
        if a package that exporting needs is missing.
    """
    if (format, precision) not in runtimes.RUNS:
        raise ExportError(f"there is no {format} in {precision}; there are {', '.join(map(' '.join, runtimes.RUNS))}")
    _refuse_place(out)
    run = _opened(run_dir, data_dir)
    runtimes.choose(format, precision)
    _require_writer(format)
    with _aside(out) as aside:
        whole = aside / "export"
        whole.mkdir()
        parities = _write(run, whole, format, precision)
        if out.exists():
            os.rename(out, aside / "before")  # two renames: a folder is never half there
        os.rename(whole, out)
    return parities


def for_predicting(run_dir: Path) -> Path:
    """A run's classifiers as the fastest runtime wants them: ``exports/openvino_f32`` in the run folder.

    It is made when it is missing or not whole, or is of classifiers that have been trained again, or of settings of the
    front end that have changed since.
    """
    out, run = run_dir / "exports" / "openvino_f32", exported.read(run_dir)
    try:
        current = exported.read(out).predicts_as(run)
    except ExportError:
        current = False
    if not current:
        export(run_dir, out)
    return out


def _write(run: Run, folder: Path, format: str, precision: str) -> list[Parity]:
    split_table = run.read_table("splits")
    labels = splits.labels(split_table)
    names, parities, temperatures, activation = [], [], [], ""
    for place, fold in enumerate(run.config.folds):
        name = f"model_{place}{runtimes.SUFFIXES[format]}"
        model = models.load(run.path(f"models/phase_2_fold_{fold}.keras"))
        activation = model.layers[-1].activation.__name__
        _save(model, folder / name, format)
        if precision == "int8":
            _quantise(folder / name, format, run, fold)
        parities.append(_checked(model, folder / name, format, precision, run, fold, labels))
        names.append(name)
        temperatures.append(calibration.kept(run.path(f"models/phase_2_fold_{fold}.keras")))
    about = {
        "birdlib": birdlib.__version__,
        "format": format,
        "precision": precision,
        "models": names,
        "made_from": {str(fold): digest(run.path(f"models/phase_2_fold_{fold}.keras")) for fold in run.config.folds},
        "activation": activation,
        "temperatures": temperatures,
        "parity": {str(fold): each._asdict() for fold, each in zip(run.config.folds, parities, strict=True)},
        "synthetic": bool(run.synthetic),
    }
    exported.write(folder, about, run.config, exported.species(run.read_table("recordings"), split_table, labels))
    return parities


def _require_writer(format: str) -> None:
    """What writes a format. Keras under TensorFlow has no ONNX of a ConvNeXt; torch's exporter has."""
    if format == "onnx":
        runtimes.required("onnxscript", "export")
        if keras.backend.backend() != "torch":
            raise ExportError("ONNX is written through torch: set KERAS_BACKEND=torch, and install 'birdlib[export]'")


def _save(model: keras.Model, path: Path, format: str) -> None:
    """The model with its features beside its probabilities, from a fresh copy that was never compiled."""
    both = keras.Model(model.input, [model.output, features.body(model).output])
    shape = (1, *model.input.shape[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter on its own insides
        both.export(
            str(path), format=format, verbose=False, input_signature=[keras.InputSpec("float32", shape, name="image")]
        )


def _quantise(path: Path, format: str, run: Run, fold: int) -> None:
    """Replaces a model by itself in int8, all but its head: 8 bits there turned every fortieth answer of a ConvNeXt."""
    aside, head = path.with_name(f"int8_{path.name}"), len(run.config.model.hidden) + 1
    if format == "openvino":
        int8.openvino(path, aside, head, _images(run, "train", fold, CALIBRATION_CHUNKS), run.config.model.backbone)
        os.replace(aside.with_suffix(".bin"), path.with_suffix(".bin"))
    else:
        int8.onnx(path, aside, head)
    os.replace(aside, path)


def _checked(
    model: keras.Model, path: Path, format: str, precision: str, run: Run, fold: int, labels: list[str]
) -> Parity:
    table = _chunks(run, "unseen", fold, CHECKED_CHUNKS)
    if table.empty:
        raise ExportError(f"{run.dir}: there is no chunk outside the training of fold {fold} to check an export with")
    truth = pd.Index(labels).get_indexer(table["primary_label"])
    session = runtimes.open_session(path, runtimes.choose(format, precision), precision)
    by_keras = classifier.of_keras(model, run.config)
    readable = _readable(table, run)
    pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def both(images: np.ndarray) -> np.ndarray:
        pairs.append((by_keras.predict(images), session(images).probabilities))
        return pairs[-1][1]

    classifier.Classifier(both, run.config).over(len(table), readable.read, "checking the export")
    heard = readable.heard()
    if not heard.any():
        raise ExportError(f"none of {len(table)} chunks to check an export with can be read any more: {run.data_dir}")
    if not heard.all():
        warnings.warn(f"{(~heard).sum()} chunks that cannot be read are left out of the check", stacklevel=2)
    found = parity(truth[heard], *(np.concatenate(each)[heard] for each in zip(*pairs, strict=True)))
    if wrong := found.fails(TOLERANCES[precision]):
        raise ExportError(
            f"{format} {precision} of fold {fold} is not what Keras says on {found.chunks} chunks, and is not kept: "
            + ", ".join(wrong)
        )
    return found


def parity(truth: np.ndarray, by_keras: np.ndarray, by_export: np.ndarray) -> Parity:
    """Compares two sets of probabilities (chunks, classes) of the same chunks, whose right classes are `truth`."""
    return Parity(
        len(truth),
        float(np.abs(by_keras - by_export).max()),
        float(np.mean(by_keras.argmax(axis=1) == by_export.argmax(axis=1))),
        evaluation.macro_roc_auc(truth, by_export),
        evaluation.macro_roc_auc(truth, by_keras),
    )


def _images(run: Run, side: str, fold: int, most: int) -> list[np.ndarray]:
    readable = _readable(table := _chunks(run, side, fold, most), run)
    found = spectrogram.images((readable.read(row) for row in range(len(table))), run.config)
    return [image for image, heard in zip(found, readable.heard(), strict=True) if heard]


def _readable(table: pd.DataFrame, run: Run) -> standins.Readable:
    return standins.Readable(table, sources.by_settings(run.data_dir, run.config), run.config.chunk_samples)


def _chunks(run: Run, side: str, fold: int, most: int) -> pd.DataFrame:
    """At most so many kept chunks, drawn from those that trained a fold ("train") or did not ("unseen")."""
    split_table, table = run.read_table("splits"), run.read_table("chunks")
    train = splits.side(split_table, "train", fold)
    chosen = train if side == "train" else split_table.drop(index=train.index)
    table = table[chunks.kept(table, run.config.silence)].merge(chosen[["filename", "primary_label"]], on="filename")
    rows = chance.rng(run.config.seed, "export", side, fold).permutation(len(table))[:most]
    return table.iloc[np.sort(rows)]


def _opened(run_dir: Path, data_dir: str | Path | None) -> Run:
    """The run as its sixth notebook would see it; nothing in it is changed."""
    found = exported.read(run_dir)
    if found.about["format"] != "keras":
        raise ExportError(f"{run_dir} is an export already: name the run folder it was made from")
    if not (run_dir / "tables/chunks.parquet").is_file():
        raise ExportError(f"{run_dir} lacks tables/chunks.parquet: run the series to notebook 05")
    # The store of decoded audio was filled where the run was trained.
    moved = {} if data_dir is None else {"data.dir": competition.folder(data_dir), "sources.kind": "lazy"}
    run = runs.Run(run_dir.absolute(), configs.override(found.config, moved), stages.stage("06_testing"))
    if not (run.data_dir / "train_audio").is_dir():
        raise ExportError(
            f"an export is checked on the run's recordings, and {run.data_dir} holds no train_audio: name the folder "
            "where they are (birdlib export --data-dir), or predict with Keras from the run folder (--runtime keras)"
        )
    return run


def _refuse_place(out: Path) -> None:
    if out.exists() and not (exported.is_export(out) or (out.is_dir() and not any(out.iterdir()))):
        raise ExportError(f"{out} is there and no earlier export: name a folder that is missing or empty")


@contextlib.contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A folder beside `out` that this process alone writes in; what one that was killed left there is swept away."""
    folder = out.absolute().with_name(f".{out.name}.exporting")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ExportError(f"another process is writing {out}: wait for it, or name another folder") from None
    try:
        for left in folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
