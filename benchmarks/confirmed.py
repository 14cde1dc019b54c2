"""Test recipes on pooled folds, with Holm's correction, and show how far each figure can be trusted.

The report of pooled folds has one recipe. With several, the first that is established must be so at the level .05
divided by their number, the next at .05 divided by the number that remains (Holm 1979). The sensitivity of a result is
shown by three more figures, none of which is a test: the mean over folds, each of which has other GANs; the difference
on lesions that no decision about the design has seen; and macro AUC within folds, which ranks no image of one fold
against images of another.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy import stats

from components.evaluate.statistics import inference
from components.evaluate.statistics.compare import decide_verdict, lesion_differences, weight_differences
from components.evaluate.statistics.inference import LEVEL, Bootstrap
from components.evaluate.statistics.metrics import Predictions, Sample
from components.shared.arms import CONTROL
from components.shared.records import Difference, Verdict
from components.shared.seeds import derive_seed
from counterweight.reevaluate import open_published, pool_predictions, sort_folds
from scripts.results_tables import METRICS, difference_cells, markdown_table

PRIMARY = "rare_recall"
SECONDARY = ("balanced_log_loss", "macro_auc", "corrected_recall", "balanced_accuracy")


@dataclass(frozen=True)
class Recipe:
    """Test predictions of a recipe's arm with synthetic images, and of its control, in all folds.

    Attributes:
        sample: the images.
        fold: (N,) fold of each image.
        arm: predictions of the arm with synthetic images.
        control: predictions of `oversampled`.
        rare: the rare classes.
        seed: seed of the runs.
    """

    sample: Sample
    fold: np.ndarray
    arm: Predictions
    control: Predictions
    rare: tuple[str, ...]
    seed: int

    @cached_property
    def bootstrap(self) -> Bootstrap:
        """Metrics and their resamples."""
        arms = {"arm": self.arm, "control": self.control}
        return Bootstrap(self.sample, arms, self.rare, derive_seed(self.seed, "bootstrap"))

    @cached_property
    def paired(self) -> tuple[float, float]:
        """The p-value of the paired test at lesion level, and the sum of the differences that it tests."""
        differences = lesion_differences(self.sample, self.arm, self.control)
        weighted = weight_differences(self.sample, differences, self.rare)
        return inference.sign_flip(weighted, derive_seed(self.seed, "permutation"))[0], float(weighted.sum())

    def differ(self, metric: str = PRIMARY, level: float = LEVEL) -> Difference:
        """Return arm − control, with the interval that misses the truth with this probability."""
        return self.bootstrap.difference(metric, "arm", "control", level=level)

    def decide(self, hypotheses: int) -> Verdict:
        """Return the verdict that the report would have if this were the choice of one of several arms."""
        found, (p, direction) = self.differ(level=LEVEL / hypotheses), self.paired
        seeds = len(self.arm.probabilities)
        return decide_verdict(found.low, found.high, min(1.0, p * hypotheses), direction, seeds)

    def restrict(self, kept: np.ndarray) -> "Recipe":
        """Return the part for some images.

        Args:
            kept: (N,) bool.
        """
        sample = Sample(self.sample.truth[kept], self.sample.lesion[kept], self.sample.classes, self.sample.malignant)

        def part(of_arm: Predictions) -> Predictions:
            return Predictions(*(None if it is None else it[:, kept] for it in vars(of_arm).values()))  # type: ignore[arg-type]

        return Recipe(sample, self.fold[kept], part(self.arm), part(self.control), self.rare, self.seed)

    def by_fold(self, metric: str) -> np.ndarray:
        """Return (folds,) arm − control of each fold on its own, mean over seeds."""
        differences = []
        for fold in np.unique(self.fold):
            points = self.restrict(self.fold == fold).bootstrap.points
            differences.append((points["arm"][metric] - points["control"][metric]).mean())
        return np.array(differences)


def load_recipe(folds: Sequence[Path]) -> Recipe:
    """Load finished runs of all folds.

    Raises:
        UserError: as in `reevaluate.pool_folds`.
    """
    with TemporaryDirectory() as scratch:
        runs = sort_folds([open_published(str(fold), Path(scratch) / fold.name) for fold in folds])
        rows, sample, arms, _ = pool_predictions(runs)
    record = runs[0].record
    arm = runs[0].results.effect.arm
    fold = rows["fold"].to_numpy(str)
    return Recipe(sample, fold, arms[arm], arms[CONTROL], tuple(record.rebalanced_classes), record.seed)


def validation_lesions(runs: Sequence[Path]) -> set[str]:
    """Return the ids of the lesions that finished runs used for validation."""
    with TemporaryDirectory() as scratch:
        opened = [open_published(str(run), Path(scratch) / run.name) for run in runs]
        return {lesion for run in opened for lesion in run.load("validation")[0]["lesion_id"]}


def decide_all(recipes: Mapping[str, Recipe]) -> dict[str, tuple[Verdict, int]]:
    """Return the verdict of each recipe, and the number of hypotheses that it was corrected for (Holm 1979)."""
    decided: dict[str, tuple[Verdict, int]] = {}
    while left := [name for name in recipes if name not in decided]:
        tried = {name: (recipes[name].decide(len(left)), len(left)) for name in left}
        established = {name: it for name, it in tried.items() if it[0] in ("improved", "worse")}
        decided |= established or tried
    return {name: decided[name] for name in recipes}


def tables(recipes: Mapping[str, Recipe], seen: set[str]) -> Iterator[str]:
    """Yield the lines of the tables, in Markdown.

    Args:
        recipes: by name.
        seen: lesions that the design has seen.
    """
    rows = []
    for name, (verdict, hypotheses) in decide_all(recipes).items():
        found, p = difference_cells(recipes[name].differ(level=LEVEL / hypotheses)), recipes[name].paired[0]
        rows.append((name, found, f"{p:.4f}", verdict))
    yield from markdown_table(
        ("recipe", f"{METRICS[PRIMARY]}, arm − control", "corrected interval", "p, paired test", "verdict"), rows
    )
    others = (
        (f"{name}: {METRICS[metric]}", difference_cells(recipe.differ(metric)))
        for name, recipe in recipes.items()
        for metric in SECONDARY
    )
    yield from markdown_table(("other metrics, arm − control", "value", "95 % interval"), others)
    yield from markdown_table(
        ("sensitivity, arm − control", "value", "95 % interval"),
        (
            (f"{name}: {title}", difference_cells(found))
            for name, recipe in recipes.items()
            for title, found in _sensitivity(recipe, seen)
        ),
    )


def _sensitivity(recipe: Recipe, seen: set[str]) -> Iterator[tuple[str, Difference]]:
    folds = recipe.by_fold(PRIMARY)
    mean, half = folds.mean(), stats.t.ppf(1 - LEVEL / 2, len(folds) - 1) * stats.sem(folds)
    yield "mean of the folds", Difference(value=mean, low=mean - half, high=mean + half)
    unseen = ~np.isin(recipe.sample.lesion, sorted(seen))
    if seen and unseen.any():
        yield "lesions that the design has not seen", recipe.restrict(unseen).differ()
    yield "macro AUC, mean within folds", Difference(value=recipe.by_fold("macro_auc").mean(), low=None, high=None)
