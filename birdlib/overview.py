"""What the metadata say, as tables: the columns and what becomes of each, species, kinds of sound, oddities."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from birdlib import metadata

SHORT_S, LONG_S = 5.0, 300.0
USED = {
    "primary_label": "the species: what is learnt",
    "filename": "where the recording lies",
}
SET_ASIDE = {
    "secondary_labels": "other species in the background: weak labels, without saying when they are heard",
    "type": "song, call, sex, age, as the recordist wrote it: a soundscape comes without it",
    "latitude": "where it was made: not to be heard; drawn on the map below",
    "longitude": "where it was made: not to be heard; drawn on the map below",
    "scientific_name": "says the same as primary_label",
    "common_name": "says the same as primary_label; names the species in figures",
    "author": "who made it: not to be heard; splits.group_by=author keeps each on one side",
    "license": "what may be done with the recording",
    "rating": "how good it is said to be: bad recordings are what the classifier will hear",
    "url": "where it came from",
}


def columns(recordings: pd.DataFrame, data_dir: Path) -> pd.DataFrame:
    """Every column of ``train_metadata.csv`` and of BirdCLEF 2024: how much is in it, and what becomes of it.

    Parameters
    ----------
    recordings : the table of `birdlib.metadata.load`.

    Returns
    -------
    table : indexed by column; ``filled`` (rows with a value: an empty list, ``['']`` and a rating of 0 are none),
        ``missing``, ``distinct`` (different values), ``kept`` ("yes", "set aside", "not in this file") and ``why``.
    """
    header = pd.read_csv(data_dir / "train_metadata.csv", nrows=0, encoding="utf-8-sig").columns
    others = [name for name in header if name not in metadata.COLUMNS]
    extra = pd.read_csv(data_dir / "train_metadata.csv", usecols=others, dtype="str", encoding="utf-8-sig")
    rows = {name: _column(recordings[name], name, name in header) for name in metadata.COLUMNS}
    for name in others:
        rows[name] = {**_counts(extra[name].dropna(), len(extra)), "kept": "set aside", "why": "not known to birdlib"}
    return pd.DataFrame.from_dict(rows, orient="index")


def _column(values: pd.Series, name: str, there: bool) -> dict[str, object]:
    if not there:
        return {**_counts(values.iloc[:0], len(values)), "kept": "not in this file", "why": "empty for every recording"}
    if name == "secondary_labels":
        filled = values[values.map(len) > 0].map(str)
    elif name == "rating":
        filled = values[values > 0]
    else:
        filled = values[values.notna() & ~values.isin(["", "['']", "[]"])]
    kept = "yes" if name in USED else "set aside"
    return {**_counts(filled, len(values)), "kept": kept, "why": USED.get(name) or SET_ASIDE[name]}


def _counts(filled: pd.Series, rows: int) -> dict[str, int]:
    return {"filled": len(filled), "missing": rows - len(filled), "distinct": int(filled.nunique())}


def names(recordings: pd.DataFrame) -> dict[str, str]:
    """The common name of each label, to be shown in its place; the label itself where there is none or it is shared."""
    common = recordings.dropna(subset=["common_name"]).groupby("primary_label")["common_name"].first()
    shared = common.duplicated(keep=False)
    return {label: label for label in recordings["primary_label"].unique()} | common[~shared].to_dict()


def types(recordings: pd.DataFrame) -> pd.Series:
    """Recordings of each kind of sound ("song", "flight call", ...), most first; one of two kinds counts for both."""
    found = Counter(kind for text in recordings["type"].dropna() for kind in set(_kinds(text)))
    return pd.Series(dict(found.most_common()), dtype="int64")


def _kinds(text: str) -> list[str]:
    """The kinds in a cell: "['call', 'male']" in some years, "call, male" in others."""
    try:
        value = ast.literal_eval(text)
        parts = value if isinstance(value, list | tuple) else [value]
    except (ValueError, SyntaxError):
        parts = text.split(",")
    return [kind for part in parts if (kind := str(part).strip().lower())]


def background(recordings: pd.DataFrame) -> pd.Series:
    """How often each label is in the background of a recording of another species, most first."""
    found = Counter(label for labels in recordings["secondary_labels"] for label in set(labels))
    return pd.Series(dict(found.most_common()), dtype="int64")


def odd(recordings: pd.DataFrame) -> pd.DataFrame:
    """Readable files that differ from the rest: no error, but worth a look.

    Returns
    -------
    table : indexed by what is odd; ``recordings`` (how many) and ``such as`` (one of them).
    """
    known = recordings[recordings["duration_s"].notna()]
    usual_hz, usual_channels = (known[column].mode() for column in ("sample_rate_hz", "channels"))
    found = {
        f"shorter than {SHORT_S:g} s": known["duration_s"] < SHORT_S,
        f"longer than {LONG_S:g} s": known["duration_s"] > LONG_S,
        f"not at {int(usual_hz.iloc[0]) if len(usual_hz) else 0:,} Hz": ~known["sample_rate_hz"].isin(usual_hz[:1]),
        "not of as many channels as most": ~known["channels"].isin(usual_channels[:1]),
    }
    rows = {
        what: {"recordings": int(which.sum()), "such as": known.loc[which, "filename"].iloc[0] if which.any() else ""}
        for what, which in found.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def people(recordings: pd.DataFrame) -> dict[str, float]:
    """How much hangs on single recordists: how many there are, and the largest share of all recordings that one made.

    ``one_only``: labels whose recordings are all by one person, which no split by author can both train and test.
    """
    counts = recordings["author"].value_counts()
    by_label = recordings.dropna(subset=["author"]).groupby("primary_label")["author"].nunique()
    largest = counts.max() / len(recordings) if len(counts) else np.nan
    return {"people": len(counts), "largest_share": float(largest), "one_only": int((by_label == 1).sum())}
