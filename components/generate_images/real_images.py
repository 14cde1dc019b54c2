"""Real images with which the synthetic images of a class are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.generate_images.copy_detection import CopyCheck
from components.shared.errors import UserError
from components.shared.features import Features
from components.shared.image_set import open_pixels, read_rows
from components.shared.sample_metrics import MIN_REAL_IMAGES


@dataclass(frozen=True)
class RealImages:
    """Real images of a class.

    Attributes:
        training: (T, S, S, 3) uint8.
        lesions: (T,) their lesions.
        names: their image ids.
        features: (T, 224) features of the training images.
        reference: features of the images that synthetic ones are compared with.
        has_training: whether the reference includes the training images, since there are few others.
        others: features of real images of other classes.
        check: the copy check.
    """

    training: np.ndarray
    lesions: np.ndarray
    names: list[str]
    features: np.ndarray
    reference: np.ndarray
    has_training: bool
    others: np.ndarray
    check: CopyCheck


def load_other_features(path: Path, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Return, for each class, the features of random training images of all other classes.

    Args:
        path: the file that train_features wrote.
        classes: all classes of the data.
    """
    with np.load(path) as sample:
        values, labels = sample["features"].astype(np.float64), sample["labels"]
    return {dx: values[labels != label] for label, dx in enumerate(classes)}


def load_real_images(
    dx: str, train_set: Path, validation_set: Path, features: Features, others: np.ndarray
) -> RealImages:
    """Return the images of a class.

    Args:
        dx: the class.
        train_set, validation_set: image sets of the run.
        features: the feature extractor of the run.
        others: features of images of other classes.

    Raises:
        UserError: `generate_images.no_real_images`: the class has no training or no validation image.
    """
    rows = read_rows(train_set, "train", ["dx", "image_id", "lesion_id"])
    rows = rows[rows["dx"] == dx]
    with (
        open_pixels(train_set, "train", dx) as pixels,
        open_pixels(validation_set, "validation", dx) as validation_pixels,
    ):
        if not len(pixels.images) or not len(validation_pixels.images):
            raise UserError(
                f"the class {dx} has no training or no validation image",
                "re-create the split",
                "generate_images.no_real_images",
                dx=dx,
            )
        training, validation = np.array(pixels.images), np.array(validation_pixels.images)
    training_features, reference = features(training), features(validation)
    few = len(validation) < MIN_REAL_IMAGES
    lesions = rows["lesion_id"].to_numpy()
    return RealImages(
        training=training,
        lesions=lesions,
        names=rows["image_id"].tolist(),
        features=training_features,
        reference=np.concatenate([reference, training_features]) if few else reference,
        has_training=few,
        others=others,
        check=CopyCheck(training, lesions, validation),
    )
