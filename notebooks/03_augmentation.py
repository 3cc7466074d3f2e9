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
# # 3. Balance and augmentation
#
# *Notebook 3 of 6.* Common species would drown the rare ones, and a rare one's few chunks would be learnt by heart.
#
# In this notebook we
#
# - draw an epoch that holds the same number of chunks of every species;
# - see and hear the six augmentations of the waveform, one by one and together;
# - cut parts out of the image.

# %% tags=["parameters"]
config = None  # "sample", "paper" or a YAML file; None: the run folder's own settings
run_dir = None  # where results go; None: runs/<config>
data_dir = None  # the folder of recordings; None: the built-in sample data set
overrides = {}  # settings on top, such as {"silence.threshold": 0.05}

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras
import pandas as pd
from IPython.display import Audio, Markdown

from birdlib import audio, augment, batches, layers, plots, runs, sources, spectrogram, training

run = runs.open_run("03_augmentation", config, run_dir, data_dir, overrides)
data = training.fold_data(run.read_table("chunks"), run.read_table("splits"), run.config.folds[0], run.config)

# %% [markdown]
# ## A balanced epoch
#
# Each epoch takes `batches.threshold` chunks of every species. The recordings of a species take turns before any of
# them comes again, and so do the chunks of a recording; turns go on over the epochs. A rare species' chunks repeat
# within an epoch, and augmentation makes the repetitions differ.

# %%
threshold, seed = run.config.batches.threshold, run.config.seed
plan = batches.BalancedPlan(data.train, data.labels, threshold, seed)
epoch = data.train.iloc[plan.epoch(0)]
pd.DataFrame(
    {
        "chunks there are": data.train["primary_label"].value_counts(),
        "in one epoch": epoch["primary_label"].value_counts(),
        "different ones": epoch.drop_duplicates(["filename", "start_s"])["primary_label"].value_counts(),
        "from recordings": epoch.groupby("primary_label")["filename"].nunique(),
    }
).describe().loc[["min", "50%", "max"]]

# %% [markdown]
# ## One chunk, six ways
#
# Each effect alone on the first chunk of that epoch, as far as it may go: that is `augmentation.strength` times its
# range. In training each draws how far it goes, and whether it is applied at all. (The paper's figures 6 to 8.)

# %%
chunk = epoch.iloc[0]
samples = audio.to_float(sources.LazySource(run.data_dir, run.config).read(chunk["filename"], chunk["start_s"]))
furthest = augment.furthest(run.config)
effects = augment.EFFECTS if augment.available() else ()  # without audiomentations there is nothing to show
changed = {name: augment.effect(name, run.config, **furthest[name])(samples, [seed, 1]) for name in effects}
pictures = {"as recorded": samples, **changed}
images = [spectrogram.image(each, run.config) for each in pictures.values()]
axis = {"mel_frequencies_hz": spectrogram.mel_frequencies_hz(run.config), "seconds": run.config.chunks.length_s}
run.save_figure(plots.images(images, list(pictures), **axis), "effects")

# %% [markdown]
# The chunk as recorded, and with its pitch shifted.

# %%
Audio(samples, rate=run.config.audio.sample_rate_hz)

# %%
Audio(changed.get("pitch_shift", samples), rate=run.config.audio.sample_rate_hz)

# %% [markdown]
# ## The chain
#
# In training each effect comes with its own probability, one after the other. The same chunk six times:

# %%
chain = augment.Chain(run.config)
several = [spectrogram.image(chain(samples, [seed, number]), run.config) for number in range(6)]
run.save_figure(plots.images(several, [f"draw {number + 1}" for number in range(6)], **axis), "chain")

# %% [markdown]
# ## On the device
#
# A batch leaves the host as 16-bit audio. The image is made by a layer in front of the network, and so is the cut-out,
# which blanks boxes of the image (figure 9). Here are the first images of the first batch of epoch 0, just as the
# network gets them.

# %%
source = sources.LazySource(run.data_dir, run.config)
first, _ = batches.TrainingBatches(data.train, data.labels, source, run.config, batch_size=6)[0]
cut_out = layers.CutOut(run.config.augmentation.cut_out, run.config.augmentation.strength)
as_trained = cut_out(layers.LogMelImage(run.config)(first["audio"]), first["chance"], training=True)
titles = epoch["primary_label"].iloc[:6].tolist()
run.save_figure(plots.images(keras.ops.convert_to_numpy(as_trained), titles, **axis), "first_batch")

# %%
run.finish()
rare = data.train["primary_label"].value_counts()
Markdown(f"""## What we saw

- An epoch holds **{threshold} chunks of each of {len(data.labels)} species, {len(epoch):,} in all**; the training side
  of this fold has from {rare.min()} to {rare.max()} of a species.
- The waveform augmentation is **{run.config.augmentation.where}** in this run, at strength
  {run.config.augmentation.strength:g}.
- Filters and noise change how a bird sounds to us, and hardly its shape in the image; stretching and shifting move the
  shape itself.
- Nothing here happens to validation or test chunks.
""")
