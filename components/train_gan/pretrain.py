"""Train one GAN of several classes, from which the GAN of each class starts (following the pretraining of STGAN)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.shared import html_page
from components.shared.features import load_features
from components.shared.files import atomic_folder, file_sha256
from components.shared.image_set import open_pixels
from components.shared.parameters import check
from components.shared.records import SharedGan, write_record
from components.shared.seeds import derive_seed
from components.shared.skip import skip
from components.train_gan import progress_html
from components.train_gan.loop import BATCH_SIZE, Training, describe_training, export_start, run
from components.train_gan.recipe import Recipe
from components.train_gan.train import CHECKPOINT_INTERVAL_S, START_FILE, check_inputs

LABEL = "pretrain_gan"
ALL_CLASSES_KIMG = 50.0
"""With a smaller budget, a GAN of all classes mixes their features.

On the demo images, with 8 kimg and 6 for each class, classifiers recognise .55 of the images of df, and .86 if the GAN
learned the rare classes alone.
"""


def pretrain(
    classes: Sequence[str],
    training_data: str | Path,
    features: str | Path,
    architecture: str,
    kimg: float,
    seed: int,
    start: str | Path,
    checkpoints: str = "",
    checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S,
    recipe: Recipe | None = None,
) -> None:
    """Train a GAN of several classes together, each shown about as often as any other.

    Images are repeated whole times, so a class is shown from two thirds to four thirds as often as the largest.

    With a large budget, these are all classes: the large ones teach it what all images have in common, such as skin,
    hair and light. With a small one, they are the rare classes.

    Args:
        classes: the rare classes, whose GANs start from it.
        training_data: folder that prepare_data wrote.
        features: the feature extractor of the run.
        architecture: see `architectures`.
        kimg: training budget, in thousand real images shown; 0 trains nothing.
        seed: seed of the run.
        start: folder to write: `start.bin` with the networks, `models/shared.json` and `models/shared.html`; with a
            budget of 0 it has none of them.
        checkpoints, checkpoint_interval_s, recipe: as in `train`.

    Raises:
        UserError: a setting, a class or an image set cannot be used, or the checkpoints have other settings.
        DivergedError: training diverged a second time.
    """
    check({"gan_shared_kimg": kimg})
    train_set, validation_set = Path(training_data) / "train.parquet", Path(training_data) / "validation.parquet"
    if not kimg:
        skip(start, LABEL, "gan_shared_kimg is 0, so each GAN starts with random weights")
        return
    with atomic_folder(start) as folder:
        networks, header = check_inputs(classes, train_set, validation_set, architecture)
        every = list(header.classes if kimg >= ALL_CLASSES_KIMG else classes)
        settings = {"classes": every, "features": file_sha256(features), "split_sha256": header.split_sha256}
        with (
            open_pixels(train_set, "train", *every) as pixels,
            open_pixels(validation_set, "validation", *every) as validation_pixels,
        ):
            counts = np.bincount(pixels.labels)
            pixels.repeat[:] = np.maximum(1, np.rint(counts.max() / counts[pixels.labels]))
            training = Training(
                LABEL,
                architecture,
                networks,
                recipe or networks.RECIPE,
                pixels,
                validation_pixels,
                load_features(features),
                kimg,
                derive_seed(seed, LABEL),
                settings,
                checkpoints,
                checkpoint_interval_s,
            )
            run([training], _raise)
            record = SharedGan(
                **describe_training(training, architecture),
                trained_on=every,
                features_sha256=file_sha256(features),
                settings={"seed": seed, "batch": BATCH_SIZE},
                snapshots=progress_html.strips(training.history),
            )
        # The last networks, not the best ones: a discriminator must match its generator.
        (folder / START_FILE).write_bytes(export_start(training, architecture))
        models = folder / "models"
        models.mkdir()
        write_record(models / "shared.json", record)
        parts = progress_html.progress(f"GAN of {', '.join(every)} together", record, training.history)
        (models / "shared.html").write_text(html_page.render("Shared pretraining", parts), encoding="utf-8")


def _raise(training: Any, error: Exception) -> None:
    raise error
