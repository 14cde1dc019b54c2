"""The networks of Keras as classifiers; the others are tested in tests/integration."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

from components.shared.files import file_sha256
from components.shared.patient_metadata import inputs
from components.shared.records import ClassifierRecord, MetadataEncoding, load_record
from components.train_classifier import networks
from components.train_classifier.train import Network
from counterweight import export
from counterweight.published import Arm
from tests.helpers.errors import raises_user_error
from tests.helpers.networks import check_network, check_plain_model
from tests.helpers.training import train_pack

ENCODING = MetadataEncoding(age_mean=50, age_deviation=10, sex=["female", "male"], localization=["back"])


@pytest.mark.parametrize("name", ["efficientnet", "convnext"])
def test_network_of_keras_has_probabilities_a_saved_form_heat_maps_and_a_training_form(
    name: str, tmp_path: Path
) -> None:
    check_network(name, tmp_path)
    check_plain_model(name)


@dataclass(frozen=True)
class Body:
    """The body of a network, and files of its weights in both formats of Keras."""

    arrays: list[np.ndarray]
    files: list[Path]


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Body]:
    """Network → its body, with random weights, for another image size and with the preprocessing of Keras."""
    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for name, body in (("efficientnet", "EfficientNetV2B0"), ("convnext", "ConvNeXtTiny")):
        model = getattr(keras.applications, body)(include_top=False, weights=None, input_shape=(64, 64, 3))
        found[name] = Body(model.get_weights(), [folder / f"{name}.weights.h5", folder / f"{name}.h5"])
        model.save_weights(found[name].files[0])
        model.save(found[name].files[1])
    return found


@pytest.mark.parametrize(("name", "other"), [("efficientnet", "convnext"), ("convnext", "efficientnet")])
def test_body_starts_from_the_weights_in_a_file(bodies: dict[str, Body], name: str, other: str, tmp_path: Path) -> None:
    for path in bodies[name].files:
        built = Network(name, "0" * 64, path).build(3, 32, 0)
        body = built.get_weights()[:-2]  # without the last layer
        assert all(np.array_equal(a, b) for a, b in zip(body, bodies[name].arrays, strict=True))
    for path in bodies[other].files:
        with raises_user_error("weights.do_not_fit", classifier=name):
            Network(name, "0" * 64, path).build(3, 32, 0)
    built.weights[0].assign(np.full(built.weights[0].shape, np.nan))
    keras.Model(built.input, built.layers[-3].output).save_weights(tmp_path / "nan.weights.h5")
    with raises_user_error("weights.do_not_fit", classifier=name):
        Network(name, "0" * 64, tmp_path / "nan.weights.h5").build(3, 32, 0)


def test_training_from_weights_records_their_hash(bodies: dict[str, Body], training_data: Path, tmp_path: Path) -> None:
    path = bodies["efficientnet"].files[0]
    changes = {"epochs": 1, "classifier": "efficientnet", "weights": f"{path}#sha256={file_sha256(path)}"}
    models = train_pack(training_data, tmp_path / "classifiers", "baseline:1*", **changes)
    record = load_record(models / "baseline.json", ClassifierRecord)
    assert record.settings.weights_sha256 == file_sha256(path)
    changes["weights"] = f"{path}#sha256={'0' * 64}"
    with raises_user_error("weights.other_hash"):
        train_pack(training_data, tmp_path / "other", "baseline:1*", **changes)
    assert not (tmp_path / "other").exists()


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
