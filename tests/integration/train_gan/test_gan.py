"""One step of a GAN, checked against arithmetic, plain Keras and the original."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from components.shared.keras_setup import to_pixels
from components.train_gan import architectures, augment
from components.train_gan.gan import GAN, STATISTICS_BATCH_SIZE, Together, to_model_space
from components.train_gan.recipe import Recipe

NO_VALUES = np.zeros((2, 1, augment.RANDOM_VALUES), np.float32)


FLOAT32_ROUNDING = 2.0**-24
"""Largest relative error of one operation."""


def step(gan: GAN, *data: np.ndarray) -> dict[str, float]:
    """Take one compiled step, and return the losses."""
    if not hasattr(gan, "compiled_for_test"):
        gan.compiled_for_test = tf.function(gan.train_step)
    return {name: float(value) for name, value in gan.compiled_for_test(data).items()}


def test_to_pixels_inverts_to_model_space() -> None:
    every = np.arange(256, dtype=np.uint8)
    assert np.asarray(to_model_space(every[[0, 255]])).tolist() == [-1, 1]
    np.testing.assert_array_equal(to_pixels(np.asarray(to_model_space(every))), every)
    assert to_pixels(np.array([-7.0, 7.0, np.nan])).tolist() == [0, 255, 0]


def tiny(recipe: Recipe, rate: float = 1e-2, seed: int = 0) -> GAN:
    """Return two linear networks for images of 2 × 2 pixels, trained by plain gradient descent."""
    keras.utils.set_random_seed(seed)
    generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(12), keras.layers.Reshape((2, 2, 3))])
    discriminator = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    gan = GAN(generator, discriminator, recipe)
    gan.compile(keras.optimizers.SGD(rate), keras.optimizers.SGD(rate))
    return gan


def test_step_with_binary_cross_entropy_has_its_losses_and_gradients() -> None:
    """With a kernel of zeros, all logits are the bias, so the losses are known."""
    gan = tiny(Recipe(loss="bce"))
    dense = gan.discriminator.layers[-1]
    dense.kernel.assign(np.zeros((12, 1)))
    dense.bias.assign([0.7])
    result = step(gan, np.zeros((4, 2, 2, 3), np.uint8), np.zeros((4, 2), np.float32), NO_VALUES)
    sigmoid = 1 / (1 + np.exp(-0.7))
    assert result["generator_loss"] == pytest.approx(-np.log(sigmoid), rel=1e-5)
    assert result["discriminator_loss"] == pytest.approx(-np.log(sigmoid) - np.log(1 - sigmoid), rel=1e-5)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    logits = np.full((4, 1), 0.7, np.float32)
    expected = float(loss(np.ones((4, 1)), logits)) + float(loss(np.zeros((4, 1)), logits))
    assert result["discriminator_loss"] == pytest.approx(expected, rel=1e-5)
    # d/db of the discriminator's loss: −(1 − σ) + σ.
    assert float(np.asarray(dense.bias)[0]) == pytest.approx(0.7 - 1e-2 * (2 * sigmoid - 1), rel=1e-5)


def test_step_with_gradient_penalties_weights_them_with_half_gamma_per_pixel() -> None:
    """The gradient of a linear discriminator w·x is w at every image: each penalty is |w|², of gradient γS²·w.

    The effect, rate · 2γS² · w = 1e-2 · 0.4 · w, is the difference of two kernels of up to 1, which float32 rounds to
    6e-8 each: a relative error of 3e-5 / w.
    """
    gamma, rate, side = 0.05, 1e-2, 2
    plain = tiny(Recipe(loss="bce"), rate)
    gan = tiny(Recipe(loss="bce", gamma=gamma), rate)
    weights = np.array(gan.discriminator.layers[-1].kernel)
    real = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    noise = np.random.default_rng(1).standard_normal((4, 2)).astype(np.float32)
    for each in (plain, gan):
        step(each, real, noise, NO_VALUES)
    pulled = np.asarray(plain.discriminator.layers[-1].kernel) - np.asarray(gan.discriminator.layers[-1].kernel)
    # Both kernels are rounded after a few operations.
    rounding = 4 * FLOAT32_ROUNDING * np.abs(weights).max()
    np.testing.assert_allclose(pulled, rate * 2 * gamma * side**2 * weights, rtol=1e-5, atol=rounding)
    np.testing.assert_array_equal(plain.generator.get_weights()[0], gan.generator.get_weights()[0])


def test_dcgan_step_equals_the_original_bit_by_bit() -> None:
    """The original's step in full: two tapes, binary cross-entropy, Adam."""
    nets = architectures.load("dcgan")
    keras.utils.set_random_seed(3)
    gan = GAN(nets.generator(32), nets.discriminator(32), nets.RECIPE)
    gan.compile(*(keras.optimizers.Adam(1e-4) for _ in range(2)))
    keras.utils.set_random_seed(3)
    generator, discriminator = nets.generator(32), nets.discriminator(32)
    optimizers = keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4)
    optimizers[0].build(generator.trainable_variables)
    optimizers[1].build(discriminator.trainable_variables)

    @tf.function
    def original(real: tf.Tensor, noise: tf.Tensor) -> None:
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            fake = generator(noise, training=True)
            real_logits = discriminator(tf.cast(real, tf.float32) / 127.5 - 1, training=True)
            fake_logits = discriminator(fake, training=True)
            generator_loss = tf.reduce_mean(tf.nn.softplus(-fake_logits))
            discriminator_loss = tf.reduce_mean(tf.nn.softplus(-real_logits))
            discriminator_loss += tf.reduce_mean(tf.nn.softplus(fake_logits))
        for network, tape, loss, optimizer in (
            (generator, generator_tape, generator_loss, optimizers[0]),
            (discriminator, discriminator_tape, discriminator_loss, optimizers[1]),
        ):
            weights = network.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    rng = np.random.default_rng(0)
    for _ in range(2):
        real = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        noise = rng.standard_normal((8, gan.generator.input_shape[-1])).astype(np.float32)
        step(gan, real, noise, NO_VALUES)
        original(real, noise)
    for ours, theirs in ((gan.generator, generator), (gan.discriminator, discriminator)):
        for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    gan.settle()
    for one, other in zip(gan.sampler.get_weights(), generator.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("loss", ["relativistic", "bce"])
def test_step_with_one_backward_pass_equals_one_with_two(loss: str) -> None:
    """Each step starts from equal weights.

    Over several steps, rounding can change the sign of an activation near zero, and results then differ by processor.
    """
    nets = architectures.load("dcgan")

    def build(independent: bool) -> GAN:
        keras.utils.set_random_seed(3)  # also of dropout
        gan = GAN(nets.generator(32), nets.discriminator(32), Recipe(loss), batch_independent=independent)
        gan.compile(keras.optimizers.SGD(1e-2), keras.optimizers.SGD(1e-2))
        return gan

    two, one = build(False), build(True)
    assert (two.one_pass, one.one_pass) == (False, True)
    rng = np.random.default_rng(0)
    # A sum of n products has a relative error of at most n units in the last place; the longest sums run over the batch
    # and the pixels of the largest feature map.
    unit = np.finfo(np.float32).eps
    terms = 8 * 16 * 16
    for _ in range(3):
        real = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        noise = rng.standard_normal((8, two.generator.input_shape[-1])).astype(np.float32)
        before = [*two.generator.get_weights(), *two.discriminator.get_weights()]
        one.generator.set_weights(two.generator.get_weights())
        one.discriminator.set_weights(two.discriminator.get_weights())
        for gan in (two, one):
            step(gan, real, noise, NO_VALUES)
        after = ([*gan.generator.get_weights(), *gan.discriminator.get_weights()] for gan in (two, one))
        for start, expected, actual in zip(before, *after, strict=True):
            moved = np.abs(expected - start).max()
            assert np.abs(actual - expected).max() <= terms * unit * moved + unit * np.abs(expected).max()


def test_one_backward_pass_is_not_used_with_penalties_of_the_gradient_at_synthetic_images() -> None:
    networks = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]) for _ in range(2))
    assert not GAN(*networks, Recipe("bce", gamma=0.01), batch_independent=True).one_pass


def test_step_with_one_backward_pass_and_a_perfect_discriminator_trains_the_generator() -> None:
    """At a logit of −70, the discriminator's loss has a gradient of 10⁻³¹ and the generator's one of 1/N.

    The ratio of both is about e⁷⁰: its exponent is rounded by 70 · 2⁻²⁴, so the result by 4e-6.
    """
    gan = tiny(Recipe(loss="bce"), rate=1.0)
    gan.one_pass = True
    dense = gan.discriminator.layers[-1]
    dense.kernel.assign(np.full((12, 1), 1.0))
    dense.bias.assign([-70.0])
    before = gan.generator.get_weights()[1]
    step(gan, np.zeros((4, 2, 2, 3), np.uint8), np.zeros((4, 2), np.float32), NO_VALUES)
    np.testing.assert_allclose(gan.generator.get_weights()[1] - before, 1.0, rtol=1e-4)


@pytest.mark.parametrize("images_before", [0, 100])
def test_sampler_is_the_moving_average_of_the_generator(images_before: int) -> None:
    """The half-life in images is 10, but at most a twentieth of the images shown, including those of pretraining."""
    gan = tiny(Recipe(loss="bce", average_kimg=0.01), rate=0.3)
    gan.images_before.assign(images_before)
    real, noise = np.full((4, 2, 2, 3), 200, np.uint8), np.ones((4, 2), np.float32)
    average = gan.generator.get_weights()
    steps = 60
    for number in range(1, steps):
        step(gan, real, noise, NO_VALUES)
        keep = 0.5 ** (4 / min(10, 0.05 * (images_before + 4 * number)))
        average = [now + keep * (a - now) for a, now in zip(average, gan.generator.get_weights(), strict=True)]
    # Each step rounds three times, and a power of up to 2⁻²⁰ by 20 units.
    rounding = steps * 23 * FLOAT32_ROUNDING
    for output, expected in zip(gan.sampler.get_weights(), average, strict=True):
        np.testing.assert_allclose(output, expected, rtol=rounding, atol=rounding * np.abs(expected).max())
    assert np.abs(gan.sampler.get_weights()[1] - gan.generator.get_weights()[1]).max() > 1e-3


def normalised(recipe: Recipe) -> GAN:
    """Return a GAN whose generator has two layers with batch normalisation."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    x = inputs
    for units in (5, 12):
        x = keras.layers.BatchNormalization()(keras.layers.Dense(units)(x))
        x = keras.layers.Activation("tanh")(x)
    discriminator = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    gan = GAN(keras.Model(inputs, keras.layers.Reshape((2, 2, 3))(x)), discriminator, recipe)
    gan.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    return gan


def test_refresh_statistics_gives_the_averaged_generator_those_of_its_own_activations() -> None:
    """Its mean and variance are the means over the batches of noise; those of the live generator are others."""
    gan = normalised(Recipe(loss="bce", average_kimg=10.0))
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = rng.standard_normal((8, 3)).astype(np.float32)
        step(gan, rng.integers(0, 256, (8, 2, 2, 3), dtype=np.uint8), noise, NO_VALUES)
    noise = rng.standard_normal((3 * STATISTICS_BATCH_SIZE, 3)).astype(np.float32)
    layers = [layer for layer in gan.sampler.layers if layer.weights]
    found: list[list[np.ndarray]] = []
    for batch in noise.astype(np.float64).reshape(3, STATISTICS_BATCH_SIZE, 3):
        x, statistics = batch, []
        for dense, normalisation in zip(layers[::2], layers[1::2], strict=True):
            x = x @ np.asarray(dense.kernel) + np.asarray(dense.bias)
            mean, variance = x.mean(axis=0), x.var(axis=0)
            statistics += [mean, variance]
            x = (x - mean) / np.sqrt(variance + normalisation.epsilon)
            x = np.tanh(x * np.asarray(normalisation.gamma) + np.asarray(normalisation.beta))
        found.append(statistics)
    expected = [np.mean(values, axis=0) for values in zip(*found, strict=True)]

    def statistics_of(model: keras.Model) -> list[np.ndarray]:
        normalisations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
        return [np.array(v) for layer in normalisations for v in (layer.moving_mean, layer.moving_variance)]

    live, trained = statistics_of(gan.generator), [np.array(v) for v in gan.sampler.trainable_variables]
    # Sums of at most 32 values, 5 products and 3 batches, in two layers: at most 80 roundings of values of order 1.
    rounding = 80 * FLOAT32_ROUNDING
    assert not any(
        np.allclose(one, other, rtol=rounding, atol=rounding) for one, other in zip(live, expected, strict=True)
    )
    gan.refresh_statistics([noise])
    for output, mean in zip(statistics_of(gan.sampler), expected, strict=True):
        np.testing.assert_allclose(output, mean, rtol=rounding, atol=rounding)
    assert {layer.momentum for layer in layers[1::2]} == {0.99}
    assert all(np.array_equal(one, other) for one, other in zip(gan.sampler.trainable_variables, trained, strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(statistics_of(gan.generator), live, strict=True))
    once = statistics_of(gan.sampler)
    gan.refresh_statistics([noise])
    assert all(np.array_equal(one, other) for one, other in zip(statistics_of(gan.sampler), once, strict=True))


def test_refresh_statistics_without_a_moving_average_changes_nothing() -> None:
    gan = normalised(Recipe(loss="bce"))
    before = gan.sampler.get_weights()
    gan.refresh_statistics([np.ones((STATISTICS_BATCH_SIZE, 3), np.float32)])
    assert all(np.array_equal(one, other) for one, other in zip(gan.sampler.get_weights(), before, strict=True))


@pytest.mark.parametrize(("loss", "gamma"), [("bce", 0.0), ("bce", 0.01), ("relativistic", 0.01)])
def test_step_with_a_combination_of_loss_and_penalties_trains_every_weight(loss: str, gamma: float) -> None:
    recipe = Recipe(loss=loss, augmentation="diffaugment", gamma=gamma)
    keras.utils.set_random_seed(0)
    generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(192), keras.layers.Reshape((8, 8, 3))])
    layers = [keras.layers.Conv2D(4, 3), keras.layers.LeakyReLU(), keras.layers.Flatten(), keras.layers.Dense(1)]
    gan = GAN(generator, keras.Sequential([keras.Input((8, 8, 3)), *layers]), recipe)
    gan.compile(keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-3))
    rng = np.random.default_rng(0)
    before = [*generator.get_weights(), *gan.discriminator.get_weights()]
    for _ in range(2):
        values = rng.random((2, 4, augment.RANDOM_VALUES)).astype(np.float32)
        noise = rng.standard_normal((4, 2)).astype(np.float32)
        result = step(gan, rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8), noise, values)
    assert np.isfinite(list(result.values())).all()
    assert np.asarray(gan.finite)
    after = [*generator.get_weights(), *gan.discriminator.get_weights()]
    # Every weight changes except the last bias, which relativistic pairing cancels.
    assert all(np.abs(a - b).max() > 0 for a, b in zip(before[:-1], after[:-1], strict=True))


def test_minibatch_std_appends_the_mean_deviation() -> None:
    from components.train_gan.architectures.resnet import MinibatchStd

    images = np.random.default_rng(0).normal(size=(5, 3, 3, 2)).astype(np.float32)
    output = np.asarray(MinibatchStd()(images))
    np.testing.assert_array_equal(output[..., :2], images)
    np.testing.assert_allclose(output[..., 2], images.std(0).mean(), rtol=1e-4)
    assert np.asarray(MinibatchStd()(np.ones((4, 3, 3, 2), np.float32)))[..., 2].max() < 1e-3


def test_several_gans_and_steps_in_one_call_equal_single_steps() -> None:
    """Each GAN has its own images; whether a step is penalised depends on its number."""
    recipe = Recipe(loss="bce", gamma=0.5, penalise_every=3, augmentation="diffaugment", random_dihedral=True)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (count, 2, 2, 3), dtype=np.uint8) for count in (5, 9)]
    rows = [rng.integers(0, len(own), (7, 4)) for own in images]
    together, apart = ([tiny(recipe, seed=seed) for seed in (1, 2)] for _ in range(2))
    Together(together).advance(images, rows, 2)
    for gan, own, chosen in zip(apart, images, rows, strict=True):
        for step, row in enumerate(chosen, start=2):
            gan.step(own, tf.constant(row), penalised=step % 3 == 0)
    for one, other in zip(together, apart, strict=True):
        for a, b in zip(one.state, other.state, strict=True):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=1e-6)
    assert int(together[0].generator_optimizer.iterations) == 7
    kernels = [np.asarray(gan.generator.trainable_variables[0]) for gan in together]
    assert (kernels[0] != kernels[1]).any()


def test_shown_returns_rotated_images_noise_and_augmentation_values() -> None:
    gan = tiny(Recipe(loss="bce", augmentation="diffaugment", random_dihedral=True))
    images = np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3)
    rows = np.array([2, 0, 0, 1] * 16, np.int32)
    real, noise, values = (np.asarray(part) for part in gan.shown(images, rows))
    assert (noise.shape, values.shape) == ((64, 2), (2, 64, augment.RANDOM_VALUES))
    # The deviation of 128 values has a standard error of 1/√256 = 0.06; the bound is five times that.
    assert noise.std() == pytest.approx(1, abs=0.32)
    assert ((values >= 0) & (values < 1)).all()
    assert len(np.unique(values)) == values.size
    np.testing.assert_array_equal(np.sort(real.reshape(64, -1)), np.sort(images[rows].reshape(64, -1)))
    positions = {image.tobytes() for image in real[rows == 0]}
    assert len(positions) == 8
    again = gan.shown(images, rows)[1]
    assert (np.asarray(again) != noise).all()
    plain = tiny(Recipe(loss="bce")).shown(images, rows)[0]
    np.testing.assert_array_equal(np.asarray(plain), images[rows])


def test_step_counts_silent_steps_and_records_losses_that_are_not_finite() -> None:
    gan = tiny(Recipe(loss="bce"), rate=0.0)
    dense = gan.discriminator.layers[-1]
    shown = (np.full((4, 2, 2, 3), 255, np.uint8), np.zeros((4, 2), np.float32), NO_VALUES)
    dense.kernel.assign(np.full((12, 1), 2.0))
    dense.bias.assign([-12.0])  # real: 24 − 12; synthetic: −12
    for _ in range(3):
        step(gan, *shown)
    assert int(gan.silent_steps) == 3
    assert np.asarray(gan.finite)
    dense.bias.assign([0.0])
    step(gan, *shown)
    assert int(gan.silent_steps) == 0
    dense.bias.assign([np.nan])
    step(gan, *shown)
    dense.bias.assign([0.0])
    step(gan, *shown)
    assert not np.asarray(gan.finite)


def test_training_on_images_of_one_colour_learns_the_colour() -> None:
    """The generator starts at grey."""
    keras.utils.set_random_seed(0)
    generator = keras.Sequential([keras.Input((4,)), keras.layers.Dense(12, "tanh"), keras.layers.Reshape((2, 2, 3))])
    discriminator = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    gan = GAN(generator, discriminator, Recipe(loss="bce"))
    gan.compile(keras.optimizers.Adam(1e-2, 0.5), keras.optimizers.Adam(1e-2, 0.5))
    rng = np.random.default_rng(0)
    colour = np.array([200, 40, 90])
    fixed = rng.standard_normal((256, 4)).astype(np.float32)

    def distance() -> float:
        output = (np.asarray(generator(fixed)) + 1) * 127.5
        return float(np.abs(output.mean((0, 1, 2)) - colour).mean())

    before = distance()
    for _ in range(400):
        real = np.clip(colour + rng.normal(0, 20, (32, 2, 2, 3)), 0, 255).astype(np.uint8)
        step(gan, real, rng.standard_normal((32, 4)).astype(np.float32), NO_VALUES)
    assert before > 45
    assert distance() < 20


def test_step_in_bfloat16_has_weights_losses_and_samples_in_float32() -> None:
    nets = architectures.load("dcgan")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        gan = GAN(nets.generator(32), nets.discriminator(32), nets.RECIPE)
    finally:
        keras.config.set_dtype_policy("float32")
    gan.compile(keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4))
    noise = np.random.default_rng(0).standard_normal((4, gan.generator.input_shape[-1])).astype(np.float32)
    values = np.full((2, 4, augment.RANDOM_VALUES), 0.5, np.float32)
    result = step(gan, np.zeros((4, 32, 32, 3), np.uint8), noise, values)
    assert np.isfinite(list(result.values())).all()
    assert np.asarray(gan.finite)
    assert {variable.dtype for variable in gan.generator.trainable_variables} == {"float32"}
    assert gan.generator.layers[1].compute_dtype == "bfloat16"
    assert {layer.compute_dtype for layer in gan.sampler.layers[1:]} == {"float32"}
    assert ops.dtype(gan.sampler(noise)) == "float32"
    gan.settle()
    one, other = gan.sampler.get_weights(), gan.generator.get_weights()
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
