"""The image classifier: a backbone, pooled, and a head of dense layers.

What is built here takes images as `birdlib.spectrogram` defines them and is what training saves: built-in Keras
layers only, so that it loads anywhere.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import keras
import numpy as np
import pandas as pd
from keras import layers

from birdlib import archive

if TYPE_CHECKING:
    from birdlib.config import Config


_ADVICE = (
    "get the backbone's weights without the top (..._notop.h5, see keras.io/api/applications), and set model.weights "
    "to its path, or to imagenet or null"
)


class ModelError(ValueError):
    """A model that cannot be built or loaded as asked: what is wrong, and what to do."""


def build(config: Config, num_classes: int) -> keras.Model:
    """The classifier of the configuration: images (batch, 128, 320, 3) -> probabilities (batch, num_classes).

    The head is the paper's: pooled -> Dense -> BN -> dropout (once for each of ``model.hidden``) -> softmax; a sigmoid
    where the settings' loss judges each class by itself. With pretrained weights the backbone comes frozen, and its
    batch normalisation stays in inference mode in both phases.

    Raises
    ------
    ModelError
        for an unknown backbone, or weights that cannot be had or do not fit.
    """
    settings = config.model
    images = keras.Input(config.image_shape, name="image")
    if settings.backbone == "custom_cnn":
        if settings.weights:
            raise ModelError("model.weights: custom_cnn has no pretrained weights; set model.weights=null")
        body, x = _custom_cnn(config), images
    else:
        create, module = _application(settings.backbone)
        x = _preprocessed(images, module)
        body = _application_backbone(create, config)
    x = body(x)
    for units in settings.hidden:
        x = layers.Dense(units, activation="relu")(x)
        x = layers.BatchNormalization(momentum=settings.bn_momentum)(x)
        x = layers.Dropout(settings.dropout)(x)
    # float32 under mixed precision too: a softmax in half precision loses the small probabilities.
    # A sigmoid starts at chance (Lin et al., 2017), else the first steps do nothing but learn that birds are rare.
    bias = 0.0 if config.loss.activation == "softmax" else -math.log(max(num_classes - 1, 1))
    outputs = layers.Dense(
        num_classes,
        activation=config.loss.activation,
        bias_initializer=keras.initializers.Constant(bias),
        dtype="float32",
        name="probabilities",
    )(x)
    model = keras.Model(images, outputs, name=settings.backbone)
    freeze_backbone(model, bool(settings.weights))
    return model


def freeze_backbone(model: keras.Model, frozen: bool) -> None:
    """Freezes or thaws the backbone of a classifier made by `build`; compile the model afterwards.

    The batch normalisation of a backbone that has been frozen stays so when it is thawed: that is what keeps it in
    inference mode (``training=False`` in the call does not; Keras 3 passes on what the outer model is told).
    """
    body = backbone(model)
    if body.trainable == (not frozen):
        return
    body.trainable = not frozen
    for layer in _norms(body):
        layer.trainable = False


def _norms(body: keras.Model) -> list[layers.BatchNormalization]:
    return [layer for layer in body.layers if isinstance(layer, layers.BatchNormalization)]


def backbone(model: keras.Model) -> keras.Model:
    """The backbone inside a classifier made by `build`: the one model among its layers."""
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def load(path: Path) -> keras.Model:
    """A classifier that training saved; whatever the file holds, no code of it runs (`birdlib.archive`).

    Raises
    ------
    ModelError
        if the file is missing, or is no such model.
    """
    try:
        if not Path(path).is_file():
            raise FileNotFoundError("there is no such file")
        archive.check(path)
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever Keras, zip or HDF5 make of a file that is none
        raise ModelError(f"{path} is not a saved classifier: {_one_line(error)}") from None


@contextmanager
def at_precision(model: keras.Model, policy: str) -> Iterator[None]:
    """Within it a classifier made by `build` computes by this dtype policy; its last layer stays in float32."""
    before = [(layer, layer.dtype_policy) for layer in _inside(model) if layer is not model.layers[-1]]
    try:
        for layer, _ in before:
            layer.dtype_policy = policy
        yield
    finally:
        for layer, old in before:
            layer.dtype_policy = old


@contextmanager
def in_step(model: keras.Model, devices: int) -> Iterator[None]:
    """Within it the batch normalisations of a classifier made by `build` go by the whole batch on all `devices`.

    Under TensorFlow each device has statistics of its own otherwise: of its part of the batch, and the file has those
    of the first. (jax has the whole batch; and a model saved like this would load under TensorFlow alone.)
    """
    together = devices > 1 and keras.backend.backend() == "tensorflow"
    norms = [layer for layer in _inside(model) if isinstance(layer, layers.BatchNormalization)]
    before = [layer.synchronized for layer in norms]
    try:
        for layer in norms:
            layer.synchronized = together
        yield
    finally:
        for layer, old in zip(norms, before, strict=True):
            layer.synchronized = old


def _inside(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a classifier made by `build`, the backbone and what is in it among them."""
    return [layer for each in model.layers for layer in (each, *getattr(each, "layers", ()))]


def parameters(model: keras.Model) -> dict[str, int]:
    """Counts of parameters: in all, trained, frozen."""
    return dict(zip(("all", "trained", "frozen"), _split(model), strict=True))


def table(model: keras.Model) -> pd.DataFrame:
    """A classifier made by `build`, layer by layer, the backbone as one; the last row is the whole.

    Returns
    -------
    table : ``part`` (input, backbone or head), ``layer``, ``output`` (its shape, without the batch), ``parameters``,
        ``trained`` and ``not trained`` (frozen, or running statistics of a batch normalisation).
    """
    inner, part, rows = backbone(model), "input", []
    for layer in model.layers:
        part = "backbone" if layer is inner else "head" if part in ("backbone", "head") else "input"
        kind = layer.name if layer is inner else type(layer).__name__
        shape = " × ".join(str(size) for size in layer.output.shape[1:])
        rows.append((part, kind, shape, *_split(layer)))
    rows.append(("in all", model.name, "", *_split(model)))
    return pd.DataFrame(rows, columns=["part", "layer", "output", "parameters", "trained", "not trained"])


def _split(layer: keras.layers.Layer) -> tuple[int, int, int]:
    trained = sum(int(np.prod(weight.shape)) for weight in layer.trainable_weights)
    return layer.count_params(), trained, layer.count_params() - trained


def _custom_cnn(config: Config) -> keras.Model:
    """The first check: five blocks of convolution, batch normalisation and pooling."""
    images = keras.Input(config.image_shape)
    x = layers.Rescaling(1 / 127.5, offset=-1)(images[..., :1])  # the three channels are equal
    for filters in (16, 32, 48, 64, 96):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=config.model.bn_momentum)(x)
        x = layers.Activation("relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, x, name="custom_cnn_backbone")


def _application(name: str) -> tuple[Callable, ModuleType]:
    """The constructor of a `keras.applications` model by its name in any case, and the module it is defined in."""
    plain = name.replace("_", "").lower()
    known = {key: value for key, value in vars(keras.applications).items() if key[:1].isupper()}
    for key, create in known.items():
        if key.lower() == plain:
            return create, sys.modules[create.__module__]
    raise ModelError(f"model.backbone: there is no {name!r}; there are custom_cnn, {', '.join(known)} (in any case)")


def _preprocessed(images, module: ModuleType):
    """`images` through the backbone's own `preprocess_input`, as a built-in layer.

    On images of three equal channels every one of them is a scale and an offset a channel (or nothing, where the
    backbone does it inside), so two images say what it is, and a third proves it.
    """

    def respond(value: float) -> np.ndarray:
        return np.array(module.preprocess_input(np.full((1, 1, 1, 3), value, np.float32)))[0, 0, 0].astype(np.float64)

    offset, scale = respond(0.0), (respond(255.0) - respond(0.0)) / 255.0
    if not np.allclose(respond(100.0), offset + 100.0 * scale, atol=1e-3):
        raise ModelError(f"{module.__name__}.preprocess_input is not linear: this backbone cannot be used")
    if np.allclose(scale, 1) and np.allclose(offset, 0):
        return images
    return layers.Rescaling(scale.tolist(), offset.tolist(), name="preprocessing")(images)


def _application_backbone(create: Callable, config: Config) -> keras.Model:
    """A `keras.applications` backbone with the weights asked for: downloaded, from a file, or none."""
    weights = config.model.weights
    file = Path(weights) if weights not in (None, "imagenet") else None
    if file is not None and not file.is_file():
        raise ModelError(f"model.weights: there is no file {file}; {_ADVICE}")
    options = {"include_top": False, "input_shape": config.image_shape, "pooling": "avg"}
    if file:
        _refuse_efficientnet(config.model.backbone, file)
    if weights != "imagenet":
        body = create(weights=None, **options)
        if file:
            _load_file(body, file, config.model.backbone)
        else:
            for layer in _norms(body):
                layer.momentum = config.model.bn_momentum
        return body
    try:
        return create(weights=weights, **options)
    except Exception as error:
        raise ModelError(
            f"model.weights: ImageNet weights for {config.model.backbone} cannot be downloaded ({_one_line(error)}); "
            f"get the file {_weights_file(error)} on a machine with internet, and set model.weights to its path, or "
            "put it into ~/.keras/models/"
        ) from error


def _refuse_efficientnet(name: str, file: Path) -> None:
    """EfficientNet B0 to B7 rescale once more inside with ImageNet weights, and Keras does so for "imagenet" alone."""
    plain = name.replace("_", "").lower()
    if plain.startswith("efficientnetb"):
        raise ModelError(
            f"model.weights: {file}: {name} cannot take its weights from a file; use model.weights=imagenet, or an "
            "efficientnetv2 backbone"
        )


def _load_file(body: keras.Model, file: Path, name: str) -> None:
    """Loads a weights file into a backbone, and makes sure that all of it came from there."""
    value = keras.ops.convert_to_numpy
    drawn = [weight for weight in body.weights if np.ptp(value(weight)) > 0]  # the rest starts as 0 or 1
    before = [np.array(value(weight)) for weight in drawn]
    try:
        with warnings.catch_warnings():
            # Keras 3.15 says this of every file that an earlier version wrote, and loads it all the same.
            warnings.filterwarnings("ignore", message="Skipping nested container")
            body.load_weights(file)
    except Exception as error:
        raise ModelError(f"model.weights: {file} does not fit {name}: {_one_line(error)}; {_ADVICE}") from error
    left = [weight.path for weight, old in zip(drawn, before, strict=True) if np.array_equal(value(weight), old)]
    if left:
        raise ModelError(
            f"model.weights: {file} leaves {len(left)} of {len(drawn)} weights of {name} as they were drawn, among "
            f"them {left[0]}; {_ADVICE}"
        )


def _weights_file(error: Exception) -> str:
    """The address in a failed download's message, as far as there is one."""
    words = [word for word in str(error).split() if word.startswith("http")]
    return words[0].rstrip(":") if words else "(..._notop.h5 from keras.io/api/applications)"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "..."
