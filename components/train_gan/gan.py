"""A GAN as a Keras model: two networks, two optimisers, one step."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops


def to_model_space(images: Any) -> Any:
    """uint8 in [0, 255] to float32 in [-1, 1], any shape."""
    return ops.cast(images, "float32") / 127.5 - 1


class GAN(keras.Model):
    """Generator against discriminator, with binary cross-entropy on logits (the non-saturating loss of Goodfellow et
    al. 2014).

    Args:
        generator: (N, latent) → (N, S, S, 3) in [-1, 1].
        discriminator: (N, S, S, 3) → (N, 1) logits.
        latent: length of the generator's input.
        seed: of the noise.
    """

    def __init__(self, generator: keras.Model, discriminator: keras.Model, latent: int, seed: int) -> None:
        super().__init__()
        self.generator, self.discriminator, self.latent = generator, discriminator, latent
        self.noise = keras.random.SeedGenerator(seed)
        self.generator_loss = keras.metrics.Mean("generator_loss")
        self.discriminator_loss = keras.metrics.Mean("discriminator_loss")

    def compile(self, generator_optimizer: Any, discriminator_optimizer: Any) -> None:
        """Takes one optimiser for each network."""
        super().compile()
        self.generator_optimizer = generator_optimizer
        self.discriminator_optimizer = discriminator_optimizer

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update of both networks.

        Args:
            data: real images, (N, S, S, 3) uint8 in [0, 255], as Keras hands them over.

        Returns:
            Mean losses since the metrics were last reset.
        """
        real, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        real = to_model_space(real)
        noise = keras.random.normal((ops.shape(real)[0], self.latent), seed=self.noise)
        # Both losses come from one pass through each network, as in the original: the generator does not wait for the
        # discriminator's update.
        with tf.GradientTape(persistent=True) as tape:
            fake = self.generator(noise, training=True)
            real_logits = self.discriminator(real, training=True)
            fake_logits = self.discriminator(fake, training=True)
            generator_loss = ops.mean(ops.softplus(-fake_logits))
            discriminator_loss = ops.mean(ops.softplus(-real_logits)) + ops.mean(ops.softplus(fake_logits))
        for network, optimizer, loss in (
            (self.generator, self.generator_optimizer, generator_loss),
            (self.discriminator, self.discriminator_optimizer, discriminator_loss),
        ):
            weights = network.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        self.generator_loss.update_state(generator_loss)
        self.discriminator_loss.update_state(discriminator_loss)
        return {metric.name: metric.result() for metric in (self.generator_loss, self.discriminator_loss)}
