"""The figures of training: loss, accuracy and learning rate over the epochs, and trainings side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from birdlib.plots_style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    RED,
    Figure,
    left_out,
    legend,
    new_axes,
    new_figure,
    styled,
    write,
)

_LINES = {"training": ("", BLUE, "o", "-"), "validation": ("val_", RED, "s", "--")}


def _epoch_axis(axes: Axes, epochs: np.ndarray) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if len(epochs):
        room = 0.5 if len(epochs) == 1 else min(0.03 * np.ptp(epochs) + 0.1, 0.9)
        axes.set_xlim(epochs.min() - room, epochs.max() + room)


def _pair(title: str) -> tuple[Figure, dict[str, Axes]]:
    figure = new_figure(3.4, title)
    figure.get_layout_engine().set(wspace=0.04)
    axes = dict(zip(("loss", "accuracy"), figure.subplots(1, 2), strict=True))
    axes["loss"].set_ylabel("loss (cross-entropy, nats)")
    axes["accuracy"].set_ylabel("accuracy")
    axes["accuracy"].yaxis.set_major_formatter(PercentFormatter(1))
    return figure, axes


def _from_zero(panels: Mapping[str, Axes]) -> None:
    """Both axes begin at 0, the least that either can be, so that no two figures exaggerate differently."""
    for name, axes in panels.items():
        highest = axes.dataLim.y1 if axes.dataLim.y1 > 0 else 1.0
        axes.set_ylim(0, min(1.03, 1.1 * highest) if name == "accuracy" else 1.05 * highest)


def _key(colour: str, line: str, label: str, marker: str = "") -> Line2D:
    return Line2D([], [], color=colour, linestyle=line, linewidth=1.4, label=label, marker=marker, markersize=3.5)


def _lowered(history: pd.DataFrame) -> np.ndarray:
    """Rows of the epochs that began with a lower learning rate than the one before."""
    rates = history["learning_rate"].to_numpy(float) if "learning_rate" in history else np.zeros(len(history))
    return np.flatnonzero(rates[1:] < 0.999 * rates[:-1]) + 1


@styled
def curves(history: pd.DataFrame, title: str = "") -> Figure:
    """Loss and accuracy over the epochs, in training and in validation (figures 10-12, 15, 16).

    ``history``: a row an epoch with epoch, loss, accuracy, val_loss, val_accuracy and, if known, learning_rate. The
    epoch of the lowest val_loss is marked, and so is where the learning rate was lowered.
    """
    figure, panels = _pair(title)
    epochs, known = history["epoch"].to_numpy(float), history["val_loss"].reset_index(drop=True).dropna()
    best = int(known.idxmin()) if len(known) else None
    lowered = epochs[_lowered(history)]
    for name, axes in panels.items():
        for label, (prefix, colour, marker, line) in _LINES.items():
            style = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1.4}
            axes.plot(epochs, history[prefix + name].to_numpy(float), line, label=label, **style)
        _epoch_axis(axes, epochs)
        for epoch in lowered:
            axes.axvline(epoch - 0.5, color=ORANGE, linewidth=1.2 if len(lowered) < 8 else 0.7, zorder=0.5)
        if best is not None:
            value = history[f"val_{name}"].iloc[best]
            _mark_best(axes, epochs[best], value, f"{value:.3f}" if name == "loss" else f"{value:.1%}")
    _from_zero(panels)
    keys = list(panels["loss"].get_lines()[:2])
    legend(figure, [*keys, *([_key(ORANGE, "-", "learning rate lowered")] if len(lowered) else [])])
    return figure


def _mark_best(axes: Axes, epoch: float, value: float, text: str) -> None:
    axes.axvline(epoch, color=GREY, linestyle=":", linewidth=1.2)
    axes.plot(epoch, value, "o", color=RED, markersize=9, markerfacecolor="none", clip_on=False)
    axes.set_title(f"best epoch {epoch:g}: validation {text}", fontsize=8.5, color=RED)


@styled
def whole_run(history: pd.DataFrame, title: str = "") -> Figure:
    """Loss and accuracy of several phases, one after the other on one axis of epochs (figures 12 and 16).

    ``history``: rows as in `curves`, epoch counted on over the phases, and a column phase ("I", "II"). Where a column
    best (bool) is true, the epoch is ringed as the one whose weights its phase keeps.
    """
    figure, panels = _pair(title)
    best = history[history["best"]] if "best" in history else history.iloc[:0]
    ring = {"marker": "o", "color": RED, "markersize": 9, "markerfacecolor": "none", "linestyle": "none"}
    for name, axes in panels.items():
        for prefix, colour, marker, line in _LINES.values():
            for _, phase in history.groupby("phase", sort=False):
                style = {"color": colour, "marker": marker, "markersize": 3, "linewidth": 1.4}
                axes.plot(phase["epoch"], phase[prefix + name], line, **style)
        if len(best):
            axes.plot(best["epoch"], best[f"val_{name}"], clip_on=False, **ring)
        _epoch_axis(axes, history["epoch"].to_numpy(float))
        _mark_phases(axes, history)
    _from_zero(panels)
    keys = [_key(colour, line, label, marker) for label, (_, colour, marker, line) in _LINES.items()]
    legend(figure, [*keys, *([Line2D([], [], label="the weights a phase keeps", **ring)] if len(best) else [])])
    return figure


def _mark_phases(axes: Axes, history: pd.DataFrame) -> None:
    """A line where a phase begins, and the phases' names above the axes."""
    for number, (name, phase) in enumerate(history.groupby("phase", sort=False)):
        first, last = float(phase["epoch"].min()), float(phase["epoch"].max())
        if number:
            axes.axvline(first - 0.5, color=INK, linewidth=1)
        place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "va": "bottom", "ha": "center"}
        axes.annotate(f"phase {name}", ((first + last) / 2, 1), (0, 2), fontsize=8.5, **place)


@styled
def side_by_side(histories: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """Several trainings' loss and accuracy in validation, a colour and a marker each (figures 10 and 11).

    ``histories``: name -> history as in `curves`; up to four.
    """
    figure, panels = _pair(title)
    looks = [(BLUE, "o", "-"), (RED, "s", "--"), (PURPLE, "D", "-."), (INK, "^", ":")]
    for (label, history), (colour, marker, line) in zip(histories.items(), looks, strict=False):
        for name, axes in panels.items():
            style = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 1.4}
            axes.plot(history["epoch"], history[f"val_{name}"], line, label=label, **style)
    longest = max((history["epoch"] for history in histories.values()), key=len, default=pd.Series(dtype=float))
    for name, axes in panels.items():
        _epoch_axis(axes, longest.to_numpy(float))
        axes.set_title(f"{name} in validation", fontsize=8.5)
    _from_zero(panels)
    legend(figure, list(panels["loss"].get_lines()))
    return figure


@styled
def learning_rate(history: pd.DataFrame) -> Figure:
    """The learning rate over the epochs on a logarithmic axis, its values as the ticks (figure 17).

    ``history``: a row an epoch with epoch and learning_rate, and with phase where there are several, as in `whole_run`.
    """
    known = history.dropna(subset=["epoch", "learning_rate"])
    epochs, rates = known["epoch"].to_numpy(float), known["learning_rate"].to_numpy(float)
    phases = known.groupby("phase", sort=False) if "phase" in known else [("", known)]
    lowered = sum(len(_lowered(phase)) for _, phase in phases)
    often = {0: "never", 1: "once", 2: "twice"}.get(lowered, f"{lowered} times")
    title = f"Learning rate, {often} lowered" + (" within a phase" if "phase" in known else "") if len(known) else ""
    title = (title or "Learning rate") + left_out(len(history) - len(known), "epochs without one")
    figure, axes = new_axes(2.6, title, "epoch", "learning rate")
    axes.step(epochs, rates, where="mid", color=BLUE, linewidth=1.4, marker="o", markersize=3.5)
    _epoch_axis(axes, epochs)
    if "phase" in known:
        _mark_phases(axes, known)
    if len(rates) and rates.min() > 0:
        axes.set(yscale="log", ylabel="learning rate (logarithmic)")
        axes.set_ylim(rates.min() / 1.5, rates.max() * 1.5)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_yticks(*_rate_ticks(rates))
    if not len(rates):
        axes.set_yticks(())
    return figure


def _rate_ticks(rates: np.ndarray) -> tuple[list[float], list[str]]:
    """The rates themselves, of a long decay as many as there is room for."""
    ticks: list[float] = []
    for rate in sorted(set(rates), reverse=True):
        if not ticks or ticks[-1] / rate > 1.001 * (rates.max() / rates.min()) ** 0.1:
            ticks.append(rate)
    parts = [f"{rate:.2e}".split("e") for rate in ticks]
    return ticks, [f"{float(digits):g}e{int(power)}" for digits, power in parts]


@styled
def folds(histories: Mapping[str, pd.DataFrame], scores: pd.Series) -> Figure:
    """All folds' loss and accuracy in validation, thin, with their mean, and where each ended (the small figure 14).

    ``histories``: fold name -> rows as in `curves`; the mean is over the folds that are still training. ``scores``:
    fold name -> accuracy (0 to 1) of the kept weights, with their mean and, shaded, one standard deviation of them.
    """
    known = scores.dropna()
    title = f"{len(known)} folds: accuracy {known.mean():.1%} on average (dashed)" if len(known) else "Folds"
    title += f", standard deviation {known.std():.1%} (shaded)" if len(known) > 1 else ""
    title += left_out(len(scores) - len(known), "without a score")
    figure = new_figure(3.4, title)
    losses, accuracies, ends = figure.subplots(1, 3, width_ratios=(1.25, 1.25, 1))
    for name, axes in (("loss", losses), ("accuracy", accuracies)):
        _fold_curves(axes, [history.set_index("epoch")[f"val_{name}"] for history in histories.values()])
        axes.set_ylabel(f"{name} in validation")
    rows = np.arange(len(known))
    ends.plot(known.to_numpy(float), rows, "o", color=BLUE, markersize=6)
    write(ends, 1.02, [f"{value:.1%}" for value in known])
    if len(known):
        ends.axvline(known.mean(), color=RED, linestyle="--", linewidth=1.4, zorder=0.5)
    if len(known) > 1:
        ends.axvspan(known.mean() - known.std(), known.mean() + known.std(), color=PALE, zorder=0.3)
    ends.set_yticks(rows, [str(name) for name in known.index])
    ends.set(xlabel="accuracy by chunk", xlim=(0, 1.4), ylim=(max(len(known), 1) - 0.5, -0.5))
    ends.set_xticks((0, 0.5, 1))
    for axis in (accuracies.yaxis, ends.xaxis):
        axis.set_major_formatter(PercentFormatter(1))
    _from_zero({"loss": losses, "accuracy": accuracies})
    legend(figure, [_key(BLUE, "-", "a fold"), _key(INK, "-", "mean of the folds")])
    return figure


def _fold_curves(axes: Axes, curves: list[pd.Series]) -> None:
    for curve in curves:
        axes.plot(curve.index, curve.to_numpy(float), color=BLUE, linewidth=0.9, alpha=0.7)
    mean = pd.concat(curves, axis=1).mean(axis=1) if curves else pd.Series(dtype=float)
    axes.plot(mean.index, mean.to_numpy(float), color=INK, linewidth=2)
    _epoch_axis(axes, mean.index.to_numpy(float))
