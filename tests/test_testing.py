"""The test and the baseline, with placeholder classifiers on a tiny data folder."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from birdlib import calibration, chunks, splits, testing, training, writing
from birdlib import config as configs
from birdlib.classifier import Classifier


def by_pitch(images: np.ndarray) -> np.ndarray:
    """A placeholder model: the four tiny species sing at rising pitches, so the brightest mel band tells them."""
    band = images[..., 0].mean(axis=2).argmax(axis=1)
    scores = np.exp(-np.abs(band[:, None] - np.array([35, 62, 85, 107])[None, :]) / 4)
    return scores / scores.sum(axis=1, keepdims=True)


def uniform(images: np.ndarray) -> np.ndarray:
    return np.full((len(images), 4), 0.25)


def with_validation(run):
    """The run, as if phase II had said of every validation chunk much the same: mostly the first species."""
    for fold in (0, 1):
        data = training.fold_data(run.read_table("chunks"), run.read_table("splits"), fold, run.config)
        front = data.validation[["filename", "start_s", "primary_label"]]
        said = dict(zip(data.labels, np.float32([0.7, 0.1, 0.1, 0.1]), strict=True))
        run.write_table(f"validation_phase_2_fold_{fold}", front.assign(**said))
        writing.write_json(run.path(f"models/phase_2_fold_{fold}.json"), {"temperature": 2.0 + fold})
    return run


@pytest.fixture(scope="module")
def run(tiny_config, tmp_path_factory, start_run):
    return with_validation(start_run(tmp_path_factory.mktemp("run"), tiny_config, "06_testing"))


@pytest.fixture(scope="module")
def result(run):
    models = {0: Classifier(by_pitch, run.config), 1: Classifier(uniform, run.config)}
    return testing.test(run, models)


def test_every_chunk_of_the_test_is_there_once(run, result):
    held_out = splits.side(run.read_table("splits"), "test")
    every = run.read_table("chunks")
    wanted = every[every["filename"].isin(held_out["filename"])]
    assert set(zip(result.chunks["filename"], result.chunks["start_s"], strict=True)) == set(
        zip(wanted["filename"], wanted["start_s"], strict=True)
    )
    assert len(result.chunks) == len(wanted)
    assert [result.labels[index] for index in result.truth] == result.chunks["primary_label"].tolist()


def test_several_folds_are_averaged(result):
    np.testing.assert_allclose(result.probabilities, (result.by_fold[0] + 0.25) / 2, atol=1e-6)


def test_the_predictions_table_keeps_its_contract(run, result):
    table = result.predictions
    assert list(table.columns) == ["filename", "start_s", "split", "fold", "primary_label", *result.labels]
    assert set(zip(table["split"], table["fold"], strict=True)) == {
        ("validation", 0), ("test", 0), ("validation", 1), ("test", 1), ("test", -1)
    }  # fmt: skip
    split = run.read_table("splits").set_index("filename")
    validation = table[table["split"] == "validation"]
    assert (split.loc[validation["filename"], "fold"].to_numpy() == validation["fold"]).all()
    assert np.unique(validation[result.labels].to_numpy(), axis=0) == pytest.approx(np.array([[0.7, 0.1, 0.1, 0.1]]))
    assert (split.loc[table["filename"], "primary_label"].to_numpy() == table["primary_label"]).all()
    every = run.read_table("chunks")
    kept = every[chunks.kept(every, run.config.silence)]
    pairs = set(zip(kept["filename"], kept["start_s"], strict=True))
    assert set(zip(table["filename"], table["start_s"], strict=True)) <= pairs


def test_scores_agree_with_scikit_learn(run, result):
    traits = testing.traits(run, result.labels)
    scores = json.loads(json.dumps(testing.scores(result, traits, 0.5, " (made up)")))
    assert scores["baseline"] == {"accuracy": 0.5}
    assert scores["on"] == " (made up)"
    kept = result.chunks["kept"].to_numpy()
    truth, predicted = result.truth[kept], result.probabilities[kept].argmax(axis=1)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(truth, predicted))
    assert scores["accuracy"] > 0.7
    assert scores["times_chance"] == pytest.approx(4 * scores["accuracy"])
    assert scores["chunks"] == kept.sum()
    assert scores["with_silent_chunks"]["chunks"] == len(kept)
    areas = [sk.roc_auc_score(truth == index, result.probabilities[kept][:, index]) for index in np.unique(truth)]
    assert scores["macro_roc_auc"] == pytest.approx(np.mean(areas))
    assert scores["folds"]["1"]["accuracy"] == pytest.approx(np.mean(truth == 0))  # ties go to the first class
    by_recording = pd.DataFrame(result.probabilities[kept]).groupby(result.chunks["filename"][kept].to_numpy()).mean()
    right = [
        result.labels[row.argmax()] == name.split("/")[0]
        for name, row in zip(by_recording.index, by_recording.to_numpy(), strict=True)
    ]
    assert scores["recording_accuracy"] == pytest.approx(np.mean(right))
    # tinbir1 is Vulnerable; tinbir2 and tinbir3 are nocturnal by one source or the other.
    assert scores["endangered"]["positives"] == (truth == 0).sum()
    assert scores["nocturnal"]["positives"] == np.isin(truth, [1, 2]).sum()
    assert scores["nocturnal"]["species_without_entry"] == []
    precisions = [
        sk.average_precision_score(truth == index, result.probabilities[kept][:, index]) for index in np.unique(truth)
    ]
    assert scores["mean_average_precision"] == pytest.approx(np.mean(precisions))
    assert scores["top_5"] == scores["recording_top_5"] == 1  # of four


def test_intervals_resample_the_splits_groups(run, result):
    split = run.read_table("splits").set_index("filename")
    assert (split.loc[result.chunks["filename"], "group"].to_numpy() == result.chunks["group"]).all()
    scores = testing.scores(result, testing.traits(run, result.labels), 0.5)
    assert scores["groups"] == result.chunks["group"][result.kept].nunique()
    for name, (low, high) in scores["intervals"].items():
        # Of a score of 1 there is none.
        assert low <= scores[name] <= high or (np.isnan([low, high]).all() and scores[name] == 1)


def test_temperatures_are_validations_and_each_folds_own(result):
    assert result.temperatures == {0: 2.0, 1: 3.0}
    tempered = calibration.tempered(result.by_fold[0], 2.0, "softmax")
    np.testing.assert_allclose(result.tempered, (tempered + 0.25) / 2, atol=1e-6)
    kept = result.kept
    scores = testing.scores(result, pd.DataFrame(index=result.labels), 0.5)["calibration"]
    expected = calibration.expected_error(result.truth[kept], result.tempered[kept])
    assert scores["expected_error_tempered"] == pytest.approx(expected)
    assert scores["temperatures"] == {"0": 2.0, "1": 3.0}


def test_results_by_length_and_author_hold_every_kept_chunk(run, result):
    recordings = run.read_table("recordings")
    lengths = testing.by_length(result, recordings, 0)
    assert lengths.index.tolist() == ["up to 10 s"]  # none of the tiny recordings is longer
    assert lengths["chunks"].sum() == result.kept.sum()
    authors = testing.by_author(result, recordings, 0, most=1)
    assert authors["chunks"].sum() == result.kept.sum()
    of = recordings.set_index("filename")["author"].loc[result.chunks["filename"][result.kept].unique()].value_counts()
    assert authors["recordings"].iloc[0] == of.iloc[0]
    assert re.fullmatch(r"1 other|\d+ others", authors.index[-1])
    right = result.probabilities[result.kept].argmax(axis=1) == result.truth[result.kept]
    assert np.average(authors["accuracy"], weights=authors["chunks"]) == pytest.approx(right.mean())
    named = recordings.assign(author=recordings["author"].where(recordings["author"] != authors.index[0], "0 others"))
    assert testing.by_author(result, named, 0)["chunks"].sum() == result.kept.sum()


def test_without_a_test_the_folds_validation_is_told(tiny_config, tmp_path, start_run):
    config = configs.load("sample", {**tiny_config.model_dump(), "splits.test_share": 0, "folds": "0,1"})
    run = with_validation(start_run(tmp_path, config, "06_testing"))
    result = testing.test(run, {fold: Classifier(uniform, config) for fold in (0, 1)})
    assert result.side == "validation"
    tables = [run.read_table(f"validation_phase_2_fold_{fold}") for fold in (0, 1)]
    said = pd.concat(tables, ignore_index=True)
    pd.testing.assert_frame_equal(result.said, said, check_dtype=False)
    scores = testing.scores(result, testing.traits(run, result.labels), testing.baseline_score(run, result))
    assert scores["accuracy"] == pytest.approx((said["primary_label"] == "tinbir1").mean())  # which it always names
    assert scores["intervals"]["accuracy"][0] < scores["accuracy"] < scores["intervals"]["accuracy"][1]
    assert scores["endangered"]["positives"] == (said["primary_label"] == "tinbir1").sum()
    assert scores["baseline"]["accuracy"] > 0.7  # each regression asked for the fold that it was not fitted to
    assert scores["with_silent_chunks"] is None
    assert testing.by_length(result, run.read_table("recordings"), 0)["chunks"].sum() == len(said)
    # A fold's temperature does not see the fold's own answers.
    labels = result.labels
    surer = tables[0].assign(**dict(zip(labels, np.float32([0.97, 0.01, 0.01, 0.01]), strict=True)))
    run.write_table("validation_phase_2_fold_0", surer)
    again = testing.cross_validated(run, run.read_table("splits"))
    assert again.temperatures[0] == result.temperatures[0]
    assert again.temperatures[1] != result.temperatures[1]


def test_the_baseline_learns_species_of_different_pitch(run, result):
    assert testing.baseline_score(run, result) > 0.7
