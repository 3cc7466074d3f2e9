"""Soundscapes: windows and row ids by hand, the table to submit, and what happens without any."""

import numpy as np
import pandas as pd
import pytest
from conftest import TINY_LABELS, noise, save, tone

from birdlib import config as configs
from birdlib import soundscapes
from birdlib.classifier import Classifier

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


def test_predictions_have_a_row_a_window(scenes):
    found = soundscapes.find(scenes, CONFIG)
    assert found.folder == "test_soundscapes"
    table, problems = soundscapes.predict(found.paths, Classifier(loudness, CONFIG), ["loud", "still"], CONFIG)
    assert problems == {}
    assert table["row_id"].tolist() == ["soundscape_7_5", "soundscape_7_10", "soundscape_7_15"]
    assert table["start_s"].tolist() == [0, 5, 10]
    assert table["still"].iloc[1] == 1  # digital silence is an image of zeros
    assert table["loud"].iloc[0] > 0.5


@pytest.mark.parametrize(
    ("name", "row"), [("soundscape_12.ogg", "soundscape_12_5"), ("460830.ogg", "soundscape_460830_5")]
)
def test_row_ids(tmp_path, name, row):
    assert soundscapes.row_id(tmp_path / name, 5.0) == row


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


def test_none_at_all_gives_an_empty_table_with_its_columns(tmp_path):
    found = soundscapes.find(tmp_path, CONFIG)
    assert found == ([], "")
    table, _ = soundscapes.predict([], Classifier(loudness, CONFIG), ["loud", "still"], CONFIG)
    submission, unknown = soundscapes.submission(table, ["loud", "still"], tmp_path)
    assert list(submission.columns) == ["row_id", "loud", "still"]
    assert len(submission) == 0
    assert unknown == []


def test_the_submission_has_the_columns_asked_for_in_their_order(tmp_path):
    pd.DataFrame(columns=["row_id", "zebra", "b", "a"]).to_csv(tmp_path / "sample_submission.csv", index=False)
    predictions = pd.DataFrame({"row_id": ["x_5"], "filename": "x", "start_s": 0.0, "a": [0.25], "b": [0.75]})
    table, unknown = soundscapes.submission(predictions, ["a", "b"], tmp_path)
    assert list(table.columns) == ["row_id", "zebra", "b", "a"]
    assert table.iloc[0].tolist() == ["x_5", 0.0, 0.75, 0.25]
    assert unknown == ["zebra"]


def test_the_real_competitions_columns(shared):
    folder = shared / "data" / "birdclef2024"
    table, unknown = soundscapes.submission(pd.DataFrame({"row_id": ["x_5"], "asbfly": [0.5]}), ["asbfly"], folder)
    assert table.shape == (1, 183)
    assert table["asbfly"].tolist() == [0.5]
    assert len(unknown) == 181


def test_the_truth_of_one_soundscape(tiny_data, tmp_path):
    assert soundscapes.truth(tiny_data, "soundscape_1.ogg") is None
    rows = {"filename": ["a.ogg", "b.ogg"], "start_s": [0, 1], "end_s": [2, 3], "primary_label": TINY_LABELS[:2]}
    pd.DataFrame(rows).to_csv(tmp_path / "test_soundscapes_truth.csv", index=False)
    assert soundscapes.truth(tmp_path, "b.ogg")["primary_label"].tolist() == [TINY_LABELS[1]]
