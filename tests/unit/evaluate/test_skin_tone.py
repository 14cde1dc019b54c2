"""The estimate of skin tone from the border of an image."""

import math

import numpy as np
import pytest

from components.evaluate.predict.skin_tone import estimate_tones, lab, tone, typology_angle


def image(skin: tuple[int, int, int], middle: tuple[int, int, int] = (90, 50, 40), size: int = 48) -> np.ndarray:
    """Return a lesion in the middle of skin."""
    pixels = np.empty((size, size, 3), np.uint8)
    pixels[:] = skin
    pixels[size // 4 : -size // 4, size // 4 : -size // 4] = middle
    return pixels


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((255, 255, 255), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
    ],
)  # fmt: skip
def test_lab_of_known_colours(colour: tuple[int, int, int], expected: tuple[float, float, float]) -> None:
    # The references have two decimals; the rounded matrix of sRGB adds some thousandths.
    np.testing.assert_allclose(lab(np.array(colour)), expected, atol=0.02)


def test_typology_angle_is_that_of_the_skin_and_not_of_the_lesion() -> None:
    lightness, _, yellow = lab(np.array((230, 200, 180)))
    expected = math.degrees(math.atan((lightness - 50) / yellow))
    for middle in ((90, 50, 40), (10, 10, 10), (255, 255, 255)):
        assert typology_angle(image((230, 200, 180), middle)) == pytest.approx(expected)


def test_typology_angle_ignores_the_frame_of_the_dermatoscope() -> None:
    framed = image((230, 200, 180))
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    framed[np.hypot(x, y) > 1.05] = 5
    assert typology_angle(framed) == pytest.approx(typology_angle(image((230, 200, 180))))
    framed[:] = 5
    assert math.isnan(typology_angle(framed))


def test_typology_angle_of_blue_is_unknown() -> None:
    assert math.isnan(typology_angle(image((80, 120, 230))))


def test_tone_has_three_bands() -> None:
    bands = [
        (90.0, "light"),
        (41.1, "light"),
        (41.0, "intermediate"),
        (10.1, "intermediate"),
        (10.0, "dark"),
        (-60.0, "dark"),
    ]
    assert [tone(angle) for angle, _ in bands] == [name for _, name in bands]
    assert tone(math.nan) is None
    shades = ((240, 210, 190), (190, 150, 120), (90, 60, 45))
    assert [tone(typology_angle(image(shade))) for shade in shades] == ["light", "intermediate", "dark"]


def test_estimate_tones_is_one_for_all_images_of_a_lesion() -> None:
    light, dark, none = image((240, 210, 190)), image((90, 60, 45)), image((80, 120, 230))
    images = np.stack([light, dark, light, none, none])
    assert estimate_tones(images, np.array(["a", "a", "a", "a", "b"])) == ["light"] * 4 + [None]
