"""Every figure of the series, each a function: data in, matplotlib figure out.

A figure belongs to its caller: it needs no closing, and as a notebook cell's last expression it shows itself. Here are
the figures of the data, the chunks and the images; those of training and testing are in `plots_results` and are named
here too.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from birdlib.plots_results import (
    comparison,
    confusion,
    confusion_order,
    curves,
    fold_scores,
    learning_rate,
    per_class,
    timeline,
)
from birdlib.plots_style import (
    BLUE,
    HATCHED,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    RED,
    Figure,
    count_axis,
    left_out,
    legend,
    mark,
    new_axes,
    new_figure,
    plain_log_axis,
    plural,
    species_rows,
    styled,
    write,
)

__all__ = [
    "Figure",
    "chunk_counts",
    "class_counts",
    "comparison",
    "confusion",
    "confusion_order",
    "curves",
    "cut",
    "dropped_by_measure",
    "energies",
    "fold_scores",
    "fold_sides",
    "images",
    "learning_rate",
    "lengths",
    "per_class",
    "timeline",
]

# ---- the data


@styled
def class_counts(counts: pd.Series, title: str = "Recordings per species") -> Figure:
    """Recordings of each species, most first (the paper's figure 3).

    ``counts``: index label, value number of recordings.
    """
    known = counts.dropna().sort_values(ascending=False, kind="stable")
    title += f": {known.sum():,.0f} in {len(known)} species"
    title += f", from {known.min():,.0f} to {known.max():,.0f}, median {known.median():,.0f}" if len(known) else ""
    title += left_out(len(counts) - len(known), "without a count")
    figure, panels, size = species_rows(list(known.index), title, "recordings")
    for axes, part, y in panels:
        values = known.to_numpy(float)[part]
        axes.barh(y, values, height=0.75, color=BLUE)
        write(axes, values, [f"{value:,.0f}" for value in values], size)
        count_axis(axes.xaxis, 8 if len(panels) == 1 else 3)
        axes.set_xlim(0, (1.1 if len(panels) == 1 else 1.35) * known.max() if len(known) else 1)
    return figure


@styled
def lengths(durations_s: pd.Series) -> Figure:
    """How long the recordings are: a histogram over a logarithmic axis, the median marked.

    ``durations_s``: a value a recording in seconds; missing ones and those without any sound are counted in the title.
    """
    known = durations_s[durations_s > 0].to_numpy(dtype=float)
    title = f"Lengths of {plural(len(known), 'recording')}, {known.sum() / 3600:,.1f} hours in all"
    title += left_out(len(durations_s) - len(known), "without a length")
    figure, axes = new_axes(3.2, title, "length (s)", "recordings")
    count_axis(axes.yaxis)
    if len(known):
        low, high, median = 0.95 * known.min(), 1.05 * known.max(), float(np.median(known))
        plain_log_axis(axes, low, high)
        bins = np.geomspace(low, high, int(np.clip(np.sqrt(len(known)), 10, 46)))
        axes.hist(known, bins, color=BLUE, edgecolor="white", linewidth=0.4)
        mark(axes, median, {-1 if median > np.sqrt(low * high) else 1: (f"median {median:,.3g} s", RED)})
    return figure


# ---- chunks, silence, folds


@styled
def chunk_counts(all_chunks: pd.Series, kept: pd.Series) -> Figure:
    """Chunks of each species before and after the silence filter, most first (figure 4).

    Both: index label, value number of chunks. A label that ``kept`` lacks kept none.
    """
    before = all_chunks.dropna().sort_values(ascending=False, kind="stable")
    after = kept.reindex(before.index).fillna(0)
    share = after.sum() / max(before.sum(), 1)
    title = f"Chunks per species: {after.sum():,.0f} of {before.sum():,.0f} kept ({share:.1%})"
    title += left_out(len(all_chunks) - len(before), "without a count")
    figure, panels, size = species_rows(list(before.index), title, "chunks", extra_in=0.3)
    for axes, part, y in panels:
        totals, keeps = before.to_numpy(float)[part], after.to_numpy(float)[part]
        axes.barh(y, totals, height=0.75, **HATCHED)
        axes.barh(y, keeps, height=0.75, color=BLUE)
        shares = keeps / np.maximum(totals, 1)
        write(axes, totals, [f"{of:.0%} of {total:,.0f}" for of, total in zip(shares, totals, strict=True)], size)
        count_axis(axes.xaxis, 8 if len(panels) == 1 else 3)
        axes.set_xlim(0, (1.18 if len(panels) == 1 else 1.95) * max(before.max(), 1) if len(before) else 1)
    legend(figure, [Patch(color=BLUE, label="kept"), Patch(**HATCHED, label="dropped as silent")])
    return figure


def _lanes(starts_s: Sequence[float], length_s: float) -> list[int]:
    """For each chunk the first lane that is free at its start, so that no two overlap in a lane."""
    ends: list[float] = []
    lanes = []
    for start in starts_s:
        lane = next((number for number, end in enumerate(ends) if end <= start + 1e-9), len(ends))
        ends[lane : lane + 1] = [start + length_s]
        lanes.append(lane)
    return lanes


def _envelope(samples: np.ndarray, sample_rate_hz: int, columns: int = 1500) -> tuple[np.ndarray, ...]:
    """Time (s), least and greatest sample of each column: what a line of all samples looks like, at a set cost."""
    starts = np.unique(np.linspace(0, len(samples), columns, endpoint=False).astype(int))
    return starts / sample_rate_hz, np.minimum.reduceat(samples, starts), np.maximum.reduceat(samples, starts)


@styled
def cut(
    samples: np.ndarray, sample_rate_hz: int, starts_s: Sequence[float], length_s: float, kept: Sequence[bool]
) -> Figure:
    """One recording and the chunks it is cut into, in lanes that show their overlap (the setting of figure 5).

    ``samples``: float (n,), within -1 to 1; ``starts_s`` and ``kept``: a value a chunk.
    """
    keep, lanes, end_s = np.asarray(kept, bool), _lanes(starts_s, length_s), len(samples) / sample_rate_hz
    title = f"{end_s:,.1f} s cut into {plural(len(keep), 'chunk')}: {keep.sum():,} kept, {(~keep).sum():,} silent"
    below = max(lanes, default=0)
    figure = new_figure(3.1 + 0.25 * below, title)
    wave, spans = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 0.6 + 0.45 * below))
    if len(samples):
        wave.fill_between(*_envelope(samples, sample_rate_hz), color=INK, linewidth=0.5)
    wave.set_ylabel("amplitude\n(full scale = 1)")
    for number, (start, lane, keeps) in enumerate(zip(starts_s, lanes, keep, strict=True)):
        style = {"facecolor": BLUE, "edgecolor": "white"} if keeps else HATCHED
        spans.barh(lane, length_s, 0.8, left=start, **style)
        if len(keep) <= 30:
            _on_bar(spans, start + length_s / 2, lane, number, BLUE if keeps else "white")
    end = [axes.axvline(end_s, color=RED, linestyle=":", label="end of the recording") for axes in (wave, spans)]
    spans.set(xlabel="time (s)", ylabel="chunks", yticks=(), ylim=(below + 0.6, -0.6))
    spans.set_xlim(0, 1.005 * max([end_s, *(start + length_s for start in starts_s)]) or 1)
    legend(figure, [Patch(color=BLUE, label="kept"), Patch(**HATCHED, label="silent"), end[0]])
    return figure


def _on_bar(axes: Axes, x: float, y: float, number: int, colour: str) -> None:
    """A number on a bar of this colour, with room cut from any hatch."""
    ink, box = "white" if colour == BLUE else INK, {"facecolor": colour, "edgecolor": "none", "pad": 1.2}
    axes.text(x, y, f"{number:,}", ha="center", va="center", fontsize=8, color=ink, bbox=box)


_ENERGY = {
    "relative": "largest short-time RMS (1 = the recording's loudest frame)",
    "rms": "largest short-time RMS (1 = full scale)",
    "peak": "largest absolute sample (1 = full scale)",
}


@styled
def energies(values: np.ndarray | pd.Series, threshold: float, measure: str) -> Figure:
    """Energies of all chunks on a logarithmic axis, with the threshold and the shares on both sides of it.

    ``values``: a number a chunk; ``measure``: "relative", "rms" or "peak". Zeros stand at the left end.
    """
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    zeros, under = int((known <= 0).sum()), known < threshold
    title = f"Energy of {plural(len(known), 'chunk')}"
    title += f", {zeros:,} of them 0 (drawn at the left end)" if zeros else ""
    title += left_out(len(values) - len(known), "without a value")
    figure, axes = new_axes(3.2, title, _ENERGY.get(measure, measure), "chunks")
    floor = max(known[known > 0].min(initial=1), 1e-5)
    edge = threshold or floor
    low, high = min(floor, edge / 10), max(known.max(initial=0), edge * 2)
    step = (high / low) ** (1 / 50)
    plain_log_axis(axes, low / step, high * step)
    count_axis(axes.yaxis)
    # Bins are laid out from the threshold to both sides, so that no bar stands on both of them.
    ratios = step ** np.arange(0, 54)
    axes.hist(np.maximum(known[under], low), edge / ratios[::-1], **HATCHED)
    axes.hist(np.maximum(known[~under], edge), edge * ratios, color=BLUE, edgecolor="white", linewidth=0.4)
    texts = [f"{side.sum():,} ({side.sum() / max(len(known), 1):.1%})" for side in (under, ~under)]
    mark(axes, edge, {-1: (f"under {threshold:g}: {texts[0]}", RED), 1: (f"{threshold:g} and over: {texts[1]}", BLUE)})
    return figure


# Hollow and growing, so that three at one place are still seen as three.
_MARKERS = {"relative": ("o", BLUE, 4.5, True), "rms": ("s", RED, 6.5, False), "peak": ("D", INK, 8.5, False)}


@styled
def dropped_by_measure(table: pd.DataFrame) -> Figure:
    """Share of each species' chunks that each measure of silence would drop, hardest hit first.

    ``table``: index label, a column a measure ("relative", "rms", "peak"), values 0 to 1.
    """
    ranked = table.loc[table.max(axis=1).sort_values(ascending=False, kind="stable").index]
    title, xlabel = "What each measure of silence would drop, by species", "share dropped"
    figure, panels, _ = species_rows(list(ranked.index), title, xlabel, extra_in=0.3)
    styles = {}
    for name in ranked.columns:
        marker, colour, size, filled = _MARKERS.get(str(name), ("^", PURPLE, 6.0, False))
        styles[name] = {"marker": marker, "color": colour, "markersize": size * (1 if len(panels) == 1 else 0.65)}
        styles[name] |= {"markerfacecolor": colour if filled else "none", "linestyle": "none"}
    for axes, part, y in panels:
        for name, style in styles.items():
            axes.plot(ranked[name].to_numpy(float)[part], y, **style)
        axes.grid(visible=True, axis="y")
        axes.set_xlim(-0.06, 1.06)
        axes.set_xticks((0, 0.25, 0.5, 0.75, 1) if len(panels) == 1 else (0, 0.5, 1))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    emptied = ranked.ge(1 - 1e-9).sum()
    remarks = [f"{name} ({emptied[name]} species lose all)" if emptied[name] else str(name) for name in styles]
    legend(figure, [Line2D([], [], label=text, **style) for text, style in zip(remarks, styles.values(), strict=True)])
    return figure


_SIDES = {
    "train": {"facecolor": BLUE, "edgecolor": "white"},
    "validation": {"facecolor": ORANGE, "edgecolor": "white", "hatch": "////"},
    "test": {"facecolor": PALE, "edgecolor": "white", "hatch": "...."},
}


@styled
def fold_sides(splits: pd.DataFrame) -> Figure:
    """What each fold trains on, what it validates with, and what the test holds, to scale (figure 13).

    ``splits``: a row a recording with filename, primary_label, group, split ("test" or "train") and fold (-1 or
    0 to k-1; -1 within "train": trains in every fold).
    """
    train, test = (splits[splits["split"] == side] for side in ("train", "test"))
    parts = {int(fold): part for fold, part in train[train["fold"] >= 0].groupby("fold")}
    always = len(train) - sum(len(part) for part in parts.values())
    crossing = int((splits.drop_duplicates(["group", "split", "fold"])["group"].value_counts() > 1).sum())
    title = f"{plural(len(splits), 'recording')} in {plural(splits['group'].nunique(), 'group')}; on two sides: "
    title += plural(crossing, "group") if crossing else "none"
    figure, axes = new_axes(1.35 + 0.5 * max(len(parts), 1), title, "recordings", "fold")
    for row, (fold, part) in enumerate(parts.items()):
        blocks = [("validation" if other == fold else "train", len(parts[other])) for other in parts]
        _fold_row(axes, row, [*blocks, ("train", always), ("test", len(test))])
        text = f"trains on {len(train) - len(part):,}\nvalidates with {len(part):,}"
        axes.text(
            1.01 * len(splits), row, f"{text} ({part['primary_label'].nunique()} species)", va="center", fontsize=8
        )
    axes.set_yticks(range(len(parts)), [str(fold) for fold in parts])
    axes.set(xlim=(0, max(len(splits), 1)), ylim=(max(len(parts), 1) - 0.5, -0.5))
    count_axis(axes.xaxis)
    axes.grid(visible=False)
    tested = f"test: {plural(len(test), 'recording')} of {test['primary_label'].nunique()} species"
    names = {"train": "train" + (f" ({always:,} of them in every fold)" if always else ""), "test": tested}
    legend(figure, [Patch(**style, label=names.get(side, side)) for side, style in _SIDES.items()])
    return figure


def _fold_row(axes: Axes, row: int, blocks: list[tuple[str, int]]) -> None:
    left, total = 0, sum(width for _, width in blocks)
    for side, width in blocks:
        axes.barh(row, width, 0.72, left=left, **_SIDES[side])
        if width > 0.05 * total:  # a narrower block has no room for its number
            _on_bar(axes, left + width / 2, row, width, _SIDES[side]["facecolor"])
        left += width


# ---- images


def _frequency_ticks(mel_frequencies_hz: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Rows (fractional) of round frequencies among the mel bands' centres, and their names in kHz."""
    khz = np.array([0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32])
    khz = khz[(1000 * khz >= mel_frequencies_hz[0]) & (1000 * khz <= mel_frequencies_hz[-1])]
    rows = np.interp(1000 * khz, mel_frequencies_hz, np.arange(len(mel_frequencies_hz)))
    # The mel scale crowds its low end; of two ticks nearer than a tenth of the height the upper one stays.
    apart = np.append(np.diff(rows) > 0.1 * len(mel_frequencies_hz), True)[: len(rows)]
    return rows[apart], [f"{value:g}" for value in khz[apart]]


@styled
def images(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    mel_frequencies_hz: np.ndarray,
    seconds: float,
    columns: int = 3,
) -> Figure:
    """Spectrogram images side by side, with a true frequency axis, time, and one scale of dB for all.

    ``images``: each (n_mels, frames) or (n_mels, frames, 3), values 0 to 255 standing for -80 to 0 dB, low
    frequencies first; ``mel_frequencies_hz``: (n_mels,), the bands' centres; ``seconds``: the time an image covers.
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    figure = new_figure(0.7 + rows * (2.0 if columns > 1 else 2.6))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for number, (axes, image, title) in enumerate(zip(grid, images, titles, strict=False)):
        values = np.asarray(image, float)
        levels_db = (values[..., 0] if values.ndim == 3 else values) * 80 / 255 - 80
        place = {"origin": "lower", "aspect": "auto", "extent": (0, seconds, -0.5, len(levels_db) - 0.5)}
        drawn = axes.imshow(levels_db, cmap="magma", vmin=-80, vmax=0, **place)
        axes.set_title(textwrap.fill(str(title), 120 // columns))
        axes.set_yticks(*_frequency_ticks(np.asarray(mel_frequencies_hz, float)))
        axes.grid(visible=False)
        axes.set_ylabel("" if number % columns else "frequency (kHz)")
        if number + columns >= len(images):
            axes.tick_params("x", labelbottom=True)
            axes.set_xlabel("time (s)")
    for axes in grid[len(images) :]:
        axes.remove()
    if len(images):
        bar = figure.colorbar(drawn, ax=list(grid[: len(images)]), aspect=30, pad=0.015)
        bar.set_label("dB (0 = the image's loudest)")
        bar.outline.set_visible(False)
    return figure
