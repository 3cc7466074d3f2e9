"""The hold-out test: every fold's classifier, and their mean, on recordings that no training has seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from birdlib import baseline, chunks, classifier, evaluation, metadata, sources, splits
from birdlib.standins import Noted, Readable

if TYPE_CHECKING:
    from birdlib.classifier import Classifier
    from birdlib.runs import Run


class Result(NamedTuple):
    """What the test gave.

    ``labels`` is the class order. ``chunks`` holds all the test's chunks (filename, start_s, primary_label, kept),
    silent ones included; ``truth`` int64 (chunks,) and ``probabilities`` float32 (chunks, classes), the mean over the
    folds, are in its order. ``predictions`` is the predictions table, of kept chunks. ``broken`` are recordings that
    could not be read any more (filename -> reason); none of their chunks is in the tables.
    """

    labels: list[str]
    chunks: pd.DataFrame
    truth: np.ndarray
    probabilities: np.ndarray
    predictions: pd.DataFrame
    by_fold: dict[int, np.ndarray]
    broken: dict[str, str]

    @property
    def kept(self) -> np.ndarray:
        """Which of the chunks are not silent: bool (chunks,)."""
        return self.chunks["kept"].to_numpy()

    @property
    def said(self) -> pd.DataFrame:
        """The kept chunks (filename, start_s, primary_label) with a float32 column a class: ``probabilities``."""
        front = self.chunks.loc[self.kept, ["filename", "start_s", "primary_label"]].reset_index(drop=True)
        values = pd.DataFrame(self.probabilities[self.kept], columns=self.labels, dtype="float32")
        return pd.concat([front, values], axis=1)


def classifiers(run: Run) -> dict[int, Classifier]:
    """Phase II's best classifier of each fold of the settings."""
    return {
        fold: classifier.load(run.path(f"models/phase_2_fold_{fold}.keras"), run.config) for fold in run.config.folds
    }


def test(run: Run, models: dict[int, Classifier]) -> Result:
    """Predicts all of the test's chunks with each fold's classifier; several folds' predictions are averaged.

    The predictions table: filename, start_s, split ("validation" or "test"), fold, primary_label, then a float32
    column a class. Those of the validation chunks are phase II's own. With several folds the test's mean is there too,
    as fold -1.
    """
    split_table = run.read_table("splits")
    splits.check(split_table)
    labels = splits.labels(split_table)
    every = run.read_table("chunks")
    every["kept"] = chunks.kept(every, run.config.silence)
    held_out = _of_side(every, splits.side(split_table, "test"))
    source = Noted(sources.open_source(run))
    reader = Readable(held_out, source, run.config.chunk_samples)
    by_fold = {fold: _predict(model, reader, labels) for fold, model in models.items()}
    heard = reader.heard()
    held_out, by_fold = held_out[heard].reset_index(drop=True), {fold: said[heard] for fold, said in by_fold.items()}
    kept, tables = held_out["kept"].to_numpy(), []
    for fold in models:
        validation = run.read_table(f"validation_phase_2_fold_{fold}")
        tables.append(_table(validation, validation[labels].to_numpy(), labels, "validation", fold))
        tables.append(_table(held_out[kept], by_fold[fold][kept], labels, "test", fold))
    mean = np.mean(list(by_fold.values()), axis=0)
    if len(by_fold) > 1:
        tables.append(_table(held_out[kept], mean[kept], labels, "test", -1))
    truth = pd.Index(labels).get_indexer(held_out["primary_label"])
    return Result(labels, held_out, truth, mean, pd.concat(tables, ignore_index=True), by_fold, source.broken)


def scores(
    result: Result, traits: pd.DataFrame, baseline_accuracy: float, on: str = "", seed: int = 0
) -> dict[str, Any]:
    """The section ``test`` of ``metrics.json``: plain numbers, nan where a metric does not exist.

    `on` says what data these are, if they are not real (`birdlib.runs.Run.synthetic`). ``commonest`` is the accuracy of
    always naming the test's commonest species; ``accuracy_interval`` a 95 % interval by recording.
    """
    kept, labels = result.kept, result.labels
    truth, probabilities = result.truth[kept], result.probabilities[kept]
    right = probabilities.argmax(axis=1) == truth
    missing = sorted(set(labels) - set(result.chunks["primary_label"]))
    return {
        "on": on,
        **_headline(result, kept, result.probabilities),
        "accuracy_interval": list(evaluation.interval(right, result.chunks["filename"][kept], seed)),
        "commonest": float(np.bincount(truth).max() / len(truth)) if len(truth) else float("nan"),
        "baseline": {"accuracy": baseline_accuracy},
        "chance": 1 / len(labels),
        "classes": len(labels),
        "classes_without_test": missing,
        "with_silent_chunks": _headline(result, np.ones_like(kept), result.probabilities),
        "folds": {str(fold): _headline(result, kept, values) for fold, values in result.by_fold.items()},
        **{name: evaluation.trait(truth, probabilities, traits[name])._asdict() for name in traits.columns},
        "species_without_traits": traits.index[traits.isna().all(axis=1)].tolist(),
    }


def baseline_score(run: Run, result: Result) -> float:
    """Accuracy by chunk of the logistic regression, fitted on the first fold's training side, on the same test.

    nan where there is nothing to test with.
    """
    if not result.kept.any():
        return float("nan")
    split_table = run.read_table("splits")
    every = run.read_table("chunks")
    kept = every[chunks.kept(every, run.config.silence)]
    train = _of_side(kept, splits.side(split_table, "train", run.config.folds[0]))
    held_out = result.chunks[result.kept].reset_index(drop=True)
    predicted = baseline.probabilities(train, held_out, result.labels, run.data_dir, run.config)
    return evaluation.accuracy(result.truth[result.kept], predicted)


def traits(run: Run, labels: list[str]) -> pd.DataFrame:
    """Endangered and nocturnal for the run's species."""
    return metadata.traits(labels, run.data_dir, run.config)


def members(traits: pd.DataFrame, name: str, names: Mapping[str, str]) -> str:
    """The species that have a trait, by common name, in one line."""
    has = traits[name].fillna(False).astype(bool)
    return ", ".join(names.get(label, label) for label in traits.index[has]) or "none"


def _of_side(chunk_table: pd.DataFrame, side: pd.DataFrame) -> pd.DataFrame:
    return chunk_table.merge(side[["filename", "primary_label"]], on="filename").reset_index(drop=True)


def _predict(model: Classifier, reader: Readable, labels: list[str]) -> np.ndarray:
    return model.over(len(reader.places), reader.read).reshape(-1, len(labels))


def _table(chunk_table: pd.DataFrame, values: np.ndarray, labels: list[str], split: str, fold: int) -> pd.DataFrame:
    front = chunk_table[["filename", "start_s"]].assign(
        split=split, fold=np.int8(fold), primary_label=chunk_table["primary_label"]
    )
    columns = pd.DataFrame(values, columns=labels, index=front.index, dtype="float32")
    return pd.concat([front, columns], axis=1)


def _headline(result: Result, used: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    truth, probabilities = result.truth[used], probabilities[used]
    share = evaluation.accuracy(truth, probabilities)
    if not len(truth):
        nothing = dict.fromkeys(("accuracy", "recording_accuracy", "times_chance", "macro_roc_auc"), float("nan"))
        return {**nothing, "chunks": 0, "recordings": 0}
    whole = evaluation.by_recording(result.chunks["filename"][used], truth, probabilities)
    return {
        "accuracy": share,
        "recording_accuracy": evaluation.accuracy(*whole),
        "times_chance": evaluation.times_chance(share, len(result.labels)),
        "macro_roc_auc": evaluation.macro_roc_auc(truth, probabilities),
        "chunks": len(truth),
        "recordings": len(whole[0]),
    }
