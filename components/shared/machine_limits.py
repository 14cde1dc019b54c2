"""The CPUs and memory that this process may use: in a container, less than the node has.

Control groups of version 2 (`cpu.max`) and version 1 (`cpu.cfs_quota_us`) are read. Of these, a local run gives each of
two tasks at a time a half, and a task that runs several processes divides its share among them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PROCESS = Path("/proc/self/cgroup")
SHARE = "COUNTERWEIGHT_SHARE"
"""Environment variable: share of the CPUs and the memory that this process may use, if others run beside it."""


def usable_cpus(cgroups: Path = CGROUPS, process: Path = PROCESS) -> int:
    """Return the number of CPUs, at least 1: the node's, limited by the affinity and by the quota of the control group.

    Args:
        cgroups: where the control groups are mounted.
        process: lists the control groups of this process.
    """
    limit = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for folder in _iter_groups("", cgroups, process):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        limit = min(limit, _divide(quota, period))
    for folder in _iter_groups("cpu", cgroups, process):
        limit = min(limit, _divide(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")))
    return max(1, int(limit * _share() + 1e-9))  # of 3 CPUs, a third is 1


def usable_memory_bytes(cgroups: Path = CGROUPS, process: Path = PROCESS) -> int:
    """Return the node's memory, limited by the control group; see `usable_cpus` for the arguments."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for controller, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        for folder in _iter_groups(controller, cgroups, process):
            text = _read(folder / name)
            limit = min(limit, int(text)) if text.isdigit() else limit
    return int(limit * _share())


def _share() -> float:
    return float(os.environ.get(SHARE, 1))


def divide_share(processes: int) -> None:
    """Leave this process, one of several with the same environment, its part of the CPUs and the memory."""
    os.environ[SHARE] = str(_share() / processes)


def _divide(quota: str, period: str) -> float:
    """Return quota / period; infinity if there is no quota, which is `max` or −1."""
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else float("inf")


def _iter_groups(controller: str, cgroups: Path, process: Path) -> Iterator[Path]:
    """Yield the folders of the process's control group and of each one above it; they may not exist.

    Inside a container, the group may have its path on the node, which is not mounted; its files are at the root then.

    Args:
        controller: name of the controller in version 1; empty for version 2.
        cgroups, process: as in `usable_cpus`.
    """
    groups = [
        line.split(":", 2)[2] for line in _read(process).splitlines() if controller in line.split(":")[1].split(",")
    ]
    root = cgroups / controller
    path = root / (groups[0].strip("/") if groups else "")
    yield from (folder for folder in (path, *path.parents) if folder.is_relative_to(root))


def _read(path: Path) -> str:
    """Return a file's text; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def limit_threads(threads: int) -> None:
    """Have TensorFlow compute with this number of threads, if it has not started to compute in this process.

    By default it has a thread for each CPU of the node, even in a container that may use a few of them.
    """
    for kind in ("INTRAOP", "INTEROP"):
        os.environ[f"TF_NUM_{kind}_THREADS"] = str(threads)
