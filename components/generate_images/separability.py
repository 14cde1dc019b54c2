"""Separability: how well a linear classifier distinguishes the synthetic images of a class from its real ones."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from components.shared.sample_metrics import spectra

FOLDS = 5
MIN_IMAGES = 20
"""Minimum number of real images, and of synthetic ones, that are distinguished."""
MAX_IMAGES = 512
"""Maximum number of either that is used."""
RINGS = 8
INVERSE_REGULARISATION = 0.1
"""A rare class has fewer images than features."""


def ring_powers(images: np.ndarray) -> np.ndarray:
    """Return the logarithm of the power of grey images in rings of the spectrum, from long to short wavelengths.

    Args:
        images: (N, S, S, 3) uint8, S ≥ 16.

    Returns:
        (N, 8) float64; colour and brightness do not affect it.
    """
    by_wavelength = np.log(spectra(images)[:, 1:])
    return np.stack([ring.mean(axis=1) for ring in np.array_split(by_wavelength, RINGS, axis=1)], axis=1)


def separability(real: np.ndarray, lesions: np.ndarray, fake: np.ndarray) -> float | None:
    """Return the area under the ROC curve of a classifier that distinguishes real from synthetic images.

    It is a logistic regression of standardised values, in which both kinds have equal weight, and the mean over five
    folds that it was not trained on. All images of a lesion are in one fold: they are alike, and would be recognised.
    There are no random choices.

    Args:
        real: (M, d) float, values of the real images.
        lesions: (M,) their lesions.
        fake: (N, d) float, values of the synthetic images, which are independent of each other.

    Returns:
        In [0, 1]: 0.5 if it cannot distinguish them, 1 if it always can; below 0.5 by chance, or if synthetic images
        resemble single real ones. None with fewer than 20 real or 20 synthetic images, or fewer than 5 lesions.
    """
    if min(len(real), len(fake)) < MIN_IMAGES or len(np.unique(lesions)) < FOLDS:
        return None
    fold = np.arange(len(real) + len(fake)) % FOLDS
    for number, (_, rows) in enumerate(GroupKFold(FOLDS).split(real, groups=lesions)):
        fold[rows] = number
    values, is_fake = np.concatenate([real, fake]), np.arange(len(fold)) >= len(real)
    areas = []
    for held_out in (fold == number for number in range(FOLDS)):
        classifier = make_pipeline(
            StandardScaler(), LogisticRegression(C=INVERSE_REGULARISATION, class_weight="balanced", max_iter=1_000)
        )
        classifier.fit(values[~held_out], is_fake[~held_out])
        areas.append(roc_auc_score(is_fake[held_out], classifier.decision_function(values[held_out])))
    return float(np.mean(areas))
