"""Steps that are done once, even if the process is killed between them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.shared.files import write_text
from components.shared.log import duration, log_line


class Steps:
    """Record in a folder which steps are done.

    Args:
        folder: empty, or that of an earlier process. A step that was interrupted is repeated into the same files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def once(self, name: str, function: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        """Return the result of a function, which must be a JSON value; the earlier one if the step is done."""
        done = self.folder / "done" / f"{name}.json"
        if not done.exists():
            log_line("benchmark", name)
            started = time.monotonic()
            result = function(*arguments, **settings)
            seconds = round(time.monotonic() - started, 1)
            done.parent.mkdir(parents=True, exist_ok=True)
            write_text(done, json.dumps({"seconds": seconds, "result": result}))
            log_line("benchmark", f"{name} done in {duration(seconds)}")
        return json.loads(done.read_text(encoding="utf-8"))["result"]
