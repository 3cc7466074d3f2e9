"""Soundscapes: windows and rows by hand, and what happens without any."""

import itertools
import os
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from birdlib import audio, soundscapes
from birdlib import config as configs
from birdlib.classifier import Classifier
from tests.conftest import TINY_LABELS, noise, save, tone

CONFIG = configs.load("paper")


def loudness(images: np.ndarray) -> np.ndarray:
    """A placeholder model of two classes: the first is likely where the image is bright."""
    bright = images.mean(axis=(1, 2, 3)) / 255
    return np.stack([bright, 1 - bright], axis=1)


@pytest.fixture
def scenes(tmp_path):
    """Twelve seconds under test_soundscapes: noise, silence, and two seconds of a tone."""
    sound = np.concatenate([noise(5.0), np.zeros(5 * 32000, np.float32), tone(2.0, 2000)])
    save(tmp_path / "test_soundscapes" / "soundscape_7.wav", sound)
    return tmp_path


def test_windows_stand_side_by_side_and_the_last_is_padded(scenes):
    windows = np.stack(list(soundscapes.Windows(scenes / "test_soundscapes" / "soundscape_7.wav", CONFIG)))
    assert windows.shape == (3, 160_000)
    assert windows.dtype == np.int16
    assert windows[0].std() > 2000
    assert not windows[1].any()
    assert windows[2, :64_000].any()
    assert not windows[2, 64_000:].any()


# ---- windows at the end of a recording


SECOND = configs.load("paper", {"chunks.length_s": 1, "chunks.overlap_s": 0.2, "soundscapes.step_s": 0.5})


def starts(samples, step, config):
    """The windows that a recording needs, one by one: until one reaches its end, but for a tenth of a second."""
    found = [0]
    while found[-1] + config.chunk_samples + 3_200 < samples:
        found.append(found[-1] + step)
    return found


@pytest.mark.parametrize("step", [16_000, 32_000])
@pytest.mark.parametrize("samples", [1, 100, 31_999, 32_000, 32_001, 35_200, 35_201, 48_000, 64_000, 64_001, 99_999])
def test_windows_at_the_end(samples, step):
    assert soundscapes.count(samples, step, SECOND) == len(starts(samples, step, SECOND))


def test_nothing_has_no_window():
    assert soundscapes.count(0, 32_000, SECOND) == 0


@pytest.mark.parametrize("samples", [1, 20_000, 32_000, 32_001, 40_000, 160_001, 300_000])
def test_windows_are_cut_where_a_loop_cuts_them(tmp_path, samples):
    sound = save(tmp_path / "x.flac", noise(samples / 32_000))
    whole = audio.to_int16(audio.read(sound, 32_000))
    found = list(soundscapes.Windows(sound, SECOND))
    expected = [
        np.pad(whole[at : at + 32_000], (0, max(0, at + 32_000 - samples))) for at in starts(samples, 16_000, SECOND)
    ]
    np.testing.assert_array_equal(found, expected)


def test_one_sample_too_many_is_no_row(tmp_path):
    path = save(tmp_path / "soundscape_1.wav", noise(10 + 1 / 32_000))
    found = soundscapes.hear(path, Classifier(loudness, CONFIG), CONFIG)
    assert len(found.values) == 2


def test_shorter_than_a_window_is_one(tmp_path):
    path = save(tmp_path / "x.wav", noise(0.01))
    assert len(soundscapes.hear(path, Classifier(loudness, CONFIG), CONFIG).values) == 1


def test_stereo_at_48_khz_is_its_mean_at_32(tmp_path):
    left, right = tone(6, 1000, 0.4, 48_000), tone(6, 5000, 0.4, 48_000)
    path = save(tmp_path / "x.wav", np.stack([left, right], 1), 48_000)
    expected = (tone(6, 1000, 0.4) + tone(6, 5000, 0.4)) / 2
    found = np.concatenate(list(soundscapes.Windows(path, CONFIG)))[: 6 * 32_000] / 32_768
    np.testing.assert_allclose(found[1000:-1000], expected[1000:-1000], atol=2e-3)


def test_a_recording_without_audio_is_an_error(tmp_path):
    path = save(tmp_path / "x.wav", np.zeros(0, np.float32))
    with pytest.raises(audio.AudioError, match="holds no samples"):
        list(soundscapes.Windows(path, CONFIG))


def test_no_more_than_a_batch_is_held(tmp_path, monkeypatch):
    """Windows are made as they are asked for: the file is not read ahead of them."""
    path, read = save(tmp_path / "x.wav", noise(60)), []
    blocks = audio.blocks
    monkeypatch.setattr(audio, "blocks", lambda *given: (read.append(len(one)) or one for one in blocks(*given)))
    windows = iter(soundscapes.Windows(path, CONFIG))
    next(windows)
    assert sum(read) <= 2 * audio.BLOCK_S * 32_000


# ---- rows


@given(step=st.integers(1, 40), length=st.integers(1, 40), total=st.integers(1, 400))
def test_rows_are_the_mean_of_what_overlaps_them(step, length, total):
    step = min(step, length)
    config = SimpleNamespace(chunk_samples=length, window_step_samples=step)
    count = 1 + max(0, -(-(total - length) // step))
    rows = 1 + max(0, -(-(total - length) // length))
    values = np.random.default_rng(total).random((count, 2))
    expected = []
    for row in range(rows):
        shared = [
            len(range(max(at * step, row * length), min(at * step, row * length) + length)) for at in range(count)
        ]
        expected.append(np.dot(shared, values) / sum(shared))
    found = soundscapes.Averaged(config)
    for part in np.array_split(values, 3):
        found.add(part)
    np.testing.assert_allclose(found.rows(rows), expected, atol=1e-12)


@pytest.mark.parametrize("step_s", [0.2, 0.7, 1.0])
def test_overlapping_windows_of_a_long_recording_do_not_fill_the_memory(tmp_path, step_s):
    """What a model says of 200 s, 20,000 classes, is 16 MB in rows of a second, and 80 MB in windows of 0.2 s."""
    config = configs.load("paper", {"chunks.length_s": 1, "chunks.overlap_s": 0.2, "soundscapes.step_s": step_s})
    path = save(tmp_path / "x.wav", noise(200), subtype="PCM_16")

    class Model:
        def batches(self, windows):
            windows = iter(windows)
            while batch := list(itertools.islice(windows, 16)):
                yield np.stack(batch)[:, :1]

        def predict(self, images):
            return np.repeat(images.astype(np.float32), 20_000, axis=1)

    windows = np.stack([window[:1] for window in soundscapes.Windows(path, config)]).astype(np.float32)
    tracemalloc.start()
    try:
        found = soundscapes.hear(path, Model(), config).values
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.shape == (200, 20_000)
    assert peak < 45e6  # the rows, twice where they are put together, and a batch
    starts_s = step_s * np.arange(len(windows))
    for row in (0, 1, 100, 199):
        weights = np.clip(1 - np.abs(starts_s - row), 0, None)
        np.testing.assert_allclose(found[row, [0, -1]], np.average(windows[:, 0], weights=weights), rtol=1e-5)


def test_smoothing_leaves_a_constant_as_it_is():
    values = np.full((5, 3), 0.25, np.float32)
    np.testing.assert_allclose(soundscapes.smoothed(values, 0.3, 0.4), values, atol=1e-7)


def test_smoothing_is_off_by_default():
    values = np.random.default_rng(0).random((5, 3)).astype(np.float32)
    settings = CONFIG.soundscapes
    np.testing.assert_array_equal(soundscapes.smoothed(values, settings.neighbours, settings.file_mean), values)


# ---- the score


def test_the_score_is_scikit_learns(tmp_path):
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"filename": ["a.ogg"] * 6 + ["b.ogg"] * 4, "start_s": [*range(0, 30, 5), *range(0, 20, 5)]})
    table[["x", "y", "z"]] = rng.random((10, 3))
    songs = [
        ("a.ogg", 4.0, 11.0, "x"),
        ("a.ogg", 25.0, 26.0, "y"),
        ("b.ogg", 5.0, 10.0, "x"),
        ("b.ogg", 0.0, 1.0, "unknown"),
    ]
    columns = ["filename", "start_s", "end_s", "primary_label"]
    pd.DataFrame(songs, columns=columns).to_csv(tmp_path / "test_soundscapes_truth.csv", index=False)
    x, y = [1, 1, 1, 0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    expected = np.mean([roc_auc_score(x, table["x"]), roc_auc_score(y, table["y"])])
    found = soundscapes.score(table, ["x", "y", "z"], tmp_path, CONFIG)
    assert found[:3] == (pytest.approx(expected), 2, 10)
    low, high = found.intervals["macro_roc_auc"]  # of two soundscapes: all that could be
    assert low <= expected <= high


def test_labels_that_read_as_numbers_or_as_nothing_are_scored(tmp_path):
    (tmp_path / "test_soundscapes_truth.csv").write_text(
        "filename,start_s,end_s,primary_label\na.ogg,0,1,1234\na.ogg,5,6,nan\n12.0,5,6,01234\n"
    )
    table = pd.DataFrame({"filename": "a.ogg", "start_s": [0.0, 5.0], "1234": [0.9, 0.1], "nan": [0.9, 0.1]})
    assert soundscapes.score(table, ["1234", "nan"], tmp_path, CONFIG)[:3] == (0.5, 2, 2)  # one right, one wrong
    assert soundscapes.truth(tmp_path, "a.ogg")["primary_label"].tolist() == ["1234", "nan"]


def test_no_truth_no_score(tmp_path):
    table = pd.DataFrame({"filename": ["a.ogg"], "start_s": [0.0], "x": [0.5]})
    assert soundscapes.score(table, ["x"], tmp_path, CONFIG) is None


# ---- predictions


def test_predictions_have_a_row_a_window(scenes):
    found = soundscapes.find(scenes, CONFIG)
    assert found.folder == "test_soundscapes"
    table, problems = soundscapes.predict(found.paths, Classifier(loudness, CONFIG), ["loud", "still"], CONFIG)
    assert problems == {}
    assert table["row_id"].tolist() == ["soundscape_7_5", "soundscape_7_10", "soundscape_7_15"]
    assert table["start_s"].tolist() == [0, 5, 10]
    assert table["still"].iloc[1] == 1  # digital silence is an image of zeros
    assert table["loud"].iloc[0] > 0.5


def test_a_broken_soundscape_costs_itself(scenes):
    (scenes / "test_soundscapes" / "a_broken.ogg").write_bytes(b"no audio")
    paths = soundscapes.find(scenes, CONFIG).paths
    table, problems = soundscapes.predict(paths, Classifier(loudness, CONFIG), ["loud", "still"], CONFIG)
    assert len(table) == 3
    assert list(problems) == ["test_soundscapes/a_broken.ogg"]
    assert problems["test_soundscapes/a_broken.ogg"].startswith("not readable as audio")


def test_a_few_unlabeled_ones_stand_in_for_an_empty_test_set(tmp_path):
    for number in range(5):
        save(tmp_path / "unlabeled_soundscapes" / f"{number}.wav", noise(1.0))
    found = soundscapes.find(tmp_path, CONFIG)
    assert found.folder == "unlabeled_soundscapes"
    assert [path.name for path in found.paths] == ["0.wav", "1.wav", "2.wav"]
    assert found.there == 5


def test_none_at_all_gives_an_empty_table_with_its_columns(tmp_path):
    found = soundscapes.find(tmp_path, CONFIG)
    assert found == ([], "", 0)
    table, problems = soundscapes.predict([], Classifier(loudness, CONFIG), ["loud", "still"], CONFIG)
    assert (len(table), list(table)) == (0, ["row_id", "filename", "start_s", "loud", "still"])
    assert problems == {}


def test_a_name_that_is_no_utf_8_is_written_as_text(tmp_path):
    save(tmp_path / "x.wav", noise(1)).rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    (tmp_path / os.fsdecode(b"na\xefve.wav")).write_bytes(b"no audio")
    paths = sorted(tmp_path.iterdir())
    table, problems = soundscapes.predict(paths, Classifier(loudness, CONFIG), ["loud", "still"], CONFIG)
    table.to_csv(tmp_path / "table.csv")
    assert table[["row_id", "filename"]].iloc[0].tolist() == ["soundscape_caf\\xe9_5", "caf\\xe9.wav"]
    assert list(problems) == [f"{tmp_path.name}/na\\xefve.wav"]


def test_the_truth_of_one_soundscape(tiny_data, tmp_path):
    assert soundscapes.truth(tiny_data, "soundscape_1.ogg") is None
    rows = {"filename": ["a.ogg", "b.ogg"], "start_s": [0, 1], "end_s": [2, 3], "primary_label": TINY_LABELS[:2]}
    pd.DataFrame(rows).to_csv(tmp_path / "test_soundscapes_truth.csv", index=False)
    assert soundscapes.truth(tmp_path, "b.ogg")["primary_label"].tolist() == [TINY_LABELS[1]]
