"""What the training input costs, against the paper's way in the same run.

    make bench ONLY=input    (or: python benchmarks/input.py [--claims cpu host index plan features] [--repeats 5])

Prints a table and writes benchmarks/out/input.json: rows of claim, value, unit, better, baseline. CPU seconds are user
plus system of all threads and children. What is compared runs in turns, and the median of the turns counts; processes
beside it slow both sides. Claims that are not run this time stay in the file. The recordings are those of
../shared/data/xc10, or of the synthetic sample, joined to the lengths that BirdCLEF's have.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import input_training
import numpy as np
import pandas as pd
import soundfile
from measuring import (
    BATCH,
    OUT,
    PAPERS_WAY,
    RATE_HZ,
    RECORDINGS,
    filenames,
    filled,
    in_turns,
    note,
    papers_way,
    recordings,
    row,
    settings,
)

from birdlib import batches, chance, chunks, sources, store
from birdlib.parallel import map_files
from birdlib.writing import read_json, write_json

# ---- host_pcm, host_lazy: the host's share of a training chunk


def host(repeats: int) -> Iterator[dict[str, object]]:
    """What the host does a chunk when the device augments: read it and lay it in a batch. No chain, no mel."""
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        config = settings(folder, **{"augmentation.where": "off"})
        held = store.open_store(config.data.dir, config)
        table = filled(held, config).assign(primary_label=lambda each: each["filename"].str.rpartition("/")[0])
        labels = sorted(table["primary_label"].unique())
        feeds = {
            name: batches.TrainingBatches(table, labels, source, config, BATCH)
            for name, source in (
                ("pcm", sources.by_settings(config.data.dir, config)),
                ("lazy", sources.LazySource(config.data.dir, config)),
            )
        }
        image = papers_way(settings(**{"augmentation.where": "host"}))
        at = feeds["pcm"].places
        whole = feeds["pcm"].num_batches

        def paper(turn: int) -> None:
            for slot, one in enumerate(feeds["pcm"].plan.epoch(turn)[:BATCH]):
                image(*at[one], chance.seeds(0, "augment", turn, slot))

        def pcm(turn: int) -> None:
            for index in range(whole):  # an epoch of it, since a batch takes only some hundredths of a second
                feeds["pcm"].batch(turn, index)

        ways = {"paper": paper, "lazy": lambda turn: feeds["lazy"].batch(turn, 0)}
        ways["pcm"] = pcm
        paper(repeats)  # warm-up: filters and plans are made once
        taken = in_turns(ways, repeats)
    counts = {"paper": BATCH, "lazy": BATCH, "pcm": BATCH * whole}
    each = {name: statistics.median(seconds) / counts[name] for name, seconds in taken.items()}
    said = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in each.items())
    note(f"CPU time a chunk: {said}; pcm in its first epoch {1e3 * taken['pcm'][0] / counts['pcm']:.3g} ms")
    for name in ("pcm", "lazy"):
        ratios = [one / other for one, other in zip(taken["paper"], taken[name], strict=True)]
        value = statistics.median(ratios) * counts[name] / counts["paper"]
        yield row(f"host_{name}", value, "times less CPU time a chunk", "higher", PAPERS_WAY)


# ---- index_vs_decode, index_2_workers


def decode_file(path: Path) -> None:
    """libsndfile alone, from front to back, in pieces of 4 s."""
    buffer = np.empty((4 * RATE_HZ, 1), np.float32)
    with soundfile.SoundFile(path) as file:
        while len(file.read(out=buffer)):
            pass


def paths() -> list[Path]:
    return [recordings() / "train_audio" / name for name in filenames()]


def decode(_: int) -> None:
    for path in paths():
        decode_file(path)


def decode_apart(workers: int) -> None:
    """The same in other processes, as indexing does it."""
    for _, _ in map_files(decode_file, paths(), 120, workers):
        pass


def index(workers: int) -> None:
    chunks.index(filenames(), recordings(), settings(workers=workers))


def index_and_store(_: int) -> None:
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        config = settings(folder)
        filled(store.open_store(config.data.dir, config), config)


def indexing(repeats: int) -> Iterator[dict[str, object]]:
    """CPU seconds against decoding; wall-clock seconds for two workers against one. Starting the workers counts."""
    repeats = max(3, repeats // 2)
    ways = {"decode": decode, "index": lambda _: index(1), "store": index_and_store}
    taken = in_turns(ways, repeats)
    over = {
        name: statistics.median(one / other for one, other in zip(taken["decode"], taken[name], strict=True))
        for name in ("index", "store")
    }
    hours = sum(soundfile.info(path).duration for path in paths()) / 3600
    note(f"{RECORDINGS} recordings, {hours:.2f} h: " + _seconds(taken))
    note(f"with the pcm store in the same pass: {over['store']:.3g} times the speed of decoding")
    yield row(
        "index_vs_decode", over["index"], "times its speed, CPU time", "higher", "libsndfile decoding the same files"
    )
    ways = {"one": lambda _: index(1), "two": lambda _: index(2)}
    bare = {
        f"decoding in {name}": lambda _, workers=workers: decode_apart(workers)
        for name, workers in (("one", 1), ("two", 2))
    }
    both = in_turns({**ways, **bare}, repeats, time.perf_counter)
    note("wall-clock: " + _seconds(both))
    value, room = (
        statistics.median(one / two for one, two in zip(both[f"{what}one"], both[f"{what}two"], strict=True))
        for what in ("", "decoding in ")
    )
    note(f"two processes that only decode are {room:.3g} times as fast as one: what the machine has to give just now")
    yield row("index_2_workers", value, "times as fast, wall-clock", "higher", "one worker")


def _seconds(taken: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {statistics.median(seconds):.3g} s" for name, seconds in taken.items())


# ---- plan_s, plan_mb

PLAN = """
import sys, time
import pandas as pd
from birdlib.epochs import BalancedPlan

taken = 0.0
if len(sys.argv) > 1:
    table = pd.read_parquet(sys.argv[1])
    labels = sorted(table["primary_label"].unique())
    began = time.perf_counter()
    rows = BalancedPlan(table, labels, 128, 0).epoch(0)
    taken = time.perf_counter() - began
    assert len(rows) == 128 * 182
# Not ru_maxrss, which begins with what the process had that started this one.
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(taken, int(peak) / 1024)
"""


def simulated(times: int, recordings: int = 24_459, total: int = 256_000, classes: int = 182) -> pd.DataFrame:
    """A chunk table of BirdCLEF's size and shape: 5 to 500 recordings a class, mostly short ones and some very long."""
    rng = np.random.default_rng(0)
    of_class = _shares(np.clip(rng.lognormal(4.4, 1.2, classes), 5, 500), times * recordings, 5)
    labels = np.repeat([f"bird{number:03d}" for number in range(classes)], of_class)
    names = np.array([f"{label}/XC{number:07d}.ogg" for number, label in enumerate(labels)])
    counts = _shares(rng.lognormal(1.6, 1.0, len(names)), times * total, 1)
    start_s = 4.0 * (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts))
    columns = {"filename": np.repeat(names, counts), "start_s": start_s, "primary_label": np.repeat(labels, counts)}
    return pd.DataFrame(columns)


def _shares(weights: np.ndarray, total: int, least: int) -> np.ndarray:
    """`total` shared out by `weights`, whole numbers, each at least `least`."""
    edges = np.round(np.cumsum(weights) / weights.sum() * (total - least * len(weights))).astype(int)
    return np.diff(edges, prepend=0) + least


def planning(repeats: int) -> Iterator[dict[str, object]]:
    """Each in a process of its own: seconds to set up the plan and draw an epoch; memory above the same imports."""

    def run(*arguments: str) -> tuple[float, float]:
        done = subprocess.run([sys.executable, "-c", PLAN, *arguments], capture_output=True, text=True, check=True)
        seconds, megabytes = map(float, done.stdout.split())
        return seconds, megabytes

    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        found: dict[int, tuple[float, float]] = {}
        for times in (1, 10):
            path = Path(folder) / f"{times}.parquet"
            simulated(times).to_parquet(path)
            pairs = [(*run(str(path)), run()[1]) for _ in range(repeats)]
            found[times] = (
                statistics.median(seconds for seconds, _, _ in pairs),
                statistics.median(with_it - without for _, with_it, without in pairs),
            )
    for place, (claim, unit) in enumerate((("plan_s", "s"), ("plan_mb", "MB above the same imports"))):
        one, ten = found[1][place], found[10][place]
        baseline = f"24,459 recordings, 256,000 chunks; ten times that: {ten:.3g} ({ten / one:.2g} times as much)"
        yield row(claim, one, unit, "lower", baseline)


# Each gives rows of claims, given how many turns to take.
GROUPS: dict[str, Callable[[int], Iterator[dict[str, object]]]] = {
    "cpu": input_training.cpu_chunk,
    "host": host,
    "index": indexing,
    "plan": planning,
    "features": input_training.feature_views,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", nargs="+", choices=GROUPS, default=list(GROUPS), help="only these groups")
    parser.add_argument("--repeats", type=int, default=5, help="turns that each way takes")
    options = parser.parse_args()
    recordings()
    rows = []
    for name in options.claims:
        print(name, flush=True)
        rows += GROUPS[name](options.repeats)
    claims = {each["claim"] for each in rows}
    kept = [each for each in read_json(OUT / "input.json") or [] if each["claim"] not in claims]
    write_json(OUT / "input.json", kept + rows)
    table = pd.DataFrame(rows).assign(value=lambda each: each["value"].map("{:,.3g}".format))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
