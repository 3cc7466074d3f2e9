"""Hold-out and folds: which recordings train, which validate, which are kept for the test.

The unit that is dealt out is the *group*: recordings that must not stand on two sides. Recordings with identical audio
are one group; with ``group_by="author"`` so are all recordings of one author, with "place" all that were made at one
place (`birdlib.sites`). A group stays whole, also when it holds several labels. The rules, in the order in which they
win:

1. at least one group of every class is on every training side. A class with one group is always in training; a
   class with two is never in the test;
2. a class with three groups or more is in the test, where that takes nothing from rule 1;
3. the test holds ``test_share`` of each class, and each fold an equal part of the rest, as closely as whole groups
   allow.

Chance is an address: what a group draws follows from the seed and the group's own name. So the order of the rows does
not change where a recording goes, and another class changes it at most where a class could as well have one recording
more in the test: the size of the whole test then decides.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from birdlib import chance, dealing, metadata, sites

if TYPE_CHECKING:
    from birdlib.settings import Splits

COLUMNS = ("filename", "primary_label", "group", "split", "fold")
# What a recording has to say to be grouped with others.
TELLS = {"recording": (), "author": ("author",), "place": ("latitude", "longitude")}

_NOBODY = (
    "no recording validates {}: a species keeps one group in training, and none has others to spare: add recordings, "
    "lower splits.folds, or set splits.group_by=recording (a column that splits.given names has to name the fold)"
)


class SplitError(ValueError):
    """Recordings that cannot be split, or a split that cannot be trusted: what is wrong, with an example."""


GroupBy = Literal["recording", "author", "place"]


def by_settings(recordings: pd.DataFrame, data_dir: Path, settings: Splits, seed: int) -> pd.DataFrame:
    """The splits that the settings ask for: dealt out by `make`, or `taken` from a column of the metadata, and checked.

    Raises
    ------
    SplitError, birdlib.metadata.MetadataError
        as those do, if there is no such column, if no recording says what `Splits.group_by` groups by, and if none
        validates.
    """
    if settings.given is None:
        made = make(
            recordings, settings.test_share, settings.folds, settings.group_by, seed, place_km=settings.place_km
        )
    else:
        sides = metadata.column(data_dir, settings.given)
        made = taken(recordings, sides, settings.folds, settings.group_by, place_km=settings.place_km)
    if ungrouped(recordings, settings.group_by) == len(recordings):
        raise SplitError(
            f"splits.group_by={settings.group_by}: no recording has {' and '.join(TELLS[settings.group_by])}: fill the "
            "column of train_metadata.csv, or set splits.group_by=recording"
        )
    if (made["fold"] < 0).all():
        raise SplitError(_NOBODY.format("any fold"))
    check(made)
    return made


def ungrouped(recordings: pd.DataFrame, group_by: GroupBy) -> int:
    """How many recordings lack what `group_by` groups by, such as an author: each of them is a group of its own."""
    blank = [recordings[name].isna() | (recordings[name].astype(str).str.strip() == "") for name in TELLS[group_by]]
    return int(np.any(blank, axis=0).sum())


def taken(
    recordings: pd.DataFrame, sides: pd.Series, folds: int, group_by: GroupBy = "recording", place_km: float = 1.0
) -> pd.DataFrame:
    """Splits as they are given, such as a benchmark's own; groups as in `make`, but nothing is dealt out.

    Parameters
    ----------
    sides : filename -> "test", "train" (in training whatever the fold), or the number of a fold from 0.

    Returns
    -------
    DataFrame
        As `make` returns it.

    Raises
    ------
    SplitError
        for a recording without a side, or a value that is none.
    """
    table = _readied(recordings, group_by, place_km)
    text = table["filename"].map(sides).astype(object)
    text = text.where(text.notna(), "").astype(str).str.strip().str.lower()
    number = text.map({str(fold): fold for fold in range(folds)} | {"test": -1, "train": -1})
    if (bad := number.isna()).any():
        raise SplitError(
            f"splits.given={sides.name}: {table['filename'][bad].iloc[0]} has {text[bad].iloc[0]!r}: write test, "
            f"train, or a fold from 0 to {folds - 1} (splits.folds={folds}); {bad.sum()} in all"
        )
    return _table(table, _components(table), (text == "test").to_numpy(), number.to_numpy(int))


def make(
    recordings: pd.DataFrame, test_share: float, folds: int, group_by: GroupBy, seed: int, place_km: float = 1.0
) -> pd.DataFrame:
    """Deal the recordings out: test, or one of the folds of the training split.

    Parameters
    ----------
    recordings : DataFrame
        A row a recording: ``filename`` (unique), ``primary_label``, ``audio_hash`` (recordings with the same one are
        one group) and, for ``group_by="author"``, ``author``, for "place", ``latitude`` and ``longitude``. A missing or
        blank hash, author or place is shared with none.
    test_share : float
        Share of each class to keep for the test, 0 to below 1. With 0 there is no test.
    folds : int
        Number of folds in the rest, 2 to 127.
    group_by : {"recording", "author", "place"}
        What must not stand on two sides, besides identical audio.
    seed : int
        Not negative.
    place_km : float
        How near recordings have to be for one place, in km.

    Returns
    -------
    DataFrame
        A row a recording, sorted by filename: ``filename``, ``primary_label``, ``group`` (the smallest filename in
        the group), ``split`` ("test" or "train"), ``fold`` (int8: the fold that the recording validates; -1 where
        none does: the test, and what is always in training).

    Raises
    ------
    SplitError
        For no recordings, a missing column, filename or label, a filename twice, or settings out of range.
    """
    for name, value, fits in (
        ("test_share", test_share, 0 <= test_share < 1),
        ("folds", folds, 2 <= folds <= 127),
        ("group_by", group_by, group_by in ("recording", "author", "place")),
    ):
        if not fits:
            raise SplitError(f"splits.{name}={value!r} is out of range")
    table = _readied(recordings, group_by, place_km)
    group_of = _components(table)
    names = table["filename"].to_numpy()[np.unique(group_of, return_index=True)[1]]
    classes = pd.factorize(table["primary_label"])[0]
    counts = coo_array((np.ones(len(table), dtype=np.int64), (group_of, classes))).tocsr()
    draws = _draws(names, seed, 1 + folds)
    test = dealing.pick_test(counts, test_share, draws[:, 0])
    fold = dealing.pick_folds(counts, test, draws[:, 1:])
    return _table(table, group_of, test[group_of], fold[group_of])


def _table(table: pd.DataFrame, group_of: np.ndarray, test: np.ndarray, fold: np.ndarray) -> pd.DataFrame:
    """The splits table from each row's group, whether it is test, and its fold."""
    names = table["filename"].to_numpy()[np.unique(group_of, return_index=True)[1]]
    return pd.DataFrame(
        {
            "filename": table["filename"],
            "primary_label": table["primary_label"],
            "group": names[group_of],
            "split": np.where(test, "test", "train"),
            "fold": fold.astype(np.int8),
        }
    )


def check(splits: pd.DataFrame) -> None:
    """Look for leaks in a splits table; every run does so before it trusts one.

    Parameters
    ----------
    splits : DataFrame
        As `make` returns it.

    Raises
    ------
    SplitError
        Naming an example, if a filename is there twice, a group is on two sides, a class is missing from a training
        side, or a column or value is not as it should be.
    """
    _require(splits, COLUMNS)
    _refuse(splits, ~splits["split"].isin(["train", "test"]), "split is neither train nor test")
    if not pd.api.types.is_integer_dtype(splits["fold"]):
        raise SplitError(f"splits: fold holds {splits['fold'].dtype}, not whole numbers")
    _refuse(splits, splits["fold"] < -1, "fold is under -1")
    _refuse(splits, (splits["split"] == "test") & (splits["fold"] != -1), "a test recording validates a fold")
    _refuse(splits, splits["filename"].duplicated(), "filename is there twice")
    side_of = splits["split"] + splits["fold"].astype(str)
    first = side_of.groupby(splits["group"]).transform("first")
    _refuse(splits, side_of != first, "its group is on two sides")
    _check_classes(splits)


def shared(splits: pd.DataFrame, recordings: pd.DataFrame, fold: int) -> pd.DataFrame:
    """How much two sides of a fold have in common, counted anew from the recordings themselves.

    Parameters
    ----------
    splits : DataFrame
        As `make` returns it.
    recordings : DataFrame
        filename, author and audio_hash of each recording; nobody's and unhashed ones share nothing.
    fold : int
        The fold that validates.

    Returns
    -------
    DataFrame
        Rows "recordings", "pieces of identical audio" and "recordists"; columns "training and validation", "training
        and test" and "validation and test"; values how many are on both. Only recordists may be, when whole recordings
        are the unit.
    """
    columns = {"recordings": "filename", "pieces of identical audio": "audio_hash", "recordists": "author"}
    table = recordings.merge(splits[["filename", "split", "fold"]], on="filename")
    validates = table["fold"] == fold
    sides = {
        "training": (table["split"] == "train") & ~validates,
        "validation": validates,
        "test": table["split"] == "test",
    }
    found = {}
    for one, other in itertools.combinations(sides, 2):
        pairs = {
            row: [set(table.loc[sides[each], column].dropna()) for each in (one, other)]
            for row, column in columns.items()
        }
        found[f"{one} and {other}"] = {row: len(left & right) for row, (left, right) in pairs.items()}
    return pd.DataFrame(found)


def side(splits: pd.DataFrame, part: Literal["train", "validation", "test"], fold: int | None = None) -> pd.DataFrame:
    """The recordings on one side.

    Parameters
    ----------
    splits : DataFrame
        As `make` returns it.
    part : {"train", "validation", "test"}
        Which side.
    fold : int or None
        The fold that validates. None: "train" is then all that is not test. The test is the same for every fold.

    Returns
    -------
    DataFrame
        Rows of `splits`, in their order. The test may be empty.

    Raises
    ------
    SplitError
        For an unknown part, no fold for "validation", or a fold that no recording validates.
    """
    if part not in ("train", "validation", "test"):
        raise SplitError(f"there is no side {part!r}; the sides are train, validation and test")
    if part == "test":
        return splits[splits["split"] == "test"]
    training = splits["split"] == "train"
    if fold is None:
        if part == "validation":
            raise SplitError("validation is of one fold: say which")
        return splits[training]
    validating = training & (splits["fold"] == fold)
    if fold < 0 or not validating.any():
        raise SplitError(_NOBODY.format(f"fold {fold}"))
    return splits[validating if part == "validation" else training & ~validating]


def groups(splits: pd.DataFrame, filenames: pd.Series) -> np.ndarray:
    """The group of each of `filenames`, which may come again: what an interval has to resample."""
    return splits.set_index("filename")["group"].loc[filenames].to_numpy()


def unscored(splits: pd.DataFrame, fold: int | None = None) -> list[str]:
    """The classes, sorted, that a score has to leave out, for they have no recording there.

    ``fold`` : the one whose validation is scored; None: the test.
    """
    scored = side(splits, "test") if fold is None else side(splits, "validation", fold)
    return sorted(set(labels(splits)) - set(scored["primary_label"]))


def labels(splits: pd.DataFrame) -> list[str]:
    """The classes, sorted: the order of a model's outputs."""
    return sorted(splits["primary_label"].unique())


def _require(table: pd.DataFrame, columns: tuple[str, ...]) -> None:
    if missing := [column for column in columns if column not in table]:
        raise SplitError(f"splits: no column {', '.join(missing)}; there are {', '.join(map(str, table.columns))}")
    if table.empty:
        raise SplitError("splits: there are no recordings")
    for column in ("filename", "primary_label", "group"):
        if column in columns:
            _refuse(table, table[column].isna() | (table[column] == ""), f"{column} is missing")


def _refuse(table: pd.DataFrame, bad: pd.Series, what: str) -> None:
    if bad.any():
        row = table[bad].iloc[0]
        raise SplitError(f"splits: {what}: {row['filename']} ({row['primary_label']}), {int(bad.sum())} in all")


def _check_classes(splits: pd.DataFrame) -> None:
    """Every class is in training, and not only in what one fold takes out to validate."""
    training = splits.loc[splits["split"] == "train"].groupby("primary_label")["fold"]
    if absent := sorted(set(splits["primary_label"]) - set(training.groups)):
        raise SplitError(f"splits: class {absent[0]} has no training recording")
    fold = training.first()[(training.nunique() == 1) & (training.first() >= 0)]
    for label, only in fold.items():
        raise SplitError(f"splits: class {label} has no recording on the training side of fold {only}")


def _readied(recordings: pd.DataFrame, group_by: GroupBy, place_km: float) -> pd.DataFrame:
    """Checked and sorted by filename; then what ties recordings together, None where there is nothing."""
    _require(recordings, ("filename", "primary_label", "audio_hash", *TELLS[group_by]))
    _refuse(recordings, recordings["filename"].duplicated(), "filename is there twice")
    if group_by == "place":
        recordings = recordings.assign(place=sites.of(recordings, place_km))
    links = ["audio_hash"] + [group_by] * (group_by != "recording")
    table = recordings[["filename", "primary_label"]].astype(str)
    for link in links:
        text = recordings[link].astype(object).where(recordings[link].notna(), "").astype(str).str.strip()
        table[link] = text.where(text != "", None)
    return table.sort_values("filename", ignore_index=True)


def _components(table: pd.DataFrame) -> np.ndarray:
    """The group of every row, int (rows,), numbered in the order of their smallest filename."""
    rows, nodes, first = [], [], len(table)
    for link in table.columns[2:]:
        codes, values = pd.factorize(table[link])
        tied = np.flatnonzero(codes >= 0)
        rows.append(tied)
        nodes.append(first + codes[tied])
        first += len(values)
    ends = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(first, first))
    component = connected_components(graph, directed=False)[1][: len(table)]
    return pd.factorize(component)[0]


def _draws(names: np.ndarray, seed: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) a group, (groups, count), each row from the seed and the group's name alone."""
    return np.array([chance.rng(seed, "splits", str(name)).random(count) for name in names])
