"""The parameters that papermill puts into a notebook: one that the notebook does not have is refused.

papermill warns of an unknown parameter and goes on, so that ``-p cofnig paper`` would run the sample for a result that
is then taken for the paper's. A notebook sees what it was given in IPython's history: papermill's cell begins with
``# Parameters`` and stands behind the one that declares them.
"""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Sequence

INJECTED = "# Parameters\n"
KNOWN = ("config", "run_dir", "data_dir", "overrides")


class ParameterError(ValueError):
    """A notebook was given a parameter that it does not have; the message names those that it has."""


def refuse_unknown(cells: Sequence[str] | None = None) -> None:
    """Raises `ParameterError` if papermill has set a name that the notebook does not declare; else does nothing.

    Parameters
    ----------
    cells : the source of the cells run so far; None: those of the notebook this runs in, if it runs in one.
    """
    cells = _history() if cells is None else cells
    places = [place for place, cell in enumerate(cells) if cell.startswith(INJECTED)]
    if not places:
        return
    # Declared in any cell before, not in the last: someone may run an executed notebook's cells in another order.
    declared = {*KNOWN, *(name for cell in cells[: places[-1]] for name in _assigned(cell))}
    if unknown := [name for name in _assigned(cells[places[-1]]) if name not in declared]:
        near = difflib.get_close_matches(unknown[0], KNOWN, 1)
        hint = f"did you mean {near[0]}?" if near else f"a setting goes into overrides: {{{unknown[0]}: VALUE}}."
        raise ParameterError(f"no parameter is called {unknown[0]}; {hint} The parameters are {', '.join(KNOWN)}")


def _history() -> Sequence[str]:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell.user_ns.get("In", []) if shell else []


def _assigned(cell: str) -> list[str]:
    """The names that a cell assigns at its top, in order; none of a cell that is no plain Python."""
    try:
        nodes = ast.parse(cell).body
    except SyntaxError:
        return []
    targets = [
        target
        for node in nodes
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return [target.id for target in targets if isinstance(target, ast.Name)]
