"""Where a chunk's samples come from: decoded whenever they are asked for, or out of the pcm store."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from birdlib import audio, chunks
from birdlib.parallel import Failure, map_files
from birdlib.pcm import Held, Ranges, is_full, merged
from birdlib.store import Store, open_store

if TYPE_CHECKING:
    from birdlib.config import Config
    from birdlib.runs import Run


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
        if not len(samples):
            raise audio.AudioError(f"{self.folder / filename}: ends before {start_s:g} s, where a chunk was")
        return np.pad(audio.to_int16(samples), (0, self.chunk_samples - len(samples)))


class PcmSource:
    """Reads a chunk from the pcm store, within one step of int16 of what `LazySource` gives; what is not there, lazily.

    A chunk that lies whole in the store is a read-only view into it: copy it on, and do not hoard views.
    """

    def __init__(self, store: Store, lazy: LazySource) -> None:
        self.store, self.lazy = store, lazy
        self.sample_rate_hz, self.chunk_samples = lazy.sample_rate_hz, lazy.chunk_samples

    def read(self, filename: str, start_s: float) -> np.ndarray:
        """One chunk: int16 (chunk_samples,), zero-padded at the end. Raises `birdlib.audio.AudioError`."""
        samples = self.store.read(filename, round(start_s * self.sample_rate_hz), self.chunk_samples)
        return self.lazy.read(filename, start_s) if samples is None else samples


Source = LazySource | PcmSource


def by_settings(data_dir: Path, config: Config) -> Source:
    """The source that the settings name, as it is: nothing is written."""
    lazy, store = LazySource(data_dir, config), open_store(data_dir, config)
    return PcmSource(store, lazy) if store else lazy


def open_source(run: Run) -> Source:
    """The source of a run's chunks, after its store (if the settings have one) is filled: once, and then resumed.

    Warns if not all the chunks that the silence filter keeps are in the store, with how many are not.
    """
    source = by_settings(run.data_dir, run.config)
    if isinstance(source, PcmSource):
        table = run.read_table("chunks")
        fill(source.store, table, chunks.lengths(run, table["filename"].unique().tolist()), run.data_dir, run.config)
        here, kept = covered(source.store, table, run.config), chunks.kept(table, run.config.silence)
        if not here[kept].all():
            warnings.warn(
                f"{here[kept].sum():,} of {kept.sum():,} chunks that are not silent are in the pcm store "
                f"({source.store.bytes_used() / 1e9:.3g} GB in {source.store.folder}); the other "
                f"{(~here[kept]).sum():,} are decoded whenever they are read",
                stacklevel=2,
            )
    return source


def covered(store: Store, table: pd.DataFrame, config: Config) -> np.ndarray:
    """Which chunks (filename, start_s) lie whole in the store: bool, in the order of `table`."""
    start = np.round(table["start_s"].to_numpy() * config.audio.sample_rate_hz).astype(int)
    result = np.zeros(len(table), bool)
    for name, rows in table.reset_index(drop=True).groupby("filename").indices.items():
        if held := store.held(name):
            ends = np.minimum(start[rows] + config.chunk_samples, held.samples)
            result[rows] = [held.find(first, end) is not None for first, end in zip(start[rows], ends, strict=True)]
    return result


def fill(store: Store, table: pd.DataFrame, lengths: pd.Series, data_dir: Path, config: Config) -> None:
    """Brings the store to what it should hold: all, or what `birdlib.ration` chooses of it. Goes on where it stopped.

    What is stored already is not decoded again. While another process fills the store, nothing is done.

    Parameters
    ----------
    table : the chunk table. lengths : of its recordings in samples (`birdlib.chunks.lengths`).
    """
    budget = chunks.samples_for(store, table["filename"].nunique(), config)
    wanted = chunks.wanted(table, lengths, config, budget)
    with store.locked() as mine:
        if not mine:
            return
        if any(starts is not None for starts in wanted.values()):  # room is short: what is another run's has to go
            for name in set(store.names()) - wanted.keys():
                store.remove(name)
        errors, missing = [], []
        for name, starts in wanted.items():
            held = store.held(name)
            ranges = held and _ranges(held, starts, config)
            if held is None or any(held.find(first, first + count) is None for first, count in ranges):
                missing.append((name, starts))
            elif held.ranges != ranges and (error := store.shrink(name, ranges)):
                errors.append(error.strerror or str(error))
        for _, result in map_files(
            lambda item: _decode(store, data_dir, config, *item),
            missing,
            config.compute.file_time_limit_s,
            config.compute.workers,
            "filling the pcm store" if missing else None,
            config.compute.cluster,
            [data_dir / "train_audio", store.folder],
        ):
            errors += [result.reason] if isinstance(result, Failure) else [result] if result else []
        store.tell(errors)


def _ranges(held: Held, starts: np.ndarray | None, config: Config) -> Ranges:
    return ((0, held.samples),) if starts is None else merged(starts, config.chunk_samples, held.samples)


def _decode(store: Store, data_dir: Path, config: Config, filename: str, starts: np.ndarray | None) -> str | None:
    """Puts a recording into the store; the reason if it cannot be written."""
    if store.full:
        return "the disk is full"
    path, rate = data_dir / "train_audio" / filename, config.audio.sample_rate_hz
    # Chunks are padded at the end of the recording; that the ranges end there is known when it is reached.
    ranges = None if starts is None else merged(starts, config.chunk_samples, 2**62)
    with store.writer(filename, ranges) as writer:
        for block in audio.blocks(path, rate):
            writer.add(audio.to_int16(block))
        writer.keep()
    if writer.error:
        store.full = is_full(writer.error)
        return writer.error.strerror or str(writer.error)
    return None
