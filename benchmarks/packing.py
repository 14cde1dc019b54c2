"""Compare the GANs of several classes in one process with one process each: `python -m benchmarks.packing`.

Six classes at 32 px on each backend: each in a separate process, one after another, as six pods on one machine; and all
in one process, which JAX computes as one batch. The time includes imports, compilation and snapshots.
"""

import json
import multiprocessing
import os
import tempfile
import time

from benchmarks.cost import measure, prepare
from benchmarks.machine import machine

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "vasc")
KIMG = 0.5


def seconds_of(target: object, *arguments: object) -> float:
    """Return the wall time of a call in a new process."""
    started = time.perf_counter()
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)  # type: ignore[arg-type]
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the process exited with {process.exitcode}")
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    found: dict[str, object] = {"machine": machine(), "classes": len(CLASSES), "kimg": KIMG}
    with tempfile.TemporaryDirectory() as folder:
        seconds_of(prepare, folder, 32, dict.fromkeys(CLASSES, 100))
        for backend in ("tensorflow", "jax"):
            os.environ["KERAS_BACKEND"] = backend
            apart = sum(seconds_of(measure, folder, KIMG, [dx]) for dx in CLASSES)
            together = seconds_of(measure, folder, KIMG, CLASSES)
            ratio = round(apart / together, 2)
            found[backend] = {"apart_s": round(apart, 1), "together_s": round(together, 1), "ratio": ratio}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
