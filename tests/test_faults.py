"""The corpus of faults (tests/faults.py) through check-up, indexing and prediction; test_standins.py has training."""

import os
import resource
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from birdlib import audio, check, chunks, metadata, soundscapes, sources
from birdlib.classifier import Classifier
from tests.conftest import RATE_HZ, TINY_BROKEN, TINY_LABELS, save, tone
from tests.faults import AUDIO, LABEL, METADATA, USED, Fault

by_name = pytest.mark.parametrize("fault", AUDIO, ids=lambda fault: fault.name)


@pytest.fixture(scope="module")
def faulty(tiny_data, tmp_path_factory):
    """The tiny data folder with every faulty recording in it."""
    folder = Path(shutil.copytree(tiny_data, tmp_path_factory.mktemp("faulty") / "data"))
    rows = pd.read_csv(folder / "train_metadata.csv")
    for fault in AUDIO:
        if not fault.run.startswith("too long"):
            fault.make(folder / "train_audio" / fault.filename)
    more = pd.DataFrame({"filename": [fault.filename for fault in AUDIO], "primary_label": LABEL})
    pd.concat([rows, more]).to_csv(folder / "train_metadata.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def run(faulty, tiny_config):
    """The index of that folder, and what the first two stages put into the errors table."""
    recordings, problems = metadata.load(faulty)
    recordings, unreadable = metadata.inspect(recordings, faulty, tiny_config)
    names = recordings.loc[metadata.readable(recordings), "filename"].tolist()
    index = chunks.index(names, faulty, tiny_config)
    return index, problems | unreadable | index.problems


@pytest.fixture(scope="module")
def alone(tiny_data, tiny_config):
    """The index of the tiny data folder without any fault but its own."""
    return chunks.index(metadata.load(tiny_data).table["filename"].tolist(), tiny_data, tiny_config)


@pytest.fixture(scope="module")
def found(faulty, tiny_config):
    return check.check(faulty, tiny_config)


@by_name
def test_a_run_uses_it_or_names_it(fault, run, faulty, tiny_config):
    index, errors = run
    mine = index.chunks[index.chunks["filename"] == fault.filename]
    if fault.run == USED:
        assert fault.filename not in errors
        source = sources.LazySource(faulty, tiny_config)
        assert all(source.read(*place).any() for place in zip(mine["filename"], mine["start_s"], strict=True))
        assert len(mine)
        assert np.isfinite(mine[["rms", "rms_relative", "peak"]]).all(axis=None)
    else:
        assert fault.run in errors[fault.filename]
        assert mine.empty


def test_no_other_file_changes_and_no_other_is_named(run, alone, tiny_data):
    index, errors = run
    good = set(alone.audio_hash.index)
    mine = index.chunks[index.chunks["filename"].isin(good)].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, alone.chunks)
    pd.testing.assert_series_equal(index.audio_hash[index.audio_hash.index.isin(good)], alone.audio_hash)
    assert errors.keys() == {fault.filename for fault in AUDIO if fault.run != USED} | {TINY_BROKEN}


@by_name
def test_a_check_up_says_what_it_is(fault, found):
    rows = found.findings[found.findings["path"] == f"train_audio/{fault.filename}"]
    said = [(row.finding, row.reason) for row in rows.itertuples() if row.finding != "duplicated"]
    if fault.check is None:
        assert said == []
    else:
        kind, words = fault.check
        assert any(one == kind and words in reason for one, reason in said), said
        assert (kind == "suspicious") == all(one == "suspicious" for one, _ in said)


@pytest.fixture(scope="module")
def predicted(faulty, tiny_config):
    paths = [faulty / "train_audio" / fault.filename for fault in AUDIO]
    good = faulty / "test_soundscapes" / "soundscape_1.ogg"
    labels = list(TINY_LABELS)
    model = Classifier(lambda images: images.mean(axis=2)[:, :4, 0] / 255, tiny_config)
    return (
        soundscapes.predict([*paths, good], model, labels, tiny_config),
        soundscapes.predict([good], model, labels, tiny_config),
    )


@by_name
def test_prediction_uses_it_or_names_it(fault, predicted):
    (table, problems), _ = predicted
    path = Path(fault.filename)
    reason = {name: reason for name, reason in problems.items() if name == f"{path.parent.name}/{path.name}"}
    if fault.predict == USED:
        assert not reason
    else:
        assert fault.predict in reason[fault.filename]
        assert path.name not in set(table["filename"])


def test_prediction_of_a_good_soundscape_does_not_change(predicted):
    (beside, _), (alone, _) = predicted
    mine = beside[beside["filename"] == "soundscape_1.ogg"].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, alone)


# ---- metadata


@pytest.mark.parametrize("fault", METADATA, ids=lambda fault: fault.name)
def test_faulty_metadata(fault, tiny_data, tmp_path, tiny_config):
    text = (tiny_data / "train_metadata.csv").read_text()
    changed = fault.change(text)
    (tmp_path / "train_metadata.csv").write_bytes(changed.encode() if isinstance(changed, str) else changed)
    if fault.stops:
        with pytest.raises(metadata.MetadataError) as caught:
            metadata.load(tmp_path)
        assert fault.said in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    before, (table, problems) = metadata.load(tiny_data).table, metadata.load(tmp_path)
    (tmp_path / "train_audio").symlink_to(tiny_data / "train_audio")
    new = table[~table["filename"].isin(before["filename"])]
    said = [*problems.values(), *(metadata.inspect(new, tmp_path, tiny_config).problems if len(new) else {}).values()]
    columns = ["filename", "primary_label", "secondary_labels", "latitude"]
    mine = table[table["filename"].isin(before["filename"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine[columns], before[columns])
    if fault.said is None:
        assert said == []
    else:
        assert any(fault.said in reason for reason in said), said


@pytest.mark.slow
def test_100_000_rows(tmp_path):
    rows = "".join(f"lab{n % 200},\"['lab{n % 7}']\",lab{n % 200}/XC{n}.ogg\n" for n in range(100_000))
    (tmp_path / "train_metadata.csv").write_text("primary_label,secondary_labels,filename\n" + rows)
    table, problems = metadata.load(tmp_path)
    assert (len(table), table["primary_label"].nunique(), problems) == (100_000, 200, {})


# ---- what takes another user, or long


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="takes root to become somebody else")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_file_that_one_may_not_read():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        paths = [save(Path(folder, name), tone(1, 1000)) for name in ("closed.wav", "shut/inside.wav")]
        paths[0].chmod(0)
        paths[1].parent.chmod(0)
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:  # not a new Python, which may itself be closed to others
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                os.write(writer, "\n".join(_refusals(paths)).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            said = pipe.read().splitlines()
        os.waitpid(child, 0)
    assert len(said) == 6
    for path, line in zip(paths * 3, said, strict=True):
        assert line.startswith(f"{path}: not readable as audio: ")
        assert "ermission denied" in line or "System error" in line


def _refusals(paths):
    for use in (audio.info, lambda path: list(audio.blocks(path, RATE_HZ)), check.listen):
        for path in paths:
            try:
                use(path)
                yield "read"
            except audio.AudioError as error:
                yield str(error)


TEN_HOURS = Fault("a 10-hour file", lambda path: ten_hours(path), ("suspicious", "long: 3.6e+04 s"), USED, USED)


def ten_hours(path):
    """A second of sound, then zeros that take no room on the disk: 10 hours at 8 kHz."""
    frames = 36_000 * 8_000
    whole = bytearray(save(path, tone(1, 1000, rate_hz=8_000), 8_000, "PCM_16").read_bytes()[:44])
    whole[4:8], whole[40:44] = (2 * frames + 36).to_bytes(4, "little"), (2 * frames).to_bytes(4, "little")
    with open(path, "r+b") as file:
        file.write(whole)
        file.truncate(44 + 2 * frames)


@pytest.mark.slow
def test_ten_hours_in_bounded_memory(tmp_path, tiny_config):
    path = tmp_path / "train_audio" / "long.wav"
    path.parent.mkdir()
    TEN_HOURS.make(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    heard = check.listen(path)
    found, _, _ = chunks._index_file(path, tiny_config)
    assert heard.duration_s == 36_000
    assert len(found["start_s"]) == 36_000 / 4  # the last has 4 s of sound, 3 of which no other holds
    assert found["start_s"][found["peak"].argmax()] == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB; decoded whole it is 4.6 GB
    assert RATE_HZ * 36_000 * 4 > 4.6e9 - 1e8
