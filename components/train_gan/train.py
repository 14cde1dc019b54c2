"""Phase 3: trains one class's GAN on that class's real training images.

Reads the training and the validation set. Writes the generator of its best moment, a record of what made it, and a page
on which a person sees it learn. Killed at any moment and started again with the same folder for checkpoints, it goes on
and ends with the same bytes.
"""

import base64
import io
import json
import math
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from components.shared import keras_run, page, precision
from components.shared.batches import endless_batches, flip_and_turn
from components.shared.checkpoint import Checkpoints, Folder
from components.shared.errors import UserError, as_user_error, printable
from components.shared.files import all_written_whole, file_sha256, write_text
from components.shared.image_set import Pixels, decoded, read_header, read_rows, seen
from components.shared.progress import Progress, say
from components.shared.seeds import seed_of
from components.train_gan import architectures, augment, quality
from components.train_gan.gan import GAN, to_pixels
from components.train_gan.history import History, captured, joined, parted, restored
from components.train_gan.recipe import Recipe

BATCH = 32
SNAPSHOTS = 8
GRID = 16
STRIPS, STRIP = 5, 5
STRIP_BYTES = 7_500
"""A strip of samples in the record, in base64: five of them stay below 40 kB."""
JUDGED = 256
"""Images that a snapshot's KID is measured on."""
FORMAT = 1
"""Of checkpoints: another number makes those of older code unusable."""
SILENT = 1e-3
"""A discriminator's loss below this is zero: it has won, and the generator learns nothing from it any more."""
SILENT_STEPS = 200
COLLAPSED = 0.1
"""Samples that vary less than this share of the real images, and of what they varied before, have collapsed."""
SLOWER = 0.5
"""What the learning rate is multiplied with after a rollback."""


def _drawn(generator: keras.Model, noise: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) uint8 images of (N, latent) noise; black where the generator gives no numbers."""
    parts = [noise[start : start + 64] for start in range(0, len(noise), 64)]
    return np.concatenate([to_pixels(np.nan_to_num(generator.predict_on_batch(part), nan=-1.0)) for part in parts])


def _spread(images: np.ndarray) -> float:
    """How much images vary: the standard deviation over the images, mean over the pixels, in [0, 128]."""
    return float(images.std(axis=0, dtype=np.float64).mean())


def _shown(pixels: Pixels, recipe: Recipe, latent: int, seed: int, done: int) -> Iterator[tuple[Any, Any, Any]]:
    """What each step is given, from the one after the first `done`: real images, noise, and the augmentation's draws.

    All of it depends on the seed and the step's number alone, so that training can go on from anywhere.
    """
    noise, draws = keras.random.SeedGenerator(seed), keras.random.SeedGenerator(seed_of(seed, "augment"))
    for step, rows in enumerate(islice(endless_batches(pixels.repeat, BATCH, seed), done, None), start=done):
        noise.state.assign([seed, step])
        draws.state.assign([seed_of(seed, "augment"), step])
        real = pixels.images[rows]
        yield (
            flip_and_turn(real, np.random.default_rng([seed, step])) if recipe.turns else real,
            keras.random.normal((BATCH, latent), seed=noise),
            keras.random.uniform((2, BATCH, augment.DRAWS), seed=draws),
        )


def strip(images: np.ndarray) -> str:
    """The first samples side by side, small enough for a record: base64 of a JPEG of at most `STRIP_BYTES`.

    Args:
        images: (N, S, S, 3) uint8.
    """
    whole = Image.fromarray(page.contact_sheet(images[:STRIP], STRIP))
    text = ""
    for side, level in ((64, 85), (64, 70), (64, 50), (48, 50), (32, 50)):
        small = whole.copy()
        small.thumbnail((STRIP * side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=level)
        text = base64.b64encode(buffer.getvalue()).decode()
        if len(text) <= STRIP_BYTES:
            break
    return text


def train_or_tell(
    dx: str, train_set: str | Path, record: str | Path, progress_page: str | Path, failed_class: str, **settings: Any
) -> dict[str, float]:
    """`train`, and what becomes of the run if it fails.

    Args:
        dx, train_set, record, progress_page: as in `train`.
        failed_class: `fail`, and the error goes on; or `continue`, and the record and the page say `failed` and why,
            the generator is an empty file, and the run goes on without this class.
        settings: the other arguments of `train`.

    Raises:
        UserError: `failed_class` is neither, or the mistake is in what all classes share.
    """
    if failed_class not in ("fail", "continue"):
        raise UserError(f"failed_class is {failed_class!r}; choose fail or continue.")
    try:
        return train(dx=dx, train_set=train_set, record=record, progress_page=progress_page, **settings)
    except Exception as error:
        # A wrong setting or a full disk is nothing that befell this class alone.
        if failed_class == "fail" or as_user_error(error):
            raise
        traceback.print_exc()
        header = read_header(train_set)
        reason = printable(f"{type(error).__name__}: {error}")[:500]
        say(f"train_gan {dx}", f"failed, and the run goes on without this class ({reason})")
        facts = {"dx": dx, "failed": reason, "architecture": settings["architecture"], "classes": header.classes}
        facts |= {key: getattr(header, key) for key in ("image_size", "data_sha256", "split_sha256")}
        with all_written_whole(settings["generator"], record, progress_page) as (_, record_part, page_part):
            record_part.write_text(json.dumps(facts, indent=1), encoding="utf-8")
            page_part.write_text(page.render(f"GAN of {dx}", [f"Failed: {reason}"]), encoding="utf-8")
        return {}


def train(
    dx: str,
    train_set: str | Path,
    architecture: str,
    kimg: float,
    seed: int,
    generator: str | Path,
    record: str | Path,
    progress_page: str | Path,
    validation_set: str | Path,
    checkpoints: str = "",
    checkpoint_every_s: float = 300.0,
    recipe: Recipe | None = None,
) -> dict[str, float]:
    """Trains a GAN for a budget, and keeps the generator of the snapshot with the lowest KID.

    Training that diverges (a loss is not a number; the discriminator's loss stays at zero; the samples become all the
    same) goes back to the last snapshot once, with half the learning rate.

    Args:
        dx: the class.
        train_set: image set of the split `train`.
        architecture: see `architectures`.
        kimg: the budget, in thousand real images shown.
        seed: of weights, order and noise; each class has its own below it.
        generator, record, progress_page: where the `.keras` model, its JSON record and the HTML page go.
        validation_set: image set of the split `validation`: snapshots are compared with its images of the class.
        checkpoints: folder of the run for them, all classes' together; empty for none.
        checkpoint_every_s: seconds between two checkpoints; there is one at each snapshot as well.
        recipe: another than the architecture's own.

    Returns:
        generator_loss and discriminator_loss at the end; kid and best_kimg of the snapshot that was kept.

    Raises:
        UserError: a setting, the class or an image set can't be used, or the checkpoints are of other settings.
        RuntimeError: training diverged a second time.
    """
    if not 0 < kimg < math.inf:
        raise UserError(f"gan_kimg is {kimg}; choose a budget above 0.")
    nets = architectures.load(architecture)
    recipe = recipe or nets.RECIPE
    header = read_header(train_set)
    if dx not in set(read_rows(train_set, "train", ["dx"])["dx"]):
        raise UserError(f"there is no training image of the class {dx}; choose a class that the data has.")
    if read_header(validation_set).split_sha256 != header.split_sha256:
        raise UserError("the training and the validation set are of different splits; take both from one run.")
    label = f"train_gan {dx}"
    begun = saved = time.monotonic()
    own_seed = seed_of(seed, "train_gan", dx)
    data = {key: getattr(header, key) for key in ("image_size", "data_sha256", "split_sha256")}
    data |= {"format": FORMAT, "backend": keras.backend.backend()}
    settings = {"dx": dx, "architecture": architecture, "recipe": asdict(recipe), "kimg": kimg, "seed": seed} | data
    kept = Checkpoints(Folder(Path(checkpoints) / label.replace(" ", "-")), settings, label) if checkpoints else None
    found = kept.load() if kept else None
    keras_run.start(own_seed)
    with decoded(train_set, "train", dx) as pixels, decoded(validation_set, "validation", dx) as held_out:
        # Networks. They are the first to draw from the seed, so that nothing else changes their weights.
        policy = precision.policy(recipe.precision)
        keras.config.set_dtype_policy(policy)
        made, judge = nets.generator(header.image_size), nets.discriminator(header.image_size)
        gan = GAN(made, judge, recipe)
        keras.config.set_dtype_policy("float32")
        gan.compile(*(keras.optimizers.Adam(recipe.learning_rate, recipe.beta_1, recipe.beta_2) for _ in "GD"))

        # What snapshots are compared with.
        feature_seed = seed_of(seed, "train_gan", "features")
        features = quality.features_of(
            train_set,
            feature_seed,
            Folder(checkpoints, shared=True) if checkpoints else None,
            f"features-{seed_of(feature_seed, json.dumps(data)):08x}",
            label,
        )
        few = len(held_out.images) < quality.ENOUGH
        reference = np.concatenate([held_out.images, pixels.images]) if few else np.asarray(held_out.images)
        reference = np.repeat(reference, 1 + (len(reference) == 1), axis=0)  # KID wants two at the least
        real_features, real_spread = features(reference), _spread(pixels.images)
        rng = np.random.default_rng(own_seed)
        grid_noise, noise = (rng.standard_normal((n, nets.LATENT)).astype(np.float32) for n in (GRID, JUDGED))

        # Resume, or begin.
        steps = math.ceil(1000 * kimg / BATCH)
        if found:
            now, good = parted(found)
            history = restored(gan, now)
            say(label, f"goes on after {history.step * BATCH / 1000:,.1f} of {kimg:g} kimg")
        else:
            first = _drawn(gan.sampler, grid_noise)
            history = History(grid_kimg=[0.0], grids=[first], spread=_spread(first))
            good = captured(gan, history)
            say(label, f"{len(pixels.images):,} real images, {kimg:g} kimg in {steps:,} steps")

        # Train.
        marks = {math.ceil(steps * part / SNAPSHOTS) for part in range(1, SNAPSHOTS + 1)}
        before = history.seconds
        said = Progress(label, steps * BATCH / 1000, "kimg", 1000, "images", before=history.step * BATCH / 1000)
        shown = _shown(pixels, recipe, nets.LATENT, own_seed, history.step)
        while history.step < steps:
            losses = gan.step(*next(shown))
            history.step += 1
            history.seconds = before + time.monotonic() - begun
            done = history.step * BATCH / 1000
            g_loss, d_loss = losses["generator_loss"], losses["discriminator_loss"]
            history.silent_steps = history.silent_steps + 1 if losses["discriminator_now"] < SILENT else 0
            mark = history.step in marks
            fault = ""
            if not math.isfinite(losses["now"]):
                fault = "a loss is not a number"
            elif history.silent_steps >= SILENT_STEPS:
                fault = f"the discriminator's loss was zero for {SILENT_STEPS} steps"
            elif mark:
                images = _drawn(gan.sampler, noise)
                spread = _spread(images)
                if spread < COLLAPSED * min(real_spread, history.spread):
                    fault = "the samples are all the same"
                history.spread = max(history.spread, spread)

            # Diverged: once back to the last snapshot.
            if fault:
                if history.rolled_back_kimg is not None:
                    raise RuntimeError(f"the GAN of {dx} diverged after {done:.1f} kimg, for the second time: {fault}")
                history = restored(gan, good)
                history.rolled_back_kimg = done
                for optimizer in (gan.generator_optimizer, gan.discriminator_optimizer):
                    optimizer.learning_rate = recipe.learning_rate * SLOWER
                good = captured(gan, history)
                back = history.step * BATCH / 1000
                say(label, f"warning: diverged after {done:.1f} kimg ({fault}); back to {back:.1f} kimg, more slowly")
                shown = _shown(pixels, recipe, nets.LATENT, own_seed, history.step)
                continue

            # Maintenance: status line, grid, quality, checkpoint.
            said.update(done, f"loss generator {g_loss:.2f}, discriminator {d_loss:.2f}")
            if history.step % max(1, steps // 100) == 0 or history.step == steps:
                history.losses.append((done, g_loss, d_loss))
                gan.reset_metrics()
            if mark:
                history.grid_kimg.append(done)
                history.grids.append(_drawn(gan.sampler, grid_noise))
                value = quality.kid(real_features, features(images))
                if not history.kid or value < min(value for _, value in history.kid):
                    history.best, history.best_kimg = gan.sampler.get_weights(), done
                history.kid.append((done, value))
                good = captured(gan, history)
            if kept and (mark or time.monotonic() - saved >= checkpoint_every_s):
                kept.save(*joined(good if mark else captured(gan, history), good))
                saved = time.monotonic()

        # The result is the best snapshot.
        gan.sampler.set_weights(history.best)
        real, held = len(pixels.images), len(held_out.images)
        was_seen = seen(pixels, held_out)
    keras_run.save(gan.sampler, generator)
    facts = {
        "dx": dx,
        "architecture": architecture,
        "recipe": asdict(recipe),
        "latent": nets.LATENT,
        "kimg": steps * BATCH / 1000,
        "best_kimg": history.best_kimg,
        "real_images": real,
        "parameters": {"generator": gan.generator.count_params(), "discriminator": gan.discriminator.count_params()},
        "model_sha256": file_sha256(generator),
        "classes": header.classes,
        "image_size": header.image_size,
        "data_sha256": header.data_sha256,
        "split_sha256": header.split_sha256,
        "settings": {"seed": seed, "batch": BATCH, "learning_rate": recipe.learning_rate},
        "precision": policy,
        "rolled_back_kimg": history.rolled_back_kimg,
        "losses": {
            "kimg": [k for k, _, _ in history.losses],
            "generator": [g for _, g, _ in history.losses],
            "discriminator": [d for *_, d in history.losses],
        },
        "kid": {
            "kimg": [k for k, _ in history.kid],
            "value": [value for _, value in history.kid],
            "against": "validation and training" if few else "validation",
            "images": {"validation": held, "synthetic": JUDGED},
        },
        # So that the report, which gets records and no pages, can show how the GAN learnt.
        "snapshots": [
            {"kimg": done, "jpeg": strip(images)}
            for done, images in (
                (history.grid_kimg[i], history.grids[i])
                for i in np.unique(np.linspace(0, len(history.grids) - 1, STRIPS).astype(int))
            )
        ],
        "versions": keras_run.versions(),
        "seconds": round(before + time.monotonic() - begun, 1),
        "seen": was_seen,
    }
    write_text(record, json.dumps(facts, indent=1))
    best_kid = min(facts["kid"]["value"])
    x = facts["losses"]["kimg"]
    against = f"{held} validation images" + (f" and, since they are few, the {real} training images" if few else "")
    parts = [
        f"{architecture}, {real} real images, {facts['kimg']:g} kimg. The same noise at every snapshot.",
        page.line_chart({name: (x, facts["losses"][name]) for name in ("generator", "discriminator")}, "kimg", "loss"),
        f"The result is the generator after {history.best_kimg:g} kimg: it has the lowest kernel distance (KID) to "
        f"{against}, {best_kid:.4f}. It is measured in features of a small classifier trained on the training split, "
        "and is not to be compared with published KID.",
        page.line_chart({"KID": (facts["kid"]["kimg"], facts["kid"]["value"])}, "kimg", "KID"),
        *(
            page.picture(page.contact_sheet(images, 4), f"after {done:g} kimg")
            for done, images in zip(history.grid_kimg, history.grids, strict=True)
        ),
    ]
    write_text(progress_page, page.render(f"GAN of {dx}", parts))
    return {
        "generator_loss": history.losses[-1][1],
        "discriminator_loss": history.losses[-1][2],
        "kid": best_kid,
        "best_kimg": history.best_kimg,
    }
