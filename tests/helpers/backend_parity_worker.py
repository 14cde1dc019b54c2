"""Ten steps of a small GAN on the current Keras backend, with the same weights and noise on every backend.

TensorFlow and JAX cannot share a process. `run_on_jax` starts this file in another one: `steps` reads the weights
`start.npz` in the folder and writes `steps.npz`; `batch` checks two GANs as one batch, and trains tiny networks with
the settings of `train` in `settings.json`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from components.train_gan import architectures, augment
from components.train_gan.architectures.resnet import MinibatchStd
from components.train_gan.gan import GAN, Together
from components.train_gan.recipe import Recipe
from components.train_gan.train import train
from tests.helpers import tiny_architecture

STEPS, BATCH_SIZE, IMAGE_SIZE_PX, LATENT = 10, 8, 16, 5
RECIPE = Recipe("relativistic", augmentation="diffaugment", average_kimg=10.0, gamma=0.01)
LAZY_RECIPE = Recipe("bce", gamma=0.01, penalise_every=2)


def build(recipe: Recipe = RECIPE) -> GAN:
    """Return a GAN with every kind of layer of the architectures.

    Its activations are smooth and its optimisers linear in the gradient: at the kink of a LeakyReLU, and with Adam for
    a gradient near zero, a difference of one rounding would become a large one.
    """
    keras.utils.set_random_seed(1)
    layers = keras.layers
    inputs = keras.Input((LATENT,))
    x = layers.Reshape((4, 4, 8))(layers.BatchNormalization()(layers.Dense(128, use_bias=False)(inputs)))
    x = layers.Activation("softplus")(layers.Conv2DTranspose(8, 5, 2, "same")(x))
    x = layers.Conv2D(3, 3, padding="same", activation="tanh")(layers.UpSampling2D(2)(x))
    generator = keras.Model(inputs, x)
    inputs = keras.Input((IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3))
    x = layers.Conv2D(8, 3, 2, "same", activation="softplus")(inputs)
    x = MinibatchStd()(layers.AveragePooling2D(2)(layers.Conv2D(8, 3, 1, "same", activation="softplus")(x)))
    discriminator = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x)))
    gan = GAN(generator, discriminator, recipe)
    gan.compile(*(keras.optimizers.SGD(0.1) for _ in range(2)))
    return gan


def network_weights(gan: GAN) -> list[np.ndarray]:
    """Return the weights of generator, discriminator and sampler."""
    return [*gan.generator.get_weights(), *gan.discriminator.get_weights(), *gan.sampler.get_weights()]


def compile_step(gan: GAN) -> Any:
    """Return `train_step`, compiled by the backend."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(gan.train_step)
    import jax

    from components.train_gan.gradients import on_jax

    run = jax.jit(on_jax._pure(gan.train_step, gan.state))

    def step(data: Any) -> Any:
        result, after = run([variable.value for variable in gan.state], data)
        for variable, value in zip(gan.state, after, strict=True):
            variable.assign(value)
        return result

    return step


def train_ten_steps(gan: GAN) -> dict[str, np.ndarray]:
    """Return the losses, and the weights after the first and the last step."""
    rng = np.random.default_rng(2)
    losses, weights, step = [], {}, compile_step(gan)
    for number in range(1, STEPS + 1):
        real = rng.integers(0, 256, (BATCH_SIZE, IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3), dtype=np.uint8)
        noise = rng.standard_normal((BATCH_SIZE, LATENT), np.float32)
        result = step((real, noise, rng.random((2, BATCH_SIZE, augment.RANDOM_VALUES)).astype(np.float32)))
        losses.append([float(result[name]) for name in ("generator_loss", "discriminator_loss")])
        if number in (1, STEPS):
            weights |= {f"{number} {i:03d}": weight for i, weight in enumerate(network_weights(gan))}
    return weights | {"losses": np.array(losses)}


def check_two_gans_as_one_batch() -> None:
    """Compare two GANs that JAX computes as one batch with each alone; one of two steps is penalised."""
    rng = np.random.default_rng(0)
    shape = (6, IMAGE_SIZE_PX, IMAGE_SIZE_PX, 3)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2)]
    rows = [rng.integers(0, 6, (2, BATCH_SIZE)) for _ in range(2)]
    together, alone = [build(LAZY_RECIPE) for _ in range(2)], build(LAZY_RECIPE)
    before = network_weights(alone)
    Together(together).advance(images, rows, 0)
    Together([alone]).advance(images[1:], rows[1:], 0)
    for one, other, start in zip(*map(network_weights, (together[1], alone)), before, strict=True):
        # As in test_gradients.py, two steps.
        moved, size = np.linalg.norm(other - start), np.linalg.norm(start)
        assert np.linalg.norm(one - other) <= 6e-3 * moved + 2 * 2**-23 * size + 1e-8
    assert any((one != other).any() for one, other in zip(*map(network_weights, together), strict=True))


def run_on_jax(work: str, folder: Path) -> None:
    """Do the work in a process on JAX."""
    # Compilation takes most of the time.
    environment = os.environ | {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    command = [sys.executable, "-m", "tests.helpers.backend_parity_worker", work, str(folder)]
    subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, check=True)


def write_steps(folder: Path) -> None:
    """Take ten steps from the weights in a folder."""
    gan = build()
    with np.load(folder / "start.npz") as file:
        arrays = [file[name] for name in sorted(file.files)]
    for network in (gan.generator, gan.discriminator, gan.sampler):
        network.set_weights(arrays[: len(network.weights)])
        arrays = arrays[len(network.weights) :]
    np.savez(folder / "steps.npz", **train_ten_steps(gan))


if __name__ == "__main__":
    if sys.argv[1] == "steps":
        write_steps(Path(sys.argv[2]))
    else:
        check_two_gans_as_one_batch()
        architectures.load = lambda name: tiny_architecture
        train(**json.loads((Path(sys.argv[2]) / "settings.json").read_text()))
