"""EfficientNetV2-B0 of Keras, 5.9 million weights, random or from a file (Tan & Le 2021, arXiv 2104.00298)."""

from pathlib import Path

import keras
from keras import layers

from components.train_classifier.networks.head import with_head

LEARNING_RATE = 1e-3
DROPOUT = 0.3
RANDOM_SCALE = 1 / 127.5, -1
IMAGENET_SCALE = 1 / (255 * 0.226), -0.449 / 0.226
"""Factor and offset for pixels. Published weights expect the mean and the deviation of ImageNet, .449 and .226 over the
three channels, which differ by less than .05; one factor for each channel would be an input of the ONNX model."""


def build(classes: int, image_size: int, metadata: int = 0, weights: Path | None = None) -> keras.Model:
    """Return the network, whose first layer scales pixels to [-1, 1], or as the given weights expect.

    Args:
        classes: number of classes.
        image_size: height and width in pixels, at least 32.
        metadata: numbers of the second input; 0 for none.
        weights: file from which the body starts; None for random weights.
    """
    image = keras.Input((image_size, image_size, 3))
    # Not the preprocessing of Keras: the converter to ONNX takes its constants for inputs.
    scaled = layers.Rescaling(*(RANDOM_SCALE if weights is None else IMAGENET_SCALE))(image)
    body = keras.applications.EfficientNetV2B0(
        include_top=False, weights=weights, input_tensor=scaled, pooling="avg", include_preprocessing=False
    )
    return with_head(image, layers.Dropout(DROPOUT)(body.output), classes, metadata, "efficientnet")
