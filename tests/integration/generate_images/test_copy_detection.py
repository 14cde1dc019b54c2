import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from components.generate_images import copy_detection
from components.generate_images.copy_detection import (
    FALSE_POSITIVE_RATE,
    MAX_THRESHOLD,
    MIN_HELD_OUT_IMAGES,
    MIN_THRESHOLD,
    CopyCheck,
    _patterns,
    estimate_threshold,
)
from components.shared.dihedral import iter_positions
from tests.integration.generate_images.conftest import Demo


def compute_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the distance of two 32 px images by other means: SciPy's Gaussians and NumPy's correlation."""

    def pattern(image: np.ndarray) -> np.ndarray:
        grey = image.astype(float).mean(2)
        # At the border, only the part of the kernel that is inside the image counts.
        inside = [gaussian_filter(np.ones((32, 32)), sigma, mode="constant", truncate=10) for sigma in (1, 4)]
        fine, coarse = (gaussian_filter(grey, sigma, mode="constant", truncate=10) for sigma in (1, 4))
        return fine / inside[0] - coarse / inside[1]

    fixed = pattern(b)[2:30:2, 2:30:2].ravel()
    best = -1.0
    for flipped in (pattern(a), np.fliplr(pattern(a))):
        for quarters in range(4):
            for down in range(5):
                for across in range(5):
                    shifted = np.rot90(flipped, quarters)[down : down + 28 : 2, across : across + 28 : 2]
                    best = max(best, float(np.corrcoef(shifted.ravel(), fixed)[0, 1]))
    return 1 - best


def test_nearest_agrees_with_an_independent_implementation(demo: Demo) -> None:
    training, held_out = demo.images["train"]["df"][:6], demo.images["validation"]["df"][:4]
    distance, nearest, position = CopyCheck(training, np.arange(6), held_out).nearest(held_out)
    expected = np.array([[compute_distance(a, b) for b in training] for a in held_out])
    # Float32 patterns of values up to 255: 1e-5 of a grey level in patterns whose deviation is at least 0.1.
    np.testing.assert_allclose(distance, expected.min(axis=1), atol=1e-4)
    np.testing.assert_array_equal(nearest, expected.argmin(axis=1))
    # In the returned position, the image agrees best without a flip or rotation.
    for image, row, number in zip(held_out, nearest, position, strict=True):
        moved = list(iter_positions(image[None]))[number]
        _, _, remaining = CopyCheck(training[row : row + 1], np.arange(1), held_out).nearest(moved)
        assert remaining[0] == 0


def make_copies(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return copies of each kind that a GAN or a careless user may produce."""
    rng, values = np.random.default_rng(0), images.astype(float)

    def compress(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=40)
        return np.asarray(Image.open(buffer))

    copies = {
        "exact": values,
        "noise": values + rng.normal(0, 10, values.shape),
        "brightness": 0.8 * values + 40,
        "tint": values * [1.1, 1, 0.9],
        "blur": gaussian_filter(values, (0, 0.7, 0.7, 0)),
        "shift": np.roll(values, (1, -2), (1, 2)),
        "JPEG": np.stack([compress(image) for image in images]),
    }
    copies |= {f"position {number}": moved for number, moved in enumerate(iter_positions(values))}
    return {name: np.clip(np.rint(image), 0, 255).astype(np.uint8) for name, image in copies.items()}


@pytest.mark.parametrize("dx", ["bkl", "mel"])
def test_copy_check_detects_planted_copies(demo: Demo, dx: str) -> None:
    training = demo.images["train"][dx]
    check = CopyCheck(training, demo.lesions[dx], demo.images["validation"][dx])
    for name, images in make_copies(training[:20]).items():
        distance, nearest, _ = check.nearest(images)
        is_copy = distance < check.threshold
        assert is_copy.mean() >= 0.9, name
        assert (nearest[is_copy] == np.arange(20)[is_copy]).all(), name


def test_copy_check_passes_images_of_other_lesions(demo: Demo) -> None:
    check = CopyCheck(demo.images["train"]["nv"], demo.lesions["nv"], demo.images["validation"]["nv"])
    images = demo.images["test"]["nv"]
    expected = FALSE_POSITIVE_RATE * len(images)
    # Three standard deviations; lesions of up to four images make at most four times the variance of single images.
    assert (check.nearest(images)[0] < check.threshold).sum() <= expected + 3 * np.sqrt(4 * expected)


def test_threshold_with_many_held_out_images_uses_only_these(demo: Demo) -> None:
    training, held_out = demo.images["train"]["nv"], np.concatenate([demo.images["validation"]["nv"]] * 2)
    assert len(held_out) >= MIN_HELD_OUT_IMAGES
    check = CopyCheck(training, demo.lesions["nv"], held_out)
    distances = np.sort(check.nearest(held_out)[0])
    # The 1 % of a further image are at rank 0.01 · (N + 1), counted from 1, between the first two distances.
    rank = FALSE_POSITIVE_RATE * (len(held_out) + 1)
    assert 1 <= rank < 2
    assert check.threshold == pytest.approx(distances[0] + (rank - 1) * (distances[1] - distances[0]))


def test_threshold_with_few_held_out_images_includes_training_images_of_other_lesions(demo: Demo) -> None:
    held_out = demo.images["validation"]["nv"][:3]
    training = np.repeat(demo.images["train"]["vasc"][::2], 2, axis=0)  # two identical images of each lesion
    lesions = np.arange(len(training)) // 2
    check = CopyCheck(training, lesions, held_out)
    distances = check.distances(training)[0]
    distances[lesions[:, None] == lesions] = np.inf
    expected = np.concatenate([check.nearest(held_out)[0], distances.min(axis=1)])
    assert len(expected) < MIN_HELD_OUT_IMAGES
    assert check.threshold == pytest.approx(min(MAX_THRESHOLD, expected[expected >= MIN_THRESHOLD].min()))


def test_copy_check_needs_no_memory_for_each_pair_of_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand images have a million pairs, of 4 bytes each, in one array; the patterns and a block have 2 MB."""
    monkeypatch.setattr(copy_detection, "BLOCK_IMAGES", 8)
    training = np.random.default_rng(0).integers(0, 256, (1_000, 16, 16, 3)).astype(np.uint8)
    tracemalloc.start()
    CopyCheck(training, np.arange(1_000), training[:2])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6


def test_threshold_excludes_one_image_with_two_lesion_ids(demo: Demo) -> None:
    training = np.repeat(demo.images["train"]["vasc"][::2], 2, axis=0)
    check = CopyCheck(training, np.arange(len(training)), demo.images["validation"]["nv"][:3])
    assert check.threshold >= MIN_THRESHOLD
    assert (check.nearest(training)[0] < check.threshold).all()


@pytest.mark.parametrize(("count", "rate"), [(40, 1 / 41), (120, 0.01), (250, 0.01)])
def test_estimate_threshold_flags_another_image_at_the_stated_rate(count: int, rate: float) -> None:
    rng, trials = np.random.default_rng(0), 4000
    distances = rng.uniform(2 * MIN_THRESHOLD, MAX_THRESHOLD, size=(trials, count + 1))
    flagged = sum(float(row[0]) < estimate_threshold(row[1:]) for row in distances)
    # Four standard deviations of a binomial count.
    assert abs(flagged - trials * rate) < 4 * np.sqrt(trials * rate)


def test_estimate_threshold_without_a_distance_is_the_smallest() -> None:
    assert estimate_threshold(np.array([0.0, 0.005, np.inf])) == MIN_THRESHOLD
    assert estimate_threshold(np.array([0.9, 1.0])) == MAX_THRESHOLD


def test_copy_check_with_one_training_image_uses_the_largest_threshold() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 48, 3), dtype=np.uint8)
    check = CopyCheck(noise[:1], np.zeros(1), noise[1:2])
    # By the distance of one held-out image, every second other image would be a copy.
    assert check.nearest(noise[1:2])[0] > MAX_THRESHOLD == check.threshold
    assert (check.nearest(noise)[0] < MAX_THRESHOLD).tolist() == [True] + 19 * [False]


def test_copy_check_of_uniform_images_is_finite() -> None:
    uniform = np.full((3, 48, 48, 3), 120, np.uint8)
    np.testing.assert_allclose(_patterns(uniform), 0, atol=1e-3)
    distance, nearest, _ = CopyCheck(uniform[:1], np.zeros(1), uniform[:1]).nearest(uniform)
    assert np.isfinite(distance).all()
    assert nearest.tolist() == [0, 0, 0]
