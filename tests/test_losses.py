"""Against Keras' own losses where nothing is masked, and against numbers worked out by hand where something is."""

import keras
import numpy as np
import pytest
from scipy.special import softmax

from birdlib import losses
from birdlib.settings import Loss

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def value(settings, targets, probabilities):
    found = losses.of(settings)(np.asarray(targets, np.float32), np.asarray(probabilities, np.float32))
    return float(keras.ops.convert_to_numpy(found))


def drawn(samples=20, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    targets = np.eye(classes)[rng.integers(classes, size=samples)]
    return targets, softmax(rng.normal(size=(samples, classes)), axis=1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_categorical_crossentropy_is_keras(smoothing):
    targets, probabilities = drawn()
    expected = -np.sum((targets * (1 - smoothing) + smoothing / 6) * np.log(probabilities), axis=1).mean()
    assert value(Loss(label_smoothing=smoothing), targets, probabilities) == pytest.approx(expected, rel=1e-5)
    # The one that can mask gives the same where nothing is.
    settings = Loss(label_smoothing=smoothing, secondary_labels="masked")
    assert value(settings, targets, probabilities) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_binary_crossentropy_and_focal_are_keras_summed_over_the_classes(smoothing, soft):
    targets, probabilities = drawn()
    targets = 0.7 * targets + 0.3 * np.roll(targets, 1, axis=0) if soft else targets
    for kind, theirs in (
        ("binary_crossentropy", keras.losses.BinaryCrossentropy(label_smoothing=smoothing)),
        ("focal", keras.losses.BinaryFocalCrossentropy(gamma=1.5, label_smoothing=smoothing)),
    ):
        expected = 6 * float(keras.ops.convert_to_numpy(theirs(targets, probabilities)))
        settings = Loss(kind=kind, label_smoothing=smoothing, focal_gamma=1.5)
        assert value(settings, targets, probabilities) == pytest.approx(expected, rel=1e-5)


def test_a_masked_class_is_as_if_the_softmax_did_not_have_it():
    logits = np.array([[1.0, 3.0, 0.5, -1.0]])
    masked = value(Loss(secondary_labels="masked"), [[1, -1, 0, 0]], softmax(logits, axis=1))
    assert masked == pytest.approx(-np.log(softmax(logits[:, [0, 2, 3]], axis=1)[0, 0]), rel=1e-5)
    smoothed = Loss(secondary_labels="masked", label_smoothing=0.3)
    among = np.log(softmax(logits[:, [0, 2, 3]], axis=1)[0])
    expected = -(0.8 * among[0] + 0.1 * among[1] + 0.1 * among[2])
    assert value(smoothed, [[1, -1, 0, 0]], softmax(logits, axis=1)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["binary_crossentropy", "focal"])
def test_a_masked_class_adds_nothing_to_a_sum_over_classes(kind):
    settings = Loss(kind=kind, secondary_labels="masked")
    with_it = value(settings, [[1, -1, 0]], [[0.6, 0.99, 0.2]])
    assert with_it == pytest.approx(value(settings, [[1, 0]], [[0.6, 0.2]]), rel=1e-5)


def test_focal_by_hand():
    # 0.9 of right at gamma 2: 0.1 ** 2 of its loss is left.
    found = value(Loss(kind="focal", focal_gamma=2), [[1, 0]], [[0.9, 0.1]])
    assert found == pytest.approx(2 * 0.1**2 * -np.log(0.9), rel=1e-4)


@pytest.mark.parametrize("kind", ["categorical_crossentropy", "binary_crossentropy", "focal"])
@pytest.mark.parametrize("choice", ["ignored", "masked"])
def test_certainty_right_or_wrong_is_a_number(kind, choice):
    settings = Loss(kind=kind, secondary_labels=choice)
    assert value(settings, [[1, 0, 0]], [[1, 0, 0]]) == pytest.approx(0, abs=1e-4)
    assert 10 < value(settings, [[1, 0, 0]], [[0, 1, 0]]) < 40


def test_no_gradient_reaches_a_masked_class_that_is_judged_by_itself():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="sigmoid")])
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]
    model.compile("sgd", losses.of(Loss(kind="binary_crossentropy", secondary_labels="masked")))
    model.fit(np.ones((4, 2)), np.tile([1.0, -1.0, 0.0], (4, 1)), verbose=0)
    moved = np.abs(keras.ops.convert_to_numpy(model.weights[0]) - before[0]).sum(axis=0)
    assert moved[1] == 0
    assert (moved[[0, 2]] > 0).all()
