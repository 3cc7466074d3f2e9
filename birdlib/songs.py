"""Made-up songs and the conditions they are recorded in: the sound of the built-in sample data set.

A species is a little grammar (`Song`): which notes, how often, in which order, with which gaps. An individual sings
it at a pitch and a tempo of its own. Six pairs of species share their notes and differ only in time: in the rate of
a trill, the direction of a sweep, the order of a phrase. So the spectrum alone cannot tell them apart, and nothing
else (loudness, length, silence, noise) is drawn with the species in mind.

All audio is float32, mono, at `RATE_HZ`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft

RATE_HZ = 32_000
TILE = 1 << 18  # noise is made in circles of this many samples: they repeat without a seam
GRID = 1 << 14  # filters are described on the frequencies of a transform of this many samples
ECHO_S = 0.4


@dataclass(frozen=True)
class Note:
    """One note of a song and how it repeats.

    ``start`` and ``end`` are frequencies in units of the individual's pitch, ``bend`` what the middle of the note
    deviates from the straight sweep, in octaves. ``pace`` is the length of the last gap by that of the first.
    ``rich`` divides the fading of the harmonics. ``buzz_hz`` is the rate at which a buzzing note sweeps through its
    band, 0 for a clean one.
    """

    start: float
    end: float
    length_s: float
    gap_s: float
    times: tuple[int, int] = (1, 1)
    bend: float = 0.0
    pace: float = 1.0
    rich: float = 1.0
    buzz_hz: float = 0.0


@dataclass(frozen=True)
class Song:
    """The grammar of a species: its notes in order, sung ``rounds`` times (least, most) in a phrase.

    ``pitch`` shifts the species' range; it is the same for both of a pair, and all ranges overlap.
    """

    notes: tuple[Note, ...]
    rounds: tuple[int, int] = (1, 1)
    pitch: float = 1.0


@dataclass(frozen=True)
class Individual:
    """One bird: its pitch in hertz, its tempo (1 is the species' own) and how fast its harmonics fade, in dB each."""

    pitch_hz: float
    tempo: float
    fade_db: float


_WHISTLES = Note(1.0, 1.08, 0.14, 0.10, times=(2, 3))
_BUZZ = Note(1.1, 1.1, 0.55, 0.12, buzz_hz=55.0)
_HIGH, _LOW = (1.2, 1.18, 0.20), (0.9, 0.88, 0.20)

SONGS: dict[str, Song] = {
    # Up-chirps at 5.5 or 11 a second.
    "syntri1": Song((Note(0.85, 1.2, 0.090, 0.090, times=(7, 12)),), pitch=1.25),
    "syntri2": Song((Note(0.85, 1.2, 0.045, 0.045, times=(14, 24)),), pitch=1.25),
    # Long sweeps, up or down.
    "synsli1": Song((Note(0.75, 1.35, 0.28, 0.16, times=(3, 5)),), pitch=1.1),
    "synsli2": Song((Note(1.35, 0.75, 0.28, 0.16, times=(3, 5)),), pitch=1.1),
    # Harmonic stacks, arched or sagging.
    "synmew1": Song((Note(0.42, 0.42, 0.34, 0.14, times=(3, 4), bend=0.55, rich=3.0),)),
    "synmew2": Song((Note(0.60, 0.60, 0.34, 0.14, times=(3, 4), bend=-0.55, rich=3.0),)),
    # Whistles before a buzz, or after it.
    "synbuz1": Song((_WHISTLES, _BUZZ), pitch=0.85),
    "synbuz2": Song((_BUZZ, _WHISTLES), pitch=0.85),
    # Two tones, falling or rising, with a rest after each couple.
    "syntwo1": Song((Note(*_HIGH, 0.06), Note(*_LOW, 0.30)), rounds=(2, 3), pitch=0.8),
    "syntwo2": Song((Note(*_LOW, 0.06), Note(*_HIGH, 0.30)), rounds=(2, 3), pitch=0.8),
    # Down-chirps that quicken, or slow down.
    "synrun1": Song((Note(1.25, 0.85, 0.055, 0.26, times=(9, 13), pace=0.12),)),
    "synrun2": Song((Note(1.25, 0.85, 0.055, 0.031, times=(9, 13), pace=8.4),)),
}


def recording(
    label: str, others: Sequence[str], samples: int, snr_db: float, microphone: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A whole recording, float32 (samples,), peak between -1 and -34 dB of full scale.

    Parameters
    ----------
    label : whose recording it is: one individual of this species, a key of `SONGS`.
    others : species that are heard for a few seconds in the background, 8 to 20 dB below.
    samples : its length.
    snr_db : the song's level over the noise's, both as root mean square.
    microphone : a response as `colour` gives it.
    rng : rules every draw.
    """
    pause = _pause(samples, rng)
    layer = sing(SONGS[label], individual(rng), samples, rng, pause)
    sound = heard(layer, rng, microphone)
    level = _loudness(sound[layer != 0])
    for other in others:
        start, one = _in_the_background(other, samples, pause, microphone, rng)
        sound[start : start + len(one)] += level * np.float32(10 ** (-rng.uniform(8, 20) / 20)) * one
    sound += level * np.float32(10 ** (-snr_db / 20)) * noise(rng, samples, microphone)
    return _levelled(sound * _hush(samples, pause, rng), rng)


def bouts(samples: int, rng: np.random.Generator) -> list[tuple[str, int, np.ndarray]]:
    """Who sings when in a soundscape: label, first sample, and the song from there on, float32, as it is sung."""
    found, start = [], _samples(rng.uniform(1, 4))
    while (room := samples - start) > _samples(3):
        label = list(SONGS)[rng.integers(len(SONGS))]
        length = min(room, _samples(rng.uniform(3, 8)))
        layer = sing(SONGS[label], individual(rng), length, rng)
        first, *_, last = np.flatnonzero(layer).tolist()
        found.append((label, start + first, layer[first : last + 1]))
        start += length + _samples(rng.uniform(1, 8))
    return found


def soundscape(
    singing: Sequence[tuple[str, int, np.ndarray]], samples: int, microphone: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A soundscape of these `bouts`, float32 (samples,): one recorder, one noise, birds near and far."""
    sound = np.zeros(samples, np.float32)
    for _, start, layer in singing:
        one = heard(np.pad(layer, (0, _samples(ECHO_S))), rng, microphone)[: samples - start]
        sound[start : start + len(one)] += one * np.float32(10 ** (-rng.uniform(0, 12) / 20) / _loudness(one))
    sound += np.float32(10 ** (-rng.uniform(10, 25) / 20)) * noise(rng, samples, microphone)
    return _levelled(sound, rng)


def individual(rng: np.random.Generator) -> Individual:
    """A bird of whichever species: the same ranges for all."""
    return Individual(
        pitch_hz=3200.0 * np.exp(rng.uniform(-0.21, 0.21)),
        tempo=np.exp(rng.uniform(-0.15, 0.15)),
        fade_db=rng.uniform(8.0, 24.0),
    )


def phrase(song: Song, bird: Individual, rng: np.random.Generator) -> np.ndarray:
    """One phrase of a song as a bird sings it this time, float32 (samples,), amplitude about 1."""
    pieces = []
    for _ in range(rng.integers(*song.rounds, endpoint=True)):
        for note in song.notes:
            times = int(rng.integers(*note.times, endpoint=True))
            for gap_s in note.gap_s * np.geomspace(1.0, note.pace, times):
                pieces += [
                    _sound(note, bird.pitch_hz * song.pitch, bird, rng),
                    np.zeros(_samples(gap_s / bird.tempo), np.float32),
                ]
    return np.concatenate(pieces[:-1])


def sing(
    song: Song, bird: Individual, samples: int, rng: np.random.Generator, pause: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Phrases with rests between them, float32 (samples,), none of them within `pause` (first and last sample)."""
    layer = np.zeros(samples, np.float32)
    start = _samples(rng.uniform(0.1, 0.8))
    while start < samples:
        one = phrase(song, bird, rng)[: samples - start] * np.float32(10 ** (rng.uniform(-3, 0) / 20))
        if start < pause[1] and start + len(one) > pause[0]:
            start = pause[1] + _samples(rng.uniform(0.1, 1.0))
            continue
        layer[start : start + len(one)] = one
        start += len(one) + _samples(rng.uniform(0.5, 2.5))
    layer[-_samples(0.02) :] *= np.linspace(1, 0, _samples(0.02), dtype=np.float32)  # a cut note must not click
    return layer


def heard(layer: np.ndarray, rng: np.random.Generator, microphone: np.ndarray) -> np.ndarray:
    """A bird's song as it arrives on the recording, float32 (samples,), after some distance and the microphone.

    `microphone` is a response as `colour` gives it.
    """
    heard = scipy.fft.irfft(distance(rng) * microphone, GRID)
    heard[_samples(ECHO_S) :] = 0
    return _convolved(layer, heard)


def distance(rng: np.random.Generator) -> np.ndarray:
    """What the way from the bird does: the air takes high tones, the wood echoes; complex64 (GRID // 2 + 1,)."""
    far = rng.uniform(0, 1)
    tail = np.arange(_samples(ECHO_S)) / RATE_HZ
    echo = rng.standard_normal(len(tail), np.float32) * np.exp(-tail / rng.uniform(0.03, 0.12))
    echo *= np.float32(0.6 * far) / np.sqrt(np.sum(echo**2))
    echo[0] += 1.0
    air_db = -12 * far * (_frequencies(GRID) / 8000) ** 1.5
    return (scipy.fft.rfft(echo, GRID) * 10 ** (air_db / 20)).astype(np.complex64)


def colour(rng: np.random.Generator) -> np.ndarray:
    """A recordist's microphone: three gentle bumps and a low cut, as gains, float32 (GRID // 2 + 1,)."""
    octaves = np.log2(np.maximum(_frequencies(GRID), 20.0) / 1000)
    bumps = zip(rng.uniform(-2, 4, 3), rng.uniform(0.5, 1.5, 3), rng.uniform(-6, 6, 3), strict=True)
    gain_db = sum(height * np.exp(-(((octaves - centre) / width) ** 2)) for centre, width, height in bumps)
    gain_db = gain_db - 12 * np.maximum(0, np.log2(rng.uniform(60, 300) / 1000) - octaves)
    return (10 ** (gain_db / 20)).astype(np.float32)


def noise(rng: np.random.Generator, samples: int, microphone: np.ndarray) -> np.ndarray:
    """A place's noise, float32 (samples,), root mean square 1: pink, or wind, insects or rain over a pink floor.

    `microphone` is a response as `colour` gives it.
    """
    hz = np.maximum(_frequencies(TILE), 30.0)
    response = np.interp(hz, _frequencies(GRID), microphone).astype(np.float32)
    kind = rng.integers(4)
    tile = _circle(rng, response * hz**-0.5)
    if kind == 1:
        tile = _circle(rng, response * hz**-1.2) * _pulses(rng, 0.12, 0.9) + 0.3 * tile
    elif kind == 2:
        band = np.exp(-(((hz - rng.uniform(3500, 9000)) / rng.uniform(150, 500)) ** 2))
        tile = _circle(rng, response * band) * _pulses(rng, rng.uniform(8, 40), rng.uniform(0.3, 1.0)) + tile
    elif kind == 3:
        tile = _circle(rng, response * np.minimum(hz / 2000, 1.0)) + 0.5 * tile
    return np.resize(_unit(tile), samples)


def _frequencies(samples: int) -> np.ndarray:
    """Frequencies in hertz of a real Fourier transform of so many samples, float32 (samples // 2 + 1,)."""
    return np.linspace(0, RATE_HZ / 2, samples // 2 + 1, dtype=np.float32)


def _convolved(signal: np.ndarray, response: np.ndarray) -> np.ndarray:
    """`signal` through a filter, as long as before: in blocks, so that transforms stay short and fast."""
    size = 4 * GRID
    step = size - len(response)
    blocks = np.pad(signal, (0, -len(signal) % step)).reshape(-1, step)
    parts = scipy.fft.irfft(scipy.fft.rfft(blocks, size) * scipy.fft.rfft(response, size), size)
    whole = parts[:, :step].copy()
    whole[1:, : len(response)] += parts[:-1, step:]
    return whole.ravel()[: len(signal)]


def _sound(note: Note, pitch_hz: float, bird: Individual, rng: np.random.Generator) -> np.ndarray:
    samples = _samples(note.length_s / bird.tempo * rng.uniform(0.93, 1.07))
    along = np.linspace(0, 1, samples, dtype=np.float32)
    octaves = np.log2(note.start) + np.log2(note.end / note.start) * along + note.bend * 4 * along * (1 - along)
    if note.buzz_hz:
        octaves += 0.25 * np.sin(2 * np.pi * note.buzz_hz * note.length_s * along)
    hz = np.float32(pitch_hz * rng.uniform(0.985, 1.015)) * np.exp2(octaves)
    angle = (2 * np.pi * (np.cumsum(hz, dtype=np.float64) / RATE_HZ % 1.0)).astype(np.float32)
    sound = np.zeros(samples, np.float32)
    fade_db = bird.fade_db / note.rich
    for order in range(1, 1 + min(int(45 / fade_db) + 1, int(0.47 * RATE_HZ / hz.max()))):
        sound += np.float32(10 ** (-fade_db * (order - 1) / 20)) * np.sin(order * angle)
    return sound * (4 * along * (1 - along)) ** 0.6


def _circle(rng: np.random.Generator, gain: np.ndarray) -> np.ndarray:
    spectrum = rng.standard_normal(2 * len(gain), np.float32).view(np.complex64) * gain.astype(np.float32)
    return _unit(scipy.fft.irfft(spectrum, TILE))


def _pulses(rng: np.random.Generator, rate_hz: float, depth: float) -> np.ndarray:
    """An envelope that swells about so many times a second: a whole number of times in a circle."""
    turns = max(1, round(rate_hz * TILE / RATE_HZ))
    wave = np.cos(2 * np.pi * (np.arange(TILE) * (turns / TILE) + rng.uniform()))
    return (1 + depth * wave).astype(np.float32)


def _unit(signal: np.ndarray) -> np.ndarray:
    return signal / _loudness(signal)


def _samples(seconds: float) -> int:
    return round(seconds * RATE_HZ)


def _pause(samples: int, rng: np.random.Generator) -> tuple[int, int]:
    """A stretch in which nobody sings (first and last sample): in many of the longer recordings, under half of it."""
    length = _samples(rng.uniform(4, np.clip(0.45 * samples / RATE_HZ, 4, 12)))
    start = round(rng.uniform(0, max(0, samples - length)))
    return (start, start + length) if samples > _samples(9) and rng.uniform() < 0.6 else (0, 0)


def _hush(samples: int, pause: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """What the noise falls to in the pause, from low to hardly anything: an envelope, float32 (samples,)."""
    envelope = np.ones(samples, np.float32)
    floor_db = -rng.uniform(15, 90)
    start, end = pause
    fade = np.linspace(0, floor_db, _samples(0.05))
    along_db = np.full(end - start, floor_db)
    if len(along_db):
        along_db[: len(fade)], along_db[-len(fade) :] = fade, fade[::-1]
    envelope[start:end] = 10 ** (along_db / 20)
    return envelope


def _in_the_background(
    label: str, samples: int, pause: tuple[int, int], microphone: np.ndarray, rng: np.random.Generator
) -> tuple[int, np.ndarray]:
    """Another bird for a few seconds outside the pause: first sample, and float32 from there on, loudness 1."""
    start, end = max((0, pause[0]), (pause[1], samples), key=lambda stretch: stretch[1] - stretch[0])
    length = min(end - start, _samples(rng.uniform(2.5, 6)))
    one = heard(sing(SONGS[label], individual(rng), length, rng), rng, microphone)
    return start + int(rng.integers(end - start - length + 1)), one / _loudness(one)


def _loudness(sound: np.ndarray) -> np.float32:
    return np.sqrt(np.mean(sound**2))


def _levelled(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return sound * np.float32(10 ** (-rng.uniform(1, 34) / 20) / np.abs(sound).max())
