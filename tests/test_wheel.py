"""The library as a wheel, made without a build: pip takes it, and it is whole."""

import base64
import csv
import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import birdlib
from birdlib import stages, wheel
from tests.conftest import needs_installation

pytestmark = needs_installation
PACKAGE = Path(birdlib.__file__).parent


@pytest.fixture(scope="module")
def archive():
    return zipfile.ZipFile(io.BytesIO(wheel.build()))


def test_it_holds_the_library_and_its_notebooks(archive):
    names = set(archive.namelist())
    assert {f"birdlib/{path.name}" for path in PACKAGE.glob("*.py")} <= names
    assert {f"birdlib/{path.name}" for path in PACKAGE.glob("*.csv")} <= names
    assert {f"birdlib/{name}" for name in ("report.html", "report_notebook.html", "report.css", "report.js")} <= names
    assert "birdlib/report_head.html" in names
    assert {f"birdlib/notebooks/{one.name}.ipynb" for one in stages.STAGES + stages.APPENDICES} <= names
    assert archive.read("birdlib/series.py") == (PACKAGE / "series.py").read_bytes()
    assert not [name for name in names if name.endswith((".pyc", "/"))]


def test_its_record_is_true(archive):
    info = f"birdlib-{birdlib.__version__}.dist-info"
    rows = list(csv.reader(archive.read(f"{info}/RECORD").decode().splitlines()))
    assert sorted(row[0] for row in rows) == sorted(archive.namelist())
    for name, digest, size in rows[:-1]:
        content = archive.read(name)
        kind, _, value = digest.partition("=")
        assert base64.urlsafe_b64decode(value + "=") == hashlib.new(kind, content).digest()
        assert int(size) == len(content)
    assert rows[-1] == [f"{info}/RECORD", "", ""]


def test_the_same_files_give_the_same_bytes():
    assert wheel.build() == wheel.build()


def test_pip_installs_it_without_an_index_and_it_works(tmp_path):
    (tmp_path / wheel.name()).write_bytes(wheel.build())
    install = [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--no-index", "--no-deps", "--target"]
    environment = os.environ | {"PIP_CONFIG_FILE": os.devnull}
    subprocess.run([*install, "there", wheel.name()], cwd=tmp_path, check=True, env=environment, timeout=120)
    code = """
import importlib.metadata, birdlib
from birdlib import kernels, stages, wheel
print(birdlib.__file__, stages.notebook("04_phase_1"), wheel.kernel_metadata(), sep="\\n")
print(*importlib.metadata.requires("birdlib"), sep="\\n")
print(hash(wheel.build()) and "builds itself again")
"""
    run = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "there")}
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    inside = tmp_path / "there/birdlib"
    assert lines[:3] == [str(inside / name) for name in ("__init__.py", "notebooks/04_phase_1.ipynb", wheel.KERNEL)]
    assert lines[3:-1] == importlib.metadata.requires("birdlib")
    assert lines[-1] == "builds itself again"


def test_a_version_that_is_not_the_installed_one_is_refused(monkeypatch):
    monkeypatch.setattr(birdlib, "__version__", "9.9")
    with pytest.raises(wheel.WheelError, match="install it again"):
        wheel.build()
