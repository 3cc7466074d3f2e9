import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr

from birdlib import audio, chunks, sources, store
from birdlib import config as configs
from birdlib.audio import AudioError
from birdlib.sources import LazySource
from tests.conftest import RATE_HZ, TINY_BROKEN, TINY_STEREO, noise, save, tone

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


# ---- lazy and pcm give the same


def ffmpeg():
    """The ffmpeg program: on the path, or the one that the package imageio-ffmpeg carries."""
    if found := shutil.which("ffmpeg"):
        return found
    package = pytest.importorskip("imageio_ffmpeg", reason="no ffmpeg, and no imageio-ffmpeg")
    return package.get_ffmpeg_exe()


FFMPEG = {
    "ogg": ("libvorbis",),
    # One page holds 5 s: a seek has to find its way within it.
    "long_pages.ogg": ("libvorbis", "-page_duration", "5000000"),
    "mp3": ("libmp3lame", "-b:a", "96k"),
    "flac": ("flac",),
}


def sound(rate_hz, channels):
    """37.003 s: over 30 s, and with a padded tail."""
    one = noise(37.003, 4, 0.1, rate_hz) + tone(37.003, 3000, 0.3, rate_hz)
    return one if channels == 1 else np.stack([one, noise(37.003, 5, 0.2, rate_hz)], axis=1)


def assert_same(tmp_path, name):
    """Every chunk of a recording from the store, lazily, and as slices of what the whole file decodes to."""
    config = configs.load("paper", {"sources.kind": "pcm", "sources.store_dir": tmp_path / "store"})
    config = config.model_copy(update={"compute": config.compute.model_copy(update={"workers": 1})})
    held = store.open_store(tmp_path, config)
    table = chunks.index([name], tmp_path, config).chunks
    sources.fill(held, table, pd.Series({name: np.nan}), tmp_path, config)
    lazy, pcm = LazySource(tmp_path, config), sources.by_settings(tmp_path, config)
    assert sources.covered(held, table, config).all()
    samples, rate_hz = soundfile.read(tmp_path / "train_audio" / name, dtype="float32", always_2d=True)
    whole = soxr.resample(samples.mean(axis=1), rate_hz, RATE_HZ)
    starts = chunks.starts(len(whole), config)
    assert table["start_s"].tolist() == (starts / RATE_HZ).tolist()
    assert len(starts) == 9
    for start, start_s in zip(starts, table["start_s"], strict=True):
        stored, read = pcm.read(name, start_s).astype(int), lazy.read(name, start_s).astype(int)
        assert np.abs(stored - read).max() <= 1
        padded = np.pad(whole[start : start + 160_000], (0, max(0, start + 160_000 - len(whole))))
        np.testing.assert_allclose(stored, np.clip(32768 * padded, -32768, 32767), atol=1.5)
        assert not stored[len(whole) - start :].any()


# Not MP3 at 24 kHz in mono: of noise, libsndfile makes frames there that the decoder calls broken.
@pytest.mark.parametrize(
    ("suffix", "rate_hz", "channels"),
    [("ogg", rate_hz, channels) for rate_hz in (32_000, 44_100, 48_000, 24_000) for channels in (1, 2)]
    + [(suffix, rate_hz, 1 + (rate_hz > 40_000)) for suffix in ("wav", "flac", "mp3") for rate_hz in (32_000, 48_000)],
)
def test_lazy_and_pcm_agree_on_what_libsndfile_wrote(suffix, rate_hz, channels, tmp_path):
    save(tmp_path / "train_audio" / f"1.{suffix}", sound(rate_hz, channels), rate_hz)
    assert_same(tmp_path, f"1.{suffix}")


@pytest.mark.parametrize(("rate_hz", "channels"), [(32_000, 1), (44_100, 2)])
@pytest.mark.parametrize("kind", FFMPEG)
def test_lazy_and_pcm_agree_on_what_ffmpeg_wrote(kind, rate_hz, channels, tmp_path):
    program = ffmpeg()
    wav = save(tmp_path / "1.wav", sound(rate_hz, channels), rate_hz, "FLOAT")
    name = f"1.{kind}"
    (tmp_path / "train_audio").mkdir()
    encode = [program, "-v", "error", "-i", wav, "-c:a", *FFMPEG[kind], tmp_path / "train_audio" / name]
    subprocess.run(encode, check=True, timeout=60)
    assert_same(tmp_path, name)


def test_lazy_and_pcm_agree_on_real_recordings(xc10, tmp_path):
    place = {"data.dir": xc10, "sources.kind": "pcm", "sources.store_dir": tmp_path, "compute.workers": 1}
    config = configs.load("paper", place)
    names = sorted(path.relative_to(xc10 / "train_audio").as_posix() for path in xc10.rglob("*.ogg"))[::7]
    held = store.open_store(xc10, config)
    lengths = pd.Series({name: audio.info(xc10 / "train_audio" / name).duration_s * RATE_HZ for name in names})
    table = chunks.index(names, xc10, config, held, lengths).chunks
    lazy, pcm = LazySource(xc10, config), sources.by_settings(xc10, config)
    assert sources.covered(held, table, config).all()
    for row in table.itertuples():
        one, other = (source.read(row.filename, row.start_s).astype(int) for source in (lazy, pcm))
        assert np.abs(one - other).max() <= 1
