"""Do the experiment in a separate process that may be killed at any time.

Nothing is imported before the environment variables of the libraries are set.
"""

import os
from pathlib import Path


def work(scale_name: str, data: str, folder: Path, out: Path) -> None:
    """Do the steps that are not done yet."""
    os.environ.setdefault("KERAS_BACKEND", "jax" if scale_name == "full" else "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # In the speed table several processes share the GPU's memory. Compiled code is reused by the next process.
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
