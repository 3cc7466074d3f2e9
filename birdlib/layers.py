"""On the device: audio -> augmented log-mel images, as Keras layers under any backend.

The image is the one that `birdlib.spectrogram` defines; tests hold this to it within 0.1 dB. Augmentation comes in
three stages: on the waveform, on the mel power, on the image; `layers_wave`, `layers_mel` and `layers_image` hold them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from birdlib import draws, spectrogram
from birdlib.layers_image import CutOut, Effect, MixUp, OnDevice, cut_out_preview
from birdlib.layers_mel import PitchShift, TimeStretch
from birdlib.layers_wave import Background, Clipping, Filters, GaussianNoise, TimeShift

if TYPE_CHECKING:
    from birdlib.config import Config

__all__ = ["CutOut", "Images", "LogMelImage", "MixUp", "as_trained", "cut_out_preview", "joined"]


class LogMelImage(OnDevice):
    """int16 audio (batch, samples) -> float32 images (batch, n_mels, samples // hop, 3), 0-255.

    Each image is scaled by its own maximum, so that it is the same alone and in any batch. Computed in float32
    whatever the precision policy: the squares of a quiet chunk vanish in half precision.
    """

    def __init__(self, config: Config, **kwargs) -> None:
        super().__init__(**kwargs)
        self.settings = config.spectrogram
        self.frames = config.image_shape[1]
        self.projection = [self.constant(part) for part in _split(spectrogram.mel_filters(config).T)]

    def call(self, audio):
        """Images of a batch of audio."""
        return coloured(self.grey(self.power(ops.cast(audio, "float32"))))

    def power(self, samples):
        """Mel power (batch, frames, n_mels) of samples (batch, samples), which may be at any scale."""
        n_fft, hop = self.settings.n_fft, self.settings.hop
        # Padded here, and only as far as the last frame that is kept, and not by `ops.stft`, which would make one more.
        left = ops.flip(samples[:, 1 : n_fft // 2 + 1], axis=1)
        right = (self.frames - 1) * hop + n_fft - n_fft // 2 - samples.shape[1]
        parts = [left, samples[:, : samples.shape[1] + min(right, 0)]]
        if right > 0:
            parts.append(ops.flip(samples[:, -right - 1 : -1], axis=1))
        real, imaginary = ops.stft(ops.concatenate(parts, axis=1), n_fft, hop, n_fft, window="hann", center=False)
        power = ops.square(real) + ops.square(imaginary)  # (batch, frames, bins)
        low, high = self.projection
        return ops.concatenate([ops.matmul(power[..., : low.shape[0]], low), ops.matmul(power, high)], axis=-1)

    def grey(self, power):
        """Mel power as grey levels 0-255: float32 (batch, n_mels, frames)."""
        top_db = self.settings.top_db
        loudest = ops.max(power, axis=(1, 2), keepdims=True)
        # In silence the maximum is 0: divide by 1 instead, and every value falls to the floor, which is 0.
        share = power / ops.where(loudest > 0, loudest, ops.ones_like(loudest))
        db = 10.0 / np.log(10.0) * ops.log(ops.maximum(share, 10 ** (-top_db / 10)))
        # The floor itself may come out a hair under 0 in float32.
        return ops.maximum(ops.transpose(db / top_db + 1.0, (0, 2, 1)) * 255.0, 0.0)

    def compute_output_shape(self, input_shape):
        """(batch, samples) -> (batch, n_mels, frames, 3)."""
        return (input_shape[0], self.settings.n_mels, self.frames, 3)


def _split(filters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mel projection (bins, n_mels) as that of the low bands, with the few bins they need, and that of the others.

    Most of it are zeros: in two parts it takes about half of the multiplications.
    """
    bins, n_mels = filters.shape
    needed = np.maximum.accumulate(bins - (filters[::-1] > 0).argmax(axis=0))  # by the bands up to each
    bands = np.arange(1, n_mels)
    first = int(bands[np.argmin(needed[:-1] * bands + bins * (n_mels - bands))])
    return filters[: needed[first - 1], :first].copy(), filters[:, first:].copy()


class Images(OnDevice):
    """int16 audio (batch, samples) and its numbers -> images, augmented in training; at inference `LogMelImage`'s.

    The numbers, float32 (batch, `birdlib.draws.count`), are drawn by the host at each sample's address, so that what is
    made of it is a function of that and not of the device, nor of its batch (but for mixup, which is about the batch).

    Parameters
    ----------
    config : its ``augmentation`` section says what is done and how far, its ``spectrogram`` section what the image is.
    background : int16 (chunks, samples), as `birdlib.backgrounds.pool` gives it; None where that is off.
    together : how many samples are made into images at a time; None: the whole batch, as a GPU has it best.
    """

    def __init__(
        self, config: Config, background: np.ndarray | None = None, together: int | None = None, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.image = LogMelImage(config)
        self.together = together
        self.effects: dict[str, list[tuple[Effect, slice]]] = {"wave": [], "mel": [], "image": []}
        where = draws.places(config)
        if config.augmentation.where == "device":
            both = slice(where["high_pass"].start, where["band_pass"].stop)
            self._add("wave", Filters(config), both)
            self._add("wave", GaussianNoise(config), where["gaussian_noise"])
            self._add("wave", Clipping(config), where["clipping"])
            self._add("wave", TimeShift(config), where["time_shift"])
            self._add("wave", Background(config, background), where["background"])
            self._add("mel", TimeStretch(config), where["time_stretch"])
            self._add("mel", PitchShift(config), where["pitch_shift"])
        self._add("image", MixUp(config), where["mixup"])
        self._add("image", CutOut(config), where["cut_out"])

    def build(self, audio_shape, chance_shape):
        """All that there is to build is made already."""
        for layer in (self.image, *(effect for stage in self.effects.values() for effect, _ in stage)):
            layer.built = True

    def _add(self, stage: str, effect: Effect, numbers: slice) -> None:
        if effect.on:
            self.effects[stage].append((effect, numbers))

    def call(self, audio, chance, training=None):
        """Images of a batch."""
        make = self._grey_in_groups if self.together else self._grey
        grey = make(audio, chance, training)
        if training:
            grey = self._changed("image", grey[..., None], chance)[..., 0]
        return coloured(grey)

    def _grey(self, audio, chance, training):
        samples = ops.cast(audio, "float32")
        if not training:
            return self.image.grey(self.image.power(samples))
        power = self.image.power(self._changed("wave", samples, chance))
        return self.image.grey(self._changed("mel", power, chance))

    def _grey_in_groups(self, audio, chance, training):
        """The same, some samples at a time; silence fills the last group up, and is cut off again."""
        rows, size = ops.shape(audio)[0], self.together
        missing = -(-rows // size) * size - rows
        groups = tuple(
            ops.reshape(ops.pad(each, ((0, missing), (0, 0))), (-1, size, each.shape[1])) for each in (audio, chance)
        )
        grey = ops.map(lambda group: self._grey(*group, training), groups)
        return ops.reshape(grey, (-1, *grey.shape[-2:]))[:rows]

    def _changed(self, stage: str, x, chance):
        for effect, numbers in self.effects[stage]:
            x = effect(x, chance[:, numbers], training=True)
        return x

    def compute_output_shape(self, audio_shape, chance_shape):
        """(batch, samples) -> (batch, n_mels, frames, 3)."""
        return self.image.compute_output_shape(audio_shape)


def coloured(grey):
    """Grey levels (batch, n_mels, frames) as three equal channels: (batch, n_mels, frames, 3)."""
    return ops.repeat(ops.expand_dims(grey, -1), 3, axis=-1)


def joined(
    model: keras.Model, config: Config, background: np.ndarray | None = None, together: int | None = None
) -> keras.Model:
    """A model of images behind the layers that make them, for training.

    Parameters
    ----------
    model : images (batch, n_mels, frames, 3) -> anything.
    background, together : as `Images` takes them.

    Returns
    -------
    joined : its inputs are a batch's: ``audio`` int16 (batch, samples) and ``chance`` float32 (batch, numbers).
    """
    audio = keras.Input((config.chunk_samples,), dtype="int16", name="audio")
    numbers = keras.Input((draws.count(config),), dtype="float32", name="chance")
    images = Images(config, background, together)(audio, numbers)
    return keras.Model({"audio": audio, "chance": numbers}, model(images))


def as_trained(inputs: dict[str, np.ndarray], config: Config, background: np.ndarray | None = None) -> np.ndarray:
    """The images of a training batch's inputs as the network gets them: float32 (batch, n_mels, frames, 3), 0-255."""
    return ops.convert_to_numpy(Images(config, background)(inputs["audio"], inputs["chance"], training=True))
