"""The settings of the augmentation: one section an effect, with its probability and its range.

The numbers are those of the preset ``paper``, as in `birdlib.settings`: the paper's, or ours, marked so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from birdlib.settings_section import Count, Positive, Section, Share


class TimeStretch(Section):
    """Faster or slower with the pitch kept: rates from 1 / (1 + ``max_change``) to 1 + ``max_change``. Range ours."""

    probability: Share = 0.5
    max_change: Positive = 0.25


class PitchShift(Section):
    """Higher or lower with the tempo kept, by up to ``max_semitones``. Range ours."""

    probability: Share = 0.5
    max_semitones: Positive = 4.0


class GaussianNoise(Section):
    """White noise at a signal-to-noise ratio drawn from this range. Range ours."""

    probability: Share = 0.5
    min_snr_db: float = 5.0
    max_snr_db: float = 40.0


class HighPass(Section):
    """Attenuates below a cut-off drawn from this range (the paper's)."""

    probability: Share = 0.5
    min_cutoff_hz: Positive = 200.0
    max_cutoff_hz: Positive = 6000.0


class BandPass(Section):
    """Keeps a band around ``centre_hz`` (the paper's); its width is a share of the centre, drawn from this range."""

    probability: Share = 0.5
    centre_hz: Positive = 5000.0
    min_width: Annotated[float, Field(gt=0, lt=2)] = 0.5
    max_width: Annotated[float, Field(gt=0, lt=2)] = 1.99


class Clipping(Section):
    """Clips up to this share of the samples. The paper's figure clips 90 %, its training less; how much is ours."""

    probability: Share = 0.5
    max_share: Share = 0.2


class TimeShift(Section):
    """Turns the chunk round itself, by up to ``max_share`` of its length either way. Ours, off in the presets."""

    probability: Share = 0.0
    max_share: Annotated[float, Field(gt=0, le=0.5)] = 0.5


class Background(Section):
    """Adds other sound, from the recordings in ``dir``, at a signal-to-noise ratio drawn from this range. Ours, off.

    ``chunks`` stretches of the recordings are held in memory, on the device, for the whole of a training.
    """

    probability: Share = 0.0
    dir: Path | None = None
    chunks: Count = 64
    min_snr_db: float = 3.0
    max_snr_db: float = 30.0

    @model_validator(mode="after")
    def _there_is_a_folder(self) -> Background:
        if self.probability > 0 and self.dir is None:
            raise ValueError(
                "augmentation.background.probability is more than 0: name the folder of background recordings in "
                "augmentation.background.dir"
            )
        return self


class CutOut(Section):
    """Blanks ``count`` boxes, each up to ``max_share`` of the image's height and of its width. Numbers ours."""

    probability: Share = 0.5
    count: Count = 2
    max_share: Share = 0.3


class MixUp(Section):
    """Mixes an image with another of its batch, whose share is the smaller part of a draw from Beta(alpha, alpha).

    ``labels``: "convex" mixes the labels as the images are mixed, "maximum" keeps both whole. Ours, off in the presets.
    """

    probability: Share = 0.0
    alpha: Positive = 0.5
    labels: Literal["convex", "maximum"] = "convex"


class Augmentation(Section):
    """The paper's six on the sound, then the cut-out on the image; and three more that the presets leave out.

    ``where``: "device" makes them layers in front of the network, "host" runs the six as the audiomentations chain,
    "off" leaves the sound alone; cut-out and mixup are on the device in any case. ``strength`` scales how far each
    effect may go (0: not at all, 1: the ranges below, 2: twice as far), not how often.
    """

    where: Literal["device", "host", "off"] = "device"
    strength: Annotated[float, Field(ge=0, le=2)] = 1.0
    time_stretch: TimeStretch = TimeStretch()
    pitch_shift: PitchShift = PitchShift()
    gaussian_noise: GaussianNoise = GaussianNoise()
    high_pass: HighPass = HighPass()
    band_pass: BandPass = BandPass()
    clipping: Clipping = Clipping()
    time_shift: TimeShift = TimeShift()
    background: Background = Background()
    cut_out: CutOut = CutOut()
    mixup: MixUp = MixUp()

    @model_validator(mode="after")
    def _the_host_has_only_the_six(self) -> Augmentation:
        both = {"time_shift": self.time_shift, "background": self.background}
        if self.where == "host" and (wanted := [name for name, effect in both.items() if effect.probability > 0]):
            raise ValueError(
                f"augmentation.where=host has no {' and no '.join(wanted)}: set the probability to 0, or where=device"
            )
        return self
