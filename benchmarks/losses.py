"""What each loss does on the sample data set: the small network after both phases, tested by recording.

    python benchmarks/losses.py [LOSS ...] [--table]

Each loss that has been trained is a file in benchmarks/out/losses; stopped and started again, it goes on with the next,
and other settings or code are another file. Prints the table as it stands, with the paired difference to categorical
cross-entropy on the same test; --table trains nothing. One seed: the intervals, which resample recordings, say nothing
of what another draw of the weights would give.
"""

import argparse
import hashlib
import os
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras
import numpy as np
import pandas as pd
import xc10_training
from xc10 import rounded

from birdlib import chunks, evaluation, intervals, models, runs, series, splits, stages, training
from birdlib import config as configs
from birdlib.sources import LazySource
from birdlib.writing import read_json, write_json

OUT = Path(__file__).parent / "out" / "losses"
# Half as many bands and frames as in the preset, which makes the small network six times as fast.
SETTINGS = {"spectrogram.hop": 1000, "spectrogram.n_mels": 64}
LOSSES = {
    "categorical cross-entropy": {},
    "binary cross-entropy": {"loss.kind": "binary_crossentropy"},
    "focal": {"loss.kind": "focal"},
    "label smoothing 0.1": {"loss.label_smoothing": 0.1},
    "secondary labels in the target": {"loss.secondary_labels": "target"},
    "secondary labels masked": {"loss.secondary_labels": "masked"},
}
# What a result hangs on in birdlib besides `xc10_training.PARTS`: the data set, what is read of it, and who trains.
PARTS = ("audio", "callbacks", "chunks", "ogg", "sample", "songs", "sources", "training")
METRICS = ("accuracy", "macro_roc_auc", "mean_average_precision")


def settings(loss: str) -> configs.Config:
    """The settings of the preset ``sample`` with a loss."""
    return configs.load("sample", {**SETTINGS, **LOSSES[loss]})


def code() -> str:
    """The code that a loss's test goes through, comments and docstrings apart."""
    files = (xc10_training.ROOT / "birdlib" / f"{name}.py" for name in PARTS)
    return "\n".join([xc10_training.code(), *(xc10_training._bare(file.read_text(encoding="utf-8")) for file in files)])


def path(loss: str) -> Path:
    """Where a loss's test is kept."""
    state = f"{code()} {keras.__version__} {keras.backend.backend()} {settings(loss).model_dump()}"
    return OUT / f"{loss.replace(' ', '_')}-{hashlib.sha256(state.encode()).hexdigest()[:16]}.json"


def tested(loss: str) -> dict[str, list]:
    """Trains with a loss on fold 0; what it says of the test's kept chunks: filenames, truth, probabilities."""
    config, run_dir = settings(loss), OUT / "run"
    run = runs.Run(run_dir, configs.load("sample"), stages.stage("04"))
    data, source = training.fold_of(run, 0, config), LazySource(run.data_dir, config)
    keras.utils.set_random_seed(0)
    model = models.build(config, len(data.labels))
    with tempfile.TemporaryDirectory() as folder:
        best = Path(folder) / "best.keras"
        for phase, first in ((config.phase_1, 0), (config.phase_2, config.phase_1.epochs)):
            training.train(model, data, source, config, phase, best, f"{loss}, {phase.epochs} epochs", first)
            model = models.load(best)
    held_out = data._replace(validation=_test(run))
    said = training.predictions(model, held_out, source, config)
    truth = pd.Index(data.labels).get_indexer(said["primary_label"])
    probabilities = rounded(said[data.labels].to_numpy(float))
    return {"filenames": said["filename"].tolist(), "truth": truth.tolist(), "probabilities": probabilities}


def _test(run: runs.Run) -> pd.DataFrame:
    table = run.read_table("chunks")
    kept = table[chunks.kept(table, run.config.silence)]
    side = splits.side(run.read_table("splits"), "test")[["filename", "primary_label"]]
    return kept.merge(side, on="filename").reset_index(drop=True)


def scores(kept: dict[str, dict[str, list]]) -> pd.DataFrame:
    """A row a loss: the headline numbers by recording, and the paired difference in accuracy to the first."""
    rows, first = {}, None
    for loss, said in kept.items():
        names, truth = said["filenames"], np.array(said["truth"])
        truth, mean = evaluation.by_recording(names, truth, np.array(said["probabilities"]))
        found = evaluation.headline(truth, mean, np.unique(names), 0)
        right = (mean.argmax(axis=1) == truth).astype(float)
        first = right if first is None else first
        gain = (right - first).mean(), *intervals.of_mean(right - first, np.unique(names), 0)
        rows[loss] = {name: intervals.told(*found[name]) for name in METRICS} | {"gain": intervals.told(*gain, "+.3f")}
        rows[loss]["recordings"] = len(truth)
    return pd.DataFrame.from_dict(rows, orient="index")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("losses", nargs="*", default=list(LOSSES), help="; ".join(LOSSES))
    parser.add_argument("--table", action="store_true", help="train nothing")
    options = parser.parse_args()
    wanted = [loss for loss in options.losses if not options.table and not path(loss).exists()]
    for number in ("01", "02") if wanted else ():
        series.run("sample", run_dir=OUT / "run", only=number)
    for loss in wanted:
        write_json(path(loss), tested(loss))
        print(f"{loss}: done", flush=True)
    kept = {loss: said for loss in LOSSES if (said := read_json(path(loss)))}
    print(f"{len(kept)} of {len(LOSSES)} losses trained")
    if next(iter(LOSSES)) in kept:  # to which the others are compared
        print(scores(kept).to_string())


if __name__ == "__main__":
    main()
