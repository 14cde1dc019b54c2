"""Workers and memory follow the limits of the container, not the size of the node."""

import os
from pathlib import Path

import pytest

from components.shared.machine_limits import usable_cpus, usable_memory_bytes

NODE_CPUS = 64


@pytest.fixture(autouse=True)
def _node(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(NODE_CPUS)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**26}.__getitem__)


def limits(folder: Path, groups: str, **files: str) -> tuple[int, int]:
    """Return CPUs and memory of a machine with these control groups; `__` in a name is `/`, and `_DOT_` a dot."""
    (folder / "process").write_text(groups)
    for name, text in files.items():
        path = folder / "cgroups" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return (
        usable_cpus(folder / "cgroups", folder / "process"),
        usable_memory_bytes(folder / "cgroups", folder / "process"),
    )


def test_limits_without_control_groups_are_those_of_the_node(tmp_path: Path):
    missing = tmp_path / "missing"
    assert (usable_cpus(missing, missing), usable_memory_bytes(missing, missing)) == (NODE_CPUS, 2**38)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"cpu_DOT_max": "400000 100000", "memory_DOT_max": "4294967296"}, (4, 2**32)),
        ("0::/", {"cpu_DOT_max": "50000 100000", "memory_DOT_max": "max"}, (1, 2**38)),
        ("0::/", {"cpu_DOT_max": "max 100000"}, (NODE_CPUS, 2**38)),
        ("0::/", {"cpu_DOT_max": ""}, (NODE_CPUS, 2**38)),
        # A service: the limit of a group applies to those below it.
        ("0::/a/b", {"a__b__cpu_DOT_max": "max 100000", "a__cpu_DOT_max": "250000 100000"}, (2, 2**38)),
        # The node's path of the group, which the container does not have.
        ("0::/kubepods/pod1/c", {"cpu_DOT_max": "300000 100000", "memory_DOT_max": "1024"}, (3, 1024)),
        # Version 1.
        (
            "4:memory:/x\n3:cpuset:/\n1:cpu,cpuacct:/x\n0::/",
            {
                "cpu__cpu_DOT_cfs_quota_us": "-1",
                "cpu__cpu_DOT_cfs_period_us": "100000",
                "cpu__x__cpu_DOT_cfs_quota_us": "600000",
                "cpu__x__cpu_DOT_cfs_period_us": "100000",
                "memory__memory_DOT_limit_in_bytes": "9223372036854771712",
                "memory__x__memory_DOT_limit_in_bytes": "2147483648",
            },
            (6, 2**31),
        ),
    ],
)
def test_limits_are_those_of_the_control_group(tmp_path: Path, groups: str, files: dict[str, str], expected: tuple):
    assert limits(tmp_path, groups, **files) == expected
