"""Parameters that papermill gives a notebook: what is refused, here and in a real notebook, and what is taken."""

import subprocess
import sys

import nbformat
import pytest

from birdlib import parameters, stages

DECLARED = "config: str = None  # which\noverrides: dict = {}"
OPENED = "from birdlib import runs\nrun = runs.open_run('01_eda', config)"


def injected(*lines):
    return "\n".join(["# Parameters", *lines])


@pytest.mark.parametrize(
    "cells",
    [
        [],
        ["", DECLARED, OPENED],  # by hand
        ["", DECLARED, "# Parameters of a filter\nwidth = 3"],  # no cell of papermill's
        ["", DECLARED, injected('config = "paper"', 'run_dir = "x"'), OPENED],
        ["", "species = None", injected("species = 'x'", "config = 'paper'"), OPENED],  # somebody's own notebook
        ["%pip install x", DECLARED, injected("overrides = {}"), "import os", DECLARED, OPENED, OPENED],
        ["", "import os", OPENED, injected("overrides = {}"), OPENED],  # its cells run in another order
    ],
)
def test_what_a_notebook_has_is_taken(cells):
    parameters.refuse_unknown(cells)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "cofnig = 'paper'",
            r"no parameter is called cofnig; did you mean config\? The parameters are config,",
        ),
        ("overides = {'seed': 1}", r"called overides; did you mean overrides\?"),
        ("seed = 1", r"called seed; a setting goes into overrides: \{seed: VALUE\}\."),
        ("config = 'paper'\nseed: int = 1", "called seed"),
    ],
)
def test_another_is_refused(given, said):
    with pytest.raises(parameters.ParameterError, match=said):
        parameters.refuse_unknown(["", DECLARED, injected(given), "import os"])


def test_the_last_injected_cell_counts():
    parameters.refuse_unknown([DECLARED, injected("seed = 1"), OPENED, DECLARED, injected("config = 'paper'")])


def test_outside_a_notebook_nothing_is_refused():
    parameters.refuse_unknown()


def test_a_real_notebook_refuses_and_does_nothing(tmp_path):
    command = [sys.executable, "-m", "papermill", stages.notebook("01_eda"), tmp_path / "out.ipynb"]
    done = subprocess.run(
        [*command, "-p", "run_dir", tmp_path / "run", "-p", "confg", "paper"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "ParameterError: no parameter is called confg; did you mean config?" in done.stderr
    assert not (tmp_path / "run").exists()
    cells = [cell for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells if cell.cell_type == "code"]
    assert not cells[-1].execution_count  # it came to its end at the first call
