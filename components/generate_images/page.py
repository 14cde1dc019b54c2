"""The contact sheet of a class's synthetic images."""

from typing import Any

import numpy as np

from components.generate_images.origins import Origin
from components.shared import html_page
from components.shared.arms import REALISM, SELECTIONS
from components.shared.records import SampleQuality


def stack_pairs(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return one image: synthetic images in the first row, real ones in the second."""
    images = [image for row in zip(*pairs, strict=True) for image in row]
    return html_page.contact_sheet(np.stack(images), len(pairs))


def render_parts(
    origin: Origin,
    quality: SampleQuality,
    required: int,
    first: np.ndarray,
    pairs: list[tuple[np.ndarray, np.ndarray]],
    copies: list[tuple[np.ndarray, np.ndarray]],
    worst: np.ndarray,
) -> list[Any]:
    """Return the parts of the page.

    Args:
        origin: where the images come from.
        quality: quality of the images.
        required: number of images that was requested.
        first: the first images, (N, S, S, 3) uint8.
        pairs: the images nearest to a training image, with that image.
        copies: dropped copies, with the training images that they replicate.
        worst: rejected images, (N, S, S, 3) uint8.
    """
    dx = origin.dx
    fewer = ""
    if quality.images < required:
        fewer = f"Fewer than the {required:,} requested. "
    met = "" if quality.meeting is None else f" {quality.meeting:,} samples met the condition of this selection."
    rejected = "as the worst" if quality.selection == REALISM else f"by a selection {SELECTIONS[quality.selection]}"
    parts: list[Any] = [
        f"{dx}: {quality.images:,} images {origin.describe()}. {fewer}{quality.drawn:,} images were sampled; "
        f"{quality.copies:,} were dropped as copies of training images, {quality.curated:,} were rejected "
        f"{rejected}.{met}"
    ]
    if quality.kid is not None and quality.density is not None and quality.coverage is not None:
        others = ""
        if quality.other_coverage is not None:
            others = f" (by as many real images of other classes: {quality.other_coverage:.2f})"
        parts.append(
            f"Against {quality.against} images: KID {quality.kid:.3f}, density {quality.density:.2f}, coverage "
            f"{quality.coverage:.2f}{others}. These use the run's feature extractor and are not comparable with "
            f"published figures. Texture (fine detail, as a share of the training images'): {quality.texture or 0:.2f}."
        )
    if quality.separability is not None and quality.separability_spectrum is not None:
        parts.append(
            "Separability, the AUC of a classifier that distinguishes real from synthetic images (.5: it cannot, 1: it "
            f"always can): {quality.separability:.2f} by features, {quality.separability_spectrum:.2f} by spectrum."
        )
    if quality.images:
        columns = min(8, len(first))
        rows = first[: len(first) // columns * columns]
        sheet = html_page.contact_sheet(rows, columns)
        parts.append(html_page.figure(sheet, f"{dx}: the first {len(rows)} images, not selected"))
        values = ", ".join(f"{pair.distance:.3f}" for pair in quality.nearest)
        caption = f"{dx}: the images nearest to a training image, which is below each; distances {values}"
        caption += f"; a copy's distance is below {quality.copy_threshold:.3f}"
        parts.append(html_page.figure(stack_pairs(pairs), caption))
    if copies:
        caption = f"{dx}: dropped as copies, above the training images that they replicate"
        parts.append(html_page.figure(stack_pairs(copies), caption))
    if len(worst):
        parts.append(html_page.figure(html_page.contact_sheet(worst, len(worst)), f"{dx}: rejected"))
    return parts
