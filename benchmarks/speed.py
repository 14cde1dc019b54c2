"""Images per second of the training steps, compared with the usual alternatives."""

import importlib
import statistics
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.interleaved import Work, take_turns

SIZES = (64, 128)
ROUNDS = 3
SECONDS = 3.0
IMAGES, CLASSES = 512, 7
DTYPES = ("float32", "bfloat16")


def _images(image_size: int) -> np.ndarray:
    """Return random images, (512, S, S, 3) uint8: the time of a step does not depend on their content."""
    return np.random.default_rng(0).integers(0, 256, (IMAGES, image_size, image_size, 3), np.uint8)


def _work(module: str, task: str, image_size: int, steps: int, **settings: Any) -> Work:
    """Return a side's work. Only that side is imported: TensorFlow and PyTorch cannot be in one process."""
    data = {"images": _images(image_size)}
    if task == "classifier":
        data["labels"] = np.arange(IMAGES) % CLASSES
    build = getattr(importlib.import_module(f"benchmarks.{module}"), task)
    return build(image_size=image_size, steps=steps, **data, **settings)


def _matrix_product(dtype: str, side: int) -> Work:
    from benchmarks import limits

    return limits.matrix_product(dtype, side)


def _sides(task: str, steps: int, **modules: dict[str, Any]) -> dict[str, dict[str, partial[Work]]]:
    return {
        name: {
            f"{task}_step.{size}": partial(_work, task=task, image_size=size, **{"steps": steps} | how)
            for size in SIZES
        }
        for name, how in modules.items()
    }


def _compare(rates: Mapping[str, list[float]], first: str = "engine") -> dict[str, Any]:
    """Return each side's median, and the median over rounds of the first side's rate divided by the other's."""
    found: dict[str, Any] = {side: round(statistics.median(values), 1) for side, values in rates.items()}
    for side, values in rates.items():
        if side not in (first, "modern"):
            by = statistics.median(a / b for a, b in zip(rates[first], values, strict=True))
            found[f"ratio_to_{side}"] = round(by, 2)
    return found


def measure(gan_steps: int = 2, classifier_steps: int = 8, side: int = 2048) -> dict[str, dict[str, Any]]:
    """Return the speed table.

    Args:
        gan_steps, classifier_steps: in one call; more on a GPU, so that the wait for the last one is negligible.
        side: of the matrices whose product is the limit.

    Returns:
        `gan_step.<S>`, `classifier_step.<S>` (images/s with batches of 32) and `matrix_product` (GFLOP/s).
    """
    gans = _sides(
        "gan",
        gan_steps,
        engine={"module": "engine", "architecture": "dcgan"},
        original={"module": "original"},
        pytorch={"module": "pytorch"},
        float32={"module": "engine", "architecture": "dcgan", "precision": "float32"},
        # One of 16 steps has penalties.
        modern={"module": "engine", "architecture": "resnet", "steps": max(16, gan_steps)},
    )
    gans["limit"] = {dtype: partial(_matrix_product, dtype, side) for dtype in DTYPES}
    classifiers = _sides(
        "classifier",
        classifier_steps,
        engine={"module": "engine"},
        keras_fit={"module": "original"},
        pytorch={"module": "pytorch"},
        float32={"module": "engine", "precision": "float32"},
    )
    rates = take_turns(gans, ROUNDS, SECONDS) | take_turns(classifiers, ROUNDS, SECONDS)
    from benchmarks import limits, original

    product = {dtype: statistics.median(rates.pop(dtype)["limit"]) for dtype in DTYPES}
    found: dict[str, dict[str, Any]] = {
        "matrix_product": {f"{dtype}_gflop_s": round(rate / 1e9, 1) for dtype, rate in product.items()}
    }
    for task, of_task in rates.items():
        size = int(task.rpartition(".")[2])
        flop = (
            limits.gan_step_flop(original.generator(size), original.discriminator(size))
            if task.startswith("gan_step")
            else limits.classifier_step_flop(original.classifier_network(CLASSES, size))
        )
        found[task] = _compare(of_task) | {"mflop_per_image": round(flop / 1e6)}
        for dtype, rate in product.items():
            found[task][f"share_of_{dtype}_product"] = round(statistics.median(of_task["engine"]) * flop / rate, 3)
    return found
