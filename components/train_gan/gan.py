"""A GAN as a Keras model: two networks, two optimisers, one step."""

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


def to_model_space(images: Any) -> Any:
    """uint8 in [0, 255] to float32 in [-1, 1], any shape."""
    return ops.cast(images, "float32") / 127.5 - 1


def to_pixels(images: np.ndarray) -> np.ndarray:
    """float in [-1, 1] to uint8 in [0, 255], any shape."""
    return np.clip(np.rint((np.asarray(images, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def _float32(layer: keras.Layer) -> keras.Layer:
    return type(layer).from_config(layer.get_config() | {"dtype": "float32"})


class GAN(keras.Model):
    """Generator against discriminator, by a recipe.

    Args:
        generator: (N, latent) → (N, S, S, 3) in [-1, 1].
        discriminator: (N, S, S, 3) → (N, 1) logits.
        recipe: loss, regulariser, augmentation and moving average.

    Attributes:
        sampler: the generator to sample from and to save: the moving average, where the recipe has one, else the
            generator itself. Computes in float32.
        state: all variables that training changes, optimisers' and seeds' too, in a fixed order.
    """

    def __init__(self, generator: keras.Model, discriminator: keras.Model, recipe: Recipe) -> None:
        super().__init__()
        self.recipe, self.generator = recipe, generator
        self.discriminator = regularisers.spectral(discriminator) if recipe.regulariser == "spectral" else discriminator
        self.sampler = generator
        if recipe.average_kimg:
            self.sampler = keras.models.clone_model(generator, clone_function=_float32)
            self.sampler.set_weights(generator.get_weights())
            self.sampler.trainable = False
        self.loss_pair = LOSSES[recipe.loss]
        self.generator_loss = keras.metrics.Mean("generator_loss")
        self.discriminator_loss = keras.metrics.Mean("discriminator_loss")

    def compile(self, generator_optimizer: Any, discriminator_optimizer: Any) -> None:
        """Takes one optimiser for each network."""
        super().compile()
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer
        generator_optimizer.build(self.generator.trainable_variables)
        discriminator_optimizer.build(self.discriminator.trainable_variables)
        every = [*self.variables, *self.metrics_variables]
        every += [*generator_optimizer.variables, *discriminator_optimizer.variables]
        self.state = list({id(variable): variable for variable in every}.values())
        self._compiled_step = compiled(self.train_step, self.state)

    def step(self, real: Any, noise: Any, draws: Any) -> dict[str, float]:
        """`train_step`, compiled."""
        return {name: float(value) for name, value in self._compiled_step((real, noise, draws)).items()}

    def _judged(self, images: Any, draws: Any, penalised: bool) -> tuple[Any, Any]:
        """Logits (N, 1) float32 of images in model space, as the discriminator is shown them, and their penalty."""

        def judge(shown: Any) -> Any:
            return ops.cast(self.discriminator(shown, training=True), "float32")

        shown = augment.diffaugment(images, draws) if self.recipe.augmentation == "diffaugment" else images
        if not penalised:
            return judge(shown), 0.0
        logits, gradient = with_input_gradient(judge, shown)
        return logits, regularisers.penalty(ops.cast(gradient, "float32"))

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update of both networks.

        Args:
            data: real images, (N, S, S, 3) uint8 in [0, 255]; noise, (N, latent) float32, standard normal; and for
                `diffaugment` its draws, (2, N, 7) float32 in [0, 1), else anything.

        Returns:
            The discriminator's loss in this step, without penalties, as `now`; and the mean losses since the metrics
            were last reset.
        """
        real, noise, draws = data
        real = to_model_space(real)
        r1, r2 = self.recipe.regulariser in ("r1", "r1_r2"), self.recipe.regulariser == "r1_r2"
        weight = self.recipe.gamma * real.shape[1] ** 2 / 2

        def losses() -> tuple[tuple[Any, Any], Any]:
            # Both losses come from one pass through each network, as in the original: the generator does not wait for
            # the discriminator's update.
            fake = ops.cast(self.generator(noise, training=True), "float32")
            real_logits, real_penalty = self._judged(real, draws[0], r1)
            fake_logits, fake_penalty = self._judged(fake, draws[1], r2)
            generator_loss, discriminator_loss = self.loss_pair(real_logits, fake_logits)
            whole = discriminator_loss + weight * (real_penalty + fake_penalty) if r1 else discriminator_loss
            return (generator_loss, whole), discriminator_loss

        networks = (self.generator, self.discriminator)
        (generator_loss, _), discriminator_loss, found = gradients(
            losses, [network.trainable_variables for network in networks], self.state
        )
        optimizers = (self.generator_optimizer, self.discriminator_optimizer)
        for network, optimizer, of_network in zip(networks, optimizers, found, strict=True):
            optimizer.apply(of_network, network.trainable_variables)
        if self.sampler is not self.generator:
            self._follow(real.shape[0])
        self.generator_loss.update_state(generator_loss)
        self.discriminator_loss.update_state(discriminator_loss)
        means = {metric.name: metric.result() for metric in (self.generator_loss, self.discriminator_loss)}
        return means | {"now": generator_loss + discriminator_loss, "discriminator_now": discriminator_loss}

    def _follow(self, batch: int) -> None:
        """Moves the sampler's weights towards the generator's (Yazıcı et al., arXiv 1806.04498)."""
        shown = ops.cast(self.generator_optimizer.iterations, "float32") * batch
        half_life = ops.minimum(1000 * self.recipe.average_kimg, RAMP * shown)
        keep = ops.power(0.5, batch / half_life)
        trained = {id(variable) for variable in self.generator.trainable_variables}
        for average, variable in zip(self.sampler.variables, self.generator.variables, strict=True):
            moves = id(variable) in trained
            average.assign(variable + keep * (average - variable) if moves else variable)
