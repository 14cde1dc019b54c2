"""Compare two runs.

Prints the settings that differ. If both runs have the same split, prints and writes, for each arm of both, the paired
difference b − a with a 95 % interval over test lesions and seeds; otherwise it is refused.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from components.evaluate.report.formatting import show, show_interval
from components.evaluate.results import labels_of
from components.evaluate.statistics import calibration
from components.evaluate.statistics.inference import Bootstrap
from components.evaluate.statistics.metrics import Predictions, Sample
from components.shared import html_page
from components.shared.arms import sort_arms, title_of
from components.shared.errors import UserError, printable
from components.shared.files import write_text
from components.shared.records import Difference, RunRecord
from components.shared.seeds import derive_seed
from counterweight import parameters
from counterweight.keras_start import start_keras
from counterweight.run_options import check_run, expand, output_file
from counterweight.text_table import table_lines

if TYPE_CHECKING:
    from components.evaluate.predict.published import Run

DEFAULT = "compare.html"
METRICS = {
    "rare_recall": "recall, rare classes",
    "macro_auc": "macro AUC",
    "balanced_log_loss": "balanced log loss (lower is better)",
}
"""Metric → title."""
_NOT_SETTINGS = {"parameters", "settings", "versions", "source", "plan", "folds", "pooled_lesions", "pretraining_s"}
"""Fields of a run's record that are compared by their own fields, or not at all."""
_REPEATED = ("arms", "data", "data_split", "random_seed", "synthetic_shares")
"""Parameters that repeat a field, or the list of arms."""
ABSENT = "not recorded"


@dataclass(frozen=True)
class Paired:
    """A difference of two runs, b − a.

    Attributes:
        arm, metric: what is compared.
        first, second: the values of both runs.
        value, low, high: the difference and its 95 % interval; None if undefined.
    """

    arm: str
    metric: str
    first: float | None
    second: float | None
    value: float | None
    low: float | None
    high: float | None


def list_settings(record: RunRecord, arms: Sequence[str]) -> dict[str, str]:
    """Return everything that a run's result depends on and that is recorded, as text."""
    fields = {name: value for name, value in record.model_dump().items() if name not in _NOT_SETTINGS}
    found = {name: _text(value) for name, value in fields.items()} | {"arms": _text(list(arms))}
    groups: dict[str, Mapping[str, Any]] = {
        "parameter": record.parameters,
        "classifier": record.settings,
        "version of": record.versions,
    }
    for group, values in groups.items():
        found |= {f"{group} {name}": _text(value) for name, value in values.items() if name not in _REPEATED}
    return found


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def diff_settings(first: Mapping[str, str], second: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return name and both values of each setting that differs, in the order of the first run."""
    names = dict.fromkeys([*first, *second])
    values = [(name, first.get(name, ABSENT), second.get(name, ABSENT)) for name in names]
    return [(name, a, b) for name, a, b in values if a != b]


def check_comparable(first: "Run", second: "Run") -> None:
    """Raise if the differences of two runs cannot be paired.

    Raises:
        UserError: `compare.other_split`, `compare.folds`, `compare.no_common_seed`, `compare.no_common_arm` or
            `compare.other_images`.
    """

    def refuse(problem: str, hint: str, code: str) -> UserError:
        return UserError(f"{first.name} and {second.name} {problem}", hint, code, runs=[first.name, second.name])

    a, b = first.record, second.record
    if a.split_sha256 != b.split_sha256 or not a.split_sha256 or first.classes != second.classes:
        raise refuse(
            "have different splits, so their test images differ",
            "compare runs of the same data, data_split and random_seed",
            "compare.other_split",
        )
    if a.folds or b.folds:
        raise refuse("include pooled folds", "compare the runs of one fold", "compare.folds")
    if not set(a.seeds) & set(b.seeds):
        raise refuse(
            "have no seed of the classifiers in common",
            "run one again with the classifier_seeds of the other",
            "compare.no_common_seed",
        )
    if not set(first.arms) & set(second.arms):
        raise refuse("have no arm in common", "choose other runs", "compare.no_common_arm")
    columns = ["image_id", "lesion_id", "dx"]
    rows = [run.load("test")[0].sort_values("image_id", ignore_index=True)[columns] for run in (first, second)]
    if not rows[0].equals(rows[1]):
        raise refuse(
            "have the same split, but other test images, lesions or classes",
            "use the unchanged files of both runs",
            "compare.other_images",
        )


def compare_runs(first: "Run", second: "Run") -> tuple[list[Paired], list[int], list[str]]:
    """Return the paired differences of two runs, the seeds, and the rare classes that they are computed with.

    Arms of one name, and seeds of one number, are compared; the rare classes are those that both runs rebalance.

    Args:
        first, second: runs that `check_comparable` accepts.
    """
    a, b = first.record, second.record
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    rare = [dx for dx in a.rebalanced_classes if dx in b.rebalanced_classes]
    arms = sort_arms(set(first.arms) & set(second.arms))
    rows = first.load("test")[0]
    sample = Sample(labels_of(rows, first.classes), rows["lesion_id"].to_numpy(str), first.classes, ())
    predictions: dict[str, Predictions] = {}
    for which, run in (("a", first), ("b", second)):
        own_rows, probabilities = run.load("test")
        order = own_rows.reset_index().set_index("image_id").loc[rows["image_id"], "index"].to_numpy()
        chosen = [run.record.seeds.index(seed) for seed in seeds]
        fitted = run.calibrate()
        for arm in arms:
            applied = calibration.apply(probabilities[arm], fitted[arm], sample.is_malignant)
            predictions[f"{which} {arm}"] = Predictions(
                applied.probabilities[np.ix_(chosen, order)], applied.scaled[np.ix_(chosen, order)], None, None
            )
    bootstrap = Bootstrap(sample, predictions, tuple(rare), derive_seed(a.seed, "compare"))
    found = []
    for arm in arms:
        for metric in METRICS:
            values = {which: bootstrap.difference(metric, f"{which} {arm}").value for which in "ab"}
            difference = bootstrap.difference(metric, f"b {arm}", f"a {arm}")
            same = np.array_equal(predictions[f"a {arm}"].probabilities, predictions[f"b {arm}"].probabilities)
            if same and difference.value is not None:
                # The same models: the interval would be that of the pseudo-lesions.
                difference = Difference(value=0.0, low=0.0, high=0.0)
            found.append(
                Paired(arm, metric, values["a"], values["b"], difference.value, difference.low, difference.high)
            )
    return found, seeds, rare


def _cells(pair: Paired) -> list[str]:
    interval = show_interval((pair.low, pair.high), "+")
    return [
        title_of(pair.arm),
        METRICS[pair.metric],
        show(pair.first),
        show(pair.second),
        show(pair.value, "+"),
        interval,
    ]


HEAD = ["arm", "metric", "a", "b", "b − a", "95 % interval"]


def settings_lines(names: Sequence[str], changes: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """Yield the lines of the settings that differ."""
    yield from (f"{which}: {printable(name)}" for which, name in zip("ab", names, strict=True))
    if changes:
        yield from table_lines([("setting", "a", "b"), *changes])
    else:
        yield "the settings are equal"


def describe_basis(first: "Run", seeds: Sequence[int], rare: Sequence[str]) -> str:
    """Return what the differences are computed from, as a sentence."""
    rows = first.load("test")[0]
    return (
        f"{len(rows):,} test images of {rows['lesion_id'].nunique():,} lesions; seeds {_text(list(seeds))}; rare "
        f"classes {', '.join(rare) or 'none'}"
    )


def describe_intervals(seeds: Sequence[int]) -> str:
    """Return what the intervals cover, as a sentence; with one seed, chance in its training is not covered."""
    covered = "test lesions and seeds" if len(seeds) > 1 else "test lesions only, for two trained models"
    return (
        f"Both runs share split and test images. An interval covers {covered}, not the choice among these differences."
    )


def render(names: Sequence[str], changes: Sequence[tuple[str, str, str]], pairs: Sequence[Paired], basis: str) -> str:
    """Return the page; all texts are escaped."""
    shown = [[printable(cell) for cell in change] for change in changes]
    return html_page.render(
        "Counterweight: comparison of two runs",
        [
            *(f"{which}: {printable(name)}" for which, name in zip("ab", names, strict=True)),
            html_page.heading("Differences, b − a"),
            html_page.table(HEAD, [_cells(pair) for pair in pairs]),
            basis,
            html_page.heading("Settings that differ"),
            html_page.table(("setting", "a", "b"), shown) if shown else "The settings are equal.",
        ],
    )


def _arguments(words: list[str]) -> tuple[list[str], Path]:
    """Return both runs, and the page to write.

    Raises:
        UserError: `compare.two_runs`, `compare.out`, or as in `check_run` and `output_file`.
    """
    given = parameters.assignments(words)
    runs = [expand(place) for place in given.get("RUN", "").split(",") if place.strip()]
    if len(runs) != 2:
        raise UserError(
            f"RUN names {len(runs)} run{'s' * (len(runs) != 1)}",
            "give two finished runs, as in RUN=runs/a,runs/b",
            "compare.two_runs",
        )
    for place in runs:
        check_run(place)
    out = output_file(given.get("OUT", ""), DEFAULT)
    if out.is_dir() or out.suffix != ".html":
        raise UserError(f"OUT is {out}, which is no page", "name a file that ends in .html", "compare.out")
    return runs, out


def run(words: list[str], out: TextIO) -> int:
    """Run the command and return its exit code."""
    places, page = _arguments(words)
    start_keras()
    from counterweight import reevaluate

    with tempfile.TemporaryDirectory(prefix="counterweight-") as scratch:
        first, second = (
            reevaluate.open_published(place, Path(scratch, str(number))) for number, place in enumerate(places)
        )
        changes = diff_settings(*(list_settings(it.record, it.arms) for it in (first, second)))
        print("\n".join(settings_lines(places, changes)), file=out, flush=True)
        check_comparable(first, second)
        pairs, seeds, rare = compare_runs(first, second)
        basis = f"{describe_basis(first, seeds, rare)}. {describe_intervals(seeds)}"
    write_text(page, render(places, changes, pairs, basis))
    print(f"\n{chr(10).join(table_lines([HEAD, *map(_cells, pairs)]))}\n\n{printable(basis)}", file=out)
    print(f"page: {printable(str(page))}", file=out, flush=True)
    return 0
