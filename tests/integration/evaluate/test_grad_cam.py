"""Grad-CAM against cases by hand.

The score of a class is linear after the last convolution, so the gradient is a row of weights.
"""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from components.evaluate.predict import grad_cam

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 4, 4, 3)).astype(np.uint8)  # more than one batch
LABELS = RNG.integers(0, 3, 40)
KERNEL = RNG.normal(0, 1, (3, 2))  # a 1×1 convolution of three channels to two maps


def _model(middle: list[keras.Layer], units: np.ndarray, last: keras.Layer | None = None) -> keras.Model:
    """Return a network: convolution, `middle`, dense layer with known weights, and softmax."""
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(2, 1), *middle])
    model.add(layers.Dense(3, "softmax" if last is None else None))
    if last is not None:
        model.add(last)
    dense = next(layer for layer in model.layers if isinstance(layer, layers.Dense))
    model.layers[0].set_weights([KERNEL[None, None], np.array([0.3, -0.2])])
    dense.set_weights([units, np.array([0.5, 0.0, -0.5])])
    return model


def _expected(weights: np.ndarray) -> np.ndarray:
    """Return ReLU(Σ α_k A_k) over its largest value; `weights`: (3, 2), the mean gradient of each class and map."""
    maps = IMAGES @ KERNEL + np.array([0.3, -0.2])
    heat = np.maximum(np.einsum("nhwk,nk->nhw", maps, weights[LABELS]), 0)
    return heat / np.maximum(heat.max((1, 2), keepdims=True), 1e-30)


@pytest.mark.parametrize("last", [None, layers.Softmax, lambda: layers.Activation("softmax")])
def test_heatmaps_behind_a_mean_are_class_activation_maps(last):
    units = RNG.normal(0, 1, (2, 3))
    model = _model([layers.GlobalAveragePooling2D()], units, last() if last else None)
    # y = Σ_k w_k mean(A_k) + b: each position's gradient is w_k / 16, and so is their mean.
    heat = grad_cam.heatmaps(model, IMAGES, LABELS)
    assert heat.shape == (40, 4, 4)
    np.testing.assert_allclose(heat, _expected(units.T / 16), atol=1e-5)


def test_heatmaps_behind_a_flat_layer_average_the_gradient():
    units = RNG.normal(0, 1, (32, 3))
    heat = grad_cam.heatmaps(_model([layers.Flatten(), layers.Dropout(0.5)], units), IMAGES, LABELS)
    np.testing.assert_allclose(heat, _expected(units.reshape(16, 2, 3).mean(0).T), atol=1e-5)


def test_heatmaps_confident_decision_is_explained():
    """The gradient of a probability of 1 vanishes; that of the score does not."""
    units = np.array([[400.0, -400.0, 0.0], [400.0, -400.0, 0.0]])
    model = _model([layers.GlobalAveragePooling2D()], units)
    assert model.predict_on_batch(IMAGES).max(1).min() > 0.999999
    np.testing.assert_allclose(grad_cam.heatmaps(model, IMAGES, LABELS), _expected(units.T), atol=1e-5)


def test_heatmaps_saved_and_functional_models_agree(tmp_path: Path):
    units = RNG.normal(0, 1, (2, 3))
    model = _model([layers.GlobalAveragePooling2D()], units)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    functional = keras.Model(loaded.inputs, loaded.outputs)
    expected = grad_cam.heatmaps(model, IMAGES, LABELS)
    np.testing.assert_array_equal(grad_cam.heatmaps(loaded, IMAGES, LABELS), expected)
    np.testing.assert_array_equal(grad_cam.heatmaps(functional, IMAGES, LABELS), expected)


def test_heatmaps_nested_network_uses_its_last_map():
    units = RNG.normal(0, 1, (2, 3))
    inner = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(2, 1)])
    outer = keras.Sequential([keras.Input((4, 4, 3)), inner, layers.GlobalAveragePooling2D(), layers.Dense(3)])
    inner.layers[0].set_weights([KERNEL[None, None], np.array([0.3, -0.2])])
    outer.layers[-1].set_weights([units, np.zeros(3)])
    np.testing.assert_allclose(grad_cam.heatmaps(outer, IMAGES, LABELS), _expected(units.T), atol=1e-5)


def test_heatmaps_nothing_supports_the_class_gives_zeros():
    units = np.array([[-1.0] * 3, [0.0] * 3])
    model = _model([layers.GlobalAveragePooling2D()], units)
    model.layers[0].set_weights([np.ones((1, 1, 3, 2)), np.zeros(2)])
    assert grad_cam.heatmaps(model, IMAGES, LABELS).max() == 0


def test_heatmaps_network_without_convolution_is_none():
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(3)])
    assert grad_cam.heatmaps(model, IMAGES, LABELS) is None


def test_extractor_returns_the_input_of_the_last_layer():
    model = _model([layers.GlobalAveragePooling2D()], RNG.normal(0, 1, (2, 3)))
    expected = (IMAGES @ KERNEL + np.array([0.3, -0.2])).mean((1, 2))
    np.testing.assert_allclose(grad_cam.extractor(model).predict_on_batch(IMAGES), expected, rtol=1e-4)
