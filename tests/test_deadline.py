"""The time that training may take: each gets its share of what is left, whatever those before it took."""

import time

import pytest

from birdlib import config as configs
from birdlib import deadline

FOUR = {"folds": "0,1", "phase_1.epochs": 10, "phase_2.epochs": 10, "comparison.models": "custom_cnn"}


@pytest.fixture
def now(monkeypatch):
    """A clock that stands at 1000 s; a list whose one item it is."""
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setenv(deadline.TRAINING_ENDS, "")  # which puts it back afterwards
    return clock


@pytest.fixture
def config():
    return configs.load("paper", {**FOUR, "comparison.epochs": 5})


def test_without_an_end_there_is_no_limit(now, config):
    assert deadline.end() is None
    assert deadline.allowance_s("04_phase_1", "fold_0", config) is None


def test_an_end_is_inherited_by_the_environment(now, monkeypatch):
    deadline.set_end(5000)
    assert deadline.end() == 5000
    deadline.set_end(None)
    assert deadline.end() is None


def test_what_trainings_cost_follows_from_what_they_train(config):
    costs = deadline.trainings(config)
    assert list(costs) == [
        ("04_phase_1", "fold_0"),
        ("04_phase_1", "fold_1"),
        ("04_phase_1", "custom_cnn"),
        ("05_phase_2", "fold_0"),
        ("05_phase_2", "fold_1"),
    ]
    assert list(costs.values()) == [10, 10, 15, 30, 30]
    scratch = configs.load("paper", {**FOUR, "model.weights": None})
    assert deadline.trainings(scratch)["04_phase_1", "fold_0"] == 30


def test_a_stage_ends_so_that_the_next_one_gets_its_share(now, config):
    assert deadline.stage_end("01_eda", config, 1950.0) == 1000  # trains nothing
    assert deadline.stage_end("04_phase_1", config, 1950.0) == pytest.approx(1000 + 950 * 35 / 95)
    now[0] = 1500.0
    assert deadline.stage_end("05_phase_2", config, 1950.0) == 1950


def test_a_training_leaves_the_rest_to_those_after_it(now, config):
    deadline.set_end(1350)
    assert deadline.allowance_s("04_phase_1", "fold_0", config) == pytest.approx(100)
    now[0] = 1010.0  # it took 10 of its 100 s: the others get more
    assert deadline.allowance_s("04_phase_1", "fold_1", config) == pytest.approx(340 * 10 / 25)
    assert deadline.allowance_s("04_phase_1", "custom_cnn", config) == 340
    now[0] = 2000.0
    assert deadline.allowance_s("04_phase_1", "custom_cnn", config) == 0
