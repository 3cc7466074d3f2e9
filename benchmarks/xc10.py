"""The recognisers on 100 real recordings of 10 species, against a logistic regression on the same folds.

    python benchmarks/xc10.py [--only ROW ...] [--seeds 0 1 2] [--table]

Four folds over all recordings, by recording and by author; a seed deals them out, and draws the weights and the
augmentation. Each finished training is a file in benchmarks/out/xc10: stopped and started again, it goes on with the
next. Results of other settings, recordings or code are another file, and are left alone. A row's settings are chosen
among its candidates on an inner fold of each training part. Prints the table as it stands; --table trains nothing.
Networks with pretrained weights, or as large, run under torch, the small one under TensorFlow, each in a process of
its own. It needs ../shared/data/xc10, and for ResNet50 ../shared/weights.
"""

import argparse
import os
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xc10_training as training

from birdlib import baseline, calibration, intervals
from birdlib.config import Config
from birdlib.writing import read_json, write_json

GROUPINGS = ("recording", "author")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
FOLDS = range(4)

# ---- settings

# Half as many bands and half as many frames: the small network is six times as fast (16 images a second, and 102).
SMALL = {
    "spectrogram.hop": 1000,
    "spectrogram.n_mels": 64,
    "batches.threshold": 8,
    "loss.label_smoothing": 0.1,
    "phase_1.batch_size": 16,
    "phase_1.epochs": 40,
    "phase_1.learning_rate": 2e-3,
}
AUGMENTED = {
    "augmentation.time_shift.probability": 1.0,
    "augmentation.background.probability": 0.3,
    "augmentation.background.dir": training.SHARED / "data" / "backgrounds",
}
MIXED = {"augmentation.mixup.probability": 0.5, "augmentation.mixup.alpha": 1.0}
RESNET = {
    "model.backbone": "resnet50",
    "spectrogram.hop": 1000,
    "batches.threshold": 8,
    "loss.label_smoothing": 0.1,
    "model.hidden": (256,),
    "model.dropout": 0.5,
    "phase_1.batch_size": 16,
    "phase_1.epochs": 30,
    "phase_2.batch_size": 8,
    "phase_2.epochs": 4,
    "phase_2.learning_rate": 1e-4,
}
# Four epochs of phase II at 1e-4 changed nothing; sixteen take as long at half the bands. At 2e-4 the network forgot
# what it was trained on: of 54 recordings it told 98 % after phase I, and 28 % four epochs later.
LONGER = {"spectrogram.n_mels": 64, "phase_2.epochs": 16, "phase_2.learning_rate": 4e-5}
IMAGENET = {"model.weights": str(training.SHARED / "weights" / "resnet50_imagenet_notop.weights.h5")}
SCRATCH = {"phase_1.epochs": 6, "phase_1.batch_size": 8, "phase_1.learning_rate": 3e-4}
HEADS = [{}, {"model.hidden": ()}, {"phase_1.learning_rate": 3e-3}]
EFFECTS = ("time_stretch", "pitch_shift", "gaussian_noise", "high_pass", "band_pass", "clipping", "time_shift")
EFFECTS += ("background", "cut_out", "mixup")


class Row(NamedTuple):
    """A recogniser: how it is trained (`xc10_training.run`), on how many augmented views, and by which settings.

    ``candidates`` are differences to the settings, of which each training part chooses one; ``inner``: how many inner
    folds it chooses on.
    """

    kind: str
    views: int
    settings: dict[str, Any]
    candidates: list[dict[str, Any]]
    groupings: tuple[str, ...] = GROUPINGS
    inner: int = 1


def _only(effect: str | None) -> dict[str, Any]:
    """No augmentation but this one, on half of the chunks; the paper's at their full strength."""
    off = {f"augmentation.{name}.probability": 0.0 for name in EFFECTS}
    if effect is None:
        return off
    return {**off, **AUGMENTED, **off, "augmentation.strength": 1.0, f"augmentation.{effect}.probability": 0.5}


ROWS = {
    "custom_cnn": Row("whole", 16, {**SMALL, **AUGMENTED}, [MIXED, {"loss.label_smoothing": 0.0}]),
    "resnet50_phase_1": Row("head", 6, {**RESNET, **IMAGENET, **AUGMENTED}, HEADS),
    "resnet50_phase_2": Row("both", 16, {**RESNET, **IMAGENET, **AUGMENTED, **LONGER}, [{}]),
    "resnet50_phase_1_plain": Row("head", 0, {**RESNET, **IMAGENET}, HEADS),
    "resnet50_phase_2_plain": Row("both", 0, {**RESNET, **IMAGENET, **_only(None), **LONGER}, [{}]),
    "resnet50_scratch": Row("whole", 6, {**RESNET, **AUGMENTED, **SCRATCH}, [{}]),
    "cnn_plain": Row("whole", 0, {**SMALL, **_only(None)}, [{}], ("recording",)),
    **{f"cnn_{name}": Row("whole", 12, {**SMALL, **_only(name)}, [{}], ("recording",)) for name in EFFECTS},
}


# Pairs of rows of which one has a step more.
STEPS = (
    ("resnet50_phase_1", "resnet50_phase_1_plain"),
    ("resnet50_phase_2", "resnet50_phase_2_plain"),
    ("resnet50_phase_2", "resnet50_phase_1"),
)


def settings(row: Row, candidate: int, seed: int) -> Config:
    """The settings of a row with one of its candidates."""
    return training.settings({**row.settings, **row.candidates[candidate]}, seed)


def backend(row: Row) -> str:
    """What trains the row fastest on a CPU."""
    return "torch" if row.settings.get("model.backbone") == "resnet50" else "tensorflow"


# ---- trainings, each kept

# Earlier results were kept to five decimals: below half of the last one they say nothing, and least of all
# "impossible", which no temperature could mend.
LEAST = 5e-6


def path(row: Row, candidate: int, task: training.Task) -> Path:
    """Where a training's result is kept."""
    config = settings(row, candidate, task.seed)
    return training.OUT / f"{training.key(config, row.kind, row.views, task, backend(row))}.json"


def told(name: str, candidate: int, task: training.Task, train: bool) -> np.ndarray | None:
    """Probabilities of what `task` tells, kept or else trained now: float32 (recordings, classes); None if neither."""
    row = ROWS[name]
    file = path(row, candidate, task)
    if not file.exists() and train:
        began = time.perf_counter()
        found = training.run(row.kind, settings(row, candidate, task.seed), row.views, task)
        what = {"row": name, "candidate": candidate, **task._asdict(), "backend": backend(row)}
        seconds = time.perf_counter() - began
        write_json(file, {**what, "seconds": round(seconds, 1), "probabilities": rounded(found)})
        print(f"{name}, {row.candidates[candidate]}: {task} in {seconds:.0f} s", flush=True)
    kept = read_json(file)
    return np.maximum(np.array(kept["probabilities"], np.float32), LEAST) if kept else None


def rounded(probabilities: np.ndarray) -> list[list[float]]:
    """To five digits from the first that is not 0: by places after the point, what is rare would be nothing."""
    return [[float(f"{each:.5g}") for each in row] for row in probabilities]


def chosen(name: str, task: training.Task, train: bool) -> int | None:
    """The candidate with most inner recordings right, the first of equals; None where a training is missing."""
    row = ROWS[name]
    if len(row.candidates) == 1:
        return 0
    scores = []
    for candidate in range(len(row.candidates)):
        inner = [told(name, candidate, task._replace(inner=fold), train) for fold in range(row.inner)]
        if any(each is None for each in inner):
            return None
        right = [_right(each, task._replace(inner=fold)) for fold, each in enumerate(inner)]
        scores.append(np.concatenate(right).mean())
    return int(np.argmax(scores))


def _right(probabilities: np.ndarray, task: training.Task) -> np.ndarray:
    """Whether each recording that `task` tells is recognised: float64 (recordings,)."""
    truth = training.recordings()["primary_label"].to_numpy()[training.sides(training.recordings(), task)[1]]
    return (np.array(training.labels())[probabilities.argmax(axis=1)] == truth).astype(float)


def fold_right(name: str, task: training.Task, train: bool) -> np.ndarray | None:
    """Whether each recording of an outer fold is recognised; None where the training is missing."""
    if name == "regression":
        return _regression(task)
    found = fold_told(name, task, train)
    return None if found is None else _right(found, task)


def fold_told(name: str, task: training.Task, train: bool) -> np.ndarray | None:
    """What `told` says by the candidate that the training part chooses; None where a training is missing."""
    candidate = chosen(name, task, train)
    return None if candidate is None else told(name, candidate, task, train)


@lru_cache(32)
def _regression(task: training.Task) -> np.ndarray:
    """The logistic regression on the mean and deviation of each of 128 mel bands, on the same fold."""
    table, (rows, tell) = training.recordings(), training.sides(training.recordings(), task)
    answers = table["primary_label"].to_numpy()
    model = baseline.regression().fit(_statistics()[rows], answers[rows])
    return (model.predict(_statistics()[tell]) == answers[tell]).astype(float)


@lru_cache(1)
def _statistics() -> np.ndarray:
    config = training.settings({}, 0)
    return baseline.features(training.recordings(), config.data.dir, config)


# ---- the table


def by_recording(name: str, group_by: str, seed: int, train: bool = False) -> np.ndarray | None:
    """Whether each recording is recognised by the training that left its fold out: float64 (recordings,).

    nan for a recording that no fold validates; None while one of the folds is missing.
    """
    right = np.full(len(training.recordings()), np.nan)
    for fold in FOLDS:
        task = training.Task(group_by, seed, fold)
        found = fold_right(name, task, train)
        if found is None:
            return None
        right[training.sides(training.recordings(), task)[1]] = found
    return right


class Score(NamedTuple):
    """A row's accuracy by recording, and its difference to another's on the same folds: value, low, high each."""

    accuracy: tuple[float, float, float]
    difference: tuple[float, float, float]
    seeds: int


def paired(one: list[np.ndarray], other: list[np.ndarray], groups: np.ndarray) -> Score:
    """The mean over seeds of two recognisers' accuracy and of their difference, with 95 % intervals.

    Parameters
    ----------
    one, other : for each seed whether each recording is recognised, float64 (recordings,), nan where it is not told.
    groups : (recordings,), what is resampled whole: a recording's seeds always, and where folds go by author all of it.
    """
    found = []
    for values in (np.array(one), np.array(one) - np.array(other)):
        known = np.isfinite(values).any(axis=0)
        mean = np.nanmean(values[:, known], axis=0)
        found.append((float(mean.mean()), *intervals.of_mean(mean, groups[known], 0)))
    return Score(*found, len(one))


def verdict(low: float, high: float) -> str:
    """Where a difference lies."""
    return "above" if low > 0 else "below" if high < 0 else "not distinguishable"


def scores(seeds: list[int]) -> pd.DataFrame:
    """A row for each recogniser and grouping, of the seeds whose four folds are all there."""
    rows = []
    for name in ["regression", *ROWS]:
        for group_by in ROWS[name].groupings if name in ROWS else GROUPINGS:
            against = "cnn_plain" if name.removeprefix("cnn_") in EFFECTS else "regression"
            pairs = _pairs(name, against, group_by, seeds)
            line = {"row": name, "by": group_by, "done": _done(name, group_by, seeds), "seeds": len(pairs)}
            if pairs:
                score = paired(*zip(*pairs, strict=True), training.groups(training.recordings(), group_by))
                line |= {"accuracy": _told(score.accuracy), "against": against, "gain": _told(score.difference, "+")}
                line["verdict"] = "" if name == against else verdict(*score.difference[1:])
            rows.append(line)
    return pd.DataFrame(rows).fillna("")


def steps(seeds: list[int]) -> pd.DataFrame:
    """What each of `STEPS` changes, by recording and by author: the paired difference on the seeds that both have."""
    rows = []
    for name, other in STEPS:
        for group_by in GROUPINGS:
            pairs = _pairs(name, other, group_by, seeds)
            if pairs:
                found = paired(*zip(*pairs, strict=True), training.groups(training.recordings(), group_by)).difference
                line = {"row": name, "against": other, "by": group_by, "seeds": len(pairs)}
                rows.append(line | {"gain": _told(found, "+"), "verdict": verdict(*found[1:])})
    return pd.DataFrame(rows)


def _pairs(name: str, other: str, group_by: str, seeds: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """`by_recording` of two rows, for each seed that both have."""
    pairs = [(by_recording(name, group_by, seed), by_recording(other, group_by, seed)) for seed in seeds]
    return [pair for pair in pairs if all(each is not None for each in pair)]


def _told(estimate: tuple[float, float, float], sign: str = "") -> str:
    return intervals.told(*(100 * each for each in estimate), f"{sign}.1f")


def _done(name: str, group_by: str, seeds: list[int]) -> str:
    """How many of the planned folds are there."""
    tasks = [training.Task(group_by, seed, fold) for seed in seeds for fold in FOLDS]
    return f"{sum(fold_right(name, task, False) is not None for task in tasks)}/{len(tasks)}"


def choices(seeds: list[int]) -> str:
    """Which candidates were chosen how often, a line a row that had a choice."""
    lines = []
    for name, row in ROWS.items():
        if len(row.candidates) > 1:
            tasks = [training.Task(by, seed, fold) for by in row.groupings for seed in seeds for fold in FOLDS]
            picked = [pick for task in tasks if (pick := chosen(name, task, False)) is not None]
            counts = np.bincount(picked, minlength=len(row.candidates))
            told = "; ".join(f"{dict(each)} {count}x" for each, count in zip(row.candidates, counts, strict=True))
            lines.append(f"{name}: of {len(row.candidates)} settings, on {row.inner} inner fold(s), chosen: {told}")
    return "\n".join(lines)


# ---- are its probabilities to be believed?


class OutOfFold(NamedTuple):
    """What the trainings of four folds say of the recordings that each left out, an element or row a recording."""

    truth: np.ndarray
    probabilities: np.ndarray
    fold: np.ndarray
    group: np.ndarray


def out_of_fold(name: str, group_by: str, seed: int) -> OutOfFold | None:
    """None while one of the folds is missing."""
    table, parts = training.recordings(), []
    truth = pd.Index(training.labels()).get_indexer(table["primary_label"])
    groups = training.groups(table, group_by)
    for fold in FOLDS:
        task = training.Task(group_by, seed, fold)
        found = fold_told(name, task, False)
        if found is None:
            return None
        tells = training.sides(table, task)[1]
        parts.append((truth[tells], found, np.full(len(tells), fold), groups[tells]))
    return OutOfFold(*map(np.concatenate, zip(*parts, strict=True)))


def recalibrated(said: OutOfFold) -> np.ndarray:
    """The probabilities of each fold at the temperature that fits the three others best."""
    after = np.empty_like(said.probabilities, dtype=float)
    for fold in np.unique(said.fold):
        own = said.fold == fold
        temperature = calibration.fit_temperature(said.truth[~own], said.probabilities[~own], "softmax")
        after[own] = calibration.tempered(said.probabilities[own], temperature, "softmax")
    return after


def calibration_errors(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`calibration.expected_error` in each resample of weights (repeats, samples): float64 (repeats,)."""
    confidence = probabilities.max(axis=1)
    bins = np.clip(np.ceil(confidence * calibration.BINS).astype(int) - 1, 0, None)
    gap = confidence - (probabilities.argmax(axis=1) == truth)
    return np.abs((weights * gap) @ np.eye(calibration.BINS)[bins]).sum(axis=1) / weights.sum(axis=1)


def calibrations(seeds: list[int]) -> pd.DataFrame:
    """Expected calibration error, all seeds together, as it is and at temperatures fitted on the other folds."""
    lines = []
    for name, row in ROWS.items():
        for group_by in row.groupings:
            said = [each for seed in seeds if (each := out_of_fold(name, group_by, seed)) is not None]
            if not said:
                continue
            truth, group = (np.concatenate([getattr(each, part) for each in said]) for part in ("truth", "group"))
            weights = np.vstack([np.ones((1, len(truth)), int), intervals.resampled(group, 0)])
            before, after = (
                calibration_errors(truth, np.concatenate(each), weights)
                for each in ([one.probabilities for one in said], [recalibrated(one) for one in said])
            )
            value, *resamples = 100 * (after - before)
            change = value, *intervals.limits(value, np.array(resamples), group)
            line = {"row": name, "by": group_by, "seeds": len(said), "as it is": f"{before[0]:.1%}"}
            line |= {"at a temperature": f"{after[0]:.1%}", "change": intervals.told(*change, "+.1f")}
            lines.append(line | {"verdict": verdict(*change[1:])})
    return pd.DataFrame(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--train", action="store_true", help="train, in this process, and print no table")
    options = parser.parse_args()
    if options.train:
        for seed in options.seeds:
            for name in options.only:
                for group_by in ROWS[name].groupings:
                    by_recording(name, group_by, seed, train=True)
        return
    for each in () if options.table else ("tensorflow", "torch"):
        if rows := [name for name in options.only if backend(ROWS[name]) == each]:
            command = [sys.executable, __file__, "--train", "--only", *rows, "--seeds", *map(str, options.seeds)]
            alone = dict.fromkeys(THREADS, "1") | {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "KERAS_BACKEND": each}
            subprocess.run(command, env=alone, check=True)
    print(scores(options.seeds).to_string(index=False))
    print(steps(options.seeds).to_string(index=False))
    print(choices(options.seeds))
    print("expected calibration error, in points where it changes:")
    print(calibrations(options.seeds).to_string(index=False))


if __name__ == "__main__":
    main()
