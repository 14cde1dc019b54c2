"""Separability: how well a linear classifier distinguishes the synthetic images of a class from its real ones."""

from collections.abc import Iterator

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


def _held_out_scores(
    real: np.ndarray, lesions: np.ndarray, fake: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for each of five folds, its rows, real before synthetic ones, and the log odds that each is synthetic.

    The classifier was not trained on the fold; arguments as in `separability`.
    """
    fold = np.arange(len(real) + len(fake)) % FOLDS
    for number, (_, rows) in enumerate(GroupKFold(FOLDS).split(real, groups=lesions)):
        fold[rows] = number
    values, is_fake = np.concatenate([real, fake]), np.arange(len(fold)) >= len(real)
    for held_out in (fold == number for number in range(FOLDS)):
        classifier = make_pipeline(
            StandardScaler(), LogisticRegression(C=INVERSE_REGULARISATION, class_weight="balanced", max_iter=1_000)
        )
        classifier.fit(values[~held_out], is_fake[~held_out])
        yield np.flatnonzero(held_out), classifier.decision_function(values[held_out])


def log_density_ratios(real: np.ndarray, lesions: np.ndarray, fake: np.ndarray) -> np.ndarray:
    """Return (N,) logarithms of the density of real images over that of synthetic ones, at the synthetic images.

    They are the negative log odds of a classifier in which both kinds have equal weight (Sugiyama et al. 2012); each
    is from a fold that the classifier was not trained on. With too few images for `separability`, all are 0.
    """
    ratios = np.zeros(len(fake))
    if _is_measurable(real, lesions, fake):
        for rows, scores in _held_out_scores(real, lesions, fake):
            is_fake = rows >= len(real)
            ratios[rows[is_fake] - len(real)] = -scores[is_fake]
    return ratios


def _is_measurable(real: np.ndarray, lesions: np.ndarray, fake: np.ndarray) -> bool:
    return min(len(real), len(fake)) >= MIN_IMAGES and len(np.unique(lesions)) >= FOLDS


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
    if not _is_measurable(real, lesions, fake):
        return None
    return float(
        np.mean([roc_auc_score(rows >= len(real), scores) for rows, scores in _held_out_scores(real, lesions, fake)])
    )
