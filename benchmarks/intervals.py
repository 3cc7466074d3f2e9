"""How often the 95 % intervals hold what they should, on simulated tests: recordings of three chunks, resampled whole.

    python benchmarks/intervals.py

Each line: a test of so many recordings and classes; the share of simulated tests whose interval holds the mean result
of tests of this size. The chance of the draw itself is about 2 points either way with 150 tests, 0.7 with 1,000.
"""

import numpy as np

from birdlib import evaluation, intervals


def accuracies(recordings: int, tests: int = 1000) -> float:
    """Coverage of accuracy by chunk, where each recording has its own probability of being right."""
    rng, covered = np.random.default_rng(1), 0
    for test in range(tests):
        right = rng.random((recordings, 4)) < rng.beta(2, 2, recordings)[:, None]
        low, high = intervals.of_mean(right.ravel(), np.repeat(np.arange(recordings), 4), seed=test)
        covered += low <= 0.5 <= high
    return covered / tests


def simulated(seed: int, recordings: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores of a test in which every class has a recording at least."""
    rng = np.random.default_rng(seed)
    of = np.concatenate([np.arange(classes), rng.integers(classes, size=recordings - classes)])
    heard = rng.normal(size=(recordings, classes)) + 1.5 * np.eye(classes)[of]
    return np.repeat(of, 3), np.repeat(heard, 3, axis=0) + 0.7 * rng.normal(size=(3 * recordings, classes))


def rankings(recordings: int, classes: int, tests: int = 150) -> dict[str, float]:
    """Coverage of the means over classes."""
    names = ("macro_roc_auc", "mean_average_precision")
    found = []
    for test in range(tests):
        truth, scores = simulated(test, recordings, classes)
        found.append(evaluation.headline(truth, scores, np.arange(len(truth)) // 3, test, repeats=300))
    return {
        name: float(np.mean([each[name].low <= _mean(found, name) <= each[name].high for each in found]))
        for name in names
    }


def _mean(found: list, name: str) -> float:
    return float(np.mean([each[name].value for each in found]))


if __name__ == "__main__":
    for recordings in (12, 40):
        print(f"accuracy, {recordings} recordings: {accuracies(recordings):.1%}", flush=True)
    for recordings, classes in ((36, 12), (96, 12), (300, 50)):
        for name, share in rankings(recordings, classes).items():
            print(f"{name}, {recordings} recordings of {classes} classes: {share:.1%}", flush=True)
