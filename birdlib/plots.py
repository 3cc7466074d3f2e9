"""Every figure of the series, each a function: data in, matplotlib figure out.

A figure belongs to its caller: it needs no closing, and as a notebook cell's last expression it shows itself. The
functions live in `plots_data`, `plots_chunks`, `plots_sound`, `plots_training`, `plots_results`, `plots_scores` and
`plots_tuning`, in the one style of `plots_style`; this is where they are called from.
"""

from birdlib.plots_chunks import chunk_counts, cut, dropped_by_measure, energies, epoch_balance, fold_sides
from birdlib.plots_data import class_counts, lengths, places, ranking, ratings
from birdlib.plots_results import comparison, confusion, confusion_order, per_class, timeline
from birdlib.plots_scores import reliability, with_intervals
from birdlib.plots_sound import images, sounds, thumbnail
from birdlib.plots_style import Figure
from birdlib.plots_training import curves, folds, learning_rate, side_by_side, whole_run
from birdlib.plots_tuning import importance, trials, tried

__all__ = [
    "Figure",
    "chunk_counts",
    "class_counts",
    "comparison",
    "confusion",
    "confusion_order",
    "curves",
    "cut",
    "dropped_by_measure",
    "energies",
    "epoch_balance",
    "fold_sides",
    "folds",
    "images",
    "importance",
    "learning_rate",
    "lengths",
    "per_class",
    "places",
    "ranking",
    "ratings",
    "reliability",
    "side_by_side",
    "sounds",
    "thumbnail",
    "timeline",
    "trials",
    "tried",
    "whole_run",
    "with_intervals",
]
