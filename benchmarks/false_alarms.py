"""A softmax beside a sigmoid a species: precision, recall, and false detections an hour where there is no bird.

    python benchmarks/false_alarms.py [--runs SOFTMAX SIGMOID]

Both are the sample's custom CNN on images of 64 x 160, trained to notebook 05 with loss.kind=categorical_crossentropy
and binary_crossentropy: in benchmarks/out, or the run folders that are named. A detection is a species whose
probability in a window of 5 s is at least the threshold. Precision and recall are of the test soundscapes of three
samples, which no training has seen and whose truth is known; false detections, of an hour of the sample's noise and of
the real recordings in ../shared/data/backgrounds. Prints tables and writes benchmarks/out/false_alarms.csv.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import inference_parts as parts
import losses
import numpy as np
import pandas as pd
from measuring import OUT, RATE_HZ

from birdlib import audio, chance, classifier, sample, series, songs, soundscapes

SETTINGS = {**losses.SETTINGS, "comparison.models": "", "comparison.by_author": False}
LOSSES = {"softmax": "categorical_crossentropy", "sigmoid": "binary_crossentropy"}
SEEDS = (0, 1, 2)
THRESHOLDS = (0.25, 0.5, 0.75, 0.9, 0.99)
RECALLS = (0.3, 0.5, 0.7)
PIECES, PIECE_S = 60, 60


class Said(NamedTuple):
    """Probabilities (windows, species) where the truth is known, with that truth; and where there is no bird."""

    sung: np.ndarray
    truth: np.ndarray
    noise: np.ndarray
    outdoors: np.ndarray


def trained(kind: str) -> Path:
    folder = OUT / f"loss_{kind}"
    series.run("sample", run_dir=folder, overrides={**SETTINGS, "loss.kind": kind}, last="05_phase_2")
    return folder


def noise(number: int) -> np.ndarray:
    """A minute of a place without birds, int16 (samples,), by a microphone of its own."""
    rng = chance.rng(0, "false alarms", number)
    sound = songs.noise(rng, PIECE_S * RATE_HZ, songs.colour(rng))
    return audio.to_int16(sound * np.float32(0.5 / np.abs(sound).max()))


def cut(sound: np.ndarray, length: int) -> list[np.ndarray]:
    """Whole windows; what is left of a second or more is filled up by what came before it."""
    rest = len(sound) % length
    whole = [sound[at : at + length] for at in range(0, len(sound) - length + 1, length)]
    return [*whole, sound[-length:]] if rest > RATE_HZ and len(sound) > length else whole


def hear(run: Path) -> Said:
    model = classifier.load(run)

    def over(windows: list[np.ndarray]) -> np.ndarray:
        return model.over(len(windows), windows.__getitem__)

    sung, truth = [], []
    for seed in SEEDS:
        folder = sample.write(OUT / f"sample_{seed}", seed)
        found = soundscapes.find(folder, model.config)
        table, _ = soundscapes.predict(found.paths, model, model.labels, model.config)
        truths = pd.read_csv(folder / "test_soundscapes_truth.csv")
        sung.append(table[model.labels].to_numpy())
        truth.append(soundscapes.present(table, truths, model.labels, model.config))
    length = model.config.chunk_samples
    still = [window for number in range(PIECES) for window in cut(noise(number), length)]
    files = sorted(parts.BACKGROUNDS.glob("*.ogg"))
    outdoors = [window for path in files for window in cut(audio.to_int16(audio.read(path, RATE_HZ)), length)]
    return Said(np.concatenate(sung), np.concatenate(truth), over(still), over(outdoors))


def row(name: str, said: Said, threshold: float) -> dict[str, object]:
    found = said.sung >= threshold
    right = (found & said.truth).sum()
    per_hour = 3600 / 5
    return {
        "last layer": name,
        "threshold": threshold,
        "precision": right / found.sum() if found.any() else np.nan,
        "recall": right / said.truth.sum(),
        "false an hour of noise": (said.noise >= threshold).sum() / len(said.noise) * per_hour,
        "false an hour outdoors": (said.outdoors >= threshold).sum() / max(len(said.outdoors), 1) * per_hour,
    }


def at_recall(said: Said, recall: float) -> float:
    """The highest threshold that still finds such a share of what sings."""
    return float(np.sort(said.sung[said.truth])[::-1][int(np.ceil(recall * said.truth.sum())) - 1])


def table(said: dict[str, Said], thresholds: Callable[[Said], Iterator[float]]) -> pd.DataFrame:
    return pd.DataFrame([row(name, each, at) for name, each in said.items() for at in thresholds(each)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs=2, type=Path, metavar=("SOFTMAX", "SIGMOID"), help="runs trained already")
    options = parser.parse_args()
    folders = dict(zip(LOSSES, options.runs or map(trained, LOSSES.values()), strict=True))
    said = {name: hear(folder) for name, folder in folders.items()}
    first = next(iter(said.values()))
    print(f"{len(first.sung)} windows of soundscapes, {first.truth.sum()} times a species sings in one;")
    print(f"{len(first.noise)} windows of noise, {len(first.outdoors)} of real backgrounds")
    fixed = table(said, lambda _: iter(THRESHOLDS))
    alike = table(said, lambda each: (at_recall(each, recall) for recall in RECALLS))
    print(fixed.to_string(index=False, float_format="{:.3g}".format))
    print("at thresholds that find the same share of what sings:")
    print(alike.to_string(index=False, float_format="{:.3g}".format))
    pd.concat([fixed, alike]).to_csv(OUT / "false_alarms.csv", index=False)


if __name__ == "__main__":
    main()
