"""JSON that any reader takes."""

import json

import numpy as np
import pytest

from birdlib import writing


def strict(path):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float64("nan")])
def test_what_is_no_finite_number_is_null_however_deep(value, tmp_path):
    path = tmp_path / "folder/file.json"
    writing.write_json(path, {"a": value, "intervals": {"b": [value, 0.5], "c": (0.25, value)}, "d": [{"e": value}]})
    assert strict(path) == {"a": None, "intervals": {"b": [None, 0.5], "c": [0.25, None]}, "d": [{"e": None}]}


def test_what_json_has_words_for_is_left_as_it_is(tmp_path):
    value = {
        "text": "ç\n",
        "whole": 10**20,
        "number": 0.1 + 0.2,
        "yes": True,
        "nothing": None,
        "list": [],
        "of": {"1": 2},
    }
    writing.write_json(tmp_path / "file.json", value)
    assert strict(tmp_path / "file.json") == value == writing.read_json(tmp_path / "file.json")
