"""Where a network looked: Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391), and what it makes of an image."""

import keras
import numpy as np
from keras import ops

BATCH = 32


def _rebuilt(model: keras.Model) -> keras.Model:
    """The same network, built in one go: one to which layers were added one by one keeps the graphs of its youth, and
    its layers answer from those when asked for their output."""
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def _last_map(model: keras.Model) -> keras.KerasTensor | None:
    """The output of the last layer that convolves; of a network within the network, its last feature map."""
    for layer in reversed(model.layers):
        if len(getattr(layer, "output", ops.zeros(())).shape) != 4:
            continue
        if isinstance(layer, keras.Model) or hasattr(layer, "kernel_size"):
            return layer.output
    return None


def _scores(layer: keras.Layer, features: keras.KerasTensor) -> keras.KerasTensor:
    """The class scores before the softmax, which the method differentiates: behind it the gradient of a sure decision
    vanishes."""
    if isinstance(layer, keras.layers.Dense):
        return ops.matmul(features, layer.kernel) + (layer.bias if layer.use_bias else 0)
    return features if isinstance(layer, keras.layers.Softmax | keras.layers.Activation) else layer.output


def heatmaps(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Which parts of an image speak for a class: ReLU(Σ α_k A_k), α_k the mean gradient of the class's score with
    respect to the k-th map A_k of the last convolution.

    Args:
        model: a Sequential or functional classifier, (N, H, W, 3) in [0, 255] to (N, classes).
        images: (N, H, W, 3) uint8.
        labels: (N,) int, the class to explain for each image.

    Returns:
        (N, h, w) float32 in [0, 1], the largest value of an image 1 (or all 0 where nothing speaks for the class), of
        the size of that convolution's output; None for a network without convolution, or where the backend is not
        TensorFlow, whose gradient this takes.
    """
    model = _rebuilt(model)
    maps = _last_map(model)
    if maps is None or keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    last = model.layers[-1]
    inspected = keras.Model(model.inputs[0], [maps, _scores(last, last.input)])
    found = []
    for start in range(0, len(images), BATCH):
        rows = slice(start, start + BATCH)
        with tf.GradientTape() as tape:
            features, scores = inspected(ops.cast(images[rows], "float32"), training=False)
            chosen = tf.reduce_sum(scores * tf.one_hot(labels[rows], scores.shape[-1]))
        weights = tf.reduce_mean(tape.gradient(chosen, features), (1, 2), keepdims=True)
        found.append(np.maximum(tf.reduce_sum(weights * features, -1).numpy(), 0))
    heat = np.concatenate(found)
    top = heat.max((1, 2), keepdims=True)
    return np.divide(heat, top, out=np.zeros_like(heat), where=top > 0)


def extractor(model: keras.Model) -> keras.Model:
    """The network without its last layer: (N, H, W, 3) in [0, 255] to (N, D) of what that layer sees."""
    model = _rebuilt(model)
    return keras.Model(model.inputs[0], model.layers[-1].input)
