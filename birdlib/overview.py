"""What the metadata say, as tables: the columns and what becomes of each, species, kinds of sound, oddities."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from birdlib import metadata

SHORT_S, LONG_S = 5.0, 300.0
FULL_SCALE = 0.999
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


def spread(counts: pd.Series, names: Mapping[str, str]) -> str:
    """How many recordings the rarest and the commonest label have: "10 of each", "from 1 (Koel) to 500 (Iora)".

    ``counts``: index label, value a count, the largest first; ``names``: as `names` gives them.
    """
    most, least = counts.index[0], counts.index[-1]
    if counts[most] == counts[least]:
        return f"{counts[most]:,} of each"
    one = ", for one" if (counts == counts[least]).sum() > 1 else ""
    return f"from {counts[least]:,} ({names[least]}{one}) to {counts[most]:,} ({names[most]})"


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
    """Recordings that differ from the rest by their metadata or their files' headers: no error, but worth a look.

    Returns
    -------
    table : indexed by what is odd; ``recordings`` (how many) and ``such as`` (up to three of them). Where no file was
        opened, only what the metadata tell.
    """
    names = recordings["filename"]
    found = {"file of the same name in another folder": names.str.rpartition("/")[2].duplicated(keep=False)}
    known = recordings["sample_rate_hz"].notna()
    return _found(found | (_odd_headers(recordings, known) if known.any() else {}), names)


def _odd_headers(recordings: pd.DataFrame, known: pd.Series) -> dict[str, pd.Series]:
    seconds, rates, channels = (recordings[name] for name in ("duration_s", "sample_rate_hz", "channels"))
    usual_hz, usual_channels = rates[known].mode()[0], channels[known].mode()[0]
    channel = "not mono" if usual_channels == 1 else f"not of {usual_channels} channels"
    return {
        f"shorter than {SHORT_S:g} s": seconds < SHORT_S,
        f"longer than {LONG_S:g} s": seconds > LONG_S,
        "header does not say how long": known & seconds.isna(),
        f"not at {usual_hz:,} Hz": known & (rates != usual_hz),
        channel: known & (channels != usual_channels),
    }


def odd_sound(
    recordings: pd.DataFrame, chunks: pd.DataFrame, audio_hash: pd.Series, length_s: float, tail_s: float
) -> pd.DataFrame:
    """Recordings that differ from the rest once they are heard: what only decoding them shows.

    Parameters
    ----------
    chunks, audio_hash : of a `birdlib.chunks.Index`: a row a chunk, and what is the same where the audio is.
    length_s : of a chunk; tail_s : up to this much at a recording's end belongs to no chunk.

    Returns
    -------
    table : as `odd`'s. A recording that breaks off is found where a chunk or more of it is missing.
    """
    by_file = chunks.groupby("filename").agg(end_s=("start_s", "max"), peak=("peak", "max"))
    heard = recordings.set_index("filename").join(by_file, how="inner").assign(audio_hash=audio_hash)
    labels = heard.groupby("audio_hash")["primary_label"].transform("nunique")
    names = pd.Series(heard.index, index=heard.index)
    found = {
        "nothing but zeros": heard["peak"] == 0,
        "breaks off before the length that its header says": heard["duration_s"] > heard["end_s"] + length_s + tail_s,
        "the same audio as another": heard["audio_hash"].duplicated(keep=False),
        "the same audio as one of another species": labels > 1,
        "reaches full scale, as clipped audio does": heard["peak"] >= FULL_SCALE,
    }
    return _found(found, names)


def _found(found: dict[str, pd.Series], names: pd.Series) -> pd.DataFrame:
    rows = {
        what: {"recordings": int(which.sum()), "such as": ", ".join(names[which].head(3))}
        for what, which in found.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def files_told(seconds: pd.Series, errors: int, left_out: int) -> str:
    """What was found in the files, as points of a list. ``seconds``: lengths of the readable ones; none: no audio."""
    aside = f"- **Files or rows set aside or repaired: {errors}**" + (", each with its reason above" if errors else "")
    if seconds.empty:
        return f"{aside}. The audio is not here: no file was opened, and no other notebook can run."
    known = seconds.dropna()
    hours = f"{known.sum() / 3600:,.2f} hours, from {known.min():.1f} s to {known.max():,.1f} s"
    return f"""{aside}; species that lost all audio: {left_out}.
- {len(seconds):,} files can be read, {hours}. A network needs pieces of one length: that is the next notebook."""


def people(recordings: pd.DataFrame) -> dict[str, float]:
    """How much hangs on single recordists: how many there are, and the largest share of all recordings that one made.

    ``one_only``: labels whose recordings are all by one person, which no split by author can both train and test.
    """
    counts = recordings["author"].value_counts()
    by_label = recordings.dropna(subset=["author"]).groupby("primary_label")["author"].nunique()
    largest = counts.max() / len(recordings) if len(counts) else np.nan
    return {"people": len(counts), "largest_share": float(largest), "one_only": int((by_label == 1).sum())}
