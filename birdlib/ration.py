"""Which chunks go into a store that is too small for all of them.

Chunks that the silence filter keeps come before those it drops. Among each, the classes take turns, one chunk a turn;
within a class, the recordings take turns, each giving the loudest chunk that it has not yet given. An epoch shows every
class equally often, and within a class every recording: the chunks of a small class are read most often, and they are
the first to be all in. What two neighbours share is counted once.
"""

from __future__ import annotations

import numpy as np
import pandas as pd


def choose(chunks: pd.DataFrame, length: int, budget: int) -> np.ndarray:
    """Which chunks to store: bool, in the order of `chunks`.

    Parameters
    ----------
    chunks : filename, label, start (in samples), samples (how many of its samples lie in the recording), kept, energy.
    length : of a chunk, in samples.
    budget : how many samples may be stored. It is never exceeded.
    """
    turn = _turns(chunks)
    cost = _costs(chunks, turn, length)
    chosen = np.zeros(len(chunks), bool)
    order = np.argsort(turn)
    chosen[order] = np.cumsum(cost[order]) <= budget
    return chosen


def _turns(chunks: pd.DataFrame) -> np.ndarray:
    """When the turn of each chunk is: a permutation, int64 (chunks,)."""
    table = chunks[["filename", "label", "start"]].reset_index(drop=True)
    table = table.assign(dropped=~chunks["kept"].to_numpy(bool), quiet=-chunks["energy"].to_numpy(np.float64))
    table = table.sort_values(["dropped", "quiet", "filename", "start"])
    table["place"] = table.groupby(["dropped", "filename"]).cumcount()
    table = table.sort_values("place", kind="stable")
    table["round"] = table.groupby(["dropped", "label"]).cumcount()
    table = table.sort_values(["dropped", "round", "label"])
    turn = np.empty(len(table), np.int64)
    turn[table.index] = np.arange(len(table))
    return turn


def _costs(chunks: pd.DataFrame, turn: np.ndarray, length: int) -> np.ndarray:
    """The samples that each chunk adds to those whose turn was before: int64 (chunks,).

    Only the neighbours on both sides are looked at: where chunks overlap by more than half, that is an upper bound.
    """
    start, samples = chunks["start"].to_numpy(np.int64), chunks["samples"].to_numpy(np.int64)
    codes = pd.factorize(chunks["filename"])[0]
    order = np.lexsort((start, codes))
    one, other = order[:-1], order[1:]
    shared = np.where(codes[one] == codes[other], start[one] + length - start[other], 0)
    shared = np.clip(shared, 0, np.minimum(samples[one], samples[other]))
    cost = samples.copy()
    np.subtract.at(cost, np.where(turn[one] > turn[other], one, other), shared)
    return np.maximum(cost, 0)
