"""Every number, once: the tree of settings and its presets.

The defaults written here are the preset ``paper``: the published numbers where the paper gives them, ours where
it does not (marked "ours"); `birdlib.settings_augmentation` has those of the augmentation. The preset ``sample`` is a
short list of differences, small enough for two CPU cores.
Units are in the names: ``_s`` seconds, ``_hz`` hertz, ``_db`` decibels. `birdlib.config` reads and writes them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from birdlib.settings_augmentation import Augmentation
from birdlib.settings_section import Count, Positive, Section
from birdlib.settings_tuning import SAMPLE as SAMPLE_TUNING
from birdlib.settings_tuning import Tuning

__all__ = ["PRESETS", "Augmentation", "Config", "Section"]


class Data(Section):
    """Where the recordings are. ``dir`` null: the built-in sample data set."""

    dir: Path | None = None
    labels_without_audio: Literal["error", "leave_out"] = "error"


class Audio(Section):
    """The form in which all audio is worked on: mono at this rate."""

    sample_rate_hz: Annotated[int, Field(ge=1000)] = 32_000


class Chunks(Section):
    """How a recording is cut, and over which frames (in samples) the energy of a chunk is measured."""

    length_s: Positive = 5.0
    overlap_s: Annotated[float, Field(ge=0)] = 1.0
    tail_min_s: Annotated[float, Field(ge=0)] = 1.0
    energy_frame: Count = 2048
    energy_hop: Count = 512

    @model_validator(mode="after")
    def _overlap_fits(self) -> Chunks:
        if self.overlap_s >= self.length_s:
            raise ValueError("chunks.overlap_s must be smaller than chunks.length_s")
        return self


class Silence(Section):
    """A chunk is silent when its energy, by ``measure``, is under ``threshold``."""

    measure: Literal["relative", "rms", "peak"] = "relative"
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.1


class Splits(Section):
    """Who trains, who validates, who tests.

    ``test_share`` 0: no test, plain cross-validation. ``group_by``: what stands on one side only; a place is what is
    less than ``place_km`` apart. ``given``: the column of ``train_metadata.csv`` that says it instead, for each
    recording "test", "train" (in every training) or its fold from 0; nothing is dealt out then, and the leak check
    still holds.
    """

    """The hold-out test and the folds within the rest."""

    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.15
    folds: Annotated[int, Field(ge=2)] = 4
    group_by: Literal["recording", "author", "place"] = "recording"
    place_km: Positive = 1.0
    given: str | None = None


class Batches(Section):
    """A training epoch holds ``threshold`` chunks of every class.

    ``validation_chunks_per_recording`` bounds the validation that runs after each epoch (null: every kept chunk).
    The scores that are reported always use every kept chunk. The bound is ours.
    """

    threshold: Count = 128
    validation_chunks_per_recording: Count | None = 2


class Spectrogram(Section):
    """The log-mel image. ``hop`` and ``n_mels`` give the paper's 320 x 128; ``n_fft`` and the mel range are ours."""

    n_fft: Count = 2048
    hop: Count = 500
    n_mels: Count = 128
    fmin_hz: Annotated[float, Field(ge=0)] = 40.0
    fmax_hz: Positive = 15_000.0
    top_db: Positive = 80.0


class Model(Section):
    """``backbone``: custom_cnn or a keras.applications model; ``weights``: imagenet, null or a file.

    ``bn_momentum`` is that of all batch normalisation but a pretrained backbone's. Keras' 0.99 averages over hundreds
    of steps; where an epoch has ten, validation would run on the statistics of an untrained network.
    """

    backbone: str = "convnext_tiny"
    weights: str | None = "imagenet"
    hidden: tuple[Count, ...] = (1024, 512)
    bn_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


class Loss(Section):
    """What training makes smaller. Categorical cross-entropy without smoothing is the paper's; the rest is ours.

    ``kind``: "categorical_crossentropy" makes the classes share out one probability, by a softmax; with
    "binary_crossentropy" and "focal" each is judged by itself, by a sigmoid, so that there may be several birds, or
    none. Either way, phase I and phase II have the same. ``label_smoothing``: so much of each target is spread over all
    classes. ``secondary_labels``: "ignored" (the paper), "target" adds them to it with ``secondary_weight``, "masked"
    leaves them out of the loss, since nobody knows in which chunks they are.
    """

    kind: Literal["categorical_crossentropy", "binary_crossentropy", "focal"] = "categorical_crossentropy"
    focal_gamma: Positive = 2.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    secondary_labels: Literal["ignored", "target", "masked"] = "ignored"
    secondary_weight: Annotated[float, Field(gt=0, lt=1)] = 0.3

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """Of the classifier's last layer."""
        return "softmax" if self.kind == "categorical_crossentropy" else "sigmoid"


class Phase(Section):
    """One training phase under Adam. The epoch limit and the early-stopping patience are ours.

    ``feature_views`` (ours, phase I only): train the head on what a frozen backbone makes of so many augmented epochs,
    computed once; 0: the backbone runs in every epoch. The views are kept in memory: 4 bytes a feature of a chunk.
    """

    learning_rate: Positive = 1e-3
    batch_size: Count = 128
    epochs: Count = 40
    plateau_patience: Count = 2
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    early_stopping_patience: Count = 6
    feature_views: Annotated[int, Field(ge=0)] = 0


class Comparison(Section):
    """Trained beside the model in the fourth notebook for ``epochs`` epochs, to be looked at; nothing else uses them.

    ``models``: custom_cnn (the paper's first check), and from_scratch (the same backbone without pretrained weights).
    What the model itself is, is left out. ``by_author``: whether a logistic regression shows there, on as many folds,
    what it does to a score to keep each recordist on one side.
    """

    models: tuple[Literal["custom_cnn", "from_scratch"], ...] = ("custom_cnn",)
    epochs: Count = 5
    by_author: bool = True


class Testing(Section):
    """How results are read. All ours.

    ``traits_file`` null: the data folder's ``traits.csv``, else the package's. ``unlabeled_soundscapes`` are looked at
    when there is no test set; ``baseline_chunks`` of a class are what the baseline is fitted on.
    """

    traits_file: Path | None = None
    near_threatened_is_endangered: bool = False
    nocturnal_source: Literal["either", "soib", "eltontraits"] = "either"
    unlabeled_soundscapes: Annotated[int, Field(ge=0)] = 3
    baseline_chunks: Count = 128


class Soundscapes(Section):
    """How a long recording becomes rows of a chunk's length. All ours; the defaults change no probability.

    Windows of a chunk's length begin every ``step_s`` (null: a chunk's length, so that none overlap), and a row is the
    mean of those that overlap it. ``neighbours`` is what each of the two rows beside it then weighs in a row,
    ``file_mean`` what the mean of the recording weighs.
    """

    step_s: Annotated[float, Field(ge=0.2)] | None = None
    neighbours: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    file_mean: Annotated[float, Field(ge=0, le=1)] = 0.0


class Sources(Section):
    """Where the samples of a chunk come from whenever it is read. This changes the speed, and nothing else. All ours.

    ``kind`` "lazy": the recording is opened, sought in and decoded, some 3.5 ms of a core a chunk; no disk is needed.
    "pcm": every recording is decoded once, when it is cut into chunks, into a store of int16 that is mapped into memory
    (`birdlib.store`), at 0.23 GB an hour; a read costs less than a tenth. "auto": as "pcm", but "lazy" where the store
    cannot be written. ``store_dir`` null: Kaggle's scratch disk ``/kaggle/tmp``, else the user's cache folder.

    The store takes at most ``budget_gb``, and at most half of what the disk has free. BirdCLEF 2024 is some
    65 GB; where that is too much, the most useful chunks go in (`birdlib.ration`) and the rest stay lazy.
    """

    kind: Literal["lazy", "pcm", "auto"] = "auto"
    store_dir: Path | None = None
    budget_gb: Positive = 50.0


class Compute(Section):
    """What changes the speed and not the results.

    ``workers`` are processes (0: one a core); a file that takes longer than ``file_time_limit_s`` is given up, and
    tried again with ``birdlib run --from 01`` (``predict`` gives a recording more: docs/reliability.md); so many chunks
    are predicted at once; ``jit`` "auto" has XLA compile the
    training, but not under TensorFlow on a CPU, where it makes convolutions slower. ``precision`` "auto" trains in
    mixed precision on a GPU (bfloat16 from compute capability 8.0 on, else float16 with a scaled loss) and on a TPU,
    and in float32 on a CPU; images and probabilities are float32 in any case, and so is what is saved. ``devices``
    "all" shares each training batch out to all GPUs, or TPU cores, that the backend sees, but under torch, which uses
    one. ``cluster`` is the address of a Dask scheduler (``tcp://10.0.0.1:8786``), whose workers then look at files,
    cut, store and hear them; they see the same folders (docs/scaling.md). ``tensorboard`` writes each epoch's numbers
    into the run folder's ``tensorboard`` (``tensorboard --logdir``).
    """

    workers: Annotated[int, Field(ge=0)] = 0
    cluster: str | None = None
    file_time_limit_s: Positive = 120.0
    predict_batch_size: Count = 64
    jit: Literal["auto", "on", "off"] = "auto"
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    devices: Literal["all", "one"] = "all"
    tensorboard: bool = False

    @field_validator("cluster")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(tcp|tls|ws|wss)://\S+:\d+", value):
            raise ValueError("the address of a Dask scheduler, such as tcp://10.0.0.1:8786")
        return value


class Config(Section):
    """The whole of a run's settings. ``folds`` are those that are trained and tested; ``seed`` rules every draw."""

    data: Data = Data()
    audio: Audio = Audio()
    chunks: Chunks = Chunks()
    silence: Silence = Silence()
    splits: Splits = Splits()
    batches: Batches = Batches()
    augmentation: Augmentation = Augmentation()
    spectrogram: Spectrogram = Spectrogram()
    model: Model = Model()
    loss: Loss = Loss()
    phase_1: Phase = Phase()
    phase_2: Phase = Phase(learning_rate=4e-5, batch_size=16)
    comparison: Comparison = Comparison()
    testing: Testing = Testing()
    soundscapes: Soundscapes = Soundscapes()
    sources: Sources = Sources()
    compute: Compute = Compute()
    tuning: Tuning = Tuning()
    folds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("folds", mode="before")
    @classmethod
    def _one_fold_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _parts_fit(self) -> Config:
        if bad := [fold for fold in self.folds if not 0 <= fold < self.splits.folds]:
            raise ValueError(
                f"folds: there is no fold {bad[0]}; splits.folds={self.splits.folds} gives 0 to {self.splits.folds - 1}"
            )
        if self.phase_2.feature_views:
            raise ValueError(
                "phase_2.feature_views: phase II trains the backbone too; only phase I can go by its features"
            )
        if self.phase_1.feature_views and not self.model.weights:
            raise ValueError("phase_1.feature_views needs a frozen backbone: set model.weights, or feature_views=0")
        if len(set(self.folds)) < len(self.folds):
            raise ValueError("folds: a fold is named twice")
        if not self.spectrogram.fmin_hz < self.spectrogram.fmax_hz <= self.audio.sample_rate_hz / 2:
            raise ValueError("spectrogram: fmin_hz < fmax_hz <= audio.sample_rate_hz / 2 must hold")
        if self.chunk_samples < max(self.chunks.energy_frame, self.spectrogram.n_fft):
            raise ValueError("chunks.length_s: a chunk is shorter than spectrogram.n_fft or chunks.energy_frame")
        if (self.soundscapes.step_s or 0) > self.chunks.length_s:
            raise ValueError("soundscapes.step_s: above chunks.length_s, what lies between two windows goes unheard")
        return self

    @property
    def chunk_samples(self) -> int:
        """Length of a chunk in samples."""
        return round(self.chunks.length_s * self.audio.sample_rate_hz)

    @property
    def step_samples(self) -> int:
        """Distance between the starts of two chunks in samples."""
        return self.chunk_samples - round(self.chunks.overlap_s * self.audio.sample_rate_hz)

    @property
    def window_step_samples(self) -> int:
        """Distance between the starts of two windows of a soundscape in samples."""
        return round((self.soundscapes.step_s or self.chunks.length_s) * self.audio.sample_rate_hz)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of a chunk's image: (mel bands, frames, 3)."""
        return self.spectrogram.n_mels, self.chunk_samples // self.spectrogram.hop, 3


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "sample": {
        "sources.kind": "lazy",  # so small a data set is not worth a folder outside the run's
        "batches.threshold": 24,
        "batches.validation_chunks_per_recording": None,
        "augmentation.strength": 0.5,
        "augmentation.time_stretch.probability": 0.25,
        "augmentation.pitch_shift.probability": 0.25,
        "augmentation.gaussian_noise.probability": 0.25,
        "augmentation.high_pass.probability": 0.25,
        "augmentation.high_pass.max_cutoff_hz": 2000.0,
        "augmentation.band_pass.probability": 0.25,
        "augmentation.clipping.probability": 0.25,
        "model.backbone": "custom_cnn",
        "model.weights": None,
        "model.hidden": (128,),
        "model.dropout": 0.3,
        "model.bn_momentum": 0.8,
        "phase_1.batch_size": 32,
        "phase_1.epochs": 12,
        "phase_2.learning_rate": 3e-4,
        "phase_2.batch_size": 16,
        "phase_2.epochs": 5,
        **SAMPLE_TUNING,
    },
}
