"""What a figure was measured on."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Processor, cores, and the GPU where there is one."""
    found: dict[str, Any] = {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    info = Path("/proc/cpuinfo")
    if info.exists() and (model := re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8"))):
        found["cpu"] = model[1]
    if tool := shutil.which("nvidia-smi"):
        said = subprocess.run([tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
        if said.stdout.strip():
            found["gpu"] = said.stdout.strip().splitlines()[0]
    return found
