"""The kernel that is scored: what its push folder holds, and what it does in folders laid out like Kaggle's."""

import ast
import json
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest

from birdlib import config as configs
from birdlib import kaggle_places, kaggle_submission, kaggle_wheels, kernels, runtimes
from birdlib.kaggle_submission import SubmissionError
from birdlib.kept import PredictError
from birdlib.kernels import KernelError, Wishes
from tests.conftest import TINY_LABELS, needs_installation, noise, save, save_export, tone

pytest.importorskip("openvino", reason="birdlib[runtime] is not installed")

CONFIG = configs.load("paper", {"compute.predict_batch_size": 4})


def staged(folder):
    metadata = json.loads((folder / "kernel-metadata.json").read_text(encoding="utf-8"))
    return metadata, nbformat.read(folder / metadata["code_file"], as_version=4)


def wished(**changes):
    return Wishes(**{"user": "ann", "datasets": ["ann/my-export"], **changes})


# ---- the push folder


@needs_installation
def test_the_kernel_has_no_gpu_and_no_internet_and_what_it_needs_attached(tmp_path):
    metadata, notebook = staged(kaggle_submission.stage(tmp_path / "out", wished()))
    assert (metadata["enable_gpu"], metadata["machine_shape"], metadata["enable_internet"]) == (False, "", False)
    assert metadata["dataset_sources"] == ["ann/my-export", "ann/birdlib-wheels-312"]
    assert metadata["competition_sources"] == ["birdclef-2024"]
    assert metadata["id"] == "ann/birdlib-submission"
    assert kernels.slugified(metadata["title"]) == "birdlib-submission"
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"  # else Kaggle knows no kernel for it
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source, "cell", "exec")
            assert len(cell.source.splitlines()) <= 15 or "hide-input" in cell.metadata.tags
    assert 'competition="birdclef-2024"' in "".join(cell.source for cell in notebook.cells)


@needs_installation
def test_what_is_wished_goes_into_it(tmp_path):
    wishes = wished(datasets=["bob/birdlib-wheels-313"], kernels=["ann/exports"], competition="none", title="My birds")
    metadata, notebook = staged(kaggle_submission.stage(tmp_path / "out", wishes))
    assert metadata["dataset_sources"] == ["bob/birdlib-wheels-313"]
    assert (metadata["kernel_sources"], metadata["competition_sources"]) == (["ann/exports"], [])
    assert metadata["id"] == "ann/my-birds"
    assert "competition=None" in "".join(cell.source for cell in notebook.cells)


@needs_installation
def test_smoothing_is_a_parameter_that_papermill_can_change(tmp_path):
    wishes = wished(overrides={"soundscapes.step_s": "2.5", "soundscapes.neighbours": 0.1})
    _, notebook = staged(kaggle_submission.stage(tmp_path / "out", wishes))
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    found = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}
    assert found == {
        "models": [],
        "data_dir": None,
        "budget_minutes": 110,
        "smoothing": {"step_s": 2.5, "neighbours": 0.1},
    }


@needs_installation
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"datasets": []}, "needs an exported model: birdlib export writes one"),
        ({"datasets": ["ann/birdlib-wheels-312"]}, "needs an exported model"),
        ({"datasets": ["my-export"]}, "'my-export' is not OWNER/SLUG"),
        ({"overrides": {"phase_1.epochs": 3}}, r"phase_1\.epochs: a submission has the settings of its exported model"),
        ({"config": "sample"}, "--config: a submission has the settings"),
        ({"kernels": ["ann/birdlib-submission"]}, "cannot read its own output"),
    ],
)
def test_what_cannot_work_there_is_not_staged(tmp_path, changes, words):
    with pytest.raises(KernelError, match=words):
        kaggle_submission.stage(tmp_path / "out", wished(**changes))
    assert not (tmp_path / "out").exists()


# ---- on Kaggle


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """A folder laid out as Kaggle's, with a competition whose hidden folder is empty, and an exported model."""
    monkeypatch.setenv(kaggle_places.ROOT, str(tmp_path))
    data = tmp_path / "input/competitions/birds"
    for folder in (tmp_path / "working", tmp_path / "tmp/birdlib", data / "test_soundscapes"):
        folder.mkdir(parents=True)
    (data / "train_metadata.csv").write_text("primary_label,filename\n")
    (data / "sample_submission.csv").write_text(",".join(["row_id", "zebra1", *reversed(TINY_LABELS)]))
    for number in range(4):
        save(data / f"unlabeled_soundscapes/{number}.wav", tone(12 + number, 3000))
    save_export(tmp_path / "input/datasets/ann/my-export", CONFIG, TINY_LABELS)
    return tmp_path


@pytest.fixture
def hidden(kaggle):
    """The hidden folder, filled as when the notebook is scored: two soundscapes, and one that cannot be read."""
    folder = kaggle / "input/competitions/birds/test_soundscapes"
    save(folder / "soundscape_1.ogg", noise(20))
    save(folder / "soundscape_2.ogg", tone(20, 900))
    (folder / "soundscape_3.ogg").write_bytes(b"no audio")
    return folder


def submitted(kaggle):
    return pd.read_csv(kaggle / "working/submission.csv")


def begin(**changes):
    return kaggle_submission.begin(**{"models": [], "data_dir": None, "competition": "birds", **changes})


def test_until_it_is_scored_a_few_unlabelled_soundscapes_stand_in(kaggle, capsys):
    kaggle_submission.predict(begin())
    table, said = submitted(kaggle), capsys.readouterr().out
    assert "test_soundscapes/ is empty, as it is until this notebook is scored" in said
    assert "3 soundscapes from unlabeled_soundscapes/" in said
    assert "4 species, openvino in f32" in said
    assert "not known to the model, so 0: zebra1" in said
    assert list(table.columns) == ["row_id", "zebra1", *reversed(TINY_LABELS)]
    assert table["row_id"].tolist() == [f"soundscape_{number}_{end}" for number in range(3) for end in (5, 10, 15)]
    assert [path.name for path in (kaggle / "working").iterdir()] == ["submission.csv"]


def test_when_it_is_scored_every_row_is_filled(kaggle, hidden, capsys):
    kaggle_submission.predict(begin(), smoothing={"neighbours": 0.1})
    table = submitted(kaggle).set_index("row_id")
    assert len(table) == 12
    assert not table.isna().any().any()
    heard, unheard = table.iloc[:8], table.iloc[8:]
    assert heard.index[7] == "soundscape_2_20"
    assert len(np.unique(heard[TINY_LABELS[0]])) > 4
    np.testing.assert_allclose(unheard[list(TINY_LABELS)], [[0.4, 0.3, 0.2, 0.1]] * 4, atol=1e-6)
    said = capsys.readouterr().out
    assert "3 soundscapes from test_soundscapes/" in said
    assert "4 rows are filled with class priors" in said
    assert "is empty" not in said


def test_the_budget_counts_from_the_beginning(kaggle, hidden, capsys):
    found = begin()
    kaggle_submission.predict(found._replace(began=found.began - 60 * kaggle_submission.BUDGET_MINUTES))
    assert len(submitted(kaggle)) == 12
    assert "12 rows are filled with class priors" in capsys.readouterr().out


def test_without_any_soundscapes_the_table_has_its_header(kaggle, capsys):
    shutil.rmtree(kaggle / "input/competitions/birds/unlabeled_soundscapes")
    kaggle_submission.predict(begin())
    assert list(submitted(kaggle).columns) == ["row_id", "zebra1", *reversed(TINY_LABELS)]
    assert len(submitted(kaggle)) == 0
    assert "gets no rows" in capsys.readouterr().out


@pytest.mark.parametrize("unlabelled", [True, False])
def test_a_model_that_cannot_be_loaded_is_an_error_and_no_priors(kaggle, unlabelled):
    if not unlabelled:
        shutil.rmtree(kaggle / "input/competitions/birds/unlabeled_soundscapes")
    weights = kaggle / "input/datasets/ann/my-export/model_0.bin"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(PredictError, match="my-export cannot be loaded"):
        kaggle_submission.predict(begin())
    assert not (kaggle / "working/submission.csv").exists()


def test_models_that_are_named_are_averaged(kaggle, hidden):
    first = kaggle / "input/datasets/ann/my-export"
    second = save_export(kaggle / "input/datasets/ann/other", CONFIG, TINY_LABELS)
    with pytest.raises(SubmissionError, match=r"several exported models are attached, .*my-export, .*other: name"):
        begin()
    kaggle_submission.predict(begin(models=[str(first), str(second)]))
    assert not submitted(kaggle).isna().any().any()


def test_without_a_model_or_data_it_says_what_to_attach(kaggle):
    shutil.rmtree(kaggle / "input/datasets")
    with pytest.raises(SubmissionError, match=r"no exported model is attached.*birdlib export writes"):
        begin()
    shutil.rmtree(kaggle / "input/competitions")
    with pytest.raises(kaggle_places.PlacesError, match="competition's data are not attached"):
        begin()
    with pytest.raises(SubmissionError, match="no data folder is attached"):
        begin(competition=None)


def test_a_runtime_that_is_lacking_comes_from_the_wheels(kaggle, monkeypatch):
    here, calls = [], []
    monkeypatch.setattr(runtimes, "installed", lambda package: "1.0" if package in here else None)
    with pytest.raises(SubmissionError, match="there are no wheels: attach what birdlib kaggle wheels makes"):
        begin()
    wheels = kaggle / "input/birdlib-wheels-312"
    wheels.mkdir()
    (wheels / "birdlib-0.1.0-py3-none-any.whl").write_text("")
    monkeypatch.setattr(kaggle_wheels, "install", lambda *_: "No matching distribution found for openvino")
    with pytest.raises(SubmissionError, match=r"cannot be installed \(No matching .*made anew"):
        begin()

    def install(options, packages):
        calls.append((options, packages))
        here.append("openvino")

    monkeypatch.setattr(kaggle_wheels, "install", install)
    assert begin().data_dir == kaggle / "input/competitions/birds"
    begin()  # it is there now
    assert calls == [(["--no-index", "--find-links", str(wheels)], kaggle_wheels.RUNTIME)]
