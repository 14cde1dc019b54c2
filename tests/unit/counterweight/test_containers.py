"""Settings of local runs in containers; tests/e2e runs the containers."""

from components.shared.parameters import Parameters
from counterweight.containers import INPUTS


def test_inputs_are_parameters_of_the_pipeline():
    assert set(INPUTS) <= set(Parameters.model_fields)
