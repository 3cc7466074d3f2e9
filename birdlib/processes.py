"""Work on many items in other processes of one machine, so that a death or a hang costs one item.

Work runs in batches. When a process dies, the batches that were under way are repeated, one item at a time in a
process: what is good comes through, and the culprit alone is a `Failure`. `birdlib.parallel` is the way in.

The time limit is kept inside the working process, by the watchdog thread of `faulthandler`. That thread is written
in C and needs no lock of the interpreter, so it ends the process even where C code hangs.
"""

from __future__ import annotations

import faulthandler
import functools
import math
import multiprocessing
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass
from typing import Any, TextIO

from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.backend.reduction import dumps, loads

__all__ = ["LARGEST_BATCH", "Failure", "Job", "dumps", "in_kept_process", "opened", "outcomes", "why"]

LARGEST_BATCH = 16
_LONGEST_S = 1e9  # thirty years, and about what faulthandler can count
# Each worker keeps one core busy: numeric libraries that start their own threads would only get in the way.
_WORKER_ENVIRONMENT = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR", "NUMBA")
} | {"VECLIB_MAXIMUM_THREADS": "1", "PYTHONFAULTHANDLER": ""}  # empty: a death is told in its row, not on stderr


@dataclass(frozen=True)
class Failure:
    """What came of an item in place of a result: the reason, one line."""

    reason: str


@dataclass(frozen=True)
class Job:
    """What to do, on what, and within which bounds; ``work`` is pickled once for all batches.

    ``until``, by `time.monotonic`, all is over, whatever is under way then.
    """

    work: bytes
    items: list[Any]
    time_limit_s: float
    workers: int
    largest_batch: int = LARGEST_BATCH
    until: float = math.inf

    @property
    def left_s(self) -> float | None:
        """How long one may wait for results; None: for ever."""
        return None if math.isinf(self.until) else max(0.0, self.until - time.monotonic())

    def batches(self) -> Iterator[range]:
        """The items' indices, cut so that every worker gets several turns."""
        size = max(1, min(self.largest_batch, len(self.items) // (4 * self.workers)))
        return (range(len(self.items))[start : start + size] for start in range(0, len(self.items), size))

    def submit(self, pool: ProcessPoolExecutor, batch: Sequence[int]) -> Future:
        """Has a pool run a batch; the future's exception is a `BrokenExecutor` where it cannot, now or later."""
        items = [self.items[index] for index in batch]
        try:
            return pool.submit(_run_batch, self.work, items, self.time_limit_s)
        except BrokenExecutor as error:  # it broke since the last look: this batch is then repeated as well
            future: Future = Future()
            future.set_exception(error)
            return future


def outcomes(job: Job) -> Generator[tuple[int, Any], None, None]:
    """What comes of every item, as (index, outcome for `opened`), in the order of completion.

    Two batches a worker are under way, so that it is known what a death may have cost. Closing the generator ends the
    processes at once, and so does the end of the time: what is ready by then is still given.
    """
    batches = job.batches()
    under_way: dict[Future, range] = {}
    pool = _pool(job.workers)
    try:
        while True:
            while len(under_way) < 2 * job.workers and (batch := next(batches, None)):
                under_way[job.submit(pool, batch)] = batch
            if not under_way:
                return
            done = wait(under_way, job.left_s, return_when=FIRST_COMPLETED).done
            if any(isinstance(future.exception(), BrokenExecutor) for future in done):
                done = wait(under_way).done  # a broken pool ends all of them; some may have got their result before
                _end(pool)
            lost: list[int] = []
            for future in done:
                batch = under_way.pop(future)
                if isinstance(future.exception(), BrokenExecutor):
                    lost += batch
                else:
                    yield from zip(batch, future.result(), strict=True)
            if lost:
                yield from _map_alone(job, sorted(lost))
                pool = _pool(job.workers)
            if job.left_s == 0:
                return
    finally:
        _end(pool)


class _Lane:
    """A process of its own that takes one item at a time; `index` is the present one."""

    def __init__(self, job: Job, index: int) -> None:
        self.job, self.index, self.taken = job, index, 0
        self.pool = _pool(1)
        # The work first, alone: importing what it needs is not the first item's time.
        self.future = self.pool.submit(_load, job.work)

    def take(self, index: int) -> None:
        self.index, self.taken = index, self.taken + 1
        self.times = times = [time.monotonic()]
        self.future = self.job.submit(self.pool, [index])
        # Noted at the event: the loop that looks at it may be waiting for whoever takes the results.
        self.future.add_done_callback(lambda _: times.append(time.monotonic()))

    def died(self) -> bool:
        return isinstance(self.future.exception(), BrokenExecutor)

    def late(self) -> bool:
        started, *ended = (*self.times, time.monotonic())  # without a note, the event is only just past
        return ended[0] - started >= self.job.time_limit_s

    def outcome(self) -> Any:
        if not self.died():
            return self.future.result()[0]
        if self.late():
            return Failure(f"took longer than {self.job.time_limit_s:g} s")
        return Failure(f"the process that read it died{_exit_code(self.future.exception())}")


def _map_alone(job: Job, indices: Sequence[int]) -> Generator[tuple[int, Any], None, None]:
    """One item at a time in a process, a few processes at once.

    An item whose process dies is tried again in a fresh one, if others went through that process before: the damage
    may be theirs. What dies as the first in its process, or takes too long in any, is the culprit.
    """
    waiting, doubtful, lanes = deque(indices), deque[int](), list[_Lane]()
    try:
        while waiting or doubtful or lanes:
            while (waiting or doubtful) and len(lanes) < job.workers:
                lanes.append(_Lane(job, (doubtful or waiting).popleft()))
            wait([lane.future for lane in lanes], job.left_s, return_when=FIRST_COMPLETED)
            for lane in [lane for lane in lanes if lane.future.done()]:
                if not lane.taken:
                    lane.future.result()  # raises what kept the work from being loaded
                    lane.take(lane.index)
                    continue
                index, died, outcome = lane.index, lane.died(), lane.outcome()
                unsure = died and not lane.late() and lane.taken > 1
                if waiting and not died:
                    lane.take(waiting.popleft())
                else:
                    lanes.remove(lane)
                    _end(lane.pool)
                if unsure:
                    doubtful.append(index)
                else:
                    yield index, outcome
            if job.left_s == 0:
                return
    finally:
        for lane in lanes:
            _end(lane.pool)


def _pool(workers: int, idle_s: float | None = None) -> ProcessPoolExecutor:
    mine = {"initializer": _end_with, "initargs": (os.getpid(),), "env": _WORKER_ENVIRONMENT}
    return ProcessPoolExecutor(workers, timeout=idle_s, **mine)


def _end(pool: ProcessPoolExecutor) -> None:
    pool.shutdown(wait=True, kill_workers=True)


def opened(outcome: bytes | Failure) -> Any:
    """The result that was pickled where it was made; a `Failure` if there is none."""
    if isinstance(outcome, Failure):
        return outcome
    try:
        return loads(outcome)
    except Exception as error:
        return Failure(f"its result cannot be read back: {why(error)}")


def _exit_code(error: BaseException) -> str:
    """What the pool says of how its process ended; it gives that in words only, and not on every system."""
    if not (found := re.search(r"exit codes of the workers are \{(\w+)\((-?\d+)\)", str(error))):
        return ""
    name, code = found[1], int(found[2])
    return f" (signal {-code}: {name})" if code < 0 else f" (exit code {code})"


# ---- in a thread of a cluster's worker

_IDLE_S = 60.0  # what a kept process waits for its next batch; it may hold a loaded model
_kept: dict[int, ProcessPoolExecutor] = {}


def in_kept_process(work: bytes, items: bytes, time_limit_s: float) -> list[bytes | Failure]:
    """A pickled batch in a process beside this one, which the next batch of this thread finds warm.

    So a file that kills or hangs its process costs there what it costs on one machine, and this process lives.
    """
    job = Job(work, loads(items), time_limit_s, 1)
    if not job.items:
        return []
    _have_children()
    thread = threading.get_ident()
    if thread not in _kept:
        _kept[thread] = _pool(1, _IDLE_S)
    future = job.submit(_kept[thread], range(len(job.items)))
    if not isinstance(future.exception(), BrokenExecutor):
        return future.result()
    _end(_kept.pop(thread))
    return [outcome for _, outcome in sorted(_map_alone(job, range(len(job.items))), key=lambda pair: pair[0])]


@functools.cache
def _have_children() -> None:
    """Dask makes its workers daemons, which multiprocessing lets have no children for fear that these outlive them.

    Ours do not: they end with their parent (`_end_with`), and before it where it ends in good order.
    """
    multiprocessing.current_process()._config["daemon"] = False
    multiprocessing.util.Finalize(None, _end_kept, exitpriority=20)


def _end_kept() -> None:
    while _kept:
        _end(_kept.popitem()[1])


# ---- in the working process


def _end_with(parent: int) -> None:
    """Do not outlive a parent that was killed: the pool's processes would wait for it for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_batch(pickled: bytes, items: list[Any], time_limit_s: float) -> list[bytes | Failure]:
    work = _load(pickled)
    return [_run(work, item, time_limit_s) for item in items]


def _run(work: Callable[[Any], Any], item: Any, time_limit_s: float) -> bytes | Failure:
    """The pickled result: pickled here and item by item, so that one which cannot be is known by its item."""
    faulthandler.dump_traceback_later(min(time_limit_s, _LONGEST_S), exit=True, file=_nowhere())
    try:
        return bytes(dumps(work(item)))
    except (Exception, SystemExit) as error:
        return Failure(why(error))
    finally:
        faulthandler.cancel_dump_traceback_later()


@functools.lru_cache(maxsize=1)
def _load(pickled: bytes) -> Callable[[Any], Any]:
    return loads(pickled)


@functools.cache
def _nowhere() -> TextIO:
    return open(os.devnull, "w")


def why(error: BaseException) -> str:
    """An exception in one line. The library's own are written to be read; others need their type to be understood."""
    message = " ".join(str(error).split())
    if type(error).__module__.split(".")[0] == __package__ and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
