import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_expit

from components.train_gan import regularisers
from components.train_gan.gradients import gradients, with_input_gradient
from components.train_gan.losses import LOSSES

REAL = np.array([[1.5], [-0.3], [0.0], [30.0]])
FAKE = np.array([[-2.0], [0.8], [0.0], [-40.0]])


def test_losses_at_logits_equal_the_logistic_function_and_worked_cases() -> None:
    expected = {
        "bce": (-log_expit(FAKE).mean(), -log_expit(REAL).mean() - log_expit(-FAKE).mean()),
        # Worked by hand: −mean(−2, .8, 0, −40); mean(0, 1.3, 1, 0) + mean(0, 1.8, 1, 0).
        "hinge": (10.3, 0.575 + 0.7),
        "relativistic": (-log_expit(FAKE - REAL).mean(), -log_expit(REAL - FAKE).mean()),
    }
    assert expected.keys() == LOSSES.keys()
    for name, pair in expected.items():
        output = [float(value) for value in LOSSES[name].pair(REAL.astype(np.float32), FAKE.astype(np.float32))]
        assert output == pytest.approx(pair, rel=1e-5), name


def test_relativistic_loss_depends_on_the_pairing_and_others_do_not() -> None:
    swapped = FAKE[::-1].copy()
    for name, equal in (("bce", True), ("hinge", True), ("relativistic", False)):
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
        if loss.ratio is None:
            assert 0 in discriminators, name
        else:
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
        return (ops.sum(shown), regularisers.penalty(gradient)), None, None

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


@pytest.mark.parametrize("layer", [keras.layers.Conv2D(5, 3), keras.layers.Dense(5, use_bias=False)])
def test_spectral_norm_divides_the_kernel_by_its_largest_singular_value(layer: keras.Layer) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    network = regularisers.spectral(keras.Model(inputs, layer(inputs)))
    wrapped = network.layers[-1]
    kernel = np.random.default_rng(0).normal(0, 2, wrapped.layer.kernel.shape).astype(np.float32)
    wrapped.layer.kernel.assign(kernel)
    bias = wrapped.layer.bias if wrapped.layer.use_bias else np.zeros(5)
    if wrapped.layer.use_bias:
        bias.assign(np.arange(5.0))
    images = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype(np.float32)
    for _ in range(100):
        network(images, training=True)
    largest = np.linalg.svd(kernel.reshape(-1, 5), compute_uv=False)[0]
    plain = np.asarray(wrapped.layer(images)) - np.asarray(bias)
    expected = plain / largest + np.asarray(bias)
    np.testing.assert_allclose(np.asarray(network(images)), expected, rtol=1e-4, atol=1e-5)
    vector = np.array(wrapped.vector)
    network(images)  # outside training, the vector does not change
    np.testing.assert_array_equal(np.array(wrapped.vector), vector)


def test_spectral_norm_wraps_only_layers_with_a_kernel() -> None:
    from components.train_gan.architectures import dcgan

    discriminator = regularisers.spectral(dcgan.discriminator(32))
    wrapped = {
        layer.layer.__class__.__name__ for layer in discriminator.layers if isinstance(layer, regularisers.SpectralNorm)
    }
    assert wrapped == {"Conv2D", "Dense"}
    assert {type(layer).__name__ for layer in discriminator.layers} == {
        "SpectralNorm",
        "LeakyReLU",
        "Dropout",
        "Flatten",
    }
    assert len(discriminator.trainable_variables) == 8
