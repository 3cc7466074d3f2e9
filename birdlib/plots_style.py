"""One style for every figure: colours, sizes, a figure that shows itself in a notebook, and its recurring parts.

Colours are Okabe and Ito's, or viridis and magma where a colour is a value: all can be told apart with any colour
vision, and what matters differs in hatch, marker or line as well.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
    StrMethodFormatter,
)

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

    def savefig(self, fname: Any, **named: Any) -> None:
        """Save. What is written above and in the figure goes with it as its title, for those who cannot see it."""
        titles = [self.get_suptitle(), *(axes.get_title(at) for axes in self.axes for at in ("left", "center"))]
        text = "; ".join(" ".join(title.split()) for title in titles if title)
        super().savefig(fname, **{"metadata": {"Title": text}, **named})

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def new_figure(height_in: float, title: str = "") -> Figure:
    """An empty figure of the series' width with its title at the left, in as many lines as it needs."""
    title = textwrap.fill(title, 105)
    figure = Figure(figsize=(WIDTH_IN, height_in + 0.17 * title.count("\n")), layout="constrained")
    if title:
        figure.suptitle(title, x=0.008, ha="left", fontsize=10.5)
    return figure


def only_title(title: str) -> Figure:
    """A line in a figure's place, where there is nothing to draw: empty axes would look like a fault."""
    return new_figure(0.35, title)


def new_axes(height_in: float, title: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    """A figure of one panel."""
    figure = new_figure(height_in, title)
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def species_rows(
    labels: Sequence[Any], title: str, xlabel: str, names: Mapping[str, str] | None = None, extra_in: float = 0.0
) -> tuple[Figure, list[tuple[Axes, slice, np.ndarray]], float, float]:
    """A figure with a row a species, from top to bottom.

    Up to 30 species stand in one column; more share up to four columns of small rows, so that the 182nd can still be
    read and found. Returns the figure; for each column its axes, its slice of ``labels`` and its rows' y; the font size
    (points) that fits a row; and an axes' width in inches. ``names``: as in `named`; ``extra_in``: height for a legend.
    """
    labels = named(labels, names)
    columns = 1 if len(labels) <= MANY_CLASSES else min(4, -(-len(labels) // 46) + 1)
    rows = max(1, -(-len(labels) // columns))
    pitch_in, size = (0.24, 8.5) if columns == 1 else (0.138, 6.5)
    figure = new_figure(0.95 + extra_in + pitch_in * max(rows, 4), title)
    width_in = (WIDTH_IN - 0.35) / columns - text_in(labels, size) - 0.12
    panels = []
    for number, axes in enumerate(figure.subplots(1, columns, sharex=True, squeeze=False)[0]):
        part = slice(number * rows, min((number + 1) * rows, len(labels)))
        y = np.arange(max(part.stop - part.start, 0))
        axes.set_yticks(y, [str(label) for label in labels[part]], fontsize=size)
        axes.set_ylim(max(rows, 3) - 0.4, -0.6)
        axes.set(xlabel=xlabel, ylabel="" if number else "species")
        axes.tick_params("y", length=0, pad=2)
        axes.grid(visible=False, axis="y")
        panels.append((axes, part, y))
    return figure, panels, size, width_in


def named(labels: Sequence[Any], names: Mapping[str, str] | None) -> list[str]:
    """What to call the labels: by ``names`` where they are few, else as they are, since many have no room for more."""
    few = names is not None and len(labels) <= MANY_CLASSES
    return [str(names.get(label, label)) if few else str(label) for label in labels]


def text_in(texts: Sequence[str], size: float) -> float:
    """About how wide the longest of these lines is in inches; rather more than less."""
    return 0.6 * size / 72 * max(map(len, texts), default=0)


def limit_for(values: np.ndarray, texts: Sequence[str], size: float, width_in: float) -> float:
    """Where an axis from 0, ``width_in`` inches long, must end for each value's bar and the text beside it to fit."""
    left = [max(1 - (text_in([text], size) + 0.1) / width_in, 0.2) for text in texts]
    return float(max(np.asarray(values, float) / left, default=0)) or 1.0


def share_rows(
    axes: Axes, shares: np.ndarray, names: Sequence[Any], texts: Sequence[str], beyond: np.ndarray | None = None
) -> None:
    """A named bar a share (0 to 1), first on top, its text beside it; the axis counts in per cent, and to no more.

    ``beyond``: where the texts begin, if not at the bars' ends.
    """
    names, beyond = [str(name) for name in names], shares if beyond is None else beyond
    axes.barh(np.arange(len(shares)), shares, height=0.62, color=BLUE)
    write(axes, beyond, texts)
    limit = limit_for(beyond, texts, 8.5, WIDTH_IN - 0.4 - text_in(names, 8))
    axes.set_xticks(MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(0, min(limit, 1)))
    axes.set_xlim(0, limit)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.5, -0.5)
    axes.tick_params("y", length=0)
    axes.grid(visible=False, axis="y")


def envelope(samples: np.ndarray, sample_rate_hz: float, columns: int = 1500) -> tuple[np.ndarray, ...]:
    """Time (s), least and greatest sample of each column: what a line of all samples looks like, at a set cost."""
    starts = np.unique(np.linspace(0, len(samples), columns, endpoint=False).astype(int))
    return starts / sample_rate_hz, np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)


def legend(figure: Figure, handles: list[Any], borderpad: float | None = None) -> None:
    """One row of keys under the whole figure, where they hide nothing; ``borderpad``: room around it, in lines."""
    figure.legend(handles=handles, loc="outside lower center", ncols=max(len(handles), 1), borderpad=borderpad)


def count_axis(axis: Any, ticks: int = 8) -> None:
    """Whole numbers, thousands set apart."""
    axis.set_major_locator(
        MaxNLocator(ticks, integer=True, min_n_ticks=1, steps=[1, 2, 2.5, 5, 10] if ticks < 5 else [1, 2, 5, 10])
    )
    axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def root_axis(axis: Any, highest: float, limit: float, apart: float = 0.11) -> None:
    """An axis from 0 to ``limit`` on which square roots are to scale, with ticks at round counts up to ``highest``.

    ``apart``: the least distance of two ticks, as a share of the axis.
    """
    name = axis.axis_name
    getattr(axis.axes, f"set_{name}scale")("function", functions=(lambda n: np.sqrt(np.maximum(n, 0)), np.square))
    ticks: list[int] = []
    for tick in [digit * 10**power for power in range(7, -1, -1) for digit in (5, 3, 2, 1)]:
        gap = np.sqrt(ticks[-1] if ticks else 4 * limit) - np.sqrt(tick)
        if tick <= highest and min(gap, 1.6 * np.sqrt(tick)) > apart * np.sqrt(limit):
            ticks.append(tick)
    axis.set_ticks([0, *ticks[::-1]], [f"{tick:,}" for tick in [0, *ticks[::-1]]])
    getattr(axis.axes, f"set_{name}lim")(0, limit)


def plain_number(value: float) -> str:
    """A number without an exponent, thousands set apart: 0.00003, 1,000."""
    return np.format_float_positional(value, 3, fractional=False, trim="-") if value < 1 else f"{value:,.10g}"


def plain_log_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic x axis from ``low`` to ``high`` (both over 0) with ticks written as plain numbers."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    wide = high / low > 8
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)) if wide else MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
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
        place["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}  # legible where a line crosses it
        axes.annotate(text, (at, row), (3, 0), fontsize=size, color=GREY, **place).set_in_layout(False)


def plural(count: int, noun: str) -> str:
    """The count with its noun, as in "1 chunk" and "1,200 chunks"."""
    return f"{count:,} {noun}" + ("" if count == 1 or noun == "species" else "s")


def left_out(count: int, why: str) -> str:
    """A title's remark on what it does not show; nothing when that is nothing."""
    return f"; {count:,} {why} left out" if count else ""
