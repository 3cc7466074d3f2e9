"""Which chunk when: counted over epochs, asked in any order, and as Keras really asks for it; under any backend."""

import gc
import threading
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pandas as pd
import pytest

from birdlib import batches, draws
from birdlib import config as configs

# Recordings of each class, and chunks of each recording: one with many, one with few, one with a single chunk.
COUNTS = {"a": [3, 1, 4, 2, 6], "b": [1], "c": [2, 2, 5], "d": [1] * 11}
LABELS = sorted(COUNTS)
SMALL = {"chunks.length_s": 0.1, "chunks.overlap_s": 0.02, "chunks.tail_min_s": 0.02, "augmentation.where": "off"}
SMALL |= {"audio.sample_rate_hz": 32_000, "batches.threshold": 7}


def chunk_table(counts=COUNTS):
    rows = [
        (f"{label}/r{number}.ogg", 4.0 * chunk, label)
        for label, recordings in counts.items()
        for number, chunks in enumerate(recordings)
        for chunk in range(chunks)
    ]
    return pd.DataFrame(rows, columns=["filename", "start_s", "primary_label"])


CHUNKS = chunk_table()


def plan(counts=COUNTS, threshold=7, seed=0):
    return batches.BalancedPlan(chunk_table(counts), sorted(counts), threshold, seed)


def chosen(epochs, label, counts=COUNTS, threshold=7, seed=0):
    """The rows that a class gets, epoch by epoch: a list of tables."""
    table, this = chunk_table(counts), plan(counts, threshold, seed)
    drawn = [table.iloc[this.epoch(epoch)] for epoch in range(epochs)]
    return [rows[rows["primary_label"] == label] for rows in drawn]


class Numbered:
    """A source whose chunk i of the table holds nothing but the number i + 1."""

    def __init__(self, chunks, samples):
        self.number = {(row.filename, row.start_s): at + 1 for at, row in enumerate(chunks.itertuples())}
        self.samples = samples

    def read(self, filename, start_s):
        return np.full(self.samples, self.number[filename, start_s], np.int16)


def training_batches(batch_size=8, epoch=0, **overrides):
    config = configs.load("sample", {**SMALL, **overrides})
    source = Numbered(CHUNKS, config.chunk_samples)
    return batches.TrainingBatches(CHUNKS, LABELS, source, config, batch_size, epoch=epoch)


def assert_equal(one, other):
    for key in ("audio", "chance"):
        np.testing.assert_array_equal(one[0][key], other[0][key])
    np.testing.assert_array_equal(one[1], other[1])


# --- the plan ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [1, 7, 24])
def test_an_epoch_holds_threshold_chunks_of_every_class(threshold):
    this = plan(threshold=threshold)
    for epoch in range(8):
        rows = this.epoch(epoch)
        assert Counter(CHUNKS["primary_label"].iloc[rows]) == dict.fromkeys(LABELS, threshold)


@pytest.mark.parametrize("label", LABELS)
def test_recordings_of_a_class_take_turns_over_the_epochs(label):
    recordings = len(COUNTS[label])
    used = Counter({f"{label}/r{number}.ogg": 0 for number in range(recordings)})
    for rows in chosen(30, label):
        used.update(rows["filename"])
        # None is there k + 1 times before all are there k times: true at the end of every epoch.
        assert max(used.values()) - min(used.values()) <= 1
    assert used.total() == 30 * 7


@pytest.mark.parametrize("label", LABELS)
def test_chunks_of_a_recording_take_turns_over_the_epochs(label):
    table = CHUNKS[CHUNKS["primary_label"] == label]
    used = Counter({(row.filename, row.start_s): 0 for row in table.itertuples()})
    for rows in chosen(30, label):
        used.update(zip(rows["filename"], rows["start_s"], strict=True))
        for name in table["filename"].unique():
            of_recording = [count for (filename, _), count in used.items() if filename == name]
            assert max(of_recording) - min(of_recording) <= 1
    assert min(used.values()) > 0  # over 30 epochs, every chunk has had its turn


def test_turns_are_drawn_anew_every_round():
    # Eleven recordings of one chunk and seven turns an epoch: after eleven epochs, rounds and epochs begin together
    # again. Were the order of every round the same, the same seven would come again.
    epochs = [frozenset(rows["filename"]) for rows in chosen(22, "d")]
    assert sum(one == other for one, other in zip(epochs[:11], epochs[11:], strict=True)) <= 1
    assert frozenset(chosen(1, "d", seed=1)[0]["filename"]) != epochs[0]


def test_epochs_differ_and_are_shuffled():
    this = plan()
    assert len({this.epoch(epoch).tobytes() for epoch in range(5)}) == 5
    order = CHUNKS["primary_label"].iloc[this.epoch(0)].tolist()
    assert order != sorted(order)
    # In shuffled order neighbours are of one class a quarter of the time, in an unshuffled one nearly always.
    same = [one == next_ for e in range(20) for one, next_ in _pairs(CHUNKS["primary_label"].iloc[this.epoch(e)])]
    assert np.mean(same) == pytest.approx((7 - 1) / (28 - 1), abs=0.06)


def _pairs(values):
    return zip(values.iloc[:-1], values.iloc[1:], strict=True)


def test_the_same_seed_gives_the_same_epochs_in_any_order_and_another_seed_others():
    one, other = plan(), plan()
    backwards = [one.epoch(epoch) for epoch in (4, 3, 2, 1, 0)][::-1]
    for epoch in range(5):
        np.testing.assert_array_equal(other.epoch(epoch), backwards[epoch])
        assert sorted(plan(seed=1).epoch(epoch)) != sorted(backwards[epoch])


def test_a_class_more_changes_nothing_for_the_others():
    more = {"aa": [2, 3], **COUNTS}
    for label in LABELS:
        for before, after in zip(chosen(4, label), chosen(4, label, more), strict=True):
            keys = ["filename", "start_s"]
            assert sorted(before[keys].itertuples(index=False)) == sorted(after[keys].itertuples(index=False))


def test_a_class_without_a_chunk_is_refused():
    with pytest.raises(ValueError, match="no chunk to train on for z"):
        batches.BalancedPlan(CHUNKS, [*LABELS, "z"], 7, 0)


# --- training batches ----------------------------------------------------------------------------------------------


def test_batches_hold_the_epoch_whole_with_a_smaller_last_one():
    data = training_batches(batch_size=8)
    assert data.num_batches == 4  # 28 samples
    found = [data[index] for index in range(4)]
    assert [len(targets) for _, targets in found] == [8, 8, 8, 4]
    numbers = np.concatenate([inputs["audio"][:, 0] for inputs, _ in found])
    np.testing.assert_array_equal(numbers - 1, plan().epoch(0))


def test_batch_has_the_shapes_and_types_of_the_contract():
    config = configs.load("sample", {"augmentation.where": "off"})
    data = batches.TrainingBatches(CHUNKS, LABELS, Numbered(CHUNKS, 160_000), config, batch_size=3)
    inputs, targets = data[0]
    numbers = draws.count(config)
    assert {key: (value.dtype, value.shape) for key, value in inputs.items()} == {
        "audio": (np.dtype("int16"), (3, 160_000)),
        "chance": (np.dtype("float32"), (3, numbers)),
    }
    assert (targets.dtype, targets.shape) == (np.dtype("float32"), (3, 4))
    assert inputs["chance"].min() >= 0
    assert inputs["chance"].max() < 1


def test_targets_are_one_hot_in_the_order_of_the_labels():
    for labels in (LABELS, LABELS[::-1]):
        config = configs.load("sample", SMALL)
        data = batches.TrainingBatches(CHUNKS, labels, Numbered(CHUNKS, config.chunk_samples), config, batch_size=28)
        inputs, targets = data[0]
        truth = CHUNKS["primary_label"].iloc[inputs["audio"][:, 0] - 1]
        assert (targets.sum(axis=1) == 1).all()
        assert [labels[at] for at in targets.argmax(axis=1)] == truth.tolist()


def test_a_batch_is_the_same_in_any_order_and_in_threads():
    whole = [training_batches()[index] for index in range(4)]
    data = training_batches()
    for index in (2, 0, 3, 0, 1, 2):
        assert_equal(data[index], whole[index])
    with ThreadPoolExecutor(4) as pool:
        order = [3, 1, 2, 0] * 4
        for index, found in zip(order, pool.map(training_batches().__getitem__, order), strict=True):
            assert_equal(found, whole[index])


def test_a_run_that_goes_on_gets_the_batches_it_would_have_got():
    data = training_batches()
    for epoch in (0, 1, 2, 1):
        resumed = training_batches(epoch=epoch)
        data.epoch = epoch
        for index in range(4):
            assert_equal(data[index], resumed[index])
            assert_equal(data.batch(2, index), training_batches(epoch=2)[index])


def test_epochs_and_seeds_differ():
    first = training_batches()[0]
    for other in (training_batches(epoch=1)[0], training_batches(seed=1)[0]):
        assert (other[0]["audio"][:, 0] != first[0]["audio"][:, 0]).any()
        drawn = slice(0, draws.places(configs.load("sample"))["mixup"].start)  # mixup is off
        assert (other[0]["chance"] != first[0]["chance"])[:, drawn].all()


def test_every_sample_has_chances_of_its_own():
    data = training_batches()
    chances = np.concatenate([data.batch(epoch, index)[0]["chance"] for epoch in range(2) for index in range(4)])
    assert len(np.unique(chances, axis=0)) == len(chances)


@pytest.fixture(scope="module")
def augmented():
    pytest.importorskip("audiomentations")
    # The whole chunk is the same number, and noise is all that is added.
    always = {f"augmentation.{name}.probability": 0 for name in ("time_stretch", "pitch_shift", "high_pass")}
    always |= {f"augmentation.{name}.probability": 0 for name in ("band_pass", "clipping")}
    return {**always, "augmentation.where": "host", "augmentation.gaussian_noise.probability": 1, "seed": 3}


def test_augmented_batches_are_the_same_in_any_order_and_in_threads(augmented):
    whole = [training_batches(**augmented)[index] for index in range(4)]
    with ThreadPoolExecutor(4) as pool:
        order = [3, 1, 2, 0] * 4
        for index, found in zip(order, pool.map(training_batches(**augmented).__getitem__, order), strict=True):
            assert_equal(found, whole[index])


def test_a_chunk_that_repeats_is_augmented_otherwise(augmented):
    louder = type("Loud", (Numbered,), {"read": lambda self, *at: Numbered.read(self, *at) * np.int16(300)})
    config = configs.load("sample", {**SMALL, **augmented})
    data = batches.TrainingBatches(CHUNKS, LABELS, louder(CHUNKS, config.chunk_samples), config, batch_size=28)
    samples, targets = data[0][0]["audio"], data[0][1]
    same = samples[targets[:, LABELS.index("b")] == 1]  # b has one chunk, here seven times
    assert len(same) == 7
    assert len(np.unique(same, axis=0)) == 7


def test_mixed_batches_hold_mixed_labels_and_are_the_same_in_any_order():
    mixing = {"augmentation.mixup.probability": 0.5}
    plain, whole = training_batches()[0], [training_batches(**mixing)[index] for index in range(4)]
    inputs, targets = whole[0]
    further, share = inputs["chance"][:, draws.places(configs.load("sample", SMALL | mixing))["mixup"]].T
    partner = (np.arange(8) + further.astype(int)) % 8
    assert 0 < (share > 0).sum() < 8
    np.testing.assert_allclose(targets, plain[1] * (1 - share[:, None]) + plain[1][partner] * share[:, None], atol=1e-6)
    np.testing.assert_array_equal(inputs["audio"], plain[0]["audio"])  # the device mixes
    data = training_batches(**mixing)
    for index in (2, 0, 3, 1):
        assert_equal(data[index], whole[index])


# --- plain batches -------------------------------------------------------------------------------------------------


def test_plain_batches_are_complete_and_in_order():
    config = configs.load("sample", SMALL)
    data = batches.PlainBatches(CHUNKS, LABELS, Numbered(CHUNKS, config.chunk_samples), config, batch_size=10)
    found = [data[index] for index in range(data.num_batches)]
    assert len(CHUNKS) == 37
    assert [len(targets) for _, targets in found] == [10, 10, 10, 7]
    audio = np.concatenate([inputs["audio"] for inputs, _ in found])
    assert audio.dtype == np.int16
    np.testing.assert_array_equal(audio, np.arange(1, 38)[:, None] * np.ones(config.chunk_samples, int))
    truth = np.concatenate([targets for _, targets in found]).argmax(axis=1)
    assert [LABELS[at] for at in truth] == CHUNKS["primary_label"].tolist()


# --- as Keras asks for them ----------------------------------------------------------------------------------------


class Watched:
    """Batches that write down which of them is made, and that take their time, each its own."""

    def __init__(self, data):
        self.data, self.made, self.lock = data, [], threading.Lock()
        self.num_batches = data.num_batches

    def batch(self, epoch, index):
        with self.lock:
            self.made.append((epoch, index))
        time.sleep(0.001 * ((7 * epoch + 3 * index) % 5))
        return self.data.batch(epoch, index)


def listening_model(config):
    """A model that predicts the number that a chunk holds; a metric's mean over an epoch says what was heard."""
    audio = keras.Input((config.chunk_samples,), dtype="int16", name="audio")
    chance = keras.Input((draws.count(config),), name="chance")
    number = keras.ops.mean(keras.ops.cast(audio, "float32"), axis=-1, keepdims=True)
    # Something to learn, so that the training is a real one; but it always gives 0.
    learnt = keras.layers.Dense(1, kernel_initializer="zeros")(keras.layers.Rescaling(0.0)(chance))
    model = keras.Model({"audio": audio, "chance": chance}, number + learnt)

    def heard(truth, predicted):
        return keras.ops.mean(predicted, axis=-1)

    def squared(truth, predicted):
        return keras.ops.mean(keras.ops.square(predicted), axis=-1)

    model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse", metrics=[heard, squared])
    return model


@pytest.mark.parametrize("first_epoch", [0, 5])
def test_fit_trains_on_every_batch_of_every_epoch_once(first_epoch):
    config = configs.load("sample", SMALL)
    epochs = range(first_epoch, first_epoch + 4)
    watched = Watched(training_batches(batch_size=3))
    feed = batches.Ahead(watched, epoch=first_epoch)
    looked_at = Watched(
        batches.PlainBatches(CHUNKS, LABELS, Numbered(CHUNKS, config.chunk_samples), config, batch_size=3)
    )
    begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: feed.begin(epoch))
    history = (
        listening_model(config)
        .fit(
            feed,
            validation_data=batches.Ahead(looked_at),
            initial_epoch=first_epoch,
            epochs=epochs.stop,
            shuffle=False,
            callbacks=[begin],
            verbose=0,
        )
        .history
    )
    # What reached the training: the mean and the mean square of the numbers of each epoch's own rows, ...
    numbers = [plan().epoch(epoch) + 1.0 for epoch in epochs]
    np.testing.assert_allclose(history["heard"], [each.mean() for each in numbers], rtol=1e-5)
    np.testing.assert_allclose(history["squared"], [(each**2).mean() for each in numbers], rtol=1e-5)
    assert len({(each.sum(), (each**2).sum()) for each in numbers}) == 4  # no epoch would pass for another
    # ... the validation, every time: all chunks, ...
    np.testing.assert_allclose(history["val_heard"], [np.mean(np.arange(1, 38))] * 4, rtol=1e-5)
    np.testing.assert_allclose(history["val_squared"], [np.mean(np.arange(1, 38) ** 2)] * 4, rtol=1e-5)
    # ... and what was made for it: each batch once (Keras looks at the first ones once more, for their shapes).
    made = Counter(watched.made)
    assert set(made) == {(epoch, index) for epoch in epochs for index in range(10)}
    looked_at_first = {(first_epoch, index) for index in range(2 + batches.Ahead.BATCHES)}
    assert all(count == 1 for at, count in made.items() if at not in looked_at_first)


def test_batches_ahead_are_those_of_the_data_in_any_order():
    data = training_batches(batch_size=3)
    feed = batches.Ahead(data)
    for epoch, indices in ((0, range(10)), (3, (4, 0, 9, 8, 0)), (0, (9, 5))):
        feed.begin(epoch)
        for index in indices:
            assert_equal(feed[index], data.batch(epoch, index))
    assert feed.num_batches == 10


def test_batches_are_made_ahead_but_not_past_the_end_of_the_epoch():
    watched = Watched(training_batches(batch_size=3))
    feed = batches.Ahead(watched)
    feed[0]
    wait_for(lambda: len(watched.made) == 5)
    assert sorted(watched.made) == [(0, index) for index in range(5)]
    for index in range(10):
        feed[index]
    assert sorted(watched.made) == [(0, index) for index in range(10)]


def test_what_is_done_to_a_batch_does_not_change_the_next_one_of_the_same():
    """TensorFlow on two devices did: it took the weights of the last validation batch for its own."""
    feed = batches.Ahead(Few(), shards=2, judged=7)
    untouched = batches.Ahead(Few(), shards=2, judged=7)[2]
    for each in keras.tree.flatten(feed[2]):
        each[:] = -1
    for got, wanted in zip(keras.tree.flatten(feed[2]), keras.tree.flatten(untouched), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_at_its_end_it_lets_go_of_its_threads_and_its_data():
    before = set(threading.enumerate())
    data = training_batches(batch_size=3)
    held = weakref.ref(data)
    with batches.Ahead(data) as feed:
        feed[0]
        mine = set(threading.enumerate()) - before
    assert mine
    del data

    def let_go():
        gc.collect()
        return held() is None and not mine & set(threading.enumerate())

    wait_for(let_go)


def test_an_error_in_a_batch_ahead_comes_out_where_the_batch_is_asked_for():
    def broken(epoch, index):
        if index == 2:
            raise OSError("the disk is gone")
        return data.batch(epoch, index)

    data = training_batches(batch_size=3)
    feed = batches.Ahead(type("Broken", (), {"batch": staticmethod(broken), "num_batches": 10})())
    assert_equal(feed[1], data[1])
    assert feed.failure is None
    with pytest.raises(OSError, match="the disk is gone"):
        feed[2]
    assert isinstance(feed.failure, OSError)


def wait_for(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


# --- shared by several devices ---------------------------------------------------------------------------------------


class Few:
    """Batches of 3, 3 and 1 samples that are told apart by their number."""

    num_batches, batch_size = 3, 3

    def batch(self, epoch, index):
        rows = np.arange(3 * index, min(3 * index + 3, 7))
        return {"audio": rows[:, None], "chance": rows[:, None] / 10}, np.eye(7, dtype=np.float32)[rows]


def weighted(losses, weights):
    """Keras' mean over a batch: over all of its rows, whatever they weigh."""
    return keras.losses.MeanSquaredError()(np.zeros_like(losses)[:, None], losses[:, None] ** 0.5, weights)


@pytest.mark.parametrize("shards", [2, 3, 4])
def test_a_batch_for_several_devices_has_a_part_for_each_and_the_mean_of_its_samples(shards):
    ahead = batches.Ahead(Few(), shards=shards)
    for index, true in enumerate((3, 3, 1)):
        inputs, targets, weights = ahead[index]
        numbers = targets.argmax(axis=1)
        assert len(targets) % shards == 0
        assert len(targets) - true < shards
        np.testing.assert_array_equal(inputs["audio"][:, 0], numbers)
        np.testing.assert_array_equal(numbers[:true], np.arange(3 * index, 3 * index + true))
        np.testing.assert_array_equal(weights[true:], 0)
        losses = numbers.astype(np.float32)
        assert float(weighted(losses, weights)) == pytest.approx(losses[:true].mean(), rel=1e-5)


def test_validation_on_several_devices_has_the_mean_of_all_samples():
    ahead = batches.Ahead(Few(), shards=2, judged=7)
    parts = [ahead[index] for index in range(3)]
    means = [float(weighted(targets.argmax(axis=1).astype(np.float32), weights)) for _, targets, weights in parts]
    rows = [len(targets) for _, targets, _ in parts]
    assert rows == [4, 4, 2]
    assert np.average(means, weights=rows) == pytest.approx(np.arange(7).mean(), rel=1e-5)  # as Keras goes on over them
    assert len({weight for *_, weights in parts for weight in weights if weight}) == 1


def test_a_batch_for_one_device_is_left_alone():
    assert len(batches.Ahead(Few())[2]) == 2
