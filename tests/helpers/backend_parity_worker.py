"""Ten steps of a GAN on whatever backend Keras runs on, from weights and with noise that are the same on each:
`python -m tests.helpers.backend_parity_worker <folder>` goes on from what is in the folder."""

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from components.shared.layers import Dropout
from components.train_gan import architectures, augment
from components.train_gan.gan import GAN, Together


def network_weights(gan: GAN) -> list[np.ndarray]:
    return [*gan.generator.get_weights(), *gan.discriminator.get_weights(), *gan.sampler.get_weights()]


def made(architecture: str) -> GAN:
    nets = architectures.load(architecture)
    keras.utils.set_random_seed(1)
    judge = nets.discriminator(32)
    for layer in judge.layers:
        if isinstance(layer, Dropout):  # each backend drops others
            layer.rate = 0.0
    # Biases begin at 0, and so does what a cut-out square gives: there each backend's LeakyReLU has another slope.
    rng = np.random.default_rng(3)
    for weight in judge.trainable_variables:
        weight.assign(np.asarray(weight) + rng.normal(0, 0.02, weight.shape))
    gan = GAN(nets.generator(32), judge, nets.RECIPE, batch_independent=nets.BATCH_INDEPENDENT)
    rate, beta_1, beta_2 = nets.RECIPE.learning_rate, nets.RECIPE.beta_1, nets.RECIPE.beta_2
    # With Adam's own epsilon a gradient that is zero but for rounding moves its weight as far as any other, and two
    # networks against each other magnify that with each step.
    gan.compile(*(keras.optimizers.Adam(rate, beta_1, beta_2, epsilon=0.1) for _ in range(2)))
    return gan


def compiled(gan: GAN) -> Any:
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


def ten_steps(gan: GAN) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    losses, weights, step = [], {}, compiled(gan)
    for done in range(1, 11):
        real = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        noise = rng.standard_normal((8, gan.generator.input_shape[-1]), np.float32)
        result = step((real, noise, rng.random((2, 8, augment.DRAWS)).astype(np.float32)))
        losses.append([float(result[name]) for name in ("generator_loss", "discriminator_loss")])
        if done in (1, 10):
            weights |= {f"{done} {i:03d}": weight for i, weight in enumerate(network_weights(gan))}
    return weights | {"losses": np.array(losses), "steps": np.array(int(gan.generator_optimizer.iterations))}


def test_two_gans_as_one_batch_are_the_two() -> None:
    """On JAX; called from below, since pytest runs on TensorFlow."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8) for _ in range(2)]
    rows = [rng.integers(0, 6, (2, 8)) for _ in range(2)]
    together, apart = ([made("dcgan") for _ in range(2)] for _ in range(2))
    Together(together).advance(images, rows, 0)
    for i in range(2):
        Together([apart[i]]).advance([images[i]], [rows[i]], 0)
        for one, other in zip(together[i].state, apart[i].state, strict=True):
            np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-3, atol=1e-5)
    kernels = [np.asarray(gan.generator.trainable_variables[0]) for gan in together]
    assert np.abs(kernels[0] - kernels[1]).max() > 0


if __name__ == "__main__":
    test_two_gans_as_one_batch_are_the_two()
    folder = Path(sys.argv[1])
    for architecture in architectures.NAMES:
        gan = made(architecture)
        with np.load(folder / f"{architecture}.npz") as file:
            weights = [file[name] for name in sorted(file.files)]
        for network in (gan.generator, gan.discriminator, gan.sampler):
            count = len(network.weights)
            network.set_weights(weights[:count])
            weights = weights[count:]
        np.savez(folder / f"{architecture}-out.npz", **ten_steps(gan))
