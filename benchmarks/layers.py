"""CPU time of a training chunk's image and of its augmentation on the device, when the device is one core.

    KERAS_BACKEND=tensorflow python benchmarks/layers.py [--batch 32]

Compiled as in training, on one thread, with the settings of the preset `paper`; best of ten batches of noise. The last
column is the time over that of the plain image in the same run. Effects alone are timed as models of their own, whose
input has to be handed over too: they add up to more than the whole.
"""

import argparse
import os
import resource

os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import keras
import numpy as np

from birdlib import config as configs
from birdlib import draws, layers


class Augmenting(keras.layers.Layer):
    """A layer as it is in training, in a model that predicts."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        super().__init__(dtype="float32", autocast=False)
        self.layer = layer

    def call(self, x, chance):
        return self.layer(x, chance, training=True)

    def compute_output_shape(self, x_shape, chance_shape):
        return self.layer.compute_output_shape(x_shape, chance_shape)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cost_ms(outputs, inputs: dict, values: dict, batch: int) -> float:
    """CPU milliseconds a sample of a compiled model."""
    # The maximum of what is made: so that little has to be copied out of the device.
    model = keras.Model(inputs, keras.ops.max(outputs, axis=tuple(range(1, len(outputs.shape)))))
    times = []
    for _ in range(12):
        began = cpu_s()
        model.predict_on_batch(values)
        times.append(1000 * (cpu_s() - began) / batch)
    return min(times[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    batch = parser.parse_args().batch
    config = configs.load("paper")
    rng = np.random.default_rng(0)
    audio = keras.Input((config.chunk_samples,), dtype="int16", name="audio")
    chance = keras.Input((draws.count(config),), name="chance")
    inputs = {"audio": audio, "chance": chance}
    values = {
        "audio": rng.normal(0, 3000, (batch, config.chunk_samples)).astype(np.int16),
        "chance": rng.random((batch, draws.count(config)), np.float32),
    }
    whole = layers.Images(config)
    plain = cost_ms(layers.LogMelImage(config)(audio), {"audio": audio}, {"audio": values["audio"]}, batch)
    print(f"{keras.config.backend()}, batch {batch}: CPU ms a chunk")
    print(f"{'image alone':34}{plain:8.2f}")
    everything = cost_ms(Augmenting(whole)(audio, chance), inputs, values, batch)
    print(f"{'image, augmented':34}{everything:8.2f}{everything / plain:8.2f}")
    power = keras.ops.convert_to_numpy(whole.image.power(values["audio"].astype(np.float32)))
    stages = {"wave": values["audio"].astype(np.float32), "mel": power, "image": power[..., None]}
    for stage, effects in whole.effects.items():
        x = keras.Input(stages[stage].shape[1:], name="x")
        for effect, where in effects:
            own = {"x": stages[stage], "chance": values["chance"]}
            cost = cost_ms(Augmenting(effect)(x, chance[:, where]), {"x": x, "chance": chance}, own, batch)
            print(f"{'  ' + stage + ': ' + type(effect).__name__:34}{cost:8.2f}{cost / plain:8.2f}")


if __name__ == "__main__":
    main()
