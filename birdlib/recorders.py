"""When a recording began, from the name its recorder gave it: AudioMoth and Song Meter.

20240501_053000.WAV                      AudioMoth; with T behind it: triggered
24E144036037C6E8_20240501_053000.WAV     AudioMoth that writes its own number
5E2A6B40.WAV                             AudioMoth before firmware 1.2: seconds since 1970, in hex, UTC
SMA00351_20240501_053000.wav             Song Meter Mini, SM4
SITE_0+1_20240501$053000.wav             Song Meter SM2 and SM3, with its channels
SITE_20240501_053000_125.wav             with milliseconds
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import PurePath

_DATED = re.compile(r"(?<!\d)(\d{8})[_$](\d{6})(?:[_.](\d{3}))?(?!\d)")
_HEX = re.compile(r"[0-9A-Fa-f]{8}")
_AUDIOMOTHS = datetime(2016, 1, 1), datetime(2038, 1, 1)  # there were none before
_EPOCH = datetime(1970, 1, 1)
_YEARS = range(1970, 2100)  # what pandas 2.2 cannot count in nanoseconds is no recorder's stamp either


def began(filename: str) -> datetime | None:
    """The beginning of a recording by the recorder's own clock, which has no time zone; None where no name tells it."""
    path = PurePath(filename)
    stem = path.stem
    for date, time, milliseconds in reversed(_DATED.findall(stem)):
        try:
            at = datetime.strptime(date + time, "%Y%m%d%H%M%S")
        except ValueError:  # digits that are no date
            continue
        if at.year in _YEARS:
            return at + timedelta(milliseconds=int(milliseconds or 0))
    # An AudioMoth writes WAV: eight digits in front of another suffix are the number of a catalogue.
    if _HEX.fullmatch(stem) and path.suffix.lower() == ".wav":
        at = _EPOCH + timedelta(seconds=int(stem, 16))
        return at if _AUDIOMOTHS[0] <= at < _AUDIOMOTHS[1] else None
    return None
