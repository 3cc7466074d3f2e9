"""Bootstrap intervals: how far a result would move, had other recordings come into the test.

Chunks of one recording rise and fall together, and so do recordings of one author where the split goes by author. So it
is whole groups, the split's own, that are drawn again with replacement (the cluster bootstrap; Davison and Hinkley,
1997, section 3.8). A resample is given by weights: int32 (repeats, samples), how often each sample's group was drawn.
A weight of 1 for all is the result itself, so the same function gives both.

The interval is the percentile one, widened for few groups as t is wider than the normal (the "expanded percentile
interval"; Hesterberg, 2015, section 3.5), and moved by what resampling adds by itself, where that is more than the
resamples' own noise: an average precision of few positives rises where one of them comes twice. So it says where the
results of other tests *of this size* would lie. Of a single group it does not exist; nor where all resamples agree, as
they do where every answer is right: nothing in them says how often another test's would not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from birdlib import chance

REPEATS = 1000
_AT_ONCE = 4_000_000  # numbers held at a time


class Estimate(NamedTuple):
    """A result and its interval; nan where it does not exist."""

    value: float
    low: float
    high: float


def resampled(groups: Sequence[str], seed: int, repeats: int = REPEATS) -> np.ndarray:
    """Weights of resamples of whole `groups` (samples,): int32 (repeats, samples)."""
    _, of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = int(of.max(initial=-1)) + 1
    drawn = chance.rng(seed, "bootstrap").integers(max(count, 1), size=(repeats, count))
    drawn += count * np.arange(repeats)[:, None]
    times = np.bincount(drawn.ravel(), minlength=repeats * count).reshape(repeats, count)
    return times.astype(np.int32)[:, of]


def limits(value: float, results: np.ndarray, groups: Sequence[str], share: float = 0.95) -> tuple[float, float]:
    """The interval of `value` from the results of the resamples, (repeats,), by the groups (samples,) that were drawn.

    Resamples for which the result does not exist (of a rare class, no positive may have been drawn) are left out.
    """
    count, known = len(np.unique(np.asarray(groups, dtype=str))), results[np.isfinite(results)]
    # Nothing to resample, no resample asked for, or (but for rounding) none that differs.
    if count < 2 or not len(known) or np.ptp(known) < 1e-12:
        return float("nan"), float("nan")
    tail = stats.norm.cdf(-np.sqrt(count / (count - 1)) * stats.t.ppf((1 + share) / 2, count - 1))
    added, noise = known.mean() - value, known.std() / np.sqrt(len(known))
    low, high = np.quantile(known, [tail, 1 - tail]) - (added if abs(added) > 3 * noise else 0)
    return float(low), float(high)


def told(value: float, low: float, high: float, form: str = ".3f") -> str:
    """A result and its interval as they are written: "0.688 (0.400 to 0.922)", each number in `form`."""
    if np.isnan(value):
        return "unknown"
    return f"{value:{form}} (no interval)" if np.isnan(low) else f"{value:{form}} ({low:{form}} to {high:{form}})"


def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of `values` (samples,) in each resample: float64 (repeats,)."""
    with np.errstate(invalid="ignore"):
        return weights @ np.asarray(values, float) / weights.sum(axis=1)


def of_mean(values: np.ndarray, groups: Sequence[str], seed: int, repeats: int = REPEATS) -> tuple[float, float]:
    """The 95 % interval of the mean of `values` (samples,)."""
    if not len(values):
        return float("nan"), float("nan")
    return limits(float(np.mean(values)), mean(values, resampled(groups, seed, repeats)), groups)


def ranking(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ROC-AUC and average precision of a two-class task in each resample, float64 (repeats,) each.

    Parameters
    ----------
    truth : bool (samples,).
    scores : (samples,), higher for positives. Equal ones are one place in the ranking.

    nan in a resample without positives; the ROC-AUC also without negatives.
    """
    if not truth.any():
        return np.full((2, len(weights)), np.nan)
    rows = max(1, _AT_ONCE // len(truth))
    parts = [_ranking(truth, scores, weights[first : first + rows]) for first in range(0, len(weights), rows)]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _ranking(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-scores, kind="stable")
    places = np.append(np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0), len(order))
    right = np.flatnonzero(truth[order])
    place, first = np.unique(np.searchsorted(places, right, side="right") - 1, return_index=True)
    # Only places with a positive count, by what is ranked above them and up to their end.
    total = np.pad(np.cumsum(weights[:, order], axis=1), ((0, 0), (1, 0)))
    above, upto = total[:, places[place]], total[:, places[place + 1]]
    gained = np.add.reduceat(weights[:, order[right]], first, axis=1)
    hits = np.cumsum(gained, axis=1)
    positives, every = hits[:, -1], total[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nansum(gained * hits / upto, axis=1) / positives
        wrong_above, tied = above - (hits - gained), upto - above - gained
        behind = (every - positives)[:, None] - wrong_above - tied / 2
        area = (gained * behind).sum(axis=1) / (positives * (every - positives))
    return area, np.where(positives > 0, precision, np.nan)
