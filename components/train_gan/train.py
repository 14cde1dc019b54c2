"""Phase 3: trains one class's GAN on that class's real training images.

Reads the training set. Writes the generator, a record of what made it, and a page on which a person sees it learn. On
two cores the original DCGAN sees some 100 images/s at 64 px and 25 at 128 px.
"""

import base64
import io
import json
import math
import time
import traceback
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from components.shared import keras_run, page
from components.shared.batches import endless_batches
from components.shared.errors import UserError, as_user_error, printable
from components.shared.files import all_written_whole, file_sha256, write_text
from components.shared.image_set import decoded, read_header, read_rows, seen
from components.shared.progress import Progress, say
from components.shared.seeds import seed_of
from components.train_gan import architectures
from components.train_gan.gan import GAN

BATCH = 32
LEARNING_RATE = 1e-4
SNAPSHOTS = 8
GRID = 16
STRIPS, STRIP = 5, 5
STRIP_BYTES = 7_500
"""A strip of samples in the record, in base64: five of them stay below 40 kB."""


def _sample(generator: keras.Model, noise: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) uint8 images of (N, latent) noise."""
    return np.clip(np.rint((generator.predict_on_batch(noise) + 1) * 127.5), 0, 255).astype(np.uint8)


def strip(images: np.ndarray) -> str:
    """The first samples side by side, small enough for a record: base64 of a JPEG of at most `STRIP_BYTES`.

    Args:
        images: (N, S, S, 3) uint8.
    """
    whole = Image.fromarray(page.contact_sheet(images[:STRIP], STRIP))
    text = ""
    for side, quality in ((64, 85), (64, 70), (64, 50), (48, 50), (32, 50)):
        small = whole.copy()
        small.thumbnail((STRIP * side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality)
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
) -> dict[str, float]:
    """Trains a GAN for a budget.

    Args:
        dx: the class.
        train_set: image set of the split `train`.
        architecture: see `architectures`.
        kimg: the budget, in thousand real images shown.
        seed: of weights, order and noise; each class has its own below it.
        generator, record, progress_page: where the `.keras` model, its JSON record and the HTML page go.

    Returns:
        Losses at the end: generator_loss, discriminator_loss.

    Raises:
        UserError: a setting, the class or the image set can't be used.
    """
    if not 0 < kimg < math.inf:
        raise UserError(f"gan_kimg is {kimg}; choose a budget above 0.")
    nets = architectures.load(architecture)
    if dx not in set(read_rows(train_set, "train", ["dx"])["dx"]):
        raise UserError(f"there is no training image of the class {dx}; choose a class that the data has.")
    label = f"train_gan {dx}"
    begun = time.monotonic()
    own_seed = seed_of(seed, "train_gan", dx)
    keras_run.start(own_seed)
    with decoded(train_set, "train", dx) as pixels:
        header = pixels.header
        gan = GAN(nets.generator(header.image_size), nets.discriminator(header.image_size), nets.LATENT, own_seed)
        gan.compile(keras.optimizers.Adam(LEARNING_RATE), keras.optimizers.Adam(LEARNING_RATE))
        steps = math.ceil(1000 * kimg / BATCH)
        snapshots = {math.ceil(steps * part / SNAPSHOTS) for part in range(1, SNAPSHOTS + 1)}
        say(label, f"{len(pixels.images):,} real images, {kimg:g} kimg in {steps:,} steps")

        noise = np.random.default_rng(own_seed).standard_normal((GRID, nets.LATENT)).astype(np.float32)
        grids = [(0.0, _sample(gan.generator, noise))]
        losses: list[tuple[float, float, float]] = []
        said = Progress(label, steps * BATCH / 1000, "kimg", 1000, "images")
        for step, rows in zip(range(1, steps + 1), endless_batches(pixels.repeat, BATCH, own_seed), strict=False):
            result = gan.train_on_batch(pixels.images[rows], return_dict=True)
            done = step * BATCH / 1000
            g_loss, d_loss = float(result["generator_loss"]), float(result["discriminator_loss"])
            if not math.isfinite(g_loss + d_loss):
                raise RuntimeError(f"the GAN of {dx} diverged after {done:.1f} kimg: a loss is not a number")
            said.update(done, f"loss generator {g_loss:.2f}, discriminator {d_loss:.2f}")
            if step % max(1, steps // 100) == 0 or step == steps:
                losses.append((done, g_loss, d_loss))
                gan.reset_metrics()
            if step in snapshots:
                grids.append((done, _sample(gan.generator, noise)))
        real, was_seen = len(pixels.images), seen(pixels)
    keras_run.save(gan.generator, generator)
    facts: dict[str, Any] = {
        "dx": dx,
        "architecture": architecture,
        "latent": nets.LATENT,
        "kimg": steps * BATCH / 1000,
        "real_images": real,
        "parameters": {"generator": gan.generator.count_params(), "discriminator": gan.discriminator.count_params()},
        "model_sha256": file_sha256(generator),
        "classes": header.classes,
        "image_size": header.image_size,
        "data_sha256": header.data_sha256,
        "split_sha256": header.split_sha256,
        "settings": {"seed": seed, "batch": BATCH, "learning_rate": LEARNING_RATE},
        "losses": {
            "kimg": [k for k, _, _ in losses],
            "generator": [g for _, g, _ in losses],
            "discriminator": [d for *_, d in losses],
        },
        # So that the report, which gets records and no pages, can show how the GAN learnt.
        "snapshots": [
            {"kimg": done, "jpeg": strip(images)}
            for done, images in (grids[i] for i in np.unique(np.linspace(0, len(grids) - 1, STRIPS).astype(int)))
        ],
        "versions": keras_run.versions(),
        "seconds": round(time.monotonic() - begun, 1),
        "seen": was_seen,
    }
    write_text(record, json.dumps(facts, indent=1))
    x = [k for k, _, _ in losses]
    parts = [
        f"{architecture}, {real} real images, {facts['kimg']:g} kimg. The same noise at every snapshot.",
        page.line_chart({name: (x, facts["losses"][name]) for name in ("generator", "discriminator")}, "kimg", "loss"),
        *(page.picture(page.contact_sheet(images, 4), f"after {done:g} kimg") for done, images in grids),
    ]
    write_text(progress_page, page.render(f"GAN of {dx}", parts))
    return {"generator_loss": losses[-1][1], "discriminator_loss": losses[-1][2]}
