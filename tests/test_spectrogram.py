import librosa
import numpy as np
import pytest

from birdlib import audio, spectrogram
from birdlib import config as configs
from tests.conftest import noise, song, tone

PAPER = configs.load("paper")
OTHER = configs.load(
    "paper", {"spectrogram": {"n_fft": 1024, "hop": 320, "n_mels": 64, "fmin_hz": 500, "fmax_hz": 16_000, "top_db": 60}}
)
BOTH = pytest.mark.parametrize("config", [PAPER, OTHER], ids=["paper", "other"])


def by_librosa(samples, config):
    """Decibels under the image's own maximum, float (n_mels, frames)."""
    settings = config.spectrogram
    power = librosa.feature.melspectrogram(
        y=samples.astype(np.float64),
        sr=config.audio.sample_rate_hz,
        n_fft=settings.n_fft,
        hop_length=settings.hop,
        n_mels=settings.n_mels,
        fmin=settings.fmin_hz,
        fmax=settings.fmax_hz,
        window="hann",
        center=True,
        pad_mode="reflect",
        power=2.0,
    )
    power = power[:, : len(samples) // settings.hop]  # the last frame is dropped
    return librosa.power_to_db(power, ref=np.max, amin=1e-30, top_db=settings.top_db)


def quiet_after_loud():
    return np.concatenate([tone(2.5, 6000, 0.9), 1e-4 * noise(2.5, 9)])


SOUNDS = {
    "noise": noise(5, 1),
    "faint noise": noise(5, 2, level=1e-4),
    "tone": tone(5, 3000),
    "low tone": tone(5, 45),
    "chirps": song("tinbir2", 5, 0),
    "loud and quiet": quiet_after_loud(),
    "one step": np.eye(1, 160_000, 80_000, dtype=np.float32)[0] / 32768,
    "clipped": np.sign(tone(5, 1000)),
    "off centre": 0.5 + tone(5, 2000, 0.01),
    "zeros at the end": np.pad(noise(2, 3), (0, 96_000)),
}


# ---- the mel scale


@BOTH
def test_filters_are_librosas(config):
    settings = config.spectrogram
    expected = librosa.filters.mel(
        sr=32_000, n_fft=settings.n_fft, n_mels=settings.n_mels, fmin=settings.fmin_hz, fmax=settings.fmax_hz
    )
    found = spectrogram.mel_filters(config)
    assert (found.dtype, found.shape) == (np.float32, (settings.n_mels, settings.n_fft // 2 + 1))
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())
    assert (found.sum(axis=1) > 0).all()  # no empty band


def test_the_scale_is_librosas():
    hz = np.concatenate([np.linspace(0, 2000, 50), np.geomspace(1, 16_000, 50), [1000, 999.999, 1000.001]])
    np.testing.assert_allclose(spectrogram.hz_to_mel(hz), librosa.hz_to_mel(hz), rtol=1e-9)
    mel = np.linspace(0, 60, 200)
    np.testing.assert_allclose(spectrogram.mel_to_hz(mel), librosa.mel_to_hz(mel), rtol=1e-9)
    np.testing.assert_allclose(spectrogram.mel_to_hz(spectrogram.hz_to_mel(hz)), hz, rtol=1e-9, atol=1e-9)


def test_the_scale_by_hand():
    # Slaney: 15 mel at 1,000 Hz, 27 more for every factor of 6.4.
    assert spectrogram.hz_to_mel([500, 1000, 6400]).tolist() == pytest.approx([7.5, 15, 42])


@BOTH
def test_the_frequency_axis_is_librosas(config):
    settings = config.spectrogram
    edges = librosa.mel_frequencies(settings.n_mels + 2, fmin=settings.fmin_hz, fmax=settings.fmax_hz)
    np.testing.assert_allclose(spectrogram.mel_edges_hz(config), edges, rtol=1e-9)
    np.testing.assert_allclose(spectrogram.mel_frequencies_hz(config), edges[1:-1], rtol=1e-9)


@pytest.mark.parametrize("n_fft", [1024, 2048])
def test_the_window_is_librosas(n_fft):
    np.testing.assert_allclose(spectrogram.hann(n_fft), librosa.filters.get_window("hann", n_fft), atol=1e-12)


# ---- the image


@BOTH
@pytest.mark.parametrize("sound", SOUNDS)
def test_the_image_is_librosas_within_a_tenth_of_a_decibel(sound, config):
    samples = SOUNDS[sound]
    top_db = config.spectrogram.top_db
    image = spectrogram.image(samples, config)
    np.testing.assert_allclose(image[:, :, 0] / 255 * top_db - top_db, by_librosa(samples, config), atol=0.1)


@BOTH
@pytest.mark.parametrize("sound", SOUNDS)
def test_shape_type_and_range(sound, config):
    image = spectrogram.image(SOUNDS[sound], config)
    assert (image.dtype, image.shape) == (np.float32, config.image_shape)
    assert image.max() == 255  # the loudest point of every image that has sound
    assert image.min() >= 0
    assert (image == image[:, :, :1]).all()


def test_the_papers_image_is_128_by_320():
    assert spectrogram.image(noise(5), PAPER).shape == (128, 320, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_digital_silence_is_all_zero(dtype):
    image = spectrogram.image(np.zeros(160_000, dtype), PAPER)
    assert image.shape == (128, 320, 3)
    assert (image == 0).all()


def test_the_level_of_a_recording_does_not_show():
    samples = song("tinbir1", 5, 3)
    np.testing.assert_allclose(
        spectrogram.image(samples, PAPER), spectrogram.image(samples / 1000, PAPER), atol=255 / 80 * 0.01
    )


def test_int16_and_float_give_the_same_image():
    samples = audio.to_int16(song("tinbir3", 5, 1))
    np.testing.assert_array_equal(
        spectrogram.image(samples, PAPER), spectrogram.image(samples.astype(np.float32) / 32768, PAPER)
    )


@pytest.mark.parametrize("hz", [100, 440, 1000, 2500, 6000, 12_000, 14_500])
def test_a_tone_lies_in_its_band_low_bands_first(hz):
    image = spectrogram.image(tone(5, hz), PAPER)[:, :, 0]
    bands = image[:, 10:-10].mean(axis=1)
    centres = librosa.mel_frequencies(130, fmin=40, fmax=15_000)[1:-1]
    expected = np.abs(centres - hz).argmin()
    assert abs(int(bands.argmax()) - int(expected)) <= (2 if hz < 300 else 1)  # low bands are narrower than a bin
    assert bands[min(expected + 40, 127)] < bands.max() - 100 or expected > 87


def test_a_click_lies_in_its_frame():
    samples = np.zeros(160_000, np.float32)
    samples[100 * 500] = 1
    frames = spectrogram.image(samples, PAPER)[:, :, 0].mean(axis=0)
    assert frames.argmax() == 100
    assert (frames[[97, 103]] == 0).all()  # farther than half a window of 2,048


def test_decibels_by_hand():
    power = np.array([[1.0, 0.1], [1e-8, 1e-12]]) * 7
    np.testing.assert_allclose(spectrogram.decibels(power, PAPER), [[0, -10], [-80, -80]], atol=1e-5)
    np.testing.assert_array_equal(spectrogram.decibels(np.zeros((2, 2)), PAPER), np.full((2, 2), -80))


def test_real_recordings_as_librosa_shows_them(xc10):
    for path in sorted((xc10 / "train_audio").glob("*/*.ogg"))[::25]:
        samples = audio.read(path, 32_000, 0, 160_000)
        image = spectrogram.image(samples, PAPER)[:, :, 0]
        np.testing.assert_allclose(image / 255 * 80 - 80, by_librosa(samples, PAPER), atol=0.1)
