"""What the figures say and that they can be read; whether they are handsome, only eyes can test."""

import io
import subprocess
import sys
from unittest import mock

import librosa
import matplotlib as mpl
import nbclient
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from birdlib import plots

MEL_HZ = librosa.mel_frequencies(130, fmin=40, fmax=15_000)[1:-1]
PICTURE = np.random.default_rng(0).uniform(0, 255, (128, 320, 3))
BIRDS = ["Greater Racket-tailed Drongo", "White-bellied Blue Flycatcher", "Nilgiri Wood Pigeon", "Asian Koel"]
LONG = "taken for Greater Racket-tailed Drongo, at a probability of 83 %"


def _labels(count: int) -> list[str]:
    return [f"{'abcdgmw'[number % 7]}wbow{number:03d}" for number in range(count)]


def _names(labels: list[str]) -> dict[str, str]:
    return {label: f"{BIRDS[number % 4]} {number}" for number, label in enumerate(labels)}


def _phases(first: int, second: int) -> pd.DataFrame:
    table = pd.concat([_history(first).assign(phase="I"), _history(second).assign(phase="II")])
    return table.assign(epoch=np.arange(1, len(table) + 1))


def _history(epochs: int) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    val_loss = 2 + (epoch - 3.2) ** 2 / 10
    table = {"epoch": epoch, "loss": 5 / epoch, "accuracy": 1 - 1 / epoch, "val_loss": val_loss}
    return pd.DataFrame(table | {"val_accuracy": 0.7 - 0.5 / epoch, "learning_rate": 1e-3 * 0.5 ** (epoch // 3)})


def _splits(labels: list[str], count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"filename": np.arange(count).astype(str), "group": np.arange(count)})
    table["primary_label"] = rng.choice(labels, count)
    table["split"] = np.where(np.arange(count) % 7, "train", "test")
    table["fold"] = np.where(table["split"] == "test", -1, rng.integers(-1, 4, count))
    return table


def _by_class(count: int) -> dict[str, plots.Figure]:
    rng, labels = np.random.default_rng(count), _labels(count)
    names, chunks = _names(labels), pd.Series(rng.integers(3, 12_000, count), index=labels)
    shares = pd.DataFrame(rng.random((count, 3)), index=labels, columns=["relative", "rms", "peak"])
    shares.iloc[:2, 0] = 1
    matrix = rng.integers(0, 4, (count, count)) + np.diag(rng.integers(0, 90, count))
    truth = pd.DataFrame({"start_s": [3.0, 40], "end_s": [9.0, 47], "primary_label": [labels[-1], labels[0]]})
    epoch = pd.DataFrame({"there": chunks, "epoch": 500, "different": chunks.clip(upper=500)})
    predictions, image = rng.dirichlet(np.ones(count), 48), {"image": PICTURE, "mel_frequencies_hz": MEL_HZ}
    return {
        "class_counts": plots.class_counts(chunks // 20, names),
        "class_counts, alike": plots.class_counts(chunks * 0 + 12_345, names),
        "chunk_counts": plots.chunk_counts(chunks, (chunks * shares["rms"]).astype(int), names),
        "dropped_by_measure": plots.dropped_by_measure(shares, names),
        "epoch_balance": plots.epoch_balance(epoch, 500, names),
        "confusion": plots.confusion(matrix, labels, names),
        "per_class": plots.per_class(
            pd.DataFrame({"recall": shares["peak"].round(2), "precision": shares["rms"], "chunks": chunks}), names
        ),
        "fold_sides": plots.fold_sides(_splits(labels, 100 * count)),
        "timeline": plots.timeline(predictions, np.arange(48) * 5.0, 5.0, labels, truth, names=names),
        "timeline, image": plots.timeline(predictions, np.arange(48) * 5.0, 5.0, labels, truth, names=names, **image),
    }


def _others() -> dict[str, plots.Figure]:
    rng = np.random.default_rng(0)
    scores = pd.Series({"baseline": 0.18, "phase I": 0.163, "phase II": 0.603, "test": 0.568})
    titles, waves = ["strong: +4 semitones", LONG, "a", "two\nlines", "b"], rng.normal(0, 0.1, (5, 40_000))
    sounds = dict(zip(titles, waves, strict=True))
    authors = pd.Series(
        rng.integers(1, 900, 60), index=[f"{BIRDS[number % 4]} Recordist {number}" for number in range(60)]
    )
    world, india = rng.uniform((-60, -180), (75, 180), (500, 2)), rng.uniform((8, 73), (20, 78), (300, 2))
    lasting = rng.normal(0, 0.1, 22 * 8000)
    return {
        "lengths": plots.lengths(pd.Series(rng.lognormal(3, 1, 500))),
        "lengths, alike": plots.lengths(pd.Series([12.0, 14, 13, 14.5])),
        "ranking": plots.ranking(authors, "Recordists", "recordings"),
        "ratings": plots.ratings(pd.Series(rng.integers(0, 11, 20_000) / 2)),
        "places, world": plots.places(pd.Series(world[:, 0]), pd.Series(world[:, 1])),
        "places, India": plots.places(pd.Series(india[:, 0]), pd.Series(india[:, 1])),
        "places, one": plots.places(pd.Series([11.4]), pd.Series([76.7])),
        "cut": plots.cut(lasting, 8000, [0, 4, 8, 12, 16, 20], 5.0, [1, 0, 1, 1, 0, 1], PICTURE, MEL_HZ),
        "energies": plots.energies(rng.uniform(0, 1, 900), 0.1, "relative"),
        "energies, all over": plots.energies(rng.uniform(0.5, 1, 900), 0.1, "peak"),
        "energies, many": plots.energies(rng.lognormal(-3, 2, 90_000), 0.1, "rms"),
        "images": plots.images([PICTURE] * 5, [f"pitch up {n} semitones, {LONG}" for n in range(5)], MEL_HZ, 5.0),
        "images, four a row": plots.images([PICTURE] * 8, [LONG] * 8, MEL_HZ, 5.0, columns=4),
        "one image": plots.images([PICTURE[..., 0]], ["a"], MEL_HZ, 5.0),
        "three sounds": plots.sounds(dict(list(sounds.items())[:3]), [PICTURE] * 3, MEL_HZ, 5.0),
        "five sounds": plots.sounds(sounds, [PICTURE] * 5, MEL_HZ, 5.0),
        "five sounds, own scale": plots.sounds(sounds, [PICTURE] * 5, MEL_HZ, 5.0, own_scale=True),
        "curves": plots.curves(_history(17), "Phase I"),
        "curves, one epoch": plots.curves(_history(1), "Phase I"),
        "whole_run": plots.whole_run(_phases(12, 20), "Fold 0"),
        "whole_run, best": plots.whole_run(_phases(12, 20).assign(best=np.arange(32) % 12 == 3), "Fold 0"),
        "side_by_side": plots.side_by_side({"frozen": _history(12), "all trained": _history(20)}, "Trainings"),
        "learning_rate": plots.learning_rate(_history(30)),
        "learning_rate, phases": plots.learning_rate(_phases(12, 20)),
        "learning_rate, one epoch": plots.learning_rate(_history(1)),
        "folds": plots.folds({}, pd.Series([0.55, 0.61, 0.58, 0.6], index=list("0123"))),
        "comparison": plots.comparison(scores, 1 / 182, "Accuracy"),
        "comparison, near 1": plots.comparison(scores + 0.39, 0.5, "ROC-AUC"),
        "comparison, intervals": plots.comparison(
            scores, 1 / 182, "Accuracy", intervals={"test": (0.3, 0.92), "phase I": (np.nan, np.nan)}
        ),
        "comparison, no chance": plots.comparison(scores, None, "ROC-AUC", "macro ROC-AUC"),
    }


@pytest.fixture(scope="module", params=["10 classes", "182 classes", "others"])
def figures(request):
    """All figures of a kind."""
    kinds = {"10 classes": lambda: _by_class(10), "182 classes": lambda: _by_class(182), "others": _others}
    return kinds[request.param]()


def _drawn_texts(figure) -> list[Text]:
    """The texts that drawing really draws: a figure also holds ticks outside its limits."""
    drawn = {}
    draw = Text.draw

    def noted(text, renderer):
        drawn[id(text)] = text
        draw(text, renderer)

    with mock.patch.object(Text, "draw", noted):
        figure.draw_without_rendering()
    return [text for text in drawn.values() if text.get_visible() and text.get_text().strip()]


def _title(figure) -> str:
    return figure.get_suptitle()


def _all_text(figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_no_text_lies_on_another_or_outside(figures):
    for name, figure in figures.items():
        texts = _drawn_texts(figure)
        boxes = np.array([text.get_window_extent().extents for text in texts])
        assert boxes[:, :2].min() >= -1, name
        assert (boxes[:, 2:].max(axis=0) <= figure.bbox.size + 1).all(), name
        width = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
        on_another = np.triu((width > 1.0).all(axis=2), 1)
        clashes = [(texts[one].get_text(), texts[other].get_text()) for one, other in np.argwhere(on_another)]
        assert not clashes, f"{name}: {clashes[:5]}"


def test_every_axis_is_labelled(figures):
    for name, figure in figures.items():
        rows_name_themselves = name.split(",")[0] in ("comparison", "ranking")
        panels = [axes for axes in figure.axes if axes.axison]
        for axes in panels:
            bar = hasattr(axes, "_colorbar")
            place = axes.get_subplotspec()
            first = place is None or place.is_first_col()
            below = any(text.get_text() for text in axes.get_xticklabels() if text.get_visible())
            assert axes.get_xlabel() or not below or (bar and axes.get_ylabel()), name
            assert axes.get_ylabel() or not first or rows_name_themselves or (bar and axes.get_xlabel()), name


def test_figures_have_one_style_and_leave_the_users_alone():
    with mpl.rc_context({"font.size": 20, "axes.grid": False, "ytick.labelsize": 20}):
        figure = plots.class_counts(pd.Series({"asbfly": 3, "grehor1": 5}))
        figure.draw_without_rendering()
        assert figure.axes[0].xaxis.get_major_ticks()[0].label1.get_fontsize() == 8
        assert mpl.rcParams["font.size"] == 20
    assert figure.get_figwidth() * figure.dpi == 860


def test_class_counts_are_ranked_and_name_every_species():
    figure = plots.class_counts(pd.Series({"b": 2, "a": 7, "c": np.nan}))
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["a", "b"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [7, 2]
    assert "9 in 2 species" in _title(figure)
    assert "1 without a count left out" in _title(figure)


def test_classes_of_one_size_are_said_to_be():
    assert "30 in 3 species, 10 of each" in _title(plots.class_counts(pd.Series(10, index=list("abc"))))


def test_182_species_are_each_named_once():
    figure = plots.class_counts(pd.Series(range(182), index=_labels(182)))
    named = [tick.get_text() for axes in figure.axes for tick in axes.get_yticklabels()]
    assert named == _labels(182)[::-1]


def test_few_species_are_called_by_name_and_many_are_not():
    names = {"b": "Asian Koel", "a": "Common Iora"}
    (axes,) = plots.class_counts(pd.Series({"a": 1, "b": 2, "c": 3}), names).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["c", "Asian Koel", "Common Iora"]
    labels = _labels(31)
    figure = plots.class_counts(pd.Series(range(31), index=labels), _names(labels))
    assert {tick.get_text() for axes in figure.axes for tick in axes.get_yticklabels()} == set(labels)


def test_ranking_keeps_the_most_frequent_and_sums_the_rest():
    counts = pd.Series({"d": 1, "a": 9, "x" * 50: 4, "b": 7, "c": 2})
    axes = plots.ranking(counts, "Recordists", "recordings", most=3).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [9, 7, 4, 3]
    first, second, third, rest = (tick.get_text() for tick in axes.get_yticklabels())
    assert (first, second, rest) == ("a", "b", "2 others")
    assert third.startswith("xxx")
    assert len(third) < 40
    assert [text.get_text() for text in axes.texts] == ["9", "7", "4", "3 in all"]
    axes = plots.ranking(counts, "Recordists", "recordings", most=1).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [9, 9]
    assert "14 in all (bar cut short)" in _all_text(axes.figure)
    assert len(plots.ranking(counts, "Recordists", "recordings").axes[0].patches) == 5


def test_ratings_are_counted_by_half_steps():
    figure = plots.ratings(pd.Series([5, 5, 4.5, 0, np.nan, 0.5, 5, 0]))
    axes = figure.axes[0]
    bars = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in axes.patches}
    assert bars == pytest.approx({0.5: 1, 4.5: 1, 5.0: 3})
    written = {text.xy[0]: text.get_text() for text in axes.texts}
    assert written == {0.5: "1", 4.5: "1", 5.0: "3"}
    assert "Ratings of 5 recordings; 3 without a rating left out" in _title(figure)
    assert set(np.arange(1, 11) / 2) == set(axes.get_xticks())


def _map(latitude: list[float], longitude: list[float]) -> tuple[plots.Figure, dict[tuple, float]]:
    figure = plots.places(pd.Series(latitude), pd.Series(longitude))
    (circles,) = figure.axes[0].collections
    spots = map(tuple, np.asarray(circles.get_offsets()).round(6))
    return figure, dict(zip(spots, circles.get_sizes(), strict=True))


def test_places_are_where_they_are_and_as_large_as_they_have_recordings():
    figure, sizes = _map([10.0, 10.0, 10.0, 20.0, np.nan, 95.0], [75.0, 75.0, 75.0, 77.0, 75.0, 75.0])
    assert set(sizes) == {(75, 10), (77, 20)}
    assert sizes[75, 10] > 2 * sizes[77, 20]
    assert "4 recordings by place; 2 without a place left out" in _title(figure)
    keys = {text.get_text(): line.get_markersize() for legend in figure.legends for text, line in _keys(legend)}
    assert keys["3 recordings"] ** 2 == pytest.approx(sizes[75, 10])
    assert keys["1 recording"] ** 2 == pytest.approx(sizes[77, 20])


def _keys(legend) -> list[tuple]:
    return list(zip(legend.get_texts(), legend.get_lines(), strict=True))


def test_near_places_are_one_in_their_middle():
    _, sizes = _map([10.01, 10.03, 20.0], [75.01, 75.03, 75.0])
    assert set(sizes) == {(75.02, 10.02), (75, 20)}


@pytest.mark.parametrize(
    "corners",
    [[(8, 73), (20, 78)], [(-60, -180), (75, 180)], [(11.4, 76.7)], [(-55, -74), (-18, -68)], [(66, -50), (83, -20)]],
    ids=["Western Ghats", "world", "one point", "Chile", "Greenland"],
)
def test_maps_cover_all_places_with_true_proportions(corners):
    latitude, longitude = np.transpose(np.array(corners, float))
    figure, _ = _map(list(latitude), list(longitude))
    axes = figure.axes[0]
    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    assert -180 <= west <= longitude.min() < longitude.max() <= east <= 180 or len(corners) == 1
    assert -90 <= south <= latitude.min()
    assert latitude.max() <= north <= 90
    assert east - west >= 9.99
    expected = 1 / max(np.cos(np.radians((latitude.min() + latitude.max()) / 2)), 0.3)
    assert axes.get_aspect() == pytest.approx(expected)
    assert {text.get_text()[-1] for text in axes.get_xticklabels()} <= set("EW°")


def test_the_land_is_where_it_is():
    land = plots.places(pd.Series([11.4]), pd.Series([76.7])).axes[0].patches[0].get_path()
    nairobi, delhi, moscow, alice_springs, vostok = (
        (36.8, -1.3),
        (77.2, 28.6),
        (37.6, 55.8),
        (133.9, -23.7),
        (107, -78.5),
    )
    chukotka, tehran = (-175, 66.5), (51.4, 35.7)
    dry = [nairobi, delhi, moscow, alice_springs, vostok, chukotka, tehran]
    atlantic, bay_of_bengal, caspian, pacific = (-30, 0), (88, 12), (51, 41), (-150, 0)
    assert all(_winding(land, place) for place in dry)
    assert not any(_winding(land, place) for place in (atlantic, bay_of_bengal, caspian, pacific))


def _winding(path, place: tuple[float, float]) -> int:
    """How often the path runs round the place: what is not 0 is filled."""
    turns = 0.0
    for ring in np.split(path.vertices, np.flatnonzero(path.codes == path.MOVETO)[1:]):
        to = np.append(ring, ring[:1], axis=0) - place
        angles = np.unwrap(np.arctan2(to[:, 1], to[:, 0]))
        turns += (angles[-1] - angles[0]) / (2 * np.pi)
    return round(turns)


def test_lengths_say_what_is_missing():
    figure = plots.lengths(pd.Series([5.0, 10.0, 20.0, np.nan, 0.0]))
    assert "3 recordings" in _title(figure)
    assert "; 2 without a length left out" in _title(figure)
    assert "0.6 minutes in all" in _title(figure)
    assert "2.0 hours in all" in _title(plots.lengths(pd.Series([3600.0, 3600])))
    assert "median 10 s" in _all_text(figure)
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 3


def test_chunk_counts_share():
    figure = plots.chunk_counts(pd.Series({"a": 8, "b": 2}), pd.Series({"a": 6}))
    assert "6 of 10 kept (60.0%)" in _title(figure)
    assert "75% of 8" in _all_text(figure)
    assert "0% of 2" in _all_text(figure)


def _cut(samples, rate_hz, starts, kept, image=PICTURE) -> plots.Figure:
    return plots.cut(samples, rate_hz, starts, 5.0, kept, image, MEL_HZ)


def test_cut_lanes_hold_no_overlap_and_silent_ones_are_hatched():
    starts, kept = [0.0, 4.0, 8.0, 9.0], [True, False, True, True]
    figure = _cut(np.zeros(14_000, np.float32), 1000, starts, kept)
    assert "14.0 s cut into 4 chunks: 3 kept, 1 silent" in _title(figure)
    bars = figure.axes[2].patches
    assert [bar.get_x() for bar in bars] == starts
    assert [bar.get_width() for bar in bars] == [5.0] * 4
    assert [bool(bar.get_hatch()) for bar in bars] == [False, True, False, False]
    for one in range(4):
        for other in range(one):
            if bars[one].get_y() == bars[other].get_y():
                assert bars[one].get_x() >= bars[other].get_x() + 5


def test_cut_shows_sound_and_chunks_at_the_same_times():
    wave, sound, spans = _cut(np.zeros(7000, np.float32), 1000, [0.0, 4.0], [1, 1]).axes[:3]
    assert sound.images[0].get_extent()[:2] == [0, 7.0]  # the recording; the last chunk ends after it
    assert wave.get_xlim() == sound.get_xlim() == spans.get_xlim()
    assert spans.get_xlim()[1] >= 9.0


def test_cut_keeps_the_shortest_click():
    samples, image = np.zeros(1_000_000, np.float32), np.zeros((128, 50_000))
    samples[654_321], image[40, 32_716] = 0.9, 255
    wave, sound = _cut(samples, 32_000, [0.0], [True], image).axes[:2]
    vertices = wave.collections[0].get_paths()[0].vertices
    assert vertices[:, 1].max() == pytest.approx(0.9)
    assert vertices[vertices[:, 1].argmax(), 0] == pytest.approx(654_321 / 32_000, abs=0.03)
    drawn = sound.images[0].get_array()
    row, column = np.unravel_index(drawn.argmax(), drawn.shape)
    assert (row, drawn.max()) == (40, 0)
    assert (column + 0.5) / drawn.shape[1] == pytest.approx(32_716 / 50_000, abs=1 / drawn.shape[1])


def test_energies_write_the_shares_on_both_sides():
    figure = plots.energies(np.array([0.0, 0.05, 0.0999, 0.1, 0.5, 1.0, 1.0, 0.2, np.nan]), 0.1, "relative")
    assert "under 0.1: 3 (37.5%)" in _all_text(figure)
    assert "0.1 and over: 5 (62.5%)" in _all_text(figure)
    assert "8 chunks, 1 of them under 0.0001 (drawn at the left end)" in _title(figure)
    assert "1 without a value left out" in _title(figure)
    axes = figure.axes[0]
    silent = [bar for bar in axes.patches if bar.get_hatch()]
    assert sum(bar.get_height() for bar in silent) == 3
    assert sum(bar.get_height() for bar in axes.patches) == 8
    assert max(bar.get_x() + bar.get_width() for bar in silent) == pytest.approx(0.1)
    filled = [bar for bar in axes.patches if bar.get_height()]
    assert axes.get_xlim()[0] <= min(bar.get_x() for bar in filled)
    assert axes.get_xlim()[1] >= max(bar.get_x() + bar.get_width() for bar in filled) * 0.999


def test_energies_stand_to_the_scale_of_their_square_roots():
    axes = plots.energies(np.repeat([0.02, 0.3, 0.6], [25, 100, 400]), 0.1, "rms").axes[0]
    base = axes.transData.transform((0.1, 0))[1]
    tops = [axes.transData.transform((0.1, bar.get_height()))[1] - base for bar in axes.patches if bar.get_height()]
    assert np.divide(tops, tops[0]) == pytest.approx([1, 2, 4])
    ticks = {text.get_text(): place for text, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    assert len(ticks) >= 4
    assert all(float(text.replace(",", "")) == place <= 400 for text, place in ticks.items())


@pytest.mark.parametrize("khz", [1, 4])
def test_the_tick_of_a_frequency_lies_on_a_tone_of_it(khz):
    tone = np.sin(2 * np.pi * 1000 * khz * np.arange(160_000) / 32_000)
    mel = librosa.feature.melspectrogram(y=tone, sr=32_000, n_fft=2048, hop_length=500, fmin=40, fmax=15_000)
    picture = (librosa.power_to_db(mel, ref=np.max, top_db=80) + 80) / 80 * 255
    figures = [plots.images([picture], ["tone"], MEL_HZ, 5.0), plots.sounds({"tone": tone}, [picture], MEL_HZ, 5.0)]
    for axes in (figures[0].axes[0], figures[1].axes[1], _cut(tone, 32_000, [0], [1], picture).axes[1]):
        ticks = {text.get_text(): place for text, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
        loudest = axes.images[0].get_array()[:, 160].argmax()
        assert loudest == np.abs(MEL_HZ - 1000 * khz).argmin()
        assert ticks[str(khz)] == pytest.approx(loudest, abs=0.5)
        assert axes.images[0].get_array()[loudest, 160] == pytest.approx(0, abs=0.2)
        assert axes.get_ylim() == (-0.5, 127.5)  # low frequencies at the bottom


def test_sounds_share_a_scale_or_have_their_own():
    loud, quiet = np.tile([0.8, -0.8], 500), np.tile([0.08, -0.08], 500)
    for own_scale, parts in ((False, (1, 0.1)), (True, (1, 1))):
        figure = plots.sounds({"loud": loud, "quiet": quiet}, [PICTURE] * 2, MEL_HZ, 2.0, own_scale=own_scale)
        waves = [axes for axes in figure.axes if axes.collections and axes.get_title("left")]
        assert [wave.get_title("left") for wave in waves] == ["loud", "quiet"]
        highest = [wave.collections[0].get_paths()[0].vertices[:, 1].max() for wave in waves]
        assert highest == pytest.approx([0.8, 0.08])
        shown = [high / wave.get_ylim()[1] for high, wave in zip(highest, waves, strict=True)]
        assert np.divide(shown, shown[0]) == pytest.approx(parts)
        assert [wave.collections[0].get_paths()[0].vertices[:, 0].max() for wave in waves] == pytest.approx(
            [2, 2], abs=0.01
        )


@pytest.mark.parametrize(("count", "in_rows"), [(3, [3]), (4, [4]), (5, [3, 2]), (8, [4, 4])])
def test_sounds_stand_in_even_rows(count, in_rows):
    sounds = {f"sound {number}": np.ones(100) for number in range(count)}
    figure = plots.sounds(sounds, [PICTURE] * count, MEL_HZ, 5.0)
    titled = [axes.get_subplotspec().rowspan.start for axes in figure.axes if axes.get_title("left")]
    assert list(pd.Series(titled).value_counts(sort=False)) == in_rows


def test_titles_keep_their_own_line_breaks():
    figure = plots.images([PICTURE] * 3, ["two\nlines", LONG, "83 %"], MEL_HZ, 5.0)
    titles = [axes.get_title("left") for axes in figure.axes[:3]]
    assert titles[0] == "two\nlines"
    assert "\n" in titles[1]
    assert " ".join(titles[1].split()) == LONG


def test_dropped_shares_stand_in_their_rows_hardest_hit_first():
    table = pd.DataFrame({"relative": [0.1, 0.0, 1.0], "rms": [0.2, 0.9, 1.0]}, index=["a", "b", "c"])
    figure = plots.dropped_by_measure(table, {"b": "Asian Koel"})
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["c", "Asian Koel", "a"]
    assert [list(line.get_xdata()) for line in axes.get_lines()] == [[1.0, 0.0, 0.1], [1.0, 0.9, 0.2]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "relative (1 species loses all)",
        "rms (1 species loses all)",
    ]
    assert len({line.get_marker() for line in axes.get_lines()}) == 2


def test_epoch_balance_shows_what_is_there_taken_and_taken_again():
    table = pd.DataFrame({"there": [20, 900], "epoch": [100, 100], "different": [20, 100]}, index=["few", "many"])
    figure = plots.epoch_balance(table, 100, {"few": "Asian Koel"})
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["many", "Asian Koel"]
    there, epoch, different = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert (there, epoch, different) == ([900, 20], [100, 100], [100, 20])
    assert [bool(bars[0].get_hatch()) for bars in axes.containers] == [False, True, False]
    assert [text.get_text() for text in axes.texts] == ["100 of 900", "20 of 20"]
    assert axes.get_lines()[0].get_xdata()[0] == 100
    assert "takes 100 chunks of each of 2 species" in _title(figure)
    ends = [axes.transData.transform((value, 0))[0] for value in (0, 100, 900)]
    assert (ends[2] - ends[0]) / (ends[1] - ends[0]) == pytest.approx(3)  # the roots of 900 and 100
    assert "square" in axes.get_xlabel()


def test_fold_sides_count_what_each_fold_trains_on():
    rows = [("test", -1)] * 3 + [("train", 0)] * 4 + [("train", 1)] * 5 + [("train", -1)]
    splits = pd.DataFrame(rows, columns=["split", "fold"])
    splits["filename"], splits["group"], splits["primary_label"] = splits.index, splits.index, "asbfly"
    text = _all_text(plots.fold_sides(splits))
    assert "trains on 6\nvalidates with 4 (1 species)" in text
    assert "trains on 5\nvalidates with 5 (1 species)" in text
    assert "1 of them in every fold" in text
    assert "test: 3 recordings of 1 species" in text
    assert "on two sides: none" in text
    splits.loc[0, "group"] = splits.loc[5, "group"]
    assert "on two sides: 1 group" in _all_text(plots.fold_sides(splits))


@pytest.mark.parametrize("epochs", [1, 9])
def test_the_best_epoch_has_the_lowest_val_loss(epochs):
    history = _history(epochs)
    history.index += 5  # the index says nothing
    for axes in plots.curves(history).axes:
        dotted = [line for line in axes.get_lines() if line.get_linestyle() == ":"]
        assert [line.get_xdata()[0] for line in dotted] == [min(3, epochs)]
        assert all(tick == int(tick) for tick in axes.get_xticks())


def test_curves_without_validation_have_no_best():
    history = _history(4).assign(val_loss=np.nan, val_accuracy=np.nan)
    assert "best" not in _all_text(plots.curves(history))


def test_curves_show_the_history_from_zero_and_where_the_rate_was_lowered():
    history = _history(7)  # the rate is halved at epochs 3 and 6
    figure = plots.curves(history)
    for name, axes in zip(("loss", "accuracy"), figure.axes, strict=True):
        training, validation = axes.get_lines()[:2]
        assert list(training.get_ydata()) == list(history[name])
        assert list(validation.get_ydata()) == list(history[f"val_{name}"])
        upright = [line for line in axes.get_lines() if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"]
        assert [line.get_xdata()[0] for line in upright] == [2.5, 5.5]
        assert axes.get_ylim()[0] == 0
        assert max(history[name].max(), history[f"val_{name}"].max()) <= axes.get_ylim()[1]
    assert "learning rate lowered" in _all_text(figure)
    assert "lowered" not in _all_text(plots.curves(history.assign(learning_rate=1e-3)))
    assert "lowered" not in _all_text(plots.curves(history.drop(columns="learning_rate")))


def test_low_accuracies_fill_the_axis():
    history = _history(5)
    history[["accuracy", "val_accuracy"]] *= 0.01
    assert plots.curves(history).axes[1].get_ylim()[1] < 0.02


def test_a_whole_run_rings_the_epochs_that_are_kept():
    history = _phases(4, 6).assign(best=[False, False, True, False, *[False] * 5, True])
    for axes, name in zip(plots.whole_run(history).axes, ("val_loss", "val_accuracy"), strict=True):
        (ring,) = [line for line in axes.get_lines() if line.get_markerfacecolor() == "none"]
        np.testing.assert_allclose(ring.get_xydata(), history.loc[history["best"], ["epoch", name]])


def test_a_whole_run_joins_no_phases_and_marks_where_they_meet():
    figure = plots.whole_run(_phases(4, 6), "Fold 0")
    for name, axes in zip(("loss", "accuracy"), figure.axes, strict=True):
        *curves, border = axes.get_lines()
        assert list(border.get_xdata()) == [4.5, 4.5]
        assert [list(line.get_xdata()) for line in curves] == [[1, 2, 3, 4], [5, 6, 7, 8, 9, 10]] * 2
        assert list(curves[1].get_ydata()) == list(_history(6)[name])
        assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [("phase I", 2.5), ("phase II", 7.5)]
    assert _title(figure) == "Fold 0"


def test_trainings_side_by_side_are_told_apart_without_colour():
    histories = {name: _history(epochs) for name, epochs in (("a", 3), ("b", 9), ("c", 5), ("d", 1))}
    figure = plots.side_by_side(histories)
    for name, axes in zip(("loss", "accuracy"), figure.axes, strict=True):
        lines = dict(zip(histories, axes.get_lines(), strict=True))
        assert all(list(lines[key].get_ydata()) == list(histories[key][f"val_{name}"]) for key in histories)
        assert len({line.get_marker() for line in lines.values()}) == 4
        assert axes.get_xlim()[1] >= 9
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(histories)


@pytest.mark.parametrize(
    ("rates", "often"),
    [([1e-3] * 4, "never"), ([1e-3, 5e-4], "once"), ([4e-4, 2e-4, 2e-4, 1e-4], "twice"), ([8, 4, 2, 1], "3 times")],
)
def test_learning_rate_says_how_often_it_was_lowered(rates, often):
    history = pd.DataFrame({"epoch": range(len(rates)), "learning_rate": rates})
    assert _title(plots.learning_rate(history)) == f"Learning rate, {often} lowered"


def test_a_new_phases_lower_rate_is_no_lowering():
    history = _phases(2, 4)
    history["learning_rate"] = [1e-3, 1e-3, 1e-4, 1e-4, 5e-5, 5e-5]
    figure = plots.learning_rate(history)
    assert _title(figure) == "Learning rate, once lowered within a phase"
    assert [line.get_xdata()[0] for line in figure.axes[0].get_lines()[1:]] == [2.5]


def test_unknown_learning_rates_are_not_said_to_be_constant():
    title = _title(plots.learning_rate(_history(3).assign(learning_rate=np.nan)))
    assert "never" not in title
    assert "3 epochs without one left out" in title


def test_learning_rates_are_the_ticks():
    axes = plots.learning_rate(_history(7)).axes[0]
    assert sorted(axes.get_yticks()) == pytest.approx([2.5e-4, 5e-4, 1e-3])
    assert [float(text.get_text()) for text in axes.get_yticklabels()] == pytest.approx(list(axes.get_yticks()))
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize("classes", [2, 10, 40])
def test_confusion_keeps_rows_with_their_labels(classes):
    rng = np.random.default_rng(classes)
    matrix, labels = rng.integers(1, 90, (classes, classes)), _labels(classes)
    assert sorted(plots.confusion_order(matrix)) == list(range(classes))
    axes = plots.confusion(matrix, labels).axes[0]
    rows, columns = ([tick.get_text() for tick in ticks] for ticks in (axes.get_yticklabels(), axes.get_xticklabels()))
    assert rows == columns
    shown = pd.DataFrame(np.asarray(axes.images[0].get_array()), rows, columns).loc[labels, labels]
    np.testing.assert_allclose(shown, matrix / matrix.sum(axis=1, keepdims=True))


def test_confused_species_lie_side_by_side():
    matrix = np.diag(np.full(12, 50))
    for one, other in ((0, 7), (3, 11), (5, 2)):
        matrix[one, other] = 30
    place = np.argsort(plots.confusion_order(matrix))
    assert [abs(place[one] - place[other]) for one, other in ((0, 7), (3, 11), (5, 2))] == [1, 1, 1]


def test_folds_their_mean_and_their_spread():
    histories = {"0": _history(3), "1": _history(5)}
    histories["1"]["val_loss"] += 0.5
    figure = plots.folds(histories, pd.Series({"0": 0.5, "1": 0.7, "2": np.nan}))
    losses, accuracies, ends = figure.axes
    *each, mean = losses.get_lines()
    assert [len(line.get_xdata()) for line in each] == [3, 5]
    expected = [line.get_ydata()[:3] for line in each]
    np.testing.assert_allclose(mean.get_ydata()[:3], np.mean(expected, axis=0))
    np.testing.assert_allclose(mean.get_ydata()[3:], each[1].get_ydata()[3:])  # where only one is still training
    assert len(accuracies.get_lines()) == 3
    points, line = ends.get_lines()
    np.testing.assert_allclose(points.get_xydata(), [[0.5, 0], [0.7, 1]])
    assert line.get_xdata()[0] == pytest.approx(0.6)
    band = ends.patches[0].get_extents()
    assert band.width > 0
    assert "2 folds: accuracy 60.0% on average (dashed), standard deviation 14.1%" in _title(figure)
    assert "1 without a score left" in _title(figure)


def test_cells_hold_the_shares_of_their_rows():
    matrix = np.array([[1, 1, 2], [0, 5, 0], [1, 0, 399]])
    axes = plots.confusion(matrix, ["a", "b", "c"], {"a": "Asian Koel"}).axes[0]
    rows, columns = ([tick.get_text() for tick in ticks] for ticks in (axes.get_yticklabels(), axes.get_xticklabels()))
    written = {(rows[int(text.get_position()[1])], columns[int(text.get_position()[0])]): text for text in axes.texts}
    assert {cell: text.get_text() for cell, text in written.items()} == {
        ("Asian Koel", "Asian Koel"): "25%",
        ("Asian Koel", "b"): "25%",
        ("Asian Koel", "c"): "50%",
        ("b", "b"): "100%",
        ("c", "c"): "100%",
        ("c", "Asian Koel"): "<1%",
    }


def test_the_list_of_confusions_uses_the_names_of_the_matrix():
    matrix, labels = np.diag(np.full(20, 50)), _labels(20)
    matrix[4, 9] = 30
    text = " ".join(_all_text(plots.confusion(matrix, labels, _names(labels))).split())
    assert "Greater Racket-tailed Drongo 4 → White-bellied Blue Flycatcher 9 30 chunks, 38%" in text


def test_confusion_lists_the_most_frequent_and_owns_up_to_the_absent():
    matrix, labels = np.diag(np.full(20, 50)), _labels(20)
    matrix[4, 9], matrix[6] = 30, 0
    text = _all_text(plots.confusion(matrix, labels))
    assert " ".join(f"{labels[4]} → {labels[9]} 30 38%".split()) in " ".join(text.split())
    assert "grey: 1 without a chunk" in text


def test_per_class_ranks_and_counts_those_left_out():
    table = pd.DataFrame({"recall": [0.5, np.nan, 1.0], "chunks": [4, 0, 9]}, index=["a", "b", "c"])
    figure = plots.per_class(table.assign(precision=[0.25, np.nan, np.nan]))
    recall, precision = (line.get_xydata() for line in figure.axes[0].get_lines()[:2])
    np.testing.assert_array_equal(recall, [[1.0, 0], [0.5, 1]])
    np.testing.assert_array_equal(precision, [[np.nan, 0], [0.25, 1]])
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["c", "a"]
    assert "2 species, mean recall 75.0%" in _title(figure)
    assert "1 without a chunk left out" in _title(figure)


def test_comparison_says_how_many_times_chance():
    text = _all_text(plots.comparison(pd.Series({"test": 0.5682, "phase I": 0.1627}), 1 / 182))
    assert "56.8%  (103 × chance)" in text
    assert "chance, 0.55%" in text


def test_comparison_draws_the_intervals_that_there_are():
    scores, intervals = pd.Series({"test": 0.6, "phase I": 0.2, "none": 0.1}), {"test": (0.5, 0.9)}
    figure = plots.comparison(scores, intervals={**intervals, "none": (np.nan, np.nan)})
    (whiskers,) = figure.axes[0].collections
    np.testing.assert_allclose(whiskers.get_segments(), [[(0.5, 0), (0.9, 0)]])
    assert "95 % intervals" in _title(figure)
    assert figure.axes[0].texts[0].xy[0] == 0.9  # the number stands clear of the whisker
    assert "intervals" not in _title(plots.comparison(scores))


def test_comparison_draws_its_scores_and_no_share_over_all():
    figure = plots.comparison(pd.Series({"phase I": 0.25, "gone": np.nan, "phase II": 1.0, "none": 0.0}), 0.1)
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.25, 1.0, 0.0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["phase I", "phase II", "none"]
    assert max(axes.get_xticks()) == pytest.approx(1)
    assert axes.get_lines()[0].get_xdata()[0] == 0.1
    assert "1 missing left out" in _title(figure)


def test_timeline_shows_the_top_and_all_of_the_truth():
    predictions = np.array([[0.1, 0.6, 0.3, 0.0], [0.2, 0.1, 0.7, 0.0]])
    truth = pd.DataFrame({"start_s": [1.0], "end_s": [4.0], "primary_label": ["d"]})
    axes = plots.timeline(predictions, [0.0, 5.0], 5.0, list("abcd"), truth, top=2).axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["c", "b", "d"]
    colours = [collection.get_facecolors() for collection in axes.collections]
    assert (colours[0] == mpl.colormaps["viridis"](np.sqrt([0.3, 0.7]))).all()
    (box,) = axes.patches
    assert (box.get_x(), box.get_width()) == (1.0, 3.0)
    assert round(box.get_y() + box.get_height() / 2) == 2


def test_the_timelines_spectrogram_shares_its_time():
    image = np.zeros((128, 1600))
    image[40, 800:] = 255  # loud from the middle on
    rows = plots.timeline(np.eye(2), [60.0, 72.5], 12.5, ["a", "b"], image=image, mel_frequencies_hz=MEL_HZ).axes
    sound, axes = rows[0], rows[1]
    assert sound.get_shared_x_axes().joined(sound, axes)
    assert axes.get_xlim() == (60, 85)
    begin, end = sound.images[0].get_extent()[:2]
    assert (begin, end) == (60, 85)
    drawn = sound.images[0].get_array()[40]
    first = np.flatnonzero(drawn == 0)[0]
    assert begin + (end - begin) * first / len(drawn) == pytest.approx(72.5, abs=0.1)
    spans = {path.get_extents().x0 for path in axes.collections[0].get_paths()}
    assert spans == {60, 72.5}


def test_timeline_owns_up_to_what_was_not_predicted():
    truth = pd.DataFrame({"start_s": [1.0], "end_s": [4.0], "primary_label": ["unknown"]})
    figure = plots.timeline(np.ones((1, 1)), [0.0], 5.0, ["a"], truth, names={"unknown": "Asian Koel"})
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["a", "Asian Koel"]
    assert "grey: no prediction" in _title(figure)
    assert "grey" not in _title(plots.timeline(np.ones((1, 1)), [0.0], 5.0, ["a"]))


def test_overlapping_windows_share_what_they_share():
    axes = plots.timeline(np.ones((3, 1)), [0.0, 4.0, 12.0], 5.0, ["a"]).axes[0]
    spans = [path.get_extents() for path in axes.collections[0].get_paths()]
    assert [(span.x0, span.x1) for span in spans] == [(0, 4.5), (4.5, 9), (12, 17)]  # and a gap stays a gap


@pytest.mark.parametrize("nothing", [pd.Series(dtype=float), pd.Series([np.nan], index=["a"])])
def test_nothing_to_show_is_a_figure_too(nothing):
    table = nothing.to_frame("recall").assign(precision=0.0, chunks=0, there=0, epoch=0, different=0)
    for figure in (
        plots.class_counts(nothing),
        plots.chunk_counts(nothing, nothing),
        plots.lengths(nothing),
        plots.energies(nothing, 0.1, "rms"),
        plots.per_class(table),
        plots.dropped_by_measure(nothing.to_frame("rms")),
        plots.folds({}, nothing),
        plots.comparison(nothing),
        plots.fold_sides(_splits(["a"], 3).head(len(nothing))),
        plots.ranking(nothing.fillna(0), "Recordists", "recordings"),
        plots.ratings(nothing),
        plots.places(nothing, nothing),
        plots.epoch_balance(table, 5),
        plots.whole_run(_phases(0, 0)),
        plots.side_by_side({}),
        plots.side_by_side({"a": _history(0)}),
        plots.sounds({}, [], MEL_HZ, 5.0),
        plots.cut(np.zeros(0), 32_000, [], 5.0, [], np.zeros((128, 0)), MEL_HZ),
        plots.images([], [], MEL_HZ, 5.0),
        plots.curves(_history(0)),
        plots.learning_rate(_history(0)),
        plots.confusion(np.zeros((len(nothing), len(nothing)), int), list(nothing.index)),
        plots.timeline(np.zeros((0, 1)), [], 5.0, ["a"]),
    ):
        figure.draw_without_rendering()


def test_where_there_is_nothing_to_draw_a_line_says_so():
    none = pd.Series([np.nan, np.nan])
    for figure, said in (
        (plots.ranking(pd.Series(dtype=float), "0 types", "recordings"), "0 types: there are none"),
        (plots.ratings(none), "2 without a rating left out"),
        (plots.places(none, none), "2 without a place left out"),
    ):
        assert said in _title(figure)
        assert not figure.axes
        assert figure.get_figheight() < 0.5


def test_figures_need_no_pyplot():
    code = "import sys, birdlib; assert 'matplotlib' not in sys.modules; import birdlib.plots; "
    code += "assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_figure_shows_itself_in_a_notebook_once():
    cell = "import pandas as pd\nfrom birdlib import plots\nplots.class_counts(pd.Series({'a': 1}))"
    sources = [cell, f"import matplotlib.pyplot as plt\nplt.figure().clear(), plt.close()\n{cell}"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    for executed in notebook.cells:
        (output,) = executed.outputs
        assert "image/png" in output["data"]


# ---- what goes with a file, and a picture without axes


def test_a_figures_file_says_what_is_written_in_it(tmp_path):
    plots.comparison(pd.Series({"a": 0.5}), 0.25, "Test – α").savefig(tmp_path / "one.png", bbox_inches="tight")
    assert Image.open(tmp_path / "one.png").info["Title"] == "Test – α; dashed: chance, 25.00%"
    axes = plots.images([np.zeros((4, 5))] * 2, ["first\nchunk", "second"], np.arange(1.0, 5) * 1000, 5.0)
    assert Image.open(io.BytesIO(axes._repr_png_())).info["Title"] == "first chunk; second"


def test_a_thumbnail_has_a_point_a_band_and_frame_with_low_frequencies_below():
    image = np.random.default_rng(0).uniform(0, 255, (8, 20))
    image[0, 0], image[-1, 0] = 255, 0
    shown = np.asarray(Image.open(io.BytesIO(plots.thumbnail(image))).convert("RGB"))
    assert shown.shape == (8, 20, 3)
    colours = np.round(255 * mpl.colormaps["magma"](np.array([0.0, 1.0]))[:, :3])
    np.testing.assert_allclose(shown[[0, -1], 0], colours, atol=1)
