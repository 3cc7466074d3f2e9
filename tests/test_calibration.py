import math

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.calibration import calibration_curve

from birdlib import calibration


def told(samples, temperature, classes=6, seed=0, activation="softmax"):
    """Truth drawn from true probabilities, and what a classifier says that is too sure by `temperature`."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(samples, classes))
    truth = np.array([rng.choice(classes, p=row) for row in softmax(logits, axis=1)])
    return truth, softmax(logits * temperature, axis=1)


def test_reliability_by_hand():
    truth = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
    table = calibration.reliability(truth, probabilities, bins=5)
    assert table["samples"].tolist() == [0, 0, 0, 2, 2]  # (0.6, 0.8] and (0.8, 1]
    np.testing.assert_allclose(table["confidence"], [np.nan, np.nan, np.nan, 0.75, 0.9])
    np.testing.assert_allclose(table["accuracy"], [np.nan, np.nan, np.nan, 0.5, 1.0])
    assert calibration.expected_error(truth, probabilities, bins=5) == pytest.approx((0.25 + 0.1) / 2, abs=1e-12)


def test_reliability_is_that_of_sklearn():
    truth, probabilities = told(2000, 1.5)
    table = calibration.reliability(truth, probabilities, bins=10).dropna()
    right = probabilities.argmax(axis=1) == truth
    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=10)
    np.testing.assert_allclose(table["accuracy"], accuracy, atol=1e-12)
    np.testing.assert_allclose(table["confidence"], confidence, atol=1e-12)


def test_certainty_counts_into_the_last_bin_and_nothing_has_no_error():
    table = calibration.reliability(np.array([0]), np.array([[1.0, 0.0]]))
    assert table["samples"].tolist() == [0] * 14 + [1]
    assert math.isnan(calibration.expected_error(np.zeros(0, int), np.zeros((0, 3))))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    truth, probabilities = told(4000, temperature)
    assert calibration.fit_temperature(truth, probabilities, "softmax") == pytest.approx(temperature, rel=0.06)


def test_the_temperature_of_a_sigmoid_is_found():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=4000)
    truth = np.where(rng.random(4000) < expit(logits), 0, 1)
    pair = np.stack([expit(2.5 * logits), expit(-2.5 * logits)], axis=1)  # of two classes, one is there
    assert calibration.fit_temperature(truth, pair, "sigmoid") == pytest.approx(2.5, rel=0.06)
    np.testing.assert_allclose(calibration.tempered(pair, 2.5, "sigmoid")[:, 0], expit(logits), atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_it_lowers_the_error_on_samples_that_it_was_not_fitted_on(seed):
    truth, probabilities = told(3000, 2.5, seed=seed)
    temperature = calibration.fit_temperature(truth[:1000], probabilities[:1000], "softmax")
    after = calibration.tempered(probabilities[1000:], temperature, "softmax")
    before = calibration.expected_error(truth[1000:], probabilities[1000:])
    assert before > 0.1
    assert calibration.expected_error(truth[1000:], after) < 0.3 * before


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_tempering_keeps_the_order_and_survives_certainty(activation):
    probabilities = np.array([[1.0, 0.0, 0.0], [0.2, 0.5, 0.3]], np.float32)
    after = calibration.tempered(probabilities, 3, activation)
    assert np.isfinite(after).all()
    assert after.argmax(axis=1).tolist() == [0, 1]
    assert after[1].argsort().tolist() == [0, 2, 1]
    np.testing.assert_allclose(calibration.tempered(probabilities, 1, activation)[1], probabilities[1], atol=1e-7)


def test_without_a_sample_the_temperature_is_1():
    assert calibration.fit_temperature(np.zeros(0, int), np.zeros((0, 3)), "softmax") == 1
