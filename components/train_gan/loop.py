"""The training loop: GANs of one architecture, one at a time or, where the backend supports it, as one batch."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from types import ModuleType
from typing import Any

import keras
import numpy as np
from pydantic import ValidationError

from components.shared import keras_setup, precision
from components.shared.batches import endless_batches
from components.shared.checkpoint import Checkpoints, DamagedError, pack, unpack
from components.shared.errors import UserError
from components.shared.features import Features
from components.shared.image_set import Pixels
from components.shared.log import Progress, log_line
from components.shared.records import StartDescription
from components.shared.sample_metrics import kid
from components.shared.seeds import derive_seed
from components.shared.storage import checkpoint_store
from components.train_gan import gradients
from components.train_gan.gan import GAN, Together
from components.train_gan.recipe import Recipe
from components.train_gan.state import History, capture_state, join_states, restore_state, split_states

BATCH_SIZE = 32
MAX_STEPS_PER_CALL = 16
"""Training is monitored between two calls."""
SNAPSHOTS = 8
GRID_IMAGES = 16
SNAPSHOT_IMAGES = 256
"""Samples from which the KID of a snapshot is computed; a multiple of `SAMPLING_BATCH`."""
MIN_VALIDATION_IMAGES = 100
"""With fewer, the training images are part of a snapshot's reference as well.

At 64 px, the standard deviation of the KID over the choice of 15 validation images is .13, as large as the differences
between snapshots. Copies of training images are found by the copy check, not by KID.
"""
MAX_REFERENCE_IMAGES = 2_000
"""Real images that snapshots are compared with: the time of a KID grows with the square of their number."""
CHECKPOINT_FORMAT = 8
"""Checkpoints of another format are rejected."""
MAX_SILENT_STEPS = 200
COLLAPSED_SPREAD = 0.1
"""Samples with a spread below this share of that of the real images and of earlier samples have collapsed."""
ROLLBACK_RATE = 0.5
"""Factor of the learning rate after a rollback."""
SETTLING_KIMG = 20.0
"""A training that ends before the networks have been shown as much, pretraining included, keeps its learning rate.

Until then, the images have no texture yet, and a smaller rate leaves them blurred.
"""
FINE_TUNING_RATE = 0.3
"""Factor of the learning rate for a GAN that starts from one that was shown `SETTLING_KIMG`."""
MAX_RESIDENT_BYTES = 4 * 2**30
"""Real images of at most this size stay in the GPU's memory."""


class DivergedError(RuntimeError):
    """Training diverged for the second time."""


def spread(images: np.ndarray) -> float:
    """Return the standard deviation over about a thousand images, mean over pixels, in [0, 128]."""
    return float(images[:: 1 + len(images) // 1024].std(axis=0, dtype=np.float64).mean())


def choose_reference(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows of at most `MAX_REFERENCE_IMAGES` random images, sorted; the largest classes lose images first.

    Args:
        labels: (N,) int, the class of each image; all classes have the same weight in the KID.
        seed: seed of the choice.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    place_in_class = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    return np.sort(order[np.argsort(place_in_class, kind="stable")[:MAX_REFERENCE_IMAGES]])


class Training:
    """The training of one GAN.

    Args:
        label: phase and class, for messages.
        architecture: its name.
        networks: the architecture's module.
        recipe: how it is trained.
        pixels, validation_pixels: real images to learn from, and those that snapshots are compared with.
        features: the feature extractor.
        kimg: training budget.
        seed: seed of weights, order, noise and augmentation.
        settings: all other values that the result depends on, as JSON values.
        checkpoints: folder of the run, or its address; empty for none.
        checkpoint_interval_s: seconds between two checkpoints; each snapshot writes one as well.
        start: result of `export_start` for another GAN; empty for random weights.

    Raises:
        UserError: a checkpoint or the start has other settings.
    """

    def __init__(
        self,
        label: str,
        architecture: str,
        networks: ModuleType,
        recipe: Recipe,
        pixels: Pixels,
        validation_pixels: Pixels,
        features: Features,
        kimg: float,
        seed: int,
        settings: dict[str, Any],
        checkpoints: str = "",
        checkpoint_interval_s: float = 300.0,
        start: bytes = b"",
    ) -> None:
        self.label, self.recipe, self.pixels, self.features, self.seed = label, recipe, pixels, features, seed
        self.checkpoint_interval_s, self.steps = checkpoint_interval_s, math.ceil(1000 * kimg / BATCH_SIZE)
        self._build(architecture, networks, start)
        self.rate = recipe.learning_rate * (FINE_TUNING_RATE if self.start_kimg >= SETTLING_KIMG else 1)
        self.final_rate = recipe.final_rate if self.start_kimg + kimg >= SETTLING_KIMG else 1.0

        self._set_reference(validation_pixels)
        self.real_spread, self._rng = spread(pixels.images), np.random.default_rng(seed)
        self.latent = self.gan.generator.input_shape[-1]
        self.grid_noise = self._rng.standard_normal((GRID_IMAGES, self.latent), np.float32)

        all_settings = {"kimg": kimg, "seed": seed, "recipe": asdict(recipe), "architecture": architecture} | settings
        all_settings |= {"format": CHECKPOINT_FORMAT, "backend": keras.backend.backend()}
        all_settings["image_size"] = pixels.header.image_size
        self.checkpoints = None
        if checkpoints:
            store = checkpoint_store(checkpoints, label.replace(" ", "-"))
            self.checkpoints = Checkpoints(store, all_settings, label)
        self._resume_or_start(kimg)

        # A snapshot is at the end of a call: a call of another length would be compiled separately.
        unit = MAX_STEPS_PER_CALL if self.steps >= SNAPSHOTS * MAX_STEPS_PER_CALL else 1
        ends = (math.ceil(self.steps * part / SNAPSHOTS / unit) * unit for part in range(1, SNAPSHOTS + 1))
        self.snapshot_steps = {min(end, self.steps) for end in ends}
        self._seek(self.history.step)
        done = self.history.step * BATCH_SIZE / 1000
        self.progress = Progress(label, self.steps * BATCH_SIZE / 1000, "kimg", 1000, "images", before=done)
        self.saved_at = time.monotonic()

    def _build(self, architecture: str, networks: ModuleType, start: bytes) -> None:
        """Create the GAN. Its networks are the first to use the seed, so nothing else changes their weights."""
        recipe, image_size = self.recipe, self.pixels.header.image_size
        keras_setup.seed_everything(self.seed)
        self.policy = precision.policy(recipe.precision)
        keras.config.set_dtype_policy(self.policy)
        generator, discriminator = networks.generator(image_size), networks.discriminator(image_size)
        self.gan = GAN(generator, discriminator, recipe, self.seed, batch_independent=networks.BATCH_INDEPENDENT)
        keras.config.set_dtype_policy("float32")
        rates = recipe.learning_rate, recipe.beta_1, recipe.beta_2
        self.gan.compile(*(keras.optimizers.Adam(*rates) for _ in range(2)))
        self.start_kimg = load_start(self.gan, start, architecture, self.pixels, self.label) if start else 0.0

    def _set_reference(self, validation_pixels: Pixels) -> None:
        """Set the features of the real images that snapshots are compared with."""
        held_out, learned = validation_pixels.images, self.pixels.images
        self.few = len(held_out) < MIN_VALIDATION_IMAGES
        # A GAN of several classes is shown each of them equally often.
        labels = np.concatenate([validation_pixels.labels, self.pixels.labels])
        rows = choose_reference(labels if self.few else labels[: len(held_out)], derive_seed(self.seed, "reference"))
        self.validation_count = int((rows < len(held_out)).sum())
        if len(rows) == 1:  # KID requires two images
            rows = np.repeat(rows, 2)
        values = []
        for part in np.split(rows, range(keras_setup.PREDICTION_BATCH, len(rows), keras_setup.PREDICTION_BATCH)):
            of_learned = part[part >= len(held_out)] - len(held_out)
            images = np.concatenate([held_out[part[part < len(held_out)]], learned[of_learned]])
            values.append(self.features(images))
        self.real_features, self.real_labels = np.concatenate(values), labels[rows]

    def noise(self) -> Iterator[np.ndarray]:
        """Yield the noise of a snapshot in batches, always the same; all of it would take 360 MB at 512 px."""
        rng = copy.deepcopy(self._rng)
        for _ in range(SNAPSHOT_IMAGES // keras_setup.SAMPLING_BATCH):
            yield rng.standard_normal((keras_setup.SAMPLING_BATCH, self.latent), np.float32)

    def _resume_or_start(self, kimg: float) -> None:
        saved = self.checkpoints.load() if self.checkpoints else None
        if not saved:
            self.gan.refresh_statistics(self.noise())
            first = keras_setup.sample_images(self.gan.sampler, self.grid_noise)
            self.history = History(grid_kimg=[0.0], grids=[first], spread=spread(first), precision=[self.policy])
            self.good = capture_state(self.gan, self.history)
            count = len(self.pixels.images)
            log_line(self.label, f"{count:,} real images, {kimg:g} kimg in {self.steps:,} steps")
            return
        try:
            current, self.good = split_states(saved)
            self.history = restore_state(self.gan, current)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self.label}: the checkpoint does not belong to this GAN",
                "delete it",
                "checkpoint.invalid",
                label=self.label,
            ) from error
        if self.policy not in self.history.precision:
            self.history.precision.append(self.policy)
            log_line(self.label, f"warning: resuming in {self.policy}; earlier steps used another precision")
        done = self.history.step * BATCH_SIZE / 1000
        log_line(self.label, f"resuming at {done:,.1f} of {kimg:g} kimg")

    def _seek(self, step: int) -> None:
        self.order = islice(endless_batches(self.pixels.repeat, BATCH_SIZE, self.seed), step, None)

    def count_next_steps(self) -> int:
        """Return the number of steps until the next call of `monitor`."""
        step = self.history.step
        call_end = (step // MAX_STEPS_PER_CALL + 1) * MAX_STEPS_PER_CALL
        return min([end for end in self.snapshot_steps if end > step] + [call_end]) - step

    def next_rows(self, count: int) -> np.ndarray:
        """Return the images of the next steps: (count, BATCH_SIZE) int."""
        return np.stack(list(islice(self.order, count)))

    def set_learning_rate(self) -> None:
        """Set the learning rate of the next call; it decays along a cosine to the recipe's final share."""
        final = self.final_rate
        share = final + (1 - final) * (1 + math.cos(math.pi * self.history.step / self.steps)) / 2
        rate = self.rate * share * (ROLLBACK_RATE if self.history.rolled_back_kimg is not None else 1)
        for optimizer in (self.gan.generator_optimizer, self.gan.discriminator_optimizer):
            optimizer.learning_rate = rate

    def monitor(self, count: int, seconds: float) -> None:
        """Check for divergence, log progress, and write snapshots and checkpoints.

        Args:
            count: steps taken since the last call.
            seconds: duration of these steps.

        Raises:
            DivergedError: training diverged for the second time.
        """
        gan, history = self.gan, self.history
        before, started = history.step, time.monotonic()
        history.step += count
        done, is_snapshot = history.step * BATCH_SIZE / 1000, history.step in self.snapshot_steps
        images = self._sample_snapshot() if is_snapshot and np.asarray(gan.finite) else None
        if fault := self._find_fault(images):
            self._roll_back(done, fault)
            return
        losses = {name: float(value) for name, value in gan.get_metrics_result().items()}
        g_loss, d_loss = losses["generator_loss"], losses["discriminator_loss"]
        self.progress.update(done, f"loss generator {g_loss:.2f}, discriminator {d_loss:.2f}")
        if history.step * 100 // self.steps > before * 100 // self.steps:
            history.losses.append((done, g_loss, d_loss))
            gan.reset_metrics()
        if images is not None:
            history.spread = max(history.spread, spread(images))
            history.grid_kimg.append(done)
            history.grids.append(keras_setup.sample_images(gan.sampler, self.grid_noise))
            value = kid(self.real_features, self.features(images), self.real_labels)
            if not history.kid or value < min(value for _, value in history.kid):
                history.best, history.best_kimg = gan.sampler.get_weights(), done
            history.kid.append((done, value))
        history.seconds += seconds + time.monotonic() - started
        # While the discriminator is silent, the state may already be bad, so it is not used for a rollback.
        is_good = is_snapshot and not int(gan.silent_steps)
        if is_good:
            self.good = capture_state(gan, history)
        if self.checkpoints and (is_snapshot or time.monotonic() - self.saved_at >= self.checkpoint_interval_s):
            self.checkpoints.save(*join_states(self.good if is_good else capture_state(gan, history), self.good))
            self.saved_at = time.monotonic()

    def _sample_snapshot(self) -> np.ndarray:
        self.gan.settle()
        self.gan.refresh_statistics(self.noise())
        return np.concatenate([keras_setup.sample_images(self.gan.sampler, batch) for batch in self.noise()])

    def _find_fault(self, images: np.ndarray | None) -> str:
        """Return why training has diverged; empty if it has not."""
        if not np.asarray(self.gan.finite):
            return "a loss is not finite"
        if int(self.gan.silent_steps) >= MAX_SILENT_STEPS:
            return f"the discriminator's loss was zero for {MAX_SILENT_STEPS} steps"
        if images is not None:
            if not all(np.isfinite(variable).all() for variable in self.gan.state):
                return "a weight is not finite"
            if spread(images) < COLLAPSED_SPREAD * min(self.real_spread, self.history.spread):
                return "all samples are equal"
        return ""

    def _roll_back(self, done: float, fault: str) -> None:
        if self.history.rolled_back_kimg is not None:
            raise DivergedError(f"{self.label}: diverged after {done:.1f} kimg, for the second time: {fault}")
        self.history = restore_state(self.gan, self.good)
        self.history.rolled_back_kimg = done
        self.good = capture_state(self.gan, self.history)
        back = self.history.step * BATCH_SIZE / 1000
        log_line(
            self.label,
            f"warning: diverged after {done:.1f} kimg ({fault}); rolling back to {back:.1f} kimg with half the "
            "learning rate",
        )
        self._seek(self.history.step)


def run(trainings: Sequence[Training], fail: Callable[[Training, Exception], None]) -> None:
    """Run trainings until each has finished or failed.

    Args:
        trainings: they have the same architecture and recipe.
        fail: called with an error in one training; unless it raises, the others continue. An error in steps that are
            computed together counts for each of them.
    """
    if not trainings:
        return
    failed: set[int] = set()
    together: dict[tuple[int, ...], Together] = {}
    resident: dict[int, Any] = {}
    max_images = max(len(training.pixels.images) for training in trainings)
    image_bytes = len(trainings) * max_images * trainings[0].pixels.images[0].nbytes
    is_resident = precision.has_gpu() and image_bytes <= MAX_RESIDENT_BYTES
    while active := [t for t in trainings if t.history.step < t.steps and id(t) not in failed]:
        # Trainings at the same step are computed together; after a rollback or a kill some are behind.
        step = min(training.history.step for training in active)
        group = [t for t in active if t.history.step == step][: None if gradients.BATCHES else 1]
        started, key = time.monotonic(), tuple(id(training) for training in group)
        if key not in together:
            together = {key: Together([training.gan for training in group])}
        count = min(training.count_next_steps() for training in group)
        rows = [training.next_rows(count) for training in group]
        if is_resident:
            for training in group:
                if id(training) not in resident:
                    missing = max_images - len(training.pixels.images)
                    padded = np.pad(training.pixels.images, ((0, missing), (0, 0), (0, 0), (0, 0)))
                    resident[id(training)] = keras.ops.convert_to_tensor(padded)
            images = [resident[id(training)] for training in group]
        else:
            images = [t.pixels.images[its_rows.ravel()] for t, its_rows in zip(group, rows, strict=True)]
            rows = [np.arange(its_rows.size).reshape(its_rows.shape) for its_rows in rows]
        try:
            for training in group:
                training.set_learning_rate()
            together[key].advance(images, rows, step)
        except Exception as error:
            failed |= set(key)
            for training in group:
                fail(training, error)
            continue
        seconds = (time.monotonic() - started) / len(group)
        for training in group:
            try:
                training.monitor(count, seconds)
            except Exception as error:
                failed.add(id(training))
                fail(training, error)


def export_start(training: Training, architecture: str) -> bytes:
    """Return the starting point for other GANs of the same architecture: a `StartDescription`, and the weights.

    It contains the weights of both networks and of the moving average, which fine-tuning continues.
    """
    header = training.pixels.header
    description = StartDescription(
        architecture=architecture,
        kimg=training.steps * BATCH_SIZE / 1000,
        split_sha256=header.split_sha256,
        image_size=header.image_size,
    )
    weights = {f"{i:04d}": np.array(variable) for i, variable in enumerate(_start_weights(training.gan))}
    return pack(description.model_dump(), weights)


def _start_weights(gan: GAN) -> list[Any]:
    return [*gan.generator.weights, *gan.discriminator.weights, *gan.sampler.weights]


def load_start(gan: GAN, start: bytes, architecture: str, pixels: Pixels, label: str) -> float:
    """Load the weights of a starting point into a GAN.

    Returns:
        The budget that they were trained for, in kimg.

    Raises:
        UserError: they belong to another architecture, image size or split, or are corrupt.
    """
    try:
        state, arrays = unpack(start)
        description = StartDescription.model_validate(state)
    except (DamagedError, ValidationError) as error:
        raise UserError(
            f"{label}: the output of pretrain_gan is corrupt", "re-create it", "train_gan.corrupt_start", label=label
        ) from error
    given = (description.architecture, description.split_sha256, description.image_size)
    if given != (architecture, pixels.header.split_sha256, pixels.header.image_size):
        raise UserError(
            f"{label}: the output of pretrain_gan has another architecture, image size or split",
            "use the output of this run",
            "train_gan.other_start",
            label=label,
        )
    for variable, name in zip(_start_weights(gan), sorted(arrays), strict=True):
        variable.assign(arrays[name])
    gan.images_before.assign(round(1000 * description.kimg))
    return description.kimg


def load_best(training: Training) -> keras.Model:
    """Return the generator of the snapshot with the lowest KID."""
    training.gan.sampler.set_weights(training.history.best)
    return training.gan.sampler


def describe_training(training: Training, architecture: str) -> dict[str, Any]:
    """Return the record of a finished training, as JSON values."""
    history, gan, header = training.history, training.gan, training.pixels.header
    return {
        "architecture": architecture,
        "recipe": asdict(training.recipe),
        "latent": training.latent,
        "kimg": training.steps * BATCH_SIZE / 1000,
        "start_kimg": training.start_kimg,
        "best_kimg": history.best_kimg,
        "real_images": len(training.pixels.images),
        "parameters": {"generator": gan.generator.count_params(), "discriminator": gan.discriminator.count_params()},
        "classes": list(header.classes),
        "image_size": header.image_size,
        "data_sha256": header.data_sha256,
        "split_sha256": header.split_sha256,
        "precision": ", then ".join(history.precision),
        "rolled_back_kimg": history.rolled_back_kimg,
        "losses": {
            "kimg": [k for k, _, _ in history.losses],
            "generator": [g for _, g, _ in history.losses],
            "discriminator": [d for *_, d in history.losses],
        },
        "kid": {
            "kimg": [k for k, _ in history.kid],
            "value": [value for _, value in history.kid],
            "against": "validation and training" if training.few else "validation",
            "images": {"validation": training.validation_count, "synthetic": SNAPSHOT_IMAGES},
        },
        "versions": keras_setup.library_versions(),
        "seconds": round(history.seconds, 1),
    }
