"""How good a run is, and what it is bad at, as the report says it: read from what the notebooks have written.

Everything is made of ``metrics.json`` and of tables, without a model: the report's numbers are the notebooks' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from birdlib import evaluation, examples, folds, paper, spectrogram
from birdlib.audio import AudioError
from birdlib.runs import Run

PAIRS = 3  # confused pairs to hear
ENOUGH_CHUNKS = 3  # of a species, for its recall to be worth a sentence


class Score(NamedTuple):
    """A share with its 95 % interval, None where it does not exist, and the form in which it is written."""

    value: float | None
    low: float | None = None
    high: float | None = None
    form: str = ".1%"

    @property
    def text(self) -> str:
        """The value as it is written."""
        return "–" if self.value is None else format(self.value, self.form)

    @property
    def interval(self) -> str:
        """The interval as it is written; nothing where there is none."""
        return "" if self.low is None else f"{format(self.low, self.form)} to {format(self.high, self.form)}"


class Results(NamedTuple):
    """The part of a run's results that says most.

    ``side``: "test", or "validation" where there is no test; ``metrics``: that section of ``metrics.json``; ``said``:
    its chunks with a probability a class, None where the table is missing.
    """

    side: str
    metrics: Mapping[str, Any]
    said: pd.DataFrame | None

    @property
    def labels(self) -> list[str]:
        """The class order; nothing where nothing was predicted."""
        return [] if self.said is None else [name for name in self.said.columns if name not in examples.PLACE]


def read(run: Run) -> Results | None:
    """The test's results, else the validation's, of the furthest phase; None where there are none yet."""
    metrics = run.metrics()
    if metrics.get("test", {}).get("accuracy") is not None:
        return Results("test", metrics["test"], _test(run))
    if metrics.get("validation", {}).get("accuracy") is not None:  # of all folds, by the last stage, without a test
        return Results("validation", metrics["validation"], _validation(run, 2))
    for phase in (2, 1):
        validation = metrics.get(f"phase_{phase}", {}).get("validation")
        if validation and validation["accuracy"] is not None:
            return Results("validation", validation, _validation(run, phase))
    return None


def _test(run: Run) -> pd.DataFrame | None:
    """The test's predictions: the folds' mean, where there are several."""
    path = run.dir / "tables" / "predictions.parquet"
    if not path.exists():
        return None
    table = pd.read_parquet(path)
    table = table[table["split"] == "test"]
    table = table[table["fold"] == (-1 if table["fold"].nunique() > 1 else table["fold"].max())]
    return table.drop(columns=["split", "fold"]).reset_index(drop=True)


def _validation(run: Run, phase: int) -> pd.DataFrame | None:
    names = [f"validation_phase_{phase}_fold_{fold}.parquet" for fold in run.config.folds]
    if not all((run.dir / "tables" / name).exists() for name in names):
        return None
    return folds.out_of_fold(run, phase).drop(columns="fold")


def score(metrics: Mapping[str, Any], name: str) -> Score:
    """A number of ``metrics.json`` with its interval."""
    found = [metrics.get(name), *metrics.get("intervals", {}).get(name, (None, None))]
    value, low, high = (None if one is None or np.isnan(one) else one for one in found)
    return Score(value, low, high, ".1%" if name.endswith(("accuracy", "top_5")) else ".3f")


def headline(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The headline numbers that there are: ``name``, ``by_chunk`` and ``by_recording``, each a `Score`."""
    rows = [
        {"key": key, "name": name, "by_chunk": score(metrics, key), "by_recording": score(metrics, f"recording_{key}")}
        for key, name in evaluation.HEADLINE.items()
    ]
    return [row for row in rows if row["by_chunk"].value is not None or row["by_recording"].value is not None]


def beside(run: Run, results: Results, classes: int, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The accuracy by chunk beside what it has to beat, and beside the paper's.

    A row each: name, `Score`, remark, and whether it is from ``elsewhere``, of the paper's data.
    """
    metrics, found = run.metrics(), results.metrics
    rows = [("chance", Score(1 / classes), f"one of {classes} species at random")] if classes else []
    if "commonest" in found:
        rows.append(("always the commonest species", Score(found["commonest"]), f"of those in the {results.side}"))
    if "baseline" in found:
        remark = "on the mean and deviation of each mel band, learnt from the same training side"
        rows.append(("logistic regression", Score(found["baseline"]["accuracy"]), remark))
    for phase, name in (("phase_1", "validation after phase I"), ("phase_2", "validation after phase II")):
        validation = score(metrics.get(phase, {}).get("validation", {}), "accuracy")
        if validation.value is not None:
            rows.append((name, validation, "it chose the epoch: it flatters"))
    if results.side == "test":
        rows.append(("test", score(found, "accuracy"), "recordings that no choice has looked at"))
    where = paper.where(labels)
    rows += [(f"the paper, {name}", Score(paper.ACCURACY[key]), where) for key, name in _OF_PAPER.items()]
    return [
        {"name": name, "score": value, "remark": remark, "elsewhere": name.startswith("the paper")}
        for name, value, remark in rows
    ]


_OF_PAPER = {"phase_2": "validation after phase II", "test": "test"}


def more(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Other results of a whole run: name, `Score` (None: a number in words), remark."""
    tested = metrics.get("test") or metrics.get("validation", {})
    validation, rows = metrics.get("phase_2", {}).get("validation", {}), []
    if silent := tested.get("with_silent_chunks"):
        remark = f"{silent['chunks']:,} chunks; where nothing is heard no answer can be right"
        rows.append(("accuracy by chunk, silent chunks too", score(silent, "accuracy"), remark))
    for name in ("endangered", "nocturnal"):
        if (of := tested.get(name)) and of["roc_auc"] is not None:
            remark = f"{of['positives']:,} of {of['samples']:,} chunks are positive"
            rows.append((f"{name}: ROC-AUC", score(of, "roc_auc"), remark))
            rows.append((f"{name}: average precision", score(of, "average_precision"), remark))
    if (heard := metrics.get("soundscapes", {})).get("macro_roc_auc") is not None:
        remark = f"{heard['rows']:,} windows, {heard['species']} species that sing in one"
        rows.append(("soundscapes: macro ROC-AUC by window", score(heard, "macro_roc_auc"), remark))
    if calibrated := tested.get("calibration"):
        remark = "how far its probabilities are from how often it is right"
        rows.append(("expected calibration error", Score(calibrated["expected_error"]), remark))
        rows.append(("the same at its temperature", Score(calibrated["expected_error_tempered"]), remark))
    if validation.get("spread") is not None:
        remark = f"standard deviation over {len(validation['folds'])} folds"
        rows.append(("spread of validation accuracy", Score(validation["spread"]), remark))
    return [{"name": name, "score": value, "remark": remark} for name, value, remark in rows]


def species(results: Results, names: Mapping[str, str]) -> pd.DataFrame:
    """A row a species with a chunk, worst recall first.

    Returns
    -------
    table : label, name, chunks, recordings (int), recall, precision, average_precision, roc_auc (nan where it does not
        exist), mistaken ("Buzzer (5)": what it is taken for most; empty if for none).
    """
    said, labels = results.said, results.labels
    truth, values = _answers(results)
    table = evaluation.per_class(truth, values, labels)
    counts = evaluation.confusion(truth, values)
    wrong = pd.DataFrame(counts - np.diag(np.diag(counts)), labels, labels).loc[table.index]
    most = wrong.max(axis=1)
    taken = [f"{names.get(other, other)} ({most[label]:,})" for label, other in wrong.idxmax(axis=1).items()]
    table = table.assign(
        name=[names.get(label, label) for label in table.index],
        recordings=said.groupby("primary_label")["filename"].nunique().reindex(table.index),
        mistaken=np.where(most > 0, taken, ""),
    )
    return table.sort_values(["recall", "chunks"], ascending=[True, False], kind="stable").reset_index()


def pairs(results: Results, most: int = PAIRS) -> list[tuple[str, str, int]]:
    """The species that are confused most: as `birdlib.evaluation.confused_pairs` gives them."""
    return evaluation.confused_pairs(evaluation.confusion(*_answers(results)), results.labels, most)


def _answers(results: Results) -> tuple[np.ndarray, np.ndarray]:
    """The chunks' right classes, int64 (chunks,), and their probabilities, float64 (chunks, classes)."""
    said, labels = results.said, results.labels
    return pd.Index(labels).get_indexer(said["primary_label"]), said[labels].to_numpy(float)


def bad_at(results: Results, table: pd.DataFrame, names: Mapping[str, str]) -> list[str]:
    """What the classifier is bad at, a sentence each, the worst first; without names for what chance alone may do."""
    told = []
    for true, other, count in pairs(results):
        of = int(table.loc[table["label"] == true, "chunks"].iloc[0])
        told.append(f"{names.get(true, true)} is taken for {names.get(other, other)}: {count} of {of} chunks.")
    weak = table[(table["recall"] < 0.5) & (table["chunks"] >= ENOUGH_CHUNKS)]
    if len(weak):
        first = [f"{name} ({recall:.0%})" for name, recall in zip(weak["name"], weak["recall"], strict=True)]
        told.append(f"It recognises less than half of the chunks of {_first(first)}.")
    if untested := results.metrics.get("classes_without_test"):
        first = [names.get(label, label) for label in untested]
        told.append(f"Nothing is known of {_first(first)}: no recording of theirs is in the test.")
    return told


def _first(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def heard(run: Run, results: Results, recordings: pd.DataFrame, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """The most confused pairs, each with chunks to hear: ``title``, ``count`` and ``chunks``.

    Each chunk: ``title``, ``filename``, ``start_s``, whose recording it is (author, license, url; None where that is
    not said), ``samples`` float32 (n,) and ``image``, its log-mel image. A chunk that cannot be read any more is left
    out.
    """
    by = recordings.set_index("filename").reindex(columns=["author", "license", "url"])
    found = []
    for pair in pairs(results):
        shown = examples.confused(results.said, [pair], results.labels, names)
        chunks = [_chunk(run, shown.iloc[[place]], by) for place in range(len(shown))]
        title = f"{names.get(pair[0], pair[0])} taken for {names.get(pair[1], pair[1])}"
        found.append({"title": title, "count": pair[2], "chunks": [chunk for chunk in chunks if chunk]})
    return found


def _chunk(run: Run, shown: pd.DataFrame, by: pd.DataFrame) -> dict[str, Any] | None:
    try:
        sounds = examples.read(run, shown)
    except (OSError, AudioError):
        return None
    if not sounds:
        return None
    ((title, samples),) = sounds.items()
    filename, start_s = shown["filename"].iloc[0], float(shown["start_s"].iloc[0])
    whose = {} if filename not in by.index else by.loc[filename].dropna().to_dict()
    image = spectrogram.image(samples, run.config)[..., 0]
    return {"title": title, "filename": filename, "start_s": start_s, "samples": samples, "image": image, **whose}
