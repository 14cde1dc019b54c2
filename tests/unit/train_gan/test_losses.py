import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_expit

from components.train_gan.gradients import gradients, with_input_gradient
from components.train_gan.losses import LOSSES, penalty

REAL = np.array([[1.5], [-0.3], [0.0], [30.0]])
FAKE = np.array([[-2.0], [0.8], [0.0], [-40.0]])


def test_losses_at_logits_equal_the_logistic_function() -> None:
    expected = {
        "bce": (-log_expit(FAKE).mean(), -log_expit(REAL).mean() - log_expit(-FAKE).mean()),
        "relativistic": (-log_expit(FAKE - REAL).mean(), -log_expit(REAL - FAKE).mean()),
    }
    assert expected.keys() == LOSSES.keys()
    for name, pair in expected.items():
        output = [float(value) for value in LOSSES[name].pair(REAL.astype(np.float32), FAKE.astype(np.float32))]
        assert output == pytest.approx(pair, rel=1e-5), name


def test_relativistic_loss_depends_on_the_pairing_and_cross_entropy_does_not() -> None:
    swapped = FAKE[::-1].copy()
    for name, equal in (("bce", True), ("relativistic", False)):
        one, other = (float(LOSSES[name].pair(REAL, fake)[1]) for fake in (FAKE, swapped))
        assert (one == pytest.approx(other)) is equal


def test_ratio_equals_that_of_the_derivatives_by_finite_differences() -> None:
    step = 1e-6
    real, fake = REAL[:3], FAKE[:3]
    for name, loss in LOSSES.items():
        found = []
        for row in range(3):
            move = step * np.eye(3)[:, [row]]
            up, down = loss.pair(real, fake + move), loss.pair(real, fake - move)
            found.append([(float(a) - float(b)) / (2 * step) for a, b in zip(up, down, strict=True)])
        generators, discriminators = np.array(found).T
        output = np.asarray(loss.ratio(real, fake))[:, 0]
        np.testing.assert_allclose(output, generators / discriminators, rtol=1e-5, err_msg=name)


def build_smooth_discriminator(seed: int) -> keras.Sequential:
    """Return a smooth discriminator in float64, for which finite differences are exact to many digits."""
    keras.utils.set_random_seed(seed)
    layers = [
        keras.Input((5, 5, 3), dtype="float64"),
        keras.layers.Conv2D(4, 3, 2, "same", activation="tanh", dtype="float64"),
        keras.layers.Flatten(dtype="float64"),
        keras.layers.Dense(3, activation="softplus", dtype="float64"),
        keras.layers.Dense(1, dtype="float64"),
    ]
    return keras.Sequential(layers)


def penalty_of(discriminator: keras.Model, images: np.ndarray) -> float:
    """Return the gradient penalty by finite differences of the logits."""
    step, pixels = 1e-5, images[0].size
    moves = step * np.eye(pixels).reshape(pixels, 1, *images[0].shape)
    up, down = (np.asarray(discriminator((images + sign * moves).reshape(-1, *images[0].shape))) for sign in (1, -1))
    return float((((up - down) / (2 * step)) ** 2).sum()) / len(images)


def test_penalty_and_its_double_gradient_equal_finite_differences() -> None:
    seed = 0
    discriminator = build_smooth_discriminator(seed)
    images = np.random.default_rng(seed).uniform(-1, 1, (2, 5, 5, 3))
    weights = discriminator.trainable_variables

    def losses(shown):
        _, gradient = with_input_gradient(discriminator, shown)
        return (ops.sum(shown), penalty(gradient)), None, None

    (_, value), _, (_, found) = gradients(
        lambda: ops.convert_to_tensor(images), losses, ([], weights), discriminator.variables
    )
    assert float(value) == pytest.approx(penalty_of(discriminator, images), rel=1e-7)
    rng, step = np.random.default_rng(seed), 1e-4
    for weight, gradient in zip(weights, found, strict=True):
        before = np.array(weight)
        if gradient is None:  # the penalty does not depend on the last bias
            gradient = np.zeros_like(before)
        for place in {int(number) for number in rng.integers(before.size, size=3)}:
            moved = np.zeros(before.size)
            moved[place] = step
            values = []
            for sign in (1, -1):
                weight.assign(before + sign * moved.reshape(before.shape))
                values.append(penalty_of(discriminator, images))
            weight.assign(before)
            expected = (values[0] - values[1]) / (2 * step)
            assert float(np.asarray(gradient).ravel()[place]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
