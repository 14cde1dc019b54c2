"""The report: what the three arms did on the test lesions, as HTML, as Markdown and as plain text.

All of it follows from the results, whose form is that of `metrics.json`; a figure that is null there is `n/a` here.
"""

import base64
import io
import textwrap
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from components.evaluate import formatting, plots
from components.evaluate.formatting import known, plain, show, show_interval
from components.evaluate.gallery import Gallery, ShownImage, list_images
from components.evaluate.plots import Axis
from components.shared.log import duration
from components.shared.records import ARMS

LIMIT = 1_950_000
"""Bytes of the HTML page at the most, pictures and all; they are shown as well as that allows."""
_QUALITIES = (
    (192, 95),
    (192, 88),
    (192, 80),
    (160, 80),
    (144, 75),
    (128, 70),
    (112, 60),
    (96, 55),
    (80, 50),
    (64, 45),
    (48, 40),
    (32, 30),
)
"""Pixels on a side and JPEG quality, the best first."""

PRIMARY = "rare_recall"
_OVERALL = {
    PRIMARY: "Mean recall, rare classes",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "accuracy": "Accuracy",
    "macro_auc": "Macro AUC",
    "malignant_sensitivity": "Sensitivity, malignant",
    "brier": "Brier score",
    "ece": "Calibration error",
    "ece_scaled": "Calibration error, scaled",
}
_NOTES = {
    PRIMARY: "primary",
    "malignant_sensitivity": "at 90 % specificity on validation",
    "brier": "lower is better",
    "ece": "ECE; lower is better",
    "ece_scaled": "ECE after temperature scaling",
}
_MADE = dict.fromkeys(
    (
        "images", "architecture", "kimg", "best_kimg", "model_sha256", "real_images", "seconds", "losses", "failed",
        "kid", "density", "coverage", "texture", "drawn", "copies", "copy_threshold", "curated", "reject", "against",
        "nearest",
    )
)  # fmt: skip
"""Facts about the synthetic images of a class; a run may lack some."""
_NOTHING = {"value": None, "low": None, "high": None}


def _minus(one: float | None, other: float | None) -> float | None:
    return one - other if one is not None and other is not None else None


def _row(name: str, values: list[float | None], intervals: list[Any], **more: Any) -> dict[str, Any]:
    """A row of the comparison table: the arms' values, and what augmented gains on each of the others."""
    row: dict[str, Any] = {"name": name, "values": values, "intervals": intervals}
    row |= {"gan": _NOTHING, "improvement": _NOTHING}
    row |= dict.fromkeys(("images", "lesions", "few", "needed", "rare", "malignant", "p", "note"))
    row |= {key: value for key, value in more.items() if value is not None}
    # A class's improvement has no interval, and an arm may lack what a difference needs: the arms' own figures do.
    for key, control in (("gan", values[1]), ("improvement", values[0])):
        if row[key].get("value") is None:
            row[key] = _NOTHING | row[key] | {"value": _minus(values[2], control)}
    return row


def _comparison(results: dict[str, Any], judged: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any]:
    """What a comparison shows: the rows of the classes, then those of the metrics over all classes, and the figures.

    Args:
        results: the whole.
        judged: the part with `arms`, `effect` and `verdict`: the results themselves, or their `external`.
        counts: class → images and lesions judged on.
    """
    arms, effect = [judged["arms"][arm] for arm in ARMS], judged["effect"]
    classes = []
    for name in results["classes"]:
        # Without test images a recall of 0.0, which a library may give there, would read as a failure.
        values = [(arm["recall"] or {}).get(name) if (arm["support"] or {}).get(name) else None for arm in arms]
        intervals = [(arm.get("recall_interval") or {}).get(name) for arm in arms]
        gap = (effect.get("by_class") or {}).get(name) or {}
        seen = counts.get(name) or {"images": 0, "lesions": 0}
        rare, malignant = (name in (results["run"].get(key) or []) for key in ("rare_classes", "malignant"))
        facts = {"few": gap.get("few"), "needed": gap.get("lesions_needed"), "p": gap.get("p_holm")}
        kind = {"rare": rare, "malignant": malignant}
        classes.append(_row(name, values, intervals, gan=gap or None, **facts, **kind, **seen))
    overall = []
    for key, title in _OVERALL.items():
        values = [arm.get(key) for arm in arms]
        intervals = [(arm.get("intervals") or {}).get(key) for arm in arms]
        gaps = (effect.get("by_metric") or {}).get(key) or {}
        if key == PRIMARY:
            gaps = {"gan": effect, "improvement": effect.get("augmented_minus_baseline")}
        overall.append(_row(title, values, intervals, note=_NOTES.get(key), **gaps))
    both = effect.get("augmented_minus_baseline") or _NOTHING
    ends = [-0.02, 0.02] + [part.get(key) for part in (effect, both) for key in ("value", "low", "high")]
    return {
        "classes": classes,
        "overall": overall,
        "sentence": formatting.verdict(judged),
        "effect": effect,
        "both": both,
        "effect_axis": Axis(ends),
        "recall_axis": Axis([0.0, 1.0]),
        "told": "; ".join(f"{plain(row['name'], 60)} {', '.join(map(show, row['values']))}" for row in classes),
    }


def _curves(results: dict[str, Any]) -> dict[str, Any]:
    """ROC and precision–recall curves by class, reliability by arm, as SVG."""
    arms = results["arms"]
    curves = {arm: arms[arm].get("curves") or {} for arm in ARMS}
    support = arms[ARMS[0]]["support"] or {}
    total = sum(support.values()) or 1
    by_class = [
        {
            "name": dx,
            "auc": [(arms[arm]["auc"] or {}).get(dx) if support.get(dx) else None for arm in ARMS],
            "roc": plots.roc(f"roc {place}", curves, dx),
            "pr": plots.precision_recall(f"pr {place}", curves, dx, support.get(dx, 0) / total),
        }
        for place, dx in enumerate(results["classes"])
    ]
    calibration = {arm: plots.reliability(f"reliability {arm}", arm, curves[arm]) for arm in ARMS}
    return {"curves": [row for row in by_class if row["roc"] or row["pr"]], "calibration": calibration}


def _seeds(results: dict[str, Any]) -> dict[str, Any]:
    """The primary figure of every arm and seed."""
    arms = results["arms"]
    names = list(dict.fromkeys(seed for arm in ARMS for seed in arms[arm].get("by_seed") or {}))
    rows = []
    for seed in names:
        of_seed = [(arms[arm]["by_seed"].get(seed) or {}) for arm in ARMS]
        values = [figures_.get(PRIMARY) for figures_ in of_seed]
        balanced = [figures_.get("balanced_accuracy") for figures_ in of_seed]
        gan, improvement = _minus(values[2], values[1]), _minus(values[2], values[0])
        rows.append(
            {"seed": seed, "values": values, "gan": gan, "improvement": improvement}
            | {"balanced": _minus(balanced[2], balanced[1])}
        )
    axis = Axis([value for row in rows for value in row["values"]] + [arms[arm].get(PRIMARY) for arm in ARMS])
    return {"seeds": rows, "seeds_axis": axis}


def _training(results: dict[str, Any]) -> dict[str, Any]:
    models = {arm: results["arms"][arm].get("models") or {} for arm in ARMS}
    loss = plots.training("loss", models, {"loss": ":", "val_loss": "-"}, "Loss")
    balanced = plots.training("balanced", models, {"val_balanced_accuracy": "-"}, "Balanced accuracy on validation")
    return {"loss_svg": loss, "balanced_svg": balanced, "models": models}


def _times(results: dict[str, Any]) -> list[tuple[str, str]]:
    """What took how long, and its cost where that is known."""
    times = []
    for name, phase in (results["run"].get("phases") or {}).items():
        cost = phase.get("cost")
        times.append((name, _duration(phase.get("seconds")) + (f", {cost}" if cost is not None else "")))
    for arm in ARMS:
        seconds = [model.get("seconds") for model in (results["arms"][arm].get("models") or {}).values()]
        if seconds and known(*seconds):
            each = f", {len(seconds)} models of {_duration(sum(seconds) / len(seconds))}" if len(seconds) > 1 else ""
            times.append((f"Classifier, {arm}", f"{_duration(sum(seconds))}{each}"))
    for dx, made in (results.get("synthetic") or {}).items():
        if made.get("seconds") is not None:
            times.append((f"GAN of {plain(dx, 60)}", _duration(made["seconds"])))
    return times


def _duration(seconds: float | None) -> str:
    return duration(seconds) if known(seconds) and seconds is not None else "not recorded"


def _jpeg(picture: ShownImage, side: int, quality: int) -> bytes:
    """A picture for an `img`, its shorter side at most `side` pixels."""
    image = Image.fromarray(picture.pixels)
    shrink = side / min(image.size)
    if shrink < 1:
        size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # With all of its colour where there is room: a checkerboard of colours is what a poor GAN draws.
    image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality > 85 else 2, optimize=True)
    return buffer.getvalue()


def _addresses(pictures: list[ShownImage], room: int) -> dict[ShownImage, str]:
    """Data addresses that together fit into `room` bytes: the same size and quality for all pictures, the best that
    fits; none where not even the least does."""
    for side, quality in _QUALITIES:
        found: dict[ShownImage, str] = {}
        left = room
        for picture in pictures:
            found[picture] = f"data:image/jpeg;base64,{base64.b64encode(_jpeg(picture, side, quality)).decode()}"
            left -= len(found[picture])
            if left < 0:
                break
        else:
            return found
    return {}


environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
environment.filters |= {
    "show": show,
    "interval": show_interval,
    "markdown": formatting.markdown,
    "plain": plain,
    "count": formatting.count,
    "listed": formatting.listed,
    "duration": _duration,
    "known": known,
}
environment.globals |= {"names": ARMS, "style": plots.STYLE}


def view(results: dict[str, Any]) -> dict[str, Any]:
    """What HTML and Markdown have in common."""
    outside = results.get("external")
    return {
        "results": results,
        "run": results["run"],
        "main": _comparison(results, results, results["splits"]["test"]),
        "outside": _comparison(results, outside, outside["counts"]) if outside else None,
        "external": outside,
        "population": results.get("population") or {},
        "folds": results["run"].get("folds") or [],
        "synthetic": {dx: _MADE | made for dx, made in (results.get("synthetic") or {}).items()},
        "seed_count": len(results["run"].get("seeds") or []) or 1,
    }


def render_html(results: dict[str, Any], gallery: Gallery) -> str:
    """The report as one self-contained HTML file of at most `LIMIT` bytes, for up to some dozens of classes.

    Args:
        results: in the form of `metrics.json`.
        pictures: from `pictures.collect`; whatever it lacks is left out.
    """
    page = view(results) | _curves(results) | _seeds(results) | _training(results) | {"times": _times(results)}
    losses = {dx: made.get("losses") or {} for dx, made in page["synthetic"].items()}
    page["losses_svg"] = {
        dx: plots.gan_losses(f"losses {place}", dx, found) for place, (dx, found) in enumerate(losses.items())
    }
    template = environment.get_template("report.html.j2")
    shown = list_images(gallery)
    without = template.render(page, gallery=gallery, addresses=dict.fromkeys(shown, ""))
    addresses = _addresses(shown, LIMIT - len(without.encode()))
    if not addresses:
        gallery = Gallery()
    return template.render(page, gallery=gallery, addresses=addresses)


def render_markdown(results: dict[str, Any]) -> str:
    """The verdict and the comparison table, for the Kubeflow UI, whose viewer reads 400,000 characters and no HTML."""
    return environment.get_template("comparison.md.j2").render(view(results))


def render_text(results: dict[str, Any]) -> str:
    """The verdict and the comparison table for a terminal, at most 100 columns wide."""
    page = view(results)
    lines = [*textwrap.wrap(plain(page["main"]["sentence"]), 100), ""]
    lines += _text_table(page["main"])
    if page["outside"]:
        lines += ["", *textwrap.wrap(f"Outside data, {plain(page['external']['data'], 60)}: "
                                     f"{plain(page['outside']['sentence'])}", 100), ""]  # fmt: skip
        lines += _text_table(page["outside"])
    for dx, made in page["synthetic"].items():
        if made.get("failed"):
            lines += ["", *textwrap.wrap(f"No synthetic images of {plain(dx, 40)}: {plain(made['failed'])}.", 100)]
    lines += ["", "GAN effect = augmented - oversampled; improvement = augmented - baseline, includes rebalancing"]
    return "\n".join(lines).replace("−", "-") + "\n"  # a terminal may have no true minus sign


def _text_table(judged: dict[str, Any]) -> list[str]:
    form = "{:26}{:>7}{:>10}{:>13}{:>11}{:>12}{:>18}".format
    lines = [form("recall by class", "lesions", *ARMS, "GAN effect", "95 % interval")]
    for row in judged["classes"] + judged["overall"]:
        few = " *" if row.get("few") else ""
        cells = [*map(show, row["values"]), show(row["gan"]["value"], "+")]
        spread = show_interval([row["gan"].get("low"), row["gan"].get("high")], "+")
        name = plain(row["name"], 25 - len(few)) + few
        lines.append(form(name, formatting.count(row["lesions"]) if row in judged["classes"] else "", *cells, spread))
    if any(row["few"] for row in judged["classes"]):
        lines.append("* too few lesions to tell")
    both = judged["both"]
    change = f"{show(both['value'], '+')} ({show_interval(both, '+')})"
    return [*lines, f"improvement on the baseline, {plain(judged['effect']['metric'], 50)}: {change}"]
