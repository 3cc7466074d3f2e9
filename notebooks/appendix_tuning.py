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
# # Appendix: tuning
#
# *Beside the series: it runs where it is asked for, and wants its first two notebooks done.* Learning rates, batch
# sizes, dropout: somebody chose them. The paper's authors searched in two stages (its section IV.C): first the
# settings of phase I, then, from the weights of the best, those of phase II. So does this notebook, by
# [Optuna](https://optuna.org) (`pip install optuna`).
#
# In this notebook we
#
# - see which settings are searched, and over which values;
# - try them: each trial trains as a run would, and is judged by its validation loss;
# - see which settings the loss hung on, and how far that can be believed;
# - write the best as a file that `birdlib run --config` takes.
#
# *Words.* A **trial**: one training with some settings. **Pruned**: given up early, since it was worse than the median
# of the others at the same epoch. **Importance**: which share of the differences between trials a setting explains.

# %% tags=["parameters"]
config: str = None  # "sample", "paper" or a YAML file; None: the run folder's own settings
run_dir: str = None  # where results go; None: runs/<config>
data_dir: str = None  # the folder of recordings, or "kaggle:birdclef-2024"; None: the built-in sample data set
overrides: dict = {}  # settings on top, such as {"tuning.trials": 20}

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
from IPython.display import Markdown, display

from birdlib import config as configs
from birdlib import runs, tuning

run = runs.open_run("appendix_tuning", config, run_dir, data_dir, overrides)

# %% [markdown]
# ## What is searched
#
# The setting `tuning` says it: choices, or a range. In the preset `paper`, the thresholds and the dropouts are those
# that the paper tried; around the other values that it kept, the choices are ours. What earlier notebooks made (chunks,
# splits, decoded recordings) is the same for all trials and is not made again.

# %%
tuning.spaces(run.config).style.hide(axis="index")

# %% [markdown]
# ## Stage one: phase I
#
# The first trial is the settings as they are, so that the search cannot end worse than it began. Some are then drawn at
# random; after that, Optuna draws where the loss was low. A loss is the lowest over the epochs, the mean over the
# folds of `folds`. If this cell is interrupted, it goes on where it was when it is run again.

# %%
found = tuning.tune(run, which=(1,))
for figure in tuning.figures(run, 1, found[1]):
    display(figure)

# %%
found[1].table().nsmallest(5, "val_loss").style.hide(axis="index").format(precision=4)

# %% [markdown]
# ## Stage two: phase II
#
# From stage one's best weights. Only what phase II alone reads is searched here: whatever else were changed now, phase
# I would have to be trained again with it.

# %%
found |= tuning.tune(run, which=(2,))
for figure in tuning.figures(run, 2, found[2]):
    display(figure)

# %%
found[2].table().nsmallest(5, "val_loss").style.hide(axis="index").format(precision=4)

# %% [markdown]
# ## What to make of it
#
# The lowest of many losses is low by luck too: each trial's weights, batches and augmentations are one draw, and all
# were judged on the same validation recordings. So the best trial's loss is no estimate of anything. The test is: no
# trial has seen it. Run the series with the file, and read the test there.

# %%
best = tuning.best_settings(run.config, found)
differ = configs.changed(run.config, best)
print(run.path(tuning.BEST).read_text(encoding="utf-8"))

# %%
run.update_metrics("tuning", {f"stage_{stage}": tuning.summary(one) for stage, one in found.items()})
run.finish()

# %% jupyter={"source_hidden": true} tags=["hide-input"] _kg_hide-input=true
changes = ", ".join(f"{key} from {old} to {new}" for key, (old, new) in differ.items())
Markdown(f"""## What we saw{run.synthetic}

- {tuning.told(found[1], 1)}
- {tuning.told(found[2], 2)}
- Importances in stage 1: {tuning.told_importance(found[1])} In stage 2: {tuning.told_importance(found[2])}
- The best settings differ from those that the search began with: {changes or "not at all"}.
- They are in `{tuning.BEST}`: `birdlib run --config {run.path(tuning.BEST)}`.
""")
