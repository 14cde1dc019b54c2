"""Train the network of arms with seeds, on a CPU several at a time (`workers.py`).

Code and settings are the same for all arms; they differ in their recipes only (`components/shared/arms.py`). All
classifiers of a task share the decoded images, and none depends on which others are trained in the same task, except
for rounding: its sums depend on the number of threads. A killed task resumes from checkpoints (`resume.py`).
"""

import hashlib
import json
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
from sklearn.metrics import balanced_accuracy_score, log_loss

from components.shared import html_page, keras_setup, patient_metadata, precision
from components.shared.arms import CONTROL, LATE_FUSION, Recipe, Use, recipe
from components.shared.batch_statistics import recompute_statistics
from components.shared.batches import endless_batches
from components.shared.dihedral import random_dihedral, skip_dihedral
from components.shared.errors import UserError
from components.shared.files import atomic_folder, file_sha256
from components.shared.image_set import Pixels, open_pixels, refuse_overlap, seen_hashes
from components.shared.initial_weights import NONE, parse_weights
from components.shared.log import Progress, log_line
from components.shared.parameters import check
from components.shared.processes import run_all
from components.shared.records import ClassifierRecord, DataClasses, load_record, write_record
from components.shared.seeds import derive_seed
from components.shared.workflow_size import Job
from components.train_classifier import fused_ops, networks
from components.train_classifier.encoded_metadata import EncodedMetadata, encode_sets
from components.train_classifier.fast_model import FastModel
from components.train_classifier.plain_model import PlainModel
from components.train_classifier.resume import CHECKPOINT_INTERVAL_S, Resume, open_checkpoints
from components.train_classifier.strong_augmentation import strong_augmentation
from components.train_classifier.weights_file import open_weights
from components.train_classifier.workers import count_workers

BATCH_SIZE = 32
CNN = "cnn"
"""The network that has a faster training form; see `fast_model.py`."""
MAX_VALIDATIONS, STEPS_PER_VALIDATION = 5, 64
"""Validation is measured at most so often, and in a short training less often: it takes as long as some 25 steps, and
only shows progress, because the weights are those of the last epoch."""
STATISTICS_BATCHES = 32
"""Batches of training images from which the batch statistics of a network are computed."""


Inputs = np.ndarray | tuple[np.ndarray, np.ndarray]
"""(BATCH_SIZE, S, S, 3) uint8 images; with (BATCH_SIZE, D) float32 metadata if the network takes them."""


class _Validate(keras.callbacks.Callback):
    """Log progress, recompute the batch statistics of the network and measure it on the validation split.

    The running statistics are those of activations with dropout; with few steps per epoch, they also lag far behind.

    Args:
        network_: the plain network.
        pixels: the validation images.
        metadata: their encoded metadata; None for a network of images alone.
        examples: returns, for an epoch, the batches of inputs from which batch statistics are computed; one is in
            memory at a time.
        progress: of the training.
        epochs, steps: number of epochs, and of steps in each.
    """

    def __init__(
        self,
        network_: keras.Model,
        pixels: Pixels,
        metadata: np.ndarray | None,
        examples: Callable[[int], Iterator[Inputs]],
        progress: Progress,
        epochs: int,
        steps: int,
    ) -> None:
        super().__init__()
        self.network, self.pixels, self.metadata = network_, pixels, metadata
        self.examples, self.progress = examples, progress
        self.validated_epochs = validated_epochs(epochs, steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        text = f"loss {logs['loss']:.3f}"
        if epoch + 1 in self.validated_epochs:
            recompute_statistics(self.network, self.examples(epoch))
            probabilities = keras_setup.predict_probabilities(self.network, self.pixels.images, self.metadata)
            labels = self.pixels.labels
            logs["val_loss"] = float(log_loss(labels, probabilities, labels=range(probabilities.shape[1])))
            logs["val_accuracy"] = float((probabilities.argmax(1) == labels).mean())
            logs["val_balanced_accuracy"] = float(balanced_accuracy_score(labels, probabilities.argmax(1)))
            text += f", validation: loss {logs['val_loss']:.3f}, balanced accuracy {logs['val_balanced_accuracy']:.3f}"
        self.progress.update(epoch + 1, text)


def validated_epochs(epochs: int, steps: int) -> list[int]:
    """Return the epochs after which validation is measured, from 1; the last one is among them.

    Args:
        epochs: number of epochs.
        steps: number of steps of an epoch.
    """
    count = max(1, min(MAX_VALIDATIONS, epochs * steps // STEPS_PER_VALIDATION))
    return sorted({-(-epochs * part // count) for part in range(1, count + 1)})


def batches(
    pixels: Pixels,
    order_seed: int,
    augmentation_seed: int,
    weights: np.ndarray | None = None,
    strong: bool = False,
    skipped: int = 0,
    metadata: EncodedMetadata | None = None,
    smoothing: np.ndarray | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Yield `Inputs` and (BATCH_SIZE,) labels without end.

    Args:
        pixels: the rows; each counts `repeat` times.
        order_seed, augmentation_seed: seeds.
        weights: (N,) loss weights of the rows; if given, a batch has a third part, the weight of each image.
        strong: whether `strong_augmentation` changes the images as well.
        skipped: number of first batches to skip.
        metadata: of the rows; None for a network of images alone.
        smoothing: (N,) label smoothing of the rows; if given, labels are (BATCH_SIZE, classes) float32 probabilities.
    """
    rng = np.random.default_rng(augmentation_seed)
    show = metadata.shower(augmentation_seed, skipped * BATCH_SIZE) if metadata else None
    for _ in range(skipped):
        skip_dihedral(BATCH_SIZE, rng)
    change = strong_augmentation(augmentation_seed, skipped) if strong else None
    for rows in islice(endless_batches(pixels.repeat, BATCH_SIZE, order_seed), skipped, None):
        images, labels = random_dihedral(pixels.images[rows], rng), pixels.labels[rows]
        if change:
            images = change(images)
        if smoothing is not None:
            labels = smooth_labels(labels, smoothing[rows], len(pixels.header.classes))
        inputs = (images, show(rows)) if show else images
        yield (inputs, labels) if weights is None else (inputs, labels, weights[rows])


def repeat_counts(real: int, added: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of `real` images counts so that they count `real + added` times, as evenly as possible.

    Returns:
        (real,) int64, at least 1; `rng` decides which images count once more.
    """
    counts = np.full(real, 1 + added // real)
    counts[rng.permutation(real)[: added % real]] += 1
    return counts


def count_rows(pixels: Pixels, recipe: Recipe, rare: Sequence[str], added: int, seed: int) -> np.ndarray:
    """Return how often each row counts in a pass of training with a recipe.

    Args:
        pixels: all real images of the training set, and synthetic ones if the recipe uses any; of each class the
            synthetic images come in the order in which they were generated.
        recipe: recipe of the arm.
        rare: the classes that get additional images.
        added: number of additional images of each class, if the recipe adds any; a class with fewer synthetic images
            gets repeats for the missing ones.
        seed: seed of the run; decides which images count once more than others.

    Returns:
        (N,) int64; 0 for a synthetic image that the recipe does not use.
    """
    counts = pixels.real.astype(np.int64)
    largest = int(np.bincount(pixels.labels[pixels.real]).max())
    replaced = recipe.synthetic_share if recipe.synthetic_scope == "rare" else 0.0
    for label, dx in enumerate(pixels.header.classes):
        real = np.flatnonzero(pixels.real & (pixels.labels == label))
        synthetic = np.flatnonzero((pixels.source == recipe.source) & (pixels.labels == label))
        rng = np.random.default_rng(derive_seed(seed, CONTROL, dx))
        if recipe.balanced and len(real):
            counts[real] = repeat_counts(len(real), largest - len(real), rng)
        elif recipe.adds and dx in rare and len(real):
            # Rounded up: an arm with a small share still has an image, and differs from the control.
            used = synthetic[: math.ceil(replaced * added - 1e-9)]
            counts[used] = 1
            counts[real] = repeat_counts(len(real), added - len(used), rng)
    if recipe.synthetic_scope == "all" and recipe.synthetic_share:
        add_to_every_class(pixels, counts, recipe.source, recipe.synthetic_share)
    return counts


def add_to_every_class(pixels: Pixels, counts: np.ndarray, source: str, share: float) -> None:
    """Add synthetic images of every class to the counts of rows, as a share of the images of each class.

    The relative sizes of the classes remain, and among the real images nothing changes. "Looks synthetic" then does not
    indicate a class. A class without enough synthetic images shows them several times, the first ones most often.

    Args:
        pixels: real and synthetic images.
        counts: (N,) how often the real images count.
        source: source of the synthetic images.
        share: their share of the images of each class, below 1.
    """
    for label in range(len(pixels.header.classes)):
        of_class = pixels.labels == label
        synthetic = np.flatnonzero((pixels.source == source) & of_class)
        needed = math.ceil(counts[of_class].sum() * share / (1 - share) - 1e-9)
        if len(synthetic):
            counts[synthetic] = needed // len(synthetic)
            counts[synthetic[: needed % len(synthetic)]] += 1
        elif needed:
            real = np.flatnonzero(pixels.real & of_class)
            counts[real] += repeat_counts(len(real), needed, np.random.default_rng(label)) - 1


@dataclass(frozen=True)
class Stage:
    """Consecutive epochs of a training that use the same rows.

    Attributes:
        first_epoch: the first of them, from 0; the last stage has no end.
        pixels: the training images; each counts `repeat` times.
        weights: (N,) float32 loss weights; None if all rows have the same.
        smoothing: (N,) float32 label smoothing; None if no row has any.
    """

    first_epoch: int
    pixels: Pixels
    weights: np.ndarray | None
    smoothing: np.ndarray | None


def plan_stages(
    pixels: Pixels, its_recipe: Recipe, rare: Sequence[str], added: int, seed: int, epochs: int
) -> list[Stage]:
    """Return the stages of a training with a recipe.

    After `synthetic_until`, the rows are those of the control. Since order and augmentation follow from the number of
    steps, its batches are the control's, too.

    Args:
        pixels, rare, added, seed: as in `count_rows`.
        its_recipe: recipe of the arm.
        epochs: number of epochs.
    """
    recipes = {0: its_recipe, its_recipe.mixed_epochs(epochs): replace(its_recipe, synthetic_share=0.0)}
    stages = []
    for first, of_stage in recipes.items():
        if first < epochs:
            counts = count_rows(pixels, of_stage, rare, added, seed)
            weights = row_weights(pixels, counts, of_stage)
            smoothing = row_smoothing(pixels, counts, of_stage)
            stages.append(Stage(first, replace(pixels, repeat=counts), weights, smoothing))
    return stages


def staged_batches(
    stages: Sequence[Stage],
    steps: int,
    first_epoch: int,
    order_seed: int,
    augmentation_seed: int,
    strong: bool = False,
    metadata: EncodedMetadata | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Yield the batches of a training without end, from an epoch on.

    Args:
        stages: from `plan_stages`.
        steps: number of steps of an epoch.
        first_epoch: the epoch, from 0.
        order_seed, augmentation_seed, strong, metadata: as in `batches`.
    """
    for stage, following in zip_longest(stages, stages[1:]):
        start, end = max(stage.first_epoch, first_epoch), following.first_epoch if following else None
        if end is None or start < end:
            seeds, skipped = (order_seed, augmentation_seed), start * steps
            endless = batches(stage.pixels, *seeds, stage.weights, strong, skipped, metadata, stage.smoothing)
            yield from islice(endless, None if end is None else (end - start) * steps)


def class_weights(labels: np.ndarray, counts: np.ndarray, classes: int) -> np.ndarray:
    """Return (classes,) float32 loss weights, inversely proportional to each class's size; their mean over rows is 1.

    Args:
        labels: (N,) int.
        counts: (N,) how often each row counts.
        classes: number of classes; a class without rows has the weight 0.
    """
    sizes = np.bincount(labels, counts, classes)
    present = sizes > 0
    return np.where(present, sizes.sum() / (present.sum() * np.maximum(sizes, 1)), 0).astype(np.float32)


def row_weights(pixels: Pixels, counts: np.ndarray, its_recipe: Recipe) -> np.ndarray | None:
    """Return (N,) float32 loss weights of the rows, whose mean over a pass is 1; None if all are equal.

    Before they are scaled, a synthetic image has the weight `synthetic_weight`, and so has each additional occurrence
    of a real image beside its first one, which has 1. All occurrences of an image have their mean. With
    synthetic images of every class, that of a synthetic image is relative to the mean of the real ones of its class.

    Args:
        pixels: the rows.
        counts: (N,) how often each row counts.
        its_recipe: recipe of the arm.
    """
    if its_recipe.class_weights:
        return class_weights(pixels.labels, counts, len(pixels.header.classes))[pixels.labels]
    weight = its_recipe.synthetic_weight
    if weight == 1:
        return None
    weights = np.where(pixels.real, (1 + weight * (counts - 1)) / np.maximum(counts, 1), weight)
    if its_recipe.synthetic_scope == "all":
        for of_class in (pixels.labels == label for label in np.unique(pixels.labels)):
            real = pixels.real & of_class
            weights[of_class & ~pixels.real] *= np.average(weights[real], weights=counts[real])
    return (weights / np.average(weights, weights=counts)).astype(np.float32)


def row_smoothing(pixels: Pixels, counts: np.ndarray, its_recipe: Recipe) -> np.ndarray | None:
    """Return (N,) float32 label smoothing of the rows in [0, 1); None if the recipe has none.

    A synthetic image has `synthetic_smoothing`, and so has each additional occurrence of a real image beside its first
    one, which has 0. All occurrences of an image have their mean, weighted as in the loss.

    Args:
        pixels: the rows.
        counts: (N,) how often each row counts.
        its_recipe: recipe of the arm.
    """
    if its_recipe.synthetic_smoothing == 0:
        return None
    added = its_recipe.synthetic_weight * np.maximum(counts - 1, 0)
    additional = np.where(pixels.real, added / (1 + added), 1)
    return (its_recipe.synthetic_smoothing * additional).astype(np.float32)


def smooth_labels(labels: np.ndarray, smoothing: np.ndarray, classes: int) -> np.ndarray:
    """Return (N, classes) float32 label probabilities (Szegedy et al. 2016, arXiv 1512.00567).

    Args:
        labels: (N,) int.
        smoothing: (N,) the part of each label that is spread equally over all classes.
        classes: number of classes.

    Example:
        >>> smooth_labels(np.array([1]), np.array([0.5]), 2).tolist()
        [[0.25, 0.75]]
    """
    spread = smoothing[:, None].astype(np.float32)
    return (1 - spread) * np.eye(classes, dtype=np.float32)[labels] + spread / np.float32(classes)


def log_frequencies(labels: np.ndarray, counts: np.ndarray, classes: int) -> np.ndarray:
    """Return (classes,) float32 logarithms of the classes' frequencies among the rows; at least those of one row."""
    sizes = np.maximum(np.bincount(labels, counts, classes), 1)
    return np.log(sizes / sizes.sum()).astype(np.float32)


def compile_model(
    network_: keras.Model,
    policy: str,
    logit_offset: np.ndarray | None = None,
    steps: int | None = None,
    smooth: bool = False,
    name: str = CNN,
) -> keras.Model:
    """Return the training form of a network, to be fitted on `batches`.

    Args:
        network_: shares its weights.
        policy: name of the Keras precision policy of `cnn`, `float32` or `mixed_bfloat16`.
        logit_offset: (classes,), is added to the logits in training only.
        steps: number of steps of the training, over which the learning rate falls along a cosine (Loshchilov & Hutter,
            arXiv 1608.03983); None for a constant rate.
        smooth: whether labels are probabilities, from `smooth_labels`, instead of integers.
        name: of the network; see `networks`.
    """
    is_cnn, rate = name == CNN, networks.load(name).LEARNING_RATE
    model = FastModel(network_, BATCH_SIZE, policy, logit_offset) if is_cnn else PlainModel(network_, logit_offset)
    loss = keras.losses.CategoricalCrossentropy if smooth else keras.losses.SparseCategoricalCrossentropy
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps) if steps else rate
    model.compile(fused_ops.Adam(schedule), loss(from_logits=True))
    return model


def train(
    jobs: Sequence[Job],
    training_data: str | Path,
    synthetic_images: str | Path | None,
    synthetic_per_class: int,
    random_seed: int,
    epochs: int,
    classifiers: str | Path,
    checkpoints: str = "",
    checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S,
    metadata: str = "none",
    classifier: str = CNN,
    weights: str = NONE,
    use: Use = Use(),  # noqa: B008 (immutable)
    workers: int = 0,
) -> None:
    """Train classifiers; the weights of the last epoch are kept, with recomputed batch statistics.

    An epoch has as many steps as the *real* images fill, in every arm: all arms get the same number of steps.
    Validation images choose nothing here.

    Args:
        jobs: arm and seed of each classifier; the seed is that of weights, order, dropout and augmentation.
        training_data: folder that prepare_data wrote.
        synthetic_images: folder that balance_dataset wrote; arms with synthetic images require it.
        synthetic_per_class: images that arms such as `oversampled` add to each rare class.
        random_seed: seed of the run; decides which images are repeated.
        epochs: number of epochs of each classifier.
        classifiers: folder to write: `models/<arm>.keras`, `.json` (the record) and `.html` (learning curves) of the
            first seed, and `models/<arm>-seed<N>.*` of the others.
        checkpoints: folder or address for the checkpoints of the run; empty for none.
        checkpoint_interval_s: an epoch that ends at least this many seconds after the last checkpoint writes one; a
            finished classifier writes one, too.
        metadata: the option of this name: `late_fusion` if the classifiers of all arms get metadata of the patient.
        classifier: name of the network, the same in all arms; see `networks`.
        weights: the option of this name: the file from which the body of the network starts, in all arms.
        use: how the arms use synthetic images.
        workers: number of classifiers that are trained at a time; 0 for as many as `count_workers` returns.

    Raises:
        UserError: a setting or an image set cannot be used, the images have no metadata that a classifier requires, or
            the checkpoints have other settings.
    """
    check({"classifier_epochs": epochs})
    for job in jobs:
        recipe(job.arm)
    folder = Path(training_data)
    train_set, validation_set = folder / "train.parquet", folder / "validation.parquet"
    rare = load_record(folder / "classes.json", DataClasses).rare
    sets = [train_set]
    if any(recipe(job.arm).synthetic_share for job in jobs):
        sets += _find_synthetic_sets(synthetic_images)
    with atomic_folder(classifiers) as out, tempfile.TemporaryDirectory(prefix="counterweight-") as scratch:
        (out / "models").mkdir()
        start = parse_weights(weights)
        network = Network(
            classifier, start.sha256 if start else None, open_weights(start, Path(scratch)) if start else None
        )
        refuse_overlap(validation_set, "validation", sets)
        with open_pixels(sets, "train") as pool, open_pixels(validation_set, "validation") as validation_pixels:
            if validation_pixels.header.split_sha256 != pool.header.split_sha256:
                raise UserError(
                    "the training and the validation set are from different splits",
                    "use both from one run",
                    "image_set.mixed",
                )
            with_metadata = {job.arm for job in jobs if metadata == LATE_FUSION or recipe(job.arm).metadata}
            encoded = encode_sets(pool, validation_pixels, random_seed) if with_metadata else None
            calls = []
            for job in jobs:
                its_recipe = recipe(job.arm, use)
                stages = plan_stages(pool, its_recipe, rare, synthetic_per_class, random_seed, epochs)
                stem = out / "models" / (job.arm if job.first else f"{job.arm}-seed{job.seed}")
                data = TrainingData(stages, validation_pixels, encoded if job.arm in with_metadata else None)
                arguments = job, its_recipe, data, network, epochs, stem, checkpoints, checkpoint_interval_s
                calls.append(partial(_train_classifier, *arguments))
            run_all(calls, workers or count_workers(len(jobs), classifier == CNN, pool.header.image_size))


def _find_synthetic_sets(synthetic_images: str | Path | None) -> list[Path]:
    sets = sorted(Path(synthetic_images).glob("synthetic/**/*.parquet")) if synthetic_images else []
    if not sets:
        raise UserError(
            "there are no synthetic images to train with",
            "pass the output of balance_dataset as synthetic_images",
            "train_classifier.no_synthetic_images",
        )
    return sets


@dataclass(frozen=True)
class Network:
    """The network of all classifiers.

    Attributes:
        name: its name; see `networks`.
        weights_sha256: hash of the file that its body starts from; None for random weights.
        weights: the file.
    """

    name: str
    weights_sha256: str | None = None
    weights: Path | None = None

    def build(self, classes: int, image_size: int, metadata: int) -> keras.Model:
        """Return a new network; arguments as in `networks`.

        Raises:
            UserError: `weights.do_not_fit`.
        """
        module = networks.load(self.name)
        if self.weights is None:
            return cast(keras.Model, module.build(classes, image_size, metadata))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Keras names each layer without weights
                model = cast(keras.Model, module.build(classes, image_size, metadata, self.weights))
            if not all(np.isfinite(values).all() for values in model.get_weights()):
                raise ValueError("some are not finite")
        except (ValueError, KeyError, TypeError, OSError, AttributeError) as error:
            raise UserError(
                f"the weights do not fit the network {self.name}: {str(error).strip().partition(chr(10))[0][:200]}",
                f"give the weights of the body of {self.name}, without its top, as keras.applications saves them",
                "weights.do_not_fit",
                classifier=self.name,
            ) from error
        return model


@dataclass(frozen=True)
class TrainingData:
    """What one classifier is trained and validated on.

    Attributes:
        stages: the training images of its epochs.
        validation: the validation images.
        metadata: of both; None for a network of images alone.
    """

    stages: list[Stage]
    validation: Pixels
    metadata: EncodedMetadata | None


def _train_classifier(
    job: Job,
    its_recipe: Recipe,
    data: TrainingData,
    network: Network,
    epochs: int,
    stem: Path,
    checkpoints: str,
    checkpoint_interval_s: float,
) -> None:
    """Train one classifier, and write its files; `stem` is their path without suffix."""
    arm, seed, pixels = job.arm, job.seed, data.stages[0].pixels
    classes, encoding = len(pixels.header.classes), data.metadata.encoding if data.metadata else None
    label = f"train_classifier {arm}, seed {seed}"
    description = {
        "data_sha256": pixels.header.data_sha256,
        "split_sha256": pixels.header.split_sha256,
        "train_set_sha256": _hash_rows(data),
    }
    settings = description | {"network": network.name, "epochs": epochs, "batch": BATCH_SIZE}
    settings |= {"recipe": asdict(its_recipe), "weights": network.weights_sha256}
    policy = precision.policy("automatic" if network.name == CNN else "float32")
    kept = open_checkpoints(checkpoints, arm, seed, policy, settings, label)
    keras_setup.seed_everything(derive_seed(seed, "train_classifier"))
    width = len(patient_metadata.inputs(encoding)) if encoding else 0
    network_ = network.build(classes, pixels.header.image_size, width)
    real = int(pixels.real.sum())
    steps = -(-real // BATCH_SIZE)
    log_line(label, f"{pixels.repeat.sum():,} images ({real:,} real), {steps} steps per epoch")
    for stage in data.stages[1:]:
        log_line(label, f"only repeats from epoch {stage.first_epoch + 1} on")
    offset = log_frequencies(pixels.labels, pixels.repeat, classes) if its_recipe.logit_adjustment else None
    model = compile_model(network_, policy, offset, epochs * steps, its_recipe.synthetic_smoothing > 0, network.name)
    resume = Resume(kept, checkpoint_interval_s, label, epochs, network_, model)
    if not resume.is_finished:
        _fit(model, job.seed, its_recipe, data, steps, resume)
        resume.finish()
    record = description | {"arm": arm, "train_rows": int(pixels.repeat.sum())}
    trained = {"network": network.name, "epochs": epochs, "seed": seed, "batch": BATCH_SIZE, "precision": policy}
    trained["weights_sha256"] = network.weights_sha256
    record["settings"] = trained
    record["validated_epochs"] = validated_epochs(epochs, steps)
    record["real_views"] = round(steps * BATCH_SIZE * _real_epochs(data.stages, epochs) / real, 2)
    record |= {"seconds": round(resume.seconds, 1), "seen": seen_hashes(pixels, data.validation)}
    record["metadata"] = encoding.model_dump() if encoding else None
    record |= {"synthetic_until": its_recipe.synthetic_until, "synthetic_weight": its_recipe.synthetic_weight}
    record["synthetic_smoothing"] = its_recipe.synthetic_smoothing
    record["synthetic_scope"] = its_recipe.synthetic_scope
    _write_classifier(stem, network_, record, resume.history)


def _real_epochs(stages: Sequence[Stage], epochs: int) -> float:
    """Return the number of epochs, each multiplied by the share of real images in it."""
    ends = [*(stage.first_epoch for stage in stages[1:]), epochs]
    shares = [stage.pixels.repeat[stage.pixels.real].sum() / stage.pixels.repeat.sum() for stage in stages]
    return float(sum((end - it.first_epoch) * share for it, end, share in zip(stages, ends, shares, strict=True)))


def _fit(model: keras.Model, seed: int, its_recipe: Recipe, data: TrainingData, steps: int, resume: Resume) -> None:
    """Train a network in its training form, from the epoch that earlier processes have reached."""
    stages, metadata = data.stages, data.metadata
    seeds = derive_seed(seed, "order"), derive_seed(seed, "turns")
    progress = Progress(resume.label, resume.epochs, "epochs", steps * BATCH_SIZE, "images", before=resume.epoch)
    order, turns = (derive_seed(it, "statistics") for it in seeds)

    def examples(epoch: int) -> Iterator[Inputs]:  # without strong augmentation, as in prediction
        rows = [stage.pixels for stage in stages if stage.first_epoch <= epoch][-1]
        return (inputs for inputs, _ in islice(batches(rows, order, turns, metadata=metadata), STATISTICS_BATCHES))

    validation = metadata.validation if metadata else None
    validate = _Validate(resume.network, data.validation, validation, examples, progress, resume.epochs, steps)
    model.fit(
        staged_batches(stages, steps, resume.epoch, *seeds, its_recipe.strong_augmentation, metadata),
        steps_per_epoch=steps,
        initial_epoch=resume.epoch,
        epochs=resume.epochs,
        callbacks=[validate, resume],
        verbose=0,
    )


def _write_classifier(
    stem: Path, network_: keras.Model, record: dict[str, Any], history: Mapping[str, Sequence[float]]
) -> None:
    """Write the model, its record and its learning curves; the values that follow from them are added to the record."""
    model = stem.with_name(f"{stem.name}.keras")
    keras_setup.save_model(network_, model)
    record |= {
        "parameters": network_.count_params(),
        "model_sha256": file_sha256(model),
        "epochs": len(history["loss"]),
        "history": {name: [round(float(value), 6) for value in values] for name, values in history.items()},
        "versions": keras_setup.library_versions(),
    }
    write_record(stem.with_name(f"{stem.name}.json"), ClassifierRecord.model_validate_json(json.dumps(record)))
    title = f"Classifier: {record['arm']}, seed {record['settings']['seed']}"
    page = _render_curves(title, history, record["validated_epochs"])
    stem.with_name(f"{stem.name}.html").write_text(page, encoding="utf-8")


def _render_curves(title: str, history: Mapping[str, Sequence[float]], validated: Sequence[int]) -> str:
    epochs = range(1, len(history["loss"]) + 1)
    lines: dict[str, Any] = {"loss": (epochs, history["loss"])}
    lines |= {name: (validated, history[name]) for name in ("val_loss", "val_balanced_accuracy")}
    return html_page.render(title, [html_page.line_chart(lines, "epoch", "")])


def _hash_rows(data: TrainingData) -> str:
    """Return a hash of the training rows: pixels, labels and repeats, in order, and metadata if the network has any.

    The rows of a later stage follow, after a line with its first epoch.
    """
    digest = hashlib.sha256()
    for stage in data.stages:
        digest.update(f"{stage.first_epoch}\n".encode() if stage.first_epoch else b"")
        pixels = stage.pixels
        for row, (pixel_hash, label, count) in enumerate(
            zip(pixels.pixel_sha256, pixels.labels, pixels.repeat, strict=True)
        ):
            if not count:
                continue
            digest.update(f"{pixel_hash} {label} {count}\n".encode())
            if data.metadata:
                digest.update(data.metadata.training[row].tobytes())
    return digest.hexdigest()
