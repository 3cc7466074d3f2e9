import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from birdlib import config as configs
from birdlib import folds, runs, splits, stages

LABELS = ["a", "b", "c"]


@pytest.fixture
def run(tmp_path):
    """A run with what four folds said after phase II; the split is by author, two recordings each."""
    rng = np.random.default_rng(0)
    names = [f"{label}/{number}.ogg" for label in LABELS for number in range(8)]
    table = pd.DataFrame({"filename": names, "primary_label": [name[0] for name in names], "audio_hash": None})
    table["author"] = [f"{name[0]}{int(name[2]) // 2}" for name in names]
    made = runs.Run(tmp_path, configs.load("sample", {"folds": "0,1,2,3"}), stages.stage("05"))
    split = splits.make(table, 0, 4, "author", 0)
    made.write_table("splits", split)
    for fold in range(4):
        side = splits.side(split, "validation", fold)
        front = side.loc[side.index.repeat(2), ["filename", "primary_label"]].reset_index(drop=True)
        front.insert(1, "start_s", np.tile([0.0, 4.0], len(side)))
        truth = pd.Index(LABELS).get_indexer(front["primary_label"])
        said = rng.dirichlet(np.ones(3), len(front)) + 0.4 * np.eye(3)[truth]
        said = pd.DataFrame(said / said.sum(axis=1, keepdims=True), columns=LABELS, dtype="float32")
        made.write_table(f"validation_phase_2_fold_{fold}", pd.concat([front, said], axis=1))
    return made


def test_every_chunk_is_there_once_as_its_own_fold_said(run):
    said = folds.out_of_fold(run, 2)
    assert said.columns.tolist() == ["fold", "filename", "start_s", "primary_label", *LABELS]
    assert len(said) == 48
    assert not said.duplicated(["filename", "start_s"]).any()
    split = run.read_table("splits").set_index("filename")
    assert (split.loc[said["filename"], "fold"].to_numpy() == said["fold"]).all()


def test_scores_are_of_all_folds_together_and_of_each(run):
    said = folds.out_of_fold(run, 2)
    found = folds.scores(said, run.read_table("splits"), 0)
    right = said[LABELS].idxmax(axis=1) == said["primary_label"]
    assert found["accuracy"] == pytest.approx(right.mean())
    for fold, values in found["folds"].items():
        assert values["accuracy"] == pytest.approx(right[said["fold"] == int(fold)].mean())
    assert found["spread"] == pytest.approx(right.groupby(said["fold"]).mean().std())
    assert found["groups"] == 12  # authors, not the 24 recordings
    truth = pd.Index(LABELS).get_indexer(said["primary_label"])
    expected = metrics.roc_auc_score(np.eye(3)[truth], said[LABELS].to_numpy(float), average="macro")
    assert found["macro_roc_auc"] == pytest.approx(expected, abs=1e-9)
    low, high = found["intervals"]["accuracy"]
    assert low < found["accuracy"] < high
    shown = folds.table(found)
    assert shown.index.tolist() == ["fold 0", "fold 1", "fold 2", "fold 3", "together"]
    assert shown["chunks"].tolist() == [12, 12, 12, 12, 48]


def test_a_leak_stops_it(run):
    split = run.read_table("splits")
    split["group"] = "the same"
    with pytest.raises(splits.SplitError, match="two sides"):
        folds.scores(folds.out_of_fold(run, 2), split, 0)
