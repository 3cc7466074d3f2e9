"""The notebooks as they lie in the repository: derived from their sources, in the anatomy of the series."""

import ast
import statistics
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

from birdlib import stages

ROOT = Path(__file__).parents[1]
NAMES = [stage.name for stage in stages.STAGES]


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(name: str) -> list[str]:
    return [cell.source for cell in read(name).cells if cell.cell_type == "code"]


def lines(source: str) -> int:
    return sum(bool(line.strip()) for line in source.splitlines())


def test_the_folder_holds_the_six_of_the_table_and_their_sources():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == NAMES
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.py")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_what_its_source_gives(name):
    source, notebook = jupytext.read(ROOT / "notebooks" / f"{name}.py"), read(name)
    assert [(cell.cell_type, cell.source) for cell in source.cells] == [
        (cell.cell_type, cell.source) for cell in notebook.cells
    ]


def test_deriving_gives_the_same_bytes(tmp_path, monkeypatch):
    sys.path.insert(0, str(ROOT / "tools"))
    import derive_notebooks

    copy = tmp_path / "notebooks"
    copy.mkdir()
    for name in NAMES:
        (copy / f"{name}.py").write_bytes((ROOT / "notebooks" / f"{name}.py").read_bytes())
    monkeypatch.setattr(derive_notebooks, "__file__", str(tmp_path / "tools" / "derive_notebooks.py"))
    derive_notebooks.main()
    for name in NAMES:
        assert (copy / f"{name}.ipynb").read_bytes() == (ROOT / "notebooks" / f"{name}.ipynb").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_no_outputs_and_a_kernel(name):
    notebook = read(name)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_are_the_same_four_and_change_nothing_by_default(name):
    tagged = [cell.source for cell in read(name).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(tagged[0]).body}
    assert values == {"config": None, "run_dir": None, "data_dir": None, "overrides": {}}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_the_anatomy_of_the_series(name):
    cells = read(name).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith(f"# {int(name[:2])}. ")
    assert "In this notebook we\n\n- " in cells[0].source
    assert "## What we saw" in cells[-1].source
    assert f'open_run("{name}"' in "".join(code_cells(name))
    assert "run.finish()" in "".join(code_cells(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_defines_nothing(name):
    nodes = [node for source in code_cells(name) for node in ast.walk(ast.parse(source))]
    assert not [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_long(name):
    assert max(map(lines, code_cells(name))) <= 15


def test_cells_are_short_in_the_median():
    assert statistics.median(lines(source) for name in NAMES for source in code_cells(name)) <= 5


@pytest.mark.parametrize("name", NAMES)
def test_there_is_prose_between_the_cells(name):
    kinds = [cell.cell_type for cell in read(name).cells]
    parameters = kinds.index("code")
    assert kinds[parameters - 1] == "markdown"
    in_a_row = [len(run) for run in "".join("c" if kind == "code" else " " for kind in kinds).split()]
    assert max(in_a_row) <= 4
    assert kinds.count("markdown") >= 0.4 * kinds.count("code")
