"""The training form of any network: its layers as they are, in float32, and logits instead of probabilities."""

from typing import Any

import keras
import numpy as np
from keras import ops


class PlainModel(keras.Model):
    """The training pass of a network whose last layer is dense: the inputs of the network to (batch, classes) logits.

    Args:
        network: shares its layers.
        logit_offset: (classes,) float32, is added to the logits; the network itself does not have it.
    """

    def __init__(self, network: keras.Model, logit_offset: np.ndarray | None = None) -> None:
        super().__init__()
        self.last = network.layers[-1]
        self.features = keras.Model(network.inputs if len(network.inputs) > 1 else network.inputs[0], self.last.input)
        self.logit_offset = logit_offset

    def call(self, inputs: Any, training: bool = True) -> Any:
        """Return the logits."""
        logits = ops.matmul(self.features(inputs, training=True), self.last.kernel) + self.last.bias
        return logits if self.logit_offset is None else logits + self.logit_offset
