"""One recording as a file of int16 samples: the format of the pcm store (`birdlib.store`).

::

    samples   int16, little-endian: the stored ranges of the recording, one after the other
    footer    JSON: samples in the whole recording, ranges [[first, count], ...], a CRC-32 a block of samples
    tail      length and CRC-32 of the footer, and a mark: 16 bytes

Neighbouring chunks overlap; a range holds what they share once. A file is written aside and then renamed, so there is
never half of one. It is mapped into memory to be read. A block's checksum is compared when a process first reads from
it: that costs about 0.1 ms a chunk, once, and whole recordings need not be read to trust five seconds of them. Nothing
is flushed to the disk file by file: what a power cut spoils, the checksums find.
"""

from __future__ import annotations

import array
import bisect
import contextlib
import errno
import json
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

BLOCK = 2**15  # samples a checksum: about a second
_TAIL = struct.Struct("<II8s")
_MARK = b"birdpcm1"

Ranges = tuple[tuple[int, int], ...]


class DamagedError(ValueError):
    """A file that is not what was written: in which way."""


class Held(NamedTuple):
    """What a file of the store holds: samples of the whole recording, and which ranges (first, count) are here."""

    samples: int
    ranges: Ranges

    @property
    def size(self) -> int:
        """Samples in the ranges."""
        return sum(count for _, count in self.ranges)

    def find(self, first: int, end: int) -> int | None:
        """Where in the file the samples from `first` to `end` of the recording begin; None if not all are here."""
        before = bisect.bisect_right(self.ranges, (first, self.samples)) - 1
        if before < 0 or end > sum(self.ranges[before]):
            return None
        return sum(count for _, count in self.ranges[:before]) + first - self.ranges[before][0]


class Noted:
    """A file's footer, as long as it is the same file; and which of its blocks were found to be whole."""

    def __init__(self, stamp: tuple[int, ...], held: Held, sums: array.array) -> None:
        self.stamp, self.held, self.sums, self.whole = stamp, held, sums, bytearray(len(sums))


def merged(starts: Iterable[int], length: int, samples: int) -> Ranges:
    """The ranges that chunks of `length` cover, those that touch as one, cut at the end of the recording."""
    ranges: list[list[int]] = []
    for start in sorted(int(start) for start in starts):
        end = min(start + length, samples)
        if ranges and start <= ranges[-1][1]:
            ranges[-1][1] = end
        elif end > start:
            ranges.append([start, end])
    return tuple((start, end - start) for start, end in ranges)


def opened(path: str | Path, noted: Noted | None = None) -> tuple[mmap.mmap, Noted]:
    """A file mapped into memory, and its footer: ``noted``, if that is of the same file.

    Raises
    ------
    OSError
        if it cannot be opened.
    DamagedError
        if its footer or its length is wrong.
    """
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        state = os.fstat(file)
        whole = mmap.mmap(file, 0, access=mmap.ACCESS_READ) if state.st_size else b""
    finally:
        os.close(file)
    stamp = (state.st_ino, state.st_size, state.st_mtime_ns)
    return whole, noted if noted is not None and noted.stamp == stamp else _footer(whole, stamp)


def samples(whole: mmap.mmap, noted: Noted, first: int, count: int) -> np.ndarray | None:
    """`count` samples of the recording from `first` on: int16 (count,), zeros after its end; None if not all are here.

    A view into the file where it can be (read-only), else a copy. Raises `DamagedError`.
    """
    end = min(first + count, noted.held.samples)
    if first >= end:
        return np.zeros(count, np.int16)
    place = noted.held.find(first, end)
    if place is None:
        return None
    _verify(whole, noted, place, place + end - first)
    view = np.frombuffer(whole, "<i2", end - first, 2 * place)
    if len(view) == count:
        return view
    padded = np.zeros(count, np.int16)
    padded[: len(view)] = view
    return padded


class Writer:
    """Takes a recording's samples as they are decoded. Nothing of it is at `path` until `keep`.

    A disk that is full (or any other OSError) does not raise: it is noted in ``error``, and the rest is ignored.

    Parameters
    ----------
    path : where it will lie.
    aside : a folder on the same disk, to write in.
    ranges : which samples to store; None: all.
    """

    def __init__(self, path: Path, aside: Path, ranges: Ranges | None = None) -> None:
        self.path, self.ranges, self.error = path, ranges, None
        self._at, self._in_block, self._sums = 0, 0, array.array("I")
        self._file = None
        with self._noting():
            aside.mkdir(exist_ok=True)
            handle, self._aside = tempfile.mkstemp(dir=aside)
            self._file = os.fdopen(handle, "wb", buffering=0)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_) -> None:
        if self._file is not None:
            self._file.close()
            with contextlib.suppress(OSError):
                os.unlink(self._aside)

    def add(self, samples: np.ndarray) -> None:
        """The next samples of the recording, int16."""
        first, end = self._at, self._at + len(samples)
        self._at = end
        if self.ranges is None:
            self._write(samples)
            return
        for start, count in self.ranges:
            if start < end and start + count > first:
                self._write(samples[max(0, start - first) : start + count - first])

    def skip_to(self, place: int) -> None:
        """The next samples that come are those from `place` on."""
        self._at = place

    def keep(self) -> None:
        """The recording is at its end: puts it in its place."""
        ranges = ((0, self._at),) if self.ranges is None else _cut(self.ranges, self._at)
        footer = json.dumps({"samples": self._at, "ranges": ranges, "crc": self._sums.tolist()}).encode()
        with self._noting():
            if self._file is None or self.error:
                return
            self._put(footer + _TAIL.pack(len(footer), zlib.crc32(footer), _MARK))
            self._file.close()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._aside, self.path)
            self._file = None

    def _write(self, samples: np.ndarray) -> None:
        data = memoryview(np.ascontiguousarray(samples, "<i2")).cast("B")
        place = 0
        while place < len(data):
            part = data[place : place + 2 * (BLOCK - self._in_block)]
            if self._in_block == 0:
                self._sums.append(0)
            self._sums[-1] = zlib.crc32(part, self._sums[-1])
            self._in_block = (self._in_block + len(part) // 2) % BLOCK
            place += len(part)
        with self._noting():
            if self._file is not None and not self.error:
                self._put(data)

    def _put(self, data: bytes | memoryview) -> None:
        data = memoryview(data)
        while len(data):  # a disk that fills up takes a part first
            data = data[self._file.write(data) :]

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error


def _cut(ranges: Ranges, samples: int) -> Ranges:
    return tuple((first, min(count, samples - first)) for first, count in ranges if first < samples)


def is_full(error: OSError) -> bool:
    """Whether it says that the disk, or the user's share of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _footer(whole: mmap.mmap | bytes, stamp: tuple[int, ...]) -> Noted:
    size = len(whole)
    if size < _TAIL.size:
        raise DamagedError("its end is missing")
    length, total, mark = _TAIL.unpack(whole[size - _TAIL.size :])
    footer = whole[max(0, size - _TAIL.size - length) : size - _TAIL.size]
    if mark != _MARK or zlib.crc32(footer) != total:
        raise DamagedError("its end is missing or wrong")
    found = json.loads(footer)
    held = Held(found["samples"], tuple((first, count) for first, count in found["ranges"]))
    if 2 * held.size + length + _TAIL.size != size:
        raise DamagedError("its length is wrong")
    return Noted(stamp, held, array.array("I", found["crc"]))


def _verify(whole: mmap.mmap, noted: Noted, first: int, end: int) -> None:
    for block in range(first // BLOCK, -(-end // BLOCK)):
        if not noted.whole[block]:
            data = memoryview(whole)[2 * block * BLOCK : 2 * min((block + 1) * BLOCK, noted.held.size)]
            if zlib.crc32(data) != noted.sums[block]:
                raise DamagedError(f"its samples from {block * BLOCK} on have changed")
            noted.whole[block] = 1
