"""What follows from the device that there is, or is pretended to be."""

import keras
import numpy as np
import pytest

from birdlib import config as configs
from birdlib import device

PAPER = configs.load("paper")


def test_a_machine_without_a_gpu_trains_in_float32():
    if device.kind() != "cpu":
        pytest.skip("there is a GPU here")
    assert device.precision(PAPER) == "float32"
    assert device.jit(PAPER) == (False if keras.backend.backend() == "tensorflow" else "auto")


@pytest.mark.parametrize(
    ("kind", "capability", "policy"),
    [
        ("gpu", (7, 5), "mixed_float16"),  # Kaggle's T4
        ("gpu", (8, 0), "mixed_bfloat16"),
        ("gpu", (9, 0), "mixed_bfloat16"),
        ("tpu", None, "mixed_bfloat16"),
        ("cpu", None, "float32"),
    ],
)
def test_precision_by_device(monkeypatch, kind, capability, policy):
    monkeypatch.setattr(device, "kind", lambda: kind)
    monkeypatch.setattr(device, "_capability", lambda: capability)
    assert device.precision(PAPER) == policy


def test_what_is_set_is_done(monkeypatch):
    monkeypatch.setattr(device, "kind", lambda: "gpu")
    assert device.precision(configs.load("paper", {"compute.precision": "float32"})) == "float32"
    assert device.jit(configs.load("paper", {"compute.jit": "on"})) is True
    assert device.jit(configs.load("paper", {"compute.jit": "off"})) is False
    assert device.jit(PAPER) == "auto"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"phase_2.feature_views": 2}, "only phase I can go by its features"),
        ({"phase_1.feature_views": 2, "model.weights": None}, "needs a frozen backbone"),
    ],
)
def test_features_are_of_a_frozen_backbone(settings, words):
    with pytest.raises(configs.ConfigError, match=words):
        configs.load("paper", settings)


@pytest.mark.parametrize(("choice", "count"), [("all", 2), ("one", 1)])
def test_several_devices_share_a_batch_but_under_torch(monkeypatch, choice, count):
    monkeypatch.setattr(device, "_visible", lambda: 2)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda *_: ["gpu:0", "gpu:1"])
    monkeypatch.setattr(device, "kind", lambda: "gpu")
    config = configs.load("paper", {"compute.devices": choice, "compute.precision": "mixed_float16"})
    if keras.backend.backend() == "torch":
        count = 1
    assert device.replicas(config) == count
    shared = "2 GPUs, each with a part of every batch" if count == 2 else "one GPU; 1 more are left alone"
    assert device.told(config) == f"Trained by {keras.backend.backend()} on {shared}, in mixed_float16."


def test_on_one_device_nothing_is_spread():
    with device.spread(PAPER):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert device.replicas(PAPER) == 1
    assert keras.distribution.distribution() is None
    assert model.predict_on_batch(np.zeros((3, 2), np.float32)).shape == (3, 1)


@pytest.mark.parametrize(
    ("backend", "kind", "visible", "count"),
    [
        ("tensorflow", "cpu", 1, 8),
        ("tensorflow", "gpu", 1, None),
        ("tensorflow", "cpu", 2, None),  # a batch that devices share is not cut again
        ("jax", "cpu", 1, None),
    ],
)
def test_images_are_made_in_groups_where_that_is_faster(monkeypatch, backend, kind, visible, count):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda *_: [f"{kind}:{each}" for each in range(visible)])
    assert device.together(PAPER) == count
