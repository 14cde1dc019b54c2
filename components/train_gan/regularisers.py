"""Discriminator regularisers: gradient penalties and spectral normalisation."""

from typing import Any

import keras
from keras import layers, ops

NAMES = ("none", "r1", "r1_r2", "spectral")
"""`r1`: gradient penalty at real images; `r1_r2`: at real and synthetic images; `spectral`: spectral norm."""


def penalty(gradient: Any) -> Any:
    """Return the zero-centred gradient penalty (Mescheder et al., arXiv 1801.04406), without its weight γ/2.

    Args:
        gradient: (N, H, W, 3), of each image's logit with respect to that image.

    Returns:
        Mean over the images of the gradient's squared norm.
    """
    return ops.mean(ops.sum(ops.square(gradient), axis=(1, 2, 3)))


class SpectralNorm(layers.Wrapper):
    """A linear layer whose kernel is divided by its largest singular value (Miyato et al., arXiv 1802.05957).

    Each training pass takes one step of power iteration to estimate this value.

    Args:
        layer: has a `kernel` with its output channels last, and no activation.
    """

    def build(self, input_shape: Any) -> None:
        """Add the left singular vector."""
        super().build(input_shape)
        assert self.layer.activation is keras.activations.linear, f"{self.layer.name} is not linear"
        outputs = self.layer.kernel.shape[-1]
        self.vector = self.add_weight((outputs,), "random_normal", trainable=False, name="vector")

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return the layer's output with a normalised kernel."""
        matrix = ops.reshape(self.layer.kernel, (-1, self.vector.shape[0]))
        fixed = ops.stop_gradient(matrix)
        right = ops.normalize(ops.matmul(fixed, self.vector), axis=0)
        if training:
            self.vector.assign(ops.normalize(ops.matmul(right, fixed), axis=0))
        left = ops.normalize(ops.stop_gradient(ops.convert_to_tensor(self.vector)), axis=0)
        norm = ops.sum(right * ops.matmul(matrix, left))
        # The layer is linear: dividing its output, without the bias, is dividing its kernel.
        bias = self.layer.bias if self.layer.use_bias else 0.0
        return (self.layer(inputs) - bias) / norm + bias


def spectral(network: keras.Model) -> keras.Model:
    """Return a newly initialised copy of a network with `SpectralNorm` around each convolution and dense layer."""

    def wrap(layer: layers.Layer) -> layers.Layer:
        copy = type(layer).from_config(layer.get_config())
        return SpectralNorm(copy) if isinstance(layer, layers.Conv2D | layers.Dense) else copy

    return keras.models.clone_model(network, clone_function=wrap)
