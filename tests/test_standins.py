"""Recordings that break between the index and the epoch, through both phases and the test."""

import shutil
import weakref
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from birdlib import baseline, batches, examples, models, runs, sources, stages, standins, testing, training
from birdlib.audio import AudioError
from tests.conftest import RATE_HZ, TINY_LABELS
from tests.faults import AFTER
from tests.test_training import linear, tiny

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning", "ignore:.*broke since they were indexed"
)


@pytest.fixture(scope="module")
def indexed(tiny_data, start_run, tmp_path_factory):
    """The folder of a run whose first two stages are done; not to be written into."""
    return start_run(tmp_path_factory.mktemp("indexed"), tiny(tiny_data), "02_chunking").dir


@pytest.fixture
def start(indexed, tiny_data, tmp_path, monkeypatch):
    """A function (stage) -> a run on a copy of the data and of those tables, that trains the least there is."""
    monkeypatch.setattr(models, "build", linear)
    monkeypatch.setattr(models, "freeze_backbone", lambda model, frozen: None)
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    shutil.copytree(indexed / "tables", tmp_path / "run" / "tables")
    small = {"phase_1.epochs": 2, "phase_2.epochs": 1}
    return lambda stage: runs.Run(tmp_path / "run", tiny(data, **small), stages.stage(stage))


def one_of(run, part):
    side = training.splits.side(run.read_table("splits"), part, 0)
    return side["filename"].sort_values().iloc[-1]


def errors(run):
    return run.read_table("errors").set_index("path")["reason"].to_dict()


@pytest.mark.parametrize("fault", AFTER, ids=lambda fault: fault.name)
def test_training_goes_on_and_names_it(fault, start):
    run = start("04")
    broken = [one_of(run, part) for part in ("train", "validation")]
    for name in broken:
        fault.happen(run.data_dir / "train_audio" / name)
    result = training.phase_1(run, 0)
    assert errors(run).keys() == set(broken)
    assert all(fault.reason in reason for reason in errors(run).values())
    history, said = pd.read_csv(run.path("history/phase_1_fold_0.csv")), run.read_table("validation_phase_1_fold_0")
    assert len(history) == 2
    assert np.isfinite(history).all(axis=None)
    data = training.fold_data(run.read_table("chunks"), run.read_table("splits"), 0, run.config)
    expected = set(data.validation["filename"]) - {broken[1]}
    assert set(said["filename"]) == expected
    assert result["val_chunks"] == len(said) == data.validation["filename"].isin(expected).sum()


def test_only_the_places_of_what_broke_change_and_they_keep_their_class(start):
    run = start("04")
    data = training.fold_data(run.read_table("chunks"), run.read_table("splits"), 0, run.config)
    source = sources.LazySource(run.data_dir, run.config)

    def made():
        return batches.TrainingBatches(data.train, data.labels, source, run.config, 8)

    def audio(feed, order):
        return {at: feed.batch(*at)[0]["audio"] for at in order}

    order = [(epoch, index) for epoch in range(2) for index in range(made().num_batches)]
    whole, targets = audio(made(), order), {at: made().batch(*at)[1] for at in order}
    gone = one_of(run, "train")
    (run.data_dir / "train_audio" / gone).unlink()
    forwards, backwards = audio(made(), order), audio(made(), order[::-1])
    of_class = data.train[data.train["primary_label"] == gone.partition("/")[0]]
    others = [source.read(row.filename, row.start_s) for row in of_class.itertuples() if row.filename != gone]
    changed = 0
    for at in order:
        np.testing.assert_array_equal(forwards[at], backwards[at])
        np.testing.assert_array_equal(made().batch(*at)[1], targets[at])
        rows = made().plan.epoch(at[0])[at[1] * 8 : at[1] * 8 + 8]
        for place, row in enumerate(rows):
            if data.train["filename"].iloc[row] == gone:
                assert any(np.array_equal(forwards[at][place], other) for other in others)
                changed += 1
            else:
                np.testing.assert_array_equal(forwards[at][place], whole[at][place])
    assert changed


def test_a_class_that_is_gone_stops_the_training(start):
    run = start("04")
    shutil.rmtree(run.data_dir / "train_audio" / TINY_LABELS[2])
    with pytest.raises(AudioError, match=f"no recording of {TINY_LABELS[2]} can be read any more: restore the files"):
        training.phase_1(run, 0)
    assert not run.path("models/phase_1_fold_0.keras").exists()


def test_what_breaks_between_the_phases_and_before_the_test(start):
    run = start("04")
    training.phase_1(run, 0)
    run.finish = None  # not a whole stage
    lost = one_of(run, "validation"), one_of(run, "test")
    (run.data_dir / "train_audio" / lost[0]).unlink()
    second = start_again(run, "05")
    training.phase_2(second, 0)
    before, after = (run.read_table(f"validation_phase_{phase}_fold_0") for phase in (1, 2))
    assert lost[0] in set(before["filename"])
    assert lost[0] not in set(after["filename"])
    assert examples.changes(before, after).to_numpy().sum() == len(after)
    assert lost[0] not in set(examples.changed(before, after, {})["filename"])
    (run.data_dir / "train_audio" / lost[1]).unlink()
    third = start_again(run, "06")
    result = testing.test(third, testing.classifiers(third))
    assert result.broken == {lost[1]: "no such file"}
    assert len(result.chunks) == len(result.truth) == len(result.probabilities) == len(result.by_fold[0])
    assert lost[1] not in set(result.chunks["filename"]) | set(result.predictions["filename"])
    assert np.isfinite(testing.baseline_score(third, result))  # fitted without what is gone from training


def start_again(run, stage):
    return runs.Run(run.dir, run.config, stages.stage(stage))


def test_the_baseline_knows_nothing_of_what_is_gone(start):
    run = start("06")
    table = run.read_table("chunks").merge(run.read_table("splits")[["filename", "primary_label"]])
    (run.data_dir / "train_audio" / table["filename"].iloc[0]).unlink()
    found = baseline.features(table.head(4), run.data_dir, run.config)
    gone = (table.head(4)["filename"] == table["filename"].iloc[0]).to_numpy()
    assert np.isnan(found[gone]).all()
    assert np.isfinite(found[~gone]).all()


def test_examples_that_are_gone_are_not_shown(start):
    run = start("06")
    table = run.read_table("chunks").head(2).assign(title=["one", "two"], primary_label="x")
    (run.data_dir / "train_audio" / table["filename"].iloc[0]).unlink()
    same = table["filename"].iloc[0] == table["filename"].iloc[1]
    assert list(examples.read(run, table)) == ([] if same else ["two"])


def test_what_broke_is_remembered_when_the_stage_goes_on_after_a_stop(start):
    run = start("04")
    standins.record(run, {"a/1.ogg": "no such file"})
    with pytest.warns(UserWarning, match=r"1 recording\(s\) broke since they were indexed \(b/2\.ogg\)"):
        standins.record(start_again(run, "04"), {"b/2.ogg": "no such file"})
    assert errors(run) == {"a/1.ogg": "no such file", "b/2.ogg": "no such file"}
    runs.forget_parts(run.dir, run.stage)
    standins.record(run, {})
    assert errors(run) == {}


def test_a_chunk_is_never_read_as_silence_that_the_recording_does_not_have(start):
    run = start("04")
    source = sources.LazySource(run.data_dir, run.config)
    name = one_of(run, "train")
    with pytest.raises(AudioError, match=r"ends before 60 s, where a chunk was"):
        source.read(name, 60.0)
    assert source.sample_rate_hz == RATE_HZ
    assert keras.backend.backend()


def test_what_broke_does_not_hold_on_to_the_batch_in_which_it_did():
    class Gone:
        def read(self, filename, start_s):
            if filename == "a":
                raise AudioError(f"{filename}: gone")
            return np.zeros(4, np.int16)

    def batch():
        samples = np.empty((2, 4), np.int16)
        samples[0] = reader.read(0, 0, 0)
        return weakref.ref(samples)

    table = pd.DataFrame({"filename": ["a", "b"], "start_s": 0.0, "primary_label": "one"})
    reader = standins.StandIns(table, Gone(), 0)
    assert batch()() is None
