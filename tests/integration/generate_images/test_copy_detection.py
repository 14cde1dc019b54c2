import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from components.generate_images.copy_detection import OTHER, SAME, CopyCheck, _patterns, positions
from tests.integration.generate_images.conftest import Demo


def test_the_eight_positions():
    image = np.arange(12).reshape(1, 2, 2, 3)
    expected = {np.rot90(side, k).tobytes() for side in (image[0], image[0, ::-1]) for k in range(4)}
    assert {position[0].tobytes() for position in positions(image)} == expected
    assert next(positions(image)) is image


def independent(a: np.ndarray, b: np.ndarray) -> float:
    """The distance of two 32 px images: SciPy's Gaussians, NumPy's correlation, one window at a time."""

    def pattern(image: np.ndarray) -> np.ndarray:
        grey = image.astype(float).mean(2)
        # At the border the kernel's part inside the picture is weighed anew.
        inside = [gaussian_filter(np.ones((32, 32)), width, mode="constant", truncate=10) for width in (1, 4)]
        fine, coarse = (gaussian_filter(grey, width, mode="constant", truncate=10) for width in (1, 4))
        return fine / inside[0] - coarse / inside[1]

    still = pattern(b)[2:30:2, 2:30:2].ravel()
    best = -1.0
    for side in (pattern(a), np.fliplr(pattern(a))):
        for turns in range(4):
            for down in range(5):
                for across in range(5):
                    moved = np.rot90(side, turns)[down : down + 28 : 2, across : across + 28 : 2]
                    best = max(best, float(np.corrcoef(moved.ravel(), still)[0, 1]))
    return 1 - best


def test_distances_against_an_independent_implementation(demo: Demo):
    training, held_out = demo.images["train"]["df"][:6], demo.images["validation"]["df"][:4]
    distance, nearest, position = CopyCheck(training, np.arange(6), held_out).nearest(held_out)
    expected = np.array([[independent(a, b) for b in training] for a in held_out])
    np.testing.assert_allclose(distance, expected.min(axis=1), atol=1e-4)
    np.testing.assert_array_equal(nearest, expected.argmin(axis=1))
    # In the position that is named, the image fits without being turned.
    for image, row, place in zip(held_out, nearest, position, strict=True):
        turned = list(positions(image[None]))[place]
        best = CopyCheck(training[row : row + 1], np.arange(1), held_out).nearest(turned)
        assert best[2][0] == 0


def planted(images: np.ndarray) -> dict[str, np.ndarray]:
    """Copies as a GAN, or a careless person, makes them."""
    rng, values = np.random.default_rng(0), images.astype(float)

    def saved(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=40)
        return np.asarray(Image.open(buffer))

    made = {
        "exact": values,
        "noise": values + rng.normal(0, 10, values.shape),
        "light": 0.8 * values + 40,
        "tint": values * [1.1, 1, 0.9],
        "blurred": gaussian_filter(values, (0, 0.7, 0.7, 0)),
        "moved": np.roll(values, (1, -2), (1, 2)),
        "saved": np.stack([saved(image) for image in images]),
    }
    made |= {f"turned {number}": turned for number, turned in enumerate(positions(values))}
    return {name: np.clip(np.rint(image), 0, 255).astype(np.uint8) for name, image in made.items()}


@pytest.mark.parametrize("dx", ["bkl", "mel"])
def test_planted_copies_are_found_and_other_lesions_are_not(demo: Demo, dx: str):
    training = demo.images["train"][dx]
    check = CopyCheck(training, demo.lesions[dx], demo.images["validation"][dx])
    for name, images in planted(training[:20]).items():
        distance, nearest, _ = check.nearest(images)
        assert (distance < check.threshold).mean() >= 0.9, name
        found = distance < check.threshold
        assert (nearest[found] == np.arange(20)[found]).all(), name
    others = demo.images["test"][dx]
    assert (check.nearest(others)[0] < check.threshold).sum() <= 1


def test_the_threshold(demo: Demo):
    training, held_out = demo.images["train"]["nv"], demo.images["validation"]["nv"]
    many = np.concatenate([held_out] * 2)
    check = CopyCheck(training, demo.lesions["nv"], many)
    assert len(many) >= 100
    assert check.threshold == pytest.approx(np.quantile(check.nearest(many)[0], 0.01))
    # With few, training images of other lesions join; an image of the same lesion is no measure.
    training = demo.images["train"]["vasc"]
    lesions = np.arange(len(training)) // 2
    twins = np.repeat(training[::2], 2, axis=0)[: len(training)]
    check = CopyCheck(twins, lesions, held_out[:3])
    own = check._distances(twins)[0]
    own[lesions[:, None] == lesions] = np.inf
    expected = np.concatenate([check.nearest(held_out[:3])[0], own.min(axis=1)])
    assert check.threshold == pytest.approx(np.quantile(expected[expected >= SAME], 0.01))
    assert check.threshold > SAME
    assert check.threshold < OTHER
    # One picture under two lesions' names does not switch the check off.
    assert CopyCheck(twins, np.arange(len(twins)), held_out[:3]).threshold > SAME


def test_one_training_image_and_nothing_to_see():
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 48, 3), dtype=np.uint8)
    check = CopyCheck(noise[:1], np.zeros(1), noise[1:2])
    # One held-out image is no percentile: by its distance alone, every second innocent image would be a copy.
    assert check.nearest(noise[1:2])[0] > OTHER == check.threshold
    assert (check.nearest(noise)[0] < OTHER).tolist() == [True] + 19 * [False]
    flat = np.full((3, 48, 48, 3), 120, np.uint8)
    np.testing.assert_allclose(_patterns(flat), 0, atol=1e-3)
    distance, nearest, _ = CopyCheck(flat[:1], np.zeros(1), flat[:1]).nearest(flat)
    assert np.isfinite(distance).all()
    assert nearest.tolist() == [0, 0, 0]
