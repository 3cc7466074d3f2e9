import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdlib import chance


def test_an_address_by_hand():
    # 907060870 is the CRC-32 of b"hello" by every implementation of it.
    assert chance.seeds(7, "hello", 3, "hello") == [7, 907060870, 3, 907060870]


def test_a_draw_is_numpys_at_that_address():
    expected = np.random.default_rng([5, zlib.crc32(b"order"), 2]).random(4)
    np.testing.assert_array_equal(chance.rng(5, "order", 2).random(4), expected)


def test_golden_values():
    # What numpy's PCG64 gives at these addresses; a change here changes every split, batch and augmentation.
    np.testing.assert_allclose(chance.rng(0, "order", 1).random(3), [0.9522333, 0.2359618, 0.85190678], atol=1e-8)
    assert chance.rng(1, "fold", "a/XC1.ogg").integers(2**31, size=2).tolist() == [2090053124, 1637371779]


def test_a_draw_does_not_depend_on_what_was_drawn_before():
    alone = chance.rng(0, "noise", 3, 9).random(5)
    for item in (1, 9, 2):
        chance.rng(0, "noise", 3, item).random(100)
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(chance.rng(0, "noise", 3, 9).random(5), alone)


@pytest.mark.parametrize(
    "other", [(1, "noise", 3, 9), (0, "order", 3, 9), (0, "noise", 4, 9), (0, "noise", 3, 8), (0, "noise", 9, 3)]
)
def test_every_part_of_the_address_counts(other):
    assert not np.array_equal(chance.rng(0, "noise", 3, 9).random(5), chance.rng(*other).random(5))


@given(st.integers(0, 2**63), st.text(max_size=20), st.lists(st.integers(0, 2**40) | st.text(max_size=5), max_size=4))
def test_any_address_is_one_numpy_takes(seed, purpose, item):
    seeds = chance.seeds(seed, purpose, *item)
    assert len(seeds) == 2 + len(item)
    assert all(type(part) is int and part >= 0 for part in seeds)
    np.random.default_rng(seeds)


def test_numpy_integers_count_as_their_value():
    assert chance.seeds(0, "a", np.int64(5)) == chance.seeds(0, "a", 5)


def test_the_same_in_another_process_and_thread():
    code = "from birdlib import chance; print(chance.rng(3, 'é', 1).integers(2**62))"
    # Python's own hash of a text differs from process to process; this must not.
    other = int(subprocess.check_output([sys.executable, "-c", code], text=True))
    found = []
    thread = threading.Thread(target=lambda: found.append(int(chance.rng(3, "é", 1).integers(2**62))))
    thread.start()
    thread.join()
    assert [other] == found


# ---- many at once


def test_draws_are_at_their_addresses():
    items = np.arange(1000), np.arange(1000) % 7
    every = chance.draws(0, "order", *items)
    assert every.dtype == np.uint64
    some = np.array([5, 900, 5])
    np.testing.assert_array_equal(chance.draws(0, "order", *(item[some] for item in items)), every[some])
    for other in (
        chance.draws(1, "order", *items),
        chance.draws(0, "chunks", *items),
        chance.draws(0, "order", *items[::-1]),
    ):
        assert (other != every).mean() > 0.99
    assert len(np.unique(every)) == 1000


def test_draws_are_even_and_neighbours_have_nothing_in_common():
    drawn = chance.draws(3, "order", np.repeat(np.arange(300), 300), np.tile(np.arange(300), 300))
    bits = (drawn[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    np.testing.assert_allclose(bits.mean(axis=0), 0.5, atol=0.01)  # six standard deviations
    table = (drawn / 2**64).reshape(300, 300)
    for one, other in ((table[1:], table[:-1]), (table[:, 1:], table[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


def test_draws_by_the_published_generator():
    # Splitmix64 from the state 1234567 (Vigna's reference values): each next state is the last one and a constant more.
    states = np.array([1234567 + step * 0x9E3779B97F4A7C15 & (2**64 - 1) for step in range(3)], np.uint64)
    assert chance._mixed(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_texts_as_numbers():
    assert chance.numbers(["123456789", ""]).tolist() == [0xCBF43926, 0]  # the check value of CRC-32
