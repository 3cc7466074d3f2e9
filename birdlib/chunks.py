"""Chunks: 5 s pieces of a recording every 4 s, how loud each is, and which count as silent.

All arithmetic is in samples. Energy is the largest short-time RMS within the chunk, over frames of 2,048 samples
every 512; the paper says "maximum energy level" and no more. It is kept absolute (``rms``), as the largest sample
(``peak``), and relative to the loudest frame of the recording (``rms_relative``), so that the filter can be changed
without decoding anything again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

import birdlib
from birdlib import audio
from birdlib.parallel import Failure, map_files
from birdlib.stages import listing_digest
from birdlib.writing import read_json, write_json

if TYPE_CHECKING:
    from birdlib.config import Config
    from birdlib.runs import Run
    from birdlib.settings import Silence

MEASURES = {"relative": "rms_relative", "rms": "rms", "peak": "peak"}


class Index(NamedTuple):
    """All that decoding every file once tells.

    ``chunks``: columns filename, start_s (float64), rms_relative, rms, peak (float32); sorted. ``audio_hash``:
    indexed by filename, the same for recordings whose audio is the same. ``problems``: path -> reason.
    """

    chunks: pd.DataFrame
    audio_hash: pd.Series
    problems: dict[str, str]


def starts(num_samples: int, config: Config) -> np.ndarray:
    """Where the chunks of a recording begin, in samples (int64).

    Chunks lie on a grid of ``config.step_samples``. What is left at the end is a chunk, zero-padded, if it holds
    more than ``chunks.tail_min_s`` that no earlier chunk holds. Any recording has at least one chunk.
    """
    length, step = config.chunk_samples, config.step_samples
    whole = max(0, (num_samples - length) // step + 1)
    covered = (whole - 1) * step + length if whole else 0
    tail = num_samples - covered > config.chunks.tail_min_s * config.audio.sample_rate_hz
    return np.arange(whole + (tail or (not whole and num_samples > 0))) * step


def frame_rms(samples: np.ndarray, frame: int, hop: int) -> np.ndarray:
    """Short-time RMS of float audio (samples,) over whole frames from the first sample on: float64 (frames,)."""
    squares = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    first = np.arange(0, len(samples) - frame + 1, hop)
    return np.sqrt(np.maximum(squares[first + frame] - squares[first], 0) / frame)


def kept(chunks: pd.DataFrame, silence: Silence) -> pd.Series:
    """Which chunks are not silent (bool, indexed like `chunks`): loud enough, or the loudest of their recording."""
    energy = chunks[MEASURES[silence.measure]]
    loud = energy >= silence.threshold
    loud[energy.groupby(chunks["filename"]).idxmax()] = True
    return loud


def thinned(chunks: pd.DataFrame, column: str, limit: int | None) -> pd.DataFrame:
    """At most `limit` chunks of each value of `column`, spread evenly over it; all of them when it is None."""
    if limit is None:
        return chunks
    place = chunks.groupby(column).cumcount()
    count = chunks.groupby(column)["start_s"].transform("size")
    share = np.minimum(limit, count) / count
    # A chunk is used whenever the running total of shares passes a half, one and a half, ...: from the middle of each
    # stretch, and not from its end, where the padded tail is.
    return chunks[np.floor((place + 1) * share + 0.5 + 1e-9) > np.floor(place * share + 0.5 + 1e-9)]


def index(filenames: list[str], data_dir: Path, config: Config) -> Index:
    """Decodes every file once, many at a time.

    Parameters
    ----------
    filenames : names in ``train_audio/`` of `data_dir`.

    A file that cannot be decoded is a row of ``problems`` and costs nothing else.
    """
    folder = data_dir / "train_audio"
    results = map_files(
        lambda name: _index_file(folder / name, config),
        filenames,
        config.compute.file_time_limit_s,
        config.compute.workers,
        "cutting into chunks",
    )
    tables, hashes, problems = {}, {}, {}
    for name, result in results:
        if isinstance(result, Failure):
            problems[name] = result.reason.removeprefix(f"{folder / name}: ")
        else:
            tables[name], hashes[name] = result
    chunks = pd.concat({name: tables[name] for name in sorted(tables)}, names=["filename"]) if tables else _no_chunks()
    chunks = chunks.reset_index("filename").reset_index(drop=True).astype({"filename": "str"})
    return Index(chunks, pd.Series(hashes, dtype="str").sort_index(), problems)


def indexed(run: Run, filenames: list[str]) -> Index:
    """`index` of a run's data, kept in its tables ``chunks`` and ``audio``: what was decoded before is not again.

    That holds as long as the files (names and sizes) and the settings of ``audio`` and ``chunks`` stay as they are;
    other settings, such as the silence filter's, change nothing here. Files that failed before are tried again.
    """
    noted = run.dir / "stages" / "index.json"
    key = {
        "settings": run.config.model_dump(mode="json", include={"audio", "chunks"}),
        "files": listing_digest(run.data_dir, ("train_audio",)),
        "version": birdlib.__version__,
    }
    before, hashes = None, pd.Series(dtype="str")
    if read_json(noted) == key:
        before, hashes = run.read_table("chunks"), run.read_table("audio").set_index("filename")["audio_hash"]
    noted.unlink(missing_ok=True)
    new = index([name for name in filenames if name not in hashes.index], run.data_dir, run.config)
    chunks = new.chunks if before is None else pd.concat([before, new.chunks]).sort_values(["filename", "start_s"])
    hashes = pd.concat([hashes, new.audio_hash]).sort_index()
    run.write_table("chunks", chunks)
    run.write_table("audio", hashes.rename_axis("filename").rename("audio_hash").reset_index())
    write_json(noted, key)
    return Index(chunks.reset_index(drop=True), hashes, new.problems)


def _no_chunks() -> pd.DataFrame:
    columns = {"filename": "str", "start_s": "float64", "rms_relative": "float32", "rms": "float32", "peak": "float32"}
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in columns.items()}).set_index("filename")


def _index_file(path: Path, config: Config) -> tuple[pd.DataFrame, str]:
    digest = hashlib.blake2b(digest_size=16)
    frame, hop = config.chunks.energy_frame, config.chunks.energy_hop
    rows, loudest = [], 0.0
    for start, samples, is_chunk in _cut(_hashed(audio.blocks(path, config.audio.sample_rate_hz), digest), config):
        rms = float(frame_rms(samples, frame, hop).max())
        loudest = max(loudest, rms)
        if is_chunk:
            rows.append((start / config.audio.sample_rate_hz, rms, float(np.abs(samples).max())))
    if not rows:
        raise audio.AudioError(f"{path}: holds no samples")
    start_s, rms, peak = (np.array(column) for column in zip(*rows, strict=True))
    relative = rms / loudest if loudest else np.zeros_like(rms)
    table = {"start_s": start_s} | {
        name: column.astype(np.float32) for name, column in (("rms_relative", relative), ("rms", rms), ("peak", peak))
    }
    return pd.DataFrame(table), digest.hexdigest()


def _hashed(blocks: Iterator[np.ndarray], digest) -> Iterator[np.ndarray]:
    for block in blocks:
        digest.update(audio.to_int16(block).tobytes())
        yield block


def _cut(blocks: Iterator[np.ndarray], config: Config) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Chunks in order, from blocks of any size, in the memory of a chunk and a block.

    Yields the start, float32 (chunk_samples,), and whether it is a chunk: what is left after the last chunk and is
    none itself comes too, since the loudest frame of the recording may lie there.
    """
    length, step = config.chunk_samples, config.step_samples
    start, rest = 0, np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= length:
            yield start, rest[:length], True
            start, rest = start + step, rest[step:]
    if len(rest):
        is_chunk = start in starts(start + len(rest), config)
        yield start, np.pad(rest, (0, length - len(rest))), is_chunk
