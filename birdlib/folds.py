"""Cross-validation: what the folds' classifiers say of recordings that they were not trained on, all together.

Each fold's validation chose that fold's epoch and lowered its learning rate, so these results flatter a little; a test
that chose nothing does not. Without a test (``splits.test_share=0``) they are what there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from birdlib import evaluation, splits

if TYPE_CHECKING:
    from birdlib.runs import Run


def out_of_fold(run: Run, phase: int) -> pd.DataFrame:
    """What each chunk's own fold says of it after a phase, for the folds of the settings.

    Returns
    -------
    table : fold, filename, start_s, primary_label, then a float32 column a class: every kept chunk of those folds once.
    """
    tables = {fold: run.read_table(f"validation_phase_{phase}_fold_{fold}") for fold in run.config.folds}
    return pd.concat(tables, names=["fold"]).reset_index("fold").reset_index(drop=True)


def scores(said: pd.DataFrame, split_table: pd.DataFrame, seed: int) -> dict[str, Any]:
    """`birdlib.evaluation.summary` over all folds together, with intervals, and of each ``folds`` alone, without.

    ``spread``: the standard deviation over the folds of their accuracy by chunk; nan of one fold.

    Parameters
    ----------
    said : as `out_of_fold` gives it.
    """
    splits.check(split_table)
    of_folds = {str(fold): _summary(table, split_table, None) for fold, table in said.groupby("fold")}
    accuracies = [values["accuracy"] for values in of_folds.values()]
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else float("nan")
    return {**_summary(said, split_table, seed), "spread": spread, "folds": of_folds}


def _summary(said: pd.DataFrame, split_table: pd.DataFrame, seed: int | None) -> dict[str, Any]:
    labels = splits.labels(split_table)
    truth = pd.Index(labels).get_indexer(said["primary_label"])
    groups = splits.groups(split_table, said["filename"])
    return evaluation.summary(truth, said[labels].to_numpy(float), said["filename"], groups, seed)


def table(found: dict[str, Any]) -> pd.DataFrame:
    """The headline numbers of each fold of `scores` and of all together, a row each."""
    rows = {f"fold {fold}": values for fold, values in found["folds"].items()} | {"together": found}
    columns = [*evaluation.HEADLINE, *(f"recording_{name}" for name in evaluation.HEADLINE), "chunks", "recordings"]
    return pd.DataFrame.from_dict(rows, orient="index")[columns]
