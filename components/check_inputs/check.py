"""Check a run's parameters, data and output in seconds, before anything is trained.

Kubeflow's form and API accept values that no phase can use: 32.5 for an integer, an empty list, a folder of another
machine. Everything that can be detected without reading an image is an error here, such as a class that the data lacks.
"""

import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.shared import champion as champions
from components.shared import storage
from components.shared.arms import GAN, Scope, uses_synthetic
from components.shared.data_identity import input_identity, others_identity
from components.shared.errors import UserError
from components.shared.initial_weights import InitialWeights, parse_weights, unreadable
from components.shared.log import log_line
from components.shared.parameters import FOLD, arm_names, check_arms, source_label, synthetic_sources, takes_metadata
from components.shared.parameters import check as check_parameters
from components.shared.places import refuse_file
from components.shared.stores.addresses import ADDRESS_FORM, is_address
from components.shared.workflow_size import NO_CLASSIFIER, Packs, pack_classifiers

PROBE = ".counterweight-probe"
"""First part of the name of a file that is written and removed to test whether a place is writable."""

HDF5 = b"\x89HDF\r\n\x1a\n"
"""The first bytes of a file of HDF5."""


@dataclass(frozen=True)
class Checked:
    """Values that the other tasks need.

    Attributes:
        packs: the classifiers of each task; each group has one, because a loop needs an item.
        data_identity: hash of the input files' names, sizes and versions.
        others_identity: the same for the external set and the synthetic images of other generators.
        train_gans: whether the GANs of this run are such a source, and arms use their images.
        champion: the run to compare with, as text; empty without the option.
    """

    packs: Packs
    data_identity: str
    others_identity: str
    train_gans: bool
    champion: str


def check(
    parameters: Mapping[str, Any],
    classifiers_per_task: int,
    checkpoints: str,
    champion: str,
    max_bad_images: int,
    metadata: str,
    synthetic_scope: Scope,
    weights: str,
    environment: Mapping[str, str],
) -> Checked:
    """Check everything that can fail before training.

    Args:
        parameters: name → value, as Kubeflow passes them.
        classifiers_per_task, checkpoints, champion, max_bad_images, metadata, synthetic_scope,
            weights: options of the compiled pipeline.
        environment: environment variables; they show whether this is a pod and whether Kaggle's credentials are set.

    Raises:
        UserError: a parameter is invalid, an input is missing or unreadable, the output is not writable, the champion
            cannot be used, the run would need more tasks than a workflow holds, or the data is refused as in
            `prepare.check_listing`.
    """
    values = check_parameters(parameters)
    packs = pack_classifiers(arm_names(values), values["classifier_seeds"], classifiers_per_task)
    takes_metadata(values, metadata)
    check_arms(values, synthetic_scope)
    in_pod = "KUBERNETES_SERVICE_HOST" in environment
    inputs = {
        "data": (values["data"], ("demo", "kaggle")),
        "data_external": (values["data_external"], ("none",)),
        "data_split": ("random" if FOLD.fullmatch(values["data_split"]) else values["data_split"], ("random",)),
    }
    sources = synthetic_sources(values["synthetic"])
    inputs |= {source_label(name): (place, (GAN,)) for name, place in sources.items()}
    for name, (place, words) in inputs.items():
        if place not in words:
            _check_input(name, place, in_pod)
    if values["data"] == "kaggle":
        _check_kaggle(environment)
    identity = input_identity(values["data"], values["data_split"])
    _check_output("output", values["output"], in_pod)
    if is_address(checkpoints):
        _check_output("checkpoints", checkpoints, in_pod)
    arms = arm_names(values)
    log_line("check_inputs", f"data identity {identity}; output {values['output']}; arms {', '.join(arms)}")
    train_gans = GAN in sources and uses_synthetic(arms)
    if not packs.synthetic:
        log_line("check_inputs", "no arm uses synthetic images: no GAN is trained, and no image is generated")
        packs = replace(packs, synthetic=[NO_CLASSIFIER])
    if file := parse_weights(weights):
        if in_pod and not is_address(file.place):
            raise _not_reachable("weights", file.place)
        _check_weights(file)
    chosen = _choose_champion(champion, values["output"], values["data_image_size"], in_pod)
    if in_pod:
        _check_data(values, max_bad_images, metadata, synthetic_scope)
    others = others_identity(values["synthetic"], values["data_external"])
    return Checked(packs, identity, others, train_gans, chosen)


def _check_weights(weights: InitialWeights) -> None:
    """Raise if a file of weights does not exist or is not HDF5; only its first bytes are read."""
    try:
        place = weights.place
        with storage.open_object(place) if is_address(place) else Path(place).open("rb") as file:
            start = file.read(len(HDF5))
    except OSError as error:
        raise unreadable(weights.place, error.strerror or type(error).__name__) from error
    if start != HDF5:
        raise unreadable(weights.place, "not a file of HDF5")


def _check_data(values: Mapping[str, Any], max_bad_images: int, metadata: str, scope: Scope) -> None:
    """Check what the listing of the data reveals, as the commands do that start a run elsewhere.

    Raises:
        UserError: as in `prepare.check_listing_with_access`.
    """
    from components.prepare_data.prepare import check_listing_with_access  # takes a second; a local run has checked it

    if warning := check_listing_with_access(values, max_bad_images, metadata, scope):
        log_line("check_inputs", warning)


def _choose_champion(champion: str, output: str, image_size: int, in_pod: bool) -> str:
    """Return the champion as the text that the other tasks get; empty without the option.

    Raises:
        UserError: `input.not_reachable`, or as in `champion.choose`.
    """
    if champion == champions.NONE:
        return ""
    if in_pod and champion != champions.LAST and not is_address(champion):
        raise _not_reachable("champion", champion)
    with tempfile.TemporaryDirectory(prefix="counterweight-") as scratch:
        chosen = champions.choose(champion, output, image_size, Path(scratch))
    found = f"{chosen.run.place}, arm {chosen.run.arm}" if chosen.run else "no earlier run has a candidate"
    log_line("check_inputs", f"champion: {found}")
    return champions.format_choice(chosen)


def _check_input(name: str, place: str, in_pod: bool) -> None:
    """Raise if a folder or file is missing; `data_identity` checks addresses."""
    if is_address(place):
        return
    if in_pod:
        raise _not_reachable(name, place)
    path, is_file = Path(place), name == "data_split"
    if path.is_file() and not is_file:
        raise refuse_file(name, place)
    if not (path.is_file() if is_file else path.is_dir()):
        kind = "file" if is_file else "folder"
        raise UserError(
            f"{name} is {place!r}, but this {kind} does not exist",
            f"give the path of a {kind}",
            "input.missing",
            name=name,
            value=place,
        )


def _not_reachable(name: str, place: str) -> UserError:
    return UserError(
        f"{name} is {place!r}, which a pod cannot reach",
        f"copy it to object storage and give {ADDRESS_FORM}",
        "input.not_reachable",
        name=name,
        value=place,
    )


def _check_kaggle(environment: Mapping[str, str]) -> None:
    variables = {"KAGGLE_API_TOKEN"} <= environment.keys() or {"KAGGLE_USERNAME", "KAGGLE_KEY"} <= environment.keys()
    folder = Path(environment.get("KAGGLE_CONFIG_DIR") or Path(environment.get("HOME", "/"), ".kaggle"))
    if not variables and not any((folder / name).is_file() for name in ("kaggle.json", "access_token")):
        raise UserError(
            "data is kaggle, but no Kaggle credentials are set",
            "set KAGGLE_USERNAME and KAGGLE_KEY; on a cluster, set kaggle_secret in the placement file",
            "kaggle.no_credentials",
        )


def _check_output(name: str, place: str, in_pod: bool) -> None:
    """Raise if nothing can be written below a place, by writing and removing a small file."""
    if place == "auto":
        return
    probe = f"{PROBE}-{uuid.uuid4().hex[:8]}"
    if is_address(place):
        storage.Prefix(place).check_writable(probe)
        return
    if in_pod:
        raise UserError(
            f"{name} is {place!r}, a folder that is lost with the pod",
            f"give auto or {ADDRESS_FORM}",
            f"{name}.not_reachable",
            value=place,
        )
    nearest = Path(place)
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(f"{name} is {place}, but {nearest} is a file", "choose another folder", f"{name}.is_a_file")
    try:
        (nearest / probe).touch()
        (nearest / probe).unlink()
    except OSError as error:
        raise UserError(
            f"{name} is {place}, which is not writable ({error.strerror})",
            "choose another folder",
            f"{name}.not_writable",
            value=place,
        ) from error
