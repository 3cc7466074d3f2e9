"""A training that is stopped anywhere and begun again ends as one that was not."""

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from birdlib import callbacks, resume, runs, training, writing
from birdlib.sources import LazySource
from tests.test_training import tiny, values

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EPOCHS = 4
PLATEAU = {"plateau_patience": 1, "early_stopping_patience": 9, "epochs": EPOCHS}


class Stopped(Exception):
    """What a signal does to a process, as far as a process can do it to itself; real ones are at the end."""


@pytest.fixture(scope="module")
def config(tiny_data):
    return tiny(tiny_data, **{"batches.threshold": 4})


@pytest.fixture(scope="module")
def fold(config, start_run, tmp_path_factory):
    run = start_run(tmp_path_factory.mktemp("tables"), config, "02_chunking")
    return training.fold_data(run.read_table("chunks"), run.read_table("splits"), 0, config)


def model(config):
    """Dropout and batch normalisation: a state of random seeds and running statistics."""
    keras.utils.set_random_seed(1)
    images = keras.Input(config.image_shape)
    x = keras.layers.AveragePooling2D((1, config.image_shape[1]))(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.BatchNormalization(momentum=0.5)(keras.layers.Flatten()(x))
    return keras.Model(images, keras.layers.Dense(4, activation="softmax")(keras.layers.Dropout(0.5)(x)))


class Run:
    """One training of one folder, that can be begun again."""

    def __init__(self, folder, fold, config, **phase):
        self.folder, self.fold, self.config = folder, fold, config
        self.phase = config.phase_1.model_copy(update=PLATEAU | phase)

    def go(self, key="key"):
        """Trains to the end, or as far as it gets: history and the weights of the best epoch."""
        best = self.folder / "best.keras"
        kept, own = resume.Epochs(self.folder / "epochs", key), model(self.config)
        source = LazySource(self.config.data.dir, self.config)
        history = training.train(own, self.fold, source, self.config, self.phase, best, "test", 0, kept)
        return history.drop(columns="seconds"), values(keras.saving.load_model(best, compile=False))


@pytest.fixture(scope="module")
def undisturbed(fold, config, tmp_path_factory):
    return Run(tmp_path_factory.mktemp("undisturbed"), fold, config).go()


def same(found, expected):
    """Byte for byte: on a CPU each backend adds in one order, whatever was done before."""
    pd.testing.assert_frame_equal(found[0], expected[0], check_exact=True)
    for one, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_array_equal(one, other)


def stop_at(monkeypatch, place, count):
    """Stops the process at the `count`-th time it comes to a place; later times pass."""
    seen = itertools.count(1)

    def stopping(function, after=False):
        def called(*arguments, **named):
            if (now := next(seen)) == count and not after:
                raise Stopped
            result = function(*arguments, **named)
            if now == count and after:
                raise Stopped
            return result

        return called

    owner, name, after = {
        "mid-batch": (LazySource, "read", False),
        "mid-epoch": (callbacks.Progress, "on_train_batch_end", True),
        "between epochs": (callbacks.Seconds, "on_epoch_begin", False),
        "before the checkpoint": (callbacks.Checkpoint, "on_epoch_end", False),
        "before the state": (resume.Epochs, "on_epoch_end", False),
        "before a rename": (writing.os, "replace", False),
        "after a rename": (writing.os, "replace", True),
        "after the state": (resume.Epochs, "on_epoch_end", True),
    }[place]
    monkeypatch.setattr(owner, name, stopping(getattr(owner, name), after))


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("mid-epoch", 3),
        ("before a rename", 4),
        ("after a rename", 3),
        *(
            pytest.param(place, count, marks=pytest.mark.slow)
            for place, count in (
                ("mid-batch", 40),
                ("between epochs", 3),
                ("before the checkpoint", 2),
                ("before the state", 1),
                ("before the state", 3),
                ("before a rename", 1),
                ("before a rename", 2),
                ("after a rename", 1),
                ("after the state", EPOCHS),
            )
        ),
    ],
)
def test_a_stop_changes_nothing(place, count, fold, config, tmp_path, undisturbed):
    run = Run(tmp_path, fold, config)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, place, count)
        with pytest.raises(Stopped):
            run.go()
    same(run.go(), undisturbed)


@pytest.mark.slow
def test_many_stops_change_nothing_and_no_epoch_is_trained_twice(fold, config, tmp_path, undisturbed, monkeypatch):
    run, begun = Run(tmp_path, fold, config), []
    before = callbacks.Seconds.on_epoch_begin
    monkeypatch.setattr(callbacks.Seconds, "on_epoch_begin", lambda *all_: (begun.append(all_[1]), before(*all_))[1])
    for _ in range(EPOCHS):
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, "after the state", 1)
            with pytest.raises(Stopped):
                run.go()
    same(run.go(), undisturbed)
    assert begun == list(range(EPOCHS))


@pytest.mark.slow
def test_the_counters_go_on(fold, config, tmp_path):
    """Nothing improves at a learning rate of nearly 0: it halves, and training ends, when the counters say so."""
    settings = {"learning_rate": 1e-30, "plateau_patience": 2, "early_stopping_patience": 3, "epochs": 9}
    whole = Run(tmp_path / "whole", fold, config, **settings)
    whole.folder.mkdir()
    expected = whole.go()
    stopped = Run(tmp_path / "stopped", fold, config, **settings)
    stopped.folder.mkdir()
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, "after the state", 1)
            with pytest.raises(Stopped):
                stopped.go()
    found = stopped.go()
    same(found, expected)
    assert len(found[0]) < 9  # it ended early
    assert len(stopped.go()[0]) == len(found[0])  # and does not go on when it is begun again after its end


def test_another_key_and_a_damaged_state_begin_anew(fold, config, tmp_path, undisturbed):
    run = Run(tmp_path, fold, config)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, "after the state", 2)
        with pytest.raises(Stopped):
            run.go("another")
    same(run.go(), undisturbed)
    state = tmp_path / "epochs" / "state.npz"
    state.write_bytes(state.read_bytes()[:-2000])
    with pytest.warns(UserWarning, match="cannot be read .* begins anew"):
        same(run.go(), undisturbed)


def test_a_full_disk_is_one_error_and_loses_nothing(fold, config, tmp_path, undisturbed):
    run, before = Run(tmp_path, fold, config), resume.np.savez
    with pytest.MonkeyPatch.context() as patch:

        def full(file, **values):
            if len(json.loads(str(values["state"]))["rows"]) == 3:
                file.write(b"as far as it went")
                raise OSError(28, "No space left on device")
            before(file, **values)

        patch.setattr(resume.np, "savez", full)
        with pytest.raises(callbacks.TrainingError, match=r"epoch 2 cannot be kept .*No space left on device"):
            run.go()
    same(run.go(), undisturbed)


def test_a_phase_leaves_no_epochs_behind_when_it_is_done(tiny_data, start_run, tmp_path, monkeypatch):
    config = tiny(tiny_data, **{"batches.threshold": 4})
    run = start_run(tmp_path, config, "04_phase_1")
    monkeypatch.setattr(training.models, "build", lambda config, classes: model(config))
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, "after the state", 2)
        with pytest.raises(Stopped):
            training.phase_1(run, 0)
    epochs = runs.epochs_path(run.dir, run.stage)
    assert (epochs / "phase_1_fold_0" / "state.npz").exists()
    assert not run.path("models/phase_1_fold_0.keras").exists()
    assert training.phase_1(run, 0)["epochs"] == config.phase_1.epochs
    assert not list(epochs.glob("*"))
    assert not list(tmp_path.rglob(".writing-*"))


def test_what_a_killed_writer_left_is_swept_when_the_folder_is_locked(tmp_path):
    left = tmp_path / "tables" / ".writing-abc" / "chunks.parquet"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert runs.lock(tmp_path, "test")
    runs.unlock(tmp_path)
    assert not left.parent.exists()


# ---- real signals

PROGRAM = """
import os, sys
sys.path[:0] = [{tests!r}]
import test_resume as here
from pathlib import Path
fold = here.training.Fold(*here.pd.read_pickle({fold!r}))
config = here.tiny(Path({data!r}), **{{"batches.threshold": 4}})
run = here.Run(Path({folder!r}), fold, config)
if {count}:
    def die():
        os.kill(os.getpid(), {signal})
        import time; time.sleep(60)
    here.Stopped.__new__ = lambda cls, *rest: die()
    here.stop_at(here.pytest.MonkeyPatch(), {place!r}, {count})
run.go()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "place", "count"),
    [
        (signal.SIGINT, "mid-epoch", 3),
        (signal.SIGTERM, "mid-epoch", 3),
        (signal.SIGKILL, "mid-epoch", 3),  # after which nothing is done any more, wherever it comes
        (signal.SIGKILL, "before a rename", 3),
        (signal.SIGKILL, "after a rename", 3),
    ],
)
def test_a_real_signal_changes_nothing(number, place, count, fold, config, tmp_path, undisturbed):
    pd.to_pickle(tuple(fold), tmp_path / "fold.pickle")
    program = PROGRAM.format(
        tests=str(Path(__file__).parent),
        fold=str(tmp_path / "fold.pickle"),
        data=str(config.data.dir),
        folder=str(tmp_path),
        count=count,
        place=place,
        signal=int(number),
    )
    died = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200, check=False)
    assert died.returncode in (-number, 1, 130), died.stderr
    same(Run(tmp_path, fold, config).go(), undisturbed)
