"""The arms: ways of training the same classifier on an imbalanced set, as data.

An arm is a name and a recipe. Everything that a recipe does not mention is equal in all arms: network, seeds, order,
number of steps, validation. To add a control, add an entry to `CONTROLS`.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from components.shared.errors import UserError

Scope = Literal["rare", "all"]
"""Which classes have synthetic images: the option `synthetic_scope`."""


@dataclass(frozen=True)
class Recipe:
    """What distinguishes the training of an arm.

    Attributes:
        title: description for tables and pages, one line.
        adds: whether each rare class gets additional images, the same number in all arms that add any.
        synthetic_share: share of the added images that is synthetic, in [0, 1]; the rest are repeats of real images.
        source: where the synthetic images come from: `gan` for the GANs of this run, or the name of another source.
        balanced: whether each class counts as often as the largest one, by repeats of its images.
        class_weights: whether the loss of an image has a weight inversely proportional to the size of its class.
        logit_adjustment: whether training adds the logarithm of each class's frequency to its logit, so that the
            network learns as if the classes were equally frequent (Menon et al. 2021, arXiv 2007.07314).
        strong_augmentation: whether scale, position and colours of the images change as well.
        metadata: whether the network also gets age, sex and site of the patient; see `patient_metadata.py`.
        synthetic_until: share of the epochs that use the synthetic images, from the first one; the later epochs use the
            control's rows.
        synthetic_weight: weight of each added image in the loss, synthetic or repeated; other images have the weight 1.
        synthetic_smoothing: label smoothing of each added image, synthetic or repeated; other images have none.
        synthetic_scope: `rare` if synthetic images replace repeats of the rare classes; `all` if they are added to the
            control's rows, and `synthetic_share` is their share of each class.
    """

    title: str
    adds: bool = False
    synthetic_share: float = 0.0
    source: str = ""
    balanced: bool = False
    class_weights: bool = False
    logit_adjustment: bool = False
    strong_augmentation: bool = False
    metadata: bool = False
    synthetic_until: float = 1.0
    synthetic_weight: float = 1.0
    synthetic_smoothing: float = 0.0
    synthetic_scope: Scope = "rare"

    def mixed_epochs(self, epochs: int) -> int:
        """Return the number of first epochs that use the recipe's own rows: rounded down, but at least one.

        Example:
            >>> Recipe("", synthetic_until=0.5).mixed_epochs(5)
            2
        """
        return max(1, math.floor(self.synthetic_until * epochs + 1e-9))


Selection = Literal["realism", "label", "density", "distance"]
"""How the synthetic images are selected from samples that are no copies: the option `synthetic_selection`."""
REALISM: Selection = "realism"
"""The default: the worst fifth is rejected."""
SELECTIONS: dict[Selection, str] = {
    "label": "by the class that the feature extractor predicts",
    "density": "by the density of real images",
    "distance": "by their distance from real images",
}
"""The others, for sentences."""
CANDIDATES = 3
"""Samples of which these select one."""


@dataclass(frozen=True)
class Use:
    """How arms use the images that they add: the options of these names, see `Options`.

    Attributes:
        synthetic_until, synthetic_weight, synthetic_smoothing, synthetic_scope: see `Recipe`.
        synthetic_selection: how the synthetic images were selected; changes no recipe.
    """

    synthetic_until: float = 1.0
    synthetic_weight: float = 1.0
    synthetic_selection: Selection = REALISM
    synthetic_scope: Scope = "rare"
    synthetic_smoothing: float = 0.0


BASELINE = "baseline"
CONTROL = "oversampled"
"""The arm that the effect of synthetic images is measured against: it adds the same number of real images."""
AUGMENTED = "augmented"
"""Choice that means one arm for each share of synthetic images and each source of them: `augmented@<share>` for the
GANs of this run, `<source>@<share>` for other sources."""
GAN = "gan"
"""The source of synthetic images that is the GANs of this run."""
CONTROLS = {
    BASELINE: Recipe("real images as they are"),
    CONTROL: Recipe("real images; rare classes with repeats", adds=True),
    "class_weights": Recipe("real images; errors in small classes weigh more", class_weights=True),
    "balanced_sampling": Recipe("real images, each class shown equally often", balanced=True),
    "strong_augmentation": Recipe(
        "as oversampled, with random scale, position and colours", adds=True, strong_augmentation=True
    ),
    "logit_adjustment": Recipe("real images; logits adjusted for class frequency", logit_adjustment=True),
    "metadata": Recipe("as oversampled, with age, sex and site as a second input", adds=True, metadata=True),
}
"""The arms without synthetic images."""
LATE_FUSION = "late_fusion"
"""Value of the option `metadata` with which the classifiers of all arms get age, sex and site of the patient."""
CHOICES = (*CONTROLS, AUGMENTED)
ALL = tuple(name for name in CHOICES if name not in CONTROLS or not CONTROLS[name].metadata)
"""What `all` means: every choice that needs nothing but images."""
CONTROLLED = tuple(name for name in CHOICES if name not in CONTROLS or CONTROLS[name].metadata)
"""Choices that are compared with the control, and therefore require it."""
SOURCE_NAME = r"[a-z][a-z0-9_]{0,19}"
"""Regular expression of the names of sources."""
_DOSE = re.compile(rf"({SOURCE_NAME})@(1|0\.[0-9]{{1,2}})")


def dose_arm(share: float, source: str = GAN) -> str:
    """Return the name of the arm with a share of synthetic images from a source.

    Example:
        >>> dose_arm(0.25), dose_arm(1.0, "stylegan")
        ('augmented@0.25', 'stylegan@1')
    """
    return f"{AUGMENTED if source == GAN else source}@{share:g}"


def share_of(arm: str) -> float | None:
    """Return the share of synthetic images among those that an arm adds; None for an arm without synthetic images."""
    match = _DOSE.fullmatch(arm)
    share = float(match[2]) if match else 0.0
    return share if share > 0 else None


def source_of(arm: str) -> str | None:
    """Return the source of an arm's synthetic images; None for an arm without synthetic images.

    Example:
        >>> source_of("augmented@1"), source_of("stylegan@0.5"), source_of("baseline")
        ('gan', 'stylegan', None)
    """
    if share_of(arm) is None:
        return None
    name = arm.partition("@")[0]
    return GAN if name == AUGMENTED else name


def synthetic_key(source: str, dx: str) -> str:
    """Return what identifies the synthetic images of a class from a source; also the name of their files.

    Example:
        >>> synthetic_key("gan", "df"), synthetic_key("stylegan", "df")
        ('df', 'stylegan/df')
    """
    return dx if source == GAN else f"{source}/{dx}"


def parse_synthetic_key(key: str) -> tuple[str, str]:
    """Return source and class of a `synthetic_key`.

    Example:
        >>> parse_synthetic_key("stylegan/df")
        ('stylegan', 'df')
    """
    source, _, dx = key.rpartition("/")
    return source or GAN, dx


def title_of(arm: str) -> str:
    """Return the name of an arm for tables and pages.

    Example:
        >>> title_of("augmented@0.25"), title_of("class_weights")
        ('augmented 25 %', 'class weights')
    """
    share = share_of(arm)
    name = arm.partition("@")[0].replace("_", " ")
    return name if share is None else f"{name} {100 * share:g} %"


def recipe(arm: str, use: Use = Use()) -> Recipe:
    """Return the recipe of an arm.

    Args:
        arm: its name.
        use: how arms use the images that they add; those without are not affected.

    Raises:
        UserError: `arms.unknown`.
    """
    share = share_of(arm)
    added = f"; added images weigh {use.synthetic_weight:g} in the loss" * (use.synthetic_weight < 1)
    added += f"; label smoothing of {use.synthetic_smoothing:g} for added images" * (use.synthetic_smoothing > 0)
    if share is not None:
        mixture = f"{100 * share:g} % synthetic images, {100 - 100 * share:g} % repeats"
        title = f"real images; rare classes with {'synthetic images' if share == 1 else mixture}"
        if use.synthetic_scope == "all":
            if share == 1:
                raise UserError(
                    f"{arm} would have no real images: with synthetic_scope=all, its share is that of all images",
                    "choose synthetic_shares below 1",
                    "arms.no_real_images",
                    arm=arm,
                )
            title = f"as oversampled; {100 * share:g} % of each class are synthetic images"
        source = source_of(arm) or GAN
        title += "" if source == GAN else f", from {source}"
        if use.synthetic_selection != REALISM:
            title += f"; synthetic images selected {SELECTIONS[use.synthetic_selection]}"
        if use.synthetic_until < 1:
            title += f"; only repeats after {100 * use.synthetic_until:g} % of the epochs"
        return replace(
            CONTROLS[CONTROL],
            title=title + added,
            synthetic_share=share,
            source=source,
            synthetic_until=use.synthetic_until,
            synthetic_weight=use.synthetic_weight,
            synthetic_smoothing=use.synthetic_smoothing,
            synthetic_scope=use.synthetic_scope,
        )
    if arm not in CONTROLS:
        raise UserError(f"there is no arm {arm!r}", f"choose from {', '.join(CHOICES)}", "arms.unknown", arm=arm)
    found = CONTROLS[arm]
    if not found.adds:
        return found
    return replace(
        found,
        title=found.title + added,
        synthetic_weight=use.synthetic_weight,
        synthetic_smoothing=use.synthetic_smoothing,
    )


def uses_synthetic(arms: Iterable[str]) -> bool:
    """Return whether one of the arms uses synthetic images.

    Example:
        >>> uses_synthetic(["baseline", "augmented@1"]), uses_synthetic(["baseline", "class_weights"])
        (True, False)
    """
    return any(share_of(arm) is not None for arm in arms)


@dataclass(frozen=True)
class Comparison:
    """The primary comparison of a run.

    Attributes:
        candidates: the arms of which validation chooses one.
        reference: the arm that it is compared with.
    """

    candidates: tuple[str, ...]
    reference: str


def remedies(arms: Iterable[str]) -> tuple[str, ...]:
    """Return the arms without synthetic images, except the baseline and those that get more than images."""
    return tuple(arm for arm in arms if share_of(arm) is None and arm != BASELINE and not recipe(arm).metadata)


def comparison(arms: Sequence[str]) -> Comparison:
    """Return the primary comparison of arms: synthetic images with repeats, or without any, remedies with no remedy.

    Example:
        >>> comparison(["baseline", "oversampled", "augmented@1"])
        Comparison(candidates=('augmented@1',), reference='oversampled')
        >>> comparison(["baseline", "class_weights"])
        Comparison(candidates=('class_weights',), reference='baseline')
    """
    doses = tuple(arm for arm in arms if share_of(arm) is not None)
    return Comparison(doses, CONTROL) if doses else Comparison(remedies(arms), BASELINE)


def sort_arms(names: Iterable[str]) -> list[str]:
    """Return names of arms in the order in which pages show them."""
    order = [*CONTROLS, AUGMENTED]

    def key(arm: str) -> tuple[int, str, float]:
        name = arm.partition("@")[0]
        return order.index(name) if name in order else len(order), name, share_of(arm) or 0.0

    return sorted(names, key=key)


def expand(arms: Sequence[str], shares: Sequence[float], sources: Sequence[str] = (GAN,)) -> list[str]:
    """Return the names of all arms, in the order in which pages show them.

    Args:
        arms: names from `CHOICES`.
        shares: shares of synthetic images.
        sources: sources of synthetic images; the name `augmented` in `arms` becomes an arm for each source and share.

    Example:
        >>> expand(["augmented", "baseline", "oversampled"], [1.0, 0.5])
        ['baseline', 'oversampled', 'augmented@0.5', 'augmented@1']
    """
    doses = [dose_arm(share, source) for source in sources for share in shares] if AUGMENTED in arms else []
    return sort_arms([*(arm for arm in arms if arm != AUGMENTED), *doses])
