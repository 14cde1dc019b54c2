"""A task trains several classifiers at a time."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from components.shared.machine_limits import SHARE, usable_cpus
from components.shared.processes import run_all
from components.train_classifier import workers
from tests.helpers.training import train_pack

GIB = 2**30


@pytest.mark.parametrize(
    ("jobs", "cpus", "gib", "is_cnn", "image_size", "expected"),
    [
        (6, 4, 16, True, 64, 4),
        (3, 8, 16, True, 64, 3),
        (6, 4, 5, True, 64, 3),  # 1.25 GiB each, beside 1 GiB of the parent
        (6, 4, 5, True, 128, 2),
        (6, 4, 5, False, 64, 1),
        (6, 1, 64, True, 64, 1),
        (6, 4, 1, True, 64, 1),
    ],
)
def test_workers_fit_in_cpus_and_memory(monkeypatch, jobs, cpus, gib, is_cnn, image_size, expected):
    """At most one per job and per CPU, and no more than the memory holds; at least one."""
    monkeypatch.setattr(workers, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(workers, "usable_memory_bytes", lambda: gib * GIB)
    assert workers.count_workers(jobs, is_cnn, image_size) == expected


def test_one_worker_on_a_gpu(monkeypatch):
    """Several processes would share the memory of the GPU."""
    monkeypatch.setattr(workers, "has_gpu", lambda: True)
    assert workers.count_workers(6, True, 64) == 1


def test_classifiers_do_not_depend_on_the_order_of_their_pack(training_data, tmp_path):
    """Whichever process trains a classifier, and after which others, the model is the same."""
    packs = ("baseline:1*,oversampled:2", "oversampled:2,baseline:1*")
    folders = [train_pack(training_data, tmp_path / str(n), pack, epochs=1, workers=2) for n, pack in enumerate(packs)]
    for name in ("baseline.keras", "oversampled-seed2.keras"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_tensorflow_has_a_thread_for_each_cpu_of_the_task():
    """Its default is the number of CPUs of the node."""
    code = "import os, components.shared.keras_setup; print(os.environ['TF_NUM_INTRAOP_THREADS'])"
    environment = {**os.environ, SHARE: "0.001"}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "1"


def _write_threads(path: Path) -> None:
    path.write_text(os.environ["TF_NUM_INTRAOP_THREADS"], encoding="utf-8")


def test_processes_share_the_threads(tmp_path):
    """The import of Keras in a process, when it gets its first call, does not give it all CPUs again."""
    run_all([partial(_write_threads, tmp_path / name) for name in "ab"], workers=2)
    assert {(tmp_path / name).read_text(encoding="utf-8") for name in "ab"} == {str(max(1, usable_cpus() // 2))}
