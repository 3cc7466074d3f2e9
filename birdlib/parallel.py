"""Many files at once; one failed item is one row.

Work runs in other processes (`birdlib.processes`), of this machine or of a cluster's workers (`birdlib.cluster`), in
batches, so that a file that kills its process (a decoder that crashes) or never comes back costs itself and nothing
else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from joblib.externals.loky import cpu_count
from tqdm.auto import tqdm

from birdlib import cluster as clusters
from birdlib import processes
from birdlib.processes import Failure, Job

__all__ = ["Failure", "map_files"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_files(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    time_limit_s: float,
    workers: int = 0,
    description: str | None = None,
    cluster: str | None = None,
    needs: Sequence[Path] = (),
    largest_batch: int = processes.LARGEST_BATCH,
    until: float = math.inf,
) -> Iterator[tuple[Item, Result | Failure]]:
    """Do the same work on many files, in other processes.

    Parameters
    ----------
    work : callable
        Takes an item, returns what can be pickled. Lambdas and closures are welcome, in notebooks and in scripts
        without a main guard too. It may run again on an item, so it should write nothing that a second time spoils.
    items : sequence
        What can be pickled, usually paths.
    time_limit_s : float
        Seconds that `work` may take for one item.
    workers : int
        Processes at once; 0: one a core. Also with 1 the work is done in another process. A cluster has its own.
    description : str or None
        The label of a progress bar; None: no bar.
    cluster : str or None
        The address of a Dask scheduler, such as ``tcp://10.0.0.1:8786``; None: this machine. Every thread of its
        workers is given a process, and has the same rules; a worker that is lost has its batches done by others.
    needs : sequence of paths
        What every worker of a cluster has to see, under the same path as this machine: a missing share would look like
        as many missing files.
    largest_batch : int
        Items that a process takes at a time; their results come together, and are lost together if it is stopped. A
        cluster, where each batch passes a scheduler, keeps to the default.
    until : float
        When to stop, by `time.monotonic`: no item is begun after it, and those under way are given up.

    Yields
    ------
    item, result : tuple
        Each item that comes in time once, in the order of completion: sort what must have an order. The result is a
        `Failure` where `work` raised an exception, returned what cannot be pickled, took too long, or took its process
        down.

    Raises
    ------
    ValueError
        If the time limit or the number of workers is out of range.
    TypeError
        If `work` cannot be pickled.
    birdlib.cluster.ClusterError
        If the cluster cannot be used, is lost, or does not see what the work needs.
    Exception
        As raised where an item cannot be pickled, or where `work` cannot be loaded in the other process.

    Notes
    -----
    Items go out only as results are taken, a few batches ahead, so a large input needs little memory. Closing the
    iterator, the end of its time, or an exception or Ctrl-C while it is in use, ends the processes at once; those of a
    cluster finish the batch that they have.
    """
    if not time_limit_s > 0 or workers < 0:
        raise ValueError(f"time_limit_s={time_limit_s} must be above 0, workers={workers} not under 0")
    try:
        pickled = bytes(processes.dumps(work))
    except Exception as error:
        raise TypeError(f"the work cannot be sent to another process: {processes.why(error)}") from error
    workers = max(1, min(workers or cpu_count(), len(items)))
    job = Job(pickled, list(items), time_limit_s, workers, largest_batch, until)
    outcomes = _on_cluster(job, cluster, needs) if cluster and job.items else processes.outcomes(job)
    return _with_progress(job.items, outcomes, description)


def _on_cluster(job: Job, address: str, needs: Sequence[Path]) -> Generator[tuple[int, Any], None, None]:
    with clusters.connected(address) as client:
        job = dataclasses.replace(job, workers=clusters.ready(client), largest_batch=processes.LARGEST_BATCH)
        calls = (
            (batch, (job.work, bytes(processes.dumps([job.items[index] for index in batch])), job.time_limit_s))
            for batch in job.batches()
        )
        with closing(clusters.results(client, processes.in_kept_process, calls, needs, job.until)) as found:
            for batch, outcomes in found:
                yield from zip(batch, outcomes, strict=True)


def _with_progress(
    items: list[Any], outcomes: Generator[tuple[int, Any], None, None], description: str | None
) -> Generator[tuple[Any, Any], None, None]:
    hidden = description is None
    with (
        closing(outcomes),
        tqdm(total=len(items), desc=description, unit="file", mininterval=1.0, disable=hidden) as bar,
    ):
        for index, outcome in outcomes:
            bar.update()
            yield items[index], processes.opened(outcome)
