"""Batch statistics of a trained network, recomputed for its final weights.

The running statistics of batch normalisation lag behind the weights and, where dropout precedes the normalisation, are
those of other activations than in prediction ("variance shift", Li et al., arXiv 1801.05134). Averaged weights have no
statistics. Those of the final weights are means over batches of the activations that these weights give
(Izmailov et al., arXiv 1803.05407, §3.2).
"""

from collections.abc import Iterable
from typing import Any

import keras
from keras import layers


def recompute_statistics(model: keras.Model, batches: Iterable[Any]) -> None:
    """Replace the moving means and variances of a model's batch normalisations; dropout is off.

    Args:
        model: a model whose layers are normalisations, dropout and others that do not change in training.
        batches: its inputs, in batches of equal size; always the same, so that training is repeatable.
    """
    normalisations = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    dropouts = [layer for layer in model.layers if isinstance(layer, layers.Dropout)]
    if not normalisations:
        return
    momenta, rates = [layer.momentum for layer in normalisations], [layer.rate for layer in dropouts]
    for layer in dropouts:
        layer.rate = 0.0
    for number, batch in enumerate(batches):
        for layer in normalisations:
            layer.momentum = number / (number + 1)  # the running mean is then that of all batches so far
        model(batch, training=True)
    for layer, momentum in zip(normalisations, momenta, strict=True):
        layer.momentum = momentum
    for layer, rate in zip(dropouts, rates, strict=True):
        layer.rate = rate
