"""On the device: audio -> log-mel images, and the cut-out, as Keras layers under any backend.

The image is the one that `birdlib.spectrogram` defines; tests hold this to it within 0.1 dB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from birdlib import chance as random
from birdlib import spectrogram

if TYPE_CHECKING:
    from birdlib.config import Config
    from birdlib.settings import CutOut as CutOutSettings


class LogMelImage(keras.layers.Layer):
    """int16 audio (batch, samples) -> float32 images (batch, n_mels, samples // hop, 3), 0-255.

    Each image is scaled by its own maximum, so that it is the same alone and in any batch. Computed in float32
    whatever the precision policy: the squares of a quiet chunk vanish in half precision.
    """

    def __init__(self, config: Config, **kwargs) -> None:
        super().__init__(dtype="float32", trainable=False, autocast=False, **kwargs)
        self.settings = config.spectrogram
        self.frames = config.image_shape[1]
        self.filters = spectrogram.mel_filters(config).T

    def call(self, audio):
        """Images of a batch of audio."""
        samples = ops.cast(audio, "float32") / 32768.0  # (batch, samples)
        n_fft, hop, top_db = self.settings.n_fft, self.settings.hop, self.settings.top_db
        real, imaginary = ops.stft(samples, n_fft, hop, n_fft, window="hann", center=True)
        real, imaginary = real[:, : self.frames], imaginary[:, : self.frames]  # (batch, frames, bins)
        mel = ops.matmul(ops.square(real) + ops.square(imaginary), self.filters)  # (batch, frames, n_mels)
        loudest = ops.max(mel, axis=(1, 2), keepdims=True)
        # In silence the maximum is 0: divide by 1 instead, and every value falls to the floor, which is 0.
        share = mel / ops.where(loudest > 0, loudest, ops.ones_like(loudest))
        db = 10.0 / np.log(10.0) * ops.log(ops.maximum(share, 10 ** (-top_db / 10)))
        # The floor itself may come out a hair under 0 in float32.
        grey = ops.maximum(ops.transpose(db / top_db + 1.0, (0, 2, 1)) * 255.0, 0.0)  # (batch, n_mels, frames)
        return ops.repeat(ops.expand_dims(grey, -1), 3, axis=-1)

    def compute_output_shape(self, input_shape):
        """(batch, samples) -> (batch, n_mels, frames, 3)."""
        return (input_shape[0], self.settings.n_mels, self.frames, 3)


class CutOut(keras.layers.Layer):
    """Blanks boxes of images (batch, height, width, 3) in training; at inference it does nothing.

    The second input, ``chance``, float32 (batch, `numbers`), holds uniform numbers in 0..1 drawn by the host for each
    sample, so that what is cut is a function of the sample's address and not of the device.
    """

    def __init__(self, settings: CutOutSettings, strength: float, **kwargs) -> None:
        super().__init__(dtype="float32", trainable=False, autocast=False, **kwargs)
        self.settings, self.strength = settings, strength

    @staticmethod
    def numbers(settings: CutOutSettings) -> int:
        """How many uniform numbers a sample takes: whether to cut, then four a box."""
        return 1 + 4 * settings.count

    def call(self, images, chance, training=None):
        """Images with boxes set to 0, the level of silence."""
        if not training:
            return images
        applied = chance[:, 0] < self.settings.probability  # (batch,)
        boxes = ops.reshape(chance[:, 1:], (-1, self.settings.count, 4))
        rows = self._inside(boxes[..., 0], boxes[..., 1], images.shape[1])  # (batch, count, height)
        columns = self._inside(boxes[..., 2], boxes[..., 3], images.shape[2])
        cut = ops.any(ops.logical_and(rows[..., :, None], columns[..., None, :]), axis=1)
        cut = ops.logical_and(cut, applied[:, None, None])
        return ops.where(cut[..., None], ops.zeros_like(images), images)

    def _inside(self, size, place, extent: int):
        length = size * min(self.strength * self.settings.max_share, 1.0) * extent
        first = (place * (extent - length))[..., None]
        at = ops.cast(ops.arange(extent), "float32") + 0.5
        return ops.logical_and(at >= first, at < first + length[..., None])

    def compute_output_shape(self, images_shape, chance_shape):
        """The shape of the images."""
        return images_shape


def as_trained(inputs: dict[str, np.ndarray], config: Config) -> np.ndarray:
    """The images of a training batch's inputs as the network gets them: float32 (batch, n_mels, frames, 3), 0-255."""
    cut_out = CutOut(config.augmentation.cut_out, config.augmentation.strength)
    return ops.convert_to_numpy(cut_out(LogMelImage(config)(inputs["audio"]), inputs["chance"], training=True))


def cut_out_preview(image: np.ndarray, config: Config, strengths: Mapping[str, float]) -> dict[str, np.ndarray]:
    """An image (n_mels, frames, 3) before and after the cut-out, at its largest at each of ``strengths``: by title."""
    settings = config.augmentation.cut_out.model_copy(update={"probability": 1.0})
    chance = random.rng(config.seed, "preview").random((1, CutOut.numbers(settings)), np.float32)
    chance[:, 1::2] = 1.0  # each box as large as it may be
    chance[:, 0] = 0.0
    images = {"before": image}
    for name, strength in strengths.items():
        cut = CutOut(settings, strength)(image[None], chance, training=True)
        title = f"{name}: {settings.count} boxes, {min(strength * settings.max_share, 1):.0%} of each side"
        images[title] = ops.convert_to_numpy(cut)[0]
    return images
