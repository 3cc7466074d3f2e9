"""Cells that are put into a notebook for Kaggle; the first holds the library, since nothing else is sent along."""

from __future__ import annotations

import base64
import hashlib
import textwrap
from typing import Any

import birdlib
from birdlib import wheel


def library() -> dict[str, Any]:
    """The first cell, which holds the library and installs it."""
    cell = code("kaggle-library", _LIBRARY.format(**_packed()))
    hidden = {"_kg_hide-input": True, "jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
    return cell | {"metadata": hidden}


def _packed() -> dict[str, str]:
    content = wheel.build()
    lines = "\n".join(textwrap.wrap(base64.b64encode(content).decode(), 200))
    return {
        "name": wheel.name(),
        "version": birdlib.__version__,
        "digest": hashlib.sha256(content).hexdigest(),
        "text": lines,
    }


def code(name: str, source: str) -> dict[str, Any]:
    """A cell of code, as a notebook file holds it."""
    return {"cell_type": "code", "id": name, "metadata": {}, "execution_count": None, "outputs": [], "source": source}


def text(name: str, source: str) -> dict[str, Any]:
    """A cell of text."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


_LIBRARY = '''\
# birdlib {version}, the library behind this notebook, as a wheel: a zip file of Python modules, written here as text.
import base64, hashlib, pathlib, subprocess, sys, tempfile

content = base64.b64decode("""
{text}
""")
if hashlib.sha256(content).hexdigest() != "{digest}":
    raise ValueError("the library in this cell is not whole: stage the notebook again")
wheel = pathlib.Path(tempfile.mkdtemp()) / "{name}"
wheel.write_bytes(content)
install = "-m pip install --quiet --no-index --no-deps --force-reinstall --disable-pip-version-check"
subprocess.run([sys.executable, *install.split(), "--root-user-action=ignore", str(wheel)], check=True)
print("birdlib {version} installed, from this notebook")'''
