"""On the device, on the mel power before decibels: time stretch and pitch shift.

The mel projection is linear, so stretching the (frames, bands) of a chunk is stretching its spectrogram, as a phase
vocoder does, which interpolates between frames; and a shift in pitch is a warp of the mel axis. Both cost next to
nothing there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from birdlib import augment, spectrogram
from birdlib.layers_image import Effect, between

if TYPE_CHECKING:
    from birdlib.config import Config


class TimeStretch(Effect):
    """Mel power (batch, frames, n_mels) faster or slower, the pitch kept.

    Its second number is the rate. As in the chain on the host, the chunk keeps its beginning: what is played faster
    ends early, in silence; what is played slower is cut off at the end.
    """

    def __init__(self, config: Config, **kwargs) -> None:
        super().__init__("time_stretch", config, **kwargs)
        ends = augment.ranges(config)["time_stretch"]
        self.rates = ends["min_rate"], ends["max_rate"]

    def change(self, power, chance):
        """Power interpolated between frames."""
        frames, n_mels = power.shape[1:]
        rate = ops.where(self.applied(chance), between(chance[:, 1], *self.rates), ops.ones_like(chance[:, 1]))
        # Frame t is centred on sample t * hop, so that it shows what was at t * rate.
        position = rate[:, None] * ops.arange(frames, dtype="float32")  # (batch, frames)
        before = ops.floor(position)
        share = position - before
        rows = ops.reshape(power, (-1, n_mels))
        first = frames * ops.arange(ops.shape(power)[0], dtype="int32")[:, None]

        def at(frame, weight):
            inside = ops.where(frame < frames, weight, ops.zeros_like(weight))
            index = first + ops.cast(ops.minimum(frame, frames - 1.0), "int32")
            return inside[..., None] * ops.take(rows, index, axis=0)

        return at(before, 1.0 - share) + at(before + 1.0, share)


class PitchShift(Effect):
    """Mel power (batch, frames, n_mels) higher or lower, the tempo kept. Its second number is how many semitones.

    A band takes what is ``ratio`` times lower, interpolated between two bands; what would come from outside of the mel
    range is silence.
    """

    def __init__(self, config: Config, **kwargs) -> None:
        super().__init__("pitch_shift", config, **kwargs)
        ends = augment.ranges(config)["pitch_shift"]
        self.semitones = ends["min_semitones"], ends["max_semitones"]
        edges = spectrogram.mel_edges_hz(config)
        self.centres_hz = self.constant(edges[1:-1].astype(np.float32))
        first, second, *_ = spectrogram.hz_to_mel(edges)
        self.first, self.step = float(first), float(second - first)

    def change(self, power, chance):
        """Power warped along the mel axis."""
        bands = ops.arange(power.shape[2], dtype="float32")
        ratio = 2.0 ** (between(chance[:, 1], *self.semitones) / 12.0)
        source = (_hz_to_mel(self.centres_hz / ratio[:, None]) - self.first) / self.step - 1.0  # (batch, n_mels)
        source = ops.where(self.applied(chance)[:, None], source, bands)
        warp = ops.maximum(1.0 - ops.abs(bands[:, None] - source[:, None, :]), 0.0)  # (batch, from, to)
        return ops.matmul(power, warp)


def _hz_to_mel(hz):
    """`spectrogram.hz_to_mel` on the device."""
    above = spectrogram.BREAK_MEL + ops.log(ops.maximum(hz, spectrogram.BREAK_HZ) / spectrogram.BREAK_HZ) / float(
        spectrogram.LOG_STEP
    )
    return ops.where(hz < spectrogram.BREAK_HZ, hz / spectrogram.LINEAR_HZ, above)
