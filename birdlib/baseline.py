"""What the network has to beat: a logistic regression on the mean and deviation of each mel band.

It sees how the energy of a chunk is spread over frequencies, and nothing of how the sound moves in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from birdlib import chunks, intervals, sources, spectrogram, splits
from birdlib.parallel import Failure, map_files

if TYPE_CHECKING:
    from birdlib.config import Config
    from birdlib.runs import Run


def features(chunks: pd.DataFrame, data_dir: Path, config: Config) -> np.ndarray:
    """Mean and standard deviation over time of each mel band: float64 (chunks, 2 * n_mels), in the order of `chunks`.

    nan for the chunks of a recording that cannot be read any more.
    """
    source = sources.by_settings(data_dir, config)
    starts_s = chunks["start_s"].to_numpy()
    places = chunks.reset_index(drop=True).groupby("filename").indices
    result = np.zeros((len(chunks), 2 * config.spectrogram.n_mels))

    def statistics(item: tuple[str, np.ndarray]) -> np.ndarray:
        images = (spectrogram.image(source.read(item[0], start_s), config)[:, :, 0] for start_s in item[1])
        return np.stack([np.concatenate([image.mean(axis=1), image.std(axis=1)]) for image in images])

    compute = config.compute
    items = [(name, starts_s[rows]) for name, rows in places.items()]
    for (name, _), found in map_files(
        statistics,
        items,
        compute.file_time_limit_s,
        compute.workers,
        "baseline features",
        compute.cluster,
        [data_dir / "train_audio"],
    ):
        result[places[name]] = np.nan if isinstance(found, Failure) else found
    return result


def by_grouping(run: Run, recordings: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of the logistic regression in folds by recording, and in as many by author; all else is the same.

    It gets the first kept chunk of each recording of the training split (the test is not touched), of a species at most
    ``testing.baseline_chunks`` of them. What always trains in either is scored in neither.

    Parameters
    ----------
    recordings : filename, author, audio_hash.

    Returns
    -------
    table : rows "recording", "author" and "difference"; columns accuracy, low and high (95 %, recordists resampled),
        and recordings (scored).
    """
    config = run.config
    used = _one_chunk_each(run).merge(recordings[["filename", "author", "audio_hash"]], on="filename")
    values = features(used, run.data_dir, config)
    heard = np.isfinite(values[:, 0])
    used, values = used[heard], values[heard]
    answers = used["primary_label"].to_numpy()
    right, scored = {}, np.ones(len(used), bool)
    for group_by in ("recording", "author"):
        made = splits.make(used, 0, config.splits.folds, group_by, config.seed)
        fold = made.set_index("filename")["fold"].loc[used["filename"]].to_numpy()
        right[group_by] = _folds_right(values, answers, fold)
        scored &= fold >= 0
    right["difference"] = right["author"] - right["recording"]
    people = used["author"].fillna(used["filename"]).to_numpy()[scored]
    rows = {
        name: (share[scored].mean(), *intervals.of_mean(share[scored], people, config.seed), int(scored.sum()))
        for name, share in right.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["accuracy", "low", "high", "recordings"])


def told(grouped: pd.DataFrame) -> str:
    """What `by_grouping` found, as a sentence or two."""
    (one, other, change), count = grouped["accuracy"], grouped["recordings"].iloc[0]
    low, high = grouped.loc["difference", ["low", "high"]]
    if not count:
        return "No recording could be scored in both ways: every species has too few of them."
    apart = "which is more than chance" if low > 0 or high < 0 else "which these recordings cannot tell from none"
    return (
        f"**By recording it gets {one:.1%} of {count:,} recordings right, by author {other:.1%}**: {change:+.1%} "
        f"(95 % interval {low:+.1%} to {high:+.1%}), {apart}."
    )


def _one_chunk_each(run: Run) -> pd.DataFrame:
    """The first kept chunk of each recording of the training split, of a species so many as the settings say."""
    every, side = run.read_table("chunks"), splits.side(run.read_table("splits"), "train")
    first = every[chunks.kept(every, run.config.silence)].drop_duplicates("filename")
    labelled = first.merge(side[["filename", "primary_label"]], on="filename")
    return chunks.thinned(labelled, "primary_label", run.config.testing.baseline_chunks)


def _folds_right(values: np.ndarray, answers: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Whether each sample is recognised by a model of all other folds: float64 (samples,), 0 for a fold under 0."""
    right = np.zeros(len(values))
    for each in np.unique(fold[fold >= 0]):
        model = regression().fit(values[fold != each], answers[fold != each])
        right[fold == each] = model.predict(values[fold == each]) == answers[fold == each]
    return right


def regression():
    """The model itself: features scaled, classes weighted so that each counts alike."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))


def probabilities(
    sides: Sequence[pd.DataFrame], test: pd.DataFrame, labels: list[str], data_dir: Path, config: Config
) -> np.ndarray:
    """The mean of what `by_side` gives: float64 (test chunks, classes)."""
    return by_side(sides, test, labels, data_dir, config).mean(axis=0)


def by_side(
    sides: Sequence[pd.DataFrame], test: pd.DataFrame, labels: list[str], data_dir: Path, config: Config
) -> np.ndarray:
    """Predicts the chunks `test` (columns filename, start_s), by one fit to the chunks of each of `sides`.

    Those have primary_label too. Of a class with more than ``testing.baseline_chunks`` chunks on a side, that many,
    evenly spread, are used.

    Returns
    -------
    probabilities : float64 (sides, test chunks, classes), the last in the order of `labels`; all alike for what cannot
        be read any more.
    """
    sides = [chunks.thinned(side, "primary_label", config.testing.baseline_chunks) for side in sides]
    places = [pd.MultiIndex.from_frame(table[["filename", "start_s"]]) for table in (*sides, test)]
    every = places[0].append(places[1:]).unique()  # folds have much of their training in common
    values = features(every.to_frame(index=False), data_dir, config)
    *learnt, asked = (values[every.get_indexer(each)] for each in places)
    said = [
        _predicted(asked, of, pd.Index(labels).get_indexer(side["primary_label"]), len(labels))
        for of, side in zip(learnt, sides, strict=True)
    ]
    return np.stack(said)


def _predicted(asked: np.ndarray, learnt: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """What a regression that is fitted to what is known of `learnt` says of what is known of `asked`."""
    known, heard = np.isfinite(learnt[:, 0]), np.isfinite(asked[:, 0])
    model = regression().fit(learnt[known], truth[known])
    result = np.zeros((len(asked), classes))
    result[~heard] = 1 / classes
    if heard.any():
        result[np.ix_(heard, model.classes_)] = model.predict_proba(asked[heard])
    return result
