"""The hold-out test: every fold's classifier, and their mean, on recordings that no training has seen.

Without a test (``splits.test_share=0``) the same is told of all folds' validation, each chunk by its own fold.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from birdlib import baseline, calibration, chunks, classifier, evaluation, folds, intervals, metadata, sources, splits
from birdlib.plots_style import plural
from birdlib.standins import Noted, Readable

if TYPE_CHECKING:
    from birdlib.calibration import Activation
    from birdlib.classifier import Classifier
    from birdlib.config import Config
    from birdlib.runs import Run


LENGTHS_S = (10, 30, 60)  # where short recordings end, and long ones begin


class Result(NamedTuple):
    """What the test gave, or where there is none (``side`` "validation") the folds' validation.

    ``labels`` is the class order. ``chunks`` holds all the test's chunks (filename, start_s, primary_label, group,
    kept), silent ones included; ``truth`` int64 (chunks,) and ``probabilities`` float32 (chunks, classes), the mean
    over the folds, are in its order; so is ``tempered``, the mean of what the folds say at their ``temperatures``
    (`birdlib.calibration`). ``predictions`` is the predictions table, of kept chunks. ``broken`` are recordings that
    could not be read any more (filename -> reason); none of their chunks is in the tables. ``activation`` is that of
    the classifiers' last layer.
    """

    labels: list[str]
    chunks: pd.DataFrame
    truth: np.ndarray
    probabilities: np.ndarray
    predictions: pd.DataFrame
    by_fold: dict[int, np.ndarray]
    broken: dict[str, str]
    temperatures: dict[int, float]
    tempered: np.ndarray
    activation: Activation
    side: Literal["test", "validation"] = "test"

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

    Of a split without a test, the result is that of `cross_validated`.
    """
    split_table = run.read_table("splits")
    splits.check(split_table)
    labels = splits.labels(split_table)
    if splits.side(split_table, "test").empty:
        return cross_validated(run, split_table)
    every = run.read_table("chunks")
    every["kept"] = chunks.kept(every, run.config.silence)
    held_out = _of_side(every, splits.side(split_table, "test"))
    source = Noted(sources.open_source(run))
    reader = Readable(held_out, source, run.config.chunk_samples)
    by_fold = {fold: _predict(model, reader, labels) for fold, model in models.items()}
    heard = reader.heard()
    held_out, by_fold = held_out[heard].reset_index(drop=True), {fold: said[heard] for fold, said in by_fold.items()}
    kept, tables, temperatures = held_out["kept"].to_numpy(), [], {}
    for fold in models:
        validation = run.read_table(f"validation_phase_2_fold_{fold}")
        tables.append(_table(validation, validation[labels].to_numpy(), labels, "validation", fold))
        tables.append(_table(held_out[kept], by_fold[fold][kept], labels, "test", fold))
        temperatures[fold] = calibration.kept(run.path(f"models/phase_2_fold_{fold}.keras"))
    mean = np.mean(list(by_fold.values()), axis=0)
    if len(by_fold) > 1:
        tables.append(_table(held_out[kept], mean[kept], labels, "test", -1))
    truth = pd.Index(labels).get_indexer(held_out["primary_label"])
    heated = np.mean([_tempered(by_fold[fold], temperatures[fold], run.config) for fold in models], axis=0)
    every_row = pd.concat(tables, ignore_index=True)
    activation = run.config.loss.activation
    return Result(labels, held_out, truth, mean, every_row, by_fold, source.broken, temperatures, heated, activation)


def cross_validated(run: Run, split_table: pd.DataFrame) -> Result:
    """What phase II's classifiers say of the kept chunks that they were not trained on, all folds together.

    Each fold's temperature is fitted on the others here, so that it is judged on what it has not seen; of one fold
    alone there is none. The predictions table is as `test` makes it.
    """
    said, labels = folds.out_of_fold(run, 2), splits.labels(split_table)
    front = said[["filename", "start_s", "primary_label"]].assign(
        group=splits.groups(split_table, said["filename"]), kept=True
    )
    truth, values = pd.Index(labels).get_indexer(said["primary_label"]), said[labels].to_numpy(np.float32)
    of_fold, temperatures, tempered = said["fold"].to_numpy(), {}, values.copy()
    for fold in run.config.folds:
        own = of_fold == fold
        others = truth[~own], values[~own], run.config.loss.activation
        temperatures[fold] = calibration.fit_temperature(*others) if len(run.config.folds) > 1 else 1.0
        tempered[own] = _tempered(values[own], temperatures[fold], run.config)
    tables = [
        _table(said[of_fold == fold], values[of_fold == fold], labels, "validation", fold) for fold in temperatures
    ]
    predictions, activation = pd.concat(tables, ignore_index=True), run.config.loss.activation
    return Result(
        labels, front, truth, values, predictions, {}, {}, temperatures, tempered, activation, side="validation"
    )


def scores(
    result: Result, traits: pd.DataFrame, baseline_accuracy: float, on: str = "", seed: int = 0
) -> dict[str, Any]:
    """The section of ``metrics.json`` named as the result's side: plain numbers, nan where a metric does not exist.

    `on` says what data these are, if they are not real (`birdlib.runs.Run.synthetic`). ``commonest`` is the accuracy of
    always naming the test's commonest species. Intervals resample the split's own groups. ``with_silent_chunks`` is
    None where those were not predicted.
    """
    kept, labels = result.kept, result.labels
    truth = result.truth[kept]
    missing = sorted(set(labels) - set(result.chunks["primary_label"]))
    return {
        "on": on,
        **_headline(result, kept, result.probabilities, seed),
        "calibration": _calibration(result),
        "commonest": float(np.bincount(truth).max() / len(truth)) if len(truth) else float("nan"),
        "baseline": {"accuracy": baseline_accuracy},
        "chance": 1 / len(labels),
        "classes": len(labels),
        "classes_without_test": missing,
        "with_silent_chunks": None
        if result.side == "validation"
        else _headline(result, np.ones_like(kept), result.probabilities, seed),
        "folds": {str(fold): _headline(result, kept, values, None) for fold, values in result.by_fold.items()},
        **{name: _trait(result, traits[name], seed) for name in traits.columns},
    }


def baseline_score(run: Run, result: Result) -> float:
    """Accuracy by chunk of the logistic regression on the same test; nan where there is nothing to test with.

    As of the network, there is one for each fold, fitted on its training side, and what they say is averaged. Of a
    cross-validation each is asked for its own fold.
    """
    if not result.kept.any():
        return float("nan")
    split_table = run.read_table("splits")
    every = run.read_table("chunks")
    kept = every[chunks.kept(every, run.config.silence)]
    held_out, truth = result.chunks[result.kept].reset_index(drop=True), result.truth[result.kept]
    sides = [_of_side(kept, splits.side(split_table, "train", fold)) for fold in run.config.folds]
    said = baseline.by_side(sides, held_out, result.labels, run.data_dir, run.config)
    if result.side == "test":
        return evaluation.accuracy(truth, said.mean(axis=0))
    validates = held_out["filename"].map(split_table.set_index("filename")["fold"])
    own = pd.Index(run.config.folds).get_indexer(validates)
    return evaluation.accuracy(truth, said[own, np.arange(len(truth))])


def headline(scores: Mapping[str, Any]) -> pd.DataFrame:
    """The headline numbers of `scores` for `birdlib.plots.with_intervals`: by chunk, then by recording."""
    rows = {}
    for level, unit in (("", "chunk"), ("recording_", "recording")):
        for name, words in evaluation.HEADLINE.items():
            value, (low, high) = scores[level + name], scores["intervals"][level + name]
            text = intervals.told(value, low, high)
            rows[f"{words}, by {unit}"] = {"value": value, "low": low, "high": high, "text": text}
    return pd.DataFrame.from_dict(rows, orient="index")


def told(parts: pd.DataFrame) -> pd.DataFrame:
    """A table of `by_length` or `by_author` for `birdlib.plots.with_intervals`."""
    of = [plural(count, "chunk") for count in parts["chunks"]]
    texts = [
        f"{row.accuracy:.0%} of {each}, {row.recordings:,} rec."
        for row, each in zip(parts.itertuples(), of, strict=True)
    ]
    return parts.rename(columns={"accuracy": "value"}).assign(text=texts)


def by_length(result: Result, recordings: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Accuracy by chunk of short and of long recordings, as `birdlib.evaluation.by_part` gives it."""
    of = result.chunks[result.kept]
    length_s = of["filename"].map(recordings.set_index("filename")["duration_s"])
    names = [f"up to {LENGTHS_S[0]} s", *(f"{low} to {high} s" for low, high in itertools.pairwise(LENGTHS_S))]
    parts = pd.cut(length_s, [0, *LENGTHS_S, np.inf], labels=[*names, f"over {LENGTHS_S[-1]} s"])
    return _by_part(result, parts, seed)


def by_author(result: Result, recordings: pd.DataFrame, seed: int, most: int = 8) -> pd.DataFrame:
    """Accuracy by chunk of the recordists with most test recordings, and of all others; as `by_length`.

    There is no interval for an author whose recordings are one group, as they are in a split by author.
    """
    of = result.chunks[result.kept]
    author = of["filename"].map(recordings.set_index("filename")["author"])
    counts = of["filename"].groupby(author).nunique()
    first = counts.sort_values(ascending=False, kind="stable").index[:most]
    others = plural(max(len(counts) - most, 0), "other")
    while others in set(first):  # somebody may call themselves so
        others += "s"
    parts = author.where(author.isin(first) | author.isna(), others)
    return _by_part(result, pd.Categorical(parts, [*first, others]), seed)


def _by_part(result: Result, parts: pd.Series, seed: int) -> pd.DataFrame:
    of = result.chunks[result.kept]
    right = evaluation.ranks(result.truth[result.kept], result.probabilities[result.kept]) == 0
    return evaluation.by_part(right, parts, of["filename"].to_numpy(), of["group"].to_numpy(), seed)


def traits(run: Run, labels: list[str]) -> pd.DataFrame:
    """Endangered and nocturnal for the run's species."""
    return metadata.traits(labels, run.data_dir, run.config)


def members(traits: pd.DataFrame, name: str, names: Mapping[str, str]) -> str:
    """The species that have a trait, by common name, in one line."""
    has = traits[name].fillna(False).astype(bool)
    return ", ".join(names.get(label, label) for label in traits.index[has]) or "none"


def trait_row(score: Mapping[str, Any], species: str) -> dict[str, Any]:
    """A trait's scores, out of `scores`, as a row of a table to be read."""
    chance = score["positives"] / score["samples"] if score["samples"] else float("nan")
    return {
        "species": species,
        "ROC-AUC": intervals.told(score["roc_auc"], *score["intervals"]["roc_auc"]),
        "average precision": intervals.told(score["average_precision"], *score["intervals"]["average_precision"]),
        "by chance": f"{chance:.3f}" if chance > 0 else "unknown",
        "positives": score["positives"],
        "chunks": score["samples"],
        "species without an entry": len(score["species_without_entry"]),
    }


def _of_side(chunk_table: pd.DataFrame, side: pd.DataFrame) -> pd.DataFrame:
    return chunk_table.merge(side[["filename", "primary_label", "group"]], on="filename").reset_index(drop=True)


def _predict(model: Classifier, reader: Readable, labels: list[str]) -> np.ndarray:
    return model.over(len(reader.places), reader.read).reshape(-1, len(labels))


def _table(chunk_table: pd.DataFrame, values: np.ndarray, labels: list[str], split: str, fold: int) -> pd.DataFrame:
    front = chunk_table[["filename", "start_s"]].assign(
        split=split, fold=np.int8(fold), primary_label=chunk_table["primary_label"]
    )
    columns = pd.DataFrame(values, columns=labels, index=front.index, dtype="float32")
    return pd.concat([front, columns], axis=1)


def _tempered(probabilities: np.ndarray, temperature: float, config: Config) -> np.ndarray:
    return calibration.tempered(probabilities, temperature, config.loss.activation)


def _headline(result: Result, used: np.ndarray, probabilities: np.ndarray, seed: int | None) -> dict[str, Any]:
    of = result.chunks[used]
    return evaluation.summary(result.truth[used], probabilities[used], of["filename"], of["group"], seed)


def _calibration(result: Result) -> dict[str, Any]:
    """The expected calibration error on the test, as it is and at the temperatures fitted on validation."""
    truth, kept = result.truth[result.kept], result.kept
    return {
        "temperatures": {str(fold): value for fold, value in result.temperatures.items()},
        "expected_error": calibration.expected_error(truth, result.probabilities[kept]),
        "expected_error_tempered": calibration.expected_error(truth, result.tempered[kept]),
    }


def _trait(result: Result, of_class: pd.Series, seed: int) -> dict[str, Any]:
    """A trait's scores as plain numbers, with their intervals and the species that have no entry."""
    kept, groups = result.kept, result.chunks["group"].to_numpy()[result.kept]
    truth, probabilities = result.truth[kept], result.probabilities[kept]
    score = evaluation.trait(truth, probabilities, of_class, groups, seed, result.activation)
    return {
        "roc_auc": score.roc_auc.value,
        "average_precision": score.average_precision.value,
        "positives": score.positives,
        "samples": score.samples,
        "intervals": {name: list(getattr(score, name)[1:]) for name in ("roc_auc", "average_precision")},
        "species_without_entry": of_class.index[of_class.isna()].tolist(),
    }
