"""Backbones side by side: parameters, images a second, and what each learns of the sample data set in the same epochs.

    KERAS_BACKEND=torch python benchmarks/backbones.py [--weights resnet50=FILE] [BACKBONE ...]

Prints a table and writes benchmarks/out/backbones.json. What a backbone has learnt is kept there, and it is not trained
again; the speeds of all are measured anew, one after the other in the same run, with their ratios to the custom CNN's.
With --speeds-only nothing is trained.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras
import numpy as np
import pandas as pd

from birdlib import config as configs
from birdlib import models, runs, series, splits, stages, training
from birdlib.sources import LazySource
from birdlib.writing import read_json, write_json

OUT = Path(__file__).parent / "out"
BACKBONES = ["custom_cnn", "mobilenet_v3_small", "efficientnet_v2_b0", "resnet50", "convnext_tiny"]
# The same for all, from random weights unless a file is named; no augmentation, so that steps are few.
SETTINGS = {
    "batches.threshold": 12,
    "augmentation.where": "off",
    "phase_1.epochs": 6,
    "phase_1.batch_size": 16,
    "phase_1.learning_rate": 3e-4,
    "phase_1.early_stopping_patience": 6,
}


def images_a_second(step, images: int, seconds: float = 8.0) -> float:
    """Best of the rates of a step over `images` images, repeated for some seconds after two warm-up steps."""
    step(), step()
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        step()
        best = max(best, images / (time.perf_counter() - began))
    return best


def settings(name: str, weights: str | None) -> configs.Config:
    return configs.load("sample", {**SETTINGS, "model.backbone": name, "model.weights": weights})


def learnt(name: str, weights: str | None, run_dir: Path) -> dict[str, object]:
    """The accuracy on the sample's validation fold."""
    config = settings(name, weights)
    run = runs.Run(run_dir, config, stages.stage("04"))
    data = training.fold_data(run.read_table("chunks"), run.read_table("splits"), 0, config)
    keras.utils.set_random_seed(0)
    model = models.build(config, len(splits.labels(run.read_table("splits"))))
    best = OUT / f"{name}.keras"
    training.train(model, data, LazySource(run.data_dir, config), config, config.phase_1, best, name)
    predicted = training.predictions(models.load(best), data, LazySource(run.data_dir, config), config)
    accuracy = training.accuracy(predicted, data.labels)
    best.unlink()
    return {"validation_accuracy": accuracy, "times_chance": accuracy * len(data.labels)}


def speeds(name: str) -> dict[str, float]:
    """Parameters; images a second in training all of it, and in predicting, batches of 16 that lie in memory."""
    config = settings(name, None)
    model = models.build(config, 12)
    model.compile("adam", "categorical_crossentropy")
    images = np.random.default_rng(0).uniform(0, 255, (16, *config.image_shape)).astype("float32")
    truth = np.eye(12, dtype="float32")[np.arange(16) % 12]
    return {
        "backbone_parameters": models.backbone(model).count_params(),
        "training_images_s": images_a_second(lambda: model.train_on_batch(images, truth), 16),
        "predicting_images_s": images_a_second(lambda: model.predict_on_batch(images), 16),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=BACKBONES)
    parser.add_argument("--weights", action="append", default=[], metavar="BACKBONE=FILE", help="pretrained weights")
    parser.add_argument("--speeds-only", action="store_true", help="train nothing")
    options = parser.parse_args()
    files = dict(text.split("=", 1) for text in options.weights)
    run_dir, out = OUT / "backbones_run", OUT / "backbones.json"
    for number in () if options.speeds_only else ("01", "02"):
        series.run("sample", run_dir=run_dir, only=number)
    key = {"settings": SETTINGS, "backend": keras.backend.backend(), "keras": keras.__version__, "cpus": os.cpu_count()}
    rows = kept["rows"] if (kept := read_json(out)).get("key") == key else {}
    for name, weights in [*((each, None) for each in options.backbones), *files.items()]:
        row = name + (" (pretrained)" if weights else "")
        if row not in rows and not options.speeds_only:
            rows[row] = learnt(name, weights, run_dir)
            write_json(out, {"key": key, "rows": rows})
    rates = pd.DataFrame.from_dict({name: speeds(name) for name in options.backbones}, orient="index")
    table = rates.join(pd.DataFrame.from_dict(rows, orient="index"), how="outer") if rows else rates
    for column in ("training_images_s", "predicting_images_s"):
        table[f"{column.split('_')[0]}_ratio"] = table[column] / table.loc["custom_cnn", column]
    print(json.dumps(key))
    print(table.to_string(float_format=lambda value: f"{value:,.3g}"))


if __name__ == "__main__":
    main()
