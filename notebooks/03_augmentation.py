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
# - see and hear the six augmentations of the waveform, one by one at three strengths, and together;
# - cut parts out of the image;
# - look at a batch as the network gets it.
#
# *Words.* **Epoch**: one round of training over a set of chunks. **Batch**: the few chunks of it that are looked at
# together, before the network is changed a little. **Augmentation**: changing a chunk a little each time it is shown,
# in ways that leave it the same species, so that there seem to be more.

# %% tags=["parameters"]
config: str = None  # "sample", "paper" or a YAML file; None: the run folder's own settings
run_dir: str = None  # where results go; None: runs/<config>
data_dir: str = None  # the folder of recordings, or "kaggle:birdclef-2024"; None: the built-in sample data set
overrides: dict = {}  # settings on top, such as {"silence.threshold": 0.05}

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import numpy as np
import pandas as pd
from IPython.display import Markdown

from birdlib import audio, augment, backgrounds, batches, draws, examples, layers, overview, players, plots, runs
from birdlib import sources, spectrogram, training

run = runs.open_run("03_augmentation", config, run_dir, data_dir, overrides)
data = training.fold_data(run.read_table("chunks"), run.read_table("splits"), run.config.folds[0], run.config)
names = overview.names(run.read_table("recordings"))

# %% [markdown]
# ## A balanced epoch
#
# Each epoch takes `batches.threshold` chunks of every species. The recordings of a species take turns before any of
# them comes again, and so do the chunks of a recording; turns go on over the epochs. A rare species' chunks repeat
# within an epoch, and augmentation makes the repetitions differ. A common species' chunks change from epoch to epoch;
# a few repeat too, since a short recording's only chunk comes again before a long recording's are used up.

# %%
threshold = run.config.batches.threshold
plan = batches.BalancedPlan(data.train, data.labels, threshold, run.config.seed)
epoch = data.train.iloc[plan.epoch(0)]
different = epoch.drop_duplicates(["filename", "start_s"])
counted = {"there": data.train, "epoch": epoch, "different": different}
balance = pd.DataFrame({name: rows["primary_label"].value_counts() for name, rows in counted.items()})
run.save_figure(plots.epoch_balance(balance, threshold, names), "epoch_balance")

# %% [markdown]
# ## Six ways to change a chunk
#
# Each effect has a range, and `augmentation.strength` says how much of it is used: in training a chunk draws whether
# an effect is applied, and how far between nothing and that limit. Below, every effect goes to its limit: at a
# quarter of the range (weak), at half (middle), and at all of it (strong). (The paper's figures 6 to 8; it gives a
# cut-off of 200 to 6,000 Hz, a band around 5,000 Hz and the clipping of its figure. The other ranges are ours, and the
# settings of a run may keep to less.) How often this run's settings apply each, and how far at the most:

# %%
pd.DataFrame.from_dict(augment.limits(run.config), orient="index")

# %% [markdown]
# Any of them can be overdone: a trill that is stretched or shifted too far is another species' trill. Whether the
# label still holds is for the ear to judge. The chunk to try them on is one of this epoch that is full of song.

# %%
chunk = examples.full(run, epoch)
shown = examples.read(run, chunk.to_frame().T.assign(title=names[chunk["primary_label"]]))
samples = next(iter(shown.values()))
rate, seeds = run.config.audio.sample_rate_hz, [run.config.seed, 1]
scales = {**spectrogram.scales(run.config), "seconds": run.config.chunks.length_s}
print(f"The chunk: {names[chunk['primary_label']]}, {chunk['filename']} from {chunk['start_s']:g} s")

# %% [markdown]
# ### High pass
#
# Takes away what is lower than a cut-off, which is drawn from 200 Hz up to the limit: wind, traffic, the hum of the
# recorder, and in the end the low parts of the song.

# %%
sounds = augment.preview("high_pass", samples, run.config, seeds)
run.save_figure(plots.sounds(sounds, spectrogram.images(sounds.values(), run.config), **scales), "high_pass")

# %%
players.row(sounds, rate)

# %% [markdown]
# ### Band pass
#
# Keeps a band around 5 kHz, the narrower the stronger, and takes away what is under and over it, much as distance and
# a poor microphone do.

# %%
sounds = augment.preview("band_pass", samples, run.config, seeds)
run.save_figure(plots.sounds(sounds, spectrogram.images(sounds.values(), run.config), **scales), "band_pass")

# %%
players.row(sounds, rate)

# %% [markdown]
# ### Gaussian noise
#
# Adds a hiss that is equally strong at all frequencies. The fewer decibels it lies under the sound, the more of the
# faint parts goes under in it.

# %%
sounds = augment.preview("gaussian_noise", samples, run.config, seeds)
run.save_figure(plots.sounds(sounds, spectrogram.images(sounds.values(), run.config), **scales), "gaussian_noise")

# %%
players.row(sounds, rate)

# %% [markdown]
# ### Clipping distortion
#
# Cuts the loudest samples off, as a recorder does that is set too high; overtones come of it. It "should not distort
# excessively", says the paper, whose figure clips 90 % of the samples. What is cut off is not made up for: the rest is
# quieter, so that each waveform here has a scale of its own.

# %%
sounds = augment.preview("clipping", samples, run.config, seeds)
images = spectrogram.images(sounds.values(), run.config)
run.save_figure(plots.sounds(sounds, images, own_scale=True, columns=3, **scales), "clipping")

# %%
players.row(sounds, rate)

# %% [markdown]
# ### Time stretch
#
# Makes the song faster or slower and leaves its pitch as it was: in the image everything moves together along the time
# axis, and no line moves up or down. Here it is made faster; what is left over at the end is silent. In training it
# may become slower too, and then its end is cut off.

# %%
sounds = augment.preview("time_stretch", samples, run.config, seeds)
run.save_figure(plots.sounds(sounds, spectrogram.images(sounds.values(), run.config), **scales), "time_stretch")

# %%
players.row(sounds, rate)

# %% [markdown]
# ### Pitch shift
#
# Makes the song higher or lower, by semitones, and leaves its tempo as it was: in the image every line moves up or
# down, and none sideways. Twelve semitones double every frequency. Here it goes up; in training as often down.

# %%
sounds = augment.preview("pitch_shift", samples, run.config, seeds)
run.save_figure(plots.sounds(sounds, spectrogram.images(sounds.values(), run.config), **scales), "pitch_shift")

# %%
players.row(sounds, rate)

# %% [markdown]
# ## The cut-out
#
# The seventh works on the image: it blanks boxes of it, so that the network does not hang on a single note. (Figure 9.)

# %%
cut = layers.cut_out_preview(spectrogram.image(samples, run.config), run.config, augment.STRENGTHS)
run.save_figure(plots.images(list(cut.values()), list(cut), columns=4, **scales), "cut_out")

# %% [markdown]
# ## All together, on the host
#
# In training each effect comes with its own probability, one after the other. Here the same chunk eight times, by the
# chain that plays above, each with what was drawn for it:

# %%
chain = augment.Chain(augment.on_host(run.config))
several = dict(chain.told(samples, [*seeds, number], f"draw {number + 1}") for number in range(8))
run.save_figure(plots.sounds(several, spectrogram.images(several.values(), run.config), **scales), "chain")

# %%
players.row(several, rate)

# %% [markdown]
# ## All together, on the device
#
# The paper found that its preprocessing held up its training, whatever the graphics card. So with
# `augmentation.where=device`, which is the default, the host only moves the audio, and layers in front of the network
# do the rest, for a whole batch at once and in the same order. Filters, noise and clipping work on the waveform;
# stretch and shift move the mel bands of the image in the making, which costs next to nothing; the cut-out comes
# last. They look a little different from the chain's, whose vocoder resounds; both are held to the same measurements.
# The same chunk eight times:

# %%
chances = draws.of(run.config, epoch=0, slots=range(8))
batch = {"audio": np.stack([audio.to_int16(samples)] * 8), "chance": chances}
made = layers.as_trained(batch, run.config, backgrounds.pool(run.config))
titles = [f"draw {number + 1}: {told}" for number, told in enumerate(draws.told(chances, run.config))]
run.save_figure(plots.images(made, titles, columns=4, **scales), "device")

# %% [markdown]
# The first images of the first batch of epoch 0, just as the network gets them, with what was drawn for each:

# %%
source = sources.open_source(run)
first, _ = batches.TrainingBatches(data.train, data.labels, source, run.config, batch_size=8)[0]
as_trained = layers.as_trained(first, run.config, backgrounds.pool(run.config))
told = zip(epoch["primary_label"].iloc[:8].map(names), draws.told(first["chance"], run.config), strict=True)
titles = ["\n".join(pair) for pair in told]
run.save_figure(plots.images(as_trained, titles, columns=4, **scales), "first_batch")

# %%
run.finish()

# %% jupyter={"source_hidden": true} tags=["hide-input"] _kg_hide-input=true
most, least = balance["there"].max(), balance["there"].min()
places = {"device": "made by layers on the device", "host": "made on the host, before the image"}
drawn = places.get(run.config.augmentation.where, "off")
Markdown(f"""## What we saw{run.synthetic}

- An epoch holds **{threshold} chunks of each of {len(data.labels)} species, {len(epoch):,} in all**; the training side
  of this fold has from {least:,} to {most:,} of a species, {most / least:.1f} times as many.
- The waveform augmentation of this run is **{drawn}**, at strength {run.config.augmentation.strength:g}.
- Filters, noise and clipping change how a song is coloured; **stretching moves it along the time axis, pitch shifting
  along the frequency axis**.
- Nothing here happens to validation or test chunks.
""")
