"""Which chunk when: class-balanced epochs.

A training epoch holds ``threshold`` chunks of every class. The recordings of a class take turns, and the chunks of a
recording take turns, before any comes again; turns go on over the epochs. Every order is drawn by its address: that of
a class's recordings by (seed, class, round), that of a recording's chunks by (seed, recording, cycle). So an epoch is
the same however it is come by, and a class more changes nothing for the others.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from birdlib import chance


class BalancedPlan:
    """Which rows of a chunk table an epoch uses, and in which order.

    Parameters
    ----------
    chunks : the chunks to train on, with columns filename and primary_label; every label has at least one.
    labels : the class order.

    A recording under two labels is one recording of each.
    """

    def __init__(self, chunks: pd.DataFrame, labels: list[str], threshold: int, seed: int) -> None:
        self.labels, self.threshold, self.seed = labels, threshold, seed
        codes, names = pd.factorize(chunks["filename"])
        classes = pd.Index(labels).get_indexer(chunks["primary_label"])
        rows = np.lexsort((codes, classes))
        rows = rows[classes[rows] >= 0]
        # Rows lie by class and recording; a recording is a stretch of them, a class a stretch of recordings.
        pair = classes[rows] * np.int64(len(names)) + codes[rows]
        first = np.flatnonzero(np.diff(pair, prepend=-1))
        self._rows, self._first = rows, first
        self._chunks = np.diff(first, append=len(rows))
        self._class_first = np.searchsorted(classes[rows][first], np.arange(len(labels) + 1))
        self._recordings = np.diff(self._class_first)
        if empty := [label for label, count in zip(labels, self._recordings, strict=True) if not count]:
            raise ValueError(f"no chunk to train on for {', '.join(empty)}")
        self._name = chance.numbers(names)[codes[rows][first]]
        self._label = chance.numbers(labels)

    def epoch(self, epoch: int) -> np.ndarray:
        """Row positions of one epoch, int64 (threshold * classes,), shuffled."""
        return chance.rng(self.seed, "order", epoch).permutation(self._rows[self._chosen(epoch)])

    def _chosen(self, epoch: int) -> np.ndarray:
        """A chunk for each turn of each class: int64 (threshold * classes,), places in ``_rows``."""
        turns = np.arange(epoch * self.threshold, (epoch + 1) * self.threshold)
        round_, place = np.divmod(turns, self._recordings[:, None])
        classes = np.repeat(np.arange(len(self.labels)), self.threshold)
        recording = self._recording(classes, round_.ravel(), place.ravel())
        # Each round uses a recording once, so the round counts the uses of this recording's chunks.
        cycle, place = np.divmod(round_.ravel(), self._chunks[recording])
        count = self._chunks[recording]
        within = _counted(count)
        drawn = chance.draws(
            self.seed, "chunks", np.repeat(self._name[recording], count), np.repeat(cycle, count), within
        )
        return self._first[recording] + _sorted(drawn, count)[np.cumsum(count) - count + place]

    def _recording(self, classes: np.ndarray, rounds: np.ndarray, places: np.ndarray) -> np.ndarray:
        """The recording that stands at each place of its class's order in that round."""
        # Turns follow each other: those of one class and round are neighbours, and share an order.
        first = np.flatnonzero((np.diff(classes, prepend=-1) != 0) | (np.diff(rounds, prepend=-1) != 0))
        of = np.repeat(np.arange(len(first)), np.diff(first, append=len(classes)))
        class_, count = classes[first], self._recordings[classes[first]]
        within = _counted(count)
        every = np.repeat(self._class_first[class_], count) + within
        drawn = chance.draws(
            self.seed,
            "recordings",
            np.repeat(self._label[class_], count),
            np.repeat(rounds[first], count),
            self._name[every],
        )
        return self._class_first[classes] + _sorted(drawn, count)[(np.cumsum(count) - count)[of] + places]


def _counted(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... up to each of `counts`, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _sorted(drawn: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Within each group of `counts` draws: which comes first, which second, ..., one group after the other."""
    group = np.repeat(np.arange(len(counts)), counts)
    return _counted(counts)[np.lexsort((drawn, group))]
