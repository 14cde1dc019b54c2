"""How a GAN learnt, for a person: its page, and strips of samples for its record."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from components.shared import page
from components.train_gan.history import History

STRIPS, STRIP = 5, 5
STRIP_BYTES = 7_500
"""A strip of samples in the record, in base64: five of them stay below 40 kB."""


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


def strips(history: History) -> list[dict[str, Any]]:
    """Samples of the same noise at some snapshots, so that the report, which gets records and no pages, can show how
    the GAN learnt."""
    chosen = np.unique(np.linspace(0, len(history.grids) - 1, STRIPS).astype(int))
    return [{"kimg": history.grid_kimg[i], "jpeg": strip(history.grids[i])} for i in chosen]


def progress(title: str, facts: dict[str, Any], history: History) -> list[Any]:
    """The parts of a page: losses, KID, and the samples of each snapshot.

    Args:
        title: of this GAN.
        facts: its record.
        history: its end.
    """
    x, losses, kid = facts["losses"]["kimg"], facts["losses"], facts["kid"]
    real, held = facts["real_images"], kid["images"]["validation"]
    against = f"{held} validation images"
    if kid["against"] != "validation":
        against += f" and, since they are few, the {real} training images"
    begun = f", begun from a GAN of all rare classes after {facts['start_kimg']:g} kimg" if facts["start_kimg"] else ""
    return [
        page.heading(title),
        f"{facts['architecture']}, {real} real images, {facts['kimg']:g} kimg{begun}. The same noise at each snapshot.",
        page.line_chart({name: (x, losses[name]) for name in ("generator", "discriminator")}, "kimg", "loss"),
        f"The lowest kernel distance (KID) to {against} is {min(kid['value']):.4f}, after {facts['best_kimg']:g} kimg. "
        "It is measured in features of a small classifier trained on the training split, and is not to be compared "
        "with published KID.",
        page.line_chart({"KID": (kid["kimg"], kid["value"])}, "kimg", "KID"),
        *(
            page.picture(page.contact_sheet(images, 4), f"after {done:g} kimg")
            for done, images in zip(history.grid_kimg, history.grids, strict=True)
        ),
    ]
