"""A GAN as a Keras model: two networks, two optimisers, one step."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from components.shared.batch_statistics import recompute_statistics
from components.train_gan import augment
from components.train_gan.gradients import compiled, gradients, with_input_gradient
from components.train_gan.losses import LOSSES, penalty
from components.train_gan.recipe import Recipe

AVERAGE_RAMP = 0.05
"""The half-life of the moving average is at most this share of the images shown so far: early weights are noise."""
SILENT_LOSS = 1e-3
"""A discriminator's loss below this counts as zero: the generator no longer learns from it."""
STATISTICS_BATCH_SIZE = 32


def to_model_space(images: Any) -> Any:
    """Return uint8 in [0, 255] as float32 in [-1, 1], any shape."""
    return ops.cast(images, "float32") / 127.5 - 1


def _float32(operation: Any) -> Any:
    # Operations that are not layers, such as a slice, have no dtype.
    dtype = {"dtype": "float32"} if isinstance(operation, keras.Layer) else {}
    return type(operation).from_config(operation.get_config() | dtype)


class GAN(keras.Model):
    """A generator and a discriminator, trained by a recipe.

    Args:
        generator: (N, latent) → (N, S, S, 3) in [-1, 1].
        discriminator: (N, S, S, 3) → (N, 1) logits.
        recipe: loss, gradient penalties, augmentation and moving average.
        seed: seed of noise, rotations and augmentation.
        batch_independent: whether the discriminator scores images independently (no batch statistics); then one
            backward pass through it serves both networks, without gradient penalties.

    Attributes:
        sampler: the generator to sample from and to save, in float32: the moving average if the recipe has one, else
            the generator at the last `settle`.
        state: all variables that training changes, with those of optimisers and seeds, in a fixed order.
        silent_steps: number of consecutive steps with a discriminator's loss below `SILENT_LOSS`.
        finite: whether all losses were finite.
        images_before: images that the networks were shown before this training, in pretraining.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        recipe: Recipe,
        seed: int = 0,
        batch_independent: bool = False,
    ) -> None:
        super().__init__()
        self.recipe, self.generator, self.discriminator = recipe, generator, discriminator
        self.sampler = keras.models.clone_model(generator, clone_function=_float32)
        self.sampler.set_weights(generator.get_weights())
        self.loss = LOSSES[recipe.loss]
        self.one_pass = batch_independent and not recipe.gamma
        self.seeds = keras.random.SeedGenerator(seed)
        self.generator_loss = keras.metrics.Mean("generator_loss")
        self.discriminator_loss = keras.metrics.Mean("discriminator_loss")
        self.silent_steps = keras.Variable(0, dtype="int32", trainable=False, name="silent_steps")
        self.finite = keras.Variable(True, dtype="bool", trainable=False, name="finite")
        self.images_before = keras.Variable(0, dtype="int32", trainable=False, name="images_before")

    def compile(self, generator_optimizer: Any, discriminator_optimizer: Any) -> None:
        """Set one optimiser for each network."""
        super().compile()
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer
        generator_optimizer.build(self.generator.trainable_variables)
        discriminator_optimizer.build(self.discriminator.trainable_variables)
        every = [*self.variables, *self.metrics_variables, self.seeds.state, self.silent_steps, self.finite]
        every.append(self.images_before)
        every += [*generator_optimizer.variables, *discriminator_optimizer.variables]
        self.state = list({id(variable): variable for variable in every}.values())

    def _discriminate(self, images: Any, random_values: Any, penalised: bool) -> tuple[Any, Any]:
        """Return logits (N, 1) float32 of augmented images in model space, and the gradient penalty."""

        def score(shown: Any) -> Any:
            return ops.cast(self.discriminator(shown, training=True), "float32")

        shown = augment.diffaugment(images, random_values) if self.recipe.augmentation == "diffaugment" else images
        if not penalised:
            return score(shown), 0.0
        logits, gradient = with_input_gradient(score, shown)
        return logits, penalty(ops.cast(gradient, "float32"))

    def shown(self, images: Any, rows: Any) -> tuple[Any, Any, Any]:
        """Return the input of `train_step`: images, flipped and rotated by the recipe, noise, and augmentation values.

        Args:
            images: (M, S, S, 3) uint8.
            rows: (N,) int32.
        """
        real, batch = ops.take(images, rows, axis=0), rows.shape[0]
        noise = keras.random.normal((batch, self.generator.input_shape[-1]), seed=self.seeds)
        random_values = ops.zeros((2, batch, augment.RANDOM_VALUES))
        if self.recipe.augmentation == "diffaugment":
            random_values = keras.random.uniform((2, batch, augment.RANDOM_VALUES), seed=self.seeds)
        if self.recipe.random_dihedral:
            real = augment.random_dihedral(real, keras.random.uniform((batch, 3), seed=self.seeds))
        return real, noise, random_values

    def step(self, images: Any, rows: Any, penalised: bool = True) -> None:
        """Call `train_step` with the images in `rows`."""
        self.train_step(self.shown(images, rows), penalised)

    def train_step(self, data: Any, penalised: bool = True) -> dict[str, Any]:
        """Update both networks once.

        Args:
            data: real images, (N, S, S, 3) uint8 in [0, 255]; noise, (N, latent) float32, standard normal; and for
                `diffaugment` its random values, (2, N, 7) float32 in [0, 1), otherwise anything.
            penalised: whether the recipe's gradient penalties are included.

        Returns:
            The mean losses since the metrics were last reset, without penalties.
        """
        real, noise, random_values = data
        real = to_model_space(real)
        penalised = penalised and self.recipe.gamma > 0
        weight = self.recipe.gamma * self.recipe.penalise_every * real.shape[1] ** 2 / 2

        def generate() -> Any:
            return ops.cast(self.generator(noise, training=True), "float32")

        def score(fake: Any) -> tuple[tuple[Any, Any], Any, Any]:
            # Both losses come from one pass through each network, as in the original: the generator does not use the
            # updated discriminator.
            real_logits, real_penalty = self._discriminate(real, random_values[0], penalised)
            fake_logits, fake_penalty = self._discriminate(fake, random_values[1], penalised)
            generator_loss, discriminator_loss = self.loss.pair(real_logits, fake_logits)
            whole = discriminator_loss + weight * (real_penalty + fake_penalty) if penalised else discriminator_loss
            ratio = self.loss.ratio(real_logits, fake_logits) if self.one_pass else None
            return (generator_loss, whole), ratio, discriminator_loss

        networks = (self.generator, self.discriminator)
        groups = tuple(network.trainable_variables for network in networks)
        (generator_loss, _), discriminator_loss, of_networks = gradients(generate, score, groups, self.state)
        optimizers = (self.generator_optimizer, self.discriminator_optimizer)
        for network, optimizer, of_network in zip(networks, optimizers, of_networks, strict=True):
            optimizer.apply(of_network, network.trainable_variables)
        if self.recipe.average_kimg:
            self._follow(real.shape[0])
        silent = discriminator_loss < SILENT_LOSS
        self.silent_steps.assign(ops.where(silent, self.silent_steps + 1, 0))
        self.finite.assign(ops.logical_and(self.finite, ops.isfinite(generator_loss + discriminator_loss)))
        self.generator_loss.update_state(generator_loss)
        self.discriminator_loss.update_state(discriminator_loss)
        return {metric.name: metric.result() for metric in (self.generator_loss, self.discriminator_loss)}

    def settle(self) -> None:
        """Copy the generator's weights to the sampler, unless it is their moving average."""
        if not self.recipe.average_kimg:
            self.sampler.set_weights(self.generator.get_weights())

    def refresh_statistics(self, noise: Iterable[np.ndarray]) -> None:
        """Recompute the batch statistics of the averaged generator.

        The running statistics belong to the weights of the live generator, and averaging them does not help.

        Args:
            noise: batches of (N, latent) float32, N a multiple of `STATISTICS_BATCH_SIZE`; always the same, so that
                training is repeatable.
        """
        if self.recipe.average_kimg:
            recompute_statistics(
                self.sampler,
                (part for batch in noise for part in np.split(batch, len(batch) // STATISTICS_BATCH_SIZE)),
            )

    def _follow(self, batch: int) -> None:
        """Move the sampler's weights towards the generator's (Yazıcı et al., arXiv 1806.04498)."""
        shown = ops.cast(self.generator_optimizer.iterations, "float32") * batch
        shown += ops.cast(self.images_before, "float32")
        half_life = ops.minimum(1000 * self.recipe.average_kimg, AVERAGE_RAMP * shown)
        keep = ops.power(0.5, batch / half_life)
        trained = {id(variable) for variable in self.generator.trainable_variables}
        for average, variable in zip(self.sampler.variables, self.generator.variables, strict=True):
            moves = id(variable) in trained
            average.assign(variable + keep * (average - variable) if moves else variable)


class Together:
    """Several GANs whose steps run in one call.

    Args:
        gans: compiled, of the same architecture and recipe.
    """

    def __init__(self, gans: Sequence[GAN]) -> None:
        self.gans, self.every = gans, gans[0].recipe.penalise_every
        self._run = compiled([gan.step for gan in gans], [gan.state for gan in gans], lazy=self.every > 1)

    def advance(self, images: Sequence[Any], rows: Sequence[np.ndarray], first: int) -> None:
        """Take K steps of each GAN.

        Args:
            images: for each GAN, (M, S, S, 3) uint8.
            rows: for each GAN, (K, N) int, the images of a step.
            first: number of the first step; gradients are penalised at multiples of `penalise_every`.
        """
        self._run(images, rows, (first + np.arange(len(rows[0]))) % self.every == 0)
