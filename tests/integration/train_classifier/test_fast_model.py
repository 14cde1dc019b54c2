"""The twin that is trained computes what the plain network of stock layers does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from components.shared import keras_setup
from components.train_classifier import fused_ops, network
from components.train_classifier.fast_model import Twin
from components.train_classifier.train import BATCH, twin

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (2 * BATCH, 32, 32, 3), np.uint8)
LABELS = RNG.integers(0, 4, 2 * BATCH)


def undropped() -> keras.Sequential:
    """The network without its draws, with scales of both signs."""
    keras_setup.seed_everything(1)
    rng = np.random.default_rng(3)
    made = network.build(4, 32)
    for layer in made.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.normal(1, 0.8, layer.gamma.shape))
            layer.beta.assign(rng.normal(0, 0.5, layer.beta.shape))
    return made


def one_pass(model: keras.Model, logits: bool) -> tuple[np.ndarray, float, list[np.ndarray]]:
    """Probabilities, loss and gradients for one batch."""
    with tf.GradientTape() as tape:
        outputs = model(IMAGES[:BATCH], training=True)
        chances = tf.nn.softmax(outputs) if logits else outputs
        loss = -tf.reduce_mean(tf.math.log(tf.gather(chances, LABELS[:BATCH], batch_dims=1)))
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    return np.asarray(chances), float(loss), [np.asarray(gradient) for gradient in gradients]


def pairs(plain: keras.Model, trained: Twin, shared: keras.Model) -> list[tuple[int, int]]:
    """Positions of the same weight in the plain network and in the twin of another like it."""
    place = {id(variable): i for i, variable in enumerate(shared.trainable_variables)}
    return [(place[id(variable)], i) for i, variable in enumerate(trained.trainable_variables)]


@pytest.mark.parametrize(
    ("policy", "of_chances", "of_loss", "of_gradients"),
    # Rounding to 8 bits decides anew which of two nearly equal values a pooling takes.
    [("float32", 1e-5, 1e-5, 2e-5), ("mixed_bfloat16", 0.05, 0.02, 0.3)],
)
def test_probabilities_loss_gradients_and_averages_are_the_plain_networks(
    policy: str, of_chances: float, of_loss: float, of_gradients: float
):
    plain, shared = undropped(), undropped()
    trained = twin(shared, policy)
    chances, loss, gradients = one_pass(plain, logits=False)
    twin_chances, twin_loss, twin_gradients = one_pass(trained, logits=True)
    np.testing.assert_allclose(twin_chances, chances, atol=of_chances)
    assert twin_loss == pytest.approx(loss, rel=of_loss)
    same = pairs(plain, trained, shared)
    for ours, theirs in ((twin_gradients[j], gradients[i]) for i, j in same):
        assert ours.dtype == np.float32
        assert np.linalg.norm(ours - theirs) <= of_gradients * np.linalg.norm(theirs)
    for ours, theirs in zip(shared.non_trainable_variables, plain.non_trainable_variables, strict=True):
        if "moving" in theirs.path:
            np.testing.assert_allclose(ours, theirs, rtol=of_chances, atol=of_chances / 10)
    # What the twin leaves out: the biases that a batch normalisation takes out again.
    left_out = set(range(len(gradients))) - {i for i, _ in same}
    assert [plain.trainable_variables[i].path.rsplit("/", 1)[1] for i in sorted(left_out)] == ["bias"] * 4
    assert max(np.abs(gradients[i]).max() for i in left_out) < 1e-5


def test_ten_steps_of_fit_go_where_the_plain_networks_go():
    plain, shared = undropped(), undropped()
    before = [np.asarray(variable) for variable in plain.trainable_variables]
    # With Adam's own epsilon a gradient that is zero but for rounding moves its weight as far as any other.
    plain.compile(keras.optimizers.Adam(epsilon=1e-3), "sparse_categorical_crossentropy")
    trained = twin(shared, "float32")
    trained.optimizer.epsilon = 1e-3
    losses = []
    for model in (plain, trained):
        rows = (slice(start, start + BATCH) for _ in range(10) for start in (0, BATCH))
        given = ((IMAGES[chosen], LABELS[chosen]) for chosen in rows)
        losses.append(model.fit(given, steps_per_epoch=2, epochs=5, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.01)
    for ours, theirs, start in zip(shared.trainable_variables, plain.trainable_variables, before, strict=True):
        # Which of two values a pooling takes, where they are equal but for rounding, is chance.
        went = np.linalg.norm(theirs - start)
        assert np.linalg.norm(np.asarray(ours) - theirs) <= 0.1 * went + 1e-4, (ours.path, went)


def test_adam_is_keras_adam():
    values = [np.random.default_rng(1).normal(size=(40, 30)).astype(np.float32) for _ in range(6)]
    found = []
    for made in (keras.optimizers.Adam(0.01), fused_ops.Adam(0.01)):
        variable = keras.Variable(values[0])
        for value in values[1:]:
            made.apply([tf.constant(value)], [variable])
        found.append(np.asarray(variable))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)
    assert np.abs(found[0] - values[0]).max() > 0.02


@pytest.mark.parametrize("shape", [(4, 6, 6, 8), (32, 1, 1, 8)])
def test_normalisation_is_the_same_without_tensorflows_kernel(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch):
    x = np.random.default_rng(2).normal(3, 2, shape).astype(np.float32)
    gamma, beta = (np.linspace(first, 2, 8, dtype=np.float32) for first in (-1, 0))
    ours = fused_ops.normalise(tf.constant(x), gamma, beta, 1e-3)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    theirs = fused_ops.normalise(tf.constant(x), gamma, beta, 1e-3)
    independent = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3) * gamma + beta
    for got in (ours, theirs):
        np.testing.assert_allclose(got[0], independent, atol=1e-5)
        np.testing.assert_allclose(got[1], x.mean((0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(got[2], x.var((0, 1, 2)), rtol=1e-5)
