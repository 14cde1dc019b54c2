"""How fast classifiers train in one process and in several: `python -m benchmarks.processes`.

Prints images/s of one process with a thread for each CPU, and of one process with one thread for each CPU, all at the
same time; see `components/train_classifier/workers.py`.
"""

import json
import multiprocessing
import time
from functools import partial
from threading import Barrier

import numpy as np

from benchmarks.machine import machine
from components.shared.machine_limits import limit_threads, usable_cpus

SECONDS = 12.0
STEPS = 16


def rate(threads: int, barrier: Barrier, image_size: int, _: int) -> float:
    """Return the images per second that a new process trains on, beside others that wait for the same barrier."""
    from benchmarks import engine
    from benchmarks.speed import CLASSES, IMAGES, _images

    limit_threads(threads)
    work = engine.classifier(image_size, _images(image_size), np.arange(IMAGES) % CLASSES, STEPS)
    for _ in range(2):
        work()
    barrier.wait()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        work()
        calls += 1
    return calls * STEPS * 32 / (time.perf_counter() - started)


def measure(processes: int, threads: int, image_size: int) -> float:
    """Return the images per second of all processes together."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(processes) as pool:
        of_process = partial(rate, threads, manager.Barrier(processes), image_size)
        return round(sum(pool.map(of_process, range(processes), 1)), 1)


def main() -> None:
    """Measure and print."""
    cpus = usable_cpus()
    found: dict[str, object] = {"machine": machine()}
    for image_size in (32, 64):
        found[f"one_process.{image_size}"] = measure(1, cpus, image_size)
        found[f"{cpus}_processes.{image_size}"] = measure(cpus, 1, image_size)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
