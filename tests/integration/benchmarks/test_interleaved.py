import time
from functools import partial

from benchmarks.interleaved import rate_of, take_turns


def sleeper(done):
    def work():
        time.sleep(0.01)
        return done

    return work


def lacking():
    import no_such_library  # noqa: F401


def test_a_rate_is_work_by_time(monkeypatch):
    clock = [0.0]

    def work():
        clock[0] += 0.25
        return 10

    monkeypatch.setattr("benchmarks.interleaved.time.perf_counter", lambda: clock[0])
    assert rate_of(work, 1) == 40
    assert clock == [1.0]


def test_sides_take_turns_and_one_that_lacks_its_library_is_left_out(capfd):
    sides = {
        "slow": {"a": partial(sleeper, 1), "b": partial(sleeper, 1)},
        "fast": {"a": partial(sleeper, 1000)},
        "lacking": {"a": lacking},
    }
    rates = take_turns(sides, rounds=2, seconds=0.1)
    assert {task: set(of_task) for task, of_task in rates.items()} == {"a": {"slow", "fast"}, "b": {"slow"}}
    assert all(len(values) == 2 for of_task in rates.values() for values in of_task.values())
    assert rates["a"]["fast"][0] > 50 * rates["a"]["slow"][0]  # whatever else the machine does
    assert "no_such_library can't be imported" in capfd.readouterr().out
