"""Kills a run at random moments, by SIGINT, SIGTERM and SIGKILL in turn, and begins it again, until it is done.

Indexing, the pcm store, both training phases (two folds) and the test's predictions, on a small synthetic data folder.
At the end its tables, histories and models are compared with those of a run that was left alone: byte for byte, but for
the seconds in the histories and the zips' dates. Prints how many kills were survived; exit status 1 at a difference.

    python tools/soak.py --kills 20 --seed 0
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
SETTINGS = {
    "chunks.length_s": 1,
    "chunks.overlap_s": 0.2,
    "spectrogram.n_mels": 32,
    "batches.threshold": 8,
    "model.hidden": "16",
    "splits.folds": 2,
    "folds": "[0, 1]",
    "phase_1.epochs": 4,
    "phase_2.epochs": 3,
    "augmentation.where": "off",
    "sources.kind": "pcm",
    "compute.workers": 2,
    "compute.predict_batch_size": 16,
}
TABLES = ("recordings", "chunks", "audio", "splits", "predictions", "errors")


def go(folder: Path, data: Path) -> None:
    """All stages, as the notebooks call them, without the figures; what is done is not done again."""
    from birdlib import chunks, metadata, runs, splits, stages, testing, training

    options = {"data_dir": data, "overrides": SETTINGS | {"sources.store_dir": str(folder / "store")}}
    config = runs.settle(folder, "sample", **options)
    for one in stages.STAGES:
        if runs.is_current(one, config, folder) or one.name.startswith("03"):
            continue
        run = runs.open_run(one.name, "sample", folder, **options)
        if one.name.startswith("01"):
            recordings, problems = metadata.load(data)
            recordings, unreadable = metadata.inspect(recordings, data, config)
            run.record_errors({**problems, **unreadable})
            run.write_table("recordings", recordings)
        elif one.name.startswith("02"):
            recordings = run.read_table("recordings")
            found = chunks.indexed(run, recordings.loc[metadata.readable(recordings), "filename"].tolist())
            heard = recordings[recordings["filename"].isin(found.audio_hash.index)]
            heard = heard.assign(audio_hash=heard["filename"].map(found.audio_hash))
            rules = config.splits
            run.write_table("splits", splits.make(heard, rules.test_share, rules.folds, rules.group_by, config.seed))
        elif one.name.startswith(("04", "05")):
            phase = training.phase_1 if one.name.startswith("04") else training.phase_2
            scores = {str(fold): phase(run, fold)["val_accuracy"] for fold in config.folds}
            run.update_metrics(one.name[3:], scores)
        else:
            result = testing.test(run, testing.classifiers(run))
            run.write_table("predictions", result.predictions)
            run.write_csv("submission.csv", result.predictions)
            run.update_metrics("test", {"broken": len(result.broken)})
        run.finish()


def differences(folder: Path, other: Path) -> list[str]:
    """The results of two runs that are not the same."""
    import keras
    import numpy as np

    found = []
    for name in TABLES:
        one, two = (each / "tables" / f"{name}.parquet" for each in (folder, other))
        if one.read_bytes() != two.read_bytes():
            found.append(f"tables/{name}.parquet")
    for path in sorted(other.glob("history/*.csv")):
        one, two = (pd.read_csv(each / "history" / path.name).drop(columns="seconds") for each in (folder, other))
        if not one.equals(two):
            found.append(f"history/{path.name}")
    for path in sorted(other.glob("models/*.keras")):
        one, two = (keras.saving.load_model(each / "models" / path.name, compile=False) for each in (folder, other))
        if not all(np.array_equal(a, b) for a, b in zip(one.get_weights(), two.get_weights(), strict=True)):
            found.append(f"models/{path.name}")
    return found + [str(path) for path in folder.rglob(".writing-*")]


def begun(folder: Path, data: Path) -> subprocess.Popen:
    """The run in a process and session of its own."""
    command = [sys.executable, __file__, "--go", str(folder), "--data", str(data)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def killed(folder: Path, data: Path, kills: int, longest_s: float, rng: random.Random) -> int:
    """How many times it was killed before it was done."""
    count = 0
    while True:
        process = begun(folder, data)
        try:
            wait = None if count >= kills else rng.uniform(0, longest_s)
            _, error = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            process.send_signal(SIGNALS[count % len(SIGNALS)])
            process.communicate()
            count += 1
            continue
        if process.returncode:
            raise SystemExit(f"after {count} kills it did not go on:\n{error[-2000:]}")
        return count


def main() -> int:
    """Runs it, undisturbed and killed, and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="a data folder [default: the synthetic sample]")
    parser.add_argument("--go", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.go:
        go(arguments.go, arguments.data)
        return 0
    from birdlib import sample

    with tempfile.TemporaryDirectory() as folder:
        data, alone, soaked = arguments.data or Path(folder, "data"), Path(folder, "alone"), Path(folder, "soaked")
        if not arguments.data:
            sample.write(data)
            table = pd.read_csv(data / "train_metadata.csv")
            few = table[table["primary_label"].isin(sorted(set(table["primary_label"]))[:4])]
            few.groupby("primary_label").head(6).to_csv(data / "train_metadata.csv", index=False)
        began, process = time.monotonic(), begun(alone, data)
        _, error = process.communicate()
        took = time.monotonic() - began
        if process.returncode:
            raise SystemExit(error[-2000:])
        survived, kills = 0, 0
        rng = random.Random(arguments.seed)
        while kills < arguments.kills:
            with contextlib.suppress(FileNotFoundError):
                os.rename(soaked, Path(folder, f"done_{survived}"))
            now = killed(soaked, data, arguments.kills - kills, took, rng)
            kills += now
            if found := differences(soaked, alone):
                print(f"after {now} kills these differ: {', '.join(found)}")
                return 1
            survived += 1
            print(f"a run killed {now} times ended as one left alone ({took:.0f} s)", flush=True)
        print(
            f"{kills} kills in {survived} runs, backend {os.environ.get('KERAS_BACKEND', 'tensorflow')}: all the same"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
