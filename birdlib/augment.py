"""The paper's six waveform augmentations through audiomentations: the reference chain, run on the host.

In this order: high pass, band pass, Gaussian noise, clipping distortion, time stretch, pitch shift. One strength knob
scales how far each may go from doing nothing; how often each is applied is its own probability.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from birdlib.config import Config

EFFECTS = ("high_pass", "band_pass", "gaussian_noise", "clipping", "time_stretch", "pitch_shift")

STRENGTHS = {"weak": 0.25, "middle": 0.5, "strong": 1.0}  # of a preview
PAPERS_CLIPPING = 90  # per cent of the samples in the paper's figure; its training clips less

# audiomentations keeps an effect's parameters on the object and draws them from the global generators.
_one_at_a_time = threading.Lock()


class AugmentError(ImportError):
    """audiomentations is not installed."""


def available() -> bool:
    """Whether audiomentations is installed."""
    try:
        import audiomentations  # noqa: F401
    except ImportError:
        return False
    return True


def ranges(config: Config, strength: float | None = None) -> dict[str, dict[str, float]]:
    """How far each effect may go at a strength (None: the configured one), as audiomentations' own arguments.

    Rates are factors, cut-offs and centres Hz, widths shares of the centre, thresholds percentiles of the samples.
    """
    settings = config.augmentation
    s = settings.strength if strength is None else strength
    change = s * settings.time_stretch.max_change
    semitones = s * settings.pitch_shift.max_semitones
    noise, high, band = settings.gaussian_noise, settings.high_pass, settings.band_pass
    highest_hz = 0.45 * config.audio.sample_rate_hz  # a filter's corner has to stay below half the rate
    cutoff_hz = high.min_cutoff_hz + s * (high.max_cutoff_hz - high.min_cutoff_hz)
    return {
        "high_pass": {"min_cutoff_freq": high.min_cutoff_hz, "max_cutoff_freq": min(cutoff_hz, highest_hz)},
        "band_pass": {
            "min_center_freq": band.centre_hz,
            "max_center_freq": band.centre_hz,
            "min_bandwidth_fraction": max(band.max_width - s * (band.max_width - band.min_width), 0.05),
            "max_bandwidth_fraction": band.max_width,
        },
        "gaussian_noise": {
            "min_snr_db": noise.max_snr_db - s * (noise.max_snr_db - noise.min_snr_db),
            "max_snr_db": noise.max_snr_db,
        },
        "clipping": {
            "min_percentile_threshold": 0,
            "max_percentile_threshold": min(round(100 * s * settings.clipping.max_share), 100),
        },
        "time_stretch": {"min_rate": 1 / (1 + change), "max_rate": 1 + change},
        "pitch_shift": {"min_semitones": -semitones, "max_semitones": semitones},
    }


def furthest(config: Config, strength: float | None = None) -> dict[str, dict[str, float]]:
    """The far end of each of `ranges`, where an effect is easiest to see and hear."""
    ends = {
        "high_pass": "max_cutoff_freq",
        "band_pass": "min_bandwidth_fraction",
        "gaussian_noise": "min_snr_db",
        "clipping": "max_percentile_threshold",
        "time_stretch": "max_rate",
        "pitch_shift": "max_semitones",
    }
    pinned = {}
    for name, end in ends.items():
        pinned[name] = dict.fromkeys(("min" + end[3:], "max" + end[3:]), ranges(config, strength)[name][end])
    return pinned


def on_host(config: Config) -> Config:
    """These settings with the chain on the host, to play it; off where audiomentations is not installed."""
    where = "host" if available() else "off"
    return config.model_copy(update={"augmentation": config.augmentation.model_copy(update={"where": where})})


def effect(name: str, config: Config, strength: float | None = None, **fixed: Any):
    """One effect that is always applied; `fixed` replaces arguments of `ranges`. For previews.

    Returns
    -------
    a function (samples float32 (n,), seeds) -> float32 (n,), as `Chain` is.
    """
    return Chain(config, {name: {**ranges(config, strength)[name], **fixed, "p": 1.0}})


def preview(name: str, samples: np.ndarray, config: Config, seeds: list[int]) -> dict[str, np.ndarray]:
    """A chunk before one effect, and after it as far as it may go at each of `STRENGTHS`.

    Returns
    -------
    sounds : title, such as "weak: +1.0 semitones" -> float32 (n,). Clipping comes as in the paper's figure too. Where
        audiomentations is not installed there is only what was before, and its title says so.
    """
    if not available():
        return {"before (to see it after: pip install 'birdlib[augment]')": samples}
    sounds = {"before": samples}
    for strength, share in STRENGTHS.items():
        fixed = ranges(config, share)[name] | furthest(config, share)[name]
        sounds[f"{strength}: {amount(name, fixed)}"] = effect(name, config, **fixed)(samples, seeds)
    if name == "clipping":
        fixed = dict.fromkeys(fixed, PAPERS_CLIPPING)
        sounds[f"the paper's figure: {amount(name, fixed)}"] = effect(name, config, **fixed)(samples, seeds)
    return sounds


def limits(config: Config) -> dict[str, dict[str, str]]:
    """How often each effect is applied, and how far it may go at the settings' strength, in words."""
    rows = {}
    for name in EFFECTS:
        arguments = ranges(config)[name]
        ends = amount(name, arguments | furthest(config)[name])
        if name in ("time_stretch", "pitch_shift"):  # they go both ways
            ends = f"{amount(name, arguments)} or {ends}"
        chance = getattr(config.augmentation, name).probability
        rows[name] = {"applied to": f"{chance:.0%} of chunks", "at most": ends}
    return rows


def amount(name: str, arguments: dict[str, float]) -> str:
    """How far an effect whose arguments' ends are pinned goes, in words and units."""
    value = next(iter(arguments.values()))
    if name == "band_pass":
        centre_khz, half = arguments["min_center_freq"] / 1000, arguments["min_bandwidth_fraction"] / 2
        return f"keeps {centre_khz * (1 - half):.1f} to {centre_khz * (1 + half):.1f} kHz"
    return {
        "high_pass": f"cut-off {value / 1000:.1f} kHz",
        "gaussian_noise": f"noise {value:.0f} dB under the sound",
        "clipping": f"{value:.0f}% of the samples clipped",
        "time_stretch": f"{value:.2f} × as fast",
        "pitch_shift": f"{value:+.1f} semitones",
    }[name]


class Chain:
    """The effects one after the other on one chunk at a time.

    Parameters
    ----------
    config : its ``augmentation`` section; with strength 0, or ``where`` not "host", nothing is changed.
    arguments : effect name -> audiomentations arguments, in place of the configured ones.

    Raises
    ------
    AugmentError
        if audiomentations is needed and not installed.
    """

    def __init__(self, config: Config, arguments: dict[str, dict[str, Any]] | None = None) -> None:
        self.sample_rate_hz = config.audio.sample_rate_hz
        if arguments is None:
            on = config.augmentation.where == "host" and config.augmentation.strength > 0
            chosen = {name: ranges(config)[name] for name in EFFECTS} if on else {}
            arguments = {
                name: {**values, "p": getattr(config.augmentation, name).probability} for name, values in chosen.items()
            }
        self._names, self._last = list(arguments), []
        self._compose = _compose(arguments) if arguments else None

    @property
    def on(self) -> bool:
        """Whether it changes anything."""
        return self._compose is not None

    def __call__(self, samples: np.ndarray, seeds: list[int]) -> np.ndarray:
        """`samples` (float32 (n,), -1..1) augmented, float32 (n,); the same `seeds` give the same result."""
        if self._compose is None:
            return samples
        state = np.random.SeedSequence(seeds).generate_state(2)
        with _one_at_a_time:
            before = random.getstate(), np.random.get_state()  # noqa: NPY002
            try:
                random.seed(int(state[0]))
                np.random.seed(int(state[1]))  # noqa: NPY002
                changed = self._compose(samples=samples, sample_rate=self.sample_rate_hz)
                effects = zip(self._names, self._compose.transforms, strict=True)
                self._last = [name for name, effect in effects if effect.parameters["should_apply"]]
                return changed
            finally:
                random.setstate(before[0])
                np.random.set_state(before[1])  # noqa: NPY002

    def told(self, samples: np.ndarray, seeds: list[int], title: str) -> tuple[str, np.ndarray]:
        """Like calling it, with the effects that were drawn after the title: "draw 1: time stretch, clipping"."""
        changed = self(samples, seeds)
        drawn = [name.replace("_", " ") for name in self._last]
        return f"{title}: {', '.join(drawn) or 'nothing'}", changed


def _compose(arguments: dict[str, dict[str, Any]]):
    try:
        import audiomentations as library
    except ImportError as error:
        raise AugmentError(
            "augmentation on the host needs audiomentations: pip install 'birdlib[augment]', or augment on the device "
            "(augmentation.where=device), or not at all (augmentation.where=off)"
        ) from error
    kinds = {
        "high_pass": library.HighPassFilter,
        "band_pass": library.BandPassFilter,
        "gaussian_noise": library.AddGaussianSNR,
        "clipping": library.ClippingDistortion,
        "time_stretch": library.TimeStretch,
        "pitch_shift": library.PitchShift,
    }
    return library.Compose([kinds[name](**values) for name, values in arguments.items()])
