"""How figures and names are put into words: in HTML, Markdown and plain text alike.

Every name in the results (run, data, class, setting) is hostile input: Jinja escapes it in HTML, `markdown` in
Markdown, and `plain` drops what can't be printed.
"""

import html
import math
import re
from typing import Any

from markupsafe import Markup

_VERDICTS = {
    "improved": "The synthetic images helped",
    "no evidence": "No evidence that the synthetic images helped",
    "worse": "The synthetic images made it worse",
}


def number(value: float | None) -> float:
    """NaN for null, so that arithmetic and figures need no special case for what can't be known."""
    return math.nan if value is None else value


def show(value: float | None, sign: str = "", digits: int = 3) -> str:
    """Three decimals; with sign "+", a difference: `+0.042`, `−0.042`, `0.000`."""
    text = format(number(value), f"{sign}.{digits}f").replace("-", "−")
    zero = format(0, f".{digits}f")
    return "n/a" if "nan" in text or "inf" in text else zero if text.strip("+−") == zero else text


def show_interval(limits: Any, sign: str = "", digits: int = 3) -> str:
    """`0.438 to 0.694` of a pair, or of something with `low` and `high`."""
    low, high = (limits["low"], limits["high"]) if isinstance(limits, dict) else limits or (None, None)
    return f"{show(low, sign, digits)} to {show(high, sign, digits)}" if known(low, high) else "n/a"


def known(*values: float | None) -> bool:
    """Whether all of them are numbers that can be shown."""
    return all(value is not None and math.isfinite(value) for value in values)


def count(value: int | None) -> str:
    """`1,006`."""
    return "n/a" if value is None else f"{value:,}"


def plain(value: Any, width: int = 1000) -> str:
    """One short line of printable characters: no escape sequence in a name reaches a terminal, and no mark that turns
    the direction of what follows it reaches a page."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def markdown(value: Any) -> Markup:
    """Literal text inside of a line or a table's cell: neither Markdown nor HTML in it counts, and no address in it
    becomes a link."""
    text = re.sub(r"([\\`*_\[\]|~$]|(?<=:)/(?=/)|(?<=www)\.)", r"\\\1", plain(value))
    return Markup(html.escape(text, quote=False))


def listed(value: Any) -> str:
    """A setting in words: items with commas between them, a mapping as `name value`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {listed(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(listed, value))
    return "none" if value is None else str(value)


def verdict(judged: dict[str, Any]) -> str:
    """The result in one sentence, of the same form whether it is good or bad.

    Args:
        judged: has `verdict` and `effect`: the results, or their `external` part.
    """
    head, effect = _VERDICTS[judged["verdict"]], judged["effect"]
    value, low, high = (number(effect[key]) for key in ("value", "low", "high"))
    if not known(value, low, high):
        return f"{head}: {effect['metric']} can't be compared on these test images."
    change = f"{show(abs(value))} {'higher' if value > 0 else 'lower'} with them than"
    change = "the same with them as" if show(value) == "0.000" else change
    zero = ", which includes zero" if low <= 0 <= high else ""
    if not zero and judged["verdict"] == "no evidence":
        zero = ", which the paired test at lesion level does not confirm"
    interval = f"95\u00a0% interval {show_interval((low, high), '+')}{zero}"
    return f"{head}: {effect['metric']} was {change} with real images repeated ({interval})."
