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
# *Notebook 6 of 6.* Recordings that no choice has looked at. They are meant for one look: whoever changes a setting for
# the sake of this result has no test any more.
#
# In this notebook we
#
# - test the classifier by chunk and by recording, beside chance, beside a much simpler method, and beside the paper;
# - see which species it gets right, and which it takes for each other, and listen to those;
# - ask two easier questions of it: is this bird endangered, is it nocturnal?
# - predict soundscapes, and write `submission.csv`.
#
# A split without a test (`splits.test_share=0`) has its validation looked at instead: each chunk as the classifier says
# that was not trained on it. That one did choose the epochs, so it flatters a little.
#
# *Words.* **Recall**: the share of a species' chunks that are recognised. **Precision**: of the chunks that are said to
# be of the species, the share that are. **ROC-AUC**: how often a chunk of the species gets a higher probability for it
# than a chunk of another; 0.5 is chance, 1 perfect; *macro*: the mean over the species, each counting the same.
# **Average precision**: of the chunks ranked by probability, how many at the top are right; chance is the share of
# right ones. **Interval**: where 95 % of results would lie, had other recordings come into the test.

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

from birdlib import audio, calibration, classifier, evaluation, examples, exported, hearing, intervals, overview, paper
from birdlib import players, plots, runs, soundscapes, spectrogram, submissions, testing

run = runs.open_run("06_testing", config, run_dir, data_dir, overrides)
names = overview.names(run.read_table("recordings"))

# %% [markdown]
# ## The result
#
# Silent chunks are left out, as in training. Since a recorder in the field does not filter, the test is scored once
# more with them, though no answer can be right where nothing is heard. A recording's prediction is the mean of its
# chunks'; with several folds, a chunk's is the mean of the folds' classifiers.

# %%
classifiers = testing.classifiers(run)
result = testing.test(run, classifiers)
traits = testing.traits(run, result.labels)
baseline = testing.baseline_score(run, result)
scores = testing.scores(result, traits, baseline, run.synthetic, run.config.seed)
rows = {"kept chunks": scores, "with silent chunks": scores["with_silent_chunks"]}
rows = {name: values for name, values in rows.items() if values}  # in a validation there are no silent ones
low, high = scores["intervals"]["accuracy"]
columns = ["accuracy", "recording_accuracy", "times_chance", "macro_roc_auc", "chunks", "recordings"]
percent = {"accuracy": "{:.1%}", "recording_accuracy": "{:.1%}", "times_chance": "{:.1f}", "macro_roc_auc": "{:.3f}"}
pd.DataFrame.from_dict(rows, orient="index")[columns].style.format(percent)

# %% [markdown]
# The same with intervals (95 %): what would have come out, had other recordings come into the test. Whole groups of the
# split are drawn again: recordings, or all that one person made, as `splits.group_by` has it. Means over species leave
# out those that are not in the test.

# %%
title = f"The {result.side}, with 95 % intervals"
run.save_figure(plots.with_intervals(testing.headline(scores), title, "score"), "headline")

# %% [markdown]
# Two answers that cost nothing, or little: always the commonest species, and a logistic regression on the mean and
# deviation of each mel band, learnt from the same training side (at most `testing.baseline_chunks` of a species). The
# regression hears which pitches there are, and cannot hear in which order.

# %%
common = scores["commonest"]
bars = pd.Series({"always the commonest": common, "logistic regression": baseline, "network": scores["accuracy"]})
interval = {"network": (low, high)}
title = result.side.capitalize()
run.save_figure(plots.comparison(bars, scores["chance"], title, "accuracy by chunk", interval), "comparison")

# %% [markdown]
# Beside validation, and beside the paper's own numbers. Validation flatters a little, since it chose the epoch and
# lowered the learning rate; the test chose nothing. The paper's are of **other data** unless this is BirdCLEF 2024,
# and how many times chance a result is depends on the number of species: neither column says which classifier is
# better.

# %%
run.update_metrics(result.side, scores)
paper.beside(run.metrics(), result.labels)

# %% [markdown]
# ## Species by species
#
# A species that is named at every turn has a high recall and a low precision; one that is named only where it is
# plain, a low recall and a high precision. Of few chunks, either is a rough number.

# %%
kept = result.kept
per_class = evaluation.per_class(result.truth[kept], result.probabilities[kept], result.labels)
run.save_figure(plots.per_class(per_class, names), "per_class")

# %% [markdown]
# Which is taken for which? Rows are the truth, columns the prediction; what is confused lies side by side.

# %%
matrix = evaluation.confusion(result.truth[kept], result.probabilities[kept])
run.save_figure(plots.confusion(matrix, result.labels, names), "confusion")

# %% [markdown]
# The pairs confused most, by name:

# %%
pairs, tested = evaluation.confused_pairs(matrix, result.labels, most=6), pd.Series(matrix.sum(axis=1), result.labels)
table = pd.DataFrame(pairs, columns=["truly", "taken for", "chunks"])
table.assign(of=table["truly"].map(tested)).replace(names).style.format(escape="html").hide(axis="index")

# %% [markdown]
# The first two of them, to see and to hear: a test chunk that was mistaken, and one of each species that was not.

# %%
shown = examples.confused(result.said, pairs[:2], result.labels, names)
sounds, scales = examples.read(run, shown), spectrogram.scales(run.config)
images, seconds = spectrogram.images(sounds.values(), run.config), run.config.chunks.length_s
figure = plots.sounds(sounds, images, seconds=seconds, own_scale=True, columns=3, **scales)
run.save_figure(figure, "confused_pairs")

# %%
players.row(sounds, run.config.audio.sample_rate_hz, columns=3)

# %% [markdown]
# ## Short recordings, long ones, and whose
#
# A long recording has more chunks, and in more of them the bird is silent or far; and who has much in the test has much
# in training too, unless the split keeps people apart.

# %%
recordings = run.read_table("recordings")
parts = {"length": testing.by_length(result, recordings, run.config.seed)}
parts["author"] = testing.by_author(result, recordings, run.config.seed)
for name, part in parts.items():
    figure = plots.with_intervals(testing.told(part), f"Accuracy by {name}", "by chunk", scores["accuracy"])
    display(run.save_figure(figure, f"by_{name}"))

# %% [markdown]
# ## As sure as it is right?
#
# Of the chunks to whose likeliest species it gives 80 %, eight in ten should be right. A network is mostly surer than
# that. One number helps, the *temperature*: its logits are divided by it, which changes how sure it is and not what it
# names. It was fitted on validation alone and lies beside each classifier; the test shows whether it helps.

# %%
says = {"as it is": result.probabilities, "at its temperature": result.tempered}
bins = {name: calibration.reliability(result.truth[kept], values[kept]) for name, values in says.items()}
run.save_figure(plots.reliability(bins), "reliability")

# %%
error = scores["calibration"]
Markdown(f"""The two are apart by **{error["expected_error"]:.1%} on average as it is, and by
{error["expected_error_tempered"]:.1%} at its temperature** (the expected calibration error).""")

# %% [markdown]
# ## Endangered? Nocturnal?
#
# The probability of a group of species is the sum of theirs (or, where the setting `loss` has each judged by itself,
# that of any of them being there). Such groups tend to be rare, and then the average
# precision says more than an accuracy would: by chance it would be the share of positives. With few recordings of them,
# the intervals are wide; species without an entry are left out.

# %%
groups = {name: testing.trait_row(scores[name], testing.members(traits, name, names)) for name in traits.columns}
pd.DataFrame.from_dict(groups, orient="index")

# %% [markdown]
# ## Soundscapes
#
# Long recordings, a row of probabilities for every window of a chunk's length. The figure has the likeliest species,
# and those that are truly there where that is known. A softmax names some bird in every window, also where there is
# none.

# %%
found = soundscapes.find(run.data_dir, run.config)
average = classifier.average(list(classifiers.values()))
wanted = submissions.wanted_in(run.data_dir, result.labels)
windows, unreadable = soundscapes.predict(found.paths, average, result.labels, run.config, wanted.prefix)
run.record_errors({**result.broken, **unreadable})
hidden = " `test_soundscapes/` is empty, as on Kaggle until the notebook is scored: these stand in."
some = f"{len(found.paths)} soundscapes from `{found.folder}/`, {len(windows):,} windows."
some += hidden if found.folder.startswith("unlabeled") else ""
none = "**There are no soundscapes in this data folder**: `submission.csv` gets its header and no rows."
Markdown(some if found.paths else none)

# %%
if len(windows):
    one = windows[windows["filename"] == windows["filename"].iloc[0]]
    heard = audio.read(run.data_dir / found.folder / one["filename"].iloc[0], run.config.audio.sample_rate_hz)
    truth = soundscapes.truth(run.data_dir, one["filename"].iloc[0])
    starts_s, image = one["start_s"].to_numpy(), spectrogram.image(heard, run.config)
    values = one[result.labels].to_numpy()
    figure = plots.timeline(values, starts_s, seconds, result.labels, truth, names=names, image=image, **scales)
    display(run.save_figure(figure, "soundscape"))
    display(players.row({one["filename"].iloc[0]: heard}, run.config.audio.sample_rate_hz))

# %% [markdown]
# Where the truth is known, the soundscapes score themselves as the competition does: macro ROC-AUC by window, over the
# species that sing in one. Whole minutes of mixed birds are harder than a recording of one bird.

# %%
self_score = soundscapes.score(windows, result.labels, run.data_dir, run.config)
run.update_metrics("soundscapes", self_score._asdict() if self_score else {"rows": 0})
score = "Nobody has said what sings in these soundscapes: no score."
if self_score:
    area = intervals.told(self_score.macro_roc_auc, *self_score.intervals["macro_roc_auc"])
    score = f"Macro ROC-AUC by window: **{area}**, {self_score.species} species, {self_score.rows:,} windows."
Markdown(score)

# %% [markdown]
# A submission that lacks a row is refused: those of a soundscape that cannot be read are filled with the share that
# each species has in the training.

# %%
share = exported.species(run.read_table("recordings"), run.read_table("splits"), result.labels)["share"]
lengths, prefix = hearing.durations_s, wanted.prefix
whole, filled = submissions.complete(windows, found.paths, share, result.labels, run.config, lengths, prefix)
table, unknown = submissions.submitted(whole, result.labels, wanted.columns)
run.write_csv("submission.csv", table)
run.write_table("predictions", result.predictions)
run.finish()
table.iloc[:3, :7]

# %% jupyter={"source_hidden": true} tags=["hide-input"] _kg_hide-input=true
told = [f"{names[true]} taken for {names[to]} ({count} of {tested[true]} chunks)" for true, to, count in pairs[:2]]
silent = "".join(f"With silent chunks: {of['accuracy']:.1%} of chunks." for of in [scores["with_silent_chunks"]] if of)
untested = [names[label] for label in scores["classes_without_test"]]
Markdown(f"""## What we saw{run.synthetic}

- **Of the {result.side}'s {scores["chunks"]:,} chunks {intervals.told(scores["accuracy"], low, high, ".1%")} are
  right** (95 %, groups of the split resampled), {scores["times_chance"]:.1f} times chance;
  {scores["recording_accuracy"]:.1%} of its {scores["recordings"]:,} recordings. Macro ROC-AUC
  {scores["macro_roc_auc"]:.3f}, class-mean average precision {scores["mean_average_precision"]:.3f}. {silent}
- On the same chunks the logistic regression gets {baseline:.1%}, and always saying the commonest species {common:.1%}.
- Most confused: {"; ".join(told) or "no two species"}.
- Species without a recording there: {", ".join(untested) or "none"}.
- `submission.csv`: {len(table):,} rows and {table.shape[1] - 1} species, {len(unknown)} of them unknown to this model.
  {filled:,} rows are of soundscapes that cannot be read: class priors.
""")
