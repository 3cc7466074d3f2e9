"""Probabilities from audio: order, batches, padding, averages; no model that has learnt anything is needed."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from birdlib import classifier, spectrogram
from birdlib import config as configs
from tests.conftest import noise, tone

CONFIG = configs.load(
    "sample",
    {"chunks.length_s": 1, "chunks.overlap_s": 0.2, "spectrogram.n_mels": 32, "compute.predict_batch_size": 4},
)


def int16(samples):
    return np.round(samples * 32767).astype(np.int16)


def chunks(count):
    """Tones that rise from chunk to chunk over a little noise, int16."""
    return [int16(tone(1, 500 * 1.3**at, 0.3) + noise(1, at, 0.01)) for at in range(count)]


class Listener:
    """Says, as the probability of class i, how bright band i of 32 is; writes down the batches it gets."""

    def __init__(self):
        self.batches = []

    def __call__(self, images):
        self.batches.append(images.shape)
        return images[..., 0].mean(axis=2) / 255


def expected(chunk):
    return spectrogram.image(chunk, CONFIG)[..., 0].mean(axis=1) / 255


def test_probabilities_are_of_the_images_of_the_chunks():
    found = classifier.Classifier(Listener(), CONFIG).probabilities(chunks(3))
    assert (found.dtype, found.shape) == (np.float32, (3, 32))
    np.testing.assert_allclose(found, [expected(chunk) for chunk in chunks(3)], atol=1e-6)
    assert len(set(found.argmax(axis=1))) == 3


def test_float_audio_is_the_same_as_int16():
    samples = chunks(2)
    as_float = [chunk.astype(np.float32) / 32768 for chunk in samples]
    one = classifier.Classifier(Listener(), CONFIG)
    np.testing.assert_allclose(one.probabilities(as_float), one.probabilities(samples), atol=1e-6)


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (4, [4]), (9, [4, 4, 1]), (10, [4, 4, 2])])
def test_over_reads_each_chunk_once_and_keeps_the_order(count, sizes):
    listener, samples, read = Listener(), chunks(count), []

    def reading(index):
        read.append(index)
        return samples[index]

    found = classifier.Classifier(listener, CONFIG).over(count, reading)
    np.testing.assert_allclose(found, [expected(chunk) for chunk in samples], atol=1e-6)
    assert read == list(range(count))
    assert listener.batches == [(size, 32, 64, 3) for size in sizes]


def test_over_nothing_is_nothing():
    assert len(classifier.Classifier(Listener(), CONFIG).over(0, lambda index: None)) == 0


def test_over_reads_at_most_a_batch_ahead():
    read, ahead = [], []

    def predict(images):
        ahead.append(len(read))
        return Listener()(images)

    samples = chunks(20)
    classifier.Classifier(predict, CONFIG).over(20, lambda index: (read.append(index), samples[index])[1])
    # When batch k is predicted, at most the batches to k + 1 have been read.
    assert all(done <= 4 * (place + 2) for place, done in enumerate(ahead))


def test_an_error_in_reading_comes_out_and_leaves_no_thread():
    def reading(index):
        if index == 5:
            raise OSError("gone")
        return chunks(1)[0]

    before = threading.active_count()
    with pytest.raises(OSError, match="gone"):
        classifier.Classifier(Listener(), CONFIG).over(9, reading)
    assert threading.active_count() <= before + 1  # tqdm's own watcher may have begun


def test_average_is_the_mean_and_the_images_are_made_once():
    one, other = Listener(), lambda images: np.zeros((len(images), 32), np.float32)
    mean = classifier.average([classifier.Classifier(each, CONFIG) for each in (one, other)])
    found = mean.over(6, chunks(6).__getitem__)
    np.testing.assert_allclose(found, [expected(chunk) / 2 for chunk in chunks(6)], atol=1e-6)
    assert one.batches == [(4, 32, 64, 3), (2, 32, 64, 3)]


def test_average_of_one_is_it():
    one = classifier.Classifier(Listener(), CONFIG)
    np.testing.assert_array_equal(classifier.average([one]).probabilities(chunks(2)), one.probabilities(chunks(2)))


@pytest.fixture(scope="module")
def model():
    """A Keras model that gives class i the mean of channel i, scaled, before a softmax worked out by hand below."""
    import keras

    images = keras.Input((32, 64, 3))
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.AveragePooling2D((16, 64))(x)  # two halves of the bands: low, high
    x = keras.layers.Flatten()(x)
    return keras.Model(images, keras.layers.Activation("softmax")(x))


def softmax_of_halves(chunk):
    image = spectrogram.image(chunk, CONFIG) / 255
    means = np.concatenate([image[:16].mean(axis=(0, 1)), image[16:].mean(axis=(0, 1))])
    return np.exp(means) / np.exp(means).sum()


@pytest.mark.parametrize("count", [1, 4, 7])
def test_keras_model_gives_the_same_in_batches_of_any_size(model, count):
    samples = chunks(count)
    wanted = [softmax_of_halves(chunk) for chunk in samples]
    one = classifier.of_keras(model, CONFIG)
    np.testing.assert_allclose(one.over(count, samples.__getitem__), wanted, atol=1e-5)
    np.testing.assert_allclose(one.probabilities(samples), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [2]), (2, [2]), (3, [8]), (8, [8]), (9, [8, 2]), (21, [8, 8, 8]), (0, [])]
)
def test_keras_model_is_compiled_for_two_shapes(model, monkeypatch, count, sizes):
    batches, predict = [], model.predict_on_batch
    monkeypatch.setattr(model, "predict_on_batch", lambda images: (batches.append(len(images)), predict(images))[1])
    config = configs.override(CONFIG, {"compute.predict_batch_size": 8})
    found = classifier.of_keras(model, config).over(count, chunks(count).__getitem__)
    assert (batches, len(found)) == (sizes, count)


def test_a_saved_model_is_loaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    found = classifier.load(tmp_path / "model.keras", CONFIG).probabilities(chunks(2))
    np.testing.assert_allclose(found, [softmax_of_halves(chunk) for chunk in chunks(2)], atol=1e-5)


def test_a_missing_model_is_one_clear_error(tmp_path):
    from birdlib.models import ModelError

    with pytest.raises(ModelError, match=r"none\.keras is not a saved classifier"):
        classifier.load(tmp_path / "none.keras", CONFIG)


def test_predicting_with_a_function_loads_neither_keras_nor_a_backend():
    code = """
import sys
import numpy as np
from birdlib import classifier, config, evaluation
one = classifier.Classifier(lambda images: np.ones((len(images), 2)), config.load("sample"))
one.probabilities([np.zeros(160_000, np.int16)])
print([name for name in ("keras", "tensorflow", "jax", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
