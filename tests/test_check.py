"""The check-up of a data folder; what it says of each faulty file is in tests/test_faults.py."""

import os
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from birdlib import check, cli, metadata
from tests.conftest import RATE_HZ, TINY_BROKEN, TINY_LABELS, noise, save, song, tone

A, B = TINY_LABELS[:2]


def folder_of(folder, rows):
    """A data folder of these recordings: filename -> (label, samples or None)."""
    for name, (_, samples) in rows.items():
        if samples is not None:
            save(folder / "train_audio" / name, samples, subtype=None if name.endswith("ogg") else "PCM_16")
    table = pd.DataFrame({"primary_label": [label for label, _ in rows.values()], "filename": list(rows)})
    table.to_csv(folder / "train_metadata.csv", index=False)
    return folder


def said(found, finding):
    rows = found.findings[found.findings["finding"] == finding]
    return dict(zip(rows["path"].str.removeprefix("train_audio/"), rows["reason"], strict=True))


SONG, OTHER = ((song(label, 3, 1) * 32768).astype(np.int16) for label in (A, B))  # whole steps: no format rounds them
GOOD = {f"{A}/1.wav": (A, SONG), f"{B}/1.wav": (B, OTHER)}


def test_the_same_audio_under_two_names_and_under_two_labels(tmp_path, tiny_config):
    rows = (
        GOOD
        | {
            f"{A}/2.flac": (A, SONG),  # another file, the same samples
            f"{B}/2.wav": (B, np.stack([SONG, SONG], axis=1)),
            f"{A}/3.wav": (A, SONG[:-1]),
            f"{A}/4.wav": (A, np.zeros(RATE_HZ, np.float32)),
            f"{B}/4.wav": (B, np.zeros(RATE_HZ, np.float32)),
        }
    )
    save(folder_of(tmp_path, rows) / "test_soundscapes" / "soundscape_1.wav", OTHER, subtype="PCM_16")
    found = check.check(tmp_path, tiny_config)
    assert said(found, "duplicated") == {
        f"{A}/2.flac": f"the same audio as train_audio/{A}/1.wav",
        f"{B}/2.wav": f"the same audio as train_audio/{A}/1.wav, there under the label {A}",
        f"{B}/1.wav": "the same audio as test_soundscapes/soundscape_1.wav",
    }
    assert set(said(found, "suspicious")) == {f"{A}/4.wav", f"{B}/4.wav"}
    assert (found.recordings, found.labels) == (7, 2)
    assert found.hours == pytest.approx((5 * 3 + 2 + 3) / 3600, rel=1e-3)


def test_soundscapes_of_a_kind_that_is_not_read_are_named(tmp_path, tiny_config):
    save(folder_of(tmp_path, GOOD) / "test_soundscapes" / "1.wav", song(A, 3, 5))
    for name in ("2.m4a", "3.AAC", "._4.m4a", "notes.txt"):
        (tmp_path / "test_soundscapes" / name).write_bytes(b"x")
    assert said(check.check(tmp_path, tiny_config), "suspicious") == {
        "test_soundscapes/2.m4a": "audio of a kind that is not read, and so not used: convert it",
        "test_soundscapes/3.AAC": "audio of a kind that is not read, and so not used: convert it",
    }


def test_what_the_metadata_do_not_name(tmp_path, tiny_config):
    save(folder_of(tmp_path, GOOD) / "train_audio" / A / "stray.wav", noise(2, 3))
    found = check.check(tmp_path, tiny_config)
    assert said(found, "suspicious") == {f"{A}/stray.wav": "not in train_metadata.csv, and so not used"}
    assert found.clean()
    assert not found.clean(strict=True)


def test_only_audio_is_looked_at_in_the_test_soundscapes(tmp_path, tiny_config):
    scenes = folder_of(tmp_path, GOOD) / "test_soundscapes"
    save(scenes / "a.WAV", noise(2, 3), subtype="PCM_16")
    for name in ("readme.txt", ".DS_Store", "._a.ogg"):
        (scenes / name).write_bytes(b"no audio")
    for name in (".DS_Store", f"{A}/._1.ogg"):
        (tmp_path / "train_audio" / name).write_bytes(b"no audio")
    found = check.check(tmp_path, tiny_config)
    assert found.findings.empty
    assert found.hours == pytest.approx((3 + 3 + 2) / 3600)


def test_strays_behind_links_and_links_that_lead_out(tmp_path, tiny_config):
    top = folder_of(tmp_path / "data", {f"{A}/1.wav": (A, SONG), f"{B}/1.wav": (B, None), f"{B}/2.wav": (B, None)})
    save(tmp_path / "there" / "1.wav", OTHER, subtype="PCM_16")
    save(tmp_path / "there" / "2.wav", noise(2, 3), subtype="PCM_16")
    save(tmp_path / "there" / "stray.wav", noise(2, 4), subtype="PCM_16")
    (top / "train_audio" / B).symlink_to(tmp_path / "there")
    (top / "train_audio" / A / "again").symlink_to(top / "train_audio")  # back up: it would never end
    assert said(check.check(top, tiny_config), "suspicious") == {
        f"{B}/stray.wav": "not in train_metadata.csv, and so not used",
        B: f"a link that leads out of the data folder, to {tmp_path}/there",
    }


def test_a_stray_whose_name_is_no_utf_8_is_named_as_text(call, tmp_path):
    folder_of(tmp_path, GOOD)
    for folder in ("train_audio", "test_soundscapes"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"no audio")
    status, output, error = call(tmp_path, "--csv", tmp_path / "found.csv")
    assert status == 1
    assert "Traceback" not in error
    assert "suspicious  train_audio/caf\\xe9.wav: not in train_metadata.csv" in output
    assert "unreadable  test_soundscapes/caf\\xe9.wav: not readable as audio" in output
    assert "test_soundscapes/caf\\xe9.wav" in pd.read_csv(tmp_path / "found.csv")["path"].tolist()


def test_no_folder_of_audio_is_one_finding(tmp_path, tiny_config):
    folder_of(tmp_path, dict.fromkeys([f"{A}/{n}.ogg" for n in range(30)], (A, None)))
    found = check.check(tmp_path, tiny_config)
    assert len(found.findings) == 1
    assert "30 recordings should be in it" in said(found, "missing")["train_audio"]
    assert not found.clean()


def test_levels_against_arithmetic(tmp_path):
    samples = np.stack([tone(2, 1000, 0.5), np.zeros(2 * RATE_HZ, np.float32)], axis=1)
    samples[:320, 1] = 1.0
    heard = check.listen(save(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert (heard.duration_s, heard.sample_rate_hz, heard.cut_short, heard.no_numbers) == (2, RATE_HZ, "", 0)
    assert heard.rms == pytest.approx(np.sqrt(np.mean(samples**2)), rel=1e-6)
    assert heard.mono_rms == pytest.approx(np.sqrt(np.mean(samples.mean(axis=1) ** 2)), rel=1e-6)
    assert heard.peak == pytest.approx(np.abs(samples.mean(axis=1)).max())
    assert heard.clipped == pytest.approx(320 / samples.size)


# ---- the command


@pytest.fixture
def call(monkeypatch, capsys):
    """A function (arguments...) -> exit status, standard output, standard error of ``birdlib check``."""

    def calling(*arguments):
        monkeypatch.setattr(sys, "argv", ["birdlib", "check", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return stopped.value.code, *capsys.readouterr()

    return calling


def listing(folder):
    """All that could show that something was written: names, sizes, times."""
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in [folder, *folder.rglob("*")]}


def test_status_1_counts_a_table_and_nothing_written(call, tiny_data, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "train_audio" / f"{A}/XC100.ogg").unlink()
    (data / "train_audio" / A / "a\x1b[31m\nb.ogg").write_bytes(b"")
    before = listing(data)
    status, output, _ = call(data, "--csv", tmp_path / "found.csv")
    assert status == 1
    assert output.startswith("24 recordings of 4 labels; 0.04 hours were decoded\n")
    counts = dict(line.split() for line in output.splitlines()[1:5])
    table = pd.read_csv(tmp_path / "found.csv")
    assert counts == {kind: str((table["finding"] == kind).sum()) for kind in check.FINDINGS}
    assert f"unreadable  train_audio/{TINY_BROKEN}: not readable as audio" in output
    assert f"missing     train_audio/{A}/XC100.ogg: no such file\n" in output
    assert (
        f"suspicious  train_audio/{A}/a\\x1b[31m\\nb.ogg: not in train_metadata.csv" in output
    )  # as text, not as colour
    assert listing(data) == before


def test_status_0_and_strict(call, tmp_path):
    folder_of(tmp_path, GOOD | {f"{A}/short.wav": (A, tone(0.5, 800))})
    assert call(tmp_path)[0] == 0
    assert call(tmp_path, "--strict")[0] == 1


@pytest.mark.parametrize("kind", ["nowhere", "a file", "no metadata", "a folder that is closed"])
def test_status_2_and_one_line_where_it_could_not_check(kind, call, tmp_path, monkeypatch):
    path = tmp_path / "data"
    if kind == "a file":
        path.write_text("x")
    elif kind != "nowhere":
        path.mkdir()
    if kind == "a folder that is closed":

        def refuse(_):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(metadata, "load", refuse)
    status, output, error = call(path)
    assert (status, output) == (2, "")
    assert error.startswith(f"birdlib: could not check {path}: ")
    assert error.count("\n") == 1


def test_a_place_for_the_findings_that_there_is_not_is_said_first(call, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "check", lambda *_: pytest.fail("it was looked at"))
    for place in (tmp_path / "nodir" / "x.csv", tmp_path):
        status, output, error = call(tmp_path, "--csv", place)
        assert (status, output) == (2, "")
        assert error == f"birdlib: --csv {place} cannot be written: make its folder, or name another place\n"


def test_findings_that_cannot_be_written_are_said(call, tmp_path):
    folder_of(tmp_path, GOOD | {f"{A}/short.wav": (A, tone(0.5, 800))})
    status, output, error = call(tmp_path, "--csv", "/dev/full")
    assert status == 2
    assert "suspicious  train_audio/" in output
    assert "birdlib: the findings above could not be written to /dev/full: " in error


def test_a_fault_of_the_check_up_itself_is_status_2_with_its_trace(call, tiny_data, monkeypatch):
    monkeypatch.setattr(metadata, "load", lambda _: 1 / 0)
    status, _, error = call(tiny_data)
    assert status == 2
    assert "ZeroDivisionError" in error


def test_more_than_20_of_a_kind_are_counted(call, tmp_path):
    names = [f"{A}/{n}.ogg" for n in range(25)]
    folder_of(tmp_path, GOOD | dict.fromkeys(names, (A, None)))
    _, output, _ = call(tmp_path)
    assert sum(line.startswith("missing  ") for line in output.splitlines()) == 1 + 20 + 1
    assert "missing     ... and 5 more; --csv FILE writes all" in output
