"""Small residual networks, and what lets a GAN learn from a hundred images within minutes.

The generator is normalised by batch and doubles its size by bilinear interpolation: what a few hundred steps teach it
are then smooth forms, not tiles. Texture comes from noise for each pixel of every size, weighed for each channel
(StyleGAN, Karras et al., arXiv 1812.04948): without it the images have none for as long as a CPU can train. The noise
is part of the generator's input, so that an image is a function of that alone. The discriminator has no normalisation;
it sees the minibatch standard deviation (Karras et al., arXiv 1710.10196). Relativistic pairing with R1 and R2 (R3GAN,
Huang et al., arXiv 2501.05441), the penalties at every sixteenth step; DiffAugment, flips and quarter turns, a moving
average of the generator.
"""

from typing import Any

import keras
from keras import layers, ops

from components.train_gan.recipe import Recipe

CODES = 64
"""Numbers of the input that decide the form; the others are the noise."""
BATCH_INDEPENDENT = False
RECIPE = Recipe(
    loss="relativistic",
    regulariser="r1_r2",
    augmentation="diffaugment",
    random_dihedral=True,
    average_kimg=10.0,
    learning_rate=5e-4,
    beta_1=0.0,
    beta_2=0.99,
    gamma=0.00005,
    penalise_every=16,
    precision="automatic",
)
NOISE = 0.1
"""Standard deviation of what is added to a channel at first."""
NARROWEST, WIDEST = 16, 128
"""Channels at full size, doubled at each halving up to the most."""


def _widths(image_size: int) -> list[int]:
    """Channels at full size, at half of it and so on: the side is halved while it is even and above 4 pixels."""
    sizes = [image_size]
    while sizes[-1] % 2 == 0 and sizes[-1] > 4:
        sizes.append(sizes[-1] // 2)
    return [min(WIDEST, NARROWEST << level) for level in range(len(sizes))]


def _convolution(x: Any, filters: int) -> Any:
    return layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal")(x)


def _mirrored(x: Any, filters: int, initial: str = "he_normal") -> Any:
    """A convolution whose border is mirrored: with zeros every image gets a frame that no real one has."""
    x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
    return layers.Conv2D(filters, 3, kernel_initializer=initial)(x)


def _activated(x: Any) -> Any:
    return layers.LeakyReLU(0.2)(x)


def _normalised(x: Any) -> Any:
    # Keras' own momentum of .99 would follow too slowly for a training of a few hundred steps.
    return _activated(layers.BatchNormalization(momentum=0.9)(x))


def _doubled(x: Any) -> Any:
    return layers.UpSampling2D(interpolation="bilinear")(x)


def generator(image_size: int) -> keras.Model:
    """From (N, 64 + pixels of every size above the smallest) standard normal to (N, S, S, 3) in [-1, 1]."""
    *wider, narrowest = reversed(_widths(image_size))
    side = image_size >> len(wider)
    sides = [side << level for level in range(1, len(wider) + 1)]
    inputs = keras.Input((CODES + sum(side**2 for side in sides),))
    x = layers.Dense(side * side * WIDEST, kernel_initializer="glorot_normal")(inputs[:, :CODES])
    x = layers.Reshape((side, side, WIDEST))(x)
    used = CODES
    for filters, side in zip([*wider[1:], narrowest], sides, strict=True):
        noise = layers.Reshape((side, side, 1))(inputs[:, used : used + side**2])
        used += side**2
        short = x if x.shape[-1] == filters else layers.Conv2D(filters, 1, use_bias=False)(x)
        x = _mirrored(_doubled(_normalised(x)), filters)
        at_first = keras.initializers.RandomNormal(stddev=NOISE)
        x = layers.Add()([x, layers.Conv2D(filters, 1, use_bias=False, kernel_initializer=at_first)(noise)])
        x = _mirrored(_normalised(x), filters)
        x = layers.Add()([x, _doubled(short)])
    x = _mirrored(_normalised(x), 3, initial="glorot_uniform")
    # In float32 whatever the precision: what comes out becomes pixels.
    return keras.Model(inputs, layers.Activation("tanh", dtype="float32")(x), name="generator")


class MinibatchStd(layers.Layer):
    """Adds a channel with one number: how much the batch varies, the mean over pixels and channels of the standard
    deviation over the images. A generator that repeats itself gives itself away by it."""

    def call(self, inputs: Any) -> Any:
        """(N, H, W, C) → (N, H, W, C + 1)."""
        values = ops.cast(inputs, "float32")
        deviation = ops.sqrt(ops.mean(ops.square(values - ops.mean(values, axis=0, keepdims=True)), axis=0) + 1e-8)
        channel = ops.ones_like(inputs[..., :1]) * ops.cast(ops.mean(deviation), inputs.dtype)
        return ops.concatenate([inputs, channel], axis=-1)


def discriminator(image_size: int) -> keras.Model:
    """From (N, S, S, 3) in [-1, 1] to (N, 1) logits of "real"."""
    narrowest, *wider = _widths(image_size)
    inputs = keras.Input((image_size, image_size, 3))
    x = _convolution(inputs, narrowest)
    for filters in wider:
        short = layers.AveragePooling2D(2)(x)
        short = short if short.shape[-1] == filters else layers.Conv2D(filters, 1, use_bias=False)(short)
        x = layers.AveragePooling2D(2)(_convolution(_activated(x), x.shape[-1]))
        x = _convolution(_activated(x), filters)
        x = layers.Add()([x, short])
    x = MinibatchStd()(x)
    x = _activated(_convolution(_activated(x), WIDEST))
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(1, dtype="float32")(x), name="discriminator")
