"""What the benchmarks of the training input share: recordings of BirdCLEF's lengths, the paper's way, and clocks."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

# Threads that wait busily for work would count as work: with two, OpenBLAS doubles the cost of the paper's way.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1") | dict(os.environ))
import librosa
import numpy as np
import pandas as pd
import soundfile

from birdlib import audio, chunks, sample, store
from birdlib import config as configs
from birdlib.augment import Chain

OUT = Path(__file__).parent / "out"
XC10 = Path(__file__).parents[2] / "shared" / "data" / "xc10"
RECORDINGS, RATE_HZ = 360, 32_000
BATCH = 128
PAPERS_WAY = "the paper's way: decode the chunk, audiomentations at p = 0.5 each, librosa log-mel, n_fft 2048"


# ---- recordings


def recordings() -> Path:
    """A data folder with recordings of 5 s to 4 min, 42 s on average as BirdCLEF's; made once."""
    folder = OUT / "input_data"
    if not (folder / "done").exists():
        origin = XC10 if XC10.is_dir() else sample.write(OUT / "sample")
        clips: dict[str, list[Path]] = {}
        for path in sorted((origin / "train_audio").glob("*/*.ogg")):
            clips.setdefault(path.parent.name, []).append(path)
        for number in range(RECORDINGS):
            _join(folder, number, *list(clips.items())[number % len(clips)])
        (folder / "done").touch()
    return folder


def _join(folder: Path, number: int, label: str, clips: list[Path]) -> None:
    rng = np.random.default_rng(number)
    wanted_s, held_s = float(np.clip(rng.lognormal(3.3, 0.95), 5, 240)), 0.0
    path = folder / "train_audio" / label / f"XC{number}.ogg"
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", RATE_HZ, 1) as file:
        while held_s < wanted_s:
            try:
                samples = audio.read(clips[rng.integers(len(clips))], RATE_HZ)
            except audio.AudioError:  # the sample has one that cannot be read
                continue
            samples = samples[: round((wanted_s - held_s) * RATE_HZ)]
            held_s += max(1, len(samples)) / RATE_HZ
            for start in range(0, len(samples), RATE_HZ):
                file.write(samples[start : start + RATE_HZ])


def settings(store_dir: str | Path | None = None, workers: int = 1, **overrides) -> configs.Config:
    place = {"data.dir": recordings(), "compute.workers": workers, "sources.store_dir": store_dir}
    kind = "pcm" if store_dir else "lazy"
    return configs.load("paper", {**place, "sources.kind": kind, "batches.threshold": BATCH, **overrides})


def filenames() -> list[str]:
    top = recordings() / "train_audio"
    return sorted(path.relative_to(top).as_posix() for path in top.glob("*/*.ogg"))


def filled(held: store.Store, config: configs.Config) -> pd.DataFrame:
    """The chunk table, and every recording in the store."""
    folder = config.data.dir / "train_audio"
    lengths = pd.Series({name: audio.info(folder / name).duration_s * RATE_HZ for name in filenames()}).round()
    return chunks.index(filenames(), config.data.dir, config, held, lengths).chunks


# ---- measuring


def cpu_s() -> float:
    """User and system seconds so far, of this process with all its threads and of the children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def in_turns(ways: dict[str, Callable[[int], object]], repeats: int, clock: Callable[[], float] = cpu_s):
    """Seconds of each way in each of `repeats` turns, which the ways take one after the other: name -> list."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats):
        for name, way in ways.items():
            began = clock()
            way(turn)
            taken[name].append(clock() - began)
    return taken


def row(claim: str, value: float, unit: str, better: str, baseline: str) -> dict[str, object]:
    return {"claim": claim, "value": value, "unit": unit, "better": better, "baseline": baseline}


def note(text: str) -> None:
    """Something beside the claims, such as absolute times: for the reader, not for the file."""
    print(f"    {text}", flush=True)


# ---- the paper's way


def papers_way(config: configs.Config) -> Callable[[str, float, list[int]], np.ndarray]:
    """A function (filename, start_s, seeds) -> log-mel image (n_mels, frames): only the chunk is decoded."""
    chain, folder = Chain(config), config.data.dir / "train_audio"
    look = config.spectrogram

    def image(filename: str, start_s: float, seeds: list[int]) -> np.ndarray:
        start, frames = round(start_s * RATE_HZ), config.chunk_samples
        samples, _ = soundfile.read(folder / filename, frames, start, dtype="float32")
        samples = chain(np.pad(samples, (0, frames - len(samples))), seeds)
        power = librosa.feature.melspectrogram(
            y=samples,
            sr=RATE_HZ,
            n_fft=look.n_fft,
            hop_length=look.hop,
            n_mels=look.n_mels,
            fmin=look.fmin_hz,
            fmax=look.fmax_hz,
        )
        return librosa.power_to_db(power, ref=np.max, top_db=look.top_db)

    return image
