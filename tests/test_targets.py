import numpy as np
import pandas as pd
import pytest

from birdlib import targets
from birdlib.settings import Loss

LABELS = ["a", "b", "c", "d"]
CHUNKS = pd.DataFrame(
    {
        "primary_label": ["a", "b", "b", "d"],
        "secondary_labels": [["c", "b"], [], ["b", "unknown"], np.array(["a"], object)],  # parquet gives arrays
    }
)
ROWS = np.array([3, 0, 0, 1, 2])


def of(rows=ROWS, **settings):
    return targets.Targets(CHUNKS, LABELS, Loss(**settings)).of(rows)


def test_by_default_targets_are_one_hot_and_need_no_secondary_labels():
    found = targets.Targets(CHUNKS[["primary_label"]], LABELS, Loss()).of(ROWS)
    np.testing.assert_array_equal(found, [[0, 0, 0, 1], [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]])
    assert found.dtype == np.float32


def test_secondary_labels_get_their_weight_where_each_class_is_judged_by_itself():
    found = of(kind="binary_crossentropy", secondary_labels="target", secondary_weight=0.5)
    expected = [[0.5, 0, 0, 1], [1, 0.5, 0.5, 0], [1, 0.5, 0.5, 0], [0, 1, 0, 0], [0, 1, 0, 0]]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32


def test_under_a_softmax_the_target_sums_to_1():
    found = of(secondary_labels="target", secondary_weight=0.5)
    np.testing.assert_allclose(found[1], [0.5, 0.25, 0.25, 0], atol=1e-7)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-7)


def test_masked_secondary_labels_are_marked():
    these = targets.Targets(CHUNKS, LABELS, Loss(secondary_labels="masked"))
    found = these.masked(these.of(ROWS), ROWS)
    assert (found[0] == [-1, 0, 0, 1]).all()
    assert (found[1] == [1, -1, -1, 0]).all()
    assert (found[3:] == [0, 1, 0, 0]).all()


def test_in_a_mixture_the_background_of_both_is_masked_but_neithers_species():
    these = targets.Targets(CHUNKS, LABELS, Loss(secondary_labels="masked"))
    rows = np.array([0, 1, 3])
    mixed = np.array([[0.7, 0.3, 0, 0], [0, 1, 0, 0], [0.4, 0, 0, 0.6]], np.float32)  # 0 with b's chunk, 2 with a's
    found = these.masked(mixed, rows, partners=np.array([1, 1, 0]))
    np.testing.assert_allclose(found[0], [0.7, 0.3, -1, 0])  # b is behind it, and is what it is mixed with
    np.testing.assert_allclose(found[1], [0, 1, 0, 0])
    np.testing.assert_allclose(found[2], [0.4, -1, -1, 0.6])


@pytest.mark.parametrize("choice", ["ignored", "target"])
def test_otherwise_nothing_is_masked(choice):
    these = targets.Targets(CHUNKS, LABELS, Loss(secondary_labels=choice))
    assert (these.masked(these.of(ROWS), ROWS) >= 0).all()


def test_a_table_without_any_secondary_label_and_a_batch_of_nothing():
    none = CHUNKS.assign(secondary_labels=[[] for _ in range(4)])
    these = targets.Targets(none, LABELS, Loss(secondary_labels="target"))
    np.testing.assert_array_equal(these.of(ROWS), of())
    assert these.of(np.arange(0)).shape == (0, 4)
