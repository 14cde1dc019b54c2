"""Phase 2 and 4: trains the CNN on one arm's training set. The same code and settings for all arms: only the data
differs.

Reads an arm's training set and the validation set. Writes the model with the best weights, a record of what made it,
and its curves.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.metrics import balanced_accuracy_score, log_loss

from components.shared import html_page, keras_setup, precision
from components.shared.batches import AUGMENTATIONS, endless_batches, random_dihedral
from components.shared.errors import UserError
from components.shared.files import file_sha256, write_text
from components.shared.image_set import Pixels, open_pixels, refuse_overlap, seen
from components.shared.log import Progress, log_line
from components.shared.seeds import derive_seed
from components.train_classifier import fused_ops, network
from components.train_classifier.fast_model import Twin

BATCH = 32


class _Validate(keras.callbacks.Callback):
    """Measures the network on the validation split after each epoch; says how far training is."""

    def __init__(self, network_: keras.Model, pixels: Pixels, progress: Progress) -> None:
        super().__init__()
        self.network, self.pixels, self.progress = network_, pixels, progress

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        chances = keras_setup.predict_probabilities(self.network, self.pixels.images)
        truth = self.pixels.labels
        logs["val_loss"] = float(log_loss(truth, chances, labels=range(chances.shape[1])))
        logs["val_accuracy"] = float((chances.argmax(1) == truth).mean())
        # Accuracy alone would choose weights that ignore the rare classes: it costs a dozen points of balanced
        # accuracy.
        logs["val_balanced_accuracy"] = float(balanced_accuracy_score(truth, chances.argmax(1)))
        self.progress.update(
            epoch + 1,
            f"loss {logs['loss']:.3f}, validation: loss {logs['val_loss']:.3f}, "
            f"balanced accuracy {logs['val_balanced_accuracy']:.3f}",
        )


def batches(
    pixels: Pixels, augmentation: str, order_seed: int, turn_seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(32, S, S, 3) uint8 images and (32,) labels without end."""
    rng = np.random.default_rng(turn_seed)
    for rows in endless_batches(pixels.repeat, BATCH, order_seed):
        images = pixels.images[rows]
        if augmentation == "flips_and_rotations":
            images = random_dihedral(images, rng)
        yield images, pixels.labels[rows]


def twin(network_: keras.Sequential, policy: str) -> Twin:
    """What trains a network of `network.build`: `fit` it on `batches`.

    Args:
        network_: gets the weights.
        policy: Keras' name of the precision, `float32` or `mixed_bfloat16`.
    """
    made = Twin(network_, BATCH, policy)
    made.compile(fused_ops.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return made


def train(
    arm: str,
    train_set: str | Path,
    validation_set: str | Path,
    epochs: int,
    patience: int,
    augmentation: str,
    seed: int,
    model: str | Path,
    record: str | Path,
    curves: str | Path,
) -> dict[str, float]:
    """Trains the CNN and keeps the weights with the best balanced accuracy on validation.

    An epoch is as many steps as the *real* training images fill, whatever the arm: all arms get the same number of
    steps.

    Args:
        arm: `baseline`, `oversampled` or `augmented`; the name in what is said and written.
        train_set, validation_set: image sets.
        epochs: at the most.
        patience: epochs without a better validation before training stops.
        augmentation: `none` or `flips_and_rotations`.
        seed: of weights, order, dropout and augmentation; the same for all arms.
        model, record, curves: where the `.keras` model, its JSON record and the HTML page go.

    Returns:
        Of the best epoch: val_balanced_accuracy, val_accuracy, val_loss, and the epoch (from 1).

    Raises:
        UserError: a setting or an image set can't be used.
    """
    if epochs < 1:
        raise UserError(f"classifier_epochs is {epochs}; choose 1 or more.")
    if patience < 1:
        raise UserError(f"classifier_patience is {patience}; choose 1 or more.")
    if augmentation not in AUGMENTATIONS:
        raise UserError(f"augmentation is {augmentation!r}; choose one of {', '.join(AUGMENTATIONS)}.")
    label = f"train_classifier {arm}"
    begun = time.monotonic()
    keras_setup.seed_everything(derive_seed(seed, "train_classifier"))
    refuse_overlap(validation_set, "validation", [train_set])
    with open_pixels(train_set, "train") as pixels, open_pixels(validation_set, "validation") as held_out:
        if held_out.header.split_sha256 != pixels.header.split_sha256:
            raise UserError("the training and the validation set are of different splits; take both from one run.")
        network_ = network.build(len(pixels.header.classes), pixels.header.image_size)
        policy = precision.policy("automatic")
        trained = twin(network_, policy)
        real = int(pixels.real.sum())
        steps = -(-real // BATCH)
        log_line(label, f"{pixels.repeat.sum():,} images ({real:,} real), {steps} steps an epoch")
        best = keras.callbacks.EarlyStopping(
            "val_balanced_accuracy", mode="max", patience=patience, restore_best_weights=True
        )
        history = trained.fit(
            batches(pixels, augmentation, derive_seed(seed, "order"), derive_seed(seed, "turns")),
            steps_per_epoch=steps,
            epochs=epochs,
            callbacks=[_Validate(network_, held_out, Progress(label, epochs, "epochs", steps * BATCH, "images")), best],
            verbose=0,
        ).history
        header, was_seen = pixels.header, seen(pixels, held_out)
        rows = int(pixels.repeat.sum())
    keras_setup.save_model(network_, model)
    best_epoch = int(np.argmax(history["val_balanced_accuracy"]))
    facts: dict[str, Any] = {
        "arm": arm,
        "parameters": network_.count_params(),
        "model_sha256": file_sha256(model),
        "data_sha256": header.data_sha256,
        "split_sha256": header.split_sha256,
        "train_set_sha256": file_sha256(train_set),
        "train_rows": rows,
        "settings": {
            "epochs": epochs,
            "patience": patience,
            "augmentation": augmentation,
            "seed": seed,
            "batch": BATCH,
            "precision": policy,
        },
        "epochs": len(history["loss"]),
        "best_epoch": best_epoch + 1,
        "history": {name: [round(float(v), 6) for v in values] for name, values in history.items()},
        "versions": keras_setup.library_versions(),
        "seconds": round(time.monotonic() - begun, 1),
        "seen": was_seen,
    }
    write_text(record, json.dumps(facts, indent=1))
    x = range(1, len(history["loss"]) + 1)
    chart = {name: (x, history[name]) for name in ("loss", "val_loss", "val_balanced_accuracy")}
    write_text(curves, html_page.render(f"Classifier, {arm}", [html_page.line_chart(chart, "epoch", "")]))
    names = ("val_balanced_accuracy", "val_accuracy", "val_loss")
    return {name: float(history[name][best_epoch]) for name in names} | {"best_epoch": best_epoch + 1}
