"""Derives notebooks/*.ipynb from their py:percent sources, the same bytes every time.

jupytext gives every cell a random id, which would change the files at each call; here a cell's id is its place.

A notebook opened on Colab or Kaggle comes alone: it gets a cell that installs the library where it is not there, and
badges that open it in these places. Both need the repository's address, `[project.urls] Repository` in pyproject.toml;
while that is not set there are no badges, and the cell says what is missing.
"""

import re
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbformat.v4 import new_code_cell

PAGE = "github.com/{0}/blob/main/notebooks/{1}.ipynb"
COLAB = "https://colab.research.google.com"
BADGES = (
    f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/{PAGE.replace('.com', '', 1)}) "
    f"[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]"
    f"(https://kaggle.com/kernels/welcome?src=https://{PAGE})"
)
ON_A_GPU = ("04_phase_1", "05_phase_2", "06_testing", "appendix_tuning")  # Colab opens these with one
MISSING = """import importlib.util

if importlib.util.find_spec("birdlib") is None:
    raise ModuleNotFoundError("birdlib is not installed here: %pip install --no-deps the wheel that `pip wheel "
                              "--no-deps .` makes in its repository, which has no public address yet")"""
INSTALL = """import importlib.util

if importlib.util.find_spec("birdlib") is None:  # on Colab, say; what is installed there stays as it is
    %pip install --quiet --no-deps git+{0}"""


def main() -> None:
    """Writes every .ipynb, without outputs."""
    root = Path(__file__).parents[1]
    where = address(root / "pyproject.toml")
    for source in sorted((root / "notebooks").glob("*.py")):
        nbformat.write(derived(source, where), source.with_suffix(".ipynb"))


def derived(source: Path, where: str | None) -> nbformat.NotebookNode:
    """The notebook of a py:percent file; `where` is the repository's address, as from `address`."""
    notebook = jupytext.read(source)
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place:02d}"
    install = INSTALL.format(where) if where else MISSING
    notebook.cells.insert(1, new_code_cell(install, id="install", metadata={"tags": ["install"]}))
    if where and (github := re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", where)):
        title, rest = notebook.cells[0].source.split("\n", 1)
        notebook.cells[0].source = f"{title}\n\n{BADGES.format(github[1], source.stem)}\n{rest}"
    notebook.metadata.pop("jupytext", None)
    if source.stem in ON_A_GPU:
        notebook.metadata["accelerator"] = "GPU"
    nbformat.validate(notebook)
    return notebook


def address(pyproject: Path) -> str | None:
    """The repository's https address without a ``.git`` or a slash at its end; None while there is none.

    Raises
    ------
    SystemExit
        if it is not such an address: badges and the install cell would lead nowhere.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    text = project.get("urls", {}).get("Repository")
    if text is None:
        return None
    if not re.fullmatch(r"https://[\w.-]+(/[\w.~-]+)+/?", text):
        raise SystemExit(f"{pyproject}: [project.urls] Repository is {text!r}, which is not https://HOST/OWNER/NAME")
    return text.rstrip("/").removesuffix(".git")


if __name__ == "__main__":
    main()
