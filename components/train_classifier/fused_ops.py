"""Single-kernel TensorFlow operations; on other backends, their Keras equivalents."""

from typing import Any

import keras
from keras import ops


def normalise(x: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """Return the batch normalisation over all axes except the last (Ioffe & Szegedy, arXiv 1502.03167).

    Args:
        x: (N, H, W, C) float32 or bfloat16.
        gamma, beta: (C,) float32, scale and offset.
        epsilon: is added to the variance.

    Returns:
        Normalised values with the shape and dtype of `x`; mean and variance of the batch, (C,) float32.
    """
    if keras.backend.backend() != "tensorflow":
        mean, variance = ops.moments(ops.cast(x, "float32"), (0, 1, 2))
        normalised = (ops.cast(x, "float32") - mean) * ops.rsqrt(variance + epsilon) * gamma + beta
        return ops.cast(normalised, x.dtype), mean, variance
    import tensorflow as tf

    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    n = x.shape[0] * x.shape[1] * x.shape[2]
    return y, mean, variance * ((n - 1) / n)  # TensorFlow divides by n − 1, Keras by n


class Adam(keras.optimizers.Adam):
    """The Adam of Keras in one pass over a variable, its gradient and its two moments."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable; called by Keras."""
        if keras.backend.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        slot = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[slot].value.handle,
            v=self._velocities[slot].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
