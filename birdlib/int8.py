"""An exported model in int8, all but its head: by NNCF for OpenVINO, by the runtime's own tool for ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from birdlib import runtimes
from birdlib.exported import ExportError

PRODUCTS = ("MatMul", "Gemm")
CONVOLUTIONS = ("Convolution", "GroupConvolution")


def openvino(path: Path, out: Path, head: int, images: np.ndarray, backbone: str) -> None:
    """Writes an OpenVINO model with weights and activations in int8, all but the last `head` matrix products.

    Parameters
    ----------
    images : float32 (rows, columns, 3) each, to calibrate the activations' ranges on.

    Raises
    ------
    birdlib.runtimes.MissingExtraError
        if NNCF or OpenVINO is missing.
    """
    nncf, runtime = runtimes.required("nncf", "export"), runtimes.required("openvino", "export")
    read = runtime.Core().read_model(path)
    products = [node.get_friendly_name() for node in read.get_ordered_ops() if node.get_type_name() == "MatMul"]
    # Layer normalisation lets single channels of a ConvNeXt grow large: they are smoothed over weights and activations,
    # and its convolutions, which are the smaller part of the work, stay as they are.
    convnext = backbone.startswith("convnext")
    model = nncf.quantize(
        read,
        nncf.Dataset([image[None] for image in images]),
        preset=nncf.QuantizationPreset.MIXED,  # a network that is not all ReLU has activations below 0
        subset_size=len(images),
        model_type=nncf.ModelType.TRANSFORMER if convnext else None,
        ignored_scope=nncf.IgnoredScope(products[-head:], types=list(CONVOLUTIONS) if convnext else []),
    )
    runtime.save_model(model, out, compress_to_fp16=False)


def onnx(path: Path, out: Path, head: int) -> None:
    """Writes an ONNX model whose matrix products are in int8, all but the last `head`.

    Raises
    ------
    ExportError
        if there are no others.
    birdlib.runtimes.MissingExtraError
        if onnx or ONNX Runtime is missing.
    """
    files, quantization = runtimes.required("onnx", "export"), runtimes.required("onnxruntime.quantization", "export")
    prepared = out.with_name(f"prepared_{path.name}")
    quantization.quant_pre_process(path, prepared, skip_symbolic_shape=True)
    # The format wants a graph in order of computation, so that the head comes last.
    products = [node.name for node in files.load(prepared).graph.node if node.op_type in PRODUCTS]
    if len(products) <= head:
        raise ExportError(
            "onnx in int8 is for networks of matrix products (ConvNeXt), and this one has none outside its head: "
            "export it in f32, or in int8 as openvino"
        )
    kept = [each for name in products[-head:] for each in (name, f"{name}_MatMul")]  # a Gemm is renamed on the way
    # 7 bits of weight: the products of two 8-bit numbers overflow on processors without VNNI.
    quantization.quantize_dynamic(
        prepared, out, list(PRODUCTS), per_channel=True, reduce_range=True, nodes_to_exclude=kept
    )
    prepared.unlink()
