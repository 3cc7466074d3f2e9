"""Time stretch and pitch shift of the mel power against sounds that are really faster or higher; under any backend."""

import keras
import numpy as np
import pytest

from birdlib import config as configs
from birdlib import layers, layers_mel, spectrogram
from tests.conftest import RATE_HZ, noise, tone

CONFIG = configs.load("paper")
HOP = CONFIG.spectrogram.hop
FRAMES = 320
CENTRES_HZ = spectrogram.mel_frequencies_hz(CONFIG)


def power(*sounds):
    """Mel power of sounds: float32 (sounds, frames, n_mels)."""
    return keras.ops.convert_to_numpy(layers.LogMelImage(CONFIG).power(np.stack(sounds).astype(np.float32)))


def stretch(strength=1.0, **settings):
    return layers_mel.TimeStretch(
        configs.load("paper", {"augmentation": {"strength": strength, "time_stretch": settings}})
    )


def shift(strength=1.0, **settings):
    return layers_mel.PitchShift(
        configs.load("paper", {"augmentation": {"strength": strength, "pitch_shift": settings}})
    )


def changed(layer, mel, numbers, training=True):
    numbers = np.broadcast_to(np.asarray(numbers, np.float32), (len(mel), 2)).copy()
    return keras.ops.convert_to_numpy(layer(mel, numbers, training=training))


def of_rate(rate):
    """The number that draws this rate of the paper preset's 0.8 to 1.25."""
    return (rate - 0.8) / 0.45


def of_semitones(semitones):
    return (semitones + 4) / 8


def clicks(*times_s):
    samples = np.zeros(5 * RATE_HZ)
    for time_s in times_s:
        samples[round(time_s * RATE_HZ)] = 1
    return samples


def bursts(*times_s, hz=4000.0, length_s=0.1):
    """A tone that begins at each of these times."""
    time_s = np.arange(5 * RATE_HZ) / RATE_HZ
    on = np.any([(time_s >= begin) & (time_s < begin + length_s) for begin in times_s], axis=0)
    return 0.3 * on * np.sin(2 * np.pi * hz * time_s)


def peaks(mel):
    """Frames, to a fraction, round which the power of a chunk (frames, n_mels) gathers: one a burst of it."""
    level = mel.sum(axis=1)
    level = np.where(level > 1e-3 * level.max(), level, 0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], level > 0, [0]])))
    parts = zip(edges[::2], edges[1::2], strict=True)
    return [float((np.arange(a, b) * level[a:b]).sum() / level[a:b].sum()) for a, b in parts]


def onsets(mel):
    """The frames, to a fraction, at which each burst of a chunk has half of its power."""
    level = mel.sum(axis=1) / mel.sum(axis=1).max()
    rising = np.flatnonzero((level[:-1] < 0.5) & (level[1:] >= 0.5))
    return [float(at + (0.5 - level[at]) / (level[at + 1] - level[at])) for at in rising]


def band(mel):
    """The mel band, to a fraction, round which the power of a chunk gathers."""
    level = mel.mean(axis=0)
    top = level.argmax()
    near = slice(max(top - 2, 0), top + 3)
    return float((np.arange(128)[near] * level[near]).sum() / level[near].sum())


# --- time stretch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.8, 0.9, 1.0, 1.1, 1.25])
def test_stretch_moves_what_happens_by_the_rate(rate):
    times_s = (0.5, 1.3, 2.9)
    mel = power(clicks(*times_s), bursts(*times_s))
    found = changed(stretch(), mel, [0, of_rate(rate)])
    expected = np.array(times_s) * RATE_HZ / HOP / rate
    np.testing.assert_allclose(peaks(found[0]), expected, atol=0.5)
    np.testing.assert_allclose(onsets(found[1]), np.array(onsets(mel[1])) / rate, atol=0.5)
    np.testing.assert_allclose(onsets(found[1]), expected, atol=1)


@pytest.mark.parametrize("rate", [0.8, 1.25])
def test_stretch_is_that_of_a_sound_that_is_played_faster(rate):
    def chirps(speed):
        """Tones at 1, 2 and 4 kHz, one after the other, at their own pitch at any speed; each fades in and out."""
        time_s = np.arange(5 * RATE_HZ) / RATE_HZ * speed
        own = zip((0.4, 1.5, 2.6), (1000, 2000, 4000), strict=True)
        return sum(np.exp(-(((time_s - at) / 0.2) ** 2)) * np.sin(2 * np.pi * hz * time_s / speed) for at, hz in own)

    found = changed(stretch(), power(chirps(1.0)), [0, of_rate(rate)])[0]
    expected = power(chirps(rate))[0]
    loud = expected > 1e-3 * expected.max()
    np.testing.assert_allclose(10 * np.log10(found[loud] / expected[loud]), 0, atol=1.0)


@pytest.mark.parametrize("hz", [300, 1000, 3333, 9000])
@pytest.mark.parametrize("rate", [0.8, 1.25])
def test_stretch_leaves_a_tone_where_it_is(hz, rate):
    mel = power(tone(5, hz))
    found = changed(stretch(), mel, [0, of_rate(rate)])
    assert abs(band(found[0, :250]) - band(mel[0])) < 0.1


def test_what_is_played_faster_ends_early_and_in_silence():
    found = changed(stretch(), power(noise(5, 1)), [0, of_rate(1.25)])[0]
    assert (found[256:] == 0).all()  # 320 / 1.25
    assert (found[:255] > 0).all()
    slower = changed(stretch(), power(noise(5, 1)), [0, of_rate(0.8)])[0]
    assert (slower > 0).all()


def test_rates_are_drawn_from_the_range():
    mel = np.repeat(power(clicks(2.0)), 4, axis=0)
    found = changed(stretch(), mel, [[0, 0], [0, 0.5], [0, 1], [0.7, 1]])
    at = 2.0 * RATE_HZ / HOP
    np.testing.assert_allclose([peaks(each)[0] for each in found], [at / 0.8, at / 1.025, at / 1.25, at], atol=0.5)
    half = changed(stretch(0.5), mel, [[0, 0], [0, 1], [0, 1], [0.7, 1]])
    np.testing.assert_allclose([peaks(each)[0] for each in half][:2], [at * 1.125, at / 1.125], atol=0.5)


# --- pitch shift ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("semitones", [-4, -2.5, -1, 0, 1, 3, 4])
@pytest.mark.parametrize("hz", [400, 1000, 2500, 6000])
def test_shift_moves_a_tone_to_its_band(hz, semitones):
    found = changed(shift(), power(tone(5, hz)), [0, of_semitones(semitones)])[0]
    expected = power(tone(5, hz * 2 ** (semitones / 12)))[0]
    assert abs(band(found) - band(expected)) < 1
    assert abs(int(found.mean(axis=0).argmax()) - int(expected.mean(axis=0).argmax())) <= 1


@pytest.mark.parametrize("semitones", [-4, 4])
def test_shift_moves_nothing_in_time(semitones):
    mel = power(bursts(0.5, 1.3, 2.9), bursts(0.7, 4.0, hz=2000))
    found = changed(shift(), mel, [0, of_semitones(semitones)])
    for before, after in zip(mel, found, strict=True):
        np.testing.assert_allclose(onsets(after), onsets(before), atol=0.1)


@pytest.mark.parametrize("semitones", [-4, -2, 2, 4])
def test_shift_is_that_of_a_sound_that_is_higher(semitones):
    ratio = 2 ** (semitones / 12)
    chords = [sum(tone(5, hz * each, 0.1) for hz in (600, 1500, 3500, 7000)) for each in (1, ratio)]
    found = changed(shift(), power(chords[0]), [0, of_semitones(semitones)])[0, 10:-10].mean(axis=0)
    expected = power(chords[1])[0, 10:-10].mean(axis=0)
    # The four peaks, each within two bands: as loud against the others.
    for hz in (600, 1500, 3500, 7000):
        near = np.abs(CENTRES_HZ - hz * ratio).argsort()[:5]
        level = 10 * np.log10((found[near].sum() / found.sum()) / (expected[near].sum() / expected.sum()))
        assert abs(level) < 1.5, hz


def test_what_would_come_from_outside_of_the_mel_range_is_silence():
    mel = power(noise(5, 1))
    lower = changed(shift(), mel, [0, of_semitones(-4)])[0]
    first = np.searchsorted(CENTRES_HZ, CENTRES_HZ[-1] * 2 ** (-4 / 12))
    assert (lower[:, first + 1 :] == 0).all()
    assert (lower[:, : first - 1] > 0).all()
    higher = changed(shift(), mel, [0, of_semitones(4)])[0]
    assert (higher > 0).sum() > 0.97 * higher.size  # below 50 Hz only


def test_semitones_are_drawn_from_the_range():
    mel = np.repeat(power(tone(5, 2000)), 4, axis=0)
    at = [np.interp(hz, CENTRES_HZ, np.arange(128)) for hz in 2000 * 2 ** (np.array([-4, -2, 2, 4, 0]) / 12)]
    found = changed(shift(), mel, [[0, 0], [0, 0.25], [0, 1], [0.7, 1]])
    np.testing.assert_allclose([band(each) for each in found], [at[0], at[1], at[3], at[4]], atol=1)
    half = changed(shift(0.5), mel, [[0, 0], [0, 0.5], [0, 1], [0.7, 1]])
    np.testing.assert_allclose([band(each) for each in half], [at[1], at[4], at[2], at[4]], atol=1)


# --- both ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [stretch, shift])
def test_a_sample_that_is_not_drawn_is_as_it_was(make):
    mel = power(noise(5, 1), noise(5, 2))
    found = changed(make(probability=0.5), mel, [[0.5, 0.9], [0.49, 0.9]])
    np.testing.assert_array_equal(found[0], mel[0])
    assert np.abs(found[1] - mel[1]).max() > 0.1 * mel[1].max()


@pytest.mark.parametrize("make", [stretch, shift])
def test_nothing_happens_at_inference_or_at_no_strength(make):
    mel = power(noise(5, 1))
    np.testing.assert_array_equal(changed(make(probability=1), mel, [0, 0.9], training=False), mel)
    np.testing.assert_array_equal(changed(make(0.0, probability=1), mel, [0, 0.9]), mel)


@pytest.mark.parametrize("make", [stretch, shift])
def test_a_sample_is_the_same_alone_and_in_any_batch(make):
    mel = power(noise(5, 1), tone(5, 3000), bursts(1.0, 2.0), noise(5, 4, 0.001))
    numbers = np.random.default_rng(2).random((4, 2), np.float32)
    together = changed(make(probability=1), mel, numbers)
    for row in range(4):
        alone = changed(make(probability=1), mel[row : row + 1], numbers[row])[0]
        np.testing.assert_allclose(alone, together[row], rtol=0, atol=1e-5 * mel[row].max())
