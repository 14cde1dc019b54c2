"""Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391), and the features of a classifier."""

import keras
import numpy as np
from keras import ops

BATCH_IMAGES = 32


def _rebuild(model: keras.Model) -> keras.Model:
    """Return the same network, built in one step.

    A network built layer by layer retains the graphs of its partial states, and `layer.output` refers to those.
    """
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def _last_map(model: keras.Model) -> keras.KerasTensor | None:
    """Return the output of the last convolution; of a nested network, its last feature map."""
    for layer in reversed(model.layers):
        if len(getattr(layer, "output", ops.zeros(())).shape) != 4:
            continue
        if isinstance(layer, keras.Model) or hasattr(layer, "kernel_size"):
            return layer.output
    return None


def _scores(layer: keras.Layer, features: keras.KerasTensor) -> keras.KerasTensor:
    """Return the class scores before the softmax.

    After the softmax, the gradient of a decision with high confidence vanishes.
    """
    if isinstance(layer, keras.layers.Dense):
        return ops.matmul(features, layer.kernel) + (layer.bias if layer.use_bias else 0)
    return features if isinstance(layer, keras.layers.Softmax | keras.layers.Activation) else layer.output


def build_inspected(model: keras.Model) -> keras.Model | None:
    """Return a copy of a classifier that returns the maps of its last convolution and its scores, for `explain`.

    Args:
        model: a Sequential or functional classifier, (N, H, W, 3) in [0, 255], and optionally (N, D) metadata, to
            (N, classes).

    Returns:
        None for a network without convolution, or if the backend is not TensorFlow, whose gradient tape `explain` uses.
    """
    model = _rebuild(model)
    maps = _last_map(model)
    if maps is None or keras.backend.backend() != "tensorflow":
        return None
    last = model.layers[-1]
    given = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    return keras.Model(given, [maps, _scores(last, last.input)])


def explain(
    inspected: keras.Model, images: np.ndarray, labels: np.ndarray, metadata: np.ndarray | None = None
) -> np.ndarray:
    """Return heat maps of the parts of images that support a class: ReLU(Σ α_k A_k).

    α_k is the mean gradient of the class's score with respect to the k-th map A_k of the last convolution.

    Args:
        inspected: from `build_inspected`.
        images: (N, H, W, 3) uint8.
        labels: (N,) int, the class to explain for each image.
        metadata: (N, D) float32, the second input; None for a classifier of images alone.

    Returns:
        (N, h, w) float32 in [0, 1], of the size of that convolution's output; the largest value of an image is 1, or
        all are 0 if nothing supports the class.
    """
    import tensorflow as tf

    maps = []
    for start in range(0, len(images), BATCH_IMAGES):
        rows = slice(start, start + BATCH_IMAGES)
        with tf.GradientTape() as tape:
            given = [ops.cast(part[rows], "float32") for part in (images, metadata) if part is not None]
            features, scores = inspected(given if metadata is not None else given[0], training=False)
            chosen = tf.reduce_sum(scores * tf.one_hot(labels[rows], scores.shape[-1]))
        weights = tf.reduce_mean(tape.gradient(chosen, features), (1, 2), keepdims=True)
        maps.append(np.maximum(tf.reduce_sum(weights * features, -1).numpy(), 0))
    heat = np.concatenate(maps)
    top = heat.max((1, 2), keepdims=True)
    return np.divide(heat, top, out=np.zeros_like(heat), where=top > 0)


def heatmaps(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, metadata: np.ndarray | None = None
) -> np.ndarray | None:
    """Return the heat maps of a classifier once; see `build_inspected` and `explain`, and for None the former."""
    inspected = build_inspected(model)
    return None if inspected is None else explain(inspected, images, labels, metadata)


def extractor(model: keras.Model) -> keras.Model:
    """Return the network without its last layer: from (N, H, W, 3) in [0, 255] to that layer's (N, D) input.

    Of a network with metadata, it is the part of this input that comes from the image.
    """
    model = _rebuild(model)
    features = model.layers[-1].input if len(model.inputs) == 1 else model.layers[-2].input[0]
    return keras.Model(model.inputs[0], features)
