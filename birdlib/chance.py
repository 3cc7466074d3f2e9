"""Chance is an address, not a stream: every random draw is a function of what it is for.

A draw made at (seed, purpose, epoch, item) is the same whatever was drawn before it: in any order, in any thread, and
in a run that was interrupted and goes on.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np


def seeds(seed: int, purpose: str, *item: int | str) -> list[int]:
    """The address of a draw as non-negative integers; texts count by their CRC-32, which is the same everywhere."""
    return [seed, *(zlib.crc32(part.encode()) if isinstance(part, str) else int(part) for part in (purpose, *item))]


def rng(seed: int, purpose: str, *item: int | str) -> np.random.Generator:
    """The generator at an address, such as ``rng(config.seed, "order", epoch)``."""
    return np.random.default_rng(seeds(seed, purpose, *item))


def numbers(texts: Iterable[str]) -> np.ndarray:
    """Texts as numbers to draw by, their CRC-32: uint64 (texts,)."""
    return np.array([zlib.crc32(text.encode()) for text in texts], np.uint64)


def draws(seed: int, purpose: str, *items: np.ndarray) -> np.ndarray:
    """Random numbers at many addresses at once: uint64, one for each place of the arrays `items` of whole numbers.

    Splitmix64 (Steele, Lea and Flood, 2014), once for each part of the address: a million take 0.1 s, where as many
    generators take half a minute.
    """
    state = np.random.SeedSequence(seeds(seed, purpose)).generate_state(1, np.uint64)
    for item in items:
        state = _mixed(state ^ np.asarray(item).astype(np.uint64))
    return state


def _mixed(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
