"""What is kept of recordings: under which names, and by what a recording is known again."""

import os
from pathlib import Path

import pytest

from birdlib import kept

LONG = "n" * 251 + ".wav"
PAIRS = [
    (LONG, "n" * 250 + "m.wav"),  # the same for as long as ours can be
    (os.fsdecode(b"caf\xe9.wav"), "caf\\xe9.wav"),  # the same as text
    (os.fsdecode(b"caf\xe9/x.wav"), "caf\\xe9/x.wav"),
]


@pytest.mark.parametrize("suffix", [".parquet", ".selections.txt"])
@pytest.mark.parametrize("pair", PAIRS)
def test_our_own_files_can_be_written_and_stay_apart(tmp_path, pair, suffix):
    for name in pair:
        path = kept.own_file(tmp_path, name, suffix)
        path.parent.mkdir(exist_ok=True)
        path.write_text(name, encoding="utf-8", errors="surrogateescape")
        assert str(path).isprintable()
        assert path.name.endswith(suffix)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 2


def test_a_usual_name_stays_as_it_is():
    assert kept.own_file(Path("rows"), "night/a b.wav", ".parquet") == Path("rows/night/a b.wav.parquet")


@pytest.mark.parametrize("size", [0, 10, 65_536, 131_072, 1_000_000])
def test_a_recording_is_known_by_its_size_and_its_ends(tmp_path, size):
    one, other = bytes(size), bytearray(size)
    (tmp_path / "one").write_bytes(one)
    marks = [kept.stamp(tmp_path / "one")]
    for at in {0, size // 2, size - 1} if size else ():
        other[:] = one
        other[at] = 1
        (tmp_path / "other").write_bytes(other)
        marks.append(kept.stamp(tmp_path / "other"))
    (tmp_path / "longer").write_bytes(one + b"\0")
    marks.append(kept.stamp(tmp_path / "longer"))
    assert all(marks)
    assert len(set(marks)) == len(marks) - (size == 1_000_000)  # the middle of a large file is not read


def test_what_cannot_be_read_has_no_stamp(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to("nothing")
    for name in ("pipe", "nowhere", "none", "m" * 300, ""):
        assert kept.stamp(tmp_path / name) == ""
