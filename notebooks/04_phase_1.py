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
# # 4. Phase I: the head
#
# *Notebook 4 of 6.* A **backbone** is the large part of a network that turns an image into a list of features; the
# **head** after it turns features into species. A backbone that was *pretrained* on a million photographs already knows
# edges and textures, and a spectrogram is a picture. The paper's, ConvNeXtTiny, is one. Its new head has to learn
# first what to make of the features, and the head's first, wild steps must not spoil the rest: so in phase I the
# backbone is frozen. A backbone without pretrained weights has nothing to protect, and is trained whole.
#
# In this notebook we
#
# - build the classifier: a backbone, and a head of dense layers;
# - train it with the backbone frozen, if it comes with pretrained weights, or whole if it does not;
# - compare it with a small network from scratch, if the settings say so;
# - see how far that gets on the validation fold.
#
# *Words.* **Loss**: how wrong the probabilities are, which training makes smaller (the cross-entropy: 0 is perfect; to
# guess among 12 species is 2.5). **Learning rate**: how large a step each batch makes. **Validation**: the fold's
# recordings, which are not trained on. **Softmax**: the last layer, whose outputs are probabilities that sum to 1.
# **Dropout**, **batch normalisation**: layers that keep a training from learning by heart, and from running away.

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

from birdlib import baseline, callbacks, device, folds, intervals, models, overview, paper, plots, runs, splits
from birdlib import testing, training

run = runs.open_run("04_phase_1", config, run_dir, data_dir, overrides)
names = overview.names(run.read_table("recordings"))
split = run.read_table("splits")

# %% [markdown]
# ## The model
# Layer by layer, the backbone as one. (`custom_cnn`, the paper's first check, is five blocks of convolutions, each
# looking at a patch of the image twice as large as the one before.) The output is the shape for one image, which has
# 128 mel bands, 320 frames and three equal channels unless the settings say otherwise. What is not trained is frozen,
# or the running statistics of a batch normalisation.

# %%
model = models.build(run.config, len(splits.labels(split)))
models.table(model).style.hide(axis="index").format(thousands=",")

# %%
pretrained = run.config.model.weights is not None
counted = models.table(model).groupby("part")[["parameters", "trained"]].sum()
parts, trained = counted["parameters"], counted["trained"]
frozen = f"""The backbone has pretrained weights. In phase I **its {parts["backbone"]:,} parameters are frozen**, and
the head's {trained["head"]:,} are trained."""
whole = f"""This backbone has no pretrained weights, so there is nothing to protect: **nothing is frozen**, and its
{trained["backbone"]:,} parameters are trained with the head's {trained["head"]:,}. (With pretrained weights, all of
the backbone's {parts["backbone"]:,} would be frozen.)"""
Markdown(frozen if pretrained else whole)

# %% [markdown]
# ## Training
#
# The setting `loss` says what is made smaller: the cross-entropy over a softmax, as in the paper, or one that judges
# each species by itself. Adam does it, with three callbacks: the learning rate is lowered when the validation loss
# stands still; training ends early when that does not help; and the weights of the epoch with the lowest validation
# loss are the ones that are kept.

# %%
results = {fold: training.phase_1(run, fold) for fold in run.config.folds}
Markdown(device.told(run.config))

# %% [markdown]
# Loss and accuracy, epoch by epoch, and what the callbacks did (the paper's figure 15). Training's loss and accuracy
# are of augmented, balanced chunks, and are measured while the weights still change; validation's are of other
# recordings as they are.

# %%
histories = {fold: pd.read_csv(run.path(f"history/phase_1_fold_{fold}.csv")) for fold in results}
for fold, history in histories.items():
    display(run.save_figure(plots.curves(history, f"Phase I, fold {fold}"), f"curves_fold_{fold}"))
    display(Markdown(callbacks.told(history, run.config.phase_1)))

# %% [markdown]
# ## Was the backbone worth it?
#
# The paper began with a small convolutional network as a first check, and trained its backbone both from scratch and
# from ImageNet weights (figures 10 and 11). The setting `comparison.models` names what is trained here beside the
# model, on the first fold, for `comparison.epochs` epochs.

# %%
fold = run.config.folds[0]
others = training.compared(run)
this = f"{run.config.model.backbone}, {'pretrained' if pretrained else 'from scratch'}"
compared = {this: histories[fold].head(run.config.comparison.epochs), **others}
if others:
    display(run.save_figure(plots.side_by_side(compared, f"The first epochs, fold {fold}"), "comparison"))
else:
    display(Markdown("This run's model is itself what it would be compared with, so there is nothing to compare."))

# %% [markdown]
# ## What was reached
#
# On every kept chunk of the validation fold, or of several folds, each chunk by the classifier that was not trained on
# it:

# %%
scores = pd.DataFrame.from_dict(results, orient="index").drop(columns="parameters").rename_axis("fold")
validation = folds.scores(folds.out_of_fold(run, phase=1), split, run.config.seed)
display(scores.style.format({"val_accuracy": "{:.1%}"}))
title = "Validation after phase I, with 95 % intervals"
run.save_figure(plots.with_intervals(testing.headline(validation), title, "score"), "validation")

# %% [markdown]
# ## What a split by author does to a score
#
# A recordist brings the same microphone, the same places, often the same singing bird; with one recording of theirs in
# training and another in validation, a model may know the recordist and not the bird. How much that matters here, a
# logistic regression on mel statistics shows in a minute: the same recordings of the training split, in folds by
# recording and then in folds by author. Whoever will record with other people's machines should expect the lower one.

# %%
if run.config.comparison.by_author:
    heard = run.read_table("recordings").merge(run.read_table("audio"), on="filename")
    if heard["author"].notna().any():
        grouped = baseline.by_grouping(run, heard)
        display(grouped.style.format(precision=3), Markdown(baseline.told(grouped)))
    else:
        display(Markdown("No recording says who made it, so that there is nothing to compare."))

# %%
values = {"val_accuracy": validation["accuracy"], "folds": scores["val_accuracy"].to_dict(), "validation": validation}
values["parameters"] = results[fold]["parameters"]
run.update_metrics("phase_1", values)
run.finish()

# %% jupyter={"source_hidden": true} tags=["hide-input"] _kg_hide-input=true
unscored = [names[label] for label in splits.unscored(split, fold)]
over = f" over the chunks of {len(results)} folds" if len(results) > 1 else ""
reached = intervals.told(validation["accuracy"], *validation["intervals"]["accuracy"], ".1%")
best = [f"{name} {history['val_accuracy'].max():.1%}" for name, history in compared.items() if others]
Markdown(f"""## What we saw{run.synthetic}

- **Frozen: {"the whole backbone; only the head was trained" if pretrained else "nothing"}.** Trained parameters:
  {values["parameters"]["trained"]:,} of {values["parameters"]["all"]:,}; running statistics are not trained.
- Fold {fold}: {callbacks.told(histories[fold], run.config.phase_1)}
- **Validation accuracy after phase I{over}: {reached}** (95 %, the split's groups resampled),
  {validation["times_chance"]:.1f} times chance. The paper's, {paper.where(splits.labels(split))}:
  {paper.ACCURACY["phase_1"]:.2%}.
- The best of the first epochs, side by side: {", ".join(best) or "nothing was trained beside this model"}.
- Species too rare to be in this validation fold: {", ".join(unscored) or "none"}.
""")
