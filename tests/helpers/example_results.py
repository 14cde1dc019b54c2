"""Results in the form of `metrics.json`, as HAM10000 may give them: simulated predictions of seven classes, three arms
and some seeds, in which the GAN's effect is small beside its interval; and pictures to go with them."""

import copy
import functools
from dataclasses import fields
from typing import Any

import numpy as np
from sklearn import metrics

from components.evaluate.gallery import Decision, Gallery, Neighbour, ShownImage

ARMS = ("baseline", "oversampled", "augmented")
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
RARE = ["akiec", "df", "vasc"]
MALIGNANT = ["akiec", "bcc", "mel"]
METRIC = "mean recall of the rare classes"
IMAGES = dict(zip(CLASSES, (327, 514, 1099, 115, 1113, 6705, 142), strict=True))
LESIONS = dict(zip(CLASSES, (228, 327, 727, 73, 614, 5403, 98), strict=True))
TEST = dict(zip(CLASSES, ((49, 34), (77, 49), (165, 109), (17, 11), (167, 92), (1006, 810), (21, 15)), strict=True))
SKILL = {  # how clearly an arm sees each class
    "baseline": (1.5, 2.2, 2.2, 1.0, 1.5, 4.0, 2.6),
    "oversampled": (2.1, 2.3, 2.1, 1.9, 1.8, 3.6, 2.9),
    "augmented": (2.2, 2.2, 2.1, 1.7, 1.7, 3.6, 2.9),
}
SCALARS = (
    "accuracy", "balanced_accuracy", "rare_recall", "macro_f1", "macro_auc", "malignant_sensitivity",
    "malignant_specificity", "brier", "ece", "ece_scaled",
)  # fmt: skip


def _chances(arm: str, seeds: int, counts: dict[str, tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and probabilities (seeds, N, classes); images differ more than seeds do."""
    truth = np.repeat(np.arange(len(CLASSES)), [images for images, _ in counts.values()])
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 1.3, (1, len(truth), len(CLASSES))) + rng.normal(0, 0.5, (seeds, 1, len(CLASSES)))
    logits = logits + np.random.default_rng(len(arm)).normal(0, 0.7, logits.shape)
    logits[:, np.arange(len(truth)), truth] += np.array(SKILL[arm])[truth]
    chances = np.exp(1.6 * logits)
    return truth, chances / chances.sum(-1, keepdims=True)


def _thin(*lines: np.ndarray) -> list[list[float]]:
    chosen = np.unique(np.linspace(0, len(lines[0]) - 1, 60).astype(int))
    return [[round(float(value), 4) for value in line[chosen]] for line in lines]


def _reliability(truth: np.ndarray, chances: np.ndarray) -> dict[str, list[float]]:
    confidence, right = chances.max(1), chances.argmax(1) == truth
    place = np.minimum((confidence * 10).astype(int), 9)
    bins = [place == b for b in range(10) if (place == b).any()]
    return {
        "confidence": [round(float(confidence[b].mean()), 4) for b in bins],
        "accuracy": [round(float(right[b].mean()), 4) for b in bins],
        "count": [int(b.sum()) for b in bins],
    }


def _figures(truth: np.ndarray, chances: np.ndarray) -> dict[str, Any]:
    """One seed's figures."""
    predicted, labels = chances.argmax(1), range(len(CLASSES))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=0
    )
    auc = [float(metrics.roc_auc_score(truth == k, chances[:, k])) if support[k] else None for k in labels]
    seen = support > 0
    scaled = chances**0.7 / (chances**0.7).sum(1, keepdims=True)

    def ece(p: np.ndarray) -> float:
        bins = _reliability(truth, p)
        gaps = np.abs(np.array(bins["confidence"]) - bins["accuracy"])
        return float((gaps * bins["count"]).sum() / len(truth))

    return {
        "accuracy": float((predicted == truth).mean()),
        "balanced_accuracy": float(recall[seen].mean()),
        "rare_recall": float(np.mean([recall[CLASSES.index(c)] for c in RARE if seen[CLASSES.index(c)]])),
        "macro_f1": float(f1[seen].mean()),
        "macro_auc": float(np.mean([value for value in auc if value is not None])),
        "malignant_sensitivity": 0.71 + 0.01 * float(recall[0]),
        "malignant_specificity": 0.89,
        "brier": float(((chances - np.eye(len(CLASSES))[truth]) ** 2).sum(1).mean()),
        "ece": ece(chances),
        "ece_scaled": ece(scaled),
        "recall": recall, "precision": precision, "f1": f1, "auc": auc, "support": support,
        "confusion": metrics.confusion_matrix(truth, predicted, labels=labels),
        "scaled": scaled,
    }  # fmt: skip


def _arm(arm: str, seeds: list[int], counts: dict[str, tuple[int, int]]) -> dict[str, Any]:
    truth, chances = _chances(arm, len(seeds), counts)
    each = [_figures(truth, values) for values in chances]
    scalars = {name: float(np.mean([figures[name] for figures in each])) for name in SCALARS}
    roc, pr = {}, {}
    for k, name in enumerate(CLASSES):
        if counts[name][0]:
            fpr, tpr = _thin(*metrics.roc_curve(truth == k, chances[0, :, k])[:2])
            precision, recall = _thin(*metrics.precision_recall_curve(truth == k, chances[0, :, k])[:2])
            roc[name], pr[name] = {"fpr": fpr, "tpr": tpr}, {"recall": recall, "precision": precision}

    def by_class(key: str) -> dict[str, float | None]:
        means = [None if not counts[c][0] else float(np.mean([f[key][k] for f in each])) for k, c in enumerate(CLASSES)]
        return dict(zip(CLASSES, means, strict=True))

    def interval(name: str, value: float | None) -> list[float | None]:
        if value is None:
            return [None, None]
        half = 1.96 * np.sqrt(value * (1 - value) / counts[name][1])
        return [max(0.0, float(value - half)), min(1.0, float(value + half))]

    index = ARMS.index(arm)
    models = {}
    for seed in seeds:
        epochs = 38 + 3 * index + seed
        decay, wobble = np.exp(-np.arange(epochs) / (9 - index)), 0.012 * np.sin(np.arange(epochs) * (2.1 + seed))
        models[str(seed)] = {
            "epochs": epochs,
            "best_epoch": epochs - 10,
            "seconds": 301.5 + seed,
            "history": {
                "loss": (0.18 + 1.4 * decay).tolist(),
                "val_loss": (0.58 + 0.9 * decay + 0.006 * np.arange(epochs) * (1 - decay) + wobble).tolist(),
                "val_balanced_accuracy": (0.66 + 0.02 * index - 0.5 * decay + wobble).tolist(),
            },
        }
    recall = by_class("recall")
    return {
        **scalars,
        "temperature": [round(1.4 + 0.05 * seed, 3) for seed in seeds],
        "intervals": {name: [value - 0.03, value + 0.03] for name, value in scalars.items()},
        "by_seed": {str(s): {name: float(f[name]) for name in SCALARS} for s, f in zip(seeds, each, strict=True)},
        "recall": recall,
        "precision": by_class("precision"),
        "f1": by_class("f1"),
        "auc": by_class("auc"),
        "support": {name: images for name, (images, _) in counts.items()},
        "recall_interval": {name: interval(name, value) for name, value in recall.items()},
        "confusion": np.sum([f["confusion"] for f in each], axis=0).tolist(),
        "curves": {
            "roc": roc,
            "pr": pr,
            "reliability": {
                "before": _reliability(truth, chances[0]),
                "after": _reliability(truth, each[0]["scaled"]),
            },
        },
        "train_rows": (7010, 9214, 9214)[index],
        "models": models,
    }


def _judged(seeds: list[int], counts: dict[str, tuple[int, int]], half: float = 0.0812) -> dict[str, Any]:
    arms = {arm: _arm(arm, seeds, counts) for arm in ARMS}
    one, control, other = (arms[arm] for arm in ("augmented", "oversampled", "baseline"))

    def difference(a: float, b: float, half: float) -> dict[str, float]:
        return {"value": a - b, "low": a - b - half, "high": a - b + half}

    by_metric = {
        name: {
            "gan": difference(one[name], control[name], 0.02),
            "improvement": difference(one[name], other[name], 0.025),
        }
        for name in ("balanced_accuracy", "macro_f1", "accuracy", "macro_auc", "malignant_sensitivity", "brier", "ece")
    }
    by_class = {}
    for name, (_, lesions) in counts.items():
        gap = {"value": None, "low": None, "high": None}
        if lesions:
            gap = difference(one["recall"][name], control["recall"][name], 0.9 / np.sqrt(lesions))
        needed = round(470 * (1.4 - (one["recall"][name] or 0.5)))
        tests = {"p": 0.21 if lesions else None, "p_holm": 0.84 if lesions else None}
        by_class[name] = gap | tests | {"lesions": lesions, "few": lesions < needed, "lesions_needed": needed}
    effect = {
        "metric": METRIC,
        **difference(one["rare_recall"], control["rare_recall"], half),
        "augmented_minus_baseline": difference(one["rare_recall"], other["rare_recall"], 0.0795),
        "by_metric": by_metric,
        "by_class": by_class,
        "mcnemar": {"lesions_gained": 1, "lesions_lost": 4, "p": 0.375},
        "permutation": {"p": 0.412, "draws": 2000},
        "draws": 2000,
    }
    return {"arms": arms, "effect": effect, "verdict": "no evidence"}


@functools.cache
def _example(seeds: int, external: bool) -> dict[str, Any]:
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
            "malignant": MALIGNANT,
            "settings": {"epochs": 50, "patience": 10, "augmentation": "flips_and_rotations", "parameters": 16877511},
            "versions": {"python": "3.11.9", "keras": "3.11.2", "tensorflow": "2.20.0"},
        },
        "classes": list(CLASSES),
        "splits": {
            "train": split(0.7),
            "validation": split(0.15),
            "test": {c: {"images": n, "lesions": m} for c, (n, m) in TEST.items()},
        },
        **_judged(numbers, TEST),
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
        | {"vasc": {"images": 0, "failed": "the GAN of vasc diverged after 12.3 kimg: a loss is not a number"}},
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
    if external:
        results["external"] = {
            "data": "/data/isic-elsewhere",
            "counts": {c: {"images": n, "lesions": m} for c, (n, m) in elsewhere.items()},
            **_judged(numbers, elsewhere, 0.31),
        }
    return results


def example(seeds: int = 5, external: bool = False) -> dict[str, Any]:
    """Results that a test may change."""
    return copy.deepcopy(_example(seeds, external))


@functools.cache
def picture(seed: int, size: int = 128, noise: float = 5.0) -> ShownImage:
    """A dark spot on skin: about as hard to compress as a photograph."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    angle, edge = np.arctan2(y, x), 0.45 + 0.1 * random.random()
    edge = edge + sum(0.06 * random.standard_normal() * np.cos(k * angle + 6 * random.random()) for k in range(2, 6))
    spot = 1 / (1 + np.exp((np.hypot(x - 0.1, y) - edge) * 14))
    skin, dark = np.array([226, 186, 172]), np.array([120, 72, 58]) + random.normal(0, 14, 3)
    pixels = skin + (dark - skin) * spot[..., None] + random.normal(0, noise, (size, size, 3))
    return ShownImage(pixels.clip(0, 255).astype(np.uint8))


def _copy(seed: int, size: int, noise: float) -> ShownImage:
    """The same picture as an object of its own, as `collect` gives them."""
    return ShownImage(picture(seed, size, noise).pixels)


def example_pictures(
    count: int = 8, size: int = 128, noise: float = 5.0, classes: tuple[str, ...] = CLASSES, rare: list[str] = RARE[:2]
) -> Gallery:
    """Everything that the page can show: `count` pictures of a kind."""

    def shots(start: int) -> list[ShownImage]:
        return [_copy(start + k, size, noise) for k in range(count)]

    def decision(k: int, dx: str, said: str, heat: bool) -> Decision:
        others = {"baseline": (said, 0.81), "oversampled": (dx, 0.62)}
        seen = _copy(900 + k, size, noise) if heat else None
        return Decision(
            _copy(800 + k, size, noise), seen, f"ISIC_{k:07}", f"HAM_{k:07}", dx, said, 0.97 - k / 50, others
        )

    strip = ShownImage(np.concatenate([picture(k, 64, noise).pixels for k in range(5)], axis=1))
    return Gallery(
        real={c: shots(100 * i) for i, c in enumerate(classes)},
        synthetic={c: shots(100 * i + 50) for i, c in enumerate(rare)},
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
        arm="augmented",
    )


def renamed(value: Any, old: str, new: str) -> Any:
    """The same with a class of another name, wherever it stands."""
    if isinstance(value, dict):
        return {renamed(key, old, new): renamed(item, old, new) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(renamed(item, old, new) for item in value)
    if isinstance(value, Gallery | Neighbour | Decision):
        return type(value)(**{part.name: renamed(getattr(value, part.name), old, new) for part in fields(value)})
    return new if isinstance(value, str) and value == old else value


def nulled(value: Any, inside: bool = False) -> Any:
    """Results in which every figure is null; counts, names and the verdict stay."""
    if isinstance(value, dict):
        return {
            key: item
            if key in ("run", "classes", "splits", "support", "counts", "verdict", "metric", "draws", "confusion")
            or key in ("data", "train_rows", "models", "lesions_gained", "lesions_lost", "failed", "images")
            else nulled(item, True)
            for key, item in value.items()
        }
    return [nulled(item, True) for item in value] if isinstance(value, list) else None
