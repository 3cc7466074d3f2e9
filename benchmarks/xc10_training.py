"""One training of the benchmark on 100 real recordings (`xc10.py`), on the augmented views of all of them.

What augmentation makes of a recording hangs on no fold. So it is computed once for all folds, seeds apart: a few views
of every recording, by birdlib's own layers, which the epochs take in turns; likewise what a frozen backbone makes of
them. There is no validation in a training: the rate falls as a cosine to nothing over a fixed number of epochs, and the
last weights are the result, so that a fold that is reported has chosen nothing.
"""

import ast
import hashlib
import json
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from birdlib import audio, chance, metadata, spectrogram, splits
from birdlib import config as configs
from birdlib.config import Config
from birdlib.sources import LazySource
from birdlib.writing import replacing

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
OUT = ROOT / "benchmarks" / "out" / "xc10"
# What a training is made of, in birdlib; another state of any of it is another result.
PARTS = (  # noqa: SIM905
    "backgrounds batches chance dealing draws epochs features layers layers_image layers_mel layers_wave losses models "
    "spectrogram splits targets"
).split()


class Task(NamedTuple):
    """One training: which recordings it may see, and which it has to tell.

    ``inner`` None: it trains on all but ``fold``, and tells that. Else ``fold`` is left out, and of ``INNER`` folds of
    the rest it tells this one.
    """

    group_by: str
    seed: int
    fold: int
    inner: int | None = None


INNER = 3


def settings(overrides: dict[str, object], seed: int) -> Config:
    """The settings of a training on the recordings: the preset ``sample`` with these differences."""
    return configs.load(
        "sample", {"data.dir": SHARED / "data" / "xc10", "compute.workers": 1, **overrides, "seed": seed}
    )


@lru_cache(1)
def recordings() -> pd.DataFrame:
    """filename, primary_label, author, audio_hash, and start_s 0: of each recording its first chunk is used."""
    folder = SHARED / "data" / "xc10"
    table = metadata.load(folder).table[["filename", "primary_label", "author"]]
    sounds = (audio.read(folder / "train_audio" / name, 32_000) for name in table["filename"])
    return table.assign(start_s=0.0, audio_hash=[hashlib.sha256(each.tobytes()).hexdigest() for each in sounds])


def sides(table: pd.DataFrame, task: Task, folds: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `table` (filename, primary_label, author, audio_hash) to train on and to tell: int64 each."""
    outer = fold_of(table, task.group_by, task.seed, folds)
    rest = np.flatnonzero(outer != task.fold)
    if task.inner is None:
        return rest, np.flatnonzero(outer == task.fold)
    within = fold_of(table.iloc[rest], task.group_by, task.seed, INNER)
    return rest[within != task.inner], rest[within == task.inner]


def fold_of(table: pd.DataFrame, group_by: str, seed: int, folds: int = 4) -> np.ndarray:
    """Which fold each row validates, checked for leaks; -1 for what always trains."""
    made = splits.make(table, 0, folds, group_by, seed)
    splits.check(made)
    return made.set_index("filename")["fold"].loc[table["filename"]].to_numpy()


def groups(table: pd.DataFrame, group_by: str) -> np.ndarray:
    """What an interval resamples: whole recordings, or whole authors."""
    return splits.make(table, 0, 4, group_by, 0).set_index("filename")["group"].loc[table["filename"]].to_numpy()


# ---- what a result hangs on


@lru_cache(1)
def code() -> str:
    """A fingerprint of the code of a training, comments and docstrings apart."""
    files = [Path(__file__), *(ROOT / "birdlib" / f"{name}.py" for name in PARTS)]
    return hashlib.sha256("\n".join(_bare(path.read_text(encoding="utf-8")) for path in files).encode()).hexdigest()


def _bare(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


SECTIONS = ("chunks", "batches", "augmentation", "spectrogram", "model", "loss", "phase_1", "phase_2")


def key(config: Config, *parts: object, sections: tuple[str, ...] = SECTIONS) -> str:
    """A short name for these settings, the recordings, and this state of the code."""
    held = {name: getattr(config, name).model_dump() for name in sections}
    for place, name in (("model", "weights"), ("augmentation", "background")):
        if place in held:  # where a file lies is no setting
            held[place][name] = str(held[place][name]).replace(str(SHARED), "")
    data = recordings()[["filename", "audio_hash", "author"]].astype(str).to_csv()
    text = json.dumps([code(), data, held, config.seed, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _kept(name: str, config: Config, views: int, make) -> np.ndarray:
    """An array that is computed once for these settings."""
    sections = ("augmentation", "spectrogram", "model")[: 2 if name == "images" else 3]
    path = OUT / f"{name}-{key(unmixed(config), views, sections=sections)}.npy"
    if not path.exists():
        with replacing(path) as aside:
            np.save(aside, make())
    return np.load(path, mmap_mode="r")


# ---- images and features of all recordings


def images(config: Config, views: int) -> np.ndarray:
    """Grey images: float16 (views, recordings, n_mels, frames), 0-255; of 0 views, one as it is."""
    return _kept("images", config, views, partial(_views if views else _plain, config, views))


def _plain(config: Config, views: int) -> np.ndarray:
    source = LazySource(config.data.dir, config)
    sounds = [source.read(name, 0.0) for name in recordings()["filename"]]
    return np.stack(spectrogram.images(sounds, config))[None, ..., 0].astype(np.float16)


def unmixed(config: Config) -> Config:
    """Without mixup, which comes later, in the batch."""
    none = config.augmentation.mixup.model_copy(update={"probability": 0.0})
    return config.model_copy(update={"augmentation": config.augmentation.model_copy(update={"mixup": none})})


def _views(config: Config, views: int) -> np.ndarray:
    import keras

    from birdlib import backgrounds, batches, device, features, layers

    # As many of a class as it has recordings: each comes once in an epoch.
    table, config = recordings(), unmixed(config)
    config = config.model_copy(update={"batches": config.batches.model_copy(update={"threshold": 10})})
    image = keras.Input(config.image_shape)
    body = layers.joined(keras.Model(image, image[..., 0]), config, backgrounds.pool(config), device.together(config))
    data = batches.TrainingBatches(table, labels(), LazySource(config.data.dir, config), config, 20)
    found = features.cached(features.extractor(body, True), data, range(views), "images to train on")
    ordered = [made[np.argsort(data.plan.epoch(epoch))] for epoch, (made, _) in enumerate(found)]
    return np.stack(ordered).astype(np.float16)


def labels() -> list[str]:
    """The classes, in order."""
    return sorted(recordings()["primary_label"].unique())


def backbone_features(config: Config, views: int) -> np.ndarray:
    """What the pretrained backbone makes of `images`: float32 (views, recordings, features)."""

    def make() -> np.ndarray:
        from birdlib import features, models

        body = features.body(models.build(config, len(labels())))
        return np.stack([_over(body, _coloured(view)) for view in images(config, views)])

    return _kept("features", config, views, make)


# ---- a training


def run(kind: str, config: Config, views: int, task: Task) -> np.ndarray:
    """Probabilities of the recordings that `task` has to tell: float32 (recordings, classes).

    Parameters
    ----------
    kind : "whole": all of the classifier trains, from the weights of the settings; "head": phase I, on features;
        "both": phase I, then phase II.
    views : augmented views of each recording; 0: as they are.
    """
    import keras

    from birdlib import features, models

    train, tell = sides(recordings(), task)
    keras.utils.set_random_seed(int(chance.rng(config.seed, "xc10", *map(str, task)).integers(2**31)))
    if kind == "head":
        head = keras.models.clone_model(_head(config.model.model_dump_json(), config.seed))  # drawn anew
        _fit(head, backbone_features(config, views), train, config, config.phase_1)
        return _over(head, backbone_features(config, 0)[0][tell])
    model, phase, first = models.build(config, len(labels())), config.phase_1, 0
    if kind == "both":
        _fit(features.head(model), backbone_features(config, views), train, config, phase)
        models.freeze_backbone(model, False)
        phase, first = config.phase_2, config.phase_1.epochs
    _fit(model, images(config, views), train, config, phase, first)
    return _over(model, images(config, 0)[0][tell])


@lru_cache(8)
def _head(model: str, seed: int):
    """The head of a classifier with these settings of the model, as JSON."""
    from birdlib import features, models

    config = settings({f"model.{name}": value for name, value in json.loads(model).items()}, seed)
    return features.head(models.build(config, len(labels())))


def _fit(model, views: np.ndarray, rows: np.ndarray, config: Config, phase, first_epoch: int = 0) -> None:
    """Class-balanced epochs over the views in turn, mixed where mixup is on; the rate falls as a cosine."""
    import keras

    from birdlib import losses
    from birdlib.epochs import BalancedPlan
    from birdlib.targets import Targets

    table = recordings().iloc[rows].reset_index(drop=True)
    plan = BalancedPlan(table, labels(), config.batches.threshold, config.seed)
    targets, size = Targets(table, labels(), config.loss), phase.batch_size
    steps = phase.epochs * -(-config.batches.threshold * len(labels()) // size)
    rate = keras.optimizers.schedules.CosineDecay(phase.learning_rate, steps)
    model.compile(keras.optimizers.Adam(rate), losses.of(config.loss), jit_compile=False)
    for epoch in range(first_epoch, first_epoch + phase.epochs):
        order = plan.epoch(epoch)
        for first in range(0, len(order), size):
            chosen = order[first : first + size]
            x, y = views[epoch % len(views), rows[chosen]].astype(np.float32), targets.of(chosen)
            model.train_on_batch(*_mixed(x, y, config, epoch, first))


def _mixed(x: np.ndarray, y: np.ndarray, config: Config, epoch: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch as the network gets it, whose first slot in the epoch is `first`."""
    from birdlib import draws

    slots = range(first, first + len(x))
    numbers, y = draws.mixed(draws.of(config, epoch, slots), y, config, epoch, slots)
    further, share = numbers[:, draws.places(config)["mixup"]].T
    x = x + share.reshape(-1, *[1] * (x.ndim - 1)) * (x[np.arange(len(x)) + further.astype(int)] - x)
    return (_coloured(x) if x.ndim == 3 else x), y


def _coloured(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(grey, np.float32)[..., None], 3, axis=-1)


def _over(model, inputs: np.ndarray, size: int = 25) -> np.ndarray:
    inputs = _coloured(inputs) if inputs.ndim == 3 else inputs
    parts = [model.predict_on_batch(inputs[first : first + size]) for first in range(0, len(inputs), size)]
    return np.concatenate([np.asarray(part, np.float32) for part in parts])
