"""What `counterweight plan` prints."""

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from components.evaluate.statistics import power
from components.evaluate.statistics.compare import METRIC
from components.evaluate.statistics.inference import EFFECT, POWER
from components.evaluate.statistics.power import Design, detectable_effect, needed_lesions
from components.placement import placement
from components.prepare_data.prepare import complete_source
from components.shared.errors import UserError
from components.shared.log import duration
from components.shared.records import Plan
from counterweight import estimate as estimating
from counterweight import parameters
from counterweight.estimate import Size, estimate
from counterweight.text_table import table_lines

if TYPE_CHECKING:
    from counterweight.plan import Read

OTHER_DESIGNS = ((3, 1), (5, 1), (10, 1), (3, 5), (5, 5))
"""Numbers of seeds and of pooled folds that are compared with the planned ones."""
MAY_DIFFER = (
    "The run opens the images and may then skip unreadable ones, refuse or move near-duplicates that are in two splits "
    "(data_duplicates), and exclude test images that occur under two lesion ids."
)


def _effect(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def class_lines(plan: Plan) -> Iterator[str]:
    """Yield the table of the classes: images and lesions of each split, and what their recall can show."""
    has_ids = plan.unit != "image"
    rows = [["class", *plan.counts, "detectable"]]
    for dx, effect in plan.by_class.items():
        sizes = [of_split[dx] for of_split in plan.counts.values()]
        rows.append(
            [f"{dx}{' (rare)' if dx in plan.rare_classes else ''}"]
            + [f"{size.images:,}" + f" ({size.lesions:,})" * has_ids for size in sizes]
            + [_effect(effect.detectable)]
        )
    yield from table_lines(rows, numbers=True)
    pooled = f" in {plan.folds} pooled folds" if plan.folds > 1 else ""
    shown = f"images ({plan.unit}s)" if has_ids else "images"
    yield f"{shown}; detectable: difference in recall that is found with {100 * POWER:.0f} % power{pooled}"
    if any(effect.detectable is None for effect in plan.by_class.values()):
        yield f"none: {'one seed establishes no difference' if len(plan.seeds) < 2 else f'too few test {plan.unit}s'}"


def effect_lines(plan: Plan, primary: Design) -> Iterator[str]:
    """Yield what the primary metric can show with the planned design, and with others."""
    design = _design(primary.seeds, primary.folds)
    if plan.detectable is None:
        yield f"{METRIC}: no effect can be established with {design}"
    else:
        yield f"{METRIC}: an effect of {plan.detectable:.2f} or more is found with {100 * POWER:.0f} % power ({design})"
    others = []
    for seeds, folds in OTHER_DESIGNS:
        if (seeds, folds) == (primary.seeds, primary.folds) or (folds == 1 and primary.folds > 1):
            continue
        lesions = primary.lesions if folds == primary.folds else _all_lesions(plan)
        found = detectable_effect(replace(primary, lesions=lesions, seeds=seeds, folds=folds))
        others.append(f"{_effect(found)} ({_design(seeds, folds)})")
    yield f"detectable with other designs: {', '.join(others)}"
    designs = (replace(primary, seeds=seeds) for seeds in itertools.count(primary.seeds))
    enough, needed = next((it.seeds, count) for it in designs if (count := needed_lesions(it)) is not None)
    yield f"an effect of {EFFECT:.2f} in one class is found with {needed:,} test {plan.unit}s of it" + (
        f" and {enough} seeds; with fewer seeds, no number of {plan.unit}s suffices" if enough > primary.seeds else ""
    )
    yield (
        f"assumed: from one training to the next, a recall varies by {power.TRAINING_DEVIATION:.2f}; the arms disagree "
        f"on {100 * power.DISAGREEMENT:.0f} % of the {plan.unit}s"
    )


def _design(seeds: int, folds: int) -> str:
    return _count(seeds, "seed") + (f", {folds} folds" if folds > 1 else "")


def _all_lesions(plan: Plan) -> tuple[int, ...]:
    return tuple(sum(of_split[dx].lesions for of_split in plan.counts.values()) for dx in plan.rare_classes)


def cost_lines(plan: Plan, size: Size) -> Iterator[str]:
    """Yield the table of the phases, and the sums."""
    currency = f" {plan.currency}".rstrip()
    priced = any(phase.cost is not None for phase in plan.phases.values())
    rows = [["phase", "tasks", "time", "memory", *(["cost"] if priced else [])]]
    for name, phase in plan.phases.items():
        cost = [f"{phase.cost:.2f}{currency}"] if priced else []
        rows.append([name, str(phase.tasks), duration(phase.seconds), f"{phase.memory_gib:.1f} GiB", *cost])
    yield from table_lines(rows, numbers=True)
    gans = f"{_count(size.gans, 'GAN')} and " if size.gans else ""
    total = sum(phase.seconds for phase in plan.phases.values())
    slower = estimating.rates().slower
    yield (
        f"about {duration(total)} to {duration(slower * total)}{' for each fold' if plan.folds > 1 else ''}: "
        f"{gans}{_count(size.classifiers, 'classifier')} on {plan.machine}; with enough nodes, about "
        f"{duration(estimating.longest_chain_s(plan.phases, size))}"
    )
    if priced:
        costs = sum(phase.cost or 0 for phase in plan.phases.values())
        yield f"about {costs:.2f}{currency} by the prices of the placement file"
    if size.gans and placement().accelerator.type != "none":
        yield "no GPU has been measured: with one, read the time and cost of GANs as upper limits"


def preset_line(values: Mapping[str, Any], given: Collection[str], size: Size) -> str:
    """Return which preset suits the data, with the time of each that does.

    Args:
        values: the parameters of the run.
        given: names of the parameters that replace those of a preset.
        size: what the time of the run depends on.
    """
    lines = []
    for name in ("demo",) if values["data"] == "demo" else ("cpu", "full"):
        _, of_preset, _ = parameters.choose_preset(name, values["data"])
        own = {key: value for key, value in of_preset.items() if key not in given}
        sized = replace(size, values=dict(values) | own)
        gpu = name == "full" and sized.gans > 0
        try:
            seconds = sum(phase.seconds for phase in estimate(sized).values())
        except UserError as error:  # the given parameters suit the chosen preset, but not this one
            took = f"too large ({error})"
        else:
            took = f"about {duration(seconds)}{' on a CPU' * gpu}"
        lines.append(f"{name}{' (for a cluster with GPUs)' * gpu}, {took}")
    return f"suggested preset: {'; '.join(lines)}"


def describe(plan: Plan, read: "Read", size: Size, primary: Design, presets: Collection[str]) -> Iterator[str]:
    """Yield the lines that the command prints; `presets` are those on the preset."""
    units = f" of {read.rows['lesion_id'].nunique():,} {plan.unit}s" if plan.unit != "image" else ""
    yield f"data: {plan.data}, layout {plan.layout}, {len(read.rows):,} images{units}"
    for note in complete_source(read.dataset, str(plan.settings["data_split"])).notes:
        yield f"note: {note}"
    if read.skipped:
        yield f"note: {read.skipped:,} images would be skipped"
    yield from presets
    yield f"split {plan.settings['data_split']}; rare classes {', '.join(plan.rare_classes)}"
    yield f"arms {', '.join(plan.arms)}"
    yield ""
    yield from class_lines(plan)
    yield ""
    yield from effect_lines(plan, primary)
    yield ""
    yield from cost_lines(plan, size)
    yield ""
    yield MAY_DIFFER
