"""The corpus of faults: each a row that says how it is made, and what has to happen to it.

`docs/reliability.md` shows these rows; tests/test_faults.py runs them and holds the page to them.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from birdlib.ogg import _page_checksum
from tests.conftest import RATE_HZ, TINY_LABELS, noise, save, song, tone

LABEL = TINY_LABELS[0]
USED = "used"


class Fault(NamedTuple):
    """A faulty recording.

    ``make`` writes it to the path it is given. ``check`` is the kind and a part of the reason that a check-up gives
    (None: nothing to say), ``run`` and ``predict`` are "used", or a part of the reason in the errors table.
    """

    name: str
    make: Callable[[Path], object]
    check: tuple[str, str] | None
    run: str
    predict: str
    file: str = ""

    @property
    def filename(self) -> str:
        """Its name in ``train_audio``."""
        return f"{LABEL}/{self.file or self.name.replace(' ', '_').replace('/', '_') + '.wav'}"


GOOD = song(LABEL, 6.5, 99)


def ogg(path: Path) -> bytes:
    whole = save(path.with_name("whole.ogg"), GOOD).read_bytes()
    path.with_name("whole.ogg").unlink()
    return whole


def pages(whole: bytes) -> list[int]:
    return [at for at in range(len(whole)) if whole[at : at + 4] == b"OggS"]


def endless(path: Path) -> None:
    """An Ogg whose last page says that 2**63 - 1 samples came before it."""
    whole = bytearray(ogg(path))
    page = whole[pages(whole)[-1] :]
    page[6:14] = (2**63 - 1).to_bytes(8, "little")
    page[22:26] = bytes(4)
    page[22:26] = _page_checksum(page).to_bytes(4, "little")
    path.write_bytes(whole[: -len(page)] + page)


def wav(samples: np.ndarray, rate_hz: int = RATE_HZ, subtype: str = "PCM_16"):
    return lambda path: save(path, samples, rate_hz, subtype)


def lying(**fields: int):
    """A WAV of good sound whose header has other values in these places."""
    places = {"riff": (4, "<I"), "channels": (22, "<H"), "rate": (24, "<I"), "bits": (34, "<H"), "data": (40, "<I")}

    def make(path: Path) -> None:
        whole = bytearray(save(path, GOOD, subtype="PCM_16").read_bytes())
        for name, value in fields.items():
            at, form = places[name]
            whole[at : at + struct.calcsize(form)] = struct.pack(form, value)
        path.write_bytes(whole)

    return make


def no_numbers() -> np.ndarray:
    samples = GOOD.copy()
    samples[1000:1003] = np.nan, np.inf, -np.inf
    return samples


def beyond() -> np.ndarray:
    """Finite, and yet a sum of them is not, nor what a resampler makes of them."""
    samples = np.stack([GOOD, GOOD], axis=1)
    samples[1000:1003] = 3e38, -3e38
    samples[2000:2003] = 3e38
    return samples


def garbage(size: int) -> bytes:
    return np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()


def linked(path: Path) -> None:
    outside = path.parents[2].with_name(path.parents[2].name + "-outside.wav")
    path.symlink_to(save(outside, GOOD, subtype="PCM_16"))


UNREADABLE, SUSPICIOUS = "unreadable", "suspicious"
NOT_AUDIO = "not readable as audio"
STEREO = np.stack([GOOD, -GOOD], axis=1)
SIX = np.stack([GOOD, *(noise(6.5, seed, 0.01) for seed in range(5))], axis=1)

AUDIO = (
    Fault("an empty file", lambda path: path.write_bytes(b""), (UNREADABLE, NOT_AUDIO), NOT_AUDIO, NOT_AUDIO),
    Fault("a few bytes", lambda path: path.write_bytes(b"OggS\0"), (UNREADABLE, NOT_AUDIO), NOT_AUDIO, NOT_AUDIO),
    Fault(
        "garbage with an .ogg name",
        lambda path: path.write_bytes(garbage(50_000)),
        (UNREADABLE, NOT_AUDIO),
        NOT_AUDIO,
        NOT_AUDIO,
        "garbage.ogg",
    ),
    Fault(
        "an Ogg cut in its header",
        lambda path: path.write_bytes(ogg(path)[:3000]),
        (UNREADABLE, NOT_AUDIO),
        NOT_AUDIO,
        NOT_AUDIO,
        "cut_header.ogg",
    ),
    Fault(
        "an Ogg cut in the middle",
        lambda path: path.write_bytes(ogg(path)[:30_000]),
        (SUSPICIOUS, "cut short"),
        USED,
        USED,
        "cut.ogg",
    ),
    Fault("an Ogg of 2^63-1 frames", endless, (SUSPICIOUS, "does not say how long"), USED, USED, "e.ogg"),
    Fault("a WAV cut in the middle", lambda path: cut(path), (SUSPICIOUS, "cut short"), USED, USED),
    Fault("a WAV header of too many bytes", lying(riff=2**31, data=2**31), (SUSPICIOUS, "cut short"), USED, USED),
    Fault("a WAV header of 1 Hz", lying(rate=1), (UNREADABLE, "says 1 Hz"), "says 1 Hz", "says 1 Hz"),
    Fault(
        "a WAV header of 4 GHz",
        lying(rate=2**32 - 1),
        (UNREADABLE, NOT_AUDIO),
        NOT_AUDIO,
        NOT_AUDIO,
    ),
    Fault("a WAV header of 60,000 channels", lying(channels=60_000), (UNREADABLE, NOT_AUDIO), NOT_AUDIO, NOT_AUDIO),
    Fault(
        "a folder named like a file", lambda path: path.mkdir(), (UNREADABLE, "not a file"), "not a file", "not a file"
    ),
    Fault("a named pipe", lambda path: os.mkfifo(path), (UNREADABLE, "not a file"), "not a file", "not a file"),
    Fault("a file that is not there", lambda path: None, ("missing", "no such file"), "no such file", "no such file"),
    Fault(
        "a link to nowhere",
        lambda path: path.symlink_to("/nowhere/at/all"),
        ("missing", "no such file"),
        "no such file",
        "no such file",
    ),
    Fault(
        "a link to itself",
        lambda path: path.symlink_to(path),
        ("missing", "no such file"),
        "no such file",
        "no such file",
    ),
    Fault("a link leading out", linked, (SUSPICIOUS, "a link that leads out"), USED, USED),
    Fault("0 samples", wav(np.zeros(0, np.float32)), (UNREADABLE, "no samples"), "no samples", "no samples"),
    Fault("1 sample", wav(np.array([0.5], np.float32)), (SUSPICIOUS, "short"), USED, USED),
    Fault("100 samples", wav(tone(100 / RATE_HZ, 1000)), (SUSPICIOUS, "short"), USED, USED),
    Fault(
        "all zeros", wav(np.zeros(5 * RATE_HZ, np.float32)), (SUSPICIOUS, "digital silence"), "digital silence", USED
    ),
    Fault(
        "all NaN",
        wav(np.full(RATE_HZ, np.nan, np.float32), subtype="FLOAT"),
        (SUSPICIOUS, "no finite"),
        "digital silence",
        USED,
    ),
    Fault("NaN and infinity", wav(no_numbers(), subtype="FLOAT"), (SUSPICIOUS, "no finite numbers"), USED, USED),
    Fault("numbers beyond any sound", wav(beyond(), 44_100, "FLOAT"), (SUSPICIOUS, "beyond any sound"), USED, USED),
    Fault("channels that cancel", wav(STEREO), (SUSPICIOUS, "cancel each other"), "cancel each other", USED),
    Fault("too quiet", wav(GOOD / 100), (SUSPICIOUS, "too quiet"), USED, USED),
    Fault("clipped", wav(np.clip(GOOD * 20, -1, 1)), (SUSPICIOUS, "clipped"), USED, USED),
    Fault("8 kHz", wav(song(LABEL, 6.5, 98, 8000), 8000), (SUSPICIOUS, "odd rate: 8,000 Hz"), USED, USED),
    Fault("192 kHz", wav(song(LABEL, 6.5, 97, 192_000), 192_000), (SUSPICIOUS, "odd rate"), USED, USED),
    Fault("24 bits", wav(song(LABEL, 6.5, 96), subtype="PCM_24"), None, USED, USED),
    Fault("6 channels", wav(SIX, subtype="PCM_24"), None, USED, USED),
    Fault("a name with blanks and quotes", wav(song(LABEL, 6.5, 95)), None, USED, USED, "a 'b' \"c\", d.wav"),
    Fault("a name with a newline", wav(song(LABEL, 6.5, 94)), None, USED, USED, "two\nlines.wav"),
    Fault("a name with emoji", wav(song(LABEL, 6.5, 93)), None, USED, USED, "\N{BIRD}\N{MUSICAL NOTE} Ü.wav"),
    Fault("a name of 255 bytes", wav(song(LABEL, 6.5, 92)), None, USED, USED, "n" * 251 + ".wav"),
    Fault(
        "a name of 300 bytes",
        lambda path: None,
        (UNREADABLE, "too long"),
        "too long",
        "too long",
        "m" * 296 + ".wav",
    ),
)


def cut(path: Path) -> None:
    whole = save(path, GOOD, subtype="PCM_16").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


class After(NamedTuple):
    """What becomes of a good recording between the index and the epoch."""

    name: str
    happen: Callable[[Path], object]
    reason: str


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


AFTER = (
    After("it vanishes", lambda path: path.unlink(), "no such file"),
    After("it becomes garbage", lambda path: path.write_bytes(garbage(5000)), NOT_AUDIO),
    After("it becomes empty", lambda path: path.write_bytes(b""), NOT_AUDIO),
    After("it becomes a folder", lambda path: replaced(path, lambda path: path.mkdir()), "not a file"),
    After("it is cut short", lambda path: save(path, GOOD[:10]), "ends before"),
)


class Csv(NamedTuple):
    """Faulty metadata: what is done to the text, and what is said (None: nothing); ``stops``: by the one error."""

    name: str
    change: Callable[[str], str | bytes]
    said: str | None
    stops: bool = False


def each(text: str, change: Callable[[int, str], str]) -> str:
    return "".join(change(number, line) for number, line in enumerate(text.splitlines(keepends=True)))


def row(**fields: str) -> Callable[[str], str]:
    """One row more, after the others, with these fields."""

    def change(text: str) -> str:
        header = text.splitlines()[0].split(",")
        good = {"filename": f"{TINY_LABELS[1]}/XC200.ogg", "primary_label": TINY_LABELS[1]} | fields
        return text + ",".join('"' + good.get(name, "").replace('"', '""') + '"' for name in header) + "\n"

    return change


NEW = f"{LABEL}/new.ogg"
METADATA = (
    Csv("a byte order mark", lambda text: b"\xef\xbb\xbf" + text.encode(), None),
    Csv("CRLF line ends", lambda text: text.replace("\n", "\r\n"), None),
    Csv("an empty line", lambda text: text.replace("\n", "\n\n", 3), None),
    Csv("a column missing", lambda text: text.replace("author,", "writer,", 1), None),
    Csv(
        "a needed column renamed", lambda text: text.replace("filename", "file", 1), "lacks the column 'filename'", True
    ),
    Csv("a column more", lambda text: each(text, lambda n, line: f"x{n}," + line), None),
    Csv(
        "a column doubled",
        lambda text: text.replace("author,", "filename,", 1),
        "has the column 'filename' twice",
        True,
    ),
    Csv(
        "a field too many in every row",
        lambda text: each(text, lambda n, line: ("," if n else "") + line),
        "has no rows",
        True,
    ),
    Csv("a field too many in one row", lambda text: text + "a," * 12 + "b\n", "13 fields, the header has 12"),
    Csv("a row cut short", lambda text: text + f"{LABEL},[]\n", "the row has no filename"),
    Csv("a quote that never closes", lambda text: text + f'{LABEL},"[]\n', "not readable as CSV", True),
    Csv("bytes that are no UTF-8", lambda text: text.encode("utf-16"), "not readable as CSV", True),
    Csv("a doubled row", lambda text: text + text.splitlines()[-1] + "\n", "a second row of the same file: the first"),
    Csv("a recording under two labels", row(primary_label=LABEL), f"under the label {LABEL} and not {TINY_LABELS[1]}"),
    Csv("a label that differs by case", row(filename=NEW, primary_label=LABEL.upper()), "differs from it by case only"),
    Csv("secondary labels that are no list", row(filename=NEW, secondary_labels="['a'"), "are not a list"),
    Csv("secondary labels that are code", row(filename=NEW, secondary_labels="__import__('os')"), "are not a list"),
    Csv("a filename that climbs out", row(filename="../../etc/passwd"), "leaves the data folder"),
    Csv("an absolute filename", row(filename="/etc/passwd"), "leaves the data folder"),
    Csv("a filename with a NUL", row(filename="a\0b.ogg"), "no such file"),
    Csv("a label that is a column of tables", row(filename=NEW, primary_label="start_s"), "cannot be a label", True),
)


def sound(path: Path) -> np.ndarray:
    """What soundfile makes of a file, float32 (frames, channels)."""
    return soundfile.read(path, dtype="float32", always_2d=True)[0]
