"""Separability of samples whose difference is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from components.generate_images.separability import FOLDS, MIN_IMAGES, RINGS, ring_powers, separability


def make_images(rng: np.random.Generator, count: int, side: int = 32) -> np.ndarray:
    """Return images with detail at all wavelengths and an individual colour."""
    colour = rng.normal((180, 130, 120), 8, (count, 1, 1, 3))
    detail = rng.normal(0, 20, (count, side, side, 1)) + 4 * gaussian_filter(
        rng.normal(0, 20, (count, side, side, 1)), (0, 2, 2, 0)
    )
    return np.clip(np.rint(colour + detail), 0, 255).astype(np.uint8)


def mean_colours(images: np.ndarray) -> np.ndarray:
    """Return a simple kind of features: (N, 3)."""
    return np.asarray(images.mean(axis=(1, 2)))


def test_separability_of_two_samples_of_one_distribution_is_a_half() -> None:
    """The mean over 60 pairs of samples; four standard errors, estimated from the same 60 values."""
    rng = np.random.default_rng(0)
    values = [separability(rng.normal(size=(50, 6)), np.arange(50), rng.normal(size=(80, 6))) for _ in range(60)]
    assert abs(np.mean(values) - 0.5) < 4 * np.std(values) / 60**0.5
    # AUC of 50 × 80 values without a difference has a standard deviation of √((50 + 80 + 1) / (12 · 50 · 80)) = 0.052;
    # the bound is three of the means of five folds of 10 × 16, if these were fully correlated: 3 · √(27 / 1,920).
    assert max(abs(value - 0.5) for value in values if value is not None) < 0.36


def test_separability_of_real_images_is_near_a_half_and_of_changed_ones_near_1() -> None:
    rng = np.random.default_rng(1)
    real, same, other = (make_images(rng, 200) for _ in range(3))
    tinted = np.clip(other + np.array([30, 0, 0]), 0, 255).astype(np.uint8)  # almost four standard deviations of red
    blurred = gaussian_filter(other, (0, 1, 1, 0))
    lesions = np.arange(200)
    # 200 × 200 values have a standard deviation of √(401 / (12 · 200 · 200)) = 0.029; four of them.
    for measure in (mean_colours, ring_powers):
        assert separability(measure(real), lesions, measure(same)) == pytest.approx(0.5, abs=0.12)
    # AUC of two normal distributions that are d standard deviations apart is Φ(d / √2): 0.996 for d = 30 / 8 in red.
    assert separability(mean_colours(real), lesions, mean_colours(tinted)) == pytest.approx(1, abs=0.01)
    assert separability(ring_powers(real), lesions, ring_powers(blurred)) == 1
    # A tint is invisible in the spectrum of grey images.
    assert separability(ring_powers(real), lesions, ring_powers(tinted)) == pytest.approx(0.5, abs=0.12)


def test_separability_keeps_the_images_of_a_lesion_in_one_fold() -> None:
    """Eight images of a lesion are nearly one point; synthetic images have the same distribution as lesions.

    With more dimensions than lesions, a linear classifier can recognise each lesion that it was trained on.
    """
    rng = np.random.default_rng(2)
    grouped, ungrouped = [], []
    for _ in range(20):
        real = np.repeat(rng.normal(size=(15, 200)), 8, axis=0) + rng.normal(0, 0.01, (120, 200))
        fake = rng.normal(size=(120, 200))
        grouped.append(separability(real, np.repeat(np.arange(15), 8), fake))
        ungrouped.append(separability(real, np.arange(120), fake))
    assert abs(np.mean(grouped) - 0.5) < 4 * np.std(grouped) / 20**0.5
    assert np.mean(ungrouped) > 0.95


def test_separability_does_not_depend_on_the_number_of_synthetic_images() -> None:
    """Both kinds have equal weight. One standard deviation apart: Φ(1 / √2) = 0.760."""
    rng = np.random.default_rng(3)
    real = rng.normal(size=(300, 1))
    for count in (60, 600, 3_000):
        # √((300 + 60 + 1) / (12 · 300 · 60)) = 0.041 without a difference, and less with one; three of them.
        value = separability(real, np.arange(300), rng.normal(1, 1, size=(count, 1)))
        assert value == pytest.approx(0.760, abs=0.12)


def test_separability_is_deterministic_and_null_with_few_images() -> None:
    rng = np.random.default_rng(4)
    real, fake, lesions = rng.normal(size=(MIN_IMAGES, 3)), rng.normal(size=(MIN_IMAGES, 3)), np.arange(MIN_IMAGES)
    value = separability(real, lesions, fake)
    assert value is not None
    assert value == separability(real, lesions, fake)
    assert separability(real[1:], lesions[1:], fake) is None
    assert separability(real, lesions, fake[1:]) is None
    assert separability(real, lesions % FOLDS, fake) is not None
    assert separability(real, lesions % (FOLDS - 1), fake) is None
    assert separability(real, np.array([f"lesion {n}" for n in lesions]), fake) is not None
    assert separability(np.zeros((30, 3)), np.arange(30), np.zeros((30, 3))) == 0.5


def test_separability_with_one_large_lesion_has_real_images_in_every_fold() -> None:
    lesions = np.array([0] * 40 + [1, 2, 3, 4])
    rng = np.random.default_rng(5)
    assert separability(rng.normal(size=(44, 3)), lesions, rng.normal(9, 1, size=(44, 3))) == 1


@pytest.mark.parametrize("side", [16, 32, 33, 64])
def test_ring_powers_has_a_wave_in_the_ring_of_its_wavelength(side: int) -> None:
    def ring_of(cycles_down: float, cycles_across: float) -> int:
        y, x = np.mgrid[:side, :side] / side
        wave = 128 + 100 * np.cos(2 * np.pi * (cycles_down * y + cycles_across * x))
        grey = np.rint(wave).astype(np.uint8)[None, ..., None].repeat(3, axis=3)
        powers = ring_powers(grey)
        assert powers.shape == (1, RINGS)
        return int(powers.argmax())

    assert ring_of(1, 0) == 0
    # A wavelength of 2 pixels has 1 / √2 of the largest frequency, that of a checkerboard: 8 / √2 = 5.7 rings. The
    # window spreads it by one frequency, and rings are whole numbers of frequencies.
    assert ring_of(side // 2, 0) in (4, 5)
    assert ring_of(side // 2, side // 2) == RINGS - 1


def test_ring_powers_of_uniform_and_of_no_images() -> None:
    assert np.isfinite(ring_powers(np.full((2, 32, 32, 3), 90, np.uint8))).all()
    assert ring_powers(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, RINGS)
