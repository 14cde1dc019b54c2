"""A small residual network: 0.7 million weights for any image size (He et al. 2016, arXiv 1512.03385)."""

import keras
from keras import layers

from components.train_classifier.networks.head import with_head

LEARNING_RATE = 1e-3
WIDTHS = (32, 64, 128)
BLOCKS = 2
DROPOUT = 0.3


def _convolve(x: keras.KerasTensor, filters: int, stride: int, size: int = 3) -> keras.KerasTensor:
    x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def _block(x: keras.KerasTensor, filters: int, stride: int) -> keras.KerasTensor:
    shortcut = x if stride == 1 and x.shape[-1] == filters else _convolve(x, filters, stride, size=1)
    y = layers.ReLU()(_convolve(x, filters, stride))
    return layers.ReLU()(layers.Add()([_convolve(y, filters, 1), shortcut]))


def build(classes: int, image_size: int, metadata: int = 0) -> keras.Model:
    """Return three stages of two blocks behind a convolution with stride 2, and a mean over positions.

    Args:
        classes: number of classes.
        image_size: height and width in pixels.
        metadata: numbers of the second input; 0 for none.
    """
    image = keras.Input((image_size, image_size, 3))
    x = layers.ReLU()(_convolve(layers.Rescaling(1 / 127.5, -1)(image), WIDTHS[0], 2))
    for stage, filters in enumerate(WIDTHS):
        for block in range(BLOCKS):
            x = _block(x, filters, 2 if stage and not block else 1)
    features = layers.Dropout(DROPOUT)(layers.GlobalAveragePooling2D()(x))
    return with_head(image, features, classes, metadata, "resnet")
