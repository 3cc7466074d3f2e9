"""On the device, on the image: mixup and cut-out; and what every effect on the device has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from birdlib import chance as random
from birdlib import draws

if TYPE_CHECKING:
    from birdlib.config import Config


class OnDevice(keras.layers.Layer):
    """A layer without anything to learn, in float32 whatever the precision policy, that keeps its constants there."""

    def __init__(self, **kwargs) -> None:
        super().__init__(dtype="float32", trainable=False, autocast=False, **kwargs)

    def constant(self, values: np.ndarray):
        """An array that is copied to the device once: a weight that is not trained, and with no classifier saved."""
        return self.add_weight(
            shape=values.shape,
            dtype=str(values.dtype),
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(values),
            trainable=False,
            autocast=False,
        )


class Effect(OnDevice):
    """Changes each sample of a batch by its own numbers in training; at inference it does nothing.

    The second input, ``chance``, float32 (batch, numbers), holds the sample's own numbers, as `birdlib.draws` says. An
    effect whose probability is 0, or the strength, costs nothing.

    Parameters
    ----------
    name : of the effect's section in ``augmentation``.
    """

    def __init__(self, name: str, config: Config, **kwargs) -> None:
        super().__init__(**kwargs)
        self.settings, self.strength = getattr(config.augmentation, name), config.augmentation.strength
        self.on = self.settings.probability > 0 and self.strength > 0

    def call(self, x, chance, training=None):
        """`x` with the effect, where the samples' numbers say so."""
        return self.change(x, chance) if training and self.on else x

    def change(self, x, chance):
        """`x`, changed."""
        raise NotImplementedError

    def applied(self, chance):
        """Which samples the effect is applied to: boolean (batch,)."""
        return chance[:, 0] < self.settings.probability

    def compute_output_shape(self, x_shape, chance_shape):
        """The shape of what is changed."""
        return x_shape


def between(share, low: float, high: float):
    """Uniform numbers in 0..1, stretched to `low`..`high`."""
    return low + share * (high - low)


class CutOut(Effect):
    """Blanks boxes of images (batch, height, width, channels)."""

    def __init__(self, config: Config, **kwargs) -> None:
        super().__init__("cut_out", config, **kwargs)

    def change(self, images, chance):
        """Images with boxes set to 0, the level of silence."""
        boxes = ops.reshape(chance[:, 1:], (-1, self.settings.count, 4))
        rows = self._inside(boxes[..., 0], boxes[..., 1], images.shape[1])  # (batch, count, height)
        columns = self._inside(boxes[..., 2], boxes[..., 3], images.shape[2])
        rows = ops.logical_and(rows, self.applied(chance)[:, None, None])
        # Boxes over a pixel, as a product of matrices: cheaper than one mask a box.
        over = ops.matmul(ops.transpose(ops.cast(rows, "float32"), (0, 2, 1)), ops.cast(columns, "float32"))
        return ops.where((over > 0)[..., None], ops.zeros_like(images), images)

    def _inside(self, size, place, extent: int):
        length = size * min(self.strength * self.settings.max_share, 1.0) * extent
        first = (place * (extent - length))[..., None]
        at = ops.cast(ops.arange(extent), "float32") + 0.5
        return ops.logical_and(at >= first, at < first + length[..., None])


class MixUp(Effect):
    """Mixes images (batch, height, width, channels) with others of their batch.

    Its numbers are how many rows further on, or back, the partner is, and the partner's share; the host has drawn them
    and mixed the labels by them (`birdlib.draws.mixed`).
    """

    def __init__(self, config: Config, **kwargs) -> None:
        super().__init__("mixup", config, **kwargs)

    def change(self, images, chance):
        """(1 - share) of each image and share of its partner."""
        rows = ops.shape(images)[0]
        # Round the batch, for the rows that only fill it up: they have the numbers of rows that stand elsewhere.
        partner = ops.mod(ops.arange(rows, dtype="int32") + ops.cast(chance[:, 0], "int32"), rows)
        return images + chance[:, 1, None, None, None] * (ops.take(images, partner, axis=0) - images)


def cut_out_preview(image: np.ndarray, config: Config, strengths: Mapping[str, float]) -> dict[str, np.ndarray]:
    """An image (n_mels, frames, 3) before and after the cut-out, at its largest at each of ``strengths``: by title."""
    settings = config.augmentation.cut_out.model_copy(update={"probability": 1.0})
    size = draws.numbers(config)["cut_out"]
    chance = random.rng(config.seed, "preview").random((1, size), np.float32)
    chance[:, 1::2] = 1.0  # each box as large as it may be
    chance[:, 0] = 0.0
    images = {"before": image}
    for name, strength in strengths.items():
        section = config.augmentation.model_copy(update={"cut_out": settings, "strength": strength})
        cut = CutOut(config.model_copy(update={"augmentation": section}))(image[None], chance, training=True)
        title = f"{name}: {settings.count} boxes, {min(strength * settings.max_share, 1):.0%} of each side"
        images[title] = ops.convert_to_numpy(cut)[0]
    return images
