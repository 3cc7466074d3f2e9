"""On the device, on the waveform: filters, noise, clipping, time shift and background, for a whole batch at once.

Each effect takes float32 (batch, samples), at any scale, and returns the same. Every sample has its own parameters, and
what comes out for it depends on nothing else in its batch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from birdlib import augment
from birdlib.layers_image import Effect, between

if TYPE_CHECKING:
    from birdlib.config import Config

GRID_HZ = 5.0  # between the frequencies at which a filter's response is computed; between them it is interpolated
DEEPEST = 40.0  # a filter's attenuation ends at exp(-40) of the power, 174 dB
NOISE_BLOCKS, NOISE_BLOCK = 2048, 500  # of the table of noise: numbers of blocks (a power of 2), samples of each
CLIPPING_GUESS, CLIPPING_CHECK = 1024, 40_000  # samples of a chunk: those that are sorted, those that are counted
CLIPPING_TOGETHER = 4  # of those that are counted lie side by side, which makes them quicker to fetch


class Filters(Effect):
    """High pass, then band pass, as Butterworth filters of order 2 to 4, which is 12 to 24 dB an octave.

    Both at once, in the frequency domain, where they cost one transform there and one back: the magnitude of the
    response is that of `scipy.signal.butter`, which audiomentations uses, and no frequency is delayed. They come before
    noise and clipping, as on the host, and so cannot be left to the power spectrum, where they would cost nothing.

    The chunk is taken as going round in a circle. So that its end and its beginning do not meet with a jump, which
    would be heard as a click wherever the rest is filtered away, a straight line from one to the other is taken off
    first; both filters would have blocked it.

    The numbers are the high pass' three, then the band pass' three (`birdlib.draws`).
    """

    def __init__(self, config: Config, **kwargs) -> None:
        super().__init__("high_pass", config, **kwargs)
        self.band = config.augmentation.band_pass
        self.on = self.strength > 0 and max(self.settings.probability, self.band.probability) > 0
        self.rate_hz, self.samples = config.audio.sample_rate_hz, config.chunk_samples
        ends = augment.ranges(config)
        high, band = ends["high_pass"], ends["band_pass"]
        self.cutoffs_mel = _to_mel(high["min_cutoff_freq"]), _to_mel(high["max_cutoff_freq"])
        self.centre_hz = band["min_center_freq"]
        self.widths = band["min_bandwidth_fraction"], band["max_bandwidth_fraction"]
        bin_hz = self.rate_hz / self.samples
        self.step = max(1, round(GRID_HZ / bin_hz))  # bins from one point of the grid to the next
        bins = self.samples // 2 + 1
        grid_hz = np.arange(-(-bins // self.step) + 1) * self.step * bin_hz
        grid = np.tan(np.clip(grid_hz, 1e-3, 0.49999 * self.rate_hz) * (math.pi / self.rate_hz))  # as `_warped` has it
        self.grid = self.constant(grid[None].astype(np.float32))
        self.between = self.constant((np.arange(self.step) / self.step).astype(np.float32))
        self.ramp = self.constant((np.arange(self.samples) / max(self.samples - 1, 1) - 0.5).astype(np.float32))

    def change(self, x, chance):
        """`x`, filtered."""
        high, band = chance[:, :3], chance[:, 3:]
        high_on = ops.cast(high[:, 0] < self.settings.probability, "float32")[:, None]
        band_on = ops.cast(band[:, 0] < self.band.probability, "float32")[:, None]
        either = ops.maximum(high_on, band_on)
        x = x - either * (x[:, -1:] - x[:, :1]) * self.ramp
        gain = self._fine(self._gain(high, band, high_on, band_on))
        real, imaginary = ops.rfft(x)
        return ops.irfft((gain * real, gain * imaginary), fft_length=self.samples)

    def _gain(self, high, band, high_on, band_on):
        """The response, as a factor of the amplitude, at the grid: (batch, points)."""
        cutoff = self._warped(700.0 * (10.0 ** (between(high[:, 1:2], *self.cutoffs_mel) / 2595.0) - 1.0))
        width_hz = self.centre_hz * between(band[:, 1:2], *self.widths)
        first = self._warped(self.centre_hz - width_hz / 2)
        last = self._warped(ops.minimum(self.centre_hz + width_hz / 2, 0.49995 * self.rate_hz))
        # A Butterworth filter of order n lets 1 / (1 + distance ** (2 n)) of the power pass.
        over = high_on * self._loss(cutoff / self.grid, high[:, 2:])
        beside = band_on * self._loss((self.grid - first * last / self.grid) / (last - first), band[:, 2:])
        return ops.rsqrt((1.0 + over) * (1.0 + beside))

    @staticmethod
    def _loss(distance, steepness):
        order = ops.minimum(2.0 + ops.floor(3.0 * steepness), 4.0)
        log = order * ops.log(ops.maximum(ops.square(distance), 1e-30))
        return ops.exp(ops.clip(log, -DEEPEST, DEEPEST))

    def _fine(self, gain):
        """From the grid to every bin: (batch, bins)."""
        low, rise = gain[:, :-1, None], (gain[:, 1:] - gain[:, :-1])[..., None]
        fine = low + rise * self.between  # (batch, points, step)
        return ops.reshape(fine, (-1, fine.shape[1] * self.step))[:, : self.samples // 2 + 1]

    def _warped(self, hz):
        """Hz as the bilinear transform has it, whose axis ends at half the rate."""
        return ops.tan(hz * (math.pi / self.rate_hz))


class GaussianNoise(Effect):
    """White noise at a signal-to-noise ratio. Its numbers are the SNR and two halves of a seed of 48 bits.

    To draw 160,000 normal numbers by hashing takes longer than the image. So there is a table of noise, 2,048 blocks of
    500 samples, the same on every device; the seed chooses a block for each 500 samples of a chunk, and its sign, by
    hashing. The noise is a function of the seed alone, normal and white.
    """

    def __init__(self, config: Config, **kwargs) -> None:
        super().__init__("gaussian_noise", config, **kwargs)
        ends = augment.ranges(config)["gaussian_noise"]
        self.snrs_db = ends["min_snr_db"], ends["max_snr_db"]
        table = np.random.default_rng(20_24).standard_normal((NOISE_BLOCKS, NOISE_BLOCK), np.float32)
        self.table = self.constant(table)

    def change(self, x, chance):
        """`x` with noise."""
        level = _level(x, between(chance[:, 1], *self.snrs_db), self.applied(chance))
        return x + self.noise(chance[:, 2:], x.shape[1], level)

    def noise(self, seeds, samples: int, level):
        """Noise of RMS `level` (batch,), float32 (batch, samples), from seeds (batch, 2) in 0..1."""
        count = -(-samples // NOISE_BLOCK)
        halves = ops.cast(seeds * 2.0**24, "int32")  # as many bits as float32 holds
        hashed = _hash(_hash(halves[:, :1] + _GOLDEN * ops.arange(count, dtype="int32")) + halves[:, 1:])
        sign = 1.0 - 2.0 * ops.cast(ops.bitwise_and(ops.right_shift(hashed, 20), 1), "float32")
        blocks = ops.take(self.table, ops.bitwise_and(hashed, NOISE_BLOCKS - 1), axis=0)  # (batch, count, block)
        noise = ops.reshape(blocks * (sign * level[:, None])[..., None], (-1, count * NOISE_BLOCK))
        return noise if noise.shape[1] == samples else noise[:, :samples]


class Clipping(Effect):
    """Cuts off the share of the samples, half of it from above and half from below, that its second number says.

    The two levels are percentiles of the samples. To sort all of a chunk takes longer than its image: 1,024 of its
    samples are sorted for a first guess, which is put right by the share of 40,000 that lie beyond it. The samples lie
    at uneven distances, so that no tone falls in step with them.
    """

    def __init__(self, config: Config, **kwargs) -> None:
        super().__init__("clipping", config, **kwargs)
        self.largest = min(self.strength * self.settings.max_share, 1.0)
        self.together = math.gcd(config.chunk_samples, CLIPPING_TOGETHER)
        self.guess = self.constant(_scattered(config.chunk_samples, CLIPPING_GUESS))
        groups, checked = config.chunk_samples // self.together, CLIPPING_CHECK // self.together
        self.check = self.constant(_scattered(groups, checked))

    def change(self, x, chance):
        """`x`, clipped."""
        tail = chance[:, 1:2] * (self.largest / 2)  # (batch, 1)
        ordered = ops.sort(ops.take(x, self.guess, axis=1), axis=1)
        groups = ops.reshape(x, (-1, x.shape[1] // self.together, self.together))
        seen = ops.take(groups, self.check, axis=1)  # (batch, groups, together)
        low = _level_of(tail, ordered, lambda level: seen < level)
        high = _level_of(1.0 - tail, ordered, lambda level: seen <= level)
        applied = self.applied(chance)[:, None]
        far = ops.full_like(low, 3e38)
        return ops.minimum(ops.maximum(x, ops.where(applied, low, -far)), ops.where(applied, high, far))


class TimeShift(Effect):
    """Turns the chunk round itself, in steps of some milliseconds. Its second number says how far, back or forth."""

    def __init__(self, config: Config, **kwargs) -> None:
        super().__init__("time_shift", config, **kwargs)
        self.farthest = min(self.strength * self.settings.max_share, 0.5)
        self.block = _block(config.chunk_samples)

    def change(self, x, chance):
        """`x`, turned."""
        count = x.shape[1] // self.block
        by = ops.cast(ops.round(between(chance[:, 1], -1.0, 1.0) * self.farthest * count), "int32")
        by = ops.where(self.applied(chance), by, ops.zeros_like(by))
        rows = ops.arange(ops.shape(x)[0], dtype="int32")
        return _turned(x, rows, -by, self.block)


class Background(Effect):
    """Adds a stretch of other sound. Its numbers are which, where in it to begin (it goes round), and the SNR.

    Parameters
    ----------
    pool : int16 (chunks, samples), as `birdlib.backgrounds.pool` makes it; None where no background is wanted.
    """

    def __init__(self, config: Config, pool: np.ndarray | None = None, **kwargs) -> None:
        super().__init__("background", config, **kwargs)
        if self.on and pool is None:
            raise ValueError("augmentation.background is on: the layer needs a pool of background sound")
        most, least = self.settings.max_snr_db, self.settings.min_snr_db
        self.snrs_db = most - self.strength * (most - least), most
        self.block = _block(config.chunk_samples)
        self.pool = self.constant(pool) if self.on else None

    def change(self, x, chance):
        """`x` with background."""
        chunks, samples = self.pool.shape
        which = ops.cast(ops.minimum(ops.floor(chance[:, 1] * chunks), chunks - 1.0), "int32")
        begin = ops.cast(ops.floor(chance[:, 2] * (samples // self.block)), "int32")
        sound = ops.cast(_turned(self.pool, which, begin, self.block), "float32")
        level = _level(x, between(chance[:, 3], *self.snrs_db), self.applied(chance))
        own = _rms(sound)
        return x + sound * (level / ops.where(own > 0, own, ops.ones_like(own)))[:, None]


def _level(x, snr_db, applied):
    """The RMS (batch,) of noise at `snr_db` (batch,) under `x`; 0 where it is not `applied`."""
    level = _rms(x) * 10.0 ** (-snr_db / 20.0)
    return ops.where(applied, level, ops.zeros_like(level))


def _rms(x):
    return ops.sqrt(ops.mean(ops.square(x), axis=1))


def _turned(sounds, rows, begin, block: int):
    """Rows of `sounds` (any, samples), each from its block `begin` (batch,) on and round to there."""
    count = sounds.shape[1] // block
    blocks = ops.mod(begin[:, None] + ops.arange(count, dtype="int32"), count) + count * rows[:, None]
    turned = ops.take(ops.reshape(sounds, (-1, block)), blocks, axis=0)
    return ops.reshape(turned, (-1, count * block))


def _block(samples: int) -> int:
    """How many samples are moved together: 100 where that divides a chunk, which takes 100 times fewer steps."""
    return math.gcd(samples, 100)


def _scattered(samples: int, count: int) -> np.ndarray:
    """Positions within `samples`, int32: one in each of `count` equal parts, anywhere in it."""
    count = min(count, samples)
    places = (np.arange(count) + np.random.default_rng(count).random(count)) * samples / count
    return np.minimum(places.astype(np.int32), samples - 1)


def _quantile(ordered, share):
    """The value below which `share` (batch, 1) of `ordered` (batch, n) lies, interpolated: (batch, 1)."""
    place = share * (ordered.shape[1] - 1)
    below = ops.minimum(ops.floor(place), ordered.shape[1] - 2.0)
    index = ops.cast(below, "int32")
    first, second = (ops.take_along_axis(ordered, index + one, axis=1) for one in (0, 1))
    return first + (place - below) * (second - first)


def _level_of(share, ordered, under):
    """The level under which `share` (batch, 1) of the samples lie: (batch, 1).

    Parameters
    ----------
    ordered : some of the samples, sorted: (batch, n).
    under : level (batch, 1, 1) -> which of more of them lie under it, boolean (batch, groups, together).
    """
    level = _quantile(ordered, share)
    # How much the level rises with the share, thereabouts.
    width = ops.minimum(ops.minimum(share, 1.0 - share), 0.02) + 1e-3
    below, above = ops.maximum(share - width, 0.0), ops.minimum(share + width, 1.0)
    rise = (_quantile(ordered, above) - _quantile(ordered, below)) / (above - below)

    def missing(level):
        found = ops.mean(ops.cast(under(level[..., None]), "float32"), axis=(1, 2))[:, None]
        return ops.clip(share - found, -0.05, 0.05)  # a guess is not off by more, but where a value repeats

    first = missing(level)
    second = missing(level + first * rise)
    # What is missing still, at the rate at which the first step made it less.
    made = first - second
    better = ops.where(ops.abs(made) > 0.2 * ops.abs(first), first / ops.where(made == 0, 1.0, made), 1.0)
    return level + (first + second * ops.minimum(better, 3.0)) * rise


def _to_mel(hz: float) -> float:
    """Hz in the mel of audiomentations, which is not that of the image: cut-offs are drawn evenly on it."""
    return 2595.0 * math.log10(1.0 + hz / 700.0)


_GOLDEN = 0x9E3779B1 - 2**32  # 2 ** 32 over the golden ratio, as int32


def _hash(x):
    """Integers mixed so that neighbours have nothing in common (a finaliser of MurmurHash3): int32 in and out."""
    for shift, kept, factor in ((16, 0xFFFF, 0x85EBCA6B - 2**32), (13, 0x7FFFF, 0xC2B2AE35 - 2**32), (16, 0xFFFF, 1)):
        # int32 shifts copies of the sign in from the left: `kept` takes them away.
        x = ops.bitwise_xor(x, ops.bitwise_and(ops.right_shift(x, shift), kept)) * factor
    return x
