"""Augmentation where audiomentations is not installed, as on Kaggle and Colab: one error, and the rest works."""

import sys

import numpy as np
import pytest

from birdlib import augment, series
from birdlib import config as configs
from tests.conftest import tone

HOST = configs.load("paper", {"augmentation.where": "host"})
OFF = configs.load("paper", {"augmentation.where": "off"})
SOUND = tone(0.5, 1000)


@pytest.fixture(autouse=True)
def without(monkeypatch):
    monkeypatch.setitem(sys.modules, "audiomentations", None)


def test_there_is_one_clear_error_that_names_the_extra():
    with pytest.raises(augment.AugmentError, match=r"install 'birdlib\[augment\]'.*augmentation.where=off") as caught:
        augment.Chain(HOST)
    assert "\n" not in str(caught.value)
    with pytest.raises(augment.AugmentError):
        augment.effect("clipping", HOST)


def test_a_series_that_needs_it_does_not_begin(tmp_path):
    with pytest.raises(augment.AugmentError):
        series.run("sample", None, tmp_path, {"augmentation.where": "host"})
    assert not (tmp_path / "notebooks").exists()


def test_off_works():
    np.testing.assert_array_equal(augment.Chain(OFF)(SOUND, [0]), SOUND)


def test_a_preview_says_so_and_shows_what_was_before():
    ((title, samples),) = augment.preview("pitch_shift", SOUND, HOST, [0]).items()
    assert "pip install 'birdlib[augment]'" in title
    np.testing.assert_array_equal(samples, SOUND)


def test_the_limits_are_known_all_the_same():
    assert list(augment.limits(HOST)) == list(augment.EFFECTS)
