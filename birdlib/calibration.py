"""Whether a classifier is right as often as it says, and one number that helps.

Conventions as in `birdlib.evaluation`. The *confidence* of a sample is the probability of its likeliest class; a
classifier is calibrated if of the samples with a confidence of 0.8, eight in ten are right. The expected calibration
error is the mean distance of the two over bins of equal width, each weighted by its samples (Guo et al., 2017).

The *temperature* divides the logits: over 1 it makes a classifier less sure, under 1 surer; which class is likeliest
does not change. It is fitted on validation, never on what is reported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy import optimize, special

from birdlib import writing

Activation = Literal["softmax", "sigmoid"]
BINS = 15
_SMALLEST = 1e-30


def reliability(truth: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Confidence against accuracy: a row a bin of (low, high], columns low, high, samples, confidence, accuracy.

    confidence and accuracy are means over the bin's samples, nan in one without.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    edges = np.linspace(0, 1, bins + 1)
    of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    samples = np.bincount(of, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = {
            name: np.bincount(of, values, minlength=bins) / samples
            for name, values in (("confidence", confidence), ("accuracy", right))
        }
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "samples": samples, **means})


def expected_error(truth: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error, 0..1; nan without a sample."""
    if not len(truth):
        return float("nan")
    table = reliability(truth, probabilities, bins).dropna()
    return float(np.average((table["confidence"] - table["accuracy"]).abs(), weights=table["samples"]))


def tempered(probabilities: np.ndarray, temperature: float, activation: Activation) -> np.ndarray:
    """Probabilities (samples, classes), float64, as they are with their logits divided by `temperature`.

    A temperature of 1 hands them back as they are, in their own dtype.
    """
    if temperature == 1:
        return probabilities
    logits = _logits(probabilities, activation) / temperature
    return special.softmax(logits, axis=1) if activation == "softmax" else special.expit(logits)


def fit_temperature(truth: np.ndarray, probabilities: np.ndarray, activation: Activation) -> float:
    """The temperature, 0.05 to 20, that makes the negative log-likelihood of `truth` least; 1 without a sample.

    Under a sigmoid the likelihood is that of each class by itself.
    """
    if not len(truth):
        return 1.0
    logits = _logits(probabilities, activation)
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if activation == "softmax":
            return float(np.mean(special.logsumexp(scaled, axis=1) - scaled[rows, truth]))
        return float(np.mean(np.logaddexp(0, scaled).sum(axis=1) - scaled[rows, truth]))

    found = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def keep(model: Path, truth: np.ndarray, probabilities: np.ndarray, activation: Activation) -> float:
    """Fits the temperature of a saved classifier on what it says of its validation; writes it to a JSON beside it."""
    temperature = fit_temperature(truth, probabilities, activation)
    values = {"temperature": temperature, "activation": activation, "validation_chunks": len(truth)}
    writing.write_json(model.with_suffix(".json"), values)
    return temperature


def kept(model: Path) -> float:
    """The temperature that `keep` has put beside a saved classifier; 1 where it has not."""
    return float(writing.read_json(model.with_suffix(".json")).get("temperature", 1.0))


def _logits(probabilities: np.ndarray, activation: Activation) -> np.ndarray:
    values = np.asarray(probabilities, np.float64)
    if activation == "softmax":  # up to an offset, which a softmax does not see
        return np.log(np.maximum(values, _SMALLEST))
    # A float32 sigmoid ends 6e-8 short of 1: take what is at its end to be there, not at infinity.
    return special.logit(np.clip(values, _SMALLEST, 1 - 2**-25))
