"""One style for every figure: colours, sizes, a figure that shows itself in a notebook, and its recurring parts.

Colours are Okabe and Ito's, or viridis and magma where a colour is a value: all can be told apart with any colour
vision, and what matters differs in hatch, marker or line as well.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

BLUE, ORANGE, RED, PURPLE = "#0072B2", "#E69F00", "#D55E00", "#CC79A7"
INK, GREY, PALE = "#222222", "#595959", "#d9d9d9"
HATCHED: dict[str, Any] = {"facecolor": "white", "edgecolor": GREY, "hatch": "//////", "linewidth": 0.6}
WIDTH_IN = 8.6
MANY_CLASSES = 30  # above this, a row a species takes several columns

STYLE: dict[str, Any] = {
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "savefig.dpi": "figure",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": "#888888",
    "ytick.color": "#888888",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "hatch.linewidth": 0.6,
}
styled = mpl.rc_context(STYLE)  # as a decorator it enters anew at each call, and leaves nothing behind


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure in the style of the series that shows itself as the last value of a notebook cell.

    pyplot is not involved, so nothing has to be closed, no backend is chosen, and no figure appears twice.
    """

    @styled
    def draw(self, renderer: Any) -> None:
        """Draw. The style holds here too: matplotlib makes most ticks only now."""
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def new_figure(height_in: float, title: str = "") -> Figure:
    """An empty figure of the series' width with its title at the left."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    if title:
        figure.suptitle(title, x=0.008, ha="left", fontsize=10.5)
    return figure


def new_axes(height_in: float, title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure of one panel."""
    figure = new_figure(height_in, title)
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def species_rows(
    labels: Sequence[Any], title: str, xlabel: str, extra_in: float = 0.0
) -> tuple[Figure, list[tuple[Axes, slice, np.ndarray]], float]:
    """A figure with a row a species, from top to bottom.

    Up to 30 species stand in one column; more share up to four columns of small rows, so that the 182nd can still be
    read and found. Returns the figure; for each column its axes, its slice of ``labels`` and its rows' y; and the font
    size (points) that fits a row. ``extra_in``: height for a legend.
    """
    columns = 1 if len(labels) <= MANY_CLASSES else min(4, -(-len(labels) // 46) + 1)
    rows = max(1, -(-len(labels) // columns))
    pitch_in, size = (0.24, 8.5) if columns == 1 else (0.138, 6.5)
    figure = new_figure(0.95 + extra_in + pitch_in * max(rows, 4), title)
    panels = []
    for number, axes in enumerate(figure.subplots(1, columns, sharex=True, squeeze=False)[0]):
        part = slice(number * rows, min((number + 1) * rows, len(labels)))
        y = np.arange(max(part.stop - part.start, 0))
        axes.set_yticks(y, [str(label) for label in labels[part]], fontsize=size)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set(xlabel=xlabel, ylabel="" if number else "species")
        axes.tick_params("y", length=0, pad=2)
        axes.grid(visible=False, axis="y")
        panels.append((axes, part, y))
    return figure, panels, size


def legend(figure: Figure, handles: list[Any]) -> None:
    """One row of keys under the whole figure, where they hide nothing."""
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def count_axis(axis: Any, ticks: int = 8) -> None:
    """Whole numbers, thousands set apart."""
    axis.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1))
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def plain_log_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic x axis from ``low`` to ``high`` (both over 0) with ticks written as plain numbers."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    wide = high / low > 8
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)) if wide else MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def mark(axes: Axes, x: float, texts: dict[int, tuple[str, str]]) -> None:
    """A dashed line at ``x``; ``texts``: side (-1 left, 1 right) -> text and colour, above the axes, clear of bars."""
    axes.axvline(x, color=RED, linestyle="--", linewidth=1.4)
    for side, (text, colour) in texts.items():
        place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "va": "bottom"}
        ha = "left" if side > 0 else "right"
        axes.annotate(text, (x, 1), (4 * side, 1), ha=ha, color=colour, fontsize=8.5, **place)


def write(axes: Axes, x: np.ndarray | float, texts: Sequence[str], size: float = 8.5) -> None:
    """Write a text a row, to the right of ``x``; the axes' limits must leave the room."""
    for row, (at, text) in enumerate(zip(np.broadcast_to(x, len(texts)), texts, strict=True)):
        place = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
        axes.annotate(text, (at, row), (3, 0), fontsize=size, color=GREY, **place).set_in_layout(False)


def plural(count: int, noun: str) -> str:
    """The count with its noun, as in "1 chunk" and "1,200 chunks"."""
    return f"{count:,} {noun}" + ("" if count == 1 or noun == "species" else "s")


def left_out(count: int, why: str) -> str:
    """A title's remark on what it does not show; nothing when that is nothing."""
    return f"; {count:,} {why} left out" if count else ""
