"""EfficientNetV2-B0 of Keras, 5.9 million weights, from random ones (Tan & Le 2021, arXiv 2104.00298)."""

import keras
from keras import layers

from components.train_classifier.networks.head import with_head

LEARNING_RATE = 1e-3
DROPOUT = 0.3


def build(classes: int, image_size: int, metadata: int = 0) -> keras.Model:
    """Return the network, whose first layer scales pixels to [-1, 1].

    Args:
        classes: number of classes.
        image_size: height and width in pixels, at least 32.
        metadata: numbers of the second input; 0 for none.
    """
    image = keras.Input((image_size, image_size, 3))
    # Not the preprocessing of Keras: the converter to ONNX takes its constants for inputs.
    scaled = layers.Rescaling(1 / 127.5, -1)(image)
    body = keras.applications.EfficientNetV2B0(
        include_top=False, weights=None, input_tensor=scaled, pooling="avg", include_preprocessing=False
    )
    return with_head(image, layers.Dropout(DROPOUT)(body.output), classes, metadata, "efficientnet")
