import time
from functools import partial

from benchmarks.turns import rate_of, take_turns


def sleeper(seconds):
    def work():
        time.sleep(seconds)
        return 10

    return work


def lacking():
    import no_such_library  # noqa: F401


def test_a_rate_is_work_by_time():
    assert 700 < rate_of(sleeper(0.01), 0.2) <= 1000


def test_sides_take_turns_and_one_that_lacks_its_library_is_left_out(capfd):
    sides = {
        "slow": {"a": partial(sleeper, 0.02), "b": partial(sleeper, 0.02)},
        "fast": {"a": partial(sleeper, 0.01)},
        "lacking": {"a": lacking},
    }
    rates = take_turns(sides, rounds=2, seconds=0.1)
    assert {task: set(of_task) for task, of_task in rates.items()} == {"a": {"slow", "fast"}, "b": {"slow"}}
    assert all(len(values) == 2 for of_task in rates.values() for values in of_task.values())
    assert 1.5 < rates["a"]["fast"][0] / rates["a"]["slow"][0] < 2.5
    assert "no_such_library can't be imported" in capfd.readouterr().out
