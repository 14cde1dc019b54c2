"""The original system's DCGAN (after Radford et al., arXiv 1511.06434, in the form of TensorFlow's tutorial)."""

import keras
from keras import layers

from components.shared.layers import Dropout
from components.train_gan.recipe import Recipe

LATENT = 100
RECIPE = Recipe(loss="bce", precision="automatic")
BATCH_INDEPENDENT = True


def generator(image_size: int) -> keras.Model:
    """Return a network from (N, 100) standard normal to (N, S, S, 3) in [-1, 1].

    It has 2,782,432 parameters at 128 px.

    Args:
        image_size: a multiple of 16.
    """
    side = image_size // 16
    model = keras.Sequential([keras.Input((LATENT,))], name="generator")
    model.add(layers.Dense(side * side * 256, use_bias=False))
    model.add(layers.BatchNormalization())
    model.add(layers.LeakyReLU())
    model.add(layers.Reshape((side, side, 256)))
    for filters in (128, 64, 32):
        model.add(layers.Conv2DTranspose(filters, 5, 2, "same", use_bias=False))
        model.add(layers.BatchNormalization())
        model.add(layers.LeakyReLU())
    model.add(layers.Conv2DTranspose(3, 5, 2, "same", use_bias=False, activation="tanh"))
    return model


def discriminator(image_size: int) -> keras.Model:
    """Return a network from (N, S, S, 3) in [-1, 1] to (N, 1) logits of "real"; 1,094,785 parameters at 128 px."""
    model = keras.Sequential([keras.Input((image_size, image_size, 3))], name="discriminator")
    for filters in (64, 128, 256):
        model.add(layers.Conv2D(filters, 5, 2, "same"))
        model.add(layers.LeakyReLU())
        model.add(Dropout(0.3))
    model.add(layers.Flatten())
    model.add(layers.Dense(1))
    return model
