"""Sample-quality metrics: KID, density and coverage in a feature space, and texture in pixels."""

from collections.abc import Iterator

import numpy as np

NEIGHBOURS = 5
MIN_REAL_IMAGES = 8
"""With fewer validation images of a class, its training images are added to the reference."""
BLOCK_PAIRS = 4_000_000
"""Maximum number of pairs of images in memory at a time, of two sets of at most 2,000 images all: 32 MB per array."""


def _row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of rows so that memory grows with the number of columns only, not with that of pairs."""
    size = max(1, BLOCK_PAIRS // columns)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def kid(real: np.ndarray, fake: np.ndarray, groups: np.ndarray | None = None) -> float:
    """Return the Kernel Inception Distance (Bińkowski et al., arXiv 1801.01401) between two sets of features.

    It is the unbiased squared maximum mean discrepancy with the kernel (x·y/d + 1)³ over all images at once: a class
    has tens of them, and subsets would only add noise. The estimate may be below 0.

    Args:
        real: (M, d) float, M ≥ 2.
        fake: (N, d) float, N ≥ 2.
        groups: (M,) int, the group of each real image; if given, the real set counts as one in which all groups are
            equally frequent.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def mean_of_pairs(a: np.ndarray, group: np.ndarray) -> float:
        size, total, weight = np.bincount(group)[group], 0.0, 0.0
        for rows in _row_blocks(len(a), len(a)):
            pairs = 1 / (size[rows, None] * (size - (group[rows, None] == group)).clip(1))
            np.fill_diagonal(pairs[:, rows], 0)
            total += float((pairs * kernel(a[rows], a)).sum())
            weight += float(pairs.sum())
        return total / weight

    real, fake = real.astype(np.float64), fake.astype(np.float64)
    groups = np.zeros(len(real), int) if groups is None else np.unique(groups, return_inverse=True)[1]
    weights = 1 / np.bincount(groups)[groups]
    blocks = _row_blocks(len(real), len(fake))
    between = sum(float((weights[rows] @ kernel(real[rows], fake)).sum()) for rows in blocks)
    between /= float(weights.sum()) * len(fake)
    return mean_of_pairs(real, groups) + mean_of_pairs(fake, np.zeros(len(fake), int)) - 2 * between


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances between the rows of (M, d) and of (N, d): (M, N) float64.

    The error is about 1e-6 of the length of a row.
    """
    squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squared, 0))


def neighbour_radii(real: np.ndarray, k: int) -> np.ndarray:
    """Return the distance of each row of (M, d) to its k-th nearest other row, or to the farthest one: (M,)."""
    radii, place = np.empty(len(real)), min(k, len(real) - 1)
    for rows in _row_blocks(len(real), len(real)):
        apart = distances(real[rows], real)
        np.fill_diagonal(apart[:, rows], 0)
        radii[rows] = np.partition(apart, place, axis=1)[:, place]
    return radii


def density_and_coverage(
    real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS, group: int | None = None
) -> tuple[float, float]:
    """Return density and coverage (Naeem et al., arXiv 2002.09797).

    Each real image is the centre of a ball that reaches to its k-th nearest real neighbour. Coverage grows with the
    number of synthetic images until even those of other classes cover everything. It is therefore the mean over
    disjoint groups of synthetic images, each of M: as many as there are real ones.

    Args:
        real: (M, d) float, M ≥ 2; if M ≤ k, balls reach to the farthest real image and k is M - 1.
        fake: (N, d) float, N ≥ 1; with N < M, coverage is that of one smaller group.
        k: neighbours.
        group: number of synthetic images in a group, if not M: coverages are comparable if it is the same.

    Returns:
        Density: mean number of balls that contain a synthetic image, over k; about 1 for real images.
        Coverage: share of balls that contain a synthetic image, in [0, 1]; about 1 - 2⁻ᵏ for real images (section 3.3).
    """
    k = min(k, len(real) - 1)
    radii, group = neighbour_radii(real, k), min(group or len(real), len(fake))
    starts = range(0, len(fake) - group + 1, group)
    inside, covered = 0, np.zeros(len(starts))
    for rows in _row_blocks(len(real), len(fake)):
        near = distances(real[rows], fake) < radii[rows, None]
        inside += int(near.sum())
        covered += [near[:, start : start + group].any(axis=1).sum() for start in starts]
    return inside / (k * len(fake)), float(np.mean(covered / len(real)))


def spectra(images: np.ndarray) -> np.ndarray:
    """Return the power of each grey image at each spatial frequency.

    Args:
        images: (N, S, S, 3) uint8.

    Returns:
        (N, S / √2 rounded down + 1) float64: column k is the mean power at k to k + 1 cycles per side, without that of
        the mean grey level. Column S // 2 has a wavelength of 2 pixels across or down; the last has a checkerboard.
    """
    side = images.shape[1]
    window = np.outer(np.hanning(side), np.hanning(side))  # else the image's edges count as detail
    cycles = np.fft.fftfreq(side, 1 / side)
    radius = np.hypot(cycles, cycles[:, None]).astype(int).ravel()
    size = np.bincount(radius)
    rounding = (window**2).sum() / 12  # the power of rounding to whole grey levels: an even image has no less
    powers = np.empty((len(images), len(size)))
    for image, power in zip(images, powers, strict=True):
        grey = image.mean(axis=2)
        whole = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
        power[:] = np.bincount(radius, whole.ravel()) / size + rounding
    return powers


def texture(real: np.ndarray, fake: np.ndarray) -> float:
    """Return the fine detail of synthetic images as a share of that of real ones.

    1 is as much detail, near 0 is smooth, above 1 is noise or a pattern. KID in a classifier's features hardly reacts
    to it. The figure is the power of the grey images at each wavelength from 2 to 6 pixels (Durall et al., arXiv
    2003.01826), mean over the images; the ratio of the two; the geometric mean over the wavelengths.

    Args:
        real: (M, S, S, 3) uint8, M ≥ 1, S ≥ 6.
        fake: (N, S, S, 3) uint8, N ≥ 1.
    """
    fine = slice(real.shape[1] // 6 + 1, real.shape[1] // 2 + 1)
    fake_power, real_power = (spectra(images)[:, fine].mean(axis=0) for images in (fake, real))
    return float(np.exp(np.log(fake_power / real_power).mean()))
