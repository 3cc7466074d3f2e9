"""A saved classifier -> probabilities, by the fastest runtime there is. Keras is loaded with a Keras model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from birdlib import calibration, exported, runtimes, spectrogram
from birdlib.runtimes import Outputs

if TYPE_CHECKING:
    from birdlib.config import Config


class Classifier:
    """Images or audio in, probabilities out.

    Parameters
    ----------
    predict : float32 images (batch, n_mels, frames, 3) -> probabilities (batch, classes).
    config : the settings that the images are made by.
    labels : the classes, in order, where the model comes with them.
    runtime : what computes it, in words.
    outputs : images -> probabilities and embeddings, where the model gives those too.
    """

    def __init__(
        self,
        predict: Callable[[np.ndarray], np.ndarray],
        config: Config,
        labels: Sequence[str] = (),
        runtime: str = "a function",
        outputs: Callable[[np.ndarray], Outputs] | None = None,
    ) -> None:
        self.predict, self.config = predict, config
        self.labels, self.runtime, self.outputs = list(labels), runtime, outputs

    def probabilities(self, audio: Sequence[np.ndarray]) -> np.ndarray:
        """A batch of chunks, each int16 or float (samples,) -> float32 (batch, classes)."""
        images = np.stack(spectrogram.images(audio, self.config))
        return np.asarray(self.predict(images), np.float32)

    def over(self, count: int, read: Callable[[int], np.ndarray], description: str = "predicting") -> np.ndarray:
        """Probabilities of `count` chunks, float32 (count, classes); ``read(i)`` gives chunk i, int16 (samples,).

        Chunks are read and turned into images while the model is at work; a batch is all that memory holds.
        """
        results: list[np.ndarray] = []
        with tqdm(total=count, desc=description, unit="chunk", mininterval=1.0) as bar:
            for images in self.batches(map(read, range(count))):
                results.append(np.asarray(self.predict(images), np.float32))
                bar.update(len(images))
        return np.concatenate(results) if results else np.zeros((0, 0), np.float32)

    def batches(self, sounds: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Images of sounds, each (samples,), in batches; the next batch is made while the caller is at work on one."""
        size, left = self.config.compute.predict_batch_size, iter(sounds)

        def images() -> np.ndarray:
            # Filled in place: a list of images and their stack would be twice as much, for each of two batches.
            batch, count = np.empty((size, *self.config.image_shape), np.float32), 0
            for sound in itertools.islice(left, size):
                batch[count] = spectrogram.image(sound, self.config)
                count += 1
            return batch[:count]

        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(images)
            while len(batch := ahead.result()):
                ahead = pool.submit(images)
                yield batch


def average(classifiers: Sequence[Classifier]) -> Classifier:
    """The mean of several classifiers of the same classes and settings; the images are made once."""
    first = classifiers[0]
    if len(classifiers) == 1:
        return first
    runtime = " and ".join(dict.fromkeys(one.runtime for one in classifiers))
    return Classifier(
        lambda images: np.mean([one.predict(images) for one in classifiers], axis=0),
        first.config,
        first.labels,
        f"{runtime}, the mean of {len(classifiers)}",
    )


def of_keras(model, config: Config, labels: Sequence[str] = ()) -> Classifier:
    """A classifier from a Keras model in memory."""
    full = config.compute.predict_batch_size
    sizes = (-(-full // 4), full)

    def predict(images: np.ndarray) -> np.ndarray:
        # Two shapes mean two compilations: a batch is filled up to the full size, or the few windows of a short file to
        # a quarter of it, and cut again.
        size = next((size for size in sizes if len(images) <= size), len(images))
        padded = np.pad(images, ((0, size - len(images)), (0, 0), (0, 0), (0, 0)))
        return np.asarray(model.predict_on_batch(padded))[: len(images)]

    return Classifier(predict, config, labels, "Keras")


def load(path: Path, config: Config | None = None, runtime: str = "auto", threads: int = 0) -> Classifier:
    """A classifier from a file or a folder; its ``runtime`` says what computes it.

    Parameters
    ----------
    path : a ``.keras`` file that training saved, a folder that `birdlib export` wrote, or a run folder. Of a folder,
        all its models are averaged.
    config : the settings that a ``.keras`` file was trained with; a folder holds its own.
    runtime : of an export, "openvino" or "onnxruntime"; "auto": the fastest that is installed and runs it.
    threads : of a folder, how many threads compute; 0: one a core, or what the backend of Keras takes by itself.

    Raises
    ------
    birdlib.models.ModelError, birdlib.exported.ExportError
        if the path holds no such thing.
    birdlib.runtimes.MissingExtraError
        if no runtime for the folder is installed.
    """
    if Path(path).is_dir():
        return _of_folder(exported.read(Path(path)), runtime, threads)
    if config is None:
        raise exported.ExportError(f"{path} is no folder that birdlib export wrote")
    from birdlib import models

    return of_keras(models.load(path), config)


def runtime_of(found: exported.Exported, wanted: str = "auto") -> str:
    """What `load` would compute a folder's models by, in words. Raises as it does."""
    if found.about["format"] == "keras":
        if wanted not in ("auto", "keras"):
            raise runtimes.WrongRuntimeError(f"{wanted} does not run Keras models: export {found.folder} first")
        return "Keras"
    chosen = runtimes.choose(found.about["format"], found.about["precision"], wanted)
    return f"{chosen} {runtimes.installed(chosen)}, {found.about['precision']}"


def _of_folder(found: exported.Exported, wanted: str, threads: int) -> Classifier:
    about, labels, name = found.about, found.species["primary_label"].tolist(), runtime_of(found, wanted)
    made = []
    for path, temperature in zip(found.models, about["temperatures"], strict=True):
        temper = partial(calibration.tempered, temperature=temperature, activation=about["activation"])
        if about["format"] == "keras":
            from birdlib import device, models

            if threads:
                device.compute_on(threads)
            made.append(_tempered(of_keras(models.load(path), found.config, labels), temper))
        else:
            chosen = runtimes.choose(about["format"], about["precision"], wanted)
            session = runtimes.open_session(path, chosen, about["precision"], threads)
            made.append(_of_session(session, temper, found.config, labels, name))
    return average(made)


def _tempered(one: Classifier, temper: Callable[[np.ndarray], np.ndarray]) -> Classifier:
    return Classifier(lambda images: temper(one.predict(images)), one.config, one.labels, one.runtime)


def _of_session(session: runtimes.Session, temper, config: Config, labels: list[str], name: str) -> Classifier:
    def outputs(images: np.ndarray) -> Outputs:
        found = session(images)
        return found._replace(probabilities=temper(found.probabilities))

    return Classifier(lambda images: outputs(images).probabilities, config, labels, name, outputs)
