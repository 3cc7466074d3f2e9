"""Which chunk when, beyond what `test_batches` counts: against the rule carried out by hand, turn by turn."""

import numpy as np
import pandas as pd
import pytest

from birdlib import epochs


def chunk_table(classes=9, recordings=40, seed=0):
    """Classes and recordings of all sizes."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"{label}/XC{number}.ogg", 4.0 * chunk, f"species{label}")
        for label in range(classes)
        for number in range(rng.integers(1, recordings))
        for chunk in range(int(rng.lognormal(1.5, 1)) + 1)
    ]
    return pd.DataFrame(rows, columns=["filename", "start_s", "primary_label"])


TABLE = chunk_table()
LABELS = sorted(TABLE["primary_label"].unique())


def test_every_round_of_every_class_by_hand():
    plan = epochs.BalancedPlan(TABLE, LABELS, 24, 0)
    drawn = [TABLE.iloc[plan._rows[plan._chosen(epoch)]] for epoch in range(12)]  # in the order of turns
    for label in LABELS:
        turns = pd.concat([rows[rows["primary_label"] == label] for rows in drawn], ignore_index=True)
        chunks_of = TABLE[TABLE["primary_label"] == label].groupby("filename")["start_s"].apply(set)
        names = turns["filename"].to_numpy()
        assert len(names) == 12 * 24
        for first in range(0, len(names) - len(chunks_of) + 1, len(chunks_of)):
            assert set(names[first : first + len(chunks_of)]) == set(chunks_of.index)
        for name, mine in turns.groupby("filename"):
            starts, count = mine["start_s"].to_numpy(), len(chunks_of[name])
            for first in range(0, len(starts) - count + 1, count):
                assert set(starts[first : first + count]) == chunks_of[name]


def test_orders_differ_from_round_to_round_and_between_recordings():
    table = pd.DataFrame({"filename": np.repeat([f"r{n}" for n in range(20)], 20), "primary_label": "a"})
    plan = epochs.BalancedPlan(table, ["a"], 400, 0)
    chosen = plan._rows[plan._chosen(0)]
    recordings, places = chosen.reshape(20, 20) // 20, chosen % 20
    assert len(np.unique(recordings, axis=0)) == 20
    orders = [tuple(places[chosen // 20 == recording]) for recording in range(20)]
    assert len(set(orders)) == 20
    # First places are spread: of 20 orders drawn evenly, about 13 different ones begin.
    assert 8 <= len({order[0] for order in orders}) <= 18


def test_the_order_of_the_rows_does_not_matter():
    shuffled = TABLE.sample(frac=1, random_state=0).sort_values("start_s", kind="stable")
    one, other = (epochs.BalancedPlan(table, LABELS, 24, 0) for table in (TABLE, shuffled))
    for epoch in range(3):
        keys = [
            table.iloc[plan.epoch(epoch)][["filename", "start_s"]] for plan, table in ((one, TABLE), (other, shuffled))
        ]
        assert sorted(keys[0].itertuples(index=False)) == sorted(keys[1].itertuples(index=False))


def test_chunks_of_no_class_in_question_are_left_out():
    plan = epochs.BalancedPlan(TABLE, LABELS[2:4], 24, 0)
    assert set(TABLE.iloc[plan.epoch(0)]["primary_label"]) == set(LABELS[2:4])


def test_a_recording_under_two_labels_is_one_of_each():
    table = pd.DataFrame({"filename": ["a", "a", "b", "c"], "primary_label": ["x", "y", "x", "y"]})
    plan = epochs.BalancedPlan(table, ["x", "y"], 2, 0)
    for epoch in range(5):
        assert sorted(plan.epoch(epoch)) == [0, 1, 2, 3]


def test_far_epochs():
    plan = epochs.BalancedPlan(TABLE, LABELS, 24, 0)
    assert sorted(plan.epoch(10**6)) != sorted(plan.epoch(10**6 + 1))


def test_no_chunks_of_a_label():
    with pytest.raises(ValueError, match="no chunk to train on for z"):
        epochs.BalancedPlan(TABLE, ["z"], 2, 0)
