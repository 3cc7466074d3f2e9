"""Wall-clock times from recorders' file names: names as AudioMoth's and Wildlife Acoustics' manuals give them."""

from datetime import datetime

import pytest

from birdlib import recorders


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("20240501_053000.WAV", datetime(2024, 5, 1, 5, 30)),
        ("20240501_053000T.WAV", datetime(2024, 5, 1, 5, 30)),
        ("24E144036037C6E8_20240501_235959.WAV", datetime(2024, 5, 1, 23, 59, 59)),
        ("site 3/night/20240229_000000.flac", datetime(2024, 2, 29)),
        ("5E2A6B40.WAV", datetime(2020, 1, 24, 3, 57, 52)),
        ("night/5e2a6b40.wav", datetime(2020, 1, 24, 3, 57, 52)),
        ("SMA00351_20210501_053000.wav", datetime(2021, 5, 1, 5, 30)),
        ("PRAIRIE_0+1_20150708_054500.wav", datetime(2015, 7, 8, 5, 45)),
        ("PRAIRIE_0+1_20150708$054500.wac", datetime(2015, 7, 8, 5, 45)),
        ("30000101_000000_20240501_053000.wav", datetime(2024, 5, 1, 5, 30)),
        ("20240501_053000_30000101_000000.wav", datetime(2024, 5, 1, 5, 30)),
        ("19700101_000000.wav", datetime(1970, 1, 1)),  # a clock that nobody has set
        ("SITE_20240501_053000_125.wav", datetime(2024, 5, 1, 5, 30, 0, 125_000)),
    ],
)
def test_names_that_tell(name, expected):
    assert recorders.began(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("soundscape_460830.ogg", "XC192052.ogg", "recording.wav", "20240501.wav", "20241301_053000.wav"),
        *("20240501_256000.wav", "DEADBEEF.wav", "120240501_053000.wav"),
        *("00120512_101010.wav", "30000101_000000.wav", "19691231_235959.wav", "21000101_000000.wav"),
        *("61234567.mp3", "61234567.ogg", "5E2A6B40.flac", "5E2A6B40"),
    ],
)
def test_names_that_do_not(name):
    assert recorders.began(name) is None
