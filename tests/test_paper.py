"""The paper's numbers beside a run's."""

import pandas as pd
import pytest

from birdlib import paper

METRICS = {"phase_1": {"val_accuracy": 0.25}, "phase_2": {"val_accuracy": 0.5}, "test": {"accuracy": 0.6}}


def labels_of_2024(shared):
    return pd.read_csv(shared / "data" / "birdclef2024" / "sample_submission.csv", nrows=0).columns[1:].tolist()


def test_the_numbers_are_the_papers():
    table = paper.beside(METRICS, ["a", "b", "c", "d"])
    assert table.iloc[:, 2].tolist() == ["16.27%", "60.29%", "56.82%"]
    assert table["times chance there"].tolist()[-1] == "103.4"  # "103 times chance"


def test_other_data_are_said_to_be_others():
    table = paper.beside(METRICS, ["a", "b", "c", "d"])
    assert table.columns[0] == "here (4 species, other data)"
    assert table.iloc[:, 0].tolist() == ["25.0%", "50.0%", "60.0%"]
    assert table["times chance here"].tolist() == ["1.0", "2.0", "2.4"]


def test_without_a_test_there_is_nothing_beside_the_papers():
    for tested in ({"test": {"accuracy": None}}, {}):
        table = paper.beside({**{name: METRICS[name] for name in ("phase_1", "phase_2")}, **tested}, ["a", "b"])
        assert table.iloc[2].tolist() == ["–", "–", "56.82%", "103.4"]


def test_birdclef_2024_is_known_by_its_labels(shared):
    labels = labels_of_2024(shared)
    assert paper.is_its_data(labels[::-1])
    assert paper.beside(METRICS, labels).columns[0] == "here"
    assert not paper.is_its_data(labels[1:])
    assert not paper.is_its_data([*labels[1:], "synbuz1"])


@pytest.mark.parametrize("labels", [[], ["asikoe2"]])
def test_a_few_labels_are_not_the_papers_data(labels):
    assert not paper.is_its_data(labels)


def test_on_which_data_the_papers_numbers_are(shared):
    assert paper.where(labels_of_2024(shared)) == "on the 182 species of BirdCLEF 2024"
    assert paper.where(["a", "b"]).endswith("BirdCLEF 2024, which are other data than these 2")
