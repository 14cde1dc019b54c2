"""Compare a run with the plan that it cites, which was written before it; see `counterweight plan`."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import pandas as pd
from pydantic import ValidationError

from components.evaluate.predict.inputs import Inputs
from components.shared.arms import BASELINE, LATE_FUSION, recipe, uses_synthetic
from components.shared.code_identity import code_sha256
from components.shared.errors import UserError
from components.shared.image_set import hash_rows, read_header, read_rows
from components.shared.records import CitedPlan, Plan, Scalar, describe_invalid

LISTED = 8
"""Classes whose numbers are listed if a split differs."""
_BY_CONTENT = ("data", "data_columns", "data_split", "synthetic_classes")
"""Settings that are compared by what they lead to: images, classes and split."""
_BY_LIST = ("arms", "synthetic_shares", "classifier_seeds")
"""Settings that are compared as the lists of arms and seeds."""


def parse_plan(text: str) -> Plan:
    """Return the plan in the text of its file.

    Raises:
        UserError: `plan.invalid`.
    """
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        where, problem = describe_invalid(error)
        raise UserError(
            f"the plan is invalid: {f'{where}: ' if where else ''}{problem}",
            "use the unchanged file that `counterweight plan` of this version wrote",
            "plan.invalid",
            field=where,
        ) from error


def compare_settings(
    plan: Plan, settings: Mapping[str, Scalar], arms: Sequence[str], seeds: Sequence[int]
) -> Iterator[str]:
    """Yield a sentence for each setting that differs from the plan.

    Args:
        plan: the plan.
        settings: name → value; settings that are absent here are not compared.
        arms, seeds: the run's.
    """
    for name, planned in plan.settings.items():
        if name in settings and name not in (*_BY_CONTENT, *_BY_LIST) and settings[name] != planned:
            yield f"{name} is {settings[name]}, planned {planned}"
    if set(arms) != set(plan.arms):
        yield f"the arms are {', '.join(arms)}, planned {', '.join(plan.arms)}"
    if list(seeds) != plan.seeds:
        yield f"the seeds of the classifiers are {_join(seeds)}, planned {_join(plan.seeds)}"


def _join(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def _compare_data(plan: Plan, rows: pd.DataFrame, split: str, split_sha256: str) -> Iterator[str]:
    """Yield sentences on images and splits that differ from the plan.

    Args:
        plan: the plan.
        rows: image_id, lesion_id, dx and split of all images that are used.
        split: the parameter `data_split`.
        split_sha256: hash of the split.
    """
    planned_images = sum(size.images for of_split in plan.counts.values() for size in of_split.values())
    if hash_rows(rows, ["image_id", "lesion_id", "dx"]) != plan.images_sha256:
        yield f"the images, lesions or classes differ: {len(rows):,} images, planned {planned_images:,}"
    # A given split may lie elsewhere than planned; its content counts.
    planned = plan.splits.get("".join(split.split())) or (
        next(iter(plan.splits.values())) if len(plan.splits) == 1 else ""
    )
    if planned == split_sha256:
        return
    if not planned:
        yield f"data_split is {split}, planned {' or '.join(plan.splits)}"
        return
    lesions = rows.groupby(["split", "dx"])["lesion_id"].nunique()
    changes = [
        f"{name} has {lesions.get((name, dx), 0)} {plan.unit}s of {dx}, planned {size.lesions}"
        for name, of_split in plan.counts.items()
        for dx, size in of_split.items()
        if lesions.get((name, dx), 0) != size.lesions
    ]
    more = f"; and {len(changes) - LISTED} more" if len(changes) > LISTED else ""
    counted = "; ".join(changes[:LISTED]) if plan.folds == 1 else ""
    yield f"the split differs from the planned one{f': {counted}{more}' if counted else ''}"


def _use(inputs: Inputs) -> dict[str, Scalar]:
    """Return the options on the images that arms add, as far as an arm uses them."""
    if uses_synthetic(inputs.classifiers):
        return asdict(inputs.use)
    if not any(recipe(it).adds for it in inputs.classifiers):
        return {}
    use = inputs.use
    return {"synthetic_weight": use.synthetic_weight, "synthetic_smoothing": use.synthetic_smoothing}


def cite(text: str, inputs: Inputs, seeds: Sequence[int], parameters: Mapping[str, Scalar]) -> CitedPlan:
    """Return the citation of a plan, with everything in which the run deviates from it.

    Args:
        text: the file that `counterweight plan` wrote.
        inputs: inputs of the run.
        seeds: seeds of its classifiers.
        parameters: all parameters of the pipeline that evaluate gets.

    Raises:
        UserError: `plan.invalid`.
    """
    plan, header = parse_plan(text), read_header(inputs.sets["test"])
    sets = {"train": inputs.train_set, "validation": inputs.sets["validation"], "test": inputs.sets["test"]}
    columns = ["image_id", "lesion_id", "dx"]
    rows = pd.concat([read_rows(path, name, columns).assign(split=name) for name, path in sets.items()])
    settings = (
        dict(parameters)
        | {
            "classifier_epochs": inputs.classifiers[BASELINE][0].record.settings.epochs,
            "data_image_size": header.image_size,
            "classifier": inputs.classifiers[BASELINE][0].record.settings.network,
            "metadata": LATE_FUSION if inputs.classifiers[BASELINE][0].record.metadata else "none",
        }
        | _use(inputs)
    )
    deviations = [
        *_compare_data(plan, rows, str(parameters["data_split"]), header.split_sha256),
        *compare_settings(plan, settings, list(inputs.classifiers), seeds),
    ]
    if set(inputs.rare) != set(plan.rare_classes):
        deviations.append(f"the rare classes are {_join(inputs.rare)}, planned {_join(plan.rare_classes)}")
    if plan.code != code_sha256("evaluate"):
        deviations.append("the code of the evaluation has changed")
    if missing := sorted(set(inputs.rare) - set(inputs.rebalanced)):
        deviations.append(f"{_join(missing)} had no synthetic images, so the primary metric is without them")
    return CitedPlan(
        created=plan.created,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        deviations=[deviation[:1900] for deviation in deviations],
    )
