import numpy as np
import pandas as pd
import pytest

from birdlib import calibration, plots

nan = float("nan")


def scores(rows):
    return pd.DataFrame(
        [(value, low, high, f"{value:.0%} of some") for value, low, high in rows],
        columns=["value", "low", "high", "text"],
        index=[f"part {number}" for number in range(len(rows))],
    )


def test_scores_are_points_with_lines_from_end_to_end_first_on_top():
    figure = plots.with_intervals(scores([(0.5, 0.4, 0.7), (0.9, nan, nan), (nan, nan, nan)]), "Some", "score", 0.6)
    (axes,) = figure.axes
    points, dashed = axes.get_lines()
    np.testing.assert_allclose(points.get_xydata(), [[0.5, 0], [0.9, 1]])
    assert dashed.get_xdata()[0] == 0.6
    segments = axes.collections[0].get_segments()
    np.testing.assert_allclose(segments[0], [[0.4, 0], [0.7, 0]])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["part 0", "part 1"]
    assert axes.yaxis_inverted()
    assert "1 without a score left out" in figure.get_suptitle()


@pytest.mark.parametrize("count", [1, 40])
def test_the_texts_beside_scores_are_inside_the_figure(count):
    figure = plots.with_intervals(scores([(0.5, 0.4, 0.7)] * count), "Some", "score")
    figure.canvas.draw()
    right = max(text.get_window_extent().x1 for text in figure.axes[0].texts)
    assert right <= figure.bbox.x1


def test_nothing_to_score_is_an_empty_figure():
    figure = plots.with_intervals(scores([]), "None", "score")
    assert not figure.axes[0].texts


def test_reliability_draws_accuracy_over_confidence_and_counts_below():
    truth = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
    tables = {
        "as it is": calibration.reliability(truth, probabilities, 5),
        "cooler": calibration.reliability(truth, calibration.tempered(probabilities, 2, "softmax"), 5),
    }
    figure = plots.reliability(tables)
    axes, counts = figure.axes
    diagonal, first, second = axes.get_lines()
    np.testing.assert_allclose(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_allclose(first.get_xydata(), [[0.75, 0.5], [0.9, 1]])
    assert second.get_label() == "cooler"
    assert [bar.get_height() for bar in counts.patches[:5]] == [0, 0, 0, 2, 2]
    assert len(counts.patches) == 10
    none = calibration.reliability(np.zeros(0, int), np.zeros((0, 2)))
    assert len(plots.reliability({"as it is": none}).axes[0].get_lines()[1].get_xdata()) == 0
