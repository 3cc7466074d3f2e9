"""The folder that `birdlib export` writes: all that predicting needs, and nothing that needs Keras.

export.json     format, precision, the model files, temperature, what the check against Keras found
config.yaml     the front end's settings: how a sound becomes an image
species.csv     a row a class, in the model's order: primary_label, common_name, scientific_name, share
model_0.xml     a model a fold (with its .bin; or .onnx); several are averaged
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import yaml

from birdlib import calibration, splits
from birdlib import config as configs
from birdlib.writing import digest, read_json, replacing, write_json

if TYPE_CHECKING:
    from birdlib.config import Config

FRONT_END = ("audio", "chunks", "spectrogram", "soundscapes")
_ANEW = "copy the whole folder, or export again"


class ExportError(RuntimeError):
    """An exported folder that cannot be written or used: which, why, and what to do."""


class Exported(NamedTuple):
    """An exported folder, read: ``about`` is what export.json holds, ``species`` the class list with its names."""

    folder: Path
    about: dict[str, Any]
    config: Config
    species: pd.DataFrame

    @property
    def identity(self) -> str:
        """A digest of what it computes, the same for a copy of the folder."""
        told = {name: self.about.get(name) for name in ("format", "precision", "made_from", "temperatures")}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def models(self) -> list[Path]:
        """The model files, one a fold."""
        return [self.folder / name for name in self.about["models"]]

    def predicts_as(self, run: Exported) -> bool:
        """Whether it is of a run's classifiers and of its settings, as they are now."""
        told = all(self.about.get(name) == run.about[name] for name in ("made_from", "temperatures"))
        return told and all(getattr(self.config, name) == getattr(run.config, name) for name in FRONT_END)


def is_export(folder: Path) -> bool:
    """Whether `folder` is one that `birdlib export` wrote."""
    return (folder / "export.json").is_file()


def write(folder: Path, about: dict[str, Any], config: Config, species: pd.DataFrame) -> None:
    """Everything but the models; export.json last, so that a folder that has it is whole."""
    sections = config.model_dump(mode="json", include=set(FRONT_END))
    with replacing(folder / "config.yaml") as aside:
        aside.write_text(yaml.safe_dump({"base": "paper", **sections}, sort_keys=False), encoding="utf-8")
    with replacing(folder / "species.csv") as aside:
        species.to_csv(aside, index=False)
    write_json(folder / "export.json", about)


def read(folder: Path) -> Exported:
    """Reads an exported folder, or a run folder as if it were one (of the format "keras").

    Raises
    ------
    ExportError
        if it is neither, or not whole.
    """
    if not is_export(folder):
        return _of_run(folder)
    try:
        about = read_json(folder / "export.json")
        weights = [str(Path(name).with_suffix(".bin")) for name in about["models"] if name.endswith(".xml")]
        _require(folder, ["config.yaml", "species.csv", *about["models"], *weights], _ANEW)
        # A species code may read as a number, or as "nan": it is text.
        table = pd.read_csv(folder / "species.csv", dtype=str, keep_default_na=False).astype({"share": float})
        return Exported(folder, about, configs.load(folder / "config.yaml"), table)
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # ConfigError is a ValueError
        raise ExportError(f"{folder} is damaged ({error!r}): {_ANEW}") from None


def _of_run(folder: Path) -> Exported:
    if not (folder / "config.yaml").is_file():
        raise ExportError(f"{folder} is neither a run folder nor one that birdlib export wrote")
    config = configs.load(folder / "config.yaml")
    models = [f"models/phase_2_fold_{fold}.keras" for fold in config.folds]
    _require(folder, ["tables/recordings.parquet", "tables/splits.parquet", *models], "run the series to notebook 05")
    recordings, split_table = (pd.read_parquet(folder / f"tables/{name}.parquet") for name in ("recordings", "splits"))
    about = {"format": "keras", "precision": "f32", "models": models}
    about["temperatures"] = [calibration.kept(folder / name) for name in models]
    about["activation"] = _activation(folder / models[0])
    about["made_from"] = {str(fold): digest(folder / name) for fold, name in zip(config.folds, models, strict=True)}
    return Exported(folder, about, config, species(recordings, split_table, splits.labels(split_table)))


def _activation(path: Path) -> str:
    """The last activation of a saved classifier, read without Keras: the file is a zip with the layers as JSON."""
    try:
        with zipfile.ZipFile(path) as file:
            layers = json.loads(file.read("config.json"))["config"]["layers"]
        return next(layer["config"]["activation"] for layer in layers if layer["config"]["name"] == "probabilities")
    except (zipfile.BadZipFile, KeyError, StopIteration) as error:
        raise ExportError(f"{path} is not a saved classifier ({error or type(error).__name__})") from None


def _require(folder: Path, names: list[str], advice: str) -> None:
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ExportError(f"{folder} lacks {', '.join(missing)}: {advice}")


def species(recordings: pd.DataFrame, split_table: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """The class list: primary_label, common_name, scientific_name (the label where unknown), share.

    ``share`` is the share of the recordings that trained or validated: what may be said of a window that nobody heard.
    """
    known = recordings.drop_duplicates("primary_label").set_index("primary_label")
    table = pd.DataFrame({"primary_label": labels})
    for column in ("common_name", "scientific_name"):
        names = known[column] if column in known else pd.Series(dtype=object)
        table[column] = table["primary_label"].map(names).fillna(table["primary_label"])
    held = split_table.loc[split_table["split"] != "test", "primary_label"].value_counts(normalize=True)
    return table.assign(share=table["primary_label"].map(held).fillna(0.0))
