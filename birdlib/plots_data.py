"""The figures of a data set: how many recordings of what, how long, by whom, where."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, MaxNLocator

from birdlib.plots_style import (
    BLUE,
    GREY,
    PALE,
    RED,
    WIDTH_IN,
    Figure,
    count_axis,
    left_out,
    legend,
    limit_for,
    mark,
    new_axes,
    only_title,
    plain_log_axis,
    plural,
    species_rows,
    styled,
    text_in,
    write,
)


@styled
def class_counts(
    counts: pd.Series, names: Mapping[str, str] | None = None, title: str = "Recordings per species"
) -> Figure:
    """Recordings of each species, most first (the paper's figure 3).

    ``counts``: index label, value number of recordings; ``names``: common names by label.
    """
    known = counts.dropna().sort_values(ascending=False, kind="stable")
    title += f": {known.sum():,.0f} in {len(known)} species"
    if len(known) > 1:
        alike, ends = known.min() == known.max(), f"{known.min():,.0f} to {known.max():,.0f}"
        title += f", {known.min():,.0f} of each" if alike else f", from {ends}, median {known.median():,.0f}"
    title += left_out(len(counts) - len(known), "without a count")
    figure, panels, size, width_in = species_rows(list(known.index), title, "recordings", names)
    values, texts = known.to_numpy(float), [f"{value:,.0f}" for value in known]
    for axes, part, y in panels:
        axes.barh(y, values[part], height=0.75, color=BLUE)
        write(axes, values[part], texts[part], size)
        count_axis(axes.xaxis, 8 if len(panels) == 1 else 3)
        axes.set_xlim(0, limit_for(values, texts, size, width_in))
    return figure


@styled
def lengths(durations_s: pd.Series) -> Figure:
    """How long the recordings are: a histogram over a logarithmic axis, the median marked.

    ``durations_s``: a value a recording in seconds; missing ones and those without any sound are counted in the title.
    """
    known = durations_s[durations_s > 0].to_numpy(dtype=float)
    unit, seconds = ("hours", 3600) if known.sum() >= 3600 else ("minutes", 60)
    title = f"Lengths of {plural(len(known), 'recording')}, {known.sum() / seconds:,.1f} {unit} in all"
    title += left_out(len(durations_s) - len(known), "without a length")
    figure, axes = new_axes(3.2, title, "length (s), logarithmic", "recordings")
    count_axis(axes.yaxis)
    if len(known):
        low, high, median = 0.95 * known.min(), 1.05 * known.max(), float(np.median(known))
        plain_log_axis(axes, low, high)
        bins = np.geomspace(low, high, int(np.clip(np.sqrt(len(known)), 10, 46)))
        axes.hist(known, bins, color=BLUE, edgecolor="white", linewidth=0.4)
        mark(axes, median, {-1 if median > np.sqrt(low * high) else 1: (f"median {median:,.3g} s", RED)})
    return figure


@styled
def ranking(counts: pd.Series, title: str, xlabel: str, most: int = 12) -> Figure:
    """The ``most`` frequent of many things, such as recordists or kinds of sound; the rest is one grey bar.

    ``counts``: index name, value a count, in any order.
    """
    ranked = counts.sort_values(ascending=False, kind="stable")
    if ranked.empty:
        return only_title(f"{title}: there are none")
    top, rest = ranked.iloc[:most], ranked.iloc[most:]
    figure, axes = new_axes(0.95 + 0.22 * max(len(top) + bool(len(rest)), 3), title, xlabel, "")
    values, texts = [float(value) for value in top], [f"{value:,.0f}" for value in top]
    named, colours = [_short(name) for name in top.index], [BLUE] * len(top)
    if len(rest):
        # A bar of its true length would make all others unreadable: it stops at theirs, and its number says the rest.
        values.append(min(float(rest.sum()), float(top.max())))
        texts.append(f"{rest.sum():,.0f} in all" + (" (bar cut short)" if rest.sum() > top.max() else ""))
        named.append(f"{len(rest):,} others")
        colours.append(PALE)
    axes.barh(range(len(values)), values, height=0.72, color=colours)
    write(axes, np.array(values), texts)
    axes.set_yticks(range(len(named)), named)
    width_in = WIDTH_IN - 0.25 - text_in(named, 8)
    axes.set(xlim=(0, limit_for(values, texts, 8.5, width_in)), ylim=(max(len(named), 3) - 0.4, -0.6))
    axes.tick_params("y", length=0)
    axes.grid(visible=False, axis="y")
    count_axis(axes.xaxis)
    return figure


def _short(name: object, most: int = 34) -> str:
    text = str(name)
    return text if len(text) <= most else text[: most - 1] + "…"


@styled
def ratings(values: pd.Series) -> Figure:
    """How well the recordings are rated, by half steps up to 5.

    ``values``: a rating a recording, to the nearest half; 0 and missing mean none.
    """
    rated = values[values > 0]
    title = f"Ratings of {plural(len(rated), 'recording')}" + left_out(len(values) - len(rated), "without a rating")
    if rated.empty:
        return only_title(title)
    figure, axes = new_axes(2.4, title, "rating (5 = best)", "recordings")
    counts = ((2 * rated).round() / 2).value_counts().sort_index()
    axes.bar(counts.index, counts, width=0.36, color=BLUE)
    for rating, count in counts.items():
        place = {"textcoords": "offset points", "ha": "center", "va": "bottom"}
        axes.annotate(f"{count:,}", (rating, count), (0, 1), fontsize=8, color=GREY, **place)
    axes.set(xlim=(0.2, 5.3), xticks=np.arange(0.5, 5.1, 0.5))
    axes.set_ylim(0, 1.12 * max(counts.max(), 1) if len(counts) else 1)
    axes.grid(visible=False, axis="x")
    count_axis(axes.yaxis, 5)
    return figure


@styled
def places(latitude: pd.Series, longitude: pd.Series) -> Figure:
    """Where the recordings were made, on a map of the land, each place as large as it has recordings.

    Both in degrees, a value a recording. Recordings within a 50th of the map's width are one place, in their middle; a
    missing or impossible value is counted in the title. Land: Natural Earth 1:110m, public domain.
    """
    known = latitude.between(-90, 90) & longitude.between(-180, 180)
    east, north = longitude[known].to_numpy(float), latitude[known].to_numpy(float)
    (middle, half), stretch = _frame(east, north)
    title = f"{plural(len(east), 'recording')} by place"
    title += left_out(len(known) - len(east), "without a place")
    if not len(east):
        return only_title(title)
    height_in = min(1.3 + 7.6 * half[1] * stretch / half[0], 6.6)
    figure, axes = new_axes(height_in, title, "longitude", "latitude")
    axes.add_patch(PathPatch(_land(), facecolor="#ececec", edgecolor=GREY, linewidth=0.6, zorder=0.5))
    (left, bottom), (right, top) = middle - half, middle + half
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_aspect(stretch)
    for axis, signs in ((axes.xaxis, "WE"), (axes.yaxis, "SN")):
        axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 3, 5, 6, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _, signs=signs: _degrees(value, signs)))
    spots, counts = _spots(east, north, half[0] / 25)
    largest = counts.max(initial=1)
    look = {"color": BLUE, "alpha": 0.55, "markeredgecolor": "white", "markeredgewidth": 0.6}
    axes.scatter(*spots.T, _area(counts, largest), BLUE, alpha=0.55, linewidth=0.6, edgecolor="white", clip_on=False)
    keys = [(count, _area(count, largest) ** 0.5) for count in sorted({1, -(-largest // 4), largest}) if len(counts)]
    marks = {"linestyle": "none", "marker": "o", **look}
    legend(
        figure, [Line2D([], [], markersize=size, label=plural(int(n), "recording"), **marks) for n, size in keys], 0.8
    )
    return figure


def _area(count: np.ndarray | int, largest: int) -> np.ndarray | float:
    """A circle's area in square points: in proportion, and one recording among thousands is still seen."""
    return 14 + 260 * count / largest


def _degrees(value: float, signs: str) -> str:
    return f"{abs(value):g}°" + (f" {signs[int(value > 0)]}" if value and abs(value) < 180 else "")


def _spots(east: np.ndarray, north: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """The mean place (n, 2) of what lies in one square of ``cell`` degrees, and how many those are (n,), most first."""
    places = pd.DataFrame({"east": east, "north": north})
    groups = places.groupby([np.floor(east / cell), np.floor(north / cell)])
    counts = groups.size().sort_values(ascending=False)
    return groups.mean().loc[counts.index].to_numpy(), counts.to_numpy()


def _land() -> Path:
    """All coasts as one path. The Caspian Sea runs the other way round than Eurasia, which makes it a hole."""
    coast = pd.read_csv(str(files("birdlib") / "coast.csv"))
    rings = [ring[["longitude", "latitude"]].to_numpy() for _, ring in coast.groupby("line")]
    return Path.make_compound_path(*map(Path, rings))


def _frame(east: np.ndarray, north: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], float]:
    """Middle and half width of a map of all places, each (longitude, latitude), and how much longer a degree north is.

    The map is at least 10 degrees wide, between 1.4 and 2 times as wide as high, and ends where the world does.
    """
    world = np.array([180, 90])
    if not len(east):
        return (np.zeros(2), world), 1.0
    ends = np.array([[east.min(), north.min()], [east.max(), north.max()]])
    middle, half = ends.mean(axis=0), np.maximum(0.56 * np.ptp(ends, axis=0), 5)
    stretch = 1 / max(np.cos(np.radians(middle[1])), 0.3)
    wide = np.clip(half[0] / half[1] / stretch, 1.4, 2)
    half[0] = min(max(half[0], half[1] * wide * stretch), 180)
    half[1] = min(max(half[1], half[0] / wide / stretch), 90)
    return (np.clip(middle, half - world, world - half), half), stretch
