"""The figures of the test: scores side by side, species by species, confusions, a soundscape over time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from birdlib.plots_sound import decibel_bar, draw_image
from birdlib.plots_style import (
    BLUE,
    INK,
    MANY_CLASSES,
    RED,
    Figure,
    left_out,
    legend,
    named,
    new_axes,
    new_figure,
    share_rows,
    species_rows,
    styled,
    text_in,
    write,
)

WRITTEN_CLASSES = 15  # up to this, a confusion matrix writes its numbers into the cells
NAMED_CLASSES = 60  # above this, it names only some of its rows
# The root spreads the small shares, where confusions and a softmax over many species are.
_SHARES = ScalarMappable(PowerNorm(0.5, 0, 1), mpl.colormaps["viridis"].with_extremes(bad="#b0b0b0"))


@styled
def comparison(
    values: pd.Series,
    chance: float | None = None,
    title: str = "Results side by side",
    xlabel: str = "accuracy",
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> Figure:
    """Scores (0 to 1) as bars, first on top, each with its number; ``chance``: and how many times that it is.

    ``intervals``: name -> low and high end of the score's 95 % interval, for those that have one; drawn as whiskers.
    """
    known = values.dropna()
    scores = known.to_numpy(float)
    ends = [(intervals or {}).get(name, (score, score)) for name, score in known.items()]
    ends = np.nan_to_num(np.array(ends, float).reshape(-1, 2), nan=0.0)
    title += left_out(len(values) - len(known), "missing")
    title += f"; dashed: chance, {chance:.2%}" if chance else ""
    title += "; whiskers: 95 % intervals" if intervals else ""
    figure, axes = new_axes(0.95 + 0.34 * max(len(known), 2), title, xlabel, "")
    texts = [f"{score:.1%}" if score >= 0.001 or not score else f"{score:.2%}" for score in scores]
    if chance:
        beside = [f"  ({score / chance:,.3g} × chance)" if score != chance else "" for score in scores]
        texts = [text + times for text, times in zip(texts, beside, strict=True)]
        axes.axvline(chance, color=RED, linestyle="--", linewidth=1.4)
    share_rows(axes, scores, known.index, texts, np.maximum(scores, ends[:, 1]))
    for row, (low, high) in enumerate(ends):
        if high > low:
            axes.errorbar((low + high) / 2, row, xerr=(high - low) / 2, color=INK, linewidth=1.4, capsize=4)
    axes.set_xlim(0, max(axes.get_xlim()[1], 1.05 * (chance or 0)))
    return figure


@styled
def per_class(table: pd.DataFrame, names: Mapping[str, str] | None = None) -> Figure:
    """Recall and precision of each species, best recall first, with the number of its chunks.

    ``table``: index label, columns recall, precision (0 to 1; nan where it is never predicted) and chunks (a count);
    species without a recall are left out. ``names``: common names by label.
    """
    ranked = table.dropna(subset=["recall"]).sort_values(["recall", "chunks"], ascending=False, kind="stable")
    mean = ranked["recall"].mean() if len(ranked) else 0.0
    title = f"Recall and precision by chunk: {len(ranked)} species, mean recall {mean:.1%} (dashed)"
    title += left_out(len(table) - len(ranked), "without a chunk")
    figure, panels, size, _ = species_rows(list(ranked.index), title, "share", names, extra_in=0.3)
    large = len(panels) == 1
    looks = {
        "recall": {"marker": "o", "color": BLUE, "markersize": 5 if large else 3},
        "precision": {"marker": "D", "color": INK, "markersize": 6 if large else 4, "markerfacecolor": "none"},
    }
    for axes, part, y in panels:
        rows = ranked.iloc[part]
        axes.hlines(y, 0, rows["recall"].to_numpy(float), color=BLUE, linewidth=1)
        for name, look in looks.items():
            axes.plot(rows[name].to_numpy(float), y, linestyle="none", clip_on=False, **look)
        axes.axvline(mean, color=RED, linestyle="--", linewidth=1, zorder=0.5)
        counted = zip(rows["recall"], rows["chunks"].fillna(0), strict=True)
        write(axes, 1.03 if large else 1.1, [f"{value:.0%} of {n:,.0f}" for value, n in counted], size)
        axes.set_xlim(-0.02 if large else -0.06, 1.2 if large else 2.2)
        axes.set_xticks((0, 0.25, 0.5, 0.75, 1) if large else (0, 0.5, 1))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    legend(figure, [Line2D([], [], linestyle="none", label=name, **look) for name, look in looks.items()])
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


def _most_confused(matrix: np.ndarray) -> Iterator[tuple[int, int, float, float]]:
    """The pairs taken for one another most often: truth, prediction, chunks, share of the truth's chunks."""
    mistakes, shares = np.where(np.eye(len(matrix), dtype=bool), 0, matrix), _row_shares(matrix)
    for place in np.argsort(-mistakes, axis=None, kind="stable"):
        true, predicted = np.unravel_index(place, mistakes.shape)
        if mistakes[true, predicted] > 0:
            yield true, predicted, mistakes[true, predicted], shares[true, predicted]


@styled
def confusion(matrix: np.ndarray, labels: Sequence[str], names: Mapping[str, str] | None = None) -> Figure:
    """Which species is taken for which, in shares of the true species' chunks; confused ones lie side by side.

    ``matrix``: counts (c, c), rows the truth, columns the prediction, in the order of ``labels``. Up to 15 classes the
    cells hold their per cent; with more, the most frequent confusions are listed beside the matrix. ``names``: common
    names by label.
    """
    matrix, order = np.asarray(matrix), confusion_order(matrix)
    shares, ordered = _row_shares(matrix)[np.ix_(order, order)], named([labels[number] for number in order], names)
    absent = int((matrix.sum(axis=1) == 0).sum())
    title = "Confusions, similar species side by side" + (f"; grey: {absent} without a chunk" if absent else "")
    written = len(ordered) <= WRITTEN_CLASSES
    named_in = 0.9 * text_in(ordered, 8)
    figure = new_figure(1.0 + named_in + 0.36 * max(len(ordered), 5) if written else 6.7, title)
    axes, side = (figure.subplots(), None) if written else figure.subplots(1, 2, width_ratios=(1, 0.36))
    if len(ordered):
        axes.imshow(shares, cmap=_SHARES.cmap, norm=_SHARES.norm, aspect="auto")
    axes.grid(visible=False)
    _confusion_ticks(axes, ordered)
    bar = {"label": "share of true species' chunks", "format": PercentFormatter(1), "ticks": (0, 0.1, 0.3, 0.6, 1)}
    if side is None:
        figure.colorbar(_SHARES, ax=axes, pad=0.015, **bar).outline.set_visible(False)
        _cell_texts(axes, shares)
    else:
        place = side.inset_axes((0.02, 0, 0.93, 0.02))
        figure.colorbar(_SHARES, cax=place, orientation="horizontal", **bar).outline.set_visible(False)
        _list_beside(side, _most_confused(matrix), named(labels, names), long=named_in > 1)
    return figure


def _confusion_ticks(axes: Axes, names: Sequence[str]) -> None:
    """A tick for each class, or for every n-th where they would touch."""
    every = 1 if len(names) <= NAMED_CLASSES else -(-len(names) // 50)
    size = 8 if len(names) <= WRITTEN_CLASSES else 7 if len(names) <= MANY_CLASSES else 6
    ticks = np.arange(0, len(names), every)
    axes.set_xticks(ticks, [names[tick] for tick in ticks], rotation=90, fontsize=size)
    axes.set_yticks(ticks, [names[tick] for tick in ticks], fontsize=size)
    axes.tick_params(length=2 if every > 1 else 0, pad=2)
    which = "" if every == 1 else f" (one in {every} named)"
    axes.set(xlabel=f"predicted species{which}", ylabel=f"true species{which}")


def _cell_texts(axes: Axes, shares: np.ndarray) -> None:
    for row, column in np.argwhere(np.nan_to_num(shares) > 0):
        colour = "white" if shares[row, column] < 0.3 else "black"
        text = f"{shares[row, column]:.0%}"
        axes.text(column, row, "<1%" if text == "0%" else text, ha="center", va="center", fontsize=8, color=colour)


def _list_beside(axes: Axes, pairs: Iterator[tuple], labels: Sequence[str], long: bool) -> None:
    """The most confused pairs, a line each; if the names are ``long``, three lines, and as many pairs as have room."""
    axes.axis("off")
    if long:
        form = "{}\n   → {}\n   {:,.0f} chunks, {:.0%}"
        head, look = "Most frequent (true → taken as)", {"fontsize": 7.5, "linespacing": 1.3}
    else:
        form = "{:>8} → {:<9}{:>6.0f}{:>6.0%}"
        head = f"Most frequent\n{'true':>8} → {'taken as':<9}{'chunks':>6}{'share':>6}"
        look = {"fontsize": 7, "linespacing": 1.45, "family": "monospace"}
    most = 8 if long else 30
    lines = [form.format(labels[true], labels[guess], n, share) for true, guess, n, share in islice(pairs, most)]
    axes.text(0, 1, "\n".join([head, *lines]), va="top", **look)


# ---- soundscapes


def _timeline_rows(predictions: np.ndarray, labels: list[str], truth: pd.DataFrame | None, top: int) -> list[str]:
    """The ``top`` labels by greatest probability, then those of the truth that are not among them."""
    peaks = np.nan_to_num(predictions).max(axis=0, initial=0)
    rows = [labels[number] for number in np.argsort(-peaks, kind="stable")[:top]]
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
    names: Mapping[str, str] | None = None,
    image: np.ndarray | None = None,
    mel_frequencies_hz: Sequence[float] = (),
    top_db: float = 80.0,
) -> Figure:
    """A long recording's predictions over time, a row a species; where the truth is known, it is drawn as boxes.

    ``predictions``: probabilities (windows, classes); ``starts_s``: (windows,), ascending; ``truth``: a row a song with
    start_s, end_s and primary_label. The rows are the ``top`` species and all of the truth. ``names``: common names by
    label. ``image``: the spectrogram of the time from the first window's start to the last one's end, drawn above, with
    the scales that `birdlib.plots.cut` takes.
    """
    predictions, labels = np.asarray(predictions, float), [str(label) for label in labels]
    rows, spans = _timeline_rows(predictions, labels, truth, top), _spans(np.asarray(starts_s, float), length_s)
    begin_s, end_s = min(starts_s, default=0), sum(spans[-1]) if spans else 1
    values_by_row = pd.DataFrame(predictions, columns=labels).reindex(columns=rows).to_numpy().T
    title = "Predictions over time" + ("; outlined: where the species is truly heard" if truth is not None else "")
    title += "; grey: no prediction" if np.isnan(values_by_row).any() else ""
    height_in = 0.3 * max(len(rows), 2)
    figure = new_figure(1.3 + height_in + (0 if image is None else 1.8), title)
    if image is None:
        axes = figure.subplots()
    else:
        sound, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1.7, height_in))
        drawn = draw_image(sound, image, np.asarray(mel_frequencies_hz, float), end_s - begin_s, top_db, begin_s)
        decibel_bar(figure, drawn, [sound], "its")
    _draw_rows(axes, values_by_row, spans, named(rows, names))
    for song in () if truth is None else truth.itertuples():
        _outline(axes, song.start_s, song.end_s, rows.index(str(song.primary_label)))
    axes.set_xlim(begin_s, end_s)
    return figure


def _draw_rows(axes: Axes, values: np.ndarray, spans: list[tuple[float, float]], names: Sequence[str]) -> None:
    """A row of coloured spans a species, ``values`` (rows, spans), and what the colours mean."""
    for row, of_row in enumerate(values):
        axes.broken_barh(spans, (row - 0.46, 0.92), facecolors=_SHARES.to_rgba(np.ma.masked_invalid(of_row)))
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="time (s)", ylabel="species", ylim=(max(len(names), 1) - 0.5, -0.5))
    axes.grid(visible=False)
    bar = {"label": "probability", "ticks": (0, 0.1, 0.3, 0.6, 1), "format": PercentFormatter(1), "pad": 0.015}
    axes.figure.colorbar(_SHARES, ax=axes, aspect=30, **bar).outline.set_visible(False)


def _outline(axes: Axes, start_s: float, end_s: float, row: int) -> None:
    edge = [withStroke(linewidth=3.6, foreground="black")]  # white on black stands out from any colour under it
    style = {"fill": False, "edgecolor": "white", "linewidth": 1.8, "path_effects": edge}
    axes.add_patch(Rectangle((start_s, row - 0.42), end_s - start_s, 0.84, **style))
