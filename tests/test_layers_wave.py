"""The effects on the waveform against scipy, numpy and percentiles; under any backend."""

import keras
import numpy as np
import pytest
import scipy.signal
import scipy.stats

from birdlib import config as configs
from birdlib import layers_wave
from tests.conftest import RATE_HZ, noise, tone

SAMPLES = 5 * RATE_HZ


def config(strength=1.0, **sections):
    return configs.load("paper", {"augmentation": {"strength": strength, **sections}})


def changed(layer, samples, numbers, training=True):
    """What a layer makes of samples (batch, n), every row by the same numbers or each by its own."""
    samples = np.atleast_2d(np.asarray(samples, np.float32))
    numbers = np.broadcast_to(np.asarray(numbers, np.float32), (len(samples), np.shape(numbers)[-1]))
    return keras.ops.convert_to_numpy(layer(samples, numbers.copy(), training=training))


def rms_db(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=np.float64), axis=-1))


# --- filters -------------------------------------------------------------------------------------------------------

STEEPNESS = {2: 0.1, 3: 0.5, 4: 0.9}  # an order, and a number that draws it
NOT = (1.0, 0.5, 0.5)  # 1 is under no probability
IMPULSE = np.eye(1, SAMPLES, SAMPLES // 2)[0]
HZ = np.fft.rfftfreq(SAMPLES, 1 / RATE_HZ)


def high_pass(cutoff_hz):
    return layers_wave.Filters(config(high_pass={"min_cutoff_hz": cutoff_hz, "max_cutoff_hz": cutoff_hz}))


def band_pass(width):
    return layers_wave.Filters(config(band_pass={"min_width": width, "max_width": width}))


def response_db(layer, numbers):
    """The level of what the layer makes of an impulse, at each of `HZ`."""
    return 20 * np.log10(np.abs(np.fft.rfft(changed(layer, IMPULSE, numbers)[0].astype(np.float64))) + 1e-20)


def scipys_db(order, corners_hz, kind):
    sos = scipy.signal.butter(order, corners_hz, kind, fs=RATE_HZ, output="sos")
    return 20 * np.log10(np.abs(scipy.signal.sosfreqz(sos, HZ, fs=RATE_HZ)[1]) + 1e-20)


def compare_responses(found, expected):
    # From 30 Hz on (the image begins at 40), and down to 80 dB, where the image ends.
    seen = (HZ > 30) & (HZ < 15_900) & (expected > -80)
    np.testing.assert_allclose(found[seen], expected[seen], rtol=0, atol=1)
    assert found[(HZ > 30) & (expected < -85)].max(initial=-200) < -75


@pytest.mark.parametrize("order", STEEPNESS)
@pytest.mark.parametrize("cutoff_hz", [200, 800, 3000, 6000])
def test_high_pass_has_scipys_response(cutoff_hz, order):
    found = response_db(high_pass(cutoff_hz), [0, 0.3, STEEPNESS[order], *NOT])
    compare_responses(found, scipys_db(order, cutoff_hz, "highpass"))
    assert found[np.searchsorted(HZ, cutoff_hz)] == pytest.approx(-3, abs=0.1)


@pytest.mark.parametrize("order", STEEPNESS)
@pytest.mark.parametrize("width", [0.1, 0.5, 1.2, 1.99])
def test_band_pass_has_scipys_response(width, order):
    found = response_db(band_pass(width), [*NOT, 0, 0.3, STEEPNESS[order]])
    compare_responses(found, scipys_db(order, [5000 * (1 - width / 2), 5000 * (1 + width / 2)], "bandpass"))


def test_both_filters_at_once_are_one_after_the_other():
    both = response_db(layers_wave.Filters(config()), [0, 1, 0.5, 0, 1, 0.9])  # at 6000 Hz; from 25 to 9975 Hz
    expected = scipys_db(3, 6000, "highpass") + scipys_db(4, [25, 9975], "bandpass")
    compare_responses(both, expected)


def test_cut_offs_are_drawn_evenly_in_mel():
    # As audiomentations does: half-way between 200 and 6000 Hz on 2595 log10(1 + f / 700) is 1755.8 Hz.
    found = response_db(layers_wave.Filters(config()), [0, 0.5, 0.5, *NOT])
    compare_responses(found, scipys_db(3, np.sqrt(900 * 6700) - 700, "highpass"))


def test_filters_delay_nothing():
    found = changed(high_pass(3000), IMPULSE, [0, 0.3, 0.9, *NOT])[0]
    assert np.abs(found).argmax() == SAMPLES // 2
    np.testing.assert_allclose(found[1:], found[:0:-1], atol=1e-5)  # the same before as after


def test_a_chunk_whose_end_is_not_at_its_beginning_does_not_click():
    hum = tone(5, 50.07, 0.5)  # jumps by 0.06 from its end to its beginning
    assert abs(hum[-1] - hum[0]) > 0.05
    assert np.abs(changed(high_pass(6000), hum, [0, 0.3, 0.9, *NOT])).max() < 0.005


def test_a_sample_without_filters_is_as_it_was():
    samples = np.stack([noise(5, 1), noise(5, 2)])
    own = np.array([[*NOT, *NOT], [0, 0.9, 0.9, *NOT]])
    found = changed(layers_wave.Filters(config()), samples, own)
    np.testing.assert_allclose(found[0], samples[0], atol=1e-6)
    assert rms_db(found[1] - samples[1]) > -30


def test_filters_of_another_length_and_rate():
    small = configs.load(
        "paper",
        {
            "audio.sample_rate_hz": 22_050,
            "chunks.length_s": 1.1111,
            "spectrogram.fmax_hz": 11_000,
            "augmentation": {"high_pass": {"min_cutoff_hz": 2000, "max_cutoff_hz": 2000}},
        },
    )
    assert small.chunk_samples == 24_500
    time_s = np.arange(small.chunk_samples) / 22_050
    sounds = [np.sin(2 * np.pi * hz * time_s) for hz in (500, 2000, 6000)]
    found = changed(layers_wave.Filters(small), sounds, [0, 0, 0.1, *NOT])
    middle = slice(3000, -3000)
    sos = scipy.signal.butter(2, 2000, "highpass", fs=22_050, output="sos")
    expected = 20 * np.log10(np.abs(scipy.signal.sosfreqz(sos, [500, 2000, 6000], fs=22_050)[1]))
    np.testing.assert_allclose(rms_db(found[:, middle]) - rms_db(np.array(sounds)[:, middle]), expected, atol=0.5)


# --- noise ---------------------------------------------------------------------------------------------------------

GOLDEN = [-0.245036, 0.618548, 1.159761]  # the first numbers of the second seed, as TensorFlow had them
SEEDS = [[0.0, 0.0], [0.25, 0.75], [0.25, 0.7500001], [0.2500001, 0.75], [0.9999999, 0.1]]


def pure_noise(seeds=SEEDS, samples=SAMPLES):
    layer = layers_wave.GaussianNoise(config())
    found = layer.noise(np.array(seeds, np.float32), samples, np.ones(len(seeds), np.float32))
    return keras.ops.convert_to_numpy(found)


@pytest.mark.parametrize("snr_db", [-5, 5, 20, 40])
def test_noise_has_the_snr_that_is_asked_for(snr_db):
    layer = layers_wave.GaussianNoise(config(gaussian_noise={"min_snr_db": snr_db, "max_snr_db": snr_db}))
    samples = np.stack([tone(5, 3000), noise(5, 1, 0.001), 10_000 * tone(5, 500)])
    found = changed(layer, samples, [0, 0.7, 0.3, 0.6])
    np.testing.assert_allclose(rms_db(samples) - rms_db(found - samples), snr_db, atol=0.5)


def test_snrs_are_drawn_from_the_range():
    samples = np.repeat(tone(5, 3000)[None], 3, axis=0)
    own = [[0, 0, 0.1, 0.2], [0, 0.5, 0.3, 0.4], [0, 1, 0.5, 0.6]]
    for strength, expected in ((1.0, [5, 22.5, 40]), (0.5, [22.5, 31.25, 40])):
        found = changed(layers_wave.GaussianNoise(config(strength)), samples, own)
        np.testing.assert_allclose(rms_db(samples) - rms_db(found - samples), expected, atol=0.5)


def test_noise_is_a_function_of_its_seed_alone():
    found = pure_noise()
    np.testing.assert_array_equal(pure_noise(SEEDS[::-1]), found[::-1])
    np.testing.assert_array_equal(pure_noise(SEEDS[1:2])[0], found[1])
    np.testing.assert_array_equal(pure_noise(samples=32_100), found[:, :32_100])
    # Different seeds, even neighbours: no more in common than chance has.
    likeness = np.corrcoef(found) - np.eye(len(SEEDS))
    assert np.abs(likeness).max() < 5 / np.sqrt(SAMPLES)


def test_noise_is_the_same_under_every_backend():
    found = pure_noise([[0.25, 0.75]], 3000)[0]
    np.testing.assert_allclose(found[:3], GOLDEN, atol=1e-6)


def test_noise_is_normal():
    for found in pure_noise():
        assert scipy.stats.kstest(found, "norm").pvalue > 0.001
        assert abs(scipy.stats.skew(found)) < 5 * np.sqrt(6 / SAMPLES)
        assert abs(scipy.stats.kurtosis(found)) < 5 * np.sqrt(24 / SAMPLES)


def test_noise_is_white():
    for found in pure_noise():
        spectrum = np.fft.rfft(found, 2 * SAMPLES)
        likeness = np.fft.irfft(np.square(np.abs(spectrum)))[: SAMPLES // 2]  # with itself, later
        assert likeness[0] == pytest.approx(SAMPLES, rel=0.02)
        assert np.abs(likeness[1:] / likeness[0]).max() < 6 / np.sqrt(SAMPLES)
        _, power = scipy.signal.welch(found, nperseg=256, detrend=False)
        np.testing.assert_allclose(power[1:-1], 2, rtol=0.25)  # some 1250 segments: three deviations are 0.1
        parts = found.reshape(50, -1).std(axis=1)  # as loud at the end as at the beginning
        np.testing.assert_allclose(parts, 1, atol=5 / np.sqrt(2 * SAMPLES / 50))


def test_noise_of_silence_is_silence():
    assert (changed(layers_wave.GaussianNoise(config()), np.zeros(SAMPLES), [0, 0, 0.5, 0.5]) == 0).all()


# --- clipping ------------------------------------------------------------------------------------------------------

FADING = noise(5, 4, 0.3) * np.exp(-np.arange(SAMPLES) / 20_000)
SOUNDS = {
    "noise": noise(5, 1, 0.1),
    "laplace": np.random.default_rng(2).laplace(0, 500, SAMPLES),
    "tone": tone(5, 3017),
    "lopsided": np.random.default_rng(3).exponential(1.0, SAMPLES),
    "fading": FADING,
}


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.4, 0.9])
def test_as_many_samples_are_clipped_as_is_asked_for(share):
    layer = layers_wave.Clipping(config(clipping={"max_share": share}))
    samples = np.stack(list(SOUNDS.values())).astype(np.float32)
    found = changed(layer, samples, [0, 1])
    np.testing.assert_allclose((found != samples).mean(axis=1), share, atol=0.01)
    below, above = (found > samples).mean(axis=1), (found < samples).mean(axis=1)
    np.testing.assert_allclose(below, share / 2, atol=0.01)
    np.testing.assert_allclose(above, share / 2, atol=0.01)
    for row, name in enumerate(SOUNDS):
        # What is clipped stands at two levels; all else is as it was.
        assert len(np.unique(found[row][found[row] != samples[row]])) == 2, name


def test_each_is_clipped_by_its_own_share():
    layer = layers_wave.Clipping(config(clipping={"max_share": 0.4}))
    samples = np.repeat(noise(5, 1)[None], 4, axis=0)
    found = changed(layer, samples, [[0, 0.25], [0.9, 1], [0, 1], [0, 0.5]])
    np.testing.assert_allclose((found != samples).mean(axis=1), [0.1, 0, 0.4, 0.2], atol=0.01)


def test_half_the_strength_clips_half_as_much():
    found = changed(layers_wave.Clipping(config(0.5)), noise(5, 1), [0, 1])
    assert (found != noise(5, 1)).mean() == pytest.approx(0.1, abs=0.01)


def test_clipping_of_few_levels_is_no_worse_than_they_allow():
    steps = np.random.default_rng(0).integers(-2, 3, SAMPLES).astype(np.float32)  # a fifth each
    found = changed(layers_wave.Clipping(config()), steps, [0, 1])[0]
    assert (found != steps).mean() <= 0.41
    assert (changed(layers_wave.Clipping(config()), np.zeros(SAMPLES), [0, 1]) == 0).all()


# --- time shift ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "by_s"), [(0.5, 0.0), (0.75, 1.25), (0.25, -1.25), (1.0, 2.5), (0.6, 0.5)])
def test_the_chunk_turns_round_itself(number, by_s):
    layer = layers_wave.TimeShift(config(time_shift={"probability": 1}))
    samples = noise(5, 1)
    np.testing.assert_array_equal(changed(layer, samples, [0, number])[0], np.roll(samples, round(by_s * RATE_HZ)))


def test_each_is_shifted_by_its_own():
    layer = layers_wave.TimeShift(config(0.5, time_shift={"probability": 0.5, "max_share": 0.2}))
    samples = np.stack([noise(5, seed) for seed in range(3)])
    found = changed(layer, samples, [[0.1, 1], [0.6, 1], [0.2, 0]])
    for row, by in enumerate((16_000, 0, -16_000)):  # a tenth of the chunk
        np.testing.assert_array_equal(found[row], np.roll(samples[row], by))


# --- background ----------------------------------------------------------------------------------------------------

POOL = np.round(3000 * np.stack([tone(5, 1000), noise(5, 5), tone(5, 7000)])).astype(np.int16)


def background(snr_db=10.0, **settings):
    settings = {"probability": 1, "dir": "x", "min_snr_db": snr_db, "max_snr_db": snr_db, **settings}
    return layers_wave.Background(config(background=settings), POOL)


def test_a_background_is_chosen_begun_anywhere_and_added_at_its_snr():
    samples = np.stack([noise(5, 1), noise(5, 2), noise(5, 3)])
    own = np.array([[0, 0.9, 0.0, 0.5], [0, 0.4, 0.25, 0.5], [0, 0.1, 0.9, 0.5]])
    added = changed(background(), samples, own) - samples
    np.testing.assert_allclose(rms_db(samples) - rms_db(added), 10, atol=0.5)
    for row, (chunk, begin) in enumerate([(2, 0), (1, 40_000), (0, 144_000)]):
        expected = np.roll(POOL[chunk], -begin).astype(np.float64)
        assert np.corrcoef(added[row], expected)[0, 1] > 0.9999


def test_a_background_that_is_not_drawn_is_not_added():
    samples = noise(5, 1)
    np.testing.assert_array_equal(changed(background(probability=0.5), samples, [0.5, 0.1, 0, 0])[0], samples)


def test_background_without_sound_is_refused():
    with pytest.raises(ValueError, match="pool of background"):
        layers_wave.Background(config(background={"probability": 1, "dir": "x"}))
    assert (changed(background(), np.zeros(SAMPLES), [0, 0.5, 0, 0]) == 0).all()


# --- all of them ---------------------------------------------------------------------------------------------------

ALWAYS = {
    "high_pass": {"probability": 1},
    "band_pass": {"probability": 1},
    "gaussian_noise": {"probability": 1},
    "clipping": {"probability": 1},
    "time_shift": {"probability": 1},
    "background": {"probability": 1, "dir": "x"},
}
EFFECTS = {
    "filters": (lambda c: layers_wave.Filters(c), 6),
    "noise": (lambda c: layers_wave.GaussianNoise(c), 4),
    "clipping": (lambda c: layers_wave.Clipping(c), 2),
    "time shift": (lambda c: layers_wave.TimeShift(c), 2),
    "background": (lambda c: layers_wave.Background(c, POOL), 4),
}


@pytest.mark.parametrize("name", EFFECTS)
def test_a_sample_is_the_same_alone_and_in_any_batch(name):
    make, size = EFFECTS[name]
    layer, numbers = make(config(**ALWAYS)), np.random.default_rng(1).random((4, size), np.float32)
    samples = np.stack([noise(5, 1, 0.5), noise(5, 2, 0.001), tone(5, 900), tone(5, 5000, 0.01)])
    together = changed(layer, samples, numbers)
    for row in range(4):
        scale = np.abs(together[row]).max()
        alone = changed(layer, samples[row], numbers[row])[0]
        np.testing.assert_allclose(alone, together[row], rtol=0, atol=1e-5 * scale)
        assert np.abs(together[row] - samples[row]).max() > 1e-3 * scale  # and something was done


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize(("strength", "training"), [(1.0, False), (0.0, True)])
def test_nothing_happens_at_inference_or_at_no_strength(name, strength, training):
    make, size = EFFECTS[name]
    samples = noise(5, 1)
    found = changed(make(config(strength, **ALWAYS)), samples, [0] + [0.9] * (size - 1), training)
    np.testing.assert_array_equal(found[0], samples)


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_comes_as_often_as_its_probability(name):
    make, size = EFFECTS[name]
    sections = {key: {**settings, "probability": 0.3} for key, settings in ALWAYS.items()}
    short = configs.load("paper", {"chunks.length_s": 0.1, "chunks.overlap_s": 0.02, "augmentation": sections})
    numbers = np.random.default_rng(3).random((500, size), np.float32)
    if name == "filters":
        numbers[:, 3] = 1
    samples = np.random.default_rng(4).normal(size=(500, short.chunk_samples)).astype(np.float32)
    pool = POOL[:, : short.chunk_samples]
    layer = layers_wave.Background(short, pool) if name == "background" else make(short)
    touched = np.abs(changed(layer, samples, numbers) - samples).max(axis=1) > 1e-4
    drawn = numbers[:, 0] < 0.3
    assert not touched[~drawn].any()
    assert touched[drawn].mean() > 0.9  # a shift by nothing, or a share of nothing, is drawn now and then
