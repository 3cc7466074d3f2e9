"""A search with an objective that trains nothing: what is tried, counted, pruned, shared, and gone on with."""

import os
import signal
import subprocess
import sys

import pytest

from birdlib import config as configs
from birdlib import search, studies
from birdlib.search import TimeOverError, UnusableError
from birdlib.studies import SearchError

SPACE = {
    "tuning.stage_1": {
        "phase_1.learning_rate": {"low": "1e-4", "high": 1e-2, "log": True},
        "phase_1.batch_size": {"low": 8, "high": 64},
        "model.hidden": [[64], [128], [64, 32]],
        "model.weights": [None],
    },
    "tuning.random_trials": 3,
    "tuning.prune_after_trials": 2,
    "tuning.prune_from_epoch": 1,
}


@pytest.fixture
def opened(tmp_path):
    """A function (overrides...) -> the search in one and the same file."""

    def opening(seed=0, **overrides):
        return open_in(tmp_path / "trials.db", seed, {**SPACE, **overrides})

    return opening


def open_in(file, seed=0, overrides=SPACE):
    config = configs.load("sample", overrides)
    space = configs.space(config, 1)
    first = {key: configs.value(config, key) for key in space}
    return search.begin("stage1-test", file, space, first, config.tuning, seed)


def loss_of(settings):
    return settings["phase_1.learning_rate"] * 100 + settings["phase_1.batch_size"] / 1000


def easy(number, settings, report):
    return loss_of(settings), {"val_accuracy": 0.5}


def tried(one):
    return [trial.params for trial in one.study.trials if studies.counts(trial)]


# ---- what is tried


def test_the_first_trial_is_the_settings_as_they_are_and_each_is_a_setting_as_it_is_taken(opened):
    one, seen = opened(), []

    def objective(number, settings, report):
        seen.append(configs.override(configs.load("sample"), settings))
        return easy(number, settings, report)

    one.run(objective, 3, "test")
    sample = configs.load("sample")
    assert seen[0] == sample
    for config in seen[1:]:
        assert 1e-4 <= config.phase_1.learning_rate <= 1e-2
        assert config.phase_1.batch_size in range(8, 65)
        assert config.model.hidden in {(64,), (128,), (64, 32)}
        assert config.model.weights is None
    assert one.best().settings == min(tried(one), key=loss_of)


def test_what_lies_outside_the_space_is_not_tried_first(opened):
    one = opened(**{"model.hidden": "256", "phase_1.learning_rate": 0.5})
    one.run(easy, 1, "test")
    (params,) = tried(one)
    assert params["phase_1.batch_size"] == 32  # which lies inside
    assert params["phase_1.learning_rate"] <= 1e-2
    assert params["model.hidden"] in {"64", "128", "64,32"}


def test_the_same_seed_tries_the_same_and_another_seed_does_not(tmp_path):
    found = {}
    for name, seed in {"one": 0, "same": 0, "other": 1}.items():
        one = open_in(tmp_path / f"{name}.db", seed)
        one.run(easy, 5, "test")
        found[name] = tried(one)
    assert found["one"] == found["same"]
    assert found["one"][0] == found["other"][0]
    assert not [params for params in found["one"][1:] if params in found["other"]]


def test_what_goes_on_tries_the_same_as_what_was_never_stopped(tmp_path):
    whole = open_in(tmp_path / "whole.db")
    whole.run(easy, 5, "test")
    for count in (1, 3, 5, 5):
        parts = open_in(tmp_path / "parts.db")
        parts.run(easy, count, "test")
        assert parts.counted() == count
    assert tried(parts) == tried(whole)


def test_the_same_settings_are_not_trained_twice(opened):
    calls = []

    def objective(number, settings, report):
        calls.append(settings)
        return 1.0, {}

    one = opened(**{"tuning.stage_1": {"model.dropout": [0.3]}})
    one.run(objective, 3, "test")
    assert calls == [{"model.dropout": 0.3}]
    assert one.table()["val_loss"].tolist() == [1.0, 1.0, 1.0]


# ---- pruning and failing


def test_what_is_worse_than_the_median_at_its_epoch_is_pruned(opened):
    levels, epochs = iter([1.0, 3.0, 2.5, 1.5]), []

    def objective(number, settings, report):
        level = next(levels)
        for epoch in range(4):
            epochs.append((number, epoch))
            report(epoch, level)
        return level, {}

    one = opened()
    one.run(objective, 4, "test")
    # The median of 1 and 3 is 2: 2.5 is given up at epoch 1, the first that may be; 1.5 is not.
    assert one.table()["state"].tolist() == ["finished", "finished", "pruned", "finished"]
    assert [epoch for number, epoch in epochs if number == 2] == [0, 1]
    assert [epoch for number, epoch in epochs if number == 3] == [0, 1, 2, 3]
    assert one.best().loss == 1.0


def test_settings_that_cannot_be_trained_count_and_say_why(opened):
    def objective(number, settings, report):
        if number == 1:
            raise UnusableError("the loss is not a number")
        return easy(number, settings, report)

    one = opened()
    one.run(objective, 3, "test")
    table = one.table()
    assert table["state"].tolist() == ["finished", "failed", "finished"]
    assert table["reason"][1] == "the loss is not a number"
    assert one.counted() == 3


def test_where_all_fail_the_search_ends(opened):
    def objective(number, settings, report):
        raise UnusableError("out of memory")

    with pytest.raises(SearchError, match="all of the first 3 trials failed, the last one so: out of memory"):
        opened().run(objective, 20, "test")


def test_another_error_ends_the_search_and_is_not_hidden(opened):
    def objective(number, settings, report):
        raise ZeroDivisionError

    one = opened()
    with pytest.raises(ZeroDivisionError):
        one.run(objective, 3, "test")
    assert one.counted() == 0


# ---- stopped


@pytest.mark.parametrize("kind", [KeyboardInterrupt, TimeOverError])
def test_a_trial_that_is_stopped_is_run_again_and_nothing_else_changes(tmp_path, kind):
    whole = open_in(tmp_path / "whole.db")
    whole.run(easy, 4, "test")

    def stopping(number, settings, report):
        if number == 2:
            raise kind
        return easy(number, settings, report)

    one = open_in(tmp_path / "parts.db")
    with pytest.raises(kind):
        one.run(stopping, 4, "test")
    assert one.counted() == 2
    again = open_in(tmp_path / "parts.db")
    again.run(easy, 4, "test")
    assert again.counted() == 4
    assert tried(again) == tried(whole)


def test_no_trial_begins_when_the_time_is_over(opened):
    one = opened()
    with pytest.raises(TimeOverError):
        one.run(easy, 3, "test", until=0.0)
    assert one.counted() == 0


# A process that adds trials to a study: python -c CODE FILE TRIALS SECONDS_EACH NUMBER_THAT_IS_KILLED
WORKER = f"""
import os, signal, sys, time
sys.path.insert(0, {os.path.dirname(__file__)!r})
from birdlib import search, studies
studies.HEARTBEAT_S, studies.GRACE_S, search.LOOK_S = 1, 3, 0.5
import test_search
file, trials, seconds, killed = sys.argv[1], *map(float, sys.argv[2:])
def objective(number, settings, report):
    print("trial", number, flush=True)
    time.sleep(seconds)
    if number == killed:
        os.kill(os.getpid(), signal.SIGKILL)
    return test_search.loss_of(settings), {{"pid": os.getpid()}}
test_search.open_in(file).run(objective, int(trials), "test")
"""


def worker(file, trials, seconds, killed=-1):
    command = [sys.executable, "-c", WORKER, str(file), str(trials), str(seconds), str(killed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_share_the_trials(tmp_path):
    both = [worker(tmp_path / "trials.db", 6, 0.7) for _ in range(2)]
    ended = [one.communicate(timeout=100) for one in both]
    assert [one.returncode for one in both] == [0, 0], ended
    found = open_in(tmp_path / "trials.db")
    assert found.counted() == 6  # not one too many
    assert found.table()["pid"].nunique() == 2
    assert len({str(params) for params in tried(found)}) == 6  # nothing was tried by both


@pytest.mark.slow
def test_a_killed_process_loses_no_trial(tmp_path):
    file = tmp_path / "trials.db"
    killed = worker(file, 4, 0, killed=2)
    killed.communicate(timeout=100)
    assert killed.returncode == -signal.SIGKILL
    before = open_in(file)
    assert before.counted() == 2
    lost = before.study.trials[2]
    assert lost.state.name == "RUNNING"
    goes_on = worker(file, 4, 0)
    said = goes_on.communicate(timeout=100)
    assert goes_on.returncode == 0, said
    after = open_in(file)
    assert after.counted() == 4
    assert tried(after)[2:].count(lost.params) == 1


# ---- what is said


def test_importance_is_that_of_what_the_loss_hangs_on(opened):
    one = opened(**{"tuning.random_trials": 8})
    assert one.importance().empty

    def objective(number, settings, report):
        return settings["phase_1.batch_size"] / 64, {}

    one.run(objective, 8, "test")
    found = one.importance()
    assert found.index[0] == "phase_1.batch_size"
    assert found.iloc[0] > 0.7
    assert found.sum() == pytest.approx(1)


def test_without_optuna_one_line_names_the_extra(monkeypatch, opened):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SearchError, match=r"pip install 'birdlib\[tune\]'"):
        opened()


@pytest.mark.parametrize(
    "url", ["postgresql://me:geheim@nowhere.invalid/db", "nothing://me:geheim@x/y", "sqlite:///{}"]
)
def test_a_database_that_cannot_be_had_is_one_line_without_the_password(url, tmp_path):
    (tmp_path / "no.db").write_text("this is no database\n" * 100)
    with pytest.raises(SearchError) as caught:
        open_in(url.format(tmp_path / "no.db"))
    assert "\n" not in str(caught.value)
    assert "geheim" not in str(caught.value)
