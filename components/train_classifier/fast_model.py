"""The training form of the CNN: the same network, weights and result in less time.

The plain network of stock layers predicts and is saved; this one shares its weights. The differences:

- Batch normalisation is one kernel, Adam is one kernel (`fused_ops.py`), and dropout uses 16 random bits per element.
- Pooling comes before the rectifier. The order does not change the result, and a quarter of the values remains to be
  rectified.
- There is no bias before a batch normalisation, which would cancel it: its gradient is zero except for rounding. The
  bias of the plain network keeps its initial value, zero.
- Large tensors are bfloat16 if the hardware multiplies in it; statistics, logits, loss and weights are float32.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from components.shared.layers import Dropout
from components.train_classifier import fused_ops
from components.train_classifier.networks.head import METADATA_LAYER


class FastModel(keras.Model):
    """The training pass of a network of `networks.cnn`: (batch, S, S, 3) uint8 to (batch, classes) float32 logits.

    With metadata, the input is a pair: the images, and (batch, D) float32. A call updates the moving averages of batch
    normalisation.

    Args:
        network: shares its weights; its biases before a batch normalisation are zero.
        batch: images in every batch.
        policy: name of the Keras precision policy, `float32` or `mixed_bfloat16`.
        logit_offset: (classes,) float32, is added to the logits; the plain network does not have it.
    """

    def __init__(self, network: keras.Model, batch: int, policy: str, logit_offset: np.ndarray | None = None) -> None:
        super().__init__(autocast=False)
        self.logit_offset = logit_offset
        self.hidden = network.get_layer(METADATA_LAYER) if len(network.inputs) == 2 else None
        weighted = [layer for layer in network.layers if hasattr(layer, "kernel") and layer is not self.hidden]
        norms = [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]
        *self.kernels, self.last = [layer.kernel for layer in weighted]
        self.bias = weighted[-1].bias
        self.norms = [[norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance] for norm in norms]
        self.momentum, self.epsilon = norms[0].momentum, norms[0].epsilon
        rates = [layer.rate for layer in network.layers if isinstance(layer, layers.Dropout)]
        self.dropouts = [Dropout(rate, dtype=policy) for rate in rates]
        self.shape = (batch, *network.inputs[0].shape[1:])
        self.map_dtype = keras.DTypePolicy(policy).compute_dtype

    def call(self, inputs: Any, training: bool = True) -> Any:
        """Return the logits."""
        images, metadata = (inputs, None) if self.hidden is None else inputs
        x = ops.cast(ops.reshape(images, self.shape), "float32") / 127.5 - 1
        x = ops.cast(x, self.map_dtype)
        for kernel, norm, dropout in zip(self.kernels, self.norms, self.dropouts, strict=True):
            weights = ops.cast(kernel, x.dtype)
            if len(kernel.shape) == 4:
                x = ops.max_pool(self._normalise(ops.conv(x, weights, padding="same"), *norm), 2, 2)
            else:
                x = ops.matmul(ops.reshape(x, (x.shape[0], -1)), weights)
                x = self._normalise(x[:, None, None], *norm)[:, 0, 0]
            x = dropout(ops.relu(x), training=True)
        x = ops.cast(x, "float32")
        if self.hidden is not None:
            x = ops.concatenate([x, self.hidden(metadata)], axis=-1)
        logits = ops.matmul(x, self.last) + self.bias
        return logits if self.logit_offset is None else logits + self.logit_offset

    def _normalise(self, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
        y, *batch = fused_ops.normalise(x, gamma.value, beta.value, self.epsilon)
        for average, value in zip((mean, variance), batch, strict=True):
            average.assign(self.momentum * average + (1 - self.momentum) * value)
        return y
