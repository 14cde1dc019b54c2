"""The networks of Keras as classifiers; the others are tested in tests/integration."""

from pathlib import Path

import pytest

from components.shared.patient_metadata import inputs
from components.shared.records import MetadataEncoding
from components.train_classifier import networks
from counterweight import export
from counterweight.published import Arm
from tests.helpers.networks import check_network, check_plain_model

ENCODING = MetadataEncoding(age_mean=50, age_deviation=10, sex=["female", "male"], localization=["back"])


@pytest.mark.parametrize("name", ["efficientnet", "convnext"])
def test_network_of_keras_has_probabilities_a_saved_form_heat_maps_and_a_training_form(
    name: str, tmp_path: Path
) -> None:
    check_network(name, tmp_path)
    check_plain_model(name)


def test_efficientnet_exports_to_onnx(tmp_path: Path) -> None:
    model = networks.load("efficientnet").build(3, 32, len(inputs(ENCODING)))
    arm = Arm(
        name="metadata",
        models=(model,),
        seeds=(1,),
        temperatures=(1.5,),
        classes=("a", "b", "c"),
        positive=(),
        threshold=None,
        image_size=32,
        model_sha256=("0" * 64,),
        seen=frozenset(),
        encoding=ENCODING,
    )
    assert export.compare(arm, export.write_onnx(export.build_ensemble(arm), tmp_path)) <= export.TOLERANCE
