"""The notebooks as they lie in the repository: derived from their sources, in the anatomy of the series."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from papermill.inspection import inspect_notebook

from birdlib import stages

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import derive_notebooks  # noqa: E402

ADDRESS = "https://github.com/someone/birds.of-2024"
NAMES = [stage.name for stage in stages.STAGES + stages.APPENDICES]


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(name: str) -> list[str]:
    """What the source of a notebook has: not the derived cell that installs the library."""
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    return [cell.source for cell in cells if "install" not in cell.metadata.get("tags", [])]


def derived(name: str, where: str | None) -> list[nbformat.NotebookNode]:
    return derive_notebooks.derived(ROOT / "notebooks" / f"{name}.py", where).cells


def lines(source: str) -> int:
    return sum(bool(line.strip()) for line in source.splitlines())


def test_the_folder_holds_those_of_the_table_and_their_sources():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == NAMES
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.py")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_what_its_source_gives(name):
    where = derive_notebooks.address(ROOT / "pyproject.toml")
    assert [(cell.cell_type, cell.source) for cell in derived(name, where)] == [
        (cell.cell_type, cell.source) for cell in read(name).cells
    ]


def test_deriving_gives_the_same_bytes(tmp_path, monkeypatch):
    copy = tmp_path / "notebooks"
    copy.mkdir()
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for name in NAMES:
        (copy / f"{name}.py").write_bytes((ROOT / "notebooks" / f"{name}.py").read_bytes())
    monkeypatch.setattr(derive_notebooks, "__file__", str(tmp_path / "tools" / "derive_notebooks.py"))
    derive_notebooks.main()
    for name in NAMES:
        assert (copy / f"{name}.ipynb").read_bytes() == (ROOT / "notebooks" / f"{name}.ipynb").read_bytes()


# ---- in other places


@pytest.mark.parametrize("name", NAMES)
def test_with_an_address_the_badges_open_this_notebook(name):
    title, badges = derived(name, ADDRESS)[0].source.split("\n")[0:3:2]
    assert title == read(name).cells[0].source.split("\n")[0]
    page = f"github.com/someone/birds.of-2024/blob/main/notebooks/{name}.ipynb"
    assert f"(https://colab.research.google.com/{page.replace('.com', '', 1)})" in badges
    assert f"(https://kaggle.com/kernels/welcome?src=https://{page})" in badges


def test_without_an_address_there_is_none_in_the_notebook():
    sources = "\n".join(cell.source for name in NAMES for cell in derived(name, None))
    assert not [word for word in ("github.com/", "colab.research", "kernels/welcome", "git+") if word in sources]


def test_colab_opens_github_alone():
    cells = derived("01_eda", "https://gitlab.com/someone/birds")
    assert "colab" not in cells[0].source
    assert "git+https://gitlab.com/someone/birds" in cells[1].source


@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ("", None),
        ('[project.urls]\nHomepage = "https://birds.example"', None),
        (f'[project.urls]\nRepository = "{ADDRESS}.git"', ADDRESS),
        (f'[project.urls]\nRepository = "{ADDRESS}/"', ADDRESS),
    ],
)
def test_the_address_is_the_projects(tmp_path, urls, expected):
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "birdlib"\n{urls}\n')
    assert derive_notebooks.address(tmp_path / "pyproject.toml") == expected


@pytest.mark.parametrize("text", ["git@github.com:someone/birds", "https://github.com", "https://x/y?z=`rm`", ""])
def test_what_is_no_address_is_refused(tmp_path, text):
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "birdlib"\n[project.urls]\nRepository = "{text}"\n')
    with pytest.raises(SystemExit, match="Repository is"):
        derive_notebooks.address(tmp_path / "pyproject.toml")


# `python -c`, in which IPython runs a notebook's first cell, with %pip replaced by a print, where birdlib is or is not.
FIRST_CELL = """
import sys
from IPython.core.interactiveshell import InteractiveShell
if sys.argv[1] == "missing":
    sys.modules["birdlib"] = None
shell = InteractiveShell.instance()
shell.register_magic_function(lambda line: print("pip", line), magic_name="pip")
shell.run_cell(sys.stdin.read()).raise_error()
"""


def first_cell(where, state):
    command = [sys.executable, "-c", FIRST_CELL, state]
    return subprocess.run(command, input=derived("01_eda", where)[1].source, capture_output=True, text=True)


@pytest.mark.parametrize("where", [None, ADDRESS])
def test_the_first_cell_does_nothing_where_the_library_is(where):
    done = first_cell(where, "there")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_first_cell_installs_the_library_alone():
    done = first_cell(ADDRESS, "missing")
    assert (done.returncode, done.stdout) == (0, f"pip install --quiet --no-deps git+{ADDRESS}\n"), done.stderr


def test_without_an_address_the_first_cell_says_what_is_missing():
    done = first_cell(None, "missing")
    assert done.returncode == 1
    assert "birdlib is not installed here" in done.stderr
    assert "no public address yet" in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_cell_that_installs_is_the_first_and_is_marked(name):
    kinds = [cell.cell_type for cell in read(name).cells]
    assert read(name).cells[kinds.index("code")].metadata.tags == ["install"]


# ---- the anatomy


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_no_outputs_and_a_kernel(name):
    notebook = read(name)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_are_the_same_four_and_change_nothing_by_default(name):
    tagged = [cell.source for cell in read(name).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    values = {node.target.id: ast.literal_eval(node.value) for node in ast.parse(tagged[0]).body}
    assert values == {"config": None, "run_dir": None, "data_dir": None, "overrides": {}}


@pytest.mark.parametrize("name", NAMES)
def test_papermill_tells_what_the_parameters_are(name):
    told = inspect_notebook(ROOT / "notebooks" / f"{name}.ipynb")
    kinds = {parameter: one["inferred_type_name"] for parameter, one in told.items()}
    assert kinds == {"config": "str", "run_dir": "str", "data_dir": "str", "overrides": "dict"}
    assert all(len(one["help"]) > 20 for one in told.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_the_anatomy_of_the_series(name):
    cells = read(name).cells
    assert cells[0].cell_type == "markdown"
    number, _, topic = name.partition("_")
    assert cells[0].source.startswith(f"# {int(number)}. " if number.isdigit() else f"# Appendix: {topic}\n")
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
