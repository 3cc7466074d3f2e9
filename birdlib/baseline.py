"""What the network has to beat: a logistic regression on the mean and deviation of each mel band.

It sees how the energy of a chunk is spread over frequencies, and nothing of how the sound moves in time.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from birdlib import sources, spectrogram
from birdlib.chunks import thinned
from birdlib.parallel import Failure, map_files

if TYPE_CHECKING:
    from birdlib.config import Config


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
        statistics, items, compute.file_time_limit_s, compute.workers, "baseline features"
    ):
        result[places[name]] = np.nan if isinstance(found, Failure) else found
    return result


def probabilities(train: pd.DataFrame, test: pd.DataFrame, labels: list[str], data_dir: Path, config: Config):
    """Fits on the chunks `train` and predicts the chunks `test` (columns filename, start_s, primary_label).

    Of a class with more than ``testing.baseline_chunks`` training chunks, that many, evenly spread, are used.

    Returns
    -------
    probabilities : float64 (test chunks, classes), columns in the order of `labels`; all alike for what cannot be read
        any more.
    """
    train = thinned(train, "primary_label", config.testing.baseline_chunks)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    learnt, asked = features(train, data_dir, config), features(test, data_dir, config)
    known, heard = np.isfinite(learnt[:, 0]), np.isfinite(asked[:, 0])
    model.fit(learnt[known], pd.Index(labels).get_indexer(train["primary_label"][known]))
    result = np.zeros((len(test), len(labels)))
    result[~heard] = 1 / len(labels)
    if heard.any():
        result[np.ix_(heard, model.classes_)] = model.predict_proba(asked[heard])
    return result
