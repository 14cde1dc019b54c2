"""The CNN as it is trained: the same network, weights and result, in less time.

The plain network of stock layers is what predicts and what is saved; this one shares its weights. What it does
otherwise:

- one kernel for batch normalisation, one for Adam (`fused_ops.py`), 16 random bits for each element of a dropout;
- pooling before the rectifier: the order does not matter, and a quarter of the values is left to rectify;
- no bias in front of a batch normalisation, which takes it out again: its gradient is zero but for rounding, and the
  plain network's stays as it began, zero;
- bfloat16 where the hardware multiplies in it, for all that is large; statistics, scores, loss, weights and their
  updates stay float32.
"""

from typing import Any

import keras
from keras import layers, ops

from components.shared.layers import Dropout
from components.train_classifier import fused_ops


class Twin(keras.Model):
    """The training pass of a network that `network.build` made: (batch, S, S, 3) uint8 to (batch, classes) scores, the
    logarithms of the probabilities up to a constant. A call moves the averages for batch normalisation.

    Args:
        network: whose weights are shared; its biases in front of a batch normalisation are zero.
        batch: images in a batch, all of the same number.
        policy: Keras' name of the precision, `float32` or `mixed_bfloat16`.
    """

    def __init__(self, network: keras.Sequential, batch: int, policy: str) -> None:
        super().__init__(autocast=False)
        weighted = [layer for layer in network.layers if hasattr(layer, "kernel")]
        norms = [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]
        *self.kernels, self.last = [layer.kernel for layer in weighted]
        self.bias = weighted[-1].bias
        self.norms = [[norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance] for norm in norms]
        self.momentum, self.epsilon = norms[0].momentum, norms[0].epsilon
        rates = [layer.rate for layer in network.layers if isinstance(layer, layers.Dropout)]
        self.dropouts = [Dropout(rate, dtype=policy) for rate in rates]
        self.shape = (batch, *network.input_shape[1:])
        self.dtype_of_maps = keras.DTypePolicy(policy).compute_dtype

    def call(self, images: Any, training: bool = True) -> Any:
        """Scores; see the class."""
        x = ops.cast(ops.reshape(images, self.shape), "float32") / 127.5 - 1
        x = ops.cast(x, self.dtype_of_maps)
        for kernel, norm, dropout in zip(self.kernels, self.norms, self.dropouts, strict=True):
            weights = ops.cast(kernel, x.dtype)
            if len(kernel.shape) == 4:
                x = ops.max_pool(self._normalised(ops.conv(x, weights, padding="same"), *norm), 2, 2)
            else:
                x = ops.matmul(ops.reshape(x, (x.shape[0], -1)), weights)
                x = self._normalised(x[:, None, None], *norm)[:, 0, 0]
            x = dropout(ops.relu(x), training=True)
        return ops.matmul(ops.cast(x, "float32"), self.last) + self.bias

    def _normalised(self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
        y, *batch = fused_ops.normalise(x, gamma.value, beta.value, self.epsilon)
        for average, value in zip((mean, variance), batch, strict=True):
            average.assign(self.momentum * average + (1 - self.momentum) * value)
        return y
