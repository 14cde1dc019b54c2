"""A piece of the work, in a process of its own that may be ended at any moment.

Nothing is imported before the settings of the libraries are made.
"""

import os
from pathlib import Path


def work(scale_name: str, data: str, folder: Path, out: Path) -> None:
    """Does what is not done yet."""
    os.environ.setdefault("KERAS_BACKEND", "jax" if scale_name == "full" else "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Several processes share the GPU's memory in the speed table; what was compiled once serves the next piece, too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str((folder / "compiled").resolve()))

    from benchmarks import speed
    from benchmarks.gpu import results
    from benchmarks.gpu.experiment import SCALES, Experiment
    from benchmarks.gpu.steps import Steps

    steps, scale = Steps(folder), SCALES[scale_name]
    table = {}
    if scale_name == "full":
        table = steps.once("speed", speed.measure, gan_steps=200, classifier_steps=64, side=8192)
    rare = Experiment(steps, scale).run(data)
    results.write(scale_name, scale, Path(data).name, rare, folder, out, table)
