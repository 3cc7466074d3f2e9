"""The figures of cutting, filtering, splitting and balancing: what becomes of the recordings before they train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from birdlib.plots_sound import decibel_bar, draw_image
from birdlib.plots_style import (
    BLUE,
    HATCHED,
    INK,
    MANY_CLASSES,
    ORANGE,
    PALE,
    PURPLE,
    RED,
    Figure,
    count_axis,
    envelope,
    left_out,
    legend,
    limit_for,
    mark,
    new_axes,
    new_figure,
    plain_log_axis,
    plain_number,
    plural,
    root_axis,
    species_rows,
    styled,
    write,
)


@styled
def chunk_counts(all_chunks: pd.Series, kept: pd.Series, names: Mapping[str, str] | None = None) -> Figure:
    """Chunks of each species before and after the silence filter, most first (figure 4).

    Both: index label, value number of chunks. A label that ``kept`` lacks kept none. ``names``: common names by label.
    """
    before = all_chunks.dropna().sort_values(ascending=False, kind="stable")
    after = kept.reindex(before.index).fillna(0)
    share = after.sum() / max(before.sum(), 1)
    title = f"Chunks per species: {after.sum():,.0f} of {before.sum():,.0f} kept ({share:.1%})"
    title += left_out(len(all_chunks) - len(before), "without a count")
    figure, panels, size, width_in = species_rows(list(before.index), title, "chunks", names, extra_in=0.3)
    totals, keeps = before.to_numpy(float), after.to_numpy(float)
    texts = [f"{kept / max(total, 1):.0%} of {total:,.0f}" for kept, total in zip(keeps, totals, strict=True)]
    for axes, part, y in panels:
        axes.barh(y, totals[part], height=0.75, **HATCHED)
        axes.barh(y, keeps[part], height=0.75, color=BLUE)
        write(axes, totals[part], texts[part], size)
        count_axis(axes.xaxis, 8 if len(panels) == 1 else 3)
        axes.set_xlim(0, limit_for(totals, texts, size, width_in))
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


@styled
def cut(
    samples: np.ndarray,
    sample_rate_hz: int,
    starts_s: Sequence[float],
    length_s: float,
    kept: Sequence[bool],
    image: np.ndarray,
    mel_frequencies_hz: np.ndarray,
    top_db: float = 80.0,
) -> Figure:
    """One recording, its waveform and its spectrogram, and the chunks it is cut into, in lanes that show their overlap.

    ``samples``: float (n,), within -1 to 1; ``starts_s`` and ``kept``: a value a chunk; ``image``: the
    whole recording's, (n_mels, frames) or (n_mels, frames, 3), 0-255; ``mel_frequencies_hz``, ``top_db``: its scales.
    """
    keep, lanes, end_s = np.asarray(kept, bool), _lanes(starts_s, length_s), len(samples) / sample_rate_hz
    title = f"{end_s:,.1f} s cut into {plural(len(keep), 'chunk')}: {keep.sum():,} kept, {(~keep).sum():,} silent"
    below = max(lanes, default=0)
    figure = new_figure(4.6 + 0.25 * below, title)
    wave, sound, spans = figure.subplots(3, 1, sharex=True, height_ratios=(1.3, 2, 0.6 + 0.45 * below))
    if len(samples):
        wave.fill_between(*envelope(samples, sample_rate_hz), color=INK, linewidth=0.5)
    wave.set_ylabel("amplitude\n(full scale = 1)")
    drawn = draw_image(sound, image, mel_frequencies_hz, end_s, top_db)
    decibel_bar(figure, drawn, [wave, sound, spans], "the recording's")
    for number, (start, lane, keeps) in enumerate(zip(starts_s, lanes, keep, strict=True)):
        style = {"facecolor": BLUE, "edgecolor": "white"} if keeps else HATCHED
        spans.barh(lane, length_s, 0.8, left=start, **style)
        if len(keep) <= 30:
            _on_bar(spans, start + length_s / 2, lane, number, BLUE if keeps else "white")
    ends = {axes: axes.axvline(end_s, color=RED, linestyle=":", linewidth=1.6) for axes in (wave, spans)}
    ends[spans].set_label("end of the recording")
    spans.set(xlabel="time (s)", ylabel="chunks", yticks=(), ylim=(below + 0.6, -0.6))
    spans.set_xlim(0, 1.005 * max([end_s, *(start + length_s for start in starts_s)]) or 1)
    figure.align_ylabels([wave, sound, spans])
    legend(figure, [Patch(color=BLUE, label="kept"), Patch(**HATCHED, label="silent"), ends[spans]])
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

    ``values``: a number a chunk; ``measure``: "relative", "rms" or "peak". What is less than a thousandth of the
    threshold, zeros too, stands at the left end. Heights are square roots, so that a few chunks are seen beside many.
    """
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    edge = threshold or max(known[known > 0].min(initial=1), 1e-5)
    floor, under = edge / 1000, known < threshold
    low, high = max(min(known.min(initial=1), edge / 10), floor), max(known.max(initial=0), edge * 2)
    title = f"Energy of {plural(len(known), 'chunk')}"
    tiny = (known < floor).sum()
    title += f", {tiny:,} of them under {plain_number(floor)} (drawn at the left end)" if tiny else ""
    title += left_out(len(values) - len(known), "without a value")
    figure, axes = new_axes(3.2, title, _ENERGY.get(measure, measure), "chunks (square-root axis)")
    step = (high / low) ** (1 / 50)
    plain_log_axis(axes, low / step, high * step)
    # Bins are laid out from the threshold to both sides, so that no bar stands on both of them.
    ratios = step ** np.arange(0, 54)
    heights = [
        axes.hist(np.maximum(known[under], low), edge / ratios[::-1], **HATCHED)[0],
        axes.hist(np.maximum(known[~under], edge), edge * ratios, color=BLUE, edgecolor="white", linewidth=0.4)[0],
    ]
    highest = max(part.max() for part in heights)
    root_axis(axes.yaxis, highest, max(1.05 * highest, 1))
    texts = [f"{side.sum():,} ({side.sum() / max(len(known), 1):.1%})" for side in (under, ~under)]
    mark(axes, edge, {-1: (f"under {threshold:g}: {texts[0]}", RED), 1: (f"{threshold:g} and over: {texts[1]}", BLUE)})
    return figure


# Hollow and growing, so that three at one place are still seen as three.
_MARKERS = {"relative": ("o", BLUE, 4.5, True), "rms": ("s", RED, 6.5, False), "peak": ("D", INK, 8.5, False)}


@styled
def dropped_by_measure(table: pd.DataFrame, names: Mapping[str, str] | None = None) -> Figure:
    """Share of each species' chunks that each measure of silence would drop, hardest hit first.

    ``table``: index label, a column a measure ("relative", "rms", "peak"), values 0 to 1; ``names``: common names.
    """
    ranked = table.loc[table.max(axis=1).sort_values(ascending=False, kind="stable").index]
    title, xlabel = "Chunks under the threshold by each measure of silence", "share of chunks"
    figure, panels, _, _ = species_rows(list(ranked.index), title, xlabel, names, extra_in=0.3)
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
    verb = {name: "loses" if emptied[name] == 1 else "lose" for name in styles}
    remarks = [f"{name}" + (f" ({emptied[name]} species {verb[name]} all)" if emptied[name] else "") for name in styles]
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
    shown = [side for side in _SIDES if side != "test" or len(test)]
    legend(figure, [Patch(**_SIDES[side], label=names.get(side, side)) for side in shown])
    return figure


def _fold_row(axes: Axes, row: int, blocks: list[tuple[str, int]]) -> None:
    left, total = 0, sum(width for _, width in blocks)
    for side, width in blocks:
        axes.barh(row, width, 0.72, left=left, **_SIDES[side])
        if width > 0.05 * total:  # a narrower block has no room for its number
            _on_bar(axes, left + width / 2, row, width, _SIDES[side]["facecolor"])
        left += width


@styled
def epoch_balance(table: pd.DataFrame, threshold: int, names: Mapping[str, str] | None = None) -> Figure:
    """The chunks that each species has beside those of one balanced epoch, most first.

    ``table``: index label, columns ``there`` (chunks to train on), ``epoch`` (chunks in the epoch) and ``different``
    (how many of those are different chunks); ``threshold``: what the epoch takes of each. Where some species has many
    times that, the axis is one of square roots, or the epoch could not be seen.
    """
    ranked = table.sort_values("there", ascending=False, kind="stable")
    title = f"One epoch takes {plural(threshold, 'chunk')} of each of {len(ranked)} species"
    root = bool(len(ranked) and ranked["there"].max() > 8 * threshold)
    wide = len(ranked) <= MANY_CLASSES
    xlabel = "chunks" + (" (square-root axis)" if wide else " (square root)") * root
    figure, panels, size, width_in = species_rows(list(ranked.index), title, xlabel, names, extra_in=0.3)
    ends = ranked[["there", "epoch"]].max(axis=1).to_numpy(float)
    texts = [f"{new:,.0f} of {there:,.0f}" for there, new in ranked[["there", "different"]].to_numpy()]
    limit = limit_for(np.sqrt(ends), texts, size, width_in) ** 2 if root else limit_for(ends, texts, size, width_in)
    for axes, part, y in panels:
        rows = ranked.iloc[part]
        axes.barh(y, rows["there"], height=0.75, color=PALE)
        axes.barh(y, rows["epoch"], height=0.4, **HATCHED)
        axes.barh(y, rows["different"], height=0.4, color=BLUE)
        write(axes, ends[part], texts[part], size)
        axes.axvline(threshold, color=RED, linestyle="--", linewidth=1)
        if root:
            root_axis(
                axes.xaxis, max(ends.max(initial=0), threshold), max(limit, 1.05 * threshold), 0.09 if wide else 0.24
            )
        else:
            axes.set_xlim(0, max(limit, 1.05 * threshold))
            count_axis(axes.xaxis, 8 if wide else 3)
    keys = [Patch(color=PALE, label="there are"), Patch(color=BLUE, label="used: different ones")]
    legend(figure, [*keys, Patch(**HATCHED, label="used again"), _line(f"{threshold:,} of each")])
    return figure


def _line(label: str) -> Line2D:
    return Line2D([], [], color=RED, linestyle="--", linewidth=1, label=label)
