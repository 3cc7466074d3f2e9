"""Which recordings and chunks to show: good examples of what a notebook talks about, found in its tables.

Chunks to show are tables with filename, start_s and ``title``, what to call each; `read` turns them into sounds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from birdlib import audio, intervals, sources, spectrogram

if TYPE_CHECKING:
    from birdlib.runs import Run


PLACE = ["filename", "start_s", "primary_label"]  # of predictions; all their other columns are classes


def read(run: Run, shown: pd.DataFrame) -> dict[str, np.ndarray]:
    """The chunks as sounds: title -> float32 (samples,). A title that comes again gets a blank more, to be another.

    Those that cannot be read any more are left out.
    """
    source, sounds = sources.by_settings(run.data_dir, run.config), {}
    for chunk in shown.itertuples():
        title = chunk.title
        while title in sounds:
            title += " "
        with contextlib.suppress(audio.AudioError):
            sounds[title] = audio.to_float(source.read(chunk.filename, chunk.start_s))
    return sounds


def recording(table: pd.DataFrame, most_chunks: int = 24) -> str:
    """The filename of a recording that shows how cutting works: many silent chunks beside many kept ones, not too long.

    ``table``: a row a chunk, with filename and kept.
    """
    chunks = table.groupby("filename")["kept"].agg(["size", "sum"])
    short = chunks[chunks["size"] <= most_chunks]
    chunks = short if len(short) else chunks.nsmallest(1, "size")
    both = np.minimum(chunks["sum"], chunks["size"] - chunks["sum"])
    return chunks.assign(both=both).sort_values(["both", "size"], ascending=False, kind="stable").index[0]


def silent_and_kept(table: pd.DataFrame, energy: str, count: int = 4) -> pd.DataFrame:
    """Silent chunks from the faintest to the loudest, each of another recording, then the loudest chunk of each of
    those recordings; without silent chunks, the faintest kept ones alone.

    ``table``: a row a chunk, with filename, start_s, primary_label, kept and the column ``energy``.
    """
    silent = table[~table["kept"]]
    if silent.empty:
        faintest = table.sort_values(energy, kind="stable").drop_duplicates("filename")
        return _titled(faintest.head(count), "kept: {}", energy).reset_index(drop=True)
    ranked = silent.sort_values(energy, kind="stable").drop_duplicates("filename")
    chosen = ranked.iloc[np.unique(np.linspace(0, len(ranked) - 1, count).round().astype(int))]
    loudest = table.loc[table.groupby("filename")[energy].idxmax()].set_index("filename", drop=False)
    partners = loudest.loc[chosen["filename"]]
    return pd.concat(
        [_titled(chosen, "silent: {}", energy), _titled(partners, "loudest of {}", energy)], ignore_index=True
    )


def _titled(chunks: pd.DataFrame, words: str, energy: str) -> pd.DataFrame:
    titles = [
        f"{words.format(name)}\nenergy {np.format_float_positional(value, 2, fractional=False, trim='-')}"
        for name, value in zip(chunks["filename"], chunks[energy], strict=True)
    ]
    return chunks[PLACE].assign(title=titles)


def full(run: Run, chunks: pd.DataFrame, looked_at: int = 60) -> pd.Series:
    """Of the first chunks the one that is fullest of clear song, with sound at all times and pitches around it.

    Told from the image: how far each frame's loudest band stands out of its upper quarter, on average; noise has no
    such band. What is black, as a padded tail is, or pitches that were filtered out before, counts against a chunk.
    """
    source, clearest, most = sources.by_settings(run.data_dir, run.config), chunks.iloc[0], -np.inf
    for _, chunk in chunks.iloc[:looked_at].iterrows():
        try:
            samples = source.read(chunk["filename"], chunk["start_s"])
        except audio.AudioError:  # it broke since it was indexed
            continue
        grey = spectrogram.image(samples, run.config)[..., 0]
        stands_out = np.mean(grey.max(axis=0) - np.quantile(grey, 0.75, axis=0)) * np.mean(grey > 0)
        if stands_out > most:
            clearest, most = chunk, stands_out
    return clearest


def changed(before: pd.DataFrame, after: pd.DataFrame, names: Mapping[str, str], count: int = 4) -> pd.DataFrame:
    """Chunks that two classifiers see differently: those that became right, then those that became wrong.

    Both: predictions of the same chunks, with filename, start_s, primary_label and a column a class. Within each kind,
    those whose right species' probability changed most come first, and no species comes twice.
    """
    before, after = _of_both(before, after)
    labels = _classes(before)
    truth = before["primary_label"].to_numpy()
    first, then = (_likeliest(table, labels) for table in (before, after))
    at = pd.Index(labels).get_indexer(truth)
    rows = np.arange(len(before))
    gain = after[labels].to_numpy()[rows, at] - before[labels].to_numpy()[rows, at]
    table = before[PLACE].assign(gain=gain, first=first, then=then)
    fate = np.where(then == truth, "which is right", ["truly " + _name(names, label) for label in truth])
    table["title"] = [
        f"I: {_name(names, was)}\nII: {_name(names, now)}\n{end}"
        for was, now, end in zip(first, then, fate, strict=True)
    ]
    better = table[(first != truth) & (then == truth)].sort_values("gain", ascending=False, kind="stable")
    worse = table[(first == truth) & (then != truth)].sort_values("gain", kind="stable")
    better, worse = (part.drop_duplicates("primary_label") for part in (better, worse))
    of_worse = min(len(worse), max(1, count - len(better)))
    return pd.concat([better.iloc[: count - of_worse], worse.iloc[:of_worse]], ignore_index=True)


def right(predictions: pd.DataFrame) -> pd.Series:
    """Whether each chunk's likeliest species is the right one (bool). ``predictions``: as in `changed`."""
    return pd.Series(_likeliest(predictions, _classes(predictions)) == predictions["primary_label"].to_numpy())


def changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """How many chunks phase I and phase II were each right and wrong about: int (2, 2), phase I in the rows."""
    words = {True: "right", False: "wrong"}
    before, after = _of_both(before, after)
    said = [right(table).map(words).rename(name) for table, name in ((before, "phase I"), (after, "phase II"))]
    return pd.crosstab(*said).reindex(index=words.values(), columns=words.values(), fill_value=0)


def gain(before: pd.DataFrame, after: pd.DataFrame, groups: Sequence[str], seed: int) -> intervals.Estimate:
    """The gain in accuracy by chunk from one classifier to another on the same chunks, with its 95 % interval.

    ``groups`` (chunks,): the split's group of each of ``before``, as `birdlib.splits.groups` gives it.
    """
    before, after = _of_both(before.assign(_group=np.asarray(groups)), after)
    groups = before.pop("_group")
    gained = right(after).to_numpy(float) - right(before).to_numpy(float)
    return intervals.Estimate(float(np.mean(gained)), *intervals.of_mean(gained, groups, seed))


def confused(
    predictions: pd.DataFrame, pairs: Iterable[tuple[str, str, int]], labels: Sequence[str], names: Mapping[str, str]
) -> pd.DataFrame:
    """For each confused pair: the chunk most surely taken for the other species, and a sure chunk of each species.

    ``predictions``: a row a chunk, as in `changed`; ``pairs``: as `birdlib.evaluation.confused_pairs` gives them.
    """
    said = _likeliest(predictions, labels)
    rows = []
    for true, taken, _ in pairs:
        mistaken = predictions[(predictions["primary_label"] == true) & (said == taken)]
        rows.append(_surest(mistaken, taken, f"{_name(names, true)}\ntaken for {_name(names, taken)}"))
        for label in (true, taken):
            sure = predictions[(predictions["primary_label"] == label) & (said == label)]
            rows.append(_surest(sure, label, f"{_name(names, label)}\nrecognised"))
    columns = [*PLACE, "title"]
    return pd.concat([*rows, pd.DataFrame(columns=columns)], ignore_index=True)[columns]


def _surest(chunks: pd.DataFrame, label: str, title: str) -> pd.DataFrame:
    best = chunks.nlargest(1, label)
    return best[PLACE].assign(title=[f"{title} ({value:.0%})" for value in best[label]])


def _of_both(before: pd.DataFrame, after: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The chunks that both predicted: a recording that broke in between is in one of them only."""
    keys = [pd.MultiIndex.from_frame(table[PLACE]) for table in (before, after)]
    return tuple(
        table[own.isin(other)].reset_index(drop=True)
        for table, own, other in ((before, keys[0], keys[1]), (after, keys[1], keys[0]))
    )


def _classes(predictions: pd.DataFrame) -> list[str]:
    return [column for column in predictions.columns if column not in PLACE]


def _likeliest(predictions: pd.DataFrame, labels: Sequence[str]) -> np.ndarray:
    return np.asarray(labels, dtype=object)[predictions[list(labels)].to_numpy().argmax(axis=1)]


def _name(names: Mapping[str, str], label: str) -> str:
    return names.get(label, label)
