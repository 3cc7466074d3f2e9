"""A check-up of a data folder before a long run: every recording is decoded whole, and nothing is written.

What is found is ``unreadable``, ``missing`` or ``duplicated``, which loses recordings or spoils results, or
``suspicious``: used as it is, and worth a look.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from birdlib import audio, folders, metadata
from birdlib.parallel import Failure, map_files

if TYPE_CHECKING:
    from birdlib.config import Config

BAD = ("unreadable", "missing", "duplicated")
FINDINGS = (*BAD, "suspicious")
# Of 100 recordings from xeno-canto the faintest peaks at 0.037, and one has more than 0.05 % of its samples at FULL.
QUIET = 0.01
FULL, CLIPPED_SHARE = 0.99, 0.01
SHORT_S, LONG_S = 1.0, 3600.0
UNREAD = "audio of a kind that is not read, and so not used: convert it"
_LARGEST_PAGE = 65_307  # bytes of an Ogg page
CANCELLED = 0.01  # the mean of the channels against the channels, in RMS: less, and they cancel each other


class Heard(NamedTuple):
    """What decoding all of a recording tells.

    ``cut_short`` is how that is known, if the end of the file is missing; ``digest`` the same for the same audio at
    the same rate, ``peak`` of the channels' mean; ``rms`` of the channels and ``mono_rms`` of their mean; ``clipped``
    and ``no_numbers`` are shares of all samples.
    """

    cut_short: str
    duration_s: float
    sample_rate_hz: int
    digest: str
    peak: float
    rms: float
    mono_rms: float
    clipped: float
    no_numbers: float


class CheckUp(NamedTuple):
    """What a check-up found.

    ``findings``: columns path, finding (of `FINDINGS`), reason; sorted. Then how much was looked at.
    """

    findings: pd.DataFrame
    recordings: int
    labels: int
    hours: float

    def counts(self) -> dict[str, int]:
        """How many findings there are of each kind."""
        return {kind: int((self.findings["finding"] == kind).sum()) for kind in FINDINGS}

    def clean(self, strict: bool = False) -> bool:
        """Whether nothing is unreadable, missing or duplicated; if ``strict``, nothing suspicious either."""
        return not self.findings["finding"].isin(FINDINGS if strict else BAD).any()


def check(data_dir: Path, config: Config) -> CheckUp:
    """Checks ``train_metadata.csv``, all of its recordings, and ``test_soundscapes``; paths are below `data_dir`.

    Raises
    ------
    birdlib.metadata.MetadataError
        if the folder or its metadata cannot be read at all.
    """
    recordings, problems = metadata.load(data_dir)
    labels = dict(zip("train_audio/" + recordings["filename"], recordings["primary_label"], strict=True))
    below = {name: f"train_audio/{name}" for name in recordings["filename"]}
    found = [(below.get(name, name), _kind_of_row(reason), reason) for name, reason in problems.items()]
    beside = filter(audio.is_audio, (data_dir / "test_soundscapes").glob("*"))
    extra = sorted(str(path.relative_to(data_dir)) for path in beside)
    there = [*(labels if metadata.has_audio(data_dir) else ()), *extra]
    if not metadata.has_audio(data_dir):
        found.append(("train_audio", "missing", f"there is no such folder; {len(labels):,} recordings should be in it"))
    compute, heard, top = config.compute, {}, data_dir.absolute()
    for name, result in map_files(
        lambda name: listen(top / name),
        there,
        compute.file_time_limit_s,
        compute.workers,
        "checking",
        compute.cluster,
        [top],
    ):
        if isinstance(result, Failure):
            reason = result.reason.removeprefix(f"{top / name}: ")
            found.append((name, "missing" if reason == "no such file" else "unreadable", reason))
        else:
            heard[name] = result
    found += [(name, "duplicated", reason) for name, reason in _duplicates(heard, labels)]
    usual_hz = pd.Series([one.sample_rate_hz for one in heard.values()]).mode()
    for name, one in heard.items():
        found += [(name, "suspicious", reason) for reason in _suspicions(one, usual_hz.iloc[0])]
    inside = list(folders.files(data_dir / "train_audio"))
    found += [(name, "suspicious", reason) for name, reason in _strays(data_dir, inside, set(labels) | set(problems))]
    found += [(name, "suspicious", reason) for name, reason in _links_out(data_dir, inside)]
    unread = filter(audio.is_unread, (data_dir / "test_soundscapes").glob("*"))
    found += [(str(path.relative_to(data_dir)), "suspicious", UNREAD) for path in unread]
    told = [tuple(map(audio.as_text, row)) for row in found]
    table = pd.DataFrame(told, columns=["path", "finding", "reason"], dtype="str")
    order = table["finding"].map(FINDINGS.index).rename("order")
    table = table.assign(order=order).sort_values(["order", "path", "reason"], ignore_index=True)
    hours = sum(one.duration_s for one in heard.values()) / 3600
    return CheckUp(table.drop(columns="order"), len(labels), len(set(labels.values())), hours)


def listen(path: Path) -> Heard:
    """Decodes all of a recording in bounded memory. Raises `birdlib.audio.AudioError`."""
    header = audio.info(path)
    digest = hashlib.sha1(str(header.sample_rate_hz).encode(), usedforsecurity=False)
    frames, peak = 0, 0.0
    sums = np.zeros(4)  # of squares of the channels, of squares of their mean, of full samples, of no numbers
    for block in audio.raw_blocks(path):
        mono = audio.mono(block)
        digest.update(audio.to_int16(mono))
        finite = np.abs(block) < audio.LARGEST
        block = np.where(finite, block, 0)
        frames, peak = frames + len(block), max(peak, float(np.abs(mono).max()))
        sums += _power(block), _power(mono), (np.abs(block) >= FULL).mean(axis=1).sum(), (~finite).mean(axis=1).sum()
    if not frames:
        raise audio.AudioError(f"{path}: holds no samples")
    power, mono_power, clipped, no_numbers = sums / frames
    return Heard(
        _cut_short(path, header.duration_s, frames / header.sample_rate_hz),
        frames / header.sample_rate_hz,
        header.sample_rate_hz,
        digest.hexdigest(),
        peak,
        math.sqrt(power),
        math.sqrt(mono_power),
        clipped,
        no_numbers,
    )


def _cut_short(path: Path, header_s: float, duration_s: float) -> str:
    """How it is known that the end of a file is missing; "" if it is not.

    libsndfile believes the file and not the header of a WAV, and counts the pages of an Ogg.
    """
    with open(path, "rb") as file:
        begin, size = file.read(8), file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LARGEST_PAGE))
        end = file.read()
    if begin[:4] == b"RIFF" and (said := int.from_bytes(begin[4:], "little") + 8) > size:
        return f"its header says {said:,} bytes, it has {size:,}"
    if begin[:4] == b"OggS" and not (end[end.rfind(b"OggS") + 5 :] or b"\4")[0] & 4:
        return "its last page does not say that it is the last"
    if math.isnan(header_s):
        return "it does not say how long it is"
    if abs(header_s - duration_s) > 0.1:
        return f"its header says {header_s:,.1f} s, it gives {duration_s:,.1f} s"
    return ""


def _power(samples: np.ndarray) -> float:
    """The sum over all frames of the channels' mean square, in float64."""
    return float(np.sum(np.square(samples, dtype=np.float64))) / (samples.shape[1] if samples.ndim > 1 else 1)


def _kind_of_row(reason: str) -> str:
    if reason.startswith(metadata.USED):
        return "suspicious"
    return "duplicated" if reason.startswith(metadata.SECOND) else "unreadable"


def _duplicates(heard: Mapping[str, Heard], labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    first: dict[str, str] = {}
    for name, one in sorted(heard.items()):
        if one.peak <= audio.HALF_STEP:
            continue  # silence of one length is always the same, and is found suspicious
        same = first.setdefault(one.digest, name)
        if same != name:
            ours, theirs = labels.get(name), labels.get(same)
            yield (
                name,
                f"the same audio as {same}"
                + (f", there under the label {theirs}" if ours and theirs and ours != theirs else ""),
            )


def _suspicions(one: Heard, usual_hz: int) -> Iterator[str]:
    if one.peak <= audio.HALF_STEP:
        yield "its channels cancel each other: mono is silence" if one.rms > audio.HALF_STEP else "digital silence"
    elif one.mono_rms < CANCELLED * one.rms:
        yield "its channels nearly cancel each other in mono"
    elif one.peak < QUIET:
        yield f"too quiet: its peak is {20 * math.log10(one.peak):.0f} dB under full scale".replace("-", "")
    if one.clipped > CLIPPED_SHARE:
        yield f"clipped: {one.clipped:.1%} of its samples are at full scale"
    if one.no_numbers:
        yield f"{one.no_numbers:.2%} of its samples are no finite numbers, or beyond any sound, and count as 0"
    if one.sample_rate_hz != usual_hz:
        yield f"odd rate: {one.sample_rate_hz:,} Hz, most have {usual_hz:,}"
    if one.cut_short:
        yield f"cut short: {one.cut_short}"
    if not SHORT_S <= one.duration_s <= LONG_S:
        yield f"{'short' if one.duration_s < SHORT_S else 'long'}: {one.duration_s:,.3g} s"


def _strays(data_dir: Path, files: list[Path], known: set[str]) -> Iterator[tuple[str, str]]:
    """Files that the metadata do not name; what macOS hides among them was not forgotten there."""
    for path in files:
        name = path.relative_to(data_dir).as_posix()
        if not path.name.startswith(".") and not {name, name.removeprefix("train_audio/")} & known:
            yield name, "not in train_metadata.csv, and so not used"


def _links_out(data_dir: Path, files: list[Path]) -> Iterator[tuple[str, str]]:
    """Links, to files and to folders, that lead out of ``train_audio``."""
    top = data_dir / "train_audio"
    inside, there = Path(os.path.realpath(top)), set()
    for path in files:
        there.update([path, *path.parents])
    for path in there:
        below = path != top and path.is_relative_to(top)
        if below and path.is_symlink() and inside not in Path(where := os.path.realpath(path)).parents:
            yield path.relative_to(data_dir).as_posix(), f"a link that leads out of the data folder, to {where}"
