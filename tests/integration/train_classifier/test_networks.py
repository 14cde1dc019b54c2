"""The networks of the classifiers: inputs, training form, saved file, heat maps, and training that resumes.

Those of Keras, which take long to build, are tested in tests/e2e.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.shared.files import file_sha256
from components.shared.parameters import Options, choices
from components.shared.records import ClassifierRecord, load_record
from components.train_classifier import networks
from tests.helpers.errors import raises_user_error
from tests.helpers.networks import WEIGHTS, check_network, check_plain_model
from tests.helpers.training import train_pack


def test_networks_are_the_choices_of_the_option() -> None:
    assert set(choices(Options)["classifier"]) == set(WEIGHTS)
    with raises_user_error("parameter.invalid"):
        networks.load("vgg")


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_network_has_probabilities_a_saved_form_and_heat_maps(name: str, tmp_path: Path) -> None:
    check_network(name, tmp_path)


def test_plain_model_has_the_logits_of_the_network_and_its_variables() -> None:
    check_plain_model("resnet")


def run(training_data: Path, folder: Path, **changes: Any) -> Path:
    short = {"epochs": 3, "checkpoint_interval_s": 0.0, "classifier": "resnet"}
    models = train_pack(training_data, folder / "classifiers", "logit_adjustment:1*", **(short | changes))
    return models / "logit_adjustment.keras"


def test_train_another_network_interrupted_ends_with_the_same_bytes(
    training_data: Path, tmp_path: Path, interrupt: Callable[[int], None]
) -> None:
    whole = run(training_data, tmp_path / "whole")
    record = load_record(whole.with_suffix(".json"), ClassifierRecord)
    assert (record.settings.network, record.settings.precision, record.parameters) == ("resnet", "float32", 697_955)
    assert record.history["loss"][-1] < record.history["loss"][0]
    kept = {"checkpoints": str(tmp_path / "checkpoints")}
    interrupt(2)
    with pytest.raises(InterruptedError):
        run(training_data, tmp_path / "cut", **kept)
    interrupt(0)
    resumed = run(training_data, tmp_path / "cut", **kept)
    assert file_sha256(resumed) == file_sha256(whole)
