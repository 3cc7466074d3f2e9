"""Ogg Vorbis files that are the same, byte for byte, for the same sound.

libsndfile gives every Ogg stream a serial number at random, so two files of one sound differ. Here the caller gives
the number, and the checksums of the pages are made to match.
"""

from __future__ import annotations

import io
import zlib

import numpy as np
import soundfile

_MIRROR = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def encode(audio: np.ndarray, rate_hz: int, serial: int) -> bytes:
    """Sound as the bytes of an Ogg Vorbis file.

    Parameters
    ----------
    audio : float32 (samples,) or (samples, channels), within -1 and 1.
    rate_hz : its sample rate.
    serial : the stream's serial number, 0 to 2**32 - 1; it is written on every page.

    Raises
    ------
    soundfile.LibsndfileError
        for a rate or a number of channels that Vorbis does not have.
    """
    buffer = io.BytesIO()
    channels = 1 if audio.ndim == 1 else audio.shape[1]
    with soundfile.SoundFile(
        buffer, "w", rate_hz, channels, format="OGG", subtype="VORBIS", compression_level=0.9
    ) as file:
        for start in range(0, len(audio), rate_hz):  # libsndfile's Vorbis writer crashes on long writes
            file.write(audio[start : start + rate_hz])
    return _with_serial(buffer.getvalue(), serial)


def _with_serial(ogg: bytes, serial: int) -> bytes:
    """An Ogg file with another serial number on its pages: libsndfile draws it at random, anew for each file."""
    pages, start = [], 0
    while start < len(ogg):
        segments = ogg[start + 26]
        end = start + 27 + segments + sum(ogg[start + 27 : start + 27 + segments])
        page = bytearray(ogg[start:end])
        page[14:18] = serial.to_bytes(4, "little")
        page[22:26] = bytes(4)
        page[22:26] = _page_checksum(page).to_bytes(4, "little")
        pages.append(page)
        start = end
    return b"".join(pages)


def _page_checksum(page: bytes | bytearray) -> int:
    """Ogg's CRC-32: zlib's polynomial with the bits the other way round, without the inversions."""
    mirrored = zlib.crc32(page.translate(_MIRROR), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRROR), "big")
