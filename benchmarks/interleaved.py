"""Sides of a comparison take turns: each in a process of its own, so that none sees another's memory, threads or
settings, and only one of them works at a time."""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

Work = Callable[[], float]
"""Does some work to its end and returns how much it was: images, or operations."""


def rate_of(work: Work, seconds: float) -> float:
    """How much of it is done in a second, over at least so many seconds."""
    begun, done = time.perf_counter(), 0.0
    while time.perf_counter() - begun < seconds:
        done += work()
    return done / (time.perf_counter() - begun)


def _serve(pipe: Connection, builders: Mapping[str, Callable[[], Work]]) -> None:
    try:
        works = {name: build() for name, build in builders.items()}
        for work in works.values():
            for _ in range(2):  # the first compiles, and may choose kernels
                work()
    except ImportError as error:
        pipe.send(f"{error.name or error} can't be imported")
        return
    pipe.send("")
    while turn := pipe.recv():
        task, seconds = turn
        pipe.send(rate_of(works[task], seconds))


def take_turns(
    sides: Mapping[str, Mapping[str, Callable[[], Work]]], rounds: int, seconds: float
) -> dict[str, dict[str, list[float]]]:
    """Measures what several sides do in a second.

    Args:
        sides: side → task → what builds its work. Called in the side's process: a function of a module, or a partial
            of one.
        rounds: how often each side has its turn at each of its tasks.
        seconds: of a turn, at the least.

    Returns:
        task → side → the rate in each round. A side whose library can't be imported is left out, and that is said.
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
                raise RuntimeError(f"the side {side} ended before its turn; its error stands above") from None
            if missing:
                print(f"bench: nothing of {side}, since {missing}", flush=True)
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
