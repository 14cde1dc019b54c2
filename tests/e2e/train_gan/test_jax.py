"""JAX, which computes several GANs as one batch; test_gradients.py compares one GAN with TensorFlow."""

import importlib.util
import json
from pathlib import Path

import pytest

from components.shared.records import TrainedGan, load_gan_record
from tests.helpers.backend_parity_worker import run_on_jax
from tests.integration.train_gan.conftest import Trainer

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")


def test_two_gans_as_one_batch_equal_each_alone_and_train_writes_both(trainer: Trainer, tmp_path: Path) -> None:
    settings = trainer.settings(tmp_path, classes=["df", "vasc"], kimg=0.064)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    run_on_jax("batch", tmp_path)
    for dx in ("df", "vasc"):
        record = load_gan_record(tmp_path / "gans" / "models" / f"gan-{dx}.json")
        assert isinstance(record, TrainedGan)
        assert (record.dx, record.kid.kimg) == (dx, [0.032, 0.064])
        assert "jax" in record.versions
