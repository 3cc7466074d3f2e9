"""What an hour of audio costs, and from it what a million hours cost: the numbers of docs/scaling.md.

    make bench ONLY=scaling    (or: python benchmarks/scaling.py [--hours 1e6] [--model FOLDER])

Prints two tables and writes benchmarks/out/scaling.json: rows of claim, value, unit, better, baseline. Measured on four
soundscapes of four minutes, Ogg at 32 kHz; CPU seconds of one core, the least of the turns. A cluster's cost is that of
work that does nothing, on a real scheduler and worker on this machine. --model: a folder of `birdlib export`.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from inference_parts import scenes
from measuring import OUT, RATE_HZ, cpu_s, in_turns, row

from birdlib import audio, chunks, classifier, config, kept, soundscapes
from birdlib.parallel import map_files
from birdlib.store import Store
from birdlib.writing import write_json

CORES = 32  # of a machine
CLASSES = 182
BATCHES = 300


def hours(paths: list[Path]) -> float:
    return sum(audio.info(path).duration_s for path in paths) / 3600


def rates(paths: list[Path], model: Path | None, repeats: int) -> dict[str, float]:
    """Core-seconds an hour of audio, and bytes an hour."""
    settings, silent = config.load("paper"), np.zeros((1, CLASSES), np.float32)
    none = classifier.Classifier(lambda images: np.repeat(silent, len(images), axis=0), settings)
    own = classifier.load(model, threads=1) if model else None
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        store = Store(Path(folder))

        def fill(_: int) -> None:
            for path in paths:
                store.remove(path.name)
                chunks._index_file(path, settings, store, path.name, 2**40)

        ways = {
            "index": lambda _: [chunks._index_file(path, settings) for path in paths],
            "store": fill,
            "front_end": lambda _: [soundscapes.hear(path, none, settings) for path in paths],
        }
        if own:
            ways["predict"] = lambda _: [soundscapes.hear(path, own, own.config) for path in paths]
        taken = {name: min(seconds) / hours(paths) for name, seconds in in_turns(ways, repeats, cpu_s).items()}
        taken["store_gb"] = store.bytes_used() / hours(paths) / 1e9
        found = soundscapes.hear(paths[0], none, settings)
        known = types.SimpleNamespace(species=pd.DataFrame({"primary_label": map(str, range(CLASSES))}))
        noise = np.random.default_rng(0).random(found.values.shape, np.float32)  # zeros would be compressed away
        one, out = kept.Recording(paths[0], "one"), Path(folder)
        began = time.perf_counter()
        for _ in range(20):
            kept.keep(out, one, found._replace(values=noise), known, settings)
        taken["keep"] = (time.perf_counter() - began) / 20
        taken["rows_gb"] = kept._path(out, one).stat().st_size / hours(paths[:1]) / 1e9
    taken["audio_gb"] = sum(path.stat().st_size for path in paths) / hours(paths) / 1e9
    return taken


def dispatch_ms() -> float:
    """Milliseconds of the clock that a batch of 16 items takes one worker beside its work."""
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        noted = Path(folder) / "scheduler.json"
        place = ["--no-dashboard", "--scheduler-file", str(noted)]
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        begun = [subprocess.Popen([sys.executable, "-m", "dask", "scheduler", "--port", "0", *place], **options)]
        try:
            begun.append(
                subprocess.Popen([sys.executable, "-m", "dask", "worker", "--nthreads", "1", *place], **options)
            )
            while not noted.exists():
                time.sleep(0.1)
            address = json.loads(noted.read_text())["address"]
            times = [time.perf_counter() for _ in map_files(abs, range(16 * BATCHES), 60, cluster=address)]
        finally:
            for process in begun:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
    ends = np.array(times[15::16])  # when each batch was here; the first ones wait for the process to start
    return 1e3 * statistics.median(np.diff(ends)[BATCHES // 3 :])


def claims(found: dict[str, float], batch_ms: float) -> Iterator[dict[str, object]]:
    decoded = f"audio at {RATE_HZ:,} Hz, one core"
    words = {"index": "cutting into chunks", "store": "the same with the pcm store", "front_end": "decoding and images"}
    for name, what in {**words, "predict": "predicting"}.items():
        if name in found:
            yield row(
                f"{name}_core_s_per_hour", found[name], f"core-seconds an hour of audio, {what}", "lower", decoded
            )
    yield row("dispatch_ms", batch_ms, "ms a batch of 16 files beside its work", "lower", "one worker, loopback")
    yield row("keep_ms", 1e3 * found["keep"], "ms to keep a recording's rows, in one place", "lower", "4 minutes")
    for name in ("audio_gb", "store_gb", "rows_gb"):
        yield row(f"{name}_per_hour", found[name], "GB an hour of audio", "lower", decoded)


def plan(found: dict[str, float], total_h: float) -> pd.DataFrame:
    """Machines for a day, and what each work asks of the shared disk then."""
    rows = []
    for name in ("index", "store", "front_end", "predict"):
        if name in found:
            cores = found[name] * total_h / 86_400
            moved = found["audio_gb"] + (found["store_gb"] if name == "store" else 0)
            rows.append(
                {
                    "work": name,
                    "core-hours": found[name] * total_h / 3600,
                    f"machines of {CORES} cores for a day": cores / CORES,
                    "GB/s on the shared disk for that day": moved * total_h / 86_400,
                    "MB/s a core": 1e3 * moved / found[name],
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1e6)
    parser.add_argument("--model", type=Path, help="an exported model to predict with")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    found = rates(scenes(), options.model, options.repeats)
    rows = list(claims(found, dispatch_ms()))
    write_json(OUT / "scaling.json", rows)
    print(pd.DataFrame(rows).assign(value=lambda each: each["value"].map("{:,.3g}".format)).to_string(index=False))
    print(f"\n{options.hours:,.0f} hours:")
    print(plan(found, options.hours).to_string(index=False, float_format="{:,.3g}".format))
    amounts = {name: found[f"{name}_gb"] * options.hours / 1e3 for name in ("audio", "store", "rows")}
    print("\nTB: " + ", ".join(f"{name} {amount:,.3g}" for name, amount in amounts.items()))


if __name__ == "__main__":
    main()
