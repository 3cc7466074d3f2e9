"""The claims of the training input that need Keras: all of a chunk on the CPU, and phase I on cached features."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import keras
from measuring import BATCH, OUT, PAPERS_WAY, XC10, filled, in_turns, note, papers_way, row, settings

from birdlib import batches, chance, device, features, layers, models, runs, series, sources, stages, store, training
from birdlib import config as configs

WEIGHTS = XC10.parents[1] / "weights" / "resnet50_imagenet_notop.weights.h5"


def cpu_chunk(repeats: int) -> Iterator[dict[str, object]]:
    """All of a training chunk on the CPU, from the store to its augmented image."""
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        config = settings(folder)
        table = filled(store.open_store(config.data.dir, config), config)
        table = table.assign(primary_label=table["filename"].str.rpartition("/")[0])
        labels = sorted(table["primary_label"].unique())
        feed = batches.TrainingBatches(table, labels, sources.by_settings(config.data.dir, config), config, BATCH)
        made, image = on_the_device(config), papers_way(settings(**{"augmentation.where": "host"}))

        def paper(turn: int) -> None:
            for slot, one in enumerate(feed.plan.epoch(turn)[:BATCH]):
                image(*feed.places[one], chance.seeds(0, "augment", turn, slot))

        def ours(turn: int) -> None:
            inputs, _ = feed.batch(turn, 0)
            made.predict_on_batch(inputs)

        ways = {"paper": paper, "ours": ours}
        for way in ways.values():  # filters and plans are made, and the layers compiled, once
            way(repeats)
        taken = in_turns(ways, repeats)
    said = ", ".join(f"{name} {1e3 * statistics.median(seconds) / BATCH:.3g} ms" for name, seconds in taken.items())
    note(f"CPU time a chunk: {said}; by {keras.backend.backend()}")
    value = statistics.median(one / other for one, other in zip(taken["paper"], taken["ours"], strict=True))
    yield row("cpu_chunk", value, "times less CPU time a chunk", "higher", PAPERS_WAY)


def on_the_device(config: configs.Config) -> keras.Model:
    """The image layers as training calls them; of each image only the maximum is handed back."""
    images = keras.Input(config.image_shape)
    loudest = keras.Model(images, keras.ops.max(images, axis=(1, 2, 3)))
    return features.extractor(layers.joined(loudest, config, together=device.together(config)), True)


# ---- feature_views

EPOCHS, VIEWS = 24, 3
PHASE_1 = {
    "model.backbone": "resnet50",
    "model.weights": str(WEIGHTS),
    "model.hidden": "1024,512",
    "batches.threshold": 16,
    "phase_1.epochs": EPOCHS,
    "phase_1.batch_size": 32,
    "phase_1.early_stopping_patience": EPOCHS,
    "splits.test_share": 0,
}


def feature_views(_: int) -> Iterator[dict[str, object]]:
    """Phase I with ResNet50's ImageNet weights on real recordings: all of it each epoch, against cached features."""
    if not (XC10.is_dir() and WEIGHTS.is_file()):
        note(f"feature_views needs {XC10} and {WEIGHTS}: left out")
        return
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        base = {"data.dir": XC10, **PHASE_1}
        for number in ("01", "02"):
            series.run("sample", run_dir=Path(folder), only=number, overrides={**base, "data.dir": str(XC10)})
        found = {views: phase_1(Path(folder), {**base, "phase_1.feature_views": views}) for views in (0, VIEWS)}
    for views, (seconds, accuracy, best) in found.items():
        name = f"on {views} cached views" if views else "plain"
        note(f"{name}: {seconds:.3g} s an epoch over {EPOCHS}, validation accuracy {accuracy:.1%} (best epoch {best})")
    (plain, plain_accuracy, _), (cached, accuracy, _) = found.values()
    baseline = (
        f"plain phase I, {EPOCHS} epochs; validation accuracy {accuracy:.3f} on features, {plain_accuracy:.3f} plain"
    )
    yield row("feature_views", plain / cached, "times less time an epoch, wall-clock", "higher", baseline)


def phase_1(run_dir: Path, overrides: dict) -> tuple[float, float, int]:
    """Seconds an epoch, all that phase I does counted in; the validation accuracy of the best; which that was."""
    config = configs.load("sample", overrides)
    run = runs.Run(run_dir, config, stages.stage("04"))
    data = training.fold_data(run.read_table("chunks"), run.read_table("splits"), 0, config)
    keras.utils.set_random_seed(0)
    model, source, best = models.build(config, len(data.labels)), sources.open_source(run), run_dir / "best.keras"
    began = time.perf_counter()
    history = training.train(model, data, source, config, config.phase_1, best, "phase_1")
    seconds = (time.perf_counter() - began) / len(history)
    predicted = training.predictions(models.load(best), data, source, config)
    return seconds, training.accuracy(predicted, data.labels), int(history["val_loss"].idxmin())
