import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from birdlib.parallel import Failure, map_files
from birdlib.splits import SplitError

LIMIT_S = 60  # for work that should never come near it
LARGEST_BATCH = 16


def results(work, items, time_limit_s=LIMIT_S, workers=2):
    """Results by item, after checking that every item came back, once."""
    pairs = list(map_files(work, items, time_limit_s, workers))
    assert Counter(item for item, _ in pairs) == Counter(items)
    return dict(pairs)


def failures(found):
    return {item: result.reason for item, result in found.items() if isinstance(result, Failure)}


def is_alive(pid):
    """Whether there is such a process (one that ended and is not yet collected does not count)."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def backtrack():
    """C code that holds the interpreter's lock for years."""
    re.match(r"(a+)+$", "a" * 60 + "b")


# ---- results


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_once_with_its_result(workers):
    offset = 100
    assert results(lambda item: item + offset, range(50), workers=workers) == {i: i + 100 for i in range(50)}


def test_nothing_to_do():
    assert list(map_files(str, [], 1)) == []


def test_equal_items_are_done_each():
    assert sorted(map_files(len, ["ab", "ab", "c"], LIMIT_S, 2)) == [("ab", 2), ("ab", 2), ("c", 1)]


def test_results_come_as_they_are_ready():
    items = [item for item, _ in map_files(lambda item: time.sleep(1.5 if item == 0 else 0), range(8), LIMIT_S, 2)]
    assert items[-1] == 0


def test_work_runs_elsewhere_even_with_one_worker():
    pids = set(results(lambda _: os.getpid(), range(8), workers=1).values())
    assert len(pids) == 1
    assert os.getpid() not in pids


def test_workers_start_light_and_with_one_numeric_thread():
    def look(_):
        heavy = {"keras", "tensorflow", "torch", "jax", "matplotlib", "pydantic"} & set(sys.modules)
        return heavy, os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]

    assert results(look, [0], workers=1)[0] == (set(), "1", "1")


# ---- one failed item is one row


class Unreadable:
    """Can be pickled; what comes of that cannot be read."""

    def __reduce__(self):
        return int, ("not a number",)


def misbehave(item):
    if item == 3:
        raise ValueError("two\n  lines")
    if item == 5:
        raise KeyError
    if item == 8:
        raise SplitError("said by the library itself")
    if item == 13:
        sys.exit(2)
    if item == 21:
        return threading.Lock()
    if item == 34:
        return Unreadable()
    return item


def test_exceptions_and_results_that_cannot_travel():
    reasons = failures(results(misbehave, range(50)))
    assert {item: reasons[item] for item in (3, 5, 8, 13)} == {
        3: "ValueError: two lines",
        5: "KeyError",
        8: "said by the library itself",
        13: "SystemExit: 2",
    }
    assert "lock" in reasons[21]
    assert "cannot be read back: ValueError" in reasons[34]
    assert len(reasons) == 6


@pytest.mark.parametrize(
    ("die", "workers", "reason"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), 2, "the process that read it died (signal 9: SIGKILL)"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), 1, "the process that read it died (signal 11: SIGSEGV)"),
        (lambda: os._exit(3), 2, "the process that read it died (exit code 3)"),
    ],
    ids=["killed", "segfault", "exit"],
)
def test_a_death_costs_one_item(die, workers, reason, tmp_path):
    def work(item):
        with open(tmp_path / str(item), "a") as starts:
            starts.write(".")
        return die() if item == 23 else -item

    found = results(work, range(50), workers=workers)
    assert failures(found) == {23: reason}
    assert {item: -item for item in range(50) if item != 23}.items() <= found.items()
    starts = {int(path.name): len(path.read_text()) for path in tmp_path.iterdir()}
    assert starts.pop(23) <= 3
    assert max(starts.values()) == 2
    assert sum(count == 2 for count in starts.values()) <= 2 * workers * 50 // (4 * workers), "only what was under way"


@pytest.mark.parametrize("hang", [lambda: time.sleep(1000), backtrack], ids=["sleep", "holding the lock"])
def test_a_hang_costs_one_item(hang):
    found = results(lambda item: hang() if item == 23 else item, range(50), time_limit_s=1)
    assert failures(found) == {23: "took longer than 1 s"}


@pytest.mark.slow
def test_several_culprits_at_once():
    def work(item):
        if item in (0, 1, 30):
            os.kill(os.getpid(), signal.SIGSEGV)
        if item == 2:
            backtrack()
        if item == 49:
            raise OSError("plain")
        return item

    reasons = failures(results(work, range(50), time_limit_s=1))
    assert reasons.pop(2) == "took longer than 1 s"
    assert reasons.pop(49) == "OSError: plain"
    assert reasons == dict.fromkeys((0, 1, 30), "the process that read it died (signal 11: SIGSEGV)")


def test_the_next_item_does_not_pay_for_damage_that_an_earlier_one_left():
    def work(item):
        if item == 0:
            sys.damaged = True
        elif hasattr(sys, "damaged"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return item

    assert results(work, range(12), workers=1) == {item: item for item in range(12)}


def test_all_items_die():
    assert len(failures(results(lambda _: os._exit(1), range(4), workers=1))) == 4


def test_the_limit_is_for_an_item_not_for_a_batch():
    assert not failures(results(lambda _: time.sleep(0.3), range(12), time_limit_s=0.8, workers=1))  # batches of 3


def test_a_limit_beyond_what_a_clock_counts():
    assert results(len, ["ab"], time_limit_s=1e12, workers=1) == {"ab": 2}


def test_a_slow_reader_of_results_does_not_make_a_death_a_time_out():
    def work(item):
        time.sleep(0.5 + 0.3 * item)
        os._exit(7)

    reasons = []
    for _, result in map_files(work, range(2), 2.0, 2):
        reasons.append(result.reason)
        time.sleep(2.2)
    assert reasons == ["the process that read it died (exit code 7)"] * 2


def test_a_process_that_waits_for_the_reader_is_not_out_of_time():
    pids = set()
    for item, pid in map_files(lambda _: os.getpid(), range(40), 0.5, 1):
        pids.add(pid)
        time.sleep(1.0 if item == 0 else 0)
    assert len(pids) == 1


# ---- what cannot be done at all is said at once


def test_work_that_cannot_be_pickled():
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"cannot be sent to another process: .*lock"):
        map_files(lambda item: (lock, item), range(5), LIMIT_S, 2)


class CannotBeLoaded(Unreadable):
    def __call__(self, item):
        return item


def test_work_that_cannot_be_loaded():
    with pytest.raises(ValueError, match="not a number"):
        list(map_files(CannotBeLoaded(), range(5), LIMIT_S, 2))


class DiesOnArrival:
    def __reduce__(self):
        return os._exit, (5,)

    def __call__(self, item):
        return item


def test_work_whose_loading_kills_the_process():
    with pytest.raises(Exception, match="EXIT\\(5\\)"):
        list(map_files(DiesOnArrival(), range(500), LIMIT_S, 2))


def test_an_item_that_cannot_be_pickled():
    with pytest.raises(Exception, match="pickle"):
        list(map_files(str, [threading.Lock()], LIMIT_S, 2))


@pytest.mark.parametrize(("time_limit_s", "workers"), [(0, 1), (-1, 1), (float("nan"), 1), (1, -1)])
def test_settings_out_of_range(time_limit_s, workers):
    with pytest.raises(ValueError, match="time_limit_s"):
        map_files(str, [1], time_limit_s, workers)


# ---- a large input, a reader who stops, a time that is over


def test_a_result_comes_before_the_next_item_but_one_is_begun_where_batches_are_of_one(tmp_path):
    def work(item):
        (tmp_path / str(item)).touch()
        time.sleep(0.3)

    found = map_files(work, range(64), LIMIT_S, 1, largest_batch=1)
    next(found)
    assert len(list(tmp_path.iterdir())) <= 3
    found.close()


def begun_and_hangs(folder, item, culprit=-1):
    (folder / f"{item} {os.getpid()}").touch()
    if item == culprit:
        os._exit(1)
    time.sleep(1000 if item >= 4 else 0)
    return item


@pytest.mark.parametrize("culprit", [-1, 1], ids=["in batches", "one item at a time after a death"])
def test_the_end_of_the_time_ends_what_is_under_way(tmp_path, culprit):
    begun, until_s = time.monotonic(), 8.0  # a process takes seconds to start on a busy machine
    work = functools.partial(begun_and_hangs, tmp_path, culprit=culprit)
    found = dict(map_files(work, range(50), LIMIT_S, 2, largest_batch=1, until=begun + until_s))
    assert until_s <= time.monotonic() - begun < until_s + 5
    assert found.keys() <= set(range(4))
    assert failures(found).keys() <= {culprit}
    pids = {int(path.name.split()[1]) for path in tmp_path.iterdir()}
    assert wait_until(lambda: not any(map(is_alive, pids)), 3)


def test_a_time_that_is_over_begins_nothing():
    begun = time.monotonic()
    assert list(map_files(time.sleep, [1000.0] * 4, LIMIT_S, 2, until=begun)) == []
    assert time.monotonic() - begun < 5


def test_work_goes_only_a_little_ahead_of_the_reader(tmp_path):
    def work(item):
        (tmp_path / str(item)).touch()

    found = map_files(work, range(5000), LIMIT_S, 2)
    next(found)
    time.sleep(1.0)
    assert 1 <= len(list(tmp_path.iterdir())) <= (2 * 2 + 1) * LARGEST_BATCH
    found.close()


def pid_or_hang(item):
    if item >= 6:
        time.sleep(1000)
    return os.getpid()


def test_closing_ends_the_workers():
    found = map_files(pid_or_hang, range(20), LIMIT_S, 2)
    pids = {next(found)[1] for _ in range(4)}
    begun = time.monotonic()
    found.close()
    assert wait_until(lambda: not any(map(is_alive, pids)), 3)
    assert time.monotonic() - begun < 3


def test_closing_ends_those_that_repeat_an_item(tmp_path):
    def work(item):
        (tmp_path / f"{item} {os.getpid()}").touch()
        if item == 0:
            os._exit(1)
        time.sleep(1000)

    found = map_files(work, range(4), LIMIT_S, 2)
    assert isinstance(next(found)[1], Failure)  # item 0, alone; beside it, item 1 is being repeated
    found.close()
    assert not any(is_alive(int(path.name.split()[1])) for path in tmp_path.iterdir())


def test_an_exception_of_the_reader_ends_the_workers():
    pids = set()
    with pytest.raises(ZeroDivisionError) as kept:  # its traceback keeps the reader's frame, as a notebook does
        for _, pid in map_files(pid_or_hang, range(20), LIMIT_S, 2):
            pids.add(pid)
            1 / 0  # noqa: B018
    assert wait_until(lambda: not any(map(is_alive, pids)), 3)
    assert kept.tb is not None


SCRIPT = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have switched it off
from birdlib.parallel import map_files
def work(item):
    time.sleep(1000 if item >= 2 else 0)
    return os.getpid()
for _, pid in map_files(work, range(10), 60, 1):
    print(pid, flush=True)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_a_script_without_a_guard_that_is_ended_leaves_no_worker(end, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
    ) as script:
        pids = {int(script.stdout.readline()) for _ in range(2)}
        script.send_signal(end)
        assert script.wait(30) != 0
    assert script.pid not in pids
    assert wait_until(lambda: not any(map(is_alive, pids)), 30)


# ---- progress


def test_a_bar_only_with_a_description(capfd):
    list(map_files(str, range(5), LIMIT_S, 1, "Reading"))
    shown = capfd.readouterr().err
    assert "Reading: 100%" in shown
    assert "5/5" in shown
    assert "file" in shown
    list(map_files(str, range(5), LIMIT_S, 1))
    assert capfd.readouterr().err == ""


def test_a_death_leaves_no_noise_on_the_terminal(capfd):
    results(lambda item: os.kill(os.getpid(), signal.SIGSEGV), [0], workers=1)
    assert capfd.readouterr() == ("", "")
