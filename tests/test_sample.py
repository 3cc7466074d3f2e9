import ast
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from birdlib import ogg, sample, songs

COLUMNS = [
    *("primary_label", "secondary_labels", "type", "latitude", "longitude", "scientific_name", "common_name"),
    *("author", "license", "rating", "url", "filename"),
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return sample.write(tmp_path_factory.mktemp("sample") / "data")


@pytest.fixture(scope="session")
def metadata(folder):
    return pd.read_csv(folder / "train_metadata.csv")


@pytest.fixture(scope="session")
def recordings(folder, metadata):
    """Every readable recording: label, sample rate, channels, sound (samples,)."""
    rows = []
    for label, filename in zip(metadata.primary_label, metadata.filename, strict=True):
        try:
            audio, rate_hz = soundfile.read(folder / "train_audio" / filename, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            continue
        rows.append((label, rate_hz, audio.shape[1], audio.mean(axis=1)))
    return rows


def test_layout(folder, metadata):
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "sample_submission.csv", "synthetic.json", "test_soundscapes", "test_soundscapes_truth.csv"),
        *("train_audio", "train_metadata.csv", "traits.csv", "unlabeled_soundscapes"),
    ]
    assert list(metadata) == COLUMNS
    audio = folder / "train_audio"
    assert sorted(metadata.filename) == sorted(path.relative_to(audio).as_posix() for path in audio.rglob("*.ogg"))
    assert all(
        filename.startswith(label + "/")
        for label, filename in zip(metadata.primary_label, metadata.filename, strict=True)
    )
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 20e6


def test_says_that_it_is_synthetic(folder, metadata):
    marker = json.loads((folder / "synthetic.json").read_text())
    assert (marker["birdlib_sample"], marker["seed"]) == (sample.VERSION, 0)
    assert "Synthetic" in (folder / "README.md").read_text()
    for column in ("scientific_name", "common_name", "author", "license", "url"):
        assert metadata[column].str.contains("synthetic", case=False).all()


def test_classes_are_uneven(metadata):
    counts = metadata.primary_label.value_counts()
    assert (len(counts), counts.min(), counts.max(), counts.sum()) == (12, 4, 40, 215)
    authors = metadata.groupby("primary_label").author.nunique()
    assert authors.min() >= 4
    assert metadata.author.value_counts().max() > 3 * metadata.author.value_counts().min()


def test_metadata_has_the_forms_of_the_real_one(metadata):
    labels = set(metadata.primary_label)
    others = metadata.secondary_labels.map(ast.literal_eval)
    assert 0.1 < (others.str.len() > 0).mean() < 0.4
    for label, listed in zip(metadata.primary_label, others, strict=True):
        assert set(listed) <= labels - {label}
    assert metadata.type.map(ast.literal_eval).map(len).min() == 1
    assert 0 < metadata.latitude.isna().mean() < 0.1
    assert metadata.latitude.isna().equals(metadata.longitude.isna())
    assert (metadata.rating * 2 % 1 == 0).all()
    assert metadata.rating.between(0, 5).all()
    assert 0 < (metadata.rating == 0).mean() < 0.2


def test_one_stereo_and_one_unreadable_among_mono_recordings(metadata, recordings):
    assert len(recordings) == len(metadata) - 1
    assert sorted({(rate_hz, channels) for _, rate_hz, channels, _ in recordings}) == [(32_000, 1), (44_100, 2)]
    assert sum(channels == 2 for _, _, channels, _ in recordings) == 1


def test_length_and_level(recordings):
    durations = [len(audio) / rate_hz for _, rate_hz, _, audio in recordings]
    assert min(durations) >= 3
    assert 25 < max(durations) <= 40
    peaks = np.array([np.abs(audio).max() for *_, audio in recordings])
    assert peaks.min() < 0.05
    assert 0.5 < peaks.max() <= 1.05  # Vorbis may overshoot by a little


def test_secondary_species_are_in_the_recording():
    microphone = songs.colour(np.random.default_rng(1))
    alone, along = (
        songs.recording("syntri1", others, 20 * songs.RATE_HZ, 60.0, microphone, np.random.default_rng(3))
        for others in ((), ("synmew1",))
    )
    alone, along = alone / np.abs(alone).max(), along / np.abs(along).max()
    assert 0.01 < np.sqrt(np.mean((along - alone) ** 2)) / np.sqrt(np.mean(alone**2)) < 1


def test_traits(folder, metadata):
    traits = pd.read_csv(folder / "traits.csv")
    assert list(traits) == [
        *("primary_label", "scientific_name", "iucn", "iucn_source", "nocturnal_soib", "nocturnal_eltontraits"),
    ]
    assert set(traits.primary_label) == set(metadata.primary_label)
    assert (traits.iucn == "VU").sum() == 2
    assert traits.nocturnal_soib.sum() == 2
    assert (traits.nocturnal_eltontraits <= traits.nocturnal_soib).all()


def test_soundscapes_and_their_truth(folder, metadata):
    truth = pd.read_csv(folder / "test_soundscapes_truth.csv")
    assert list(truth) == ["filename", "start_s", "end_s", "primary_label"]
    assert set(truth.primary_label) <= set(metadata.primary_label)
    assert (truth.start_s >= 0).all()
    assert (truth.start_s < truth.end_s).all()
    paths = sorted((folder / "test_soundscapes").glob("soundscape_*.ogg"))
    assert [path.name for path in paths] == sorted(truth.filename.unique())
    for path in paths:
        duration_s = soundfile.info(path).duration
        assert 60 <= duration_s <= 120
        assert duration_s % 5 == 0
        assert truth[truth.filename == path.name].end_s.max() <= duration_s
    assert all(path.stem.isdigit() for path in (folder / "unlabeled_soundscapes").iterdir())


def test_truth_is_where_the_sound_is(folder):
    """Song stands out of the noise above 1 kHz inside the true stretches, on the whole, and not outside."""
    truth = pd.read_csv(folder / "test_soundscapes_truth.csv")
    for filename, rows in truth.groupby("filename"):
        audio, rate_hz = soundfile.read(folder / "test_soundscapes" / filename, dtype="float32")
        energy = np.diff(audio, append=0).reshape(-1, rate_hz // 10).std(axis=1)  # tenths of a second, high-passed
        time_s = np.arange(len(energy)) / 10 + 0.05
        inside = np.any([(row.start_s < time_s) & (time_s < row.end_s) for row in rows.itertuples()], axis=0)
        assert energy[inside].mean() > 1.2 * energy[~inside].mean()


def test_submission(folder, metadata):
    table = pd.read_csv(folder / "sample_submission.csv")
    assert list(table) == ["row_id", *sorted(metadata.primary_label.unique())]
    assert table.row_id.str.fullmatch(r"soundscape_\d+_(5|10|15)").all()
    np.testing.assert_allclose(table.drop(columns="row_id"), 1 / 12)


def test_same_seed_same_bytes(folder):
    takes = sample.plan(0)
    for item in (160, 3, 27, 2, 0):  # in another order than at first, the stereo one among them
        name = f"train_audio/{takes[item].filename}"
        assert sample.recording(takes[item], 0) == (folder / name).read_bytes()
    assert sample.soundscape(0, 0) == (folder / "test_soundscapes/soundscape_900001.ogg").read_bytes()
    assert sample.plan(0) == takes


def test_other_seed_other_data():
    one, other = sample.plan(0), sample.plan(1)
    assert one != other
    assert sample.recording(one[0], 0) != sample.recording(one[0], 1)


def test_written_once(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert sample.write(folder) == folder
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert sample.is_complete(folder, 0)
    assert not sample.is_complete(folder, 1)
    with pytest.raises(sample.SampleError, match="another version or seed"):
        sample.write(folder, seed=1)


@pytest.fixture
def tiny(monkeypatch):
    """The same machinery over three short files."""
    monkeypatch.setattr(sample, "plan", lambda seed, plan=sample.plan: plan(seed)[:3])
    monkeypatch.setattr(sample, "SOUNDSCAPES", (("test", 5),))


@pytest.mark.usefixtures("tiny")
def test_empty_folder_is_filled_and_a_damaged_one_is_not_complete(tmp_path):
    target = tmp_path / "deep" / "data"
    target.mkdir(parents=True)
    sample.write(target, seed=5)
    assert sample.is_complete(target, 5)
    assert [path.name for path in target.parent.iterdir()] == ["data"]
    (target / "traits.csv").unlink()
    assert not sample.is_complete(target, 5)
    with pytest.raises(sample.SampleError, match="changed"):
        sample.write(target, seed=5)


def test_foreign_content_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(sample.SampleError, match="not empty"):
        sample.write(tmp_path)
    with pytest.raises(sample.SampleError, match="is a file"):
        sample.write(tmp_path / "mine.txt")
    with pytest.raises(sample.SampleError, match="cannot be written"):
        sample.write(tmp_path / "mine.txt" / "data")
    with pytest.raises(sample.SampleError, match="negative"):
        sample.write(tmp_path / "new", seed=-1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.usefixtures("tiny")
def test_nothing_is_left_when_it_fails(tmp_path, monkeypatch):
    def broken(item, seed):
        raise RuntimeError("broken")

    monkeypatch.setattr(sample, "soundscape", broken)
    with pytest.raises(RuntimeError, match="broken"):
        sample.write(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def _crc(page: bytes) -> int:
    """Ogg's checksum bit by bit, as its specification has it."""
    register = 0
    for byte in page:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
    return register


def test_ogg_pages_carry_the_serial_number_and_its_checksum():
    audio = np.random.default_rng(0).normal(0, 0.1, 40_000).astype(np.float32)
    data = ogg.encode(audio, 32_000, 0xDEADBEEF)
    assert data == ogg.encode(audio, 32_000, 0xDEADBEEF)
    pages = [b"OggS" + page for page in data.split(b"OggS")[1:]]
    assert len(pages) >= 3
    for page in pages:
        serial, _, checksum = struct.unpack_from("<III", page, 14)
        assert serial == 0xDEADBEEF
        assert checksum == _crc(page[:22] + bytes(4) + page[26:])


def test_neither_keras_nor_a_backend_is_loaded():
    code = "import sys, birdlib.sample; print({'keras', 'tensorflow', 'torch', 'jax'} & set(sys.modules))"
    where = {**os.environ, "PYTHONPATH": str(Path(sample.__file__).parents[1])}
    assert subprocess.check_output([sys.executable, "-c", code], env=where, text=True).strip() == "set()"


def _frames_rms(audio: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(audio[: len(audio) // 2048 * 2048].reshape(-1, 2048) ** 2, axis=1))


def test_loudness_length_and_silence_say_nothing_of_the_species(recordings):
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = [], []
    for label, rate_hz, _, audio in recordings:
        frames = _frames_rms(audio)
        whole, peak = np.sqrt(np.mean(audio**2)), np.abs(audio).max()
        features.append(
            [np.log(len(audio) / rate_hz), np.log(whole), np.log(peak), np.mean(frames < 0.1 * max(frames))]
        )
        labels.append(label)
    majority = max(labels.count(label) for label in set(labels)) / len(labels)
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    for model in (LogisticRegression(), RandomForestClassifier(100, random_state=0)):
        scores = cross_val_score(make_pipeline(StandardScaler(), model), np.array(features), labels, cv=folds)
        print(type(model).__name__, scores.mean(), "majority", majority)
        assert scores.mean() < majority + 0.07


@pytest.mark.slow
def test_mean_spectra_do_not_give_the_species_away(recordings):
    """Logistic regression on means and deviations of mel bands, by recording: well above chance, well under 0.7."""
    import librosa
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels, groups = [], [], []
    for group, (label, rate_hz, _, audio) in enumerate(recordings):
        if rate_hz != songs.RATE_HZ:
            continue
        loudest = _frames_rms(audio).max()
        for start in range(0, max(1, len(audio) - 32_000), 128_000):
            chunk = audio[start : start + 160_000]
            if len(chunk) < 2048 or _frames_rms(chunk).max() < 0.1 * loudest:
                continue
            chunk = np.pad(chunk, (0, 160_000 - len(chunk)))
            power = librosa.feature.melspectrogram(
                y=chunk, sr=rate_hz, n_fft=2048, hop_length=500, n_mels=128, fmin=40, fmax=15_000, pad_mode="reflect"
            )
            image = librosa.power_to_db(power, ref=np.max, top_db=80)
            features.append(np.r_[image.mean(axis=1), image.std(axis=1)])
            labels.append(label)
            groups.append(group)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    scores = cross_val_score(model, np.array(features), labels, groups=groups, cv=folds)
    assert 0.25 < scores.mean() < 0.65
    assert scores.max() < 0.7
