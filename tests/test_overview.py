"""The tables on the metadata: counted by hand on small ones, and on the real metadata of a year."""

import pandas as pd
import pytest

from birdlib import metadata, overview


def write(folder, table):
    folder.mkdir(exist_ok=True)
    table.to_csv(folder / "train_metadata.csv", index=False)
    return metadata.load(folder).table


@pytest.fixture
def small(tmp_path):
    rows = [
        {"primary_label": "a", "filename": "a/1.ogg", "type": "['call', 'male']", "secondary_labels": "['b', 'c']"},
        {"primary_label": "a", "filename": "a/2.ogg", "type": "['']", "secondary_labels": "[]"},
        {"primary_label": "b", "filename": "b/1.ogg", "type": "Call, Song", "secondary_labels": "['c']"},
        {"primary_label": "c", "filename": "c/1.ogg", "type": None, "secondary_labels": None},
    ]
    table = pd.DataFrame(rows).assign(
        rating=[0, 3.5, 5, None],
        author=["x", "x", "x", "y"],
        common_name=["Ant Bird", "Ant Bird", "Bee Bird", None],
        recorder=["phone", None, None, None],
    )
    return write(tmp_path / "data", table), tmp_path / "data"


def test_every_column_has_its_counts_and_its_fate(small):
    table = overview.columns(*small)
    assert table.index.tolist() == [*metadata.COLUMNS, "recorder"]
    counted = table[["filled", "missing", "distinct"]]
    assert counted.loc["primary_label"].tolist() == [4, 0, 3]
    assert counted.loc["secondary_labels"].tolist() == [2, 2, 2]  # an empty list says nothing
    assert counted.loc["type"].tolist() == [2, 2, 2]  # nor does ['']
    assert counted.loc["rating"].tolist() == [2, 2, 2]  # nor does 0
    assert counted.loc["recorder"].tolist() == [1, 3, 1]
    assert counted.loc["latitude"].tolist() == [0, 4, 0]


def test_two_columns_are_kept_and_all_others_have_a_reason(small):
    table = overview.columns(*small)
    assert table.index[table["kept"] == "yes"].tolist() == ["primary_label", "filename"]
    absent = {"latitude", "longitude", "scientific_name", "license", "url"}
    assert set(table.index[table["kept"] == "not in this file"]) == absent
    assert table["why"].str.len().min() > 5
    assert table.loc["recorder", "kept"] == "set aside"


def test_a_species_goes_by_its_common_name_where_that_says_which(tmp_path):
    table = pd.DataFrame({"primary_label": list("abcd"), "filename": [f"{each}.ogg" for each in "abcd"]})
    table = write(tmp_path, table.assign(common_name=["Ant Bird", "Rock Pigeon", "Rock Pigeon", None]))
    assert overview.names(table) == {"a": "Ant Bird", "b": "b", "c": "c", "d": "d"}


def test_kinds_of_sound_are_counted_in_either_years_spelling(small):
    assert overview.types(small[0]).to_dict() == {"call": 2, "male": 1, "song": 1}
    assert overview.types(small[0].assign(type=None)).empty


def test_background_species_are_counted_once_a_recording(small):
    assert overview.background(small[0]).to_dict() == {"c": 2, "b": 1}


def test_people(small):
    assert overview.people(small[0]) == {"people": 2, "largest_share": 0.75, "one_only": 3}
    nobody = overview.people(small[0].assign(author=None))
    assert nobody["people"] == 0
    assert pd.isna(nobody["largest_share"])


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"a": 3, "b": 3}, "3 of each"),
        ({"a": 1200, "b": 3}, "from 3 (Bee Bird) to 1,200 (Ant Bird)"),
        ({"a": 9, "c": 1, "b": 1}, "from 1 (Bee Bird, for one) to 9 (Ant Bird)"),
    ],
)
def test_how_uneven_the_species_are_is_told(counts, told):
    assert overview.spread(pd.Series(counts), {"a": "Ant Bird", "b": "Bee Bird", "c": "c"}) == told


def test_odd_files_are_counted_and_some_are_named(small):
    table = small[0].assign(duration_s=[2.0, 60.0, 400.0, None], sample_rate_hz=[32_000, 44_100, 32_000, None])
    found = overview.odd(table.astype({"sample_rate_hz": "Int32"}).assign(channels=pd.array([1, 2, 1, None], "Int32")))
    assert found["recordings"].to_dict() == {
        "file of the same name in another folder": 3,
        "shorter than 5 s": 1,
        "longer than 300 s": 1,
        "header does not say how long": 0,
        "not at 32,000 Hz": 1,
        "not mono": 1,
    }
    assert found["such as"].tolist() == ["a/1.ogg, b/1.ogg, c/1.ogg", "a/1.ogg", "b/1.ogg", "", *["a/2.ogg"] * 2]


def test_a_header_without_a_length_and_stereo_as_the_rule(small):
    rates = pd.array([32_000, 32_000, 32_000, None], "Int32")
    table = small[0].assign(duration_s=[2.0, None, 9.0, None], sample_rate_hz=rates)
    found = overview.odd(table.assign(channels=pd.array([2, 2, 1, None], "Int32")))
    assert found.loc["header does not say how long"].tolist() == [1, "a/2.ogg"]
    assert found.loc["not of 2 channels"].tolist() == [1, "b/1.ogg"]


def test_where_nothing_was_opened_only_the_metadata_are_judged(small):
    empty = small[0].assign(duration_s=float("nan"), sample_rate_hz=float("nan"), channels=float("nan"))
    assert overview.odd(empty).index.tolist() == ["file of the same name in another folder"]


def test_what_decoding_shows(small):
    table = small[0].assign(duration_s=[9.0, 20.0, 9.9, None])
    starts = [("a/1.ogg", 0.0, 0.0), ("a/1.ogg", 4.0, 0.0), ("a/2.ogg", 0.0, 1.0), ("a/2.ogg", 4.0, 0.2)]
    chunks = pd.DataFrame([*starts, ("b/1.ogg", 0.0, 0.3), ("b/1.ogg", 4.0, 0.2)])
    chunks.columns = ["filename", "start_s", "peak"]
    hashes = pd.Series({"a/1.ogg": "x", "a/2.ogg": "y", "b/1.ogg": "y"})  # c/1.ogg could not be decoded
    found = overview.odd_sound(table, chunks, hashes, length_s=5.0, tail_s=1.0)
    assert found["recordings"].to_dict() == {
        "nothing but zeros": 1,
        "breaks off before the length that its header says": 1,
        "the same audio as another": 2,
        "the same audio as one of another species": 2,
        "reaches full scale, as clipped audio does": 1,
    }
    assert found["such as"].tolist() == ["a/1.ogg", "a/2.ogg", *["a/2.ogg, b/1.ogg"] * 2, "a/2.ogg"]


def test_files_are_told_with_audio_and_without():
    told = overview.files_told(pd.Series([3.0, 4000.0, None]), errors=2, left_out=0)
    assert "set aside or repaired: 2**, each with its reason" in told
    assert "3 files can be read, 1.11 hours, from 3.0 s to 4,000.0 s" in told
    assert "nan" not in (nothing := overview.files_told(pd.Series([], dtype=float), errors=0, left_out=0))
    assert "no file was opened" in nothing


def test_a_real_years_metadata(shared):
    folder = shared / "data" / "birdclef2023"
    recordings = metadata.load(folder).table
    table = overview.columns(recordings, folder)
    raw = pd.read_csv(folder / "train_metadata.csv")
    assert table["kept"].value_counts().to_dict() == {"set aside": 10, "yes": 2}
    assert table.loc["latitude", "missing"] == raw["latitude"].isna().sum() == 227
    assert table.loc["rating", "missing"] == (raw["rating"] == 0).sum() == 514
    assert table.loc["secondary_labels", "missing"] == (raw["secondary_labels"] == "[]").sum() == 14636
    assert len(set(overview.names(recordings).values())) == 264
    unopened = recordings.assign(duration_s=None, sample_rate_hz=None, channels=None)
    # One upload to xeno-canto is there under two species.
    assert overview.odd(unopened)["such as"].tolist() == ["cibwar1/XC316684.ogg, gnbcam2/XC316684.ogg"]
    assert overview.types(recordings)["song"] == raw["type"].str.contains("'song'", case=False).sum()
