"""Train the GANs of one or several classes, each on the real training images of its class.

A killed training resumes from its checkpoints. On a CPU it then ends with the same bytes; if several classes are
computed as one batch, the result is equal up to rounding.
"""

import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from components.shared import html_page, keras_setup
from components.shared.errors import UserError, as_user_error, printable
from components.shared.features import load_features
from components.shared.files import atomic_folder, file_sha256
from components.shared.image_set import Pixels, open_pixels, read_header, read_rows, seen_hashes
from components.shared.log import log_line
from components.shared.parameters import Options, check
from components.shared.records import FailedGan, TrainedGan, write_record
from components.shared.seeds import derive_seed
from components.train_gan import architectures, gradients, progress_html
from components.train_gan.loop import BATCH_SIZE, Training, describe_training, load_best, run
from components.train_gan.recipe import Recipe

CHECKPOINT_INTERVAL_S = 300.0
START_FILE = "start.bin"
"""File with the networks of the shared GAN, in the folder that GANs start from; absent without pretraining."""


def train(
    classes: Sequence[str],
    rare_data: str | Path,
    features: str | Path,
    start: str | Path,
    architecture: str,
    kimg: float,
    seed: int,
    failed_class: str,
    gans: str | Path,
    checkpoints: str = "",
    checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S,
    recipe: Recipe | None = None,
) -> None:
    """Train a GAN for each class and save the generator of the snapshot with the lowest KID.

    Training that diverges (a loss is not finite; the discriminator's loss stays at zero; all samples become equal)
    rolls back to the last good snapshot once, with half the learning rate.

    Args:
        classes: trained in this process: as one batch where the backend supports it, else in turn.
        rare_data: folder that train_features wrote; snapshots are compared with the validation images of the class.
        features: the feature extractor of the run.
        start: folder that `pretrain` wrote.
        architecture: see `architectures`.
        kimg: training budget of each class, in thousand real images shown.
        seed: seed of the run; each class has its own seed below it.
        failed_class: if the GAN of a class fails: `fail` raises the error; `continue` writes a record of the failure
            instead of a generator. An error while several classes are computed as one batch fails all of them.
        gans: folder to write: `models/gan-<class>.keras`, `.json` (the record) and `.html` (training progress).
        checkpoints: folder or address for the checkpoints of the run; empty for none.
        checkpoint_interval_s: seconds between two checkpoints; each snapshot writes one as well.
        recipe: replaces the architecture's own.

    Raises:
        UserError: a setting, a class or an image set cannot be used, or the checkpoints have other settings.
        DivergedError: training diverged a second time.
    """
    check({"gan_kimg": kimg})
    check({"failed_class": failed_class}, Options)
    train_set, validation_set = Path(rare_data) / "train.parquet", Path(rare_data) / "validation.parquet"
    networks, header = check_inputs(classes, train_set, validation_set, architecture)
    recipe, extractor = recipe or networks.RECIPE, load_features(features)
    start_file = Path(start) / START_FILE
    start_bytes = start_file.read_bytes() if start_file.exists() else b""
    data = {"data_sha256": header.data_sha256, "split_sha256": header.split_sha256}
    settings = data | {"features": file_sha256(features), "start": file_sha256(start_file) if start_bytes else ""}
    common = data | {"classes": list(header.classes), "architecture": architecture, "image_size": header.image_size}
    failures: dict[str, str] = {}

    def fail(dx: str, error: Exception) -> None:
        # A wrong setting or a full disk is not specific to this class; exhausted memory may be.
        if failed_class == "fail" or (as_user_error(error) and not isinstance(error, MemoryError)):
            raise error
        traceback.print_exception(error)
        failures[dx] = printable(f"{type(error).__name__}: {error}")[:500]
        log_line(f"train_gan {dx}", f"failed; the run continues without this class ({failures[dx]})")

    with atomic_folder(gans) as folder:
        models = folder / "models"
        models.mkdir()
        for group in [list(classes)] if gradients.BATCHES else [[dx] for dx in classes]:
            with ExitStack() as stack:
                pixels: dict[str, tuple[Pixels, Pixels]] = {}
                trainings: dict[str, Training] = {}
                for dx in group:
                    pixels[dx] = (
                        stack.enter_context(open_pixels(train_set, "train", dx)),
                        stack.enter_context(open_pixels(validation_set, "validation", dx)),
                    )
                    try:
                        trainings[dx] = Training(
                            f"train_gan {dx}",
                            architecture,
                            networks,
                            recipe,
                            *pixels[dx],
                            extractor,
                            kimg,
                            derive_seed(seed, "train_gan", dx),
                            settings | {"dx": dx},
                            checkpoints,
                            checkpoint_interval_s,
                            start_bytes,
                        )
                    except Exception as error:
                        fail(dx, error)
                class_of = {id(training): dx for dx, training in trainings.items()}
                run(list(trainings.values()), lambda training, error: fail(class_of[id(training)], error))  # noqa: B023
                for dx in group:
                    if dx in failures:
                        _write_failure(models, dx, common, failures[dx])
                    else:
                        _write_gan(models, dx, common, trainings[dx], *pixels[dx], seed)


def _write_failure(models: Path, dx: str, common: dict[str, Any], failed: str) -> None:
    write_record(models / f"gan-{dx}.json", FailedGan(dx=dx, failed=failed, **common))
    page = html_page.render(f"GAN of {dx}", [f"Failed: {failed}"])
    (models / f"gan-{dx}.html").write_text(page, encoding="utf-8")


def _write_gan(
    models: Path,
    dx: str,
    common: dict[str, Any],
    training: Training,
    pixels: Pixels,
    validation_pixels: Pixels,
    seed: int,
) -> None:
    path = models / f"gan-{dx}.keras"
    keras_setup.save_model(load_best(training), path)
    record = TrainedGan(
        **describe_training(training, common["architecture"]) | common,
        dx=dx,
        model_sha256=file_sha256(path),
        seen=seen_hashes(pixels, validation_pixels),
        settings={"seed": seed, "batch": BATCH_SIZE, "learning_rate": training.rate},
        snapshots=progress_html.strips(training.history),
    )
    write_record(models / f"gan-{dx}.json", record)
    parts = progress_html.progress(f"GAN of {dx}", record, training.history)
    (models / f"gan-{dx}.html").write_text(html_page.render(f"GAN of {dx}", parts), encoding="utf-8")


def check_inputs(
    classes: Sequence[str], train_set: str | Path, validation_set: str | Path, architecture: str
) -> tuple[Any, Any]:
    """Return the architecture's module and the training set's header.

    Raises:
        UserError: a setting, a class or an image set cannot be used.
    """
    networks, header = architectures.load(architecture), read_header(train_set)
    present = set(read_rows(train_set, "train", ["dx"])["dx"])
    if len(set(classes)) < len(classes):
        raise UserError(
            f"the classes to train for are {','.join(classes)!r}",
            "name each class once",
            "train_gan.repeated_class",
        )
    for dx in classes:
        if dx not in present:
            raise UserError(
                f"the class {dx} has no training image",
                f"choose from {', '.join(sorted(present))}",
                "train_gan.unknown_class",
                dx=dx,
            )
    if read_header(validation_set).split_sha256 != header.split_sha256:
        raise UserError(
            "the training and the validation set are from different splits",
            "use both from one run",
            "image_set.mixed",
        )
    return networks, header
