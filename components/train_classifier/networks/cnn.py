"""The original system's CNN."""

import keras
from keras import layers

from components.train_classifier.networks.head import with_head

LEARNING_RATE = 1e-3


def build(classes: int, image_size: int, metadata: int = 0) -> keras.Model:
    """Return a network of three convolution blocks and a dense head.

    It has 16,877,511 parameters for 7 classes at 128 px. Its first layer scales pixels to [-1, 1].

    Args:
        classes: number of classes.
        image_size: height and width in pixels, a multiple of 8.
        metadata: numbers of an image's encoded metadata, a second input, which joins the features of the image before
            the last layer (late fusion); 0 for none.
    """
    image, features = keras.Input((image_size, image_size, 3)), [layers.Rescaling(1 / 127.5, -1)]
    for filters, dropout in ((32, 0.25), (64, 0.3), (128, 0.4)):
        features += [layers.Conv2D(filters, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()]
        features += [layers.MaxPooling2D(), layers.Dropout(dropout)]
    features += [layers.Flatten(), layers.Dense(512), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.5)]
    if not metadata:
        return keras.Sequential([image, *features, layers.Dense(classes, activation="softmax")], name="cnn")
    x = image
    for layer in features:
        x = layer(x)
    return with_head(image, x, classes, metadata, "cnn")
