"""Derives notebooks/*.ipynb from their py:percent sources, the same bytes every time.

jupytext gives every cell a random id, which would change the files at each call; here a cell's id is its place.
"""

from pathlib import Path

import jupytext
import nbformat


def main() -> None:
    """Writes every .ipynb, without outputs."""
    for source in sorted((Path(__file__).parents[1] / "notebooks").glob("*.py")):
        notebook = jupytext.read(source)
        for place, cell in enumerate(notebook.cells):
            cell["id"] = f"cell-{place:02d}"
        notebook.metadata.pop("jupytext", None)
        nbformat.validate(notebook)
        nbformat.write(notebook, source.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
