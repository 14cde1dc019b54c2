"""Measure KID and the copy check on real images: `python -m benchmarks.sample_quality DATA=folder`.

Prepares the images at 64 px, trains the feature extractor, and prints the figures of
docs/concepts/synthetic-images.md: KID of real, degraded and other images against the validation images of each rare
class; the share of planted copies that is detected; the number of test images of other lesions that are flagged. About
five minutes on two cores.
"""

import io
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks.machine import machine
from components.generate_images.copy_detection import CopyCheck
from components.prepare_data.prepare import prepare
from components.shared.dihedral import iter_positions
from components.shared.errors import exit_on_user_error
from components.shared.features import load_features, train_features
from components.shared.image_set import Pixels, open_pixels, read_rows
from components.shared.sample_metrics import kid
from components.shared.seeds import derive_seed
from counterweight.parameters import assignments, words

SIZE = 64
SEED = 1
SPLITS = ("train", "validation", "test")
PLANTED = 60
"""Copies of each kind and class."""
HALVES = 10

Spoil = Callable[[np.ndarray], np.ndarray]
"""(N, S, S, 3) float64 in [0, 255] to the same."""


def noise(level: float) -> Spoil:
    """With normal noise of so many grey levels."""
    return lambda images: images + np.random.default_rng(SEED).normal(0, level, images.shape)


def checkerboard(images: np.ndarray) -> np.ndarray:
    """With a checkerboard of 8 grey levels."""
    across = np.indices(images.shape[1:3]).sum(0) % 2 * 2 - 1
    return images + 8 * across[..., None]


def blurred(images: np.ndarray) -> np.ndarray:
    """By a Gaussian of 1.5 px."""
    return np.asarray(ndimage.gaussian_filter(images, (0, 1.5, 1.5, 0)))


def mixed(share: float) -> Spoil:
    """Each with the next, so much of the first."""
    return lambda images: share * images + (1 - share) * np.roll(images, 1, axis=0)


def turned(images: np.ndarray) -> np.ndarray:
    """The first eighth in the first of the eight positions, and so on."""
    return np.concatenate([list(iter_positions(part))[n % 8] for n, part in enumerate(np.array_split(images, 8))])


def saved(images: np.ndarray) -> np.ndarray:
    """As a JPEG of quality 40."""
    made = []
    for image in np.clip(images, 0, 255).astype(np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=40)
        made.append(np.asarray(Image.open(buffer), np.float64))
    return np.stack(made)


def moved(share: float) -> Spoil:
    """Down and to the left, by so much of the side."""
    by = share * SIZE
    return lambda images: np.asarray(ndimage.shift(images, (0, by, -by, 0), order=1, mode="nearest"))


def enlarged(images: np.ndarray) -> np.ndarray:
    """By 8 %, about the middle."""
    scale, middle = 1 / 1.08, (SIZE - 1) / 2
    matrix, offset = np.diag([1, scale, scale, 1]), [0, middle * (1 - scale), middle * (1 - scale), 0]
    return np.asarray(ndimage.affine_transform(images, matrix, offset, order=1, mode="nearest"))


def rotated(images: np.ndarray) -> np.ndarray:
    """By 7°."""
    return np.asarray(ndimage.rotate(images, 7, axes=(1, 2), reshape=False, order=1, mode="nearest"))


SPOILT: dict[str, Spoil] = {
    "blurred by 1.5 px": blurred,
    "noise of 8": noise(8),
    "checkerboard of 8": checkerboard,
    "averages of two": mixed(0.5),
}
COPIES: dict[str, Spoil] = {
    "exact": lambda images: images,
    "flipped and turned": turned,
    "brighter, less contrast": lambda images: 0.8 * images + 40,
    "tinted": lambda images: images * [1.1, 1, 0.9],
    "poor JPEG": saved,
    "blurred by 1.5 px": blurred,
    "noise of 10": noise(10),
    "noise of 25": noise(25),
    "moved by 3 %": moved(0.03),
    "moved by 6 %": moved(0.06),
    "enlarged by 8 %": enlarged,
    "mixed 75 to 25": mixed(0.75),
    "rotated by 7°": rotated,
}


def spoilt(images: np.ndarray, how: Spoil) -> np.ndarray:
    """(N, S, S, 3) uint8."""
    return np.clip(np.rint(how(images.astype(np.float64))), 0, 255).astype(np.uint8)


def judged(ruler: Callable[[np.ndarray], np.ndarray], of_split: dict[str, Pixels], rare: list[int]) -> dict[str, Any]:
    """KID against the validation images of each rare class."""
    train, held_out = of_split["train"], of_split["validation"]
    own = {label: ruler(train.images[train.labels == label]) for label in np.unique(train.labels).tolist()}
    found: dict[str, Any] = {}
    rng = np.random.default_rng(SEED)
    for label in rare:
        images, reference = train.images[train.labels == label], ruler(held_out.images[held_out.labels == label])
        halves = [rng.permutation(len(images))[: len(images) // 2] for _ in range(HALVES)]
        others = [kid(reference, features) for other, features in own.items() if other != label]
        found[train.header.classes[label]] = {
            "validation images": len(reference),
            "training images": kid(reference, own[label]),
            "scatter of halves": float(np.std([kid(reference, own[label][half]) for half in halves])),
            **{name: kid(reference, ruler(spoilt(images, how))) for name, how in SPOILT.items()},
            "most alike other class": min(others),
            "other classes, median": float(np.median(others)),
        }
    return found


def copied(of_split: dict[str, Pixels], rare: list[int], lesions: np.ndarray) -> dict[str, Any]:
    """Shares of planted copies that the copy check finds, and test images that it accuses."""
    found: dict[str, list[float]] = {name: [] for name in COPIES}
    thresholds: dict[str, float] = {}
    accused, innocent = 0, 0
    train = of_split["train"]
    for label in rare:
        real = {split: pixels.images[pixels.labels == label] for split, pixels in of_split.items()}
        check = CopyCheck(real["train"], lesions[train.labels == label], real["validation"])
        thresholds[train.header.classes[label]] = check.threshold
        for name, how in COPIES.items():
            found[name] += (check.nearest(spoilt(real["train"][:PLANTED], how))[0] < check.threshold).tolist()
        accused += int((check.nearest(real["test"])[0] < check.threshold).sum())
        innocent += len(real["test"])
    shares = {name: float(np.mean(values)) for name, values in found.items()}
    return {"thresholds": thresholds, "found": shares, "accused": accused, "test images": innocent}


def main() -> None:
    """Measures and prints."""
    data = assignments(words(sys.argv[1:])).get("DATA", "demo")
    with tempfile.TemporaryDirectory() as scratch:
        outputs = [f"{scratch}/{name}" for name in ("training_data", "test_data", "profile.html")]
        prepare(data, "random", "none", "move_to_train", SIZE, "auto", 10, SEED, *outputs)
        folders = {"train": "training_data", "validation": "training_data", "test": "test_data"}
        out = [f"{scratch}/{folders[split]}/{split}.parquet" for split in SPLITS]
        train_features(out[0], derive_seed(SEED, "features"), f"{scratch}/ruler.keras", "gates")
        lesions = read_rows(out[0], "train", ["lesion_id"])["lesion_id"].to_numpy(str)
        of_split = {}
        for split, path in zip(SPLITS, out, strict=False):
            with open_pixels(path, split) as pixels:
                of_split[split] = replace(pixels, images=np.array(pixels.images))
        counts = np.bincount(of_split["train"].labels)
        rare = [label for label in range(len(counts)) if label != counts.argmax()]
        ruler = load_features(f"{scratch}/ruler.keras")
        found = {
            "machine": machine(),
            "kid": judged(ruler, of_split, rare),
            "copies": copied(of_split, rare, lesions),
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
