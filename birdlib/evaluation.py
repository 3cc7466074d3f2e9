"""Metrics on arrays.

Conventions: ``truth`` is int64 (samples,), the index of the right class; ``probabilities`` is float (samples,
classes), rows summing to 1 where they come from a softmax; the predicted class is the likeliest, the first of equals.
A sample is a chunk, or by `by_recording` a whole recording. Shares, areas and precisions lie in 0..1; a metric that
does not exist for the samples given (no sample, no positive) is nan. "Macro" and "class-mean" are plain means over the
classes that have a positive: a class that was never there says nothing, and is left out. Intervals are those of
`birdlib.intervals`, 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn import metrics

from birdlib import intervals
from birdlib.calibration import Activation
from birdlib.intervals import Estimate

HEADLINE = {
    "accuracy": "accuracy",
    "top_5": "right among the first five",
    "macro_roc_auc": "macro ROC-AUC",
    "mean_average_precision": "class-mean average precision",
}


class BinaryScore(NamedTuple):
    """A two-class task: ROC-AUC and average precision, with how many samples are positive, of how many."""

    roc_auc: Estimate
    average_precision: Estimate
    positives: int
    samples: int


def accuracy(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Share of samples whose likeliest class is the right one."""
    return float(np.mean(probabilities.argmax(axis=1) == truth)) if len(truth) else float("nan")


def ranks(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How many classes are predicted before the right one: int64 (samples,), 0 where it is the likeliest."""
    of_right = np.take_along_axis(probabilities, truth[:, None], axis=1)
    before = np.arange(probabilities.shape[1]) < truth[:, None]  # of equals, the first
    return ((probabilities > of_right) | ((probabilities == of_right) & before)).sum(axis=1)


def top(truth: np.ndarray, probabilities: np.ndarray, most: int) -> float:
    """Share of samples whose right class is among the `most` likeliest."""
    return float(np.mean(ranks(truth, probabilities) < most)) if len(truth) else float("nan")


def times_chance(accuracy: float, num_classes: int) -> float:
    """How many times better than guessing among `num_classes` an accuracy is (the paper's "103 times chance")."""
    return accuracy * num_classes


def by_recording(
    filenames: Sequence[str], truth: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Truth (recordings,) and mean probabilities (recordings, classes) of whole recordings, sorted by filename."""
    names, first, of = np.unique(np.asarray(filenames), return_index=True, return_inverse=True)
    sums = np.zeros((len(names), probabilities.shape[1]))
    np.add.at(sums, of, probabilities)
    return truth[first], sums / np.bincount(of)[:, None]


def ranking_by_class(truth: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """How well each class's probability ranks the samples: a row a class, columns roc_auc and average_precision.

    nan for a class without a positive; the ROC-AUC also for one without a negative.
    """
    once = np.ones((1, len(truth)), np.int32)
    columns = range(probabilities.shape[1])
    found = [np.concatenate(intervals.ranking(truth == each, probabilities[:, each], once)) for each in columns]
    return pd.DataFrame(found, columns=["roc_auc", "average_precision"])


def macro_roc_auc(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean ROC-AUC over the classes that have a positive: the competition's score."""
    return float(ranking_by_class(truth, probabilities)["roc_auc"].mean())


def mean_average_precision(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean average precision over the classes that have a positive (cmAP)."""
    return float(ranking_by_class(truth, probabilities)["average_precision"].mean())


def headline(
    truth: np.ndarray, probabilities: np.ndarray, groups: Sequence[str], seed: int, repeats: int = intervals.REPEATS
) -> dict[str, Estimate]:
    """The numbers that sum a result up, each with its 95 % interval, whole `groups` (samples,) resampled.

    Returns
    -------
    accuracy, top_5, macro_roc_auc, mean_average_precision. A resample's means over classes are over those of which a
    positive was drawn.
    """
    weights = intervals.resampled(groups, seed, repeats)
    both = np.concatenate([np.ones((1, len(truth)), np.int32), weights])
    areas, precisions = np.full((2, len(both), probabilities.shape[1]), np.nan)
    for each in np.unique(truth):
        areas[:, each], precisions[:, each] = intervals.ranking(truth == each, probabilities[:, each], both)
    right = {name: ranks(truth, probabilities) < most for name, most in (("accuracy", 1), ("top_5", 5))}
    found = {name: intervals.mean(values, both) for name, values in right.items()}
    found |= {"macro_roc_auc": over_classes(areas), "mean_average_precision": over_classes(precisions)}
    return {name: bounded(values, groups) for name, values in found.items()}


def bounded(values: np.ndarray, groups: Sequence[str]) -> Estimate:
    """A share from its value and those of the resamples after it, (1 + repeats,); its interval is within 0..1.

    What resampling adds by itself is taken off, which may lead out of that.
    """
    low, high = intervals.limits(values[0], values[1:], groups)
    return Estimate(float(values[0]), float(np.maximum(low, 0)), float(np.minimum(high, 1)))


def summary(
    truth: np.ndarray, probabilities: np.ndarray, filenames: Sequence[str], groups: Sequence[str], seed: int | None
) -> dict[str, Any]:
    """`headline` by chunk and by recording, as plain numbers for ``metrics.json``.

    Parameters
    ----------
    filenames, groups : (samples,), the recording and the split's group of each chunk.
    seed : of the intervals; None: there are none.

    Returns
    -------
    accuracy, top_5, macro_roc_auc, mean_average_precision by chunk, and by recording as recording_...; times_chance;
        chunks, recordings, groups (how many); classes_left_out (those without a positive); intervals (name -> [low,
        high]).
    """
    names, first = np.unique(np.asarray(filenames, dtype=str), return_index=True)
    levels = {"": (truth, probabilities, np.asarray(groups, dtype=str))}
    levels["recording_"] = (*by_recording(filenames, truth, probabilities), levels[""][2][first])
    repeats = 0 if seed is None else intervals.REPEATS
    found = {
        level + name: estimate
        for level, arrays in levels.items()
        for name, estimate in headline(*arrays, seed or 0, repeats).items()
    }
    return {
        **{name: estimate.value for name, estimate in found.items()},
        "times_chance": times_chance(found["accuracy"].value, probabilities.shape[1]),
        "chunks": len(truth),
        "recordings": len(names),
        "groups": len(np.unique(levels[""][2])),
        "classes_left_out": probabilities.shape[1] - len(np.unique(truth)),
        **({} if seed is None else {"intervals": {name: [each.low, each.high] for name, each in found.items()}}),
    }


def over_classes(values: np.ndarray) -> np.ndarray:
    """Mean of the known in each row, such as of the classes in each resample: float64 (rows,)."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)


def binary(truth: np.ndarray, scores: np.ndarray, groups: Sequence[str], seed: int) -> BinaryScore:
    """A two-class task from bool `truth` (samples,) and `scores` (samples,), higher for positives.

    The intervals are wide where few of the `groups` (samples,) have a positive, and do not exist where fewer than two
    have one: what comes again and again is then the same few.
    """
    weights = np.concatenate([np.ones((1, len(truth)), np.int32), intervals.resampled(groups, seed)])
    positives, nothing = int(truth.sum()), Estimate(*[float("nan")] * 3)
    if positives in (0, len(truth)):
        return BinaryScore(nothing, nothing, positives, len(truth))
    if len(np.unique(np.asarray(groups)[truth])) < 2:
        weights = weights[:1]
    estimates = [bounded(values, groups) for values in intervals.ranking(truth, scores, weights)]
    return BinaryScore(*estimates, positives, len(truth))


def of_any(probabilities: np.ndarray, activation: Activation) -> np.ndarray:
    """How probable any of some classes is, float (samples,), from theirs, (samples, classes).

    A softmax's classes exclude each other, so their probabilities add up. A sigmoid's do not: there may be several
    birds, and a sum would pass 1 and rise with the number of species that are each held for unlikely. As far as they
    are independent, none of them is there with the product of 1 - p, and any of them with what that leaves.
    """
    if activation == "softmax":
        return probabilities.sum(axis=1)
    return -np.expm1(np.log1p(-np.clip(probabilities.astype(float), 0, 1 - 1e-12)).sum(axis=1))


def trait(
    truth: np.ndarray,
    probabilities: np.ndarray,
    of_class: pd.Series,
    groups: Sequence[str],
    seed: int,
    activation: Activation = "softmax",
) -> BinaryScore:
    """A trait of species, such as nocturnal, scored by how probable any of the species is that have it (`of_any`).

    Parameters
    ----------
    of_class : "boolean" (classes,) in class order; samples of a class where it is missing are left out.
    """
    known, has = of_class.notna().to_numpy(), of_class.fillna(False).to_numpy(bool)
    used = known[truth]
    likely = of_any(probabilities[used][:, has], activation)
    return binary(has[truth[used]], likely, np.asarray(groups)[used], seed)


def confusion(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Counts, int64 (classes, classes): row the right class, column the predicted one."""
    classes = range(probabilities.shape[1])
    if not len(truth):
        return np.zeros((len(classes), len(classes)), np.int64)
    return metrics.confusion_matrix(truth, probabilities.argmax(axis=1), labels=classes)


def confused_pairs(matrix: np.ndarray, labels: Sequence[str], most: int = 3) -> list[tuple[str, str, int]]:
    """The largest counts off the diagonal of `confusion`: right label, predicted label, count; the largest first."""
    wrong = matrix - np.diag(np.diag(matrix))
    largest = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(largest, wrong.shape)
    return [
        (labels[row], labels[column], int(wrong[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if wrong[row, column]
    ]


def per_class(truth: np.ndarray, probabilities: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
    """One row a class that has a sample: chunks (int), precision, recall, roc_auc, average_precision; by label.

    Precision is nan for a class that is never predicted.
    """
    counts = confusion(truth, probabilities)
    with np.errstate(invalid="ignore"):
        precision = np.diag(counts) / counts.sum(axis=0)
        recall = np.diag(counts) / counts.sum(axis=1)
    table = pd.DataFrame(
        {
            "chunks": counts.sum(axis=1),
            "precision": precision,
            "recall": recall,
            **ranking_by_class(truth, probabilities).to_dict("list"),
        },
        index=pd.Index(labels, name="label"),
    )
    return table[table["chunks"] > 0]


def by_part(right: np.ndarray, parts: pd.Series, filenames: Sequence[str], groups: Sequence[str], seed: int):
    """Accuracy by part of the samples, such as by author or by the recording's length.

    Parameters
    ----------
    right : bool (samples,); ``parts`` (samples,): which part each is of, missing where of none.

    Returns
    -------
    table : a row a part, in their order: chunks, recordings (int), accuracy, low, high (its interval, by `groups`).
    """
    of = {"right": right, "part": pd.Series(parts).reset_index(drop=True), "filename": filenames, "group": groups}
    table = pd.DataFrame(of)
    rows = {
        part: {
            "chunks": len(of),
            "recordings": of["filename"].nunique(),
            "accuracy": of["right"].mean(),
            # What resampling adds by itself is taken off, which may lead out of 0..1.
            **dict(zip(("low", "high"), np.clip(intervals.of_mean(of["right"], of["group"], seed), 0, 1), strict=True)),
        }
        for part, of in table.groupby("part", observed=True)
    }
    columns = ["chunks", "recordings", "accuracy", "low", "high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
