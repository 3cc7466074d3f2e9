"""What is chosen to be shown: on tables small enough to choose by eye."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from birdlib import examples, sources
from tests.conftest import RATE_HZ

NAMES = {"a": "Ant Bird", "b": "Bee Bird", "c": "c"}


def chunks(kept, **columns):
    """A row a chunk from {filename: [kept, ...]}."""
    rows = [(name, 4.0 * place, keep) for name, keeps in kept.items() for place, keep in enumerate(keeps)]
    return pd.DataFrame(rows, columns=["filename", "start_s", "kept"]).assign(primary_label="a", **columns)


def test_the_recording_shown_has_both_kinds_and_is_not_too_long():
    kept = {"all.ogg": [True] * 9, "both.ogg": [True, False, False], "more.ogg": [True, True, False, False]}
    assert examples.recording(chunks(kept)) == "more.ogg"
    assert examples.recording(chunks({**kept, "long.ogg": [True, False] * 30})) == "more.ogg"


def test_a_recording_is_shown_where_none_is_good():
    assert examples.recording(chunks({"long.ogg": [True] * 50, "longer.ogg": [True] * 60})) == "long.ogg"
    assert examples.recording(chunks({"short.ogg": [True], "two.ogg": [True, True]})) == "two.ogg"


def test_silent_chunks_come_with_the_loudest_of_their_recordings():
    table = chunks({"one.ogg": [False, True], "two.ogg": [True, False, False], "three.ogg": [True]})
    table["energy"] = [0.05, 1.0, 1.0, 0.01, 0.02, 1.0]
    shown = examples.silent_and_kept(table, "energy", count=2)
    assert shown[["filename", "start_s"]].to_numpy().tolist() == [
        ["two.ogg", 4.0],
        ["one.ogg", 0.0],
        ["two.ogg", 0.0],
        ["one.ogg", 4.0],
    ]
    assert shown["title"].tolist()[0] == "silent: two.ogg\nenergy 0.01"


def test_without_silent_chunks_the_faintest_are_shown_as_kept():
    table = chunks({"one.ogg": [True, True], "two.ogg": [True]}, energy=[0.3, 1.0, 0.9])
    shown = examples.silent_and_kept(table, "energy", count=2)
    assert shown["title"].tolist() == ["kept: one.ogg\nenergy 0.3", "kept: two.ogg\nenergy 0.9"]
    assert shown["start_s"].tolist() == [0.0, 0.0]


def test_sounds_are_read_and_no_title_swallows_another(start_run, tiny_config, tmp_path):
    run = start_run(tmp_path, tiny_config, "03")
    table = run.read_table("chunks").iloc[[0, 0, 1]].assign(title=["same", "same", "other"])
    sounds = examples.read(run, table)
    assert list(sounds) == ["same", "same ", "other"]
    np.testing.assert_array_equal(sounds["same"], sounds["same "])
    assert sounds["same"].dtype == np.float32
    assert len(sounds["same"]) == 5 * RATE_HZ


def test_the_chunk_shown_is_no_padded_tail(start_run, tiny_config, tmp_path):
    run = start_run(tmp_path, tiny_config, "03")
    table = run.read_table("chunks")
    short = table[table["filename"].str.endswith("00.ogg")]  # 3 s long
    longer = table[table["filename"].str.endswith("04.ogg")]
    assert examples.full(run, pd.concat([short, longer]))["filename"].endswith("04.ogg")
    assert examples.full(run, short)["filename"].endswith("00.ogg")  # better than nothing


def test_the_chunk_shown_is_the_fullest_of_song(start_run, tiny_config, tmp_path, monkeypatch):
    run, times = start_run(tmp_path, tiny_config, "03"), np.arange(5 * RATE_HZ) / RATE_HZ
    noise = 1000 * np.random.default_rng(0).normal(size=times.size)
    song = 8000 * np.sin(2 * np.pi * 3000 * times)
    sounds = {
        0.0: noise,
        1.0: noise + song * (times < 1),
        2.0: noise + song,
        3.0: song * (times > 1),
    }  # the last: a gap
    monkeypatch.setattr(
        sources, "by_settings", lambda *_: SimpleNamespace(read=lambda _, start_s: sounds[start_s].astype(np.int16))
    )
    chunks = pd.DataFrame({"filename": "a.ogg", "start_s": list(sounds)})
    assert examples.full(run, chunks)["start_s"] == 2


def predictions(rows):
    """From (filename, truth, probabilities of a, b, c)."""
    return pd.DataFrame(
        [(name, 0.0, truth, *values) for name, truth, values in rows],
        columns=["filename", "start_s", "primary_label", "a", "b", "c"],
    )


def test_changed_minds_are_the_strongest_of_both_kinds():
    sure, unsure, wrong = (0.8, 0.1, 0.1), (0.4, 0.35, 0.25), (0.1, 0.8, 0.1)
    before = predictions(
        [("1", "a", wrong), ("2", "a", unsure[::-1]), ("3", "a", sure), ("4", "b", wrong), ("5", "c", wrong)]
    )
    after = predictions(
        [("1", "a", sure), ("2", "a", unsure), ("3", "a", sure), ("4", "b", sure), ("5", "c", unsure[::-1])]
    )
    shown = examples.changed(before, after, NAMES, count=3)
    assert shown["filename"].tolist() == ["1", "5", "4"]  # and not "2", another of species a that changed less
    assert shown["title"].tolist() == [
        "I: Bee Bird\nII: Ant Bird\nwhich is right",
        "I: Bee Bird\nII: c\nwhich is right",
        "I: Bee Bird\nII: Ant Bird\ntruly Bee Bird",
    ]


def test_right_and_the_gain():
    sure, wrong = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1)
    names = [f"{number}" for number in range(40)]
    before = predictions([(name, "a", wrong if number < 20 else sure) for number, name in enumerate(names)])
    after = predictions([(name, "a", wrong if number < 10 else sure) for number, name in enumerate(names)])
    assert examples.right(before).sum() == 20
    assert examples.changes(before, after).to_numpy().tolist() == [[20, 0], [10, 10]]
    gained, low, high = examples.gain(before, after, before["filename"], 0)
    assert gained == 0.25
    # 10 of 40 gained: a normal interval of a share of 0.25 is 0.25 +- 0.134.
    assert (low, high) == pytest.approx((0.116, 0.384), abs=0.03)


def test_no_mind_was_changed():
    same = predictions([("1", "a", (0.8, 0.1, 0.1))])
    assert examples.changed(same, same, NAMES).empty


def test_confused_pairs_come_with_a_sure_chunk_of_each():
    table = predictions(
        [
            ("mistaken", "a", (0.2, 0.7, 0.1)),
            ("surer", "a", (0.1, 0.8, 0.1)),
            ("right", "a", (0.9, 0.05, 0.05)),
            ("less right", "a", (0.6, 0.2, 0.2)),
            ("other", "b", (0.1, 0.6, 0.3)),
        ]
    )
    shown = examples.confused(table, [("a", "b", 2)], ["a", "b", "c"], NAMES)
    assert shown["filename"].tolist() == ["surer", "right", "other"]
    assert shown["title"].tolist() == [
        "Ant Bird\ntaken for Bee Bird (80%)",
        "Ant Bird\nrecognised (90%)",
        "Bee Bird\nrecognised (60%)",
    ]


@pytest.mark.parametrize("pairs", [[], [("a", "c", 1)]])
def test_confused_pairs_without_chunks(pairs):
    table = predictions([("other", "b", (0.1, 0.6, 0.3))])
    assert examples.confused(table, pairs, ["a", "b", "c"], NAMES).empty
