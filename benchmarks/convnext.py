"""Trains a ConvNeXtTiny on synthetic samples from nothing, on a core in an hour: what benchmarks/inference.py measures.

    KERAS_BACKEND=torch python benchmarks/convnext.py [--run-dir RUN] [--batches 2000]

The whole network trains on 1 to 2 images of 128 x 320 a second on a core of this kind. So the images are half as large
either way, and it begins as a thin network, a block a stage in place of three, three, nine and three; the other blocks
are at random, and all but idle by their layer scale (Touvron et al., 2021). From there the series does what it does
with weights from ImageNet: phase I on the frozen backbone, phase II through all of it. Six samples train, a seventh is
the test (`inference_parts.samples`).
"""

import argparse
import os
from collections.abc import Sequence
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
    # Half as many bands and frames as in the preset: a quarter of the work.
    "spectrogram.hop": 1000,
    "spectrogram.n_mels": 64,
    "splits.given": "side",
    "augmentation.where": "off",
    "comparison.models": "",
    "comparison.by_author": False,
    "batches.threshold": 32,
    "batches.validation_chunks_per_recording": 1,
    "phase_1.epochs": 60,
    "phase_1.batch_size": 16,
    "phase_1.feature_views": 2,
    "phase_2.epochs": 6,
    "phase_2.batch_size": 8,
    "phase_2.learning_rate": 2e-4,
}
LAYER_SCALE, IDLE = 0.1, 0.01  # of the blocks that train from the beginning, and of the others
BLOCK = ("depthwise_conv", "layernorm", "pointwise_conv_1", "gelu", "pointwise_conv_2", "layer_scale")


def thin(body: keras.Model, classes: int) -> keras.Model:
    """The backbone's first block of each stage, its very layers, with a head of its own."""
    images = keras.Input(body.input_shape[1:])

    def through(name: str, x):
        return body.get_layer(f"{body.name}_{name}")(x)

    x = through("stem", through("prestem_normalization", images))
    for stage in range(4):
        x = through(f"downsampling_block_{stage - 1}", x) if stage else x
        block = x
        for part in BLOCK:
            block = through(f"stage_{stage}_block_0_{part}", block)
        x = keras.layers.add([x, block])
    x = body.layers[-1](keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, keras.layers.Dense(classes, activation="softmax")(keras.layers.Dropout(0.2)(x)))


def scale(body: keras.Model) -> None:
    """Keras' own layer scale of 1e-6 is for networks that train for days."""
    for weight in (weight for weight in body.weights if "layer_scale" in weight.path):
        weight.assign(np.full(weight.shape, LAYER_SCALE if "block_0" in weight.path else IDLE))


def images(run: Run, table: pd.DataFrame, labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (chunks, n_mels, frames) and their classes."""
    source = sources.by_settings(run.data_dir, run.config)
    rows = zip(table["filename"], table["start_s"], strict=True)
    made = [spectrogram.image(source.read(*row), run.config)[..., 0].round().astype(np.uint8) for row in rows]
    return np.stack(made), pd.Index(labels).get_indexer(table["primary_label"])


def moved(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """An image (n_mels, frames), turned round in time, shifted, fainter, without some band and some time."""
    turned = np.roll(image, rng.integers(image.shape[1]), axis=1)
    turned = np.roll(turned, rng.integers(-1, 2), axis=0).astype(np.float32) * rng.uniform(0.85, 1.0)
    for axis, longest in ((0, 8), (1, 30)):
        start, length = rng.integers(image.shape[axis]), rng.integers(longest)
        np.moveaxis(turned, axis, 0)[start : start + length] = turned.mean()
    return turned


def begin(run: Run, path: Path, batches: int) -> None:
    """Trains the thin network on so many batches, and keeps the weights of the whole backbone."""
    data = training.fold_of(run, run.config.folds[0])
    (shown, truth), (judged, right) = (images(run, side, data.labels) for side in (data.train, data.validation))
    keras.utils.set_random_seed(0)
    body = models.backbone(models.build(run.config, len(data.labels)))
    scale(body)
    model = thin(body, len(data.labels))
    rate = keras.optimizers.schedules.CosineDecay(1e-5, batches, warmup_target=6e-4, warmup_steps=50)
    model.compile(keras.optimizers.AdamW(rate, 0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng, by_class = np.random.default_rng(0), [np.flatnonzero(truth == each) for each in range(len(data.labels))]
    losses = []
    for number in range(1, batches + 1):
        rows = [rng.choice(by_class[each]) for each in rng.integers(len(by_class), size=16)]
        found = model.train_on_batch(in_colour([moved(rng, shown[row]) for row in rows]), truth[rows])
        losses.append(float(found[0]))
        if number % 100 == 0 or number == batches:
            loss, accuracy = model.evaluate(in_colour(judged), right, batch_size=16, verbose=0)
            told = f"loss {np.mean(losses[-100:]):.3f}, validation {loss:.3f}, {accuracy:.1%} right"
            print(f"batch {number} of {batches}: {told}", flush=True)
    body.save_weights(path)


def in_colour(grey: Sequence[np.ndarray]) -> np.ndarray:
    return np.repeat(np.stack(grey)[..., None], 3, axis=3).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/convnext"))
    parser.add_argument("--batches", type=int, default=2000, help="for the thin network")
    options = parser.parse_args()
    data, begun = parts.samples(), (OUT / f"convnext_{options.batches}.weights.h5").absolute()
    for number in ("01", "02"):
        series.run("sample", data, options.run_dir, SETTINGS | {"phase_1.feature_views": 0}, only=number)
    if not begun.exists():
        config = configs.load(options.run_dir / "config.yaml")
        begin(Run(options.run_dir.absolute(), config, stages.stage("04")), begun, options.batches)
    for number in ("04", "05"):
        series.run("sample", data, options.run_dir, SETTINGS | {"model.weights": str(begun)}, only=number)


if __name__ == "__main__":
    main()
