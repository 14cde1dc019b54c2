"""Measure the sides of a comparison alternately.

Each has a separate process, with its memory, threads and settings; only one of them works at a time.
"""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

Work = Callable[[], float]
"""Do some work and return its amount: images, or operations."""


def rate_of(work: Work, seconds: float) -> float:
    """Return the amount of work per second, measured over at least `seconds`."""
    started, done = time.perf_counter(), 0.0
    while time.perf_counter() - started < seconds:
        done += work()
    return done / (time.perf_counter() - started)


def _serve(pipe: Connection, builders: Mapping[str, Callable[[], Work]]) -> None:
    try:
        works = {name: build() for name, build in builders.items()}
        for work in works.values():
            for _ in range(2):  # the first compiles, and may choose kernels
                work()
    except ImportError as error:
        pipe.send(f"{error.name or error} cannot be imported")
        return
    pipe.send("")
    while turn := pipe.recv():
        task, seconds = turn
        pipe.send(rate_of(works[task], seconds))


def take_turns(
    sides: Mapping[str, Mapping[str, Callable[[], Work]]], rounds: int, seconds: float
) -> dict[str, dict[str, list[float]]]:
    """Measure what several sides do in a second.

    Args:
        sides: side → task → builder of its work, called in the side's process: a function of a module, or a partial of
            one.
        rounds: number of measurements of each side and task.
        seconds: minimum duration of a measurement.

    Returns:
        task → side → the rate in each round. A side whose library cannot be imported is skipped with a message.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    found: dict[str, dict[str, list[float]]] = {}
    try:
        for side, builders in sides.items():
            pipes[side], theirs = context.Pipe()
            processes.append(context.Process(target=_serve, args=(theirs, builders), daemon=True))
            processes[-1].start()
            theirs.close()
        for side in sides:
            try:
                missing = pipes[side].recv()
            except EOFError:
                raise RuntimeError(f"the side {side} failed before its first measurement; its error is above") from None
            if missing:
                print(f"bench: {side} is skipped: {missing}", flush=True)
                del pipes[side]
        tasks = dict.fromkeys(task for builders in sides.values() for task in builders)
        for _ in range(rounds):
            for task in tasks:
                for side, pipe in pipes.items():
                    if task in sides[side]:
                        pipe.send((task, seconds))
                        found.setdefault(task, {}).setdefault(side, []).append(pipe.recv())
        for pipe in pipes.values():
            pipe.send(None)
        return found
    finally:
        for process in processes:
            process.join(5)
            process.terminate()
