import numpy as np
import pytest
import soundfile
import soxr
from conftest import RATE_HZ, TINY_BROKEN, TINY_STEREO, noise, save

from birdlib import config as configs
from birdlib.audio import AudioError
from birdlib.sources import LazySource

PAPER = configs.load("paper")


def test_every_chunk_of_a_recording(tmp_path):
    path = save(tmp_path / "train_audio" / "a" / "1.ogg", noise(23.4, 1))
    whole = soundfile.read(path, dtype="int16")[0]
    source = LazySource(tmp_path, PAPER)
    for start_s in (16.0, 0.0, 4.0, 12.0, 8.0):
        chunk = source.read("a/1.ogg", start_s)
        assert (chunk.dtype, chunk.shape) == (np.int16, (160_000,))
        start = round(start_s * RATE_HZ)
        np.testing.assert_allclose(chunk, whole[start : start + 160_000], atol=1)


@pytest.mark.parametrize(("seconds", "start_s", "held"), [(3, 0.0, 96_000), (7.5, 4.0, 112_000), (7.5, 8.0, 0)])
def test_a_short_chunk_ends_in_zeros(seconds, start_s, held, tmp_path):
    samples = noise(seconds, 2)
    save(tmp_path / "train_audio" / "1.wav", samples, subtype="FLOAT")
    chunk = LazySource(tmp_path, PAPER).read("1.wav", start_s)
    assert chunk.shape == (160_000,)
    assert not chunk[held:].any()
    np.testing.assert_allclose(chunk[:held] / 32768, samples[round(start_s * RATE_HZ) :], atol=1 / 32768)


def test_the_length_follows_the_settings(tiny_data):
    config = configs.load("paper", {"chunks.length_s": 2, "audio.sample_rate_hz": 48_000})
    assert LazySource(tiny_data, config).read("tinbir1/XC100.ogg", 0).shape == (96_000,)


def test_stereo_at_another_rate(tiny_data):
    samples, rate_hz = soundfile.read(tiny_data / "train_audio" / TINY_STEREO, dtype="float32")
    expected = soxr.resample(samples.mean(axis=1), rate_hz, RATE_HZ)
    chunk = LazySource(tiny_data, PAPER).read(TINY_STEREO, 0)
    assert len(expected) == 160_000
    np.testing.assert_allclose(chunk / 32768, expected, atol=1e-3)


@pytest.mark.parametrize("name", [TINY_BROKEN, "tinbir1/nowhere.ogg"])
def test_a_file_that_cannot_be_read(name, tiny_data):
    with pytest.raises(AudioError, match=name):
        LazySource(tiny_data, PAPER).read(name, 0)
