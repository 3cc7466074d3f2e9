"""Does the device wait for its input? `fit`, fed as training feeds it, against the same batch again and again.

    KERAS_BACKEND=jax python benchmarks/gpu.py [--backbone convnext_tiny] [--steps 80] [--repeats 3]

Needs keras, numpy, pandas, soundfile and a backend, and nothing else: the settings are those of the preset `paper` as
gpu_settings.json beside this file holds them (--write-settings writes it, where all of birdlib is installed). For both
phases, batch sizes and precisions it prints images a second in `fit`, with 16-bit audio from a memory map and
augmentation on the device; the same over `train_on_batch` in a loop on one batch that is on the device already; the CPU
seconds that the host spends a second; and the device's memory at its peak. Compilation and the first epoch are left
out. Each case is a process of its own, so that one which does not fit costs itself. Writes benchmarks/out/gpu.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # birdlib need not be installed
SETTINGS, OUT = HERE / "gpu_settings.json", HERE / "out"
PHASES = {1: (128,), 2: (16,)}  # the paper's batches
LARGEST_FROM, LARGEST = 64, 1024  # doubled until one does not fit
PRECISIONS = ("float32", "mixed")


def settings(**changes: Any) -> Any:
    """The settings as a tree of attributes, with some dotted ones changed."""
    config = json.loads(SETTINGS.read_text(encoding="utf-8"), object_hook=lambda each: SimpleNamespace(**each))
    for key, value in changes.items():
        *sections, name = key.split("__")
        section = config
        for each in sections:
            section = getattr(section, each)
        setattr(section, name, value)
    config.image_shape = tuple(config.image_shape)
    return config


def current_settings() -> dict[str, Any]:
    """What gpu_settings.json is to hold: the preset `paper`, and what follows from it that is no field."""
    from birdlib import config as configs

    paper = configs.load("paper", {"model.weights": None})  # random ones are as fast
    plain = paper.model_dump(mode="json")
    plain["loss"]["activation"] = paper.loss.activation
    return {**plain, "chunk_samples": paper.chunk_samples, "image_shape": list(paper.image_shape)}


def write_settings() -> None:
    SETTINGS.write_text(json.dumps(current_settings(), indent=1) + "\n", encoding="utf-8")


# ---- one case, in its own process


class Sounds:
    """A source whose chunks are rows of a memory map, as those of the pcm store are."""

    def __init__(self, path: Path, chunks: int, samples: int) -> None:
        import numpy as np

        rng = np.random.default_rng(0)
        self.audio = np.lib.format.open_memmap(path, "w+", np.int16, (chunks, samples))
        for row in range(chunks):
            self.audio[row] = rng.normal(0, 3000, samples)

    def read(self, filename: str, start_s: float) -> Any:
        return self.audio[int(filename)]


def case(phase: int, batch: int, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    import keras

    from birdlib import device, layers, models

    config = settings(
        batches__threshold=-(-options.steps * batch // options.classes),
        model__backbone=options.backbone,
        compute__precision="auto" if precision == "mixed" else precision,
    )
    policy = device.precision(config)
    if precision == "mixed" and policy == "float32":
        policy = "mixed_bfloat16"  # a CPU, to try this script
    keras.utils.set_random_seed(0)
    model = models.build(config, options.classes)
    models.freeze_backbone(model, phase == 1)
    optimizer = keras.optimizers.Adam(4e-5)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    with models.at_precision(model, policy), tempfile.TemporaryDirectory() as folder:
        whole = layers.joined(model, config, together=device.together(config))
        whole.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"], jit_compile=device.jit(config))
        found = rates(whole, Path(folder), config, batch, options)
    return {"phase": phase, "batch": batch, "precision": policy, **found, "memory_gb": peak_gb()}


def rates(whole: Any, folder: Path, config: Any, batch: int, options: argparse.Namespace) -> dict[str, float]:
    """Medians over the repeats, which `fit` and the loop take in turns."""
    import keras
    import pandas as pd

    from birdlib.batches import Ahead, TrainingBatches

    chunks = 4 * options.classes
    labels = [f"bird{number:03d}" for number in range(options.classes)]
    table = pd.DataFrame({"filename": [str(row) for row in range(chunks)], "start_s": 0.0, "primary_label": labels * 4})
    source = Sounds(folder / "sounds.npy", chunks, config.chunk_samples)
    feed = TrainingBatches(table, labels, source, config, batch)
    ahead = Ahead(feed)
    on_device = keras.tree.map_structure(keras.ops.convert_to_tensor, feed.batch(0, 0))
    steps = feed.num_batches - 1  # the last, smaller batch would be compiled anew

    def fit() -> None:
        whole.fit(ahead, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)

    def loop() -> None:
        for _ in range(steps):
            whole.train_on_batch(*on_device)

    fit(), loop()
    taken: dict[str, list[float]] = {"fit": [], "loop": [], "cpu": []}
    for _ in range(options.repeats):
        used, began = cpu_s(), time.perf_counter()
        fit()
        taken["fit"].append(time.perf_counter() - began)
        taken["cpu"].append((cpu_s() - used) / taken["fit"][-1])
        began = time.perf_counter()
        loop()
        taken["loop"].append(time.perf_counter() - began)
    return {
        "fit_images_s": batch * steps / statistics.median(taken["fit"]),
        "loop_images_s": batch * steps / statistics.median(taken["loop"]),
        "fit_over_loop": statistics.median(b / a for a, b in zip(taken["fit"], taken["loop"], strict=True)),
        "host_cpus": statistics.median(taken["cpu"]),
    }


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_gb() -> float | None:
    """The most memory that the device has had in use; None where the backend does not say."""
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    if backend == "jax":
        import jax

        stats = jax.devices()[0].memory_stats() or {}
        return stats["peak_bytes_in_use"] / 2**30 if "peak_bytes_in_use" in stats else None
    import tensorflow

    if not tensorflow.config.list_physical_devices("GPU"):
        return None
    return tensorflow.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30


# ---- all of them


def apart(phase: int, batch: int, precision: str) -> dict[str, Any] | None:
    """A case in a process of its own; None, and its last words, if it ended in an error."""
    arguments = [each for each in sys.argv[1:] if each != "--no-largest"]
    command = [sys.executable, __file__, *arguments, "--case", str(phase), str(batch), precision]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        print(done.stdout.splitlines()[-1], flush=True)
        return json.loads(done.stdout.splitlines()[-1])
    print(
        f"phase {phase}, batch {batch}, {precision}: {(done.stderr.splitlines() or ['no word'])[-1][:300]}", flush=True
    )
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="convnext_tiny")
    parser.add_argument("--classes", type=int, default=182)
    parser.add_argument("--steps", type=int, default=80, help="batches that each turn takes")
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument(
        "--batches", type=int, nargs="+", help="these batch sizes in both phases, in place of the paper's"
    )
    parser.add_argument("--no-largest", action="store_true", help="do not look for the largest batch that fits")
    parser.add_argument("--write-settings", action="store_true", help="write gpu_settings.json and end")
    parser.add_argument("--case", nargs=3, metavar=("PHASE", "BATCH", "PRECISION"), help="one case alone, as JSON")
    options = parser.parse_args()
    if options.write_settings:
        return write_settings()
    if options.case:
        phase, batch, precision = options.case
        return print(json.dumps(case(int(phase), int(batch), precision, options)))
    rows = []
    for precision in PRECISIONS:
        for phase, sizes in PHASES.items():
            rows += [apart(phase, batch, precision) for batch in options.batches or sizes]
        batch = LARGEST_FROM
        while not options.no_largest and batch <= LARGEST and (row := apart(2, batch, precision)):
            rows.append(row)
            batch *= 2
    OUT.mkdir(exist_ok=True)
    rows = [row for row in rows if row]
    (OUT / "gpu.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if not rows:
        sys.exit("no case came through")


if __name__ == "__main__":
    main()
