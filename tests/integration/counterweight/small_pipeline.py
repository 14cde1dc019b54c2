"""A pipeline with the parameters and task names of the real one, whose tasks only print; for tests of local runs.

`python small_pipeline.py NAME=value …` runs it as `counterweight run` does. TEST_TASKS is `fail` or `wait` for GANs
that fail or wait until they are killed.
"""

import sys
from typing import NamedTuple

from kfp import dsl

from components.container_images import image
from counterweight import run
from counterweight.exit_codes import run_command

IMAGE = image("publish")
"""A run checks that its images are those of the current code."""


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def check_inputs(seeds: list[int]) -> NamedTuple("Packs", real=list):  # type: ignore[valid-type]
    """Print the lines that TensorFlow prints, and a warning; return a pack for each seed."""
    from collections import namedtuple

    print("WARNING: All log messages before absl::InitializeLog() is called are written to STDERR")
    print("I0000 00:00:1795701068.619420    1642 port.cc:153] oneDNN custom operations are on.")
    print("counterweight check_inputs: warning: the disk is nearly full")
    packs = [f"baseline:{seed:.0f}*,oversampled:{seed:.0f}*" for seed in seeds]
    return namedtuple("Packs", ["real"])(packs)  # type: ignore


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare_data(check: list[str]) -> list[str]:
    """Return two groups of classes."""
    print("counterweight prepare_data: 1,032 of 1,032 images, 1,743 images/s")
    return ["df", "vasc"]


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_gan(classes: str, gans: dsl.Output[dsl.Model]) -> None:
    """Print progress; fail or wait if TEST_TASKS requires it."""
    import os
    import time
    from pathlib import Path

    print(f"counterweight train_gan {classes}: 3.0 of 12.0 kimg, 410 images/s, 1 min 30 s left, loss 0.71", flush=True)
    time.sleep(3)
    if classes == "vasc" and os.environ.get("TEST_TASKS") == "fail":
        print("E external/local_xla/xla/stream_executor/cuda: no device")
        raise ValueError("this GAN fails")
    if os.environ.get("TEST_TASKS") == "wait":
        time.sleep(150)  # longer than a test waits, but a test that fails leaves no task forever
    print(f"counterweight train_gan {classes}: 12.0 of 12.0 kimg, 400 images/s, loss 0.70")
    Path(gans.path).write_text(classes)


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def generate_images(classes: str, gans: dsl.Input[dsl.Model]) -> str:
    """Print progress."""
    print(f"counterweight generate_images {classes}: 8 of 8 images, 11 images/s")
    return "done"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_classifier(pack: str, after: list[str]) -> None:
    """Print the progress of each classifier."""
    for job in pack.split(","):
        arm, _, seed = job.rstrip("*").partition(":")
        print(f"counterweight train_classifier {arm}, seed {seed}: 2 of 2 epochs, 256 images/s, loss 1.0")


@dsl.pipeline(name="small")
def small(
    arms: str,
    classifier_epochs: int,
    classifier_seeds: list[int],
    data: str,
    data_columns: str,
    data_duplicates: str,
    data_external: str,
    data_image_size: int,
    data_split: str,
    gan_kimg: float,
    gan_shared_kimg: float,
    output: str,
    positive_classes: str,
    random_seed: int,
    synthetic: str,
    synthetic_classes: str,
    synthetic_per_class: int,
    synthetic_shares: list[float],
) -> None:
    """Run the tasks."""
    checked = check_inputs(seeds=classifier_seeds)
    checked.set_caching_options(False)
    prepared = prepare_data(check=checked.outputs["real"])
    with dsl.ParallelFor(prepared.output, name="classes") as classes:
        trained = train_gan(classes=classes)
        generate_images(classes=classes, gans=trained.outputs["gans"])
    with dsl.ParallelFor(checked.outputs["real"], name="train-on-real") as pack:
        train_classifier(pack=pack, after=prepared.output)


class _Module:
    counterweight = small


if __name__ == "__main__":
    sys.modules["pipeline"] = _Module  # type: ignore[assignment]
    run._print_results = lambda folder, runner, console: print("report: out/report.html", file=console, flush=True)
    sys.exit(run_command(lambda: run.run(sys.argv[1:], sys.stdout)))
