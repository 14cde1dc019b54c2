"""Small residual networks with a recipe for training on a hundred images within minutes.

The generator has batch normalisation and bilinear upsampling: a few hundred steps then give smooth shapes instead of
tiles. Texture comes from per-pixel noise at every resolution, with a weight for each channel (StyleGAN, Karras et al.,
arXiv 1812.04948); without it, the images have no texture within the budget of a CPU. The noise is part of the
generator's input, which alone determines an image. The discriminator has no normalisation, but the minibatch standard
deviation (Karras et al., arXiv 1710.10196). The recipe is relativistic pairing with R1 and R2 (R3GAN, Huang et al.,
arXiv 2501.05441), with penalties at every sixteenth step, DiffAugment, flips and rotations, and a moving average of the
generator.
"""

from typing import Any

import keras
from keras import layers, ops

from components.train_gan.recipe import Recipe

CODES = 64
"""Length of the code that determines the shape; the rest of the input is the noise."""
BATCH_INDEPENDENT = False
RECIPE = Recipe(
    loss="relativistic",
    augmentation="diffaugment",
    random_dihedral=True,
    average_kimg=10.0,
    learning_rate=5e-4,
    final_rate=0.1,
    beta_1=0.0,
    beta_2=0.99,
    gamma=0.00005,
    penalise_every=16,
    precision="automatic",
)
NOISE_STDDEV = 0.1
"""Initial standard deviation of the noise in a channel."""
MIN_CHANNELS, MAX_CHANNELS = 16, 128
"""Channels at full size; they double at each halving, up to the maximum."""


def _widths(image_size: int) -> list[int]:
    """Return the channels at each resolution, from full size down; it is halved while even and above 4 pixels."""
    sizes = [image_size]
    while sizes[-1] % 2 == 0 and sizes[-1] > 4:
        sizes.append(sizes[-1] // 2)
    return [min(MAX_CHANNELS, MIN_CHANNELS << level) for level in range(len(sizes))]


def _convolve(x: Any, filters: int) -> Any:
    return layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal")(x)


def _convolve_mirrored(x: Any, filters: int, initial: str = "he_normal") -> Any:
    """Convolve with a mirrored border: zeros would give every image a frame that real images do not have."""
    x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
    return layers.Conv2D(filters, 3, kernel_initializer=initial)(x)


def _activate(x: Any) -> Any:
    return layers.LeakyReLU(0.2)(x)


def _normalise(x: Any) -> Any:
    # The default momentum of .99 converges too slowly for a training of a few hundred steps.
    return _activate(layers.BatchNormalization(momentum=0.9)(x))


def _upsample(x: Any) -> Any:
    return layers.UpSampling2D(interpolation="bilinear")(x)


def generator(image_size: int) -> keras.Model:
    """Return a network from (N, L) standard normal to (N, S, S, 3) in [-1, 1].

    L is 64 plus the number of pixels of every resolution but the lowest.
    """
    *wider, narrowest = reversed(_widths(image_size))
    side = image_size >> len(wider)
    sides = [side << level for level in range(1, len(wider) + 1)]
    inputs = keras.Input((CODES + sum(side**2 for side in sides),))
    x = layers.Dense(side * side * MAX_CHANNELS, kernel_initializer="glorot_normal")(inputs[:, :CODES])
    x = layers.Reshape((side, side, MAX_CHANNELS))(x)
    used = CODES
    for filters, side in zip([*wider[1:], narrowest], sides, strict=True):
        noise = layers.Reshape((side, side, 1))(inputs[:, used : used + side**2])
        used += side**2
        short = x if x.shape[-1] == filters else layers.Conv2D(filters, 1, use_bias=False)(x)
        x = _convolve_mirrored(_upsample(_normalise(x)), filters)
        initial = keras.initializers.RandomNormal(stddev=NOISE_STDDEV)
        x = layers.Add()([x, layers.Conv2D(filters, 1, use_bias=False, kernel_initializer=initial)(noise)])
        x = _convolve_mirrored(_normalise(x), filters)
        x = layers.Add()([x, _upsample(short)])
    x = _convolve_mirrored(_normalise(x), 3, initial="glorot_uniform")
    # In float32 with every precision: the output becomes pixels.
    return keras.Model(inputs, layers.Activation("tanh", dtype="float32")(x), name="generator")


class MinibatchStd(layers.Layer):
    """A layer that appends one channel: the standard deviation over the images of a batch, mean over all activations.

    The discriminator can then detect a generator that repeats itself.
    """

    def call(self, inputs: Any) -> Any:
        """Return (N, H, W, C + 1) for (N, H, W, C)."""
        values = ops.cast(inputs, "float32")
        deviation = ops.sqrt(ops.mean(ops.square(values - ops.mean(values, axis=0, keepdims=True)), axis=0) + 1e-8)
        channel = ops.ones_like(inputs[..., :1]) * ops.cast(ops.mean(deviation), inputs.dtype)
        return ops.concatenate([inputs, channel], axis=-1)


def discriminator(image_size: int) -> keras.Model:
    """Return a network from (N, S, S, 3) in [-1, 1] to (N, 1) logits of "real"."""
    narrowest, *wider = _widths(image_size)
    inputs = keras.Input((image_size, image_size, 3))
    x = _convolve(inputs, narrowest)
    for filters in wider:
        short = layers.AveragePooling2D(2)(x)
        short = short if short.shape[-1] == filters else layers.Conv2D(filters, 1, use_bias=False)(short)
        x = layers.AveragePooling2D(2)(_convolve(_activate(x), x.shape[-1]))
        x = _convolve(_activate(x), filters)
        x = layers.Add()([x, short])
    x = MinibatchStd()(x)
    x = _activate(_convolve(_activate(x), MAX_CHANNELS))
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(1, dtype="float32")(x), name="discriminator")
