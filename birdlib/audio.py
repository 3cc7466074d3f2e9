"""Decoding: any file libsndfile reads -> float32 mono at the rate asked for, or one `AudioError`.

Everything here reads a file from front to back in blocks, or one stretch of it; nothing holds a long recording.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

SUFFIXES = (".ogg", ".wav", ".flac", ".mp3", ".opus", ".oga", ".aif", ".aiff", ".w64", ".rf64", ".caf", ".au")
# Sound as well, which libsndfile does not decode.
UNREAD = (".m4a", ".aac", ".mp4", ".wma", ".wac", ".amr", ".3gp", ".ape", ".wv", ".mka", ".webm")
BLOCK_S = 4.0  # what is done to a block finds it in the processor's cache
BLOCK_SAMPLES = 2**23  # and what a header says of rate and channels makes no block larger than this
MAX_HEADER_FRAMES = 2**48  # a truncated Ogg says 2**63 - 1; no recording has 2**48 frames
RATES_HZ = (1_000, 1_000_000)  # outside of it, a header is wrong; a file of 1 Hz would grow to 32,000 times its size
LARGEST = np.float32(1e15)  # a float WAV can hold numbers that are finite, and no sound
HALF_STEP = 0.5 / 32768  # what is no louder is silence as int16
# A Vorbis seek into the last page of an Ogg is off by what was trimmed from its end; pages are shorter than this.
LAST_PAGE_S = 3.0
MARGIN_S = 0.05  # longer than half the resampler's filter at any rate in use
# A WAV's header counts its bytes in 32 bits: recorders that go on behind that leave a number that is too small.
LARGE_BYTES, BEHIND_BYTES = 2**31, 2**20
_SAMPLE_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_UNDECODED = re.compile("[\udc80-\udcff]")  # how Python carries the bytes of a name that are no UTF-8


class AudioError(ValueError):
    """A file that does not give audio; the message says which and why."""


class Info(NamedTuple):
    """What a file's header says: length in seconds (nan where the header does not know), rate in Hz, channels."""

    duration_s: float
    sample_rate_hz: int
    channels: int


def is_audio(path: Path) -> bool:
    """Whether a file's name says that it is audio; those that macOS hides beside it ("._x.wav") do not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def is_unread(path: Path) -> bool:
    """Whether a file's name says that it is audio of a kind that nothing here decodes."""
    return path.suffix.lower() in UNREAD and not path.name.startswith(".")


def info(path: Path) -> Info:
    """What the header of `path` says. Raises `AudioError` if it is not an audio file."""
    with _opened(path) as file:
        frames = file.frames if 0 <= file.frames < MAX_HEADER_FRAMES else math.nan
        return Info(frames / file.samplerate, file.samplerate, file.channels)


def blocks(path: Path, sample_rate_hz: int) -> Iterator[np.ndarray]:
    """The whole recording from front to back, a block at a time.

    Yields
    ------
    block : float32 (samples,), mono, at `sample_rate_hz`, some `BLOCK_S` seconds long.

    Raises
    ------
    AudioError
        if the file cannot be opened, or breaks on the way.
    """
    with _opened(path) as file:
        resample = _resampler(file.samplerate, sample_rate_hz)
        for frames in _frames(file):
            yield resample(mono(frames), False)
        yield resample(np.zeros(0, np.float32), True)


def raw_blocks(path: Path) -> Iterator[np.ndarray]:
    """The whole recording as the file has it, a block at a time: float32 (frames, channels), at the file's own rate.

    What is no finite number stays. Raises `AudioError` as `blocks` does.
    """
    with _opened(path) as file:
        yield from _frames(file)


def read(path: Path, sample_rate_hz: int, start: int = 0, samples: int | None = None) -> np.ndarray:
    """One stretch of a recording.

    Parameters
    ----------
    sample_rate_hz : rate of the result; `start` and `samples` count at this rate.
    start, samples : the stretch; all the rest when `samples` is None. It is shorter where the recording ends.

    Returns
    -------
    audio : float32 (samples,), mono; the same samples that `blocks` gives there.

    Raises
    ------
    AudioError
        if the file cannot be opened or read there.
    """
    if samples is None:
        return np.concatenate(list(blocks(path, sample_rate_hz)))[start:]
    with _opened(path) as file:
        if file.samplerate == sample_rate_hz:
            return _stretch(file, start, samples)
        import soxr

        # Begin where a source sample and a result sample fall together, or the two would differ by a phase.
        common = math.gcd(file.samplerate, sample_rate_hz)
        source_step, step = file.samplerate // common, sample_rate_hz // common
        margin = math.ceil(MARGIN_S * sample_rate_hz / step)
        first, last = max(0, start // step - margin), (start + samples) // step + margin + 1
        source = _stretch(file, first * source_step, (last - first) * source_step)
        result = soxr.resample(source, file.samplerate, sample_rate_hz)
        return np.ascontiguousarray(result[start - first * step :][:samples])


def mono(frames: np.ndarray) -> np.ndarray:
    """The mean of the channels: float32 (frames, channels) -> (frames,); what is no number, or beyond any, is 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1)
        # It is a number if they all are, and none is so large that resampling would overflow.
        energy = np.dot(mean, mean)
    return mean if np.isfinite(energy) else np.where(np.abs(mean) < LARGEST, mean, np.float32(0))


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Float audio in -1..1 as int16 of the same shape; what is louder is clipped."""
    steps = samples * np.float32(32768.0)
    np.rint(steps, out=steps)
    return np.clip(steps, -32768, 32767, out=steps).astype(np.int16)


def to_float(samples: np.ndarray) -> np.ndarray:
    """int16 audio as float32 in -1..1, of the same shape."""
    return samples.astype(np.float32) / np.float32(32768.0)


def as_text(name: str | Path) -> str:
    """A file's name as text that can be written: bytes in it that are no UTF-8 become ``\\xe9`` and the like."""
    told = _UNDECODED.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", str(name))
    return told.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str | Path) -> str:
    """`text` in one line, with nothing in it that a terminal would obey."""
    told = as_text(text)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in told)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    try:
        if not Path(path).is_file():  # asked first, since opening a named pipe would wait for ever
            raise AudioError(f"{path}: {'not a file' if Path(path).exists() else 'no such file'}")
        # Bytes, since soundfile refuses a name that is no UTF-8; on Windows, where names are text, it refuses none.
        with soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else path) as file:
            if not RATES_HZ[0] <= file.samplerate <= RATES_HZ[1]:
                raise AudioError(f"{path}: its header says {file.samplerate:,} Hz, which no recording has")
            _refuse_half_heard(path, file)
            yield file
    except (soundfile.SoundFileError, OSError, RuntimeError, TypeError) as error:
        reason = getattr(error, "error_string", None) or str(error) or type(error).__name__
        raise AudioError(f"{path}: not readable as audio: {' '.join(reason.split())}") from error


def _refuse_half_heard(path: Path, file: soundfile.SoundFile) -> None:
    """A WAV that goes on long behind what its header tells of would be read in part, and nobody would know."""
    if file.format not in ("WAV", "WAVEX") or file.subtype not in _SAMPLE_BYTES:
        return
    size, frame = os.stat(path).st_size, file.channels * _SAMPLE_BYTES[file.subtype]
    if size > LARGE_BYTES and size - file.frames * frame > BEHIND_BYTES:
        told, there = (frames / file.samplerate / 3600 for frames in (file.frames, size / frame))
        reason = f"its header tells of {told:.4g} of {there:.4g} h: a WAV header ends at 4 GiB"
        raise AudioError(f"{path}: {reason}; convert it to FLAC or RF64")


def _frames(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    size = max(1, min(int(BLOCK_S * file.samplerate), BLOCK_SAMPLES // file.channels))
    while len(frames := file.read(size, dtype="float32", always_2d=True)):
        yield frames


def _stretch(file: soundfile.SoundFile, start: int, frames: int) -> np.ndarray:
    if start >= file.frames:
        return np.zeros(0, np.float32)
    last_page = file.frames - int(LAST_PAGE_S * file.samplerate) if file.format == "OGG" else start
    before = max(0, min(start, last_page))
    file.seek(before)
    file.read(start - before)
    return mono(file.read(frames, dtype="float32", always_2d=True))


def _resampler(source_hz: int, target_hz: int):
    if source_hz == target_hz:
        return lambda block, last: block
    import soxr

    return soxr.ResampleStream(source_hz, target_hz, 1, dtype="float32").resample_chunk
