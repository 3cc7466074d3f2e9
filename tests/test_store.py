"""The store as training uses it: filled while indexing, killed, damaged, too small, full, and shared by two."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from birdlib import audio, chunks, runs, sources, stages, store
from birdlib import config as configs
from tests.conftest import noise, save

# Of each class some recordings (seconds): long and short ones, a padded tail, and half a second too little for one.
LENGTHS_S = {"a": (31.0, 9.5, 3.0), "b": (12.5, 18.4), "c": (62.0,)}


def write_data(folder, lengths_s=LENGTHS_S):
    """A data folder in which every second chunk or so is silent; the names of its recordings."""
    names = []
    for label, seconds in lengths_s.items():
        for number, length_s in enumerate(seconds):
            names.append(f"{label}/XC{number}.flac")
            samples = noise(length_s, seed=len(names))
            samples *= np.repeat(np.random.default_rng(len(names)).choice([0.001, 0.3, 1], 40), 3 * 32_000)[
                : len(samples)
            ]
            save(folder / "train_audio" / names[-1], samples)
    return names


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return folder, write_data(folder)


def settings(data_dir, store_dir, **overrides):
    place = {"data.dir": data_dir, "sources.store_dir": store_dir, "sources.kind": "pcm", "compute.workers": 1}
    return configs.load("sample", {**place, **overrides})


@pytest.fixture
def start(tmp_path, data):
    """A function (**overrides) -> a run on the data folder, with a store below `tmp_path`."""

    def start(run_dir="run", **overrides):
        config = settings(data[0], tmp_path / "store", **overrides)
        return runs.Run(tmp_path / run_dir, config, stages.stage("02_chunking"))

    return start


def gigabytes(samples, files=6):
    """A budget for so many samples."""
    return (2 * samples + store.FILE_OVERHEAD * files) / 1e9


def content(folder):
    """Every recording of a store: name -> bytes."""
    (inside,) = [path for path in Path(folder).iterdir() if path.is_dir()]
    return {path.relative_to(inside).as_posix(): path.read_bytes() for path in sorted(inside.rglob("*.pcm"))}


def states(folder):
    """Which file stands behind each name: it changes when it is written anew."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(Path(folder).rglob("*.pcm"))}


def all_chunks(source, table):
    return np.stack([source.read(row.filename, row.start_s) for row in table.itertuples()])


@pytest.fixture(scope="module")
def lazily(data):
    """The chunk table and every chunk, without a store."""
    config = settings(data[0], None, **{"sources.kind": "lazy"})
    table = chunks.index(data[1], data[0], config).chunks
    return table, all_chunks(sources.LazySource(data[0], config), table)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data):
    """What a store holds that was written in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = runs.Run(folder / "run", settings(data[0], folder / "store"), stages.stage("02_chunking"))
    chunks.indexed(run, data[1])
    return content(folder / "store")


# ---- filled while indexing


def test_indexing_fills_it_and_nothing_is_decoded_twice(start, data, lazily, tmp_path, monkeypatch):
    run = start()
    index = chunks.indexed(run, data[1])
    pd.testing.assert_frame_equal(index.chunks, lazily[0])
    monkeypatch.setattr(audio, "blocks", None)
    monkeypatch.setattr(audio, "read", None)
    source = sources.open_source(run)
    np.testing.assert_array_equal(all_chunks(source, index.chunks), lazily[1])
    assert not list(tmp_path.rglob(".aside/*"))


def test_it_holds_each_sample_once(data, undisturbed):
    for name in data[1]:
        whole = soundfile.read(data[0] / "train_audio" / name, dtype="int16")[0]
        assert undisturbed[f"{name}.pcm"][: 2 * len(whole)] == whole.tobytes()
        assert len(undisturbed[f"{name}.pcm"]) < 2 * len(whole) + 4096


def test_two_workers_write_what_one_writes(start, data, undisturbed, tmp_path):
    chunks.indexed(start(**{"compute.workers": 2}), data[1])
    assert content(tmp_path / "store") == undisturbed


def test_a_broken_recording_is_not_in_it(tmp_path):
    names = write_data(tmp_path / "data", {"a": (9.0, 6.0)})
    (tmp_path / "data" / "train_audio" / "a" / "XC9.ogg").write_bytes(b"no audio")
    config = settings(tmp_path / "data", tmp_path / "store")
    run = runs.Run(tmp_path / "run", config, stages.stage("02_chunking"))
    index = chunks.indexed(run, [*names, "a/XC9.ogg"])
    assert list(index.problems) == ["a/XC9.ogg"]
    assert list(content(tmp_path / "store")) == ["a/XC0.flac.pcm", "a/XC1.flac.pcm"]


def test_a_name_that_leads_out_is_refused(tmp_path):
    for name in ("../a.ogg", "/a.ogg", "a/../../b.ogg"):
        with pytest.raises(store.StoreError, match="out of the pcm store"):
            store.Store(tmp_path).path(name)


# ---- filled when a source is opened


def test_a_run_that_was_indexed_elsewhere_fills_it(start, data, lazily, undisturbed, tmp_path):
    chunks.indexed(start(**{"sources.kind": "lazy"}), data[1])
    assert not (tmp_path / "store").exists()
    source = sources.open_source(start())
    assert content(tmp_path / "store") == undisturbed
    np.testing.assert_array_equal(all_chunks(source, lazily[0]), lazily[1])


def test_what_is_missing_is_added_and_nothing_else_touched(start, data, undisturbed, tmp_path):
    run = start()
    chunks.indexed(run, data[1])
    before = states(tmp_path / "store")
    gone = sorted(before)[2]
    gone.unlink()
    sources.open_source(run)
    assert content(tmp_path / "store") == undisturbed
    after = states(tmp_path / "store")
    assert {path for path in after if after[path] != before[path]} == {gone}


def test_other_data_or_other_chunks_are_another_store(start, data, tmp_path):
    chunks.indexed(start(), data[1])
    config = settings(data[0], tmp_path / "store")
    here = store.open_store(data[0], config).folder
    assert store.open_store(data[0], settings(data[0], tmp_path / "store", seed=7)).folder == here
    shutil.copytree(data[0], tmp_path / "moved")
    assert store.open_store(tmp_path / "moved", config).folder == here  # the same names and sizes
    others = [{"chunks.overlap_s": 2.0}, {"audio.sample_rate_hz": 40_000}]
    folders = {store.open_store(data[0], settings(data[0], tmp_path / "store", **other)).folder for other in others}
    with open(tmp_path / "moved" / "train_audio" / data[1][0], "ab") as file:
        file.write(b"more")
    folders.add(store.open_store(tmp_path / "moved", config).folder)
    assert len(folders - {here}) == 3


def test_lazy_wants_no_store(start, data):
    run = start(**{"sources.kind": "lazy"})
    chunks.indexed(run, data[1])
    assert isinstance(sources.open_source(run), sources.LazySource)


@pytest.mark.parametrize("kind", ["pcm", "auto"])
def test_a_place_that_cannot_be_written(kind, start, data, tmp_path):
    (tmp_path / "store").write_text("a file")
    run = start(**{"sources.kind": kind})
    problem = (
        pytest.raises(store.StoreError, match=r"sources\.kind=lazy") if kind == "pcm" else pytest.warns(match="set so")
    )
    with problem:
        index = chunks.indexed(run, data[1])
    if kind == "auto":
        assert len(index.chunks)
        with pytest.warns(match="set sources.store_dir"):
            assert isinstance(sources.open_source(run), sources.LazySource)


# ---- damage


@pytest.mark.parametrize("place", [10, -5])
def test_a_damaged_recording_is_named_read_lazily_and_written_again(place, start, data, lazily, undisturbed, tmp_path):
    run = start()
    chunks.indexed(run, data[1])
    victim = next((tmp_path / "store").rglob("a/XC0.flac.pcm"))
    changed = bytearray(victim.read_bytes())
    changed[place] ^= 64
    victim.write_bytes(changed)
    source = sources.by_settings(run.data_dir, run.config)
    with pytest.warns(UserWarning, match=r"a/XC0.flac.pcm is damaged") as caught:
        found = all_chunks(source, lazily[0])
    assert len(caught) == 1
    np.testing.assert_array_equal(found, lazily[1])
    assert not victim.exists()
    sources.open_source(run)
    assert content(tmp_path / "store") == undisturbed


# ---- killed

WRITE = """
import sys, warnings
from birdlib import chunks, runs, sources, stages
from birdlib import config as configs
folder, names, run_dir = sys.argv[1], sys.argv[2].split(), sys.argv[3]
config = configs.load("sample", {"data.dir": folder, "sources.store_dir": sys.argv[4], "sources.kind": "pcm",
                                 "compute.workers": 1})
run = runs.Run(__import__("pathlib").Path(run_dir), config, stages.stage("02_chunking"))
LIMIT
chunks.indexed(run, names)
sources.open_source(run)
print("done")
"""


def writing(data_dir, names, run_dir, store_dir, limit=""):
    command = [sys.executable, "-c", WRITE.replace("LIMIT", limit), str(data_dir), " ".join(names), str(run_dir)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, str(store_dir)], text=True, start_new_session=True, **pipes)


@pytest.fixture(scope="module")
def long_data(tmp_path_factory):
    """Enough to be caught in the middle of it: 14 recordings, and what a store of them holds."""
    folder = tmp_path_factory.mktemp("long")
    names = write_data(folder / "data", {"a": (110.0,) * 7, "b": (90.0,) * 7})
    run = runs.Run(folder / "run", settings(folder / "data", folder / "store"), stages.stage("02_chunking"))
    chunks.indexed(run, names)
    return folder / "data", names, content(folder / "store"), run.read_table("chunks")


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    assert condition()


@pytest.mark.slow
@pytest.mark.parametrize("files", [1, 4, 7])
def test_killed_while_writing_and_gone_on(files, long_data, tmp_path):
    data_dir, names, expected, table = long_data
    child = writing(data_dir, names, tmp_path / "run", tmp_path / "store")
    wait_until(lambda: len(list((tmp_path / "store").rglob("*.pcm"))) >= files or child.poll() is not None)
    if files == 1:  # alone: its worker notices, after the files that it has in hand
        child.send_signal(signal.SIGKILL)
    else:  # with its worker
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    time.sleep(1.5)
    found = content(tmp_path / "store")
    assert files <= len(found) < len(names)
    assert all(expected[name] == data for name, data in found.items())  # what is there is whole
    before = states(tmp_path / "store")
    # Indexed elsewhere meanwhile, so that only the store is to be filled.
    config = settings(data_dir, tmp_path / "store")
    run = runs.Run(tmp_path / "run", config, stages.stage("02_chunking"))
    run.write_table("chunks", table)
    source = sources.open_source(run)
    assert content(tmp_path / "store") == expected
    after = states(tmp_path / "store")
    assert all(after[path] == state for path, state in before.items())
    assert sources.covered(source.store, table, config).all()
    assert not list(tmp_path.rglob(".aside/*"))


@pytest.mark.slow
def test_two_processes_at_once(long_data, tmp_path):
    data_dir, names, expected, _ = long_data
    both = [writing(data_dir, names, tmp_path / run, tmp_path / "store") for run in ("one", "other")]
    said = [child.communicate(timeout=200) for child in both]
    assert [out for out, _ in said] == ["done\n"] * 2, said
    assert content(tmp_path / "store") == expected
    tables = [(tmp_path / run / "tables" / "chunks.parquet").read_bytes() for run in ("one", "other")]
    assert tables[0] == tables[1]


def test_while_another_process_fills_it_nothing_is_written(start, data, lazily, tmp_path):
    run = start()
    held = store.open_store(data[0], run.config)
    with held.locked() as mine:
        assert mine
        with pytest.warns(UserWarning, match="another process fills it"):
            index = chunks.indexed(start(), data[1])
        with pytest.warns(UserWarning, match=r"0 of \d+ chunks that are not silent"):
            source = sources.open_source(run)
    pd.testing.assert_frame_equal(index.chunks, lazily[0])
    np.testing.assert_array_equal(all_chunks(source, lazily[0]), lazily[1])
    assert content(tmp_path / "store") == {}


# ---- too small


def test_a_budget_is_kept_and_told(start, data, lazily, tmp_path):
    run = start(**{"sources.budget_gb": gigabytes(40 * 32_000)})
    index = chunks.indexed(run, data[1])
    with pytest.warns(UserWarning, match=r"^(\d+) of (\d+) chunks that are not silent.*the other (\d+) are") as caught:
        source = sources.open_source(run)
    inside = sources.covered(source.store, index.chunks, run.config)
    kept = chunks.kept(index.chunks, run.config.silence).to_numpy()
    told = [int(word) for word in str(caught[0].message).replace(",", "").split() if word.isdigit()]
    assert told == [inside[kept].sum(), kept.sum(), (~inside[kept]).sum()]
    assert kept.sum() > inside[kept].sum() > 0
    assert not inside[~kept & (index.chunks["filename"] != "a/XC2.flac")].any()
    taken = sum(map(len, content(tmp_path / "store").values()))
    assert 0.8 * 40 * 64_000 < taken <= 40 * 64_000 + 6 * store.FILE_OVERHEAD
    # Fair: no class is without, and those with little to give have given it.
    by_class = index.chunks.assign(inside=inside)[kept].groupby(index.chunks["filename"].str[0])["inside"]
    assert by_class.sum().min() > 0
    assert by_class.sum().max() - by_class.sum()[~by_class.all()].min() <= 1
    np.testing.assert_array_equal(all_chunks(source, lazily[0]), lazily[1])


def test_the_budget_holds_while_indexing(start, data, tmp_path):
    chunks.indexed(start(**{"sources.budget_gb": gigabytes(40 * 32_000)}), data[1])
    taken = sum(map(len, content(tmp_path / "store").values()))
    assert 0 < taken <= 40 * 64_000 + 6 * store.FILE_OVERHEAD


@pytest.mark.parametrize("silence", [0.1, 0.5])
@pytest.mark.parametrize("first_s", [15, 40, 500])
def test_another_budget_or_filter_ends_as_if_it_were_the_first(first_s, silence, start, data, tmp_path):
    budget = {"sources.budget_gb": gigabytes(60 * 32_000), "silence.threshold": silence}
    fresh = start("fresh", **budget, **{"sources.store_dir": tmp_path / "fresh_store"})
    run = start(**{"sources.budget_gb": gigabytes(first_s * 32_000)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in (run, fresh):
            chunks.indexed(each, data[1])
            sources.open_source(each)
        source = sources.open_source(start(**budget))
    assert content(tmp_path / "store") == content(tmp_path / "fresh_store")
    assert sources.covered(source.store, run.read_table("chunks"), run.config).any()


def test_the_disk_sets_a_limit_too(start, data, monkeypatch):
    usage = shutil.disk_usage(data[0])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    held = store.open_store(data[0], start().config)
    assert held.budget(50.0) == 500_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=500_000))  # it has been filled since
    assert held.budget(50.0) == 500_000
    assert held.budget(0.0002) == 200_000
    assert held.budget(50.0) == 250_000
    held.forget_budget()
    monkeypatch.undo()
    assert held.budget(0.001) == 1_000_000
    assert held.budget(0.002) == 2_000_000


def test_a_run_on_some_of_the_recordings_leaves_the_others(start, data, undisturbed, tmp_path):
    chunks.indexed(start(), data[1])
    some = start("some")
    chunks.indexed(some, data[1][:2])
    sources.open_source(some)
    assert content(tmp_path / "store") == undisturbed


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to set")
def test_a_disk_that_fills_up_costs_speed_and_nothing_else(data, lazily, tmp_path):
    # No file may grow over 1 MB: of 31, 18 and 62 s, nothing can be written.
    limit = "__import__('resource').setrlimit(__import__('resource').RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    child = writing(data[0], data[1], tmp_path / "run", tmp_path / "store", limit)
    said, errors = child.communicate(timeout=200)
    assert said == "done\n", errors
    assert "3 recordings are not in the pcm store" in errors
    assert "File too large" in errors
    assert list(content(tmp_path / "store")) == ["a/XC1.flac.pcm", "a/XC2.flac.pcm", "b/XC0.flac.pcm"]
    assert not list(tmp_path.rglob(".aside/*"))
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "run" / "tables" / "chunks.parquet"), lazily[0])
    source = sources.by_settings(data[0], settings(data[0], tmp_path / "store"))
    np.testing.assert_array_equal(all_chunks(source, lazily[0]), lazily[1])


# ---- reading


def test_thousands_of_reads_hold_no_files(start, data, lazily):
    run = start()
    chunks.indexed(run, data[1])
    source = sources.open_source(run)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    batch = np.empty((2000, source.chunk_samples), np.int16)
    for row in range(2000):
        at = lazily[0].iloc[row % len(lazily[0])]
        batch[row] = source.read(at["filename"], at["start_s"])
    np.testing.assert_array_equal(batch[: len(lazily[1])], lazily[1])
    with contextlib.suppress(FileNotFoundError):
        assert len(os.listdir("/proc/self/fd")) <= before + 3
