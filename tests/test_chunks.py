import itertools

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from birdlib import audio, chunks, metadata, runs, stages
from birdlib import config as configs
from tests.conftest import RATE_HZ, TINY_BROKEN, TINY_STEREO, noise, save, tone

PAPER = configs.load("paper", {"compute.workers": 1})


def slow_rate(length_s=5.0, overlap_s=1.0, tail_min_s=1.0):
    """Settings at 1,000 samples a second, so that everything can be tried by brute force."""
    small = {"audio.sample_rate_hz": 1000, "spectrogram.fmax_hz": 500, "spectrogram.n_fft": 64}
    small |= {"chunks.energy_frame": 64, "chunks.energy_hop": 16}
    ours = {"chunks.length_s": length_s, "chunks.overlap_s": overlap_s, "chunks.tail_min_s": tail_min_s}
    return configs.load("paper", small | ours)


SLOW = slow_rate()


def starts_s(seconds, config=PAPER):
    rate = config.audio.sample_rate_hz
    return (chunks.starts(round(seconds * rate), config) / rate).tolist()


# ---- where chunks begin


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, []),
        (1 / 32_000, [0]),
        (0.5, [0]),
        (3, [0]),
        (5, [0]),
        (5.5, [0]),
        (6.0, [0]),  # one second left, and a tail needs more
        (6 + 1 / 32_000, [0, 4]),
        (6.1, [0, 4]),
        (8.9, [0, 4]),
        (9, [0, 4]),
        (10, [0, 4]),
        (10.01, [0, 4, 8]),
        (13, [0, 4, 8]),
        (21, [0, 4, 8, 12, 16]),
    ],
)
def test_starts_by_hand(seconds, expected):
    assert starts_s(seconds) == expected


@pytest.mark.parametrize(
    ("overrides", "seconds", "expected"),
    [
        ({"chunks.overlap_s": 0}, 16.5, [0, 5, 10, 15]),
        ({"chunks.overlap_s": 0}, 16, [0, 5, 10]),
        ({"chunks.overlap_s": 0, "chunks.tail_min_s": 0}, 15.1, [0, 5, 10, 15]),
        ({"chunks.overlap_s": 0, "chunks.tail_min_s": 0}, 15, [0, 5, 10]),
        ({"chunks.overlap_s": 4}, 9, [0, 1, 2, 3, 4]),
        ({"chunks.length_s": 10, "chunks.overlap_s": 5}, 21.5, [0, 5, 10, 15]),
        ({"chunks.tail_min_s": 3}, 7.5, [0]),
        ({"chunks.tail_min_s": 3}, 8.5, [0, 4]),
    ],
)
def test_starts_under_other_settings(overrides, seconds, expected):
    assert starts_s(seconds, configs.load("paper", overrides)) == expected


def test_starts_are_whole_samples():
    found = chunks.starts(10**9, PAPER)
    assert found.dtype == np.int64
    assert found[-1] == (len(found) - 1) * 128_000


def by_brute_force(num_samples, length, step, tail_min):
    """Chunks one by one over a mask of what earlier ones hold."""
    held = np.zeros(num_samples, bool)
    found = []
    for start in range(0, num_samples, step):
        window = held[start : start + length]
        if len(window) == length or (~window).sum() > tail_min:
            found.append(start)
            window[:] = True
    return found or [0]


@given(
    num_samples=st.integers(1, 40_000),
    overlap_s=st.integers(0, 49).map(lambda tenths: tenths / 10),
    tail_min_s=st.integers(0, 60).map(lambda tenths: tenths / 10),
)
def test_starts_as_by_brute_force(num_samples, overlap_s, tail_min_s):
    config = slow_rate(overlap_s=overlap_s, tail_min_s=tail_min_s)
    step = 5000 - round(overlap_s * 1000)
    expected = by_brute_force(num_samples, 5000, step, tail_min_s * 1000)
    assert chunks.starts(num_samples, config).tolist() == expected


@given(num_samples=st.integers(1, 10**7))
def test_properties_of_starts(num_samples):
    found = chunks.starts(num_samples, PAPER)
    assert len(found) >= 1
    assert (found == np.arange(len(found)) * 128_000).all()  # on the grid, without gaps
    assert found[-1] < num_samples
    whole = sum(start + 160_000 <= num_samples for start in range(0, num_samples, 128_000))
    assert whole <= len(found) <= whole + 1  # every full window, and at most one tail
    assert num_samples - (found[-1] + 160_000) <= RATE_HZ  # never more than a second is in no chunk


# ---- cutting a stream


@given(num_samples=st.integers(0, 25_000), sizes=st.lists(st.integers(0, 12_000), max_size=12))
def test_cutting_blocks_of_any_size_is_slicing_the_whole(num_samples, sizes):
    whole = np.random.default_rng(num_samples).standard_normal(num_samples).astype(np.float32)
    edges = np.minimum(np.cumsum([0, *sizes]), num_samples)
    blocks = [*(whole[a:b] for a, b in itertools.pairwise(edges)), whole[edges[-1] :]]
    found = [(start, samples) for start, samples, is_chunk in chunks._cut(iter(blocks), SLOW) if is_chunk]
    assert [start for start, _ in found] == chunks.starts(num_samples, SLOW).tolist()
    for start, samples in found:
        piece = whole[start : start + 5000]
        np.testing.assert_array_equal(samples, np.pad(piece, (0, 5000 - len(piece))))


# ---- energy


def rms_by_librosa(samples):
    return librosa.feature.rms(y=samples, frame_length=2048, hop_length=512, center=False)[0]


@pytest.mark.parametrize("samples", [noise(2, 1), tone(2, 440), noise(2, 2, level=1e-4), np.zeros(64_000, np.float32)])
def test_short_time_rms_is_librosas(samples):
    np.testing.assert_allclose(chunks.frame_rms(samples, 2048, 512), rms_by_librosa(samples), rtol=1e-5, atol=1e-9)


def test_quiet_after_loud_is_not_lost_in_rounding():
    samples = np.concatenate([np.ones(96_000), np.full(64_000, 1e-4)]).astype(np.float32)
    assert chunks.frame_rms(samples, 2048, 512)[-1] == pytest.approx(1e-4, rel=1e-3)


def test_rms_of_a_sine_by_hand():
    assert chunks.frame_rms(tone(1, 1000, 0.8), 2048, 512).max() == pytest.approx(0.8 / np.sqrt(2), rel=1e-4)


@pytest.fixture
def one(tmp_path):
    """A function (samples, rate_hz) -> the chunk table of a recording of them."""

    def index(samples, rate_hz=RATE_HZ):
        save(tmp_path / "train_audio" / "a.wav", samples, rate_hz, "FLOAT")
        found = chunks.index(["a.wav"], tmp_path, PAPER)
        assert found.problems == {}
        return found.chunks

    return index


def swelling(seconds):
    return noise(seconds, 3) * np.linspace(0.05, 1, round(seconds * RATE_HZ), dtype=np.float32)


@pytest.mark.parametrize("seconds", [2, 5, 7.3, 9, 21.7])
def test_energies_against_librosa(seconds, one):
    samples = swelling(seconds)
    found = one(samples)
    assert found["start_s"].tolist() == starts_s(seconds)
    padded = np.pad(samples, (0, 320_000))
    for row in found.itertuples():
        chunk = padded[round(row.start_s * RATE_HZ) :][:160_000]
        assert row.rms == pytest.approx(rms_by_librosa(chunk).max(), rel=1e-5)
        assert row.peak == pytest.approx(np.abs(chunk).max(), rel=1e-6)
        assert row.rms_relative == pytest.approx(row.rms / rms_by_librosa(padded).max(), rel=1e-5)
    assert found["rms_relative"].between(0, 1).all()


def test_the_loudest_moment_counts_even_where_no_chunk_holds_it(one):
    samples = np.concatenate([noise(5, 1, 0.05), noise(0.5, 2, 0.5)])  # half a second is too short for a tail
    found = one(samples)
    assert found["start_s"].tolist() == [0]
    assert found["rms_relative"].iloc[0] == pytest.approx(0.1, rel=0.05)


def test_chunks_of_one_recording_are_relative_to_its_loudest(one):
    samples = np.concatenate([tone(5, 1000, 0.8), tone(4, 1000, 0.2)])
    found = one(samples)
    assert found["rms_relative"].tolist() == pytest.approx([1, 1], rel=1e-3)  # the second holds a loud second
    found = one(np.concatenate([tone(4, 1000, 0.8), tone(5, 1000, 0.2)]))
    assert found["rms_relative"].tolist() == pytest.approx([1, 0.25], rel=1e-3)
    assert found["rms"].tolist() == pytest.approx([0.8 / 2**0.5, 0.2 / 2**0.5], rel=1e-3)
    assert found["peak"].tolist() == pytest.approx([0.8, 0.2], rel=1e-3)


@pytest.mark.parametrize("level", [0.0, 0.4 / 32768])
def test_a_recording_of_nothing_but_silence_teaches_nothing(tmp_path, level):
    path = save(tmp_path / "a.wav", np.full(9 * RATE_HZ, level, np.float32), subtype="FLOAT")
    with pytest.raises(audio.AudioError, match="digital silence"):
        chunks._index_file(path, PAPER)


def test_a_recording_shorter_than_a_frame(one):
    found = one(tone(0.03, 1000))
    assert found["start_s"].tolist() == [0]
    assert found["rms_relative"].tolist() == [1]


def test_a_click_at_the_very_end_is_heard(one):
    samples = np.zeros(round(6.5 * RATE_HZ), np.float32)
    samples[-1] = 0.9
    assert one(samples)["peak"].tolist() == pytest.approx([0, 0.9])


def test_recordings_at_other_rates_are_cut_in_seconds(one):
    found = one(np.stack([tone(9.5, 1000, 0.4, 44_100)] * 2, axis=1), 44_100)
    assert found["start_s"].tolist() == [0, 4]
    assert found["rms"].tolist() == pytest.approx([0.4 / 2**0.5] * 2, rel=1e-3)


# ---- which are silent


TABLE = pd.DataFrame(
    {
        "filename": ["a", "a", "a", "b", "b"],
        "start_s": [0.0, 4, 8, 0, 4],
        "rms_relative": [1.0, 0.1, 0.09, 0.5, 1.0],
        "rms": [0.2, 0.02, 0.018, 0.005, 0.01],
        "peak": [0.6, 0.3, 0.2, 0.05, 0.09],
    }
)


@pytest.mark.parametrize(
    ("measure", "threshold", "expected"),
    [
        ("relative", 0.1, [True, True, False, True, True]),
        ("relative", 0.0, [True] * 5),
        ("relative", 1.0, [True, False, False, False, True]),
        ("rms", 0.1, [True, False, False, False, True]),
        ("rms", 0.018, [True, True, True, False, True]),
        ("peak", 0.1, [True, True, True, False, True]),
        ("peak", 0.9, [True, False, False, False, True]),
    ],
)
def test_kept_by_hand(measure, threshold, expected):
    config = configs.load("paper", {"silence.measure": measure, "silence.threshold": threshold})
    assert chunks.kept(TABLE, config.silence).tolist() == expected


@given(st.data())
def test_every_recording_keeps_its_loudest(data):
    count = data.draw(st.integers(1, 30))
    names = data.draw(st.lists(st.sampled_from("abcd"), min_size=count, max_size=count))
    energy = data.draw(st.lists(st.floats(0, 1, width=32), min_size=count, max_size=count))
    threshold = data.draw(st.floats(0, 1))
    table = pd.DataFrame({"filename": names, "start_s": 0.0, "rms_relative": energy, "rms": energy, "peak": energy})
    config = configs.load("paper", {"silence.measure": "peak", "silence.threshold": threshold})
    kept = chunks.kept(table, config.silence)
    for name in set(names):
        mine = table["filename"] == name
        assert kept[mine & (table["peak"] >= threshold)].all()
        assert table.loc[mine & kept, "peak"].max() == table.loc[mine, "peak"].max()
        assert (kept & mine & (table["peak"] < threshold)).sum() <= 1


def test_kept_follows_the_rows_and_not_their_numbers():
    config = configs.load("paper", {"silence.measure": "rms"})
    shuffled = TABLE.sample(frac=1, random_state=0)
    kept = chunks.kept(shuffled, config.silence)
    assert kept.index.equals(shuffled.index)
    pd.testing.assert_series_equal(kept.sort_index(), chunks.kept(TABLE, config.silence), check_names=False)


# ---- fewer of them


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=5), limit=st.integers(1, 70))
def test_thinned_takes_evenly(counts, limit):
    names = [f"r{place}" for place, count in enumerate(counts) for _ in range(count)]
    starts = [4.0 * number for count in counts for number in range(count)]
    table = pd.DataFrame({"filename": names, "start_s": starts})
    found = chunks.thinned(table, "filename", limit)
    assert found.index.is_monotonic_increasing
    for place, count in enumerate(counts):
        mine = found.loc[found["filename"] == f"r{place}", "start_s"].to_numpy() / 4
        assert len(mine) == min(limit, count)
        if len(mine) > 1:
            assert np.ptp(np.diff(mine)) <= 1


def test_thinned_to_nothing_less():
    assert chunks.thinned(TABLE, "filename", None) is TABLE
    assert len(chunks.thinned(TABLE, "filename", 1)) == 2


# ---- a whole folder


@pytest.fixture(scope="session")
def names(tiny_data):
    return metadata.load(tiny_data).table["filename"].tolist()


@pytest.fixture(scope="session")
def indexed(tiny_data, tiny_config, names):
    return chunks.index(names[::-1], tiny_data, tiny_config)


def test_the_chunk_table(indexed, names, tiny_data):
    table = indexed.chunks
    assert table.columns.tolist() == ["filename", "start_s", "rms_relative", "rms", "peak"]
    assert table.dtypes.astype(str).tolist()[1:] == ["float64", "float32", "float32", "float32"]
    pd.testing.assert_frame_equal(table, table.sort_values(["filename", "start_s"], ignore_index=True))
    for name, mine in table.groupby("filename"):
        info = soundfile.info(tiny_data / "train_audio" / name)
        assert mine["start_s"].tolist() == starts_s(info.frames / info.samplerate), name


def test_a_broken_file_is_one_problem(indexed, names):
    assert indexed.problems.keys() == {TINY_BROKEN}
    assert indexed.problems[TINY_BROKEN].startswith("not readable as audio: ")
    assert set(indexed.chunks["filename"]) == set(indexed.audio_hash.index) == set(names) - {TINY_BROKEN}


def test_the_silent_end_of_a_recording_is_found(indexed, tiny_config):
    kept = chunks.kept(indexed.chunks, tiny_config.silence)
    silent = indexed.chunks[~kept]
    assert silent["filename"].tolist() == ["tinbir1/XC105.ogg", "tinbir2/XC205.ogg", "tinbir3/XC305.ogg"]
    assert silent["start_s"].tolist() == [4, 4, 4]


def test_two_workers_give_what_one_gives(indexed, names, tiny_data, tiny_config):
    compute = tiny_config.compute.model_copy(update={"workers": 2})
    other = chunks.index(names, tiny_data, tiny_config.model_copy(update={"compute": compute}))
    pd.testing.assert_frame_equal(other.chunks, indexed.chunks)
    pd.testing.assert_series_equal(other.audio_hash, indexed.audio_hash)
    assert other.problems == indexed.problems


def test_nothing_but_broken_files(tmp_path, tiny_config):
    folder = tmp_path / "train_audio"
    folder.mkdir()
    (folder / "a.ogg").write_bytes(b"no audio")
    save(folder / "b.wav", np.zeros(0, np.float32))
    found = chunks.index(["a.ogg", "b.wav", "c.ogg"], tmp_path, tiny_config)
    assert found.problems.keys() == {"a.ogg", "b.wav", "c.ogg"}
    assert "holds no samples" in found.problems["b.wav"]
    assert "no such file" in found.problems["c.ogg"]
    assert found.chunks.columns.tolist() == ["filename", "start_s", "rms_relative", "rms", "peak"]
    assert len(found.chunks) == len(found.audio_hash) == len(chunks.kept(found.chunks, tiny_config.silence)) == 0


# ---- the same audio twice


def test_the_hash_is_of_the_audio_and_not_of_the_file(tmp_path):
    folder = tmp_path / "train_audio"
    samples = (noise(12, 1) * 32768).astype(np.int16)  # whole steps: every format writes them as they are
    save(folder / "a.wav", samples)
    save(folder / "b.flac", samples)
    save(folder / "c.wav", np.stack([samples, samples], axis=1))
    save(folder / "d.wav", noise(12, 2))
    save(folder / "e.wav", samples[:-1])
    save(folder / "f.wav", np.concatenate([samples[:1] + 1, samples[1:]]))
    found = chunks.index(["a.wav", "b.flac", "c.wav", "d.wav", "e.wav", "f.wav"], tmp_path, PAPER).audio_hash
    assert found["a.wav"] == found["b.flac"] == found["c.wav"]
    assert found.nunique() == 4


def test_no_two_recordings_of_the_tiny_folder_are_the_same(indexed):
    assert indexed.audio_hash.is_unique
    assert indexed.audio_hash.index.is_monotonic_increasing
    assert TINY_STEREO in indexed.audio_hash


# ---- what was decoded is not decoded again


@pytest.fixture
def indexing(tmp_path, monkeypatch):
    """A run on three recordings, one of them broken, and the list of the files that were decoded."""
    data, decoded = tmp_path / "data", []
    for name, seconds in (("a.wav", 6.0), ("b.wav", 9.5)):
        save(data / "train_audio" / name, noise(seconds, seed=round(seconds)))
    (data / "train_audio" / "c.wav").write_bytes(b"nothing")
    really = chunks.index
    monkeypatch.setattr(chunks, "index", lambda names, *rest: (decoded.extend(names), really(names, *rest))[1])

    def run(**overrides):
        config = configs.load("sample", {"data.dir": data, "compute.workers": 1, **overrides})
        return runs.Run(tmp_path / "run", config, stages.stage("02_chunking"))

    return run, decoded, data


NAMES = ["a.wav", "b.wav", "c.wav"]


def test_a_new_filter_decodes_nothing_again_but_what_failed(indexing):
    run, decoded, _ = indexing
    first = chunks.indexed(run(), NAMES)
    assert decoded == NAMES
    again = chunks.indexed(run(**{"silence.threshold": 0.5, "seed": 1}), NAMES)
    assert decoded == [*NAMES, "c.wav"]
    pd.testing.assert_frame_equal(again.chunks, first.chunks)
    pd.testing.assert_series_equal(again.audio_hash, first.audio_hash)
    assert list(again.problems) == ["c.wav"]


def test_a_file_that_was_mended_is_added(indexing):
    run, decoded, data = indexing
    chunks.indexed(run(), NAMES)
    save(data / "train_audio" / "c.wav", noise(6.0, seed=1))
    mended = chunks.indexed(run(), NAMES)
    assert decoded == NAMES * 2  # the files have changed: all are looked at
    assert mended.problems == {}
    assert mended.chunks["filename"].unique().tolist() == NAMES


def test_a_recording_that_was_taken_out_of_the_metadata_leaves_no_chunks(indexing):
    run, decoded, _ = indexing
    chunks.indexed(run(), NAMES)
    left = chunks.indexed(run(), ["b.wav"])
    assert decoded == NAMES
    assert left.audio_hash.index.tolist() == ["b.wav"]
    for table in (left.chunks, run().read_table("chunks")):
        assert table["start_s"].tolist() == [0.0, 4.0]
        assert set(table["filename"]) == {"b.wav"}
    assert run().read_table("audio")["filename"].tolist() == ["b.wav"]
    back = chunks.indexed(run(), ["a.wav", "b.wav"])
    assert decoded == [*NAMES, "a.wav"]
    assert back.audio_hash.index.tolist() == ["a.wav", "b.wav"]


@pytest.mark.parametrize("overrides", [{"chunks.overlap_s": 2.0}, {"audio.sample_rate_hz": 40_000}])
def test_other_chunks_are_cut_anew(indexing, overrides):
    run, decoded, _ = indexing
    chunks.indexed(run(), NAMES)
    chunks.indexed(run(**overrides), NAMES)
    assert decoded == NAMES * 2


def test_an_interrupted_indexing_is_not_taken_for_whole(indexing, monkeypatch):
    run, decoded, _ = indexing
    chunks.indexed(run(), NAMES)
    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "write_table", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            chunks.indexed(run(**{"chunks.overlap_s": 2.0}), NAMES)
    decoded.clear()
    chunks.indexed(run(), NAMES)
    assert decoded == NAMES


def test_decoding_that_is_stopped_costs_nothing_of_what_was_decoded_before(indexing, monkeypatch):
    run, decoded, _ = indexing
    first = chunks.indexed(run(), NAMES)
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            chunks.indexed(run(), NAMES)
    decoded.clear()
    again = chunks.indexed(run(), NAMES)
    assert decoded == ["c.wav"]
    pd.testing.assert_frame_equal(again.chunks, first.chunks)


def test_tables_of_two_makes_are_not_taken_for_one(indexing, monkeypatch):
    run, decoded, _ = indexing
    chunks.indexed(run(), NAMES)
    really = runs.Run.write_table

    def stopped_after_one(self, name, table):
        really(self, name, table)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "write_table", stopped_after_one)
        with pytest.raises(KeyboardInterrupt):
            chunks.indexed(run(**{"chunks.overlap_s": 2.0}), NAMES)
    decoded.clear()
    chunks.indexed(run(), NAMES)
    assert decoded == NAMES
