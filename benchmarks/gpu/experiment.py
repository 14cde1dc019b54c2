"""Recipe against recipe on real images: what the GANs' KID is, and what their images bring to the classifier.

The phases' own logic, called in the graph's order. The split, the features that judge, the baseline and the oversampled
arm are common to all recipes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.steps import Steps
from components.balance_dataset.balance import balance
from components.evaluate.evaluate import evaluate
from components.generate_images.generate import generate
from components.prepare_data.prepare import prepare
from components.shared.files import file_sha256
from components.train_classifier import train as classifier
from components.train_gan import train as gan
from components.train_gan.pretrain import pretrain

MALIGNANT = ["mel", "bcc", "akiec"]
SEED = 1


@dataclass(frozen=True)
class Scale:
    """How large the experiment is.

    Attributes:
        image_size: in pixels.
        rare: classes with GANs, as `prepare` takes them.
        kimg: of each class's GAN. With shared pretraining a third of all classes' budget goes to the shared GAN: the
            recipes are compared at the same number of images shown.
        synthetic: images for each class.
        epochs, patience: of the classifiers.
        seeds: of the classifiers.
    """

    image_size: int
    rare: str
    kimg: float
    synthetic: int
    epochs: int
    patience: int
    seeds: tuple[int, ...]


SCALES = {
    "full": Scale(128, "auto", 300.0, 500, 50, 10, (1, 2, 3)),
    "cpu": Scale(32, "auto", 12.0, 500, 12, 6, (1, 2, 3)),
    "smoke": Scale(32, "df,vasc", 0.5, 16, 1, 1, (1, 2)),
}
RECIPES = {"dcgan": ("dcgan", False), "modern": ("resnet", False), "modern_shared": ("resnet", True)}
"""Name → architecture, and whether with shared pretraining."""


class Experiment:
    """The plan, a step after another.

    Args:
        steps: what is done already, and the folder where everything lies.
        scale: how large.
    """

    def __init__(self, steps: Steps, scale: Scale) -> None:
        self.steps, self.scale, self.root = steps, scale, steps.folder

    def path(self, *parts: str) -> str:
        """A file's place, in a folder that is there."""
        place = self.root.joinpath(*parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        return str(place)

    def prepared(self, data: str) -> list[str]:
        """The rare classes, after the image sets are there."""
        names = ("train", "validation", "test", "external", "splits.csv", "profile.html")
        return self.steps.once(
            "prepare",
            prepare,
            *(data, "random", "none", "move_to_train", self.scale.image_size, self.scale.rare, 10, SEED),
            *(self.path("data", name) for name in names),
        )

    def pretrained(self, recipe: str, architecture: str, kimg: float, rare: Sequence[str]) -> None:
        """The features that judge, and with a budget the GAN that others start from."""
        self.steps.once(
            f"{recipe}.pretrain",
            pretrain,
            classes=list(rare),
            train_set=self.path("data", "train"),
            validation_set=self.path("data", "validation"),
            architecture=architecture,
            kimg=kimg,
            seed=SEED,
            features=self.path(recipe, "features.keras"),
            start=self.path(recipe, "start"),
            record=self.path(recipe, "pretrain.json"),
            progress_page=self.path(recipe, "pretrain.html"),
            checkpoints=self.path(recipe, "checkpoints"),
        )

    def arms(self, recipe: str, architecture: str, kimg: float, rare: Sequence[str], start: str) -> None:
        """Trains a recipe's GANs and makes the training sets with their images."""
        common: dict[str, Any] = {
            "features": self.path("common", "features.keras"),
            "train_set": self.path("data", "train"),
            "validation_set": self.path("data", "validation"),
            "record": self.path(recipe, "gans.json"),
            "generators": self.path(recipe, "generators"),
            "seed": SEED,
        }
        self.steps.once(
            f"{recipe}.gans",
            gan.train,
            classes=list(rare),
            start=self.path(start, "start"),
            architecture=architecture,
            kimg=kimg,
            failed_class="continue",
            progress_page=self.path(recipe, "gans.html"),
            checkpoints=self.path(recipe, "checkpoints"),
            **common,
        )
        self.steps.once(
            f"{recipe}.images",
            generate,
            count=self.scale.synthetic,
            reject=0.2,
            images=self.path(recipe, "images"),
            sheet=self.path(recipe, "images.html"),
            quality=self.path(recipe, "quality.json"),
            **common,
        )
        self.steps.once(
            f"{recipe}.balance",
            balance,
            self.path("data", "train"),
            [self.path(recipe, "images")],
            SEED,
            *(self.path(recipe, name) for name in ("augmented", "oversampled", "balance.md")),
        )

    def classifiers(self, arm: str, train_set: str) -> tuple[list[str], list[str]]:
        """Models and records of an arm, one for each seed. The same training set is trained on once, whatever recipes
        share it."""
        folder = f"{arm}-{file_sha256(train_set)[:12]}"
        models, records = [], []
        for seed in self.scale.seeds:
            models.append(self.path("classifiers", folder, f"{seed}.keras"))
            records.append(self.path("classifiers", folder, f"{seed}.json"))
            self.steps.once(
                f"classifier.{folder}.{seed}",
                classifier.train,
                arm=arm,
                train_set=train_set,
                validation_set=self.path("data", "validation"),
                epochs=self.scale.epochs,
                patience=self.scale.patience,
                augmentation="flips_and_rotations",
                seed=seed,
                model=models[-1],
                record=records[-1],
                curves=self.path("classifiers", folder, f"{seed}.html"),
            )
        return models, records

    def judged(self, recipe: str, rare: Sequence[str]) -> None:
        """Compares the recipe's arms on the test images."""
        sets = {"baseline": self.path("data", "train")}
        sets |= {arm: self.path(recipe, arm) for arm in ("oversampled", "augmented")}
        trained = {arm: self.classifiers(arm, train_set) for arm, train_set in sets.items()}
        outputs = ("results.json", "predictions", "report.html", "comparison.md", "model_card.md", "data_sheet.md")

        def judge() -> None:
            evaluate(
                data="benchmark",
                split="random",
                external_data="none",
                rare_classes=list(rare),
                malignant=MALIGNANT,
                seed=SEED,
                test_set=self.path("data", "test"),
                external_set=self.path("data", "external"),
                train_set=self.path("data", "train"),
                validation_set=self.path("data", "validation"),
                synthetic_sets=[self.path(recipe, "images")],
                gan_records=[self.path(recipe, "gans.json")],
                quality=[self.path(recipe, "quality.json")],
                models={arm: models for arm, (models, _) in trained.items()},
                records={arm: records for arm, (_, records) in trained.items()},
                results=self.path(recipe, outputs[0]),
                predictions=self.path(recipe, outputs[1]),
                report_page=self.path(recipe, outputs[2]),
                comparison=self.path(recipe, outputs[3]),
                model_card=self.path(recipe, outputs[4]),
                data_sheet=self.path(recipe, outputs[5]),
            )

        self.steps.once(f"{recipe}.evaluate", judge)

    def run(self, data: str) -> list[str]:
        """All of it.

        Args:
            data: as `prepare` takes it.

        Returns:
            The rare classes.
        """
        rare = self.prepared(data)
        self.pretrained("common", "dcgan", 0.0, rare)
        for recipe, (architecture, shared) in RECIPES.items():
            kimg, start = self.scale.kimg, "common"
            if shared:
                self.pretrained(recipe, architecture, kimg * len(rare) / 3, rare)
                kimg, start = kimg * 2 / 3, recipe
            self.arms(recipe, architecture, kimg, rare, start)
        for recipe in RECIPES:
            self.judged(recipe, rare)
        return rare
