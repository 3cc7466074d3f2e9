"""Hearing many recordings: by how many processes, how long each may take, until when; a model that cannot be loaded."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from joblib import cpu_count
from tqdm.auto import tqdm

from birdlib import audio, classifier, kept, soundscapes
from birdlib.kept import PredictError, Recording
from birdlib.parallel import Failure, map_files
from birdlib.processes import why
from birdlib.soundscapes import Heard

if TYPE_CHECKING:
    from birdlib.config import Config
    from birdlib.exported import Exported

_HEADER_S = 20.0  # what reading a header may take
_KERAS = 5  # so much longer than OpenVINO takes Keras for a window: ConvNeXtTiny by TensorFlow, on two cores
_UNKNOWN_S = 3600.0  # what a recording may last whose header does not say


class Job(NamedTuple):
    """By what recordings are heard; ``threads`` that a model computes with are for `hear_all` to say."""

    models: tuple[Path, ...]
    runtime: str
    config: Config
    embeddings: bool
    threads: int = 0


class _NotLoaded(NamedTuple):
    """What hearing a recording gives where the model cannot be loaded, which is not the recording's fault."""

    reason: str


def unheard(found: list[Recording], out: Path, embeddings: bool) -> list[Recording]:
    """Those that were not heard before. To know them a little of each is read: many at once, for disks far away."""
    if not (out / "rows").exists():
        return found
    with ThreadPoolExecutor(16) as pool, tqdm(found, "known already?", unit="file", delay=2, leave=False) as bar:
        known = list(pool.map(lambda one: (kept.has(out, one, embeddings), bar.update())[0], found))
    return [one for one, heard in zip(found, known, strict=True) if not heard]


def hear_all(
    job: Job,
    left: list[Recording],
    out: Path,
    opened: list[Exported],
    until: float,
    workers: int,
    cluster: str | None,
) -> tuple[dict[str, str], set[str]]:
    """Hears and keeps; the failures (name -> reason), and the names that were reached.

    Parameters
    ----------
    opened : the job's models.
    until : when to stop, by `time.monotonic`.
    workers : processes; 0: one a core.
    cluster : the address of a Dask scheduler, whose workers then hear.

    Raises
    ------
    PredictError
        if a model cannot be loaded.
    """
    failed: dict[str, str] = {}
    reached: set[str] = set()
    if not left or time.monotonic() >= until:
        return failed, reached
    # Keras shares its work out to all cores by itself; other runtimes do better with a core a recording.
    most = 1 if any(one.about["format"] == "keras" for one in opened) else workers or cpu_count()
    workers = min(most, len(left))
    threads = 1 if cluster else max(1, cpu_count() // workers)
    # Other processes may stand in another folder.
    job = job._replace(threads=threads, models=tuple(model.absolute() for model in job.models))
    left = [one._replace(path=one.path.absolute()) for one in left]
    needs = [*job.models, Path(os.path.commonpath([one.path.parent for one in left]))] if cluster else []
    # The longest first, so that no core waits for one at the end.
    order = sorted(left, key=lambda one: -_bytes(one.path))
    work, limit_s = functools.partial(_hear, job), _time_limit_s(left, opened, job.config, until)
    # A recording at a time: a batch saves milliseconds, and all of it would be lost where it is stopped.
    results = map_files(work, order, limit_s, workers, None, cluster, needs, largest_batch=1, until=until)
    with closing(results), tqdm(total=len(left), desc="hearing", unit="file", mininterval=1.0) as bar:
        for recording, result in results:
            bar.update()
            if isinstance(result, _NotLoaded):
                raise _unloadable(job.models, result.reason)
            reached.add(recording.name)
            if isinstance(result, Failure):
                failed[recording.name] = result.reason.removeprefix(f"{recording.path}: ")
            else:
                mark, heard = result
                kept.keep(out, recording, heard, opened[0], job.config, mark)
    return failed, reached


def _hear(job: Job, recording: Recording) -> tuple[str, Heard] | _NotLoaded:
    """In the working process. The recording's stamp is from before: one that is still written to is heard again."""
    try:
        model = _loaded(job.models, job.runtime, job.threads)
    except Exception as error:
        return _NotLoaded(why(error))
    return kept.stamp(recording.path), soundscapes.hear(recording.path, model, job.config, job.embeddings)


def require_loadable(models: Sequence[Path]) -> None:
    """Loads models that nothing is to be heard with yet. Raises `PredictError` where they cannot be."""
    try:
        _loaded(tuple(models), "auto", 0)
    except Exception as error:
        raise _unloadable(models, why(error)) from None


def _unloadable(models: Sequence[Path], reason: str) -> PredictError:
    names = " and ".join(map(str, models))
    return PredictError(f"{names} cannot be loaded ({reason}): copy the whole folder again, or make it anew")


def _bytes(path: Path) -> int:
    """0 for what is gone, or a link to nowhere: hearing it says so."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


@functools.lru_cache(maxsize=1)
def _loaded(models: tuple[Path, ...], runtime: str, threads: int) -> classifier.Classifier:
    return classifier.average([classifier.load(model, None, runtime, threads) for model in models])


def _time_limit_s(left: list[Recording], opened: list[Exported], config: Config, until: float) -> float:
    """A recording hangs that takes a model longer than it lasts, once for each window that begins within a chunk."""
    lengths_s = durations_s([one.path for one in left], until).values()
    longest_s = max(_UNKNOWN_S if math.isnan(one) else one for one in lengths_s)
    models = sum(len(one.models) * (_KERAS if one.about["format"] == "keras" else 1) for one in opened)
    windows = config.chunks.length_s / (config.soundscapes.step_s or config.chunks.length_s)
    return max(config.compute.file_time_limit_s, longest_s) * models * windows


def durations_s(paths: Sequence[Path], until: float = math.inf) -> dict[Path, float]:
    """How long recordings are by their headers; nan where that is not known.

    Other processes read them, as some file's header may kill or hang what reads it.
    """
    found = {
        path: info.duration_s
        for path, info in map_files(audio.info, [path.absolute() for path in paths], _HEADER_S, until=until)
        if not isinstance(info, Failure)
    }
    return {path: found.get(path.absolute(), math.nan) for path in paths}
