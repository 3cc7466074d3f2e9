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
# # 1. The recordings
#
# *Notebook 1 of 6.* Before a network hears anything, we look at what there is to hear.
#
# In this notebook we
#
# - read the metadata, and see which of its columns the classifier will use;
# - count the recordings of every species, since classes of uneven size are what most of this series is about;
# - look at every file once: how long it is, and whether it is audio at all.

# %% [markdown]
# The settings of a run live in its run folder. The first notebook writes them there; the others read them.

# %% tags=["parameters"]
config = None  # "sample", "paper" or a YAML file; None: the run folder's own settings
run_dir = None  # where results go; None: runs/<config>
data_dir = None  # the folder of recordings; None: the built-in sample data set
overrides = {}  # settings on top, such as {"silence.threshold": 0.05}

# %%
from IPython.display import Markdown

from birdlib import metadata, plots, runs, sample

run = runs.open_run("01_eda", config, run_dir, data_dir, overrides)

# %% [markdown]
# Without a folder of recordings we use the **sample data set**. It is synthetic: twelve invented species whose songs
# are little grammars of sweeps, trills and buzzes, in the layout of BirdCLEF, with all that makes real recordings hard.

# %%
if run.config.data.dir is None:
    sample.write(run.data_dir)
recordings, problems = metadata.load(run.data_dir)
recordings.head(3).T

# %% [markdown]
# Only `primary_label` and `filename` go on into training. The others describe a recording without being heard in it,
# or, like the secondary labels, say something that a classifier of one species a recording cannot use. The table shows
# how often each is filled.

# %%
filled = recordings.map(lambda value: bool(value) if isinstance(value, list) else value == value).sum()
filled.to_frame("rows filled").assign(of=len(recordings))

# %% [markdown]
# How many recordings has each species? (The paper's figure 3.)

# %%
counts = recordings["primary_label"].value_counts()
run.save_figure(plots.class_counts(counts), "class_counts")

# %% [markdown]
# Now the files themselves. A file that cannot be opened costs itself and nothing else: it goes into the errors table
# with the reason.

# %%
recordings, unreadable = metadata.inspect(recordings, run.data_dir, run.config)
left_out = metadata.labels_without_audio(recordings, metadata.readable(recordings), run.config)
errors = run.record_errors({**problems, **unreadable})
errors

# %%
run.save_figure(plots.lengths(recordings["duration_s"]), "lengths")

# %% [markdown]
# Sample rates and channels differ too. Everything is turned into mono at one rate when it is read.

# %%
recordings.groupby(["sample_rate_hz", "channels"]).size().to_frame("recordings")

# %% [markdown]
# The recordings table is the first result of the run; the next notebook reads it.

# %%
run.write_table("recordings", recordings)
run.finish()

# %%
hours = recordings["duration_s"].sum() / 3600
secondary = (recordings["secondary_labels"].map(len) > 0).sum()
Markdown(f"""## What we saw{run.synthetic}

- **{len(recordings):,} recordings of {len(counts)} species**, {hours:.2f} hours in all; the rarest species has
  {counts.min()}, the commonest {counts.max()}.
- {secondary:,} recordings name other species in the background; {recordings["author"].nunique()} people made them.
- **{len(errors)} of the files or rows were set aside or repaired**, each with its reason above; {len(left_out)} species
  lost all of its audio.
- Lengths run from {recordings["duration_s"].min():.1f} s to {recordings["duration_s"].max():.1f} s, so a network
  needs pieces of one length: that is the next notebook.
""")
