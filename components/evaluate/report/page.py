"""Render the report: the arms on the test lesions, as HTML, as Markdown and as plain text.

Everything follows from the results, the content of `metrics.json`; a figure that is null there is `n/a` here.
"""

import base64
import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from components.evaluate.predict.skin_tone import SKIN_CLASSES
from components.evaluate.report import formatting, plots
from components.evaluate.report.formatting import known, plain, show, show_interval
from components.evaluate.report.gallery import Gallery, ShownImage, list_images
from components.evaluate.report.plots import Mark
from components.shared.arms import BASELINE, SELECTIONS, parse_synthetic_key, recipe, share_of, title_of
from components.shared.arms import comparison as compared_arms
from components.shared.log import duration
from components.shared.records import (
    ArmDifference,
    ArmResults,
    Champion,
    ChampionFigure,
    DataSource,
    Difference,
    Effect,
    Figure,
    ImageCounts,
    Interval,
    Outcome,
    Results,
    Subgroup,
    Subgroups,
    SyntheticDetails,
)

MAX_PAGE_BYTES = 1_950_000
"""Maximum size of the HTML page, including its images, which get the best quality that fits."""
_QUALITIES = (
    (192, 95), (192, 88), (192, 80), (160, 80), (144, 75), (128, 70), (112, 60), (96, 55), (80, 50), (64, 45), (48, 40),
    (32, 30),
)  # fmt: skip
"""Pixels per side and JPEG quality, best first."""
_FULL_COLOUR_QUALITY = 85
"""Above this, colour has the full resolution: a poor GAN's artefacts are checkerboards of colour."""
_TEXT_WIDTH = 100
DIRECTIONS = "← worse · better →"

PRIMARY = "rare_recall"
_OVERALL = {
    PRIMARY: "Mean recall, rare classes",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "accuracy": "Accuracy",
    "macro_auc": "Macro AUC",
    "balanced_log_loss": "Balanced log loss",
    "corrected_recall": "Rare recall, prior-corrected",
    "malignant_sensitivity": "Sensitivity, positive classes",
    "brier": "Brier score",
    "ece": "Calibration error",
    "ece_scaled": "Calibration error, scaled",
}
LOWER_IS_BETTER = frozenset(("balanced_log_loss", "brier", "ece", "ece_scaled"))
_LOWER_MARK = " ↓"
_NOTES = {
    PRIMARY: "primary metric",
    "balanced_log_loss": "mean over classes, after temperature scaling",
    "corrected_recall": "class frequencies divided out, with a strength fitted on validation",
    "malignant_sensitivity": "at 90 % specificity on validation",
    "ece": "ECE; biased upwards, so no interval",
    "ece_scaled": "ECE after temperature scaling",
}
MAX_SEPARABILITY = 0.95
MAX_LOSS_OF_FIDELITY = 0.10
"""Beyond these, pages warn that the synthetic images of a class differ from real ones."""
_UNKNOWN = Difference(value=None, low=None, high=None)
_NO_SOURCE = DataSource(
    layout="", metadata=[], columns={}, ignored=[], folders={}, renamed={}, unit="lesion", own_split=False, notes=[]
)
"""Of a run that does not record how its data was read."""
DEMO_NOTICE = (
    "The images are generated demo data, made by this pipeline. They show no skin and no person, and the figures do "
    "not apply to real lesions."
)


@dataclass(frozen=True)
class Row:
    """A row of a comparison: a class, or a metric over all classes.

    Attributes:
        name: the class, or the title of the metric, with a mark if lower is better.
        values: of the arms of the comparison.
        intervals: limits of each value; None if unknown.
        effect: difference of the last arm to the one before it.
        gain: difference of the last arm to the baseline, if that is another one.
        note: explanation of a metric.
        images, lesions: tested ones of a class.
        few: whether they would most likely miss an effect of 0.10.
        needed: number of lesions that would detect it; None if it takes more seeds.
        p: p-value, corrected for the number of classes.
        rare, malignant, failed: whether the class is rare or positive, or its GAN failed.
    """

    name: str
    values: list[Figure]
    intervals: list[Interval | None]
    effect: Difference
    gain: Difference | None
    note: str = ""
    images: int | None = None
    lesions: int | None = None
    few: bool = False
    needed: int | None = None
    p: Figure = None
    rare: bool = False
    malignant: bool = False
    failed: bool = False


@dataclass(frozen=True)
class Comparison:
    """The content of a comparison on one set of images.

    Attributes:
        names: the arms, see `shown_arms`.
        share: share of synthetic images in the last; None if it has none.
        share_text: what this share means; empty if it has none.
        candidates: number of arms from which validation chose it.
        effect_name, formula: name of its effect, and what is subtracted.
        classes, overall: rows of the table.
        verdict, detail: the verdict, and the figures that it follows from.
        effect: the effect, corrected for the number of candidates.
        gain: the difference of the last arm to the baseline, corrected for the number of arms; None if it is the
            effect.
        gains: number of arms that the gain is corrected for.
    """

    names: list[str]
    share: float | None
    share_text: str
    candidates: int
    effect_name: str
    formula: str
    classes: list[Row]
    overall: list[Row]
    verdict: str
    detail: str
    effect: Effect
    gain: Difference | None
    gains: int

    @property
    def sentences(self) -> str:
        """Verdict and figures."""
        return f"{self.verdict}. {self.detail}"


@dataclass(frozen=True)
class RemedyRow:
    """An arm in the table of remedies.

    Attributes:
        arm: its name.
        what: its description.
        figures: its metrics.
        limits: limits of its primary metric.
        gain: its difference to the baseline.
        seconds: duration of the training of its classifiers; None if unknown.
        best: whether it is the best arm on validation.
    """

    arm: str
    what: str
    figures: ArmResults
    limits: Interval | None
    gain: Difference
    seconds: float | None
    best: bool


@dataclass(frozen=True)
class Remedies:
    """All arms, and the doses of synthetic images."""

    rows: list[RemedyRow]
    doses: list[ArmDifference]


@dataclass(frozen=True)
class SeedRow:
    """Primary metric of the arms of the comparison with one seed, and differences of the last one.

    Attributes:
        seed: the seed.
        values: of the arms.
        effect, gain: differences to the arm before it and to the baseline.
        balanced: difference in balanced accuracy to the arm before it.
    """

    seed: str
    values: list[Figure]
    effect: Figure
    gain: Figure
    balanced: Figure


def shown_arms(outcome: Outcome) -> list[str]:
    """Return the arms that most tables and figures show: baseline, reference if it is another one, and chosen arm."""
    return list(dict.fromkeys((BASELINE, outcome.effect.reference, outcome.effect.arm)))


def _minus(value: float | None, other: float | None) -> float | None:
    return value - other if value is not None and other is not None else None


def _or_plain(difference: Difference | None, value: Figure, other: Figure) -> Difference:
    """Return a difference; if it has no value, that of two values without an interval.

    The gain of a class has no interval, and an arm may lack what a difference needs; its own values remain.
    """
    if difference is not None and difference.value is not None:
        return difference
    return _UNKNOWN.model_copy(update={"value": _minus(value, other)})


def _class_rows(results: Results, outcome: Outcome, counts: Mapping[str, ImageCounts]) -> list[Row]:
    arms, effect, run = [outcome.arms[arm] for arm in shown_arms(outcome)], outcome.effect, results.run
    rows = []
    for name in results.classes:
        # Without test images a recall of 0.0, which a library may return, would look like a failure.
        values = [arm.recall.get(name) if arm.support.get(name) else None for arm in arms]
        gap = effect.by_class.get(name)
        tested, details = counts.get(name), results.synthetic.get(name)
        rows.append(
            Row(
                name,
                values,
                [arm.recall_interval.get(name) for arm in arms],
                _or_plain(gap, values[-1], values[-2]),
                _or_plain(None, values[-1], values[0]) if len(arms) > 2 else None,
                images=tested.images if tested else 0,
                lesions=tested.lesions if tested else 0,
                few=gap.few if gap else False,
                needed=gap.lesions_needed if gap else None,
                p=gap.p_holm if gap else None,
                rare=name in run.rare_classes,
                malignant=name in run.malignant,
                failed=bool(details and details.failed),
            )
        )
    return rows


def _overall_rows(outcome: Outcome) -> list[Row]:
    arms, effect = [outcome.arms[arm] for arm in shown_arms(outcome)], outcome.effect
    rows = []
    for key, title in _OVERALL.items():
        values = [getattr(arm, key) for arm in arms]
        gaps = effect.by_metric.get(key)
        change, gain = (gaps.effect, gaps.improvement) if gaps else (None, None)
        if key == PRIMARY:
            change, gain = effect, effect.gain_of(effect.arm)
        change, gain = _or_plain(change, values[-1], values[-2]), _or_plain(gain, values[-1], values[0])
        intervals = [arm.intervals.get(key) for arm in arms]
        name = title + _LOWER_MARK * (key in LOWER_IS_BETTER)
        rows.append(Row(name, values, intervals, change, gain if len(arms) > 2 else None, _NOTES.get(key, "")))
    return rows


def _comparison(results: Results, outcome: Outcome, counts: Mapping[str, ImageCounts]) -> Comparison:
    """Return the content of a comparison: rows of the classes, and of the metrics over all classes.

    Args:
        results: the whole.
        outcome: the comparison: the results themselves, or their `external`.
        counts: class → tested images and lesions.
    """
    effect = outcome.effect
    return Comparison(
        names=shown_arms(outcome),
        share=share_of(effect.arm),
        share_text=formatting.describe_share(effect.arm, results.run.synthetic_scope),
        candidates=len(compared_arms(list(outcome.arms)).candidates),
        effect_name=formatting.effect_name(effect.arm),
        formula=formatting.describe_difference(effect.arm, effect.reference),
        classes=_class_rows(results, outcome, counts),
        overall=_overall_rows(outcome),
        verdict=formatting.describe_verdict(outcome),
        detail=formatting.describe_effect(outcome),
        effect=effect,
        gain=effect.gain_of(effect.arm) if effect.reference != BASELINE else None,
        gains=len(effect.remedies),
    )


def _sort_groups(subgroups: Subgroups | None) -> list[tuple[Subgroup, bool]]:
    """Return the groups, and whether each is the worst-off one; those without images of rare classes come last."""
    if subgroups is None:
        return []
    groups = [(group, place == subgroups.worst) for place, group in enumerate(subgroups.groups)]
    return sorted(groups, key=lambda it: it[0].rare_lesions == 0)


def _champion_rows(champion: Champion | None) -> list[tuple[str, ChampionFigure]]:
    """Return title and figures of each metric in which candidate and champion are compared."""
    figures = champion.comparison.figures if champion and champion.comparison else {}
    return [
        (_OVERALL.get(metric, metric) + _LOWER_MARK * (metric in LOWER_IS_BETTER), figure)
        for metric, figure in figures.items()
    ]


def _training_seconds(results: Results) -> tuple[float | None, float | None]:
    """Return how long the training of all GANs and of all classifiers took; None if unknown."""
    run = results.run
    if run.folds:  # only the first fold's GANs are described
        return None, None
    gans = [it.seconds for it in results.synthetic.values() if it.seconds is not None]
    gans += [run.pretraining_s] if run.pretraining_s else []
    models = [model.seconds for arm in results.arms.values() for model in arm.models.values()]
    return sum(gans) if gans else None, sum(models) if models else None


def _remedies(results: Results) -> Remedies:
    """Return a row for each arm, with its difference to the baseline, and the doses of synthetic images."""
    effect, rows = results.effect, []
    gains: dict[str, Difference] = {it.arm: it for it in effect.remedies}
    for arm, figures in results.arms.items():
        seconds = [model.seconds for model in figures.models.values()]
        rows.append(
            RemedyRow(
                arm=arm,
                what=recipe(arm, results.run.use).title,
                figures=figures,
                limits=figures.intervals.get(PRIMARY),
                gain=gains.get(arm, _UNKNOWN),
                seconds=sum(seconds) if seconds else None,
                best=arm == effect.best,
            )
        )
    return Remedies(rows, effect.doses)


def _effect_figure(salt: str, it: Comparison) -> str:
    """Return the figure of the effect and, if there is one, of the gain."""
    effect, gain = it.effect, it.gain
    rows = {formatting.capital(it.effect_name): [[Mark(effect.value, effect.low, effect.high)]]}
    if gain:
        rows["Gain"] = [[Mark(gain.value, gain.low, gain.high, hollow=True)]]
    label = f"Difference in {plain(effect.metric, 80)}, with 95 % intervals"
    return plots.intervals(f"effect {salt}", label, rows, DIRECTIONS, (-0.02, 0.02))


def _recall_figure(salt: str, it: Comparison) -> str:
    """Return the figure of the recall of each class."""
    lines = {
        row.name: [
            [Mark(value, limits[0], limits[1], arm) if limits else Mark(value, arm=arm)]
            for arm, value, limits in zip(it.names, row.values, row.intervals, strict=True)
        ]
        for row in it.classes
    }
    summary = "; ".join(f"{plain(row.name, 60)} {', '.join(map(show, row.values))}" for row in it.classes)
    label = f"Recall by class, {', '.join(map(title_of, it.names))}: {summary}"
    return plots.intervals(f"recall {salt}", label, lines, include=(0.0, 1.0))


def _doses_figure(doses: Sequence[ArmDifference]) -> str:
    """Return the figure of the differences of the arms with synthetic images to the oversampled one."""
    rows = {title_of(it.arm).capitalize(): [[Mark(it.value, it.low, it.high, it.arm)]] for it in doses}
    values = ", ".join(f"{title_of(it.arm)} {show(it.value, '+')}" for it in doses)
    label = f"Difference to the oversampled arm in mean recall of the rare classes: {values}"
    return plots.intervals("doses", label, rows, DIRECTIONS, (-0.02, 0.02))


def _curves(results: Results) -> dict[str, Any]:
    """Return ROC and precision–recall curves by class, and reliability diagrams by arm, as SVG."""
    arms, shown = results.arms, shown_arms(results)
    curves = {arm: arms[arm].curves for arm in shown}
    support = arms[BASELINE].support
    total = sum(support.values()) or 1
    by_class = [
        {
            "name": dx,
            "auc": [arms[arm].auc.get(dx) if support.get(dx) else None for arm in shown],
            "roc": plots.roc(f"roc {place}", curves, dx),
            "pr": plots.precision_recall(f"pr {place}", curves, dx, support.get(dx, 0) / total),
        }
        for place, dx in enumerate(results.classes)
    ]
    calibration = {arm: plots.reliability(f"reliability {arm}", arm, curves[arm]) for arm in shown}
    return {"curves": [row for row in by_class if row["roc"] or row["pr"]], "calibration": calibration}


def _warnings(dx: str, details: SyntheticDetails) -> list[str]:
    """Return warnings that the synthetic images of a class differ from its real ones.

    Args:
        dx: their `synthetic_key`.
        details: of the synthetic images.
    """
    warnings, name = [], plain(formatting.key_title(dx), 80)
    largest = max(details.separability or 0, details.separability_spectrum or 0)
    if largest > MAX_SEPARABILITY:
        warnings.append(f"{name}: synthetic images are easily distinguished from real ones (AUC {show(largest)}).")
    fidelity, recall = details.label_fidelity, details.validation_recall
    if fidelity is not None and recall is not None and fidelity < recall - MAX_LOSS_OF_FIDELITY:
        warnings.append(
            f"{name}: classifiers trained on real images assign a smaller share of the synthetic images to the class "
            f"({show(fidelity)}) than of the real validation images ({show(recall)})."
        )
    return warnings


def _seeds(results: Results) -> dict[str, Any]:
    """Return the primary figure of every arm and seed."""
    arms, shown = results.arms, shown_arms(results)
    names = list(dict.fromkeys(seed for arm in shown for seed in arms[arm].by_seed))
    rows = []
    for seed in names:
        of_seed = [arms[arm].by_seed.get(seed, {}) for arm in shown]
        values, balanced = ([it.get(key) for it in of_seed] for key in (PRIMARY, "balanced_accuracy"))
        effect, gain = _minus(values[-1], values[-2]), _minus(values[-1], values[0])
        rows.append(SeedRow(seed, values, effect, gain, _minus(balanced[-1], balanced[-2])))
    lines = {
        title_of(arm).capitalize(): [
            [Mark(row.values[place], arm=arm, hollow=True) for row in rows]
            + [Mark(arms[arm].rare_recall, is_mean=True)]
        ]
        for place, arm in enumerate(shown)
    }
    label = "Mean recall of the rare classes by arm and seed; the table below contains the figures"
    return {"seeds": rows, "seeds_svg": plots.intervals("seeds", label, lines)}


def _training(results: Results) -> dict[str, Any]:
    models = {arm: results.arms[arm].models for arm in shown_arms(results)}
    loss = plots.training("loss", models, {"loss": ":", "val_loss": "-"}, "Loss")
    balanced = plots.training("balanced", models, {"val_balanced_accuracy": "-"}, "Balanced accuracy on validation")
    return {"loss_svg": loss, "balanced_svg": balanced, "models": models}


def _times(results: Results) -> list[tuple[str, str]]:
    """Return the durations of the training of classifiers and GANs."""
    times = []
    for arm, figures in results.arms.items():
        seconds = [model.seconds for model in figures.models.values()]
        if seconds:
            each = f", {len(seconds)} models of {_duration(sum(seconds) / len(seconds))}" if len(seconds) > 1 else ""
            times.append((f"Classifier, {title_of(arm)}", f"{_duration(sum(seconds))}{each}"))
    for dx, details in results.synthetic.items():
        if details.seconds is not None:
            times.append((f"GAN of {plain(dx, 60)}{_of_fold(results)}", _duration(details.seconds)))
    return times


def _of_fold(results: Results) -> str:
    """Return which fold of a pooled run its synthetic images, training and validation split are from."""
    return " (fold 1)" if results.run.folds else ""


def _duration(seconds: float | None) -> str:
    return duration(seconds) if known(seconds) and seconds is not None else "not recorded"


def _encode_jpeg(shown: ShownImage, side: int, quality: int) -> bytes:
    """Return an image as JPEG, its shorter side at most `side` pixels."""
    image = Image.fromarray(shown.pixels)
    shrink = side / min(image.size)
    if shrink < 1:
        size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality > _FULL_COLOUR_QUALITY else 2, optimize=True)
    return buffer.getvalue()


def _fit_images(images: list[ShownImage], room: int) -> dict[ShownImage, str]:
    """Return data URLs that together fit into `room` bytes.

    All images have the same size and quality, the best that fits. Empty if not even the lowest fits.
    """
    for side, quality in _QUALITIES:
        urls: dict[ShownImage, str] = {}
        left = room
        for image in images:
            urls[image] = f"data:image/jpeg;base64,{base64.b64encode(_encode_jpeg(image, side, quality)).decode()}"
            left -= len(urls[image])
            if left < 0:
                break
        else:
            return urls
    return {}


environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
environment.filters |= {
    "show": show,
    "interval": show_interval,
    "capital": formatting.capital,
    "markdown": formatting.markdown,
    "plain": plain,
    "count": formatting.count,
    "counted": formatting.counted,
    "listed": formatting.listed,
    "duration": _duration,
    "known": known,
    "arm_title": title_of,
    "arm_short": formatting.short_title,
    "key_title": formatting.key_title,
    "group_title": formatting.group_title,
    "champion_title": formatting.champion_title,
    "network_title": formatting.network_title,
}
environment.globals |= {"style": plots.style_of, "demo_notice": DEMO_NOTICE, "selections": SELECTIONS}


def view(results: Results) -> dict[str, Any]:
    """Return the content that HTML and Markdown share."""
    run, external, synthetic = results.run, results.external, results.synthetic
    source = run.source or _NO_SOURCE
    return {
        "results": results,
        "run": run,
        "main": _comparison(results, results, results.splits["test"]),
        "outside": _comparison(results, external, external.counts) if external else None,
        "external": external,
        "names": shown_arms(results),
        "remedies": _remedies(results),
        "remedy": formatting.describe_remedy(results, *_training_seconds(results)),
        "population": results.population or {},
        "subgroups": results.subgroups,
        "groups": _sort_groups(results.subgroups),
        "worst_group": formatting.describe_worst_group(results.subgroups, source.unit),
        "small_groups": formatting.describe_small_groups(results.subgroups, source.unit),
        "champion": results.champion,
        "champion_sentence": formatting.describe_champion(results.champion, source.unit),
        "champion_rows": _champion_rows(results.champion),
        "drift": formatting.describe_drift(results.champion.drift if results.champion else None, source.unit),
        "metadata_notes": formatting.describe_metadata(results),
        "folds": run.folds or [],
        "of_fold": _of_fold(results),
        "pooled_lesions": run.pooled_lesions,
        "synthetic": synthetic,
        "warnings": [text for dx, details in synthetic.items() for text in _warnings(dx, details)],
        "failed": [(dx, details) for dx, details in synthetic.items() if details.failed],
        "sources": results.sources,
        "seed_count": len(run.seeds),
        "demo": run.data == "demo",
        "source": source,
        "unit": source.unit,
        "skin": set(results.classes) <= SKIN_CLASSES and run.data != "demo",
    }


def _keys_of(keys: Iterable[str]) -> dict[str, list[str]]:
    """Return class → keys of its synthetic images."""
    keys_of: dict[str, list[str]] = {}
    for key in keys:
        keys_of.setdefault(parse_synthetic_key(key)[1], []).append(key)
    return keys_of


def render_html(results: Results, gallery: Gallery) -> str:
    """Return the report as one self-contained HTML file of at most `MAX_PAGE_BYTES`, for up to some dozens of classes.

    Args:
        results: content of `metrics.json`.
        gallery: from `gallery.collect`; sections of missing images are omitted.
    """
    page = view(results) | _curves(results) | _seeds(results) | _training(results) | {"times": _times(results)}
    page["doses_svg"] = _doses_figure(page["remedies"].doses) if len(page["remedies"].doses) > 1 else ""
    page["figures"] = {
        place: (_effect_figure(place, it), _recall_figure(place, it))
        for place in ("main", "outside")
        if (it := page[place])
    }
    page["keys_of"] = _keys_of(dict.fromkeys([*page["synthetic"], *gallery.synthetic]))
    page["losses_svg"] = {
        dx: plots.gan_losses(f"losses {place}", dx, details.losses)
        for place, (dx, details) in enumerate(results.synthetic.items())
        if details.losses
    }
    template = environment.get_template("report.html.j2")
    images = list_images(gallery)
    without = template.render(page, gallery=gallery, urls=dict.fromkeys(images, ""))
    urls = _fit_images(images, MAX_PAGE_BYTES - len(without.encode()))
    if not urls:
        gallery = Gallery()
    return template.render(page, gallery=gallery, urls=urls)


def render_markdown(results: Results) -> str:
    """Return verdict and comparison table for the Kubeflow UI, whose viewer shows five columns and no HTML."""
    return environment.get_template("comparison.md.j2").render(view(results))


def render_text(results: Results) -> str:
    """Return verdict and comparison table for a terminal, at most 100 columns wide."""
    page = view(results)
    main = page["main"]
    lines = [line for text in (f"{main.verdict}.", main.detail, page["remedy"]) for line in _wrap(text)]
    if plan := results.run.plan:
        end = ". The run deviates from its plan:" if plan.deviations else ", without deviation from the plan."
        lines.append(f"Planned on {plain(plan.created, 40)}{end}")
        for text in plan.deviations:
            lines += _wrap(f"- {plain(text)}", "  ")
    for text in filter(None, (page["champion_sentence"], " ".join(page["drift"]))):
        lines += _wrap(text)
    if page["demo"]:
        lines += _wrap(DEMO_NOTICE)
    if page["unit"] != "lesion":
        unit = page["unit"]
        lines += _wrap(
            f"No lesion ids: the unit is the {unit}; intervals are too narrow if several {unit}s show one object."
        )
    lines += ["", *_text_table(main, page["unit"])]
    if page["outside"]:
        text = f"External data, {plain(page['external'].data, 60)}: {page['outside'].sentences}"
        lines += ["", *_wrap(text), "", *_text_table(page["outside"], page["unit"])]
    for dx, details in page["failed"]:
        text = f"No synthetic images of {plain(dx, 40)}, its GAN failed{page['of_fold']}: {plain(details.failed)}"
        lines += ["", *_wrap(text)]
    if len(page["remedies"].rows) > len(page["names"]):
        lines += ["", *_remedy_table(page["remedies"])]
    for text in page["metadata_notes"]:
        lines += ["", *_wrap(text)]
    lines += ["", f"{main.effect_name} = {main.formula}"]
    if main.gain:
        lines.append(f"gain = {formatting.describe_difference(main.names[-1], BASELINE)}, includes rebalancing")
    lines += [plain(main.share_text)] if main.share_text else []
    lines.append("lower is better: log loss, Brier score, calibration errors")
    return "\n".join(lines).replace("−", "-") + "\n"  # a terminal may lack the minus sign


def _wrap(text: str, indent: str = "") -> list[str]:
    """Return lines of at most 100 printable characters; `indent` begins all but the first."""
    return textwrap.wrap(plain(text), _TEXT_WIDTH, subsequent_indent=indent)


def _remedy_table(remedies: Remedies) -> list[str]:
    form = "{:23}{:>12}{:>15}{:>9}{:>10}{:>11} {:>17}".format
    lines = [form("remedy", "rare recall", "balanced acc.", "AUC", "log loss", "gain", "interval, all")]
    for row in remedies.rows:
        keys = (PRIMARY, "balanced_accuracy", "macro_auc", "balanced_log_loss")
        cells = [show(getattr(row.figures, key)) for key in keys]
        gain = ["", ""]
        if row.arm != BASELINE:
            gain = [show(row.gain.value, "+"), show_interval(row.gain, "+")]
        lines.append(form(title_of(row.arm) + " *" * row.best, *cells, *gain))
    return [*lines, "gain: rare recall - that of the baseline; intervals hold for all at once; * best on validation"]


def _text_table(comparison: Comparison, unit: str) -> list[str]:
    arms = "{:>9}{:>12}{:>16}" if len(comparison.names) > 2 else "{:>9}{:>21}"
    form = ("{:25}{:>8}" + arms + "{:>11} {:>17}").format
    name = comparison.effect_name
    title = name if len(name) <= 10 else "effect"
    lines = [form("recall by class", f"{unit}s", *map(title_of, comparison.names), title, "95 % interval")]
    for row in comparison.classes + comparison.overall:
        few = " *" if row.few else ""
        cells = [*map(show, row.values), show(row.effect.value, "+")]
        limits = show_interval(row.effect, "+")
        name = plain(row.name.removesuffix(_LOWER_MARK), 24 - len(few)) + few
        lesions = "" if row.lesions is None else formatting.count(row.lesions)
        lines.append(form(name, lesions, *cells, limits))
    if any(row.few for row in comparison.classes):
        lines.append(f"* too few {unit}s or seeds to detect an effect of 0.10")
    gain, metric = comparison.gain, plain(comparison.effect.metric, 50)
    if gain is None:
        return lines
    arms = f", corrected for {comparison.gains} arms" * (comparison.gains > 1)
    return [*lines, f"gain in {metric}: {show(gain.value, '+')} ({show_interval(gain, '+')}{arms})"]
