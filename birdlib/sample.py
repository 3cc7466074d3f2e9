"""The built-in sample data set: a synthetic corpus in the exact layout of BirdCLEF.

Small enough to try everything in minutes, hard enough to mean something: twelve species in alike pairs, uneven
numbers of recordings, noise, distance, silence, other species in the background, one stereo file at 44.1 kHz and one
that cannot be read. `birdlib.songs` makes the sound, `birdlib.ogg` its bytes; this module plans the recordings and
writes the files.

Chance is an address: every draw is a function of (seed, purpose, item), so any file can be made alone and is the
same, byte for byte, in any order and any thread.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from birdlib import ogg, songs
from birdlib.songs import RATE_HZ

VERSION = 1
MARKER = "synthetic.json"
AUTHORS = 14
SOUNDSCAPES = (("test", 60), ("test", 60), ("test", 90), ("unlabeled", 60), ("unlabeled", 60))  # kind, seconds


class SampleError(ValueError):
    """The sample data set cannot be written there, and why."""


@dataclass(frozen=True)
class Species:
    """One made-up species: its names, its traits and how many recordings there are of it."""

    label: str
    scientific_name: str
    common_name: str
    recordings: int
    iucn: str = "LC"
    nocturnal_soib: int = 0
    nocturnal_eltontraits: int = 0


SPECIES = (
    Species("synbuz1", "Synthetica susurrans", "Synthetic Buzzer", 22),
    Species("synbuz2", "Synthetica inversa", "Synthetic Backward Buzzer", 18, iucn="VU"),
    Species("synmew1", "Synthetica arcuata", "Synthetic Arched Mewer", 27, nocturnal_soib=1, nocturnal_eltontraits=1),
    Species("synmew2", "Synthetica pendula", "Synthetic Sagging Mewer", 15, nocturnal_soib=1),
    Species("synrun1", "Synthetica properans", "Synthetic Quickening Runner", 12, iucn="NT"),
    Species("synrun2", "Synthetica tardans", "Synthetic Slowing Runner", 20),
    Species("synsli1", "Synthetica ascendens", "Synthetic Rising Slider", 33),
    Species("synsli2", "Synthetica descendens", "Synthetic Falling Slider", 8),
    Species("syntri1", "Synthetica trillans", "Synthetic Slow Triller", 40),
    Species("syntri2", "Synthetica velox", "Synthetic Fast Triller", 10, iucn="VU"),
    Species("syntwo1", "Synthetica cadens", "Synthetic Falling Two-tone", 6),
    Species("syntwo2", "Synthetica surgens", "Synthetic Rising Two-tone", 4),
)
STEREO = ("synbuz1", 2)  # the recording (label, which of its recordings) that is stereo at 44.1 kHz
UNREADABLE = ("syntri1", 4)


class _For(IntEnum):
    """What a draw is for: the second part of its address."""

    PLAN = 1
    METADATA = 2
    AUTHORS = 3
    MICROPHONE = 4
    SONG = 5
    GARBAGE = 6
    BOUTS = 7
    PLACE = 8


@dataclass(frozen=True)
class Take:
    """One recording as planned, before any sound is made."""

    item: int
    species: Species
    number: int
    author: int
    others: tuple[str, ...]
    duration_s: float
    snr_db: float

    @property
    def filename(self) -> str:
        """Path under ``train_audio``."""
        return f"{self.species.label}/SYN{1001 + self.item}.ogg"


def write(folder: Path, seed: int = 0) -> Path:
    """Writes the data set.

    It is written aside and then renamed into place, so `folder` holds all of it or nothing. If it already holds
    this very version and seed, whole, nothing is done.

    Parameters
    ----------
    folder : where to; missing or empty, its parents are made.
    seed : rules every draw; the same seed gives the same bytes.

    Returns
    -------
    `folder`

    Raises
    ------
    SampleError
        if `folder` holds something else, or cannot be written, or `seed` is negative.
    """
    folder = Path(folder)
    if seed < 0:
        raise SampleError(f"seed {seed}: must not be negative")
    if is_complete(folder, seed):
        return folder
    aside = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}.partial")
    try:
        _refuse_foreign(folder)
        shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed and had our number
        aside.mkdir(parents=True)
        _fill(aside, seed)
        if folder.exists():
            folder.rmdir()
        aside.rename(folder)
    except OSError as error:
        if not is_complete(folder, seed):  # else another process was faster
            raise SampleError(f"{folder}: the sample data set cannot be written there: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def is_complete(folder: Path, seed: int = 0) -> bool:
    """Whether `folder` holds this version of the data set for this seed, every file at its full size."""
    try:
        marker = json.loads((Path(folder) / MARKER).read_text(encoding="utf-8"))
        if marker["birdlib_sample"] != VERSION or marker["seed"] != seed:
            return False
        return all((Path(folder) / name).stat().st_size == size for name, size in marker["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise SampleError(f"{folder}: is a file; the sample data set needs a new or empty folder")
    if (folder / MARKER).exists():
        raise SampleError(f"{folder}: holds a sample data set of another version or seed, or a changed one; remove it")
    if folder.exists() and any(folder.iterdir()):
        raise SampleError(f"{folder}: is not empty; the sample data set needs a new or empty folder")


def _fill(folder: Path, seed: int) -> None:
    takes = plan(seed)
    _write_csv(folder / "train_metadata.csv", _metadata(takes, seed))
    _write_csv(folder / "traits.csv", _traits())
    (folder / "README.md").write_text(_README.format(version=VERSION, seed=seed), encoding="utf-8")
    jobs: dict[str, Callable[[], bytes]] = {}
    for take in takes:
        jobs[f"train_audio/{take.filename}"] = lambda take=take: recording(take, seed)
    for item in range(len(SOUNDSCAPES)):
        jobs[_soundscape_path(item)] = lambda item=item: soundscape(item, seed)
    _write_all(folder, jobs)
    _write_csv(folder / "test_soundscapes_truth.csv", _truth(seed))
    _write_csv(folder / "sample_submission.csv", _submission())
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*.*"))}
    marker = {"birdlib_sample": VERSION, "seed": seed, "files": files}
    (folder / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")


def plan(seed: int) -> list[Take]:
    """Every recording of the data set as planned, in the order of the metadata."""
    takes: list[Take] = []
    for item, species in enumerate(SPECIES):
        first = _rng(seed, _For.AUTHORS, item).permutation(AUTHORS)[:4]
        for number in range(species.recordings):
            rng = _rng(seed, _For.PLAN, len(takes))
            # The first four are by different people, so that a split by author can hold each species out.
            author = int(first[number]) if number < 4 else _author(rng)
            duration_s = round(3 * (40 / 3) ** rng.beta(1.2, 2.0), 2)  # seldom long
            takes.append(
                Take(len(takes), species, number, author, _others(rng, species), duration_s, rng.uniform(4, 30))
            )
    return takes


def recording(take: Take, seed: int) -> bytes:
    """The file of a recording, Ogg Vorbis (of the one unreadable recording: nothing of the kind)."""
    here = (take.species.label, take.number)
    if here == UNREADABLE:
        return _rng(seed, _For.GARBAGE, take.item).bytes(20_000)
    samples = round(take.duration_s * RATE_HZ)
    rng = _rng(seed, _For.SONG, take.item)
    audio = songs.recording(take.species.label, take.others, samples, take.snr_db, _microphone(seed, take.author), rng)
    if here == STEREO:
        import soxr

        wide = soxr.resample(audio, RATE_HZ, 44_100).astype(np.float32)
        return ogg.encode(np.stack([wide, 0.8 * np.roll(wide, 20)], axis=1), 44_100, _serial(seed, take.filename))
    return ogg.encode(audio, RATE_HZ, _serial(seed, take.filename))


def soundscape(item: int, seed: int) -> bytes:
    """The file of a soundscape, Ogg Vorbis; `item` counts through `SOUNDSCAPES`."""
    samples = SOUNDSCAPES[item][1] * RATE_HZ
    audio = songs.soundscape(
        _bouts(item, seed), samples, _microphone(seed, AUTHORS + item), _rng(seed, _For.PLACE, item)
    )
    return ogg.encode(audio, RATE_HZ, _serial(seed, _soundscape_path(item)))


def _write_all(folder: Path, jobs: dict[str, Callable[[], bytes]]) -> None:
    def one(name: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jobs[name]())

    # numpy, the FFT and libsndfile let go of the interpreter, so threads are enough.
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        list(tqdm(pool.map(one, jobs), "sample data", len(jobs), unit="file", mininterval=1.0))


def _rng(seed: int, purpose: _For, item: int) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, item])


def _serial(seed: int, name: str) -> int:
    return zlib.crc32(f"{seed}/{name}".encode())


def _microphone(seed: int, author: int) -> np.ndarray:
    return songs.colour(_rng(seed, _For.MICROPHONE, author))


def _author(rng: np.random.Generator) -> int:
    weights = 1 / np.arange(1, AUTHORS + 1) ** 0.8
    return int(rng.choice(AUTHORS, p=weights / weights.sum()))


def _others(rng: np.random.Generator, species: Species) -> tuple[str, ...]:
    labels = [other.label for other in SPECIES if other != species]
    return tuple(sorted(rng.choice(labels, rng.choice(3, p=[0.75, 0.19, 0.06]), replace=False).tolist()))


def _soundscape_path(item: int) -> str:
    kind = SOUNDSCAPES[item][0]
    name = f"{'soundscape_' if kind == 'test' else ''}{900_001 + item}.ogg"
    return f"{kind}_soundscapes/{name}"


def _metadata(takes: list[Take], seed: int) -> pd.DataFrame:
    return pd.DataFrame([_metadata_row(take, seed) for take in takes])


def _metadata_row(take: Take, seed: int) -> dict[str, object]:
    rng = _rng(seed, _For.METADATA, take.item)
    located = rng.uniform() > 0.04
    rated = rng.uniform() > 0.1
    north = rng.uniform(9.0, 15.0)
    east = 77.25 - 0.55 * (north - 8.4) + rng.uniform(0.2, 0.9)  # inland of the coast, along the Western Ghats
    kinds = (["song"], ["call"], ["song", "call"], ["song", "adult", "sex uncertain"], [""])
    return {
        "primary_label": take.species.label,
        "secondary_labels": str(list(take.others)),
        "type": str(kinds[rng.choice(len(kinds), p=[0.6, 0.15, 0.1, 0.1, 0.05])]),
        "latitude": round(north, 4) if located else None,
        "longitude": round(east, 4) if located else None,
        "scientific_name": take.species.scientific_name,
        "common_name": take.species.common_name,
        "author": f"Synthetic recordist {take.author + 1:02d}",
        "license": "CC0 (synthetic)",
        "rating": _rating(take, rng) if rated else 0.0,
        "url": "synthetic",
        "filename": take.filename,
    }


def _rating(take: Take, rng: np.random.Generator) -> float:
    """From 0.5 to 5 in steps of 0.5: people like recordings with little noise."""
    return float(np.clip(round(2 * rng.normal(take.snr_db / 6, 0.8)) / 2, 0.5, 5.0))


def _traits() -> pd.DataFrame:
    columns = ["scientific_name", "iucn", "nocturnal_soib", "nocturnal_eltontraits"]
    rows = [{"primary_label": one.label} | {name: getattr(one, name) for name in columns} for one in SPECIES]
    table = pd.DataFrame(rows)
    table.insert(3, "iucn_source", "synthetic")
    return table


def _bouts(item: int, seed: int) -> list[tuple[str, int, np.ndarray]]:
    return songs.bouts(SOUNDSCAPES[item][1] * RATE_HZ, _rng(seed, _For.BOUTS, item))


def _truth(seed: int) -> pd.DataFrame:
    rows = []
    for item in [item for item, (kind, _) in enumerate(SOUNDSCAPES) if kind == "test"]:
        name = Path(_soundscape_path(item)).name
        for label, start, layer in _bouts(item, seed):
            rows.append((name, round(start / RATE_HZ, 2), round((start + len(layer)) / RATE_HZ, 2), label))
    return pd.DataFrame(rows, columns=["filename", "start_s", "end_s", "primary_label"])


def _submission() -> pd.DataFrame:
    """As the competition's: a few rows of the first soundscape, every species as likely as the next."""
    stem = Path(_soundscape_path(0)).stem
    table = pd.DataFrame({"row_id": [f"{stem}_{end_s}" for end_s in (5, 10, 15)]})
    return table.assign(**{species.label: 1 / len(SPECIES) for species in SPECIES})


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    path.write_text(table.to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="\n")


_README = """# Synthetic bird recordings

Everything here is made up: the species, their songs, the people, the places. No bird was recorded. It is the
built-in sample data set of birdlib (version {version}, seed {seed}), in the layout of BirdCLEF, to try everything out.

- `train_metadata.csv`, `train_audio/`: recordings of 12 species. One file cannot be read and one is stereo at 44.1 kHz,
  on purpose.
- `test_soundscapes/` with `test_soundscapes_truth.csv` (who sings from when to when), `unlabeled_soundscapes/`.
- `traits.csv`: made-up conservation status and nocturnality.
- `synthetic.json`: version, seed, and every file with its size in bytes.
"""
