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
# weights.
#
# In this notebook we
#
# - thaw the backbone and train everything with a small learning rate;
# - see whether the learning rate had to come down, which it does when the validation loss stands still;
# - compare phase II with phase I.

# %% tags=["parameters"]
config = None  # "sample", "paper" or a YAML file; None: the run folder's own settings
run_dir = None  # where results go; None: runs/<config>
data_dir = None  # the folder of recordings; None: the built-in sample data set
overrides = {}  # settings on top, such as {"silence.threshold": 0.05}

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import pandas as pd
from IPython.display import Markdown, display

from birdlib import models, plots, runs, splits, training

run = runs.open_run("05_phase_2", config, run_dir, data_dir, overrides)

# %% [markdown]
# ## Training

# %%
results = {fold: training.phase_2(run, fold) for fold in run.config.folds}
histories = {fold: pd.read_csv(run.path(f"history/phase_2_fold_{fold}.csv")) for fold in results}

# %% [markdown]
# Loss and accuracy, epoch by epoch (the paper's figure 16).

# %%
for fold, history in histories.items():
    display(run.save_figure(plots.curves(history, f"Phase II, fold {fold}"), f"curves_fold_{fold}"))

# %% [markdown]
# The learning rate (figure 17): it halves whenever the validation loss has not improved for
# `phase_2.plateau_patience` epochs.

# %%
fold = run.config.folds[0]
run.save_figure(plots.learning_rate(histories[fold]), "learning_rate")

# %% [markdown]
# ## Phase I against phase II

# %%
if len(results) > 1:
    by_fold = pd.Series({f"fold {number}": result["val_accuracy"] for number, result in results.items()})
    display(run.save_figure(plots.fold_scores(by_fold), "fold_scores"))

# %%
scores = pd.DataFrame.from_dict(results, orient="index").drop(columns="parameters")
before, after = run.metrics()["phase_1"]["val_accuracy"], scores["val_accuracy"].mean()
classes = len(splits.labels(run.read_table("splits")))
bars = {"chance": 1 / classes, "phase I": before, "phase II": after}
run.save_figure(
    plots.comparison(pd.Series(bars), chance=1 / classes, title="Validation", xlabel="accuracy by chunk"), "phases"
)

# %%
run.update_metrics("phase_2", {"val_accuracy": after, "folds": scores["val_accuracy"].to_dict()})
run.finish()
trained = models.parameters(models.load(run.path(f"models/phase_2_fold_{fold}.keras")))["trained"]
Markdown(f"""## What we saw{run.synthetic}

- All of the network was trained: {trained:,} parameters.
- **Validation accuracy went from {before:.1%} after phase I to {after:.1%} after phase II.** (The paper, on BirdCLEF
  2024: from 16.27 % to 60.29 %.)
- The learning rate ended at {histories[fold]["learning_rate"].iloc[-1]:.2g}, having begun at
  {run.config.phase_2.learning_rate:.2g}.
""")
