"""Accuracy of the sample metrics and the copy check on real images: `python -m benchmarks.sample_quality DATA=folder`.

Prepares the images at 64 px, trains the feature extractor, and prints the figures of
`docs/concepts/synthetic-images.md`: KID and coverage of real, degraded and other images against the validation images
of each rare class, separability of the training images from real and degraded images of other lesions, the detection
rates of planted copies, and the share of test images that are flagged as copies. It takes about six minutes on two
cores.
"""

import io
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks.machine import machine
from components.generate_images.copy_detection import MIN_HELD_OUT_IMAGES, CopyCheck, estimate_threshold
from components.generate_images.separability import ring_powers, separability
from components.prepare_data.prepare import prepare
from components.shared.dihedral import iter_positions
from components.shared.errors import exit_on_user_error
from components.shared.features import Features, load_features, train_features
from components.shared.image_set import Pixels, open_pixels, read_rows
from components.shared.sample_metrics import density_and_coverage, kid
from components.shared.seeds import derive_seed
from counterweight.parameters import assignments, words

SIZE = 64
SEED = 1
PLANTED = 60
"""Copies of each kind and class."""
HALVES = 10
OTHER_IMAGES = 1_000
RANDOM_SPLITS = 300

Degradation = Callable[[np.ndarray], np.ndarray]
"""(N, S, S, 3) float64 in [0, 255] to the same."""


def add_noise(level: float) -> Degradation:
    """Add normal noise with this standard deviation, in grey levels."""
    return lambda images: images + np.random.default_rng(SEED).normal(0, level, images.shape)


def add_checkerboard(images: np.ndarray) -> np.ndarray:
    """Add a checkerboard of 8 grey levels."""
    across = np.indices(images.shape[1:3]).sum(0) % 2 * 2 - 1
    return images + 8 * across[..., None]


def blur(images: np.ndarray) -> np.ndarray:
    """Blur by a Gaussian of 1.5 px."""
    return np.asarray(ndimage.gaussian_filter(images, (0, 1.5, 1.5, 0)))


def mix(share: float) -> Degradation:
    """Mix each image with the next one; `share` is that of the first."""
    return lambda images: share * images + (1 - share) * np.roll(images, 1, axis=0)


def move_to_other_positions(images: np.ndarray) -> np.ndarray:
    """Put each eighth of the images in another of the eight positions."""
    return np.concatenate([list(iter_positions(part))[n % 8] for n, part in enumerate(np.array_split(images, 8))])


def compress(images: np.ndarray) -> np.ndarray:
    """Compress as JPEG with quality 40."""
    results = []
    for image in np.clip(images, 0, 255).astype(np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=40)
        results.append(np.asarray(Image.open(buffer), np.float64))
    return np.stack(results)


def shift(share: float) -> Degradation:
    """Shift down and to the left, by a share of the height."""
    by = share * SIZE
    return lambda images: np.asarray(ndimage.shift(images, (0, by, -by, 0), order=1, mode="nearest"))


def enlarge(images: np.ndarray) -> np.ndarray:
    """Enlarge by 8 % around the centre."""
    scale, middle = 1 / 1.08, (SIZE - 1) / 2
    matrix, offset = np.diag([1, scale, scale, 1]), [0, middle * (1 - scale), middle * (1 - scale), 0]
    return np.asarray(ndimage.affine_transform(images, matrix, offset, order=1, mode="nearest"))


def rotate(images: np.ndarray) -> np.ndarray:
    """Rotate by 7 degrees."""
    return np.asarray(ndimage.rotate(images, 7, axes=(1, 2), reshape=False, order=1, mode="nearest"))


DEGRADATIONS: dict[str, Degradation] = {
    "blurred by 1.5 px": blur,
    "noise of 8": add_noise(8),
    "checkerboard of 8": add_checkerboard,
    "averages of two": mix(0.5),
}
COPIES: dict[str, Degradation] = {
    "exact": lambda images: images,
    "flipped and rotated": move_to_other_positions,
    "brighter, less contrast": lambda images: 0.8 * images + 40,
    "tinted": lambda images: images * [1.1, 1, 0.9],
    "poor JPEG": compress,
    "blurred by 1.5 px": blur,
    "noise of 10": add_noise(10),
    "noise of 25": add_noise(25),
    "shifted by 3 %": shift(0.03),
    "shifted by 6 %": shift(0.06),
    "enlarged by 8 %": enlarge,
    "mixed 75 to 25": mix(0.75),
    "rotated by 7°": rotate,
}


def degrade(images: np.ndarray, degradation: Degradation) -> np.ndarray:
    """Return degraded images, (N, S, S, 3) uint8."""
    return np.clip(np.rint(degradation(images.astype(np.float64))), 0, 255).astype(np.uint8)


def measure_metrics(features: Features, pixels: dict[str, Pixels], rare: list[int]) -> dict[str, Any]:
    """Return KID and coverage against the validation images of each rare class."""
    train, held_out = pixels["train"], pixels["validation"]
    by_class = {label: features(train.images[train.labels == label]) for label in np.unique(train.labels).tolist()}
    results: dict[str, Any] = {}
    rng = np.random.default_rng(SEED)
    for label in rare:
        images, reference = train.images[train.labels == label], features(held_out.images[held_out.labels == label])
        halves = [rng.permutation(len(images))[: len(images) // 2] for _ in range(HALVES)]
        others = {other: values for other, values in by_class.items() if other != label}
        kid_of_others = [kid(reference, values) for values in others.values()]
        all_others = rng.permutation(np.concatenate(list(others.values())))[:OTHER_IMAGES]
        results[train.header.classes[label]] = {
            "validation images": len(reference),
            "training images": kid(reference, by_class[label]),
            "standard deviation of halves": float(np.std([kid(reference, by_class[label][half]) for half in halves])),
            **{name: kid(reference, features(degrade(images, how))) for name, how in DEGRADATIONS.items()},
            "most similar other class": min(kid_of_others),
            "other classes, median": float(np.median(kid_of_others)),
            "coverage by training images": density_and_coverage(reference, rng.permutation(by_class[label]))[1],
            "coverage by other classes": density_and_coverage(reference, all_others)[1],
        }
    return results


def measure_separability(features: Features, pixels: dict[str, Pixels], lesions: np.ndarray) -> dict[str, Any]:
    """Return the separability of each class's training images from images of other lesions, real and degraded.

    Each value is a pair: by features, by spectrum.
    """
    train = pixels["train"]
    degradations: dict[str, Degradation] = {"real images": lambda images: images, **DEGRADATIONS}
    results: dict[str, Any] = {}
    for label, dx in enumerate(train.header.classes):
        real, of_class = train.images[train.labels == label], lesions[train.labels == label]
        held_out = (pixels[split] for split in ("validation", "test"))
        others = np.concatenate([of_split.images[of_split.labels == label] for of_split in held_out])
        results[dx] = {"training images": len(real), "others": len(others)}
        for name, how in degradations.items():
            made = degrade(others, how)
            results[dx][name] = [
                separability(measure(real), of_class, measure(made)) for measure in (features, ring_powers)
            ]
    return results


def measure_copy_check(pixels: dict[str, Pixels], rare: list[int], lesions: np.ndarray) -> dict[str, Any]:
    """Return the detection rates of planted copies, and the number of test images that are flagged."""
    detected: dict[str, list[float]] = {name: [] for name in COPIES}
    thresholds: dict[str, float] = {}
    flagged, innocent = 0, 0
    train = pixels["train"]
    for label in rare:
        real = {split: of_split.images[of_split.labels == label] for split, of_split in pixels.items()}
        check = CopyCheck(real["train"], lesions[train.labels == label], real["validation"])
        thresholds[train.header.classes[label]] = check.threshold
        for name, how in COPIES.items():
            detected[name] += (check.nearest(degrade(real["train"][:PLANTED], how))[0] < check.threshold).tolist()
        flagged += int((check.nearest(real["test"])[0] < check.threshold).sum())
        innocent += len(real["test"])
    rates = {name: float(np.mean(values)) for name, values in detected.items()}
    return {"thresholds": thresholds, "detected": rates, "flagged": flagged, "test images": innocent}


def measure_false_positives(
    pixels: dict[str, Pixels], rare: list[int], lesions: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Return the share of test images that are flagged, over random splits of each rare class by lesion."""
    results: dict[str, Any] = {}
    rng = np.random.default_rng(SEED)
    for label in rare:
        images = np.concatenate([of_split.images[of_split.labels == label] for of_split in pixels.values()])
        of_class = np.concatenate([lesions[split][pixels[split].labels == label] for split in pixels])
        check = CopyCheck(images, of_class, images[:1])
        distances = np.concatenate(
            [check.distances(images[start : start + 64])[0] for start in range(0, len(images), 64)]
        )
        distances[of_class[:, None] == of_class] = np.inf
        names, flagged, tested = np.unique(of_class), 0, 0
        for _ in range(RANDOM_SPLITS):
            parts = np.split(rng.permutation(names), [int(0.7 * len(names)), int(0.85 * len(names))])
            train, validation, test = (np.isin(of_class, part) for part in parts)
            known = distances[np.ix_(validation, train)].min(axis=1)
            if len(known) < MIN_HELD_OUT_IMAGES:
                known = np.concatenate([known, distances[np.ix_(train, train)].min(axis=1)])
            flagged += int((distances[np.ix_(test, train)].min(axis=1) < estimate_threshold(known)).sum())
            tested += int(test.sum())
        results[pixels["train"].header.classes[label]] = {"lesions": len(names), "flagged": flagged / tested}
    return results


def main() -> None:
    """Measure and print."""
    data = assignments(words(sys.argv[1:])).get("DATA", "demo")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(
            data=data,
            split="random",
            duplicates="move_to_train",
            image_size=SIZE,
            rare="auto",
            max_bad_images=10,
            seed=SEED,
            training_data=folder / "training_data",
            test_data=folder / "test_data",
            data_profile=folder / "profile.html",
        )
        sets = {
            "train": folder / "training_data" / "train.parquet",
            "validation": folder / "training_data" / "validation.parquet",
            "test": folder / "test_data" / "test.parquet",
        }
        train_features(sets["train"], derive_seed(SEED, "features"), folder / "features.keras", "features")
        pixels, lesions = {}, {}
        for split, path in sets.items():
            lesions[split] = read_rows(path, split, ["lesion_id"])["lesion_id"].to_numpy(str)
            with open_pixels(path, split) as of_split:
                pixels[split] = replace(of_split, images=np.array(of_split.images))
        counts = np.bincount(pixels["train"].labels)
        rare = [label for label in range(len(counts)) if label != counts.argmax()]
        features = load_features(folder / "features.keras")
        results = {
            "machine": machine(),
            "metrics": measure_metrics(features, pixels, rare),
            "separability": measure_separability(features, pixels, lesions["train"]),
            "copies": measure_copy_check(pixels, rare, lesions["train"]),
            "false positives": measure_false_positives(pixels, rare, lesions),
        }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
