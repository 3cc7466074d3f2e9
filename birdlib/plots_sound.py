"""Sounds as pictures: log-mel images, alone and under their waveforms, with true axes."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.image import AxesImage, imsave

from birdlib.plots_style import INK, WIDTH_IN, Figure, envelope, new_figure, styled

MOST_COLUMNS = 1200  # of an image; a figure is 860 points wide


def _frequency_ticks(mel_frequencies_hz: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Rows (fractional) of round frequencies among the mel bands' centres, and their names in kHz."""
    khz = np.array([0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32])
    khz = khz[(1000 * khz >= mel_frequencies_hz[0]) & (1000 * khz <= mel_frequencies_hz[-1])]
    rows = np.interp(1000 * khz, mel_frequencies_hz, np.arange(len(mel_frequencies_hz)))
    # The mel scale crowds its low end; of two ticks nearer than a tenth of the height the upper one stays.
    apart = np.append(np.diff(rows) > 0.1 * len(mel_frequencies_hz), True)[: len(rows)]
    return rows[apart], [f"{value:g}" for value in khz[apart]]


def draw_image(
    axes: Axes,
    image: np.ndarray,
    mel_frequencies_hz: np.ndarray,
    seconds: float,
    top_db: float = 80.0,
    begin_s: float = 0.0,
) -> AxesImage:
    """Draws an image, (n_mels, frames) or (n_mels, frames, 3), 0-255, low frequencies first, with its axes' ticks.

    ``mel_frequencies_hz``: (n_mels,), the bands' centres; ``seconds``: the time it covers; ``top_db``: the decibels
    that 255 stands over 0; ``begin_s``: where on the axis that time begins. Where frames are more than can be seen, a
    column shows the loudest of its own: their mean would blur a short song away.
    """
    values = np.asarray(image, float)
    levels_db = ((values[..., 0] if values.ndim == 3 else values) / 255 - 1) * top_db
    frames = levels_db.shape[1]
    if frames > MOST_COLUMNS:
        firsts = np.linspace(0, frames, MOST_COLUMNS, endpoint=False).astype(int)
        levels_db = np.maximum.reduceat(levels_db, firsts, axis=1)
    place = {
        "origin": "lower",
        "aspect": "auto",
        "extent": (begin_s, begin_s + (seconds or 1), -0.5, len(levels_db) - 0.5),
    }
    drawn = axes.imshow(levels_db, cmap="magma", vmin=-top_db, vmax=0, **place)
    axes.set_yticks(*_frequency_ticks(np.asarray(mel_frequencies_hz, float)))
    axes.grid(visible=False)
    axes.set_ylabel("frequency (kHz)")
    return drawn


@styled
def images(
    images: Sequence[np.ndarray],
    titles: Sequence[str],
    mel_frequencies_hz: np.ndarray,
    seconds: float,
    top_db: float = 80.0,
    columns: int = 3,
) -> Figure:
    """Spectrogram images side by side, up to ``columns`` in a row, with true frequency, time, and one scale of dB.

    ``images``: each (n_mels, frames) or (n_mels, frames, 3), 0-255, low frequencies first; ``mel_frequencies_hz``,
    ``seconds``, ``top_db``: as in `draw_image`.
    """
    rows, columns = _grid(len(images), columns)
    texts, lines = _wrapped(titles, (WIDTH_IN - 1.3) / columns - 0.15, 9)
    figure = new_figure(0.6 + rows * ((2.0 if columns > 1 else 2.6) + 0.15 * (lines - 1)))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for number, (axes, image, title) in enumerate(zip(grid, images, texts, strict=False)):
        drawn = draw_image(axes, image, mel_frequencies_hz, seconds, top_db)
        axes.set_title(title)
        axes.set_ylabel("" if number % columns else "frequency (kHz)")
        if number + columns >= len(images):
            axes.tick_params("x", labelbottom=True)
            axes.set_xlabel("time (s)")
    for axes in grid[len(images) :]:
        axes.remove()
    if len(images):
        decibel_bar(figure, drawn, list(grid[: len(images)]), "the image's")
    return figure


def thumbnail(image: np.ndarray) -> bytes:
    """An image without axes as a PNG, a point a frame and band: (n_mels, frames), 0-255, low frequencies first."""
    buffer = io.BytesIO()
    imsave(buffer, image, cmap="magma", vmin=0, vmax=255, origin="lower", format="png")
    return buffer.getvalue()


def _grid(count: int, most: int) -> tuple[int, int]:
    """Rows and columns for so many panels, at most ``most`` in a row, the rows as even as can be."""
    rows = max(1, -(-count // max(most, 1)))
    return rows, max(1, -(-count // rows))


def _wrapped(titles: Iterable[object], width_in: float, size: float) -> tuple[list[str], int]:
    """The titles in lines that fit the width, their own line breaks kept, and the lines of the longest."""
    most = {"width": int(width_in * 72 / (0.56 * size)), "break_on_hyphens": False}
    parts = [re.sub(r" (%|k?Hz|dB)", "\N{NO-BREAK SPACE}\\1", str(title)).split("\n") for title in titles]
    texts = ["\n".join(textwrap.fill(line, **most) for line in lines) for lines in parts]
    return texts, max([text.count("\n") + 1 for text in texts], default=1)


@styled
def sounds(
    sounds: Mapping[str, np.ndarray],
    images: Sequence[np.ndarray],
    mel_frequencies_hz: np.ndarray,
    seconds: float,
    top_db: float = 80.0,
    own_scale: bool = False,
    columns: int = 4,
) -> Figure:
    """Sounds side by side, up to ``columns`` in a row: each one's waveform over its spectrogram.

    ``sounds``: title -> float samples (n,), each covering ``seconds``; ``images``: one a sound, as in `draw_image`. The
    waveforms share one scale of amplitude, so that what is louder looks louder; ``own_scale`` gives each its own.
    """
    rows, columns = _grid(len(sounds), columns)
    width_in = (WIDTH_IN - 1.3) / columns - (0.55 if own_scale else 0.15)
    titles, lines = _wrapped(sounds, width_in, 8.5)
    figure = new_figure(0.3 + rows * (2.65 + 0.14 * (lines - 1)))
    ratios = {"height_ratios": (1, 2.2) * rows}
    grid = figure.subplots(2 * rows, columns, sharex=True, squeeze=False, gridspec_kw=ratios)
    panels = [(grid[2 * row, column], grid[2 * row + 1, column]) for row in range(rows) for column in range(columns)]
    peaks = [float(np.abs(samples).max(initial=0)) for samples in sounds.values()]
    scales = [peak or 1.0 for peak in (peaks if own_scale else [max(peaks)] * len(peaks))] if peaks else []
    contents = zip(sounds.values(), images, titles, scales, strict=True)
    for (wave, sound), (samples, image, title, scale) in zip(panels, contents, strict=False):
        wave.fill_between(*envelope(samples, len(samples) / seconds, 500), color=INK, linewidth=0.5)
        wave.set_ylim(-1.05 * scale, 1.05 * scale)
        wave.set_title(title, fontsize=8.5)
        drawn = draw_image(sound, image, mel_frequencies_hz, seconds, top_db)
        _edge_labels(wave, sound, own_scale)
    for pair in panels[len(sounds) :]:
        for axes in pair:
            axes.remove()
    if sounds:
        figure.align_ylabels(grid[:, 0])
        decibel_bar(figure, drawn, [axes for pair in panels[: len(sounds)] for axes in pair], "each one's")
    return figure


def _edge_labels(wave: Axes, sound: Axes, own_scale: bool) -> None:
    """Time under each sound; amplitude and frequency at the left edge, and wherever a scale is another one."""
    first = wave.get_subplotspec().is_first_col()
    sound.set_xlabel("time (s)")
    sound.tick_params("x", labelbottom=True)
    wave.tick_params("y", labelleft=first or own_scale)
    sound.tick_params("y", labelleft=first)
    wave.set_ylabel("amplitude\n(full = 1)" if first else "")
    if not first:
        sound.set_ylabel("")


def decibel_bar(figure: Figure, drawn: AxesImage, beside: list[Axes], whose: str) -> None:
    """The scale of dB beside some panels."""
    bar = figure.colorbar(drawn, ax=beside, aspect=30, pad=0.015)
    bar.set_label(f"dB (0 = {whose} loudest)")
    bar.outline.set_visible(False)
