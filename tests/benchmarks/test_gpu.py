import pytest

from benchmarks.gpu import wheels
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


def test_the_wheels_are_what_the_phases_name():
    names = {name.split(">")[0] for name in wheels.wanted()}
    assert {"keras", "pyarrow", "pandas", "numpy", "pillow", "scikit-learn", "matplotlib"} <= names
    assert not {name for name in names if name.startswith(("tensorflow", "jax", "kfp"))}
