import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from birdlib import intervals


def test_weights_draw_whole_groups_as_many_as_there_are():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    weights = intervals.resampled(groups, seed=0, repeats=200)
    assert weights.shape == (200, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    np.testing.assert_array_equal(weights, intervals.resampled(groups, seed=0, repeats=200))


def test_an_interval_of_independent_samples_is_the_binomials():
    right = np.zeros(400)
    right[:100] = 1
    low, high = intervals.of_mean(right, [str(number) for number in range(400)], seed=0)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert (low, high) == pytest.approx((0.25 - half, 0.25 + half), abs=0.006)


def test_an_interval_widens_where_samples_come_in_groups():
    right = np.repeat(np.random.default_rng(0).integers(0, 2, 40), 10)
    low, high = intervals.of_mean(right, np.repeat(np.arange(40), 10), seed=0)
    half = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 40)  # as of 40 samples, not of 400
    assert (low, high) == pytest.approx((right.mean() - half, right.mean() + half), abs=0.03)


def test_few_groups_make_it_as_wide_as_t_does():
    values = np.random.default_rng(0).normal(size=8)
    low, high = intervals.of_mean(values, np.arange(8), seed=0, repeats=20_000)
    half = stats.t.ppf(0.975, 7) * values.std(ddof=1) / np.sqrt(8)
    assert high - low == pytest.approx(2 * half, rel=0.06)


@pytest.mark.parametrize("recordings", [12, 40])
def test_intervals_cover_the_truth_as_often_as_they_say(recordings):
    rng, covered = np.random.default_rng(1), 0
    for trial in range(300):
        shares = rng.beta(2, 2, recordings)  # recordings with 4 chunks each, each right with its own probability
        right = rng.random((recordings, 4)) < shares[:, None]
        low, high = intervals.of_mean(right.ravel(), np.repeat(np.arange(recordings), 4), seed=trial, repeats=300)
        covered += low <= 0.5 <= high
    # Of 1,000 trials with as many repeats as there are by default, it is 0.936 of 12 recordings and 0.945 of 40.
    assert 0.90 <= covered / 300 <= 0.98


def test_an_interval_of_nothing_and_of_one_group_does_not_exist():
    assert np.isnan(intervals.of_mean(np.zeros(0), [], seed=0)).all()
    assert np.isnan(intervals.of_mean(np.array([1.0, 0.0]), ["a", "a"], seed=0)).all()


def test_resamples_without_the_result_are_left_out():
    low, high = intervals.limits(0.3, np.array([0.2, np.nan, 0.4, np.nan]), ["a", "b", "c"])
    assert (low, high) == pytest.approx((0.2, 0.4), abs=0.01)
    assert np.isnan(intervals.limits(0.3, np.full(3, np.nan), ["a", "b"])).all()


def test_where_all_resamples_agree_there_is_none_instead_of_one_without_width():
    assert np.isnan(intervals.of_mean(np.full(20, 1 / 3), np.arange(20), seed=0)).all()


@pytest.mark.parametrize("seed", range(20))
def test_one_change_in_twenty_is_not_told_from_none(seed):
    # The resamples' mean is not exactly the value; what it is off by chance does not move the interval past 0.
    low, high = intervals.of_mean(np.eye(1, 20)[0], np.arange(20), seed=seed)
    assert low == 0
    assert high == pytest.approx(stats.binom.ppf(0.982, 20, 1 / 20) / 20, abs=0.051)


def test_a_result_is_told_with_its_interval():
    assert intervals.told(0.6875, 0.4, 0.92156) == "0.688 (0.400 to 0.922)"
    assert intervals.told(0.05, -0.1, 0.2, "+.1%") == "+5.0% (-10.0% to +20.0%)"
    assert intervals.told(1.0, float("nan"), float("nan")) == "1.000 (no interval)"
    assert intervals.told(float("nan"), float("nan"), float("nan")) == "unknown"


def test_what_resampling_adds_by_itself_is_taken_off():
    results = np.random.default_rng(0).normal(0.6, 0.01, 5000)
    low, high = intervals.limits(0.5, results, np.arange(1000))
    assert (low, high) == pytest.approx((0.5 - 0.0196, 0.5 + 0.0196), abs=0.002)


# ---- rankings


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_rankings_are_those_of_sklearn_under_weights(seed, ties):
    rng = np.random.default_rng(seed)
    truth = rng.random(80) < 0.2
    scores = rng.normal(size=80) + truth
    scores = scores.round() if ties else scores
    weights = np.concatenate([np.ones((1, 80), np.int32), intervals.resampled(rng.integers(20, size=80), seed, 12)])
    areas, precisions = intervals.ranking(truth, scores, weights)
    for times, area, precision in zip(weights, areas, precisions, strict=True):
        assert area == pytest.approx(metrics.roc_auc_score(truth, scores, sample_weight=times), abs=1e-12)
        expected = metrics.average_precision_score(truth, scores, sample_weight=times)
        assert precision == pytest.approx(expected, abs=1e-12)


def test_a_resample_is_the_samples_drawn_so_often():
    truth, scores = np.array([True, False, False, True, False]), np.array([0.4, 0.4, 0.1, 0.9, 0.6])
    times = np.array([2, 0, 3, 1, 1], np.int32)
    areas, precisions = intervals.ranking(truth, scores, times[None])
    again = np.repeat(np.arange(5), times)
    assert areas[0] == pytest.approx(metrics.roc_auc_score(truth[again], scores[again]), abs=1e-12)
    assert precisions[0] == pytest.approx(metrics.average_precision_score(truth[again], scores[again]), abs=1e-12)


def test_rankings_without_positives_or_negatives_do_not_exist():
    once = np.array([[1, 1], [0, 1], [1, 0]], np.int32)
    areas, precisions = intervals.ranking(np.array([True, False]), np.array([0.9, 0.1]), once)
    np.testing.assert_array_equal(np.isnan(areas), [False, True, True])
    np.testing.assert_array_equal(np.isnan(precisions), [False, True, False])
    assert np.isnan(intervals.ranking(np.zeros(2, bool), np.zeros(2), once)).all()
    assert math.isnan(intervals.ranking(np.ones(2, bool), np.zeros(2), once)[0][0])


def test_many_resamples_at_once_are_the_same_as_few(monkeypatch):
    rng = np.random.default_rng(0)
    truth, scores = rng.random(50) < 0.3, rng.normal(size=50)
    weights = intervals.resampled(np.arange(50), 0, 40)
    whole = intervals.ranking(truth, scores, weights)
    monkeypatch.setattr(intervals, "_AT_ONCE", 150)
    np.testing.assert_array_equal(whole, intervals.ranking(truth, scores, weights))
