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
# # 2. Chunks, silence and folds
#
# *Notebook 2 of 6.* A network takes pieces of one length. Many of them hold no bird at all.
#
# In this notebook we
#
# - cut every recording into chunks that overlap (of 5 s and by 1 s, unless the settings say otherwise);
# - measure how loud each chunk is, and leave the silent ones out;
# - decide, once and for all, which recordings train, which validate and which test.

# %% tags=["parameters"]
config = None  # "sample", "paper" or a YAML file; None: the run folder's own settings
run_dir = None  # where results go; None: runs/<config>
data_dir = None  # the folder of recordings; None: the built-in sample data set
overrides = {}  # settings on top, such as {"silence.threshold": 0.05}

# %%
from IPython.display import Audio, Markdown

from birdlib import audio, chunks, metadata, plots, runs, splits

run = runs.open_run("02_chunking", config, run_dir, data_dir, overrides)
recordings = run.read_table("recordings")
files = recordings.loc[metadata.readable(recordings), "filename"].tolist()

# %% [markdown]
# Every file is decoded once, in bounded memory, many at a time, and not again when only the filter below changes. What
# comes back is a table with a row a chunk: where it starts, and its energy, which is the largest short-time RMS in it,
# absolute (`rms`) and relative to the loudest moment of its recording (`rms_relative`).

# %%
index = chunks.indexed(run, files)
run.record_errors(index.problems)

# %%
kept = chunks.kept(index.chunks, run.config.silence)
table = index.chunks.merge(recordings[["filename", "primary_label"]]).assign(kept=kept)
table.head()

# %% [markdown]
# ## One recording
#
# The recording with the largest share of silent chunks, cut up. Kept chunks and silent ones are told apart. (The
# paper's figure 5.)

# %%
name = table.groupby("filename")["kept"].mean().idxmin()
example = table[table["filename"] == name]
samples = audio.read(run.data_dir / "train_audio" / name, run.config.audio.sample_rate_hz)
rate, length_s = run.config.audio.sample_rate_hz, run.config.chunks.length_s
run.save_figure(plots.cut(samples, rate, example["start_s"], length_s, example["kept"]), "cut")

# %%
Audio(samples[: 20 * rate], rate=rate)

# %% [markdown]
# ## Which measure, which threshold?
#
# The paper calls a chunk silent when "the maximum energy level" is under 0.1, and says no more. Measured absolutely,
# such a threshold throws out quiet recordings whole, and with them much of a species; measured against the loudest
# moment of the same recording, it throws out pauses. The figure shows the share of each species' chunks that lie under
# the same threshold by each measure.

# %%
silence = run.config.silence
under = {measure: index.chunks[column] < silence.threshold for measure, column in chunks.MEASURES.items()}
dropped = table.assign(**under).groupby("primary_label")[list(under)].mean()
run.save_figure(plots.dropped_by_measure(dropped), "dropped_by_measure")

# %%
energy = index.chunks[chunks.MEASURES[silence.measure]]
run.save_figure(plots.energies(energy, silence.threshold, silence.measure), "energies")

# %% [markdown]
# Chunks per species, before and after the filter (figure 4). A recording always keeps its loudest chunk, so no
# recording and no species is lost to it.

# %%
by_class = table["primary_label"].value_counts()
kept_by_class = table.loc[table["kept"], "primary_label"].value_counts()
run.save_figure(plots.chunk_counts(by_class, kept_by_class), "chunk_counts")

# %% [markdown]
# ## Who trains, who tests
#
# The unit is never the chunk: neighbouring chunks of one recording are nearly the same, and with one in training and
# the other in the test, the score would measure memory. Whole recordings (or, with `splits.group_by=author`, all that
# one person recorded) go to one side; recordings whose audio is identical count as one.

# %%
usable = recordings["filename"].isin(index.audio_hash.index)
metadata.labels_without_audio(recordings, usable, run.config)
heard = recordings[usable].assign(audio_hash=recordings["filename"].map(index.audio_hash))
settings = run.config.splits
split = splits.make(heard, settings.test_share, settings.folds, settings.group_by, run.config.seed)
splits.check(split)  # the leak check: it stops the run if any group is on two sides
run.save_figure(plots.fold_sides(split), "fold_sides")

# %%
run.write_table("splits", split)
run.finish()

# %%
tested, unscored = (split["split"] == "test").sum(), splits.unscored(split)
Markdown(f"""## What we saw{run.synthetic}

- **{len(table):,} chunks**, of which {(~table["kept"]).sum():,} ({(~table["kept"]).mean():.1%}) are silent and left
  out.
- The absolute measure at {silence.threshold} would drop {dropped["rms"].mean():.0%} of a species' chunks on average,
  and {dropped["rms"].max():.0%} of the worst hit; the relative one {dropped["relative"].mean():.0%} and
  {dropped["relative"].max():.0%}.
- **{tested} of {len(split)} recordings ({tested / len(split):.0%}) are held out for the test**, grouped by
  {settings.group_by}; the rest makes {settings.folds} folds. No group is on two sides.
- Species too rare to be in the test: {", ".join(unscored) or "none"}.
- {len(index.problems)} file(s) could not be decoded.
""")
