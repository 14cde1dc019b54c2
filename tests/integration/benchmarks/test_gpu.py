import subprocess
import sys

import pytest

from benchmarks.gpu import vendor_wheels
from benchmarks.gpu.__main__ import version
from benchmarks.gpu.steps import Steps


def test_a_step_that_is_done_is_not_done_again(tmp_path):
    calls = []
    for _ in range(2):
        found = Steps(tmp_path).once("add", lambda a, b: calls.append(a) or {"sum": a + b}, 1, b=2)
        assert found == {"sum": 3}
    assert calls == [1]


def test_a_step_that_failed_is_done_again(tmp_path):
    with pytest.raises(ZeroDivisionError):
        Steps(tmp_path).once("divide", lambda: 1 / 0)
    assert Steps(tmp_path).once("divide", lambda: 4) == 4


def test_other_code_begins_anew(tmp_path):
    code = tmp_path / "code.py"
    versions = []
    for text in ("a = 1", "a = 2", "a = 1"):
        code.write_text(text)
        versions.append(version(str(tmp_path)))
    assert versions[0] == versions[2] != versions[1]


def test_the_wheels_are_what_the_phases_name():
    names = {name.split(">")[0] for name in vendor_wheels.wanted()}
    assert {"keras", "pyarrow", "pandas", "numpy", "pillow", "scikit-learn", "matplotlib"} <= names
    assert not {name for name in names if name.startswith(("tensorflow", "jax", "kfp"))}
    assert [
        vendor_wheels.name_of(text) for text in ("scikit-learn>=1.6", "Google.Cloud_Storage==3.1", "pyarrow ; x")
    ] == [
        "scikit_learn",
        "google_cloud_storage",
        "pyarrow",
    ]


def test_a_piece_ends_in_time_and_says_that_there_is_more(tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    command = [sys.executable, "-m", "benchmarks.gpu", "--scale=smoke", f"--work={work}", f"--out={out}"]
    done = subprocess.run([*command, "--minutes=0.02"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done.stderr
    assert "goes on" in done.stdout
    assert not out.exists()
