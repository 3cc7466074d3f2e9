"""Audio players for notebooks: small ones in a row, the sound inside the page.

A notebook that embeds its sounds as WAV, as IPython's own player does, grows by half a megabyte for each; here they are
MP3, which every browser plays, at about a tenth of it.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping

import numpy as np
import soundfile
import soxr

MP3_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


class Players:
    """What `row` returns: shows itself as the last value of a notebook cell."""

    def __init__(self, markup: str) -> None:
        self.markup = markup

    def _repr_html_(self) -> str:
        return self.markup


def row(sounds: Mapping[str, np.ndarray], sample_rate_hz: int, columns: int = 4) -> Players:
    """A player a sound, with its title above it, ``columns`` in a row where the page has the room.

    One gain for all makes the loudest as loud as can be, so that what is quieter is heard to be.

    Parameters
    ----------
    sounds : title -> float samples (n,), or int16.
    """
    floats = {title: _floats(samples) for title, samples in sounds.items()}
    loudest = max((float(np.abs(samples).max(initial=0)) for samples in floats.values()), default=0.0) or 1.0
    cells = [
        f'<div style="font-size: 85%; align-self: end"><div>{_lines(title)}</div>'
        f'<audio controls preload="none" aria-label="{html.escape(title)}" '
        f'style="width: 100%; max-width: 300px; height: 32px" '
        f'src="{address(0.9 * samples / loudest, sample_rate_hz)}"></audio></div>'
        for title, samples in floats.items()
    ]
    columns = f"grid-template-columns: repeat(auto-fill, minmax({max(200, 860 // columns)}px, 1fr))"
    return Players(f'<div style="display: grid; gap: 8px 14px; max-width: 1100px; {columns}">{"".join(cells)}</div>')


def address(samples: np.ndarray, sample_rate_hz: int) -> str:
    """A sound, float samples (n,) up to full scale at 1, as the address of an MP3 that holds it."""
    return f"data:audio/mpeg;base64,{_mp3(samples, sample_rate_hz)}"


def _lines(title: str) -> str:
    return html.escape(title).replace("\n", "<br>")


def _floats(samples: np.ndarray) -> np.ndarray:
    return samples / np.float32(32768) if samples.dtype == np.int16 else np.asarray(samples, np.float32)


def _mp3(samples: np.ndarray, sample_rate_hz: int) -> str:
    playable_hz = min(MP3_RATES_HZ, key=lambda rate_hz: abs(rate_hz - sample_rate_hz))
    if playable_hz != sample_rate_hz:
        samples, sample_rate_hz = soxr.resample(samples, sample_rate_hz, playable_hz), playable_hz
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate_hz, format="MP3")
    return base64.b64encode(file.getvalue()).decode("ascii")
