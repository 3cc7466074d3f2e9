"""What the machine computes on, and what follows: the devices, the precision and the compilation of a training.

This is the one place that asks a backend itself; all else goes through Keras.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import keras

if TYPE_CHECKING:
    from birdlib.config import Config

BFLOAT16_FROM = (8, 0)  # NVIDIA's compute capability: the first with fast bfloat16 (Ampere); a T4 has 7.5


def kind() -> Literal["cpu", "gpu", "tpu"]:
    """The sort of device that the backend runs on."""
    if keras.backend.backend() == "torch":  # Keras cannot list torch's devices
        return "gpu" if _backend().cuda.is_available() else "cpu"
    found = {device.partition(":")[0] for device in keras.distribution.list_devices()}
    return "tpu" if "tpu" in found else "gpu" if found & {"gpu", "cuda"} else "cpu"


def replicas(config: Config) -> int:
    """How many devices share each batch of a training."""
    if config.compute.devices == "one" or keras.backend.backend() == "torch":
        return 1
    return len(keras.distribution.list_devices())


@contextmanager
def spread(config: Config) -> Iterator[None]:
    """Within it, a model that is built or loaded is on all the devices of `replicas`, and ``fit`` trains it on all.

    Each device has a copy of the weights and gets an equal part of each batch, in its order: a batch has to be
    divisible by their number (`birdlib.batches.Ahead` fills up one that is not).
    """
    if replicas(config) == 1:
        yield
        return
    names = keras.distribution.list_devices()
    if keras.backend.backend() == "tensorflow":  # which `keras.distribution` does not serve
        scope = _backend().distribute.MirroredStrategy([name.upper() for name in names]).scope()
    else:
        scope = keras.distribution.DataParallel(devices=names).scope()
    with scope:
        yield


def told(config: Config) -> str:
    """The backend, the devices and the precision of a training, as a sentence."""
    count, unused = replicas(config), _visible() - replicas(config)
    devices = f"{count} {kind().upper()}s, each with a part of every batch" if count > 1 else f"one {kind().upper()}"
    others = f"; {unused} more are left alone" if unused else ""
    return f"Trained by {keras.backend.backend()} on {devices}{others}, in {precision(config)}."


def _visible() -> int:
    """How many devices of the sort there are."""
    if keras.backend.backend() != "torch":
        return len(keras.distribution.list_devices())
    return max(1, _backend().cuda.device_count())


def precision(config: Config) -> str:
    """The name of the dtype policy to train with."""
    if config.compute.precision != "auto":
        return config.compute.precision
    where = kind()
    if where == "gpu":
        return "mixed_bfloat16" if _capability() >= BFLOAT16_FROM else "mixed_float16"
    return "float32" if where == "cpu" else "mixed_bfloat16"


class LossScale(keras.optimizers.LossScaleOptimizer):
    """Scales the loss, without which float16 has no small gradients; a step whose gradients overflow is left out.

    On several devices it is left out if those of any overflow. Keras asks the first one alone, as if the gradients had
    been summed by then, and one infinite number of another is in all weights from then on.
    """

    def check_finite(self, grads):
        """Whether all of them are."""
        finite = super().check_finite(grads)
        if keras.backend.backend() != "tensorflow":
            return finite
        here = _backend().distribute.get_replica_context()
        if here is None or here.num_replicas_in_sync == 1:
            return finite
        bad = keras.ops.cast(keras.ops.logical_not(finite), "float32")
        return keras.ops.equal(here.all_reduce("SUM", bad), 0.0)


def jit(config: Config) -> bool | str:
    """Whether ``compile`` is to compile: what Keras' ``jit_compile`` takes."""
    choice = config.compute.jit
    if choice != "auto":
        return choice == "on"
    return False if keras.backend.backend() == "tensorflow" and kind() == "cpu" else "auto"


def together(config: Config) -> int | None:
    """How many samples `birdlib.layers.Images` makes into images at a time; None: a whole batch.

    TensorFlow on a CPU asks the system for every buffer anew. Those of a whole batch (frames of 128 chunks: 336 MB) are
    mapped page by page each time, which costs more than the arithmetic; those of eight chunks are used again. XLA plans
    its buffers beforehand, but is slow within a loop: jax is better off with the whole batch.
    """
    small = keras.backend.backend() == "tensorflow" and kind() == "cpu" and replicas(config) == 1
    return 8 if small else None


def compute_on(threads: int) -> None:
    """Has the backend compute on so many threads of the CPU.

    Only torch needs to be told: it goes by ``OMP_NUM_THREADS``, which is 1 in the processes of `birdlib.processes`.
    """
    if keras.backend.backend() == "torch":
        _backend().set_num_threads(threads)


def _backend():
    return importlib.import_module(keras.backend.backend())


def _capability() -> tuple[int, int]:
    """The first GPU's compute capability."""
    backend = _backend()
    if backend.__name__ == "torch":
        return tuple(backend.cuda.get_device_capability())
    if backend.__name__ == "jax":
        return tuple(int(part) for part in backend.devices()[0].compute_capability.split("."))
    details = backend.config.experimental.get_device_details(backend.config.list_physical_devices("GPU")[0])
    return tuple(details.get("compute_capability", (0, 0)))
