"""Trains a ConvNeXtTiny on synthetic samples from nothing, on a core in an hour: what benchmarks/inference.py measures.

    KERAS_BACKEND=torch python benchmarks/convnext.py [--run-dir RUN]

The whole network shows 1 to 2 images a second on a core of this kind, so it begins with what costs a twentieth of it:
the stem, the three downsampling layers and a head, without the blocks between them. With these weights, the blocks at
random and their layer scale at 0.1 (Touvron et al., 2021, for networks as deep), the series then does what it does with
weights from ImageNet: phase I on the frozen backbone, phase II through all of it. Two samples train, a third one is
the test (`inference_parts.samples`).
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
import inference_parts as parts
import keras
import numpy as np
import pandas as pd
from measuring import OUT

from birdlib import config as configs
from birdlib import models, series, sources, spectrogram, stages, training
from birdlib.runs import Run

SETTINGS = {
    "model.backbone": "convnext_tiny",
    "splits.given": "side",
    "augmentation.where": "off",
    "comparison.models": "",
    "comparison.by_author": False,
    "batches.threshold": 16,
    "batches.validation_chunks_per_recording": 1,
    "phase_1.epochs": 60,
    "phase_1.batch_size": 16,
    "phase_1.feature_views": 2,
    "phase_2.epochs": 6,
    "phase_2.batch_size": 8,
    "phase_2.learning_rate": 2e-4,
}
LAYER_SCALE = 0.1


def skeleton(body: keras.Model, classes: int) -> keras.Model:
    """The backbone's stem and downsampling, its very layers, with a head of its own; images -> probabilities."""
    name = body.name
    images = x = keras.Input(body.input_shape[1:])
    steps = [f"{name}_prestem_normalization", f"{name}_stem"]
    for step in [*steps, *(f"{name}_downsampling_block_{place}" for place in range(3))]:
        x = body.get_layer(step)(x)
    x = body.layers[-1](keras.layers.GlobalAveragePooling2D()(x))
    x = keras.layers.Dropout(0.2)(keras.layers.Dense(128, activation="gelu")(x))
    return keras.Model(images, keras.layers.Dense(classes, activation="softmax")(x))


def images(run: Run, table: pd.DataFrame, labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (chunks, n_mels, frames) and their classes."""
    source = sources.by_settings(run.data_dir, run.config)
    rows = zip(table["filename"], table["start_s"], strict=True)
    made = [spectrogram.image(source.read(*row), run.config)[..., 0].round().astype(np.uint8) for row in rows]
    return np.stack(made), pd.Index(labels).get_indexer(table["primary_label"])


def begin(run: Run, path: Path, minutes: float) -> None:
    """Trains the skeleton for so long, and keeps the backbone's weights."""
    data = training.fold_of(run, run.config.folds[0])
    (shown, truth), (judged, right) = (images(run, side, data.labels) for side in (data.train, data.validation))
    model = models.build(run.config, len(data.labels))
    body = models.backbone(model)
    short = skeleton(body, len(data.labels))
    short.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng, by_class = np.random.default_rng(0), [np.flatnonzero(truth == each) for each in range(len(data.labels))]
    until, best = time.monotonic() + 60 * minutes, np.inf
    while time.monotonic() < until:
        if time.monotonic() > until - 20 * minutes:
            short.optimizer.learning_rate = 3e-4
        for _ in range(40):
            rows = [rng.choice(by_class[each]) for each in rng.integers(len(by_class), size=32)]
            turned = np.stack([np.roll(shown[row], rng.integers(shown.shape[2]), axis=1) for row in rows])
            short.train_on_batch(in_colour(turned), truth[rows])
        loss, accuracy = short.evaluate(in_colour(judged), right, batch_size=32, verbose=0)
        print(f"{until - time.monotonic():.0f} s left: validation loss {loss:.3f}, accuracy {accuracy:.3f}", flush=True)
        if loss < best:
            best = loss
            for weight in (weight for weight in body.weights if "layer_scale" in weight.path):
                weight.assign(np.full(weight.shape, LAYER_SCALE))
            body.save_weights(path)


def in_colour(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=3).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/convnext"))
    parser.add_argument("--minutes", type=float, default=10.0, help="for the beginning, without the blocks")
    options = parser.parse_args()
    data, begun = parts.samples(), (OUT / "convnext_begun.weights.h5").absolute()
    for number in ("01", "02"):
        series.run("sample", data, options.run_dir, SETTINGS | {"phase_1.feature_views": 0}, only=number)
    if not begun.exists():
        config = configs.load(options.run_dir / "config.yaml")
        begin(Run(options.run_dir.absolute(), config, stages.stage("04")), begun, options.minutes)
    for number in ("04", "05"):
        series.run("sample", data, options.run_dir, SETTINGS | {"model.weights": str(begun)}, only=number)


if __name__ == "__main__":
    main()
