"""Near-duplicates: one picture in two files, each saved, scaled, brightened, cropped a little, flipped or turned for
itself.

Two nevi look alike in everything coarse: a perceptual hash of 64 bits accuses thousands of innocent pairs of HAM10000.
Ours has 256 bits, and where the pixels are at hand, they decide. What it can't find is another photograph of the same
lesion: only the lesion's id tells that.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from components.shared.dihedral import iter_positions

SIDE = 32
"""Height and width of the grey thumbnail that a picture is compared by, in pixels."""
NEAR = 60
"""Bits of two hashes that may differ for the thumbnails to be compared."""
NEAR_COARSE = 12
"""The same for the 64 bits of the coarsest pattern, which are looked at first."""
SAME = 24
"""Bits that may differ where there are no thumbnails to compare."""
AGREEMENT, AGREEMENT_OF_SAME = 0.98, 0.95
"""From this on two thumbnails show one picture; the second is enough where the hashes are the same but for `SAME`."""
PLAIN = 8
"""Bits that are set in the hash of a picture with any pattern, at the least: two plain ones are no duplicates."""

# The lowest 16 rows of the discrete cosine transform (DCT-II) of 32 values: (16, 32).
_COSINES = np.cos(np.pi * np.outer(np.arange(16), 2 * np.arange(SIDE) + 1) / (2 * SIDE)).astype(np.float32)
_ROW, _COLUMN = np.divmod(np.arange(256), 16)
_COARSEST_FIRST = np.argsort(np.maximum(_ROW, _COLUMN) >= 8, kind="stable")


def thumbnail(image: Image.Image) -> bytes:
    """The bytes of (32, 32) uint8 in [0, 255], grey."""
    return image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS).tobytes()


def _words(thumbnails: np.ndarray) -> np.ndarray:
    """The hashes of (…, 32, 32) thumbnails: (…, 4) uint64, the coarsest pattern in the first."""
    # Without the mean a plain picture is exactly zero, and not what rounding leaves.
    centred = thumbnails - thumbnails.mean(axis=(-2, -1), keepdims=True, dtype=np.float32)
    signs = (_COSINES @ centred @ _COSINES.T).reshape(*thumbnails.shape[:-2], 256) > 0
    return np.ascontiguousarray(np.packbits(signs[..., _COARSEST_FIRST], axis=-1)).view(np.uint64)


def perceptual_hashes(thumbnails: np.ndarray) -> list[str]:
    """Of each thumbnail 64 hexadecimal digits: the signs of the 16 × 16 coarsest coefficients of its discrete cosine
    transform, the 8 × 8 coarsest first.

    After C. Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010), who takes 64 of them.

    Args:
        thumbnails: (N, 32, 32) uint8.
    """
    return [words.tobytes().hex() for words in _words(thumbnails)]


def _near(queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Where a hash of `queries` (N, 8, 4) is near one of `others` (M, 4): (P, 4) of n, position, m, bits apart."""
    found = [np.empty((0, 4), np.int64)]
    patterned = np.flatnonzero(np.bitwise_count(queries[:, 0]).sum(axis=1) >= PLAIN)
    for start in range(0, len(others), 8192):  # so many that what is made of them stays in the cache
        block = others[start : start + 8192]
        coarse = np.ascontiguousarray(block[:, 0])
        for n in patterned:
            near = np.flatnonzero(np.bitwise_count(queries[n, :, :1] ^ coarse) <= NEAR_COARSE)
            position, m = np.divmod(near, len(block))
            apart = np.bitwise_count(queries[n, position] ^ block[m]).sum(axis=1, dtype=np.int64)
            pairs = np.stack([np.full(len(m), n), position, start + m, apart], axis=1)
            found.append(pairs[apart <= NEAR])
    return np.concatenate(found)


def _filtered(thumbnails: np.ndarray) -> np.ndarray:
    """(N, 32, 32) float32 without what is coarser than some 10 pixels (all nevi share it) and finer than 2 (a JPEG
    makes it)."""
    frequency = np.pi * np.arange(SIDE) / SIDE  # radians a pixel
    basis = np.cos(np.outer(np.arange(SIDE), np.arange(SIDE) + 0.5) * np.pi / SIDE) * np.sqrt(2 / SIDE)
    basis[0] /= np.sqrt(2)
    squared = frequency[:, None] ** 2 + frequency**2
    kept = np.exp(-(0.7**2) * squared / 2) - np.exp(-(3.0**2) * squared / 2)  # Gaussians of 0.7 and 3 pixels
    basis = basis.astype(np.float32)
    return basis.T @ (kept.astype(np.float32) * (basis @ thumbnails.astype(np.float32) @ basis.T)) @ basis


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How much of each second picture is the first one, in another light and moved, scaled or sheared by a pixel or so.

    The share of variance that a linear regression explains: on the first picture, its derivatives, and these times
    the place, which is the first-order effect of such a movement (B. Lucas and T. Kanade, 1981).

    Args:
        first, second: (N, 32, 32) uint8 thumbnails.

    Returns:
        (N,) float32 up to 1; 0 for a picture without any pattern.
    """
    a, b = _filtered(first), _filtered(second)
    down, across = np.gradient(a, axis=(1, 2))
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    terms = [a, np.ones_like(a), down, y * down, x * down, across, y * across, x * across]
    inner = np.s_[:, 2:-2, 2:-2]  # at the border a movement brings in what was outside
    design = np.stack([term[inner].reshape(len(a), 28 * 28) for term in terms], axis=2)
    wanted = b[inner].reshape(len(a), 28 * 28, 1)
    transposed = design.swapaxes(1, 2)
    fit = np.linalg.solve(transposed @ design + 1e-3 * np.eye(len(terms), dtype=np.float32), transposed @ wanted)
    rest = ((wanted - design @ fit) ** 2).sum(axis=(1, 2))
    total = ((wanted - wanted.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2))
    pattern = np.sqrt(total / wanted.shape[1]) > 0.5  # grey levels
    return np.where(pattern, 1 - rest / np.maximum(total, 1e-6), 0)


def pairs(thumbnails: np.ndarray, known_hashes: Sequence[str], known: np.ndarray | None = None) -> np.ndarray:
    """The near-duplicates between some pictures and known ones, in any of the eight positions.

    A third of a second for 2,550 pictures and 8,499 known ones, a minute for 30,000 and 100,000; beyond a kilobyte a
    picture, memory does not grow with them.

    Args:
        thumbnails: (N, 32, 32) uint8.
        known_hashes: M perceptual hashes.
        known: (M, 32, 32) uint8, their thumbnails; without them the hashes alone decide, which finds no cropped one.

    Returns:
        (P, 2) int64 of n and m, sorted.
    """
    others = np.frombuffer(bytes.fromhex("".join(known_hashes)), np.uint64).reshape(-1, 4)
    found = []
    for start in range(0, len(thumbnails), 1024):
        views = np.stack(list(iter_positions(thumbnails[start : start + 1024])), axis=1)
        near = _near(_words(views), others)
        n, position, m, apart = near.T
        same = apart <= SAME
        if known is not None:
            wanted = np.where(same, AGREEMENT_OF_SAME, AGREEMENT)
            asked = apart > 0
            same[asked] = agreement(known[m[asked]], views[n[asked], position[asked]]) > wanted[asked]
        found.append(np.stack([start + n, m], axis=1)[same])
    return np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 2), np.int64)
