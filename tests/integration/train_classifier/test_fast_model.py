"""The fast model computes the same as the plain network of stock layers.

The bounds follow from rounding. Float32 has u = 2⁻²⁴ = 6e-8. A sum of n products has a relative error of about u·√n;
the longest forward sum has n = 2,048 terms (the first dense layer): 3e-6 per layer, 1.4e-5 after five layers. Logits
are below 10 here, so they differ by at most 1.4e-4, probabilities by a quarter of that, 4e-5 (the derivative of a
softmax is at most 1/4). Bfloat16 has u = 2⁻⁹ = 2e-3; weights and inputs are both rounded, and errors of five layers
add up as independent ones: 2e-3·√2·√5 = 6e-3 of a logit, 0.06, and 0.015 of a probability; the bounds are three times
that. The mean loss of 32 images has 0.06/√32 = 0.01 of it.

Where two values of a pooling window are equal except for rounding, the gradient goes to either of two neighbouring
pixels. In float32 this happens in at most a few of 340,000 windows, each of which contributes about 2e-3 of the norm
of a kernel's gradient (one of the 90 = √8,192 terms by which a channel's sum of 8,192 random signs exceeds zero, in
one of 32 channels: 1/(90·√32)). In bfloat16 about one window in a hundred is such a tie: √(2 · 0.01) = 0.14 of the
norm per block, 0.24 over three blocks.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.shared import keras_setup
from components.train_classifier import fused_ops
from components.train_classifier.fast_model import FastModel
from components.train_classifier.networks import cnn
from components.train_classifier.train import BATCH_SIZE, compile_model

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (2 * BATCH_SIZE, 32, 32, 3), np.uint8)
LABELS = RNG.integers(0, 4, 2 * BATCH_SIZE)


def build_without_dropout() -> keras.Sequential:
    """Return the network without random numbers, and with scales of both signs."""
    keras_setup.seed_everything(1)
    rng = np.random.default_rng(3)
    model = cnn.build(4, 32)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.normal(1, 0.8, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.5, layer.beta.shape))
    return model


def compute(model: keras.Model, returns_logits: bool) -> tuple[np.ndarray, float, list[np.ndarray]]:
    """Return probabilities, loss and gradients of one batch."""
    with tf.GradientTape() as tape:
        outputs = model(IMAGES[:BATCH_SIZE], training=True)
        probabilities = tf.nn.softmax(outputs) if returns_logits else outputs
        loss = -tf.reduce_mean(tf.math.log(tf.gather(probabilities, LABELS[:BATCH_SIZE], batch_dims=1)))
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    return np.asarray(probabilities), float(loss), [np.asarray(gradient) for gradient in gradients]


def match_weights(fast: FastModel, shared: keras.Model) -> list[tuple[int, int]]:
    """Return the indices of each trainable weight in the plain network and in the fast model that shares it."""
    index = {id(variable): i for i, variable in enumerate(shared.trainable_variables)}
    return [(index[id(variable)], i) for i, variable in enumerate(fast.trainable_variables)]


@pytest.mark.parametrize(
    ("policy", "probability_bound", "loss_bound", "gradient_bound"),
    [("float32", 4e-5, 1.4e-4, 0.01), ("mixed_bfloat16", 0.05, 0.03, 0.3)],
)
def test_fast_model_has_the_probabilities_loss_gradients_and_averages_of_the_plain_network(
    policy: str, probability_bound: float, loss_bound: float, gradient_bound: float
) -> None:
    plain, shared = build_without_dropout(), build_without_dropout()
    fast = compile_model(shared, policy)
    probabilities, loss, gradients = compute(plain, returns_logits=False)
    fast_probabilities, fast_loss, fast_gradients = compute(fast, returns_logits=True)
    np.testing.assert_allclose(fast_probabilities, probabilities, atol=probability_bound)
    assert fast_loss == pytest.approx(loss, abs=loss_bound)
    matches = match_weights(fast, shared)
    for expected, gradient in ((gradients[i], fast_gradients[j]) for i, j in matches):
        assert gradient.dtype == np.float32
        assert np.linalg.norm(gradient - expected) <= gradient_bound * np.linalg.norm(expected)
    for ours, theirs in zip(shared.non_trainable_variables, plain.non_trainable_variables, strict=True):
        if "moving" in theirs.path:
            np.testing.assert_allclose(ours, theirs, rtol=probability_bound, atol=probability_bound / 10)


def test_fast_model_omits_only_biases_whose_gradient_is_zero() -> None:
    plain, shared = build_without_dropout(), build_without_dropout()
    gradients = compute(plain, returns_logits=False)[2]
    used = {i for i, _ in match_weights(compile_model(shared, "float32"), shared)}
    omitted = sorted(set(range(len(gradients))) - used)
    assert [plain.trainable_variables[i].path.rsplit("/", 1)[1] for i in omitted] == ["bias"] * 4
    # A sum of up to 32,768 gradients that cancel: rounding leaves u·√32,768 = 1e-5 of what was summed.
    largest = max(np.linalg.norm(gradients[i]) for i in used)
    assert max(np.abs(gradients[i]).max() for i in omitted) < 1e-4 * largest


def test_fast_model_follows_the_plain_network_for_ten_steps() -> None:
    plain, shared = build_without_dropout(), build_without_dropout()
    initial = [np.asarray(variable) for variable in plain.trainable_variables]
    # With the default epsilon, Adam moves a weight whose gradient is only rounding as far as any other.
    plain.compile(keras.optimizers.Adam(epsilon=1e-3), "sparse_categorical_crossentropy")
    fast = compile_model(shared, "float32")
    fast.optimizer.epsilon = 1e-3
    losses = []
    for model in (plain, fast):
        rows = (slice(start, start + BATCH_SIZE) for _ in range(5) for start in (0, BATCH_SIZE))
        batches = ((IMAGES[batch], LABELS[batch]) for batch in rows)
        losses.append(model.fit(batches, steps_per_epoch=2, epochs=5, verbose=0).history["loss"])
    # A tie in a pooling changes a gradient by up to 0.01 (see above), in each of ten steps.
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.01)
    for ours, theirs, start in zip(shared.trainable_variables, plain.trainable_variables, initial, strict=True):
        distance = np.linalg.norm(theirs - start)
        assert np.linalg.norm(np.asarray(ours) - theirs) <= 0.1 * distance + 1e-4, (ours.path, distance)


def test_adam_updates_like_keras_adam() -> None:
    values = [np.random.default_rng(1).normal(size=(40, 30)).astype(np.float32) for _ in range(6)]
    results = []
    for optimizer in (keras.optimizers.Adam(0.01), fused_ops.Adam(0.01)):
        variable = keras.Variable(values[0])
        for value in values[1:]:
            optimizer.apply([tf.constant(value)], [variable])
        results.append(np.asarray(variable))
    # Five updates of values up to 4 round by 4·2⁻²⁴ each: 1.2e-6.
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6, atol=2e-6)
    assert np.abs(results[0] - values[0]).max() > 0.02


@pytest.mark.parametrize("shape", [(4, 6, 6, 8), (32, 1, 1, 8)])
def test_normalise_is_the_same_with_and_without_the_tensorflow_kernel(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(2).normal(3, 2, shape).astype(np.float32)
    gamma, beta = (np.linspace(first, 2, 8, dtype=np.float32) for first in (-1, 0))
    fused = fused_ops.normalise(tf.constant(x), gamma, beta, 1e-3)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    stock = fused_ops.normalise(tf.constant(x), gamma, beta, 1e-3)
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3) * gamma + beta
    # Inputs up to 12 and sums of up to 144 terms: 12·2⁻²⁴·√144 = 9e-6 of the mean; results are of order 1.
    for normalised, mean, variance in (fused, stock):
        np.testing.assert_allclose(normalised, expected, atol=1e-5)
        np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(variance, x.var((0, 1, 2)), rtol=1e-5)
