"""A training that was stopped goes on after its last finished epoch, as if it had not been.

After each epoch everything that the next one follows from is kept as one file, whole or not at all: all variables of
the model (the states of its random seeds among them) and of the optimizer, the callbacks' counters, the history. Keras'
own `BackupAndRestore` leaves the counters out. The best classifier so far lies beside it, under the number of its
epoch, which the state names: no two files are ever taken together that were not written for each other.
"""

from __future__ import annotations

import json
import shutil
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from birdlib.callbacks import TrainingError
from birdlib.writing import replacing

COUNTERS = ("best", "wait", "cooldown_counter", "best_epoch", "stopped_epoch", "taken")


class Epochs(keras.callbacks.Callback):
    """Keeps a training's state after every epoch; the last of its callbacks.

    Parameters
    ----------
    folder : where it is kept, a folder of its own; None: it is not.
    key : what the training follows from; a state with another key is not taken up.

    ``rows`` is the history: a dictionary an epoch.
    """

    def __init__(self, folder: Path | None = None, key: str = "") -> None:
        super().__init__()
        self.folder, self.key = folder, key
        self.rows: list[dict[str, float]] = []
        self.stopped = False
        self._counters: list[dict[str, Any]] = []

    def take_up(self, model: keras.Model, best: Path, watched: Sequence[keras.callbacks.Callback]) -> int:
        """Puts `model`, which is compiled, into the state that was kept; the number of the next epoch (0: a new start).

        Parameters
        ----------
        best : where the checkpoint saves the best classifier; it is put there.
        watched : the callbacks whose counters are kept; they come before this one in ``fit``.
        """
        self._best, self._watched = best, watched
        model.optimizer.build(model.trainable_variables)
        found = self._read(model)
        if found is None:
            return 0
        kept, values = found
        shutil.copyfile(self._best_of(kept["best"]), best)
        for variable, value in zip(_variables(model), values, strict=True):
            variable.assign(value)
        self.rows, self._counters, self.stopped = kept["rows"], kept["counters"], kept["stopped"]
        self._set_counters()
        return len(self.rows)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Set the counters again, which the callbacks before this one have just set back."""
        self._set_counters()

    def _set_counters(self) -> None:
        for callback, counters in zip(self._watched, self._counters, strict=False):
            vars(callback).update(counters)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Keep it all. Raises `birdlib.callbacks.TrainingError` if it cannot be written."""
        self.rows.append({name: float(value) for name, value in (logs or {}).items()})
        if self.folder is None:
            return
        try:
            self._keep(epoch)
        except OSError as error:
            raise TrainingError(
                f"epoch {epoch} cannot be kept in {self.folder} ({error.strerror or error}): make room on it; the "
                "same command then goes on after the epochs before it"
            ) from None

    def _keep(self, epoch: int) -> None:
        losses = [row["val_loss"] for row in self.rows]
        at = losses.index(min(losses))
        if at == epoch:
            with replacing(self._best_of(at)) as aside:
                shutil.copyfile(self._best, aside)
        state = {
            "key": self.key,
            "best": at,
            "rows": self.rows,
            "counters": [
                {name: _plain(vars(one)[name]) for name in COUNTERS if name in vars(one)} for one in self._watched
            ],
            "stopped": bool(self.model.stop_training),
        }
        values = [keras.ops.convert_to_numpy(variable) for variable in _variables(self.model)]
        with replacing(self.folder / "state.npz") as aside, open(aside, "wb") as file:
            np.savez(file, state=np.array(json.dumps(state)), **{f"v{n}": value for n, value in enumerate(values)})
        for path in self.folder.glob("best_*.keras"):
            if path != self._best_of(at):
                path.unlink()

    def _best_of(self, epoch: int) -> Path:
        return self.folder / f"best_{epoch}.keras"

    def _read(self, model: keras.Model) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        if self.folder is None or not (path := self.folder / "state.npz").exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                kept = json.loads(str(file["state"]))
                values = [file[f"v{n}"] for n in range(len(file.files) - 1)]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            warnings.warn(f"{path} cannot be read ({error}): this training begins anew", stacklevel=3)
            return None
        shapes = [tuple(variable.shape) for variable in _variables(model)]
        fits = kept["key"] == self.key and shapes == [value.shape for value in values]
        return (kept, values) if fits and self._best_of(kept["best"]).exists() else None


def _variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _plain(value: Any) -> Any:
    """A counter as JSON has it."""
    return value if value is None or isinstance(value, list) else value.item() if hasattr(value, "item") else value
