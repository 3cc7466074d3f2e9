"""What a prediction keeps of each recording, so that it goes on where it was stopped: every probability, by file."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet
from filelock import FileLock, Timeout

from birdlib import audio, exported
from birdlib.soundscapes import Heard
from birdlib.writing import is_aside, read_json, replacing, sweep, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from birdlib.config import Config
    from birdlib.exported import Exported

_LOCK = ".lock"
_LONGEST = 255  # bytes that a file system takes for a name
_END = 65_536  # bytes of each end of a recording that tell it from others


class PredictError(RuntimeError):
    """A prediction that cannot be made as asked: what is wrong, and what to do."""


class Recording(NamedTuple):
    """A file to be heard, and its name below the folder it was found in: what it is called in everything written."""

    path: Path
    name: str


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Makes a folder, and holds it for this process alone: another one would sweep away what this one is writing.

    Raises
    ------
    PredictError
        if another prediction is at work in the folder, if it holds something else than a prediction, or if something
        cannot be written, also within the block.
    """
    try:
        _refuse_others(out)
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / _LOCK, timeout=0):
            yield
    except Timeout:
        raise PredictError(f"another process is predicting into {out}: wait for it, or name another folder") from None
    except OSError as error:
        if error.errno is None:  # nothing that the system refused, such as a lost connection
            raise
        reason = error.strerror or " ".join(str(error).split())
        raise PredictError(f"cannot write {out}: {reason}; once that is mended, the same command goes on") from None


def _refuse_others(out: Path) -> None:
    ours = (out / "predict.json").exists() or not out.exists()
    if not ours and not (out.is_dir() and all(is_aside(one) or one.name == _LOCK for one in out.iterdir())):
        raise PredictError(f"{out} is there and holds no prediction: name a folder that is missing or empty")


def settle(out: Path, opened: Sequence[Exported], config: Config, runtime: str) -> None:
    """Notes in a folder, which is `locked`, what fills it; ``runtime`` in words.

    Raises
    ------
    PredictError
        if the folder holds what another model or other settings heard.
    """
    made_by = {
        "models": [one.identity for one in opened],
        "settings": {name: getattr(config, name).model_dump(mode="json") for name in exported.FRONT_END},
    }
    before = read_json(out / "predict.json")
    sweep(out)  # of a prediction that was killed
    # A model that could not be loaded has left nothing that another may not follow.
    if before and (out / "rows").exists() and {name: before.get(name) for name in made_by} != made_by:
        raise PredictError(f"{out} holds what another model, or other settings, heard: name another folder")
    write_json(out / "predict.json", {**made_by, "runtime": runtime})


def stamp(path: Path) -> str:
    """What tells a recording from others: a digest of its size and both its ends; "" where it cannot be read.

    Recorders on one schedule write files of the same name and the same size, one at each site.
    """
    try:
        if not path.is_file():  # opening a named pipe would wait for ever
            return ""
        with open(path, "rb") as file:
            begin, size = file.read(_END), file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _END))
            return hashlib.sha256(b"%d bytes: " % size + begin + file.read()).hexdigest()
    except OSError:
        return ""


def has(out: Path, recording: Recording, embeddings: bool) -> bool:
    """Whether a recording, as it is now, was heard before (with its embeddings, if they are asked for)."""
    if embeddings and not _path(out, recording, "embeddings").exists():
        return False
    path = _path(out, recording)
    if not path.exists() or not (known := _about(path).get("stamp")):  # which earlier versions did not keep
        return False
    return known == stamp(recording.path)


def keep(out: Path, recording: Recording, heard: Heard, model: Exported, config: Config, mark: str) -> None:
    """Keeps what was heard in a recording, whose `stamp` was `mark`: ``rows/``, last, and ``embeddings/``."""
    for kind in ("rows", "embeddings"):  # those of another recording of this name never stand beside what is new
        _path(out, recording, kind).unlink(missing_ok=True)
    if heard.embeddings is not None:
        names = [f"feature_{place}" for place in range(heard.embeddings.shape[1])]
        table = pd.DataFrame(heard.embeddings, columns=names)
        table.insert(0, "start_s", np.arange(len(table)) * config.chunks.length_s)
        with replacing(_path(out, recording, "embeddings")) as aside:
            table.to_parquet(aside, index=False)
    arrays = dict(zip(model.species["primary_label"], heard.values.T, strict=True))
    about = {"duration_s": repr(heard.duration_s), "stamp": mark}
    with replacing(_path(out, recording)) as aside:
        pyarrow.parquet.write_table(pyarrow.table(arrays).replace_schema_metadata(about), aside)


def read(out: Path, recording: Recording) -> Heard:
    """What was kept of a recording, without its embeddings."""
    path = _path(out, recording)
    return Heard(pd.read_parquet(path).to_numpy(np.float32), float(_about(path)["duration_s"]))


class Kept(Mapping):
    """What was kept of recordings, by name, read each time: all of a large collection is more than memory holds."""

    def __init__(self, out: Path, recordings: Sequence[Recording]) -> None:
        self._out, self._recordings = out, {one.name: one for one in recordings}

    def __getitem__(self, name: str) -> Heard:
        return read(self._out, self._recordings[name])

    def __contains__(self, name: object) -> bool:
        return name in self._recordings

    def __iter__(self) -> Iterator[str]:
        return iter(self._recordings)

    def __len__(self) -> int:
        return len(self._recordings)


def write_errors(out: Path, failed: Mapping[str, str]) -> None:
    """``errors.csv``, also when there are none: path, reason."""
    with replacing(out / "errors.csv") as aside:
        rows = [tuple(map(audio.as_text, row)) for row in sorted(failed.items())]
        pd.DataFrame(rows, columns=["path", "reason"]).to_csv(aside, index=False)


def own_file(folder: Path, name: str, suffix: str) -> Path:
    """Where a file of ours about a recording lies: below `folder`, by the recording's name with `suffix` behind it.

    A name that would be too long is shortened, and one that is no UTF-8 is written as text: a digest then tells it from
    others.
    """
    *above, last = name.split("/")
    return folder.joinpath(*(_fitting(part, "") for part in above), _fitting(last, suffix))


def _fitting(name: str, suffix: str) -> str:
    text = audio.as_text(name)
    if text == name and len((text + suffix).encode()) <= _LONGEST:
        return text + suffix
    end = f"~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}{suffix}"
    return text.encode()[: _LONGEST - len(end)].decode(errors="ignore") + end


def _path(out: Path, recording: Recording, kind: str = "rows") -> Path:
    return own_file(out / kind, recording.name, ".parquet")


def _about(path: Path) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in pyarrow.parquet.read_schema(path).metadata.items()}
