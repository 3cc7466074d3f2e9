"""What watches a training: the checkpoint, the progress bar, the clock and its limit, a loss that is no number."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import pandas as pd
from tqdm.auto import tqdm

from birdlib import models

if TYPE_CHECKING:
    from birdlib.settings import Phase


class TrainingError(RuntimeError):
    """A training that cannot go on: what happened, when, and what to change."""


def told(history: pd.DataFrame, settings: Phase) -> str:
    """What the callbacks did in a training, as a sentence or two."""
    epochs, number = len(history), history["epoch"].tolist()
    best, rates = number[history["val_loss"].to_numpy().argmin()], history["learning_rate"].to_numpy()
    lowered = [str(number[at]) for at in range(1, epochs) if rates[at] < 0.999 * rates[at - 1]]
    lowered_text = (
        f"was lowered to {settings.plateau_factor:g} of itself before epoch {', '.join(lowered)}"
        if lowered
        else f"was never lowered: the validation loss never stood still for {settings.plateau_patience} epochs"
    )
    end = f"All {epochs} epochs were trained."
    if epochs < settings.epochs:
        end = f"Training ended early after epoch {number[-1]}: "
        waited = number[-1] - best >= settings.early_stopping_patience
        end += f"{settings.early_stopping_patience} epochs with no lower loss." if waited else "its time was over."
    return (
        f"The lowest validation loss was in epoch {best} (counted from 0), whose weights are kept. The learning rate "
        f"{lowered_text}. {end}"
    )


class Finite(keras.callbacks.Callback):
    """Stops a training whose loss is not a number any more, before the checkpoint takes it for the best."""

    def __init__(self, description: str) -> None:
        super().__init__()
        self._description = description

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stop if a loss is no number."""
        losses = [(logs or {}).get(name, 0.0) for name in ("loss", "val_loss")]
        if not all(map(math.isfinite, losses)):
            phase = self._description.partition(",")[0]
            raise TrainingError(
                f"{self._description}: the loss is not a number after epoch {epoch}: lower {phase}.learning_rate"
            )


class Checkpoint(keras.callbacks.ModelCheckpoint):
    """Keeps the image classifier, not the model around it that takes audio, and in float32 whatever it trains in."""

    def __init__(self, model: keras.Model, path: Path) -> None:
        super().__init__(str(path), monitor="val_loss", save_best_only=True)
        self._classifier = model

    def set_model(self, model: keras.Model) -> None:
        """Keep the classifier, whatever is being fitted."""
        super().set_model(self._classifier)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Save if it is the best so far."""
        with models.at_precision(self._classifier, "float32"), models.in_step(self._classifier, 1):
            super().on_epoch_end(epoch, logs)


class Seconds(keras.callbacks.Callback):
    """How long each epoch took, validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stop the clock."""
        self.taken.append(round(time.perf_counter() - self._began, 2))


class Logs(keras.callbacks.Callback):
    """Every epoch's numbers for TensorBoard, below `folder`: "training" and "validation" as two runs of one chart.

    They are written by the package tensorboard alone, under any backend. A training that goes on adds to what is there.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Open the files."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writers = {side: EventFileWriter(str(self._folder / side)) for side in ("training", "validation")}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write an epoch's numbers."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        for name, value in (logs or {}).items():
            side = "validation" if name.startswith("val_") else "training"
            number = Summary.Value(tag=name.removeprefix("val_"), simple_value=float(value))
            event = Event(step=epoch, wall_time=time.time(), summary=Summary(value=[number]))
            self._writers[side].add_event(event)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()


class TimeLimit(keras.callbacks.Callback):
    """Ends a training in time: within an epoch, if need be, and so early that the validation after it still fits.

    The time begins when this is made, since features may be computed first. The epoch is validated and may be the best
    one as any other.
    """

    def __init__(self, limit_s: float) -> None:
        super().__init__()
        self._limit_s, self._validation_s = limit_s, 0.0
        self._began = self._last_batch = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stop if what is left is needed for the validation."""
        self._last_batch = time.perf_counter()
        if self._last_batch - self._began + self._validation_s > self._limit_s:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """See how long validation takes."""
        self._validation_s = max(self._validation_s, time.perf_counter() - self._last_batch)


class Progress(keras.callbacks.Callback):
    """One bar for the whole of the training, slow enough for papermill's channel."""

    def __init__(self, description: str, batches: int, done: int = 0) -> None:
        super().__init__()
        self._bar = tqdm(total=batches, initial=done, desc=description, unit="batch", mininterval=2.0)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """One batch more."""
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Show how validation went."""
        logs = logs or {}
        self._bar.set_postfix(
            {"epoch": epoch, "val_loss": f"{logs['val_loss']:.3f}", "val_accuracy": f"{logs['val_accuracy']:.3f}"},
            refresh=False,
        )

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leave the bar as it is."""
        self._bar.close()
