"""Submissions: row ids as a sample has them, its columns, and the rows of what was not heard."""

import numpy as np
import pandas as pd
import pytest

from birdlib import config as configs
from birdlib import soundscapes, submissions
from birdlib.classifier import Classifier
from birdlib.hearing import durations_s
from tests.conftest import noise, save

CONFIG = configs.load("paper")


@pytest.mark.parametrize(
    ("sample", "name", "row"),
    [
        # The samples of 2024 and 2025, whose files are called as the rows, and those recordings that stand in for them.
        (["soundscape_1446779_5"], "soundscape_12.ogg", "soundscape_12_5"),
        (["soundscape_8358733_5"], "460830.ogg", "soundscape_460830_5"),
        (["soundscape_8358733_5"], "H02_20230420_074000.ogg", "soundscape_H02_20230420_074000_5"),
        # That of 2026, whose rows are called as the files.
        (
            ["BC2026_Test_0001_S05_20250227_010002_5", "BC2026_Test_0001_S05_20250227_010002_10"],
            "BC2026_Test_0042_S03_20250115_180000.ogg",
            "BC2026_Test_0042_S03_20250115_180000_5",
        ),
        (["12_5"], "soundscape_7.ogg", "soundscape_7_5"),
        # No rows, or no sample: as it was.
        ([], "460830.ogg", "soundscape_460830_5"),
        (None, "460830.ogg", "soundscape_460830_5"),
        (None, "soundscape_12.ogg", "soundscape_12_5"),
    ],
)
def test_row_ids_are_as_the_sample_has_them(tmp_path, sample, name, row):
    if sample is not None:
        pd.DataFrame({"row_id": sample, "a": [0.5] * len(sample)}).to_csv(
            tmp_path / "sample_submission.csv", index=False
        )
    wanted = submissions.wanted_in(tmp_path, ["a"])
    assert wanted.columns == ["a"]
    save(tmp_path / name, noise(1))
    unsure = Classifier(lambda images: np.full((len(images), 2), 0.5, np.float32), CONFIG)
    table, _ = soundscapes.predict([tmp_path / name], unsure, ["a", "b"], CONFIG, wanted.prefix)
    filled, _ = submissions.complete(
        table[:0], [tmp_path / name], np.ones(2), ["a", "b"], CONFIG, durations_s, wanted.prefix
    )
    assert table["row_id"].tolist() == filled["row_id"].tolist() == [row]


def test_a_submission_has_the_rows_of_what_was_not_heard(tmp_path):
    """As many as its header says, or as most have, where the file would stand; what was heard stays as it is."""
    for name in ("soundscape_0.ogg", "soundscape_9.ogg"):
        (tmp_path / name).write_bytes(b"no audio")
    save(tmp_path / "soundscape_8.wav", noise(4))  # for which the time has not sufficed
    values = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], np.float32)
    heard = soundscapes.rows(tmp_path / "soundscape_7.wav", values, ["loud", "still"], CONFIG)
    paths = [tmp_path / f"soundscape_{name}" for name in ("0.ogg", "7.wav", "8.wav", "9.ogg")]
    found, filled = submissions.complete(heard, paths, np.array([0.25, 0.75]), ["loud", "still"], CONFIG, durations_s)
    assert found["row_id"].tolist() == [
        *("soundscape_0_5", "soundscape_0_10", "soundscape_7_5", "soundscape_7_10", "soundscape_7_15"),
        *("soundscape_8_5", "soundscape_9_5", "soundscape_9_10"),
    ]
    assert filled == 5
    pd.testing.assert_frame_equal(found.iloc[2:5].reset_index(drop=True), heard)
    np.testing.assert_array_equal(found.iloc[[0, 1, 5, 6, 7]][["loud", "still"]], [[0.25, 0.75]] * 5)


def test_nothing_to_complete():
    nothing = soundscapes.together([], ["loud"])
    assert submissions.complete(nothing, [], np.ones(1), ["loud"], CONFIG, durations_s)[1] == 0


def test_the_submission_has_the_columns_asked_for_in_their_order(tmp_path):
    pd.DataFrame(columns=["row_id", "zebra", "b", "a"]).to_csv(tmp_path / "sample_submission.csv", index=False)
    predictions = pd.DataFrame({"row_id": ["x_5"], "filename": "x", "start_s": 0.0, "a": [0.25], "b": [0.75]})
    table, unknown = submissions.submitted(predictions, ["a", "b"], submissions.wanted_in(tmp_path, []).columns)
    assert list(table.columns) == ["row_id", "zebra", "b", "a"]
    assert table.iloc[0].tolist() == ["x_5", 0.0, 0.75, 0.25]
    assert unknown == ["zebra"]


def test_the_columns_of_a_sample_wherever_its_row_id_stands_and_with_an_index(tmp_path):
    table = pd.DataFrame({"b": [0.1], "row_id": ["x_5"], "a": [0.9]})
    table.to_csv(tmp_path / "sample.csv")  # with its index
    assert submissions.wanted(tmp_path / "sample.csv").columns == ["b", "a"]
    table.set_index("row_id").to_csv(tmp_path / "sample.csv")
    assert submissions.wanted(tmp_path / "sample.csv").columns == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"sample\.csv is not readable as CSV \(No such file"),
        (b"", r"sample\.csv is not readable as CSV \(No columns"),
        (b"\xff\xfe\x00", r"sample\.csv is not readable as CSV"),
        (b"id,a,b\n", r"sample\.csv lacks the column row_id"),
        (b"row_id\n", r"sample\.csv lacks a column a class"),
    ],
)
def test_a_sample_that_does_not_say_what_to_submit(tmp_path, content, said):
    if content is not None:
        (tmp_path / "sample.csv").write_bytes(content)
    with pytest.raises(submissions.SampleError, match=said):
        submissions.wanted(tmp_path / "sample.csv")


def test_the_real_competitions_columns(shared):
    folder = shared / "data" / "birdclef2024"
    table, unknown = submissions.submitted(
        pd.DataFrame({"row_id": ["x_5"], "asbfly": [0.5]}), ["asbfly"], submissions.wanted_in(folder, []).columns
    )
    assert table.shape == (1, 183)
    assert table["asbfly"].tolist() == [0.5]
    assert len(unknown) == 181
