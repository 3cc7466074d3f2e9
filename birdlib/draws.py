"""What each sample draws on the host for its augmentation on the device: how many numbers, and which are whose.

A training batch carries them as its input ``chance``, float32 (batch, `count`). Nearly all are uniform in 0..1, drawn
at the sample's address; a layer turns its own into what it does. Mixup's two are ready to use, since the host, which
mixes the labels, has drawn them already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from birdlib import chance

if TYPE_CHECKING:
    from birdlib.config import Config


def numbers(config: Config) -> dict[str, int]:
    """How many numbers each effect takes of a sample, in their order; the first says whether it is applied."""
    return {
        "high_pass": 3,  # applied, cut-off, steepness
        "band_pass": 3,  # applied, width, steepness
        "gaussian_noise": 4,  # applied, SNR, two halves of a seed
        "clipping": 2,  # applied, share
        "time_shift": 2,  # applied, how far
        "background": 4,  # applied, which, where it begins, SNR
        "time_stretch": 2,  # applied, rate
        "pitch_shift": 2,  # applied, semitones
        "cut_out": 1 + 4 * config.augmentation.cut_out.count,  # applied; of each box height, row, width, column
        "mixup": 2,  # how many rows further on the partner is (or back: under 0), and its share (0: not mixed)
    }


def count(config: Config) -> int:
    """How many numbers a sample takes in all."""
    return sum(numbers(config).values())


def places(config: Config) -> dict[str, slice]:
    """Which columns of ``chance`` are whose."""
    ends = np.cumsum(list(numbers(config).values())).tolist()
    return {name: slice(end - n, end) for (name, n), end in zip(numbers(config).items(), ends, strict=True)}


def of(config: Config, epoch: int, slots: Sequence[int]) -> np.ndarray:
    """The numbers of the samples in these slots of an epoch: float32 (slots, `count`); nothing is mixed yet."""
    size = count(config)
    drawn = np.stack([chance.rng(config.seed, "device", epoch, slot).random(size, np.float32) for slot in slots])
    drawn[:, places(config)["mixup"]] = 0
    return drawn


def told(drawn: np.ndarray, config: Config) -> list[str]:
    """The effects that each sample's numbers apply on the device, in words: "pitch shift, cut-out", or "nothing".

    ``drawn``: the numbers of `of` or of `mixed`.
    """
    settings, on = config.augmentation, {}
    for name, where in places(config).items():
        mine, is_here = drawn[:, where], settings.where == "device" or name in ("cut_out", "mixup")
        applied = mine[:, 1] > 0 if name == "mixup" else mine[:, 0] < getattr(settings, name).probability
        on["cut-out" if name == "cut_out" else name.replace("_", " ")] = applied & is_here & (settings.strength > 0)
    return [", ".join(name for name in on if on[name][row]) or "nothing" for row in range(len(drawn))]


def mixed(
    drawn: np.ndarray, targets: np.ndarray, config: Config, epoch: int, slots: Sequence[int], shards: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the partners of a batch, which is that of `slots`, and mixes its labels.

    Where devices share a batch, one sees no other's images: a sample's partner is in its own part.

    Parameters
    ----------
    drawn : the numbers of `of`.
    targets : one-hot float32 (batch, classes).
    shards : how many devices share the batch, in equal parts but for the last, which may be smaller.

    Returns
    -------
    drawn, targets : new arrays of the same shapes: with each sample's partner and its share, and with mixed labels.
    """
    settings, strength = config.augmentation.mixup, config.augmentation.strength
    rows = len(targets)
    if settings.probability * strength == 0:
        return drawn, targets
    further, share = np.zeros((2, rows))
    part = -(-rows // shards)
    for row, slot in enumerate(slots):
        rng = chance.rng(config.seed, "mixup", epoch, slot)
        first = row - row % part
        others = min(part, rows - first) - 1
        if others and rng.random() < settings.probability:
            partner = first + (row - first + rng.integers(1, others + 1)) % (others + 1)
            further[row] = partner - row
            mix = rng.beta(settings.alpha, settings.alpha)
            share[row] = min(strength * min(mix, 1 - mix), 0.5)
    drawn = drawn.copy()
    drawn[:, places(config)["mixup"]] = np.stack([further, share], axis=1)
    partners = targets[np.arange(rows) + further.astype(int)]
    if settings.labels == "maximum":
        return drawn, np.where(share[:, None] > 0, np.maximum(targets, partners), targets)
    share = drawn[:, places(config)["mixup"]][:, 1:]  # as the device has it, in float32
    return drawn, (1 - share) * targets + share * partners
