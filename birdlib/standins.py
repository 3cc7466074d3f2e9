"""What happens to a training when a recording breaks after it was indexed: another chunk of its class stands in.

Which one is drawn by the place's address, so that it is the same in any order and in a resumed run. A batch keeps its
shape and the classes their balance; what broke is named in the errors table. Predictions leave such chunks out.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from birdlib import chance
from birdlib.audio import AudioError

if TYPE_CHECKING:
    from birdlib.runs import Run
    from birdlib.sources import Source

_KEPT = "broken"  # the part of a stage that holds what broke while it ran


class Noted:
    """A source that notes which recordings it could not read: ``broken``, filename -> reason."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.broken: dict[str, str] = {}

    def read(self, filename: str, start_s: float) -> np.ndarray:
        """One chunk: int16 (samples,). Raises `birdlib.audio.AudioError`."""
        try:
            return self.source.read(filename, start_s)
        except AudioError as error:
            self.broken[filename] = str(error).partition(f"{filename}: ")[2] or str(error)
            raise


class StandIns:
    """Reads chunks by their rows in a table; for one that cannot be read any more, another of its class.

    Parameters
    ----------
    chunks : columns filename, start_s, primary_label.
    seed : draws which chunk stands in.
    """

    def __init__(self, chunks: pd.DataFrame, source: Source | Noted, seed: int) -> None:
        self.source, self.seed = source, seed
        self.places = list(zip(chunks["filename"], chunks["start_s"], strict=True))
        self._broken: dict[str, str] = {}
        self._labels = chunks["primary_label"].to_numpy()

    def read(self, row: int, epoch: int, slot: int) -> np.ndarray:
        """The chunk of `row`, or of what stands in for it at this place of this epoch: int16 (samples,).

        Raises
        ------
        birdlib.audio.AudioError
            if no chunk of its class can be read.
        """
        for tried in self._candidates(row, epoch, slot):
            filename, start_s = self.places[tried]
            if tried != row and filename in self._broken:
                continue
            try:
                return self.source.read(filename, start_s)
            except AudioError as error:
                self._broken[filename] = str(error)  # the error itself would hold on to the batch that was being made
        raise AudioError(
            f"{self._broken[self.places[row][0]]}; no recording of {self._labels[row]} can be read any more: restore "
            "the files, or begin again with the first notebook (birdlib run --from 01)"
        )

    def _candidates(self, row: int, epoch: int, slot: int) -> Iterator[int]:
        yield row
        same = np.flatnonzero(self._labels == self._labels[row])
        yield from chance.rng(self.seed, "stand-in", epoch, slot).permutation(same)


class Readable:
    """Reads chunks for prediction; one that cannot be read any more comes as silence, and is then to be left out.

    Parameters
    ----------
    chunks : columns filename, start_s.
    """

    def __init__(self, chunks: pd.DataFrame, source: Source | Noted, samples: int) -> None:
        self.source, self.samples = source, samples
        self.places = list(zip(chunks["filename"], chunks["start_s"], strict=True))
        self._broken: set[str] = set()

    def read(self, row: int) -> np.ndarray:
        """The chunk of `row`: int16 (samples,)."""
        filename, start_s = self.places[row]
        try:
            return self.source.read(filename, start_s)
        except AudioError:
            self._broken.add(filename)
            return np.zeros(self.samples, np.int16)

    def heard(self) -> np.ndarray:
        """Which rows are of recordings that never failed: bool (rows,)."""
        return np.array([filename not in self._broken for filename, _ in self.places], bool)


def record(run: Run, broken: dict[str, str]) -> None:
    """Names in the errors table what broke in this stage so far, in an interrupted run of it too."""
    if broken:
        run.keep_part(_KEPT, {**(run.part(_KEPT) or {}), **broken})
        names = ", ".join(sorted(broken)[:3]) + (", ..." if len(broken) > 3 else "")
        warnings.warn(
            f"{len(broken)} recording(s) broke since they were indexed ({names}): other chunks of their species stood "
            "in in training, and no prediction counts them; the errors table says why",
            stacklevel=2,
        )
    run.record_errors(run.part(_KEPT) or {})
