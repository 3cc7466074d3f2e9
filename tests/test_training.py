"""Real trainings of a second or two, on chunks of one second; under any backend."""

import time

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from birdlib import batches, callbacks, deadline, draws, layers, models, runs, spectrogram, splits, stages, training
from birdlib import config as configs
from birdlib.audio import AudioError
from birdlib.sources import LazySource

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TINY = {
    "chunks.length_s": 1,
    "chunks.overlap_s": 0.2,
    "chunks.tail_min_s": 0.2,
    "spectrogram.n_mels": 32,
    "batches.threshold": 8,
    "model.hidden": "8",
    "model.dropout": 0,
    "augmentation.where": "off",
    "splits.folds": 2,
    "phase_1.epochs": 3,
    "phase_1.batch_size": 8,
    "phase_1.learning_rate": 0.01,
    "phase_2.epochs": 2,
    "phase_2.batch_size": 16,
    "compute.workers": 1,
    "compute.predict_batch_size": 16,
    "silence.threshold": 0.05,
}
COLUMNS = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"]


def tiny(data, **overrides):
    return configs.load("sample", {**TINY, "data.dir": data, **overrides})


@pytest.fixture(scope="module")
def config(tiny_data):
    return tiny(tiny_data)


@pytest.fixture(scope="module")
def tables(tiny_data, config, start_run, tmp_path_factory):
    """The folder of a run whose first two stages are done; not to be written into."""
    return start_run(tmp_path_factory.mktemp("tables"), config, "02_chunking").dir


@pytest.fixture
def new_run(tables, tmp_path):
    """A function (name, config, stage="04") -> a run with those tables in a folder of its own."""

    def new(name, config, stage="04"):
        run = runs.Run(tmp_path / name, config, stages.stage(stage))
        for table in ("recordings", "chunks", "splits"):
            run.write_table(table, pd.read_parquet(tables / "tables" / f"{table}.parquet"))
        return run

    return new


@pytest.fixture(scope="module")
def fold(tables, config):
    read = lambda name: pd.read_parquet(tables / "tables" / f"{name}.parquet")  # noqa: E731
    return training.fold_data(read("chunks"), read("splits"), 0, config)


@pytest.fixture(scope="module")
def trained(tables, config):
    """A run with both phases done, and what they returned."""
    first, second = (runs.Run(tables, config, stages.stage(stage)) for stage in ("04", "05"))
    return first, training.phase_1(first, 0), training.phase_2(second, 0)


def images_and_truth(chunk_table, labels, config):
    """All chunks as images by the numpy reference, and which class each is of."""
    source = LazySource(config.data.dir, config)
    pairs = zip(chunk_table["filename"], chunk_table["start_s"], strict=True)
    images = np.stack([spectrogram.image(source.read(*pair), config) for pair in pairs])
    return images, pd.Index(labels).get_indexer(chunk_table["primary_label"])


def values(model):
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def linear(config, classes):
    """The least that can be trained, on how bright each band is: no batch normalisation, no dropout."""
    images = keras.Input(config.image_shape)
    x = keras.layers.AveragePooling2D((1, config.image_shape[1]))(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Dense(classes, activation="softmax")(keras.layers.Flatten()(x)))


@pytest.fixture
def quick(monkeypatch):
    """Phases that train the linear model, for what does not hang on the model."""
    monkeypatch.setattr(models, "build", linear)
    monkeypatch.setattr(models, "freeze_backbone", lambda model, frozen: None)


def train(model, fold, config, best, first_epoch=0, **phase):
    settings = config.phase_1.model_copy(update=phase)
    source = LazySource(config.data.dir, config)
    return training.train(model, fold, source, config, settings, best, "test", first_epoch)


# --- the data of a fold ----------------------------------------------------------------------------------------------


def test_fold_data_has_no_recording_on_both_sides(fold, tables):
    split = pd.read_parquet(tables / "tables" / "splits.parquet")
    train, validation = set(fold.train["filename"]), set(fold.validation["filename"])
    assert train
    assert validation
    assert not train & validation
    held_out = set(split.loc[split["split"] == "test", "filename"])
    assert held_out
    assert not held_out & (train | validation)
    assert train | validation | held_out == set(split["filename"])
    assert fold.labels == sorted(set(split["primary_label"]))


def test_fold_data_holds_kept_chunks_with_the_label_of_their_recording(fold, tables):
    every = pd.read_parquet(tables / "tables" / "chunks.parquet")
    assert (every["rms_relative"] < 0.05).any()  # there are silent ones
    for side in fold[:2]:
        assert (side["primary_label"] == side["filename"].str.split("/").str[0]).all()
        loudest = every.groupby("filename")["rms_relative"].transform("max") == every["rms_relative"]
        expected = every[((every["rms_relative"] >= 0.05) | loudest) & every["filename"].isin(side["filename"])]
        pairs = ["filename", "start_s"]
        assert sorted(map(tuple, side[pairs].to_numpy())) == sorted(map(tuple, expected[pairs].to_numpy()))


def test_fold_data_looks_for_leaks(tables, config):
    split = pd.read_parquet(tables / "tables" / "splits.parquet")
    split.loc[split["split"] == "test", "group"] = split.loc[split["split"] == "train", "group"].iloc[0]
    with pytest.raises(splits.SplitError, match="its group is on two sides"):
        training.fold_data(pd.read_parquet(tables / "tables" / "chunks.parquet"), split, 0, config)


# --- both phases -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("phase", "epochs", "rate"), [(1, 3, 0.01), (2, 2, 3e-4)])
def test_a_phase_writes_its_history(trained, phase, epochs, rate):
    run, *results = trained
    history = pd.read_csv(run.dir / f"history/phase_{phase}_fold_0.csv")
    assert history.columns.tolist() == COLUMNS
    assert history["epoch"].tolist() == list(range(epochs))
    assert history["learning_rate"].iloc[0] == pytest.approx(rate, rel=1e-6)
    assert history.notna().all(axis=None)
    assert history[["accuracy", "val_accuracy"]].stack().between(0, 1).all()
    assert (history["seconds"] > 0).all()
    assert results[phase - 1]["epochs"] == epochs
    assert results[phase - 1]["best_epoch"] == history["val_loss"].to_numpy().argmin()


def test_training_learns(fold, tiny_data, tmp_path):
    # Four species told apart by pitch: which band is bright says it all.
    config = tiny(tiny_data, **{"augmentation.strength": 0})
    keras.utils.set_random_seed(0)
    history = train(linear(config, 4), fold, config, tmp_path / "best.keras", learning_rate=0.03, epochs=12)
    assert history["loss"].iloc[-1] < 0.5 * history["loss"].iloc[0]
    assert history["accuracy"].iloc[-1] > 0.7
    assert history["val_accuracy"].iloc[-1] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["binary_crossentropy", "focal"])
def test_training_learns_by_other_losses_too(kind, fold, tiny_data, tmp_path):
    config = tiny(tiny_data, **{"augmentation.strength": 0, "loss.kind": kind, "loss.label_smoothing": 0.02})
    keras.utils.set_random_seed(0)
    history = train(linear(config, 4), fold, config, tmp_path / "best.keras", learning_rate=0.03, epochs=12)
    assert history["val_loss"].iloc[-1] < 0.7 * history["val_loss"].iloc[0]
    assert history["val_accuracy"].iloc[-1] > 0.7


@pytest.mark.parametrize("choice", ["target", "masked"])
def test_secondary_labels_reach_the_loss(choice, tables, tiny_data, tmp_path):
    # Every recording names all other species as being in the background.
    config = tiny(tiny_data, **{"loss.secondary_labels": choice, "loss.secondary_weight": 0.5})
    run = runs.Run(tables, config, stages.stage("04"))
    data = training.fold_of(run, 0)
    everyone = [side.assign(secondary_labels=[data.labels] * len(side)) for side in data[:2]]
    uniform = keras.Model(images := keras.Input(config.image_shape), _uniform(images))
    history = train(uniform, training.Fold(*everyone, data.labels), config, tmp_path / "best.keras", epochs=1)
    # Where all others are masked, nothing is left to tell apart; a uniform guess costs log 4 whatever is asked for.
    assert history["val_loss"].iloc[0] == pytest.approx({"masked": 0, "target": np.log(4)}[choice], abs=1e-4)


def _uniform(images):
    pooled = keras.layers.GlobalAveragePooling2D()(images)
    return keras.layers.Dense(4, kernel_initializer="zeros", activation="softmax", trainable=False)(pooled)


def test_a_runs_chunks_have_their_recordings_secondary_labels_where_they_count(tables, config, tiny_data):
    assert "secondary_labels" not in training.fold_of(runs.Run(tables, config, stages.stage("04")), 0).train
    other = tiny(tiny_data, **{"loss.secondary_labels": "masked"})
    data = training.fold_of(runs.Run(tables, other, stages.stage("04")), 0)
    both = pd.concat([data.train, data.validation]).drop_duplicates("filename")
    told = both[both["secondary_labels"].map(len) > 0]
    assert 0 < len(told) < len(both)
    assert told["filename"].str.endswith("2.ogg").all()  # the third recording of each species names the next one
    for row in told.itertuples():
        assert list(row.secondary_labels) == [data.labels[(data.labels.index(row.primary_label) + 1) % 4]]


@pytest.mark.parametrize("phase", [1, 2])
def test_a_phase_saves_the_image_classifier_of_its_best_epoch(trained, fold, config, phase):
    run, *results = trained
    model = models.load(run.dir / f"models/phase_{phase}_fold_0.keras")
    assert model.input_shape == (None, 32, 64, 3)
    assert model.output_shape == (None, 4)
    images, truth = images_and_truth(fold.validation, fold.labels, config)
    probabilities = model.predict(images, verbose=0).astype(np.float64)
    history = pd.read_csv(run.dir / f"history/phase_{phase}_fold_0.csv")
    found = log_loss(truth, probabilities / probabilities.sum(axis=1, keepdims=True), labels=range(4))
    assert found == pytest.approx(history["val_loss"].min(), rel=0.01)
    assert results[phase - 1]["val_accuracy"] == pytest.approx(np.mean(probabilities.argmax(axis=1) == truth))
    assert results[phase - 1]["val_chunks"] == len(truth)


def test_phase_2_begins_with_phase_1s_best_and_trains_all_of_it(trained, new_run, tiny_data):
    run, first, second = trained
    before = models.load(run.dir / "models/phase_1_fold_0.keras")
    after = models.load(run.dir / "models/phase_2_fold_0.keras")
    moved = [not np.array_equal(old, new) for old, new in zip(values(before), values(after), strict=True)]
    assert all(moved)  # weights and statistics
    assert second["parameters"]["trained"] == first["parameters"]["trained"]  # nothing pretrained: whole from the start
    # At a rate of nearly nothing, it ends where it began.
    slow = new_run("slow", tiny(tiny_data, **{"phase_2.learning_rate": 1e-12, "phase_2.epochs": 1}), "05")
    (slow.dir / "models").mkdir()
    before.save(slow.dir / "models/phase_1_fold_0.keras")
    training.phase_2(slow, 0)
    same = models.load(slow.dir / "models/phase_2_fold_0.keras")
    for old, new in zip(before.trainable_weights, same.trainable_weights, strict=True):
        old, new = (keras.ops.convert_to_numpy(weight) for weight in (old, new))
        np.testing.assert_allclose(old, new, rtol=0, atol=1e-8)


def tiny_net(weights=None, include_top=False, input_shape=None, pooling="avg"):
    """A backbone such as those of `keras.applications`, in small."""
    images = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=4)(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization(momentum=0.5)(x))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x), name="tiny_net")


@pytest.mark.slow
def test_phase_1_spares_a_pretrained_backbone_and_phase_2_does_not(new_run, tiny_data, tmp_path, monkeypatch):
    tiny_net.__module__ = keras.applications.EfficientNetB0.__module__  # its preprocess_input changes nothing
    monkeypatch.setattr(keras.applications, "TinyNet", tiny_net, raising=False)
    pretrained = tiny_net(input_shape=(32, 64, 3))
    pretrained.save_weights(tmp_path / "notop.weights.h5")
    short = {"model.backbone": "tiny_net", "model.weights": str(tmp_path / "notop.weights.h5"), "phase_1.epochs": 2}
    config = tiny(tiny_data, **short, **{"phase_2.epochs": 1, "phase_2.learning_rate": 0.01})
    run = new_run("pretrained", config)
    head = 4 * 8 + 8 + 2 * 8 + 8 * 4 + 4
    assert training.phase_1(run, 0)["parameters"]["trained"] == head
    after_1 = models.backbone(models.load(run.dir / "models/phase_1_fold_0.keras"))
    for old, new in zip(values(pretrained), values(after_1), strict=True):
        np.testing.assert_array_equal(old, new)
    second = training.phase_2(runs.Run(run.dir, config, stages.stage("05")), 0)
    assert second["parameters"]["trained"] == head + 3 * 3 * 3 * 4 + 4
    kernel, bias, *normalisation = values(models.backbone(models.load(run.dir / "models/phase_2_fold_0.keras")))
    before = values(pretrained)
    assert (kernel != before[0]).any()
    assert (bias != before[1]).any()
    for old, new in zip(before[2:], normalisation, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_same_seed_begins_the_same_and_another_does_not(new_run, tiny_data):
    losses = {}
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        np.random.seed(seed + len(name))  # noqa: NPY002 - what was drawn before does not count
        run = new_run(name, tiny(tiny_data, **{"phase_1.epochs": 1, "augmentation.where": "off"}, seed=seed))
        training.phase_1(run, 0)
        losses[name] = pd.read_csv(run.dir / "history/phase_1_fold_0.csv")["loss"].iloc[0]
    assert losses["again"] == pytest.approx(losses["one"], rel=1e-5)
    assert losses["other"] != pytest.approx(losses["one"], rel=1e-3)


@pytest.fixture
def trainings(quick, monkeypatch):
    """Phases that train nothing: the description and the first epoch of each training that there would have been."""
    asked = []

    def pretend(
        model, data, source, config, settings, best, description, first_epoch=0, kept=None, limit_s=None, more=()
    ):
        asked.append((description, first_epoch))
        model.save(best)
        return pd.DataFrame({"epoch": range(settings.epochs), "val_loss": 1.0})

    monkeypatch.setattr(training, "train", pretend)
    return asked


def test_a_fold_that_is_done_is_not_trained_again_when_its_stage_goes_on(new_run, tiny_data, trainings):
    both = {"folds": (0, 1), "phase_1.epochs": 1}
    run = new_run("folds", tiny(tiny_data, **both))
    done = training.phase_1(run, 0)
    assert trainings == [("phase_1, fold 0", 0)]
    assert training.phase_1(run, 0) == done
    assert len(trainings) == 1
    training.phase_1(run, 1)
    assert trainings[1:] == [("phase_1, fold 1", 0)]
    # With other settings what is kept does not count.
    training.phase_1(runs.Run(run.dir, tiny(tiny_data, **both, seed=1), run.stage), 0)
    assert trainings[2:] == [("phase_1, fold 0", 0)]


@pytest.mark.usefixtures("trainings")
def test_a_training_that_breaks_leaves_no_model(new_run, config, monkeypatch):
    run = new_run("broken", config)
    monkeypatch.setattr(training, "predictions", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training.phase_1(run, 0)
    assert not list((run.dir / "models").iterdir())


@pytest.mark.slow
def test_epochs_are_logged_for_tensorboard_where_that_is_set(new_run, tiny_data, quick):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = new_run("logged", tiny(tiny_data, **{"compute.tensorboard": True, "phase_1.epochs": 2}))
    training.phase_1(run, 0)
    history = pd.read_csv(run.dir / "history/phase_1_fold_0.csv")
    for side, prefix in (("training", ""), ("validation", "val_")):
        events = EventAccumulator(str(run.dir / "tensorboard/phase_1_fold_0" / side)).Reload()
        for name in ("loss", "accuracy"):
            logged = events.Scalars(name)
            assert [event.step for event in logged] == [0, 1]
            np.testing.assert_allclose([event.value for event in logged], history[prefix + name], rtol=1e-5)
    without = new_run("without", tiny(tiny_data, **{"phase_1.epochs": 1}))
    training.phase_1(without, 0)
    assert not (without.dir / "tensorboard").exists()


# --- the callbacks ---------------------------------------------------------------------------------------------------


def test_the_learning_rate_halves_and_training_stops_when_nothing_improves(fold, config, tmp_path):
    # Steps of 1e-12 change no weight, so the loss stands still from the first epoch on.
    history = train(
        linear(config, 4),
        fold,
        config,
        tmp_path / "best.keras",
        learning_rate=1e-12,
        epochs=20,
        plateau_patience=2,
        early_stopping_patience=5,
    )
    assert history["val_loss"].nunique() == 1
    # Epoch 0 is the best. After two more without a better one the rate halves, for the next; and so on.
    np.testing.assert_allclose(history["learning_rate"] / 1e-12, [1, 1, 1, 0.5, 0.5, 0.25], rtol=1e-5)
    # Five epochs without a better one: it stops after the sixth.
    assert len(history) == 6


def test_the_learning_rate_falls_by_the_factor_that_is_set(fold, config, tmp_path):
    history = train(
        linear(config, 4),
        fold,
        config,
        tmp_path / "best.keras",
        learning_rate=1e-12,
        epochs=3,
        plateau_patience=1,
        plateau_factor=0.1,
    )
    np.testing.assert_allclose(history["learning_rate"] / 1e-12, [1, 1, 0.1], rtol=1e-5)


def test_what_is_saved_is_the_best_epoch_and_not_the_last(fold, config, tmp_path):
    # The validation's labels are one off: the better the model, the worse its score.
    labels = fold.labels
    wrong = fold.validation["primary_label"].map(dict(zip(labels, labels[1:] + labels[:1], strict=True)))
    misled = fold._replace(validation=fold.validation.assign(primary_label=wrong))
    model = linear(config, 4)
    history = train(model, misled, config, tmp_path / "best.keras", learning_rate=0.1, epochs=5)
    assert history["val_loss"].idxmin() < 4
    images, truth = images_and_truth(misled.validation, labels, config)
    both = (
        each.predict(images, verbose=0).astype(np.float64) for each in (models.load(tmp_path / "best.keras"), model)
    )
    losses = [log_loss(truth, each / each.sum(axis=1, keepdims=True), labels=range(4)) for each in both]
    np.testing.assert_allclose(losses, [history["val_loss"].min(), history["val_loss"].iloc[-1]], rtol=1e-3)


@pytest.mark.usefixtures("quick")
def test_validation_during_training_may_be_bounded_and_the_score_is_not(new_run, tiny_data, fold, monkeypatch):
    looked_at = []

    class Watched(batches.PlainBatches):
        def __init__(self, chunk_table, *rest):
            looked_at.append(chunk_table)
            super().__init__(chunk_table, *rest)

    monkeypatch.setattr(training, "PlainBatches", Watched)
    bounded = tiny(tiny_data, **{"batches.validation_chunks_per_recording": 2, "phase_1.epochs": 1})
    result = training.phase_1(new_run("bounded", bounded), 0)
    (during,) = looked_at
    assert during.groupby("filename").size().max() == 2
    assert set(during["filename"]) == set(fold.validation["filename"])
    assert result["val_chunks"] == len(fold.validation) > len(during)


class Vanishing(LazySource):
    """A folder that is gone after some reads."""

    left = 100

    def read(self, filename, start_s):
        self.left -= 1
        return super().read(filename if self.left > 0 else "tinbir1/gone.ogg", start_s)


def test_a_class_whose_recordings_all_vanish_stops_the_training_with_its_own_error(fold, config, tmp_path):
    source = Vanishing(config.data.dir, config)
    with pytest.raises(AudioError, match=r"tinbir1/gone\.ogg: no such file; no recording of tinbir\d can be read"):
        training.train(linear(config, 4), fold, source, config, config.phase_1, tmp_path / "best.keras", "test")


@pytest.mark.parametrize("first_epoch", [0, 3])
def test_every_epoch_trains_on_its_own_batches(fold, config, tmp_path, monkeypatch, first_epoch):
    made = []

    class Watched(batches.TrainingBatches):
        def batch(self, epoch, index):
            made.append((epoch, index))
            return super().batch(epoch, index)

    monkeypatch.setattr(training, "TrainingBatches", Watched)
    history = train(linear(config, 4), fold, config, tmp_path / "best.keras", first_epoch, epochs=3)
    assert history["epoch"].tolist() == [0, 1, 2]
    assert set(made) == {(first_epoch + epoch, index) for epoch in range(3) for index in range(4)}
    assert made.count((first_epoch + 1, 0)) == made.count((first_epoch + 2, 3)) == 1


def test_phase_2_is_shown_other_epochs_than_phase_1(new_run, config, trainings):
    run = new_run("both", config)
    training.phase_1(run, 0)
    training.phase_2(runs.Run(run.dir, config, stages.stage("05")), 0)
    assert trainings == [("phase_1, fold 0", 0), ("phase_2, fold 0", config.phase_1.epochs)]


def test_a_loss_that_is_no_number_stops_the_training(fold, config, tmp_path):
    model = linear(config, 4)
    model.set_weights([np.full(weight.shape, np.nan, np.float32) for weight in model.weights])
    with pytest.raises(callbacks.TrainingError) as caught:
        train(model, fold, config, tmp_path / "best.keras", epochs=3)
    assert "\n" not in str(caught.value)
    assert "learning_rate" in str(caught.value)


def test_training_data_goes_through_the_image_layers(config, fold):
    model = linear(config, 4)
    whole = layers.joined(model, config)
    assert {key: (each.shape, each.dtype) for key, each in whole.input.items()} == {
        "audio": ((None, 32_000), "int16"),
        "chance": ((None, draws.count(config)), "float32"),
    }
    rows = fold.validation.iloc[:5]
    images, _ = images_and_truth(rows, fold.labels, config)
    source = LazySource(config.data.dir, config)
    audio = np.stack([source.read(*pair) for pair in zip(rows["filename"], rows["start_s"], strict=True)])
    chance = np.zeros((5, draws.count(config)), np.float32)
    found = whole.predict_on_batch({"audio": audio, "chance": chance})
    np.testing.assert_allclose(found, model.predict_on_batch(images), atol=1e-4)


@pytest.mark.slow
def test_everything_on_the_device_trains_and_is_not_saved(fold, tiny_data, tmp_path):
    effects = ("time_stretch", "pitch_shift", "gaussian_noise", "high_pass", "band_pass", "clipping", "cut_out")
    everything = {f"augmentation.{name}.probability": 0.7 for name in (*effects, "time_shift", "background", "mixup")}
    folder = {"augmentation.background.dir": tiny_data / "train_audio" / "tinbir1", "augmentation.background.chunks": 3}
    config = tiny(tiny_data, **everything, **folder, **{"augmentation.where": "device"})
    model = linear(config, 4)
    for _ in range(2):  # and the same again
        keras.utils.set_random_seed(1)
        model.set_weights([np.zeros(weight.shape, np.float32) for weight in model.weights])
        history = train(model, fold, config, tmp_path / "best.keras", epochs=2)
        assert np.isfinite(history["loss"]).all()
        losses = history["loss"].tolist()
        assert losses == pytest.approx(getattr(model, "losses_before", losses), rel=1e-3)
        model.losses_before = losses
    saved = models.load(tmp_path / "best.keras")
    assert [weight.shape for weight in saved.weights] == [weight.shape for weight in model.weights]
    images, _ = images_and_truth(fold.validation.iloc[:3], fold.labels, config)
    assert saved.predict_on_batch(images).shape == (3, 4)


# --- beside the training ---------------------------------------------------------------------------------------------


def test_the_validation_chunks_predictions_are_kept(trained, fold):
    first, result, _ = trained
    table = first.read_table("validation_phase_1_fold_0")
    assert table.columns.tolist() == ["filename", "start_s", "primary_label", *fold.labels]
    pd.testing.assert_frame_equal(
        table[["filename", "start_s", "primary_label"]],
        fold.validation[["filename", "start_s", "primary_label"]],
        check_dtype=False,
    )
    probabilities = table[fold.labels].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    right = np.array(fold.labels)[probabilities.argmax(axis=1)] == table["primary_label"]
    assert result["val_accuracy"] == pytest.approx(right.mean())


def test_both_phases_histories_are_one(trained):
    run, first, _ = trained
    whole = training.whole_history(run, 0)
    assert whole["phase"].tolist() == ["I"] * 3 + ["II"] * 2
    assert whole["epoch"].tolist() == [0, 1, 2, 3, 4]
    losses = whole["val_loss"].to_numpy()
    assert np.flatnonzero(whole["best"]).tolist() == [losses[:3].argmin(), 3 + losses[3:].argmin()]
    assert first["epochs"] == 3


def test_what_is_compared_is_what_the_model_is_not(new_run, tiny_data, trainings):
    compare = {"comparison.models": "custom_cnn,from_scratch", "comparison.epochs": 2}
    assert training.compared(new_run("itself", tiny(tiny_data, **compare))) == {}
    run = new_run("other", tiny(tiny_data, **compare, **{"model.backbone": "mobilenet"}))
    histories = training.compared(run)
    assert list(histories) == ["custom_cnn"]
    assert len(histories["custom_cnn"]) == 2
    assert [name for name, _ in trainings] == ["custom_cnn"]
    training.compared(run)  # what a stopped notebook has done is not done again
    assert len(trainings) == 1


@pytest.mark.slow
def test_a_comparison_trains_for_real(new_run, tiny_data):
    settings = {"comparison.models": "custom_cnn", "comparison.epochs": 1, "model.backbone": "mobilenet"}
    run = new_run("real", tiny(tiny_data, **settings))
    history = training.compared(run)["custom_cnn"]
    assert history.columns.tolist() == COLUMNS
    assert len(history) == 1
    assert not list(run.dir.glob("models/*"))  # it is looked at, and used for nothing


def history_of(val_loss, rates, first=0):
    epochs = range(first, first + len(rates))
    return pd.DataFrame({"epoch": epochs, "val_loss": val_loss, "learning_rate": rates})


def test_what_the_callbacks_did_is_told(config):
    settings = config.phase_1.model_copy(update={"epochs": 4})
    told = callbacks.told(history_of([3, 1, 2, 2.5], [0.1, 0.1, 0.1, 0.05]), settings)
    assert "lowest validation loss was in epoch 1" in told
    assert "lowered to 0.5 of itself before epoch 3" in told
    assert "All 4 epochs" in told
    told = callbacks.told(history_of([1, 2, 3], [0.1, 0.1, 0.1], first=10), settings)
    assert "in epoch 10" in told
    assert "never lowered" in told
    assert "ended early after epoch 12: its time was over" in told
    patient = settings.model_copy(update={"epochs": 9, "early_stopping_patience": 3})
    told = callbacks.told(history_of([1, 2, 2, 2], [0.1] * 4), patient)
    assert "early after epoch 3: 3 epochs with no lower loss" in told


# --- in time ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_without_time_trains_a_batch_and_is_whole(new_run, config, monkeypatch):
    monkeypatch.setenv(deadline.TRAINING_ENDS, "1")  # 1970
    run = new_run("late", config)
    seen = []
    trained = callbacks.Progress.on_train_batch_end
    monkeypatch.setattr(
        callbacks.Progress, "on_train_batch_end", lambda *a, **k: (seen.append(a[1]), trained(*a, **k))[1]
    )
    result = training.phase_1(run, 0)
    assert seen == [0]
    assert (result["epochs"], result["best_epoch"]) == (1, 0)
    history = pd.read_csv(run.dir / "history" / "phase_1_fold_0.csv")
    assert history.columns.tolist() == COLUMNS
    assert np.isfinite(history.to_numpy()).all()
    assert models.load(run.dir / "models" / "phase_1_fold_0.keras").output_shape == (None, 4)
    assert "its time was over" in callbacks.told(history, config.phase_1)


@pytest.mark.slow
def test_a_training_with_time_is_as_without_a_limit(new_run, config, monkeypatch):
    whole = training.phase_1(new_run("whole", config), 0)
    monkeypatch.setenv(deadline.TRAINING_ENDS, f"{time.time() + 3600:.0f}")
    assert training.phase_1(new_run("limited", config), 0) == whole


def test_the_limit_leaves_time_for_the_validation(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: clock[0])
    limit = callbacks.TimeLimit(100)  # whose time begins here
    limit.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    limit.model.stop_training = False
    stopped = []
    for at, end_of_epoch in [(30, False), (40, True), (59, False), (69, False)]:
        clock[0] = at
        limit.on_train_batch_end(0)
        stopped.append(limit.model.stop_training)
        if end_of_epoch:
            clock[0] = at + 32.0  # which its validation took
            limit.on_epoch_end(0)
    assert stopped == [False, False, False, True]


# --- cached features, mixed precision --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Settings of a backbone with weights from a file."""
    keras.utils.set_random_seed(3)
    body = keras.applications.MobileNet(include_top=False, input_shape=(32, 64, 3), pooling="avg", weights=None)
    file = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    body.save_weights(file)
    return {"model.backbone": "mobilenet", "model.weights": str(file)}, body.get_weights()


def test_phase_1_goes_by_cached_features_and_saves_the_whole_classifier(new_run, tiny_data, pretrained):
    settings, weights = pretrained
    run = new_run("views", tiny(tiny_data, **settings, **{"phase_1.feature_views": 2, "phase_1.epochs": 4}))
    result = training.phase_1(run, 0)
    model = models.load(run.dir / "models" / "phase_1_fold_0.keras")
    for one, other in zip(models.backbone(model).get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    history = pd.read_csv(run.dir / "history" / "phase_1_fold_0.csv")
    assert history.columns.tolist() == COLUMNS
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    # What the cached features said of the validation chunks is what the whole classifier says of them.
    assert history["val_accuracy"].iloc[result["best_epoch"]] == pytest.approx(result["val_accuracy"], abs=0.06)


@pytest.mark.parametrize("policy", [pytest.param("mixed_bfloat16", marks=pytest.mark.slow), "mixed_float16"])
def test_mixed_precision_trains_and_saves_float32(fold, tiny_data, tmp_path, policy):
    config = tiny(tiny_data, **{"compute.precision": policy})
    model = models.build(config, 4)
    history = train(model, fold, config, tmp_path / "best.keras", epochs=2)
    assert np.isfinite(history[["loss", "val_loss"]].to_numpy()).all()
    saved = models.load(tmp_path / "best.keras")
    for one in (model, saved):
        kinds = {layer.compute_dtype for layer in (*one.layers, *models.backbone(one).layers)}
        assert kinds == {"float32"}
    assert len({layer.dtype_policy.name for layer in saved.layers}) == 1


def test_within_mixed_precision_all_but_the_probabilities_are_mixed(config):
    model = models.build(config, 4)
    with models.at_precision(model, "mixed_bfloat16"):
        kinds = [layer.compute_dtype for layer in model.layers]
        assert kinds[-1] == "float32"
        assert set(kinds[1:-1]) == {"bfloat16"}
        assert model(np.zeros((2, *config.image_shape), "float32")).dtype in ("float32", keras.ops.zeros(1).dtype)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
