"""The training loop: GANs of one architecture on their way, one at a time or, where the backend can, as one batch."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import islice
from types import ModuleType
from typing import Any

import keras
import numpy as np

from components.shared import keras_setup, precision
from components.shared.batches import endless_batches
from components.shared.checkpoint import Checkpoints, unpack
from components.shared.errors import UserError
from components.shared.image_set import Pixels
from components.shared.log import Progress, log_line
from components.shared.sample_metrics import ENOUGH, Features, kid
from components.shared.storage import checkpoint_store
from components.train_gan import gradients
from components.train_gan.gan import GAN, Together
from components.train_gan.recipe import Recipe
from components.train_gan.state import History, captured, joined, parted, restored

BATCH = 32
STEPS = 16
"""So many are taken in one call at the most; between two calls training can be looked after."""
SNAPSHOTS = 8
GRID = 16
JUDGED = 256
"""Images that a snapshot's KID is measured on."""
FORMAT = 3
"""Of checkpoints: another number makes those of older code unusable."""
SILENT_STEPS = 200
COLLAPSED = 0.1
"""Samples that vary less than this share of the real images, and of what they varied before, have collapsed."""
SLOWER = 0.5
"""What the learning rate is multiplied with after a rollback."""
RESIDENT_BYTES = 4 * 2**30
"""Real images that take no more than this lie on the GPU as a whole."""


class DivergedError(RuntimeError):
    """Training diverged for the second time."""


def spread(images: np.ndarray) -> float:
    """How much images vary: the standard deviation over at most about a thousand of them, mean over the pixels, in
    [0, 128]."""
    return float(images[:: 1 + len(images) // 1024].std(axis=0, dtype=np.float64).mean())


class Training:
    """One GAN on its way.

    Args:
        label: phase, and class, for what is said.
        architecture: its name.
        nets: the architecture's module.
        recipe: how it is trained.
        pixels, held_out: real images to learn from, and those of the validation split to compare snapshots with.
        features: the ruler.
        kimg: the budget.
        seed: of weights, order, noise and augmentation.
        settings: all else that decides the result, as JSON values.
        checkpoints: folder or gs:// address of the run; empty for none.
        every_s: seconds between two checkpoints; there is one at each snapshot as well.
        start: what `start_of` gave of another GAN to begin from; empty for a cold start.

    Raises:
        UserError: a checkpoint or the start is of other settings.
    """

    def __init__(
        self,
        label: str,
        architecture: str,
        nets: ModuleType,
        recipe: Recipe,
        pixels: Pixels,
        held_out: Pixels,
        features: Features,
        kimg: float,
        seed: int,
        settings: dict[str, Any],
        checkpoints: str = "",
        every_s: float = 300.0,
        start: bytes = b"",
    ) -> None:
        self.label, self.recipe, self.pixels, self.features, self.seed = label, recipe, pixels, features, seed
        self.every_s, self.steps = every_s, math.ceil(1000 * kimg / BATCH)
        image_size = pixels.header.image_size

        # Networks. They are the first to draw from the seed, so that nothing else changes their weights.
        keras_setup.seed_everything(seed)
        self.policy = precision.policy(recipe.precision)
        keras.config.set_dtype_policy(self.policy)
        networks = nets.generator(image_size), nets.discriminator(image_size)
        self.gan = GAN(*networks, recipe, seed, alone=nets.ALONE)
        keras.config.set_dtype_policy("float32")
        self.gan.compile(*(keras.optimizers.Adam(recipe.learning_rate, recipe.beta_1, recipe.beta_2) for _ in "GD"))
        self.start_kimg = begin(self.gan, start, architecture, pixels, label) if start else 0.0

        # What snapshots are compared with.
        self.few = len(held_out.images) < ENOUGH
        reference = np.concatenate([held_out.images, pixels.images]) if self.few else np.asarray(held_out.images)
        reference = np.repeat(reference, 1 + (len(reference) == 1), axis=0)  # KID wants two at the least
        self.real_features, self.real_spread = features(reference), spread(pixels.images)
        rng, latent = np.random.default_rng(seed), self.gan.generator.input_shape[-1]
        self.grid_noise, self.noise = (rng.standard_normal((n, latent), np.float32) for n in (GRID, JUDGED))

        # Resume, or begin.
        whole = {"kimg": kimg, "seed": seed, "recipe": asdict(recipe), "architecture": architecture} | settings
        whole |= {"format": FORMAT, "backend": keras.backend.backend(), "image_size": image_size}
        self.kept = None
        if checkpoints:
            self.kept = Checkpoints(checkpoint_store(checkpoints, label.replace(" ", "-")), whole, label)
        found = self.kept.load() if self.kept else None
        if found:
            try:
                now, self.good = parted(found)
                self.history = restored(self.gan, now)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(f"{label}: its checkpoint does not hold this GAN's training; delete it.") from error
            if self.policy not in self.history.precision:
                self.history.precision.append(self.policy)
                log_line(
                    label, f"warning: goes on in {self.policy} on this machine; was trained in other precision before"
                )
            log_line(label, f"goes on after {self.history.step * BATCH / 1000:,.1f} of {kimg:g} kimg")
        else:
            first = keras_setup.sample_images(self.gan.sampler, self.grid_noise)
            self.history = History(grid_kimg=[0.0], grids=[first], spread=spread(first), precision=[self.policy])
            self.good = captured(self.gan, self.history)
            log_line(label, f"{len(pixels.images):,} real images, {kimg:g} kimg in {self.steps:,} steps")
        # At the end of a call, or each would be a program of its own to compile.
        unit = STEPS if self.steps >= SNAPSHOTS * STEPS else 1
        marks = (math.ceil(self.steps * part / SNAPSHOTS / unit) * unit for part in range(1, SNAPSHOTS + 1))
        self.marks = {min(mark, self.steps) for mark in marks}
        self._order_from(self.history.step)
        done = self.history.step * BATCH / 1000
        self.said = Progress(label, self.steps * BATCH / 1000, "kimg", 1000, "images", before=done)
        self.saved = time.monotonic()

    def _order_from(self, step: int) -> None:
        self.order = islice(endless_batches(self.pixels.repeat, BATCH, self.seed), step, None)

    def stretch(self) -> int:
        """How many steps until it is to be looked after."""
        step = self.history.step
        return min([mark for mark in self.marks if mark > step] + [(step // STEPS + 1) * STEPS]) - step

    def rows(self, count: int) -> np.ndarray:
        """(count, BATCH) int: the next steps' images."""
        return np.stack(list(islice(self.order, count)))

    def look_after(self, count: int, seconds: float) -> None:
        """What is to be done after some steps: divergence, status line, snapshot, checkpoint.

        Args:
            count: how many steps were taken.
            seconds: that they took of the process's time.

        Raises:
            DivergedError: for the second time.
        """
        gan, history = self.gan, self.history
        before, begun = history.step, time.monotonic()
        history.step += count
        done, mark = history.step * BATCH / 1000, history.step in self.marks
        fault = ""
        if not np.asarray(gan.finite):
            fault = "a loss is not a number"
        elif int(gan.silent_steps) >= SILENT_STEPS:
            fault = f"the discriminator's loss was zero for {SILENT_STEPS} steps"
        elif mark:
            gan.settle()
            images = keras_setup.sample_images(gan.sampler, self.noise)
            if not all(np.isfinite(variable).all() for variable in gan.state):
                fault = "a weight is not a number"
            elif spread(images) < COLLAPSED * min(self.real_spread, history.spread):
                fault = "the samples are all the same"
            history.spread = max(history.spread, spread(images))
        if fault:
            self._roll_back(done, fault)
            return
        losses = {name: float(value) for name, value in gan.get_metrics_result().items()}
        g_loss, d_loss = losses["generator_loss"], losses["discriminator_loss"]
        self.said.update(done, f"loss generator {g_loss:.2f}, discriminator {d_loss:.2f}")
        if history.step * 100 // self.steps > before * 100 // self.steps:
            history.losses.append((done, g_loss, d_loss))
            gan.reset_metrics()
        if mark:
            history.grid_kimg.append(done)
            history.grids.append(keras_setup.sample_images(gan.sampler, self.grid_noise))
            value = kid(self.real_features, self.features(images))
            if not history.kid or value < min(value for _, value in history.kid):
                history.best, history.best_kimg = gan.sampler.get_weights(), done
            history.kid.append((done, value))
        history.seconds += seconds + time.monotonic() - begun
        good = mark and not int(gan.silent_steps)  # else it may lie within a silence that is not long enough yet
        if good:
            self.good = captured(gan, history)
        if self.kept and (mark or time.monotonic() - self.saved >= self.every_s):
            self.kept.save(*joined(self.good if good else captured(gan, history), self.good))
            self.saved = time.monotonic()

    def _roll_back(self, done: float, fault: str) -> None:
        if self.history.rolled_back_kimg is not None:
            raise DivergedError(f"{self.label}: diverged after {done:.1f} kimg, for the second time: {fault}")
        self.history = restored(self.gan, self.good)
        self.history.rolled_back_kimg = done
        for optimizer in (self.gan.generator_optimizer, self.gan.discriminator_optimizer):
            optimizer.learning_rate = self.recipe.learning_rate * SLOWER
        self.good = captured(self.gan, self.history)
        back = self.history.step * BATCH / 1000
        log_line(self.label, f"warning: diverged after {done:.1f} kimg ({fault}); back to {back:.1f} kimg, more slowly")
        self._order_from(self.history.step)


def run(trainings: Sequence[Training], failed: Callable[[Training, Exception], None]) -> None:
    """Trains to the end.

    Args:
        trainings: of the same architecture and recipe.
        failed: told of an error in one; what it does not raise again, the others go on without. An error in a step of
            several that are computed together is one in each of them.
    """
    if not trainings:
        return
    lost: set[int] = set()
    gpu, together, resident = precision.has_gpu(), {}, {}
    most = max(len(training.pixels.images) for training in trainings)
    gpu = gpu and len(trainings) * most * trainings[0].pixels.images[0].nbytes <= RESIDENT_BYTES
    while left := [t for t in trainings if t.history.step < t.steps and id(t) not in lost]:
        # Those that are at the same step go together: after a rollback or a kill some are behind.
        step = min(training.history.step for training in left)
        group = [training for training in left if training.history.step == step][: None if gradients.BATCHES else 1]
        begun, key = time.monotonic(), tuple(id(training) for training in group)
        if key not in together:
            together = {key: Together([training.gan for training in group])}
        count = min(training.stretch() for training in group)
        rows = [training.rows(count) for training in group]
        if gpu:
            for training in group:
                if id(training) not in resident:
                    missing = most - len(training.pixels.images)
                    whole = np.pad(training.pixels.images, ((0, missing), (0, 0), (0, 0), (0, 0)))
                    resident[id(training)] = keras.ops.convert_to_tensor(whole)
            images = [resident[id(training)] for training in group]
        else:
            images = [t.pixels.images[own.ravel()] for t, own in zip(group, rows, strict=True)]
            rows = [np.arange(own.size).reshape(own.shape) for own in rows]
        try:
            together[key].advance(images, rows, step)
        except Exception as error:
            lost |= set(key)
            for training in group:
                failed(training, error)
            continue
        seconds = (time.monotonic() - begun) / len(group)
        for training in group:
            try:
                training.look_after(count, seconds)
            except Exception as error:
                lost.add(id(training))
                failed(training, error)


def start_of(training: Training, architecture: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What another GAN of the same architecture can begin from: facts, and the weights of both networks."""
    header = training.pixels.header
    facts: dict[str, Any] = {
        "architecture": architecture,
        "kimg": training.steps * BATCH / 1000,
        "split_sha256": header.split_sha256,
    }
    facts["image_size"] = header.image_size
    return facts, {f"{i:04d}": np.array(variable) for i, variable in enumerate(_weights(training.gan))}


def _weights(gan: GAN) -> list[Any]:
    return [*gan.generator.weights, *gan.discriminator.weights]


def begin(gan: GAN, start: bytes, architecture: str, pixels: Pixels, label: str) -> float:
    """Puts the weights of a start into a GAN.

    Returns:
        The kimg that they were trained for.

    Raises:
        UserError: they are not of this architecture, image size and split, or damaged.
    """
    wanted: dict[str, Any] = {"architecture": architecture, "split_sha256": pixels.header.split_sha256}
    wanted["image_size"] = pixels.header.image_size
    try:
        facts, arrays = unpack(start)
        kimg = float(facts["kimg"])
        fits = {key: facts.get(key) for key in wanted} == wanted
    except Exception as error:
        raise UserError(f"{label}: the start from shared_pretraining is damaged; make it anew.") from error
    if not fits:
        raise UserError(f"{label}: the start is not of this run's architecture, image size and split; make it anew.")
    for variable, name in zip(_weights(gan), sorted(arrays), strict=True):
        variable.assign(arrays[name])
    gan.sampler.set_weights(gan.generator.get_weights())
    return kimg


def best(training: Training) -> keras.Model:
    """The generator of the snapshot with the lowest KID."""
    training.gan.sampler.set_weights(training.history.best)
    return training.gan.sampler


def facts_of(training: Training, architecture: str, held: int) -> dict[str, Any]:
    """What a record says of a training that has ended: JSON values."""
    history, gan, header = training.history, training.gan, training.pixels.header
    return {
        "architecture": architecture,
        "recipe": asdict(training.recipe),
        "latent": gan.generator.input_shape[-1],
        "kimg": training.steps * BATCH / 1000,
        "start_kimg": training.start_kimg,
        "best_kimg": history.best_kimg,
        "real_images": len(training.pixels.images),
        "parameters": {"generator": gan.generator.count_params(), "discriminator": gan.discriminator.count_params()},
        "classes": header.classes,
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
            "images": {"validation": held, "synthetic": JUDGED},
        },
        "versions": keras_setup.library_versions(),
        "seconds": round(history.seconds, 1),
    }
