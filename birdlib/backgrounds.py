"""Background sound to augment with: stretches of the recordings in a folder, in memory."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from birdlib import audio, chance, folders

if TYPE_CHECKING:
    from birdlib.config import Config

_log = logging.getLogger(__name__)


def pool(config: Config) -> np.ndarray | None:
    """As many stretches, each as long as a chunk, as ``augmentation.background.chunks`` says.

    The recordings in the folder (and in those inside it) take turns; each stretch begins anywhere in its recording, and
    a recording that is shorter than a chunk is repeated. A file that is not readable is left out, with a warning.

    Returns
    -------
    chunks : int16 (chunks, samples); None where no background is wanted.

    Raises
    ------
    birdlib.audio.AudioError
        if there is no readable recording in the folder.
    """
    settings = config.augmentation.background
    if config.augmentation.where != "device" or settings.probability * config.augmentation.strength == 0:
        return None
    folder = Path(settings.dir)
    files = sorted(filter(audio.is_audio, folders.files(folder)))
    rng = chance.rng(config.seed, "backgrounds")
    files = [files[place] for place in rng.permutation(len(files))]
    chunks: list[np.ndarray] = []
    while files and len(chunks) < settings.chunks:
        path = files.pop(0)
        try:
            chunks.append(_stretch(path, rng.random(), config))
        except audio.AudioError as error:
            _log.warning("left out of the background: %s", error)
            continue
        files.append(path)  # its turn comes again
    if not chunks:
        raise audio.AudioError(f"augmentation.background.dir={folder}: no readable recording in it")
    return np.stack(chunks)


def _stretch(path: Path, place: float, config: Config) -> np.ndarray:
    rate_hz, samples = config.audio.sample_rate_hz, config.chunk_samples
    duration_s = audio.info(path).duration_s
    spare = 0 if math.isnan(duration_s) else max(0, math.floor(duration_s * rate_hz) - samples)
    sound = audio.read(path, rate_hz, round(place * spare), samples)
    if not sound.any():
        raise audio.AudioError(f"{path}: empty or silent")
    return audio.to_int16(np.resize(sound, samples))
