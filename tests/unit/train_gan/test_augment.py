import numpy as np
import pytest
from keras import ops

from components.train_gan.augment import RANDOM_VALUES, diffaugment
from components.train_gan.gradients import with_input_gradient


def independent(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the same by loops, after the published description."""
    side = len(image)
    image = image + (values[0] - 0.5)
    grey = image.mean(2, keepdims=True)
    image = (image - grey) * (values[1] * 2) + grey
    image = (image - image.mean()) * (values[2] + 0.5) + image.mean()
    most = side // 8
    down, across = (int(value * (2 * most + 1)) - most for value in values[3:5])
    moved = np.zeros_like(image)
    for y in range(side):
        for x in range(side):
            if 0 <= y - down < side and 0 <= x - across < side:
                moved[y, x] = image[y - down, x - across]
    cut = side // 2
    top, left = (int(value * (side + 1 - cut % 2)) - cut // 2 for value in values[5:7])
    for y in range(top, top + cut):
        for x in range(left, left + cut):
            if 0 <= y < side and 0 <= x < side:
                moved[y, x] = 0
    return moved


@pytest.mark.parametrize("side", [16, 18, 32])
def test_diffaugment_equals_an_independent_implementation(side: int) -> None:
    rng = np.random.default_rng(side)
    images = rng.uniform(-1, 1, (12, side, side, 3)).astype(np.float32)
    values = rng.random((12, RANDOM_VALUES)).astype(np.float32)
    values[0], values[1] = 0, np.nextafter(np.float32(1), np.float32(0))  # the ends of the range
    output = np.asarray(diffaugment(ops.convert_to_tensor(images), values))
    expected = np.stack([independent(*pair) for pair in zip(images.astype(np.float64), values, strict=True)])
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_diffaugment_with_neutral_values_only_cuts_out_a_square() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)
    values = np.tile(np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.0, 0.0], np.float32), (3, 1))
    output = np.asarray(diffaugment(ops.convert_to_tensor(images), values))
    np.testing.assert_allclose(output[:, 4:, 4:], images[:, 4:, 4:], atol=1e-6)
    assert (output[:, :4, :4] == 0).all()  # the corner of the square that is cut out


def test_diffaugment_has_a_gradient_of_one_where_the_image_is_visible() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    values = np.random.default_rng(1).random((4, RANDOM_VALUES)).astype(np.float32)
    values[:, :3] = 0.5  # unchanged colours: the gradient of the sum is 1 where a pixel is visible, else 0
    _, gradient = with_input_gradient(lambda x: ops.sum(diffaugment(x, values)), ops.convert_to_tensor(images))
    seen = np.asarray(diffaugment(ops.ones_like(images), values)).sum()
    assert np.unique(np.round(np.asarray(gradient), 5)).tolist() == [0, 1]
    assert np.asarray(gradient).sum() == pytest.approx(seen, rel=1e-5)
