"""Checks of a network of the classifiers."""

from pathlib import Path

import keras
import numpy as np
from keras import layers
from scipy.special import softmax

from components.evaluate.predict.grad_cam import extractor, heatmaps
from components.shared import keras_setup
from components.shared.batch_statistics import recompute_statistics
from components.train_classifier import networks
from components.train_classifier.plain_model import PlainModel

IMAGES = np.random.default_rng(2).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
METADATA = np.random.default_rng(3).normal(size=(8, 5)).astype(np.float32)
WEIGHTS = {"cnn": 1_148_871, "resnet": 698_471, "efficientnet": 5_928_279, "convnext": 27_825_511}
"""Of 7 classes at 32 px."""


def check_network(name: str, folder: Path) -> None:
    """Check the probabilities, the saved file and the heat maps of a network."""
    keras_setup.seed_everything(1)
    model = networks.load(name).build(7, 32)
    assert model.count_params() == WEIGHTS[name]
    probabilities = keras_setup.predict_probabilities(model, IMAGES)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert np.ptp(probabilities, axis=0).max() > 0  # it sees the images
    keras_setup.save_model(model, folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(keras_setup.predict_probabilities(loaded, IMAGES), probabilities)
    maps = heatmaps(loaded, IMAGES, np.zeros(len(IMAGES), int))
    assert maps is not None
    assert maps.shape[0] == len(IMAGES)
    assert extractor(loaded).predict_on_batch(IMAGES).ndim == 2


def check_plain_model(name: str) -> None:
    """Compare a network with its training form."""
    keras_setup.seed_everything(1)
    model = networks.load(name).build(3, 32, metadata=5)
    offset = np.array([0.0, 1.0, 2.0], np.float32)
    form = PlainModel(model, offset)
    logits = keras.ops.convert_to_numpy(
        keras.ops.matmul(form.features([IMAGES, METADATA], training=False), form.last.kernel) + form.last.bias
    )
    np.testing.assert_allclose(
        softmax(logits, axis=1), keras_setup.predict_probabilities(model, IMAGES, METADATA), rtol=1e-4, atol=1e-6
    )
    trained = keras.ops.convert_to_numpy(form([IMAGES, METADATA]))
    assert trained.shape == (8, 3)
    assert {id(it) for it in form.trainable_variables} == {id(it) for it in model.trainable_variables}
    check_statistics(model, name != "convnext")


def check_statistics(model: keras.Model, has_any: bool) -> None:
    """Check that the statistics of batch normalisations are recomputed, and that nothing else changes."""

    def constants() -> list[float]:
        rates = [layer.rate for layer in model.layers if isinstance(layer, layers.Dropout)]
        return rates + [layer.momentum for layer in model.layers if isinstance(layer, layers.BatchNormalization)]

    def statistics() -> list[np.ndarray]:
        normalisations = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
        return [np.array(value) for layer in normalisations for value in (layer.moving_mean, layer.moving_variance)]

    before, old, weights = constants(), statistics(), [np.array(value) for value in model.trainable_variables]
    recompute_statistics(model, [[IMAGES, METADATA]])
    new = statistics()
    assert bool(new) == has_any
    assert all(np.abs(one - other).max() > 0 for one, other in zip(new, old, strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(model.trainable_variables, weights, strict=True))
    assert constants() == before
    # Dropout is off and the earlier statistics have no weight: the same batch gives the same values.
    recompute_statistics(model, [[IMAGES, METADATA]])
    assert all(np.array_equal(one, other) for one, other in zip(statistics(), new, strict=True))
