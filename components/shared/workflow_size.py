"""Limits on the number of tasks, which keep a run's workflow below the sizes at which Argo fails it.

Argo fails a workflow whose compressed node status exceeds 1 MiB, and a task whose template or arguments exceed 128 KiB.
`tests/unit/test_pipeline.py` estimates both for a run at these limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.shared.arms import share_of
from components.shared.errors import UserError

MAX_CLASS_GROUPS = 20
"""Tasks that train GANs, each for the classes of one group."""
MAX_CLASSIFIER_PACKS = 10
"""Tasks of each of the two groups that train classifiers."""
NO_CLASSIFIER = "none"
"""The pack of a task that trains nothing: a loop over no items is not possible."""


def group(items: Sequence[Any], per_task: int) -> list[str]:
    """Return the items of each task as a comma-separated list; the tasks differ by one item at most.

    Example:
        >>> group(["akiec", "bcc", "df"], 2)
        ['akiec,bcc', 'df']
    """
    tasks = -(-len(items) // per_task)
    small, larger = divmod(len(items), tasks) if tasks else (0, 0)
    groups, start = [], 0
    for number in range(tasks):
        end = start + small + (number < larger)
        groups.append(",".join(map(str, items[start:end])))
        start = end
    return groups


def group_classes(names: Sequence[Any], gans_per_task: int) -> list[str]:
    """Return the classes of each task that trains GANs; more per task if a workflow would not hold the tasks.

    Example:
        >>> group_classes(range(22), 1)[:2]
        ['0,1', '2,3']
    """
    return group(names, max(gans_per_task, -(-len(names) // MAX_CLASS_GROUPS)))


def group_all_classes(rare: Sequence[str], classes: Sequence[str], gans_per_task: int) -> list[str]:
    """Return all classes in groups, one per task that trains GANs, the rare ones first; see `group_classes`.

    Example:
        >>> group_all_classes(["akiec", "df"], ["akiec", "df", "nv"], 2)
        ['akiec,df', 'nv']
    """
    return group_classes([*rare, *(dx for dx in classes if dx not in rare)], gans_per_task)


@dataclass(frozen=True)
class Job:
    """A classifier to train.

    Attributes:
        arm: name of the arm.
        seed: seed of the training.
        first: whether this is the run's first seed, whose files have no seed in their names.
    """

    arm: str
    seed: int
    first: bool


@dataclass(frozen=True)
class Packs:
    """The classifiers of each task, for both groups of tasks; see `parse_pack`.

    Attributes:
        real: classifiers of the arms without synthetic images.
        synthetic: classifiers of the arms with synthetic images.
    """

    real: list[str]
    synthetic: list[str]


def pack_classifiers(arms: Sequence[str], seeds: Sequence[int], classifiers_per_task: int) -> Packs:
    """Return the classifiers of each task, one for each arm and seed; a `*` marks the run's first seed.

    The mark is a part of the loop's item because `kfp.local` replaces every other task output in a loop by the item.

    Raises:
        UserError: `workflow.too_many_classifiers`: a group would have more than `MAX_CLASSIFIER_PACKS` tasks.

    Example:
        >>> pack_classifiers(["baseline", "augmented@1"], [1, 2], 1)
        Packs(real=['baseline:1*', 'baseline:2'], synthetic=['augmented@1:1*', 'augmented@1:2'])
    """

    def pack(of_kind: list[str]) -> list[str]:
        jobs = [f"{arm}:{seed}{'*' * (seed == seeds[0])}" for arm in of_kind for seed in seeds]
        packs, limit = group(jobs, classifiers_per_task), MAX_CLASSIFIER_PACKS
        if len(packs) > limit:
            raise UserError(
                f"{len(jobs)} classifiers with classifiers_per_task {classifiers_per_task} need {len(packs)} tasks, "
                f"but a workflow holds {limit}",
                f"set classifiers_per_task to {-(-len(jobs) // limit)}, or choose fewer arms or seeds",
                "workflow.too_many_classifiers",
                count=len(jobs),
                limit=limit * classifiers_per_task,
                option="classifiers_per_task",
            )
        return packs

    return Packs(
        real=pack([arm for arm in arms if share_of(arm) is None]),
        synthetic=pack([arm for arm in arms if share_of(arm) is not None]),
    )


def parse_pack(pack: str) -> list[Job]:
    """Return the classifiers of a pack; none of `NO_CLASSIFIER`.

    Example:
        >>> parse_pack("baseline:1*,baseline:2")[1]
        Job(arm='baseline', seed=2, first=False)
    """
    jobs = []
    for word in pack.split(",") if pack != NO_CLASSIFIER else []:
        arm, _, seed = word.partition(":")
        jobs.append(Job(arm, int(seed.removesuffix("*")), seed.endswith("*")))
    return jobs


def describe_pack(pack: str) -> list[str]:
    """Return the parts of a pack's label.

    Example:
        >>> describe_pack("baseline:1*,baseline:2,oversampled:1*,oversampled:2")
        ['baseline,oversampled', 'seeds 1,2']
        >>> describe_pack("baseline:2,oversampled:1*")
        ['baseline', 'seed 2', 'oversampled', 'seed 1']
    """
    seeds: dict[str, list[str]] = {}
    for job in parse_pack(pack):
        seeds.setdefault(job.arm, []).append(str(job.seed))
    arms: dict[str, list[str]] = {}
    for arm, of_arm in seeds.items():
        arms.setdefault(f"seed{'s' * (len(of_arm) > 1)} {','.join(of_arm)}", []).append(arm)
    return [part for numbers, names in arms.items() for part in (",".join(names), numbers)]
