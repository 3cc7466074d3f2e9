"""Several devices: a training on two, which a CPU pretends to be, is the training on one. In a process of its own."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Two devices are made before the backend starts. An epoch is 26 chunks in batches of 7 and one of 5, none of which two
# can share; to validate with are 9 chunks in batches of 4 and one of 1.
CHILD = """
import json, os, sys
import keras
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
import numpy as np
import pandas as pd
from pathlib import Path
from birdlib import config as configs
from birdlib import device, features, training

overrides, folder, normalised = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "normalised"


class Source:
    def read(self, filename, start_s):
        rng = np.random.default_rng([ord(filename[0]), int(start_s)])
        loud = np.sin(np.arange(32000) * (0.02 if filename[0] == "a" else 0.2)) * 9000
        return (loud + rng.normal(0, 3000, 32000)).astype(np.int16)


def linear(config):
    images = keras.Input(config.image_shape)
    x = keras.layers.AveragePooling2D((1, config.image_shape[1]))(keras.layers.Rescaling(1 / 255)(images))
    zero = keras.layers.Dense(2, activation="softmax", dtype="float32", kernel_initializer="zeros")
    x = keras.layers.Flatten()(x)
    return keras.Model(images, zero(keras.layers.BatchNormalization()(x) if normalised else x))


def chunks(first, count):
    rows = [(name, float(start), name) for name in "ab" for start in range(first, first + count)]
    return pd.DataFrame(rows, columns=["filename", "start_s", "primary_label"])


def run(name, **more):
    config = configs.load("sample", {
        "chunks.length_s": 1, "chunks.overlap_s": 0.2, "chunks.tail_min_s": 0.2, "spectrogram.n_mels": 32,
        "batches.threshold": 13, "phase_1.epochs": 3, "phase_1.batch_size": 7, "phase_1.learning_rate": 0.01,
        "compute.predict_batch_size": 4, **overrides, **more})
    fold = training.Fold(chunks(0, 20), chunks(50, 5).iloc[:9], ["a", "b"])
    keras.utils.set_random_seed(0)
    with device.spread(config):
        model = linear(config)
        history = training.train(model, fold, Source(), config, config.phase_1, folder / f"{name}.keras", name)
    kept = keras.saving.load_model(folder / f"{name}.keras")
    return {"replicas": device.replicas(config), "told": device.told(config),
            "history": history.drop(columns="seconds").to_dict("list"),
            "weights": [np.asarray(each).tolist() for each in kept.get_weights()]}


class Noisy(keras.layers.Layer):
    def call(self, audio, training=None):
        return audio + 100.0 if training else audio


class Numbers:
    num_batches = 2

    def batch(self, epoch, index):
        rows = np.arange(5 * index, 5 * index + 5 - index, dtype=np.float32)[:, None]
        return {"audio": rows}, rows


def noticed():
    inputs = {"audio": keras.Input((1,), name="audio")}
    with device.spread(configs.load("sample")):
        extractor = features.extractor(keras.Model(inputs, Noisy()(inputs["audio"])), True)
        return features.cached(extractor, Numbers(), range(1), "", shards=2)[0][0][:, 0].tolist()


print(json.dumps({"features": noticed(),"two": run("two"),
                  "one": run("one", **{"compute.devices": "one"})}))
"""


# The rows of one device are such that its gradients, and no others, overflow; then a step that does not.
OVERFLOW = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import numpy as np
from birdlib import config as configs
from birdlib import device

first = 2 * int(sys.argv[1])
audio = np.ones((4, 3), np.float32)
with device.spread(configs.load("sample")):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")(inputs))
    optimizer = device.LossScale(keras.optimizers.SGD(0.1))
    model.compile(optimizer, "mse", jit_compile=False)
    told = []
    for size in (1e18, 1.0):
        audio[first : first + 2] = size
        model.fit(audio, np.zeros((4, 1), np.float32), batch_size=4, epochs=1, shuffle=False, verbose=0)
        scale = float(keras.ops.convert_to_numpy(optimizer.dynamic_scale))
        told.append([model.get_weights()[0].ravel().tolist(), scale])
print(json.dumps(told))
"""


def child(backend, program, *arguments):
    """What a program says last, in a process of its own that takes the CPU for two devices."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    environment = {**os.environ, **flags, "KERAS_BACKEND": backend, "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


PLAIN = {"augmentation.where": "off", "augmentation.cut_out.probability": 0}


@pytest.mark.parametrize(
    ("backend", "overrides"),
    [
        pytest.param("tensorflow", {"augmentation.strength": 1.0}, id="augmented"),
        pytest.param("jax", {"augmentation.strength": 1.0}, id="augmented by jax"),
        pytest.param("tensorflow", {**PLAIN, "compute.precision": "mixed_float16"}, id="half precision"),
        # Rows that fill a batch up do count in a batch normalisation: here two can share the batches as they are.
        pytest.param("tensorflow", {**PLAIN, "phase_1.batch_size": 6}, id="batch normalisation"),
        pytest.param("jax", {**PLAIN, "phase_1.batch_size": 6}, id="batch normalisation by jax"),
    ],
)
def test_two_devices_train_as_one(backend, overrides, tmp_path):
    pytest.importorskip(backend)
    normalised = "phase_1.batch_size" in overrides
    found = child(backend, CHILD, json.dumps(overrides), tmp_path, "normalised" if normalised else "plain")
    two, one = found["two"], found["one"]
    assert found["features"] == [100.0 + each for each in range(9)]
    assert (two["replicas"], one["replicas"]) == (2, 1)
    assert "2 CPUs, each with a part of every batch" in two["told"]
    assert "one CPU; 1 more are left alone" in one["told"]
    tolerance = 2e-2 if "compute.precision" in overrides else 1e-4
    assert two["history"]["epoch"] == [0, 1, 2]
    assert one["history"]["loss"][-1] < one["history"]["loss"][0]  # something was learnt
    assert two["history"]["val_loss"] == pytest.approx(one["history"]["val_loss"], rel=tolerance)
    for mine, other in zip(two["weights"], one["weights"], strict=True):
        assert mine == [pytest.approx(each, abs=tolerance) for each in other]


@pytest.mark.parametrize("which", [0, 1])
def test_a_step_that_overflows_on_either_device_is_left_out_on_both(which):
    pytest.importorskip("tensorflow")
    (left_out, halved), (moved, kept) = child("tensorflow", OVERFLOW, which)
    assert left_out == [1.0, 1.0, 1.0]
    assert halved == 2.0**14  # of Keras' initial 2 ** 15
    # The mean of (3 w)^2 over rows of ones has the gradient 6 in each weight.
    assert moved == pytest.approx([0.4, 0.4, 0.4], rel=1e-5)
    assert kept == halved
