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
# # 4. Phase I: a head on a frozen backbone
#
# *Notebook 4 of 6.* A backbone that has seen a million photographs already knows edges and textures, and a spectrogram
# is a picture. A new head has to learn first what to make of them, and its first, wild steps must not spoil the rest.
#
# In this notebook we
#
# - build the classifier: a backbone, pooled, and a head of dense layers;
# - train it with the backbone frozen, if it comes with pretrained weights, or whole if it does not;
# - see how far that gets on the validation fold.

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

run = runs.open_run("04_phase_1", config, run_dir, data_dir, overrides)

# %% [markdown]
# ## The model

# %%
model = models.build(run.config, len(splits.labels(run.read_table("splits"))))
names = {"all": "in all", "frozen": "not trained (frozen, or running statistics)"}
pd.Series(models.parameters(model), name="parameters").rename(names).map("{:,}".format).to_frame()

# %%
pretrained = run.config.model.weights is not None
Markdown(
    "The backbone has pretrained weights: it is **frozen**, and only the head is trained in this phase."
    if pretrained
    else "This backbone has **no pretrained weights**, so there is nothing to protect: it is trained whole."
)

# %% [markdown]
# ## Training
#
# Adam; the learning rate halves when the validation loss stands still; training stops early when that does not help;
# the weights of the epoch with the lowest validation loss are kept.

# %%
results = {fold: training.phase_1(run, fold) for fold in run.config.folds}

# %%
histories = {fold: pd.read_csv(run.path(f"history/phase_1_fold_{fold}.csv")) for fold in results}
for fold, history in histories.items():
    display(run.save_figure(plots.curves(history, f"Phase I, fold {fold}"), f"curves_fold_{fold}"))

# %% [markdown]
# What was reached, on every kept chunk of the validation fold:

# %%
scores = pd.DataFrame.from_dict(results, orient="index").drop(columns="parameters")
scores

# %%
mean = scores["val_accuracy"].mean()
folds = scores["val_accuracy"].to_dict()
parameters = results[run.config.folds[0]]["parameters"]
run.update_metrics("phase_1", {"val_accuracy": mean, "folds": folds, "parameters": parameters})
run.finish()

# %%
history = histories[run.config.folds[0]]
unscored = splits.unscored(run.read_table("splits"), run.config.folds[0])
Markdown(f"""## What we saw{run.synthetic}

- Fold {run.config.folds[0]} trained for {len(history)} epochs; the lowest validation loss was in epoch
  {history["val_loss"].idxmin()} (counted from 0).
- **Validation accuracy after phase I: {mean:.1%}**, {mean * model.output_shape[-1]:.1f} times chance. (The paper, on
  BirdCLEF 2024: 16.27 % of 182 species.)
- Species too rare to be in this validation fold: {", ".join(unscored) or "none"}.
""")
