"""Plan a run from its metadata, and register the plan.

Prints classes, split, the effect that the run can detect, time and memory, in seconds: no image is decoded. The prices
of the placement file give the cost. `make run PLAN=plan.json` or `make submit PLAN=plan.json` cites the plan in the
report.
"""

import hashlib
import itertools
import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from components.evaluate.planned import compare_settings, parse_plan
from components.evaluate.statistics import power
from components.evaluate.statistics.compare import METRIC, count_images
from components.evaluate.statistics.inference import LEVEL
from components.evaluate.statistics.power import Design, detectable_effect, needed_lesions
from components.placement import option_settings, override_options, placement, set_plan
from components.prepare_data import layouts
from components.prepare_data import prepare as preparing
from components.prepare_data.decode_pool import Findings
from components.prepare_data.layouts.dataset import Dataset
from components.prepare_data.sources import bucket, demo
from components.shared import parameters as of_runs
from components.shared import patient_metadata
from components.shared.arms import CANDIDATES, REALISM, comparison, uses_synthetic
from components.shared.code_identity import code_sha256
from components.shared.errors import UserError, printable
from components.shared.files import file_sha256, write_text
from components.shared.image_set import hash_rows
from components.shared.parameters import FOLD, arm_names, defaults
from components.shared.records import Plan, PlannedEffect, Scalar, Split
from components.shared.stores.addresses import is_address
from counterweight import estimate as estimating
from counterweight import parameters, plan_text
from counterweight.estimate import Size, estimate
from counterweight.run import arguments, resolve_options
from counterweight.run_options import expand, output_file

DEFAULT = "plan.json"
MAX_PLAN_BYTES = 32 * 2**10
"""A task's arguments, of which the plan is one, may have 128 KiB."""
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
RULE = (
    "improved or worse: at least two seeds, the interval of the difference ({difference}), corrected for the number of "
    "{candidates}, excludes zero, and the paired permutation test agrees; else no evidence; with one seed not "
    "established"
)


@dataclass(frozen=True)
class Read:
    """The data of a planned run, before any image is opened.

    Attributes:
        dataset: the data set.
        rows: image_id, lesion_id, dx and split of the images that are used.
        splits: `data_split` → its hash; all folds, for a fold.
        skipped: number of images that are skipped.
    """

    dataset: Dataset
    rows: pd.DataFrame
    splits: dict[str, str]
    skipped: int


def _open_data(data: str, scratch: Path) -> Path:
    """Return a folder with the names and metadata of a source.

    Raises:
        UserError: `plan.kaggle`, or as in `bucket.copy_names`.
    """
    if data == "kaggle":
        raise UserError(
            "data is kaggle, whose metadata comes with 5 GB of images",
            "download the dataset, and give its folder as DATA",
            "plan.kaggle",
        )
    if data == "demo":
        return demo.fetch(data, scratch, draw=False)
    if not is_address(data):
        return Path(data)
    bucket.copy_names(data, scratch)
    return scratch


def read_data(values: Mapping[str, Any], max_bad_images: int, scratch: Path) -> Read:
    """Return the classes and the split of the data, by the functions that `prepare_data` calls.

    Args:
        values: the parameters of the run.
        max_bad_images: maximum number of images that are skipped.
        scratch: an empty folder.

    Raises:
        UserError: as in `prepare`, as far as names and metadata show it.
    """
    (scratch / "data").mkdir()
    folder, split, seed = _open_data(values["data"], scratch / "data"), values["data_split"], values["random_seed"]
    ignore = preparing.split_file(split, values["data"], folder)
    dataset = layouts.inspect(folder, values["data_columns"], ignore=ignore)
    classes, findings = sorted(dataset.table["dx"].unique()), Findings()
    of_runs.positive_classes(values["positive_classes"], classes)
    rows = preparing.assign_splits(dataset, split, seed, scratch, findings, max_bad_images)
    preparing.refuse_empty_classes(rows, classes, dataset.source, split)
    splits = {split.strip(): hash_rows(rows, ["image_id", "split"])}
    if fold := FOLD.fullmatch(split):
        folds = [f"{k}/{int(fold[2])}" for k in range(1, 1 + int(fold[2]))]
        assigned = (preparing.assign_splits(dataset, k, seed, scratch, Findings(), max_bad_images) for k in folds)
        splits = {k: hash_rows(of_fold, ["image_id", "split"]) for k, of_fold in zip(folds, assigned, strict=True)}
    return Read(dataset, rows, splits, len(findings.skipped))


def settings_of(values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return the settings of a plan: the parameters without the output, lists as text, and what options decide."""
    shown = {
        name: ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
        if isinstance(value, list)
        else value
        for name, value in values.items()
        if name != "output"
    }
    return shown | option_settings()


def _hash_settings(settings: Mapping[str, Scalar]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def make_plan(values: Mapping[str, Any], read: Read, rare: list[str], created: datetime) -> tuple[Plan, Size, Design]:
    """Return the plan of a run, what its time depends on, and what the certainty of its primary metric depends on.

    Args:
        values: the parameters of the run.
        read: its data.
        rare: the classes to rebalance.
        created: the time of the plan.
    """
    options, rows = placement().options, read.rows
    classes, arms = sorted(rows["dx"].unique()), arm_names(values)
    counts = {name: count_images(rows[rows["split"] == name], classes) for name in SPLITS}
    folds = len(read.splits)
    tested = count_images(rows if folds > 1 else rows[rows["split"] == "test"], classes)
    lesions = {dx: size.lesions for dx, size in tested.items()}
    seeds, compared = list(values["classifier_seeds"]), comparison(arms)
    candidates, chosen = ("shares", "share of synthetic images") if uses_synthetic(arms) else ("remedies", "remedy")
    difference = f"chosen {chosen} - {compared.reference}"
    primary = Design(tuple(lesions[dx] for dx in rare), len(seeds), len(compared.candidates), folds)
    size = Size(
        values=values,
        architecture=options.gan_architecture,
        classifier=options.classifier,
        rare=len(classes if options.synthetic_scope == "all" else rare),
        gans_per_task=options.gans_per_task,
        classifiers_per_task=options.classifiers_per_task,
        generated=estimating.GENERATED if options.synthetic_selection == REALISM else CANDIDATES,
        **{name: int((rows["split"] == name).sum()) for name in SPLITS},
    )
    phases, currency = estimating.with_costs(estimate(size))
    settings = settings_of(values)
    plan = Plan(
        created=f"{created.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
        code=code_sha256("evaluate"),
        data=values["data"],
        layout=read.dataset.source.layout,
        unit=read.dataset.source.unit,
        images_sha256=hash_rows(rows, ["image_id", "lesion_id", "dx"]),
        splits=read.splits,
        settings=settings,
        settings_sha256=_hash_settings(settings),
        arms=arms,
        seeds=seeds,
        rare_classes=rare,
        primary_metric=f"{METRIC}: {difference}",
        decision_rule=RULE.format(difference=difference, candidates=candidates),
        alpha=LEVEL,
        counts=counts,
        folds=folds,
        detectable=detectable_effect(primary),
        by_class={dx: _effect_of_class(primary, lesions[dx]) for dx in classes},
        assumptions={
            "training_deviation": power.TRAINING_DEVIATION,
            "disagreement": power.DISAGREEMENT,
            "lasting_disagreement": power.LASTING_DISAGREEMENT,
        },
        machine=estimating.rates().machine,
        phases=phases,
        currency=currency,
    )
    return plan, size, primary


def _effect_of_class(primary: Design, lesions: int) -> PlannedEffect:
    design = replace(primary, lesions=(lesions,), comparisons=1)
    return PlannedEffect(lesions=lesions, detectable=detectable_effect(design), lesions_needed=needed_lesions(design))


def read_plan(place: str) -> tuple[Plan, str]:
    """Return a plan, and the text of its file.

    Raises:
        UserError: `plan.unreadable`, `plan.too_large`, `plan.changed`, or `plan.invalid`.
    """
    path = Path(expand(place))
    try:
        size = path.stat().st_size if path.is_file() else 0
        text = path.read_text(encoding="utf-8") if 0 < size <= MAX_PLAN_BYTES else ""
    except (OSError, ValueError) as error:
        raise _unreadable(place) from error
    if not size:
        raise _unreadable(place)
    if not text:
        raise UserError(
            f"PLAN is {place}, which has {size:,} bytes",
            f"give a plan of at most {MAX_PLAN_BYTES:,} bytes",
            "plan.too_large",
            path=place,
            bytes=size,
        )
    plan = parse_plan(text)
    if _hash_settings(plan.settings) != plan.settings_sha256:
        raise UserError(
            f"PLAN is {place}, whose settings differ from their hash",
            "use the unchanged file that `counterweight plan` wrote",
            "plan.changed",
            path=place,
        )
    return plan, text


def _unreadable(place: str) -> UserError:
    return UserError(
        f"PLAN is {place}, which is not a readable text file",
        "give the file that `counterweight plan` wrote",
        "plan.unreadable",
        path=place,
    )


def take_plan(given: dict[str, str]) -> Plan | None:
    """Remove PLAN from the arguments of a command, and let pipelines that are compiled from now on cite it.

    Returns:
        The plan; None without PLAN.

    Raises:
        UserError: as in `read_plan`.
    """
    place = given.pop("PLAN", "")
    if not place:
        return None
    plan, text = read_plan(place)
    set_plan(text)
    return plan


def announce(plan: Plan, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines for the start of a run: when it was planned, and a warning for each setting that deviates."""
    yield f"planned on {plan.created}"
    settings = settings_of(values)
    for text in compare_settings(plan, settings, arm_names(values), values["classifier_seeds"]):
        yield f"warning: deviates from the plan: {printable(text)}"
    if plan.code != code_sha256("evaluate"):
        yield "warning: deviates from the plan: the code of the evaluation has changed"


def _write(path: Path, plan: Plan, text: str) -> bool:
    """Write a plan, unless the file holds the same plan of an earlier time.

    Returns:
        Whether it was written.

    Raises:
        UserError: `plan.exists`: the file holds something else.
    """
    if not path.exists():
        write_text(path, text)
        return True
    try:
        found = read_plan(str(path))[0]
    except UserError:
        found = None
    if found is None or found.model_copy(update={"created": plan.created}) != plan:
        names = (f"{path.stem}{number}{path.suffix}" for number in itertools.count(2))
        free = next(name for name in names if not path.with_name(name).exists())
        raise UserError(
            f"OUT is {path}, which exists and is not this plan; it is not replaced",
            f"write the new plan to another file, such as OUT={_shown(path.with_name(free))}",
            "plan.exists",
            path=str(path),
        )
    return False


def _shown(path: Path) -> str:
    """Return the name of a file in the working directory, or the path of another one."""
    return path.name if path.parent == Path.cwd() else str(path)


def _citing_command(words: list[str], path: Path) -> str:
    """Return the command that runs what was planned with these arguments, for a shell."""
    given = parameters.assignments(words)
    placed = ["env", f"PLACEMENT={given['PLACEMENT']}"] if given.get("PLACEMENT") else []
    kept = [f"{name}={value}" for name, value in given.items() if name not in ("OUT", "PLACEMENT")]
    return shlex.join([*placed, "make", "run", f"PLAN={_shown(path)}", *kept]).replace("$", "$$")  # make expands $


def run(words: list[str], out: TextIO) -> int:
    """Run the command and return its exit code."""
    given = parameters.assignments(words)
    parameters.use_placement(given)
    path = output_file(given.pop("OUT", ""), DEFAULT)  # of the plan, not of the run
    given, options = parameters.split_options(given)
    override_options(resolve_options(options))
    limit = placement().options.max_bad_images
    _, values, _ = arguments(given, defaults())
    of_runs.check_arms(values, placement().options.synthetic_scope)
    preparing.check_listing(values, limit, placement().options.metadata, placement().options.synthetic_scope)
    _, _, preset = parameters.choose_preset(given.get("PRESET", ""), given.get("data", ""))
    with tempfile.TemporaryDirectory(prefix="counterweight-") as scratch:
        read = read_data(values, limit, Path(scratch))
    if of_runs.takes_metadata(values, placement().options.metadata):
        patient_metadata.require(read.dataset.table)
    rare = preparing.rare_classes(read.dataset.table, values["synthetic_classes"])
    plan, size, primary = make_plan(values, read, rare, datetime.now(UTC))
    text = plan.model_dump_json(indent=1) + "\n"
    if len(text.encode()) > MAX_PLAN_BYTES:
        raise UserError(
            f"the plan has {len(text.encode()):,} bytes, because the data has {len(plan.by_class)} classes",
            "merge classes, so that a task can read the plan",
            "plan.too_many_classes",
            classes=len(plan.by_class),
        )
    suited = plan_text.preset_line(values, given, size)
    for line in plan_text.describe(plan, read, size, primary, [preset, suited]):
        print(printable(line), file=out)
    out.flush()
    state = "" if _write(path, plan, text) else " (unchanged)"
    print(f"\nplan: {printable(str(path))}{state}, SHA-256 {file_sha256(path)}", file=out)
    print(f"to cite it in the report: {printable(_citing_command(words, path))}", file=out, flush=True)
    return 0
