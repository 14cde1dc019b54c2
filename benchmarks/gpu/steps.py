"""Steps that are done once, whatever ends the process between them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.shared.files import write_text
from components.shared.log import duration, log_line


class Steps:
    """Remembers in a folder what is done.

    Args:
        folder: an empty one, or that of an earlier start. A step that was ended in its middle is done anew, into the
            same files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def once(self, name: str, function: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        """The function's result, which must fit into JSON: from now, or from when it was done."""
        done = self.folder / "done" / f"{name}.json"
        if not done.exists():
            log_line("benchmark", name)
            begun = time.monotonic()
            result = function(*arguments, **settings)
            seconds = round(time.monotonic() - begun, 1)
            done.parent.mkdir(parents=True, exist_ok=True)
            write_text(done, json.dumps({"seconds": seconds, "result": result}))
            log_line("benchmark", f"{name} done in {duration(seconds)}")
        return json.loads(done.read_text(encoding="utf-8"))["result"]
