"""The same tables on a Dask cluster as on this machine: a real scheduler and two real workers, on loopback."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from birdlib import check, chunks, cluster, metadata, predicting, runs, series, sources, stages
from birdlib import config as configs
from birdlib.cluster import ClusterError
from birdlib.parallel import Failure, map_files
from birdlib.predicting import Options
from tests.conftest import TINY_BROKEN, TINY_LABELS, save, song
from tests.test_predicting import model  # noqa: F401, a fixture
from tests.test_series import TINY

ROOT = Path(__file__).parents[1]
LIMIT_S = 60


# ---- without a cluster


def test_dask_that_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(ClusterError, match=r"needs Dask, and dask.* is missing: pip install 'birdlib\[cluster\]'"):
        list(map_files(str, [1], LIMIT_S, cluster="tcp://127.0.0.1:1"))


def test_nothing_to_do_asks_nobody():
    assert list(map_files(str, [], LIMIT_S, cluster="tcp://127.0.0.1:1")) == []


@pytest.mark.parametrize("address", ["10.0.0.1:8786", "tcp://10.0.0.1", "http://10.0.0.1:8786", "processes"])
def test_an_address_that_is_none(address):
    with pytest.raises(
        configs.ConfigError, match=r"compute\.cluster=.*: the address of a Dask scheduler, such as tcp:"
    ):
        configs.load("sample", {"compute.cluster": address})
    assert configs.load("sample", {"compute.cluster": "tls://node-1.lab:8786"}).compute.cluster
    assert configs.load("sample", {"compute.cluster": "null"}).compute.cluster is None


def test_a_cluster_changes_no_result():
    """So no stage may read it: a run goes on with a cluster, or without it again."""
    assert not [one.name for one in stages.STAGES if "compute" in one.sections]


def test_a_worker_that_does_not_fit_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "APPEARS_S", 0.0)
    make, here = cluster._make(), [str(tmp_path)]
    assert cluster._fitting(make, here, len, b"abc") == 3
    with pytest.raises(ClusterError, match=r"has birdlib .* and was sent work by 9\.9\.9 on 3\.99: start it in an env"):
        cluster._fitting(("9.9.9", (3, 99)), here, len, b"abc")
    with pytest.raises(ClusterError, match=r"does not see .*/nowhere: workers need the same folders .* mount them"):
        cluster._fitting(make, [*here, f"{tmp_path}/nowhere"], len, b"abc")


def test_a_folder_that_appears_late_is_waited_for(tmp_path):
    """Network file systems remember for seconds that something was not there."""
    late = tmp_path / "late"
    timer = threading.Timer(0.5, late.mkdir)
    timer.start()
    assert cluster._fitting(cluster._make(), [str(late)], len, b"abc") == 3
    timer.join()


# ---- a real one


class Cluster:
    """A scheduler and workers in processes of their own, each with a group, so that a machine's end can be played."""

    def __init__(self, folder):
        self.folder, self.workers = folder, []
        options = [
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(folder / "file.json"),
        ]
        self.scheduler = self._begun("scheduler", *options)
        self.address = wait_for(lambda: json.loads((folder / "file.json").read_text())["address"])

    def _begun(self, what, *options):
        log = open(self.folder / f"{what}.log", "ab")  # noqa: SIM115
        command = [sys.executable, "-m", "dask", what, *options]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, start_new_session=True)

    def add(self, *options):
        place = ["--local-directory", str(self.folder), "--no-dashboard", "--host", "127.0.0.1"]
        self.workers.append(self._begun("worker", self.address, "--nthreads", "1", *place, *options))
        return self.workers[-1]

    def ready(self, count):
        with cluster.connected(self.address) as client:
            client.wait_for_workers(count, timeout=60)
            return client.run(os.getpid)

    def close(self):
        for process in (*self.workers, self.scheduler):
            end(process)


def end(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(value, seconds=60.0):
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError):
            if found := value():
                return found
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    pytest.importorskip("distributed", reason="birdlib[cluster] is not installed")
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    yield found
    found.close()


@pytest.fixture
def two(started):
    """The cluster, with two workers whatever a test before has done to it."""
    started.workers = [one for one in started.workers if one.poll() is None]
    while len(started.workers) < 2:
        started.add()
    started.ready(2)
    return started


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A data folder of 60 recordings (links to twelve of 40 s), enough to be caught in the middle of."""
    folder = tmp_path_factory.mktemp("many")
    names = []
    for number in range(60):
        label, first = TINY_LABELS[number % 4], f"{TINY_LABELS[number % 4]}/XC{number % 12}.ogg"
        names.append(f"{label}/XC{number}.ogg")
        path = folder / "train_audio" / names[-1]
        if number < 12:
            save(path, song(label, 40.0, number))
        else:
            os.link(folder / "train_audio" / first, path)
    table = pd.DataFrame({"primary_label": [name.split("/")[0] for name in names], "filename": names})
    table.to_csv(folder / "train_metadata.csv", index=False)
    return folder


def settled(data_dir, store_dir, address=None):
    place = {"data.dir": data_dir, "sources.store_dir": store_dir, "sources.kind": "pcm"}
    return configs.load("sample", {**place, "compute.workers": 2, "compute.cluster": address})


def indexed(folder, config):
    """Headers, chunks and the store, as the first two notebooks make them; the store is then filled to its end."""
    run = runs.Run(folder, config, stages.stage("02_chunking"))
    table, problems = metadata.inspect(metadata.load(run.data_dir).table, run.data_dir, config)
    run.write_table("recordings", table)
    found = chunks.indexed(run, table.loc[metadata.readable(table), "filename"].tolist())
    run.record_errors({**problems, **found.problems})
    sources.open_source(run)
    return run


def content(folder):
    """Every file of a run's tables and of its store, by name; the time and the place of neither count."""
    tables = {path.name: path.read_bytes() for path in (folder / "run" / "tables").iterdir()}
    store = {"/".join(path.parts[-2:]): path.read_bytes() for path in (folder / "store").rglob("*.pcm")}
    return tables | store


@pytest.fixture(scope="module")
def alone(many, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    indexed(folder / "run", settled(many, folder / "store"))
    return content(folder)


@pytest.mark.slow
def test_indexing_and_the_store_are_the_same_byte_for_byte(two, many, alone, tmp_path):
    indexed(tmp_path / "run", settled(many, tmp_path / "store", two.address))
    assert content(tmp_path) == alone
    assert len(alone) == 60 + 4


@pytest.mark.slow
@pytest.mark.parametrize("what", ["its process", "its machine"])
def test_a_worker_killed_half_way_costs_nothing(what, two, many, alone, tmp_path):
    found = []

    def kill():
        wait_for(lambda: len(list((tmp_path / "store").rglob("*.pcm"))) >= 8)
        if what == "its machine":  # the nanny, which would begin it again, and the processes that decode, as well
            end(two.workers[0])
        else:
            os.kill(next(iter(pids.values())), signal.SIGKILL)
        found.append(len(list((tmp_path / "store").rglob("*.pcm"))))

    pids = two.ready(2)
    killer = threading.Thread(target=kill)
    killer.start()
    indexed(tmp_path / "run", settled(many, tmp_path / "store", two.address))
    killer.join()
    assert 8 <= found[0] < 60
    assert content(tmp_path) == alone
    assert not list(tmp_path.rglob(".aside/*"))


@pytest.mark.slow
def test_culprits_cost_one_row_each_and_no_worker(two):
    def work(item):
        if item in (0, 17):
            os.kill(os.getpid(), signal.SIGSEGV)
        if item == 23:
            time.sleep(1000)
        if item == 31:
            raise ValueError("two\n  lines")
        return item, os.getpid()

    before = two.ready(2)
    found = dict(map_files(work, range(60), 2.0, cluster=two.address))
    assert {item: one.reason for item, one in found.items() if isinstance(one, Failure)} == {
        0: "the process that read it died (signal 11: SIGSEGV)",
        17: "the process that read it died (signal 11: SIGSEGV)",
        23: "took longer than 2 s",
        31: "ValueError: two lines",
    }
    good = {item: one for item, one in found.items() if not isinstance(one, Failure)}
    assert [one for one, _ in map(good.get, sorted(good))] == sorted(set(range(60)) - {0, 17, 23, 31})
    assert two.ready(2) == before  # the same workers
    assert not {pid for _, pid in good.values()} & set(before.values())


@pytest.mark.slow
def test_the_end_of_the_time_does_not_wait_for_a_task(two):
    begun = time.monotonic()
    found = list(map_files(lambda _: time.sleep(20), range(8), LIMIT_S, cluster=two.address, until=begun + 5))
    assert found == []
    assert 5 <= time.monotonic() - begun < 15
    time.sleep(max(0.0, 25 - (time.monotonic() - begun)))  # the workers are others' again


@pytest.mark.slow
def test_a_worker_keeps_its_process_from_batch_to_batch(two):
    pids = {
        pid for _ in range(2) for _, pid in map_files(lambda _: os.getpid(), range(64), LIMIT_S, cluster=two.address)
    }
    assert 1 <= len(pids) <= 2


@pytest.mark.slow
def test_predictions_are_the_same_byte_for_byte(two, many, model, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "bad.ogg").write_bytes(b"no audio")
    monkeypatch.chdir(tmp_path)  # a path that says nothing elsewhere
    paths = [Path(os.path.relpath(many / "train_audio" / TINY_LABELS[0])), Path("bad.ogg")]
    config = predicting.together([model], {})
    made = {}
    for name, options in (("here", Options(workers=2)), ("there", Options(cluster=two.address))):
        summary = predicting.predict(paths, [Path(os.path.relpath(model))], Path(name), config, options)
        assert list(summary.failed) == ["bad.ogg"]
        files = [path for path in (tmp_path / name).rglob("*.*") if path.suffix in (".parquet", ".csv")]
        made[name] = {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}
    assert made["here"] == made["there"]
    assert len(made["here"]) == 15 + 2  # rows, errors.csv, table.csv


@pytest.mark.slow
def test_the_check_up_and_the_series_are_the_same(two, tiny_data, tmp_path):
    there = {"compute.cluster": two.address}
    one, other = (check.check(tiny_data, configs.load("sample", each)) for each in ({}, there))
    pd.testing.assert_frame_equal(one.findings, other.findings)
    assert TINY_BROKEN in one.findings["path"].iloc[0]
    for name, more in (("here", {}), ("there", there)):
        series.run("sample", tiny_data, tmp_path / name, TINY | more, last="02")
    for path in sorted((tmp_path / "here" / "tables").iterdir()):
        assert path.read_bytes() == (tmp_path / "there" / "tables" / path.name).read_bytes(), path.name
    series.run(None, None, tmp_path / "there", {"compute.cluster": "null"}, last="02")  # and nothing runs again
    assert configs.load(tmp_path / "there" / "config.yaml").compute.cluster is None


@pytest.mark.slow
def test_what_a_worker_does_not_see_is_one_error_and_no_list_of_missing_files(two):
    with pytest.raises(
        ClusterError, match=r"the worker on .* does not see /nowhere/train_audio: workers need the same"
    ):
        list(map_files(str, range(9), LIMIT_S, cluster=two.address, needs=[Path("/nowhere/train_audio")]))


# ---- one that is lost


@pytest.fixture
def own(tmp_path):
    pytest.importorskip("distributed", reason="birdlib[cluster] is not installed")
    found = Cluster(tmp_path)
    yield found
    found.close()


@pytest.mark.slow
def test_no_scheduler_no_worker_and_a_scheduler_that_goes(own, monkeypatch):
    monkeypatch.setattr(cluster, "WORKERS_S", 3.0)
    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:\d+ has no worker: start some \(dask worker tcp://"):
        list(map_files(str, range(9), LIMIT_S, cluster=own.address))
    own.add("--no-nanny")
    own.ready(1)
    found = map_files(lambda item: time.sleep(0.5) or item, range(200), LIMIT_S, cluster=own.address)
    next(found)
    own.close()
    with pytest.raises(ClusterError, match=r"is gone.*: begin again; what was done is kept"):
        list(found)
    monkeypatch.setattr(cluster, "ANSWER_S", 2.0)
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://.*: start one \(dask scheduler\)"):
        list(map_files(str, range(9), LIMIT_S, cluster=own.address))


WITHOUT_BIRDLIB = """
import sys
sys.modules["birdlib"] = None
from distributed.cli.dask_worker import main
sys.argv = ["dask-worker", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
def test_a_worker_without_birdlib_is_one_error(own, tmp_path):
    command = [sys.executable, "-c", WITHOUT_BIRDLIB, own.address, "--no-nanny", "--nthreads", "1", "--no-dashboard"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    own.workers.append(subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **pipes))
    with pytest.raises(ClusterError, match=r"the worker at tcp://.* lacks birdlib \(.*\): start it in an env"):
        list(map_files(str, range(9), LIMIT_S, cluster=own.address))
