"""The original system's CNN, the same in every arm."""

import keras
from keras import layers


def build(classes: int, image_size: int) -> keras.Model:
    """Return a network of three convolution blocks and a dense head.

    It has 16,877,511 parameters for 7 classes at 128 px.

    Args:
        classes: number of classes.
        image_size: height and width in pixels, a multiple of 8.

    Returns:
        A model from (N, S, S, 3) in [0, 255] to (N, classes) probabilities. Its first layer scales pixels to [-1, 1],
        so that every caller passes the same range.
    """
    model = keras.Sequential([keras.Input((image_size, image_size, 3)), layers.Rescaling(1 / 127.5, -1)], name="cnn")
    for filters, dropout in ((32, 0.25), (64, 0.3), (128, 0.4)):
        model.add(layers.Conv2D(filters, 3, padding="same"))
        model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
        model.add(layers.MaxPooling2D())
        model.add(layers.Dropout(dropout))
    model.add(layers.Flatten())
    model.add(layers.Dense(512))
    model.add(layers.BatchNormalization())
    model.add(layers.ReLU())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(classes, activation="softmax"))
    return model
