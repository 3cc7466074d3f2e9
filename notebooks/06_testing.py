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
# # 6. The test
#
# *Notebook 6 of 6.* Recordings that no choice has looked at, and one look at them.
#
# In this notebook we
#
# - test the classifier by chunk and by recording, beside chance and beside a much simpler method;
# - see which species it gets right, and which it takes for each other;
# - ask two easier questions of it: is this bird endangered, is it nocturnal?
# - predict soundscapes, and write `submission.csv`.

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

from birdlib import classifier, evaluation, plots, runs, soundscapes, testing

run = runs.open_run("06_testing", config, run_dir, data_dir, overrides)

# %% [markdown]
# ## The result
#
# Silent chunks are left out, as in training. Since a recorder in the field does not filter, the test is scored once
# more with them. A recording's prediction is the mean of its chunks'.

# %%
classifiers = testing.classifiers(run)
result = testing.test(run, classifiers)
traits = testing.traits(run, result.labels)
baseline = testing.baseline_score(run, result)
scores = testing.scores(result, traits, baseline, run.synthetic)
rows = {"kept chunks": scores, "with silent chunks": scores["with_silent_chunks"]}
columns = ["accuracy", "recording_accuracy", "times_chance", "macro_roc_auc", "chunks", "recordings"]
pd.DataFrame.from_dict(rows, orient="index")[columns]

# %% [markdown]
# A logistic regression on the mean and deviation of each mel band is what all the effort has to beat. It learns from
# chunks of the same training side (at most `testing.baseline_chunks` of a species) and is tested on the same test.

# %%
bars = {
    "chance": scores["chance"],
    "logistic regression": baseline,
    "this network": scores["accuracy"],
}
run.save_figure(
    plots.comparison(pd.Series(bars), scores["chance"], title="Test", xlabel="accuracy by chunk"), "comparison"
)

# %% [markdown]
# ## Species by species

# %%
kept = result.kept
per_class = evaluation.per_class(result.truth[kept], result.probabilities[kept], result.labels)
run.save_figure(plots.per_class(per_class), "per_class")

# %%
matrix = evaluation.confusion(result.truth[kept], result.probabilities[kept])
run.save_figure(plots.confusion(matrix, result.labels), "confusion")

# %% [markdown]
# ## Endangered? Nocturnal?
#
# The probability of a group of species is the sum of theirs. Such groups tend to be rare, and then the average
# precision says more than an accuracy would.

# %%
pd.DataFrame.from_dict({name: scores[name] for name in traits.columns}, orient="index")

# %% [markdown]
# ## Soundscapes
#
# Long recordings, a row of probabilities for every window. A softmax names some bird in every window, also where
# there is none.

# %%
found = soundscapes.find(run.data_dir, run.config)
average = classifier.average(list(classifiers.values()))
windows, unreadable = soundscapes.predict(found.paths, average, result.labels, run.config)
run.record_errors(unreadable)
Markdown(
    f"{len(found.paths)} soundscapes from `{found.folder}/`, {len(windows)} windows."
    if found.paths
    else "**There are no soundscapes in this data folder**: `submission.csv` gets its header and no rows."
)

# %%
if len(windows):
    one = windows[windows["filename"] == windows["filename"].iloc[0]]
    truth = soundscapes.truth(run.data_dir, one["filename"].iloc[0])
    starts_s, length_s = one["start_s"].to_numpy(), run.config.chunks.length_s
    figure = plots.timeline(one[result.labels].to_numpy(), starts_s, length_s, result.labels, truth)
    display(run.save_figure(figure, "soundscape"))

# %%
table, unknown = soundscapes.submission(windows, result.labels, run.data_dir)
run.write_csv("submission.csv", table)
run.write_table("predictions", result.predictions)
run.update_metrics("test", scores)
run.finish()

# %%
pairs = evaluation.confused_pairs(matrix, result.labels)
confused = ", ".join(f"{right} taken for {taken} ({count} chunks)" for right, taken, count in pairs)
Markdown(f"""## What we saw{run.synthetic}

- **{scores["accuracy"]:.1%} of the test's chunks and {scores["recording_accuracy"]:.1%} of its recordings are right:
  {scores["times_chance"]:.1f} times chance**, macro ROC-AUC {scores["macro_roc_auc"]:.3f}. With silent chunks:
  {scores["with_silent_chunks"]["accuracy"]:.1%}. (The paper, on BirdCLEF 2024: 56.82 %, 103 times chance.)
- The logistic regression gets {baseline:.1%} on the same test.
- Most confused: {confused or "no two species"}.
- Species without a test recording: {", ".join(scores["classes_without_test"]) or "none"}.
- `submission.csv` has {len(table)} rows and {table.shape[1] - 1} species, {len(unknown)} of them unknown to this model.
""")
