"""A saved classifier -> probabilities. Keras is loaded when a Keras model is, and not before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from birdlib import spectrogram

if TYPE_CHECKING:
    from birdlib.config import Config


class Classifier:
    """Images or audio in, probabilities out.

    Parameters
    ----------
    predict : float32 images (batch, n_mels, frames, 3) -> probabilities (batch, classes).
    config : the settings that the images are made by.
    """

    def __init__(self, predict: Callable[[np.ndarray], np.ndarray], config: Config) -> None:
        self.predict, self.config = predict, config

    def probabilities(self, audio: Sequence[np.ndarray]) -> np.ndarray:
        """A batch of chunks, each int16 or float (samples,) -> float32 (batch, classes)."""
        images = np.stack(spectrogram.images(audio, self.config))
        return np.asarray(self.predict(images), np.float32)

    def over(self, count: int, read: Callable[[int], np.ndarray], description: str = "predicting") -> np.ndarray:
        """Probabilities of `count` chunks, float32 (count, classes); ``read(i)`` gives chunk i, int16 (samples,).

        Chunks are read and turned into images while the model is at work; a batch is all that memory holds.
        """
        size = self.config.compute.predict_batch_size
        batches = [range(first, min(first + size, count)) for first in range(0, count, size)]
        results: list[np.ndarray] = []

        def images(rows: range) -> np.ndarray:
            return np.stack(spectrogram.images(map(read, rows), self.config))

        with ThreadPoolExecutor(1) as pool, tqdm(total=count, desc=description, unit="chunk", mininterval=1.0) as bar:
            ahead = pool.submit(images, batches[0]) if batches else None
            for place, rows in enumerate(batches):
                batch = ahead.result()
                ahead = pool.submit(images, batches[place + 1]) if place + 1 < len(batches) else None
                results.append(np.asarray(self.predict(batch), np.float32))
                bar.update(len(rows))
        return np.concatenate(results) if results else np.zeros((0, 0), np.float32)


def average(classifiers: Sequence[Classifier]) -> Classifier:
    """The mean of several classifiers of the same classes and settings; the images are made once."""
    return Classifier(
        lambda images: np.mean([one.predict(images) for one in classifiers], axis=0), classifiers[0].config
    )


def of_keras(model, config: Config) -> Classifier:
    """A classifier from a Keras model in memory."""

    def predict(images: np.ndarray) -> np.ndarray:
        full = config.compute.predict_batch_size
        # One shape means one compilation: the last, smaller batch is filled up and cut again.
        padded = np.pad(images, ((0, max(0, full - len(images))), (0, 0), (0, 0), (0, 0)))
        return np.asarray(model.predict_on_batch(padded))[: len(images)]

    return Classifier(predict, config)


def load(path: Path, config: Config) -> Classifier:
    """A classifier that training saved as ``.keras``. Raises `birdlib.models.ModelError`."""
    from birdlib import models

    return of_keras(models.load(path), config)
