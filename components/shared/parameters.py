"""The pipeline's parameters: names, defaults, limits, choices and descriptions, for form, commands, checks and docs."""

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from components.shared import arms as arms_module
from components.shared.arms import GAN
from components.shared.class_names import CLASS_NAME, safe_class_name
from components.shared.errors import UserError, did_you_mean
from components.shared.initial_weights import FORM as WEIGHTS_FORM
from components.shared.initial_weights import NONE as NO_WEIGHTS
from components.shared.initial_weights import parse_weights
from components.shared.places import is_packed
from components.shared.records import MAX_SEED, describe_invalid
from components.shared.stores.addresses import ADDRESS, ADDRESS_FORM, is_signed

MAX_SEEDS = 20
MAX_SHARES = 5
MAX_FOLDS = 20
MAX_PLACE_LENGTH = 1_000
MAX_SOURCES = 5
_RESERVED_SOURCES = {"real", "external", arms_module.AUGMENTED, *arms_module.CONTROLS}
UNNAMED_SOURCE = "synthetic"
"""Name of the source if `synthetic` is a place without a name."""

MAX_LISTED_CLASSES = 100
COLUMN_FIELDS = (
    "image_id", "dx", "lesion_id", "patient_id", "dx_type", "age", "sex", "localization", "split",
)  # fmt: skip
"""Fields of an image whose columns `data_columns` can name."""
FOLD = re.compile(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*")

Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
SyntheticShare = Annotated[float, Field(ge=0.01, le=1)]
Place = Annotated[str, Field(min_length=1, max_length=MAX_PLACE_LENGTH)]


def _form(metavar: str, text: str) -> dict[str, Any]:
    """Return the form of a text parameter, for the command line, hints and documentation, as an argument of `Field`."""
    return {"metavar": metavar, "form": text}


class Parameters(BaseModel):
    """The parameters of a run, as in the form of the Kubeflow UI, in alphabetical order.

    Example:
        >>> Parameters(classifier_seeds=[1, 2]).gan_kimg
        8.0
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    arms: str = Field(
        default="all",
        max_length=MAX_PLACE_LENGTH,
        description=f"Ways of training the classifier that are compared: {arms_module.BASELINE} and at least one "
        f"other; {' and '.join(arms_module.CONTROLLED)} require {arms_module.CONTROL}; metadata is not in all.",
        json_schema_extra=_form(
            "all|ARM,…", f"all, or names from {', '.join(arms_module.CHOICES)}, separated by commas"
        ),
    )
    classifier_epochs: int = Field(
        default=20,
        ge=1,
        le=1_000_000,
        description="Epochs of each classifier; the weights of the last one are used.",
    )
    classifier_seeds: list[Seed] = Field(
        default=[1, 2, 3],
        min_length=1,
        max_length=MAX_SEEDS,
        description="Random seeds of the classifiers; each arm is trained once per seed.",
    )
    data: Place = Field(
        default="demo",
        description="The images, in any of the supported layouts.",
        json_schema_extra=_form("PLACE", f"demo, kaggle, {ADDRESS_FORM} or a folder"),
    )
    data_columns: str = Field(
        default="auto",
        min_length=1,
        max_length=MAX_PLACE_LENGTH,
        description="Columns of the metadata that hold image, class and ids; auto recognises common layouts.",
        json_schema_extra=_form(
            "auto|FIELD:COLUMN,…",
            f"auto, or field:column, separated by commas, such as image_id:file,dx:label; fields are "
            f"{', '.join(COLUMN_FIELDS)}",
        ),
    )
    data_duplicates: Literal["refuse", "move_to_train"] = Field(
        default="refuse",
        description="Action if near-duplicates are in two splits: refuse fails the run, move_to_train moves them.",
    )
    data_external: Place = Field(
        default="none",
        description="A second data set, from another source, that all arms are evaluated on.",
        json_schema_extra=_form("PLACE", f"none, {ADDRESS_FORM} or a folder"),
    )
    data_image_size: int = Field(
        default=64, ge=32, le=512, multiple_of=16, description="Height and width of the scaled images in pixels."
    )
    data_split: Place = Field(
        default="random",
        description="How lesions are assigned to train, validation and test; random is the split that the data states, "
        "else a seeded random one.",
        json_schema_extra=_form(
            "random|K/N|FILE", "random, k/n (fold k of n), or a CSV file with the columns image_id and split"
        ),
    )
    gan_kimg: float = Field(
        default=8.0, ge=0.001, le=1_000_000, description="Training budget of each GAN, in thousand real images shown."
    )
    gan_shared_kimg: float = Field(
        default=100.0,
        ge=0,
        le=1_000_000,
        description="Budget of one GAN of several classes from which each class's GAN starts; 0 for none.",
    )
    output: Place = Field(
        default="auto",
        description="Where the results are published; auto keeps them as an artifact of the run.",
        json_schema_extra=_form("PLACE", f"auto, {ADDRESS_FORM} or a folder"),
    )
    positive_classes: str = Field(
        default="auto",
        max_length=MAX_PLACE_LENGTH,
        description="Classes whose sensitivity is measured as one group; auto takes mel, bcc and akiec if the data has "
        "them, else none; empty for none.",
        json_schema_extra=_form("auto|CLASS,…", "auto, or class names, separated by commas"),
    )
    random_seed: Seed = Field(default=1, description="Random seed of the split, the GANs and the synthetic images.")
    synthetic: str = Field(
        default=GAN,
        min_length=1,
        max_length=MAX_PLACE_LENGTH,
        description="Where the synthetic images come from: the GANs of this run, other generators, or both.",
        json_schema_extra=_form(
            f"{GAN}|PLACE|NAME=PLACE,…",
            f"{GAN}, a place with one folder per class, or several named ones such as {GAN},stylegan=gs://bucket/prefix",
        ),
    )
    synthetic_classes: str = Field(
        default="auto",
        min_length=1,
        max_length=MAX_PLACE_LENGTH,
        description="Classes that get synthetic images; auto takes all but the largest.",
        json_schema_extra=_form("auto|CLASS,…", "auto, or class names, separated by commas"),
    )
    synthetic_per_class: int = Field(
        default=500,
        ge=1,
        le=1_000_000,
        description="Images that arms such as oversampled and augmented add to each class.",
    )
    synthetic_shares: list[SyntheticShare] = Field(
        default=[0.25, 0.5, 1.0],
        min_length=1,
        max_length=MAX_SHARES,
        description="Shares of synthetic images among the added ones; each share is an arm.",
    )

    @field_validator("arms")
    @classmethod
    def _arms_exist(cls, arms: str) -> str:
        names = split_names(arms)
        if unknown := [name for name in names if name not in (*arms_module.CHOICES, "all")]:
            near = did_you_mean(unknown[0], (*arms_module.CHOICES, "all"))
            raise ValueError(f"there is no arm {unknown[0]}" + f"; {near}" * bool(near))
        if len(set(names)) < len(names) or ("all" in names and len(names) > 1):
            raise ValueError("an arm is repeated")
        if names == ["all"]:
            return arms
        if arms_module.BASELINE not in names:
            raise ValueError(f"{arms_module.BASELINE} is missing")
        if len(names) < 2:
            raise ValueError("an arm to compare with baseline is missing")
        controlled = [name for name in names if name in arms_module.CONTROLLED]
        if controlled and arms_module.CONTROL not in names:
            raise ValueError(f"{arms_module.CONTROL} is missing, which {controlled[0]} is compared with")
        return arms

    @field_validator("synthetic_shares")
    @classmethod
    def _shares_differ(cls, shares: list[float]) -> list[float]:
        if len({arms_module.dose_arm(share) for share in shares}) < len(shares):
            raise ValueError("a share is repeated")
        if any(arms_module.share_of(arms_module.dose_arm(share)) != share for share in shares):
            raise ValueError("a share has more than two decimals")
        return shares

    @field_validator("classifier_seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is repeated")
        return seeds

    @field_validator("data", "data_external", "data_split", "output")
    @classmethod
    def _is_place(cls, place: str) -> str:
        return _check_place(place)

    @field_validator("synthetic")
    @classmethod
    def _sources_exist(cls, synthetic: str) -> str:
        items = split_names(synthetic)
        sources = synthetic_sources(synthetic)
        if not items or len(sources) < len(items) or len(set(sources.values())) < len(items):
            raise ValueError("a source is unnamed or repeated" if items else "there is no source")
        if len(items) > MAX_SOURCES:
            raise ValueError(f"there are more than {MAX_SOURCES} sources")
        if reserved := [name for name, place in sources.items() if _is_reserved(name, place)]:
            raise ValueError(f"a source cannot have the name {reserved[0]}")
        for place in sources.values():
            _check_place(place)
        return synthetic

    @field_validator("data", "data_external")
    @classmethod
    def _is_not_packed(cls, place: str) -> str:
        if "://" in place and is_packed(place):
            raise ValueError("it is a packed file; unpack it and give the prefix of its content")
        return place

    @field_validator("data_split")
    @classmethod
    def _fold_exists(cls, split: str) -> str:
        fold = FOLD.fullmatch(split)
        if fold and not (2 <= int(fold[2]) <= MAX_FOLDS and 1 <= int(fold[1]) <= int(fold[2])):
            raise ValueError(f"the fold does not exist; k/n has k from 1 to n and n from 2 to {MAX_FOLDS}")
        return split

    @field_validator("data_columns")
    @classmethod
    def _names_columns(cls, columns: str) -> str:
        if not columns.isprintable():
            raise ValueError("it has characters that cannot be printed")
        _split_columns(columns)
        return columns

    @field_validator("positive_classes", "synthetic_classes")
    @classmethod
    def _is_class_list(cls, classes: str) -> str:
        names = [part.strip() for part in classes.split(",")] if classes.strip() else []
        if len(names) > MAX_LISTED_CLASSES or ";" in classes or "" in names:
            raise ValueError("it is not a list of class names, separated by commas")
        for name in names:
            if not CLASS_NAME.fullmatch(name):
                safe = safe_class_name(name)
                raise ValueError(
                    f"the class {name[:60]!r} is called {safe} here" if safe else f"no class is called {name[:60]!r}"
                )
        if len(set(names)) < len(names):
            raise ValueError("a class is repeated")
        return classes


def _is_reserved(source: str, place: str) -> bool:
    return source in _RESERVED_SOURCES or (source == GAN) != (place == GAN)


def _check_place(place: str) -> str:
    if place != place.strip() or not place.isprintable() or place != place.encode(errors="replace").decode():
        raise ValueError("it begins or ends with a blank, or has characters that cannot be printed")
    if "://" in place and not re.fullmatch(ADDRESS, place):
        raise ValueError(f"the address is not of the form {ADDRESS_FORM}")
    if is_signed(place):
        raise ValueError("it contains a signature, which is a secret; for Azure, set AZURE_STORAGE_SAS_TOKEN instead")
    return place


class Options(BaseModel):
    """What is decided when the pipeline is compiled: the section `options` of `manifests/placement.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gans_per_task: int = Field(
        default=2, ge=1, le=100, description="Classes whose GANs are trained in one task; by default 1 in a local run."
    )
    classifiers_per_task: int = Field(
        default=6, ge=1, le=50, description="Classifiers that are trained in one task; by default 3 in a local run."
    )
    max_bad_images: int = Field(
        default=10, ge=0, le=1_000_000_000, description="Unusable images that are skipped; more fail the run."
    )
    failed_class: Literal["fail", "continue"] = Field(
        default="fail",
        description="Action if the GAN of a class fails: fail the run, or continue without synthetic images of it.",
    )
    checkpoints: str = Field(
        default="auto",
        pattern=f"^(auto|none|{ADDRESS})$",
        description="Where training keeps its checkpoints; auto is beside the artifacts.",
        json_schema_extra=_form("auto|none|ADDRESS", f"auto, none or {ADDRESS_FORM}"),
    )
    promote_if: Literal["improved", "not_worse", "always", "never"] = Field(
        default="improved",
        description="Verdicts that make the advised model a candidate. The run, the advice and, if set, the champion "
        "comparison must all have one of them.",
    )
    champion: Place = Field(
        default="none",
        description="The promoted model with which the new one is compared; last is the candidate of the newest run in "
        "the output that has one.",
        json_schema_extra=_form("none|last|PLACE", f"none, last, {ADDRESS_FORM} or a folder"),
    )
    gan_architecture: Literal["resnet", "dcgan"] = Field(default="resnet", description="Networks of the GANs.")
    classifier: Literal["cnn", "resnet", "efficientnet", "convnext"] = Field(
        default="cnn", description="Network of the classifiers, the same in all arms."
    )
    weights: Place = Field(
        default=NO_WEIGHTS,
        description="File with the weights from which the body of the network efficientnet or convnext starts.",
        json_schema_extra=_form(f"{NO_WEIGHTS}|FILE", f"{NO_WEIGHTS}, or {WEIGHTS_FORM}"),
    )
    metadata: Literal["none", "late_fusion"] = Field(
        default="none", description="Whether the classifiers of all arms also get age, sex and site of the patient."
    )
    synthetic_scope: arms_module.Scope = Field(
        default="rare",
        description="Classes that have synthetic images; with all, a share is that of the images of each class.",
    )
    synthetic_selection: arms_module.Selection = Field(
        default=arms_module.REALISM,
        description="How synthetic images are selected: by rejecting the worst fifth, or from three times as many by "
        "the class that they show, the density of real images, or their distance from these.",
    )
    synthetic_until: float = Field(
        default=1.0,
        ge=0.01,
        le=1,
        description="Share of the epochs in which augmented arms use synthetic images; later ones use the images of "
        "oversampled.",
    )
    synthetic_weight: float = Field(
        default=1.0,
        ge=0.01,
        le=1,
        description="Weight of each added image in the loss, synthetic or repeated; other images have the weight 1.",
    )
    synthetic_smoothing: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="Label smoothing of each added image, synthetic or repeated; other images have none.",
    )

    @field_validator("champion")
    @classmethod
    def _is_place(cls, place: str) -> str:
        return _check_place(place)

    @field_validator("weights")
    @classmethod
    def _is_file(cls, weights: str) -> str:
        if file := parse_weights(weights):
            _check_place(file.place)
        return weights


def _split_columns(columns: str) -> dict[str, str]:
    """Return field → column of `data_columns`; raise a ValueError that states what is wrong."""
    if columns.strip() == "auto":
        return {}
    named: dict[str, str] = {}
    for part in columns.split(","):
        field, colon, column = (text.strip() for text in part.partition(":"))
        if not colon or not column:
            raise ValueError(f"{part.strip()!r} is not of the form field:column")
        if field not in COLUMN_FIELDS:
            raise ValueError(f"there is no field {field}")
        if field in named or column in named.values():
            raise ValueError(f"{field if field in named else column} is repeated")
        named[field] = column
    return named


def parse_columns(columns: str) -> dict[str, str]:
    """Return field → column of the parameter `data_columns`; empty for `auto`.

    Raises:
        UserError: `parameter.invalid`.

    Example:
        >>> parse_columns("image_id:file, dx:label")
        {'image_id': 'file', 'dx': 'label'}
    """
    return _split_columns(str(check({"data_columns": columns})["data_columns"]))


def split_names(names: str) -> list[str]:
    """Return the names in a comma-separated list."""
    return [name.strip() for name in names.split(",") if name.strip()]


def synthetic_sources(synthetic: str) -> dict[str, str]:
    """Return name → place of each source of synthetic images in the parameter `synthetic`.

    The GANs of the run have the name and the place `gan`.

    Example:
        >>> synthetic_sources("gan, stylegan=gs://bucket/images")
        {'gan': 'gan', 'stylegan': 'gs://bucket/images'}
        >>> synthetic_sources("/data/generated")
        {'synthetic': '/data/generated'}
    """
    sources = {}
    for item in split_names(synthetic):
        named = re.fullmatch(rf"({arms_module.SOURCE_NAME})=(.+)", item)
        if item == GAN:
            sources[GAN] = GAN
        else:
            sources[named[1] if named else UNNAMED_SOURCE] = named[2].strip() if named else item
    return sources


def source_label(name: str) -> str:
    """Return how messages call a source of the parameter `synthetic`.

    Example:
        >>> source_label("stylegan"), source_label("synthetic")
        ('synthetic (stylegan)', 'synthetic')
    """
    return "synthetic" if name == UNNAMED_SOURCE else f"synthetic ({name})"


def format_sources(sources: Mapping[str, str]) -> str:
    """Return the value of `synthetic` for sources; the inverse of `synthetic_sources`.

    Example:
        >>> format_sources({"gan": "gan", "synthetic": "/a", "stylegan": "/b"})
        'gan,/a,stylegan=/b'
    """
    return ",".join(place if name in (GAN, UNNAMED_SOURCE) else f"{name}={place}" for name, place in sources.items())


HAM10000_POSITIVE = ("mel", "bcc", "akiec")
"""Malignant and precancerous classes of HAM10000: the positive classes of data that has exactly these names."""


def positive_classes(selection: str, classes: Sequence[str]) -> list[str]:
    """Return the positive classes of a run.

    Args:
        selection: the parameter `positive_classes`.
        classes: the classes of the data.

    Raises:
        UserError: `parameter.unknown_class` or `parameter.all_classes`.

    Example:
        >>> positive_classes("auto", ["bcc", "cat", "mel"])
        []
    """
    if selection.strip() == "auto":
        return list(HAM10000_POSITIVE) if set(HAM10000_POSITIVE) < set(classes) else []
    names = split_names(selection)
    if unknown := [name for name in names if name not in classes]:
        raise UserError(
            f"positive_classes lists {', '.join(unknown)}, which the data does not have",
            f"choose from {', '.join(sorted(classes))}, or auto",
            "parameter.unknown_class",
            name="positive_classes",
            classes=unknown,
        )
    if names and len(names) == len(set(classes)):
        raise UserError(
            f"positive_classes lists all classes of the data ({', '.join(names)})",
            "leave out at least one, which is then negative",
            "parameter.all_classes",
            name="positive_classes",
        )
    return names


def arm_names(values: Mapping[str, Any]) -> list[str]:
    """Return the arms of a run with these parameters, in the order in which pages show them."""
    chosen, sources = split_names(values["arms"]), synthetic_sources(values["synthetic"])
    arms = arms_module.ALL if chosen == ["all"] else chosen
    return arms_module.expand(arms, values["synthetic_shares"], tuple(sources))


def takes_metadata(values: Mapping[str, Any], option: str) -> bool:
    """Return whether a classifier of a run gets age, sex and site of the patient.

    Args:
        values: parameters of the run.
        option: the option `metadata`.

    Raises:
        UserError: `arms.repeats_option`: all arms have what distinguishes one of them.

    Example:
        >>> takes_metadata({"arms": "all", "synthetic": "gan", "synthetic_shares": [1.0]}, "none")
        False
    """
    own = [arm for arm in arm_names(values) if arms_module.recipe(arm).metadata]
    if own and option == arms_module.LATE_FUSION:
        raise UserError(
            f"arms lists {own[0]}, but the option metadata is {option}, with which all arms have metadata",
            f"omit the arm {own[0]}, or set the option metadata to none",
            "arms.repeats_option",
            arm=own[0],
        )
    return bool(own) or option == arms_module.LATE_FUSION


def check_arms(values: Mapping[str, Any], scope: arms_module.Scope) -> None:
    """Check that each arm of a run has a recipe, and that arms use the sources of synthetic images.

    Args:
        values: parameters of the run.
        scope: the option `synthetic_scope`.

    Raises:
        UserError: `arms.no_real_images` or `arms.unused_source`.
    """
    arms = arm_names(values)
    for arm in arms:
        arms_module.recipe(arm, arms_module.Use(synthetic_scope=scope))
    if list(synthetic_sources(values["synthetic"])) != [GAN] and not arms_module.uses_synthetic(arms):
        raise UserError(
            f"synthetic is {values['synthetic']}, but arms is {values['arms']}, so that no arm uses its images",
            "add oversampled and augmented to arms, or omit synthetic",
            "arms.unused_source",
            arms=arms,
        )


def defaults(model: type[BaseModel] = Parameters) -> dict[str, Any]:
    """Return the default of each parameter; lists are copies."""
    return {name: field.get_default(call_default_factory=True) for name, field in model.model_fields.items()}


@cache
def _fields(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each parameter."""
    return cast(dict[str, dict[str, Any]], model.model_json_schema()["properties"])


def choices(model: type[BaseModel] = Parameters) -> dict[str, tuple[str, ...]]:
    """Return the allowed values of each parameter that has a fixed set of them."""
    return {name: tuple(field["enum"]) for name, field in _fields(model).items() if "enum" in field}


def descriptions(model: type[BaseModel] = Parameters) -> dict[str, str]:
    """Return a short description of each parameter."""
    return {name: field["description"] for name, field in _fields(model).items()}


def limits(name: str, model: type[BaseModel] = Parameters) -> tuple[float | None, float | None]:
    """Return the smallest and the largest value of a number, or of the numbers in a list; None if there is no limit."""
    field = _fields(model)[name]
    number = field.get("items", field)
    return number.get("minimum"), number.get("maximum")


def allowed(name: str, model: type[BaseModel] = Parameters) -> str:
    """Return what a parameter may be, for a hint and for the documentation."""
    field, (low, high) = _fields(model)[name], limits(name, model)
    if "enum" in field:
        return f"one of {', '.join(field['enum'])}"
    if "form" in field:
        return str(field["form"])
    span = f" from {low:,} to {high:,}" if low is not None and high is not None else ""
    if "multipleOf" in field:
        return f"a multiple of {field['multipleOf']}{span}"
    kind = "whole number" if field.get("items", field)["type"] == "integer" else "number"
    if "maxItems" in field:
        return f"at most {field['maxItems']} different {kind}s{span}, separated by commas"
    return f"a {kind}{span}"


def metavar(name: str, model: type[BaseModel] = Parameters) -> str:
    """Return what the help of a command shows as the value of a parameter.

    Example:
        >>> metavar("gan_architecture", Options), metavar("gan_kimg"), metavar("data_split")
        ('[resnet|dcgan]', 'NUMBER', 'random|K/N|FILE')
    """
    field = _fields(model)[name]
    if "enum" in field:
        return f"[{'|'.join(field['enum'])}]"
    of_type = {"array": "NUMBER,…", "integer": "INTEGER", "number": "NUMBER"}
    return str(field.get("metavar") or of_type[field["type"]])


def help_text(name: str, model: type[BaseModel] = Parameters) -> str:
    """Return description and allowed values of a parameter, for the form and the command line.

    Values keep their case, because users copy them.

    Example:
        >>> help_text("gan_architecture", Options)
        'Networks of the GANs. One of: resnet, dcgan.'
    """
    values = allowed(name, model)
    if options := choices(model).get(name):
        sentence = f"One of: {', '.join(options)}"
    elif "form" in _fields(model)[name]:
        sentence = f"Accepts {values}"
    else:
        sentence = f"{values[:1].upper()}{values[1:]}"
    return f"{descriptions(model)[name]} {sentence}."


def check(values: Mapping[str, Any], model: type[BaseModel] = Parameters) -> dict[str, Any]:
    """Return the values with defaults for those that are missing, each of its parameter's type.

    Kubeflow's API accepts 32.5 for an integer, lists of text and empty lists, and it turns whole numbers into floats.

    Raises:
        UserError: `parameter.unknown`, or `parameter.invalid` with the fields `name` and `value`.
    """
    for name in values:
        if name not in model.model_fields:
            raise UserError(
                f"{name} is not a parameter",
                did_you_mean(str(name), model.model_fields) or "see docs/reference/parameters.md",
                "parameter.unknown",
                name=str(name),
                choices=list(model.model_fields),
            )
    try:
        return model.model_validate({name: _as_whole(value) for name, value in values.items()}).model_dump()
    except ValidationError as error:
        field, problem = describe_invalid(error)
        name = field.partition(".")[0]
        raise _invalid(name, values[name], model, problem) from error


def _as_whole(value: Any) -> Any:
    """Return 32 for 32.0, which is also accepted for a float; JSON has one kind of number."""
    if isinstance(value, list | tuple):
        return [_as_whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _invalid(name: str, value: Any, model: type[BaseModel], reason: str = "") -> UserError:
    shown = repr(value) if isinstance(value, str) else reprlib.repr(value)
    return UserError(
        f"{name} is {shown[:200]}" + (f" ({reason[:1].lower()}{reason[1:]})" if reason else ""),
        f"give {allowed(name, model)}",
        "parameter.invalid",
        name=name,
        value=value,
    )


def parse(given: Mapping[str, str], model: type[BaseModel] = Parameters) -> dict[str, Any]:
    """Return text from a command line as checked values; only the names that were given.

    Raises:
        UserError: as in `check`.

    Example:
        >>> parse({"classifier_seeds": "1, 2", "gan_kimg": "3"})
        {'classifier_seeds': [1, 2], 'gan_kimg': 3.0}
    """
    checked = check({name: _parse_one(name, text, model) for name, text in given.items()}, model)
    return {name: checked[name] for name in given}


def _parse_one(name: str, text: str, model: type[BaseModel]) -> Any:
    field, types = _fields(model).get(name, {}), {"integer": int, "number": float}
    try:
        if "items" in field:
            item = types[field["items"]["type"]]
            return [item(word) for word in text.strip().removeprefix("[").removesuffix("]").split(",")]
        value = types.get(field.get("type", ""), str)(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise _invalid(name, text, model) from None
    return value
