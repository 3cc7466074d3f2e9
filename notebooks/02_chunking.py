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
#
# *Words.* **RMS**: the root of the mean square of a stretch of samples, its loudness. **Spectrogram**: a picture of
# sound; time runs to the right, pitch upwards, and the brighter, the louder, in decibels (dB) under the loudest;
# black is 80 dB under it, or nothing at all. Its pitch axis is the **mel** scale, which gives low pitches more room,
# as the ear does. **Fold**: one of several equal parts of the recordings; each takes its turn as the one that
# *validates*, which is to score a training while it is under way. The *test* is kept for the end.

# %% tags=["parameters"]
config: str = None  # "sample", "paper" or a YAML file; None: the run folder's own settings
run_dir: str = None  # where results go; None: runs/<config>
data_dir: str = None  # the folder of recordings, or "kaggle:birdclef-2024"; None: the built-in sample data set
overrides: dict = {}  # settings on top, such as {"silence.threshold": 0.05}

# %%
from IPython.display import Markdown

from birdlib import audio, chunks, examples, metadata, overview, players, plots, runs, spectrogram, splits

run = runs.open_run("02_chunking", config, run_dir, data_dir, overrides)
recordings = run.read_table("recordings")
files = recordings.loc[metadata.readable(recordings), "filename"].tolist()

# %% [markdown]
# Every file is decoded once, in bounded memory, many at a time, and not again when only the filter below changes. What
# comes back is a table with a row a chunk: where it starts, and its energy, which is the largest short-time RMS in it,
# absolute (`rms`) and relative to the loudest moment of its recording (`rms_relative`). `peak` is its largest sample.

# %%
index = chunks.indexed(run, files)
usable = recordings["filename"].isin(index.audio_hash.index)
failed = run.record_errors(index.problems)
left_out = metadata.labels_without_audio(recordings, usable, run.config)
failed if len(failed) else print("All files that the first notebook could open were decoded.")

# %% [markdown]
# What only decoding shows. None of it stops anything: what breaks off gives the chunks that it has, and what is there
# twice goes to one side of every split. But who cleans data by hand begins here.

# %%
lengths = {"length_s": run.config.chunks.length_s, "tail_s": run.config.chunks.tail_min_s}
overview.odd_sound(recordings, index.chunks, index.audio_hash, **lengths)

# %%
table = index.chunks.merge(recordings[["filename", "primary_label"]])
table["kept"] = chunks.kept(table, run.config.silence)
table.head()

# %% [markdown]
# ## One recording
#
# A recording with silent chunks and others, cut up. What is left at its end becomes a chunk of its own, padded with
# zeros, if it holds more than `chunks.tail_min_s` that no other chunk holds; less than that is dropped.

# %%
name = examples.recording(table)
example = table[table["filename"] == name]
rate, length_s = run.config.audio.sample_rate_hz, run.config.chunks.length_s
samples = audio.read(run.data_dir / "train_audio" / name, rate)
image, scales = spectrogram.image(samples, run.config), spectrogram.scales(run.config)
run.save_figure(plots.cut(samples, rate, example["start_s"], length_s, example["kept"], image, **scales), "cut")

# %%
players.row({name: samples}, rate)

# %% [markdown]
# ## What is silent?
#
# The paper calls a chunk silent when "the maximum energy level" is under 0.1, and says no more. Here is the energy of
# every chunk, by the measure that the settings name, and the threshold.

# %%
silence = run.config.silence
measure = chunks.MEASURES[silence.measure]
run.save_figure(plots.energies(index.chunks[measure], silence.threshold, silence.measure), "energies")

# %% [markdown]
# To see and to hear (the paper's figure 5): silent chunks from the faintest to the one nearest the threshold, and
# under each the loudest chunk of the same recording; or, if none is silent, the faintest of all. The waveforms share
# one scale. Each image is scaled by its own maximum, as the network gets it; that makes patterns of the noise in
# silence, which is why silent chunks have to go. (Of digital silence it makes black.) The players come in the same
# order and share one gain.

# %%
shown = examples.read(run, examples.silent_and_kept(table, measure))
images = spectrogram.images(shown.values(), run.config)
run.save_figure(plots.sounds(shown, images, seconds=length_s, **scales), "silent")

# %%
players.row(shown, rate)

# %% [markdown]
# ## Which measure?
#
# Measured absolutely, such a threshold throws out quiet recordings whole, and with them much of a species; measured
# against the loudest moment of the same recording, it throws out pauses. Neither is perfect: a pause full of wind or
# insects passes, and a faint call in a recording that has a loud one is lost. The figure shows the share of each
# species' chunks that lie under the same threshold by each measure (before a recording's loudest chunk is kept in any
# case).

# %%
names = overview.names(recordings)
under = {name: table[column] < silence.threshold for name, column in chunks.MEASURES.items()}
dropped = table.assign(**under).groupby("primary_label")[list(under)].mean()
run.save_figure(plots.dropped_by_measure(dropped, names), "dropped_by_measure")

# %% [markdown]
# Chunks per species, before and after the filter (figure 4). A recording always keeps its loudest chunk, so no
# recording and no species is lost to it.

# %%
by_class = table["primary_label"].value_counts()
kept_by_class = table.loc[table["kept"], "primary_label"].value_counts()
run.save_figure(plots.chunk_counts(by_class, kept_by_class, names), "chunk_counts")

# %% [markdown]
# ## Who trains, who tests
#
# The unit is never the chunk: neighbouring chunks of one recording are nearly the same, and with one in training and
# the other in the test, the score would measure memory. Whole recordings (or, with `splits.group_by=author` or `place`,
# all that one person recorded, or at one place) go to one side; recordings whose audio is identical count as one.
# (Figure 13. Which of the folds are trained is the setting `folds`.)

# %%
heard = recordings[usable].assign(audio_hash=recordings["filename"].map(index.audio_hash))
settings = run.config.splits
split = splits.by_settings(heard, run.data_dir, settings, run.config.seed)
run.save_figure(plots.fold_sides(split), "fold_sides")

# %% [markdown]
# **The leak check** looks for a recording, a group or a piece of identical audio on two sides, and stops the run if
# there is one. Every later notebook that reads the splits makes it again. The table counts what two sides of fold 0
# share, recordists too: these may well be on both while whole recordings are the unit, and only
# `splits.group_by=author` keeps them apart.

# %%
splits.check(split)
shared = splits.shared(split, heard, fold=0)
shared

# %%
run.write_table("splits", split)
run.finish()

# %% jupyter={"source_hidden": true} tags=["hide-input"] _kg_hide-input=true
tested, unscored = (split["split"] == "test").sum(), splits.unscored(split)
unknown = splits.ungrouped(heard, settings.group_by)
alone = f" ({unknown} that do not say which are groups of their own)" if unknown else ""
Markdown(f"""## What we saw{run.synthetic}

- **{len(table):,} chunks, of which {(~table["kept"]).sum():,} ({(~table["kept"]).mean():.1%}) are silent** and left
  out.
- By the absolute measure {dropped["rms"].mean():.0%} of a species' chunks lie under {silence.threshold} on average, and
  {dropped["rms"].max():.0%} of the worst hit; by the relative one {dropped["relative"].mean():.0%} and
  {dropped["relative"].max():.0%}.
- **{tested} of {len(split)} recordings ({tested / len(split):.0%}) are held out for the test**, grouped by
  {settings.group_by}{alone}; the rest makes {settings.folds} folds. No recording is on two sides;
  {shared.loc["recordists", "training and test"]} recordists are in both training and test.
- Species too rare to be in the test: {", ".join(unscored) or "none"}.
- Further files that could not be decoded: {len(index.problems)}; species without any: {", ".join(left_out) or "none"}.
""")
