"""What a chunk's right answer is: its species, and what becomes of the species heard behind it.

Secondary labels say which other species are somewhere in a recording, and not when. By the settings' ``loss`` they are
ignored, get a share of the target, or are masked: the loss then neither asks for them nor forbids them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from birdlib.settings import Loss

MASKED = -1.0  # in place of a target: this class of this sample is left out of the loss


class Targets:
    """The targets of the chunks of a table.

    Parameters
    ----------
    chunks : with primary_label, and with secondary_labels (a list each) unless the settings ignore them.
    labels : the class order. Secondary labels that are not in it are no class, and count as none.
    """

    def __init__(self, chunks: pd.DataFrame, labels: list[str], settings: Loss) -> None:
        self.classes, self.settings = pd.Index(labels).get_indexer(chunks["primary_label"]), settings
        self._count = len(labels)
        if settings.secondary_labels != "ignored":
            others = chunks["secondary_labels"].reset_index(drop=True).explode()
            at = pd.Index(labels).get_indexer(others)
            rows = others.index.to_numpy()
            used = (at >= 0) & (at != self.classes[rows])
            self._rows, self._others = rows[used], at[used]

    def of(self, rows: np.ndarray) -> np.ndarray:
        """float32 (rows, classes): one-hot; with secondary labels in the target, these have ``secondary_weight``.

        Under a softmax, whose probabilities sum to 1, so do the targets.
        """
        targets = np.eye(self._count, dtype=np.float32)[self.classes[rows]]
        if self.settings.secondary_labels != "target":
            return targets
        targets += np.float32(self.settings.secondary_weight) * self._behind(rows)
        if self.settings.activation == "softmax":
            targets /= targets.sum(axis=1, keepdims=True)
        return targets

    def masked(self, targets: np.ndarray, rows: np.ndarray, partners: np.ndarray | None = None) -> np.ndarray:
        """`targets` (rows, classes), with `MASKED` for the secondary labels where the settings mask them.

        ``partners`` int (rows,): which of the samples each is mixed with, itself where with none. What is in the
        background of either stays masked, unless it is the species of the other.
        """
        if self.settings.secondary_labels != "masked":
            return targets
        behind = self._behind(rows)
        if partners is not None:
            behind |= behind[partners]
        return np.where(behind & (targets == 0), np.float32(MASKED), targets)

    def _behind(self, rows: np.ndarray) -> np.ndarray:
        """Which classes are secondary labels of which chunk: bool (rows, classes)."""
        first, last = (np.searchsorted(self._rows, rows, side=side) for side in ("left", "right"))
        counts = last - first
        places = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        behind = np.zeros((len(rows), self._count), bool)
        behind[np.repeat(np.arange(len(rows)), counts), self._others[places]] = True
        return behind
