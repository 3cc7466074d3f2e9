"""Peak memory of each stage against the size of the corpus: no stage may hold all audio.

    make bench ONLY=memory    (or: python benchmarks/memory.py [--sizes 250 2500 24459] [--stages eda index ...])

Prints a table and writes benchmarks/out/memory.json: rows of claim, value, unit, better, baseline. A corpus of a size
is so many links to the recordings of ../shared/data/xc10 (6 s each), or of the synthetic sample. Every stage runs in a
forked process of its own, which is looked at every 50 ms: what counts is the largest sum of the resident memory (RSS)
of that process and all below it, two workers among them; pages that they share count in each. What the imports alone
take is the stage "imports".
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import numpy as np
import pandas as pd

from birdlib import chunks, epochs, exported, metadata, overview, predicting, sample, sources, splits
from birdlib import config as configs
from birdlib.detections import Choice
from birdlib.store import open_store
from birdlib.writing import write_json

OUT = Path(__file__).parent / "out"
XC10 = Path(__file__).parents[2] / "shared" / "data" / "xc10"
SIZES = (250, 2_500, 24_459)  # the last is BirdCLEF 2024
STORE_GB = 0.2  # so that the largest corpora do not fit, and what goes in has to be chosen
EPOCH_BATCHES = 20


def corpus(folder: Path) -> None:
    """A data folder of so many recordings as the folder's name ends with, each a link."""
    size = int(folder.name.rpartition("_")[2])
    origin = XC10 if XC10.is_dir() else OUT / "sample"
    if not origin.is_dir():
        sample.write(origin)
    recordings = metadata.load(origin).table
    recordings = recordings[[(origin / "train_audio" / name).stat().st_size > 5_000 for name in recordings["filename"]]]
    rows = recordings.iloc[np.arange(size) % len(recordings)].reset_index(drop=True)
    targets = [origin / "train_audio" / name for name in rows["filename"]]
    names = [f"{label}/XC{number:07d}.ogg" for number, label in enumerate(rows["primary_label"])]
    for label in rows["primary_label"].unique():
        (folder / "train_audio" / label).mkdir(parents=True)
    for name, target in zip(names, targets, strict=True):
        os.symlink(target, folder / "train_audio" / name)
    rows.assign(filename=names).to_csv(folder / "train_metadata.csv", index=False)


def settings(data: Path, kind: str = "lazy") -> configs.Config:
    place = {"data.dir": data, "compute.workers": 2, "sources.kind": kind, "sources.store_dir": data / "store"}
    return configs.load("paper", {**place, "sources.budget_gb": STORE_GB, "batches.threshold": 128})


# ---- the stages, each in a process of its own; later ones read what earlier ones wrote beside the data


def imports(data: Path) -> None:
    time.sleep(0.5)  # long enough to be looked at


def eda(data: Path) -> None:
    recordings, _ = metadata.load(data)
    overview.columns(recordings, data), overview.types(recordings), overview.background(recordings)
    table = metadata.inspect(recordings, data, settings(data)).table
    overview.odd(table)
    table.to_parquet(data / "recordings.parquet")


def index(data: Path) -> None:
    names = pd.read_parquet(data / "recordings.parquet", columns=["filename"])["filename"].tolist()
    chunks.index(names, data, settings(data)).chunks.to_parquet(data / "chunks.parquet")


def store(data: Path) -> None:
    config, table = settings(data, "pcm"), pd.read_parquet(data / "chunks.parquet")
    recordings = pd.read_parquet(data / "recordings.parquet").set_index("filename")
    sources.fill(open_store(data, config), table, (recordings["duration_s"] * 32_000).round(), data, config)


def splitting(data: Path) -> None:
    recordings, config = pd.read_parquet(data / "recordings.parquet"), settings(data)
    heard = recordings.assign(audio_hash=recordings["filename"])  # links to one file are not to be one recording
    rules = config.splits
    table = splits.make(heard, rules.test_share, rules.folds, rules.group_by, config.seed)
    splits.check(table)
    table.to_parquet(data / "splits.parquet")


def kept(data: Path) -> tuple[pd.DataFrame, list[str]]:
    table = pd.read_parquet(data / "chunks.parquet")
    table = table[chunks.kept(table, settings(data).silence)]
    table = table.merge(pd.read_parquet(data / "splits.parquet")[["filename", "primary_label"]], on="filename")
    return table.reset_index(drop=True), sorted(table["primary_label"].unique())


def plan(data: Path) -> None:
    table, labels = kept(data)
    epochs.BalancedPlan(table, labels, 128, 0).epoch(0)


def training_input(data: Path) -> None:
    from birdlib import batches

    table, labels = kept(data)
    config = settings(data)
    feed = batches.TrainingBatches(table, labels, sources.LazySource(data, config), config, 32)
    for number in range(EPOCH_BATCHES):
        feed.batch(number // feed.num_batches, number % feed.num_batches)


def prediction(data: Path) -> None:
    """By a model of one matrix product, so that what is measured is what goes around a model; a row a window."""
    model = small_model(data / "model")
    options = predicting.Options(choice=Choice(0, top_k=1, merge=False), workers=2)
    config = predicting.together([model], {})
    predicting.predict([data / "train_audio"], [model], data / "heard", config, options)


def small_model(folder: Path, classes: int = 182) -> Path:
    import openvino

    folder.mkdir()
    ops, config = openvino.opset13, configs.load("paper")
    image = ops.parameter([1, *config.image_shape], np.float32)
    pooled = ops.reduce_mean(ops.divide(image, np.float32(255)), np.array([2, 3]), False)
    said = ops.matmul(pooled, np.full((config.image_shape[0], classes), 1 / 128, np.float32), False, False)
    openvino.save_model(openvino.Model([said, pooled], [image]), folder / "model_0.xml", False)
    labels = [f"bird{number}" for number in range(classes)]
    species = pd.DataFrame({"primary_label": labels, "common_name": labels, "scientific_name": labels})
    about = {"format": "openvino", "precision": "f32", "models": ["model_0.xml"], "made_from": {"0": "x"}}
    about |= {"temperatures": [1.0], "activation": "sigmoid"}
    exported.write(folder, about, config, species.assign(share=1 / classes))
    return folder


STAGES: dict[str, Callable[[Path], None]] = {
    "corpus": corpus,
    "imports": imports,
    "eda": eda,
    "index": index,
    "store": store,
    "splits": splitting,
    "plan": plan,
    "training_input": training_input,
    "prediction": prediction,
}
WORDS = {
    "imports": "the imports alone",
    "eda": "the metadata and every file's header",
    "index": "cutting into chunks",
    "store": f"filling a pcm store of {STORE_GB} GB",
    "splits": "dealing out the splits",
    "plan": "planning an epoch",
    "training_input": f"{EPOCH_BATCHES} training batches of 32 (with Keras)",
    "prediction": "hearing all recordings (a trivial model)",
}


# ---- measuring


def resident_mb(top: int) -> float:
    """RSS of a process and all below it."""
    parents, pages = {}, {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            parents[int(place.name)], pages[int(place.name)] = int(fields[1]), int(fields[21])
        except (OSError, IndexError):  # it has ended
            continue
    below = {top}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(pages.get(pid, 0) for pid in below) * os.sysconf("SC_PAGE_SIZE") / 1e6


def apart(stage: str, data: Path) -> None:
    """In a forked process: what it prints goes to a file."""
    log = os.open(data / f"{stage}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    STAGES[stage](data)


def peak_mb(stage: str, data: Path) -> float:
    child = multiprocessing.get_context("fork").Process(target=apart, args=(stage, data))
    child.start()
    peak = 0.0
    while child.exitcode is None:
        peak = max(peak, resident_mb(child.pid))
        time.sleep(0.05)
    if child.exitcode:
        raise SystemExit(f"{stage}: {(data / f'{stage}.log').read_text()[-2000:]}")
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    parser.add_argument("--stages", nargs="+", choices=WORDS, default=list(WORDS))
    options = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    found: dict[str, dict[int, float]] = {stage: {} for stage in options.stages}
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=OUT, suffix=f"_{size}") as folder:
            data, began = Path(folder), time.monotonic()
            peak_mb("corpus", data)
            for stage in options.stages:
                found[stage][size] = peak_mb(stage, data)
                spent = time.monotonic() - began
                print(f"    {size:,} recordings, {stage}: {found[stage][size]:.0f} MB ({spent:.0f} s)", flush=True)
    *small, large = options.sizes
    rows = [
        {
            "claim": f"{stage}_mb",
            "value": round(peaks[large]),
            "unit": f"MB at most, {large:,} recordings: {WORDS[stage]}",
            "better": "lower",
            "baseline": ", ".join(f"{peaks[size]:.0f} MB with {size:,}" for size in small),
        }
        for stage, peaks in found.items()
    ]
    write_json(OUT / "memory.json", rows)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
