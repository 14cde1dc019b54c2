"""ConvNeXt-Tiny of Keras, 28 million weights, random or from a file (Liu et al. 2022, arXiv 2201.03545)."""

from pathlib import Path

import keras
from keras import layers

from components.train_classifier.networks.head import with_head

LEARNING_RATE = 3e-4
DROPOUT = 0.3


def build(classes: int, image_size: int, metadata: int = 0, weights: Path | None = None) -> keras.Model:
    """Return the network; it scales the pixels itself.

    Args:
        classes: number of classes.
        image_size: height and width in pixels, at least 32.
        metadata: numbers of the second input; 0 for none.
        weights: file from which the body starts; None for random weights.
    """
    image = keras.Input((image_size, image_size, 3))
    body = keras.applications.ConvNeXtTiny(include_top=False, weights=weights, input_tensor=image, pooling="avg")
    return with_head(image, layers.Dropout(DROPOUT)(body.output), classes, metadata, "convnext")
