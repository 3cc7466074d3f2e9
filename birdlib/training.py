"""Phase I and phase II: one fold's training, from chunks to a saved image classifier and its history.

The classifier is joined to the image layers (`birdlib.layers.joined`) only to be trained: that takes audio, what is
saved takes images. Phase I trains the head on a frozen, pretrained backbone; a backbone without pretrained weights
trains whole, since there is nothing to protect. Phase II starts from phase I's best weights and trains all of it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import pandas as pd

from birdlib import (
    backgrounds,
    calibration,
    chance,
    chunks,
    classifier,
    deadline,
    device,
    evaluation,
    features,
    layers,
    losses,
    models,
    runs,
    sources,
    splits,
    standins,
)
from birdlib.batches import Ahead, PlainBatches, TrainingBatches
from birdlib.callbacks import Checkpoint, Finite, Logs, Progress, Seconds, TimeLimit
from birdlib.resume import Epochs
from birdlib.standins import Noted, Readable

if TYPE_CHECKING:
    from birdlib.config import Config
    from birdlib.runs import Run
    from birdlib.settings import Model, Phase
    from birdlib.sources import Source


class Fold(NamedTuple):
    """What one fold trains and validates on: kept chunks with their primary_label, and the class order."""

    train: pd.DataFrame
    validation: pd.DataFrame
    labels: list[str]


def fold_of(run: Run, fold: int, config: Config | None = None) -> Fold:
    """The kept chunks of a fold's two sides, from the run's tables, by its settings or by others.

    They have a column secondary_labels unless the settings' loss ignores them.
    """
    config = config or run.config
    data = fold_data(run.read_table("chunks"), run.read_table("splits"), fold, config)
    if config.loss.secondary_labels == "ignored":
        return data
    heard = run.read_table("recordings")[["filename", "secondary_labels"]]
    return Fold(*(side.merge(heard, on="filename", validate="many_to_one") for side in data[:2]), data.labels)


def fold_data(chunk_table: pd.DataFrame, split_table: pd.DataFrame, fold: int, config: Config) -> Fold:
    """The kept chunks of a fold's two sides; the leak check runs first."""
    splits.check(split_table)
    kept = chunk_table[chunks.kept(chunk_table, config.silence)]
    sides = (splits.side(split_table, part, fold)[["filename", "primary_label"]] for part in ("train", "validation"))
    train, validation = (kept.merge(side, on="filename").reset_index(drop=True) for side in sides)
    return Fold(train, validation, splits.labels(split_table))


def phase_1(run: Run, fold: int) -> dict[str, Any]:
    """Trains a new classifier on one fold, and saves it with its history.

    Returns
    -------
    result : val_accuracy (over every kept validation chunk), val_chunks, best_epoch (from 0), epochs, parameters. If
        the stage was interrupted after this fold, it is the kept one, and nothing is trained again.
    """
    return run.part(f"fold_{fold}") or _phase_1(run, fold)


def phase_2(run: Run, fold: int) -> dict[str, Any]:
    """Trains all of phase I's best classifier of one fold, and saves it; returns what `phase_1` does."""
    return run.part(f"fold_{fold}") or _phase_2(run, fold)


def _phase_1(run: Run, fold: int) -> dict[str, Any]:
    data = fold_of(run, fold)
    return _phase(run, lambda: models.build(run.config, len(data.labels)), data, 1, fold)


def _phase_2(run: Run, fold: int) -> dict[str, Any]:
    data, first = fold_of(run, fold), run.path(f"models/phase_1_fold_{fold}.keras")
    return _phase(run, lambda: thawed(first), data, 2, fold)


def thawed(path: Path) -> keras.Model:
    """Phase I's classifier, all of it to be trained."""
    model = models.load(path)
    models.freeze_backbone(model, False)
    return model


def _phase(run: Run, begin: Callable[[], keras.Model], data: Fold, number: int, fold: int) -> dict[str, Any]:
    """Trains what `begin` builds or loads."""
    name = f"phase_{number}_fold_{fold}"
    source, kept = Noted(sources.open_source(run)), _kept(run, name)
    settings = getattr(run.config, f"phase_{number}")
    with runs.replacing(run.path(f"models/{name}.keras")) as best:
        first = first_epoch(run.config, number)
        keras.utils.set_random_seed(keras_seed(run.config, number, fold))
        limit_s = deadline.allowance_s(run.stage.name, f"fold_{fold}", run.config)
        with device.spread(run.config):
            model, title = begin(), f"phase_{number}, fold {fold}"
            logs = [Logs(run.path(f"tensorboard/{name}"))] if run.config.compute.tensorboard else []
            history = train(model, data, source, run.config, settings, best, title, first, kept, limit_s, logs)
        predicted = predictions(models.load(best), data, source, run.config)
    standins.record(run, source.broken)
    run.write_csv(f"history/{name}.csv", history)
    run.write_table(f"validation_{name}", predicted)
    truth = pd.Index(data.labels).get_indexer(predicted["primary_label"])
    calibration.keep(
        run.path(f"models/{name}.keras"), truth, predicted[data.labels].to_numpy(), run.config.loss.activation
    )
    best_epoch = int(history["val_loss"].idxmin())
    result = {
        "val_accuracy": accuracy(predicted, data.labels),
        "val_chunks": len(predicted),
        "best_epoch": best_epoch,
        "epochs": len(history),
        "parameters": models.parameters(model),
    }
    run.keep_part(f"fold_{fold}", result)
    shutil.rmtree(kept.folder, ignore_errors=True)
    return result


def first_epoch(config: Config, phase: int) -> int:
    """Phase II's epochs go on where phase I's could have ended, so that it is shown other chunks."""
    return config.phase_1.epochs if phase == 2 else 0


def _kept(run: Run, name: str) -> Epochs:
    """Where the state of a training's epochs is kept, and what it has to be the state of."""
    made_with = [runs.fingerprint(run.stage, run.config, run.dir), keras.backend.backend(), keras.__version__]
    return Epochs(runs.epochs_path(run.dir, run.stage) / name, " ".join([*made_with, device.precision(run.config)]))


def train(
    model: keras.Model,
    data: Fold,
    source: Source | Noted,
    config: Config,
    settings: Phase,
    best: Path,
    description: str,
    first_epoch: int = 0,
    kept: Epochs | None = None,
    limit_s: float | None = None,
    more: Sequence[keras.callbacks.Callback] = (),
) -> pd.DataFrame:
    """Trains an image classifier under Adam, with early stopping, a learning rate that halves, and a checkpoint.

    On several devices, the classifier has to be built or loaded, and this to be called, within `device.spread`.

    Parameters
    ----------
    best : where the classifier is saved whenever the validation loss is the lowest so far.
    first_epoch : which of the balanced epochs, whose turns go on for ever, is the first of this training.
    kept : goes on from the epoch that it has kept, and keeps each; None: neither.
    more : callbacks besides.
    limit_s : how long this may take; at least one batch is trained. None: as long as it takes.

    Returns
    -------
    history : a row an epoch: epoch (from 0), loss, accuracy, val_loss, val_accuracy, learning_rate, seconds.

    Raises
    ------
    TrainingError
        if the loss stops being a number.
    """
    ending = [*more, *([] if limit_s is None else [TimeLimit(limit_s)])]
    shards = device.replicas(config)
    shown: Any = TrainingBatches(data.train, data.labels, source, config, settings.batch_size, shards=shards)
    looked_at = chunks.thinned(data.validation, "filename", config.batches.validation_chunks_per_recording)
    judged: Any = PlainBatches(looked_at, data.labels, source, config, config.compute.predict_batch_size)
    with models.at_precision(model, device.precision(config)), models.in_step(model, shards):
        whole = layers.joined(model, config, backgrounds.pool(config), device.together(config))
        if settings.feature_views:
            whole, shown, judged = _on_features(model, shown, judged, config, settings)
        feeds = Ahead(shown, first_epoch, shards), Ahead(judged, shards=shards, judged=len(looked_at))
        with feeds[0], feeds[1]:
            return _fit(whole, model, *feeds, config, settings, best, description, first_epoch, kept, ending)


def _on_features(
    model: keras.Model, shown: TrainingBatches, judged: PlainBatches, config: Config, settings: Phase
) -> tuple[keras.Model, features.CachedEpochs, features.CachedEpochs]:
    """The head, and the features to train and to validate it with."""
    body = layers.joined(features.body(model), config, backgrounds.pool(config), device.together(config))
    augmented, plain = (features.extractor(body, training) for training in (True, False))
    views = features.cached(augmented, shown, range(settings.feature_views), "features to train on", shown.shards)
    kept = features.cached(plain, judged, range(1), "features to validate with", shown.shards)
    training = features.CachedEpochs(views, settings.batch_size, config.seed)
    return features.head(model), training, features.CachedEpochs(kept, config.compute.predict_batch_size, None)


def _fit(
    whole: keras.Model,
    model: keras.Model,
    training: Ahead,
    validation: Ahead,
    config: Config,
    settings: Phase,
    best: Path,
    description: str,
    first_epoch: int,
    kept: Epochs | None,
    ending: Sequence[keras.callbacks.Callback],
) -> pd.DataFrame:
    optimizer = keras.optimizers.Adam(settings.learning_rate)
    if device.precision(config) == "mixed_float16":  # whose small gradients would vanish
        optimizer = device.LossScale(optimizer)
    # Weighted: where a batch was filled up, the rows that fill it weigh nothing.
    whole.compile(optimizer, losses.of(config.loss), weighted_metrics=["accuracy"], jit_compile=device.jit(config))
    seconds, kept = Seconds(), kept or Epochs()
    watched = [seconds, *_watched(model, settings, best, description)]
    done = kept.take_up(whole, best, watched)
    try:
        if done < settings.epochs and not kept.stopped:
            whole.fit(
                training,
                validation_data=validation,
                initial_epoch=done,
                epochs=settings.epochs,
                shuffle=False,  # the epochs are shuffled already
                verbose=0,
                callbacks=[
                    keras.callbacks.LambdaCallback(on_epoch_begin=lambda at, logs: training.begin(first_epoch + at)),
                    *watched,
                    Progress(description, settings.epochs * training.num_batches, done * training.num_batches),
                    *ending,
                    kept,
                ],
            )
    except Exception as error:
        raise training.failure or validation.failure or error from None
    history = pd.DataFrame(kept.rows)
    history.insert(0, "epoch", range(len(history)))
    columns = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    return history[columns].assign(seconds=seconds.taken)


def _watched(model: keras.Model, settings: Phase, best: Path, description: str) -> list[keras.callbacks.Callback]:
    """The callbacks whose counters a resumed training takes up."""
    return [
        keras.callbacks.ReduceLROnPlateau(
            monitor="val_loss", factor=settings.plateau_factor, patience=settings.plateau_patience
        ),
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=settings.early_stopping_patience),
        Finite(description),
        Checkpoint(model, best),
    ]


def predictions(model: keras.Model, data: Fold, source: Source | Noted, config: Config) -> pd.DataFrame:
    """What a classifier says of every kept validation chunk whose recording can still be read.

    Returns
    -------
    table : filename, start_s, primary_label, then a float32 column a class.
    """
    front = data.validation[["filename", "start_s", "primary_label"]].reset_index(drop=True)
    reader = Readable(front, source, config.chunk_samples)
    probabilities = classifier.of_keras(model, config).over(len(front), reader.read, "validating")
    columns = pd.DataFrame(probabilities.reshape(-1, len(data.labels)), columns=data.labels, dtype="float32")
    return pd.concat([front, columns], axis=1)[reader.heard()].reset_index(drop=True)


def accuracy(predicted: pd.DataFrame, labels: list[str]) -> float:
    """Share of the rows of `predictions` whose likeliest class is right."""
    truth = pd.Index(labels).get_indexer(predicted["primary_label"])
    return evaluation.accuracy(truth, predicted[labels].to_numpy())


def whole_history(run: Run, fold: int) -> pd.DataFrame:
    """Both phases' histories of a fold as one, epoch counted on from the first.

    Beside the histories' columns: phase ("I", "II"), and best, whether the epoch's weights are the phase's kept ones.
    """
    files = {"I": f"history/phase_1_fold_{fold}.csv", "II": f"history/phase_2_fold_{fold}.csv"}
    parts = {phase: pd.read_csv(run.path(file)) for phase, file in files.items()}
    whole = pd.concat(parts, names=["phase"]).reset_index("phase").reset_index(drop=True)
    return whole.assign(epoch=range(len(whole)), best=whole.index.isin(whole.groupby("phase")["val_loss"].idxmin()))


def compared(run: Run) -> dict[str, pd.DataFrame]:
    """Trains the models of the settings' ``comparison`` on the first fold, as phase I does, but for fewer epochs.

    Returns
    -------
    histories : name -> history as `train` returns it, kept as ``history/phase_1_<name>.csv``. Empty where the model
        itself is all there is to compare.
    """
    own = run.config.model
    wanted = {
        "custom_cnn": own.model_copy(update={"backbone": "custom_cnn", "weights": None}),
        "from_scratch": own.model_copy(update={"weights": None}),
    }
    chosen = {name: model for name, model in wanted.items() if name in run.config.comparison.models and model != own}
    return {name: _compared(run, name, model) for name, model in chosen.items()}


def _compared(run: Run, name: str, own: Model) -> pd.DataFrame:
    path = run.path(f"history/phase_1_{name}.csv")
    if not (run.part(name) and path.exists()):
        fold = run.config.folds[0]
        settings = run.config.phase_1.model_copy(update={"epochs": run.config.comparison.epochs, "feature_views": 0})
        config = run.config.model_copy(update={"model": own, "phase_1": settings})
        data = fold_of(run, fold, config)
        keras.utils.set_random_seed(keras_seed(config, 1, fold))
        source = Noted(sources.open_source(run))
        with tempfile.TemporaryDirectory() as folder, device.spread(config):
            model = models.build(config, len(data.labels))
            limit_s = deadline.allowance_s(run.stage.name, name, run.config)
            history = train(model, data, source, config, settings, Path(folder) / "best.keras", name, limit_s=limit_s)
        standins.record(run, source.broken)
        run.write_csv(f"history/phase_1_{name}.csv", history)
        run.keep_part(name, {"epochs": len(history)})
    return pd.read_csv(path)


def keras_seed(config: Config, phase: int, fold: int) -> int:
    """What Keras' own draws of a training, such as the first weights, begin with."""
    return int(chance.rng(config.seed, "keras", phase, fold).integers(2**31))
