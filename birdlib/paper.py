"""What the paper reports, to be shown beside a run's own results, and whether the run is on the paper's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import pandas as pd

SPECIES = 182
ACCURACY = {"phase_1": 0.1627, "phase_2": 0.6029, "test": 0.5682}


def is_its_data(labels: Sequence[str]) -> bool:
    """Whether a run's labels are the 182 of BirdCLEF 2024; its traits are in the package, one a label."""
    return set(labels) == set(pd.read_csv(str(files("birdlib") / "traits.csv"))["primary_label"])


def where(labels: Sequence[str]) -> str:
    """On which data the paper's numbers are, said to those who see a run with these labels."""
    other = "" if is_its_data(labels) else f", which are other data than these {len(labels)}"
    return f"on the {SPECIES} species of BirdCLEF 2024{other}"


def beside(metrics: Mapping[str, Any], labels: Sequence[str]) -> pd.DataFrame:
    """Accuracies of a run, by chunk, beside the paper's, each also as a multiple of chance.

    Parameters
    ----------
    metrics : the sections phase_1, phase_2 and, where there is one, test of ``metrics.json``; an accuracy of None was
        not measured.

    Returns
    -------
    table : indexed by result; columns say on which data.
    """
    own = {
        "validation after phase I": metrics["phase_1"]["val_accuracy"],
        "validation after phase II": metrics["phase_2"]["val_accuracy"],
        "test": metrics.get("test", {}).get("accuracy"),
    }
    here = "here" if is_its_data(labels) else f"here ({len(labels)} species, other data)"
    there = f"the paper (BirdCLEF 2024, {SPECIES} species)"
    rows = {}
    for (name, accuracy), published in zip(own.items(), ACCURACY.values(), strict=True):
        rows[name] = {
            here: "–" if accuracy is None else f"{accuracy:.1%}",
            "times chance here": "–" if accuracy is None else f"{accuracy * len(labels):.1f}",
            there: f"{published:.2%}",
            "times chance there": f"{published * SPECIES:.1f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")
