"""Progress lines of a phase: rate-limited plain text, with a prefix by which a runner recognises them."""

import re
import time
from dataclasses import dataclass

PREFIX = "counterweight "

_PROGRESS = re.compile(
    r"(?P<label>.+?): (?P<count>[\d,.]+) of (?P<total>[\d,.]+) (?P<unit>\S+), (?P<rate>[\d,]+) (?P<rate_unit>\S+)/s"
    r"(?:, (?:(?P<h>\d+) h )?(?:(?P<min>\d+) min ?)?(?:(?P<s>\d+) s)? ?left)?(?:, .*)?"
)


def log_line(label: str, text: str) -> None:
    """Print one line, `counterweight <label>: <text>`."""
    # One write: lines of processes with the same unbuffered output would mix between the text and its end.
    print(f"{PREFIX}{label}: {text}\n", end="", flush=True)


def duration(seconds: float) -> str:
    """Return a duration for display: `42 s`, `3 min 10 s`, `1 h 05 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Progress:
    """Log count, rate and remaining time: at most one line per `interval_s` seconds, and always the last.

    Args:
        label: start of the line: phase, and class or arm.
        total: the final count, in `unit`.
        unit: what is counted, plural: `images`, `kimg`, `epochs`.
        each: number of images (or other `rate_unit`) per unit, for the rate.
        rate_unit: what the rate counts; `unit` by default.
        interval_s: minimum seconds between two lines.
        before: the count that was reached before this process started; it does not count for the rate.

    Example:
        >>> progress = Progress("train_gan df", total=12.0, unit="kimg", each=1000, rate_unit="images")
        >>> progress.update(3.0, "loss 0.71")
        counterweight train_gan df: 3.0 of 12.0 kimg, 100 images/s, 1 min 30 s left, loss 0.71
    """

    def __init__(
        self,
        label: str,
        total: float,
        unit: str,
        each: float = 1,
        rate_unit: str = "",
        interval_s: float = 10.0,
        before: float = 0,
    ) -> None:
        self.label, self.total, self.unit, self.interval_s, self.before = label, total, unit, interval_s, before
        self.each, self.rate_unit = each, rate_unit or unit
        self.start_time = self.last_line_time = time.monotonic()

    def update(self, count: float, detail: str = "") -> None:
        """Log that `count` of `total` units are complete; `detail` is appended."""
        now = time.monotonic()
        if now - self.last_line_time < self.interval_s and count < self.total:
            return
        self.last_line_time = now
        rate = (count - self.before) / max(now - self.start_time, 1e-9)
        remaining = "" if count >= self.total or not rate else f", {duration((self.total - count) / rate)} left"
        digits = 0 if isinstance(self.total, int) else 1
        text = f"{count:,.{digits}f} of {self.total:,.{digits}f} {self.unit}"
        text += f", {rate * self.each:,.0f} {self.rate_unit}/s{remaining}"
        log_line(self.label, f"{text}, {detail}" if detail else text)


@dataclass(frozen=True)
class ProgressLine:
    """The values of a line that `Progress` logged.

    Attributes:
        label: phase, and class or arm.
        count: number of units that are complete.
        total: the final count.
        unit: what is counted, plural.
        rate: number of `rate_unit` per second.
        rate_unit: what the rate counts.
        left_s: the remaining seconds; None if the line has none.
        digits: number of decimals of count and total.
    """

    label: str
    count: float
    total: float
    unit: str
    rate: float
    rate_unit: str
    left_s: int | None
    digits: int


def parse_progress(text: str) -> ProgressLine | None:
    """Return the values of a line of `Progress`, without its prefix; None if it is another line.

    Example:
        >>> parse_progress("train_gan df: 3.0 of 12.0 kimg, 100 images/s, 1 min 30 s left").left_s
        90
    """
    match = _PROGRESS.fullmatch(text)
    if not match:
        return None
    units = [match["h"], match["min"], match["s"]]
    hours, minutes, seconds = (int(unit or 0) for unit in units)
    count, total, rate = (float(match[name].replace(",", "")) for name in ("count", "total", "rate"))
    left_s = hours * 3600 + minutes * 60 + seconds if any(units) else None
    return ProgressLine(
        match["label"], count, total, match["unit"], rate, match["rate_unit"], left_s, int("." in match["total"])
    )
