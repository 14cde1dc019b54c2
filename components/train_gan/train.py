"""Phase 3: trains the GANs of one or several classes, each on its class's real training images.

Reads the training and the validation set, the ruler, and what shared pretraining made. Writes the generators of their
best moments, records of what made them, and a page on which a person sees them learn. Killed at any moment and started
again with the same checkpoints, it goes on and, on a CPU, ends with the same bytes; to rounding only where several
classes are computed as one batch.
"""

import json
import math
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from components.shared import html_page, keras_setup
from components.shared.errors import UserError, as_user_error, printable
from components.shared.files import atomic_folder, atomic_writes, file_sha256
from components.shared.image_set import open_pixels, read_header, read_rows, seen
from components.shared.log import log_line
from components.shared.sample_metrics import load_features
from components.shared.seeds import derive_seed
from components.train_gan import architectures, gradients, progress_html
from components.train_gan.loop import BATCH, Training, best, facts_of, run
from components.train_gan.recipe import Recipe

CHECKPOINT_EVERY_S = 300.0


def train(
    classes: Sequence[str],
    train_set: str | Path,
    validation_set: str | Path,
    features: str | Path,
    start: str | Path,
    architecture: str,
    kimg: float,
    seed: int,
    failed_class: str,
    generators: str | Path,
    record: str | Path,
    progress_page: str | Path,
    checkpoints: str = "",
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    recipe: Recipe | None = None,
) -> dict[str, float]:
    """Trains a GAN of each class for a budget, and keeps the generator of the snapshot with the lowest KID.

    Training that diverges (a loss is not a number; the discriminator's loss stays at zero; the samples become all the
    same) goes back to the last snapshot once, with half the learning rate.

    Args:
        classes: one or several, trained in this process: as one batch where the backend can, else one after another.
        train_set: image set of the split `train`.
        validation_set: image set of the split `validation`: snapshots are compared with its images of the class.
        features: the ruler, made by `pretrain`.
        start: what `pretrain` made for GANs to begin from; an empty file for a cold start.
        architecture: see `architectures`.
        kimg: the budget of each class, in thousand real images shown.
        seed: of weights, order and noise; each class has its own below it.
        failed_class: when the GAN of a class fails: `fail`, and the error goes on; or `continue`, and the record and
            the page say `failed` and why, and the run goes on without this class. An error in computing several classes
            as one batch fails them all.
        generators: folder for `<dx>.keras` of each class.
        record: where the JSON list of records goes, one for each class.
        progress_page: where the HTML page goes.
        checkpoints: folder or `gs://` address of the run for them, all classes' together; empty for none.
        checkpoint_every_s: seconds between two checkpoints; there is one at each snapshot as well.
        recipe: another than the architecture's own.

    Returns:
        For each class `<dx>_kid` and `<dx>_best_kimg` of the snapshot that was kept, `<dx>_generator_loss` and
        `<dx>_discriminator_loss` at the end.

    Raises:
        UserError: a setting, a class or an image set can't be used, or the checkpoints are of other settings.
        RuntimeError: training diverged a second time.
    """
    if failed_class not in ("fail", "continue"):
        raise UserError(f"failed_class is {failed_class!r}; choose fail or continue.")
    if not 0 < kimg < math.inf:
        raise UserError(f"gan_kimg is {kimg}; choose a budget above 0.")
    nets, header = check(classes, train_set, validation_set, architecture)
    recipe, ruler, first = recipe or nets.RECIPE, load_features(features), Path(start).read_bytes()
    data = {key: getattr(header, key) for key in ("data_sha256", "split_sha256")}
    settings = data | {"features": file_sha256(features), "start": file_sha256(start)}
    failures: dict[str, str] = {}

    def failed(dx: str, error: Exception) -> None:
        # A wrong setting or a full disk is nothing that befell this class alone.
        if failed_class == "fail" or as_user_error(error):
            raise error
        traceback.print_exception(error)
        failures[dx] = printable(f"{type(error).__name__}: {error}")[:500]
        log_line(f"train_gan {dx}", f"failed, and the run goes on without this class ({failures[dx]})")

    records: dict[str, dict[str, Any]] = {}
    parts: list[str] = []
    metrics: dict[str, float] = {}
    with (
        atomic_folder(generators) as folder,
        atomic_writes(record, progress_page) as (record_part, page_part),
    ):
        for group in [list(classes)] if gradients.BATCHES else [[dx] for dx in classes]:
            with ExitStack() as stack:
                trainings: dict[str, Training] = {}
                seen_of = {}
                held = {}
                for dx in group:
                    pixels = stack.enter_context(open_pixels(train_set, "train", dx))
                    held_out = stack.enter_context(open_pixels(validation_set, "validation", dx))
                    seen_of[dx], held[dx] = seen(pixels, held_out), len(held_out.images)
                    arguments = (architecture, nets, recipe, pixels, held_out, ruler, kimg)
                    own = (derive_seed(seed, "train_gan", dx), settings | {"dx": dx}, checkpoints, checkpoint_every_s)
                    try:
                        trainings[dx] = Training(f"train_gan {dx}", *arguments, *own, first)
                    except Exception as error:
                        failed(dx, error)
                names = {id(training): dx for dx, training in trainings.items()}
                run(list(trainings.values()), lambda training, error: failed(names[id(training)], error))  # noqa: B023
                for dx in group:
                    if dx in failures:
                        facts: dict[str, Any] = {"dx": dx, "failed": failures[dx], "architecture": architecture}
                        facts |= {"classes": header.classes, "image_size": header.image_size} | data
                        parts += [html_page.heading(f"GAN of {dx}"), f"Failed: {failures[dx]}"]
                        records[dx] = facts
                        continue
                    training, path = trainings[dx], folder / f"{dx}.keras"
                    keras_setup.save_model(best(training), path)
                    facts = {"dx": dx} | facts_of(training, architecture, held[dx])
                    facts |= {"model_sha256": file_sha256(path), "seen": seen_of[dx]}
                    facts["settings"] = {"seed": seed, "batch": BATCH, "learning_rate": recipe.learning_rate}
                    facts["snapshots"] = progress_html.strips(training.history)
                    records[dx] = facts
                    parts += progress_html.progress(f"GAN of {dx}", facts, training.history)
                    metrics |= {
                        f"{dx}_kid": min(facts["kid"]["value"]),
                        f"{dx}_best_kimg": facts["best_kimg"],
                        f"{dx}_generator_loss": facts["losses"]["generator"][-1],
                        f"{dx}_discriminator_loss": facts["losses"]["discriminator"][-1],
                    }
        record_part.write_text(json.dumps([records[dx] for dx in classes], indent=1), encoding="utf-8")
        page_part.write_text(html_page.render(f"GANs of {', '.join(classes)}", parts), encoding="utf-8")
    return metrics


def check(
    classes: Sequence[str], train_set: str | Path, validation_set: str | Path, architecture: str
) -> tuple[Any, Any]:
    """The architecture's module and the training set's header.

    Raises:
        UserError: a setting, a class or an image set can't be used.
    """
    nets, header = architectures.load(architecture), read_header(train_set)
    present = set(read_rows(train_set, "train", ["dx"])["dx"])
    if not classes or len(set(classes)) < len(classes):
        raise UserError(f"the classes to train for are {','.join(classes)!r}; name at least one, and each once.")
    for dx in classes:
        if dx not in present:
            raise UserError(f"there is no training image of the class {dx}; choose a class that the data has.")
    if read_header(validation_set).split_sha256 != header.split_sha256:
        raise UserError("the training and the validation set are of different splits; take both from one run.")
    return nets, header
