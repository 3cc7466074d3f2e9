"""The definition of the image: a chunk of audio -> a log-mel spectrogram of 128 bands by 320 frames, 0-255.

Power spectra of Hann-windowed frames (2,048 samples every 500, centred, edges reflected; the last of the 321 frames
is dropped), Slaney mel bands from 40 to 15,000 Hz, decibels under the image's own maximum, cut off at 80 and stretched
to 0-255. This is numpy, the reference; `birdlib.layers` computes the same on the device.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft
import scipy.sparse

if TYPE_CHECKING:
    from birdlib.config import Config

# Slaney's mel scale (Auditory Toolbox, 1998): linear below 1,000 Hz at 200/3 Hz a mel, logarithmic above, where 27
# mels are a factor of 6.4.
LINEAR_HZ = 200.0 / 3
BREAK_HZ = 1000.0
BREAK_MEL = BREAK_HZ / LINEAR_HZ
LOG_STEP = np.log(6.4) / 27.0

BLOCK_FRAMES = 64  # so many are transformed at once: they stay in the processor's cache


def hz_to_mel(hz: np.ndarray | float) -> np.ndarray:
    """Frequencies in Hz on Slaney's mel scale, in mel."""
    hz = np.asarray(hz, dtype=np.float64)
    above = BREAK_MEL + np.log(np.maximum(hz, BREAK_HZ) / BREAK_HZ) / LOG_STEP
    return np.where(hz < BREAK_HZ, hz / LINEAR_HZ, above)


def mel_to_hz(mel: np.ndarray | float) -> np.ndarray:
    """The inverse of `hz_to_mel`."""
    mel = np.asarray(mel, dtype=np.float64)
    above = BREAK_HZ * np.exp((np.maximum(mel, BREAK_MEL) - BREAK_MEL) * LOG_STEP)
    return np.where(mel < BREAK_MEL, mel * LINEAR_HZ, above)


def mel_edges_hz(config: Config) -> np.ndarray:
    """Corners of the triangular mel bands in Hz, float64 (n_mels + 2,): band i rises from i, peaks at i + 1."""
    low, high = hz_to_mel(config.spectrogram.fmin_hz), hz_to_mel(config.spectrogram.fmax_hz)
    return mel_to_hz(np.linspace(low, high, config.spectrogram.n_mels + 2))


def mel_frequencies_hz(config: Config) -> np.ndarray:
    """Centre of each mel band in Hz, float64 (n_mels,), low first: the true frequency axis of an image."""
    return mel_edges_hz(config)[1:-1]


def mel_filters(config: Config) -> np.ndarray:
    """The mel projection: float32 (n_mels, n_fft // 2 + 1), triangles of equal area (librosa's ``norm="slaney"``)."""
    edges = mel_edges_hz(config)[:, None]
    bins = np.fft.rfftfreq(config.spectrogram.n_fft, 1 / config.audio.sample_rate_hz)
    widths = np.diff(edges, axis=0)
    rising, falling = (bins - edges[:-2]) / widths[:-1], (edges[2:] - bins) / widths[1:]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))).astype(np.float32)


def hann(n_fft: int) -> np.ndarray:
    """The periodic Hann window, float64 (n_fft,)."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)


def mel_power(samples: np.ndarray, config: Config) -> np.ndarray:
    """Mel power spectrogram of float audio (samples,): float32 (n_mels, samples // hop).

    In single precision throughout: what that adds lies far below the 80 dB that an image shows.
    """
    n_fft, hop = config.spectrogram.n_fft, config.spectrogram.hop
    window, filters = _plan(config)
    padded = np.pad(np.asarray(samples, np.float32), n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop][: len(samples) // hop]
    power = np.empty((filters.shape[0], len(frames)), np.float32)
    for first in range(0, len(frames), BLOCK_FRAMES):
        part = slice(first, first + BLOCK_FRAMES)
        spectrum = scipy.fft.rfft(frames[part] * window, axis=-1, workers=1)
        power[:, part] = filters @ (np.square(spectrum.real) + np.square(spectrum.imag)).T
    return power


@functools.lru_cache(maxsize=8)
def _plan(config: Config) -> tuple[np.ndarray, scipy.sparse.csr_array]:
    """The window, and the mel filters as a sparse matrix, since nearly all of it is 0; made once for all chunks."""
    return hann(config.spectrogram.n_fft).astype(np.float32), scipy.sparse.csr_array(mel_filters(config))


def decibels(power: np.ndarray, config: Config) -> np.ndarray:
    """Power (n_mels, frames) as float32 decibels under its own maximum, cut off at ``-top_db``; silence is that."""
    top_db, loudest = config.spectrogram.top_db, power.max()
    if loudest <= 0:
        return np.full(power.shape, -top_db, np.float32)
    under = 10 * np.log10(np.maximum(power / loudest, np.finfo(np.float32).tiny))
    return np.maximum(under, -top_db).astype(np.float32)


def image(samples: np.ndarray, config: Config) -> np.ndarray:
    """The image of a chunk of float or int16 audio (samples,): float32 (n_mels, frames, 3), 0-255, low bands first."""
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / 32768
    db = decibels(mel_power(samples, config), config)
    grey = (db / config.spectrogram.top_db + 1) * np.float32(255)
    return np.repeat(grey[:, :, None], 3, axis=2)


def images(sounds: Iterable[np.ndarray], config: Config) -> list[np.ndarray]:
    """The `image` of each of several sounds."""
    return [image(samples, config) for samples in sounds]


def scales(config: Config) -> dict[str, Any]:
    """What a figure needs to draw true axes beside images: ``mel_frequencies_hz`` and ``top_db``."""
    return {"mel_frequencies_hz": mel_frequencies_hz(config), "top_db": config.spectrogram.top_db}
