"""Players: the sound in the page, decoded again with soundfile, is the sound that was given."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile

from birdlib import players
from tests.conftest import tone


def decoded(shown):
    """Every sound of a row: (samples, rate)."""
    found = re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', shown._repr_html_())
    return [soundfile.read(io.BytesIO(base64.b64decode(text))) for text in found]


def strongest_hz(samples, rate_hz):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.fft.rfftfreq(len(samples), 1 / rate_hz)[spectrum.argmax()]


@pytest.mark.parametrize("rate_hz", [32_000, 22_050, 30_000, 250_000])
def test_the_sound_is_the_one_given_at_any_rate(rate_hz):
    ((samples, played_hz),) = decoded(players.row({"tone": tone(2.0, 1000, rate_hz=rate_hz)}, rate_hz))
    assert len(samples) / played_hz == pytest.approx(2.0, abs=0.1)
    assert strongest_hz(samples, played_hz) == pytest.approx(1000, abs=2)


def test_one_gain_for_all():
    loud, quiet = (
        samples for samples, _ in decoded(players.row({"a": tone(1, 500, 0.2), "b": tone(1, 500, 0.02)}, 32_000))
    )
    middle = slice(8000, 24_000)
    assert np.abs(loud[middle]).max() == pytest.approx(0.9, abs=0.05)
    assert np.std(loud[middle]) / np.std(quiet[middle]) == pytest.approx(10, rel=0.1)


def test_int16_plays_as_float():
    samples = tone(1, 700)
    whole = decoded(players.row({"a": np.round(samples * 32767).astype(np.int16)}, 32_000))[0][0]
    np.testing.assert_allclose(whole, decoded(players.row({"a": samples}, 32_000))[0][0], atol=0.02)


def test_silence_and_nothing():
    ((samples, _),) = decoded(players.row({"silence": np.zeros(32_000, np.float32)}, 32_000))
    assert np.abs(samples).max() < 1e-3
    assert decoded(players.row({}, 32_000)) == []


def test_a_title_is_text_and_no_markup():
    shown = players.row({"<script>alert(1)</script> & co": tone(1, 500)}, 32_000)._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in shown


def test_a_title_keeps_its_lines():
    assert "true<br>taken for" in players.row({"true\ntaken for": tone(1, 500)}, 32_000)._repr_html_()


def test_a_player_is_small():
    assert len(players.row({"noise": np.random.default_rng(0).uniform(-1, 1, 160_000)}, 32_000)._repr_html_()) < 70_000
