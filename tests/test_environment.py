import importlib.metadata
import platform
import subprocess
import sys

import numpy
import pandas

import birdlib
from birdlib import environment


def test_versions_are_those_that_are_loaded():
    found = environment.describe()
    assert found["birdlib"] == birdlib.__version__
    assert found["Python"] == platform.python_version()
    assert (found["numpy"], found["pandas"]) == (numpy.__version__, pandas.__version__)


def test_what_is_not_installed_is_left_out(monkeypatch):
    def version(name):
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = environment.describe()
    assert "torch" not in found
    assert found["jax"] == "1.0"


def test_the_backend_is_known_once_keras_is_loaded_and_asking_does_not_load_it():
    code = """
import sys
from birdlib import environment
print("backend" in environment.describe(), "keras" in sys.modules)
class keras:
    class config:
        backend = staticmethod(lambda: "jax")
sys.modules["keras"] = keras
print(environment.describe()["backend"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "False", "jax"]
