"""The figures of training and testing: curves, confusions, scores, a soundscape over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from birdlib.plots_style import (
    BLUE,
    GREY,
    RED,
    Figure,
    left_out,
    legend,
    mark,
    new_axes,
    new_figure,
    species_rows,
    styled,
    write,
)

WRITTEN_CLASSES = 15  # up to this, a confusion matrix writes its numbers into the cells
NAMED_CLASSES = 60  # above this, it names only some of its rows
# The root spreads the small shares, where confusions and a softmax over many species are.
_SHARES = ScalarMappable(PowerNorm(0.5, 0, 1), mpl.colormaps["viridis"].with_extremes(bad="#b0b0b0"))

# ---- training


def _epoch_axis(axes: Axes, epochs: np.ndarray) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(epochs):
        room = 0.5 if len(epochs) == 1 else 0.03 * np.ptp(epochs) + 0.1
        axes.set_xlim(epochs.min() - room, epochs.max() + room)


@styled
def curves(history: pd.DataFrame, title: str = "") -> Figure:
    """Loss and accuracy over the epochs, in training and in validation, the best epoch marked (figures 10-12, 15, 16).

    ``history``: a row an epoch with epoch, loss, accuracy, val_loss, val_accuracy. Best: the lowest val_loss.
    """
    figure, epochs = new_figure(3.4, title), history["epoch"].to_numpy(float)
    known = history["val_loss"].reset_index(drop=True).dropna()
    best = int(known.idxmin()) if len(known) else None
    lines = {"training": ("", BLUE, "o", "-"), "validation": ("val_", RED, "s", "--")}
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for label, (prefix, colour, marker, line) in lines.items():
            style = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1.4}
            axes.plot(epochs, history[prefix + name].to_numpy(float), line, label=label, **style)
        axes.set_ylabel("loss (cross-entropy, nats)" if name == "loss" else name)
        _epoch_axis(axes, epochs)
        if best is not None:
            value = history[f"val_{name}"].iloc[best]
            _mark_best(axes, epochs[best], value, f"{value:.3f}" if name == "loss" else f"{value:.1%}")
    axes.set_ylim(0, min(1.03, 1.1 * axes.dataLim.y1) if axes.dataLim.y1 > 0 else 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend(figure, axes.get_lines()[:2])
    return figure


def _mark_best(axes: Axes, epoch: float, value: float, text: str) -> None:
    axes.axvline(epoch, color=GREY, linestyle=":", linewidth=1.2)
    axes.plot(epoch, value, "o", color=RED, markersize=9, markerfacecolor="none", clip_on=False)
    axes.set_title(f"best epoch {epoch:g}: validation {text}", fontsize=8.5, color=RED)


@styled
def learning_rate(history: pd.DataFrame) -> Figure:
    """The learning rate over the epochs on a logarithmic axis, its values as the ticks (figure 17).

    ``history``: a row an epoch with epoch and learning_rate.
    """
    known = history[["epoch", "learning_rate"]].dropna()
    epochs, rates = known["epoch"].to_numpy(float), known["learning_rate"].to_numpy(float)
    figure, axes = new_axes(2.6, "Learning rate", "epoch", "learning rate")
    axes.step(epochs, rates, where="mid", color=BLUE, linewidth=1.4, marker="o", markersize=3.5)
    _epoch_axis(axes, epochs)
    if len(rates) and rates.min() > 0:
        axes.set_yscale("log")
        axes.set_ylim(rates.min() / 1.5, rates.max() * 1.5)
        axes.yaxis.set_minor_locator(NullLocator())
        ticks: list[float] = []
        for rate in sorted(set(rates), reverse=True):  # of a long decay as many as there is room for
            if not ticks or ticks[-1] / rate > 1.001 * (rates.max() / rates.min()) ** 0.1:
                ticks.append(rate)
        axes.set_yticks(ticks, [f"{rate:.3g}" for rate in ticks])
    return figure


# ---- scores


@styled
def fold_scores(scores: pd.Series) -> Figure:
    """Validation accuracy of each fold and their mean (the small figure 14). ``scores``: fold name -> 0 to 1."""
    known = scores.dropna()
    title = f"Accuracy by fold: mean {known.mean():.1%} (dashed)" if len(known) else "Accuracy by fold"
    title += f", standard deviation {known.std():.1%}" if len(known) > 1 else ""
    title += left_out(len(scores) - len(known), "without a score")
    figure, axes = new_axes(1.0 + 0.3 * max(len(known), 2), title, "validation accuracy", "fold")
    axes.barh(np.arange(len(known)), known.to_numpy(float), height=0.62, color=BLUE)
    top = max(known.max(), 0.01) if len(known) else 1.0
    write(axes, 1.01 * top, [f"{value:.1%}" for value in known])
    if len(known):
        axes.axvline(known.mean(), color=RED, linestyle="--", linewidth=1.4)
    _named_rows(axes, known.index, 1.1 * top)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    return figure


def _named_rows(axes: Axes, names: Sequence[str], limit: float) -> None:
    axes.set_xlim(0, limit)
    axes.set_yticks(np.arange(len(names)), [str(name) for name in names])
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.tick_params("y", length=0)
    axes.grid(visible=False, axis="y")


@styled
def comparison(
    values: pd.Series, chance: float | None = None, title: str = "Results side by side", xlabel: str = "accuracy"
) -> Figure:
    """Scores as bars, first on top, each with its number and, when ``chance`` is given, how many times chance it is."""
    known = values.dropna()
    scores = known.to_numpy(float)
    title += left_out(len(values) - len(known), "missing")
    figure, axes = new_axes(1.1 + 0.34 * max(len(known), 2), title, xlabel, "result")
    axes.barh(np.arange(len(known)), scores, height=0.62, color=BLUE)
    texts = [f"{score:.3f}" if score >= 0.01 else f"{score:.2g}" for score in scores]
    if chance:
        texts = [f"{text}  ({score / chance:,.3g} × chance)" for text, score in zip(texts, scores, strict=True)]
        mark(axes, chance, {1: (f"chance {chance:.2g}", RED)})
    write(axes, scores, texts)
    _named_rows(axes, known.index, (1.3 if chance else 1.1) * max(scores.max(initial=0), chance or 0) or 1)
    return figure


@styled
def per_class(table: pd.DataFrame) -> Figure:
    """Recall of each species, best first, with the number of its chunks.

    ``table``: index label, columns recall (0 to 1) and chunks (a count); species without a recall are left out.
    """
    ranked = table.dropna(subset=["recall"]).sort_values(["recall", "chunks"], ascending=False, kind="stable")
    mean = ranked["recall"].mean() if len(ranked) else 0.0
    title = f"Share of each species' chunks recognised: {len(ranked)} species, mean {mean:.1%} (dashed)"
    title += left_out(len(table) - len(ranked), "without a chunk")
    figure, panels, size = species_rows(list(ranked.index), title, "recall")
    for axes, part, y in panels:
        recall, counts = ranked["recall"].to_numpy(float)[part], ranked["chunks"].fillna(0).to_numpy()[part]
        axes.hlines(y, 0, recall, color=BLUE, linewidth=1)
        axes.plot(recall, y, "o", color=BLUE, markersize=5 if len(panels) == 1 else 3)
        axes.axvline(mean, color=RED, linestyle="--", linewidth=1, zorder=0.5)
        write(axes, 1.03, [f"{value:.0%} of {n:,.0f}" for value, n in zip(recall, counts, strict=True)], size)
        axes.set_xlim(0, 1.2 if len(panels) == 1 else 2.1)
        axes.set_xticks((0, 0.25, 0.5, 0.75, 1) if len(panels) == 1 else (0, 0.5, 1))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    return figure


# ---- confusions


def _row_shares(matrix: np.ndarray) -> np.ndarray:
    """Each row over its sum; a row without a count is nan."""
    totals = matrix.sum(axis=1, keepdims=True).astype(float)
    return matrix / np.where(totals > 0, totals, np.nan)


def confusion_order(matrix: np.ndarray) -> np.ndarray:
    """Order (c,) of the classes that puts those confused with one another side by side.

    ``matrix``: counts (c, c), rows the truth. Classes are clustered by how often either is taken for the other.
    """
    if len(matrix) < 3:
        return np.arange(len(matrix))
    shares = np.nan_to_num(_row_shares(np.asarray(matrix)))
    distance = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True))


def _most_confused(matrix: np.ndarray, labels: Sequence[str], count: int) -> Iterator[str]:
    """The pairs taken for one another most often: truth, prediction, chunks, share of the truth's chunks."""
    mistakes, shares = np.where(np.eye(len(matrix), dtype=bool), 0, matrix), _row_shares(matrix)
    for place in np.argsort(-mistakes, axis=None, kind="stable")[:count]:
        true, predicted = np.unravel_index(place, mistakes.shape)
        if mistakes[true, predicted] > 0:
            pair = f"{labels[true]:>8} → {labels[predicted]:<9}"
            yield f"{pair}{mistakes[true, predicted]:>6.0f}{shares[true, predicted]:>6.0%}"


@styled
def confusion(matrix: np.ndarray, labels: Sequence[str]) -> Figure:
    """Which species is taken for which, in shares of the true species' chunks; confused ones lie side by side.

    ``matrix``: counts (c, c), rows the truth, columns the prediction, in the order of ``labels``. Up to 15 classes the
    cells hold their per cent; with more, the most frequent confusions are listed beside the matrix.
    """
    matrix, order = np.asarray(matrix), confusion_order(matrix)
    shares, names = _row_shares(matrix)[np.ix_(order, order)], [str(labels[number]) for number in order]
    absent = int((matrix.sum(axis=1) == 0).sum())
    title = "Confusions, similar species side by side" + (f"; grey: {absent} without a chunk" if absent else "")
    written = len(names) <= WRITTEN_CLASSES
    figure = new_figure(1.9 + 0.36 * max(len(names), 4) if written else 6.7, title)
    axes, side = (figure.subplots(), None) if written else figure.subplots(1, 2, width_ratios=(1, 0.36))
    if len(names):
        axes.imshow(shares, cmap=_SHARES.cmap, norm=_SHARES.norm, aspect="auto")
    axes.grid(visible=False)
    _confusion_ticks(axes, names)
    bar = {"label": "share of the true species' chunks", "format": PercentFormatter(1), "ticks": (0, 0.1, 0.3, 0.6, 1)}
    if side is None:
        figure.colorbar(_SHARES, ax=axes, pad=0.015, **bar).outline.set_visible(False)
        _cell_texts(axes, shares)
    else:
        place = side.inset_axes((0.02, 0, 0.93, 0.02))
        figure.colorbar(_SHARES, cax=place, orientation="horizontal", **bar).outline.set_visible(False)
        _list_beside(side, _most_confused(matrix, [str(label) for label in labels], 30))
    return figure


def _confusion_ticks(axes: Axes, names: Sequence[str]) -> None:
    """A tick for each class, or for every n-th where they would touch."""
    every = 1 if len(names) <= NAMED_CLASSES else -(-len(names) // 50)
    size = 8 if len(names) <= WRITTEN_CLASSES else 6
    ticks = np.arange(0, len(names), every)
    axes.set_xticks(ticks, [names[tick] for tick in ticks], rotation=90, fontsize=size)
    axes.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=size)
    axes.tick_params(length=2 if every > 1 else 0, pad=2)
    which = "" if every == 1 else f" (one in {every} named)"
    axes.set(xlabel=f"predicted species{which}", ylabel=f"true species{which}")


def _cell_texts(axes: Axes, shares: np.ndarray) -> None:
    for row, column in np.argwhere(np.nan_to_num(shares) > 0):
        colour = "white" if shares[row, column] < 0.3 else "black"
        axes.text(column, row, f"{shares[row, column]:.0%}", ha="center", va="center", fontsize=8, color=colour)


def _list_beside(axes: Axes, lines: Iterator[str]) -> None:
    axes.axis("off")
    head = f"{'true':>8} → {'taken as':<9}{'chunks':>6}{'share':>6}"
    axes.text(
        0, 1, "\n".join(["Most frequent", head, *lines]), va="top", family="monospace", fontsize=7, linespacing=1.45
    )


# ---- soundscapes


def _timeline_rows(predictions: np.ndarray, names: list[str], truth: pd.DataFrame | None, top: int) -> list[str]:
    """The ``top`` names by greatest probability, then those of the truth that are not among them."""
    peaks = np.nan_to_num(predictions).max(axis=0, initial=0)
    rows = [names[number] for number in np.argsort(-peaks, kind="stable")[:top]]
    present = [] if truth is None else truth["primary_label"].astype(str).unique()
    return rows + [label for label in present if label not in rows]


def _spans(starts_s: np.ndarray, length_s: float) -> list[tuple[float, float]]:
    """Where each window is drawn (start, length): neighbours that overlap get half of what they share."""
    shared_s = np.maximum(starts_s[:-1] + length_s - starts_s[1:], 0) / 2
    left, right = starts_s.copy(), starts_s + length_s
    left[1:] += shared_s
    right[:-1] -= shared_s
    return list(zip(left, right - left, strict=True))


@styled
def timeline(
    predictions: np.ndarray,
    starts_s: Sequence[float],
    length_s: float,
    labels: Sequence[str],
    truth: pd.DataFrame | None = None,
    top: int = 6,
) -> Figure:
    """A long recording's predictions over time, a row a species; where the truth is known, it is drawn as boxes.

    ``predictions``: probabilities (windows, classes); ``starts_s``: (windows,), ascending; ``truth``: a row a song with
    start_s, end_s and primary_label. The rows are the ``top`` species and all of the truth.
    """
    predictions, names = np.asarray(predictions, float), [str(label) for label in labels]
    rows, spans = _timeline_rows(predictions, names, truth, top), _spans(np.asarray(starts_s, float), length_s)
    figure, axes = new_axes(1.5 + 0.3 * max(len(rows), 2), "Predictions over time", "time (s)", "species")
    for row, label in enumerate(rows):
        values = predictions[:, names.index(label)] if label in names else np.full(len(spans), np.nan)
        axes.broken_barh(spans, (row - 0.46, 0.92), facecolors=_SHARES.to_rgba(np.ma.masked_invalid(values)))
    for song in () if truth is None else truth.itertuples():
        _outline(axes, song.start_s, song.end_s, rows.index(str(song.primary_label)))
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.set_xlim(min(starts_s, default=0), sum(spans[-1]) if spans else 1)
    axes.grid(visible=False)
    figure.colorbar(_SHARES, ax=axes, label="probability", pad=0.015).outline.set_visible(False)
    if truth is not None:
        axes.set_title("outlined: where the species is truly heard", fontsize=8.5)
    return figure


def _outline(axes: Axes, start_s: float, end_s: float, row: int) -> None:
    edge = [withStroke(linewidth=3.6, foreground="black")]  # white on black stands out from any colour under it
    style = {"fill": False, "edgecolor": "white", "linewidth": 1.8, "path_effects": edge}
    axes.add_patch(Rectangle((start_s, row - 0.42), end_s - start_s, 0.84, **style))
