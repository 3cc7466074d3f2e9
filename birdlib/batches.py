"""Batches: which chunk when, as `keras.utils.PyDataset`s.

A training epoch holds ``threshold`` chunks of every class. The recordings of a class take turns, and the chunks of a
recording take turns, before any comes again; turns go on over the epochs. All of it is computed from (seed, epoch), so
that batch i of epoch e is the same in any order, in any thread, and in a run that goes on after a stop.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

import keras
import numpy as np
import pandas as pd

from birdlib import audio, chance
from birdlib.augment import Chain
from birdlib.layers import CutOut

if TYPE_CHECKING:
    from birdlib.config import Config
    from birdlib.sources import Source

Batch = tuple[dict[str, np.ndarray], np.ndarray]


class BalancedPlan:
    """Which rows of a chunk table an epoch uses, and in which order.

    Parameters
    ----------
    chunks : the chunks to train on, with columns filename and primary_label; every label has at least one.
    labels : the class order.
    """

    def __init__(self, chunks: pd.DataFrame, labels: list[str], threshold: int, seed: int) -> None:
        self.labels, self.threshold, self.seed = labels, threshold, seed
        rows = pd.Series(np.arange(len(chunks)), index=[chunks["primary_label"], chunks["filename"]])
        self._rows: dict[str, dict[str, np.ndarray]] = {label: {} for label in labels}
        for (label, filename), group in rows.groupby(level=[0, 1], sort=True):
            self._rows[label][filename] = group.to_numpy()
        if empty := [label for label in labels if not self._rows[label]]:
            raise ValueError(f"no chunk to train on for {', '.join(empty)}")

    def epoch(self, epoch: int) -> np.ndarray:
        """Row positions of one epoch, int64 (threshold * classes,), shuffled."""
        rows = np.concatenate([self._of_class(label, epoch) for label in self.labels])
        return chance.rng(self.seed, "order", epoch).permutation(rows)

    def _of_class(self, label: str, epoch: int) -> np.ndarray:
        recordings = list(self._rows[label].items())
        turns = np.arange(epoch * self.threshold, (epoch + 1) * self.threshold)
        rounds, places = np.divmod(turns, len(recordings))
        chosen = np.empty(self.threshold, np.int64)
        for round_ in np.unique(rounds):
            order = chance.rng(self.seed, "recordings", label, round_).permutation(len(recordings))
            for at in np.flatnonzero(rounds == round_):
                filename, rows = recordings[order[places[at]]]
                # Each round uses a recording once, so the round counts the uses of this recording's chunks.
                cycle, place = divmod(int(round_), len(rows))
                chosen[at] = rows[chance.rng(self.seed, "chunks", filename, cycle).permutation(len(rows))[place]]
        return chosen


class TrainingBatches(keras.utils.PyDataset):
    """Class-balanced, augmented batches; every epoch another choice of chunks.

    Batch i is ``({"audio": int16 (batch, samples), "chance": float32 (batch, numbers)}, one-hot float32 (batch,
    classes))``; the last one of an epoch may be smaller.

    Parameters
    ----------
    chunks : the kept chunks to train on: columns filename, start_s, primary_label.
    labels : the class order.
    batch_size : samples a batch.
    epoch : the epoch to begin with.
    """

    def __init__(
        self,
        chunks: pd.DataFrame,
        labels: list[str],
        source: Source,
        config: Config,
        batch_size: int,
        epoch: int = 0,
    ) -> None:
        super().__init__()
        self.chunks, self.source, self.batch_size, self.seed = chunks, source, batch_size, config.seed
        self.plan = BalancedPlan(chunks, labels, config.batches.threshold, config.seed)
        self.chain = Chain(config)
        self.numbers = CutOut.numbers(config.augmentation.cut_out)
        self.classes = pd.Index(labels).get_indexer(chunks["primary_label"])
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
        samples, numbers = zip(*(self._sample(rows[slot], epoch, slot) for slot in slots), strict=True)
        targets = np.eye(len(self.plan.labels), dtype=np.float32)[self.classes[rows[slots]]]
        return {"audio": np.stack(samples), "chance": np.stack(numbers)}, targets

    def _sample(self, row: int, epoch: int, slot: int) -> tuple[np.ndarray, np.ndarray]:
        chunk = self.chunks.iloc[row]
        samples = self.source.read(chunk["filename"], chunk["start_s"])
        samples = self.chain(audio.to_float(samples), chance.seeds(self.seed, "augment", epoch, slot))
        numbers = chance.rng(self.seed, "device", epoch, slot).random(self.numbers, np.float32)
        return audio.to_int16(samples), numbers


class PlainBatches(keras.utils.PyDataset):
    """Chunks as they are and in order, for validation: batches like those of `TrainingBatches`, nothing augmented."""

    def __init__(
        self, chunks: pd.DataFrame, labels: list[str], source: Source, config: Config, batch_size: int
    ) -> None:
        super().__init__()
        self.chunks, self.source, self.batch_size, self.labels = chunks, source, batch_size, labels
        self.numbers = CutOut.numbers(config.augmentation.cut_out)
        self.classes = pd.Index(labels).get_indexer(chunks["primary_label"])

    @property
    def num_batches(self) -> int:
        """Batches in all."""
        return -(-len(self.chunks) // self.batch_size)

    def __getitem__(self, index: int) -> Batch:
        """Batch `index`."""
        return self.batch(0, index)

    def batch(self, epoch: int, index: int) -> Batch:
        """Batch `index`, the same in any epoch."""
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        part = self.chunks.iloc[rows]
        pairs = zip(part["filename"], part["start_s"], strict=True)
        samples = np.stack([self.source.read(filename, start_s) for filename, start_s in pairs])
        targets = np.eye(len(self.labels), dtype=np.float32)[self.classes[rows]]
        return {"audio": samples, "chance": np.zeros((len(part), self.numbers), np.float32)}, targets


class Ahead(keras.utils.PyDataset):
    """The batches of `data`, made a few ahead on threads; give it to ``fit`` with ``shuffle=False``.

    Keras' own worker threads are not used: they hand batches that an epoch leaves over to the next one, and Keras says
    ``on_epoch_end`` once before the first epoch. Here a batch is asked for by its epoch and index, and `begin`, called
    from a callback, says which epoch it is.

    Parameters
    ----------
    data : `TrainingBatches` or `PlainBatches`.
    epoch : the epoch to begin with.

    ``failure`` is the error of a batch that could not be made; a backend may pass it on inside one of its own.
    """

    # Two threads: one decodes while the augmentation chain, which runs one at a time, has the other.
    THREADS, BATCHES = 2, 4

    def __init__(self, data: TrainingBatches | PlainBatches, epoch: int = 0) -> None:
        super().__init__()
        self.data, self.epoch = data, epoch
        self.failure: Exception | None = None
        self._pool = ThreadPoolExecutor(self.THREADS)
        self._lock = threading.Lock()
        self._made: dict[tuple[int, int], Future] = {}

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return self.data.num_batches

    def begin(self, epoch: int) -> None:
        """From now on, batches of `epoch`."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> Batch:
        """Batch `index` of the present epoch; the next ones are begun."""
        with self._lock:
            last = min(index + self.BATCHES, self.num_batches - 1)
            wanted = [(self.epoch, each) for each in range(index, last + 1)]
            self._made = {at: self._made.get(at) or self._pool.submit(self.data.batch, *at) for at in wanted}
            mine = self._made[self.epoch, index]
        try:
            return mine.result()
        except Exception as error:
            self.failure = error
            raise
