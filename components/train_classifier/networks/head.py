"""The end of a network: the second input for the metadata of the patient, if any, and the last layer."""

from collections.abc import Sequence

import keras
from keras import layers

METADATA_LAYER = "metadata_hidden"
METADATA_UNITS = 16


def with_head(
    image: keras.KerasTensor, features: keras.KerasTensor, classes: int, metadata: int, name: str
) -> keras.Model:
    """Return a network whose last layer computes the probabilities.

    Args:
        image: input of the images.
        features: (N, D) computed from it.
        classes: number of classes.
        metadata: numbers of an image's encoded metadata, which join the features (late fusion); 0 for none.
        name: name of the network.
    """
    inputs: Sequence[keras.KerasTensor] = [image]
    if metadata:
        given = keras.Input((metadata,), name="metadata")
        hidden = layers.Dense(METADATA_UNITS, activation="relu", name=METADATA_LAYER)(given)
        features, inputs = layers.Concatenate()([features, hidden]), [image, given]
    probabilities = layers.Dense(classes, activation="softmax")(features)
    return keras.Model(inputs if metadata else image, probabilities, name=name)
