"""Exporting: what is written is checked against Keras, and a folder of it is all that predicting needs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import birdlib
from birdlib import classifier, export, exported, int8, runs, runtimes, splits
from birdlib import config as configs

pytest.importorskip("openvino", reason="birdlib[runtime] is not installed")


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory, start_run, tiny_config):
    """A run whose classifier, of fold 0, has random weights: how well it knows birds does not matter here."""
    import keras

    from birdlib import models

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
    (copy / "export.json").write_text(json.dumps({**about, "temperatures": [2.0]}))
    logits = np.log(classifier.load(folder).predict(images(3)).astype(np.float64))
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.load(copy).predict(images(3)), expected, atol=1e-5)


def test_a_run_folder_is_read_as_if_it_were_one(run_dir, folder):
    found, made = exported.read(run_dir), exported.read(folder)
    assert (found.about["format"], found.about["activation"]) == ("keras", "softmax")
    assert found.about["made_from"] == made.about["made_from"]
    pd.testing.assert_frame_equal(found.species, made.species)
    assert classifier.load(run_dir).runtime == "Keras"
    with pytest.raises(runtimes.WrongRuntimeError, match="onnxruntime does not run Keras models: export"):
        classifier.load(run_dir, runtime="onnxruntime")


def test_a_runs_own_temperature_goes_along(run_dir, tmp_path):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    (copy / "models/phase_2_fold_0.json").write_text('{"temperature": 3.0}')
    logits = np.log(by_keras(run_dir, images(2)).astype(np.float64))
    expected = np.exp(logits / 3) / np.exp(logits / 3).sum(axis=1, keepdims=True)
    export.export(copy, tmp_path / "out")
    for folder in (copy, tmp_path / "out"):
        np.testing.assert_allclose(classifier.load(folder).predict(images(2)), expected, atol=1e-5)


def test_a_run_is_exported_once_for_predicting(run_dir, tmp_path, monkeypatch):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    made = export.for_predicting(copy)
    assert made == copy / "exports/openvino_f32"
    (made / "model_0.bin").unlink()
    assert (export.for_predicting(copy) / "model_0.bin").is_file()
    monkeypatch.setattr(export, "export", lambda *_: pytest.fail("it was there already"))
    assert export.for_predicting(copy) == made


@pytest.mark.parametrize("change", ["soundscapes", "temperature"])
def test_a_run_whose_settings_have_changed_is_exported_again(run_dir, tmp_path, tiny_config, monkeypatch, change):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    config = configs.override(tiny_config, {"soundscapes.neighbours": 0.1} if change == "soundscapes" else {})
    made = exported.read(copy)
    exported.write(copy / "exports/openvino_f32", {**made.about, "models": []}, made.config, made.species)
    again = []
    monkeypatch.setattr(export, "export", lambda *arguments: again.append(arguments))
    export.for_predicting(copy)
    assert again == []
    runs.keep_settings(copy, config)
    if change == "temperature":
        (copy / "models/phase_2_fold_0.json").write_text('{"temperature": 1.5}')
    export.for_predicting(copy)
    assert again == [(copy, copy / "exports/openvino_f32")]


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


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", list(export.TOLERANCES))
def test_an_answer_that_is_no_finite_number_fails(wrong, precision):
    truth, good = np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    bad = good.copy()
    bad[1, 0] = wrong
    for answers in ((good, bad), (bad, bad)):
        found = export.parity(truth, *answers)
        assert found.fails(export.TOLERANCES[precision]) == ["a probability is no finite number"]


def test_what_is_not_what_keras_says_is_not_written(run_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(export.TOLERANCES, "f32", export.Tolerance(-1.0, 0.99, 0.002))
    with pytest.raises(exported.ExportError, match=r"openvino f32 of fold 0 is not what Keras says .* not kept"):
        export.export(run_dir, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# ---- killed

PROGRAM = """
import os, shutil, signal, sys, time
from pathlib import Path
from birdlib import cli, export
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have switched it off
seen = 0
def come_to(place):
    global seen
    seen += place == {place!r}
    if place == {place!r} and seen == {count}:
        os.kill(os.getpid(), {number})
        time.sleep(60)
def write(run, whole, *_):
    for path in sorted(Path({folder!r}).iterdir()):
        come_to("a file")
        shutil.copy(path, whole)
    return []
def rename(*arguments, whole=os.rename):
    come_to("a rename")
    whole(*arguments)
export._write, export.os.rename = write, rename
sys.argv = ["birdlib", "export", "--run-dir", {run_dir!r}, "--out", {out!r}]
cli.main()
"""


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "place", "count", "there"),
    [
        (signal.SIGKILL, "a file", 3, True),  # half of it is written
        (signal.SIGKILL, "a rename", 1, True),  # all is written: before the first rename
        (signal.SIGKILL, "a rename", 2, False),  # between the two
        (signal.SIGINT, "a file", 3, True),
        (signal.SIGTERM, "a file", 3, True),
    ],
)
def test_a_killed_export_leaves_nothing_half_written(
    number, place, count, there, run_dir, folder, tmp_path, monkeypatch
):
    """What is written is a copy of an export, file by file; how it comes to its place is what is tested here."""
    out = shutil.copytree(folder, tmp_path / "out")
    (out / "species.csv").write_text("an earlier one")
    before, places = contents(out), {"run_dir": str(run_dir), "out": str(out), "folder": str(folder)}
    program = PROGRAM.format(number=int(number), place=place, count=count, **places)
    died = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=250, check=False)
    assert died.returncode == (-number if number == signal.SIGKILL else 128 + number), died.stderr
    if number != signal.SIGKILL:
        assert died.stderr.splitlines()[-1] == f"birdlib: stopped; {out} is as it was"
        assert list(tmp_path.iterdir()) == [out]
    assert out.exists() == there  # the earlier one, whole, or nothing at all
    assert not there or contents(out) == before
    monkeypatch.setattr(export, "_write", lambda run, whole, *_: shutil.copytree(folder, whole, dirs_exist_ok=True))
    export.export(run_dir, out)
    assert contents(out) == contents(folder)
    assert list(tmp_path.iterdir()) == [out]


def test_two_exports_to_one_place(run_dir, tmp_path):
    with (
        export._aside(tmp_path / "out"),
        pytest.raises(exported.ExportError, match=r"another process is writing .*/out: wait"),
    ):
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


@pytest.fixture
def moved(run_dir, tiny_data, tmp_path):
    """A run folder whose recordings are not where they were; and where they are by now."""
    copy, data = Path(shutil.copytree(run_dir, tmp_path / "run")), Path(shutil.copytree(tiny_data, tmp_path / "data"))
    config = configs.load(copy / "config.yaml")
    elsewhere = configs.override(config, {"data.dir": "/kaggle/input/birdclef-2024"})
    (copy / "config.yaml").write_text(configs.dump(elsewhere))
    return copy, data


def test_recordings_that_are_elsewhere_by_now(moved, folder, tmp_path):
    run, data = moved
    with pytest.raises(exported.ExportError, match=r"/kaggle/input/birdclef-2024 holds no train_audio: .*--data-dir"):
        export.export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (found,) = export.export(run, tmp_path / "out", data_dir=data)
    assert found._asdict() == pytest.approx(exported.read(folder).about["parity"]["0"])


def test_a_recording_that_broke_is_left_out_of_the_check(moved, folder, tmp_path):
    run, data = moved
    split = pd.read_parquet(run / "tables/splits.parquet")
    broken = split.loc[(split["split"] == "test") | (split["fold"] == 0), "filename"].iloc[0]
    chunks = pd.read_parquet(run / "tables/chunks.parquet")["filename"]
    (data / "train_audio" / broken).write_bytes(b"gone")
    with pytest.warns(UserWarning, match="cannot be read are left out of the check"):
        (found,) = export.export(run, tmp_path / "out", data_dir=data)
    lost = exported.read(folder).about["parity"]["0"]["chunks"] - found.chunks
    assert 0 < lost <= (chunks == broken).sum()


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


# ---- other formats and precisions


def test_bfloat16_is_close(run_dir, folder, tmp_path):
    export.export(run_dir, tmp_path / "out", "openvino", "bf16")
    found = classifier.load(tmp_path / "out")
    assert found.runtime.endswith("bf16")
    np.testing.assert_allclose(found.predict(images(2)), classifier.load(folder).predict(images(2)), atol=0.03)


def operations(path):
    """What feeds each operation of an OpenVINO model, as kinds, by the operation's kind."""
    import openvino

    found = defaultdict(list)
    for node in openvino.Core().read_model(path).get_ordered_ops():
        found[node.get_type_name()].append([value.get_node().get_type_name() for value in node.input_values()])
    return found


@pytest.mark.slow
def test_int8_is_close(run_dir, folder, tmp_path, monkeypatch):
    pytest.importorskip("nncf", reason="it is not installed")
    monkeypatch.setattr(export, "CALIBRATION_CHUNKS", 8)
    monkeypatch.setitem(export.TOLERANCES, "int8", export.Tolerance(0.1, 0.0, 1.0))  # its weights are random
    export.export(run_dir, tmp_path / "out", "openvino", "int8")
    assert (tmp_path / "out/model_0.bin").stat().st_size < 0.6 * (folder / "model_0.bin").stat().st_size
    by_kind = operations(tmp_path / "out/model_0.xml")
    assert len(by_kind["FakeQuantize"]) >= len(by_kind["Convolution"])
    assert len(by_kind["MatMul"]) == 2  # the head: a layer, and the probabilities
    assert not any("FakeQuantize" in fed_by for fed_by in by_kind["MatMul"])
    np.testing.assert_allclose(
        classifier.load(tmp_path / "out").predict(images(2)), classifier.load(folder).predict(images(2)), atol=0.1
    )


@pytest.mark.slow
def test_onnx_is_written_through_torch(run_dir, folder, tmp_path):
    for package in ("torch", "onnxscript", "onnxruntime"):
        if not runtimes.installed(package):
            pytest.skip(f"{package} of birdlib[export] is not installed")
    code = "from birdlib import export; from pathlib import Path; "
    code += f"export.export(Path({str(run_dir)!r}), Path('out'), 'onnx', 'f32')"
    environment = {**os.environ, "KERAS_BACKEND": "torch"}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True, capture_output=True)
    found = classifier.load(tmp_path / "out", runtime="onnxruntime")
    np.testing.assert_allclose(found.predict(images(2)), classifier.load(folder).predict(images(2)), atol=1e-4)


@pytest.fixture
def products(tmp_path):
    """An ONNX model of four dense layers of 64 units: two of a backbone, say, and two of a head."""
    onnx = pytest.importorskip("onnx", reason="it is not installed")
    rng, nodes, weights = np.random.default_rng(0), [], []
    for layer in range(4):
        weights.append(onnx.numpy_helper.from_array(rng.normal(0, 0.1, (64, 64)).astype(np.float32), f"weight_{layer}"))
        weights.append(onnx.numpy_helper.from_array(rng.normal(0, 0.1, 64).astype(np.float32), f"bias_{layer}"))
        nodes.append(onnx.helper.make_node("MatMul", [f"x_{layer}", f"weight_{layer}"], [f"y_{layer}"], f"by_{layer}"))
        nodes.append(onnx.helper.make_node("Add", [f"y_{layer}", f"bias_{layer}"], [f"x_{layer + 1}"], f"sum_{layer}"))
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 64]) for name in ("x_0", "x_4")]
    graph = onnx.helper.make_graph(nodes, "dense", ends[:1], ends[1:], weights)
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_matrix_products_are_in_int8_but_for_the_heads(products, tmp_path):
    import onnx
    import onnxruntime

    int8.onnx(products, tmp_path / "int8.onnx", head=2)
    made = onnx.load(tmp_path / "int8.onnx").graph
    kinds = {each.name: each.data_type for each in made.initializer}
    in_int8 = {name for name, kind in kinds.items() if kind == onnx.TensorProto.INT8 and "zero_point" not in name}
    assert in_int8 == {"weight_0_quantized", "weight_1_quantized"}
    assert {"weight_2", "weight_3"} <= set(kinds)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "int8.onnx"}
    image = np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x_0": image})[0]
        for path in (products, tmp_path / "int8.onnx")
    )
    assert 0 < np.abs(before - after).max() < 0.02


def test_a_model_of_no_products_but_the_heads_says_what_to_do(products, tmp_path):
    with pytest.raises(exported.ExportError, match="none outside its head: export it in f32, or in int8 as openvino"):
        int8.onnx(products, tmp_path / "int8.onnx", head=4)


def test_onnx_under_another_backend_says_what_to_do(run_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(runtimes, "required", lambda module, extra: None)
    monkeypatch.setattr(export.keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(exported.ExportError, match="ONNX is written through torch: set KERAS_BACKEND=torch"):
        export.export(run_dir, tmp_path / "out", "onnx", "f32")


# ---- an environment without Keras


@pytest.fixture(scope="module")
def without_keras(tmp_path_factory):
    """The Python of an environment that has all that this one has, but Keras and the backends."""
    folder = tmp_path_factory.mktemp("without_keras") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for place in (Path(one) for one in sys.path if Path(one).name == "site-packages"):
        for entry in place.iterdir():
            gone = entry.name.lower().startswith(("keras", "tensorflow", "jax", "torch", "_birdlib", "__editable__"))
            if not (gone or entry.suffix == ".pth" or (packages / entry.name).exists()):
                (packages / entry.name).symlink_to(entry)
    (packages / "birdlib").unlink(missing_ok=True)
    (packages / "birdlib").symlink_to(Path(birdlib.__file__).parent)
    return folder / "bin" / "python"


@pytest.mark.slow
def test_predicting_where_there_is_no_keras(folder, without_keras, tiny_data, tmp_path):
    gone = subprocess.run([without_keras, "-c", "import keras"], capture_output=True, text=True, check=False)
    assert "No module named 'keras'" in gone.stderr
    code = "from birdlib.cli import main; main()"
    arguments = ["predict", tiny_data, "--model", folder, "--out", tmp_path / "out", "--format", "submission"]
    done = subprocess.run(
        [without_keras, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out/submission.csv")
    assert table["row_id"].tolist() == ["soundscape_1_5", "soundscape_1_10"]
    assert table.shape[1] == 5
    np.testing.assert_allclose(table.iloc[:, 1:].sum(axis=1), 1, atol=1e-4)
