import time
from functools import partial

from benchmarks.interleaved import rate_of, take_turns


def build_sleeper(done):
    def work():
        time.sleep(0.01)
        return done

    return work


def build_without_library():
    import no_such_library  # noqa: F401


def test_rate_of_is_work_per_second(monkeypatch):
    clock = [0.0]

    def work():
        clock[0] += 0.25
        return 10

    monkeypatch.setattr("benchmarks.interleaved.time.perf_counter", lambda: clock[0])
    assert rate_of(work, 1) == 40
    assert clock == [1.0]


def test_take_turns_measures_every_side_and_skips_one_without_its_library(capfd):
    sides = {
        "slow": {"a": partial(build_sleeper, 1), "b": partial(build_sleeper, 1)},
        "fast": {"a": partial(build_sleeper, 1000)},
        "lacking": {"a": build_without_library},
    }
    rates = take_turns(sides, rounds=2, seconds=0.1)
    assert {task: set(of_task) for task, of_task in rates.items()} == {"a": {"slow", "fast"}, "b": {"slow"}}
    assert all(len(values) == 2 for of_task in rates.values() for values in of_task.values())
    # One does 1000 times the work of the other, and a busy machine may pause it for seconds.
    assert rates["a"]["fast"][0] > 5 * rates["a"]["slow"][0]
    assert "no_such_library cannot be imported" in capfd.readouterr().out
