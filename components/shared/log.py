"""What a phase says while it works: plain lines, seldom enough for a pod's log, marked so that a runner can pick them
out."""

import time

PREFIX = "counterweight "


def log_line(label: str, text: str) -> None:
    """Prints one line, `counterweight <label>: <text>`."""
    print(f"{PREFIX}{label}: {text}", flush=True)


def duration(seconds: float) -> str:
    """Seconds for a reader: `42 s`, `3 min 10 s`, `1 h 05 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class Progress:
    """Says how far a count has come, its rate and the time left: at most one line in `every_s` seconds, and a last one.

    Args:
        label: phase, and class or arm, as the line begins.
        total: the count at the end, in `unit`.
        unit: what is counted, plural: `images`, `kimg`, `epochs`.
        each: how many images (or other `rate_unit`) one unit is, for the rate.
        rate_unit: what the rate counts; `unit` where not given.
        every_s: seconds between two lines at the least.
        before: what was done before this process began.
    """

    def __init__(
        self,
        label: str,
        total: float,
        unit: str,
        each: float = 1,
        rate_unit: str = "",
        every_s: float = 10.0,
        before: float = 0,
    ) -> None:
        self.label, self.total, self.unit, self.every_s, self.before = label, total, unit, every_s, before
        self.each, self.rate_unit = each, rate_unit or unit
        self.begun = self.said = time.monotonic()

    def update(self, done: float, detail: str = "") -> None:
        """`done` of `total` units are behind us; `detail` is appended."""
        now = time.monotonic()
        if now - self.said < self.every_s and done < self.total:
            return
        self.said = now
        rate = (done - self.before) / max(now - self.begun, 1e-9)
        ahead = "" if done >= self.total or not rate else f", {duration((self.total - done) / rate)} left"
        digits = 0 if isinstance(self.total, int) else 1
        text = f"{done:,.{digits}f} of {self.total:,.{digits}f} {self.unit}"
        text += f", {rate * self.each:,.0f} {self.rate_unit}/s{ahead}"
        log_line(self.label, f"{text}, {detail}" if detail else text)
