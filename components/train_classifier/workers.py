"""How many classifiers a task trains at a time."""

import keras

from components.shared.machine_limits import usable_cpus, usable_memory_bytes
from components.shared.precision import has_gpu

PARENT_BYTES = 2**30
"""Memory that is left to the process that reads the images."""
BASE_BYTES, PIXEL_BYTES = 2**30, 2**16
"""Peak memory of a process that trains `cnn`: without images, and for each pixel of an image."""
OTHER_NETWORKS = 3
"""Memory of other networks, as a multiple."""


def count_workers(jobs: int, is_cnn: bool, image_size: int) -> int:
    """Return how many classifiers are trained at a time: as CPUs and memory permit; one on a GPU.

    A step of a small network gains little from a second thread: on 2 cores, two processes of one thread each train
    about twice as many images per second as one process of two threads.

    Args:
        jobs: number of classifiers.
        is_cnn: whether the network is `cnn`.
        image_size: height and width of the images in pixels.
    """
    if keras.backend.backend() != "tensorflow" or has_gpu():
        return 1
    needed = (BASE_BYTES + PIXEL_BYTES * image_size**2) * (1 if is_cnn else OTHER_NETWORKS)
    return max(1, min(jobs, usable_cpus(), (usable_memory_bytes() - PARENT_BYTES) // needed))
