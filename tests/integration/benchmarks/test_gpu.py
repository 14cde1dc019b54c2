import subprocess
import sys

import pytest

from benchmarks.gpu import vendor_wheels
from benchmarks.gpu.__main__ import version
from benchmarks.gpu.steps import Steps


def test_once_with_a_finished_step_returns_its_result(tmp_path):
    calls = []
    for _ in range(2):
        found = Steps(tmp_path).once("add", lambda a, b: calls.append(a) or {"sum": a + b}, 1, b=2)
        assert found == {"sum": 3}
    assert calls == [1]


def test_once_with_a_failed_step_repeats_it(tmp_path):
    with pytest.raises(ZeroDivisionError):
        Steps(tmp_path).once("divide", lambda: 1 / 0)
    assert Steps(tmp_path).once("divide", lambda: 4) == 4


def test_version_depends_on_the_code(tmp_path):
    code = tmp_path / "code.py"
    versions = []
    for text in ("a = 1", "a = 2", "a = 1"):
        code.write_text(text)
        versions.append(version(str(tmp_path)))
    assert versions[0] == versions[2] != versions[1]


def test_vendored_wheels_are_the_requirements_of_the_phases():
    names = {name.split(">")[0] for name in vendor_wheels.requirements()}
    assert {"keras", "pyarrow", "pandas", "numpy", "pillow", "scikit-learn", "matplotlib"} <= names
    assert not {name for name in names if name.startswith(("tensorflow", "jax", "kfp"))}
    assert [
        vendor_wheels.name_of(text) for text in ("scikit-learn>=1.6", "Google.Cloud_Storage==3.1", "pyarrow ; x")
    ] == [
        "scikit_learn",
        "google_cloud_storage",
        "pyarrow",
    ]


def test_experiment_stops_in_time_and_reports_that_steps_remain(tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    command = [sys.executable, "-m", "benchmarks.gpu", "--scale=smoke", f"--work={work}", f"--out={out}"]
    done = subprocess.run([*command, "--minutes=0.02"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 3, done.stderr
    assert "stopped after 0.02 minutes" in done.stdout
    assert not out.exists()
