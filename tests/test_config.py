from pathlib import Path

import pydantic
import pytest
import yaml

from birdlib import config as configs
from birdlib.config import ConfigError
from birdlib.settings_tuning import Range


def value(config, key):
    for part in key.split("."):
        config = getattr(config, part)
    return config


# ---- the paper's facts


@pytest.mark.parametrize(
    ("key", "fact"),
    [
        ("audio.sample_rate_hz", 32_000),
        ("chunks.length_s", 5.0),
        ("chunks.overlap_s", 1.0),
        ("silence.threshold", 0.1),
        ("spectrogram.hop", 500),
        ("spectrogram.n_mels", 128),
        ("image_shape", (128, 320, 3)),
        ("chunk_samples", 160_000),
        ("step_samples", 128_000),
        ("batches.threshold", 128),
        ("augmentation.where", "device"),
        ("augmentation.strength", 1.0),
        ("augmentation.high_pass.min_cutoff_hz", 200.0),
        ("augmentation.high_pass.max_cutoff_hz", 6000.0),
        ("augmentation.band_pass.centre_hz", 5000.0),
        ("model.backbone", "convnext_tiny"),
        ("model.weights", "imagenet"),
        ("model.hidden", (1024, 512)),
        ("model.dropout", 0.5),
        ("phase_1.learning_rate", 1e-3),
        ("phase_1.batch_size", 128),
        ("phase_1.plateau_factor", 0.5),
        ("phase_1.plateau_patience", 2),
        ("phase_2.learning_rate", 4e-5),
        ("phase_2.batch_size", 16),
        ("phase_2.plateau_factor", 0.5),
        ("phase_2.plateau_patience", 2),
        ("splits.test_share", 0.15),
        ("splits.folds", 4),
    ],
)
def test_paper_has_the_facts_of_the_paper(key, fact):
    assert value(configs.load("paper"), key) == fact


def test_paper_augments_with_six_effects_and_the_cut_out():
    augmentation = configs.load("paper").augmentation
    effects = {"time_stretch", "pitch_shift", "gaussian_noise", "high_pass", "band_pass", "clipping", "cut_out"}
    beyond = {"time_shift", "background", "mixup"}  # the paper has not
    assert {name for name, inner in augmentation if hasattr(inner, "probability")} == effects | beyond
    assert all(getattr(augmentation, name).probability == 0 for name in beyond)
    assert all(getattr(augmentation, name).probability > 0 for name in effects)
    assert augmentation.clipping.max_share < 0.9  # 90 % is the paper's figure; its training "should not distort"


@pytest.mark.parametrize("preset", ["sample", "paper"])
def test_what_both_presets_share(preset):
    config = configs.load(preset)
    assert (config.silence.measure, config.silence.threshold) == ("relative", 0.1)
    assert (config.splits.test_share, config.splits.folds, config.folds) == (0.15, 4, (0,))
    assert (config.data.dir, config.image_shape) == (None, (128, 320, 3))
    spectrogram = config.spectrogram
    assert (spectrogram.n_fft, spectrogram.fmin_hz, spectrogram.fmax_hz, spectrogram.top_db) == (2048, 40, 15_000, 80)


def test_sample_is_small():
    config = configs.load("sample")
    assert (config.model.backbone, config.model.weights) == ("custom_cnn", None)
    assert config.batches.threshold < 64


def test_paper_is_the_default():
    assert configs.load() == configs.load("paper") != configs.load("sample")


# ---- overrides


@pytest.mark.parametrize(
    ("key", "text", "wanted"),
    [
        ("phase_2.learning_rate", "3e-5", 3e-5),
        ("phase_2.learning_rate", "1", 1.0),
        ("phase_1.epochs", "7", 7),
        ("silence.measure", "peak", "peak"),
        ("model.weights", "null", None),
        ("model.weights", "None", None),
        ("model.weights", "", None),
        ("model.weights", "weights/own.h5", "weights/own.h5"),
        ("model.hidden", "[64, 32]", (64, 32)),
        ("model.hidden", "64,32", (64, 32)),
        ("model.hidden", "64", (64,)),
        ("model.hidden", "[]", ()),
        ("folds", "0,2", (0, 2)),
        ("folds", "3", (3,)),
        ("testing.near_threatened_is_endangered", "true", True),
        ("testing.near_threatened_is_endangered", "false", False),
        ("data.dir", "some/where", Path("some/where")),
        ("data.dir", "~", None),
        ("batches.validation_chunks_per_recording", "null", None),
        ("batches.validation_chunks_per_recording", "3", 3),
    ],
)
def test_text_becomes_what_its_field_wants(key, text, wanted):
    found = value(configs.load("paper", {key: text}), key)
    assert found == wanted
    assert type(found) is type(wanted) or isinstance(wanted, Path)


@pytest.mark.parametrize(
    "overrides",
    [
        {"phase_1.epochs": 3, "model.hidden": [64]},
        {"phase_1": {"epochs": 3}, "model": {"hidden": (64,)}},
        "phase_1.epochs: 3\nmodel: {hidden: [64]}",
        '{"phase_1.epochs": "3", "model.hidden": "64"}',
    ],
)
def test_overrides_in_every_shape(overrides):
    config = configs.load("paper", overrides)
    assert (config.phase_1.epochs, config.model.hidden) == (3, (64,))
    assert configs.changed(configs.load("paper"), config).keys() == {"phase_1.epochs", "model.hidden"}


def test_yaml_text_with_an_exponent():
    # YAML reads 3e-5 as a string, since it has no point.
    assert configs.load("paper", "phase_2.learning_rate: 3e-5").phase_2.learning_rate == 3e-5


def test_one_fold_as_a_number():
    assert configs.load("paper", {"folds": 2}).folds == (2,)


# ---- files


def test_file_starts_from_its_base(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: sample\nphase_1:\n  learning_rate: 2e-3\nsplits.folds: 3\n")
    found = configs.load(path, {"seed": 5})
    expected = {"phase_1.learning_rate": (1e-3, 2e-3), "splits.folds": (4, 3), "seed": (0, 5)}
    assert configs.changed(configs.load("sample"), found) == expected


def test_overrides_win_over_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: sample\nseed: 1\n")
    assert configs.load(path, {"seed": 2}).seed == 2


@pytest.mark.parametrize("preset", ["sample", "paper"])
def test_dump_and_load_give_the_same_tree(preset, tmp_path):
    own = {"data.dir": tmp_path / "data", "folds": "0,3", "model.hidden": "[]", "phase_2.learning_rate": "3.3e-5"}
    config = configs.load(preset, own)
    path = tmp_path / "config.yaml"
    path.write_text(configs.dump(config))
    assert configs.load(path) == config
    assert configs.changed(configs.load(path), config) == {}


def test_dump_holds_every_key():
    tree, known = yaml.safe_load(configs.dump(configs.load("sample"))), configs.keys()

    def dotted(branch, prefix=""):
        for name, inner in branch.items():
            section = isinstance(inner, dict) and prefix + name not in known
            yield from dotted(inner, f"{prefix}{name}.") if section else [prefix + name]

    assert list(dotted(tree)) == ["base", *known]


# ---- what is searched by the tuning


@pytest.mark.parametrize("name", ["sample", "paper"])
def test_the_presets_spaces_hold_values_of_their_keys_and_the_preset_itself(name):
    config = configs.load(name)
    for stage in (1, 2):
        for key, values in configs.space(config, stage).items():
            now = configs.value(config, key)
            assert values.low <= now <= values.high if isinstance(values, Range) else now in values, key


def test_the_papers_grid_is_the_preset():
    space = configs.space(configs.load("paper"), 1)
    assert space["batches.threshold"] == (32, 64, 128, 256)
    assert space["model.dropout"] == (0.3, 0.5)
    assert {"phase_1.learning_rate", "phase_1.plateau_patience", "phase_1.batch_size"} < space.keys()
    assert {"augmentation.strength", "model.hidden"} < space.keys()


def test_a_space_is_set_whole_from_text_a_file_or_nested_and_its_values_get_their_types(tmp_path):
    text = "{phase_1.learning_rate: {low: 1e-4, high: 1e-2, log: true}, model.hidden: [[64], [64, 32]]}"
    (tmp_path / "mine.yaml").write_text(f"base: sample\ntuning: {{stage_1: {text}}}\n")
    for config in (configs.load("sample", {"tuning.stage_1": text}), configs.load(tmp_path / "mine.yaml")):
        found = configs.space(config, 1)
        assert found == {
            "phase_1.learning_rate": Range(low=0.0001, high=0.01, log=True),
            "model.hidden": ((64,), (64, 32)),
        }
    whole = configs.space(configs.load("sample", {"tuning.stage_1": {"phase_1.batch_size": {"low": 8, "high": 64}}}), 1)
    assert isinstance(whole["phase_1.batch_size"].low, int)
    numbers = configs.load("sample", {"tuning.stage_1": {"model.dropout": {"low": 0, "high": "0.5"}}})
    assert isinstance(configs.space(numbers, 1)["model.dropout"].low, float)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"phase_1.learning_rat": [1e-3]}, "unknown key 'phase_1.learning_rat'; did you mean 'phase_1.learning_rate'"),
        ({"phase_1": [1]}, "not a single setting 'phase_1'"),
        ({"phase_1.learning_rate": ["fast"]}, "phase_1.learning_rate='fast'"),
        ({"model.dropout": [0.3, 1.5]}, "model.dropout=1.5: Input should be less than 1"),
        ({"phase_1.batch_size": {"low": 8.5, "high": 16}}, "phase_1.batch_size=8.5"),
        ({"augmentation.where": {"low": 1, "high": 2}}, "augmentation.where=1"),
        ({"model.dropout": {"low": 0.5, "high": 0.3}}, "model.dropout: a range goes from low to high, not from 0.5"),
        ({"phase_1.learning_rate": {"low": 0, "high": 1, "log": True}}, "a range with log begins above 0, not at 0"),
        ({"model.dropout": 0.3}, "model.dropout: give a list of choices, or low and high"),
        ({"model.dropout": {"from": 0.3}}, "model.dropout: give a list of choices, or low and high"),
        ({"model.dropout": []}, "model.dropout: give a list of choices, or low and high"),
        ({"model.dropout": [0.3, "0.3"]}, "model.dropout names a choice twice"),
        ({"loss.kind": ["focal"]}, "loss.kind cannot be searched there, only phase_1, batches.threshold"),
        ({"splits.folds": [2, 4]}, "splits.folds cannot be searched there"),
        ({"phase_2.epochs": [2, 4]}, "phase_2.epochs cannot be searched there"),
        ({}, "at least 1 item"),
        (3, "a space is a mapping"),
    ],
    ids=str,
)
def test_a_space_that_cannot_be_is_refused_at_once(space, expected):
    assert expected in message("sample", {"tuning.stage_1": space})


def test_a_brief_file_is_read_back_to_the_same_settings_and_names_what_differs(tmp_path):
    for name in ("sample", "paper"):
        config = configs.load(name, {"model.hidden": "64,32", "phase_1.learning_rate": 3e-4, "data.dir": tmp_path})
        (tmp_path / "brief.yaml").write_text(configs.brief(config))
        assert configs.load(tmp_path / "brief.yaml") == config
        told = yaml.safe_load(configs.brief(config))
        assert told.keys() == {"base", "model.hidden", "phase_1.learning_rate", "data.dir"}
        assert told["base"] == name


def test_settings_have_a_hash_since_caches_are_kept_by_them():
    one, same = configs.load("sample"), configs.load("sample")
    assert hash(one) == hash(same)
    assert len({one, same, configs.load("sample", {"tuning.trials": 3})}) == 2


# ---- errors: one line that says what and where


def message(name, overrides=None):
    with pytest.raises(ConfigError) as caught:
        configs.load(name, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("phase_2.learning_rat", "phase_2.learning_rate"),
        ("phase_1.epoch", "phase_1.epochs"),
        ("silence.treshold", "silence.threshold"),
        ("learning_rate", ".learning_rate"),
        ("augmentation.strenght", "augmentation.strength"),
        ("sed", "seed"),
    ],
)
def test_an_unknown_key_names_the_nearest(key, nearest):
    found = message("paper", {key: 1})
    assert repr(key) in found
    assert "did you mean" in found
    assert nearest in found


def test_a_key_like_nothing_at_all():
    assert "unknown key 'zzzz'" in message("paper", {"zzzz": 1})


def test_a_section_is_not_a_setting():
    found = message("paper", {"silence": "peak"})
    assert "silence.measure" in found
    assert "silence.threshold" in found


def test_an_unknown_key_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: paper\nphase_1.epoch: 3\n")
    found = message(path)
    assert str(path) in found
    assert "phase_1.epochs" in found


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("phase_1.learning_rate", "fast"),
        ("phase_1.learning_rate", 0),
        ("phase_1.learning_rate", -1e-3),
        ("phase_1.learning_rate", "inf"),
        ("augmentation.gaussian_noise.min_snr_db", "nan"),
        ("phase_1.epochs", "2.5"),
        ("phase_1.epochs", 0),
        ("phase_1.batch_size", "many"),
        ("silence.measure", "loudness"),
        ("silence.threshold", 1.5),
        ("chunks.length_s", 0),
        ("chunks.overlap_s", -1),
        ("splits.test_share", 1),
        ("splits.folds", 1),
        ("splits.group_by", "species"),
        ("batches.threshold", 0),
        ("augmentation.where", "devise"),
        ("augmentation.strength", 3),
        ("augmentation.clipping.max_share", 2),
        ("model.dropout", 1),
        ("model.hidden", "a,b"),
        ("model.hidden", [0]),
        ("testing.near_threatened_is_endangered", "perhaps"),
        ("folds", "[]"),
        ("folds", [0, "x"]),
        ("seed", -1),
        ("seed", None),
        ("compute.workers", -2),
    ],
)
def test_a_bad_value_is_one_line_that_names_its_key(key, bad):
    assert key in message("sample", {key: bad})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"chunks.overlap_s": 5}, "chunks.overlap_s must be smaller than chunks.length_s"),
        ({"folds": [0, 4]}, "there is no fold 4"),
        ({"folds": [-1]}, "there is no fold -1"),
        ({"splits.folds": 2, "folds": 2}, "there is no fold 2"),
        ({"folds": [1, 1]}, "a fold is named twice"),
        ({"spectrogram.fmax_hz": 16_001}, "fmax_hz <= audio.sample_rate_hz / 2"),
        ({"spectrogram.fmin_hz": 15_000}, "fmin_hz < fmax_hz"),
        ({"augmentation.gaussian_noise.min_snr_db": 50}, "min_snr_db=50.0 is more than max_snr_db=40.0"),
        ({"augmentation.high_pass.min_cutoff_hz": 7000}, "min_cutoff_hz=7000.0 is more than max_cutoff_hz=6000.0"),
        ({"augmentation.band_pass.max_width": 0.1}, "min_width=0.5 is more than max_width=0.1"),
        ({"chunks.length_s": 0.05, "chunks.overlap_s": 0}, "a chunk is shorter than spectrogram.n_fft"),
    ],
)
def test_values_that_do_not_fit_each_other(overrides, words):
    assert words in message("paper", overrides)


def test_a_list_in_broken_brackets():
    assert "model.hidden" in message("paper", {"model.hidden": "[64, 32"})


@pytest.mark.parametrize("overrides", ["just text", "[1, 2]", "a: b: c"])
def test_overrides_that_are_no_mapping(overrides):
    assert "overrides" in message("paper", overrides)


def test_an_unknown_preset_names_those_there_are():
    found = message("papr")
    assert "'papr'" in found
    assert "paper, sample" in found


def test_a_missing_file(tmp_path):
    assert "nowhere.yaml" in message(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\n", "base: sample"),
        ("base: large\n", "base: sample"),
        ("", "base: sample"),
        ("- base\n", "expected keys"),
        ("base: [paper\n", "not readable as YAML"),
        ("base: paper\nphase_1: 3\n", "phase_1"),
    ],
)
def test_a_file_that_is_no_configuration(text, words, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    found = message(path)
    assert str(path) in found
    assert words in found


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00\x9f" * 10)
    assert str(path) in message(path)


# ---- the tree


def test_settings_are_frozen_and_closed():
    config = configs.load("paper")
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.seed = 1
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        config.phase_1.epochs = 1
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        type(config)(sed=1)


def test_an_override_leaves_the_preset_alone():
    configs.load("paper", {"phase_1.epochs": 1})
    assert configs.load("paper").phase_1.epochs != 1


def test_changed_names_both_values():
    one, other = (
        configs.load("paper"),
        configs.load("paper", {"silence.threshold": 0.2, "augmentation.cut_out.count": 5}),
    )
    expected = {"silence.threshold": (0.1, 0.2), "augmentation.cut_out.count": (2, 5)}
    assert configs.changed(one, other) == expected


def test_image_shape_follows_the_settings():
    overrides = {"spectrogram.n_mels": 64, "spectrogram.hop": 1000, "chunks.length_s": 3}
    config = configs.load("paper", overrides)
    assert (config.image_shape, config.step_samples) == ((64, 96, 3), 64_000)


# ---- augmentation


def test_a_background_needs_a_folder():
    with pytest.raises(ConfigError, match=r"augmentation\.background\.dir") as caught:
        configs.load("sample", {"augmentation.background.probability": 0.5})
    assert "\n" not in str(caught.value)
    found = configs.load(
        "sample", {"augmentation.background.probability": 0.5, "augmentation.background.dir": "sounds"}
    )
    assert found.augmentation.background.dir == Path("sounds")


@pytest.mark.parametrize(
    "values", [{"time_shift.probability": 0.5}, {"background.probability": 0.5, "background.dir": "sounds"}]
)
def test_the_host_has_no_more_than_the_six(values):
    values = {f"augmentation.{key}": value for key, value in values.items()}
    with pytest.raises(ConfigError, match=r"augmentation\.where=host has no (time_shift|background)"):
        configs.load("paper", {"augmentation.where": "host"} | values)
    configs.load("paper", {"augmentation.where": "off"} | values)
    configs.load("paper", values)
