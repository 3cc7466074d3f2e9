import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.signal

from birdlib import augment
from birdlib import config as configs
from birdlib.augment import EFFECTS, Chain, effect, ranges
from tests.conftest import RATE_HZ, noise, song, tone

pytest.importorskip("audiomentations", reason="audiomentations is not installed; test_augment_missing is about that")

HOST = {"augmentation.where": "host"}
PAPER = configs.load("paper", HOST)
ALWAYS = configs.load("paper", HOST | {f"augmentation.{name}.probability": 1 for name in EFFECTS})
SONG = song("tinbir2", 2, 1)


def spectrum_db(samples):
    """Frequencies and power in dB by Welch's method."""
    hz, power = scipy.signal.welch(samples, RATE_HZ, nperseg=4096)
    return hz, 10 * np.log10(power + 1e-20)


def gain_db(changed, samples, low_hz, high_hz):
    """The mean change of level in a band."""
    hz, before = spectrum_db(samples)
    inside = (hz >= low_hz) & (hz <= high_hz)
    return (spectrum_db(changed)[1] - before)[inside].mean()


def loudest_hz(samples):
    hz, db = spectrum_db(samples)
    return hz[db.argmax()]


# ---- a function of the seeds and nothing else


def test_the_same_seeds_the_same_result_and_others_another():
    chain = Chain(ALWAYS)
    one = chain(SONG, [0, 1, 2])
    np.testing.assert_array_equal(chain(SONG, [0, 1, 2]), one)
    np.testing.assert_array_equal(Chain(ALWAYS)(SONG, [0, 1, 2]), one)
    for other in ([0, 1, 3], [0, 2, 1], [1, 1, 2]):
        assert not np.array_equal(chain(SONG, other), one)


def test_any_order_gives_the_same():
    chain = Chain(PAPER)
    forwards = {item: chain(SONG, [0, item]) for item in range(12)}
    backwards = {item: chain(SONG, [0, item]) for item in reversed(range(12))}
    for item in forwards:
        np.testing.assert_array_equal(forwards[item], backwards[item])
    assert len({samples.tobytes() for samples in forwards.values()}) > 8


def test_threads_give_what_one_after_the_other_gives():
    chain = Chain(ALWAYS)
    serial = [chain(SONG, [0, item]) for item in range(16)]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda item: chain(SONG, [0, item]), range(16)))
    np.testing.assert_array_equal(parallel, serial)


def test_the_global_generators_are_left_as_they_were():
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = random.random(), np.random.random()  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    Chain(ALWAYS)(SONG, [0, 1])
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002


def test_the_global_generators_do_not_matter():
    chain = Chain(ALWAYS)
    random.seed(1)
    one = chain(SONG, [0, 1])
    random.seed(2)
    np.random.seed(9)  # noqa: NPY002
    np.testing.assert_array_equal(chain(SONG, [0, 1]), one)


def test_the_input_is_left_alone():
    samples = SONG.copy()
    Chain(ALWAYS)(samples, [0, 1])
    np.testing.assert_array_equal(samples, SONG)


# ---- off, and how far


@pytest.mark.parametrize(
    "overrides", [{"augmentation.strength": 0}, {"augmentation.where": "off"}, {"augmentation.where": "device"}]
)
def test_off_is_no_change(overrides):
    chain = Chain(configs.load("paper", HOST | overrides))
    np.testing.assert_array_equal(chain(SONG, [0, 1]), SONG)


def test_probability_zero_is_no_change():
    chain = Chain(configs.load("paper", HOST | {f"augmentation.{name}.probability": 0 for name in EFFECTS}))
    np.testing.assert_array_equal(chain(SONG, [0, 1]), SONG)


def test_probability_is_how_often():
    only = {f"augmentation.{name}.probability": 0 for name in EFFECTS} | {"augmentation.clipping.probability": 0.25}
    chain = Chain(configs.load("paper", HOST | only))
    changed = sum(not np.array_equal(chain(SONG, [0, item]), SONG) for item in range(200))
    assert 30 <= changed <= 70  # 50 expected; three deviations are 18


@pytest.mark.parametrize(
    ("strength", "expected"),
    [
        (
            0.5,
            {
                "high_pass": {"min_cutoff_freq": 200, "max_cutoff_freq": 3100},
                "band_pass": {"centre": 5000, "min_bandwidth_fraction": 1.245, "max_bandwidth_fraction": 1.99},
                "gaussian_noise": {"min_snr_db": 22.5, "max_snr_db": 40},
                "clipping": {"min_percentile_threshold": 0, "max_percentile_threshold": 10},
                "time_stretch": {"min_rate": 1 / 1.125, "max_rate": 1.125},
                "pitch_shift": {"min_semitones": -2, "max_semitones": 2},
            },
        ),
        (
            1,
            {
                "high_pass": {"min_cutoff_freq": 200, "max_cutoff_freq": 6000},
                "band_pass": {"centre": 5000, "min_bandwidth_fraction": 0.5, "max_bandwidth_fraction": 1.99},
                "gaussian_noise": {"min_snr_db": 5, "max_snr_db": 40},
                "clipping": {"min_percentile_threshold": 0, "max_percentile_threshold": 20},
                "time_stretch": {"min_rate": 0.8, "max_rate": 1.25},
                "pitch_shift": {"min_semitones": -4, "max_semitones": 4},
            },
        ),
        (
            2,
            {
                "high_pass": {"min_cutoff_freq": 200, "max_cutoff_freq": 11_800},
                "band_pass": {"centre": 5000, "min_bandwidth_fraction": 0.05, "max_bandwidth_fraction": 1.99},
                "gaussian_noise": {"min_snr_db": -30, "max_snr_db": 40},
                "clipping": {"min_percentile_threshold": 0, "max_percentile_threshold": 40},
                "time_stretch": {"min_rate": 1 / 1.5, "max_rate": 1.5},
                "pitch_shift": {"min_semitones": -8, "max_semitones": 8},
            },
        ),
    ],
)
def test_ranges_by_hand(strength, expected):
    centre = expected["band_pass"].pop("centre")
    expected["band_pass"] |= {"min_center_freq": centre, "max_center_freq": centre}
    found = ranges(PAPER, strength)
    assert found == {name: pytest.approx(values) for name, values in expected.items()}
    assert found == ranges(configs.load("paper", {"augmentation.strength": strength}))


def test_the_highest_cutoff_stays_below_half_the_rate():
    overrides = {"augmentation.high_pass.max_cutoff_hz": 12_000, "augmentation.strength": 2}
    assert ranges(configs.load("paper", overrides))["high_pass"]["max_cutoff_freq"] == pytest.approx(14_400)


@pytest.mark.parametrize("name", EFFECTS)
def test_ranges_follow_from_their_own_settings(name):
    own = {
        "high_pass": {"min_cutoff_hz": 300, "max_cutoff_hz": 900},
        "band_pass": {"centre_hz": 4000, "min_width": 0.25, "max_width": 1},
        "gaussian_noise": {"min_snr_db": 3, "max_snr_db": 9},
        "clipping": {"max_share": 0.5},
        "time_stretch": {"max_change": 1},
        "pitch_shift": {"max_semitones": 12},
    }[name]
    expected = {
        "high_pass": [300, 900],
        "band_pass": [4000, 4000, 0.25, 1],
        "gaussian_noise": [3, 9],
        "clipping": [0, 50],
        "time_stretch": [0.5, 2],
        "pitch_shift": [-12, 12],
    }[name]
    found = ranges(configs.load("paper", {"augmentation": {name: own}}))
    assert list(found[name].values()) == pytest.approx(expected)
    assert all(found[other] == ranges(PAPER)[other] for other in EFFECTS if other != name)


# ---- the six, each by what it does


@pytest.mark.parametrize("snr_db", [5, 20, 40])
def test_noise_has_its_ratio(snr_db):
    samples = tone(5, 3000)
    changed = effect("gaussian_noise", PAPER, min_snr_db=snr_db, max_snr_db=snr_db)(samples, [0])
    added = changed.astype(np.float64) - samples
    assert 10 * np.log10(np.mean(np.square(samples)) / np.mean(np.square(added))) == pytest.approx(snr_db, abs=1)
    hz, db = spectrum_db(added)
    assert np.ptp([db[(hz > low) & (hz < low + 3000)].mean() for low in range(500, 15_000, 3000)]) < 1  # white


def test_high_pass_takes_what_is_below():
    samples = noise(5, 1)
    changed = effect("high_pass", PAPER, min_cutoff_freq=4000, max_cutoff_freq=4000)(samples, [0])
    assert gain_db(changed, samples, 100, 1000) < -20
    assert gain_db(changed, samples, 8000, 15_000) == pytest.approx(0, abs=1)


def test_band_pass_keeps_a_band():
    samples = noise(5, 1)
    changed = effect("band_pass", PAPER, min_bandwidth_fraction=0.5, max_bandwidth_fraction=0.5)(samples, [0])
    assert gain_db(changed, samples, 4600, 5400) > -3
    assert gain_db(changed, samples, 100, 1500) < -20
    assert gain_db(changed, samples, 12_000, 15_000) < -20


@pytest.mark.parametrize("percent", [4, 20, 90])
def test_clipping_clips_its_share(percent):
    samples = noise(5, 1)
    sizes = {"min_percentile_threshold": percent, "max_percentile_threshold": percent}
    changed = effect("clipping", PAPER, **sizes)(samples, [0])
    clipped = (changed == changed.max()) | (changed == changed.min())
    assert clipped.mean() == pytest.approx(percent / 100, abs=0.01)
    np.testing.assert_array_equal(changed[~clipped], samples[~clipped])


@pytest.mark.parametrize("rate", [0.8, 1.25])
def test_stretching_changes_the_tempo_and_not_the_pitch(rate):
    pulses = tone(5, 3000) * (np.arange(5 * RATE_HZ) % RATE_HZ < 0.2 * RATE_HZ)  # one a second
    changed = effect("time_stretch", PAPER, min_rate=rate, max_rate=rate)(pulses.astype(np.float32), [0])
    assert loudest_hz(changed) == pytest.approx(3000, rel=0.01)
    envelope = np.convolve(np.abs(changed), np.ones(1600) / 1600, "same")[::160]  # 200 a second
    again = scipy.signal.correlate(envelope - envelope.mean(), envelope - envelope.mean(), "full")[len(envelope) :]
    apart_s = (again[100:300].argmax() + 101) / 200
    assert apart_s == pytest.approx(1 / rate, rel=0.02)


@pytest.mark.parametrize("semitones", [-4, 4])
def test_shifting_changes_the_pitch_and_not_the_tempo(semitones):
    pulses = (tone(5, 3000) * (np.arange(5 * RATE_HZ) % RATE_HZ < 0.2 * RATE_HZ)).astype(np.float32)
    changed = effect("pitch_shift", PAPER, min_semitones=semitones, max_semitones=semitones)(pulses, [0])
    assert loudest_hz(changed) == pytest.approx(3000 * 2 ** (semitones / 12), rel=0.01)
    for second in range(5):
        piece = np.abs(changed[second * RATE_HZ : (second + 1) * RATE_HZ])
        assert piece[: RATE_HZ // 4].mean() > 10 * piece[RATE_HZ // 2 :].mean()


@pytest.mark.parametrize("strength", [0.5, 1, 2])
@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_is_always_applied_and_keeps_the_form(name, strength):
    once = effect(name, PAPER, strength)
    draws = [once(SONG, [0, item]) for item in range(5)]
    for changed in draws:
        assert (changed.dtype, changed.shape) == (np.float32, SONG.shape)
        assert np.isfinite(changed).all()
    # Clipping draws a whole percentage from 0 on, and 0 % changes nothing.
    assert sum(not np.array_equal(changed, SONG) for changed in draws) >= (1 if name == "clipping" else 5)


@pytest.mark.parametrize("samples", [SONG, np.zeros(64_000, np.float32), noise(2, 1, 1e-5)], ids=["song", "0", "faint"])
def test_the_chain_keeps_the_form(samples):
    chain = Chain(configs.load("paper", HOST | {"augmentation.strength": 2}))
    for item in range(10):
        changed = chain(samples, [0, item])
        assert (changed.dtype, changed.shape) == (np.float32, samples.shape)
        assert np.isfinite(changed).all()


def test_stronger_is_farther():
    # The same draws on a longer scale: the noise of strength 2 is louder than that of 0.5.
    levels = []
    for strength in (0.5, 1, 2):
        once = effect("gaussian_noise", PAPER, strength)
        levels.append(np.mean([np.abs(once(SONG, [0, item]) - SONG).mean() for item in range(5)]))
    assert levels[0] < levels[1] < levels[2]


def test_the_chain_has_the_papers_six_in_this_order():
    kinds = [type(one).__name__ for one in Chain(PAPER)._compose.transforms]
    assert kinds == [
        *("HighPassFilter", "BandPassFilter", "AddGaussianSNR", "ClippingDistortion", "TimeStretch", "PitchShift")
    ]


def test_the_configured_probabilities_reach_the_chain():
    config = configs.load(
        "paper", HOST | {f"augmentation.{name}.probability": n / 10 for n, name in enumerate(EFFECTS)}
    )
    assert [one.p for one in Chain(config)._compose.transforms] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


# ---- previews


def test_a_preview_shows_what_was_before_and_three_strengths_with_their_amounts():
    shown = augment.preview("pitch_shift", SONG, PAPER, [0])
    assert list(shown) == ["before", "weak: +1.0 semitones", "middle: +2.0 semitones", "strong: +4.0 semitones"]
    np.testing.assert_array_equal(shown["before"], SONG)
    tones = augment.preview("pitch_shift", tone(1, 1000), PAPER, [0])
    heard = [loudest_hz(samples) for samples in tones.values()]
    np.testing.assert_allclose(heard, 1000 * 2.0 ** (np.array([0, 1, 2, 4]) / 12), rtol=0.01)


def test_the_amounts_of_previews_are_what_is_done():
    sound = noise(2, 1)
    strong = list(augment.preview("high_pass", sound, PAPER, [0]).items())[-1]
    assert strong[0] == "strong: cut-off 6.0 kHz"
    assert gain_db(strong[1], sound, 500, 2000) < -20
    kept = list(augment.preview("band_pass", sound, PAPER, [0]).items())[-1]
    assert kept[0] == "strong: keeps 3.8 to 6.2 kHz"
    assert gain_db(kept[1], sound, 4500, 5500) > -1.5 > gain_db(kept[1], sound, 500, 1500)
    noisy = list(augment.preview("gaussian_noise", tone(2, 1000), PAPER, [0]).items())[-1]
    assert noisy[0] == "strong: noise 5 dB under the sound"
    ratio = np.var(tone(2, 1000)) / np.var(noisy[1] - tone(2, 1000))
    assert 10 * np.log10(ratio) == pytest.approx(5, abs=0.5)


def test_clipping_is_shown_as_in_the_papers_figure_too():
    title, clipped = list(augment.preview("clipping", SONG, PAPER, [0]).items())[-1]
    assert title == "the paper's figure: 90% of the samples clipped"
    at_the_limits = np.mean((clipped == clipped.max()) | (clipped == clipped.min()))
    assert at_the_limits == pytest.approx(0.9, abs=0.02)


def test_a_stretch_says_how_fast():
    assert list(augment.preview("time_stretch", SONG, PAPER, [0]))[1:] == [
        "weak: 1.06 × as fast",
        "middle: 1.12 × as fast",
        "strong: 1.25 × as fast",
    ]


def test_the_limits_are_said_with_how_often():
    limits = augment.limits(PAPER)
    assert list(limits) == list(EFFECTS)
    assert limits["high_pass"] == {"applied to": "50% of chunks", "at most": "cut-off 6.0 kHz"}
    assert limits["time_stretch"]["at most"] == "0.80 × as fast or 1.25 × as fast"
    assert limits["pitch_shift"]["at most"] == "-4.0 semitones or +4.0 semitones"


def test_what_was_drawn_is_told():
    title, changed = Chain(ALWAYS).told(SONG, [1], "draw 1")
    assert title == "draw 1: " + ", ".join(name.replace("_", " ") for name in EFFECTS)
    np.testing.assert_array_equal(changed, Chain(ALWAYS)(SONG, [1]))
    never = configs.load("paper", {f"augmentation.{name}.probability": 0 for name in EFFECTS})
    assert Chain(never).told(SONG, [1], "draw 2")[0] == "draw 2: nothing"
    off = configs.load("paper", {"augmentation.where": "off"})
    assert Chain(off).told(SONG, [1], "draw 3")[0] == "draw 3: nothing"
