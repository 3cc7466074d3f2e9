"""Phase I on cached features, against the whole classifier; under any backend."""

import keras
import numpy as np
import pytest

from birdlib import config as configs
from birdlib import features, models

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SMALL = {"chunks.length_s": 1, "chunks.overlap_s": 0.2, "spectrogram.n_mels": 32, "model.hidden": "8"}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return models.build(configs.load("paper", {**SMALL, "model.backbone": "mobilenet", "model.weights": None}), 5)


def images(count, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, 32, 64, 3)).astype(np.float32)


def test_a_body_and_a_head_make_the_classifier(model):
    whole = model.predict_on_batch(images(4))
    inside = features.body(model).predict_on_batch(images(4))
    assert inside.shape == (4, 1024)
    np.testing.assert_allclose(features.head(model).predict_on_batch(inside), whole, atol=1e-5)


def test_training_the_head_trains_the_classifier_and_no_backbone(model):
    head, before = features.head(model), model.predict_on_batch(images(4))
    backbone = [np.array(weight) for weight in models.backbone(model).get_weights()]
    head.compile("adam", "categorical_crossentropy")
    head.train_on_batch(np.random.default_rng(1).normal(size=(8, 1024)).astype("float32"), np.eye(5)[[0] * 8])
    for one, other in zip(backbone, models.backbone(model).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(model.predict_on_batch(images(4)) - before).max() > 1e-4


def views(count=3, samples=10):
    rng = np.random.default_rng(2)
    return [(rng.normal(size=(samples, 4)), np.eye(samples)) for _ in range(count)]


def test_an_epoch_shows_every_sample_of_its_view_once():
    data = features.CachedEpochs(views(), batch_size=4, seed=0)
    assert data.num_batches == 3
    for epoch in range(7):
        parts = [data.batch(epoch, index) for index in range(3)]
        shown, targets = (np.concatenate(part) for part in zip(*parts, strict=True))
        wanted = data.views[epoch % 3][0]
        order = targets.argmax(axis=1)  # each sample's target is its own number
        assert sorted(order) == list(range(10))
        np.testing.assert_array_equal(shown, wanted[order])


def test_epochs_are_shuffled_anew_but_the_same_each_time():
    data, again = (features.CachedEpochs(views(1), batch_size=10, seed=0) for _ in range(2))
    first, second = (data.batch(epoch, 0)[1].argmax(axis=1).tolist() for epoch in (0, 1))
    assert first != second
    assert again.batch(1, 0)[1].argmax(axis=1).tolist() == second
    plain = features.CachedEpochs(views(1), batch_size=10, seed=None)
    assert plain.batch(5, 0)[1].argmax(axis=1).tolist() == list(range(10))


class Batches:
    """Two batches an epoch, of the numbers 1 and 2 in epoch 0, 3 and 4 in epoch 1."""

    num_batches = 2

    def batch(self, epoch, index):
        number = 1 + index + 2 * epoch
        return {"audio": np.full((3, 2), number, np.float32)}, np.full((3, 1), number, np.float32)


class Noisy(keras.layers.Layer):
    """Adds 100 in training."""

    def call(self, audio, training=None):
        return audio + 100.0 if training else audio


@pytest.mark.parametrize(("training", "added"), [(True, 100), (False, 0)])
def test_features_are_of_the_epochs_asked_for_augmented_or_not(training, added):
    inputs = {"audio": keras.Input((2,), dtype="float32", name="audio")}
    whole = keras.Model(inputs, Noisy()(inputs["audio"]))
    found = features.cached(features.extractor(whole, training), Batches(), range(1, 3), "test")
    assert len(found) == 2
    (shown, targets), (later, _) = found
    np.testing.assert_array_equal(shown[:, 0], [103 - 100 + added] * 3 + [104 - 100 + added] * 3)
    np.testing.assert_array_equal(targets[:, 0], [3] * 3 + [4] * 3)
    np.testing.assert_array_equal(later[:, 0], [5 + added] * 3 + [6 + added] * 3)
