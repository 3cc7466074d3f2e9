"""The logistic regression's features against librosa, and its probabilities on species told apart by pitch."""

import librosa
import numpy as np
import pandas as pd
import pytest

from birdlib import audio, baseline, runs, splits, stages
from birdlib import config as configs
from birdlib.sources import LazySource
from tests.conftest import TINY_BROKEN, TINY_LABELS


@pytest.fixture(scope="module")
def config(tiny_data):
    return configs.load("sample", {"data.dir": tiny_data, "compute.workers": 1, "testing.baseline_chunks": 5})


@pytest.fixture(scope="module")
def chunk_table():
    """The first five seconds of every recording, the broken one left out; in an order and with an index of its own."""
    names = [f"{label}/XC{place + 1}{number:02d}.ogg" for place, label in enumerate(TINY_LABELS) for number in range(6)]
    names.remove(TINY_BROKEN)
    table = pd.DataFrame({"filename": names, "start_s": 0.0})
    table["primary_label"] = table["filename"].str.split("/").str[0]
    return table.sample(frac=1, random_state=0).set_index(np.arange(100, 100 + len(table)))


def librosa_features(samples):
    power = librosa.feature.melspectrogram(
        y=samples, sr=32_000, n_fft=2048, hop_length=500, n_mels=128, fmin=40, fmax=15_000, pad_mode="reflect"
    )[:, :320]
    image = (librosa.power_to_db(power, ref=np.max, top_db=80, amin=1e-30) + 80) / 80 * 255
    return np.concatenate([image.mean(axis=1), image.std(axis=1)])


def test_features_are_mean_and_deviation_of_each_band_in_the_order_of_the_chunks(chunk_table, config):
    found = baseline.features(chunk_table, config.data.dir, config)
    assert found.shape == (23, 256)
    source = LazySource(config.data.dir, config)
    for row, chunk in zip(found, chunk_table.itertuples(), strict=True):
        expected = librosa_features(audio.to_float(source.read(chunk.filename, chunk.start_s)))
        np.testing.assert_allclose(row, expected, atol=0.1 * 255 / 80)


def test_several_chunks_of_a_recording_keep_their_places(config):
    name = f"{TINY_LABELS[0]}/XC104.ogg"  # nine seconds
    starts = [4.0, 0.0, 2.0]
    together = baseline.features(pd.DataFrame({"filename": name, "start_s": starts}), config.data.dir, config)
    for start_s, row in zip(starts, together, strict=True):
        alone = baseline.features(pd.DataFrame({"filename": [name], "start_s": start_s}), config.data.dir, config)
        np.testing.assert_array_equal(alone[0], row)
    assert len(np.unique(together, axis=0)) == 3


@pytest.mark.parametrize("name", [TINY_BROKEN, "tinbir1/none.ogg"])
def test_a_recording_that_cannot_be_read_has_no_features(config, name):
    good = f"{TINY_LABELS[0]}/XC104.ogg"
    found = baseline.features(pd.DataFrame({"filename": [good, name], "start_s": 0.0}), config.data.dir, config)
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).all()


@pytest.fixture
def sides(chunk_table):
    """Training: recordings 0 to 3 of each species; test: the others."""
    number = chunk_table["filename"].str[-5].astype(int)
    return chunk_table[number < 4], chunk_table[number >= 4].reset_index(drop=True)


def test_species_of_different_pitch_are_told_apart(sides, config):
    train, test = sides
    found = baseline.probabilities([train], test, list(TINY_LABELS), config.data.dir, config)
    assert found.shape == (len(test), 4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)
    predicted = np.array(TINY_LABELS)[found.argmax(axis=1)]
    assert (predicted == test["primary_label"]).mean() > 0.8


def test_columns_follow_the_labels_and_a_class_it_has_not_seen_gets_nothing(sides, config):
    train, test = sides
    labels = ["unseen", *TINY_LABELS[::-1]]
    found = baseline.probabilities([train], test, labels, config.data.dir, config)
    assert (found[:, 0] == 0).all()
    usual = baseline.probabilities([train], test, list(TINY_LABELS), config.data.dir, config)
    np.testing.assert_allclose(found[:, :0:-1], usual, atol=1e-6)


def test_shuffled_labels_leave_nothing_to_learn(sides, config):
    train, test = sides
    shuffled = train.assign(primary_label=np.roll(TINY_LABELS, 1)[np.arange(len(train)) % 4])
    found = baseline.probabilities([shuffled], test, list(TINY_LABELS), config.data.dir, config)
    predicted = np.array(TINY_LABELS)[found.argmax(axis=1)]
    assert (predicted == test["primary_label"]).mean() < 0.7


def test_of_a_class_with_many_chunks_only_some_are_used(sides, config, monkeypatch):
    train, test = sides
    many = pd.concat([train.assign(start_s=start_s) for start_s in (0.0, 0.5, 1.0)], ignore_index=True)
    counts = []
    features = baseline.features
    monkeypatch.setattr(baseline, "features", lambda table, *rest: (counts.append(table), features(table, *rest))[1])
    baseline.probabilities([many], test, list(TINY_LABELS), config.data.dir, config)
    (read,) = counts
    tested = read["filename"].isin(test["filename"])
    assert tested.sum() == len(test)
    used = read[~tested].assign(label=read["filename"].str.split("/").str[0])
    assert (used["label"].value_counts() == 5).all()
    # Spread over the recordings, not the first ones.
    assert used.groupby("label")["filename"].nunique().min() >= 3


def test_of_several_sides_the_mean_is_given(sides, config):
    train, test = sides
    parts = [train[train["filename"].str[-5] != number] for number in "01"]
    together = baseline.probabilities(parts, test, list(TINY_LABELS), config.data.dir, config)
    alone = [baseline.probabilities([part], test, list(TINY_LABELS), config.data.dir, config) for part in parts]
    np.testing.assert_allclose(together, np.mean(alone, axis=0), atol=1e-9)
    assert not np.allclose(*alone, atol=1e-3)


def test_folds_by_author_are_harder_where_it_is_the_author_who_is_heard(tmp_path, monkeypatch):
    # Ten recordists with three recordings each, of two species; what is heard is the recordist and nothing else.
    rows = [
        (f"{'ab'[who % 2]}/{who}{number}.ogg", "ab"[who % 2], f"who{who}") for who in range(10) for number in range(3)
    ]
    table = pd.DataFrame(rows, columns=["filename", "primary_label", "author"]).assign(audio_hash=None)
    run = runs.Run(tmp_path, configs.load("sample", {"splits.folds": 5, "data.dir": tmp_path}), stages.stage("04"))
    energy = {"start_s": 0.0, "rms_relative": 1.0, "rms": 1.0, "peak": 1.0}
    run.write_table("chunks", table[["filename"]].assign(**energy))
    run.write_table("splits", splits.make(table, 0, 5, "recording", 0))
    voice = 3 * np.random.default_rng(0).normal(size=(10, 60))
    monkeypatch.setattr(
        baseline, "features", lambda chunks, *_: voice[[int(name.split("/")[1][0]) for name in chunks["filename"]]]
    )
    found = baseline.by_grouping(run, table)
    assert found.loc["recording", "accuracy"] == 1
    assert found.loc["author", "accuracy"] < 0.75
    difference = found.loc["difference"]
    assert difference["accuracy"] == pytest.approx(found.loc["author", "accuracy"] - 1)
    assert difference["low"] < difference["accuracy"] < difference["high"] < 0
    assert found["recordings"].tolist() == [30] * 3
    assert "By recording it gets 100.0% of 30 recordings right" in baseline.told(found)
    assert "more than chance" in baseline.told(found)
