"""What a sample draws: whose numbers are which, addresses, and mixup's partners and labels worked out by hand."""

import numpy as np
import pytest

from birdlib import config as configs
from birdlib import draws

CONFIG = configs.load("paper")
ONE_HOT = np.eye(8, dtype=np.float32)


def mixing(**settings):
    return configs.load("paper", {"augmentation.mixup": {"probability": 1, **settings}})


def partners(drawn, config):
    """Rows of the partners, and their shares."""
    further, share = drawn[:, draws.places(config)["mixup"]].T
    return np.arange(len(drawn)) + further.astype(int), share


def test_every_number_belongs_to_one_effect():
    for boxes in (1, 2, 5):
        config = configs.load("paper", {"augmentation.cut_out.count": boxes})
        places = draws.places(config)
        owned = np.concatenate([np.arange(draws.count(config))[where] for where in places.values()])
        np.testing.assert_array_equal(owned, np.arange(draws.count(config)))
        assert {name: where.stop - where.start for name, where in places.items()} == draws.numbers(config)
        assert draws.numbers(config)["cut_out"] == 1 + 4 * boxes
        assert set(places) == {name for name, each in config.augmentation if hasattr(each, "probability")}


def test_the_filters_numbers_are_side_by_side():
    places = draws.places(CONFIG)
    assert places["high_pass"].stop == places["band_pass"].start


def test_numbers_are_uniform_and_each_samples_own():
    drawn = draws.of(CONFIG, 3, range(400))
    assert (drawn.dtype, drawn.shape) == (np.dtype("float32"), (400, draws.count(CONFIG)))
    uniform = drawn[:, : draws.places(CONFIG)["mixup"].start]
    assert uniform.min() >= 0
    assert uniform.max() < 1
    np.testing.assert_allclose(uniform.mean(axis=0), 0.5, atol=0.08)  # five standard errors
    assert len(np.unique(uniform)) > 0.99 * uniform.size


def test_numbers_are_a_function_of_the_address():
    whole = draws.of(CONFIG, 3, range(10))
    np.testing.assert_array_equal(draws.of(CONFIG, 3, [7, 2]), whole[[7, 2]])
    for other in (draws.of(CONFIG, 4, range(10)), draws.of(configs.load("paper", {"seed": 1}), 3, range(10))):
        assert (other != whole)[:, : draws.places(CONFIG)["mixup"].start].all()


def test_nothing_is_mixed_unless_it_is_asked_for():
    for config, rows in ((CONFIG, 8), (mixing(probability=0), 8), (mixing(), 1)):
        drawn = draws.of(config, 0, range(rows))
        found, targets = draws.mixed(drawn, ONE_HOT[:rows], config, 0, range(rows))
        np.testing.assert_array_equal(targets, ONE_HOT[:rows])
        np.testing.assert_array_equal(found, drawn)
        assert (partners(found, config)[1] == 0).all()


@pytest.mark.parametrize("labels", ["convex", "maximum"])
def test_labels_are_mixed_as_the_images_are(labels):
    config = mixing(labels=labels, probability=0.7)
    drawn, targets = draws.mixed(draws.of(config, 2, range(8)), ONE_HOT, config, 2, range(8))
    partner, share = partners(drawn, config)
    assert targets.dtype == drawn.dtype == np.float32
    mixed = share > 0
    assert 0 < mixed.sum() < 8
    assert (partner[mixed] != np.flatnonzero(mixed)).all()  # never with itself
    for row in range(8):
        expected = np.zeros(8)
        expected[row] = 1 if labels == "maximum" else 1 - share[row]
        if mixed[row]:
            expected[partner[row]] = 1 if labels == "maximum" else share[row]
        np.testing.assert_allclose(targets[row], expected, atol=1e-6)


def test_partners_and_shares_are_all_there_are():
    config = mixing(alpha=1.0)
    every = [
        draws.mixed(draws.of(config, epoch, range(8)), ONE_HOT, config, epoch, range(8))[0] for epoch in range(150)
    ]
    rows, shares = zip(*(partners(drawn, config) for drawn in every), strict=True)
    counts = np.bincount(np.concatenate([(row - np.arange(8)) % 8 for row in rows]), minlength=8)
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:], 1200 / 7, rtol=0.35)  # five standard errors
    shares = np.concatenate(shares)
    assert shares.max() <= 0.5
    np.testing.assert_allclose(np.quantile(shares, [0.25, 0.5, 0.75]), [0.125, 0.25, 0.375], atol=0.03)  # uniform
    half = configs.load("paper", {"augmentation": {"mixup": {"probability": 1, "alpha": 1.0}, "strength": 0.5}})
    _, share = partners(draws.mixed(draws.of(half, 0, range(8)), ONE_HOT, half, 0, range(8))[0], half)
    np.testing.assert_allclose(share, shares[:8] / 2, rtol=1e-5)


def test_mixing_is_a_function_of_the_address():
    config = mixing()
    one, other = (draws.mixed(draws.of(config, epoch, range(8)), ONE_HOT, config, epoch, range(8)) for epoch in (0, 1))
    again = draws.mixed(draws.of(config, 0, range(8)), ONE_HOT, config, 0, range(8))
    np.testing.assert_array_equal(again[0], one[0])
    np.testing.assert_array_equal(again[1], one[1])
    assert (one[1] != other[1]).any()


@pytest.mark.parametrize(
    ("rows", "shards", "parts"), [(8, 2, [4, 4]), (7, 2, [4, 3]), (5, 4, [2, 2, 1]), (3, 4, [1] * 3)]
)
def test_partners_are_on_the_same_device(rows, shards, parts):
    config = mixing()
    part = np.repeat(np.arange(len(parts)), parts)
    seen = set()
    for epoch in range(60):
        slots = range(20, 20 + rows)
        drawn, targets = draws.mixed(draws.of(config, epoch, slots), ONE_HOT[:rows], config, epoch, slots, shards)
        partner, share = partners(drawn, config)
        alone = np.bincount(part)[part] == 1
        np.testing.assert_array_equal(partner == np.arange(rows), alone)  # never with itself, unless there is no other
        np.testing.assert_array_equal(share[alone], 0)
        np.testing.assert_array_equal(part[partner], part)
        for row in np.flatnonzero(~alone):
            np.testing.assert_allclose(targets[row, partner[row]], share[row], atol=1e-6)
        seen |= set(zip(range(rows), partner.tolist(), strict=True))
    assert len(seen) == sum(size * (size - 1) if size > 1 else 1 for size in parts)  # every pair there is


def test_what_the_numbers_apply_is_told():
    drawn = np.full((4, draws.count(CONFIG)), 0.99, np.float32)
    places = draws.places(CONFIG)
    drawn[:, places["mixup"]] = 0
    drawn[1:3, places["cut_out"].start] = 0.49
    drawn[2, places["pitch_shift"].start] = 0
    drawn[3, places["mixup"]] = [2, 0.3]
    assert draws.told(drawn, CONFIG) == ["nothing", "cut-out", "pitch shift, cut-out", "mixup"]
    host = configs.load("paper", {"augmentation.where": "host"})
    assert draws.told(drawn, host) == ["nothing", "cut-out", "cut-out", "mixup"]
    none = configs.load("paper", {"augmentation.strength": 0})
    assert draws.told(drawn, none) == ["nothing"] * 4
