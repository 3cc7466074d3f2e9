"""What a result was computed with: Python, the machine, the versions of the packages that matter, the backend."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

import birdlib

PACKAGES = (
    "keras",
    "tensorflow",
    "torch",
    "jax",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "librosa",
    "soundfile",
    "soxr",
    "audiomentations",
    "matplotlib",
    "openvino",
)


def describe() -> dict[str, str]:
    """Name -> version, as plain text; what is not installed is left out.

    ``backend`` is there once Keras is loaded; asking does not load it.
    """
    found = {"birdlib": birdlib.__version__, "Python": platform.python_version(), "machine": platform.platform()}
    if keras := sys.modules.get("keras"):
        found["backend"] = keras.config.backend()
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
