import re

from kfp import dsl

from components.shared.kfp_metrics import note_finished


def test_note_finished_adds_the_minute_to_the_metadata_of_the_artifact():
    artifact = dsl.Artifact(name="results", metadata={"kept": 1})
    note_finished(artifact)
    assert artifact.metadata["kept"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", artifact.metadata["finished"])
