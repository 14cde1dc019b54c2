"""Progress lines of a phase: rate-limited plain text, with a prefix by which a runner recognises them."""

import time

PREFIX = "counterweight "


def log_line(label: str, text: str) -> None:
    """Print one line, `counterweight <label>: <text>`."""
    print(f"{PREFIX}{label}: {text}", flush=True)


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
