"""Refuse unfair comparisons: leaked test images, and arms that differ in more than their training set."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.evaluate.predict.inputs import Classifier, Inputs
from components.shared.arms import BASELINE, CONTROL, recipe, share_of
from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.image_set import Header, read_header, read_rows, refuse_overlap
from components.shared.records import FailedGan, TrainedGan


def check_classifiers(classifiers: Mapping[str, Sequence[Classifier]], header: Header) -> list[int]:
    """Return the seeds of the arms, which must be comparable.

    Args:
        classifiers: arm → classifiers, one per seed.
        header: header of the test set.

    Raises:
        UserError: a record belongs to another model, a model to another split, or the arms differ in settings, library
            versions or seeds.
    """
    _require_arms(classifiers)
    for arm, of_arm in classifiers.items():
        for classifier in of_arm:
            check_classifier(arm, classifier, header)
        if len({classifier.record.train_set_sha256 for classifier in of_arm}) > 1:
            raise UserError(
                f"the classifiers of the arm {arm} were trained on different sets",
                "train all classifiers of an arm on one set",
                "evaluate.different_training_sets",
                arm=arm,
            )
    arms = _differing_arms(classifiers)
    if len(arms) > 1:
        raise UserError(
            f"the classifiers were trained with different settings or library versions (arms {', '.join(arms)})",
            "train all arms with the same settings and container image",
            "evaluate.different_settings",
            arms=arms,
        )
    seeds = {arm: [classifier.record.settings.seed for classifier in classifiers[arm]] for arm in classifiers}
    first = seeds[BASELINE]
    if any(of_arm != first for of_arm in seeds.values()) or len(set(first)) < len(first):
        raise UserError(
            f"the seeds of the arms differ or repeat: {seeds}",
            "train every arm once with each seed",
            "evaluate.different_seeds",
            seeds=seeds,
        )
    return first


def _require_arms(classifiers: Mapping[str, Sequence[Classifier]]) -> None:
    """Refuse arms without the ones that they are compared with.

    Raises:
        UserError: `evaluate.missing_classifiers`.
    """
    needed = [BASELINE]
    if len(classifiers) < 2 or any(share_of(arm) is not None or recipe(arm).metadata for arm in classifiers):
        needed.append(CONTROL)
    for arm in needed:
        if not classifiers.get(arm):
            raise UserError(
                f"the arm {arm} has no classifier", "train every arm", "evaluate.missing_classifiers", arm=arm
            )


def _differing_arms(classifiers: Mapping[str, Sequence[Classifier]]) -> list[str]:
    """Return an arm for each value of what must be equal in all arms that have it: one arm if nothing differs."""
    comparable: dict[str, str] = {}
    networks: dict[str, str] = {}
    uses: dict[str, str] = {}
    weights: dict[str, str] = {}
    for arm, of_arm in classifiers.items():
        for record in (classifier.record for classifier in of_arm):
            settings = record.settings.model_dump(exclude={"seed"})
            comparable.setdefault(json.dumps([settings, record.versions], sort_keys=True), arm)
            if not recipe(arm).metadata:
                encoding = record.metadata.model_dump() if record.metadata else None
                networks.setdefault(json.dumps([record.parameters, encoding]), arm)
            if recipe(arm).adds:
                weights.setdefault(str((record.synthetic_weight, record.synthetic_smoothing)), arm)
            if share_of(arm):
                uses.setdefault(str((record.synthetic_until, record.synthetic_scope)), arm)
    return list(max(comparable, networks, uses, weights, key=len).values())


def check_classifier(arm: str, classifier: Classifier, header: Header) -> None:
    """Refuse a classifier whose record belongs to another model, arm or split, or lacks metadata that the arm has.

    Raises:
        UserError: `evaluate.wrong_record` or `evaluate.other_split`.
    """
    record = classifier.record
    belongs = record.arm == arm and (record.metadata is not None or not recipe(arm).metadata)
    if not belongs or not classifier.model.is_file() or record.model_sha256 != file_sha256(classifier.model):
        raise UserError(
            f"a record of the arm {arm} does not belong to its model",
            "use the unchanged files of one run",
            "evaluate.wrong_record",
            arm=arm,
        )
    if (record.data_sha256, record.split_sha256) != (header.data_sha256, header.split_sha256):
        raise UserError(
            f"a classifier of the arm {arm} was trained on another split, so it may have seen test images",
            "train it on the split of this run",
            "evaluate.other_split",
            name=arm,
        )


def refuse_seen(seen: Mapping[str, Sequence[str]], path: str | Path, split: str) -> None:
    """Refuse a held-out image that a model was trained or selected on, under any name.

    Args:
        seen: name of a model → `seen` of its record.
        path, split: the held-out image set.

    Raises:
        UserError: `evaluate.seen_image`.
    """
    rows = read_rows(path, split, ["image_id", "pixel_sha256"])
    names = dict(zip(rows["pixel_sha256"].str[:16], rows["image_id"], strict=True))
    for name, hashes in seen.items():
        leaked = sorted(names.keys() & set(hashes))
        if leaked:
            raise UserError(
                f"{name} was trained on {len(leaked):,} of the {split} images ({names[leaked[0]]}"
                f"{', …' * (len(leaked) > 1)}); its predictions for them are invalid",
                "re-create the split, or exclude these images",
                "evaluate.seen_image",
                name=name,
                split=split,
                images=len(leaked),
                first=names[leaked[0]],
            )


def seen_by(
    classifiers: Mapping[str, Sequence[Classifier]], gan_records: Mapping[str, TrainedGan | FailedGan]
) -> dict[str, list[str]]:
    """Return name of each model → hashes of the images it was trained or selected on; input of `refuse_seen`."""
    seen = {
        f"the {arm} classifier of seed {classifier.record.settings.seed}": classifier.record.seen
        for arm, of_arm in classifiers.items()
        for classifier in of_arm
    }
    return seen | {
        f"the GAN of {dx}": record.seen for dx, record in gan_records.items() if isinstance(record, TrainedGan)
    }


def check_inputs(inputs: Inputs) -> list[int]:
    """Return the seeds of a run's classifiers; refuse inputs that do not belong together, and leakage.

    Raises:
        UserError: a model may have seen a test or external image, the arms are not comparable, or files of different
            runs were mixed.
    """
    header = read_header(inputs.sets["test"])
    seeds = check_classifiers(inputs.classifiers, header)
    for dx, record in inputs.gan_records.items():
        if record.split_sha256 != header.split_sha256:
            raise UserError(
                f"the GAN of {dx} was trained on another split, so it may have seen test images",
                "train it on the split of this run",
                "evaluate.other_split",
                name=dx,
            )
    seen = seen_by(inputs.classifiers, inputs.gan_records)
    for split, path in inputs.sets.items():
        other = read_header(path)
        if (other.classes, other.image_size) != (header.classes, header.image_size):
            raise UserError(
                f"the {split} set has other classes or another image size than the test set",
                "use image sets of one run",
                "evaluate.other_data",
                split=split,
            )
        if split != "validation":
            refuse_overlap(path, split, [inputs.train_set, *inputs.synthetic_sets.values()])
            refuse_seen(seen, path, split)
    return seeds
