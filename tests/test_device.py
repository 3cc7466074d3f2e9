"""What follows from the device that there is, or is pretended to be."""

import os
import subprocess
import sys
import types

import keras
import numpy as np
import pandas as pd
import pytest

from birdlib import classifier, device, models
from birdlib import config as configs

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


def test_torch_hears_on_the_threads_that_it_is_given(monkeypatch, tmp_path):
    """It stands in for itself, where there is none: all that matters is that the loader tells it."""
    told, torch = [], types.ModuleType("torch")
    torch.set_num_threads = told.append
    monkeypatch.setitem(sys.modules, "torch", torch)
    found = types.SimpleNamespace(
        about={"format": "keras", "temperatures": [1.0], "activation": "softmax"},
        models=[tmp_path / "a.keras"],
        species=pd.DataFrame({"primary_label": ["bird"]}),
        config=PAPER,
    )
    monkeypatch.setattr(classifier.exported, "read", lambda _: found)
    monkeypatch.setattr(models, "load", lambda _: None)
    for backend in ("tensorflow", "torch"):
        monkeypatch.setattr(keras.backend, "backend", lambda backend=backend: backend)
        classifier.load(tmp_path, threads=3)
    classifier.load(tmp_path)  # in the caller's own process it is not meddled with
    assert told == [3]


IN_A_PROCESS = """
from birdlib.parallel import map_files

def threads(count):
    from birdlib import device
    import torch
    before = torch.get_num_threads()
    device.compute_on(count)
    return before, torch.get_num_threads()

print(*map_files(threads, [2], 300, 1))
"""


def test_torch_computes_on_more_than_one_thread_in_a_working_process():
    pytest.importorskip("torch", reason="torch is not installed")
    environment = os.environ | {"KERAS_BACKEND": "torch", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "(2, (1, 2))", done.stderr


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
