"""Where a chunk's samples come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from birdlib import audio

if TYPE_CHECKING:
    from birdlib.config import Config


class LazySource:
    """Seeks and decodes a chunk whenever it is asked for: needs no disk, holds nothing in memory."""

    def __init__(self, data_dir: Path, config: Config) -> None:
        self.folder = Path(data_dir) / "train_audio"
        self.sample_rate_hz = config.audio.sample_rate_hz
        self.chunk_samples = config.chunk_samples

    def read(self, filename: str, start_s: float) -> np.ndarray:
        """One chunk: int16 (chunk_samples,), zero-padded at the end. Raises `birdlib.audio.AudioError`."""
        start = round(start_s * self.sample_rate_hz)
        samples = audio.read(self.folder / filename, self.sample_rate_hz, start, self.chunk_samples)
        return np.pad(audio.to_int16(samples), (0, self.chunk_samples - len(samples)))
