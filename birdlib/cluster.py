"""Work on many machines: tasks on a Dask cluster, named by the address of its scheduler.

This is Dask's own client, the engine under joblib's backend of that name. On top of it, a call of joblib 1.6 waits for
ever where a task is lost, and a cluster of one core leaves the work to the process that asks.

A worker that dies has what it was at, and what it had not handed over yet, done again by another one: Dask keeps book
of that. Workers see the same folders as this machine, under the same paths, and have the same birdlib and Python.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import queue
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import birdlib

if TYPE_CHECKING:
    from dask.distributed import Client

ANSWER_S = 10.0  # what a scheduler may take to answer
WORKERS_S = 60.0  # what a cluster may be without workers: a restart takes a few seconds, a new machine some more
APPEARS_S = 10.0  # what a folder that was just made may take to be seen by others: network file systems remember "no"
_LOOK_S = 1.0


class ClusterError(RuntimeError):
    """A cluster that cannot be used, or was lost: which, why, and what to do."""


@contextlib.contextmanager
def connected(address: str) -> Iterator[Client]:
    """A client of the cluster.

    Raises
    ------
    ClusterError
        if Dask is not installed, or no scheduler answers.
    """
    try:
        from dask.distributed import Client
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"compute.cluster needs Dask, and {error.name} is missing: pip install 'birdlib[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=ANSWER_S, set_as_default=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}): start one (dask scheduler) and workers "
            f"(dask worker {address}), or work on this machine alone with compute.cluster=null"
        ) from None
    with contextlib.closing(client):
        yield client


def ready(client: Client) -> int:
    """How many tasks the cluster does at once, once it has a worker, and each that it has can do birdlib's work.

    Raises
    ------
    ClusterError
        if none comes within `WORKERS_S`, or one lacks birdlib.
    """
    found = _threads(client)

    def lacks() -> str:  # sent whole, being within a function: what is sent by name ends a worker that lacks the name
        try:
            importlib.import_module("birdlib.cluster")
        except ImportError as error:
            return str(error)
        return ""

    if lacking := {address: why for address, why in client.run(lacks).items() if why}:
        address, why = next(iter(lacking.items()))
        raise ClusterError(f"the worker at {address} lacks birdlib ({why}): start it in an environment like this one")
    return found


def results(
    client: Client,
    task: Callable,
    calls: Iterable[tuple[Any, tuple]],
    needs: Sequence[Path] = (),
    until: float = math.inf,
) -> Generator[tuple[Any, Any], None, None]:
    """Does a task with many sets of arguments; two tasks a thread are under way.

    Parameters
    ----------
    task : what can be imported on a worker.
    calls : a name for each call, and its arguments: bytes and numbers.
    needs : paths that a worker has to see.
    until : when to stop, by `time.monotonic`; a task that a worker is at by then is done there for nothing.

    Yields
    ------
    name, result : in the order of completion.

    Raises
    ------
    ClusterError
        if the cluster is lost, or a worker does not fit.
    Exception
        as the task raises it.
    """
    left, under_way, done = iter(calls), {}, queue.SimpleQueue()
    needs = [str(Path(path).absolute()) for path in needs]
    try:
        while (left_s := until - time.monotonic()) > 0:
            for name, arguments in itertools.islice(left, max(0, 2 * _threads(client) - len(under_way))):
                future = client.submit(_fitting, _make(), needs, task, *arguments, pure=False)
                under_way[future] = name
                future.add_done_callback(done.put)
            if not under_way:
                return
            with contextlib.suppress(queue.Empty):  # after a while, it is seen whether there are workers left
                future = done.get(timeout=min(_LOOK_S, left_s))
                yield under_way.pop(future), _result(future, client)
    finally:
        with contextlib.suppress(Exception):
            client.cancel(list(under_way))


def _result(future, client: Client) -> Any:
    from dask.distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    try:
        return future.result()
    except KilledWorker as error:
        raise ClusterError(
            f"{_address(client)} lost a worker each time that it tried a batch, the last {error.last_worker.address}: "
            "see its log, and begin again; what was done is kept"
        ) from None
    except (CancelledError, CommClosedError):
        raise ClusterError(_gone(client)) from None


def _threads(client: Client) -> int:
    """The threads of all workers. A cluster may be without one for a while."""
    until = time.monotonic() + WORKERS_S
    while True:
        try:
            found = sum(client.nthreads().values())
        except Exception:
            raise ClusterError(_gone(client)) from None
        if found:
            return found
        if time.monotonic() > until:
            raise ClusterError(f"{_address(client)} has no worker: start some (dask worker {_address(client)})")
        time.sleep(_LOOK_S)


def _gone(client: Client) -> str:
    return f"the scheduler at {_address(client)} is gone: begin again; what was done is kept"


def _address(client: Client) -> str:
    return client.scheduler.address if client.scheduler else "the cluster"


# ---- on a worker


def _make() -> tuple[str, tuple[int, int]]:
    """What has to be the same for what is pickled in one place to be understood in the other."""
    return birdlib.__version__, sys.version_info[:2]


def _fitting(make: tuple[str, tuple[int, int]], needs: list[str], task: Callable, *arguments: Any) -> Any:
    """The task, on a worker that fits."""
    if tuple(make) != _make():
        (theirs, python), (ours, own) = make, _make()
        raise ClusterError(
            f"the worker on {socket.gethostname()} has birdlib {ours} on Python {own[0]}.{own[1]}, and was sent work "
            f"by {theirs} on {python[0]}.{python[1]}: start it in an environment like this one"
        )
    until = time.monotonic() + APPEARS_S
    for path in needs:
        while not Path(path).exists():
            if time.monotonic() > until:
                raise ClusterError(
                    f"the worker on {socket.gethostname()} does not see {path}: workers need the same folders as this "
                    "machine, under the same paths; mount them there, or name others that are shared"
                )
            time.sleep(0.1)
    return task(*arguments)
