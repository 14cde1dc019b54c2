"""The two backends: each has a separate gradient step, and their results agree."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.shared.records import TrainedGan, load_gan_record
from tests.helpers.backend_parity_worker import build, network_weights, train_ten_steps
from tests.integration.train_gan.conftest import Trainer

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")


@pytest.fixture(scope="module")
def start() -> dict[str, np.ndarray]:
    return {f"{i:03d}": weight for i, weight in enumerate(network_weights(build()))}


@pytest.fixture(scope="module")
def on_jax(start: dict[str, np.ndarray], trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the results of one process on JAX."""
    folder = tmp_path_factory.mktemp("jax")
    np.savez(folder / "start.npz", **start)
    settings = trainer.settings(folder, classes=["df", "vasc"], kimg=0.064)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    (folder / "settings.json").write_text(json.dumps(settings))
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.helpers.backend_parity_worker", str(folder)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return folder


def test_tensorflow_and_jax_agree_over_ten_steps(start: dict[str, np.ndarray], on_jax: Path) -> None:
    """The bound follows from the longest sums.

    A gradient sums over 8 images of 8 × 8 positions of a feature map: 512 terms, each rounded by u = 2⁻²⁴, in any
    order. Errors of n random roundings grow as √n: 512 terms are 1.4e-6. The double gradient of the penalty passes
    through both networks twice, 20 layers: 20 · 1.4e-6 = 3e-5. Terms that cancel can leave a gradient of 1/100 of their
    sum: 3e-3. Each of ten steps adds as much. Weights are rounded by u themselves, in each of ten steps.
    """
    ours = train_ten_steps(build())
    with np.load(on_jax / "steps.npz") as theirs:
        np.testing.assert_allclose(theirs["losses"], ours["losses"], rtol=1e-4)
        for name, before in start.items():
            for steps, share in ((1, 3e-3), (10, 3e-2)):
                one, other = ours[f"{steps} {name}"], theirs[f"{steps} {name}"]
                moved, apart = np.linalg.norm(one - before), np.linalg.norm(one - other)
                assert apart <= share * moved + steps * 2**-23 * np.linalg.norm(before) + 1e-8, (name, steps)
                assert np.isfinite(one).all()
        assert any((ours[f"10 {name}"] != before).any() for name, before in start.items())


def test_train_on_jax_trains_two_classes_as_one_batch(on_jax: Path) -> None:
    for dx in ("df", "vasc"):
        record = load_gan_record(on_jax / "gans" / "models" / f"gan-{dx}.json")
        assert isinstance(record, TrainedGan)
        assert (record.dx, record.kid.kimg) == (dx, [0.032, 0.064])
        assert "jax" in record.versions
