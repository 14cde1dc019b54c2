"""Draw the figures of the report: inline SVG with real text, the same bytes for the same results."""

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from components.evaluate.report.formatting import known, number, plain, show
from components.shared.arms import BASELINE, share_of, title_of
from components.shared.records import Curves, Losses, ModelCurves

STYLES = (("#666666", "o"), ("#0b62a4", "s"), ("#b5400c", "D"))
"""Colour and marker of the baseline, the remedies, and the arms with synthetic images."""
RULE = "#d5d9de"
_FRAME = "#8a9099"
_WIDTH_PX = 380
"""Width of figures, which is about that of a phone, so that their text keeps its size there."""
_LINE_PX, _DOTS_PX = 19, 36
"""Height of a line with one mark, and of one with several that are spread if they overlap."""
_OVERLAP = 0.02
"""Distance below which marks overlap, as a share of the scale."""
_SPREAD = 0.34
"""Largest vertical offset of a mark, in lines."""


@dataclass(frozen=True)
class Mark:
    """A value in a row of a figure.

    Attributes:
        value: the value; a row has no mark for None and NaN.
        low, high: its interval; None without one.
        arm: the arm whose colour and marker it has; None: black.
        hollow: whether it is an outline only.
        is_mean: whether it is the mean of the row, which is a line.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    arm: str | None = None
    hollow: bool = False
    is_mean: bool = False


def draw_svg(salt: str, size: tuple[float, float], label: str, draw: Callable[[Any], None]) -> str:
    """Return an inline SVG, independent of the user's matplotlibrc; each in a page needs its own salt."""
    import matplotlib.style
    from matplotlib.figure import Figure

    # Text remains text, in the page's font; '$' in a name is not mathematics.
    look: dict[Any, Any] = {"svg.hashsalt": salt, "svg.fonttype": "none", "text.parse_math": False}
    look |= {
        "font.size": 12,
        "font.family": "DejaVu Sans",
        "axes.axisbelow": True,
        "axes.edgecolor": _FRAME,
        "lines.solid_capstyle": "round",
    }
    look |= dict.fromkeys(("axes.spines.top", "axes.spines.right"), False) | {"grid.color": RULE}
    look |= dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0)
    buffer = io.StringIO()
    with matplotlib.style.context("default"), matplotlib.rc_context(look):
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72, layout="constrained")  # no pyplot, no display
        draw(figure.subplots())
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    # Ids such as `axes_1` occur in every figure; nothing refers to them, and ids must be unique in a page.
    body = re.sub(r'<g id="[^"]*"', "<g", buffer.getvalue().partition("<svg")[2])
    return f'<svg role="img" aria-label="{html.escape(label)}"{body}'


def _limits(values: Sequence[float | None]) -> tuple[float, float]:
    """Return the ends of an axis: the known values with a margin, (0, 1) without any."""
    numbers = [number(value) for value in values if known(value)] or [0.0, 1.0]
    low, high = min(numbers), max(numbers)
    margin = max(0.05 * (high - low), 0.005)  # three decimals cannot distinguish less
    return low - margin, high + margin


def _spread(line: Sequence[Mark], reach: float) -> list[float]:
    """Return the vertical offset of each mark of a line, in lines.

    Dots, which have no interval, are beside each other if each is within `reach` of the next; other marks have 0.
    """
    offsets, group = [0.0] * len(line), list[int]()

    def separate() -> None:
        step = min(0.28, 2 * _SPREAD / max(1, len(group) - 1))
        for place, index in enumerate(group):
            offsets[index] = step * (place - (len(group) - 1) / 2)

    dots = [index for index, mark in enumerate(line) if known(mark.value) and mark.low is None and not mark.is_mean]
    for index in sorted(dots, key=lambda it: (number(line[it].value), it)):
        if group and number(line[index].value) - number(line[group[-1]].value) > reach:
            separate()
            group.clear()
        group.append(index)
    separate()
    return offsets


def _draw_mark(axes: Any, mark: Mark, y: float) -> None:
    colour, marker = style_of(mark.arm) if mark.arm else ("#1b1f24", "o")
    if mark.is_mean:
        axes.plot([number(mark.value)] * 2, [y - 0.42, y + 0.42], color=colour, linewidth=2)
        return
    if known(mark.low) and known(mark.high):
        axes.plot([number(mark.low), number(mark.high)], [y, y], color=colour, linewidth=2)
    face = "#ffffff" if mark.hollow else colour
    axes.plot(number(mark.value), y, marker, color=colour, mfc=face, markersize=7, mew=1.5, clip_on=False)


def intervals(
    salt: str,
    label: str,
    rows: Mapping[str, Sequence[Sequence[Mark]]],
    x_label: str = "",
    include: Sequence[float] = (),
) -> str:
    """Return values with their intervals on one scale; dots that would overlap are above each other.

    Args:
        salt: salt of the ids.
        label: description of the figure.
        rows: name → its lines from top to bottom, each with its marks.
        x_label: title of the scale.
        include: values that the scale includes.
    """
    from matplotlib.ticker import MaxNLocator

    marks = [mark for lines in rows.values() for line in lines for mark in line]
    count = sum(map(len, rows.values()))
    has_dots = any(len(line) > 1 for lines in rows.values() for line in lines)
    limits = _limits([*include, *(end for mark in marks for end in (mark.value, mark.low, mark.high))])
    reach = _OVERLAP * (limits[1] - limits[0])

    def draw(axes: Any) -> None:
        y, centres = 0.0, []
        for lines in rows.values():
            if y:
                axes.axhline(y - 0.5, color=RULE, linewidth=0.8)
            centres.append(y + (len(lines) - 1) / 2)
            for line in lines:
                for mark, offset in zip(line, _spread(line, reach), strict=True):
                    if known(mark.value):
                        _draw_mark(axes, mark, y + offset)
                y += 1
        axes.set(xlim=limits, ylim=(y - 0.5, -0.5), xlabel=x_label)
        axes.set_yticks(centres, [plain(name, 24) for name in rows])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        axes.grid(axis="x")
        if limits[0] < 0 < limits[1]:
            axes.axvline(0, color=_FRAME, linewidth=1)
        axes.spines["left"].set_visible(False)

    height = 38 + (18 if x_label else 0) + (_DOTS_PX if has_dots else _LINE_PX) * count
    return draw_svg(salt, (_WIDTH_PX, height), label, draw)


def _square(axes: Any, x_label: str, y_label: str) -> None:
    marks = [0, 0.5, 1]
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x_label, ylabel=y_label, xticks=marks, yticks=marks)
    axes.set_xticklabels(["0", ".5", "1"])
    axes.set_yticklabels(["0", ".5", "1"])
    axes.grid()


def style_of(arm: str) -> tuple[str, str]:
    """Return colour and marker of an arm."""
    return STYLES[2 if share_of(arm) else 0 if arm == BASELINE else 1]


def _lines(
    curves: Mapping[str, Curves], kind: Literal["roc", "pr"], dx: str, keys: tuple[str, str]
) -> list[tuple[str, list[float], list[float]]]:
    """Return (arm, x, y) of each arm that has the curve."""
    lines = []
    for arm, of_arm in curves.items():
        curve: Mapping[str, list[float | None]] = getattr(of_arm, kind).get(dx) or {}
        x, y = ([number(value) for value in curve.get(key, [])] for key in keys)
        if x and len(x) == len(y):
            lines.append((arm, x, y))
    return lines


def roc(salt: str, curves: Mapping[str, Curves], dx: str) -> str:
    """Return the ROC curves of a class against the rest; empty if no arm has one. `curves`: arm → its curves."""
    lines = _lines(curves, "roc", dx, ("fpr", "tpr"))

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], ":", color=_FRAME, linewidth=1)
        for arm, x, y in lines:
            axes.plot(x, y, color=style_of(arm)[0], linewidth=1.5, clip_on=False)
        _square(axes, "False positive rate", "True positive rate")

    label = f"ROC curves of {plain(dx, 60)}, {', '.join(map(title_of, curves))}"
    return draw_svg(salt, (190, 184), label, draw) if lines else ""


def precision_recall(salt: str, curves: Mapping[str, Curves], dx: str, share: float) -> str:
    """Return the precision–recall curves of a class.

    `share` is its share of the test images: the precision of random guessing. The curve begins at the first true
    positive: at a recall of 0, precision is that of the one image with the highest score, 0 or 1.
    """
    lines = _lines(curves, "pr", dx, ("recall", "precision"))

    def draw(axes: Any) -> None:
        axes.axhline(share, linestyle=":", color=_FRAME, linewidth=1)
        for arm, x, y in lines:
            first = next((place for place, recall in enumerate(x) if recall > 0), 0)
            axes.plot(x[first:], y[first:], color=style_of(arm)[0], linewidth=1.5, clip_on=False)
        _square(axes, "Recall", "Precision")

    label = f"Precision by recall of {plain(dx, 60)}, {', '.join(map(title_of, curves))}"
    return draw_svg(salt, (190, 184), label, draw) if lines else ""


def reliability(salt: str, arm: str, curves: Curves) -> str:
    """Return an arm's accuracy by confidence, before and after temperature scaling; empty if unknown."""
    colour, marker = style_of(arm)
    pairs = []
    for bins, face, dash in (
        (curves.reliability.get("before", {}), "#ffffff", "--"),
        (curves.reliability.get("after", {}), colour, "-"),
    ):
        x, y = (
            [number(value) for value in values] for values in (bins.get("confidence", []), bins.get("accuracy", []))
        )
        if x and len(x) == len(y):
            pairs.append((x, y, face, dash))

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], ":", color=_FRAME, linewidth=1)
        for x, y, face, dash in pairs:
            axes.plot(x, y, f"{marker}{dash}", color=colour, mfc=face, markersize=5, linewidth=1.3, clip_on=False)
        _square(axes, "Confidence", "Accuracy")

    label = f"Accuracy by confidence of the arm {title_of(arm)}, before and after temperature scaling"
    return draw_svg(salt, (240, 225), label, draw) if pairs else ""


def training(salt: str, models: Mapping[str, Mapping[str, ModelCurves]], lines: Mapping[str, str], title: str) -> str:
    """Return metrics by epoch: one line per model.

    Args:
        salt: salt of the ids.
        models: arm → seed → training of a model.
        lines: name in the history → dash.
        title: title of the figure.
    """

    def draw(axes: Any) -> None:
        for arm, of_arm in models.items():
            colour, marker = style_of(arm)
            for order, model in enumerate(of_arm.values()):
                for key, dash in lines.items():
                    values = [number(value) for value in model.history.get(key, [])]
                    width, alpha = (1.7, 1.0) if order == 0 else (0.9, 0.6)
                    validated = model.validated_epochs if key.startswith("val_") else []
                    at = validated if len(validated) == len(values) else range(1, len(values) + 1)
                    line = axes.plot(at, values, dash, color=colour, lw=width, alpha=alpha)[0]
                    if dash == "-":
                        line.set(marker=marker, markersize=6, markevery=[len(values) - 1])
        axes.set(xlabel="Epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y")

    return draw_svg(salt, (_WIDTH_PX, 250), f"{title}, by epoch, for each arm and seed", draw)


def gan_losses(salt: str, dx: str, losses: Losses) -> str:
    """Return the losses of a class's GAN by thousand images shown; empty if there are none."""
    kimg = losses.kimg
    lines = {"generator": losses.generator, "discriminator": losses.discriminator}
    lines = {name: values for name, values in lines.items() if values and len(values) == len(kimg)}

    def draw(axes: Any) -> None:
        for (name, values), (colour, dash) in zip(lines.items(), (("#1b1f24", "-"), ("#666666", "--")), strict=False):
            axes.plot(kimg, values, dash, color=colour, linewidth=1.4, label=name)
        axes.set(xlabel="kimg", ylabel="Loss")
        axes.grid(axis="y")
        axes.figure.legend(loc="outside upper left", ncols=2, frameon=False)

    last = ", ".join(f"{name} {show(values[-1], digits=2)}" for name, values in lines.items())
    return (
        draw_svg(salt, (_WIDTH_PX, 190), f"Losses of the GAN of {plain(dx, 60)}; at the end {last}", draw)
        if lines
        else ""
    )
