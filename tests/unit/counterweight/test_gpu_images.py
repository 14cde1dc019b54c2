"""The placement file decides which phases have an image with CUDA."""

from pathlib import Path

import pytest
import yaml

from components import placement
from counterweight import build_images


def test_local_image_of_a_phase_with_an_accelerator_has_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    content = yaml.safe_load(placement.DEFAULT.read_text(encoding="utf-8"))
    with_gpu = [phase for phase in build_images.PHASES if "cuda" in build_images.local_image(phase, "tensorflow")]
    assert with_gpu == ["train_gan"]
    content["phases"]["train_classifier"]["accelerator"] = True
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv(placement.FILE_VARIABLE, str(tmp_path / "p.yaml"))
    placement.placement.cache_clear()
    with_gpu = [phase for phase in build_images.PHASES if "cuda" in build_images.local_image(phase, "tensorflow")]
    assert with_gpu == ["train_classifier", "train_gan"]
    assert "cuda" not in build_images.local_image("train_classifier")
    placement.placement.cache_clear()
