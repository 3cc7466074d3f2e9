"""Metrics on arrays.

Conventions: ``truth`` is int64 (samples,), the index of the right class; ``probabilities`` is float (samples,
classes), rows summing to 1; the predicted class is the likeliest. Shares and areas lie in 0..1; a metric that does not
exist for the samples given (no sample, no positive) is nan. "Macro" is a plain mean over classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn import metrics

from birdlib import chance


class BinaryScore(NamedTuple):
    """A two-class task: ROC-AUC and average precision, with how many samples are positive, of how many."""

    roc_auc: float
    average_precision: float
    positives: int
    samples: int


def accuracy(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Share of samples whose likeliest class is the right one."""
    return float(np.mean(probabilities.argmax(axis=1) == truth)) if len(truth) else float("nan")


def times_chance(accuracy: float, num_classes: int) -> float:
    """How many times better than guessing among `num_classes` an accuracy is (the paper's "103 times chance")."""
    return accuracy * num_classes


def interval(
    values: np.ndarray, groups: Sequence[str], seed: int, share: float = 0.95, repeats: int = 1000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (samples,), with whole `groups` (samples,) resampled.

    Chunks of one recording rise and fall together, so it is recordings that are drawn again, with replacement (the
    cluster bootstrap; Davison and Hinkley, 1997, section 3.8). nan where there is nothing.
    """
    values, (_, of) = np.asarray(values, float), np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if not len(values):
        return float("nan"), float("nan")
    sums, counts = np.bincount(of, values), np.bincount(of)
    drawn = chance.rng(seed, "bootstrap").integers(len(counts), size=(repeats, len(counts)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def by_recording(
    filenames: Sequence[str], truth: np.ndarray, probabilities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Truth (recordings,) and mean probabilities (recordings, classes) of whole recordings, sorted by filename."""
    names, first, of = np.unique(np.asarray(filenames), return_index=True, return_inverse=True)
    sums = np.zeros((len(names), probabilities.shape[1]))
    np.add.at(sums, of, probabilities)
    return truth[first], sums / np.bincount(of)[:, None]


def roc_auc_by_class(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Area under each class's ROC curve against all others, float64 (classes,); nan without a positive or negative."""
    return np.array(
        [binary(truth == index, probabilities[:, index]).roc_auc for index in range(probabilities.shape[1])]
    )


def macro_roc_auc(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of `roc_auc_by_class` over the classes that have a positive: the competition's score."""
    areas = roc_auc_by_class(truth, probabilities)
    return float(np.nanmean(areas)) if np.isfinite(areas).any() else float("nan")


def binary(truth: np.ndarray, scores: np.ndarray) -> BinaryScore:
    """A two-class task from bool `truth` (samples,) and `scores` (samples,), higher for positives."""
    positives = int(truth.sum())
    if positives in (0, len(truth)):
        return BinaryScore(float("nan"), float("nan"), positives, len(truth))
    area = metrics.roc_auc_score(truth, scores)
    precision = metrics.average_precision_score(truth, scores)
    return BinaryScore(float(area), float(precision), positives, len(truth))


def trait(truth: np.ndarray, probabilities: np.ndarray, of_class: pd.Series) -> BinaryScore:
    """A trait of species, such as nocturnal, scored by the summed probability of the species that have it.

    Parameters
    ----------
    of_class : "boolean" (classes,) in class order; samples of a class where it is missing are left out.
    """
    known, has = of_class.notna().to_numpy(), of_class.fillna(False).to_numpy(bool)
    used = known[truth]
    return binary(has[truth[used]], probabilities[used][:, has].sum(axis=1))


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
    """One row a class that has a sample: chunks (int), precision, recall, roc_auc; indexed by label.

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
            "roc_auc": roc_auc_by_class(truth, probabilities),
        },
        index=pd.Index(labels, name="label"),
    )
    return table[table["chunks"] > 0]
