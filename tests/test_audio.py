import os
import struct

import librosa
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from birdlib import audio
from birdlib.audio import AudioError
from tests.conftest import RATE_HZ, noise, tone

# ---- decoding


@pytest.mark.parametrize(("suffix", "tolerance"), [("wav", 2**-15), ("flac", 2**-15), ("ogg", 0.05), ("mp3", 0.1)])
def test_decodes_what_was_written(suffix, tolerance, write_audio):
    written = tone(3, 1000)
    found = audio.read(write_audio(f"a.{suffix}", written), RATE_HZ)
    assert (found.dtype, found.shape) == (np.float32, written.shape)
    np.testing.assert_allclose(found, written, atol=tolerance)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_decodes_as_soundfile_does(suffix, write_audio):
    path = write_audio(f"a.{suffix}", noise(25, 1))
    np.testing.assert_array_equal(audio.read(path, RATE_HZ), soundfile.read(path, dtype="float32")[0])


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_wav_of_every_depth(subtype, write_audio):
    written = tone(0.5, 1000)
    path = write_audio("a.wav", written, subtype=subtype)
    np.testing.assert_allclose(audio.read(path, RATE_HZ), written, atol=0.01 if subtype == "PCM_U8" else 2**-15)


def test_channels_are_averaged(write_audio):
    left, right = noise(1, 1), noise(1, 2)
    path = write_audio("a.wav", np.stack([left, right, -right], axis=1), subtype="FLOAT")
    np.testing.assert_allclose(audio.read(path, RATE_HZ), left / 3, atol=1e-7)


def test_channels_that_cancel_are_silence(write_audio):
    path = write_audio("a.wav", np.stack([tone(1, 500), -tone(1, 500)], axis=1), subtype="FLOAT")
    assert not audio.read(path, RATE_HZ).any()


def test_no_numbers_become_silence(write_audio):
    written = tone(1, 500)
    bad = written.copy()
    bad[[5, 100, 3000]] = np.nan, np.inf, -np.inf
    path = write_audio("a.wav", bad, subtype="FLOAT")
    written[[5, 100, 3000]] = 0
    np.testing.assert_array_equal(audio.read(path, RATE_HZ), written)
    np.testing.assert_array_equal(audio.read(path, RATE_HZ, 90, 20), written[90:110])


@pytest.mark.parametrize("hz", [RATE_HZ, 44_100])
def test_what_is_beyond_any_sound_becomes_silence_too(hz, write_audio):
    written = np.stack([tone(1, 500, rate_hz=hz)] * 2, axis=1)
    written[[5, 100, 3000]] = [[3e38, 3e38], [-3e38, -3e38], [3e38, -1e37]]  # their means: infinite, twice, and finite
    found = audio.read(write_audio("a.wav", written, hz, "FLOAT"), RATE_HZ)
    written[[5, 100, 3000]] = 0
    expected = audio.read(write_audio("b.wav", written, hz, "FLOAT"), RATE_HZ)
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found).max() < 1


def test_the_header(write_audio):
    path = write_audio("a.wav", np.zeros((66_150, 2), np.float32), 44_100)
    assert audio.info(path) == (1.5, 44_100, 2)
    assert audio.info(path)._fields == ("duration_s", "sample_rate_hz", "channels")


def test_blocks_are_bounded_and_complete(write_audio):
    path = write_audio("a.wav", noise(31, 1))
    blocks = list(audio.blocks(path, RATE_HZ))
    assert max(map(len, blocks)) <= audio.BLOCK_S * RATE_HZ
    assert len(blocks) > 3
    np.testing.assert_array_equal(np.concatenate(blocks), soundfile.read(path, dtype="float32")[0])


# ---- resampling


@pytest.mark.parametrize(("hz", "seconds"), [(44_100, 23), (48_000, 21), (24_000, 23), (22_050, 3.3), (8_000, 11)])
def test_resampled_in_blocks_as_in_one_piece(hz, seconds, write_audio):
    path = write_audio("a.wav", noise(seconds, 3, rate_hz=hz), hz)
    whole = soundfile.read(path, dtype="float32")[0]
    found = audio.read(path, RATE_HZ)
    assert abs(len(found) - seconds * RATE_HZ) <= 1
    for reference in (librosa.resample(whole, orig_sr=hz, target_sr=RATE_HZ), soxr.resample(whole, hz, RATE_HZ)):
        np.testing.assert_allclose(found, reference[: len(found)], atol=1e-3)


def test_a_tone_keeps_its_pitch_and_level(write_audio):
    path = write_audio("a.wav", tone(4, 5000, rate_hz=44_100), 44_100)
    found = audio.read(path, RATE_HZ)
    np.testing.assert_allclose(found[1000:-1000], tone(4, 5000)[1000:-1000], atol=1e-3)


def test_what_the_rate_cannot_hold_is_gone(write_audio):
    path = write_audio("a.wav", tone(2, 20_000, rate_hz=48_000), 48_000)
    assert np.abs(audio.read(path, RATE_HZ)[1000:-1000]).max() < 1e-3  # not folded down to 12 kHz


# ---- stretches


def offsets(count, samples, seed=0):
    """Places spread over a recording, its beginning and its last samples among them."""
    ends = [0, 1, *(samples - n for n in (1, 2, 77, 640, 3_000, 9_000, 31_999))]
    return [*ends, *np.random.default_rng(seed).integers(0, samples, count).tolist()]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_stretch_is_what_the_whole_has_there(suffix, write_audio):
    # 35.003 s: the last page of the Ogg is cut, and a plain seek into it lands elsewhere.
    path = write_audio(f"a.{suffix}", noise(35.003, 4) + tone(35.003, 3000))
    whole = soundfile.read(path, dtype="float32")[0]
    for start in offsets(40, len(whole)):
        np.testing.assert_array_equal(audio.read(path, RATE_HZ, start, 48_000), whole[start : start + 48_000])


@pytest.mark.parametrize("suffix", ["wav", "ogg"])
@pytest.mark.parametrize("hz", [44_100, 48_000])
def test_a_stretch_of_another_rate_is_what_the_whole_has_there(hz, suffix, write_audio):
    path = write_audio(f"a.{suffix}", noise(21.01, 5, rate_hz=hz), hz)
    whole = np.concatenate(list(audio.blocks(path, RATE_HZ)))
    for start in offsets(20, len(whole)):
        found = audio.read(path, RATE_HZ, start, 16_000)
        assert len(found) == min(16_000, len(whole) - start)
        np.testing.assert_allclose(found, whole[start : start + 16_000], atol=1e-3)


def test_a_stretch_of_real_recordings(xc10):
    for path in sorted((xc10 / "train_audio").glob("*/*.ogg"))[::20]:
        whole = soundfile.read(path, dtype="float32")[0]
        for start in offsets(5, len(whole)):
            np.testing.assert_array_equal(audio.read(path, RATE_HZ, start, 32_000), whole[start : start + 32_000])


@pytest.mark.parametrize("hz", [32_000, 44_100])
def test_past_the_end_there_is_nothing(hz, write_audio):
    path = write_audio("a.wav", noise(2, 1, rate_hz=hz), hz)
    for start in (64_000, 64_001, 10**9):
        assert audio.read(path, RATE_HZ, start, 100).shape == (0,)
    assert audio.read(path, RATE_HZ, 63_990, 100).shape == (10,)
    assert audio.read(path, RATE_HZ, 60_000).shape == (4_000,)


# ---- broken files


def broken(folder, kind):
    path = folder / ("headerless.raw" if kind == "raw" else "broken.ogg")
    if kind == "folder":
        path.mkdir()
    elif kind == "raw":
        path.write_bytes(bytes(1000))
    elif kind != "missing":
        garbage = np.random.default_rng(0).integers(0, 256, 50_000, dtype=np.uint8).tobytes()
        path.write_bytes({"empty": b"", "few bytes": b"OggS\0", "text": b"no sound\n" * 99, "garbage": garbage}[kind])
    return path


@pytest.mark.parametrize("kind", ["missing", "empty", "few bytes", "text", "garbage", "folder", "raw"])
@pytest.mark.parametrize(
    "use",
    [
        audio.info,
        lambda path: audio.read(path, RATE_HZ),
        lambda path: audio.read(path, RATE_HZ, 100, 100),
        lambda path: list(audio.blocks(path, RATE_HZ)),
    ],
    ids=["info", "read", "stretch", "blocks"],
)
def test_what_is_no_audio_is_one_error_with_the_path(use, kind, tmp_path):
    path = broken(tmp_path, kind)
    with pytest.raises(AudioError) as caught:
        use(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > len(f"{path}: ") + 5  # and a reason


@pytest.mark.parametrize("suffix", ["ogg", "wav"])
def test_a_truncated_file_gives_what_it_has(suffix, write_audio):
    path = write_audio(f"a.{suffix}", noise(20, 6))
    whole = soundfile.read(path, dtype="float32")[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = audio.read(path, RATE_HZ)
    assert 5 * RATE_HZ < len(found) < 15 * RATE_HZ
    np.testing.assert_array_equal(found, whole[: len(found)])
    np.testing.assert_array_equal(audio.read(path, RATE_HZ, 3 * RATE_HZ, RATE_HZ), whole[3 * RATE_HZ : 4 * RATE_HZ])


def large_wav(path, header_bytes, there_bytes, channels=1):
    """A WAV of silence at 48 kHz whose bytes take no room on the disk, and whose header says another number of them."""
    rate, frame = 48_000, 2 * channels
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * frame, frame, 16)
    riff = struct.pack("<4sI4s4sI", b"RIFF", min(header_bytes + 36, 2**32 - 1), b"WAVE", b"fmt ", len(form))
    with open(path, "wb") as file:
        file.write(riff + form + struct.pack("<4sI", b"data", header_bytes))
        file.truncate(2**24)
        if getattr(os.stat(path), "st_blocks", 2**15) * 512 >= 2**24:
            pytest.skip("this file system keeps every zero")
        file.truncate(44 + there_bytes)
    return path


DAY = 24 * 3600 * 48_000 * 2


@pytest.mark.parametrize("header_bytes", [2**32 - 1, DAY % 2**32, 0x7FFFF000])  # as ffmpeg, most, and sox in a pipe
def test_a_wav_behind_what_its_header_can_count_is_not_read_in_part(header_bytes, tmp_path):
    path = large_wav(tmp_path / "a.wav", header_bytes, DAY)
    told = rf"its header tells of {header_bytes / 96_000 / 3600:.4g} of 24 h: a WAV header ends at 4 GiB"
    with pytest.raises(AudioError, match=told):
        audio.info(path)
    with pytest.raises(AudioError, match="convert it to FLAC or RF64"):
        audio.read(path, RATE_HZ, 0, 100)


def test_a_large_wav_that_its_header_counts_is_read(tmp_path):
    path = large_wav(tmp_path / "a.wav", 2**32 - 2**12, 2**32 - 2**12 + 2**16, channels=2)  # with 64 kB of notes behind
    assert audio.info(path).duration_s == (2**32 - 2**12) / 4 / 48_000


def test_a_header_without_a_length(write_audio, monkeypatch):
    path = write_audio("a.wav", noise(1, 0))
    monkeypatch.setattr(soundfile.SoundFile, "frames", 2**63 - 1)  # what a truncated Ogg may say
    duration_s, sample_rate_hz, channels = audio.info(path)
    assert np.isnan(duration_s)
    assert (sample_rate_hz, channels) == (RATE_HZ, 1)
    assert audio.read(path, RATE_HZ, 10, 100).shape == (100,)


# ---- int16


@pytest.mark.parametrize(
    ("level", "step"),
    [
        (0.0, 0),
        (1.0, 32767),
        (-1.0, -32768),
        (7.0, 32767),
        (-7.0, -32768),
        (0.5, 16384),
        (1 / 32768, 1),
        (-1 / 32768, -1),
        (0.4 / 32768, 0),
        (0.6 / 32768, 1),
        (-0.6 / 32768, -1),
    ],
)
def test_to_int16_by_hand(level, step):
    found = audio.to_int16(np.array([level], np.float32))
    assert (found.dtype, found.tolist()) == (np.int16, [step])


@given(arrays.arrays(np.int16, st.integers(0, 50)))
def test_int16_survives_the_way_there_and_back(samples):
    floats = audio.to_float(samples)
    assert floats.dtype == np.float32
    assert np.abs(floats).max(initial=0) <= 1
    np.testing.assert_array_equal(audio.to_int16(floats), samples)


@given(arrays.arrays(np.float32, st.integers(0, 50), elements=st.floats(-1, 1, width=32)))
def test_int16_is_never_further_than_one_step(samples):
    np.testing.assert_allclose(audio.to_float(audio.to_int16(samples)), samples, atol=1 / 32768)


def test_int16_as_soundfile_reads_it(write_audio):
    path = write_audio("a.wav", noise(1, 7))
    np.testing.assert_array_equal(audio.to_int16(audio.read(path, RATE_HZ)), soundfile.read(path, dtype="int16")[0])


# ---- names


def test_a_name_that_is_no_utf_8_is_read_as_any_other(tmp_path):
    named, odd = tmp_path / "cafe.wav", tmp_path / os.fsdecode(b"caf\xe9.wav")
    soundfile.write(named, noise(1.0), RATE_HZ)
    os.rename(named, odd)
    assert audio.info(odd).duration_s == 1.0
    assert len(audio.read(odd, RATE_HZ)) == RATE_HZ


def test_names_as_text_and_as_a_terminal_may_have_them():
    name = os.fsdecode(b"caf\xe9 \xc3\xa9\n\x1b[31m.wav")
    assert audio.as_text(name) == "caf\\xe9 \N{LATIN SMALL LETTER E WITH ACUTE}\n\x1b[31m.wav"
    assert audio.printable(name) == "caf\\xe9 \N{LATIN SMALL LETTER E WITH ACUTE}\\n\\x1b[31m.wav"
    assert audio.as_text("a\ud83d.wav") == "a\\ud83d.wav"  # half a character, which Windows lets a name have
