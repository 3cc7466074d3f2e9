import numpy as np
import pandas as pd
import pytest

from birdlib import plots

nan = float("nan")


def table(rows):
    return pd.DataFrame(rows, columns=["state", "val_loss", "phase_1.learning_rate", "model.hidden", "model.dropout"])


FIVE = table(
    [
        ("finished", 2.0, 1e-3, "512", 0.3),
        ("pruned", 9.0, 1e-2, "1024,512", 0.5),
        ("failed", nan, 1e-1, "512", 0.3),
        ("finished", 2.5, 2e-3, "1024", 0.5),
        ("finished", 1.5, 3e-3, "64", 0.5),
    ]
)


def test_trials_stand_in_their_order_with_the_lowest_so_far():
    figure = plots.trials(FIVE, "Stage 1")
    finished, pruned, lowest = figure.axes[0].get_lines()
    np.testing.assert_allclose(finished.get_xydata(), [[1, 2], [4, 2.5], [5, 1.5]])
    np.testing.assert_allclose(lowest.get_xydata(), [[1, 2], [2, 2], [4, 2], [5, 1.5]])
    # A pruned trial's loss may be anything: it does not press the others together, and stands at the edge.
    (x, y), edge = pruned.get_xydata()[0], figure.axes[0].get_ylim()[1]
    assert x == 2
    assert y == edge < 3
    assert figure.get_suptitle() == "Stage 1: 5 trials, 3 of them finished; 1 without a loss left out"


def test_each_setting_has_a_panel_with_its_values():
    figure = plots.tried(FIVE, ["phase_1.learning_rate", "model.hidden", "model.dropout"], ["phase_1.learning_rate"])
    rate, hidden, dropout = figure.axes
    np.testing.assert_allclose(rate.get_lines()[0].get_xydata(), [[1e-3, 2], [2e-3, 2.5], [3e-3, 1.5]])
    assert rate.get_xscale() == "log"
    # Heads by depth, then width, not by the alphabet.
    assert [tick.get_text() for tick in hidden.get_xticklabels()] == ["64", "512", "1024", "1024,512"]
    np.testing.assert_allclose(hidden.get_lines()[0].get_xydata(), [[1, 2], [2, 2.5], [0, 1.5]])
    assert [tick.get_text() for tick in dropout.get_xticklabels()] == ["0.3", "0.5"]
    assert {axes.get_ylim() for axes in figure.axes} == {rate.get_ylim()}


def test_importances_are_bars():
    figure = plots.importance(pd.Series({"model.dropout": 0.75, "seed": 0.25}), "What it hung on")
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.75, 0.25]
    assert [text.get_text() for text in figure.axes[0].texts] == ["75%", "25%"]


@pytest.mark.parametrize("rows", [[], [FIVE.iloc[2].tolist()]], ids=["none", "failed"])
def test_without_anything_to_show_there_is_a_title_alone(rows):
    keys = ["phase_1.learning_rate", "model.hidden"]
    drawn = [plots.trials(table(rows)), plots.tried(table(rows), keys), plots.importance(pd.Series(dtype=float), "No")]
    assert [figure.axes for figure in drawn] == [[], [], []]
    assert all(figure.get_suptitle() for figure in drawn)


@pytest.mark.parametrize("state", ["finished", "pruned"])
def test_one_trial_fills_the_panels(state):
    one = table([(state, 2.0, 1e-3, "512", 0.3)])
    for figure in (plots.trials(one), plots.tried(one, ["phase_1.learning_rate", "model.hidden"], [])):
        figure.canvas.draw()
        wide = sum(axes.get_position().width for axes in figure.axes)
        assert wide > 0.7  # an empty line once took the room
