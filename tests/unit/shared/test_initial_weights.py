"""The option `weights`: its form, and the file that it names."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from components import placement
from components.shared.files import file_sha256
from components.shared.initial_weights import InitialWeights, check_network, parse_weights
from components.shared.parameters import Options, parse
from components.train_classifier.weights_file import open_weights
from tests.helpers.errors import raises_user_error

DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"gs://bucket/a.h5#sha256={DIGEST}", "gs://bucket/a.h5"),
        (f"/a#b.weights.h5#sha256={DIGEST}", "/a#b.weights.h5"),
    ],
)
def test_parse_weights_returns_place_and_hash(text: str, place: str):
    assert parse_weights(text) == InitialWeights(place, DIGEST)
    assert parse({"weights": text}, Options) == {"weights": text}


@pytest.mark.parametrize(
    "text",
    ["", "imagenet", "gs://bucket/a.h5", "a.h5#sha256=12", f"a.keras#sha256={DIGEST}", f"ftp://a/b.h5#sha256={DIGEST}"],
)
def test_option_of_another_form_is_refused(text: str):
    with raises_user_error("parameter.invalid", name="weights"):
        parse({"weights": text}, Options)


def test_only_networks_of_keras_start_from_weights(monkeypatch: pytest.MonkeyPatch):
    check_network("none", "cnn")
    check_network(f"a.h5#sha256={DIGEST}", "convnext")
    monkeypatch.setattr(placement, "_overrides", {"weights": f"a.h5#sha256={DIGEST}"})
    placement.placement.cache_clear()
    with raises_user_error("weights.other_network", classifier="cnn"):
        placement.placement()
    placement.placement.cache_clear()


def test_open_compares_the_hash(tmp_path: Path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["layer/kernel"] = np.ones(3)
    assert open_weights(InitialWeights(str(path), file_sha256(path)), tmp_path) == path
    with raises_user_error("weights.other_hash", sha256=file_sha256(path)):
        open_weights(InitialWeights(str(path), DIGEST), tmp_path)


def test_open_refuses_a_file_that_declares_more_than_networks_have(tmp_path: Path):
    """Regression: Keras allocated 7 GiB for a file of 24 MB before it refused its shape."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", (40_000, 10_000), "f4", chunks=(1000, 1000), compression="gzip")
    assert path.stat().st_size < 100_000
    with raises_user_error("weights.too_large"):
        open_weights(InitialWeights(str(path), file_sha256(path)), tmp_path)
    path.write_bytes(path.read_bytes()[:500])
    with raises_user_error("weights.unreadable"):
        open_weights(InitialWeights(str(path), file_sha256(path)), tmp_path)
