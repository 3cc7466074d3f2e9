"""The runtimes that an exported classifier runs on: OpenVINO and ONNX Runtime. Neither needs Keras or a backend.

A session takes images one at a time, whatever comes in a batch: what a model says of a window then hangs neither on the
windows beside it nor on the size of the batch, and an image fits the processor's cache.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# What runs a (format, precision), the fastest first, as measured in docs/performance.md. The int8 of ONNX scales its
# activations window by window, in operators that ONNX Runtime alone has kernels for.
RUNS = {
    ("openvino", "f32"): ("openvino",),
    ("openvino", "bf16"): ("openvino",),
    ("openvino", "int8"): ("openvino",),
    ("onnx", "f32"): ("openvino", "onnxruntime"),
    ("onnx", "int8"): ("onnxruntime",),
}
SUFFIXES = {"openvino": ".xml", "onnx": ".onnx"}


class MissingExtraError(RuntimeError):
    """A package that is not installed; the message names the extra of birdlib that installs it."""


class WrongRuntimeError(ValueError):
    """A runtime that does not run such a model; the message says which does."""


class Outputs(NamedTuple):
    """What a model makes of images: float32 ``probabilities`` (batch, classes), ``embeddings`` (batch, features)."""

    probabilities: np.ndarray
    embeddings: np.ndarray


Session = Callable[[np.ndarray], Outputs]


def installed(package: str) -> str | None:
    """The version of a package that is installed; None where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def required(module: str, extra: str) -> Any:
    """An optional module. Raises `MissingExtraError` where it cannot be imported."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise MissingExtraError(
            f"{package} is not installed or does not load ({error}): pip install 'birdlib[{extra}]'"
        ) from error


def choose(format: str, precision: str, wanted: str = "auto") -> str:
    """The runtime for a model: the one wanted, else the fastest of those that are installed and run it.

    Raises
    ------
    MissingExtraError
        if none is installed; the message says what to install.
    WrongRuntimeError
        if the runtime that is wanted does not run such a model.
    """
    able = RUNS[format, precision]
    if wanted != "auto" and wanted not in able:
        raise WrongRuntimeError(f"{wanted} does not run {format} models in {precision}; {' and '.join(able)} would")
    for name in able if wanted == "auto" else [wanted]:
        if installed(name):
            return name
    raise MissingExtraError(
        f"{format} models need {' or '.join(able)}, which is not installed: pip install 'birdlib[runtime]'"
    )


def open_session(path: Path, runtime: str, precision: str = "f32", threads: int = 0) -> Session:
    """A model file as a function of float32 images (batch, n_mels, frames, 3), on so many threads (0: every core)."""
    return {"openvino": _openvino, "onnxruntime": _onnxruntime}[runtime](path, precision, threads)


def _openvino(path: Path, precision: str, threads: int) -> Session:
    openvino = required("openvino", "runtime")
    model = openvino.Core().read_model(path)
    model.reshape([1, *list(model.inputs[0].partial_shape)[1:]])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    if threads:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    request = openvino.compile_model(model, "CPU", settings).create_infer_request()

    def run(image: np.ndarray) -> list[np.ndarray]:
        found = request.infer([image])
        return [found[place].copy() for place in range(2)]

    return _one_by_one(run)


def _onnxruntime(path: Path, precision: str, threads: int) -> Session:
    onnxruntime = required("onnxruntime", "runtime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait busily for work take a core from whoever makes the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    return _one_by_one(lambda image: session.run(None, {name: image}))


def _one_by_one(run: Callable[[np.ndarray], list[np.ndarray]]) -> Session:
    def session(images: np.ndarray) -> Outputs:
        pairs = [run(np.ascontiguousarray(images[row : row + 1], np.float32)) for row in range(len(images))]
        return Outputs(*(np.concatenate(each).astype(np.float32) for each in zip(*pairs, strict=True)))

    return session
