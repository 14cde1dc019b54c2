"""Phase 2: what all GANs of a run share: the ruler by which their images are judged, and, where it is asked for, a GAN
of all rare classes together from which each class's own begins (after STGAN's pre-training).

Reads the training and the validation set.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.shared import html_page, keras_setup
from components.shared.checkpoint import DamagedError, pack, unpack
from components.shared.errors import UserError
from components.shared.files import atomic_writes, file_sha256
from components.shared.image_set import open_pixels
from components.shared.log import log_line
from components.shared.sample_metrics import load_features, train_features
from components.shared.seeds import derive_seed
from components.shared.storage import checkpoint_store
from components.train_gan import progress_html
from components.train_gan.loop import BATCH, Training, facts_of, run, start_of
from components.train_gan.recipe import Recipe
from components.train_gan.train import CHECKPOINT_EVERY_S, check

LABEL = "shared_pretraining"


def pretrain(
    classes: Sequence[str],
    train_set: str | Path,
    validation_set: str | Path,
    architecture: str,
    kimg: float,
    seed: int,
    features: str | Path,
    start: str | Path,
    record: str | Path,
    progress_page: str | Path,
    checkpoints: str = "",
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    recipe: Recipe | None = None,
) -> dict[str, float]:
    """Trains the ruler, and a GAN of all rare classes together.

    Args:
        classes: the rare ones; each is shown about as often as any other.
        train_set, validation_set: image sets of these splits.
        architecture: see `architectures`.
        kimg: the shared GAN's budget, in thousand real images shown; 0 for none.
        seed: of all that is drawn.
        features: where the ruler goes: see `components.shared.sample_metrics`.
        start: where the networks go that GANs begin from; an empty file where `kimg` is 0.
        record: where the JSON record goes.
        progress_page: where the HTML page goes.
        checkpoints, checkpoint_every_s, recipe: as in `train`. The ruler is kept there, too.

    Returns:
        kid of the shared GAN at its end, if there is one.

    Raises:
        UserError: a setting, a class or an image set can't be used, or the checkpoints are of other settings.
        RuntimeError: training diverged a second time.
    """
    if not 0 <= kimg < math.inf:
        raise UserError(f"shared_kimg is {kimg}; choose a budget of 0 or more.")
    nets, header = check(classes, train_set, validation_set, architecture)
    with atomic_writes(features, start, record, progress_page) as (ruler, start_part, record_part, page_part):
        _ruler(train_set, derive_seed(seed, "features"), ruler, checkpoints)
        facts = {"classes": header.classes, "trained_on": list(classes), "features_sha256": file_sha256(ruler)}
        parts = ["The ruler is trained. No GAN of all rare classes was asked for."]
        measured = {}
        if kimg:
            own = derive_seed(seed, LABEL)
            settings = {"classes": list(classes), "features": file_sha256(ruler), "split_sha256": header.split_sha256}
            with (
                open_pixels(train_set, "train", *classes) as pixels,
                open_pixels(validation_set, "validation", *classes) as held_out,
            ):
                counts = np.bincount(pixels.labels)
                pixels.repeat[:] = np.maximum(1, np.rint(counts.max() / counts[pixels.labels]))
                arguments = (LABEL, architecture, nets, recipe or nets.RECIPE, pixels, held_out, load_features(ruler))
                training = Training(*arguments, kimg, own, settings, checkpoints, checkpoint_every_s)

                def failed(training: Training, error: Exception) -> None:
                    raise error

                run([training], failed)
                # The last networks and not the best: a discriminator that fits its generator goes with them.
                start_part.write_bytes(pack(*start_of(training, architecture)))
                facts |= facts_of(training, architecture, len(held_out.images))
            facts["settings"] = {"seed": seed, "batch": BATCH}
            facts["snapshots"] = progress_html.strips(training.history)
            parts = progress_html.progress(f"GAN of {', '.join(classes)} together", facts, training.history)
            measured = {"kid": facts["kid"]["value"][-1]}
        record_part.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        page_part.write_text(html_page.render("Shared pretraining", parts), encoding="utf-8")
    return measured


def _ruler(train_set: str | Path, seed: int, path: Path, checkpoints: str) -> None:
    """Trains the ruler, or takes that of the start that was killed: trained again on another machine it may be another
    in its last bits, and the checkpoints are of the first."""
    store = checkpoint_store(checkpoints, f"{LABEL}-features") if checkpoints else None
    wanted = {"train_set_sha256": file_sha256(train_set), "seed": seed, "versions": keras_setup.library_versions()}
    if store and (kept := store.read("features")):
        try:
            facts, arrays = unpack(kept)
        except DamagedError as error:
            log_line(LABEL, f"warning: the ruler that was kept is damaged ({error}) and is trained anew")
        else:
            if facts == wanted:
                path.write_bytes(arrays["keras"].tobytes())
                return
    train_features(train_set, seed, path, LABEL)
    if store:
        store.write("features", pack(wanted, {"keras": np.frombuffer(path.read_bytes(), np.uint8)}))
