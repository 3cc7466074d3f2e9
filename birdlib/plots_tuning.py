"""The figures of a tuning: its trials in their order, what was tried, and what the loss hung on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from birdlib.plots_style import (
    BLUE,
    GREY,
    INK,
    RED,
    Figure,
    left_out,
    legend,
    new_axes,
    new_figure,
    only_title,
    plain_log_axis,
    plural,
    share_rows,
    styled,
)

_LOOKS = {"finished": (BLUE, "o"), "pruned": (GREY, "x")}
_LOSS = "validation loss (nats)"


def _points(axes: Axes, table: pd.DataFrame, x: pd.Series) -> None:
    for state, (colour, marker) in _LOOKS.items():
        here = table["state"] == state
        if not here.any():  # an empty line that is not clipped would take room
            continue
        axes.plot(x[here], table.loc[here, "val_loss"], marker, color=colour, markersize=5, linestyle="none")


def _keys(table: pd.DataFrame) -> list[Line2D]:
    labels = {"finished": "finished", "pruned": "pruned: its last epoch, or the upper edge"}
    return [
        Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=5, label=labels[state])
        for state, (colour, marker) in _LOOKS.items()
        if (table["state"] == state).any()
    ]


def _loss_axis(axes: Axes, table: pd.DataFrame) -> None:
    """Room for all that finished; what was pruned far above them is shown at the upper edge."""
    finished = table.loc[table["state"] == "finished", "val_loss"]
    low, high = (finished if len(finished) else table["val_loss"]).agg(["min", "max"])
    room = 0.08 * ((high - low) or abs(high) or 1.0)
    axes.set_ylim(low - room, high + 4 * room)
    for line in axes.get_lines():
        line.set_clip_on(False)
        line.set_ydata(np.minimum(line.get_ydata(), high + 4 * room))


@styled
def trials(table: pd.DataFrame, title: str = "") -> Figure:
    """The validation loss of each trial, in their order, and the lowest so far.

    ``table``: a row a trial that counts, with state ("finished", "pruned", "failed") and val_loss.
    """
    known = table[table["state"] != "failed"].dropna(subset=["val_loss"])
    finished, title = (known["state"] == "finished").sum(), f"{title}: " if title else ""
    title += f"{plural(len(table), 'trial')}, {finished} of them finished" + left_out(
        len(table) - len(known), "without a loss"
    )
    if known.empty:
        return only_title(title)
    figure, axes = new_axes(2.8, title, "trial, in the order they began", _LOSS)
    order = pd.Series(np.arange(1, len(table) + 1), table.index)
    _points(axes, known, order[known.index])
    so_far = known["val_loss"].where(known["state"] == "finished").cummin().ffill()
    axes.step(order[known.index], so_far, where="post", color=RED, linewidth=1.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.set_xlim(0.4, len(table) + 0.6)
    _loss_axis(axes, known)
    legend(figure, [*_keys(known), Line2D([], [], color=RED, linewidth=1.4, label="lowest so far")])
    return figure


@styled
def tried(table: pd.DataFrame, keys: Sequence[str], log_keys: Sequence[str] = (), title: str = "") -> Figure:
    """The validation loss against each setting that was searched, a panel each.

    ``table``: as in `trials`, with a column a key; ``log_keys``: those on a logarithmic axis.
    """
    known = table[table["state"] != "failed"].dropna(subset=["val_loss"])
    if known.empty or not keys:
        return only_title(f"{title}: nothing to show" if title else "Nothing to show")
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = new_figure(0.5 + 2.1 * rows, title)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for place, axes in enumerate(panels.flat):
        if place >= len(keys):
            axes.set_visible(False)
            continue
        _panel(axes, known, keys[place], keys[place] in log_keys)
        if place % columns == 0:
            axes.set_ylabel(_LOSS)
    _loss_axis(panels.flat[0], known)
    for axes in panels.flat[1 : len(keys)]:
        _loss_axis(axes, known)
    legend(figure, _keys(known))
    return figure


def _panel(axes: Axes, known: pd.DataFrame, key: str, log: bool) -> None:
    values = known[key]
    axes.set_xlabel(key)
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if log or (numeric and values.nunique() > 6):
        _points(axes, known, values)
        if log:
            plain_log_axis(axes, float(values.min()) / 1.15, float(values.max()) * 1.15)
            _turn_ticks(axes)
        return
    choices = sorted(values.unique()) if numeric else sorted(map(str, values.unique()), key=_by_size)
    spots = {choice: spot for spot, choice in enumerate(choices)}
    # Side by side within a choice, so that equal losses stay apart.
    beside = ((known.groupby(key, dropna=False).cumcount() + 2) % 5 - 2) * 0.07
    _points(axes, known, (values if numeric else values.map(str)).map(spots) + beside)
    axes.set_xticks(range(len(choices)), [f"{one:g}" if numeric else one for one in choices])
    axes.set_xlim(-0.6, len(choices) - 0.4)
    if sum(len(str(one)) for one in choices) > 26:
        _turn_ticks(axes)


def _turn_ticks(axes: Axes) -> None:
    """Long texts under a narrow panel, aslant."""
    for label in axes.get_xticklabels():
        label.set(rotation=25, horizontalalignment="right", rotation_mode="anchor")


def _by_size(text: str) -> tuple:
    """Head widths by their number and size, other texts by the alphabet."""
    parts = text.split(",")
    return (0, len(parts), *map(int, parts)) if all(map(str.isdigit, parts)) else (1, text)


@styled
def importance(importances: pd.Series, title: str = "") -> Figure:
    """How much of the loss's differences each setting explains, as bars; ``importances``: key -> 0 to 1."""
    if importances.empty:
        return only_title(title)
    figure, axes = new_axes(1.0 + 0.28 * max(len(importances), 2), title, "importance (share of the variance)", "")
    values = importances.to_numpy(float)
    share_rows(axes, values, list(importances.index), [f"{value:.0%}" for value in values])
    axes.tick_params("y", labelcolor=INK)
    return figure
