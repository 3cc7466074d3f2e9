"""What the tests share: sounds as files, a tiny data folder in the layout of BirdCLEF, and real data where there is."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import pytest
import soundfile

from birdlib import chunks, exported, metadata, runs, splits, stages
from birdlib import config as configs

hypothesis.settings.register_profile("birdlib", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("birdlib")

# The wheel is made from what is installed; in the floor's environment the library only lies in the repository.
needs_installation = pytest.mark.skipif(
    not list(importlib.metadata.distributions(name="birdlib")), reason="birdlib is not installed here"
)

RATE_HZ = 32_000
SHARED = Path(__file__).parents[2] / "shared"

# The tiny data folder: four species told apart by pitch, six recordings each. TINY_BROKEN is no audio, TINY_STEREO has
# two channels at 44.1 kHz, and the sixth recording of each species falls silent after 4 s.
TINY_LABELS = ("tinbir1", "tinbir2", "tinbir3", "tinbir4")
TINY_LENGTHS_S = (3.0, 5.0, 5.5, 6.5, 9.0, 9.0)
TINY_BROKEN = "tinbir4/XC405.ogg"
TINY_STEREO = "tinbir3/XC301.ogg"
TINY_SOUNDSCAPE = "soundscape_1.ogg"


def save(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, subtype: str | None = None) -> Path:
    """Writes float audio (samples,) or (samples, channels) in the format of the suffix; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate_hz, channels, subtype) as file:
        for start in range(0, len(samples), rate_hz):  # libsndfile's Vorbis writer crashes on long writes
            file.write(samples[start : start + rate_hz])
    return path


def noise(seconds: float, seed: int = 0, level: float = 0.1, rate_hz: int = RATE_HZ) -> np.ndarray:
    """White noise, float32 (samples,), of RMS `level`."""
    samples = np.random.default_rng(seed).standard_normal(round(seconds * rate_hz))
    return (level * samples).astype(np.float32)


def tone(seconds: float, hz: float, level: float = 0.5, rate_hz: int = RATE_HZ) -> np.ndarray:
    """A sine, float32 (samples,), of amplitude `level`."""
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def song(label: str, seconds: float, seed: int, rate_hz: int = RATE_HZ) -> np.ndarray:
    """A species of the tiny data folder: chirps around its own pitch over faint noise, float32 (samples,)."""
    pitch_hz = 900.0 * 2.1 ** TINY_LABELS.index(label) * np.random.default_rng(seed).uniform(0.95, 1.05)
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * pitch_hz * (time_s + 0.01 * np.sin(2 * np.pi * 3 * time_s))
    chirps = np.sin(phase) * np.maximum(0, np.sin(2 * np.pi * 2 * time_s))
    return (0.3 * chirps).astype(np.float32) + noise(seconds, seed, 0.003, rate_hz)


@pytest.fixture
def write_audio(tmp_path):
    """A function (name, samples, rate_hz=32000, subtype=None) -> the path of an audio file below `tmp_path`."""

    def write(name: str, samples: np.ndarray, rate_hz: int = RATE_HZ, subtype: str | None = None) -> Path:
        return save(tmp_path / name, samples, rate_hz, subtype)

    return write


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data folder with the recordings described above; do not write into it."""
    folder = tmp_path_factory.mktemp("tiny_data")
    rows = []
    for place, label in enumerate(TINY_LABELS):
        for number, seconds in enumerate(TINY_LENGTHS_S):
            name, seed = f"{label}/XC{place + 1}{number:02d}.ogg", 10 * place + number
            _write_tiny(folder / "train_audio" / name, name, label, seconds, seed)
            rows.append(_tiny_row(name, label, place, number))
    pd.DataFrame(rows).to_csv(folder / "train_metadata.csv", index=False)
    _write_tables(folder)
    scene = np.concatenate([song(TINY_LABELS[0], 5.0, 1), song(TINY_LABELS[2], 5.0, 2)])
    save(folder / "test_soundscapes" / TINY_SOUNDSCAPE, scene)
    return folder


def _write_tiny(path: Path, name: str, label: str, seconds: float, seed: int) -> None:
    if name == TINY_BROKEN:
        path.write_bytes(b"this is not audio\n" * 100)
    elif name == TINY_STEREO:
        mono = song(label, seconds, seed, 44_100)
        save(path, np.stack([mono, 0.5 * mono], axis=1), 44_100)
    else:
        samples = song(label, seconds, seed)
        if name.endswith("5.ogg"):
            samples[4 * RATE_HZ :] *= 0.01
        save(path, samples)


def _tiny_row(name: str, label: str, place: int, number: int) -> dict[str, object]:
    return {
        "primary_label": label,
        "secondary_labels": str([TINY_LABELS[(place + 1) % 4]] if number == 2 else []),
        "type": "['song']" if number % 2 else "['call', 'male']",
        "latitude": 10.5 + place,
        "longitude": 76.25 + number,
        "scientific_name": f"Avis parva {place + 1}",
        "common_name": f"Tiny Bird {place + 1}",
        "author": f"Author {number // 2}",
        "license": "CC0",
        "rating": 3.5,
        "url": f"https://example.org/{name}",
        "filename": name,
    }


def _write_tables(folder: Path) -> None:
    traits = pd.DataFrame({"primary_label": TINY_LABELS, "iucn": ["VU", "NT", "LC", "LC"]})
    traits = traits.assign(nocturnal_soib=[0, 1, 0, 0], nocturnal_eltontraits=[0, 1, 1, 0])
    traits.to_csv(folder / "traits.csv", index=False)
    rows = [{"row_id": f"soundscape_1_{end}"} | dict.fromkeys(TINY_LABELS, 0.25) for end in (5, 10)]
    pd.DataFrame(rows).to_csv(folder / "sample_submission.csv", index=False)


def save_export(folder: Path, config: configs.Config, labels: Sequence[str]) -> Path:
    """An exported folder whose probability of a class is how bright its share of the mel bands is."""
    import openvino

    ops, (bands, frames, channels) = openvino.opset13, config.image_shape
    weights = np.zeros((bands, len(labels)), np.float32)
    for place, part in enumerate(np.array_split(np.arange(bands), len(labels))):
        weights[part, place] = 1 / len(part)
    image = ops.parameter([1, bands, frames, channels], np.float32)
    brightness = ops.reduce_mean(ops.divide(image, np.float32(255)), np.array([2, 3]), False)
    said = ops.matmul(brightness, weights, False, False)
    folder.mkdir(parents=True, exist_ok=True)
    openvino.save_model(openvino.Model([said, brightness], [image]), folder / "model_0.xml", False)
    names = {name: [f"{name} of {label}" for label in labels] for name in ("common_name", "scientific_name")}
    shares = np.arange(len(labels), 0, -1) / np.arange(len(labels) + 1).sum()
    about = {"format": "openvino", "precision": "f32", "models": ["model_0.xml"], "made_from": {"0": "x"}}
    about |= {"temperatures": [1.0], "activation": "sigmoid"}
    exported.write(folder, about, config, pd.DataFrame({"primary_label": labels, **names, "share": shares}))
    return folder


@pytest.fixture(scope="session")
def tiny_config(tiny_data) -> configs.Config:
    """The preset `sample` on the tiny data folder, with one worker and the least of everything."""
    small = {"data.dir": tiny_data, "compute.workers": 1, "compute.predict_batch_size": 4, "batches.threshold": 4}
    small |= {"phase_1.epochs": 1, "phase_2.epochs": 1, "phase_1.batch_size": 4, "phase_2.batch_size": 4}
    return configs.load("sample", {**small, "splits.folds": 2, "model.hidden": "8", "augmentation.where": "off"})


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository; a test that needs it is skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data: {SHARED} is missing")
    return SHARED


@pytest.fixture(scope="session")
def xc10(shared) -> Path:
    """100 real recordings of 10 species, in the layout of BirdCLEF."""
    folder = shared / "data" / "xc10"
    if not (folder / "train_metadata.csv").is_file():
        pytest.skip(f"no real recordings: {folder} is missing")
    return folder


@pytest.fixture(scope="session")
def start_run():
    """A function (folder, config, stage_name) -> a run of that stage, with the tables that the first two make."""

    def start(folder: Path, config: configs.Config, stage_name: str) -> runs.Run:
        run = runs.Run(folder, config, stages.stage(stage_name))
        recordings = metadata.inspect(metadata.load(run.data_dir).table, run.data_dir, config).table
        index = chunks.index(recordings.loc[metadata.readable(recordings), "filename"].tolist(), run.data_dir, config)
        heard = recordings[recordings["filename"].isin(index.audio_hash.index)]
        heard = heard.assign(audio_hash=heard["filename"].map(index.audio_hash))
        settings = config.splits
        run.write_table("recordings", recordings)
        run.write_table("chunks", index.chunks)
        run.write_table(
            "splits", splits.make(heard, settings.test_share, settings.folds, settings.group_by, config.seed)
        )
        return run

    return start
