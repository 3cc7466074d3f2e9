"""Chance is an address, not a stream: every random draw is a function of what it is for.

A draw made at (seed, purpose, epoch, item) is the same whatever was drawn before it: in any order, in any thread, and
in a run that was interrupted and goes on.
"""

from __future__ import annotations

import zlib

import numpy as np


def seeds(seed: int, purpose: str, *item: int | str) -> list[int]:
    """The address of a draw as non-negative integers; texts count by their CRC-32, which is the same everywhere."""
    return [seed, *(zlib.crc32(part.encode()) if isinstance(part, str) else int(part) for part in (purpose, *item))]


def rng(seed: int, purpose: str, *item: int | str) -> np.random.Generator:
    """The generator at an address, such as ``rng(config.seed, "order", epoch)``."""
    return np.random.default_rng(seeds(seed, purpose, *item))
