"""What makes what: the one table of the series, and the fingerprints that follow from it.

For each notebook the table holds the settings it reads, the files it reads and the files it writes. Missing-input
errors, skipping what is unchanged and the order of the series all read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import birdlib
from birdlib import folders

if TYPE_CHECKING:
    from birdlib.config import Config


class RunError(RuntimeError):
    """A run folder that cannot be used as asked: what is wrong, in which folder, and what to do."""


@dataclass(frozen=True)
class Stage:
    """A row of the table of what makes what.

    ``sections`` are names of `Config` fields; ``data`` are names in the data folder; ``reads`` and ``writes`` are
    paths in the run folder, where ``{fold}`` stands for each fold of the settings. ``beside`` are what it writes only
    where the settings ask for it, and no other stage reads.
    """

    name: str
    sections: tuple[str, ...]
    data: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


_IMAGES = ("audio", "chunks", "silence", "spectrogram")
STAGES = (
    Stage(
        "01_eda",
        sections=("data",),
        data=("train_metadata.csv", "train_audio"),
        writes=("tables/recordings.parquet",),
    ),
    Stage(
        "02_chunking",
        sections=("data", "audio", "chunks", "silence", "splits", "seed"),
        data=("train_metadata.csv",),
        reads=("tables/recordings.parquet",),
        writes=("tables/chunks.parquet", "tables/audio.parquet", "tables/splits.parquet"),
    ),
    Stage(
        "03_augmentation",
        sections=(*_IMAGES, "batches", "augmentation", "folds", "seed"),
        reads=("tables/recordings.parquet", "tables/chunks.parquet", "tables/splits.parquet"),
    ),
    Stage(
        "04_phase_1",
        sections=(*_IMAGES, "batches", "augmentation", "model", "loss", "phase_1", "comparison", "folds", "seed"),
        reads=(
            "tables/recordings.parquet",
            "tables/audio.parquet",
            "tables/chunks.parquet",
            "tables/splits.parquet",
        ),
        writes=(
            "models/phase_1_fold_{fold}.keras",
            "history/phase_1_fold_{fold}.csv",
            "tables/validation_phase_1_fold_{fold}.parquet",
            "models/phase_1_fold_{fold}.json",
            "metrics/04_phase_1.json",
        ),
        beside=("history/phase_1_custom_cnn.csv", "history/phase_1_from_scratch.csv"),
    ),
    Stage(
        "05_phase_2",
        sections=(*_IMAGES, "batches", "augmentation", "loss", "phase_2", "folds", "seed"),
        reads=(
            "tables/chunks.parquet",
            "tables/splits.parquet",
            "tables/recordings.parquet",
            "models/phase_1_fold_{fold}.keras",
            "history/phase_1_fold_{fold}.csv",
            "tables/validation_phase_1_fold_{fold}.parquet",
            "metrics/04_phase_1.json",
        ),
        writes=(
            "models/phase_2_fold_{fold}.keras",
            "history/phase_2_fold_{fold}.csv",
            "tables/validation_phase_2_fold_{fold}.parquet",
            "models/phase_2_fold_{fold}.json",
            "metrics/05_phase_2.json",
        ),
    ),
    Stage(
        "06_testing",
        sections=("data", *_IMAGES, "loss", "testing", "soundscapes", "folds", "seed"),
        data=(
            "sample_submission.csv",
            "traits.csv",
            "test_soundscapes",
            "test_soundscapes_truth.csv",
            "unlabeled_soundscapes",
        ),
        reads=(
            "tables/recordings.parquet",
            "tables/chunks.parquet",
            "tables/splits.parquet",
            "models/phase_2_fold_{fold}.keras",
            "models/phase_2_fold_{fold}.json",
            "tables/validation_phase_2_fold_{fold}.parquet",
            "metrics/04_phase_1.json",
            "metrics/05_phase_2.json",
        ),
        writes=("tables/predictions.parquet", "submission.csv", "metrics/06_testing.json"),
    ),
)
# Notebooks beside the series, which run where they are asked for, and after which nothing comes.
APPENDICES = (
    Stage(
        "appendix_tuning",
        sections=(
            *_IMAGES,
            "batches",
            "augmentation",
            "model",
            "loss",
            "phase_1",
            "phase_2",
            "tuning",
            "folds",
            "seed",
        ),
        reads=(
            "tables/recordings.parquet",
            "tables/audio.parquet",
            "tables/chunks.parquet",
            "tables/splits.parquet",
        ),
        writes=(
            "tuning/best.yaml",
            "tuning/trials_1.csv",
            "tuning/trials_2.csv",
            "metrics/appendix_tuning.json",
        ),
    ),
)


def stage(name: str, appendices: bool = False) -> Stage:
    """The stage of this name, or of its number ("03" is 03_augmentation); with `appendices`, also one of theirs.

    Raises
    ------
    RunError
        if there is none; the message lists them.
    """
    known = STAGES + APPENDICES if appendices else STAGES
    found = [one for one in known if one.name == name or one.name.split("_")[0] == str(name).zfill(2)]
    if not found:
        raise RunError(f"there is no stage {name!r}; the stages are {', '.join(one.name for one in known)}")
    return found[0]


def since(this: Stage) -> tuple[Stage, ...]:
    """A stage and those after it."""
    return STAGES[STAGES.index(this) :] if this in STAGES else (this,)


def notebook(name: str) -> Path:
    """Where the notebook of a stage lies: inside the installed package, or in the repository it is run from."""
    package = Path(birdlib.__file__).parent
    for folder in (package / "notebooks", package.parent / "notebooks"):
        if (path := folder / f"{name}.ipynb").is_file():
            return path
    raise RunError(f"the notebook {name}.ipynb is neither in {package} nor beside it: reinstall birdlib")


def files(names: tuple[str, ...], config: Config) -> list[str]:
    """Names of the table with ``{fold}`` written out."""
    return [
        name.format(fold=fold) for name in names for fold in (config.folds if "{fold}" in name else config.folds[:1])
    ]


def upstream(this: Stage) -> list[Stage]:
    """The stages whose files this one reads, in the order of the series."""
    return [one for one in STAGES if set(one.writes) & set(this.reads)]


def fingerprint(this: Stage, config: Config, folder: Path, known: dict[str, str] | None = None) -> str:
    """What a stage's results follow from, as a hex digest: settings, inputs, code of the notebook, version, data.

    ``known`` holds the fingerprints that were worked out on the way, by stage: without it each stage would ask all
    before it again, and they again, and a walk through the data takes long on a network disk. It may be shared by
    calls between which neither the folder nor the data change.
    """
    known = {} if known is None else known
    if this.name not in known:
        known[this.name] = _digest(_followed(this, config, folder, known))
    return known[this.name]


def _followed(this: Stage, config: Config, folder: Path, known: dict[str, str]) -> dict[str, Any]:
    """What a stage's results follow from, in parts."""
    cells = json.loads(notebook(this.name).read_text(encoding="utf-8"))["cells"]
    return {
        "settings": settings(this, config),
        "upstream": [fingerprint(one, config, folder, known) for one in upstream(this)],
        # What they really wrote: a network trained again with the same settings is another network.
        "inputs": [record(one, folder).get("outputs") for one in upstream(this)],
        "notebook": ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"],
        "version": birdlib.__version__,
        "data": listing(config.data.dir or folder / "sample_data", this.data),
        # A table's content counts, not its size alone: a corrected label is often as long as the wrong one.
        "csv": [_digest(path.read_text("utf-8", "replace")) for path in _tables(this, config, folder)],
        "files": _named(this, config),
    }


def record_path(this: Stage, folder: Path) -> Path:
    """Where a finished stage is recorded."""
    return folder / "stages" / f"{this.name}.json"


def record(this: Stage, folder: Path) -> dict[str, Any]:
    """What is recorded of a finished stage; an empty dictionary if it has not finished."""
    path = record_path(this, folder)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def whole(this: Stage, folder: Path) -> bool:
    """Whether a folder has a finished stage with all that it had to write."""
    outputs = record(this, folder).get("outputs")
    return outputs is not None and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size for name, (size, _) in outputs.items()
    )


def listing(data_dir: Path, names: tuple[str, ...]) -> list[tuple[str, int]]:
    """Names and sizes of the files under some names of the data folder (times change on Kaggle), sorted."""
    found = []
    for name in names:
        top = data_dir / name
        for path in [top] if top.is_file() else folders.files(top):
            with contextlib.suppress(OSError):  # a file that vanishes meanwhile is not there
                found.append((path.relative_to(data_dir).as_posix(), path.stat().st_size))
    return sorted(found)


def settings(this: Stage, config: Config) -> dict[str, Any]:
    """The sections of the settings that a stage reads, as plain values."""
    tree = config.model_dump(mode="json", include=set(this.sections))
    # Where data lie does not matter, but what they are; of background sound that is not at hand, nobody can say.
    tree.get("data", {}).pop("dir", None)
    if "augmentation" in tree and (noises := tree["augmentation"]["background"].pop("dir")) and Path(noises).is_dir():
        tree["augmentation"]["background"]["recordings"] = listing_digest(Path(noises), ("",))
    return tree


def listing_digest(data_dir: Path, names: tuple[str, ...]) -> str:
    """A digest of `listing`."""
    return _digest(listing(data_dir, names))


def _tables(this: Stage, config: Config, folder: Path) -> list[Path]:
    data_dir = config.data.dir or folder / "sample_data"
    return [data_dir / name for name in this.data if name.endswith(".csv") and (data_dir / name).is_file()]


def _named(this: Stage, config: Config) -> dict[str, Any]:
    """What the settings name outside the data folder: a table's content, a large file's size."""
    traits, weights = config.testing.traits_file, config.model.weights
    found: dict[str, Any] = {}
    if "testing" in this.sections and traits and Path(traits).is_file():
        found["traits"] = _digest(Path(traits).read_text("utf-8", "replace"))
    if "model" in this.sections and weights and Path(weights).is_file():
        found["weights"] = Path(weights).stat().st_size
    return found


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
