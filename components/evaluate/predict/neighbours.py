"""Nearest training images of synthetic images, in the features of a classifier: a second search for copies."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial.distance import cdist

from components.shared.image_set import decode_png, iter_tables

SEARCHED_IMAGES = 256
"""Maximum number of synthetic images per class whose nearest training images are searched."""
_BATCH_IMAGES = 32
_CHUNK_ROWS = 64


@dataclass(frozen=True)
class NearestImages:
    """Synthetic images of a class and their nearest training images, the nearest pair first.

    Attributes:
        rows: (N,) int64, numbers of the synthetic images within their set.
        partners: (N,) int64, numbers of the training images among those of the class.
        names: ids of the training images, in the order of `partners`.
        distances: (N,) float64, in units of the median distance from a real training image to the nearest one of
            another lesion; NaN if the class has one lesion.
    """

    rows: np.ndarray
    partners: np.ndarray
    names: list[str]
    distances: np.ndarray


def decode_table(table: pa.Table) -> list[np.ndarray]:
    """Return the (H, W, 3) uint8 images of a table's rows."""
    return [decode_png(png) for png in pc.struct_field(table.column("image"), "bytes").to_pylist()]


def _embed(
    extractor: Any, path: str | Path, dx: str, limit: int | None = None
) -> tuple[np.ndarray, list[Any], list[str]]:
    """Return (N, D) float32 features, lesion ids and image ids of a class; a few images are decoded at a time."""
    features, lesions, names, left = [], [], [], limit
    for whole in iter_tables(path, dx):
        table = whole.slice(0, left)
        for start in range(0, table.num_rows, _BATCH_IMAGES):
            images = np.stack(decode_table(table.slice(start, _BATCH_IMAGES))).astype(np.float32)
            features.append(np.asarray(extractor(images, training=False)))
        lesions += table.column("lesion_id").to_pylist()
        names += table.column("image_id").to_pylist()
        left = None if left is None else left - table.num_rows
        if left == 0:
            break
    return np.concatenate(features) if features else np.empty((0, 0), np.float32), lesions, names


def find_nearest(
    features: np.ndarray, others: np.ndarray, forbidden: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest of `others` to each row by Euclidean distance, a few rows at a time.

    Args:
        features, others: (N, D) and (M, D) float.
        forbidden: (N, M) bool, pairs to ignore.

    Returns:
        (N,) int64 row of `others`, and (N,) float64 distance, infinite if all pairs are forbidden.
    """
    rows, distances = [np.empty(0, np.int64)], [np.empty(0)]
    for start in range(0, len(features), _CHUNK_ROWS):
        part = slice(start, start + _CHUNK_ROWS)
        apart = cdist(features[part], others)
        if forbidden is not None:
            apart[forbidden[part]] = np.inf
        rows.append(apart.argmin(1))
        distances.append(apart.min(1))
    return np.concatenate(rows), np.concatenate(distances)


def search_neighbours(
    extractor: Any, train_set: str | Path, synthetic_set: str | Path, dx: str
) -> tuple[NearestImages | None, int]:
    """Return the nearest training images of a class's synthetic images, and the number of searched images."""
    real, lesions, names = _embed(extractor, train_set, dx)
    synthetic, _, _ = _embed(extractor, synthetic_set, dx, SEARCHED_IMAGES)
    if not len(real) or not len(synthetic):
        return None, 0
    _, number = np.unique(np.array(lesions, str), return_inverse=True)
    _, between_lesions = find_nearest(real, real, number[:, None] == number[None, :])
    finite = between_lesions[np.isfinite(between_lesions)]
    unit = float(np.median(finite)) if len(finite) else 0.0
    partners, distances = find_nearest(synthetic, real)
    order = np.argsort(distances, kind="stable")
    relative = distances[order] / unit if unit else np.full(len(order), np.nan)
    return NearestImages(order, partners[order], [names[row] for row in partners[order]], relative), len(synthetic)
