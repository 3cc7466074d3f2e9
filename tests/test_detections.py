"""Detections by hand: threshold, the likeliest few, the species list, what is merged, what time it was."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from birdlib import detections
from birdlib.detections import Choice, DetectionError

SPECIES = pd.DataFrame({"primary_label": ["a", "b", "c"], "common_name": ["Ay", "Bee", "Sea"]})
SPECIES = SPECIES.assign(scientific_name=["A a", "B b", "C c"])
VALUES = np.array(
    [[0.9, 0.6, 0.1], [0.7, 0.2, 0.7], [0.2, 0.6, 0.8], [0.8, 0.1, 0.5]],
    np.float32,
)


def whole(filename, values, *arguments):
    return pd.concat(detections.tables(filename, values, *arguments), ignore_index=True)


def found(choice, filename="x.wav", duration_s=18.0):
    table = whole(filename, VALUES, 5.0, duration_s, SPECIES, choice)
    return [
        (row.start_s, row.end_s, row.primary_label, round(row.confidence, 3)) for row in table.itertuples(index=False)
    ]


def test_rows_side_by_side_become_one_as_likely_as_the_likeliest():
    assert found(Choice(0.5)) == [
        (0, 10, "a", 0.9),
        (0, 5, "b", 0.6),
        (5, 18, "c", 0.8),  # the last row ends where the recording does
        (10, 15, "b", 0.6),
        (15, 18, "a", 0.8),
    ]


def test_unmerged_each_row_is_one():
    assert found(Choice(0.75, merge=False)) == [(0, 5, "a", 0.9), (10, 15, "c", 0.8), (15, 18, "a", 0.8)]


def test_the_likeliest_of_each_row():
    # In the second row a and c are as likely as each other: the earlier is taken.
    assert found(Choice(0.0, top_k=1, merge=False)) == [
        (0, 5, "a", 0.9),
        (5, 10, "a", 0.7),
        (10, 15, "c", 0.8),
        (15, 18, "a", 0.8),
    ]


def test_a_species_list_goes_before_the_likeliest():
    assert found(Choice(0.5, top_k=1, species=frozenset({"b", "zebra"}))) == [(0, 5, "b", 0.6), (10, 15, "b", 0.6)]


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.65, 1.0])
@pytest.mark.parametrize("top_k", [None, 1, 2, 3, 9])
def test_against_a_loop(threshold, top_k):
    values = np.random.default_rng(1).random((50, 3)).astype(np.float32)
    expected = np.zeros((50, 3), bool)
    for row in range(50):
        best = sorted(range(3), key=lambda place: -values[row, place])[: top_k or 3]
        for place in best:
            expected[row, place] = values[row, place] >= threshold
    np.testing.assert_array_equal(detections.chosen(values, ["a", "b", "c"], Choice(threshold, top_k)), expected)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_pieces_against_a_loop(merge, at_once, monkeypatch):
    monkeypatch.setattr(detections, "ROWS_AT_ONCE", at_once)
    values = np.random.default_rng(2).random((60, 3)).astype(np.float32)
    expected = []
    for row in range(60):
        for place, label in enumerate("abc"):
            if values[row, place] < 0.4 or (merge and row and values[row - 1, place] >= 0.4):
                continue
            last = row
            while merge and last < 59 and values[last + 1, place] >= 0.4:
                last += 1
            expected.append((row * 5.0, min(5.0 * (last + 1), 298.0), label, values[row : last + 1, place].max()))
    pieces = list(detections.tables("x.wav", values, 5.0, 298.0, SPECIES, Choice(0.4, merge=merge)))
    assert len(pieces) == -(-len(expected) // at_once)
    got = pd.concat(pieces)[["start_s", "end_s", "primary_label", "confidence"]]
    assert list(got.itertuples(index=False, name=None)) == expected


def test_millions_of_detections_are_no_tuples_in_memory():
    """Of eight hours, every probability: as a tuple each they took half a gigabyte."""
    rng, labels = np.random.default_rng(3), [f"bird{number}" for number in range(182)]
    values = rng.random((5760, 182), np.float32)
    species = pd.DataFrame(dict.fromkeys(("primary_label", "common_name", "scientific_name"), labels))
    tracemalloc.start()
    try:
        pieces = detections.tables("20240501_053000.wav", values, 5.0, 28_800.0, species, Choice(0.0, merge=False))
        assert sum(map(len, pieces)) == values.size
        assert tracemalloc.get_traced_memory()[1] < 10 * values.nbytes
    finally:
        tracemalloc.stop()


def test_the_time_of_day():
    table = whole("20240501_235950.WAV", VALUES, 5.0, 20.0, SPECIES, Choice(0.75))
    assert [str(at) for at in table["begins_at"]] == [
        "2024-05-01 23:59:50",
        "2024-05-02 00:00:00",
        "2024-05-02 00:00:05",
    ]
    assert whole("x.wav", VALUES, 5.0, 20.0, SPECIES, Choice(0.75))["begins_at"].isna().all()


@pytest.mark.parametrize(
    ("name", "years"),
    [
        ("00120512_101010.wav", ["NaT", "NaT", "NaT"]),
        ("30000101_000000.wav", ["NaT", "NaT", "NaT"]),
        ("20991231_235959.wav", ["2099", "2100", "2100"]),
    ],
)
def test_a_year_that_no_recorder_has_costs_no_table(name, years):
    table = whole(name, VALUES, 5.0, 20.0, SPECIES, Choice(0.75))
    assert [str(at)[:4] for at in table["begins_at"]] == years


def test_nothing_heard_is_a_table_of_no_rows_and_the_same_types():
    nothing, some = (whole("x.wav", VALUES, 5.0, 20.0, SPECIES, Choice(least)) for least in (1.0, 0.5))
    assert len(nothing) == 0
    numbers = ["start_s", "end_s", "confidence", "begins_at"]
    assert nothing[numbers].dtypes.to_dict() == some[numbers].dtypes.to_dict()


def test_numbers_out_of_range():
    with pytest.raises(DetectionError, match=r"threshold is a probability, 0 to 1, not 1\.5"):
        Choice(1.5)
    with pytest.raises(DetectionError, match="at most 0 species"):
        Choice(0.5, top_k=0)
