"""How fast classifiers train in one process and in several: `python -m benchmarks.processes`.

Prints images/s of one process with a thread for each CPU, and of one process with one thread for each CPU, all at the
same time; see `components/train_classifier/workers.py`. Their matrix products are also given as a share of the rate at
which the same processes and threads multiply large matrices in bfloat16.
"""

import json
import multiprocessing
from collections.abc import Callable
from functools import partial
from threading import Barrier

import numpy as np

from benchmarks.interleaved import Work, rate_of
from benchmarks.machine import machine
from components.shared.machine_limits import limit_threads, usable_cpus

SECONDS = 12.0
STEPS = 16
SIDE = 2048


def _classifier(image_size: int) -> Work:
    from benchmarks import engine
    from benchmarks.speed import CLASSES, IMAGES, _images

    return engine.classifier(image_size, _images(image_size), np.arange(IMAGES) % CLASSES, STEPS)


def _matrix_product() -> Work:
    from benchmarks import limits

    return limits.matrix_product("bfloat16", SIDE)


def _flop_per_image(image_size: int) -> int:
    from benchmarks import limits, original
    from benchmarks.speed import CLASSES

    return limits.classifier_step_flop(original.classifier_network(CLASSES, image_size))


def rate(build: Callable[[], Work], threads: int, barrier: Barrier, _: int) -> float:
    """Return the work per second of a new process, beside others that wait for the same barrier."""
    limit_threads(threads)
    work = build()
    for _ in range(2):
        work()
    barrier.wait()
    return rate_of(work, SECONDS)


def measure(processes: int, threads: int, build: Callable[[], Work]) -> float:
    """Return the work per second of all processes together."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(processes) as pool:
        return sum(pool.map(partial(rate, build, threads, manager.Barrier(processes)), range(processes), 1))


def main() -> None:
    """Measure and print."""
    cpus = usable_cpus()
    found: dict[str, object] = {"machine": machine()}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        flop = {size: pool.apply(_flop_per_image, (size,)) for size in (32, 64)}
    for name, processes, threads in (("one_process", 1, cpus), (f"{cpus}_processes", cpus, 1)):
        product = measure(processes, threads, _matrix_product)
        found[f"{name}.matrix_product_gflops"] = round(product / 1e9)
        for size in flop:
            images = measure(processes, threads, partial(_classifier, size))
            found[f"{name}.{size}"] = round(images, 1)
            found[f"{name}.{size}.share_of_matrix_product"] = round(images * flop[size] / product, 3)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
