"""Kaggle's folders, in both of the ways in which they are mounted, below a folder of the test's own."""

import json

import pytest

from birdlib import kaggle_places
from birdlib.kaggle_places import PlacesError


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """A folder laid out as Kaggle's."""
    monkeypatch.setenv(kaggle_places.ROOT, str(tmp_path))
    (tmp_path / "working").mkdir()
    (tmp_path / "input").mkdir()
    return tmp_path


@pytest.fixture
def attach(kaggle):
    """A function (path below input, names of files) -> the folder, with these files in it."""

    def attached(path, *names):
        folder = kaggle / "input" / path
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("{}")
        return folder

    return attached


RUN = ("config.yaml", "stages/01_eda.json")


def test_the_root_is_kaggles_unless_a_setting_says_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv(kaggle_places.ROOT, raising=False)
    assert str(kaggle_places.root()) == "/kaggle"
    monkeypatch.setenv(kaggle_places.ROOT, str(tmp_path))
    assert kaggle_places.working() == tmp_path / "working"
    assert not kaggle_places.here()
    (tmp_path / "working").mkdir()
    assert kaggle_places.here()


@pytest.mark.parametrize("place", ["birdclef-2024", "competitions/birdclef-2024"])
def test_the_competitions_data_are_found_in_both_places(attach, place):
    attach("datasets/ann/birds", "train_metadata.csv")
    folder = attach(place, "train_metadata.csv", "train_audio/a/1.ogg")
    assert kaggle_places.data("birdclef-2024") == folder


def test_a_data_set_is_taken_where_it_is_the_only_one(attach):
    folder = attach("datasets/ann/birds/inner", "train_metadata.csv")
    attach("notebooks/ann/one", *RUN, "sample_data/train_metadata.csv")
    assert kaggle_places.data("birdclef-2024") == kaggle_places.data(None) == folder
    other = attach("more", "train_metadata.csv")
    with pytest.raises(PlacesError, match="several attached folders") as caught:
        kaggle_places.data("birdclef-2024")
    assert str(folder) in str(caught.value)
    assert str(other) in str(caught.value)


def test_a_competition_that_is_not_attached_is_an_error_with_its_rules(attach):
    attach("competitions/birdclef-2024", "sample_submission.csv")
    with pytest.raises(
        PlacesError, match=r"accepting its rules on https://www\.kaggle\.com/competitions/birdclef-2024/"
    ):
        kaggle_places.data("birdclef-2024")
    assert kaggle_places.data(None) is None


def test_run_folders_are_found_wherever_they_are_attached(attach):
    found = {
        attach("notebooks/ann/birdlib-4-phase-i", *RUN),
        attach("birdlib-5-phase-ii", *RUN),
        attach("datasets/ann/mine/runs/paper", *RUN),
    }
    attach("datasets/ann/empty", "config.yaml")
    attach("datasets/ann/part", "config.yaml", "stages/parts.json")
    assert set(kaggle_places.runs()) == found


@pytest.mark.parametrize(
    ("backbone", "name", "fits"),
    [
        ("convnext_tiny", "convnext_tiny_notop.h5", True),
        ("convnext_tiny", "ConvNeXtTiny_imagenet_notop.weights.h5", True),
        ("resnet50", "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", True),
        ("resnet50", "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", False),
        ("convnext_tiny", "convnext_tiny.h5", False),
        ("convnext_tiny", "convnext_small_notop.h5", False),
        ("efficientnet_b0", "efficientnetb0_notop.h5", True),
    ],
)
@pytest.mark.parametrize("place", ["datasets/ann/weights", "models/keras/convnext/keras/tiny/1", "flat"])
def test_weights_are_found_by_their_name(attach, backbone, name, fits, place):
    folder = attach(place, name)
    assert kaggle_places.weights(backbone) == (folder / name if fits else None)


def test_wheels_are_found_by_the_librarys_own(attach):
    attach("datasets/ann/other", "numpy-2.0.0-cp312-cp312-linux_x86_64.whl")
    assert kaggle_places.wheels() is None
    folder = attach("datasets/ann/birdlib-wheels-312", "birdlib-0.1.0-py3-none-any.whl")
    assert kaggle_places.wheels() == folder


def test_folders_of_audio_are_not_walked_through(attach):
    attach("competitions/c/train_audio/a", *RUN)
    attach("competitions/c/test_soundscapes", *RUN)
    assert kaggle_places.runs() == []


def test_scratch_is_where_there_is_room_and_stays_there(kaggle, monkeypatch):
    rooms = {kaggle / "tmp" / "birdlib": 10, kaggle / "temp" / "birdlib": 90}
    monkeypatch.setattr(kaggle_places, "_room_gb", lambda place: rooms.get(place, 20))
    first = kaggle_places.scratch()
    assert first == kaggle / "temp" / "birdlib"
    first.mkdir(parents=True)
    rooms[kaggle / "tmp" / "birdlib"] = 95
    assert kaggle_places.scratch() == first


def test_nothing_attached_is_nothing_found(kaggle):
    (kaggle / "input").rmdir()
    assert kaggle_places.runs() == []
    assert kaggle_places.weights("resnet50") is None
    assert json.dumps(list(kaggle_places.folders())) == "[]"
