"""Batches: the chunks that `birdlib.epochs` chooses, as `keras.utils.PyDataset`s.

All of it is computed from (seed, epoch), so that batch i of epoch e is the same in any order, in any thread, and in a
run that goes on after a stop. A batch's audio is laid out once, and each chunk copied to its place in it.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import keras
import numpy as np
import pandas as pd

from birdlib import audio, chance, draws
from birdlib.augment import Chain
from birdlib.epochs import BalancedPlan
from birdlib.standins import StandIns
from birdlib.targets import Targets

if TYPE_CHECKING:
    from birdlib.config import Config
    from birdlib.sources import Source

Inputs = dict[str, np.ndarray]
Batch = tuple[Inputs, np.ndarray] | tuple[Inputs, np.ndarray, np.ndarray]


class TrainingBatches(keras.utils.PyDataset):
    """Class-balanced, augmented batches; every epoch another choice of chunks.

    Batch i is ``({"audio": int16 (batch, samples), "chance": float32 (batch, numbers)}, float32 (batch, classes))``:
    as `birdlib.targets` has them, mixed where mixup is on; the last batch of an epoch may be smaller.

    Parameters
    ----------
    chunks : the kept chunks to train on: columns filename, start_s, primary_label, secondary_labels if they count.
    labels : the class order.
    batch_size : samples a batch.
    epoch : the epoch to begin with.
    shards : how many devices share a batch: samples are mixed within their parts.
    """

    def __init__(
        self,
        chunks: pd.DataFrame,
        labels: list[str],
        source: Source,
        config: Config,
        batch_size: int,
        epoch: int = 0,
        shards: int = 1,
    ) -> None:
        super().__init__()
        self.shards = shards
        self.batch_size, self.seed = batch_size, config.seed
        self.reader = StandIns(chunks, source, config.seed)
        self.places = self.reader.places
        self.chunk_samples = config.chunk_samples
        self.plan = BalancedPlan(chunks, labels, config.batches.threshold, config.seed)
        self.chain = Chain(config)
        self.config = config
        self.targets = Targets(chunks, labels, config.loss)
        self.epoch = epoch
        self._rows = lru_cache(2)(self.plan.epoch)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return -(-self.plan.threshold * len(self.plan.labels) // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        """Batch `index` of the epoch that ``epoch`` says."""
        return self.batch(self.epoch, index)

    def batch(self, epoch: int, index: int) -> Batch:
        """Batch `index` of `epoch`."""
        rows = self._rows(epoch)
        slots = range(index * self.batch_size, min((index + 1) * self.batch_size, len(rows)))
        samples = np.empty((len(slots), self.chunk_samples), np.int16)
        for place, slot in enumerate(slots):
            samples[place] = self._audio(rows[slot], epoch, slot)
        targets = self.targets.of(rows[slots])
        drawn = draws.of(self.config, epoch, slots)
        numbers, targets = draws.mixed(drawn, targets, self.config, epoch, slots, self.shards)
        targets = self.targets.masked(targets, rows[slots], draws.partners(numbers, self.config))
        return {"audio": samples, "chance": numbers}, targets

    def _audio(self, row: int, epoch: int, slot: int) -> np.ndarray:
        samples = self.reader.read(row, epoch, slot)
        if not self.chain.on:
            return samples
        return audio.to_int16(self.chain(audio.to_float(samples), chance.seeds(self.seed, "augment", epoch, slot)))


class PlainBatches(keras.utils.PyDataset):
    """Chunks as they are and in order, for validation: batches like those of `TrainingBatches`, nothing augmented."""

    def __init__(
        self, chunks: pd.DataFrame, labels: list[str], source: Source, config: Config, batch_size: int
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.reader = StandIns(chunks, source, config.seed)
        self.numbers, self.chunk_samples = draws.count(config), config.chunk_samples
        self.targets = Targets(chunks, labels, config.loss)

    @property
    def num_batches(self) -> int:
        """Batches in all."""
        return -(-len(self.reader.places) // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        """Batch `index`."""
        return self.batch(0, index)

    def batch(self, epoch: int, index: int) -> Batch:
        """Batch `index`, the same in any epoch."""
        rows = np.arange(index * self.batch_size, min((index + 1) * self.batch_size, len(self.reader.places)))
        samples = np.empty((len(rows), self.chunk_samples), np.int16)
        for place, row in enumerate(rows):
            samples[place] = self.reader.read(row, 0, row)  # what stands in is the same in every epoch
        targets = self.targets.masked(self.targets.of(rows), rows)
        return {"audio": samples, "chance": np.zeros((len(rows), self.numbers), np.float32)}, targets


class Ahead(keras.utils.PyDataset):
    """The batches of `data`, made a few ahead on threads; give it to ``fit`` with ``shuffle=False``.

    Keras' own worker threads are not used: they hand batches that an epoch leaves over to the next one, and Keras says
    ``on_epoch_end`` once before the first epoch. Here a batch is asked for by its epoch and index, and `begin`, called
    from a callback, says which epoch it is.

    Parameters
    ----------
    data : `TrainingBatches`, `PlainBatches`, or what has their ``num_batches`` and ``batch``.
    epoch : the epoch to begin with.
    shards : how many devices share a batch: it is filled up to a multiple of it, and weights come with it (`filled`).
    judged : samples that an epoch has, where it is the mean over all of them that counts, as in validation; without it,
        it is the mean over those of each batch, whose gradient is followed.

    ``failure`` is the error of a batch that could not be made; a backend may pass it on inside one of its own. As a
    context it lets go of its threads and its data at the end: TensorFlow never lets go of what it was fed from.
    """

    # Two threads: one decodes while the augmentation chain, which runs one at a time, has the other.
    THREADS, BATCHES = 2, 4

    def __init__(self, data: TrainingBatches | PlainBatches, epoch: int = 0, shards: int = 1, judged: int = 0) -> None:
        super().__init__()
        self.data, self.epoch, self.shards, self.judged = data, epoch, shards, judged
        self.failure: Exception | None = None
        self._pool = ThreadPoolExecutor(self.THREADS)
        self._lock = threading.Lock()
        self._made: dict[tuple[int, int], Future] = {}

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return self.data.num_batches

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.data, self._made = None, {}

    def begin(self, epoch: int) -> None:
        """From now on, batches of `epoch`."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> Batch:
        """Batch `index` of the present epoch; the next ones are begun."""
        with self._lock:
            epoch, last = self.epoch, min(index + self.BATCHES, self.num_batches - 1)
            wanted = [(epoch, each) for each in range(index, last + 1)]
            self._made = {at: self._made.get(at) or self._pool.submit(self._batch, *at) for at in wanted}
            mine = self._made[epoch, index]
        try:
            # A copy: Keras asks for some batches twice, and TensorFlow computes in the memory of an array it was given.
            return keras.tree.map_structure(np.copy, mine.result())
        except Exception as error:
            self.failure = error
            raise

    def _batch(self, epoch: int, index: int) -> Batch:
        batch = self.data.batch(epoch, index)
        if self.shards == 1:
            return batch
        weight = self._rows() / self.judged if self.judged else None
        return filled(*batch, self.shards, weight)

    def _rows(self) -> int:
        """Rows of an epoch, with those that fill its batches up."""
        size = self.data.batch_size
        last = self.judged - (self.num_batches - 1) * size
        return (self.num_batches - 1) * _multiple(size, self.shards) + _multiple(last, self.shards)


def filled(inputs, targets: np.ndarray, shards: int, weight: float | None = None) -> Batch:
    """A batch whose rows are a multiple of ``shards``, and the weights of its samples, float32 (rows,).

    Rows from the beginning fill it up: they weigh nothing in the loss, and in a batch normalisation do less harm than
    silence. The others have this weight; without one, such that Keras' mean over all rows is the mean over them.
    """
    true = len(targets)
    rows = _multiple(true, shards)
    which = np.arange(rows) % true
    weights = np.where(np.arange(rows) < true, weight or rows / true, 0.0).astype(np.float32)
    return keras.tree.map_structure(lambda each: each[which], inputs), targets[which], weights


def _multiple(rows: int, shards: int) -> int:
    return -(-rows // shards) * shards
