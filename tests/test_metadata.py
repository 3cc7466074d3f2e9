import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from birdlib import config as configs
from birdlib import metadata
from birdlib.metadata import MetadataError
from tests.conftest import TINY_BROKEN, TINY_LABELS, TINY_STEREO

COLUMNS = [
    *("primary_label", "secondary_labels", "type", "latitude", "longitude", "scientific_name"),
    *("common_name", "author", "license", "rating", "url", "filename"),
]
ENDANGERED = {"grehor1", "maghor2", "niwpig1", "whbsho3"}
NEAR_THREATENED = {"darter2", "kerlau2", "paisto1"}
NOCTURNAL_SOIB = {"brnhao1", "brwowl1", "grenig1", "grynig2", "insowl1", "sbeowl1", "spoowl1"}
NOCTURNAL_ELTONTRAITS = NOCTURNAL_SOIB | {"brfowl1", "junowl1"}


@pytest.fixture
def write(tmp_path):
    """A function (text or bytes) -> a data folder with that train_metadata.csv."""

    def folder(content):
        path = tmp_path / "train_metadata.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return folder


def message(folder):
    with pytest.raises(MetadataError) as caught:
        metadata.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- reading


def test_the_twelve_columns_by_hand(write):
    row = "amecro,\"['blujay', 'amerob']\",\"['call']\",42.5,-71.25,Corvus b.,Crow,A. Bird,CC0,4.5,u,amecro/1.ogg"
    table, problems = metadata.load(write(",".join(COLUMNS) + "\n" + row + "\n"))
    assert table.columns.tolist() == COLUMNS
    assert table.iloc[0].tolist() == [
        *("amecro", ["blujay", "amerob"], "['call']", 42.5, -71.25, "Corvus b.", "Crow"),
        *("A. Bird", "CC0", 4.5, "u", "amecro/1.ogg"),
    ]
    assert problems == {}


def test_sorted_by_filename_and_numbered_anew(write):
    table, _ = metadata.load(write("filename,primary_label\nb/2.ogg,b\na/1.ogg,a\n"))
    assert table["filename"].tolist() == ["a/1.ogg", "b/2.ogg"]
    assert table.index.tolist() == [0, 1]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_byte_order_marks_and_line_ends(start, end, write):
    lines = [b"primary_label,filename,author", "houspa,houspa/1.ogg,Jörg".encode(), b"houspa,houspa/2.ogg,"]
    table, problems = metadata.load(write(start + end.join(lines) + end))
    assert table["primary_label"].tolist() == ["houspa", "houspa"]
    assert table["filename"].tolist() == ["houspa/1.ogg", "houspa/2.ogg"]
    assert table["author"].iloc[0] == "Jörg"
    assert pd.isna(table["author"].iloc[1])
    assert problems == {}


def test_missing_columns_are_empty_and_others_left_out(write):
    table, _ = metadata.load(write("primary_label,filename,elevation\na,a/1.ogg,5\n"))
    assert table.columns.tolist() == COLUMNS
    assert table.loc[0, "secondary_labels"] == []
    others = table.drop(columns=["primary_label", "filename", "secondary_labels"])
    assert others.isna().all(axis=None)


def test_a_label_that_looks_like_nothing_is_a_label(write):
    # pandas reads these as missing unless told not to.
    table, problems = metadata.load(write("primary_label,filename\nNA,NA/1.ogg\nnull,null/2.ogg\n"))
    assert table["primary_label"].tolist() == ["NA", "null"]
    assert problems == {}


def test_numbers_that_are_none(write):
    text = "primary_label,filename,latitude,longitude,rating\na,a/1.ogg,not known,,3.5\na,a/2.ogg,1,-2,x\n"
    table, _ = metadata.load(write(text))
    np.testing.assert_array_equal(table[["latitude", "longitude", "rating"]], [[np.nan, np.nan, 3.5], [1, -2, np.nan]])
    assert (table[["latitude", "longitude", "rating"]].dtypes == "float64").all()


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("[]", []),
        ("", []),
        ("['houspa']", ["houspa"]),
        ('["houspa", "blkpho"]', ["houspa", "blkpho"]),
        ("('houspa',)", ["houspa"]),
        ("['']", []),
    ],
)
def test_secondary_labels(text, labels, write):
    quoted = text.replace('"', '""')
    table, problems = metadata.load(write(f'primary_label,filename,secondary_labels\na,a/1.ogg,"{quoted}"\n'))
    assert table.loc[0, "secondary_labels"] == labels
    assert problems == {}


@pytest.mark.parametrize("text", ["houspa blkpho", "['houspa'", "7", "{'a': 1}", "__import__('os')", "[" * 500])
def test_secondary_labels_that_cannot_be_read_are_a_problem_and_the_row_is_used(text, write):
    table, problems = metadata.load(write(f'primary_label,filename,secondary_labels\na,a/1.ogg,"{text}"\n'))
    assert table["filename"].tolist() == ["a/1.ogg"]
    assert table.loc[0, "secondary_labels"] == []
    assert problems.keys() == {"a/1.ogg"}
    assert "secondary labels" in problems["a/1.ogg"]
    assert len(problems["a/1.ogg"]) < 200


@pytest.mark.parametrize(
    ("text", "value"),
    [("12.5", 12.5), (" 12.5 ", 12.5), ("-1e1", -10.0), ("", None), ("nan", None), ("N/A", None), ("No score", None)],
)
def test_numbers(text, value, write):
    table, problems = metadata.load(write(f"primary_label,filename,latitude\na,a/1.ogg,{text}\n"))
    assert table.loc[0, "latitude"] == value or (value is None and np.isnan(table.loc[0, "latitude"]))
    assert problems == {}


@pytest.mark.parametrize("text", ['"12,5"', "12°30", "north"])
def test_a_number_that_cannot_be_read_is_a_problem_and_the_row_is_used(text, write):
    table, problems = metadata.load(write(f"primary_label,filename,latitude\na,a/1.ogg,{text}\n"))
    assert np.isnan(table.loc[0, "latitude"])
    said = f"used, but its latitude is no number and counts as unknown: {text.strip(chr(34))}"
    assert problems == {"a/1.ogg": said}


def test_what_was_repaired_in_one_row_is_said_together(write):
    text = (
        "primary_label,filename,latitude,rating,secondary_labels\na,a/1.ogg,north,good,none of it\na,a/2.ogg,1,2,[]\n"
    )
    assert metadata.load(write(text)).problems == {
        "a/1.ogg": "used, but its latitude is no number and counts as unknown: north; "
        "but its rating is no number and counts as unknown: good; "
        "but its secondary labels are not a list and count as none: none of it"
    }


def test_empty_columns_of_a_spreadsheet_are_left_out(write):
    table, problems = metadata.load(write("primary_label,filename,,\na,a/1.ogg,,\na,a/2.ogg,x,y\n"))
    assert table["filename"].tolist() == ["a/1.ogg", "a/2.ogg"]
    assert tuple(table.columns) == metadata.COLUMNS
    assert problems == {}


# ---- rows set aside


@pytest.mark.parametrize("name", ["../secret.ogg", "a/../../secret.ogg", "/etc/passwd", "a/.."])
def test_a_file_name_that_leaves_the_folder_is_refused(name, write):
    table, problems = metadata.load(write(f"primary_label,filename\na,{name}\na,a/1.ogg\n"))
    assert table["filename"].tolist() == ["a/1.ogg"]
    assert problems.keys() == {name}
    assert "leaves the data folder" in problems[name]


@pytest.mark.parametrize("name", ["..\\secret.ogg", "a\\..\\..\\b.ogg", "a\\2.ogg"])
def test_a_file_name_of_another_system_is_refused(name, write):
    table, problems = metadata.load(write(f"primary_label,filename\na,{name}\na,a/1.ogg\n"))
    assert table["filename"].tolist() == ["a/1.ogg"]
    assert problems == {name: "refused: the file name holds a backslash; write / between folders"}


@pytest.mark.parametrize("name", ["a/1..2.ogg", "..a/1.ogg", "a b/ç.ogg"])
def test_a_file_name_that_only_looks_odd_is_used(name, write):
    table, problems = metadata.load(write(f"primary_label,filename\na,{name}\n"))
    assert table["filename"].tolist() == [name]
    assert problems == {}


@pytest.mark.parametrize("nothing", ["", " ", "\t"])
def test_rows_that_say_too_little(nothing, write):
    table, problems = metadata.load(write(f"primary_label,filename\n{nothing},a/1.ogg\na,\na,a/2.ogg\n"))
    assert table["filename"].tolist() == ["a/2.ogg"]
    assert problems == {
        "a/1.ogg": "the row has no primary_label",
        "row 3 of train_metadata.csv": "the row has no filename",
    }


def test_of_two_rows_of_a_file_the_first_is_used(write):
    table, problems = metadata.load(write("primary_label,filename\na,x/1.ogg\nb,x/1.ogg\nb,x/2.ogg\n"))
    assert table["primary_label"].tolist() == ["a", "b"]
    assert problems.keys() == {"x/1.ogg"}
    assert "second row" in problems["x/1.ogg"]


def test_a_row_that_is_set_aside_does_not_stand_for_a_later_one(write):
    table, _ = metadata.load(write("primary_label,filename\n,x/1.ogg\nb,x/1.ogg\n"))
    assert table["primary_label"].tolist() == ["b"]


# ---- folders that cannot be used


def test_a_folder_that_is_missing(tmp_path):
    found = message(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in found
    assert "missing" in found


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    assert f"{tmp_path / 'file'} is not a folder" in message(tmp_path / "file")


def test_a_folder_without_metadata(tmp_path):
    assert f"{tmp_path / 'train_metadata.csv'} is missing" in message(tmp_path)


@pytest.mark.parametrize("column", ["primary_label", "filename"])
def test_a_missing_column_is_named(column, write):
    kept = [name for name in COLUMNS if name != column]
    found = message(write(",".join(kept) + "\n" + ",".join("x" * len(kept)) + "\n"))
    assert f"lacks the column {column!r}" in found
    assert "train_metadata.csv" in found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not readable as CSV"),
        (b"\xff\xfe\x00\x01" * 20, "not readable as CSV"),
        ('primary_label,filename\n"a,a/1.ogg\n', "not readable as CSV"),
        ("primary_label,filename\na,b,c,d\n3,4,5,6,7\n", "no rows (row 2 of train_metadata.csv: 4 fields"),
        ("primary_label,filename\n", "has no rows"),
        ("primary_label,filename\na,/etc/1.ogg\na,../2.ogg\n", "no row that can be used"),
    ],
    ids=["empty", "binary", "open quote", "ragged", "header alone", "all refused"],
)
def test_a_file_without_rows(content, words, write):
    found = message(write(content))
    assert words in found
    assert "train_metadata.csv" in found


# ---- looking at the files


@pytest.fixture(scope="session")
def inspected(tiny_data, tiny_config):
    return metadata.inspect(metadata.load(tiny_data).table, tiny_data, tiny_config)


def test_a_broken_file_costs_only_itself(inspected):
    table, problems = inspected
    assert problems.keys() == {TINY_BROKEN}
    assert problems[TINY_BROKEN].startswith("not readable as audio: ")
    assert len(table) == 24
    assert table.loc[~metadata.readable(table), "filename"].tolist() == [TINY_BROKEN]
    good = table[metadata.readable(table)]
    assert good[["duration_s", "sample_rate_hz", "channels"]].notna().all(axis=None)


def test_what_the_headers_say(inspected):
    table = inspected.table.set_index("filename")
    assert table.loc["tinbir1/XC102.ogg", ["duration_s", "sample_rate_hz", "channels"]].tolist() == [5.5, 32_000, 1]
    assert table.loc[TINY_STEREO, ["duration_s", "sample_rate_hz", "channels"]].tolist() == [5.0, 44_100, 2]
    assert pd.isna(table.loc[TINY_BROKEN, "duration_s"])
    assert table[["duration_s", "sample_rate_hz", "channels"]].dtypes.astype(str).tolist() == [
        *("float64", "Int32", "Int32")
    ]


def test_inspecting_changes_no_other_column(inspected, tiny_data):
    pd.testing.assert_frame_equal(inspected.table[COLUMNS], metadata.load(tiny_data).table)


def test_a_label_without_audio(tmp_path):
    recordings = pd.DataFrame({"primary_label": ["a", "a", "b", "c"], "filename": ["a/1", "a/2", "b/1", "c/1"]})
    sounding = pd.Series([False, True, False, True])
    with pytest.raises(
        MetadataError, match=r"1 label\(s\) without any readable audio: b \(.*errors.parquet.*leave_out"
    ) as caught:
        metadata.labels_without_audio(recordings, sounding, configs.load("sample"))
    assert "\n" not in str(caught.value)
    leave_out = configs.load("sample", {"data.labels_without_audio": "leave_out"})
    assert metadata.labels_without_audio(recordings, sounding, leave_out) == ["b"]
    everything = pd.Series([True] * 4)
    assert metadata.labels_without_audio(recordings, everything, configs.load("sample")) == []
    for config in (configs.load("sample"), leave_out):
        with pytest.raises(MetadataError, match="none of the 4 files"):
            metadata.labels_without_audio(recordings, ~everything, config)


# ---- traits


def marked(table, column):
    return set(table.index[table[column].fillna(False)])


@pytest.fixture(scope="session")
def species():
    path = Path(metadata.__file__).parent / "traits.csv"
    with open(path, encoding="utf-8", newline="") as file:
        return [row["primary_label"] for row in csv.DictReader(file)]


def test_traits_of_2024(species, tmp_path):
    table = metadata.traits(species, tmp_path, configs.load("paper"))
    assert table.index.tolist() == species
    assert len(table) == 182
    assert table.notna().all(axis=None)
    assert marked(table, "endangered") == ENDANGERED
    assert marked(table, "nocturnal") == NOCTURNAL_ELTONTRAITS
    assert len(NOCTURNAL_ELTONTRAITS) == 9


@pytest.mark.parametrize(
    ("source", "nocturnal"),
    [
        ("soib", NOCTURNAL_SOIB),
        ("eltontraits", NOCTURNAL_ELTONTRAITS),
        ("either", NOCTURNAL_SOIB | NOCTURNAL_ELTONTRAITS),
    ],
)
def test_nocturnal_by_source(source, nocturnal, species, tmp_path):
    table = metadata.traits(species, tmp_path, configs.load("paper", {"testing.nocturnal_source": source}))
    assert marked(table, "nocturnal") == nocturnal


def test_near_threatened_by_a_setting(species, tmp_path):
    config = configs.load("paper", {"testing.near_threatened_is_endangered": True})
    assert marked(metadata.traits(species, tmp_path, config), "endangered") == ENDANGERED | NEAR_THREATENED


def test_the_species_are_those_of_the_competition(species, shared):
    path = shared / "data" / "birdclef2024" / "sample_submission.csv"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    with open(path, encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["row_id", *species]


def test_every_trait_has_its_source():
    with open(Path(metadata.__file__).parent / "traits.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["iucn_source"] and row["nocturnal_source"] for row in rows)
    assert {row["iucn"] for row in rows} == {"LC", "NT", "VU"}


def test_species_without_an_entry_are_missing(tmp_path):
    table = metadata.traits(["nobird", "grehor1"], tmp_path, configs.load("paper"))
    assert table.loc["nobird"].isna().all()
    assert table.loc["grehor1"].tolist() == [True, False]
    assert (table.dtypes == "boolean").all()


def test_a_data_folders_own_traits(tiny_data):
    table = metadata.traits(list(TINY_LABELS), tiny_data, configs.load("paper"))
    assert table["endangered"].tolist() == [True, False, False, False]
    assert table["nocturnal"].tolist() == [False, True, True, False]


def test_a_traits_file_that_is_named_comes_first(tiny_data, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("primary_label,iucn,nocturnal_soib,nocturnal_eltontraits\ntinbir1,LC,1,0\ntinbir3,CR,0,0\n")
    table = metadata.traits(list(TINY_LABELS), tiny_data, configs.load("paper", {"testing.traits_file": path}))
    assert marked(table, "endangered") == {"tinbir3"}
    assert marked(table, "nocturnal") == {"tinbir1"}
    assert table.loc["tinbir2"].isna().all()


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("1", True),
        ("1.0", True),
        (" Yes", True),
        ("TRUE", True),
        ("0", False),
        ("0.0", False),
        ("no", False),
        ("", None),
    ],
)
def test_flags_as_people_and_pandas_write_them(text, flag, tmp_path):
    path = tmp_path / "flags.csv"
    path.write_text(f"primary_label,iucn,nocturnal_soib,nocturnal_eltontraits\na,LC,{text},\n")
    config = configs.load("sample", {"testing.traits_file": path, "testing.nocturnal_source": "soib"})
    found = metadata.traits(["a"], tmp_path, config).loc["a", "nocturnal"]
    assert (None if pd.isna(found) else bool(found)) is flag


def test_a_traits_file_that_cannot_be_used(tmp_path):
    config = configs.load("paper", {"testing.traits_file": tmp_path / "mine.csv"})
    with pytest.raises(MetadataError, match=r"mine\.csv is missing$"):
        metadata.traits(["a"], tmp_path, config)
    (tmp_path / "mine.csv").write_text("primary_label,iucn\na,LC\n")
    with pytest.raises(MetadataError, match="lacks the column 'nocturnal_soib'"):
        metadata.traits(["a"], tmp_path, config)


# ---- the real thing


def test_the_metadata_of_2023(shared):
    folder = shared / "data" / "birdclef2023"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    table, problems = metadata.load(folder)
    assert (len(table), table["primary_label"].nunique(), problems) == (16_941, 264, {})
    # Counted with the standard library's csv and ast.
    assert (table["secondary_labels"].map(len) > 0).sum() == 2305
    assert table["secondary_labels"].map(len).sum() == 3399
    assert table["latitude"].isna().sum() == 227
    assert table["rating"].sum() == 63_151.5


def test_real_recordings(xc10):
    table, problems = metadata.load(xc10)
    assert (table["primary_label"].value_counts() == 10).all()
    assert table["primary_label"].nunique() == 10
    assert problems == {}
    assert all((xc10 / "train_audio" / name).is_file() for name in table["filename"])
