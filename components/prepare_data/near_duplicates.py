"""Detect near-duplicates: two files of one image.

Each may have been re-encoded, scaled, brightened, cropped by up to about 3 % around the centre, flipped or rotated by
a quarter. Other crops, such as a square from a 4:3 photograph, are not detected.

Nevi are similar at coarse scales: a 64-bit perceptual hash flags thousands of unrelated pairs in HAM10000. This hash
has 256 bits, and the pixels decide where they are available. Another photograph of the same lesion is not a
near-duplicate; only the lesion id reveals it.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import pandas as pd
from PIL import Image

from components.prepare_data.hamming import HammingIndex
from components.shared.dihedral import iter_positions
from components.shared.errors import UserError
from components.shared.machine_limits import usable_cpus

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
HASHED_IMAGES, QUERY_IMAGES, COMPARED_PAIRS = 4096, 1024, 4096
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
    return [words.tobytes().hex() for words in hash_words(thumbnails)]


def hash_words(thumbnails: np.ndarray) -> np.ndarray:
    """Return the perceptual hash of (N, 32, 32) thumbnails as (N, 4) uint64; see `perceptual_hashes`."""
    words = np.empty((len(thumbnails), 4), np.uint64)
    for at in range(0, len(thumbnails), HASHED_IMAGES):
        words[at : at + HASHED_IMAGES] = _hash_words(thumbnails[at : at + HASHED_IMAGES])
    return words


def _find_near_hashes(
    queries: np.ndarray, coarse: HammingIndex, others: np.ndarray, groups: np.ndarray, known_groups: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield (P, 4) of n, position, m and distance in bits: where `queries` (N, 8, 4) is near `others` (M, 4).

    Only images of different groups, (N,) and (M,) int64, are compared.

    Args:
        coarse: the first words of `others`.
    """
    patterned = np.flatnonzero(np.bitwise_count(queries[:, 0]).sum(axis=1) >= MIN_PATTERN_BITS)
    for view, m in coarse.find(queries[patterned, :, 0].ravel()):
        n, position = np.divmod(view, queries.shape[1])
        n = patterned[n]
        other_group = known_groups[m] != groups[n]
        n, position, m = n[other_group], position[other_group], m[other_group]
        apart = np.bitwise_count(queries[n, position] ^ others[m]).sum(axis=1, dtype=np.int64)
        yield np.stack([n, position, m, apart], axis=1)[apart <= NEAR_BITS]


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
    known_hashes: Sequence[str] | pd.Series,
    known: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    known_groups: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    known_rows: np.ndarray | None = None,
) -> np.ndarray:
    """Return the near-duplicates between images and known images, in any of the eight flips and rotations.

    The time grows less than with the number of pairs: see `hamming` and the benchmark `scale`. Each known image needs
    90 bytes of memory.

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
    others = _parse(known_hashes)
    rows = np.arange(len(thumbnails)) if rows is None else rows
    known_rows = np.arange(len(others)) if known_rows is None else known_rows
    groups = np.full(len(rows), -1) if groups is None else groups
    known_groups = np.full(len(others), -2) if known_groups is None else known_groups
    coarse, one_at_a_time = HammingIndex(np.ascontiguousarray(others[:, 0]), NEAR_COARSE_BITS), Lock()

    def search(start: int) -> set[tuple[int, int]]:
        views = np.stack(list(iter_positions(thumbnails[rows[start : start + QUERY_IMAGES]])), axis=1)
        words = np.stack([_hash_words(view) for view in views])
        found: set[tuple[int, int]] = set()
        for near in _find_near_hashes(words, coarse, others, groups[start : start + QUERY_IMAGES], known_groups):
            for chunk in range(0, len(near), COMPARED_PAIRS):
                n, position, m, apart = near[chunk : chunk + COMPARED_PAIRS].T
                same = apart <= DUPLICATE_BITS
                if known is not None:
                    with one_at_a_time:  # the regressions need the most memory
                        same = _is_same(views[n, position], known, known_rows[m], apart)
                found.update(zip((start + n[same]).tolist(), m[same].tolist(), strict=True))
                _refuse_many(found)
        return found

    all_found: set[tuple[int, int]] = set()
    with ThreadPoolExecutor(usable_cpus()) as threads:
        try:
            for found in threads.map(search, range(0, len(rows), QUERY_IMAGES)):
                all_found |= found
                _refuse_many(all_found)
        except UserError:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return np.array(sorted(all_found), np.int64).reshape(-1, 2)


def _parse(hashes: Sequence[str] | pd.Series) -> np.ndarray:
    """Return perceptual hashes as (M, 4) uint64."""
    words = np.empty((len(hashes), 4), np.uint64)
    for at in range(0, len(hashes), HASHED_IMAGES):
        texts = "".join(hashes[at : at + HASHED_IMAGES])
        words[at : at + HASHED_IMAGES] = np.frombuffer(bytes.fromhex(texts), np.uint64).reshape(-1, 4)
    return words


def _is_same(views: np.ndarray, known: np.ndarray, known_rows: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Return which pairs of (P, 32, 32) thumbnails and rows of `known` are near-duplicates: (P,) bool.

    Args:
        apart: (P,) different bits of their hashes.
    """
    same, compared = apart <= DUPLICATE_BITS, apart > 0
    required = np.where(same, MIN_AGREEMENT_OF_SIMILAR, MIN_AGREEMENT)
    same[compared] = agreement(known[known_rows[compared]], views[compared]) > required[compared]
    return same


def _refuse_many(found: set[tuple[int, int]]) -> None:
    if len(found) > MAX_PAIRS:
        raise UserError(
            f"more than {MAX_PAIRS:,} pairs of images are near-duplicates",
            "give images of one lesion the same lesion_id, or remove repeated images",
            "leakage.too_many_pairs",
            limit=MAX_PAIRS,
        )
