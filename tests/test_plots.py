"""What the figures say and that they can be read; whether they are handsome, only eyes can test."""

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

from birdlib import plots

MEL_HZ = librosa.mel_frequencies(130, fmin=40, fmax=15_000)[1:-1]


def _labels(count: int) -> list[str]:
    return [f"{'abcdgmw'[number % 7]}wbow{number:03d}" for number in range(count)]


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
    chunks = pd.Series(rng.integers(3, 12_000, count), index=labels)
    shares = pd.DataFrame(rng.random((count, 3)), index=labels, columns=["relative", "rms", "peak"])
    matrix = rng.integers(0, 4, (count, count)) + np.diag(rng.integers(0, 90, count))
    truth = pd.DataFrame({"start_s": [3.0, 40], "end_s": [9.0, 47], "primary_label": [labels[-1], labels[0]]})
    return {
        "class_counts": plots.class_counts(chunks // 20),
        "chunk_counts": plots.chunk_counts(chunks, (chunks * shares["rms"]).astype(int)),
        "dropped_by_measure": plots.dropped_by_measure(shares),
        "confusion": plots.confusion(matrix, labels),
        "per_class": plots.per_class(pd.DataFrame({"recall": shares["peak"].round(2), "chunks": chunks})),
        "fold_sides": plots.fold_sides(_splits(labels, 100 * count)),
        "timeline": plots.timeline(rng.dirichlet(np.ones(count), 48), np.arange(48) * 5.0, 5.0, labels, truth),
    }


def _others() -> dict[str, plots.Figure]:
    rng = np.random.default_rng(0)
    picture = rng.uniform(0, 255, (128, 320, 3))
    scores = pd.Series({"baseline": 0.18, "phase I": 0.163, "phase II": 0.603, "test": 0.568})
    return {
        "lengths": plots.lengths(pd.Series(rng.lognormal(3, 1, 500))),
        "lengths, alike": plots.lengths(pd.Series([12.0, 14, 13, 14.5])),
        "cut": plots.cut(rng.normal(0, 0.1, 22 * 8000), 8000, [0, 4, 8, 12, 16, 20], 5.0, [1, 0, 1, 1, 0, 1]),
        "energies": plots.energies(rng.uniform(0, 1, 900), 0.1, "relative"),
        "energies, all over": plots.energies(rng.uniform(0.5, 1, 900), 0.1, "peak"),
        "images": plots.images([picture] * 5, [f"pitch up {n} semitones" for n in range(5)], MEL_HZ, 5.0),
        "one image": plots.images([picture[..., 0]], ["a"], MEL_HZ, 5.0),
        "curves": plots.curves(_history(17), "Phase I"),
        "curves, one epoch": plots.curves(_history(1), "Phase I"),
        "learning_rate": plots.learning_rate(_history(30)),
        "learning_rate, one epoch": plots.learning_rate(_history(1)),
        "fold_scores": plots.fold_scores(pd.Series([0.55, 0.61, 0.58, 0.6], index=list("0123"))),
        "comparison": plots.comparison(scores, 1 / 182, "Accuracy"),
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
        panels = [axes for axes in figure.axes if axes.axison]
        for axes in panels:
            bar = hasattr(axes, "_colorbar")
            place = axes.get_subplotspec()
            first = place is None or place.is_first_col()
            below = any(text.get_text() for text in axes.get_xticklabels() if text.get_visible())
            assert axes.get_xlabel() or not below or (bar and axes.get_ylabel()), name
            assert axes.get_ylabel() or not first or (bar and axes.get_xlabel()), name


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


def test_182_species_are_each_named_once():
    figure = plots.class_counts(pd.Series(range(182), index=_labels(182)))
    named = [tick.get_text() for axes in figure.axes for tick in axes.get_yticklabels()]
    assert named == _labels(182)[::-1]


def test_lengths_say_what_is_missing():
    figure = plots.lengths(pd.Series([5.0, 10.0, 20.0, np.nan, 0.0]))
    assert "3 recordings" in _title(figure)
    assert "; 2 without a length left out" in _title(figure)
    assert "median 10 s" in _all_text(figure)
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 3


def test_chunk_counts_share():
    figure = plots.chunk_counts(pd.Series({"a": 8, "b": 2}), pd.Series({"a": 6}))
    assert "6 of 10 kept (60.0%)" in _title(figure)
    assert "75% of 8" in _all_text(figure)
    assert "0% of 2" in _all_text(figure)


def test_cut_lanes_hold_no_overlap_and_silent_ones_are_hatched():
    starts, kept = [0.0, 4.0, 8.0, 9.0], [True, False, True, True]
    _, spans = plots.cut(np.zeros(14_000, np.float32), 1000, starts, 5.0, kept).axes
    bars = spans.patches
    assert [bar.get_x() for bar in bars] == starts
    assert [bool(bar.get_hatch()) for bar in bars] == [False, True, False, False]
    for one in range(4):
        for other in range(one):
            if bars[one].get_y() == bars[other].get_y():
                assert bars[one].get_x() >= bars[other].get_x() + 5


def test_cut_keeps_the_shortest_click():
    samples = np.zeros(1_000_000, np.float32)
    samples[654_321] = 0.9
    wave = plots.cut(samples, 32_000, [0.0], 5.0, [True]).axes[0]
    assert wave.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(0.9)


def test_energies_write_the_shares_on_both_sides():
    figure = plots.energies(np.array([0.0, 0.05, 0.0999, 0.1, 0.5, 1.0, 1.0, 0.2, np.nan]), 0.1, "relative")
    assert "under 0.1: 3 (37.5%)" in _all_text(figure)
    assert "0.1 and over: 5 (62.5%)" in _all_text(figure)
    assert "1 of them 0" in _title(figure)
    silent = [bar for bar in figure.axes[0].patches if bar.get_hatch()]
    assert sum(bar.get_height() for bar in silent) == 3
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 8
    assert max(bar.get_x() + bar.get_width() for bar in silent) == pytest.approx(0.1)


def test_the_tick_of_4_khz_lies_on_a_tone_of_4_khz():
    tone = np.sin(2 * np.pi * 4000 * np.arange(160_000) / 32_000)
    mel = librosa.feature.melspectrogram(y=tone, sr=32_000, n_fft=2048, hop_length=500, fmin=40, fmax=15_000)
    picture = (librosa.power_to_db(mel, ref=np.max, top_db=80) + 80) / 80 * 255
    axes = plots.images([picture], ["tone"], MEL_HZ, 5.0).axes[0]
    ticks = {text.get_text(): place for text, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    loudest = axes.images[0].get_array()[:, 160].argmax()
    assert loudest == np.abs(MEL_HZ - 4000).argmin()
    assert ticks["4"] == pytest.approx(loudest, abs=0.5)
    assert axes.images[0].get_array()[loudest, 160] == pytest.approx(0, abs=0.2)
    assert axes.get_ylim() == (-0.5, 127.5)  # low frequencies at the bottom


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


def test_learning_rates_are_the_ticks():
    axes = plots.learning_rate(_history(7)).axes[0]
    assert sorted(axes.get_yticks()) == pytest.approx([2.5e-4, 5e-4, 1e-3])
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


def test_confusion_lists_the_most_frequent_and_owns_up_to_the_absent():
    matrix, labels = np.diag(np.full(20, 50)), _labels(20)
    matrix[4, 9], matrix[6] = 30, 0
    text = _all_text(plots.confusion(matrix, labels))
    assert " ".join(f"{labels[4]} → {labels[9]} 30 38%".split()) in " ".join(text.split())
    assert "grey: 1 without a chunk" in text


def test_per_class_ranks_and_counts_those_left_out():
    table = pd.DataFrame({"recall": [0.5, np.nan, 1.0], "chunks": [4, 0, 9]}, index=["a", "b", "c"])
    figure = plots.per_class(table)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["c", "a"]
    assert "2 species, mean 75.0%" in _title(figure)
    assert "1 without a chunk left out" in _title(figure)


def test_comparison_says_how_many_times_chance():
    text = _all_text(plots.comparison(pd.Series({"test": 0.5682, "phase I": 0.1627}), 1 / 182))
    assert "0.568  (103 × chance)" in text
    assert "chance 0.0055" in text


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


def test_overlapping_windows_share_what_they_share():
    axes = plots.timeline(np.ones((3, 1)), [0.0, 4.0, 12.0], 5.0, ["a"]).axes[0]
    spans = [path.get_extents() for path in axes.collections[0].get_paths()]
    assert [(span.x0, span.x1) for span in spans] == [(0, 4.5), (4.5, 9), (12, 17)]  # and a gap stays a gap


@pytest.mark.parametrize("nothing", [pd.Series(dtype=float), pd.Series([np.nan], index=["a"])])
def test_nothing_to_show_is_a_figure_too(nothing):
    table = nothing.to_frame("recall").assign(chunks=0)
    for figure in (
        plots.class_counts(nothing),
        plots.chunk_counts(nothing, nothing),
        plots.lengths(nothing),
        plots.energies(nothing, 0.1, "rms"),
        plots.per_class(table),
        plots.dropped_by_measure(nothing.to_frame("rms")),
        plots.fold_scores(nothing),
        plots.comparison(nothing),
        plots.fold_sides(_splits(["a"], 3).head(len(nothing))),
        plots.cut(np.zeros(0), 32_000, [], 5.0, []),
        plots.images([], [], MEL_HZ, 5.0),
        plots.curves(_history(0)),
        plots.learning_rate(_history(0)),
        plots.confusion(np.zeros((len(nothing), len(nothing)), int), list(nothing.index)),
        plots.timeline(np.zeros((0, 1)), [], 5.0, ["a"]),
    ):
        figure.draw_without_rendering()


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
