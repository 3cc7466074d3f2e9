import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from birdlib import evaluation, intervals

# Six samples of three classes: predicted 0, 1, 1, 1, 2, 0.
TRUTH = np.array([0, 0, 1, 1, 2, 2])
PROBABILITIES = np.array(
    [
        [0.7, 0.2, 0.1],
        [0.3, 0.6, 0.1],
        [0.1, 0.8, 0.1],
        [0.2, 0.5, 0.3],
        [0.1, 0.2, 0.7],
        [0.5, 0.1, 0.4],
    ]
)


def drawn(samples=400, classes=7, seed=0, absent=()):
    """Random truth without the classes `absent`, and probabilities that know a little of it."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([index for index in range(classes) if index not in absent], samples)
    probabilities = rng.dirichlet(np.ones(classes), samples) + 0.3 * np.eye(classes)[truth]
    return truth, probabilities / probabilities.sum(axis=1, keepdims=True)


def test_accuracy_by_hand():
    assert evaluation.accuracy(TRUTH, PROBABILITIES) == pytest.approx(4 / 6, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_is_that_of_sklearn(seed):
    truth, probabilities = drawn(seed=seed)
    expected = metrics.accuracy_score(truth, probabilities.argmax(axis=1))
    assert evaluation.accuracy(truth, probabilities) == pytest.approx(expected, abs=1e-12)


def test_accuracy_of_nothing_does_not_exist():
    assert math.isnan(evaluation.accuracy(np.zeros(0, int), np.zeros((0, 3))))


def test_top_5_by_hand():
    # Ranks of the right class: 0, 1, 0, 0, 0, 1.
    assert evaluation.ranks(TRUTH, PROBABILITIES).tolist() == [0, 1, 0, 0, 0, 1]
    assert evaluation.top(TRUTH, PROBABILITIES, 2) == 1
    assert math.isnan(evaluation.top(np.zeros(0, int), np.zeros((0, 3)), 5))


@pytest.mark.parametrize("most", [1, 3, 5])
def test_top_is_that_of_sklearn(most):
    truth, probabilities = drawn(classes=12)
    expected = metrics.top_k_accuracy_score(truth, probabilities, k=most, labels=range(12))
    assert evaluation.top(truth, probabilities, most) == pytest.approx(expected, abs=1e-12)


def test_of_equals_the_first_is_predicted_and_top_1_is_the_accuracy():
    truth, probabilities = drawn(classes=4)
    ties = probabilities.round(1)
    assert evaluation.top(truth, ties, 1) == evaluation.accuracy(truth, ties)
    assert evaluation.ranks(np.arange(3), np.full((3, 3), 1 / 3)).tolist() == [0, 1, 2]


def test_times_chance_is_the_papers():
    # "56.82 %, 103 times chance" of 182 species
    assert round(evaluation.times_chance(0.5682, 182)) == 103
    assert evaluation.times_chance(1 / 182, 182) == pytest.approx(1, abs=1e-12)


def test_by_recording_by_hand():
    names = ["b", "a", "b", "a", "b", "c"]
    truth = np.array([1, 0, 1, 0, 1, 0])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.0, 1.0], [0.5, 0.5]])
    of, means = evaluation.by_recording(names, truth, probabilities)
    np.testing.assert_array_equal(of, [0, 1, 0])  # a, b, c
    np.testing.assert_allclose(means, [[0.6, 0.4], [0.4, 0.6], [0.5, 0.5]], atol=1e-12)
    # Of b's chunks one is wrong, of the recordings none.
    assert evaluation.accuracy(of, means) == 1


def test_by_recording_is_the_mean_that_pandas_takes():
    truth, probabilities = drawn(60)
    names = np.random.default_rng(1).permutation([f"r{index % 13}" for index in range(60)])
    _, means = evaluation.by_recording(names, truth, probabilities)
    expected = pd.DataFrame(probabilities).groupby(names).mean().sort_index()
    np.testing.assert_allclose(means, expected.to_numpy(), atol=1e-12)


def test_macro_roc_auc_by_hand():
    # Class 0: positives score 0.7, 0.3, negatives 0.1, 0.2, 0.1, 0.5: 7 of 8 pairs in order. Class 1: positives 0.8,
    # 0.5; negatives 0.2, 0.6, 0.2, 0.1: 7 of 8. Class 2: positives 0.7, 0.4; negatives 0.1, 0.1, 0.1, 0.3: 8 of 8.
    np.testing.assert_allclose(
        evaluation.ranking_by_class(TRUTH, PROBABILITIES)["roc_auc"], [7 / 8, 7 / 8, 1], atol=1e-12
    )
    assert evaluation.macro_roc_auc(TRUTH, PROBABILITIES) == pytest.approx(22 / 24, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_macro_roc_auc_is_that_of_sklearn_where_all_classes_are_present(seed):
    truth, probabilities = drawn(seed=seed)
    expected = metrics.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert evaluation.macro_roc_auc(truth, probabilities) == pytest.approx(expected, abs=1e-12)


def test_macro_roc_auc_leaves_absent_classes_out():
    truth, probabilities = drawn(absent=(2, 5))
    present = [0, 1, 3, 4, 6]
    expected = np.mean([metrics.roc_auc_score(truth == index, probabilities[:, index]) for index in present])
    assert evaluation.macro_roc_auc(truth, probabilities) == pytest.approx(expected, abs=1e-12)
    by_class = evaluation.ranking_by_class(truth, probabilities)["roc_auc"]
    assert np.flatnonzero(np.isnan(by_class)).tolist() == [2, 5]


def test_macro_roc_auc_of_one_class_does_not_exist():
    assert math.isnan(evaluation.macro_roc_auc(np.zeros(4, int), np.full((4, 3), 1 / 3)))


def test_macro_roc_auc_of_a_guess_is_a_half():
    assert evaluation.macro_roc_auc(TRUTH, np.full((6, 3), 1 / 3)) == 0.5


def test_regression_values():
    # From sklearn 1.9's own multi-class functions.
    truth, probabilities = drawn(100, 5, seed=42)
    assert evaluation.macro_roc_auc(truth, probabilities) == pytest.approx(0.9089961822863231, abs=1e-12)
    assert evaluation.accuracy(truth, probabilities) == pytest.approx(0.6, abs=1e-12)


def test_binary_by_hand():
    truth = np.array([True, False, True, False, False])
    scores = np.array([0.9, 0.8, 0.7, 0.2, 0.1])
    # Pairs in order: 3 + 2 of 6. Average precision: 1/1 at the first positive, 2/3 at the second.
    found = evaluation.binary(truth, scores, list("abcde"), 0)
    assert found.roc_auc.value == pytest.approx(5 / 6, abs=1e-12)
    assert found.average_precision.value == pytest.approx((1 + 2 / 3) / 2, abs=1e-12)
    assert (found.positives, found.samples) == (2, 5)


@pytest.mark.parametrize("truth", [np.zeros(4, bool), np.ones(4, bool), np.zeros(0, bool)])
def test_binary_without_positives_or_negatives_does_not_exist(truth):
    found = evaluation.binary(truth, np.linspace(0, 1, len(truth)), np.arange(len(truth)), 0)
    assert np.isnan([*found.roc_auc, *found.average_precision]).all()
    assert (found.positives, found.samples) == (truth.sum(), len(truth))


def test_trait_sums_the_species_that_have_it_and_leaves_out_the_unknown():
    # Class 0 has the trait, 1 has not, 2 is unknown, 3 has it.
    of_class = pd.Series([True, False, None, True], dtype="boolean")
    truth = np.array([0, 1, 2, 3, 1])
    probabilities = np.array(
        [
            [0.3, 0.1, 0.3, 0.3],  # 0.6, positive
            [0.1, 0.2, 0.6, 0.1],  # 0.2, negative
            [0.4, 0.0, 0.2, 0.4],  # left out
            [0.0, 0.5, 0.2, 0.3],  # 0.3, positive
            [0.4, 0.4, 0.1, 0.1],  # 0.5, negative
        ]
    )
    found = evaluation.trait(truth, probabilities, of_class, list("vwxyz"), 0)
    expected = metrics.roc_auc_score([1, 0, 1, 0], [0.6, 0.2, 0.3, 0.5])
    assert (found.positives, found.samples) == (2, 4)
    assert found.roc_auc.value == pytest.approx(expected, abs=1e-12) == 0.75
    precision = metrics.average_precision_score([1, 0, 1, 0], [0.6, 0.2, 0.3, 0.5])
    assert found.average_precision.value == pytest.approx(precision, abs=1e-12)


def test_under_a_sigmoid_any_of_the_species_may_be_there():
    # Worked by hand: 1 - 0.5 * 0.5, 1 - 0.9 * 0.8, 1 - 1 * 0, and never above 1 where the sum would be.
    probabilities = np.array([[0.5, 0.5], [0.1, 0.2], [0.0, 1.0], [0.9, 0.9]], np.float32)
    np.testing.assert_allclose(evaluation.of_any(probabilities, "sigmoid"), [0.75, 0.28, 1, 0.99], rtol=1e-6)
    np.testing.assert_allclose(evaluation.of_any(probabilities, "softmax"), [1, 0.3, 1, 1.8], rtol=1e-6)
    assert evaluation.of_any(np.full((1, 3), 1e-9), "sigmoid")[0] == pytest.approx(3e-9)
    # Many unlikely species outweigh a likely one in a sum, and not here.
    of_class = pd.Series([True, True, True, False], dtype="boolean")
    said = np.array([[0.95, 0, 0, 0.5], [0.4, 0.4, 0.4, 0.5]])
    scored = {
        kind: evaluation.trait(np.array([0, 3]), said, of_class, ["a", "b"], 0, kind).roc_auc.value
        for kind in ("softmax", "sigmoid")
    }
    assert scored == {"softmax": 0, "sigmoid": 1}


def test_trait_that_no_species_has_does_not_exist():
    found = evaluation.trait(TRUTH, PROBABILITIES, pd.Series([False] * 3, dtype="boolean"), range(6), 0)
    assert math.isnan(found.roc_auc.value)
    assert (found.positives, found.samples) == (0, 6)


def test_trait_of_which_nothing_is_known_has_no_samples():
    found = evaluation.trait(TRUTH, PROBABILITIES, pd.Series([None] * 3, dtype="boolean"), range(6), 0)
    assert (found.positives, found.samples) == (0, 0)
    assert math.isnan(found.roc_auc.value)


def test_confusion_by_hand():
    np.testing.assert_array_equal(evaluation.confusion(TRUTH, PROBABILITIES), [[1, 1, 0], [0, 2, 0], [1, 0, 1]])


def test_confusion_has_a_row_for_a_class_that_is_absent():
    matrix = evaluation.confusion(np.array([0, 2]), np.eye(4)[[0, 3]])
    np.testing.assert_array_equal(matrix, [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])


def test_confused_pairs_are_the_largest_off_the_diagonal():
    matrix = np.array([[50, 3, 0], [1, 60, 7], [0, 2, 70]])
    found = evaluation.confused_pairs(matrix, ["a", "b", "c"], most=3)
    assert found == [("b", "c", 7), ("a", "b", 3), ("c", "b", 2)]


def test_confused_pairs_of_a_perfect_result_are_none():
    assert evaluation.confused_pairs(np.diag([3, 4, 5]), ["a", "b", "c"]) == []


def test_per_class_by_hand():
    table = evaluation.per_class(TRUTH, PROBABILITIES, ["a", "b", "c"])
    assert table.index.tolist() == ["a", "b", "c"]
    assert table["chunks"].tolist() == [2, 2, 2]
    np.testing.assert_allclose(table["recall"], [1 / 2, 1, 1 / 2], atol=1e-12)
    np.testing.assert_allclose(table["precision"], [1 / 2, 2 / 3, 1], atol=1e-12)
    np.testing.assert_allclose(table["roc_auc"], [7 / 8, 7 / 8, 1], atol=1e-12)


def test_per_class_is_that_of_sklearn_and_leaves_absent_classes_out():
    truth, probabilities = drawn(absent=(3,))
    labels = [f"bird{index}" for index in range(7)]
    table = evaluation.per_class(truth, probabilities, labels)
    assert "bird3" not in table.index
    present = [0, 1, 2, 4, 5, 6]
    precision, recall, _, support = metrics.precision_recall_fscore_support(
        truth, probabilities.argmax(axis=1), labels=present
    )
    np.testing.assert_allclose(table["precision"], precision, atol=1e-12)
    np.testing.assert_allclose(table["recall"], recall, atol=1e-12)
    np.testing.assert_array_equal(table["chunks"], support)


def test_per_class_precision_of_a_class_never_predicted_does_not_exist():
    table = evaluation.per_class(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), ["a", "b"])
    assert math.isnan(table.loc["b", "precision"])
    assert table.loc["b", "recall"] == 0


# ---- what sums a result up


def test_mean_average_precision_is_that_of_sklearn_over_the_classes_that_are_there():
    truth, probabilities = drawn(absent=(2, 5))
    present = [0, 1, 3, 4, 6]
    expected = [metrics.average_precision_score(truth == index, probabilities[:, index]) for index in present]
    found = evaluation.mean_average_precision(truth, probabilities)
    assert found == pytest.approx(np.mean(expected), abs=1e-12)
    table = evaluation.per_class(truth, probabilities, list("abcdefg"))
    np.testing.assert_allclose(table["average_precision"], expected, atol=1e-12)


def test_the_headline_is_the_plain_metrics_with_an_interval_around_them():
    truth, probabilities = drawn(samples=200, absent=(3,))
    found = evaluation.headline(truth, probabilities, np.arange(200) // 4, seed=0, repeats=200)
    assert found["accuracy"].value == pytest.approx(evaluation.accuracy(truth, probabilities), abs=1e-12)
    assert found["top_5"].value == pytest.approx(evaluation.top(truth, probabilities, 5), abs=1e-12)
    assert found["macro_roc_auc"].value == pytest.approx(evaluation.macro_roc_auc(truth, probabilities), abs=1e-12)
    precision = evaluation.mean_average_precision(truth, probabilities)
    assert found["mean_average_precision"].value == pytest.approx(precision, abs=1e-12)
    for value, low, high in found.values():
        assert low < value < high or (np.isnan([low, high]).all() and value == 1)


def test_a_resample_has_the_metrics_of_the_samples_drawn():
    truth, probabilities = drawn(samples=30, classes=3, seed=1)
    groups = np.arange(30) // 3
    found = evaluation.headline(truth, probabilities, groups, seed=5, repeats=60)
    whole, plain = evaluation.macro_roc_auc(truth, probabilities), []
    for times in intervals.resampled(groups, 5, 60):
        again = np.repeat(np.arange(30), times)
        plain.append(evaluation.macro_roc_auc(truth[again], probabilities[again]))
    assert found["macro_roc_auc"][1:] == pytest.approx(intervals.limits(whole, np.array(plain), groups), abs=1e-12)


@pytest.mark.parametrize("name", ["macro_roc_auc", "mean_average_precision"])
def test_intervals_of_means_over_classes_cover_what_tests_of_this_size_give(name):
    def simulated(seed, recordings=36, classes=12):
        rng = np.random.default_rng(seed)
        of = np.concatenate([np.arange(classes), rng.integers(classes, size=recordings - classes)])
        heard = rng.normal(size=(recordings, classes)) + 1.5 * np.eye(classes)[of]
        return np.repeat(of, 3), np.repeat(heard, 3, axis=0) + 0.7 * rng.normal(size=(3 * recordings, classes))

    metric = getattr(evaluation, name)
    expected = np.mean([metric(*simulated(1000 + trial)) for trial in range(200)])
    covered = 0
    for trial in range(100):
        truth, scores = simulated(trial)
        _, low, high = evaluation.headline(truth, scores, np.arange(len(truth)) // 3, trial, repeats=200)[name]
        covered += low <= expected <= high
    assert 0.89 <= covered / 100 <= 0.99  # where it is 0.95, it comes out at 0.91 to 0.99


def test_the_summary_is_by_chunk_and_by_recording():
    truth, probabilities = drawn(samples=60, classes=4)
    names = [f"r{index // 3:02d}" for index in range(60)]
    truth = np.repeat(truth[::3], 3)
    found = evaluation.summary(truth, probabilities, names, names, seed=0)
    whole = evaluation.by_recording(names, truth, probabilities)
    assert found["recording_accuracy"] == pytest.approx(evaluation.accuracy(*whole), abs=1e-12)
    assert found["recording_macro_roc_auc"] == pytest.approx(evaluation.macro_roc_auc(*whole), abs=1e-12)
    assert (found["chunks"], found["recordings"], found["groups"]) == (60, 20, 20)
    assert found["times_chance"] == pytest.approx(4 * found["accuracy"])
    assert len(found["intervals"]) == 8
    assert found["classes_left_out"] == 4 - len(np.unique(truth))
    assert "intervals" not in evaluation.summary(truth, probabilities, names, names, None)


def test_the_summary_of_nothing_is_nan():
    found = evaluation.summary(np.zeros(0, int), np.zeros((0, 3)), [], [], 0)
    assert np.isnan([found["accuracy"], found["recording_mean_average_precision"], *found["intervals"]["top_5"]]).all()
    assert (found["chunks"], found["classes_left_out"]) == (0, 3)


def test_a_trait_of_one_recording_has_no_interval():
    truth, scores = np.array([True, True, False, False, False]), np.array([0.9, 0.4, 0.5, 0.2, 0.1])
    alone = evaluation.binary(truth, scores, ["a", "a", "b", "c", "d"], 0)
    assert np.isfinite(alone.roc_auc.value)
    assert np.isnan(alone.roc_auc[1:]).all()
    two = evaluation.binary(truth, scores, ["a", "b", "c", "d", "e"], 0)
    assert two.roc_auc.low < two.roc_auc.value < two.roc_auc.high


def test_parts_add_up():
    right = np.array([1, 0, 1, 1, 0], bool)
    parts = pd.Series(pd.Categorical(["x", "y", "x", None, "y"], ["y", "x", "z"]))
    table = evaluation.by_part(right, parts, list("abcde"), list("abcde"), 0)
    assert table.index.tolist() == ["y", "x"]
    assert table["chunks"].tolist() == [2, 2]
    assert table["accuracy"].tolist() == [0, 1]


def test_a_parts_interval_is_within_what_an_accuracy_can_be():
    for right, sizes in (([False, True, True, True], (40, 3, 2, 1)), ([True, False, False, False], (60, 3, 2, 1))):
        rights, groups = np.repeat(right, sizes), np.repeat(list("abcd"), sizes)
        part = evaluation.by_part(rights, pd.Series("one", index=range(len(rights))), groups, groups, 0).iloc[0]
        assert 0 <= part["low"] < part["accuracy"] < part["high"] <= 1
