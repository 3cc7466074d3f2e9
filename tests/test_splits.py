from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdlib import splits
from birdlib.metadata import MetadataError
from birdlib.settings import Splits

METADATA = Path(__file__).parents[2] / "shared/data/birdclef2023/train_metadata.csv"


def recordings_of(counts, authors=None):
    """Recordings with audio of their own: `counts` recordings of each label."""
    names = [(f"{label}/XC{i:05d}.ogg", label) for label, count in counts.items() for i in range(count)]
    table = pd.DataFrame(names, columns=["filename", "primary_label"])
    table["author"] = [f"author of {name}" for name in table["filename"]] if authors is None else authors
    table["audio_hash"] = [f"hash of {name}" for name in table["filename"]]
    return table


def long_tail(total=24_459, classes=182, seed=0):
    """Long-tailed class sizes from 5 to 500 that sum to `total`."""
    sizes = np.geomspace(5, 500, classes)
    sizes = np.clip(np.round(sizes * total / sizes.sum()), 5, 500).astype(int)
    room = np.flatnonzero((sizes > 50) & (sizes < 400))
    np.add.at(sizes, np.random.default_rng(seed).choice(room, total - sizes.sum()), 1)
    return {f"bird{i:03d}": int(size) for i, size in enumerate(sizes)}


def side_of(table):
    return table.set_index("filename")["split"] + table.set_index("filename")["fold"].astype(str)


def shared(values):
    """Lists of filenames that share a value which says something (not missing, not blank)."""
    says = values[values.notna() & (values.astype(str).str.strip() != "")]
    return [list(names) for names in says.groupby(says).groups.values()]


def reference_groups(recordings, group_by):
    """Groups by merging sets until nothing merges: slow, and nothing like the graph in the library."""
    indexed = recordings.set_index("filename")
    groups = [{name} for name in indexed.index]
    ties = shared(indexed["audio_hash"]) + (shared(indexed["author"]) if group_by == "author" else [])
    for tie in map(set, ties):
        touched = [group for group in groups if group & tie]
        groups = [group for group in groups if not group & tie] + [set().union(*touched)]
    return groups


def groups_by_label(recordings, groups):
    label_of = recordings.set_index("filename")["primary_label"]
    return {
        label: [group for group in groups if any(label_of[name] == label for name in group)]
        for label in label_of.unique()
    }


def assert_no_leak(recordings, table, group_by):
    side = side_of(table).to_dict()
    indexed = recordings.set_index("filename")
    ties = shared(indexed["audio_hash"]) + (shared(indexed["author"]) if group_by == "author" else [])
    for names in ties:
        assert len({side[name] for name in names}) == 1, names


def assert_class_rules(table, folds):
    for fold in range(folds):
        training = (table["split"] == "train") & (table["fold"] != fold)
        assert set(table.loc[training, "primary_label"]) == set(table["primary_label"])


# ---- the table


def test_a_row_a_recording_sorted_with_the_promised_columns():
    recordings = recordings_of({"b": 9, "a": 12}).sample(frac=1, random_state=3)
    table = splits.make(recordings, 0.15, 4, "recording", 0)
    assert list(table.columns) == ["filename", "primary_label", "group", "split", "fold"]
    assert table["filename"].tolist() == sorted(recordings["filename"])
    assert table["fold"].dtype == np.int8
    assert table.index.tolist() == list(range(21))
    assert dict(zip(table["filename"], table["primary_label"], strict=True)) == dict(
        zip(recordings["filename"], recordings["primary_label"], strict=True)
    )
    assert (table.loc[table["split"] == "test", "fold"] == -1).all()
    assert set(table.loc[table["split"] == "train", "fold"]) == {0, 1, 2, 3}


def test_group_is_its_smallest_filename():
    recordings = recordings_of({"a": 4})
    recordings["audio_hash"] = ["x", "y", "x", "y"]
    table = splits.make(recordings, 0, 2, "recording", 0)
    assert table["group"].tolist() == ["a/XC00000.ogg", "a/XC00001.ogg"] * 2


@pytest.mark.parametrize("group_by", ["recording", "author"])
def test_groups_chain_over_audio_and_authors(group_by):
    recordings = recordings_of({"a": 5}, authors=["anna", "anna", "ben", "ben", "cleo"])
    recordings["audio_hash"] = ["1", "2", "2", "3", "4"]
    groups = splits.make(recordings, 0, 2, group_by, 0).groupby("group")["filename"].nunique()
    assert sorted(groups) == ([1, 4] if group_by == "author" else [1, 1, 1, 2])


@pytest.mark.parametrize("nobody", [None, np.nan, "", "  "])
def test_recordings_without_an_author_are_groups_of_their_own(nobody):
    recordings = recordings_of({"a": 20}, authors=[nobody] * 20)
    assert splits.make(recordings, 0.15, 4, "author", 0)["group"].nunique() == 20


def test_recordings_without_a_hash_are_groups_of_their_own():
    recordings = recordings_of({"a": 6}).assign(audio_hash=[None, None, "", "", "x", "x"])
    assert splits.make(recordings, 0, 2, "recording", 0)["group"].nunique() == 5


# ---- the rules for small classes


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("group_by", ["recording", "author"])
def test_classes_of_one_to_five_groups(group_by, seed):
    table = splits.make(recordings_of({"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}), 0.15, 4, group_by, seed)
    by_label = dict(list(table.groupby("primary_label")))
    assert by_label["one"]["split"].tolist() == ["train"]
    assert by_label["one"]["fold"].tolist() == [-1]
    assert by_label["two"]["split"].tolist() == ["train"] * 2
    for label in ("three", "four", "five"):
        assert (by_label[label]["split"] == "test").sum() == 1
    for label in ("two", "three", "four", "five"):
        folds = by_label[label].loc[by_label[label]["split"] == "train", "fold"]
        assert folds.nunique() == len(folds), "spread as widely as there are folds"
        assert (folds >= 0).all()


def test_two_groups_of_many_recordings_are_never_in_the_test():
    recordings = recordings_of({"a": 30, "b": 30}, authors=["anna"] * 20 + ["ben"] * 10 + [f"b{i}" for i in range(30)])
    table = splits.make(recordings, 0.3, 3, "author", 0)
    a = table[table["primary_label"] == "a"]
    assert set(a["split"]) == {"train"}
    assert a["fold"].nunique() == 2
    assert splits.unscored(table) == ["a"]


def test_an_author_who_holds_all_of_a_class_always_trains_with_all_he_has():
    recordings = recordings_of({"a": 10, "b": 20}, authors=["anna"] * 14 + [f"b{i}" for i in range(16)])
    for seed in range(5):
        table = splits.make(recordings, 0.2, 4, "author", seed)
        hers = table[table["filename"].isin(recordings["filename"][:14])]
        assert set(hers["split"]) == {"train"}
        assert set(hers["fold"]) == {-1}
        assert_class_rules(table, 4)
        assert "a" in splits.unscored(table)
        assert "a" in splits.unscored(table, 0)


def test_one_author_of_everything_trains_and_nothing_validates():
    table = splits.make(recordings_of({"a": 5, "b": 5}, authors=["anna"] * 10), 0.15, 4, "author", 0)
    assert set(table["fold"]) == {-1}
    with pytest.raises(splits.SplitError, match="no recording validates fold 0"):
        splits.side(table, "train", 0)


def test_a_class_gets_its_test_group_though_another_stands_in_the_way():
    """Whoever is picked for the test first, every class finds a place: "a" has only one way in, through ben or cleo."""
    rows = [("b", "anna"), ("b", "ben"), ("b", "cleo"), ("a", "ben"), ("a", "cleo"), ("a", "dora"), ("once", "dora")]
    table = pd.DataFrame(rows, columns=["primary_label", "author"])
    table["filename"] = [f"{i}.ogg" for i in range(len(rows))]
    table["audio_hash"] = table["filename"]
    for seed in range(20):
        assert splits.unscored(splits.make(table, 0.2, 2, "author", seed)) == ["once"]


def folds_by_author(counts, folds, seed):
    rows = [pair for pair, count in counts.items() for _ in range(count)]
    table = pd.DataFrame(rows, columns=["author", "primary_label"])
    table["filename"] = table["audio_hash"] = [f"{i:03d}.ogg" for i in range(len(rows))]
    dealt = splits.make(table, 0, folds, "author", seed)
    splits.check(dealt)
    return dealt.merge(table[["filename", "author"]]).groupby("author")["fold"].first()


@pytest.mark.parametrize("seed", range(10))
def test_of_three_authors_who_pairwise_share_a_class_two_folds_hold_two(seed):
    pairs = [("anna", "a"), ("cleo", "a"), ("ben", "b"), ("cleo", "b"), ("anna", "c"), ("ben", "c")]
    assert sorted(folds_by_author(dict.fromkeys(pairs, 1), 2, seed)) == [-1, 0, 1]


@pytest.mark.parametrize("seed", range(10))
def test_an_author_moves_to_a_less_even_fold_where_training_needs_it(seed):
    """Ben is drawn to anna's fold, away from dora; but then nobody would train on "a" while it validates."""
    counts = {("anna", "a"): 10, ("dora", "b"): 6, ("ben", "a"): 1, ("ben", "b"): 3, ("emil", "b"): 1}
    fold = folds_by_author(counts, 2, seed)
    assert (fold >= 0).all()
    assert fold["ben"] != fold["anna"]


def test_no_test_share_no_test():
    table = splits.make(recordings_of({"a": 40, "b": 3}), 0, 4, "recording", 0)
    assert set(table["split"]) == {"train"}
    assert len(splits.side(table, "test")) == 0
    assert splits.unscored(table) == ["a", "b"]


# ---- shares at the real scale


def test_shares_by_recording_at_scale():
    counts = long_tail()
    recordings = recordings_of(counts)
    assert len(recordings) == 24_459
    table = splits.make(recordings, 0.15, 4, "recording", 0)
    splits.check(table)
    size = pd.Series(counts)
    test = table[table["split"] == "test"].groupby("primary_label").size().reindex(size.index, fill_value=0)
    assert (np.abs(test - np.maximum(1, 0.15 * size)) <= 0.5 + 1e-9).all()
    folds = table[table["fold"] >= 0].groupby(["primary_label", "fold"]).size().unstack(fill_value=0)
    assert (folds.max(axis=1) - folds.min(axis=1)).max() <= 1
    assert (folds.sum(axis=1) + test == size).all()
    assert folds.sum().max() - folds.sum().min() < 0.02 * len(table)


def test_shares_by_author_at_scale():
    """Authors with hundreds of recordings over dozens of labels beside hundreds with a few."""
    rng = np.random.default_rng(1)
    recordings = recordings_of(long_tail())
    weight = 1 / np.arange(1, 1501) ** 0.9
    authors = rng.choice(1500, len(recordings), p=weight / weight.sum())
    recordings["author"] = np.where(rng.random(len(recordings)) < 0.02, None, [f"author {i}" for i in authors])
    assert recordings["author"].value_counts().iloc[0] > 500
    table = splits.make(recordings, 0.15, 4, "author", 0)
    splits.check(table)
    assert_no_leak(recordings, table, "author")
    assert (table["split"] == "test").mean() == pytest.approx(0.15, abs=0.03)
    assert splits.unscored(table) == []
    size = table.groupby("primary_label").size()
    share = (table["split"] == "test").groupby(table["primary_label"]).mean()[size > 100]
    assert share.median() == pytest.approx(0.15, abs=0.02)
    assert share.min() > 0.05
    assert share.max() < 0.35
    folds = table.loc[table["fold"] >= 0, "fold"].value_counts(normalize=True)
    assert folds.to_numpy() == pytest.approx(0.25, abs=0.03)


@pytest.mark.skipif(not METADATA.is_file(), reason="the real BirdCLEF 2023 metadata is not here")
@pytest.mark.parametrize("group_by", ["recording", "author"])
def test_real_metadata(group_by):
    recordings = pd.read_csv(METADATA)
    recordings["audio_hash"] = recordings["filename"]
    table = splits.make(recordings, 0.15, 4, group_by, 0)
    splits.check(table)
    assert len(table) == 16_941
    assert splits.labels(table) == sorted(recordings["primary_label"].unique())
    assert_no_leak(recordings, table, group_by)
    assert_class_rules(table, 4)
    unit = recordings["author"].fillna(recordings["filename"]) if group_by == "author" else recordings["filename"]
    groups = unit.groupby(recordings["primary_label"]).nunique()
    absent = groups[splits.unscored(table)]
    if group_by == "recording":
        assert (table["split"] == "test").mean() == pytest.approx(0.15, abs=0.005)
        assert (absent < 3).all()
    else:
        assert (table["split"] == "test").mean() == pytest.approx(0.15, abs=0.05)
        assert (absent >= 3).sum() <= 10  # few: they share their authors with classes that need them in training


# ---- chance


@pytest.mark.parametrize("group_by", ["recording", "author"])
def test_row_order_and_index_do_not_matter(group_by):
    recordings = recordings_of({"a": 40, "b": 25, "c": 7}, authors=[f"{i % 11}" for i in range(72)])
    first = splits.make(recordings, 0.2, 4, group_by, 7)
    again = splits.make(recordings.sample(frac=1, random_state=1), 0.2, 4, group_by, 7)
    pd.testing.assert_frame_equal(first, again)


@pytest.mark.parametrize("group_by", ["recording", "author"])
def test_seed_changes_test_and_folds(group_by):
    recordings = recordings_of({"a": 60, "b": 60}, authors=[f"{i % 30}" for i in range(120)])
    tables = [splits.make(recordings, 0.2, 4, group_by, seed) for seed in (0, 1)]
    tests = [set(splits.side(table, "test")["filename"]) for table in tables]
    assert tests[0] != tests[1]
    both = [table.set_index("filename")["fold"] for table in tables]
    assert (both[0] != both[1]).mean() > 0.2


def test_a_class_that_shares_nothing_changes_nothing():
    recordings = recordings_of({"a": 40, "b": 25, "c": 7})
    whole = splits.make(recordings, 0.2, 4, "recording", 0)
    without = splits.make(recordings[recordings["primary_label"] != "b"], 0.2, 4, "recording", 0)
    pd.testing.assert_frame_equal(whole[whole["primary_label"] != "b"].reset_index(drop=True), without)


def test_every_recording_is_as_likely_in_the_test():
    recordings = recordings_of({"a": 20})
    tests = [splits.side(splits.make(recordings, 0.25, 4, "recording", seed), "test") for seed in range(200)]
    drawn = pd.concat(tests)["filename"].value_counts().reindex(recordings["filename"], fill_value=0)
    assert drawn.sum() == 200 * 5
    assert drawn.between(25, 78).all()  # 50 expected, standard deviation 6


# ---- properties

ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcde"),
        st.sampled_from(["anna", "ben", "cleo", "dora", "emil", None, "", float("nan")]),
        st.one_of(st.none(), st.sampled_from("xyz"), st.integers(0, 10**6).map(str)),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(
    rows=ROWS,
    share=st.sampled_from([0, 0.15, 0.3, 0.6, 0.95]),
    folds=st.integers(2, 5),
    group_by=st.sampled_from(["recording", "author"]),
    seed=st.integers(0, 2**31),
)
def test_rules_hold_for_any_table(rows, share, folds, group_by, seed):
    recordings = pd.DataFrame(rows, columns=["primary_label", "author", "audio_hash"])
    recordings["filename"] = [f"{i:02d}.ogg" for i in range(len(rows))]
    table = splits.make(recordings, share, folds, group_by, seed)
    splits.check(table)
    assert_no_leak(recordings, table, group_by)
    assert_class_rules(table, folds)
    groups = reference_groups(recordings, group_by)
    assert {frozenset(names) for names in table.groupby("group")["filename"].agg(set)} == set(map(frozenset, groups))
    split = table.set_index("filename")["split"]
    fold = table.set_index("filename")["fold"]
    by_label = groups_by_label(recordings, groups)
    outside = {
        label: sum(split[next(iter(group))] == "train" for group in members) for label, members in by_label.items()
    }
    labels_of = {frozenset(group): [label for label in by_label if group in by_label[label]] for group in groups}
    for members in by_label.values():
        if len(members) == 1:
            assert set(split[list(members[0])]) == {"train"}
            assert set(fold[list(members[0])]) == {-1}
        elif len(members) == 2 or share == 0:
            assert all(set(split[list(group)]) == {"train"} for group in members)
        elif all(split[next(iter(group))] == "train" for group in members):
            # Absent from the test: then each of its groups would leave some class fewer than two outside.
            assert all(any(outside[label] <= 2 for label in labels_of[frozenset(group)]) for group in members)


# ---- check


@pytest.fixture
def good():
    recordings = recordings_of({"a": 20, "b": 12, "c": 2, "d": 1}, authors=[f"{i % 13}" for i in range(35)])
    recordings["audio_hash"] = recordings["filename"].str.replace("a/XC00001", "a/XC00000")
    return splits.make(recordings, 0.2, 3, "recording", 0)


def two_of_a_group(table):
    return table.index[table["group"].duplicated(keep=False)]


def test_check_accepts_what_make_returns_and_what_a_file_gives_back(good, tmp_path):
    splits.check(good)
    good.to_parquet(tmp_path / "splits.parquet")
    splits.check(pd.read_parquet(tmp_path / "splits.parquet"))
    good.to_csv(tmp_path / "splits.csv", index=False)
    splits.check(pd.read_csv(tmp_path / "splits.csv"))


@pytest.mark.parametrize("column", ["filename", "primary_label", "group", "split", "fold"])
def test_check_misses_a_column(good, column):
    with pytest.raises(splits.SplitError, match=f"no column {column}"):
        splits.check(good.drop(columns=column))


def test_check_finds_a_filename_on_two_sides(good):
    row = good[good["split"] == "test"].iloc[[0]].assign(split="train", fold=np.int8(1))
    with pytest.raises(splits.SplitError, match=f"filename is there twice: {row['filename'].item()}"):
        splits.check(pd.concat([good, row], ignore_index=True))


@pytest.mark.parametrize("moved", [("test", -1), ("train", 0), ("train", 1), ("train", 2), ("train", -1)])
def test_check_finds_a_group_on_two_sides(good, moved):
    first, second = two_of_a_group(good)[:2]
    if (good.loc[first, "split"], good.loc[first, "fold"]) == moved:
        pytest.skip("that is where the group is")
    good.loc[second, ["split", "fold"]] = moved
    good["fold"] = good["fold"].astype(np.int8)
    with pytest.raises(splits.SplitError, match=f"group is on two sides: {good.loc[second, 'filename']}"):
        splits.check(good)


def test_check_finds_a_class_without_training(good):
    good.loc[good["primary_label"] == "d", "split"] = "test"
    with pytest.raises(splits.SplitError, match="class d has no training recording"):
        splits.check(good)


def test_check_finds_a_class_that_one_fold_takes_out_of_training(good):
    good.loc[good["primary_label"] == "c", "fold"] = 2
    with pytest.raises(splits.SplitError, match="class c has no recording on the training side of fold 2"):
        splits.check(good)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("split", "validation", "neither train nor test"),
        ("fold", -2, "under -1"),
        ("fold", 0.5, "whole numbers"),
        ("group", None, "group is missing"),
        ("primary_label", "", "primary_label is missing"),
    ],
)
def test_check_finds_wrong_values(good, column, value, message):
    good[column] = good[column].astype(object)
    row = good.index[good["primary_label"] == "d"]
    good.loc[row, column] = value
    good["fold"] = good["fold"].infer_objects()
    with pytest.raises(splits.SplitError, match=message):
        splits.check(good)


def test_check_finds_a_test_recording_that_validates(good):
    good.loc[good["split"] == "test", "fold"] = 0
    with pytest.raises(splits.SplitError, match="a test recording validates a fold"):
        splits.check(good)


# ---- sides


def test_sides_part_the_recordings(good):
    test = set(splits.side(good, "test")["filename"])
    assert test
    validated = []
    for fold in range(3):
        train = set(splits.side(good, "train", fold)["filename"])
        validation = set(splits.side(good, "validation", fold)["filename"])
        assert not train & validation
        assert train | validation == set(splits.side(good, "train")["filename"]) == set(good["filename"]) - test
        validated += validation
        expected = sorted(
            set(good["primary_label"]) - set(good.set_index("filename").loc[sorted(validation)].iloc[:, 0])
        )
        assert splits.unscored(good, fold) == expected
        assert "d" in expected
    assert len(validated) == len(set(validated)) == len(good) - len(test) - 1
    assert splits.unscored(good) == ["c", "d"]
    assert splits.labels(good) == ["a", "b", "c", "d"]


def test_sides_that_there_are_not(good):
    with pytest.raises(splits.SplitError, match="fold 3"):
        splits.side(good, "train", 3)
    with pytest.raises(splits.SplitError, match="fold -1"):
        splits.side(good, "validation", -1)
    with pytest.raises(splits.SplitError, match="say which"):
        splits.side(good, "validation")
    with pytest.raises(splits.SplitError, match="'valid'"):
        splits.side(good, "valid", 0)


# ---- input that cannot be split


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="audio_hash"), "no column audio_hash"),
        (lambda table: table.drop(columns="author"), "no column author"),
        (lambda table: table.iloc[:0], "no recordings"),
        (lambda table: pd.concat([table, table.iloc[[2]]]), "filename is there twice: a/XC00002.ogg"),
        (lambda table: table.assign(primary_label=["a", None, "a"]), "primary_label is missing: a/XC00001.ogg"),
    ],
)
def test_input_that_cannot_be_split(change, message):
    with pytest.raises(splits.SplitError, match=message):
        splits.make(change(recordings_of({"a": 3})), 0.15, 4, "author", 0)


def test_authors_are_not_needed_by_recording():
    assert len(splits.make(recordings_of({"a": 3}).drop(columns="author"), 0.15, 4, "recording", 0)) == 3


@pytest.mark.parametrize(
    "setting", [{"test_share": 1.0}, {"test_share": -0.1}, {"folds": 1}, {"folds": 128}, {"group_by": "label"}]
)
def test_settings_out_of_range(setting):
    with pytest.raises(splits.SplitError, match=next(iter(setting))):
        splits.make(
            recordings_of({"a": 3}), **{"test_share": 0.15, "folds": 4, "group_by": "recording", "seed": 0} | setting
        )


# ---- what sides share


def test_what_two_sides_share_is_counted_by_hand():
    names = ["a.ogg", "b.ogg", "c.ogg", "d.ogg", "e.ogg"]
    split = pd.DataFrame({"filename": names, "primary_label": "x", "group": names})
    split = split.assign(split=["train", "train", "train", "test", "test"], fold=np.int8([0, 1, 1, -1, -1]))
    about = pd.DataFrame({"filename": names, "author": ["ann", "ann", "bob", "bob", None]})
    about["audio_hash"] = ["1", "2", "3", "3", None]
    table = splits.shared(split, about, 0)
    assert table.loc["recordings"].tolist() == [0, 0, 0]
    assert table.loc["pieces of identical audio"].tolist() == [0, 1, 0]  # c and d: `make` would have put them together
    assert table.loc["recordists"].tolist() == [1, 1, 0]
    assert table.columns.tolist() == ["training and validation", "training and test", "validation and test"]


# ---- by place, and as given


def test_recordings_of_one_place_stand_on_one_side():
    recordings = recordings_of({"a": 12, "b": 12})
    recordings["latitude"] = [10 + 0.5 * (row // 3) for row in range(24)]
    recordings["longitude"] = [76 + 0.001 * (row % 3) for row in range(24)]
    recordings.loc[[5, 6], "latitude"] = np.nan
    table = splits.make(recordings, 0.2, 2, "place", 0)
    splits.check(table)
    side = side_of(table)
    for _, names in recordings.dropna().groupby("latitude")["filename"]:
        assert side[names].nunique() == 1
    assert table["group"].nunique() == 8 + 2
    far = splits.make(recordings, 0.2, 2, "place", 0, place_km=0.01)
    assert far["group"].nunique() == 24


@pytest.fixture
def benchmark(tmp_path):
    """A data folder whose metadata say who trains and who tests, and its recordings."""
    recordings = recordings_of({"a": 6, "b": 6})
    given = ["test", "0", "1", "Train", "0", "1"] * 2
    recordings[["filename", "primary_label"]].assign(part=given).to_csv(tmp_path / "train_metadata.csv", index=False)
    return tmp_path, recordings, given


def given_by(folder, recordings, **settings):
    return splits.by_settings(recordings, folder, Splits(**{"folds": 2, "given": "part", **settings}), 0)


def test_splits_are_taken_as_given(benchmark):
    folder, recordings, given = benchmark
    table = given_by(folder, recordings.iloc[:-1])  # one of them could not be read
    assert len(table) == 11
    expected = {"test": ("test", -1), "0": ("train", 0), "1": ("train", 1), "Train": ("train", -1)}
    for row, side in zip(table.itertuples(), given, strict=False):
        assert (row.split, row.fold) == expected[side]
    assert table["fold"].dtype == np.int8
    assert (table["group"] == table["filename"]).all()


def test_given_splits_that_leak_are_refused(benchmark):
    folder, recordings, _ = benchmark
    with pytest.raises(splits.SplitError, match="its group is on two sides"):
        given_by(folder, recordings.assign(author="anna"), group_by="author")
    recordings.loc[[0, 1], "audio_hash"] = "same"
    with pytest.raises(splits.SplitError, match="its group is on two sides: a/XC0000"):
        given_by(folder, recordings)


@pytest.mark.parametrize(
    ("group_by", "columns", "count"),
    [
        ("recording", {}, 0),
        ("author", {"author": ["anna", None, " ", "ben", ""]}, 3),
        ("author", {"author": [None] * 5}, 5),
        ("place", {"latitude": [1.0, 2.0, np.nan, 4.0, np.nan], "longitude": [np.nan, 2.0, 3.0, 4.0, np.nan]}, 3),
    ],
)
def test_what_says_nothing_to_group_by_is_counted(group_by, columns, count):
    assert splits.ungrouped(recordings_of({"a": 3, "b": 2}).assign(**columns), group_by) == count


@pytest.mark.parametrize(
    ("group_by", "columns", "named"),
    [
        ("author", {"author": None}, "author"),
        ("place", {"latitude": 1.5, "longitude": np.nan}, "latitude and longitude"),
    ],
)
def test_grouping_by_what_nobody_says_is_refused(group_by, columns, named, tmp_path):
    recordings = recordings_of({"a": 6, "b": 6}).assign(**columns)
    with pytest.raises(splits.SplitError, match=rf"splits.group_by={group_by}: no recording has {named}: .*=recording"):
        splits.by_settings(recordings, tmp_path, Splits(group_by=group_by), 0)


def test_a_split_in_which_nobody_validates_is_refused(tmp_path):
    with pytest.raises(splits.SplitError, match=r"no recording validates any fold: .*add recordings"):
        splits.by_settings(recordings_of({"a": 1, "b": 1, "c": 1}), tmp_path, Splits(), 0)


@pytest.mark.parametrize("bad", ["2", "fold 1", "", "0.5"])
def test_a_side_that_is_none_is_named(benchmark, bad):
    folder, recordings, given = benchmark
    recordings[["filename", "primary_label"]].assign(part=[bad, *given[1:]]).to_csv(
        folder / "train_metadata.csv", index=False
    )
    with pytest.raises(splits.SplitError, match=rf"splits.given=part: a/XC00000.ogg has '{bad}'.*0 to 1.*1 in all"):
        given_by(folder, recordings)


def test_a_column_that_is_not_there_is_named(benchmark):
    folder, recordings, _ = benchmark
    with pytest.raises(MetadataError, match="lacks the column 'kind'"):
        given_by(folder, recordings, given="kind")


def test_by_settings_deals_out_what_make_does(benchmark):
    folder, recordings, _ = benchmark
    pd.testing.assert_frame_equal(
        given_by(folder, recordings, given=None, test_share=0.2, group_by="author"),
        splits.make(recordings, 0.2, 2, "author", 0),
    )
