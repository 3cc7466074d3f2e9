"""Each notebook under the real papermill command, as someone runs it who has never heard of `birdlib run`."""

import json
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
import yaml

from birdlib import config as configs
from birdlib import runs, stages
from birdlib.stages import STAGES
from tests.test_series import TINY

NAMES = [stage.name for stage in STAGES]


def papermill(*arguments, cwd):
    command = [sys.executable, "-m", "papermill", *map(str, arguments), "--no-progress-bar"]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize("name", NAMES)
def test_the_notebooks_help_describes_each_parameter(name, tmp_path, capsys):
    from papermill.cli import papermill as command  # the command itself, without a process of its own for each

    with pytest.raises(SystemExit) as ended:
        command(["--help-notebook", str(stages.notebook(name)), str(tmp_path / "out.ipynb")])
    told = capsys.readouterr().out
    assert not ended.value.code
    for parameter in ("config: str (default None)", "run_dir: str (default None)", "data_dir: str", "overrides: dict"):
        assert parameter in told
    assert "Unknown type" not in told
    assert 'settings on top, such as {"silence.threshold": 0.05}' in told


@pytest.fixture(scope="module")
def executed(tiny_data, tmp_path_factory):
    """(folder, name -> finished process): the six, one after the other, with a YAML file of overrides."""
    folder = tmp_path_factory.mktemp("papermill")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({"overrides": TINY}))
    given = ("-p", "run_dir", folder / "run", "-p", "config", "sample", "-p", "data_dir", tiny_data, "-f", "tiny.yaml")
    return folder, {
        name: papermill(stages.notebook(name), folder / f"{name}.ipynb", *given, cwd=folder) for name in NAMES
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_to_its_end(executed, name):
    folder, finished = executed
    assert finished[name].returncode == 0, finished[name].stderr
    assert "unknown parameter" not in finished[name].stderr
    last = nbformat.read(folder / f"{name}.ipynb", as_version=4).cells[-1]
    assert "What we saw" in last.outputs[0]["data"]["text/markdown"]


@pytest.mark.slow
def test_they_leave_what_a_series_would(executed):
    folder = executed[0] / "run"
    config = configs.load(folder / "config.yaml")
    assert config.phase_1.epochs == TINY["phase_1.epochs"]
    assert config.model.hidden == (8,)
    assert all(runs.is_current(stage, config, folder) for stage in STAGES)
    assert set(json.loads((folder / "metrics.json").read_text())) == {"phase_1", "phase_2", "test", "soundscapes"}
    assert len(pd.read_csv(folder / "submission.csv"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        ("-y", "{overrides: {silence: {threshold: 0.07}, seed: 2}}"),
        ("-p", "overrides", "{silence.threshold: 0.07, seed: 2}"),
    ],
)
def test_overrides_are_taken_as_yaml_too(given, tiny_data, tmp_path):
    where = ("-p", "run_dir", tmp_path / "run", "-p", "data_dir", tiny_data)
    done = papermill(stages.notebook("01_eda"), tmp_path / "out.ipynb", *where, *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = configs.load(tmp_path / "run" / "config.yaml")
    assert (config.silence.threshold, config.seed) == (0.07, 2)
