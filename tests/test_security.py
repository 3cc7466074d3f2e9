"""What comes from outside runs no code: model files, YAML, metadata, the parameters of a notebook."""

import ast
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import nbformat
import numpy as np
import papermill
import pytest
from keras.src.backend.common import global_state

from birdlib import archive, models, stages
from birdlib import config as configs
from birdlib.config import ConfigError
from birdlib.models import ModelError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The smallest classifier: a backbone and a head of built-in layers."""
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    small = {"spectrogram.n_mels": 32, "chunks.length_s": 1, "chunks.overlap_s": 0, "model.hidden": "4"}
    models.build(configs.load("sample", small), 3).save(path)
    return path


def remade(saved, path, change=lambda name, data: data, more=()):
    """A copy of a model file with its members changed, and others beside them."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, data in more:
            new.writestr(name, data)
    return path


def refusal(path):
    with pytest.raises(ModelError) as caught:
        models.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not a saved classifier: ")
    assert "\n" not in message
    return message


def test_what_training_saves_is_loaded(saved, tmp_path):
    again = models.load(remade(saved, tmp_path / "again.keras"))
    for one, other in zip(models.load(saved).weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["convnext_tiny", "efficientnetv2b0", "resnet50", "mobilenetv3small"])
@pytest.mark.slow
def test_backbones_pass(name, tmp_path):
    small = {"model.backbone": name, "model.weights": None}
    models.build(configs.load("sample", small), 3).save(tmp_path / "model.keras")
    archive.check(tmp_path / "model.keras")


RAN = []


def test_a_lambda_layer_is_refused_and_not_run(tmp_path):
    def payload(x):
        RAN.append("payload")
        return x

    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Lambda(payload)(inputs))
    model.save(tmp_path / "model.keras")
    RAN.clear()
    assert "keras.layers.Lambda, which is no built-in layer" in refusal(tmp_path / "model.keras")
    keras.config.enable_unsafe_deserialization()  # even where somebody has turned safe mode off
    try:
        refusal(tmp_path / "model.keras")
    finally:
        global_state.set_global_attribute("safe_mode_saving", None)
    assert RAN == []


@pytest.mark.parametrize(
    ("module", "name", "config"),
    [
        ("builtins", "function", "exec"),
        ("os", "system", {}),
        ("keras.utils", "function", "get_file"),
        ("keras.src.utils.file_utils", "get_file", {}),
        ("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
        ("keras.layers", "TFSMLayer", {"filepath": "/tmp/x"}),
        ("numpy", "load", {}),
        ("kerasx.layers", "Dense", {}),
        (None, "__lambda__", {"value": "4wAAAA=="}),
        (None, "Unknown", {}),
    ],
)
def test_a_configuration_may_name_built_in_layers_alone(module, name, config, saved, tmp_path):
    def change(member, data):
        if member != "config.json":
            return data
        tree = json.loads(data)
        tree["config"]["layers"][-1]["config"]["activation"] = {"module": module, "class_name": name, "config": config}
        return json.dumps(tree)

    message = refusal(remade(saved, tmp_path / "model.keras", change))
    assert "which is no built-in layer" in message
    assert name in message


@pytest.mark.parametrize("name", ["../../climbed.txt", "/tmp/absolute.txt", "assets/x.pkl", "a\\..\\b", "extra.py"])
def test_an_archive_with_other_files_is_refused_and_unpacks_nothing(name, saved, tmp_path):
    path = tmp_path / "model.keras"
    remade(saved, path, more=[(name, b"x")])
    before = sorted(tmp_path.parent.rglob("*"))
    assert "which no classifier has" in refusal(path)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_member_twice_a_member_missing_and_one_that_explodes(saved, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        remade(saved, tmp_path / "twice.keras", more=[("config.json", b"{}")])
    assert "twice" in refusal(tmp_path / "twice.keras")
    with zipfile.ZipFile(tmp_path / "less.keras", "w") as less:
        less.writestr("config.json", "{}")
    assert "it lacks metadata.json" in refusal(tmp_path / "less.keras")
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in archive.MEMBERS:
            bomb.writestr(name, b" " * 10_000_000)
    assert "100 times its size" in refusal(tmp_path / "bomb.keras")


@pytest.mark.parametrize("kind", ["link", "external", "virtual"])
def test_weights_that_lie_in_other_files_are_refused(kind, saved, tmp_path):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        if kind == "link":
            file["weights"] = h5py.ExternalLink("/etc/passwd", "/x")
        elif kind == "external":
            file.create_dataset("weights", (4,), "u1", external=[(str(tmp_path / "secret"), 0, 4)])
        else:
            layout = h5py.VirtualLayout((4,), "u1")
            layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (4,))
            file.create_virtual_dataset("weights", layout)
    change = lambda name, data: buffer.getvalue() if name.endswith("h5") else data  # noqa: E731
    message = refusal(remade(saved, tmp_path / "model.keras", change))
    assert ("are a link" if kind == "link" else "lie in another file") in message


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4", b"\x80\x04cos\nsystem\n(S'touch ran'\ntR.", b"\x89HDF\r\n\x1a\n" * 9]
)
def test_what_is_no_archive_is_refused(content, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    assert "it is no .keras archive" in refusal(path)
    assert "no such file" in refusal(tmp_path / "nowhere.keras")


# ---- YAML, notebooks


@pytest.mark.parametrize(
    "text", ["seed: !!python/object/apply:os.system ['touch ran']", "!!python/name:os.system", "seed: !!python/none"]
)
def test_yaml_builds_no_objects(text, tmp_path):
    (tmp_path / "evil.yaml").write_text(f"base: sample\n{text}\n")
    for use in (lambda: configs.load(tmp_path / "evil.yaml"), lambda: configs.load("sample", text)):
        with pytest.raises(ConfigError, match=r"not (readable as )?YAML"):
            use()
    assert not (tmp_path / "ran").exists()


EVIL = "x'; import os; os.system('touch ran') #\"\"\"\n__import__('os').system('touch ran')\\"


@pytest.mark.parametrize("name", [stage.name for stage in stages.STAGES])
def test_a_parameter_is_a_value_and_never_code(name, tmp_path):
    output = tmp_path / "out.ipynb"
    papermill.execute_notebook(
        str(stages.notebook(name)),
        str(output),
        parameters={"run_dir": EVIL, "overrides": {EVIL: EVIL}},
        prepare_only=True,
        progress_bar=False,
    )
    cells = nbformat.read(output, 4).cells
    injected = next(cell for cell in cells if "injected-parameters" in cell.metadata.get("tags", []))
    statements = ast.parse(injected.source).body
    assert all(isinstance(each, ast.Assign) for each in statements)
    values = {each.targets[0].id: ast.literal_eval(each.value) for each in statements}
    assert values == {"run_dir": EVIL, "overrides": {EVIL: EVIL}}


def test_nothing_of_the_library_unpickles_or_evaluates():
    for path in Path(stages.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "shelve", "marshal", "dill", "cloudpickle"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), path


@pytest.mark.slow
def test_no_credential_gets_into_a_run_folder_or_its_output(tiny_data, tmp_path):
    names = ("KAGGLE_KEY", "KAGGLE_API_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD")
    secrets = {name: f"canary-{number}-{name[::-1]}" for number, name in enumerate(names)}
    command = [sys.executable, "-c", "from birdlib.cli import main; main()", "run", "--only", "01"]
    command += ["--data-dir", str(tiny_data), "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(command, env=os.environ | secrets, capture_output=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert (tmp_path / "run" / "notebooks" / "01_eda.ipynb") in files
    for secret in secrets.values():
        assert secret.encode() not in done.stdout + done.stderr
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
