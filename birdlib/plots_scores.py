"""The figures of how far to trust a result: scores with their intervals, and whether it is as sure as it is right."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from birdlib.plots_style import (
    BLUE,
    GREY,
    INK,
    RED,
    WIDTH_IN,
    Figure,
    left_out,
    legend,
    new_axes,
    new_figure,
    styled,
    text_in,
    write,
)

_LOOKS = ((BLUE, "o", "-"), (RED, "s", "--"))


@styled
def with_intervals(table: pd.DataFrame, title: str, xlabel: str, dashed: float | None = None) -> Figure:
    """Scores (0 to 1) as points with their 95 % intervals, first on top.

    ``table``: index what each is of; columns value, low, high (nan where there is no interval), and text, written
    beside it. ``dashed``: a line to compare with.
    """
    known = table.dropna(subset=["value"])
    title += left_out(len(table) - len(known), "without a score")
    figure, axes = new_axes(1.0 + 0.3 * max(len(known), 2), title, xlabel, "")
    value, low, high = (known[name].to_numpy(float) for name in ("value", "low", "high"))
    rows = np.arange(len(known))
    axes.hlines(rows, low, high, color=BLUE, linewidth=2.2)
    axes.plot(value, rows, "o", color=BLUE, markersize=6)
    if dashed is not None:
        axes.axvline(dashed, color=RED, linestyle="--", linewidth=1.4, zorder=0.5)
    axes.set_yticks(rows, [str(name) for name in known.index])
    axes.set_ylim(max(len(known), 1) - 0.5, -0.5)
    axes.tick_params("y", length=0)
    axes.grid(visible=False, axis="y")
    width_in = WIDTH_IN - 0.4 - text_in([str(name) for name in known.index], 8)
    axes.set_xlim(0, 1.04 / max(1 - (text_in(known["text"], 8.5) + 0.1) / width_in, 0.2))
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    write(axes, 1.02, known["text"].tolist())
    return figure


@styled
def reliability(tables: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """How often a classifier is right against how sure it is; on the diagonal it is calibrated. How many, below.

    ``tables``: name -> bins as `birdlib.calibration.reliability` gives them; up to two.
    """
    figure = new_figure(4.6, title or "Sure and right: on the diagonal, it is right as often as it says")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot((0, 1), (0, 1), color=GREY, linestyle=":", linewidth=1.2)
    lines = []
    for number, ((name, table), (colour, marker, line)) in enumerate(zip(tables.items(), _LOOKS, strict=False)):
        filled = table[table["samples"] > 0]
        style = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.4}
        lines += axes.plot(filled["confidence"], filled["accuracy"], line, label=name, **style)
        width = (table["high"] - table["low"]) / (len(tables) + 0.5)
        left = table["low"] + (number + 0.25) * width
        counts.bar(left, table["samples"], width, align="edge", color=colour, hatch="///" * number, edgecolor="white")
    axes.set(ylabel="share that is right", ylim=(-0.03, 1.03), xlim=(0, 1))
    counts.set(ylabel="chunks", xlabel="probability of the likeliest species")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.text(0.02, 0.95, "less sure than right", color=INK, va="top", transform=axes.transAxes)
    axes.text(0.98, 0.05, "surer than right", color=INK, ha="right", transform=axes.transAxes)
    legend(figure, lines)
    return figure
