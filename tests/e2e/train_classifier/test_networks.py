"""The networks of Keras as classifiers; the others are tested in tests/integration."""

from pathlib import Path

import pytest

from tests.helpers.networks import check_network, check_plain_model


@pytest.mark.parametrize("name", ["efficientnet", "convnext"])
def test_network_of_keras_has_probabilities_a_saved_form_heat_maps_and_a_training_form(
    name: str, tmp_path: Path
) -> None:
    check_network(name, tmp_path)
    check_plain_model(name)
