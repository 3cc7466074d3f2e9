"""The image on the device against librosa, and the cut-out against boxes worked out by hand; under any backend."""

import keras
import librosa
import numpy as np
import pytest

from birdlib import config as configs
from birdlib import layers
from birdlib.settings import CutOut as CutOutSettings
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


# --- the cut-out ---------------------------------------------------------------------------------------------------

TWO_BOXES = CutOutSettings(probability=0.5, count=2, max_share=0.5)
WHITE = np.full((1, 8, 10, 3), 200, np.float32)


def cut(images, chance, settings=TWO_BOXES, strength=1.0, training=True):
    layer = layers.CutOut(settings, strength)
    chance = np.asarray(chance, np.float32)
    return keras.ops.convert_to_numpy(layer(np.asarray(images, np.float32), chance, training=training))


def test_cut_out_takes_one_number_and_four_a_box():
    assert layers.CutOut.numbers(TWO_BOXES) == 9
    assert layers.CutOut.numbers(CutOutSettings(count=1)) == 5


def test_cut_out_blanks_the_boxes_that_the_numbers_say():
    # Heights 1.0 and 0.5 of half of 8 rows: 4 and 2 rows. Widths 0.4 and 0.8 of half of 10 columns: 2 and 4 columns.
    # Places: row 0.5 of the 4 left over = 2; row 1.0 of the 6 = 6. Column 0 of the 8 = 0; column 0.5 of the 6 = 3.
    chance = [[0.1, 1.0, 0.5, 0.4, 0.0, 0.5, 1.0, 0.8, 0.5]]
    expected = WHITE.copy()
    expected[0, 2:6, 0:2] = 0
    expected[0, 6:8, 3:7] = 0
    np.testing.assert_array_equal(cut(WHITE, chance), expected)


def test_cut_out_of_half_strength_cuts_half_as_high_and_wide():
    # 4 and 5 become 2 rows and, of 10 columns, 2.5: centred on 3.75 + 1.25, it holds the middles of columns 4 and 5.
    chance = [[0.1, 1.0, 0.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0]]
    expected = WHITE.copy()
    expected[0, 0:2, 4:6] = 0
    np.testing.assert_array_equal(cut(WHITE, chance, strength=0.5), expected)


def test_cut_out_never_cuts_more_than_the_image():
    chance = [[0.0, 1.0, 0.7, 1.0, 0.3, 0.0, 0.0, 0.0, 0.0]]
    settings = CutOutSettings(count=2, max_share=0.8)
    assert (cut(WHITE, chance, settings, strength=2.0) == 0).all()


def test_cut_out_of_no_strength_cuts_nothing():
    chance = np.random.default_rng(0).random((1, 9), np.float32) * [0.0, *[1.0] * 8]
    np.testing.assert_array_equal(cut(WHITE, chance, strength=0.0), WHITE)


def test_cut_out_does_nothing_at_inference():
    chance = np.zeros((1, 9))
    chance[:, 1:] = 0.9
    np.testing.assert_array_equal(cut(WHITE, chance, training=False), WHITE)
    assert (cut(WHITE, chance) == 0).any()
    layer = layers.CutOut(TWO_BOXES, 1.0)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(layer(WHITE, chance.astype(np.float32))), WHITE
    )  # not told: not training


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_cut_out_cuts_as_often_as_its_probability(probability):
    settings = CutOutSettings(probability=probability, count=1, max_share=1.0)
    chance = np.random.default_rng(5).random((2000, 5), np.float32)
    chance[:, [1, 3]] = 1.0  # boxes of the whole image
    cut_away = (cut(np.ones((2000, 3, 4, 3)), chance, settings) == 0).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(cut_away, chance[:, 0] < probability)
    assert cut_away.mean() == pytest.approx(probability, abs=0.035)  # three standard errors


def test_cut_out_of_a_sample_depends_on_its_own_numbers_alone():
    rng = np.random.default_rng(1)
    batch, chance = rng.uniform(1, 255, (6, 8, 10, 3)), rng.random((6, 9), np.float32)
    chance[:, 0] = [0.1, 0.9, 0.2, 0.3, 0.7, 0.4]
    together = cut(batch, chance)
    for one in range(6):
        np.testing.assert_array_equal(cut(batch[one : one + 1], chance[one : one + 1])[0], together[one])
    assert len({(image == 0).all(axis=-1).tobytes() for image in together[[0, 2, 3, 5]]}) == 4  # each its own boxes


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_cut_out_is_in_a_compiled_model_what_it_is_alone():
    chance = np.random.default_rng(2).random((4, 9), np.float32)
    chance[:, 0] = 0
    batch = np.repeat(WHITE, 4, axis=0)
    images_in, chance_in = keras.Input((8, 10, 3)), keras.Input((9,))
    model = keras.Model([images_in, chance_in], layers.CutOut(TWO_BOXES, 1.0)(images_in, chance_in))
    model.compile(jit_compile=keras.config.backend() == "jax", loss="mse")
    np.testing.assert_array_equal(model.predict([batch, chance], verbose=0), batch)
    assert model.output.shape == (None, 8, 10, 3)
    # evaluate runs as at inference, train_on_batch as in training: the loss against the untouched images says so.
    assert model.test_on_batch([batch, chance], batch) == 0
    model.reset_metrics()  # Keras 3.13 would average over both
    cut_share = (cut(batch, chance) == 0).mean()
    assert 0 < cut_share < 1
    assert float(np.mean(model.train_on_batch([batch, chance], batch))) == pytest.approx(cut_share * 200**2, rel=1e-5)


def test_image_is_in_a_compiled_model_what_it_is_alone():
    chunks = [int16(SOUNDS[name]) for name in ("chirp", "quiet")]
    audio = keras.Input((160_000,), dtype="int16")
    model = keras.Model(audio, layers.LogMelImage(CONFIG)(audio))
    found = model.predict(np.stack(chunks), batch_size=2, verbose=0)
    for chunk, image in zip(chunks, found, strict=True):
        np.testing.assert_allclose(image[..., 0], librosa_image(chunk), rtol=0, atol=0.1 * PER_DB)


# --- previews --------------------------------------------------------------------------------------------------------


def test_a_batch_is_shown_as_the_network_gets_it():
    cut = CONFIG.augmentation.cut_out
    never = np.ones((2, layers.CutOut.numbers(cut)), np.float32)  # 1 is not under any probability
    audio = np.stack([int16(SOUNDS["tone"]), int16(SOUNDS["chirp"])])
    shown = layers.as_trained({"audio": audio, "chance": never}, CONFIG)
    assert shown.shape == (2, 128, 320, 3)
    np.testing.assert_allclose(shown[1, ..., 0], librosa_image(audio[1]), atol=0.1 * PER_DB)
    always = np.array([[0, 1, 0, 1, 0, 1, 1, 1, 1]] * 2, np.float32)
    cut_out = layers.as_trained({"audio": audio, "chance": always}, CONFIG)
    assert (cut_out[:, :38, :96] == 0).all()  # 0.3 of 128 bands and of 320 frames, from the first on
    np.testing.assert_array_equal(cut_out[:, 45:80, 100:200], shown[:, 45:80, 100:200])


def test_the_cut_outs_preview_grows_with_the_strength():
    image = np.full((128, 320, 3), 200, np.float32)
    shown = layers.cut_out_preview(image, CONFIG, {"weak": 0.25, "strong": 1.0})
    assert list(shown) == ["before", "weak: 2 boxes, 8% of each side", "strong: 2 boxes, 30% of each side"]
    before, weak, strong = ((each == 0).mean() for each in shown.values())
    assert before == 0
    # Two boxes, which may overlap: between one box's and two boxes' share of the image.
    assert 0.075**2 * 0.9 <= weak <= 2 * 0.075**2 * 1.1
    assert 0.3**2 * 0.9 <= strong <= 2 * 0.3**2 * 1.1
