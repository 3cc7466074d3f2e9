"""The classifiers: parameter counts, heads, preprocessing, pretrained weights; under any backend."""

import json
import socket
import zipfile
from itertools import pairwise

import h5py
import keras
import numpy as np
import pytest

from birdlib import config as configs
from birdlib import models

# numpy 2 says this of Keras' own reading of its variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# An image of 32 bands by 64 frames: enough for every backbone here, and quick.
SMALL = {"chunks.length_s": 1, "chunks.overlap_s": 0.2, "spectrogram.n_mels": 32, "model.hidden": "8"}
SHAPE = (32, 64, 3)


def small(backbone="mobilenet", weights=None, **overrides):
    return configs.load("paper", {**SMALL, "model.backbone": backbone, "model.weights": weights, **overrides})


def application(name="MobileNet"):
    """A backbone of `keras.applications` with weights of its own draw."""
    return getattr(keras.applications, name)(include_top=False, input_shape=SHAPE, pooling="avg", weights=None)


def values(model):
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def images(count, seed=0):
    """Random images of three equal channels, float32 (count, 32, 64, 3), 0-255."""
    grey = np.random.default_rng(seed).uniform(0, 255, (count, *SHAPE[:2], 1))
    return np.repeat(grey, 3, axis=3).astype(np.float32)


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory):
    """A weights file in today's layout, and the arrays in it."""
    file = tmp_path_factory.mktemp("weights") / "mobilenet_notop.weights.h5"
    body = application()
    _settled(body)
    body.save_weights(file)
    return file, values(body)


def _settled(body):
    """Gives a new backbone the batch statistics of some images, so that something comes out at its end."""
    norms = [layer for layer in body.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    body.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    body.train_on_batch(images(4), np.zeros((4, body.output_shape[1]), np.float32))
    assert all(np.ptp(layer.get_weights()[3]) > 0 for layer in norms)


# --- the paper's -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def papers():
    return models.build(configs.load("paper", {"model.weights": None}), 182)


def test_parameters_are_the_papers(papers):
    models.freeze_backbone(papers, True)
    assert models.parameters(papers) == {
        "all": 29_231_894,
        "trained": 1_408_694,
        "frozen": 29_231_894 - 1_408_694,
    }
    assert models.backbone(papers).count_params() == 27_820_128
    models.freeze_backbone(papers, False)
    # Never trained: the statistics of the head's two batch normalisations (ConvNeXt has none).
    assert models.parameters(papers)["frozen"] == 2 * (1024 + 512)


def test_the_table_of_the_model_adds_up_to_the_papers(papers):
    models.freeze_backbone(papers, True)
    table = models.table(papers)
    models.freeze_backbone(papers, False)
    assert table.iloc[-1].tolist() == ["in all", "convnext_tiny", "", 29_231_894, 1_408_694, 27_823_200]
    numbers = table[["parameters", "trained", "not trained"]].iloc[:-1]
    assert numbers.sum().tolist() == [29_231_894, 1_408_694, 27_823_200]
    body = table[table["part"] == "backbone"]
    assert body[["output", "parameters", "trained"]].to_numpy().tolist() == [["768", 27_820_128, 0]]
    assert table.loc[table["part"] == "input", "output"].tolist() == ["128 × 320 × 3"]
    head = table[table["part"] == "head"]
    assert head["layer"].tolist()[:3] == ["Dense", "BatchNormalization", "Dropout"]
    assert head["parameters"].tolist()[0] == 768 * 1024 + 1024
    assert head["not trained"].sum() == 3072


def test_input_and_output_are_the_papers(papers):
    assert papers.input_shape == (None, 128, 320, 3)
    assert papers.output_shape == (None, 182)
    assert models.backbone(papers).output_shape == (None, 768)


def test_head_is_the_papers(papers):
    at = papers.layers.index(models.backbone(papers))
    kinds = [type(layer).__name__ for layer in papers.layers[at + 1 :]]
    block = ["Dense", "BatchNormalization", "Dropout"]
    assert kinds == [*block, *block, "Dense"]
    dense = [layer for layer in papers.layers if isinstance(layer, keras.layers.Dense)]
    assert [(layer.units, layer.activation.__name__) for layer in dense] == [
        (1024, "relu"),
        (512, "relu"),
        (182, "softmax"),
    ]
    assert [layer.rate for layer in papers.layers if isinstance(layer, keras.layers.Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize("kind", ["binary_crossentropy", "focal"])
def test_where_each_class_is_judged_by_itself_a_sigmoid_ends_the_head_and_starts_at_chance(kind):
    config = small("custom_cnn", **{"loss.kind": kind})
    model = models.build(config, 8)
    assert model.layers[-1].activation is keras.activations.sigmoid
    model.layers[-1].kernel.assign(np.zeros(model.layers[-1].kernel.shape))
    found = model.predict_on_batch(np.zeros((1, *config.image_shape), np.float32))
    np.testing.assert_allclose(found, 1 / 8, rtol=1e-5)


def test_convnext_gets_the_image_as_it_is_and_normalises_it_itself(papers):
    # Only for three channels does it; at one it silently would not.
    assert [type(layer).__name__ for layer in papers.layers[:2]] == ["InputLayer", "Functional"]
    assert any(isinstance(layer, keras.layers.Normalization) for layer in models.backbone(papers).layers)


# --- any backbone ----------------------------------------------------------------------------------------------------


def test_custom_cnn():
    model = models.build(small("custom_cnn"), 7)
    assert model.output_shape == (None, 7)
    # Five convolutions of 3 x 3 without a bias, each with four numbers a filter of batch normalisation, half of them
    # statistics; the head of eight.
    filters = [1, 16, 32, 48, 64, 96]
    body = sum(9 * before * after + 4 * after for before, after in pairwise(filters))
    head = 96 * 8 + 8 + 4 * 8 + 8 * 7 + 7
    fixed = 2 * (sum(filters[1:]) + 8)
    assert models.parameters(model) == {"all": body + head, "trained": body + head - fixed, "frozen": fixed}


def test_probabilities_are_probabilities():
    model = models.build(small("custom_cnn"), 7)
    found = model.predict_on_batch(images(3))
    assert found.shape == (3, 7)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_hidden_layers_may_be_none():
    model = models.build(small("custom_cnn", **{"model.hidden": []}), 7)
    assert [type(layer).__name__ for layer in model.layers] == ["InputLayer", "Functional", "Dense"]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("resnet50", "ResNet50"),
        ("ResNet50", "ResNet50"),
        ("efficientnetv2b0", "EfficientNetV2B0"),
        ("EfficientNetV2_B0", "EfficientNetV2B0"),
        ("mobilenetv3small", "MobileNetV3Small"),
        ("mobilenet_v3_small", "MobileNetV3Small"),
        ("convnext_tiny", "ConvNeXtTiny"),
        ("ConvNeXtTiny", "ConvNeXtTiny"),
    ],
)
def test_backbones_go_by_any_spelling_of_their_name(spelling, name, monkeypatch):
    # Which constructor is called is all that is asked here.
    class Called(Exception):
        pass

    def create(**_):
        raise Called

    create.__module__ = getattr(keras.applications, name).__module__
    monkeypatch.setattr(keras.applications, name, create)
    with pytest.raises(Called):
        models.build(small(spelling), 5)


@pytest.mark.parametrize("name", ["resnet50", "efficientnetv2b0", "mobilenetv3small"])
def test_backbones_build(name):
    model = models.build(small(name), 5)
    assert model.input_shape == (None, *SHAPE)
    assert model.output_shape == (None, 5)


def test_a_backbone_of_keras_applications_predicts(own_weights):
    found = models.build(small(weights=str(own_weights[0])), 5).predict_on_batch(images(3))
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(found, axis=0).min() > 0  # the images tell


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "mobilenet", "vgg16"])
def test_preprocessing_is_the_backbones_own(name):
    model = models.build(small(name), 5)
    seen = keras.Model(model.input, model.layers[1].output)  # as far as the backbone
    module = getattr(keras.applications, name.removesuffix("121"))
    expected = module.preprocess_input(images(3).copy())
    found = seen.predict_on_batch(images(3))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert not np.allclose(expected, images(3), atol=1)  # it does something


@pytest.mark.parametrize("name", ["efficientnetv2b0", "mobilenetv3small"])
def test_backbones_that_preprocess_inside_get_the_image_as_it_is(name):
    assert isinstance(models.build(small(name), 5).layers[1], keras.Model)


def test_an_unknown_backbone_is_said_with_those_there_are():
    with pytest.raises(models.ModelError, match=r"no 'resnet5'; there are custom_cnn, .*ResNet50") as caught:
        models.build(small("resnet5"), 5)
    assert_one_line(caught)


def test_custom_cnn_has_no_pretrained_weights():
    with pytest.raises(models.ModelError, match="custom_cnn has no pretrained weights"):
        models.build(small("custom_cnn", "imagenet"), 5)


# --- frozen and thawed -----------------------------------------------------------------------------------------------


def test_a_backbone_without_pretrained_weights_comes_thawed():
    model = models.build(small("mobilenet"), 5)
    assert models.backbone(model).trainable
    assert models.parameters(model)["frozen"] == 2 * sum(
        layer.axis and layer.gamma.shape[0]
        for layer in [*models.backbone(model).layers, *model.layers]
        if isinstance(layer, keras.layers.BatchNormalization)
    )


def test_a_pretrained_backbone_comes_frozen_and_is_thawed(own_weights):
    model = models.build(small(weights=str(own_weights[0])), 5)
    head = 1024 * 8 + 8 + 2 * 8 + 8 * 5 + 5
    assert models.parameters(model)["trained"] == head
    models.freeze_backbone(model, False)
    # All of it but the batch normalisation, whose mode hangs on its being frozen.
    learning = [layer for layer in application().layers if not isinstance(layer, keras.layers.BatchNormalization)]
    whole = head + sum(layer.count_params() for layer in learning)
    assert models.parameters(model)["trained"] == whole
    models.freeze_backbone(model, False)
    assert models.parameters(model)["trained"] == whole
    models.freeze_backbone(model, True)
    assert models.parameters(model)["trained"] == head


def step(model, rate=0.01):
    """Trains on one batch; returns the values before and after, by the path of the weight."""
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="categorical_crossentropy")
    paths = [weight.path for weight in model.weights]
    before = values(model)
    targets = np.eye(model.output_shape[1], dtype=np.float32)[[0, 1, 2, 3]]
    model.train_on_batch(images(4), targets)
    return {path: (old, new) for path, old, new in zip(paths, before, values(model), strict=True)}


def moved(steps, of, kinds):
    """Which of a model's weights whose name is among `kinds` have changed."""
    paths = {weight.path for weight in of.weights}
    chosen = {path: pair for path, pair in steps.items() if path in paths and path.split("/")[-1] in kinds}
    assert chosen
    return [not np.array_equal(old, new) for old, new in chosen.values()]


STATISTICS = ("moving_mean", "moving_variance")


def assert_statistics_stay(model):
    """One step on a thawed, pretrained classifier: the convolutions learn, the batch normalisation stays."""
    body = models.backbone(model)
    steps = step(model)
    assert not any(moved(steps, body, (*STATISTICS, "gamma", "beta")))
    assert all(moved(steps, body, ("kernel", "depthwise_kernel")))
    head = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(moved(steps, head[0], STATISTICS))


@pytest.mark.slow
def test_batch_normalisation_of_a_pretrained_backbone_stays_in_inference_mode(own_weights, tmp_path):
    model = models.build(small(weights=str(own_weights[0])), 5)
    frozen = step(model)
    assert not any(moved(frozen, models.backbone(model), (*STATISTICS, "kernel", "gamma", "beta", "depthwise_kernel")))
    # Phase II thaws what phase I has saved.
    model.save(tmp_path / "model.keras")
    again = models.load(tmp_path / "model.keras")
    models.freeze_backbone(again, False)
    assert_statistics_stay(again)


def test_the_momentum_of_batch_normalisation_is_set_but_not_a_pretrained_backbones(own_weights):
    def momenta(weights):
        body = models.backbone(models.build(small(weights=weights, **{"model.bn_momentum": 0.7}), 5))
        return {layer.momentum for layer in body.layers if isinstance(layer, keras.layers.BatchNormalization)}

    assert momenta(None) == {0.7}
    assert momenta(str(own_weights[0])) == {0.99}


def test_batch_normalisation_of_a_new_backbone_learns():
    model = models.build(small("custom_cnn"), 5)
    assert all(moved(step(model), models.backbone(model), STATISTICS))


# --- weights files ---------------------------------------------------------------------------------------------------


def assert_one_line(caught):
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model.")


def assert_says_where(caught):
    """Where to get the file, and where to put it."""
    assert_one_line(caught)
    text = str(caught.value)
    assert "keras.io" in text or "http" in text
    assert "set model.weights to its path" in text


def test_a_weights_file_gets_in(own_weights):
    file, arrays = own_weights
    found = values(models.backbone(models.build(small(weights=str(file)), 5)))
    assert len(found) == len(arrays)
    for one, other in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(one, other)


def save_legacy(body, file):
    """The layout that keras.applications' own files have: a group a layer, its weights by name, in order."""
    with h5py.File(file, "w") as h5:
        h5.attrs["layer_names"] = [layer.name.encode() for layer in body.layers]
        h5.attrs["backend"], h5.attrs["keras_version"] = b"tensorflow", b"2.4.0"
        for layer in body.layers:
            group = h5.create_group(layer.name)
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            names = [f"{layer.name}/{weight.name}:0" for weight in weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, weights, strict=True):
                group.create_dataset(name, data=keras.ops.convert_to_numpy(weight))


def test_a_legacy_weights_file_gets_in(tmp_path):
    body = application()
    save_legacy(body, tmp_path / "mobilenet_notop.h5")
    found = values(models.backbone(models.build(small(weights=str(tmp_path / "mobilenet_notop.h5")), 5)))
    for one, other in zip(found, values(body), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("layout", ["today's", "legacy"])
def test_convnext_tiny_as_in_the_paper_from_a_weights_file(layout, tmp_path):
    options = {"include_top": False, "input_shape": (128, 320, 3), "pooling": "avg", "weights": None}
    body = keras.applications.ConvNeXtTiny(**options)
    file = tmp_path / ("convnext_tiny_notop.h5" if layout == "legacy" else "convnext_tiny_notop.weights.h5")
    save_legacy(body, file) if layout == "legacy" else body.save_weights(file)
    model = models.build(configs.load("paper", {"model.weights": str(file)}), 182)
    for one, other in zip(values(models.backbone(model)), values(body), strict=True):
        np.testing.assert_array_equal(one, other)
    assert models.parameters(model) == {"all": 29_231_894, "trained": 1_408_694, "frozen": 27_820_128 + 3072}


def test_a_missing_weights_file_is_one_clear_error(tmp_path):
    with pytest.raises(models.ModelError, match=r"there is no file .*/none\.h5") as caught:
        models.build(small(weights=str(tmp_path / "none.h5")), 5)
    assert_says_where(caught)


def _garbage(file):
    file.write_bytes(b"<html>404 Not Found</html>" * 40)


def _another_architecture(file):
    application("MobileNetV2").save_weights(file)


def _another_width(file):
    keras.applications.MobileNet(alpha=0.5, include_top=False, input_shape=SHAPE, weights=None).save_weights(file)


@pytest.mark.parametrize("write", [_garbage, _another_architecture, _another_width])
def test_a_weights_file_that_does_not_fit_is_one_clear_error(write, tmp_path):
    file = tmp_path / "wrong.weights.h5"
    write(file)
    with pytest.raises(models.ModelError, match=r"wrong\.weights\.h5") as caught:
        models.build(small(weights=str(file)), 5)
    assert "mobilenet" in str(caught.value)
    assert_says_where(caught)


def test_a_weights_file_that_fits_in_part_is_one_clear_error(tmp_path):
    # Loading skips what it does not find in some layouts: nothing may stay as it was drawn.
    file = tmp_path / "part.h5"
    save_legacy(application(), file)
    with h5py.File(file, "a") as h5:
        for name in list(h5)[:10]:
            del h5[name]
        h5.attrs["layer_names"] = [name.encode() for name in h5]
    with pytest.raises(models.ModelError, match=r"part\.h5") as caught:
        models.build(small(weights=str(file)), 5)
    assert_says_where(caught)


def test_imagenet_without_network_is_one_clear_error(monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    with pytest.raises(models.ModelError, match="cannot be downloaded") as caught:
        models.build(small("resnet50", "imagenet"), 5)
    assert_says_where(caught)
    text = str(caught.value)
    assert "https://storage.googleapis.com/" in text
    assert "notop.h5" in text
    assert "~/.keras/models" in text


@pytest.mark.slow
def test_resnet50s_imagenet_weights_get_in_and_its_statistics_stay(shared):
    file = shared / "weights" / "resnet50_imagenet_notop.weights.h5"
    if not file.is_file():
        pytest.skip(f"{file} is missing")
    model = models.build(small("resnet50", str(file)), 5)
    with h5py.File(file) as h5:
        items: list = []
        h5.visititems(lambda name, item: items.append(item))
        (kernel,) = [item[()] for item in items if getattr(item, "shape", None) == (7, 7, 3, 64)]
    np.testing.assert_array_equal(models.backbone(model).get_layer("conv1_conv").get_weights()[0], kernel)
    models.freeze_backbone(model, False)
    assert_statistics_stay(model)


# --- saved classifiers -----------------------------------------------------------------------------------------------


def layers_of(config):
    """Every layer of a saved model, nested ones too."""
    if isinstance(config, dict):
        if "class_name" in config and "module" in config:
            yield config
        for value in config.values():
            yield from layers_of(value)
    elif isinstance(config, list):
        for value in config:
            yield from layers_of(value)


@pytest.mark.parametrize("name", ["custom_cnn", "mobilenet", "convnext_tiny"])
def test_a_saved_classifier_loads_in_safe_mode_and_is_built_of_keras_alone(name, tmp_path):
    model = models.build(small(name), 5)
    model.save(tmp_path / "model.keras")
    again = models.load(tmp_path / "model.keras")
    for one, other in zip(values(model), values(again), strict=True):
        np.testing.assert_array_equal(one, other)
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        config = json.loads(file.read("config.json"))
    found = list(layers_of(config))
    assert len(found) > 10
    assert {each["module"].split(".")[0] for each in found} == {"keras"}
    assert not [each for each in found if (each.get("registered_name") or "").startswith("birdlib")]
    assert not [each for each in found if each["class_name"] in ("LogMelImage", "CutOut", "Lambda")]


@pytest.mark.parametrize("content", [None, b"not a model"])
def test_what_is_no_saved_classifier_is_one_clear_error(content, tmp_path):
    path = tmp_path / "model.keras"
    if content:
        path.write_bytes(content)
    with pytest.raises(models.ModelError, match="is not a saved classifier") as caught:
        models.load(path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("half_precision")
def test_probabilities_are_float32_under_mixed_precision():
    model = models.build(small("custom_cnn"), 5)
    assert model.layers[2].compute_dtype == "float16"
    assert model.predict_on_batch(images(2)).dtype == np.float32
