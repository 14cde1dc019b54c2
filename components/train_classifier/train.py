"""Train the CNN of one or several arms with one or several seeds, one after another.

Code and settings are the same for all arms; only the training rows differ. A classifier does not depend on which others
are trained in the same task.
"""

import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from sklearn.metrics import balanced_accuracy_score, log_loss

from components.shared import html_page, keras_setup, precision
from components.shared.batches import AUGMENTATIONS, endless_batches
from components.shared.dihedral import random_dihedral
from components.shared.errors import UserError
from components.shared.files import atomic_folder, file_sha256
from components.shared.image_set import Pixels, open_pixels, refuse_overlap, seen_hashes
from components.shared.log import Progress, log_line
from components.shared.records import ARMS, ClassifierRecord, DataClasses, load_record, write_record
from components.shared.seeds import derive_seed
from components.train_classifier import fused_ops, network
from components.train_classifier.fast_model import FastModel

BATCH_SIZE = 32


class _Validate(keras.callbacks.Callback):
    """Measure the network on the validation split after each epoch, and log progress."""

    def __init__(self, network_: keras.Model, pixels: Pixels, progress: Progress) -> None:
        super().__init__()
        self.network, self.pixels, self.progress = network_, pixels, progress

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        probabilities = keras_setup.predict_probabilities(self.network, self.pixels.images)
        labels = self.pixels.labels
        logs["val_loss"] = float(log_loss(labels, probabilities, labels=range(probabilities.shape[1])))
        logs["val_accuracy"] = float((probabilities.argmax(1) == labels).mean())
        # Accuracy alone would select weights that ignore the rare classes: it costs a dozen points of balanced
        # accuracy.
        logs["val_balanced_accuracy"] = float(balanced_accuracy_score(labels, probabilities.argmax(1)))
        self.progress.update(
            epoch + 1,
            f"loss {logs['loss']:.3f}, validation: loss {logs['val_loss']:.3f}, "
            f"balanced accuracy {logs['val_balanced_accuracy']:.3f}",
        )


def batches(
    pixels: Pixels, augmentation: str, order_seed: int, augmentation_seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (BATCH_SIZE, S, S, 3) uint8 images and (BATCH_SIZE,) labels without end."""
    rng = np.random.default_rng(augmentation_seed)
    for rows in endless_batches(pixels.repeat, BATCH_SIZE, order_seed):
        images = pixels.images[rows]
        if augmentation == "flips_and_rotations":
            images = random_dihedral(images, rng)
        yield images, pixels.labels[rows]


def repeat_counts(real: int, added: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of `real` images counts so that they count `real + added` times, as evenly as possible.

    Returns:
        (real,) int64, at least 1; `rng` decides which images count once more.
    """
    counts = np.full(real, 1 + added // real)
    counts[rng.permutation(real)[: added % real]] += 1
    return counts


def oversample(pixels: Pixels, rare: Sequence[str], added: int, seed: int) -> Pixels:
    """Return the images with repeats of the rare classes, so that each class counts `added` images more.

    Args:
        pixels: images of the training set.
        rare: the classes.
        added: number of synthetic images that the augmented arm has of each class.
        seed: seed of the run; decides which images count once more than others.
    """
    repeat = pixels.repeat.copy()
    for dx in rare:
        rows = np.flatnonzero(pixels.labels == pixels.header.classes.index(dx))
        rng = np.random.default_rng(derive_seed(seed, "oversampled", dx))
        repeat[rows] = repeat_counts(len(rows), added, rng)
    return replace(pixels, repeat=repeat)


def compile_fast_model(network_: keras.Sequential, policy: str) -> FastModel:
    """Return the training form of a network of `network.build`, to be fitted on `batches`.

    Args:
        network_: shares its weights.
        policy: name of the Keras precision policy, `float32` or `mixed_bfloat16`.
    """
    model = FastModel(network_, BATCH_SIZE, policy)
    model.compile(fused_ops.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def train(
    arms: Sequence[str],
    seeds: Sequence[int],
    first_seed: int | None,
    training_data: str | Path,
    synthetic_images: str | Path | None,
    synthetic_per_class: int,
    random_seed: int,
    epochs: int,
    augmentation: str,
    classifiers: str | Path,
) -> None:
    """Train one classifier per arm and seed, and keep the weights with the best balanced accuracy on validation.

    An epoch has as many steps as the *real* images fill, in every arm: all arms get the same number of steps.

    Args:
        arms: a subset of `ARMS`; `augmented` requires `synthetic_images`.
        seeds: seeds of weights, order, dropout and augmentation; the same for all arms.
        first_seed: the seed whose files have no seed in their names; None if it is not among `seeds`.
        training_data: folder that prepare_data wrote.
        synthetic_images: folder that balance_dataset wrote.
        synthetic_per_class: repeats that `oversampled` adds to each rare class.
        random_seed: seed of the run; decides which images are repeated.
        epochs: number of epochs of each classifier.
        augmentation: `none` or `flips_and_rotations`.
        classifiers: folder to write: `models/<arm>.keras`, `.json` (the record) and `.html` (learning curves) of the
            first seed, and `models/<arm>-seed<N>.*` of the others.

    Raises:
        UserError: a setting or an image set cannot be used.
    """
    _check(arms, seeds, epochs, augmentation)
    folder = Path(training_data)
    train_set, validation_set = folder / "train.parquet", folder / "validation.parquet"
    rare = load_record(folder / "classes.json", DataClasses).rare
    real_arms = [arm for arm in arms if arm != "augmented"]
    jobs = [(real_arms, [train_set])] if real_arms else []
    if "augmented" in arms:
        jobs.append((["augmented"], [train_set, *_find_synthetic_sets(synthetic_images)]))
    with atomic_folder(classifiers) as out:
        (out / "models").mkdir()
        for job_arms, sets in jobs:
            refuse_overlap(validation_set, "validation", sets)
            with open_pixels(sets, "train") as pixels, open_pixels(validation_set, "validation") as validation_pixels:
                if validation_pixels.header.split_sha256 != pixels.header.split_sha256:
                    raise UserError(
                        "the training and the validation set are from different splits",
                        "use both from one run",
                        "image_set.mixed",
                    )
                for arm, seed in itertools.product(job_arms, seeds):
                    stem = out / "models" / (arm if seed == first_seed else f"{arm}-seed{seed}")
                    rows = pixels
                    if arm == "oversampled":
                        rows = oversample(pixels, rare, synthetic_per_class, random_seed)
                    _train_classifier(arm, seed, rows, validation_pixels, epochs, augmentation, stem)


def _find_synthetic_sets(synthetic_images: str | Path | None) -> list[Path]:
    sets = sorted(Path(synthetic_images).glob("synthetic/*.parquet")) if synthetic_images else []
    if not sets:
        raise UserError(
            "the arm augmented has no synthetic images",
            "pass the output of balance_dataset as synthetic_images",
            "train_classifier.no_synthetic_images",
        )
    return sets


def _check(arms: Sequence[str], seeds: Sequence[int], epochs: int, augmentation: str) -> None:
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown or not arms:
        raise UserError(
            f"the arms are {', '.join(arms) or 'none'}",
            f"choose from {', '.join(ARMS)}",
            "train_classifier.unknown_arm",
        )
    if not seeds:
        raise UserError("classifier_seeds is empty", "pass at least one", "parameter.out_of_range", name="seeds")
    if epochs < 1:
        raise UserError(
            f"classifier_epochs is {epochs}", "choose 1 or more", "parameter.out_of_range", name="classifier_epochs"
        )
    if augmentation not in AUGMENTATIONS:
        raise UserError(
            f"classifier_augmentation is {augmentation!r}",
            f"choose from {', '.join(AUGMENTATIONS)}",
            "parameter.unknown_choice",
            name="classifier_augmentation",
        )


def _train_classifier(
    arm: str, seed: int, pixels: Pixels, validation_pixels: Pixels, epochs: int, augmentation: str, stem: Path
) -> None:
    """Train one classifier, and write its files; `stem` is their path without suffix."""
    label = f"train_classifier {arm}, seed {seed}"
    started = time.monotonic()
    keras_setup.seed_everything(derive_seed(seed, "train_classifier"))
    network_ = network.build(len(pixels.header.classes), pixels.header.image_size)
    policy = precision.policy("automatic")
    real = int(pixels.real.sum())
    steps = -(-real // BATCH_SIZE)
    log_line(label, f"{pixels.repeat.sum():,} images ({real:,} real), {steps} steps per epoch")
    progress = Progress(label, epochs, "epochs", steps * BATCH_SIZE, "images")
    # With the patience of all epochs, it only restores the best weights. Stopping earlier would be wrong for small
    # sets, whose batch statistics take many epochs to settle.
    keep_best = keras.callbacks.EarlyStopping(
        "val_balanced_accuracy", mode="max", patience=epochs, restore_best_weights=True
    )
    history = (
        compile_fast_model(network_, policy)
        .fit(
            batches(pixels, augmentation, derive_seed(seed, "order"), derive_seed(seed, "turns")),
            steps_per_epoch=steps,
            epochs=epochs,
            callbacks=[_Validate(network_, validation_pixels, progress), keep_best],
            verbose=0,
        )
        .history
    )
    model = stem.with_name(f"{stem.name}.keras")
    keras_setup.save_model(network_, model)
    record = {
        "arm": arm,
        "parameters": network_.count_params(),
        "model_sha256": file_sha256(model),
        "data_sha256": pixels.header.data_sha256,
        "split_sha256": pixels.header.split_sha256,
        "train_set_sha256": _hash_rows(pixels),
        "train_rows": int(pixels.repeat.sum()),
        "settings": {
            "epochs": epochs,
            "augmentation": augmentation,
            "seed": seed,
            "batch": BATCH_SIZE,
            "precision": policy,
        },
        "epochs": len(history["loss"]),
        "best_epoch": int(np.argmax(history["val_balanced_accuracy"])) + 1,
        "history": {name: [round(float(value), 6) for value in values] for name, values in history.items()},
        "versions": keras_setup.library_versions(),
        "seconds": round(time.monotonic() - started, 1),
        "seen": seen_hashes(pixels, validation_pixels),
    }
    write_record(stem.with_name(f"{stem.name}.json"), ClassifierRecord.model_validate_json(json.dumps(record)))
    page = _render_curves(f"Classifier: {arm}, seed {seed}", history)
    stem.with_name(f"{stem.name}.html").write_text(page, encoding="utf-8")


def _render_curves(title: str, history: Mapping[str, Sequence[float]]) -> str:
    epochs = range(1, len(history["loss"]) + 1)
    lines = {name: (epochs, history[name]) for name in ("loss", "val_loss", "val_balanced_accuracy")}
    return html_page.render(title, [html_page.line_chart(lines, "epoch", "")])


def _hash_rows(pixels: Pixels) -> str:
    """Return a hash of the training rows: pixels, labels and repeats, in order."""
    digest = hashlib.sha256()
    for pixel_hash, label, count in zip(pixels.pixel_sha256, pixels.labels, pixels.repeat, strict=True):
        digest.update(f"{pixel_hash} {label} {count}\n".encode())
    return digest.hexdigest()
