"""The image on the device against librosa, and the augmentation as a whole; under any backend."""

import keras
import librosa
import numpy as np
import pytest

from birdlib import config as configs
from birdlib import draws, layers
from tests.conftest import RATE_HZ, noise, tone

CONFIG = configs.load("paper")
PER_DB = 255 / 80  # grey levels a decibel


def chirp(level=0.5):
    """A sweep from 200 to 14,000 Hz in 5 s."""
    time_s = np.arange(5 * RATE_HZ) / RATE_HZ
    return (level * np.sin(2 * np.pi * (200 * time_s + (14_000 - 200) / 10 * time_s**2))).astype(np.float32)


def burst():
    """Half silence, half noise: frames of digital silence beside loud ones."""
    return np.concatenate([np.zeros(80_000, np.float32), noise(2.5, 3, 0.2)])


SOUNDS = {
    "noise": noise(5, 1, 0.1),
    "tone": tone(5, 3000),
    "chirp": chirp(),
    "quiet": noise(5, 2, 0.001),
    "quiet tone": tone(5, 1234, 0.002),
    "burst": burst(),
}


def int16(samples):
    return np.round(samples * 32767).astype(np.int16)


def librosa_image(samples, config=CONFIG):
    """The definition of the image in librosa's words: float64 (n_mels, frames), 0-255."""
    settings = config.spectrogram
    power = librosa.feature.melspectrogram(
        y=samples.astype(np.float64) / 32768,
        sr=config.audio.sample_rate_hz,
        n_fft=settings.n_fft,
        hop_length=settings.hop,
        n_mels=settings.n_mels,
        fmin=settings.fmin_hz,
        fmax=settings.fmax_hz,
        center=True,
        pad_mode="reflect",
        power=2.0,
    )[:, : len(samples) // settings.hop]
    # amin: librosa's default of 1e-10 would cut a quiet chunk off before its top_db does.
    db = librosa.power_to_db(power, ref=np.max, top_db=80, amin=1e-30)
    return (db + 80) * PER_DB


def images(chunks, config=CONFIG):
    return keras.ops.convert_to_numpy(layers.LogMelImage(config)(np.stack(chunks)))


@pytest.mark.parametrize("name", SOUNDS)
def test_image_is_within_a_tenth_of_a_db_of_librosa(name):
    samples = int16(SOUNDS[name])
    found = images([samples])[0]
    assert found.shape == (128, 320, 3)
    expected = librosa_image(samples)
    assert np.ptp(expected) > 50  # there is something to be right about
    np.testing.assert_allclose(found[..., 0], expected, rtol=0, atol=0.1 * PER_DB)


def test_image_of_other_settings_is_that_of_librosa():
    settings = {"n_fft": 1024, "hop": 320, "n_mels": 64, "fmin_hz": 500, "fmax_hz": 12_000}
    config = configs.load("paper", {f"spectrogram.{key}": value for key, value in settings.items()})
    samples = int16(SOUNDS["chirp"])
    found = images([samples], config)[0]
    assert found.shape == (64, 500, 3)
    np.testing.assert_allclose(found[..., 0], librosa_image(samples, config), rtol=0, atol=0.1 * PER_DB)


def test_image_has_low_bands_first_and_three_equal_channels():
    low, high = images([int16(tone(5, 200)), int16(tone(5, 10_000))])
    assert low[:, 160, 0].argmax() < 10
    assert high[:, 160, 0].argmax() > 100
    for image in (low, high):
        np.testing.assert_array_equal(image[..., 0], image[..., 1])
        np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_image_spans_0_to_255():
    found = images([int16(SOUNDS["burst"])])
    assert found.max() == pytest.approx(255, abs=0.01)
    assert found.min() == pytest.approx(0, abs=0.01)


def test_image_is_the_same_alone_and_in_any_batch():
    chunks = [int16(SOUNDS[name]) for name in ("quiet", "noise", "tone", "quiet tone", "chirp")]
    together = images(chunks)
    for chunk, image in zip(chunks, together, strict=True):
        np.testing.assert_allclose(images([chunk])[0], image, rtol=0, atol=0.01 * PER_DB)
    np.testing.assert_allclose(images(chunks[::-1])[::-1], together, rtol=0, atol=0.01 * PER_DB)


def test_silence_is_all_0():
    silent, loud = images([np.zeros(160_000, np.int16), int16(SOUNDS["noise"])])
    assert (silent == 0).all()
    assert loud.max() > 250


def test_loudness_does_not_show():
    # A tenth of the amplitude, before the rounding to int16: the same image, but for that rounding.
    loud, quiet = images([int16(0.5 * chirp()), int16(0.05 * chirp())])
    bright = loud > 60 * PER_DB
    np.testing.assert_allclose(loud[bright], quiet[bright], rtol=0, atol=0.1 * PER_DB)


@pytest.fixture
def half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("half_precision")
@pytest.mark.parametrize("name", ["quiet", "noise"])
def test_image_is_float32_under_mixed_precision(name):
    samples = int16(SOUNDS[name])
    audio = keras.Input((160_000,), dtype="int16")
    model = keras.Model(audio, layers.LogMelImage(CONFIG)(audio))
    assert keras.backend.standardize_dtype(model.output.dtype) == "float32"
    found = model.predict_on_batch(samples[None])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, ..., 0], librosa_image(samples), rtol=0, atol=0.1 * PER_DB)


@pytest.mark.parametrize(
    ("overrides", "shape"),
    [
        ({}, (128, 320, 3)),
        ({"chunks.length_s": 1, "chunks.overlap_s": 0.2}, (128, 64, 3)),
        ({"spectrogram.hop": 512, "spectrogram.n_mels": 64}, (64, 312, 3)),  # 160,000 / 512 = 312.5
    ],
)
def test_image_has_the_shape_that_is_computed(overrides, shape):
    config = configs.load("paper", overrides)
    layer = layers.LogMelImage(config)
    assert layer.compute_output_shape((7, config.chunk_samples)) == (7, *shape)
    assert config.image_shape == shape
    audio = keras.Input((config.chunk_samples,), dtype="int16")
    assert layers.LogMelImage(config)(audio).shape == (None, *shape)
    assert tuple(layer(np.zeros((2, config.chunk_samples), np.int16)).shape) == (2, *shape)


def test_image_layer_has_nothing_to_learn():
    layer = layers.LogMelImage(CONFIG)
    layer(np.zeros((1, 160_000), np.int16))
    assert layer.trainable_weights == []


def test_image_is_in_a_compiled_model_what_it_is_alone():
    chunks = [int16(SOUNDS[name]) for name in ("chirp", "quiet")]
    audio = keras.Input((160_000,), dtype="int16")
    model = keras.Model(audio, layers.LogMelImage(CONFIG)(audio))
    found = model.predict(np.stack(chunks), batch_size=2, verbose=0)
    for chunk, image in zip(chunks, found, strict=True):
        np.testing.assert_allclose(image[..., 0], librosa_image(chunk), rtol=0, atol=0.1 * PER_DB)


# --- the augmentation as a whole -----------------------------------------------------------------------------------

POOL = np.stack([int16(noise(5, seed, 0.1)) for seed in (7, 8)])
EVERYTHING = {
    "time_shift": {"probability": 0.5},
    "background": {"probability": 0.5, "dir": "anywhere"},
    "mixup": {"probability": 0.5},
}
BATCH = np.stack([int16(SOUNDS[name]) for name in ("noise", "chirp", "quiet", "burst", "tone", "quiet tone")])


def everything(**augmentation):
    return configs.load("paper", {"augmentation": EVERYTHING | augmentation})


def chance(rows=6, config=CONFIG, seed=0):
    """Numbers of a batch in which nothing is mixed."""
    numbers = np.random.default_rng(seed).random((rows, draws.count(config)), np.float32)
    numbers[:, draws.places(config)["mixup"]] = 0
    return numbers


def augmented(audio, numbers, config=CONFIG, training=True):
    layer = layers.Images(config, POOL)
    return keras.ops.convert_to_numpy(layer(audio, numbers, training=training))


def close(found, expected):
    """The same but for rounding, which noise near the floor of an image makes most of."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05 * PER_DB)


def test_at_inference_the_images_are_those_of_the_image_layer_bit_for_bit():
    for config in (CONFIG, everything()):
        expected = images(BATCH, config)
        np.testing.assert_array_equal(augmented(BATCH, chance(), config, training=False), expected)
        np.testing.assert_array_equal(augmented(BATCH, chance(), config, training=None), expected)


@pytest.mark.parametrize("overrides", [{"strength": 0}, {name: {"probability": 0} for name in draws.numbers(CONFIG)}])
def test_no_strength_or_no_probability_changes_nothing(overrides):
    config = everything(**overrides)
    numbers = chance()
    numbers[:, draws.places(CONFIG)["mixup"]] = 0.5
    np.testing.assert_array_equal(augmented(BATCH, numbers, config), images(BATCH))


def test_a_sample_for_which_nothing_is_drawn_is_as_it_was():
    numbers = chance()
    for where in draws.places(CONFIG).values():
        numbers[:, where.start] = 1.0  # under no probability
    numbers[:, draws.places(CONFIG)["mixup"]] = 0
    close(augmented(BATCH, numbers, everything()), images(BATCH))


@pytest.mark.parametrize("where", ["host", "off"])
def test_elsewhere_than_on_the_device_only_the_image_is_cut(where):
    config = configs.load("paper", {"augmentation.where": where, "augmentation.cut_out.probability": 1})
    found = augmented(BATCH, chance(), config)
    cut = found == 0
    assert 0.01 < cut.mean() < 0.5
    np.testing.assert_array_equal(found[~cut], images(BATCH)[~cut])


def test_training_images_are_images():
    found = augmented(BATCH, chance(), everything())
    assert found.shape == (6, 128, 320, 3)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert found.min() >= 0
    np.testing.assert_allclose(found.max(axis=(1, 2, 3)), 255, atol=0.01)
    np.testing.assert_array_equal(found[..., 0], found[..., 2])
    assert (np.abs(found - images(BATCH)).mean(axis=(1, 2, 3)) > 1).sum() >= 5


def test_silence_stays_silence():
    for seed in range(3):
        assert (augmented(np.zeros_like(BATCH), chance(seed=seed), everything()) == 0).all()


def test_a_sample_is_the_same_alone_and_in_any_batch():
    together = augmented(BATCH, chance(), everything())
    close(augmented(BATCH[::-1], chance()[::-1], everything())[::-1], together)
    for row in range(len(BATCH)):
        close(augmented(BATCH[row : row + 1], chance()[row : row + 1], everything())[0], together[row])


def test_the_same_numbers_give_the_same_images_and_others_others():
    same = np.repeat(BATCH[:1], 12, axis=0)
    found = augmented(same, chance(12), everything())
    np.testing.assert_array_equal(augmented(same, chance(12), everything()), found)
    assert len(np.unique(found, axis=0)) == 12
    other = augmented(same, chance(12, seed=1), everything())
    assert (np.abs(found - other).mean(axis=(1, 2, 3)) > 1).all()


@pytest.mark.usefixtures("half_precision")
def test_augmented_images_are_the_same_under_mixed_precision():
    under = augmented(BATCH, chance(), everything())
    assert under.dtype == np.float32
    keras.config.set_dtype_policy("float32")
    close(under, augmented(BATCH, chance(), everything()))


def compiled(config, together):
    """The images as a model trained in one compiled step; `fit` would mix them with its own loss, so it is asked."""
    audio = keras.Input((config.chunk_samples,), dtype="int16", name="audio")
    numbers = keras.Input((draws.count(config),), dtype="float32", name="chance")
    model = keras.Model({"audio": audio, "chance": numbers}, layers.Images(config, POOL, together)(audio, numbers))
    model.compile(jit_compile=keras.config.backend() == "jax", loss="mse")
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
@pytest.mark.parametrize("together", [None, 4])  # four at a time, and two that are left over
def test_compiled_the_images_are_those_of_one_call(together):
    config, numbers = everything(), chance()
    where = draws.places(config)["mixup"]
    numbers[:2, where] = [[1, 0.3], [3, 0.5]]
    inputs = {"audio": BATCH, "chance": numbers}
    model = compiled(config, together)
    assert model.output.shape == (None, 128, 320, 3)
    assert keras.backend.standardize_dtype(model.output.dtype) == "float32"
    expected = augmented(BATCH, numbers, config)
    assert float(np.mean(model.train_on_batch(inputs, expected))) < (0.02 * PER_DB) ** 2
    assert float(np.mean(model.train_on_batch(inputs, images(BATCH)))) > 1
    model.reset_metrics()
    # evaluate runs as at inference.
    assert float(np.mean(model.test_on_batch(inputs, images(BATCH)))) < (0.02 * PER_DB) ** 2
    # Another size of batch, as the last one of an epoch has.
    model.reset_metrics()
    small = {"audio": BATCH[4:], "chance": numbers[4:]}
    assert float(np.mean(model.train_on_batch(small, expected[4:]))) < (0.02 * PER_DB) ** 2


def test_nothing_of_the_augmentation_is_trained():
    layer = layers.Images(everything(), POOL)
    layer(BATCH, chance(), training=True)
    assert layer.trainable_weights == []


# --- previews --------------------------------------------------------------------------------------------------------


def test_a_batch_is_shown_as_the_network_gets_it():
    never = np.ones((2, draws.count(CONFIG)), np.float32)  # 1 is not under any probability
    audio = np.stack([int16(SOUNDS["tone"]), int16(SOUNDS["chirp"])])
    shown = layers.as_trained({"audio": audio, "chance": never}, CONFIG)
    assert shown.shape == (2, 128, 320, 3)
    np.testing.assert_allclose(shown[1, ..., 0], librosa_image(audio[1]), atol=0.1 * PER_DB)
    always = never.copy()
    always[:, draws.places(CONFIG)["cut_out"]] = [0, 1, 0, 1, 0, 1, 1, 1, 1]
    cut_out = layers.as_trained({"audio": audio, "chance": always}, CONFIG)
    assert (cut_out[:, :38, :96] == 0).all()  # 0.3 of 128 bands and of 320 frames, from the first on
    np.testing.assert_array_equal(cut_out[:, 45:80, 100:200], shown[:, 45:80, 100:200])
