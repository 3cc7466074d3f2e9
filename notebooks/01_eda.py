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
# - read the metadata, and see which of its columns the classifier will use, and why not the others;
# - count the recordings of every species, since classes of uneven size are what most of this series is about;
# - see who recorded what, and where;
# - look at every file once: how long it is, and whether it is audio at all.

# %% [markdown]
# The settings of a run live in its run folder. The first notebook writes them there; the others read them, and what
# the notebooks before them left there. `open_run` is how each begins.

# %% tags=["parameters"]
config: str = None  # "sample", "paper" or a YAML file; None: the run folder's own settings
run_dir: str = None  # where results go; None: runs/<config>
data_dir: str = None  # the folder of recordings, or "kaggle:birdclef-2024"; None: the built-in sample data set
overrides: dict = {}  # settings on top, such as {"silence.threshold": 0.05}

# %%
from IPython.display import Markdown, display

from birdlib import metadata, overview, plots, runs, sample

run = runs.open_run("01_eda", config, run_dir, data_dir, overrides)

# %% [markdown]
# Without a folder of recordings we use the **sample data set**. It is synthetic: twelve invented species whose songs
# are little grammars of sweeps, trills and buzzes, in the layout of BirdCLEF, with some of what makes real
# recordings hard.

# %%
if run.config.data.dir is None:
    sample.write(run.data_dir)
recordings, problems = metadata.load(run.data_dir)
recordings.head(3).T

# %% [markdown]
# ## The columns
#
# Only two columns go on into training: the label and the file. The others describe a recording without being heard in
# it, or say something that a soundscape comes without; they are set aside, each for the reason in the table. A cell
# counts as filled where it says something: an empty list, an empty type and a rating of 0 do not.

# %%
columns = overview.columns(recordings, run.data_dir)
left = [{"selector": "th, td", "props": "text-align: left"}]
columns.style.format(thousands=",", escape="html").format_index(escape="html").set_table_styles(left)

# %% [markdown]
# ## The species
#
# How many recordings has each? (The paper's figure 3.) A network that sees them as they come learns to say the
# commonest; the third notebook evens them out.

# %%
counts = recordings["primary_label"].value_counts()
names = overview.names(recordings)
run.save_figure(plots.class_counts(counts, names), "class_counts")

# %% [markdown]
# What the codes stand for, commonest first (of many species, the two ends):

# %%
species = recordings.groupby("primary_label")[["common_name", "scientific_name"]].first()
species.assign(recordings=counts).sort_values("recordings", ascending=False, kind="stable")

# %% [markdown]
# ## Who, where and what
#
# If one person made most recordings of a species, a classifier may learn that person's microphone instead of the bird:
# a reason to split by `author`, which the second notebook can do.

# %%
authors, people = recordings["author"].value_counts(), overview.people(recordings)
run.save_figure(plots.ranking(authors, "Recordings by recordist", "recordings"), "recordists")

# %%
run.save_figure(plots.places(recordings["latitude"], recordings["longitude"]), "places")

# %% [markdown]
# What the recordists wrote of their recordings (one may have several types, and counts for each), and how they are
# rated.

# %%
types = overview.types(recordings)
run.save_figure(plots.ranking(types, f"{len(types)} types, as the recordists wrote them", "recordings"), "types")

# %%
run.save_figure(plots.ratings(recordings["rating"]), "ratings")

# %% [markdown]
# Other species in the background, the *secondary labels*: here the ones named most often.

# %%
background = overview.background(recordings).rename(names)
secondary = (recordings["secondary_labels"].map(len) > 0).sum()
title = f"{secondary:,} of {len(recordings):,} recordings name other species in the background"
run.save_figure(plots.ranking(background, title, "recordings in whose background it is"), "background")

# %% [markdown]
# ## The files
#
# Now every file is opened, if the audio is there. One that cannot be opened is left out, and stands with its reason in
# the errors table, as do rows of the metadata that cannot be used; the others go on.

# %%
recordings, unreadable = metadata.inspect(recordings, run.data_dir, run.config)
audio_there, readable = metadata.has_audio(run.data_dir), metadata.readable(recordings)
errors = run.record_errors({**problems, **unreadable})
left_out = metadata.labels_without_audio(recordings, readable, run.config) if audio_there else []
errors if len(errors) else print("Nothing had to be set aside.")

# %% [markdown]
# How long the recordings are. (What a classifier hears of one is counted in chunks of a few seconds, so the long ones
# weigh more than the short ones: another unevenness.)

# %%
nothing = f"""**There is no folder `train_audio` in `{run.data_dir}`.** Lengths, sample rates and broken files cannot be
shown, and the next notebooks have nothing to cut: this one, on the metadata, is all there is to see."""
if audio_there:
    display(run.save_figure(plots.lengths(recordings["duration_s"]), "lengths"))
else:
    display(Markdown(nothing))

# %% [markdown]
# Recordings that differ from the rest. None of this is an error: all are turned into mono at one rate when they are
# read, and a short one is padded with silence. (What only decoding shows, such as recordings that break off, or that
# are there twice, is in the next notebook.)

# %%
overview.odd(recordings)

# %% [markdown]
# The recordings table is the first result of the run; the next notebook reads it.

# %%
run.write_table("recordings", recordings)
run.finish()

# %% jupyter={"source_hidden": true} tags=["hide-input"] _kg_hide-input=true
kept, aside = (", ".join(columns.index[columns["kept"] == what]) for what in ("yes", "set aside"))
seconds = recordings.loc[readable, "duration_s"]
Markdown(f"""## What we saw{run.synthetic}

- **{len(recordings):,} recordings of {len(counts)} species**, {overview.spread(counts, names)}.
- Kept: {kept}. Set aside, for the reasons above: {aside}.
- {people["people"]:,} people made them, one of them {people["largest_share"]:.0%} of all. Species with a single
  recordist: {people["one_only"]}. {secondary:,} recordings name other species in the background.
{overview.files_told(seconds, len(errors), len(left_out))}
""")
