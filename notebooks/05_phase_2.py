# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5. Phase II: fine-tuning all of it
#
# *Notebook 5 of 6.* With a head that knows what it wants, the backbone may learn too: slowly, from phase I's best
# weights. (A backbone that was not frozen in phase I goes on learning, at the smaller rate.)
#
# In this notebook we
#
# - train everything, a frozen backbone too, with a small learning rate;
# - see whether the learning rate had to come down, which it does when the validation loss stands still;
# - compare phase II with phase I, in figures and on single chunks.

# %% tags=["parameters"]
config: str = None  # "sample", "paper" or a YAML file; None: the run folder's own settings
run_dir: str = None  # where results go; None: runs/<config>
data_dir: str = None  # the folder of recordings, or "kaggle:birdclef-2024"; None: the built-in sample data set
overrides: dict = {}  # settings on top, such as {"silence.threshold": 0.05}

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import pandas as pd
from IPython.display import Markdown, display

from birdlib import callbacks, examples, folds, intervals, overview, paper, players, plots, runs, spectrogram, splits
from birdlib import testing, training

run = runs.open_run("05_phase_2", config, run_dir, data_dir, overrides)
names = overview.names(run.read_table("recordings"))

# %% [markdown]
# ## Training

# %%
results = {fold: training.phase_2(run, fold) for fold in run.config.folds}

# %% [markdown]
# The whole run, one phase after the other (the paper's figure 16). Phase II begins with phase I's *best* weights (the
# ringed epoch's), which need not be its last.

# %%
whole = {fold: training.whole_history(run, fold) for fold in results}
for fold, history in whole.items():
    display(run.save_figure(plots.whole_run(history, f"Both phases, fold {fold}"), f"whole_run_fold_{fold}"))

# %% [markdown]
# Early fine-tuning, close up (figure 12): the end of phase I, and the first epochs of phase II. It often begins with
# a step back: Adam starts anew, and its first steps are as long as the learning rate lets them, however small the
# gradient.

# %%
fold = run.config.folds[0]
first = (whole[fold]["phase"] == "II").idxmax()
early = whole[fold].iloc[max(first - 4, 0) : first + 5]
run.save_figure(plots.whole_run(early, f"Where fine-tuning begins, fold {fold}"), "early")

# %% [markdown]
# Phase II alone, and what its callbacks did:

# %%
for fold in results:
    history = whole[fold].query("phase == 'II'")
    display(run.save_figure(plots.curves(history, f"Phase II, fold {fold}"), f"curves_fold_{fold}"))
    display(Markdown(callbacks.told(history, run.config.phase_2)))

# %% [markdown]
# The learning rate (figure 17): it is lowered whenever the validation loss has not improved for `plateau_patience`
# epochs.

# %%
fold = run.config.folds[0]
run.save_figure(plots.learning_rate(whole[fold]), "learning_rate")

# %% [markdown]
# ## Phase I against phase II
#
# By accuracy on every kept chunk of the validation fold; of several folds, each one's (figure 14), and all together.

# %%
said_out = folds.out_of_fold(run, phase=2)
over_folds = folds.scores(said_out, run.read_table("splits"), run.config.seed)
by_fold = pd.Series({f"fold {number}": result["val_accuracy"] for number, result in results.items()})
if len(results) > 1:
    curves = {f"fold {number}": history for number, history in whole.items()}
    display(run.save_figure(plots.folds(curves, by_fold), "folds"))

# %% [markdown]
# Every chunk by the classifier that was not trained on it, the folds one by one and together (figure 14). Where all
# folds are trained (`folds=0,1,2,3`), that is all of the training split. Each fold's validation chose its epoch, so
# this flatters a little. The intervals (95 %) resample the split's own groups.

# %%
folds.table(over_folds).style.format(precision=3)

# %%
title = "Validation, each chunk by a classifier that has not seen it"
run.save_figure(plots.with_intervals(testing.headline(over_folds), title, "score"), "out_of_fold")

# %%
scores = pd.DataFrame.from_dict(results, orient="index").drop(columns="parameters").rename_axis("fold")
before, after = run.metrics()["phase_1"]["validation"]["accuracy"], over_folds["accuracy"]
labels = splits.labels(run.read_table("splits"))
bars = pd.Series({"phase I": before, "phase II": after})
run.save_figure(plots.comparison(bars, 1 / len(labels), "Validation", "accuracy by chunk"), "phases")

# %% [markdown]
# ## Where it changed its mind
#
# How often each phase was right about the same validation chunks:

# %%
said = [table.drop(columns="fold") for table in (folds.out_of_fold(run, phase=1), said_out)]
examples.changes(*said)

# %% [markdown]
# Some that they see differently: those that changed most, which is no fair sample.

# %%
minds = examples.changed(*said, names)
sounds, scales = examples.read(run, minds), spectrogram.scales(run.config)
images, seconds = spectrogram.images(sounds.values(), run.config), run.config.chunks.length_s
figure = plots.sounds(sounds, images, seconds=seconds, own_scale=True, columns=3, **scales)
run.save_figure(figure, "changed_minds")

# %%
players.row(sounds, run.config.audio.sample_rate_hz)

# %%
values = {"val_accuracy": after, "folds": scores["val_accuracy"].to_dict(), "validation": over_folds}
run.update_metrics("phase_2", values)
run.finish()

# %% jupyter={"source_hidden": true} tags=["hide-input"] _kg_hide-input=true
parameters, groups = results[fold]["parameters"], splits.groups(run.read_table("splits"), said[0]["filename"])
gain = examples.gain(*said, groups, run.config.seed)
frozen = "was frozen" if run.config.model.weights else "was not frozen either: this is what longer training gave"
over = f" over the chunks of {len(results)} folds" if len(results) > 1 else ""
Markdown(f"""## What we saw{run.synthetic}

- Trained parameters: {parameters["trained"]:,} of {parameters["all"]:,}; the rest are batch normalisations' statistics.
- Fold {fold}: {callbacks.told(whole[fold].query("phase == 'II'"), run.config.phase_2)}
- **Validation accuracy{over} went from {before:.1%} after phase I to {after:.1%} after phase II**, a gain of
  {intervals.told(*gain, "+.1%")} (95 %, the split's groups resampled). In phase I the backbone {frozen}.
- The paper's, {paper.where(labels)}: from {paper.ACCURACY["phase_1"]:.2%} to {paper.ACCURACY["phase_2"]:.2%}.
""")
