"""The training loop of the original system, as in its notebook and TensorFlow's DCGAN tutorial.

It uses float32, two tapes, and one `tf.function` per step. The networks are separate from the product's, so a change of
those does not change the reference.
"""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

BATCH, LATENT = 32, 100


def generator(image_size: int) -> keras.Model:
    """Build the generator, from (N, 100) to (N, S, S, 3) in [-1, 1]."""
    side = image_size // 16
    model = keras.Sequential(
        [
            keras.Input((LATENT,)),
            layers.Dense(side * side * 256, use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(),
            layers.Reshape((side, side, 256)),
        ]
    )
    for filters in (128, 64, 32):
        model.add(layers.Conv2DTranspose(filters, (5, 5), strides=(2, 2), padding="same", use_bias=False))
        model.add(layers.BatchNormalization())
        model.add(layers.LeakyReLU())
    model.add(layers.Conv2DTranspose(3, (5, 5), strides=(2, 2), padding="same", use_bias=False, activation="tanh"))
    return model


def discriminator(image_size: int) -> keras.Model:
    """Build the discriminator, from (N, S, S, 3) in [-1, 1] to (N, 1) logits."""
    model = keras.Sequential([keras.Input((image_size, image_size, 3))])
    for filters in (64, 128, 256):
        model.add(layers.Conv2D(filters, (5, 5), strides=(2, 2), padding="same"))
        model.add(layers.LeakyReLU())
        model.add(layers.Dropout(0.3))
    model.add(layers.Flatten())
    model.add(layers.Dense(1))
    return model


def gan(image_size: int, images: np.ndarray, steps: int = 1) -> Callable[[], float]:
    """Build the original's step.

    Args:
        image_size: S.
        images: (N, S, S, 3) uint8 to train on.
        steps: in a call.
    """
    import tensorflow as tf

    generator_, discriminator_ = generator(image_size), discriminator(image_size)
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    generator_optimizer, discriminator_optimizer = keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4)
    scaled = ((images.astype(np.float32) - 127.5) / 127.5).astype(np.float32)
    batches = iter(
        tf.data.Dataset.from_tensor_slices(scaled).shuffle(len(scaled)).repeat().batch(BATCH, drop_remainder=True)
    )

    @tf.function
    def train_step(real: tf.Tensor) -> None:
        noise = tf.random.normal([BATCH, LATENT])
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            fake = generator_(noise, training=True)
            real_output, fake_output = discriminator_(real, training=True), discriminator_(fake, training=True)
            generator_loss = entropy(tf.ones_like(fake_output), fake_output)
            discriminator_loss = entropy(tf.ones_like(real_output), real_output)
            discriminator_loss += entropy(tf.zeros_like(fake_output), fake_output)
        of_generator = generator_tape.gradient(generator_loss, generator_.trainable_variables)
        of_discriminator = discriminator_tape.gradient(discriminator_loss, discriminator_.trainable_variables)
        generator_optimizer.apply_gradients(zip(of_generator, generator_.trainable_variables, strict=True))
        discriminator_optimizer.apply_gradients(zip(of_discriminator, discriminator_.trainable_variables, strict=True))

    def work() -> float:
        for _ in range(steps):
            train_step(next(batches))
        generator_.trainable_variables[0].numpy()
        return steps * BATCH

    return work


def classifier_network(classes: int, image_size: int) -> keras.Model:
    """Build the CNN, from (N, S, S, 3) in [-1, 1] to (N, classes) probabilities."""
    model = keras.Sequential([keras.Input((image_size, image_size, 3))])
    for filters, dropout in ((32, 0.25), (64, 0.3), (128, 0.4)):
        model.add(layers.Conv2D(filters, (3, 3), padding="same"))
        model.add(layers.BatchNormalization())
        model.add(layers.Activation("relu"))
        model.add(layers.MaxPooling2D((2, 2)))
        model.add(layers.Dropout(dropout))
    model.add(layers.Flatten())
    model.add(layers.Dense(512))
    model.add(layers.BatchNormalization())
    model.add(layers.Activation("relu"))
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(classes, activation="softmax"))
    return model


def classifier(image_size: int, images: np.ndarray, labels: np.ndarray, steps: int = 8) -> Callable[[], float]:
    """Build a plain Keras `fit` of arrays in memory.

    Args:
        image_size: S.
        images: (N, S, S, 3) uint8.
        labels: (N,) integers.
        steps: in a call.
    """
    model = classifier_network(int(labels.max()) + 1, image_size)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    take = np.arange(steps * BATCH) % len(images)
    x, y = (images[take].astype(np.float32) - 127.5) / 127.5, labels[take]
    x = x.astype(np.float32)

    def work() -> float:
        model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
        return len(x)

    return work
