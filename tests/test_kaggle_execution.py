"""The staged notebooks executed as Kaggle does it: its package versions, its folders, and nothing of this repository.

The environment holds what `requirements-floor.txt` names, neither birdlib nor audiomentations: `make test-floor`'s own
below a layer for what a notebook installs, or if there is none, one that is built for these tests. The notebooks
themselves have no package index.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from birdlib import config as configs
from birdlib import kaggle_submission, kaggle_wheels, kernels, sample, stages
from birdlib.kaggle_places import ROOT
from tests.conftest import needs_installation, noise, save, save_export, tone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), needs_installation]

FLOOR = Path(__file__).parents[1] / "requirements-floor.txt"
BROUGHT = ("birdlib", "audiomentations", "numpy-minmax", "numpy-rms", "python-stretch")
RUNTIME = ("openvino", "openvino-telemetry", "onnxruntime")
SETTINGS = {
    "batches.threshold": 4,
    "batches.validation_chunks_per_recording": 1,
    "spectrogram.n_mels": 32,
    "splits.folds": 2,
    "model.hidden": "8",
    "phase_1.epochs": 1,
    "phase_2.epochs": 1,
    "testing.baseline_chunks": 4,
}


def wished(**changes):
    return kernels.Wishes(**{"user": "ann", "config": "sample", "overrides": SETTINGS, "cpu": True, **changes})


@pytest.fixture(scope="session")
def floor(tmp_path_factory):
    """An environment like that of Kaggle's image: a folder of `venv`."""
    if (made := FLOOR.parent / ".venv-floor").joinpath(".floor").exists():
        return made
    folder = tmp_path_factory.mktemp("floor") / "env"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    pythons = ["python3.12", *sorted(pyenv.glob("3.12.*/bin/python")), sys.executable]
    python = next(one for one in pythons if shutil.which(one) and runs(one, "pass"))
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    subprocess.run([folder / "bin/pip", "install", "--quiet", "--requirement", str(FLOOR)], check=True)
    return folder


@pytest.fixture(scope="session")
def session(floor, tmp_path_factory):
    """A function () -> the Python of a new Kaggle session: what is installed into it is not in the next one."""

    def begin():
        folder = tmp_path_factory.mktemp("session") / "env"
        subprocess.run([floor / "bin/python", "-m", "venv", "--without-pip", str(folder)], check=True)
        (below,) = floor.glob("lib/python*/site-packages")
        (here,) = folder.glob("lib/python*/site-packages")
        (here / "image.pth").write_text(f"{below}\n")
        assert not [name for name in BROUGHT if has(folder / "bin/python", name)]
        return folder / "bin/python"

    return begin


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The built-in sample data set."""
    return sample.write(tmp_path_factory.mktemp("data") / "sample")


@pytest.fixture(scope="session")
def wheels(floor, tmp_path_factory):
    """The data set of wheels for that Python."""
    (packages,) = floor.glob("lib/python*/site-packages")
    return kaggle_wheels.make(tmp_path_factory.mktemp("wheels"), packages.parent.name.removeprefix("python"), "ann")


def has(python, name):
    return runs(python, f"import importlib.metadata as m; m.version({name!r})")


def runs(python, code):
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def attach(root, path, folder):
    """Mounts a folder below ``input``, read-only as far as a link can be."""
    (root / "input" / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, root / "input" / path, copy_function=os.link)


def execute(python, pushed, root):
    """Runs a push folder's notebook in a folder laid out like Kaggle's; returns it executed."""
    (root / "working").mkdir(parents=True)
    metadata = json.loads((pushed / "kernel-metadata.json").read_text(encoding="utf-8"))
    keep = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    environment = keep | {ROOT: str(root), "HOME": str(root), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
    command = [python, "-m", "papermill", str(pushed / metadata["code_file"]), str(root / "executed.ipynb")]
    command += ["--kernel", "python3", "--cwd", str(root / "working"), "--no-progress-bar"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return nbformat.read(root / "executed.ipynb", as_version=4)


def printed(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


@pytest.fixture(scope="session")
def alone(session, data, tmp_path_factory):
    """What the final notebook leaves behind where no run is attached: (working folder, executed notebook, Python)."""
    root = tmp_path_factory.mktemp("alone")
    attach(root, "competitions/birdclef-2024", data)
    python = session()
    return root / "working", execute(python, kernels.stage(root / "pushed", wished()), root), python


def results(working):
    """(metrics, submission) of a working folder."""
    metrics = json.loads((working / "metrics.json").read_text(encoding="utf-8"))
    return metrics, pd.read_csv(working / "submission.csv")


# ---- the final notebook


def test_without_a_run_the_final_notebook_makes_one_and_tests_it(alone, data):
    working, notebook, python = alone
    assert "birdlib 0.1.0 installed, from this notebook" in printed(notebook)
    assert "no trained run is attached: the notebooks before this one run here, for at most 11 hours" in printed(
        notebook
    )
    assert "05_phase_2: finished in 0:" in printed(notebook)
    metrics, submission = results(working)
    assert set(metrics) >= {"phase_1", "phase_2", "test"}
    assert metrics["test"]["chunks"] > 0
    asked = pd.read_csv(data / "sample_submission.csv")
    assert list(submission.columns) == list(asked.columns)
    assert len(submission) > 0
    names = sorted(path.stem for path in (working / "notebooks").glob("*.ipynb"))
    assert names == [one.name for one in stages.STAGES[:-1]]
    assert not has(python, "audiomentations")


@pytest.mark.parametrize("place", ["birdclef-2024", "competitions/birdclef-2024"])
def test_with_a_run_it_goes_straight_to_the_test(alone, session, data, tmp_path, place):
    before, *_ = alone
    attach(tmp_path, place, data)
    attach(tmp_path, "notebooks/ann/trained" if "/" in place else "trained", before)
    wishes = wished(config="paper", overrides={}, kernels=["ann/trained"], internet=False)
    notebook = execute(session(), kernels.stage(tmp_path / "pushed", wishes), tmp_path)
    assert "settings: those of the attached run" in printed(notebook)
    assert not (tmp_path / "working/notebooks").exists()
    (metrics, submission), (metrics_before, submission_before) = results(tmp_path / "working"), results(before)
    assert metrics == metrics_before
    pd.testing.assert_frame_equal(submission, submission_before)
    assert "has changed since" not in json.dumps(notebook)


def test_with_wheels_attached_it_needs_no_index(alone, session, data, wheels, tmp_path):
    attach(tmp_path, "competitions/birdclef-2024", data)
    attach(tmp_path, "datasets/ann/run/inner", alone[0])
    attach(tmp_path, "datasets/ann/birdlib-wheels", wheels)
    wishes = wished(datasets=["ann/run", "ann/birdlib-wheels"], internet=False)
    python = session()
    execute(python, kernels.stage(tmp_path / "pushed", wishes), tmp_path)
    assert {"test", "phase_1"} < set(results(tmp_path / "working")[0])
    assert [name for name in BROUGHT if not has(python, name)] == []


def test_the_wheels_and_kaggles_own_packages_are_all_there_is_to_install(session, wheels):
    command = ["install", "--dry-run", "--no-index", "--find-links", str(wheels), "birdlib[augment,runtime]"]
    environment = os.environ | {"PIP_CONFIG_FILE": os.devnull}
    pip = [session(), "-m", "pip", "--isolated", *command]
    done = subprocess.run(pip, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    would = done.stdout.rpartition("Would install ")[2].split()
    found = sorted(name.rpartition("-")[0].replace("_", "-") for name in would)
    assert found == sorted([*BROUGHT, *RUNTIME, "soxr"])
    assert (wheels / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert json.loads((wheels / "dataset-metadata.json").read_text(encoding="utf-8"))["id"].startswith(
        "ann/birdlib-wheels-3"
    )


# ---- the kernel that is scored


def test_the_submission_hears_what_is_hidden_with_what_its_wheels_bring(session, wheels, tmp_path):
    data = tmp_path / "data"
    save(data / "unlabeled_soundscapes/1.ogg", noise(11))
    (data / "test_soundscapes").mkdir()
    (data / "train_metadata.csv").write_text("primary_label,filename\n")
    (data / "sample_submission.csv").write_text("row_id,other1,highbi1,lowbir1\n")
    model = save_export(tmp_path / "export", configs.load("paper"), ["lowbir1", "highbi1"])
    pushed = kaggle_submission.stage(tmp_path / "pushed", kernels.Wishes(user="ann", datasets=["ann/export"]))

    def scored(name):
        root, python = tmp_path / name, session()
        assert not has(python, "openvino")
        attach(root, "competitions/birdclef-2024", data)
        attach(root, "datasets/ann/export", model)
        attach(root, "birdlib-wheels-312", wheels)
        (root / "input/competitions/birdclef-2024/test_soundscapes").mkdir(exist_ok=True)
        said = printed(execute(python, pushed, root))
        assert [one for one in RUNTIME if not has(python, one)] == []
        assert not has(python, "audiomentations")
        assert [path.name for path in (root / "working").iterdir()] == ["submission.csv"]
        return said, pd.read_csv(root / "working/submission.csv")

    said, table = scored("saved")
    assert "test_soundscapes/ is empty, as it is until this notebook is scored" in said
    assert table["row_id"].tolist() == ["soundscape_1_5", "soundscape_1_10", "soundscape_1_15"]
    for number in (7, 8):
        save(data / f"test_soundscapes/soundscape_{number}.ogg", tone(20, 500 * number))
    (data / "test_soundscapes/soundscape_9.ogg").write_bytes(b"no audio")
    said, table = scored("scored")
    assert "is empty" not in said
    assert "by openvino" in said
    assert "4 rows are filled with class priors" in said
    assert list(table.columns) == ["row_id", "other1", "highbi1", "lowbir1"]
    assert table["row_id"].tolist() == [f"soundscape_{one}_{end}" for one in (7, 8, 9) for end in (5, 10, 15, 20)]
    assert not table.isna().any().any()
    assert (table["lowbir1"] > 0).all()


# ---- the chain


def test_the_chain_of_six_each_fed_by_what_it_names(session, data, wheels, tmp_path):
    outputs = {}
    for pushed in kernels.stage_all(tmp_path / "pushed", wished(datasets=["ann/wheels"], internet=False)):
        root = tmp_path / pushed.name
        metadata = json.loads((pushed / "kernel-metadata.json").read_text(encoding="utf-8"))
        attach(root, "competitions/birdclef-2024", data)
        attach(root, "datasets/ann/wheels", wheels)
        for source in metadata["kernel_sources"]:
            attach(root, f"notebooks/{source}", outputs[source])
        notebook = execute(session(), pushed, root)
        assert "What we saw" in json.dumps(notebook)
        assert "has changed since" not in json.dumps(notebook)
        outputs[metadata["id"]] = root / "working"
    metrics, submission = results(root / "working")
    assert set(metrics) >= {"phase_1", "phase_2", "test"}
    assert len(submission) > 0
