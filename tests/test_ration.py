"""What goes into a store that is too small, against counting sample by sample and by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdlib import ration

LENGTH = 10


def table(recordings, step=8):
    """Chunks of recordings, each (label, [energy, ...]); under 0.1 a chunk is not kept."""
    rows = [
        (f"{label}/{number}", label, step * place, LENGTH, energy >= 0.1, energy)
        for number, (label, energies) in enumerate(recordings)
        for place, energy in enumerate(energies)
    ]
    return pd.DataFrame(rows, columns=["filename", "label", "start", "samples", "kept", "energy"])


def stored(chunks):
    """How many different samples chunks hold."""
    return len({(row.filename, row.start + at) for row in chunks.itertuples() for at in range(row.samples)})


def even(counts):
    """Whether none has two more than one that has not all."""
    lacking = counts.loc[~counts["all"], "sum"]
    return lacking.empty or counts["sum"].max() - lacking.min() <= 1


RECORDINGS = st.lists(
    st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=8)),
    min_size=1,
    max_size=8,
)


@given(
    recordings=RECORDINGS, budget=st.integers(0, 400), step=st.sampled_from([3, 5, 8, 10, 12]), seed=st.integers(0, 9)
)
def test_the_budget_holds_and_is_used(recordings, budget, step, seed):
    chunks = table(recordings, step).sample(frac=1, random_state=seed)
    chosen = ration.choose(chunks, LENGTH, budget)
    used = stored(chunks[chosen])
    assert used <= budget
    if step >= LENGTH / 2 and not chosen.all():
        assert used > budget - LENGTH  # the next one would not have fitted


@given(recordings=RECORDINGS, budget=st.integers(0, 400), seed=st.integers(0, 9))
def test_what_comes_first(recordings, budget, seed):
    chunks = table(recordings).sample(frac=1, random_state=seed)
    chunks["in"] = ration.choose(chunks, LENGTH, budget)
    assert not chunks.loc[~chunks["kept"], "in"].any() or chunks.loc[chunks["kept"], "in"].all()
    for _, tier in chunks.groupby("kept"):
        for _, mine in tier.groupby("filename"):
            inside, outside = mine.loc[mine["in"], "energy"], mine.loc[~mine["in"], "energy"]
            assert inside.min() >= outside.max() or inside.empty or outside.empty
        for _, one in tier.groupby("label"):
            by_recording = one.groupby("filename")["in"].agg(["sum", "all"])
            assert even(by_recording)
        by_class = tier.groupby("label")["in"].agg(["sum", "all"])
        assert even(by_class)


@given(recordings=RECORDINGS, budget=st.integers(0, 300))
def test_more_room_takes_nothing_out(recordings, budget):
    chunks = table(recordings)
    less, more = ration.choose(chunks, LENGTH, budget), ration.choose(chunks, LENGTH, budget + 25)
    assert (more | ~less).all()


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (0, []),
        (10, ["a/0@8"]),
        (29, ["a/0@8", "b/1@0"]),
        (30, ["a/0@8", "b/1@0", "a/2@0"]),
        (38, ["a/0@8", "b/1@0", "a/2@0", "b/1@8"]),  # eight samples: two are shared with its neighbour
        (46, ["a/0@8", "b/1@0", "a/2@0", "b/1@8", "a/0@0"]),
    ],
)
def test_turns_by_hand(budget, expected):
    # a: two recordings, so that its second turn is the other recording's; its silent chunk comes after all.
    chunks = table([("a", [0.5, 0.9, 0.01]), ("b", [0.9, 0.3]), ("a", [0.2])])
    chosen = chunks[ration.choose(chunks, LENGTH, budget)]
    assert sorted(f"{row.filename}@{row.start}" for row in chosen.itertuples()) == sorted(expected)


def test_everything_fits_exactly():
    chunks = table([("a", [0.5, 0.9, 0.01]), ("b", [0.9, 0.3])])
    assert ration.choose(chunks, LENGTH, 26 + 18).all()
    assert ration.choose(chunks, LENGTH, 26 + 17).sum() == 4


def test_no_chunks():
    assert ration.choose(table([]), LENGTH, 100).tolist() == []


@pytest.mark.slow
def test_the_size_of_birdclef():
    rng = np.random.default_rng(0)
    recordings = [(f"s{number % 182}", rng.random(max(1, int(rng.lognormal(1.6, 1.1))))) for number in range(24_459)]
    chunks = table(recordings)
    budget = 7 * len(chunks)
    chosen = ration.choose(chunks, LENGTH, budget)
    assert budget - LENGTH < stored(chunks[chosen]) <= budget
