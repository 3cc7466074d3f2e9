"""The pool of background sound: what is in it, that it is the same again, and what it does about bad files."""

import numpy as np
import pytest

from birdlib import backgrounds
from birdlib import config as configs
from birdlib.audio import AudioError
from tests.conftest import noise, save, tone


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "deep" / "wind.wav", noise(8, 1, 0.2))
    save(tmp_path / "hum.flac", tone(0.5, 440, 0.25))
    save(tmp_path / "rain.wav", noise(6, 2, 0.2, 16_000), 16_000)
    (tmp_path / "readme.txt").write_text("not sound")
    return tmp_path


def config(folder, **settings):
    return configs.load("sample", {"augmentation.background": {"probability": 0.5, "dir": str(folder), **settings}})


def test_the_pool_is_chunks_of_every_recording(folder):
    pool = backgrounds.pool(config(folder, chunks=6))
    assert (pool.dtype, pool.shape) == (np.dtype("int16"), (6, 160_000))
    assert len(np.unique(pool, axis=0)) >= 5  # the hum is the same from wherever it begins
    level = pool.astype(float).std(axis=1) / 32768
    assert sorted(np.isclose(level, 0.25 / np.sqrt(2), rtol=0.05)).count(True) == 2  # each recording has two turns
    spectra = np.abs(np.fft.rfft(pool.astype(float), axis=1))
    hum = spectra[np.isclose(level, 0.25 / np.sqrt(2), rtol=0.05)]
    assert (np.abs(hum.argmax(axis=1) / 5 - 440) < 2.5).all()  # repeated to the length of a chunk


def test_the_pool_is_the_same_again_and_another_by_another_seed(folder):
    one = backgrounds.pool(config(folder, chunks=4))
    np.testing.assert_array_equal(backgrounds.pool(config(folder, chunks=4)), one)
    other = configs.load("sample", {"augmentation": config(folder, chunks=4).augmentation.model_dump(), "seed": 1})
    assert (backgrounds.pool(other) != one).any()


def test_a_bad_file_costs_itself_alone(folder, caplog):
    (folder / "broken.ogg").write_bytes(b"OggS not really")
    save(folder / "silent.wav", np.zeros(200_000, np.float32))
    pool = backgrounds.pool(config(folder, chunks=10))
    assert pool.shape == (10, 160_000)
    assert pool.any(axis=1).all()
    assert "broken.ogg" in caplog.text
    assert "silent.wav" in caplog.text


def test_a_folder_without_sound_is_one_error(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"")
    with pytest.raises(AudioError, match=r"augmentation\.background\.dir.*no readable recording"):
        backgrounds.pool(config(tmp_path))


@pytest.mark.parametrize("overrides", [{"augmentation.where": "off"}, {"augmentation.strength": 0}])
def test_no_pool_is_made_where_none_is_wanted(tmp_path, overrides):
    values = {"augmentation.background.dir": str(tmp_path / "nowhere"), "augmentation.background.probability": 0.5}
    assert backgrounds.pool(configs.load("sample", values | overrides)) is None
    assert backgrounds.pool(configs.load("sample")) is None
