"""A GAN as a Keras model: two networks, two optimisers, one step."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from components.train_gan import augment, regularisers
from components.train_gan.gradients import compiled, gradients, with_input_gradient
from components.train_gan.losses import LOSSES
from components.train_gan.recipe import Recipe

RAMP = 0.05
"""The moving average's half-life is at most this share of what was shown so far: at first it would be of noise."""
SILENT = 1e-3
"""A discriminator's loss below this is zero: it has won, and the generator learns nothing from it any more."""


def to_model_space(images: Any) -> Any:
    """uint8 in [0, 255] to float32 in [-1, 1], any shape."""
    return ops.cast(images, "float32") / 127.5 - 1


def _float32(operation: Any) -> Any:
    # What is no layer, as a slice, has no dtype of its own.
    dtype = {"dtype": "float32"} if isinstance(operation, keras.Layer) else {}
    return type(operation).from_config(operation.get_config() | dtype)


class GAN(keras.Model):
    """Generator against discriminator, by a recipe.

    Args:
        generator: (N, latent) → (N, S, S, 3) in [-1, 1].
        discriminator: (N, S, S, 3) → (N, 1) logits.
        recipe: loss, regulariser, augmentation and moving average.
        seed: of noise, turns and augmentation.
        alone: whether the discriminator judges each image without a look at the others in the batch; then one backward
            pass through it serves both networks, where loss and regulariser allow it.

    Attributes:
        sampler: the generator to sample from and to save, in float32: the moving average, where the recipe has one,
            else the generator as it was at the last `settle`.
        state: all variables that training changes, optimisers' and seeds' too, in a fixed order.
        silent_steps: how many steps in a row had a discriminator's loss below `SILENT`.
        finite: whether all losses were numbers.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        recipe: Recipe,
        seed: int = 0,
        alone: bool = False,
    ) -> None:
        super().__init__()
        self.recipe, self.generator = recipe, generator
        self.discriminator = regularisers.spectral(discriminator) if recipe.regulariser == "spectral" else discriminator
        self.sampler = keras.models.clone_model(generator, clone_function=_float32)
        self.sampler.set_weights(generator.get_weights())
        self.loss = LOSSES[recipe.loss]
        self.one_pass = alone and self.loss.ratio is not None and recipe.regulariser != "r1_r2"
        self.seeds = keras.random.SeedGenerator(seed)
        self.generator_loss = keras.metrics.Mean("generator_loss")
        self.discriminator_loss = keras.metrics.Mean("discriminator_loss")
        self.silent_steps = keras.Variable(0, dtype="int32", trainable=False, name="silent_steps")
        self.finite = keras.Variable(True, dtype="bool", trainable=False, name="finite")

    def compile(self, generator_optimizer: Any, discriminator_optimizer: Any) -> None:
        """Takes one optimiser for each network."""
        super().compile()
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer
        generator_optimizer.build(self.generator.trainable_variables)
        discriminator_optimizer.build(self.discriminator.trainable_variables)
        every = [*self.variables, *self.metrics_variables, self.seeds.state, self.silent_steps, self.finite]
        every += [*generator_optimizer.variables, *discriminator_optimizer.variables]
        self.state = list({id(variable): variable for variable in every}.values())

    def _judged(self, images: Any, draws: Any, penalised: bool) -> tuple[Any, Any]:
        """Logits (N, 1) float32 of images in model space, as the discriminator is shown them, and their penalty."""

        def judge(shown: Any) -> Any:
            return ops.cast(self.discriminator(shown, training=True), "float32")

        shown = augment.diffaugment(images, draws) if self.recipe.augmentation == "diffaugment" else images
        if not penalised:
            return judge(shown), 0.0
        logits, gradient = with_input_gradient(judge, shown)
        return logits, regularisers.penalty(ops.cast(gradient, "float32"))

    def shown(self, images: Any, rows: Any) -> tuple[Any, Any, Any]:
        """What `train_step` is given: the chosen images, turned as the recipe says, noise, the augmentation's draws.

        Args:
            images: (M, S, S, 3) uint8.
            rows: (N,) int32.
        """
        real, batch = ops.take(images, rows, axis=0), rows.shape[0]
        noise = keras.random.normal((batch, self.generator.input_shape[-1]), seed=self.seeds)
        draws = ops.zeros((2, batch, augment.DRAWS))
        if self.recipe.augmentation == "diffaugment":
            draws = keras.random.uniform((2, batch, augment.DRAWS), seed=self.seeds)
        if self.recipe.turns:
            real = augment.random_dihedral(real, keras.random.uniform((batch, 3), seed=self.seeds))
        return real, noise, draws

    def step(self, images: Any, rows: Any, penalised: bool = True) -> None:
        """`train_step` of images that are chosen by `rows`."""
        self.train_step(self.shown(images, rows), penalised)

    def train_step(self, data: Any, penalised: bool = True) -> dict[str, Any]:
        """One update of both networks.

        Args:
            data: real images, (N, S, S, 3) uint8 in [0, 255]; noise, (N, latent) float32, standard normal; and for
                `diffaugment` its draws, (2, N, 7) float32 in [0, 1), else anything.
            penalised: whether gradient penalties, where the recipe has them, are in it.

        Returns:
            The mean losses since the metrics were last reset, without penalties.
        """
        real, noise, draws = data
        real = to_model_space(real)
        r1, r2 = (penalised and self.recipe.regulariser in names for names in (("r1", "r1_r2"), ("r1_r2",)))
        weight = self.recipe.gamma * self.recipe.penalise_every * real.shape[1] ** 2 / 2

        def generate() -> Any:
            return ops.cast(self.generator(noise, training=True), "float32")

        def judge(fake: Any) -> tuple[tuple[Any, Any], Any, Any]:
            # Both losses come from one pass through each network, as in the original: the generator does not wait for
            # the discriminator's update.
            real_logits, real_penalty = self._judged(real, draws[0], r1)
            fake_logits, fake_penalty = self._judged(fake, draws[1], r2)
            generator_loss, discriminator_loss = self.loss.pair(real_logits, fake_logits)
            whole = discriminator_loss + weight * (real_penalty + fake_penalty) if r1 else discriminator_loss
            ratio = self.loss.ratio(real_logits, fake_logits) if self.loss.ratio and self.one_pass else None
            return (generator_loss, whole), ratio, discriminator_loss

        networks = (self.generator, self.discriminator)
        groups = tuple(network.trainable_variables for network in networks)
        (generator_loss, _), discriminator_loss, found = gradients(generate, judge, groups, self.state)
        optimizers = (self.generator_optimizer, self.discriminator_optimizer)
        for network, optimizer, of_network in zip(networks, optimizers, found, strict=True):
            optimizer.apply(of_network, network.trainable_variables)
        if self.recipe.average_kimg:
            self._follow(real.shape[0])
        silent = discriminator_loss < SILENT
        self.silent_steps.assign(ops.where(silent, self.silent_steps + 1, 0))
        self.finite.assign(ops.logical_and(self.finite, ops.isfinite(generator_loss + discriminator_loss)))
        self.generator_loss.update_state(generator_loss)
        self.discriminator_loss.update_state(discriminator_loss)
        return {metric.name: metric.result() for metric in (self.generator_loss, self.discriminator_loss)}

    def settle(self) -> None:
        """Gives the sampler the generator's weights, where there is no moving average of them."""
        if not self.recipe.average_kimg:
            self.sampler.set_weights(self.generator.get_weights())

    def _follow(self, batch: int) -> None:
        """Moves the sampler's weights towards the generator's (Yazıcı et al., arXiv 1806.04498)."""
        shown = ops.cast(self.generator_optimizer.iterations, "float32") * batch
        half_life = ops.minimum(1000 * self.recipe.average_kimg, RAMP * shown)
        keep = ops.power(0.5, batch / half_life)
        trained = {id(variable) for variable in self.generator.trainable_variables}
        for average, variable in zip(self.sampler.variables, self.generator.variables, strict=True):
            moves = id(variable) in trained
            average.assign(variable + keep * (average - variable) if moves else variable)


class Together:
    """Many steps of several GANs in one call.

    Args:
        gans: compiled, of the same architecture and recipe.
    """

    def __init__(self, gans: Sequence[GAN]) -> None:
        self.gans, self.every = gans, gans[0].recipe.penalise_every
        self._run = compiled([gan.step for gan in gans], [gan.state for gan in gans], lazy=self.every > 1)

    def advance(self, images: Sequence[Any], rows: Sequence[np.ndarray], first: int) -> None:
        """Takes K steps of each.

        Args:
            images: of each GAN, (M, S, S, 3) uint8.
            rows: of each, (K, N) int, which images a step is shown.
            first: the number of the first step: every so many the gradient is penalised.
        """
        self._run(images, rows, (first + np.arange(len(rows[0]))) % self.every == 0)
