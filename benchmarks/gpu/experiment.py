"""Compare GAN recipes on real images: KID of their images, and the effect on the classifier.

Calls the logic of the phases in the order of the graph. Split, feature extractor, baseline and oversampled arm are
shared by all recipes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.steps import Steps
from components.balance_dataset.balance import balance
from components.evaluate.evaluate import evaluate
from components.generate_images.generate import generate
from components.prepare_data.other_data import read_other_data
from components.prepare_data.prepare import prepare
from components.shared.arms import BASELINE, CONTROL, GAN, dose_arm
from components.shared.workflow_size import Job
from components.train_classifier import train as classifier
from components.train_features import train as features
from components.train_gan import train as gan
from components.train_gan.pretrain import pretrain

POSITIVE_CLASSES = ["mel", "bcc", "akiec"]
SEED = 1


@dataclass(frozen=True)
class Scale:
    """Size of the experiment.

    Attributes:
        image_size: in pixels.
        rare: classes with GANs, as `prepare` takes them.
        kimg: of each class's GAN. With shared pretraining a third of all classes' budget goes to the shared GAN: the
            recipes are compared at the same number of images shown.
        synthetic: images for each class.
        epochs: of the classifiers.
        seeds: of the classifiers.
    """

    image_size: int
    rare: str
    kimg: float
    synthetic: int
    epochs: int
    seeds: tuple[int, ...]


SCALES = {
    "full": Scale(128, "auto", 300.0, 500, 50, (1, 2, 3)),
    "cpu": Scale(32, "auto", 12.0, 500, 12, (1, 2, 3)),
    "smoke": Scale(32, "df,vasc", 0.5, 16, 1, (1, 2)),
}
RECIPES = {"dcgan": ("dcgan", False), "modern": ("resnet", False), "modern_shared": ("resnet", True)}
"""Name → architecture, and whether with shared pretraining."""


class Experiment:
    """The steps of the experiment, in order.

    Args:
        steps: finished steps, and the folder of all files.
        scale: its size.
    """

    def __init__(self, steps: Steps, scale: Scale) -> None:
        self.steps, self.scale, self.root = steps, scale, steps.folder

    def path(self, *parts: str) -> str:
        """Return the path of a file, and create its folder."""
        place = self.root.joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        return str(place)

    def prepare_data(self, data: str) -> list[str]:
        """Prepare the image sets and return the rare classes."""
        names = ("training_data", "test_data", "profile.html")
        return self.steps.once(
            "prepare",
            prepare,
            *(data, "random", "move_to_train", self.scale.image_size, self.scale.rare, 10, SEED),
            *(self.path("data", name) for name in names),
        )

    def pretrain_gan(self, name: str, architecture: str, kimg: float, rare: Sequence[str]) -> None:
        """Train the GAN that others start from; none with a budget of 0."""
        self.steps.once(
            f"{name}.pretrain",
            pretrain,
            classes=list(rare),
            training_data=self.path("data", "training_data"),
            features=self.path("common", "features.keras"),
            architecture=architecture,
            kimg=kimg,
            seed=SEED,
            start=self.path(name, "start"),
            checkpoints=self.path(name, "checkpoints"),
        )

    def make_images(self, recipe: str, architecture: str, kimg: float, rare: Sequence[str], start: str) -> None:
        """Train the GANs of a recipe and collect their images."""
        common: dict[str, Any] = {
            "features": self.path("common", "features.keras"),
            "rare_data": self.path("common", "rare_data"),
        }
        self.steps.once(
            f"{recipe}.gans",
            gan.train,
            classes=list(rare),
            start=self.path(start, "start"),
            architecture=architecture,
            kimg=kimg,
            seed=SEED,
            failed_class="continue",
            gans=self.path(recipe, "gans"),
            checkpoints=self.path(recipe, "checkpoints"),
            **common,
        )
        self.steps.once(
            "sources",
            read_other_data,
            synthetic=GAN,
            training_data=self.path("data", "training_data"),
            test_data=self.path("data", "test_data"),
            count=self.scale.synthetic,
            max_bad_images=0,
            seed=SEED,
            out=self.path("data", "sources"),
        )
        self.steps.once(
            f"{recipe}.images",
            generate,
            classes=list(rare),
            gans=self.path(recipe, "gans"),
            sources=self.path("data", "sources"),
            count=self.scale.synthetic,
            reject=0.2,
            seed=SEED,
            synthetic=self.path(recipe, "synthetic"),
            **common,
        )
        self.steps.once(
            f"{recipe}.collect",
            balance,
            start=self.path(start, "start"),
            gans=[self.path(recipe, "gans")],
            synthetic=[self.path(recipe, "synthetic")],
            sources=self.path("data", "sources"),
            failed_class="continue",
            synthetic_images=self.path(recipe, "synthetic_images"),
            **common,
        )

    def train_classifiers(self, name: str, arms: Sequence[str], synthetic_images: str | None) -> None:
        """Train the classifiers of some arms, one per seed."""
        self.steps.once(
            f"{name}.classifiers",
            classifier.train,
            jobs=[Job(arm, seed, seed == self.scale.seeds[0]) for arm in arms for seed in self.scale.seeds],
            training_data=self.path("data", "training_data"),
            synthetic_images=synthetic_images,
            synthetic_per_class=self.scale.synthetic,
            random_seed=SEED,
            epochs=self.scale.epochs,
            classifiers=self.path(name, "classifiers"),
            checkpoints=self.path(name, "checkpoints"),
        )

    def compare(self, recipe: str) -> None:
        """Compare the arms of a recipe on the test images."""

        def evaluate_recipe() -> None:
            evaluate(
                training_data=self.path("data", "training_data"),
                test_data=self.path("data", "test_data"),
                synthetic_images=self.path(recipe, "synthetic_images"),
                classifiers=[self.path("common", "classifiers"), self.path(recipe, "classifiers")],
                positive_classes=",".join(POSITIVE_CLASSES),
                parameters={"data": "benchmark", "random_seed": SEED},
                results=self.path(recipe, "results"),
                report=self.path(recipe, "report.html"),
            )

        self.steps.once(f"{recipe}.evaluate", evaluate_recipe)

    def run(self, data: str) -> list[str]:
        """Run all steps.

        Args:
            data: as `prepare` takes it.

        Returns:
            The rare classes.
        """
        rare = self.prepare_data(data)
        self.steps.once(
            "features",
            features.train,
            training_data=self.path("data", "training_data"),
            seed=SEED,
            features=self.path("common", "features.keras"),
            rare_data=self.path("common", "rare_data"),
        )
        self.pretrain_gan("common", "dcgan", 0.0, rare)
        for recipe, (architecture, shared) in RECIPES.items():
            kimg, start = self.scale.kimg, "common"
            if shared:
                self.pretrain_gan(recipe, architecture, kimg * len(rare) / 3, rare)
                kimg, start = kimg * 2 / 3, recipe
            self.make_images(recipe, architecture, kimg, rare, start)
        self.train_classifiers("common", (BASELINE, CONTROL), None)
        for recipe in RECIPES:
            self.train_classifiers(recipe, (dose_arm(1.0),), self.path(recipe, "synthetic_images"))
            self.compare(recipe)
        return rare
