"""The two backends: each does the gradient step of its own, and they agree."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.train_gan import architectures
from tests.helpers.backend_parity_worker import made, network_weights, ten_steps

ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_tensorflow_and_jax_agree_over_ten_steps(tmp_path: Path):
    starts, ours = {}, {}
    for name in architectures.NAMES:
        gan = made(name)
        starts[name] = {f"{i:03d}": weight for i, weight in enumerate(network_weights(gan))}
        np.savez(tmp_path / f"{name}.npz", **starts[name])
        ours[name] = ten_steps(gan)
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.helpers.backend_parity_worker", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    for name, start in starts.items():
        with np.load(tmp_path / f"{name}-out.npz") as theirs:
            assert int(theirs["steps"]) == int(ours[name]["steps"]) == 10
            np.testing.assert_allclose(theirs["losses"], ours[name]["losses"], rtol=1e-3)
            for weight, before in start.items():
                for steps, share in ((1, 1e-3), (10, 0.02)):
                    mine, other = ours[name][f"{steps} {weight}"], theirs[f"{steps} {weight}"]
                    # How far the backends are apart, measured by how far training went.
                    went, apart = np.linalg.norm(mine - before), np.linalg.norm(mine - other)
                    assert apart <= share * went + 1e-6, (name, weight, before.shape, steps, apart, went)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_the_phase_trains_two_classes_at_once_on_jax(splits: dict[str, Path], features: Path, tmp_path: Path):
    (tmp_path / "cold").touch()
    arguments = {
        "classes": ["df", "vasc"],
        "train_set": str(splits["train"]),
        "validation_set": str(splits["validation"]),
        "features": str(features),
        "start": str(tmp_path / "cold"),
        "architecture": "dcgan",
        "kimg": 0.064,
        "seed": 1,
        "failed_class": "fail",
        **{name: str(tmp_path / name) for name in ("generators", "record", "progress_page")},
    }
    code = f"from components.train_gan.train import train; train(**{arguments!r})"
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    records = json.loads((tmp_path / "record").read_text())
    assert [(record["dx"], record["kid"]["kimg"]) for record in records] == [
        (dx, [0.032, 0.064]) for dx in ("df", "vasc")
    ]
    assert "jax" in records[0]["versions"]
