"""Description of the machine that a figure was measured on."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Return the processor, the number of cores, and the GPU if there is one."""
    found: dict[str, Any] = {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    info = Path("/proc/cpuinfo")
    if info.exists() and (model := re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8"))):
        found["cpu"] = model[1]
    if tool := shutil.which("nvidia-smi"):
        output = subprocess.run([tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
        if output.stdout.strip():
            found["gpu"] = output.stdout.strip().splitlines()[0]
    return found
