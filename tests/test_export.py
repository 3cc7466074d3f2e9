"""Exporting: what is written is checked against Keras, and a folder of it is all that predicting needs."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from birdlib import classifier, export, exported, runtimes, splits

pytest.importorskip("openvino", reason="birdlib[runtime] is not installed")


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory, start_run, tiny_config):
    """A run whose classifier, of fold 0, has random weights: how well it knows birds does not matter here."""
    import keras

    from birdlib import models, runs

    folder = tmp_path_factory.mktemp("export_run")
    run = start_run(folder, tiny_config, "05_phase_2")
    runs.keep_settings(folder, tiny_config)
    keras.utils.set_random_seed(0)
    models.build(tiny_config, 4).save(run.path("models/phase_2_fold_0.keras"))
    return folder


@pytest.fixture(scope="session")
def folder(run_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "model"
    export.export(run_dir, out)
    return out


def images(count):
    return np.random.default_rng(0).uniform(0, 255, (count, 128, 320, 3)).astype(np.float32)


def by_keras(run_dir, batch):
    from birdlib import models

    return np.asarray(models.load(run_dir / "models/phase_2_fold_0.keras").predict_on_batch(batch))


def test_the_folder_says_what_it_is(folder, run_dir):
    found = exported.read(folder)
    assert found.species["primary_label"].tolist() == splits.labels(pd.read_parquet(run_dir / "tables/splits.parquet"))
    assert found.species["common_name"].tolist() == [f"Tiny Bird {number}" for number in (1, 2, 3, 4)]
    assert found.species["share"].sum() == pytest.approx(1)
    assert found.about["parity"]["0"]["difference"] < 1e-3
    assert found.about["activation"] == "softmax"
    assert found.config.spectrogram.n_mels == 128
    assert found.config.data.dir is None  # nothing of the machine it was made on


def test_it_computes_what_keras_does(folder, run_dir):
    batch = images(3)
    found = classifier.load(folder)
    np.testing.assert_allclose(found.predict(batch), by_keras(run_dir, batch), atol=1e-4)
    assert found.runtime == f"openvino {runtimes.installed('openvino')}, f32"
    assert found.labels == exported.read(folder).species["primary_label"].tolist()


def test_embeddings_are_what_the_head_is_given(folder, run_dir):
    import keras

    from birdlib import models

    model, batch = models.load(run_dir / "models/phase_2_fold_0.keras"), images(2)
    pooled = keras.Model(model.input, model.layers[2].input)
    found = classifier.load(folder).outputs(batch)
    np.testing.assert_allclose(found.embeddings, np.asarray(pooled.predict_on_batch(batch)), rtol=1e-3, atol=1e-3)


def test_what_it_says_of_an_image_hangs_on_no_other(folder):
    found, batch = classifier.load(folder, threads=1), images(5)
    alone = np.concatenate([found.predict(batch[row : row + 1]) for row in range(5)])
    np.testing.assert_array_equal(found.predict(batch), alone)


def test_a_copy_is_all_it_needs_and_loads_neither_keras_nor_a_backend(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    code = f"""
import sys
import numpy as np
from birdlib import classifier
found = classifier.load({str(copy)!r})
print(found.probabilities([np.zeros(160_000, np.int16)]).shape)
print([name for name in ("keras", "tensorflow", "jax", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split("\n")[:2] == ["(1, 4)", "[]"]


def test_a_temperature_divides_the_logits(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    about = json.loads((copy / "export.json").read_text())
    (copy / "export.json").write_text(json.dumps({**about, "temperature": 2.0}))
    logits = np.log(classifier.load(folder).predict(images(3)).astype(np.float64))
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.load(copy).predict(images(3)), expected, atol=1e-5)


def test_a_temperature_after_a_sigmoid():
    logits = np.array([[-3.0, 0.5], [2.0, 4.0]])
    tempered = classifier.tempering(1.5, "sigmoid")(1 / (1 + np.exp(-logits)))
    np.testing.assert_allclose(tempered, 1 / (1 + np.exp(-logits / 1.5)), rtol=1e-6)


# ---- the check


def test_parity_by_hand():
    truth = np.array([0, 1, 1, 0])
    one = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    other = np.array([[0.9, 0.1], [0.25, 0.75], [0.6, 0.4], [0.55, 0.45]])
    found = export.parity(truth, one, other)
    assert (found.chunks, found.agreement) == (4, 0.75)
    assert found.difference == pytest.approx(0.2)
    assert (found.roc_auc_keras, found.roc_auc) == (1.0, 0.75)
    told = found.fails(export.Tolerance(0.1, 0.9, 0.01))
    assert told == [
        "a probability is 0.2 off",
        "top-1 agreement is 75.0%",
        "macro ROC-AUC falls by 0.2500 from 1.0000",
    ]
    assert found.fails(export.Tolerance(0.3, 0.7, 0.3)) == []


def test_what_is_not_what_keras_says_is_not_written(run_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(export.TOLERANCES, "f32", export.Tolerance(-1.0, 0.99, 0.002))
    with pytest.raises(exported.ExportError, match=r"openvino f32 of fold 0 is not what Keras says .* not kept"):
        export.export(run_dir, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# ---- errors


def test_a_format_without_the_precision(run_dir, tmp_path):
    with pytest.raises(exported.ExportError, match="there is no onnx in bf16; there are openvino f32"):
        export.export(run_dir, tmp_path / "out", "onnx", "bf16")


def test_a_place_that_is_taken(run_dir, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(exported.ExportError, match="no earlier export"):
        export.export(run_dir, tmp_path)


def test_a_run_without_a_classifier(start_run, tiny_config, tmp_path):
    from birdlib import runs

    start_run(tmp_path, tiny_config, "05_phase_2")
    runs.keep_settings(tmp_path, tiny_config)
    with pytest.raises(
        exported.ExportError, match=r"lacks models/phase_2_fold_0\.keras: run the series to notebook 05"
    ):
        export.export(tmp_path, tmp_path / "out")


def test_half_a_folder_is_told_from_a_whole_one(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model_0.xml").unlink()
    with pytest.raises(exported.ExportError, match=r"lacks model_0\.xml: copy the whole folder"):
        classifier.load(copy)


def test_a_folder_that_is_neither(tmp_path):
    with pytest.raises(exported.ExportError, match="neither a run folder nor one that birdlib export wrote"):
        classifier.load(tmp_path)


def test_a_runtime_that_is_missing_names_the_extra(folder, monkeypatch):
    monkeypatch.setattr(runtimes, "installed", lambda package: None)
    with pytest.raises(runtimes.MissingExtraError, match=r"openvino.* pip install 'birdlib\[runtime\]'"):
        classifier.load(folder)


def test_a_runtime_that_cannot(folder):
    with pytest.raises(runtimes.WrongRuntimeError, match="onnxruntime does not run openvino models in f32"):
        classifier.load(folder, runtime="onnxruntime")


@pytest.mark.parametrize(
    ("here", "chosen"), [({"openvino", "onnxruntime"}, "openvino"), ({"onnxruntime"}, "onnxruntime")]
)
def test_the_fastest_runtime_installed_is_taken(monkeypatch, here, chosen):
    monkeypatch.setattr(runtimes, "installed", lambda package: "1.0" if package in here else None)
    assert runtimes.choose("onnx", "f32") == chosen
    assert runtimes.choose("onnx", "f32", "onnxruntime") == "onnxruntime"
