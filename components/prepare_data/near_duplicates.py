"""Detect near-duplicates: two files of one image.

Each may have been re-encoded, scaled, brightened, cropped by up to about 3 % around the centre, flipped or rotated by
a quarter. Other crops, such as a square from a 4:3 photograph, are not detected.

Nevi are similar at coarse scales: a 64-bit perceptual hash flags thousands of unrelated pairs in HAM10000. This hash
has 256 bits, and the pixels decide where they are available. Another photograph of the same lesion is not a
near-duplicate; only the lesion id reveals it.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from components.shared.dihedral import iter_positions
from components.shared.errors import UserError

THUMBNAIL_PX = 32
"""Height and width of the grey thumbnails that are compared, in pixels."""
NEAR_BITS = 60
"""Maximum number of different bits of two hashes for which the thumbnails are compared."""
NEAR_COARSE_BITS = 12
"""The same for the 64 bits of the coarsest pattern, which are compared first."""
DUPLICATE_BITS = 24
"""Maximum number of different bits of near-duplicates if there are no thumbnails to compare."""
MIN_AGREEMENT, MIN_AGREEMENT_OF_SIMILAR = 0.98, 0.95
"""Minimum agreement of two thumbnails of near-duplicates: in general, and if at most `DUPLICATE_BITS` bits differ."""
MAX_PAIRS = 100_000
"""More pairs are an error: a few hundred copies of one image have as many; pairs of thousands fill the memory."""
HASHED_IMAGES, QUERY_IMAGES, COMPARED_PAIRS = 4096, 128, 4096
"""Images that are hashed, whose hashes, and pairs whose thumbnails are compared at a time; they bound the memory."""
MIN_PATTERN_BITS = 8
"""Minimum number of set coarse bits; an image with fewer has no pattern and matches nothing."""

# The lowest 16 rows of the discrete cosine transform (DCT-II) of 32 values: (16, 32).
_ANGLES = np.pi * np.outer(np.arange(16), 2 * np.arange(THUMBNAIL_PX) + 1) / (2 * THUMBNAIL_PX)
_COSINES = np.cos(_ANGLES).astype(np.float32)
_ROW, _COLUMN = np.divmod(np.arange(256), 16)
_COARSEST_FIRST = np.argsort(np.maximum(_ROW, _COLUMN) >= 8, kind="stable")


def thumbnail(image: Image.Image) -> bytes:
    """Return the bytes of a grey thumbnail: (32, 32) uint8 in [0, 255]."""
    return image.convert("L").resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS).tobytes()


def _hash_words(thumbnails: np.ndarray) -> np.ndarray:
    """Return the hashes of (…, 32, 32) thumbnails as (…, 4) uint64, the coarsest pattern first."""
    # Subtracting the mean makes a uniform image exactly zero; otherwise its signs would be rounding errors.
    centred = thumbnails - thumbnails.mean(axis=(-2, -1), keepdims=True, dtype=np.float32)
    signs = (_COSINES @ centred @ _COSINES.T).reshape(*thumbnails.shape[:-2], 256) > 0
    return np.ascontiguousarray(np.packbits(signs[..., _COARSEST_FIRST], axis=-1)).view(np.uint64)


def perceptual_hashes(thumbnails: np.ndarray) -> list[str]:
    """Return the perceptual hash of each thumbnail.

    It holds the signs of the 16 × 16 coarsest coefficients of the discrete cosine transform, the 8 × 8 coarsest first.
    C. Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010), uses 64 of them.

    Args:
        thumbnails: (N, 32, 32) uint8.

    Returns:
        N strings of 64 hexadecimal digits.
    """
    starts = range(0, len(thumbnails), HASHED_IMAGES)
    return [words.tobytes().hex() for at in starts for words in _hash_words(thumbnails[at : at + HASHED_IMAGES])]


def _find_near_hashes(
    queries: np.ndarray, others: np.ndarray, groups: np.ndarray, known_groups: np.ndarray
) -> np.ndarray:
    """Return (P, 4) of n, position, m and distance in bits: where `queries` (N, 8, 4) is near `others` (M, 4).

    Only images of different groups, (N,) and (M,) int64, are compared.
    """
    candidates = [np.empty((0, 4), np.int64)]
    patterned = np.flatnonzero(np.bitwise_count(queries[:, 0]).sum(axis=1) >= MIN_PATTERN_BITS)
    for start in range(0, len(others), 8192):  # a block's intermediate results fit into the CPU cache
        block = others[start : start + 8192]
        coarse = np.ascontiguousarray(block[:, 0])
        for n in patterned:
            near = np.flatnonzero(np.bitwise_count(queries[n, :, :1] ^ coarse) <= NEAR_COARSE_BITS)
            position, m = np.divmod(near, len(block))
            other_group = known_groups[start + m] != groups[n]
            position, m = position[other_group], m[other_group]
            apart = np.bitwise_count(queries[n, position] ^ block[m]).sum(axis=1, dtype=np.int64)
            pairs = np.stack([np.full(len(m), n), position, start + m, apart], axis=1)
            candidates.append(pairs[apart <= NEAR_BITS])
    return np.concatenate(candidates)


def _band_pass(thumbnails: np.ndarray) -> np.ndarray:
    """Band-pass filter thumbnails: (N, 32, 32) float32.

    Structures coarser than about 10 pixels are common to all nevi; those finer than 2 pixels are JPEG artefacts.
    """
    index = np.arange(THUMBNAIL_PX)
    frequency = np.pi * index / THUMBNAIL_PX  # radians per pixel
    basis = np.cos(np.outer(index, index + 0.5) * np.pi / THUMBNAIL_PX) * np.sqrt(2 / THUMBNAIL_PX)
    basis[0] /= np.sqrt(2)
    squared = frequency[:, None] ** 2 + frequency**2
    passed = np.exp(-(0.7**2) * squared / 2) - np.exp(-(3.0**2) * squared / 2)  # Gaussians of 0.7 and 3 pixels
    basis = basis.astype(np.float32)
    return basis.T @ (passed.astype(np.float32) * (basis @ thumbnails.astype(np.float32) @ basis.T)) @ basis


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how well each first image explains the second, up to lighting and small motions.

    This is the share of variance that a linear regression explains. Its regressors are the first image, its
    derivatives, and the derivatives times the position: to first order, the effect of a shift, scaling or shear of
    about a pixel (B. Lucas and T. Kanade, 1981).

    Args:
        first, second: (N, 32, 32) uint8 thumbnails.

    Returns:
        (N,) float32, at most 1; 0 if the second image has no pattern.
    """
    a, b = _band_pass(first), _band_pass(second)
    down, across = np.gradient(a, axis=(1, 2))
    y, x = np.mgrid[-1 : 1 : THUMBNAIL_PX * 1j, -1 : 1 : THUMBNAIL_PX * 1j].astype(np.float32)
    terms = [a, np.ones_like(a), down, y * down, x * down, across, y * across, x * across]
    inner = np.s_[:, 2:-2, 2:-2]  # at the border, a motion reveals pixels from outside
    design = np.stack([term[inner].reshape(len(a), 28 * 28) for term in terms], axis=2)
    target = b[inner].reshape(len(a), 28 * 28, 1)
    transposed = design.swapaxes(1, 2)
    fit = np.linalg.solve(transposed @ design + 1e-3 * np.eye(len(terms), dtype=np.float32), transposed @ target)
    rest = ((target - design @ fit) ** 2).sum(axis=(1, 2))
    total = ((target - target.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2))
    pattern = np.sqrt(total / target.shape[1]) > 0.5  # grey levels
    return np.where(pattern, 1 - rest / np.maximum(total, 1e-6), 0)


def pairs(
    thumbnails: np.ndarray,
    known_hashes: Sequence[str],
    known: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    known_groups: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    known_rows: np.ndarray | None = None,
) -> np.ndarray:
    """Return the near-duplicates between images and known images, in any of the eight flips and rotations.

    2,550 images and 8,499 known ones take a third of a second; 30,000 and 100,000 take a minute. Each image needs
    1 kB of memory.

    Args:
        thumbnails: (N, 32, 32) uint8.
        known_hashes: M perceptual hashes.
        known: (M, 32, 32) uint8, their thumbnails; without them, the hashes alone decide and cropped
            duplicates are missed.
        groups, known_groups: (N,) and (M,) int64; images of the same group, such as a lesion, are not paired.
        rows, known_rows: (N,) and (M,) int64; the images are these rows of `thumbnails` and `known`, so that
            memory-mapped ones need not be copied. All rows by default.

    Returns:
        (P, 2) int64 of n and m, sorted.

    Raises:
        UserError: `leakage.too_many_pairs`: there are more than `MAX_PAIRS`.
    """
    others = np.frombuffer(bytes.fromhex("".join(known_hashes)), np.uint64).reshape(-1, 4)
    rows = np.arange(len(thumbnails)) if rows is None else rows
    known_rows = np.arange(len(others)) if known_rows is None else known_rows
    groups = np.full(len(rows), -1) if groups is None else groups
    known_groups = np.full(len(others), -2) if known_groups is None else known_groups
    found: set[tuple[int, int]] = set()
    for start in range(0, len(rows), QUERY_IMAGES):
        views = np.stack(list(iter_positions(thumbnails[rows[start : start + QUERY_IMAGES]])), axis=1)
        near = _find_near_hashes(_hash_words(views), others, groups[start : start + QUERY_IMAGES], known_groups)
        for chunk in range(0, len(near), COMPARED_PAIRS):
            n, position, m, apart = near[chunk : chunk + COMPARED_PAIRS].T
            same = apart <= DUPLICATE_BITS
            if known is not None:
                required = np.where(same, MIN_AGREEMENT_OF_SIMILAR, MIN_AGREEMENT)
                compared = apart > 0
                agreements = agreement(known[known_rows[m[compared]]], views[n[compared], position[compared]])
                same[compared] = agreements > required[compared]
            found.update(zip((start + n[same]).tolist(), m[same].tolist(), strict=True))
            if len(found) > MAX_PAIRS:
                raise UserError(
                    f"more than {MAX_PAIRS:,} pairs of images are near-duplicates",
                    "give images of one lesion the same lesion_id, or remove repeated images",
                    "leakage.too_many_pairs",
                    limit=MAX_PAIRS,
                )
    return np.array(sorted(found), np.int64).reshape(-1, 2)
