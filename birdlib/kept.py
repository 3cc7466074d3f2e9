"""What a prediction keeps of each recording, so that it goes on where it was stopped: every probability, by file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet

from birdlib import classifier, exported
from birdlib.soundscapes import Heard
from birdlib.writing import is_aside, read_json, replacing, sweep, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from birdlib.config import Config
    from birdlib.exported import Exported


class PredictError(RuntimeError):
    """A prediction that cannot be made as asked: what is wrong, and what to do."""


class Recording(NamedTuple):
    """A file to be heard, and its name below the folder it was found in: what it is called in everything written."""

    path: Path
    name: str


def settle(out: Path, opened: Sequence[Exported], config: Config, runtime: str) -> str:
    """Notes in a folder what fills it. Gives the runtime in words.

    Raises
    ------
    PredictError
        if the folder holds what another model or other settings heard, or anything else.
    """
    names = [classifier.runtime_of(one, runtime) for one in opened]
    made_by = {
        "models": [one.identity for one in opened],
        "settings": {name: getattr(config, name).model_dump(mode="json") for name in exported.FRONT_END},
    }
    before = read_json(out / "predict.json")
    if before or (out.is_dir() and all(map(is_aside, out.iterdir()))):
        sweep(out)  # of a prediction that was killed
    if before and {name: before.get(name) for name in made_by} != made_by:
        raise PredictError(f"{out} holds what another model, or other settings, heard: name another folder")
    if not before and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PredictError(f"{out} is there and holds no prediction: name a folder that is missing or empty")
    words = " and ".join(dict.fromkeys(names))
    write_json(out / "predict.json", {**made_by, "runtime": words})
    return words


def has(out: Path, recording: Recording, embeddings: bool) -> bool:
    """Whether a recording, as it is now, was heard before (with its embeddings, if they are asked for)."""
    if embeddings and not _path(out, recording, "embeddings").exists():
        return False
    path = _path(out, recording)
    return path.exists() and _about(path)["bytes"] == recording.path.stat().st_size


def keep(out: Path, recording: Recording, heard: Heard, model: Exported, config: Config) -> None:
    """Keeps what was heard in a recording: ``rows/``, last, and ``embeddings/``."""
    if heard.embeddings is not None:
        names = [f"feature_{place}" for place in range(heard.embeddings.shape[1])]
        table = pd.DataFrame(heard.embeddings, columns=names)
        table.insert(0, "start_s", np.arange(len(table)) * config.chunks.length_s)
        with replacing(_path(out, recording, "embeddings")) as aside:
            table.to_parquet(aside, index=False)
    arrays = dict(zip(model.species["primary_label"], heard.values.T, strict=True))
    about = {"duration_s": repr(heard.duration_s), "bytes": str(recording.path.stat().st_size)}
    with replacing(_path(out, recording)) as aside:
        pyarrow.parquet.write_table(pyarrow.table(arrays).replace_schema_metadata(about), aside)


def read(out: Path, recording: Recording) -> Heard:
    """What was kept of a recording, without its embeddings."""
    path = _path(out, recording)
    return Heard(pd.read_parquet(path).to_numpy(np.float32), _about(path)["duration_s"])


class Kept(Mapping):
    """What was kept of recordings, by name, read each time: all of a large collection is more than memory holds."""

    def __init__(self, out: Path, recordings: Sequence[Recording]) -> None:
        self._out, self._recordings = out, {one.name: one for one in recordings}

    def __getitem__(self, name: str) -> Heard:
        return read(self._out, self._recordings[name])

    def duration_s(self, name: str) -> float:
        """How long a recording is, without reading what was heard in it."""
        return _about(_path(self._out, self._recordings[name]))["duration_s"]

    def __contains__(self, name: object) -> bool:
        return name in self._recordings

    def __iter__(self) -> Iterator[str]:
        return iter(self._recordings)

    def __len__(self) -> int:
        return len(self._recordings)


def write_errors(out: Path, failed: Mapping[str, str]) -> None:
    """``errors.csv``, also when there are none: path, reason."""
    with replacing(out / "errors.csv") as aside:
        pd.DataFrame(sorted(failed.items()), columns=["path", "reason"]).to_csv(aside, index=False)


def _path(out: Path, recording: Recording, kind: str = "rows") -> Path:
    return out / kind / f"{recording.name}.parquet"


def _about(path: Path) -> dict[str, float]:
    return {name.decode(): float(value) for name, value in pyarrow.parquet.read_schema(path).metadata.items()}
