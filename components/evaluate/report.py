"""The report: what the three arms did on the test lesions, as HTML, as Markdown and as plain text.

Every name in the results (run, data, class, setting) is hostile input: Jinja escapes it in the templates,
Matplotlib in the figures, and the plain text drops control characters.
"""

import base64
import html
import io
import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ARMS = ("baseline", "oversampled", "augmented")
FEW_LESIONS = 20  # under so many test lesions the recall of a class is mostly chance

_OVERALL = {"balanced_accuracy": "Balanced accuracy", "accuracy": "Accuracy", "macro_auc": "Macro AUC"}
_VERDICTS = {
    "improved": "The synthetic images helped",
    "no evidence": "No evidence that the synthetic images helped",
    "worse": "The synthetic images made it worse",
}
_STYLE = {"baseline": ("#666666", "o"), "oversampled": ("#0b62a4", "s"), "augmented": ("#b5400c", "D")}
_RULE = "#d5d9de"
_PICTURE_BYTES = 12_000  # 112 pictures of this size are 1.8 MB in base64


def _number(value: float | None) -> float:
    """NaN for null, so that arithmetic and figures need no special case for what can't be known."""
    return math.nan if value is None else value


def _show(value: float | None, sign: str = "") -> str:
    """Three decimals; with sign "+", a difference: `+0.042`, `−0.042`, `0.000`."""
    text = format(_number(value), f"{sign}.3f").replace("-", "−")
    return "n/a" if "nan" in text else "0.000" if text.strip("+−") == "0.000" else text


def _plain(value: Any, width: int = 1000) -> str:
    """One short line of printable characters: no escape sequence in a name reaches a terminal."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _markdown(value: Any) -> str:
    """Literal text of one table cell; Jinja then escapes the HTML in it."""
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", _plain(value))


def _row(name: str, values: list[float | None], **more: Any) -> dict[str, Any]:
    """A row of the comparison table: the arms' values and what augmented gains on each of the others."""
    baseline, oversampled, augmented = known = [_number(value) for value in values]
    gains = {"improvement": augmented - baseline, "gan": augmented - oversampled}
    return {"name": name, "values": known, **gains, **more}


def _comparison(results: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the comparison table: one a class, then the metrics over all classes."""
    arms = [results["arms"][arm] for arm in ARMS]
    classes = []
    for name in results["classes"]:
        counts = results["splits"]["test"].get(name, {"images": 0, "lesions": 0})
        # Without test images a recall of 0.0, which a library may give there, would read as a failure.
        values = [arm["recall"].get(name) if arm["support"].get(name) else None for arm in arms]
        few, rare = counts["lesions"] < FEW_LESIONS, name in results["run"]["rare_classes"]
        classes.append(_row(name, values, few=few, rare=rare, **counts))
    return classes, [_row(title, [arm[key] for arm in arms]) for key, title in _OVERALL.items()]


def _verdict(results: dict[str, Any]) -> str:
    """The result in one sentence, of the same form whether it is good or bad."""
    head, metric = _VERDICTS[results["verdict"]], results["effect"]["metric"]
    gan = results["effect"]["augmented_minus_oversampled"]
    value, low, high = (_number(gan[key]) for key in ("value", "low", "high"))
    if math.isnan(value + low + high):
        return f"{head}: {metric} can't be compared on these test images."
    change = f"{_show(abs(value))} {'higher' if value > 0 else 'lower'} with them than"
    change = "the same with them as" if _show(value) == "0.000" else change
    zero = ", which includes zero" if low <= 0 <= high else ""
    interval = f"95\u00a0% interval {_show(low, '+')} to {_show(high, '+')}{zero}"
    return f"{head}: {metric} was {change} with real images repeated ({interval})."


def _svg(salt: str, size: tuple[float, float], label: str, draw: Callable[[Any], None]) -> str:
    """An inline SVG, the same bytes for the same results, whatever the user's matplotlibrc says."""
    import matplotlib.style
    from matplotlib.figure import Figure

    # Text stays text, in the page's font; '$' in a name isn't mathematics.
    look: dict[Any, Any] = {"svg.hashsalt": salt, "svg.fonttype": "none", "text.parse_math": False}
    look |= {"font.size": 13, "axes.titlelocation": "left", "axes.titlesize": 13, "axes.axisbelow": True}
    look |= dict.fromkeys(("axes.spines.top", "axes.spines.right"), False) | {"axes.edgecolor": "#8a9099"}
    look |= dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0) | {"grid.color": _RULE}
    buffer = io.StringIO()
    with matplotlib.style.context("default"), matplotlib.rc_context(look):
        figure = Figure(figsize=size, dpi=72, layout="constrained")  # no pyplot: no global state, no display
        draw(figure)
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    # Names such as `axes_1` stand in every figure; nothing refers to them, and ids must be unique in a page.
    body = re.sub(r'<g id="[^"]*"', "<g", buffer.getvalue().partition("<svg")[2])
    return f'<svg role="img" aria-label="{html.escape(label)}"{body}'


def _recall_figure(results: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for index, (arm, (colour, marker)) in enumerate(_STYLE.items()):
            axes.plot([], [], marker, color=colour, markersize=7, label=arm)  # a legend even without a point
            for place, row in enumerate(rows):
                value, height = row["values"][index], place + (index - 1) * 0.22
                interval = results["arms"][arm]["recall_interval"].get(row["name"])
                if interval and not math.isnan(value):
                    axes.hlines(height, *map(_number, interval), color=colour, linewidth=1.8)
                axes.plot(value, height, marker, color=colour, markersize=7)
        axes.set_yticks(range(len(rows)), [_plain(row["name"], 24) for row in rows])
        axes.hlines([place + 0.5 for place in range(len(rows) - 1)], -0.02, 1.02, color=_RULE, linewidth=0.8)
        axes.set(xlim=(-0.02, 1.02), ylim=(len(rows) - 0.5, -0.5), xlabel="Recall on the test images")
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)

    told = "; ".join(f"{row['name']} {', '.join(map(_show, row['values']))}" for row in rows)
    return _svg("recall", (7.8, 1.2 + 0.64 * len(rows)), f"Recall by class, {', '.join(ARMS)}: {told}", draw)


def _curves_figure(results: dict[str, Any]) -> str:
    def draw(figure: Any) -> None:
        loss, balanced = figure.subplots(1, 2)
        lines = ((loss, "loss", ":"), (loss, "val_loss", "-"), (balanced, "val_balanced_accuracy", "-"))
        for arm, (colour, marker) in _STYLE.items():
            history, best = results["arms"][arm]["history"], results["arms"][arm]["best_epoch"]
            for axes, key, dash in lines:
                values = [_number(value) for value in history.get(key, [])]
                line = axes.plot(range(1, len(values) + 1), values, dash, color=colour, linewidth=1.6)[0]
                if dash == "-":
                    line.set(marker=marker, markersize=8, markevery=slice(best - 1, best))
            balanced.plot([], [], f"{marker}-", color=colour, label=arm)
        for axes, title in ((loss, "Loss (dotted: training)"), (balanced, "Balanced accuracy, validation")):
            axes.set(title=title, xlabel="Epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(axis="y")

    best = ", ".join(f"{arm} epoch {results['arms'][arm]['best_epoch']}" for arm in ARMS)
    return _svg("curves", (13.4, 4.4), f"Loss and balanced accuracy by epoch. Best: {best}", draw)


def _data_uri(png: bytes) -> str:
    """A picture for an `img`: the PNG itself if it's small, else a JPEG, to keep the report under 2 MB."""
    from PIL import Image  # Matplotlib needs it too

    kind, data = "png", png
    for quality in (90, 75, 50, 25):
        if len(data) > _PICTURE_BYTES:
            buffer = io.BytesIO()
            Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGB").save(buffer, "JPEG", quality=quality)
            kind, data = "jpeg", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


_loader = FileSystemLoader(Path(__file__).parent)
_templates = Environment(loader=_loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
_templates.filters.update(show=_show, markdown=_markdown, data_uri=_data_uri)
_templates.globals |= {"names": ARMS, "style": _STYLE, "few_lesions": FEW_LESIONS}


def render_html(results: dict[str, Any], pictures: dict[str, dict[str, list[bytes]]]) -> str:
    """The report as one self-contained HTML file; `pictures`: class -> `real` or `synthetic` -> PNG bytes."""
    rows, overall = _comparison(results)
    page = {"rows": rows, "overall": overall, "sentence": _verdict(results), "pictures": pictures}
    figures = {"recall_svg": _recall_figure(results, rows), "curves_svg": _curves_figure(results)}
    return _templates.get_template("report.html.j2").render(results, **page, **figures)


def render_markdown(results: dict[str, Any]) -> str:
    """The verdict and the comparison table, for the Kubeflow UI."""
    rows, overall = _comparison(results)
    page = {"rows": rows, "overall": overall, "sentence": _verdict(results)}
    return _templates.get_template("comparison.md.j2").render(results, **page)


def render_text(results: dict[str, Any]) -> str:
    """The verdict and the comparison table for a terminal, at most 100 columns wide."""
    rows, overall = _comparison(results)
    table = [("Recall by class", "images", "lesions", *ARMS, "improvement", "GAN effect")]
    for row in rows + overall:
        name = _plain(row["name"], 19) + (" *" if row.get("few") else "")
        shown = [*map(_show, row["values"]), _show(row["improvement"], "+"), _show(row["gan"], "+")]
        table.append((name, row.get("images", ""), row.get("lesions", ""), *shown))
    lines = [*textwrap.wrap(_plain(_verdict(results)), 100), ""]
    lines += ["{:22}{:>8}{:>9}{:>10}{:>13}{:>11}{:>13}{:>12}".format(*cells) for cells in table]
    lines += ["", "improvement = augmented - baseline, GAN effect = augmented - oversampled"]
    if any(row["few"] for row in rows):
        lines.append(f"* fewer than {FEW_LESIONS} test lesions: too few lesions to tell")
    return "\n".join(lines).replace("−", "-") + "\n"  # a terminal may have no true minus sign
