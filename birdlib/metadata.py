"""The recordings table: what ``train_metadata.csv`` says, what the files' headers say, and traits of the species."""

from __future__ import annotations

import ast
import csv
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from birdlib import audio
from birdlib.parallel import Failure, map_files

if TYPE_CHECKING:
    from birdlib.config import Config

COLUMNS = (
    "primary_label",
    "secondary_labels",
    "type",
    "latitude",
    "longitude",
    "scientific_name",
    "common_name",
    "author",
    "license",
    "rating",
    "url",
    "filename",
)
REQUIRED = ("primary_label", "filename")
RESERVED = {"filename", "start_s", "split", "fold", "primary_label", "row_id"}
NUMBERS = ("latitude", "longitude", "rating")
TRAITS = ("primary_label", "iucn", "nocturnal_soib", "nocturnal_eltontraits")
THREATENED = ("VU", "EN", "CR", "EW", "EX")
ASSESSED = ("LC", "NT", *THREATENED)
NO_NUMBER = ("", "nan", "na", "n/a", "<na>", "none", "null", "-", "?", "unknown", "no score", "not rated")
SECOND = "a second row of the same file"  # how a row's problem begins
USED = "used, "
FLAGS = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}


class MetadataError(ValueError):
    """A data folder that cannot be used as it is: what is wrong, where, and what to do."""


class Recordings(NamedTuple):
    """A table with a row a recording, and what was set aside or repaired on the way (path -> reason)."""

    table: pd.DataFrame
    problems: dict[str, str]


def load(data_dir: Path) -> Recordings:
    """Reads ``train_metadata.csv``.

    Returns
    -------
    table : the 12 `COLUMNS`, sorted by filename: text, but latitude, longitude and rating float64 and
        secondary_labels a list of labels. Columns that the file lacks are empty; others are left out.
    problems : rows set aside (no label, a file name that leaves the folder, a name that was there before, more fields
        than columns), and rows repaired, whose reason begins with ``USED``: a number or secondary labels that could not
        be read and count as unknown or none, and a label that differs from a commoner one by case only and counts as
        that.

    Raises
    ------
    MetadataError
        if the folder or the file is missing, empty or no CSV, lacks a column of `REQUIRED` or names one twice.
    """
    problems: dict[str, str] = {}
    table = _read_csv(data_dir, "train_metadata.csv", REQUIRED, problems).reindex(columns=list(COLUMNS))
    table["primary_label"] = table["primary_label"].str.strip().mask(lambda labels: labels == "")
    if taken := sorted(RESERVED & set(table["primary_label"].dropna())):
        raise MetadataError(f"{data_dir}/train_metadata.csv: {taken[0]!r} cannot be a label: tables have such a column")
    for column in NUMBERS:
        table[column] = _numbers(table[column], table["filename"], problems)
    table["secondary_labels"] = [
        _labels(text, str(name), problems)
        for text, name in zip(table["secondary_labels"], table["filename"], strict=True)
    ]
    table["primary_label"] = _one_spelling(table, problems)
    good = _usable_rows(table, problems)
    if not good.any():
        reason = next(iter(problems.values()))
        raise MetadataError(f"{data_dir / 'train_metadata.csv'} has no row that can be used, the first for: {reason}")
    return Recordings(table[good].sort_values("filename", ignore_index=True), problems)


def has_audio(data_dir: Path) -> bool:
    """Whether there is a folder ``train_audio``; without one, the metadata are all that can be looked at."""
    return (data_dir / "train_audio").is_dir()


def inspect(recordings: pd.DataFrame, data_dir: Path, config: Config) -> Recordings:
    """Looks at the header of every file.

    Returns
    -------
    table : `recordings` with duration_s (float64 seconds), sample_rate_hz and channels (Int32), as the header says;
        missing where a file cannot be opened.
    problems : those files. Where there is no folder ``train_audio`` at all, no single file is called a problem.
    """
    found: dict[str, audio.Info] = {}
    problems: dict[str, str] = {}
    folder = data_dir / "train_audio"
    results = map_files(
        lambda name: audio.info(folder / name),
        list(recordings["filename"]) if has_audio(data_dir) else [],
        config.compute.file_time_limit_s,
        config.compute.workers,
        "looking at the files",
        config.compute.cluster,
        [folder],
    )
    for name, result in results:
        if isinstance(result, Failure):
            problems[name] = result.reason.removeprefix(f"{folder / name}: ")
        else:
            found[name] = result
    nothing = audio.Info(np.nan, pd.NA, pd.NA)
    columns = zip(*(found.get(name, nothing) for name in recordings["filename"]), strict=True)
    table = recordings.assign(**dict(zip(audio.Info._fields, map(list, columns), strict=True)))
    return Recordings(table.astype({"duration_s": "float64", "sample_rate_hz": "Int32", "channels": "Int32"}), problems)


def readable(recordings: pd.DataFrame) -> pd.Series:
    """Whether each recording's file could be opened (bool, indexed like `recordings`)."""
    return recordings["sample_rate_hz"].notna()


def labels_without_audio(recordings: pd.DataFrame, sounding: pd.Series, config: Config) -> list[str]:
    """The labels that no recording is left of, where `sounding` (bool, indexed like `recordings`) says which are.

    Raises
    ------
    MetadataError
        if there are any and ``data.labels_without_audio`` is "error", or if there is no audio at all.
    """
    silent = sorted(set(recordings["primary_label"]) - set(recordings.loc[sounding, "primary_label"]))
    if not sounding.any():
        first = recordings["filename"].iloc[0]
        raise MetadataError(
            f"none of the {len(recordings)} files of train_metadata.csv can be read (train_audio/{first}); "
            "without audio only the first notebook, on the metadata, has something to show"
        )
    if (left := recordings.loc[sounding, "primary_label"]).nunique() < 2:
        raise MetadataError(
            f"{left.iloc[0]} is the only label with audio: a classifier needs two or more to tell apart"
        )
    if silent and config.data.labels_without_audio == "error":
        raise MetadataError(
            f"{len(silent)} label(s) without any readable audio: {', '.join(silent[:10])} (tables/errors.parquet in "
            "the run folder says why); restore the files, take the rows out of train_metadata.csv, or set "
            "data.labels_without_audio=leave_out"
        )
    return silent


def column(data_dir: Path, name: str) -> pd.Series:
    """A column of ``train_metadata.csv`` as text by filename, also one that `load` does not know.

    Raises
    ------
    MetadataError
        if it is not there.
    """
    table = _read_csv(data_dir, "train_metadata.csv", ("filename", name))
    return table.dropna(subset=["filename"]).drop_duplicates("filename").set_index("filename")[name]


def traits(labels: list[str], data_dir: Path, config: Config) -> pd.DataFrame:
    """Which species are endangered and which nocturnal.

    Read from ``testing.traits_file``, else from ``traits.csv`` in the data folder, else from the package (the species
    of BirdCLEF 2024, with the source of each entry). Flags are 1, true or yes, and 0, false or no.

    Returns
    -------
    table : indexed by `labels`, columns endangered and nocturnal ("boolean", missing for a species without an entry).

    Raises
    ------
    MetadataError
        if the file lacks a column of `TRAITS`.
    """
    own = config.testing.traits_file or data_dir / "traits.csv"
    if config.testing.traits_file or own.exists():
        entries = _read_csv(own.parent, own.name, TRAITS)
    else:
        entries = pd.read_csv(str(files("birdlib") / "traits.csv"), dtype="str")
    entries = entries.drop_duplicates("primary_label").set_index("primary_label")
    endangered = THREATENED + (("NT",) if config.testing.near_threatened_is_endangered else ())
    source = config.testing.nocturnal_source
    columns = ["nocturnal_soib", "nocturnal_eltontraits"] if source == "either" else [f"nocturnal_{source}"]
    status = entries["iucn"].str.strip().str.upper()
    nocturnal = entries[columns].apply(lambda column: column.str.strip().str.lower().map(FLAGS)).astype("boolean")
    table = pd.DataFrame(
        {
            "endangered": status.isin(endangered).astype("boolean").where(status.isin(ASSESSED)),
            # By either source: yes where one says so; missing only where both say nothing.
            "nocturnal": nocturnal.any(axis=1).astype("boolean").where(nocturnal.notna().any(axis=1)),
        }
    )
    return table.reindex(labels)


def _read_csv(
    folder: Path, name: str, required: tuple[str, ...], problems: dict[str, str] | None = None
) -> pd.DataFrame:
    if not folder.is_dir():
        raise MetadataError(f"{folder} is {'not a folder' if folder.exists() else 'missing'}: it should hold {name}")
    path = folder / name
    if not path.is_file():
        hint = ": a data folder holds train_metadata.csv and train_audio/" if name == "train_metadata.csv" else ""
        raise MetadataError(f"{path} is missing{hint}")
    try:
        table = _table(path, {} if problems is None else problems)
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MetadataError(f"{path} is not readable as CSV: {' '.join(reason.split())}") from None
    if doubled := [column for column in (*required, *COLUMNS) if list(table.columns).count(column) > 1]:
        raise MetadataError(f"{path} has the column {doubled[0]!r} twice: rename or drop one")
    if missing := [column for column in required if column not in table.columns]:
        raise MetadataError(f"{path} lacks the column {missing[0]!r}; it has {', '.join(map(str, table.columns))}")
    if table.empty:
        first = list((problems or {}).items())[:1]
        raise MetadataError(f"{path} has no rows{''.join(f' ({row}: {why})' for row, why in first)}")
    return table.loc[:, ~table.columns.duplicated()]  # a spreadsheet's empty columns all have the same name


def _table(path: Path, problems: dict[str, str]) -> pd.DataFrame:
    """A CSV file as text, empty fields missing; rows with more fields than there are columns are set aside.

    Not by pandas: where every row has a field too many, it takes the first column for an index, and all of them shift.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header, rows = next(reader, []), {}
        if not header:
            raise ValueError("it is empty")
        for row in reader:
            if len(row) > len(header):
                problems[f"row {reader.line_num} of {path.name}"] = f"{len(row)} fields, the header has {len(header)}"
            elif row:  # numbered so that the header is row 1
                rows[reader.line_num - 2] = [text or None for text in row] + [None] * (len(header) - len(row))
    return pd.DataFrame(list(rows.values()), index=list(rows), columns=header, dtype="str")


def _one_spelling(table: pd.DataFrame, problems: dict[str, str]) -> pd.Series:
    """The primary labels, with those that differ by case only as the commonest of them; each change is a problem."""
    labels = table["primary_label"]
    counts = labels.value_counts().sort_index(ascending=False).sort_values(ascending=False, kind="stable")
    if counts.index.str.casefold().is_unique:
        return labels
    common: dict[str, str] = {}
    for label in counts.index:
        common.setdefault(label.casefold(), label)
    spelt = labels.map(lambda label: common[label.casefold()], na_action="ignore")
    for name, before, after in zip(table["filename"], labels, spelt, strict=True):
        if pd.notna(before) and before != after:
            _repaired(problems, str(name), f"under the label {after}: {before} differs from it by case only")
    return spelt


def _numbers(texts: pd.Series, filenames: pd.Series, problems: dict[str, str]) -> pd.Series:
    numbers = pd.to_numeric(texts, errors="coerce").astype("float64")
    said = texts.astype("str").fillna("").str.strip().str.lower()
    unread = numbers.isna() & ~said.isin(NO_NUMBER) & filenames.notna()
    for name, text in zip(filenames[unread], texts[unread], strict=True):
        _repaired(problems, str(name), f"but its {texts.name} is no number and counts as unknown: {text[:60]}")
    return numbers


def _repaired(problems: dict[str, str], name: str, what: str) -> None:
    """Notes what was repaired in a row, besides what was before."""
    problems[name] = f"{problems[name]}; {what}" if name in problems else f"{USED}{what}"


def _labels(text: object, name: str, problems: dict[str, str]) -> list[str]:
    if pd.isna(text):
        return []
    try:
        value = ast.literal_eval(str(text))
        if isinstance(value, list | tuple):
            return [str(label) for label in value if label]
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    _repaired(problems, name, f"but its secondary labels are not a list and count as none: {str(text)[:60]}")
    return []


def _usable_rows(table: pd.DataFrame, problems: dict[str, str]) -> pd.Series:
    names = table["filename"].fillna("").astype("str")
    reasons = pd.Series("", index=table.index)
    reasons[[_leaves(name) for name in names]] = "refused: the file name leaves the data folder"
    reasons[names.str.contains("\\", regex=False)] = "refused: the file name holds a backslash; write / between folders"
    reasons[names == ""] = "the row has no filename"
    reasons[table["primary_label"].isna()] = "the row has no primary_label"
    usable = table.loc[reasons == "", ["primary_label"]].assign(name=names)
    again = usable[usable["name"].duplicated()]
    first = usable.drop_duplicates("name").set_index("name")["primary_label"]
    for row, label, name in again.itertuples():
        under = f", under the label {label} and not {first[name]}" if label != first[name] else ""
        reasons[row] = f"{SECOND}{under}: the first is used"
    for row, reason in reasons[reasons != ""].items():
        problems[names[row] or f"row {row + 2} of train_metadata.csv"] = reason
    return reasons == ""


def _leaves(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts
