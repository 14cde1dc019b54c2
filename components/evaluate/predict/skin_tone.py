"""Estimate the skin tone of an image from the skin at its border.

The individual typology angle (Chardon et al. 1991) of the border's median colour, as Kinyanjui et al. (2020, arXiv
1910.13268) use it for dermatoscopic images, in three bands instead of six. It is an estimate: light, camera and a
lesion that reaches the border change it.
"""

import numpy as np
import pandas as pd

SKIN_CLASSES = frozenset(("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"))
"""The classes of HAM10000. Data with other classes is not taken for images of skin."""
LIGHT_DEGREES, DARK_DEGREES = 41.0, 10.0
"""Angles above the first are light, up to the second dark: Chardon's limits of `light` and `tan`."""
BORDER = 1 / 12
"""Share of an image's side that its border is wide."""
MIN_LEVEL, MAX_LEVEL = 50, 250
"""Darker pixels belong to the frame of a dermatoscope, brighter ones to reflections; they are not skin."""
MIN_SHARE = 0.1
"""Share of the border's pixels that must be left."""
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = _TO_XYZ.sum(1)


def lab(colours: np.ndarray) -> np.ndarray:
    """Return CIELAB (1976, D65) of sRGB colours (IEC 61966-2-1).

    Args:
        colours: (..., 3) in [0, 255].

    Returns:
        (..., 3) float64: L in [0, 100], a and b.
    """
    values = np.asarray(colours, np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    ratios = linear @ _TO_XYZ.T / _WHITE
    x, y, z = np.moveaxis(np.where(ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios * (29 / 6) ** 2 / 3 + 4 / 29), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def typology_angle(image: np.ndarray) -> float:
    """Return the individual typology angle of the skin at an image's border in degrees; NaN if there is none.

    Args:
        image: (S, S, 3) uint8.
    """
    width = max(1, round(BORDER * len(image)))
    inside = np.zeros(image.shape[:2], bool)
    inside[width:-width, width:-width] = True
    border = image[~inside]
    skin = border[(border.max(1) >= MIN_LEVEL) & (border.min(1) <= MAX_LEVEL)]
    if len(skin) < MIN_SHARE * len(border):
        return float("nan")
    lightness, _, yellow = lab(np.median(skin, axis=0))
    return float(np.degrees(np.arctan2(lightness - 50, yellow))) if yellow > 0 else float("nan")  # skin is not blue


def tone(angle: float) -> str | None:
    """Return `light`, `intermediate` or `dark`; None for NaN."""
    if np.isnan(angle):
        return None
    return "light" if angle > LIGHT_DEGREES else "intermediate" if angle > DARK_DEGREES else "dark"


def estimate_tones(images: np.ndarray, lesions: np.ndarray) -> list[str | None]:
    """Return the skin tone of each image: that of the median angle of its lesion's images.

    Args:
        images: (N, S, S, 3) uint8; may be memory-mapped.
        lesions: (N,) lesion ids.
    """
    angles = pd.Series([typology_angle(image) for image in images], dtype=float)
    return [tone(angle) for angle in angles.groupby(lesions).transform("median")]
