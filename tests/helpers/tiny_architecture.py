"""A GAN architecture of linear networks, for tests of the training loop around the steps."""

import keras

from components.train_gan.recipe import Recipe

RECIPE = Recipe(loss="bce", precision="automatic")
BATCH_INDEPENDENT = True


def generator(image_size: int) -> keras.Model:
    """Return the network from (N, 4) to (N, S, S, 3) in [-1, 1]."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(image_size * image_size * 3, "tanh")(inputs)
    return keras.Model(inputs, keras.layers.Reshape((image_size, image_size, 3))(x))


def discriminator(image_size: int) -> keras.Model:
    """Return the network from (N, S, S, 3) to (N, 1) logits."""
    inputs = keras.Input((image_size, image_size, 3))
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(inputs)))
