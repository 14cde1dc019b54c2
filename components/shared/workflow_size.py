"""Limits on the number of tasks, which keep a run's workflow below the sizes at which Argo fails it.

Argo fails a workflow whose compressed node status exceeds 1 MiB, and a task whose template or arguments exceed 128 KiB.
`tests/unit/test_pipeline.py` estimates both for a run at these limits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from components.shared.errors import UserError
from components.shared.parameters import split_names

MAX_CLASS_GROUPS = 20
"""Tasks that train GANs, each for the classes of one group."""
MAX_SEED_PACKS = 10
"""Tasks that train classifiers of one arm, each with the seeds of one pack."""


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


def group_classes(names: Sequence[str], gans_per_task: int) -> list[str]:
    """Return the classes of each task that trains GANs.

    Raises:
        UserError: `workflow.too_many_classes`: there would be more than `MAX_CLASS_GROUPS` tasks.
    """
    return _group_at_most(names, gans_per_task, MAX_CLASS_GROUPS, "classes", "gans_per_task")


def group_seeds(seeds: Sequence[int], classifiers_per_task: int) -> list[str]:
    """Return the seeds of each task that trains classifiers; a `*` marks the run's first seed.

    The mark is a part of the loop's item because `kfp.local` replaces every other task output in a loop by the item.

    Raises:
        UserError: `workflow.too_many_seeds`: there would be more than `MAX_SEED_PACKS` tasks.

    Example:
        >>> group_seeds([1, 2, 3], 2)
        ['1*,2', '3']
    """
    marked = [f"{seed}*" if number == 0 else str(seed) for number, seed in enumerate(seeds)]
    return _group_at_most(marked, classifiers_per_task, MAX_SEED_PACKS, "seeds", "classifiers_per_task")


def parse_seeds(pack: str) -> tuple[list[int], int | None]:
    """Return the seeds of a pack, and which of them is the run's first; None if it is in another pack.

    The files of the run's first seed have no seed in their names.

    Example:
        >>> parse_seeds("1*,2")
        ([1, 2], 1)
    """
    words = pack.split(",")
    first = next((int(word.removesuffix("*")) for word in words if word.endswith("*")), None)
    return [int(word.removesuffix("*")) for word in words], first


def check_size(values: Mapping[str, Any], gans_per_task: int, classifiers_per_task: int) -> list[str]:
    """Return the packs of seeds of a run with these parameters, after a check of its size.

    The classes of `auto` are known after the data is read; `prepare_data` checks them.

    Raises:
        UserError: `workflow.too_many_seeds`, `workflow.too_many_classes`.
    """
    if values["synthetic_classes"].strip() != "auto":
        group_classes(split_names(values["synthetic_classes"]), gans_per_task)
    return group_seeds(values["classifier_seeds"], classifiers_per_task)


def _group_at_most(items: Sequence[Any], per_task: int, limit: int, what: str, option: str) -> list[str]:
    groups = group(items, per_task)
    if len(groups) > limit:
        raise UserError(
            f"{len(items)} {what} with {option} {per_task} need {len(groups)} tasks, but a workflow holds {limit}",
            f"compile the pipeline with {option} {-(-len(items) // limit)}, or choose fewer {what}",
            f"workflow.too_many_{what}",
            count=len(items),
            limit=limit * per_task,
            option=option,
        )
    return groups
