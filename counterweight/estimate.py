"""Estimate the time, memory and cost of a run from measured rates; see `rates.yaml`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from components.placement import rates as placement_rates
from components.shared.arms import GAN, uses_synthetic
from components.shared.parameters import arm_names, synthetic_sources
from components.shared.records import PlannedPhase
from components.shared.workflow_size import group_classes, pack_classifiers

FEATURE_EPOCHS, FEATURE_IMAGES = 16, 51_200
"""Of the feature extractor: epochs, and the maximum number of images shown; see `components/shared/features.py`."""
BATCH = 32
"""Images per step of a classifier."""
GENERATED = 1.25
"""Images that are generated for each image that is kept, without the option `synthetic_selection`."""

BySize = dict[int, float]


class Rates(BaseModel):
    """The content of `rates.yaml`.

    Attributes:
        machine: where they were measured.
        start_s: seconds that a task takes to start.
        images_per_s: work → image size in pixels → images per second.
        memory_gib: work → image size in pixels → peak memory.
        slower: factor from an estimate to the upper end of its range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    machine: str
    start_s: float
    images_per_s: dict[str, BySize]
    memory_gib: dict[str, BySize]
    slower: float


@cache
def rates() -> Rates:
    """Return the measured rates."""
    path = Path(__file__).with_name("rates.yaml")
    return Rates.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def at_size(measured: Mapping[int, float], image_size: int, power: float = -2.0) -> float:
    """Return a figure for an image size: a power law through the two nearest sizes.

    Args:
        measured: image size → figure.
        image_size: in pixels.
        power: of the image size, if only one was measured; −2 for a rate that is inverse to the pixels.

    Example:
        >>> at_size({64: 115, 128: 30}, 64), round(at_size({32: 1280}, 64))
        (115.0, 320)
    """
    sizes = sorted(measured, key=lambda size: abs(math.log(size / image_size)))[:2]
    near = sizes[0]
    if len(sizes) == 2:
        power = math.log(measured[sizes[1]] / measured[near]) / math.log(sizes[1] / near)
    return float(measured[near] * (image_size / near) ** power)


@dataclass(frozen=True)
class Size:
    """What the time of a run depends on.

    Attributes:
        values: the parameters.
        architecture: networks of the GANs.
        classifier: network of the classifiers.
        rare: number of classes that get synthetic images.
        train, validation, test: numbers of images.
        gans_per_task, classifiers_per_task: options of the pipeline.
        generated: images that are generated for each that is kept.
    """

    values: Mapping[str, Any]
    architecture: str
    classifier: str
    rare: int
    train: int
    validation: int
    test: int
    gans_per_task: int
    classifiers_per_task: int
    generated: float

    @property
    def gans(self) -> int:
        """Number of GANs, without the shared one."""
        return self.rare if GAN in self.sources else 0

    @property
    def sources(self) -> list[str]:
        """Sources of synthetic images; none if no arm uses any."""
        return list(synthetic_sources(self.values["synthetic"])) if uses_synthetic(arm_names(self.values)) else []

    @property
    def classifiers(self) -> int:
        """Number of classifiers."""
        return len(arm_names(self.values)) * len(self.values["classifier_seeds"])

    def tasks(self) -> dict[str, list[int]]:
        """Return the number of GANs, and of classifiers, that each task trains.

        Raises:
            UserError: as in `pack_classifiers`: the workflow would be too large.
        """
        packs = pack_classifiers(arm_names(self.values), self.values["classifier_seeds"], self.classifiers_per_task)
        return {
            "gan": [len(items.split(",")) for items in group_classes(range(self.gans), self.gans_per_task)],
            "classifier": [len(pack.split(",")) for pack in (*packs.real, *packs.synthetic)],
        }


def estimate(size: Size) -> dict[str, PlannedPhase]:
    """Return phase → time and memory of all of its tasks.

    Times are those of one task after another, on the measured machine.

    Raises:
        UserError: as in `Size.tasks`.
    """
    values, image_size, measured = size.values, int(size.values["data_image_size"]), rates()
    gans, packs = size.tasks()["gan"], size.tasks()["classifier"]
    steps = -(-size.train // BATCH)  # all arms have as many steps as the real images fill
    classifier = "classifier" if size.classifier == "cnn" else f"classifier_{size.classifier}"
    work = {
        "prepare_data": ("prepare", size.train + size.validation + size.test, 1),
        "train_features": ("features", min(FEATURE_IMAGES, FEATURE_EPOCHS * size.train), 1),
        "pretrain_gan": (f"gan_{size.architecture}", 1000 * values["gan_shared_kimg"] * bool(gans), 1),
        "train_gan": (f"gan_{size.architecture}", 1000 * values["gan_kimg"] * size.gans, len(gans)),
        "generate_images": (
            "generate",
            size.generated * values["synthetic_per_class"] * size.rare * len(size.sources),
            len(group_classes(range(size.rare), size.gans_per_task)),
        ),
        "train_classifier": (classifier, values["classifier_epochs"] * steps * BATCH * size.classifiers, len(packs)),
        "evaluate": ("evaluate", (size.validation + size.test) * size.classifiers, 1),
    }
    phases = {}
    if not size.sources:  # the tasks have nothing to do
        work = {name: it for name, it in work.items() if name not in ("pretrain_gan", "train_gan", "generate_images")}
    for name, (kind, images, tasks) in work.items():
        seconds = images / at_size(measured.images_per_s[kind], image_size) + measured.start_s * tasks
        memory = at_size(measured.memory_gib[kind.partition("_")[0]], image_size, power=0.0)
        phases[name] = PlannedPhase(tasks=tasks, seconds=round(seconds, 1), memory_gib=round(memory, 1), cost=None)
    return phases


def with_costs(phases: Mapping[str, PlannedPhase]) -> tuple[dict[str, PlannedPhase], str]:
    """Return the phases with their cost by `prices` of the placement file, and the currency; no cost without prices."""
    found = placement_rates()
    prices = {name: found["phases"][name]["price"] for name in phases}
    if not any(prices.values()):
        return dict(phases), ""
    costs = {name: round(phase.seconds / 3600 * prices[name], 2) for name, phase in phases.items()}
    return {name: phase.model_copy(update={"cost": costs[name]}) for name, phase in phases.items()}, found["currency"]


def longest_chain_s(phases: Mapping[str, PlannedPhase], size: Size) -> float:
    """Return the seconds from start to end if every task that can run at the same time does."""
    total = 0.0
    parts = {"train_gan": size.tasks()["gan"], "train_classifier": size.tasks()["classifier"]}
    for name, phase in phases.items():
        counts: Sequence[int] = parts.get(name, ())
        share = max(counts) / sum(counts) if counts else 1.0
        total += phase.seconds * share
    return total
