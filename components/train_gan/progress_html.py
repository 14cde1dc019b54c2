"""How a GAN learnt, for a person: its page, and strips of samples for its record."""

from typing import Any

import numpy as np

from components.shared import html_page
from components.train_gan.state import History

STRIPS, STRIP = 5, 5
STRIP_BYTES = 7_500
"""A strip of samples in the record, in base64: five of them stay below 40 kB."""


def strips(history: History) -> list[dict[str, Any]]:
    """Samples of the same noise at some snapshots, so that the report, which gets records and no pages, can show how
    the GAN learnt."""
    chosen = np.unique(np.linspace(0, len(history.grids) - 1, STRIPS).astype(int))
    sheets = {i: html_page.contact_sheet(history.grids[i][:STRIP], STRIP) for i in chosen}
    return [{"kimg": history.grid_kimg[i], "jpeg": html_page.jpeg(sheets[i], STRIP, STRIP_BYTES)} for i in chosen]


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
        html_page.heading(title),
        f"{facts['architecture']}, {real} real images, {facts['kimg']:g} kimg{begun}. The same noise at each snapshot.",
        html_page.line_chart({name: (x, losses[name]) for name in ("generator", "discriminator")}, "kimg", "loss"),
        f"The lowest kernel distance (KID) to {against} is {min(kid['value']):.4f}, after {facts['best_kimg']:g} kimg. "
        "It is measured in features of a small classifier trained on the training split, and is not to be compared "
        "with published KID.",
        html_page.line_chart({"KID": (kid["kimg"], kid["value"])}, "kimg", "KID"),
        *(
            html_page.picture(html_page.contact_sheet(images, 4), f"after {done:g} kimg")
            for done, images in zip(history.grid_kimg, history.grids, strict=True)
        ),
    ]
