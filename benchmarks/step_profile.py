"""Where the time of the training steps goes: `python -m benchmarks.step_profile`.

Prints for each step the milliseconds of the operations of each kind, as TensorFlow's profiler records them on a CPU,
and for comparison how fast the machine adds 1 to a large array: the limit of operations that multiply no matrices.
"""

import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks import engine
from benchmarks.machine import machine
from benchmarks.speed import CLASSES, IMAGES, _images

CALLS, STEPS = 8, 4
STREAM_MIB = 256
KINDS = {
    "matrix products": "Conv|MatMul",
    "normalisation": "BatchNorm|Moments|Rsqrt|SquaredDifference",
    "optimizer": "ResourceApply|Adam|Assign|Sqrt",
    "casts": "^Cast",
    "random numbers": "Random|Bitcast",
    "pooling": "Pool|ResizeNearest",
    "elementwise": "Relu|Mul|Add|Sub|Select|Sigmoid|Tanh|Neg|Square|Softplus|Maximum|Minimum|Less|Greater|RealDiv",
    "layout": "Transpose|Reshape|Concat|Slice|Pad|Gather|Pack|Reverse|Tile|Split",
}
"""Kind → regular expression of the types of its operations; the first that matches counts."""


def kind_of(operation: str) -> str:
    """Return the kind of a type of operations.

    Example:
        >>> kind_of("_MklNativeFusedBatchNormGradV3"), kind_of("Where")
        ('normalisation', 'other')
    """
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operation)), "other")


def profile(work: Callable[[], float]) -> dict[str, float]:
    """Return kind → milliseconds per step, and `wall`: of a step in total."""
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    work()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        started = time.perf_counter()
        for _ in range(CALLS):
            work()
        wall = time.perf_counter() - started
        tf.profiler.experimental.stop()
        space = XSpace.FromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    found: Counter[str] = Counter()
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            name = plane.event_metadata[event.metadata_id].name
            node, _, operation = name.rpartition(":")
            if "/" in node and operation.isidentifier() and "Call" not in operation and "While" not in operation:
                found[kind_of(operation)] += event.duration_ps
    steps = CALLS * STEPS
    return {kind: round(each / 1e9 / steps, 2) for kind, each in found.most_common()} | {
        "wall": round(1e3 * wall / steps, 2)
    }


def stream_gb_s() -> float:
    """Return how many GB per second are read and written together."""
    values = tf.zeros(STREAM_MIB * 2**18)

    @tf.function
    def add() -> tf.Tensor:
        return values + 1.0

    add()
    started = time.perf_counter()
    for _ in range(CALLS):
        add()
    return round(CALLS * 2 * STREAM_MIB * 2**20 / 1e9 / (time.perf_counter() - started), 1)


def main() -> None:
    """Measure and print."""
    found: dict[str, object] = {"machine": machine(), "stream_gb_s": stream_gb_s()}
    labels = np.arange(IMAGES) % CLASSES
    for size in (64, 128):
        images = _images(size)
        found[f"classifier_step.{size}"] = profile(engine.classifier(size, images, labels, STEPS))
        found[f"gan_step.{size}"] = profile(engine.gan(size, images, STEPS, "dcgan"))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
