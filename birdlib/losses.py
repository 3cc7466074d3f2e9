"""What a training makes smaller: how wrong probabilities are about their targets.

Every loss is a sum over a sample's classes, in nats, so that those of few and of many classes can be compared, and the
callbacks' tolerances mean the same. A class whose target is `birdlib.targets.MASKED` takes no part in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
from keras import ops

if TYPE_CHECKING:
    from birdlib.settings import Loss

_SMALLEST = 1e-7


def of(settings: Loss) -> keras.losses.Loss:
    """The loss of the settings; (targets, probabilities) float32 (batch, classes) -> a mean over the batch."""
    if settings.kind == "categorical_crossentropy":
        if settings.secondary_labels == "masked":
            return MaskedCategorical(settings.label_smoothing)
        return keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing)
    gamma = settings.focal_gamma if settings.kind == "focal" else 0.0
    return Binary(settings.label_smoothing, gamma)


class MaskedCategorical(keras.losses.Loss):
    """Categorical cross-entropy among the classes that are not masked: as if the softmax did not have the others."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def call(self, targets, probabilities):
        """(batch,)."""
        known = ops.cast(targets >= 0, probabilities.dtype)
        share = known / ops.sum(known, axis=-1, keepdims=True)
        wanted = (1 - self.smoothing) * ops.maximum(targets, 0.0) + self.smoothing * share
        among = ops.maximum(probabilities, _SMALLEST) * known
        among = among / ops.sum(among, axis=-1, keepdims=True)
        return -ops.sum(wanted * ops.log(ops.maximum(among, _SMALLEST)), axis=-1)


class Binary(keras.losses.Loss):
    """Binary cross-entropy of each class, summed over those that are not masked.

    ``gamma`` over 0 makes it the focal loss (Lin et al., 2017): what is nearly right counts for less, by (1 - the
    probability of the right answer) ** gamma.
    """

    def __init__(self, smoothing: float = 0.0, gamma: float = 0.0) -> None:
        super().__init__()
        self.smoothing, self.gamma = smoothing, gamma

    def call(self, targets, probabilities):
        """(batch,)."""
        known = ops.cast(targets >= 0, probabilities.dtype)
        wanted = (1 - self.smoothing) * ops.maximum(targets, 0.0) + self.smoothing / 2
        yes = ops.clip(probabilities, _SMALLEST, 1 - _SMALLEST)
        losses = -(wanted * ops.log(yes) + (1 - wanted) * ops.log(1 - yes))
        if self.gamma:
            losses = losses * ops.power(1 - (wanted * yes + (1 - wanted) * (1 - yes)), self.gamma)
        return ops.sum(known * losses, axis=-1)
