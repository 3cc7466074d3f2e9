"""The pcm store: recordings decoded once, each a file of int16 samples (`birdlib.pcm`), for quick reading.

It is a cache: it lies outside the run folder, in a folder per data set (names and sizes of its files) and form of audio
(the settings ``audio`` and ``chunks``), and can be deleted at any time. There is a file a recording,
``<filename>.pcm``; writing goes on where it was stopped. What is damaged is named in a warning, deleted, read from the
recording instead, and written again when the store is next filled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock, Timeout

from birdlib import kaggle_places, pcm
from birdlib.stages import listing_digest
from birdlib.writing import read_json, write_json

if TYPE_CHECKING:
    from birdlib.config import Config

FILE_OVERHEAD = 4096  # bytes a file that are no samples: the footer, and what the file system rounds up to
FREE_SHARE = 0.5  # of what the disk has free, the store takes no more
_ASIDE = ".aside"


class StoreError(RuntimeError):
    """The pcm store cannot be used: where it should lie, why not, and what to set."""


def default_dir() -> Path:
    """Where stores lie if ``sources.store_dir`` does not say: Kaggle's scratch disk, else the user's cache folder."""
    if kaggle_places.here():
        return kaggle_places.scratch()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "birdlib" / "pcm"


def open_store(data_dir: Path, config: Config) -> Store | None:
    """The store of a data folder under these settings; None where ``sources.kind`` wants none or has no place for it.

    Raises
    ------
    StoreError
        if the kind is "pcm" and the folder cannot be made; with "auto" that is a warning.
    """
    if config.sources.kind == "lazy":
        return None
    parts = config.model_dump(mode="json", include={"audio", "chunks"})
    parts["files"] = listing_digest(Path(data_dir), ("train_audio",))
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(config.sources.store_dir or default_dir()) / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"the pcm store cannot lie in {folder.parent} ({error.strerror}): set sources.store_dir"
        if config.sources.kind == "pcm":
            raise StoreError(f"{reason}, or sources.kind=lazy") from None
        warnings.warn(f"{reason}; chunks are decoded whenever they are read", stacklevel=2)
        return None
    return Store(folder)


class Store:
    """A folder of decoded recordings. It can be sent to other processes; several may use it at once.

    ``full`` is set by who finds the disk full, so that not every recording after that is begun in vain.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.full = Path(folder), False
        self._noted: dict[str, pcm.Noted] = {}
        self._paths: dict[str, str] = {}  # making a path takes longer than opening a file

    def __reduce__(self):
        return Store, (self.folder,)

    def path(self, filename: str) -> Path:
        """Where a recording lies, or would. Raises `StoreError` for a name that leads out of the store."""
        if PurePosixPath(filename).is_absolute() or ".." in PurePosixPath(filename).parts:
            raise StoreError(f"{filename} leads out of the pcm store")
        return self.folder / f"{filename}.pcm"

    def read(self, filename: str, first: int, count: int) -> np.ndarray | None:
        """`count` samples from `first` on: int16 (count,), zeros after the end of the recording.

        A view into the file where it can be (read-only), else a copy; None if they are not, or not all, in the store.
        """
        try:
            found = self._opened(filename)
            return pcm.samples(*found, first, count) if found else None
        except (pcm.DamagedError, OSError) as error:
            self._give_up(filename, error)
            return None

    def held(self, filename: str) -> pcm.Held | None:
        """What is there of a recording; None if nothing. The footer is checked, the samples are when they are read."""
        try:
            found = self._opened(filename)
        except (pcm.DamagedError, OSError) as error:
            self._give_up(filename, error)
            return None
        return found[1].held if found else None

    def remove(self, filename: str) -> None:
        """Takes a recording out."""
        self._noted.pop(filename, None)
        self.path(filename).unlink(missing_ok=True)

    def shrink(self, filename: str, ranges: pcm.Ranges) -> OSError | None:
        """Keeps of a stored recording these ranges only, all of which are there; the error if it cannot be written."""
        if not ranges or (held := self.held(filename)) is None:
            self.remove(filename)
            return None
        parts = [self.read(filename, first, count) for first, count in ranges]
        if any(part is None for part in parts):
            return None  # found damaged just now, and removed
        with self.writer(filename, ranges) as writer:
            for (first, _), part in zip(ranges, parts, strict=True):
                writer.skip_to(first)
                writer.add(part)
            writer.skip_to(held.samples)
            writer.keep()
        return writer.error

    def tell(self, errors: list[str]) -> None:
        """Warns of recordings that could not be written, if there are any."""
        if errors:
            reasons = ", ".join(sorted(set(errors)))
            warnings.warn(
                f"{len(errors):,} recordings are not in the pcm store in {self.folder} ({reasons}): they are decoded "
                "whenever a chunk of them is read",
                stacklevel=3,
            )
            self.forget_budget()

    def names(self) -> Iterator[str]:
        """The filenames of the recordings that are there."""
        for root, _, files in os.walk(self.folder):
            below = Path(root).relative_to(self.folder)
            yield from ((below / name[:-4]).as_posix() for name in files if name.endswith(".pcm"))

    def bytes_used(self) -> int:
        """What all of its recordings take on the disk, about."""
        return sum(self.path(name).stat().st_size for name in self.names())

    def budget(self, limit_gb: float) -> int:
        """How many bytes it may take: `limit_gb`, but no more than `FREE_SHARE` of what the disk has for it.

        The answer is noted, so that it stays the same while the store and the disk fill up; it changes with
        `limit_gb`, when the disk has got much more room, and after `forget_budget`.
        """
        note = self.folder / "store.json"
        noted = read_json(note)
        room = self.bytes_used() + FREE_SHARE * shutil.disk_usage(self.folder).free
        now = int(min(limit_gb * 1e9, room))
        # A disk that the store fills to its share makes `room` up to a fifth larger.
        if noted.get("limit_gb") != limit_gb or now > 1.25 * noted["bytes"]:
            noted = {"limit_gb": limit_gb, "bytes": now}
            with contextlib.suppress(OSError):
                write_json(note, noted)
        return noted["bytes"]

    def forget_budget(self) -> None:
        """Has `budget` look at the disk again."""
        (self.folder / "store.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool]:
        """Whether this process alone may write now; another one may hold the store, or it may be read-only.

        What an earlier process left half-written is swept away.
        """
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except (Timeout, OSError) as error:
            why = "another process fills it" if isinstance(error, Timeout) else error.strerror
            warnings.warn(f"nothing is added to the pcm store in {self.folder} now ({why})", stacklevel=3)
            yield False
            return
        try:
            shutil.rmtree(self.folder / _ASIDE, ignore_errors=True)
            yield True
        finally:
            lock.release()

    def writer(self, filename: str, ranges: pcm.Ranges | None = None) -> pcm.Writer:
        """Takes the samples of a recording; what is there of it stays until the writer has all."""
        return pcm.Writer(self.path(filename), self.folder / _ASIDE, ranges)

    def _opened(self, filename: str) -> tuple[mmap.mmap, pcm.Noted] | None:
        path = self._paths.get(filename) or self._paths.setdefault(filename, str(self.path(filename)))
        try:
            whole, noted = pcm.opened(path, self._noted.get(filename))
        except (FileNotFoundError, NotADirectoryError):
            return None
        self._noted[filename] = noted
        return whole, noted

    def _give_up(self, filename: str, error: pcm.DamagedError | OSError) -> None:
        path, why = self.path(filename), getattr(error, "strerror", None) or error
        if isinstance(error, pcm.DamagedError):
            with contextlib.suppress(OSError):
                self.remove(filename)
        word = "is damaged" if isinstance(error, pcm.DamagedError) else "cannot be read"
        warnings.warn(f"{path} {word} ({why}): what it held is read from the recording itself", stacklevel=4)
