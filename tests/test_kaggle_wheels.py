"""The data set of wheels; what it holds is resolved and installed in test_kaggle_execution."""

import json
import subprocess

import pytest

from birdlib import kaggle_wheels, kernels, wheel
from tests.conftest import needs_installation

pytestmark = needs_installation


@pytest.fixture
def pip(monkeypatch):
    """The calls of pip, none of which does anything; they end with what `answer` is set to."""

    class Pip(list):
        answer = (0, "")

    calls = Pip()

    def run(command, **_):
        calls.append(command)
        return subprocess.CompletedProcess(command, calls.answer[0], "", calls.answer[1])

    monkeypatch.setattr(kaggle_wheels.subprocess, "run", run)
    return calls


def test_the_folder_is_a_data_set_with_the_library_and_a_licence(pip, tmp_path):
    folder = kaggle_wheels.make(tmp_path / "wheels", "3.12", "ann")
    found = json.loads((folder / "dataset-metadata.json").read_text(encoding="utf-8"))
    assert found["id"] == f"ann/{kernels.slugified(found['title'])}" == "ann/birdlib-wheels-312"
    assert 20 <= len(found["subtitle"]) <= 80  # Kaggle's limits
    assert (folder / wheel.name()).read_bytes() == wheel.build()
    assert (folder / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    (command,) = pip
    assert command[command.index("--python-version") + 1] == "3.12"
    assert set(kaggle_wheels.LACKING + kaggle_wheels.RUNTIME) < set(command)
    assert "--no-deps" in command


def test_an_earlier_folder_is_made_anew_and_nothing_else_is_touched(pip, tmp_path):
    folder = kaggle_wheels.make(tmp_path / "wheels", "3.12", "ann")
    (folder / "old-1.0-py3-none-any.whl").write_text("")
    kaggle_wheels.make(folder, "3.13", "ann")
    assert [path.name for path in folder.glob("*.whl")] == [wheel.name()]
    (tmp_path / "mine.whl").write_text("mine")
    with pytest.raises(kaggle_wheels.WheelsError, match="holds something else"):
        kaggle_wheels.make(tmp_path, "3.12", "ann")
    assert (tmp_path / "mine.whl").exists()


def test_what_cannot_be_had_is_one_line(pip, tmp_path):
    with pytest.raises(kaggle_wheels.WheelsError, match=r"give a version such as 3\.12"):
        kaggle_wheels.make(tmp_path / "wheels", "cp312", "ann")
    pip.answer = (1, "Looking in indexes\nERROR: Could not find it\nERROR: No matching distribution found for x\n")
    with pytest.raises(kaggle_wheels.WheelsError) as caught:
        kaggle_wheels.make(tmp_path / "wheels", "3.8", "ann")
    assert str(caught.value).endswith("Python 3.8 cannot be downloaded: No matching distribution found for x")
