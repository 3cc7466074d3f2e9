"""The form of a stored recording: what comes back is what went in, and what was changed is noticed."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdlib import pcm

SAMPLES = 3 * pcm.BLOCK + 1234
WHOLE = np.random.default_rng(0).integers(-32768, 32768, SAMPLES).astype(np.int16)


def write(folder, whole=WHOLE, sizes=(), ranges=None):
    """A recording that comes in blocks of these sizes, and the rest in one."""
    path = folder / "a.pcm"
    with pcm.Writer(path, folder / "aside", ranges) as writer:
        edges = np.minimum(np.cumsum([0, *sizes]), len(whole))
        for part in np.split(whole, edges[1:]):
            writer.add(part)
        before = path.stat().st_ino if path.exists() else None
        writer.keep()
    assert path.stat().st_ino != before
    assert writer.error is None
    assert list((folder / "aside").iterdir()) == []
    return path


def read(path, first, count):
    return pcm.samples(*pcm.opened(path), first, count)


def here(ranges, samples):
    """The places that ranges hold, counted one by one."""
    found = np.zeros(samples, bool)
    for first, count in ranges:
        found[first : first + count] = True
    return found


# ---- ranges


@given(
    starts=st.lists(st.integers(0, 300), max_size=12),
    length=st.integers(1, 40),
    samples=st.integers(1, 300),
    first=st.integers(0, 300),
    count=st.integers(1, 60),
)
def test_ranges_as_by_counting(starts, length, samples, first, count):
    ranges = pcm.merged(starts, length, samples)
    wanted = np.zeros(1000, bool)
    for start in starts:
        wanted[start : start + length] = True
    wanted = wanted[:samples]
    np.testing.assert_array_equal(here(ranges, samples), wanted)
    assert all(one[0] + one[1] < other[0] for one, other in itertools.pairwise(ranges))  # apart
    held = pcm.Held(samples, ranges)
    assert held.size == wanted.sum()
    end = min(first + count, samples)
    place = held.find(first, end) if first < end else None
    if first < end and wanted[first:end].all():
        assert place == wanted[:first].sum()
    else:
        assert place is None


# ---- there and back


@pytest.mark.parametrize("sizes", [(), (1, 2, 3), (pcm.BLOCK,), (pcm.BLOCK - 1, 2, pcm.BLOCK), (50_000, 50_000)])
def test_what_comes_back_is_what_went_in(sizes, tmp_path):
    path = write(tmp_path, sizes=sizes)
    for first, count in ((0, SAMPLES), (0, 1), (SAMPLES - 1, 1), (777, 40_000), (pcm.BLOCK, pcm.BLOCK)):
        np.testing.assert_array_equal(read(path, first, count), WHOLE[first : first + count])
    assert path.read_bytes()[: 2 * SAMPLES] == WHOLE.tobytes()


def test_the_same_recording_gives_the_same_bytes(tmp_path):
    (tmp_path / "b").mkdir()
    assert write(tmp_path).read_bytes() == write(tmp_path / "b", sizes=(5, 70_000)).read_bytes()


def test_after_the_end_come_zeros(tmp_path):
    path = write(tmp_path)
    found = read(path, SAMPLES - 100, 300)
    assert (found.dtype, found.shape) == (np.int16, (300,))
    np.testing.assert_array_equal(found[:100], WHOLE[-100:])
    assert not found[100:].any()
    assert not read(path, SAMPLES, 50).any()
    assert read(path, SAMPLES + 10**9, 50).shape == (50,)


def test_a_chunk_is_a_view_that_cannot_be_written_to(tmp_path):
    found = read(write(tmp_path), 100, 1000)
    assert not found.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


@given(
    starts=st.lists(st.integers(0, 900), min_size=1, max_size=6),
    sizes=st.lists(st.integers(0, 400), max_size=6),
    samples=st.integers(1, 1000),
)
def test_only_the_ranges_are_stored(starts, sizes, samples, tmp_path_factory):
    whole = WHOLE[:samples]
    # As when a recording is decoded: where it ends is not known before.
    path = write(tmp_path_factory.mktemp("ranges"), whole, sizes, pcm.merged(starts, 100, 10**6))
    _, noted = pcm.opened(path)
    assert noted.held == pcm.Held(samples, pcm.merged(starts, 100, samples))
    stored = here(noted.held.ranges, samples)
    assert path.read_bytes()[: 2 * stored.sum()] == whole[stored].tobytes()
    for first in (0, *starts):
        found = read(path, first, 100)
        if stored[first : first + 100].all():
            np.testing.assert_array_equal(found, np.pad(whole[first : first + 100], (0, 100))[:100])
        else:
            assert found is None


# ---- damage


@pytest.mark.parametrize("place", [0, 1, 2 * pcm.BLOCK - 1, 2 * pcm.BLOCK, 2 * SAMPLES - 1, -1, -10, -14, -30, -100])
def test_any_changed_byte_is_noticed(place, tmp_path):
    path = write(tmp_path)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(pcm.DamagedError):
        read(path, 0, SAMPLES)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 1000, 2 * SAMPLES, -1])
def test_a_file_that_was_cut_is_noticed(size, tmp_path):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(pcm.DamagedError):
        pcm.opened(path)


def test_only_what_is_read_is_checked(tmp_path):
    path = write(tmp_path)
    data = bytearray(path.read_bytes())
    data[2 * (2 * pcm.BLOCK + 10)] ^= 1  # in the third block
    path.write_bytes(data)
    whole, noted = pcm.opened(path)
    np.testing.assert_array_equal(pcm.samples(whole, noted, 0, 2 * pcm.BLOCK), WHOLE[: 2 * pcm.BLOCK])
    with pytest.raises(pcm.DamagedError, match=f"samples from {2 * pcm.BLOCK} on"):
        pcm.samples(whole, noted, 2 * pcm.BLOCK - 1, 2)


def test_a_replaced_file_is_looked_at_anew(tmp_path):
    path = write(tmp_path)
    whole, noted = pcm.opened(path)
    write(tmp_path, WHOLE[::-1], ranges=((100, 500),))
    again, other = pcm.opened(path, noted)
    assert other.held == pcm.Held(SAMPLES, ((100, 500),))
    np.testing.assert_array_equal(pcm.samples(again, other, 200, 50), WHOLE[::-1][200:250])
    np.testing.assert_array_equal(pcm.samples(whole, noted, 200, 50), WHOLE[200:250])  # the old one, while it is held


# ---- interruptions


def test_an_exception_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), pcm.Writer(tmp_path / "a.pcm", tmp_path / "aside") as writer:
        writer.add(WHOLE)
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.rglob("*")] == ["aside"]


def test_a_folder_that_cannot_be_written_is_an_error_that_is_noted(tmp_path):
    (tmp_path / "file").write_text("")
    with pcm.Writer(tmp_path / "a.pcm", tmp_path / "file" / "aside") as writer:
        writer.add(WHOLE)
        writer.keep()
    assert isinstance(writer.error, OSError)
    assert not (tmp_path / "a.pcm").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to set")
def test_a_disk_that_fills_up_costs_the_recording_and_nothing_else(tmp_path):
    code = f"""
import resource, sys
import numpy as np
from pathlib import Path
from birdlib import pcm
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = Path({str(tmp_path)!r})
for name, samples in (("small", 20_000), ("large", 60_000), ("just", 49_990)):
    with pcm.Writer(folder / name, folder / "aside") as writer:
        for _ in range(10):
            writer.add(np.ones(samples // 10, np.int16))
        writer.keep()
    print(name, type(writer.error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:3] == ["small NoneType", "large OSError", "just OSError"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["aside", "small"]
    np.testing.assert_array_equal(read(tmp_path / "small", 0, 20_000), np.ones(20_000))
