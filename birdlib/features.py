"""Phase I on cached features: what a frozen backbone makes of some augmented epochs, computed once.

A frozen backbone is by far the most of phase I's work, and it never learns. Here it goes over a few balanced, augmented
epochs (the views) once; the head then trains on its features for as many epochs as it likes, the views taking turns.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import keras
import numpy as np
from tqdm.auto import tqdm

from birdlib import chance, models
from birdlib.batches import Ahead

if TYPE_CHECKING:
    from birdlib.batches import Inputs, PlainBatches, TrainingBatches


class CachedEpochs:
    """Batches of features, in place of those of `birdlib.batches.TrainingBatches` or `PlainBatches`.

    Batch i of an epoch is ``(float32 (batch, features), float32 (batch, classes))``.

    Parameters
    ----------
    views : for each cached epoch its features (samples, features) and targets (samples, classes).
    seed : shuffles each epoch anew; None leaves the order as it is.
    """

    def __init__(self, views: list[tuple[np.ndarray, np.ndarray]], batch_size: int, seed: int | None) -> None:
        self.views, self.batch_size, self.seed = views, batch_size, seed
        self._order = lru_cache(2)(self._shuffled)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.views[0][0]) // self.batch_size)

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Batch `index` of `epoch`."""
        features, targets = self.views[epoch % len(self.views)]
        rows = self._order(epoch)[index * self.batch_size : (index + 1) * self.batch_size]
        return features[rows], targets[rows]

    def _shuffled(self, epoch: int) -> np.ndarray:
        rows = np.arange(len(self.views[epoch % len(self.views)][0]))
        return rows if self.seed is None else chance.rng(self.seed, "features", epoch).permutation(rows)


class _AsTraining(keras.layers.Layer):
    """Calls a model as training does, so that it augments, whoever calls."""

    def __init__(self, model: keras.Model, training: bool) -> None:
        super().__init__()
        self.model, self.as_training = model, training

    def call(self, inputs):
        """What the model gives."""
        return self.model(inputs, training=self.as_training)


def extractor(joined_backbone: keras.Model, training: bool) -> keras.Model:
    """A model from the inputs of a batch to features, that augments if ``training``.

    ``joined_backbone``: the layers that make images, then the backbone.
    """
    inputs = {
        name: keras.Input(one.shape[1:], dtype=one.dtype, name=name) for name, one in joined_backbone.input.items()
    }
    return keras.Model(inputs, _AsTraining(joined_backbone, training)(inputs))


class _Noting(keras.utils.PyDataset):
    """The inputs of an epoch's batches, for ``predict``; targets, of which it says nothing, are ``noted``.

    Of each batch by its index, beside which rows are its own and do not just fill it up.
    """

    def __init__(self, feed: Ahead) -> None:
        super().__init__()
        self.feed = feed
        self.noted: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def num_batches(self) -> int:
        """Batches in the epoch."""
        return self.feed.num_batches

    def __getitem__(self, index: int) -> tuple[Inputs]:
        """The inputs of batch `index`."""
        inputs, targets, *weights = self.feed[index]
        self.noted[index] = targets, weights[0] > 0 if weights else np.ones(len(targets), bool)
        return (inputs,)


def cached(
    model: keras.Model, data: TrainingBatches | PlainBatches, epochs: range, description: str, shards: int = 1
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The features and targets of whole epochs: a pair of float32 arrays each, samples in the order of the batches."""
    feed = Ahead(data, epochs.start, shards)
    bar = tqdm(total=len(epochs) * data.num_batches, desc=description, unit="batch", mininterval=2.0)
    step = keras.callbacks.LambdaCallback(on_predict_batch_end=lambda batch, logs: bar.update())
    views = []
    with bar, feed:
        for epoch in epochs:
            feed.begin(epoch)
            told = _Noting(feed)
            try:
                said = np.asarray(model.predict(told, verbose=0, callbacks=[step]), np.float32)
            except Exception as error:
                raise feed.failure or error from None
            targets, true = (
                np.concatenate(parts) for parts in zip(*(told.noted[at] for at in sorted(told.noted)), strict=True)
            )
            views.append((said[true], targets[true]))
    return views


def head(model: keras.Model) -> keras.Model:
    """The head of a classifier, features -> probabilities, as a model of its own over the same layers."""
    after = _after_backbone(model)
    features = keras.Input(models.backbone(model).output.shape[1:], name="features")
    x = features
    for layer in after:
        x = layer(x)
    return keras.Model(features, x)


def body(model: keras.Model) -> keras.Model:
    """All of a classifier before its head: images -> features."""
    return keras.Model(model.input, _after_backbone(model)[0].input)


def _after_backbone(model: keras.Model) -> list[keras.layers.Layer]:
    return model.layers[model.layers.index(models.backbone(model)) + 1 :]
