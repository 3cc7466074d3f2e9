"""`docs/reliability.md` says what tests/faults.py says, row by row, and names tests that exist.

`python tests/test_reliability.py` prints the tables anew.
"""

import ast
import re
from pathlib import Path

import pytest

from tests.faults import AFTER, AUDIO, METADATA, USED

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"


def outcome(said):
    return USED if said == USED else f"left out: {said}"


def rows():
    """The rows of the page's tables."""
    for fault in AUDIO:
        found = "nothing" if fault.check is None else ": ".join(fault.check)
        yield f"| {fault.name} | {found} | {outcome(fault.run)} | {outcome(fault.predict)} |"
    for fault in AFTER:
        yield f"| {fault.name} | {fault.reason} |"
    for fault in METADATA:
        said = "the run stops" if fault.stops else "used" if fault.said is None else "said"
        yield f"| {fault.name} | {said}{f': {fault.said}' if fault.said else ''} |"


@pytest.fixture(scope="module")
def page():
    if not PAGE.is_file():
        pytest.skip("installed, not the repository")
    return PAGE.read_text(encoding="utf-8")


def test_every_fault_is_on_the_page_with_what_happens_to_it(page):
    faults, _, _ = page.partition("\n## Memory\n")
    shown = [line for line in faults.splitlines() if line.startswith("| ") and "---" not in line]
    assert [line for line in rows() if line not in shown] == []
    heads = [line for line in shown if line not in set(rows())]
    assert len(heads) == 3  # and no row that no test knows


def test_every_test_that_the_page_names_exists(page):
    named = re.findall(r"`(test_\w+)\.py(?:::(test_\w+))?`", page)
    assert named
    for module, function in named:
        tree = ast.parse((TESTS / f"{module}.py").read_text(encoding="utf-8"))
        assert not function or function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


if __name__ == "__main__":
    print("\n".join(rows()))
