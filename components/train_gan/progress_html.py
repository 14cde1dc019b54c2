"""Training progress of a GAN: the parts of its page, and strips of samples for its record."""

from typing import Any

import numpy as np

from components.shared import html_page
from components.shared.records import SharedGan, Snapshot, TrainedGan
from components.train_gan.state import History

STRIPS, STRIP_IMAGES = 5, 5
STRIP_BYTES = 7_500
"""Maximum size of a strip of samples in the record, in base64; five strips stay below 40 kB."""


def strips(history: History) -> list[Snapshot]:
    """Return samples of the same noise at some snapshots, for the report, which reads records but not pages."""
    chosen = np.unique(np.linspace(0, len(history.grids) - 1, STRIPS).astype(int))
    sheets = {i: html_page.contact_sheet(history.grids[i][:STRIP_IMAGES], STRIP_IMAGES) for i in chosen}
    return [
        Snapshot(
            kimg=float(history.grid_kimg[i]),
            jpeg=html_page.encode_jpeg_base64(sheets[i], STRIP_IMAGES, STRIP_BYTES),
        )
        for i in chosen
    ]


def progress(title: str, record: TrainedGan | SharedGan, history: History) -> list[Any]:
    """Return the parts of a page: losses, KID, and the samples of each snapshot.

    Args:
        title: title of this GAN.
        record: record of this GAN.
        history: at the end of training.
    """
    losses, kid, real = record.losses, record.kid, record.real_images
    against = f"{kid.images.validation} validation images"
    if kid.against != "validation":
        against += f" and, because they are few, the {real} training images"
    start = f", starting from a GAN of several classes after {record.start_kimg:g} kimg" if record.start_kimg else ""
    curves = {"generator": (losses.kimg, losses.generator), "discriminator": (losses.kimg, losses.discriminator)}
    return [
        html_page.heading(title),
        f"{record.architecture}, {real} real images, {record.kimg:g} kimg{start}. Every snapshot uses the same noise.",
        html_page.line_chart(curves, "kimg", "loss"),
        f"The lowest kernel distance (KID) to {against} is {min(kid.value):.4f}, after {record.best_kimg:g} kimg. "
        "It is measured in the features of a small classifier trained on the training split, and is not comparable "
        "with published figures.",
        html_page.line_chart({"KID": (kid.kimg, kid.value)}, "kimg", "KID"),
        *(
            html_page.figure(html_page.contact_sheet(images, 4), f"after {done:g} kimg")
            for done, images in zip(history.grid_kimg, history.grids, strict=True)
        ),
    ]
