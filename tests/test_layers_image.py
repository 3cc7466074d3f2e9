"""The cut-out against boxes worked out by hand, and mixup; under any backend."""

import keras
import numpy as np
import pytest

from birdlib import config as configs
from birdlib import draws
from birdlib.layers_image import CutOut, MixUp, cut_out_preview

CONFIG = configs.load("paper")


TWO_BOXES = {"probability": 0.5, "count": 2, "max_share": 0.5}
WHITE = np.full((1, 8, 10, 3), 200, np.float32)


def with_boxes(strength=1.0, **settings):
    return configs.load("paper", {"augmentation": {"cut_out": settings, "strength": strength}})


def cut(images, chance, settings=TWO_BOXES, strength=1.0, training=True):
    layer = CutOut(with_boxes(strength, **settings))
    chance = np.asarray(chance, np.float32)
    return keras.ops.convert_to_numpy(layer(np.asarray(images, np.float32), chance, training=training))


def test_cut_out_takes_one_number_and_four_a_box():
    assert draws.numbers(with_boxes(**TWO_BOXES))["cut_out"] == 9
    assert draws.numbers(with_boxes(count=1))["cut_out"] == 5


def test_cut_out_blanks_the_boxes_that_the_numbers_say():
    # Heights 1.0 and 0.5 of half of 8 rows: 4 and 2 rows. Widths 0.4 and 0.8 of half of 10 columns: 2 and 4 columns.
    # Places: row 0.5 of the 4 left over = 2; row 1.0 of the 6 = 6. Column 0 of the 8 = 0; column 0.5 of the 6 = 3.
    chance = [[0.1, 1.0, 0.5, 0.4, 0.0, 0.5, 1.0, 0.8, 0.5]]
    expected = WHITE.copy()
    expected[0, 2:6, 0:2] = 0
    expected[0, 6:8, 3:7] = 0
    np.testing.assert_array_equal(cut(WHITE, chance), expected)


def test_cut_out_of_half_strength_cuts_half_as_high_and_wide():
    # 4 and 5 become 2 rows and, of 10 columns, 2.5: centred on 3.75 + 1.25, it holds the middles of columns 4 and 5.
    chance = [[0.1, 1.0, 0.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0]]
    expected = WHITE.copy()
    expected[0, 0:2, 4:6] = 0
    np.testing.assert_array_equal(cut(WHITE, chance, strength=0.5), expected)


def test_cut_out_never_cuts_more_than_the_image():
    chance = [[0.0, 1.0, 0.7, 1.0, 0.3, 0.0, 0.0, 0.0, 0.0]]
    settings = {"probability": 0.5, "count": 2, "max_share": 0.8}
    assert (cut(WHITE, chance, settings, strength=2.0) == 0).all()


def test_cut_out_of_no_strength_cuts_nothing():
    chance = np.random.default_rng(0).random((1, 9), np.float32) * [0.0, *[1.0] * 8]
    np.testing.assert_array_equal(cut(WHITE, chance, strength=0.0), WHITE)


def test_cut_out_does_nothing_at_inference():
    chance = np.zeros((1, 9))
    chance[:, 1:] = 0.9
    np.testing.assert_array_equal(cut(WHITE, chance, training=False), WHITE)
    assert (cut(WHITE, chance) == 0).any()
    layer = CutOut(with_boxes(**TWO_BOXES))
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(layer(WHITE, chance.astype(np.float32))), WHITE
    )  # not told: not training


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_cut_out_cuts_as_often_as_its_probability(probability):
    settings = {"probability": probability, "count": 1, "max_share": 1.0}
    chance = np.random.default_rng(5).random((2000, 5), np.float32)
    chance[:, [1, 3]] = 1.0  # boxes of the whole image
    cut_away = (cut(np.ones((2000, 3, 4, 3)), chance, settings) == 0).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(cut_away, chance[:, 0] < probability)
    assert cut_away.mean() == pytest.approx(probability, abs=0.035)  # three standard errors


def test_cut_out_of_a_sample_depends_on_its_own_numbers_alone():
    rng = np.random.default_rng(1)
    batch, chance = rng.uniform(1, 255, (6, 8, 10, 3)), rng.random((6, 9), np.float32)
    chance[:, 0] = [0.1, 0.9, 0.2, 0.3, 0.7, 0.4]
    together = cut(batch, chance)
    for one in range(6):
        np.testing.assert_array_equal(cut(batch[one : one + 1], chance[one : one + 1])[0], together[one])
    assert len({(image == 0).all(axis=-1).tobytes() for image in together[[0, 2, 3, 5]]}) == 4  # each its own boxes


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_cut_out_is_in_a_compiled_model_what_it_is_alone():
    chance = np.random.default_rng(2).random((4, 9), np.float32)
    chance[:, 0] = 0
    batch = np.repeat(WHITE, 4, axis=0)
    images_in, chance_in = keras.Input((8, 10, 3)), keras.Input((9,))
    model = keras.Model([images_in, chance_in], CutOut(with_boxes(**TWO_BOXES))(images_in, chance_in))
    model.compile(jit_compile=keras.config.backend() == "jax", loss="mse")
    np.testing.assert_array_equal(model.predict([batch, chance], verbose=0), batch)
    assert model.output.shape == (None, 8, 10, 3)
    # evaluate runs as at inference, train_on_batch as in training: the loss against the untouched images says so.
    assert model.test_on_batch([batch, chance], batch) == 0
    model.reset_metrics()  # Keras 3.13 would average over both
    cut_share = (cut(batch, chance) == 0).mean()
    assert 0 < cut_share < 1
    assert float(np.mean(model.train_on_batch([batch, chance], batch))) == pytest.approx(cut_share * 200**2, rel=1e-5)


# --- mixup ---------------------------------------------------------------------------------------------------------


def mix(images, chance, training=True, **settings):
    config = configs.load("paper", {"augmentation.mixup": {"probability": 0.5, **settings}})
    found = MixUp(config)(np.asarray(images, np.float32), np.asarray(chance, np.float32), training=training)
    return keras.ops.convert_to_numpy(found)


def flat(*levels):
    return np.array(levels, np.float32)[:, None, None, None] * np.ones((1, 4, 5, 3), np.float32)


def test_mixup_takes_the_share_of_the_partner_that_the_numbers_say():
    # The second takes a quarter of the fourth, the fourth half of the first (one on, round the batch); the others none.
    found = mix(flat(0, 100, 200, 40), [[2, 0], [2, 0.25], [0, 0], [1, 0.5]])
    np.testing.assert_allclose(found, flat(0, 85, 200, 20), rtol=1e-6)


def test_mixup_does_nothing_at_inference_nor_when_it_is_off():
    images = flat(0, 100)
    for nothing in ({"training": False}, {"probability": 0}):
        np.testing.assert_array_equal(mix(images, [[1, 0.5], [1, 0.5]], **nothing), images)


# --- the preview ---


def test_the_cut_outs_preview_grows_with_the_strength():
    image = np.full((128, 320, 3), 200, np.float32)
    shown = cut_out_preview(image, CONFIG, {"weak": 0.25, "strong": 1.0})
    assert list(shown) == ["before", "weak: 2 boxes, 8% of each side", "strong: 2 boxes, 30% of each side"]
    before, weak, strong = ((each == 0).mean() for each in shown.values())
    assert before == 0
    # Two boxes, which may overlap: between one box's and two boxes' share of the image.
    assert 0.075**2 * 0.9 <= weak <= 2 * 0.075**2 * 1.1
    assert 0.3**2 * 0.9 <= strong <= 2 * 0.3**2 * 1.1
