"""Results in the form of `metrics.json`, as HAM10000 may give them, and images to go with them.

The comparison is the real one, of simulated predictions of seven classes, three arms and some seeds, in which the GAN's
effect is small beside its interval.
"""

import copy
import functools
from dataclasses import fields
from typing import Any

import numpy as np

from components.evaluate.report.gallery import Decision, Gallery, Neighbour, ShownImage
from components.evaluate.statistics import calibration
from components.evaluate.statistics.calibration import ArmCalibration, Calibration
from components.evaluate.statistics.compare import Fitted, compare
from components.evaluate.statistics.metrics import Sample

ARMS = ("baseline", "oversampled", "augmented@1")
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
RARE = ["akiec", "df", "vasc"]
REBALANCED = ["akiec", "df"]
MALIGNANT = ["akiec", "bcc", "mel"]
IMAGES = dict(zip(CLASSES, (327, 514, 1099, 115, 1113, 6705, 142), strict=True))
LESIONS = dict(zip(CLASSES, (228, 327, 727, 73, 614, 5403, 98), strict=True))
TEST = dict(zip(CLASSES, ((49, 34), (77, 49), (165, 109), (17, 11), (167, 92), (1006, 810), (21, 15)), strict=True))
SKILL = {  # how well an arm separates each class
    "baseline": (1.5, 2.2, 2.2, 1.0, 1.5, 4.0, 2.6),
    "oversampled": (2.1, 2.3, 2.1, 1.9, 1.8, 3.6, 2.9),
    "augmented@1": (2.2, 2.2, 2.1, 1.7, 1.7, 3.6, 2.9),
}
ALL_ARMS = (
    "baseline", "oversampled", "class_weights", "balanced_sampling", "strong_augmentation", "logit_adjustment",
    "augmented@0.25", "augmented@0.5", "augmented@1",
)  # fmt: skip
SKILL |= dict.fromkeys(ALL_ARMS[2:6], SKILL["oversampled"]) | dict.fromkeys(ALL_ARMS[6:8], SKILL["augmented@1"])
LOSSES = {arm: 1.2 - 0.01 * number for number, arm in enumerate(SKILL)}
RESAMPLES = 100


def _simulate(arm: str, seeds: int, truth: np.ndarray) -> np.ndarray:
    """Return (seeds, N, classes) probabilities; images differ more than seeds do."""
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 1.3, (1, len(truth), len(CLASSES))) + rng.normal(0, 0.5, (seeds, 1, len(CLASSES)))
    logits = logits + np.random.default_rng(list(SKILL).index(arm)).normal(0, 0.7, logits.shape)
    logits[:, np.arange(len(truth)), truth] += np.array(SKILL[arm])[truth]
    probabilities = np.exp(1.6 * logits)
    return probabilities / probabilities.sum(-1, keepdims=True)


def _models(arm: str, seeds: list[int]) -> dict[str, Any]:
    """Return `models` of an arm: curves of its training."""
    index, models = min(2, list(SKILL).index(arm)), {}
    for seed in seeds:
        epochs = 38 + 3 * index + seed
        decay, wobble = np.exp(-np.arange(epochs) / (9 - index)), 0.012 * np.sin(np.arange(epochs) * (2.1 + seed))
        models[str(seed)] = {
            "epochs": epochs,
            "real_views": epochs - 10.5,
            "validated_epochs": list(range(1, epochs + 1)),
            "seconds": 301.5 + seed,
            "history": {
                "loss": (0.18 + 1.4 * decay).tolist(),
                "val_loss": (0.58 + 0.9 * decay + 0.006 * np.arange(epochs) * (1 - decay) + wobble).tolist(),
                "val_balanced_accuracy": (0.66 + 0.02 * index - 0.5 * decay + wobble).tolist(),
            },
        }
    return models


def _compare(seeds: list[int], counts: dict[str, tuple[int, int]], arms: tuple[str, ...]) -> dict[str, Any]:
    """Return `arms`, `effect` and `verdict` for class → images and lesions."""
    truth = np.repeat(np.arange(len(CLASSES)), [images for images, _ in counts.values()])
    lesion = [f"{dx}-{n % lesions}" for dx, (images, lesions) in counts.items() for n in range(images)]
    sample = Sample(truth, np.array(lesion), CLASSES, tuple(MALIGNANT))
    models = tuple(Calibration(1.4 + 0.05 * seed, 0.3) for seed in seeds)
    frequencies = np.array(list(IMAGES.values())) / sum(IMAGES.values())
    calibrations = {arm: ArmCalibration(models, frequencies, 0.4, LOSSES[arm]) for arm in arms}
    predictions = {
        arm: calibration.apply(_simulate(arm, len(seeds), truth), calibrations[arm], sample.is_malignant)
        for arm in arms
    }
    fitted = {arm: Fitted(LOSSES[arm], [model.temperature for model in models], 0.4) for arm in arms}
    outcome = compare(sample, predictions, fitted, REBALANCED, seeds, 1, RESAMPLES)
    return outcome.model_dump(exclude_unset=True)


@functools.cache
def _example(seeds: int, external: bool, arms: tuple[str, ...]) -> dict[str, Any]:
    def split(share: float) -> dict[str, dict[str, int]]:
        return {c: {"images": round(IMAGES[c] * share), "lesions": round(LESIONS[c] * share)} for c in CLASSES}

    numbers = list(range(1, seeds + 1))
    elsewhere = {**TEST, "akiec": (0, 0), "df": (6, 6), "nv": (310, 300), "vasc": (9, 8)}
    results = {
        "run": {
            "data": "gs://skin-data/ham10000",
            "data_sha256": "3f" * 32,
            "split_sha256": "a7" * 32,
            "split": "random",
            "seed": 7,
            "seeds": numbers,
            "image_size": 128,
            "rare_classes": RARE,
            "rebalanced_classes": REBALANCED,
            "malignant": MALIGNANT,
            "settings": {"epochs": 50, "patience": 10, "augmentation": "flips_and_rotations", "parameters": 16877511},
            "parameters": {"data": "gs://skin-data/ham10000", "gan_kimg": 400.0, "synthetic_per_class": 735},
            "versions": {"python": "3.11.9", "keras": "3.11.2", "tensorflow": "2.20.0"},
        },
        "classes": list(CLASSES),
        "splits": {
            "train": split(0.7),
            "validation": split(0.15),
            "test": {c: {"images": n, "lesions": m} for c, (n, m) in TEST.items()},
        },
        **_compare(numbers, TEST, arms),
        "synthetic": {
            c: {
                "images": 735 - 40 * i,
                "architecture": "dcgan",
                "kimg": 400.0,
                "best_kimg": 350.0,
                "kid": 0.0312 + 0.01 * i,
                "density": 0.812,
                "coverage": 0.734,
                "texture": 0.687,
                "separability": 0.941 + 0.02 * i,
                "separability_spectrum": 0.872,
                "label_fidelity": 0.712,
                "validation_recall": 0.912 - 0.15 * i,
                "drawn": 980,
                "copies": 49 + 40 * i,
                "copy_threshold": 0.62,
                "curated": 196,
                "reject": 0.2,
                "against": "validation and training",
                "nearest": [{"distance": 0.71 + k / 10, "image_id": f"ISIC_{k:07}", "index": 3 * k} for k in range(5)],
                "model_sha256": f"{i}b" * 32,
                "real_images": 229,
                "seconds": 4521.5,
                "losses": {
                    "kimg": [4.0 * k for k in range(1, 101)],
                    "generator": (1.5 + np.sin(np.arange(100) / 7) / 3).tolist(),
                    "discriminator": (0.9 - np.cos(np.arange(100) / 9) / 5).tolist(),
                },
            }
            for i, c in enumerate(RARE[:2])
        }
        | {
            "vasc": {
                "images": 0,
                "architecture": "dcgan",
                "failed": "the GAN of vasc diverged after 12.3 kimg: a loss is not a number",
            }
        },
        "external": None,
        "population": {
            name: {
                "images": 1000,
                "lesions": 800,
                "age": {"median": 50.0, "low": 0.0, "high": 85.0, "missing": 12},
                "sex": {"male": 530, "female": 463, "unknown": 7},
                "localization": {"back": 320, "lower extremity": 290, "trunk": 260, "face": 130},
                "dx_type": {"histo": 533, "follow_up": 370, "consensus": 90, "confocal": 7},
            }
            for name in ("train", "validation", "test")
        },
    }
    for number, arm in enumerate(arms):
        results["arms"][arm] |= {"train_rows": 9214 if number else 7010, "models": _models(arm, numbers)}
    if external:
        results["external"] = {
            "data": "/data/isic-elsewhere",
            "counts": {c: {"images": n, "lesions": m} for c, (n, m) in elsewhere.items()},
            **_compare(numbers, elsewhere, arms),
        }
    return results


def example(seeds: int = 5, external: bool = False, arms: tuple[str, ...] = ARMS) -> dict[str, Any]:
    """Return results that a test may change."""
    return copy.deepcopy(_example(seeds, external, arms))


def example_subgroups() -> dict[str, Any]:
    """Return `subgroups` of the results: two ages and an estimated skin tone."""

    def group(attribute: str, name: str, recall: float, needed: int | None, few: bool) -> dict[str, Any]:
        arms = {
            arm: {
                "rare_recall": {"value": recall + number / 10, "low": recall - 0.1, "high": recall + 0.3},
                "malignant_sensitivity": {"value": 0.7, "low": 0.5, "high": 0.9},
                "ece_scaled": 0.05 + number / 100,
            }
            for number, arm in enumerate(ARMS)
        }
        counts = {"images": 1203, "lesions": 900, "rare_lesions": 41, "malignant_lesions": 120}
        return {"attribute": attribute, "group": name, **counts, "few": few, "lesions_needed": needed, "arms": arms}

    groups = [
        group("age", "under 40", 0.5, 388, True),
        group("age", "60 and over", 0.4, 30, False),
        group("skin_tone", "dark", 0.3, None, True),
    ]
    return {"arms": list(ARMS), "groups": groups, "worst": 1}


def example_champion(few: bool = False) -> dict[str, Any]:
    """Return `champion` of the results: a candidate that is better, or too few lesions to compare."""

    def figure(value: float) -> dict[str, Any]:
        sides = {"candidate": value + 0.1, "champion": value}
        limits = {side: {"value": it, "low": it - 0.05, "high": it + 0.05} for side, it in sides.items()}
        return limits | {"difference": {"value": 0.1, "low": 0.02, "high": 0.18}}

    metrics = ("rare_recall", "balanced_accuracy", "macro_auc", "balanced_log_loss")
    return {
        "run": {
            "place": "gs://models/weekly/run-41",
            "run": "run-41",
            "manifest_sha256": "c1" * 32,
            "arm": "augmented@0.5",
        },
        "comparison": {
            "seeds": 3,
            "lesions": 1117,
            "rare_lesions": 4 if few else 41,
            "excluded_lesions": 3,
            "excluded_images": 5,
            "seen_validation_images": 7,
            "few": few,
            "figures": {} if few else {metric: figure(0.5 + n / 10) for n, metric in enumerate(metrics)},
            "permutation": None if few else {"p": None, "passed": True, "draws": 10_000},
            "verdict": "not established" if few else "improved",
        },
        "drift": {
            "images": [7010, 8200],
            "classes": {dx: [0.011, 0.023] if dx == "df" else [0.14, 0.139] for dx in CLASSES},
            "class_distance": 0.012,
            "class_p": 0.031,
            "sex_distance": 0.02,
            "site_distance": None,
            "median_age": [50.0, 52.0],
            "appearance": 0.0031,
            "appearance_p": 0.41,
        },
    }


@functools.cache
def spot(seed: int, size: int = 128, noise: float = 5.0) -> ShownImage:
    """Return a dark spot on skin, about as hard to compress as a photograph."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    angle, edge = np.arctan2(y, x), 0.45 + 0.1 * random.random()
    edge = edge + sum(0.06 * random.standard_normal() * np.cos(k * angle + 6 * random.random()) for k in range(2, 6))
    spot = 1 / (1 + np.exp((np.hypot(x - 0.1, y) - edge) * 14))
    skin, dark = np.array([226, 186, 172]), np.array([120, 72, 58]) + random.normal(0, 14, 3)
    pixels = skin + (dark - skin) * spot[..., None] + random.normal(0, noise, (size, size, 3))
    return ShownImage(pixels.clip(0, 255).astype(np.uint8))


def _copy(seed: int, size: int, noise: float) -> ShownImage:
    """Return the same image as a separate object, as `collect` does."""
    return ShownImage(spot(seed, size, noise).pixels)


def example_gallery(
    count: int = 8, size: int = 128, noise: float = 5.0, classes: tuple[str, ...] = CLASSES, rare: list[str] = RARE[:2]
) -> Gallery:
    """Return everything that the page can show: `count` images of each kind."""

    def several(start: int) -> list[ShownImage]:
        return [_copy(start + k, size, noise) for k in range(count)]

    def decision(k: int, dx: str, predicted: str, heat: bool) -> Decision:
        others = {"baseline": (predicted, 0.81), "oversampled": (dx, 0.62)}
        heat_map = _copy(900 + k, size, noise) if heat else None
        return Decision(
            _copy(800 + k, size, noise), heat_map, f"ISIC_{k:07}", f"HAM_{k:07}", dx, predicted, 0.97 - k / 50, others
        )

    strip = ShownImage(np.concatenate([spot(k, 64, noise).pixels for k in range(5)], axis=1))
    return Gallery(
        real={c: several(100 * i) for i, c in enumerate(classes)},
        synthetic={c: several(100 * i + 50) for i, c in enumerate(rare)},
        neighbours={
            c: [
                Neighbour(_copy(100 * i + k, size, noise), _copy(i + k, size, noise), f"ISIC_{k:07}", 0.61 + k / 10)
                for k in range(count // 2)
            ]
            for i, c in enumerate(rare)
        },
        searched=dict.fromkeys(rare, 256),
        pairs={c: ShownImage(strip.pixels) for c in rare},
        progress={c: [(kimg, ShownImage(strip.pixels)) for kimg in (0, 50, 100, 200, 400)] for c in rare},
        right=[decision(k, c, c, True) for k, c in enumerate(classes)],
        wrong=[decision(k + 10, c, classes[k - 1], True) for k, c in enumerate(classes)],
        malignant_errors=[decision(k, MALIGNANT[k % 3], "nv", False) for k in range(count)],
        arm="augmented@1",
    )


def renamed(value: Any, old: str, new: str) -> Any:
    """Return the same value with a class renamed everywhere."""
    if isinstance(value, dict):
        return {renamed(key, old, new): renamed(item, old, new) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(renamed(item, old, new) for item in value)
    if isinstance(value, Gallery | Neighbour | Decision):
        return type(value)(**{part.name: renamed(getattr(value, part.name), old, new) for part in fields(value)})
    return new if isinstance(value, str) and value == old else value


def nulled(value: Any, inside: bool = False) -> Any:
    """Return results in which every figure is null; counts, names and the verdict are unchanged."""
    if isinstance(value, dict):
        return {
            key: item
            if key in ("run", "classes", "splits", "support", "counts", "verdict", "metric", "draws", "confusion")
            or key
            in (
                "data",
                "train_rows",
                "models",
                "lesions_gained",
                "lesions_lost",
                "failed",
                "images",
                "passed",
                "arm",
                "best",
                "best_control",
                "reference",
            )
            else nulled(item, True)
            for key, item in value.items()
        }
    return [nulled(item, True) for item in value] if isinstance(value, list) else None
