"""Chunks: 5 s pieces of a recording every 4 s, how loud each is, and which count as silent.

All arithmetic is in samples. Energy is the largest short-time RMS within the chunk, over frames of 2,048 samples
every 512; the paper says "maximum energy level" and no more. It is kept absolute (``rms``), as the largest sample
(``peak``), and relative to the loudest frame of the recording (``rms_relative``), so that the filter can be changed
without decoding anything again.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

import birdlib
from birdlib import audio, ration
from birdlib.parallel import Failure, map_files
from birdlib.pcm import Writer, is_full, merged
from birdlib.stages import listing_digest
from birdlib.store import FILE_OVERHEAD, Store, open_store
from birdlib.writing import read_json, write_json

if TYPE_CHECKING:
    from birdlib.config import Config
    from birdlib.runs import Run
    from birdlib.settings import Silence

MEASURES = {"relative": "rms_relative", "rms": "rms", "peak": "peak"}
_SLACK = 64  # samples by which a recording may be longer than its header and resampling say
COLUMNS = {"start_s": np.float64, "rms_relative": np.float32, "rms": np.float32, "peak": np.float32}


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
    step = math.gcd(frame, hop)  # each piece of so many samples is squared once, whatever frames share it
    pieces = samples[: len(samples) // step * step].reshape(-1, step)
    energy = np.concatenate([[0.0], np.cumsum(np.einsum("ij,ij->i", pieces, pieces), dtype=np.float64)])
    first = np.arange(0, len(pieces) - frame // step + 1, hop // step)
    return np.sqrt(np.maximum(energy[first + frame // step] - energy[first], 0) / frame)


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


def index(
    filenames: list[str],
    data_dir: Path,
    config: Config,
    store: Store | None = None,
    lengths: pd.Series | None = None,
) -> Index:
    """Decodes every file once, many at a time.

    Parameters
    ----------
    filenames : names in ``train_audio/`` of `data_dir`.
    store : is filled in the same pass. If it cannot take all, each recording gets a share of the room, by its length,
        and keeps the most useful of its chunks; `birdlib.sources.fill` then knows better.
    lengths : how long the recordings are by their headers, in samples; those without a length are not stored yet.

    A file that cannot be decoded is a row of ``problems`` and costs nothing else.
    """
    folder = data_dir / "train_audio"
    rooms = _rooms(lengths.reindex(filenames), config, store) if store else dict.fromkeys(filenames, 0)
    results = map_files(
        lambda item: _index_file(folder / item[0], config, store, *item),
        [(name, rooms[name]) for name in filenames],
        config.compute.file_time_limit_s,
        config.compute.workers,
        "cutting into chunks",
        config.compute.cluster,
        [folder, *([store.folder] if store else [])],
    )
    tables, hashes, problems, unstored = {}, {}, {}, []
    for (name, _), result in results:
        if isinstance(result, Failure):
            problems[name] = result.reason.removeprefix(f"{folder / name}: ")
        else:
            tables[name], hashes[name], error = result
            unstored += [error] if error else []
    if store:
        store.tell(unstored)
    return Index(_table(tables), pd.Series(hashes, dtype="str").sort_index(), problems)


def indexed(run: Run, filenames: list[str]) -> Index:
    """`index` of a run's data, kept in its tables ``chunks`` and ``audio``: what was decoded before is not again.

    That holds as long as the files (names and sizes) and the settings of ``audio`` and ``chunks`` stay as they are;
    other settings, such as the silence filter's, change nothing here. Files that failed before are tried again. What
    is decoded goes into the pcm store too, if the settings have one.
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
    names = [name for name in filenames if name not in hashes.index]
    store = open_store(run.data_dir, run.config) if names else None
    with store.locked() if store else contextlib.nullcontext(False) as mine:
        into = (store, lengths(run, names)) if mine else ()
        new = index(names, run.data_dir, run.config, *into)
    chunks = new.chunks if before is None else pd.concat([before, new.chunks]).sort_values(["filename", "start_s"])
    hashes = pd.concat([hashes, new.audio_hash]).sort_index()
    # A recording may have been taken out of the metadata since, and its file be there still.
    chunks, hashes = chunks[chunks["filename"].isin(filenames)], hashes[hashes.index.isin(filenames)]
    # The note stays true until here, however long decoding took; of two tables, one may be written and the other not.
    noted.unlink(missing_ok=True)
    run.write_table("chunks", chunks)
    run.write_table("audio", hashes.rename_axis("filename").rename("audio_hash").reset_index())
    write_json(noted, key)
    return Index(chunks.reset_index(drop=True), hashes, new.problems)


def lengths(run: Run, filenames: list[str]) -> pd.Series:
    """How long recordings are by their headers, in samples (float64, nan where the header does not know), by filename.

    From the recordings table, if the run has it; else the headers are read.
    """
    if (run.dir / "tables" / "recordings.parquet").exists():
        seconds = run.read_table("recordings").set_index("filename")["duration_s"].reindex(filenames)
    else:
        seconds = pd.Series({name: _duration_s(run.data_dir / "train_audio" / name) for name in filenames}, dtype=float)
    return (seconds * run.config.audio.sample_rate_hz).round()


def _duration_s(path: Path) -> float:
    try:
        return audio.info(path).duration_s
    except audio.AudioError:
        return math.nan


def _rooms(lengths: pd.Series, config: Config, store: Store) -> dict[str, int]:
    """How many samples of each recording may go into the store: filename -> samples."""
    budget, known = samples_for(store, len(lengths), config), lengths.dropna()
    if known.sum() <= budget:
        return (lengths + _SLACK).fillna(0).astype(int).to_dict()
    found = [(name, start) for name, length in known.items() for start in starts(int(length), config)]
    table = pd.DataFrame(found, columns=["filename", "start_s"])
    table = table.assign(start_s=table["start_s"] / config.audio.sample_rate_hz, rms_relative=1.0, rms=1.0, peak=1.0)
    rooms = dict.fromkeys(lengths.index, 0)
    for name, chosen in wanted(table, lengths, config, budget).items():
        length = int(known[name])
        parts = ((0, length + _SLACK),) if chosen is None else merged(chosen, config.chunk_samples, length)
        rooms[name] = sum(count for _, count in parts)
    return rooms


def samples_for(store: Store, recordings: int, config: Config) -> int:
    """How many samples of so many recordings the store may hold."""
    return max(0, store.budget(config.sources.budget_gb) - recordings * FILE_OVERHEAD) // 2


def wanted(chunks: pd.DataFrame, lengths: pd.Series, config: Config, budget: int) -> dict[str, np.ndarray | None]:
    """What a store should hold: filename -> the starts of the chosen chunks in samples, None for the whole recording.

    Parameters
    ----------
    chunks : the chunk table. lengths : of the recordings in samples, nan where not known.
    budget : in samples. If it is enough, everything; else what `birdlib.ration` chooses.
    """
    rate, tail = config.audio.sample_rate_hz, config.chunks.tail_min_s
    start = (chunks["start_s"] * rate).round().astype(np.int64)
    rest = (chunks["filename"].map(lengths).astype(float) - start).fillna(np.inf).clip(lower=1)
    # What comes after the last chunk, and is too short to be one, belongs to it, where a recording goes in whole.
    most = np.where(chunks["filename"].duplicated(keep="last"), 0, round(tail * rate)) + config.chunk_samples
    places = pd.DataFrame(
        {
            "filename": chunks["filename"],
            "label": chunks["filename"].str.rpartition("/")[0],  # the folder: the primary label in BirdCLEF's layout
            "start": start,
            "samples": np.minimum(rest, most).astype(np.int64),
            "kept": kept(chunks, config.silence),
            "energy": chunks[MEASURES[config.silence.measure]],
        }
    )
    places = places.assign(chosen=ration.choose(places, config.chunk_samples, budget))
    return {
        name: None if mine["chosen"].all() else mine.loc[mine["chosen"], "start"].to_numpy()
        for name, mine in places.groupby("filename")
        if mine["chosen"].any()
    }


def _table(tables: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    names = sorted(tables)
    columns = {
        column: np.concatenate([np.zeros(0, dtype), *(tables[name][column] for name in names)])
        for column, dtype in COLUMNS.items()
    }
    counts = [len(tables[name]["start_s"]) for name in names]
    filenames = pd.Series(np.repeat(np.array(names, dtype=object), counts), dtype="str")
    return pd.DataFrame({"filename": filenames, **columns})


def _index_file(
    path: Path, config: Config, store: Store | None = None, filename: str = "", room: int = 0
) -> tuple[dict[str, np.ndarray], str, str | None]:
    """A recording's columns of the chunk table, its hash, and why it is not in the store if it should be."""
    digest = hashlib.sha1(usedforsecurity=False)  # with blake2b, a tenth of the time went into this
    frame, hop = config.chunks.energy_frame, config.chunks.energy_hop
    rows, loudest = [], 0.0
    wanted = store is not None and room > 0 and not store.full and store.held(filename) is None
    with store.writer(filename) if wanted else contextlib.nullcontext() as writer:
        blocks = _heard(audio.blocks(path, config.audio.sample_rate_hz), digest, writer)
        for start, samples, is_chunk in _cut(blocks, config):
            rms = float(frame_rms(samples, frame, hop).max())
            loudest = max(loudest, rms)
            if is_chunk:
                rows.append((start / config.audio.sample_rate_hz, rms, max(samples.max(), -samples.min())))
        if not rows:
            raise audio.AudioError(f"{path}: holds no samples")
        start_s, rms, peak = (np.array(column) for column in zip(*rows, strict=True))
        if peak.max() <= audio.HALF_STEP:
            raise audio.AudioError(f"{path}: holds nothing but digital silence, or channels that cancel each other")
        relative = rms / loudest if loudest else np.zeros_like(rms)
        found = {"start_s": start_s, "rms_relative": relative, "rms": rms, "peak": peak}
        found = {name: column.astype(COLUMNS[name]) for name, column in found.items()}
        if writer:
            writer.keep()
            error = _cut_down(store, writer, filename, found, room, config)
    return found, digest.hexdigest(), error if wanted else None


def _cut_down(
    store: Store, writer: Writer, filename: str, found: dict[str, np.ndarray], room: int, config: Config
) -> str | None:
    """Leaves in the store no more of a recording than it has room for; the reason if that, or writing it, failed."""
    held = None if writer.error else store.held(filename)
    if held and held.size > room:
        table = _table({filename: found})
        chosen = wanted(table, pd.Series({filename: held.samples}), config, room).get(filename, ())
        if chosen is not None:
            writer.error = store.shrink(filename, merged(chosen, config.chunk_samples, held.samples))
    if writer.error:
        store.full = store.full or is_full(writer.error)
        return writer.error.strerror or str(writer.error)
    return None


def _heard(blocks: Iterator[np.ndarray], digest, writer: Writer | None) -> Iterator[np.ndarray]:
    """The blocks as they are; on their way they go, as int16, into the hash and the store."""
    for block in blocks:
        steps = audio.to_int16(block)
        digest.update(steps)
        if writer:
            writer.add(steps)
        yield block


def _cut(blocks: Iterator[np.ndarray], config: Config) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Chunks in order, from blocks of any size, in the memory of two chunks and a block.

    Yields the start, float32 (chunk_samples,), and whether it is a chunk: what is left after the last chunk and is
    none itself comes too, since the loudest frame of the recording may lie there.
    """
    length, step = config.chunk_samples, config.step_samples
    start, held, chunk = 0, 0, np.empty(length, np.float32)
    for block in blocks:
        while held + len(block) >= length:
            chunk[held:], block = block[: length - held], block[length - held :]
            yield start, chunk, True
            start, held = start + step, length - step
            chunk = np.concatenate([chunk[step:], np.empty(step, np.float32)])
        chunk[held : held + len(block)] = block
        held += len(block)
    if held:
        is_chunk = start in starts(start + held, config)
        yield start, np.pad(chunk[:held], (0, length - held)), is_chunk
