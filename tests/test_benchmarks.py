"""What the benchmarks keep beside them is what the library says now."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from birdlib import calibration, writing

GPU = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def test_the_gpu_benchmark_has_the_papers_settings():
    spec = importlib.util.spec_from_file_location("gpu", GPU)
    gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gpu)
    kept = json.loads(gpu.SETTINGS.read_text(encoding="utf-8"))
    assert kept == gpu.current_settings(), "python benchmarks/gpu.py --write-settings"
    assert gpu.settings(phase_1__batch_size=7).phase_1.batch_size == 7


# ---- 100 recordings (xc10.py), on a table that stands in for them


def _recordings(authors: int = 9) -> pd.DataFrame:
    names = [f"{label}/XC{number}.ogg" for label in ("a", "b", "c") for number in range(12)]
    people = [f"author {number % authors}" for number in range(36)]
    columns = {"filename": names, "primary_label": [name[0] for name in names], "author": people, "audio_hash": names}
    return pd.DataFrame(columns).assign(start_s=0.0)


@pytest.fixture
def xc10(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(GPU.parent))
    module = importlib.import_module("xc10")
    monkeypatch.setattr(module.training, "recordings", _recordings)
    monkeypatch.setattr(module.training, "OUT", tmp_path)
    rows = {"row": module.Row("whole", 0, {}, [{"model.dropout": 0.1}, {"model.dropout": 0.2}], ("author",))}
    monkeypatch.setattr(module, "ROWS", rows)
    return module


def test_a_paired_difference_is_of_the_same_recordings_and_its_interval_resamples_groups(xc10):
    nan = float("nan")
    one, other = np.array([1, 1, 1, 0, nan, 1.0]), np.array([0, 1, 0, 0, nan, 1.0])
    score = xc10.paired([one, one], [other, other], np.array(list("abcdef")))
    assert score.accuracy[0] == pytest.approx(4 / 5)
    assert score.difference[0] == pytest.approx(2 / 5)
    assert score.seeds == 2
    assert score.difference[1] < 2 / 5 < score.difference[2]
    # The same answers have no difference, however much the recordings themselves differ, and it has no interval.
    even = xc10.paired([np.array([1.0, 0, 1])], [np.array([1.0, 0, 1])], np.array(list("abc")))
    assert even.difference[0] == 0
    assert xc10.verdict(*even.difference[1:]) == "not distinguishable"
    groups = np.array(list("aaabbb"))  # two authors, one all right and one all wrong: the interval says nothing
    wide = xc10.paired([np.array([1.0, 1, 1, 0, 0, 0])], [np.zeros(6)], groups)
    assert wide.difference[1] <= 0
    assert xc10.verdict(*wide.difference[1:]) == "not distinguishable"
    assert xc10.verdict(0.1, 0.3) == "above"
    assert xc10.verdict(-0.3, -0.1) == "below"


def test_what_was_kept_as_nothing_is_not_impossible(xc10):
    task = xc10.training.Task("author", 0, 0)
    writing.write_json(xc10.path(xc10.ROWS["row"], 0, task), {"probabilities": [[1.0, 0.0], [0.25, 0.75]]})
    told = xc10.told("row", 0, task, train=False)
    assert 0 < told.min() < 1e-5
    np.testing.assert_allclose(told, [[1, 0], [0.25, 0.75]], atol=1e-5)


@pytest.mark.parametrize("group_by", ["recording", "author"])
def test_inner_folds_are_within_the_training_part(xc10, group_by):
    table, training = _recordings(), xc10.training
    for fold in range(4):
        rest, told = training.sides(table, training.Task(group_by, 1, fold))
        parts = [training.sides(table, training.Task(group_by, 1, fold, inner)) for inner in range(training.INNER)]
        assert not set(rest) & set(told)
        assert len(rest) + len(told) == len(table)
        for train, inner in parts:
            assert set(train) | set(inner) == set(rest)
            if group_by == "author":
                assert not set(table["author"].iloc[train]) & set(table["author"].iloc[inner])


def test_a_stopped_benchmark_goes_on_and_keeps_each_training(xc10, monkeypatch):
    trained = []

    def train(kind, config, views, task):
        if len(trained) == 7:
            raise KeyboardInterrupt
        trained.append((config.model.dropout, task))
        rows = xc10.training.sides(_recordings(), task)[1]
        truth = pd.Index(xc10.training.labels()).get_indexer(_recordings()["primary_label"].iloc[rows])
        # The second candidate is right where it is asked within the training part, and wrong where it is reported.
        right = (config.model.dropout == 0.2) == (task.inner is not None)
        return np.eye(3)[truth if right else (truth + 1) % 3]

    monkeypatch.setattr(xc10.training, "labels", lambda: ["a", "b", "c"])
    monkeypatch.setattr(xc10.training, "run", train)
    with pytest.raises(KeyboardInterrupt):
        xc10.by_recording("row", "author", 0, train=True)
    assert xc10.by_recording("row", "author", 0) is None
    assert xc10._done("row", "author", [0]) == "2/4"
    trained.clear()
    right = xc10.by_recording("row", "author", 0, train=True)
    assert len(trained) == 4 * 3 - 7
    assert np.nanmean(right) == 0  # it was the second one that was chosen, by the inner folds alone
    trained.clear()
    xc10.by_recording("row", "author", 0, train=True)
    assert not trained
    monkeypatch.setattr(xc10.training, "code", lambda: "another state of the code")
    assert xc10.by_recording("row", "author", 0) is None
    assert len(list(xc10.training.OUT.iterdir())) == 12


def test_the_calibration_error_of_a_resample_is_that_of_the_samples_it_repeats(xc10):
    rng = np.random.default_rng(0)
    probabilities, truth = rng.dirichlet(np.full(4, 0.4), 50), rng.integers(4, size=50)
    probabilities[0] = [1, 0, 0, 0]
    weights = np.vstack([np.ones(50, int), rng.integers(3, size=50)])
    found = xc10.calibration_errors(truth, probabilities, weights)
    for each, times in zip(found, weights, strict=True):
        repeated = np.repeat(np.arange(50), times)
        assert each == pytest.approx(calibration.expected_error(truth[repeated], probabilities[repeated]))


def test_a_folds_temperature_comes_from_the_other_folds_alone(xc10):
    rng = np.random.default_rng(0)
    logits, fold = rng.normal(scale=2, size=(4000, 5)), np.arange(4000) % 4
    truth = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # a draw from softmax(logits)
    too_sure = softmax(3 * logits, axis=1)
    said = xc10.OutOfFold(truth, too_sure, fold, np.arange(4000))
    after = xc10.recalibrated(said)
    np.testing.assert_allclose(after, softmax(logits, axis=1), atol=0.05)
    # What is true of a fold changes the temperature of the others, and never its own.
    other = xc10.recalibrated(said._replace(truth=np.where(fold == 2, (truth + 1) % 5, truth)))
    np.testing.assert_array_equal(other[fold == 2], after[fold == 2])
    assert not np.allclose(other[fold != 2], after[fold != 2], atol=0.05)


def test_the_code_of_a_training_is_another_when_it_does_another_thing(xc10):
    bare = xc10.training._bare
    assert bare('def f():\n    """One."""\n    return 1') == bare("def f():\n    # Two.\n    return 1\n")
    assert bare("def f():\n    return 1") != bare("def f():\n    return 2")


# ---- losses (losses.py)


@pytest.fixture
def losses(monkeypatch, tmp_path):
    """The benchmark, on a copy of the library's code below `tmp_path`."""
    monkeypatch.syspath_prepend(str(GPU.parent))
    module = importlib.import_module("losses")
    shutil.copytree(GPU.parents[1] / "birdlib", tmp_path / "birdlib", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module.xc10_training, "ROOT", tmp_path)
    return module


def test_a_loss_that_was_trained_by_other_code_is_another_file(losses, tmp_path):
    before = losses.path("focal")
    for name in ("training", "callbacks", "sample", "songs", "chunks"):
        file = tmp_path / "birdlib" / f"{name}.py"
        text = file.read_text(encoding="utf-8")
        file.write_text(f"# A remark.\n{text}", encoding="utf-8")
        assert losses.path("focal") == before
        file.write_text(f"{text}\nMORE = 1\n", encoding="utf-8")
        assert losses.path("focal") != before, name
        file.write_text(text, encoding="utf-8")


def test_rare_probabilities_are_kept_as_what_they_are(losses):
    assert losses.rounded(np.array([[1.2345678e-7, 0.98765432], [0.0, 1.0]])) == [[1.2346e-07, 0.98765], [0.0, 1.0]]
