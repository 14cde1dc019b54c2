"""What the first task of a run detects in object storage."""

from collections.abc import Iterator
from typing import Any

import pytest

from components.check_inputs.check import Checked, check
from components.shared import parameters
from components.shared.errors import UserError
from components.shared.stores import transfer
from tests.helpers.strict_storage import Server, strict_storage


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transfer, "RETRY_DELAY_S", 0.01)
    monkeypatch.setattr(transfer, "POLL_S", 0.01)
    with strict_storage() as server:
        server.put("ham/metadata.csv", b"a,b")
        server.put("ham/part/a.jpg", b"image")
        server.put("splits/a.csv", b"image_id,split")
        yield server


def run_check(**values: Any) -> Checked:
    options: dict[str, Any] = {"gans_per_task": 1, "classifiers_per_task": 6}
    checkpoints = values.pop("checkpoints", "auto")
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    return check(parameters.defaults() | values, checkpoints=checkpoints, environment=environment, **options)


def error_of(**values: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        run_check(**values)
    return caught.value


def test_check_reports_new_and_replaced_objects_as_another_identity(server: Server):
    inputs = {"data": "gs://raw/ham", "data_split": "gs://raw/splits/a.csv"}
    identities = [run_check(**inputs).data_identity]
    assert run_check(**inputs).data_identity == identities[0]
    server.put("ham/results/report.html", b"no data")
    assert run_check(**inputs).data_identity == identities[0]
    server.put("ham/part/b.jpg", b"another")
    identities.append(run_check(**inputs).data_identity)
    server.put("ham/part/b.jpg", b"replace")
    identities.append(run_check(**inputs).data_identity)
    server.put("splits/a.csv", b"image_id,SPLIT")
    identities.append(run_check(**inputs).data_identity)
    assert len(set(identities)) == 4


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"data": "gs://raw/absent"}, "storage.empty"),
        ({"data_external": "gs://raw/absent"}, "storage.empty"),
        ({"data_split": "gs://raw/splits/b.csv"}, "storage.empty"),
        ({"data": "gs://other-bucket/ham"}, "storage.not_found"),
        ({"output": "gs://other-bucket/out"}, "storage.not_found"),
        ({"checkpoints": "gs://other-bucket/out"}, "storage.not_found"),
    ],
)
def test_check_refuses_places_that_do_not_exist(server: Server, values: dict[str, Any], code: str):
    assert error_of(**values).code == code


def test_check_refuses_an_output_without_permission(server: Server):
    server.fault = lambda request: 403 if request.method != "GET" else None
    assert error_of(output="gs://raw/out").code == "storage.no_permission"


def test_check_of_an_output_leaves_no_object(server: Server):
    before = set(server.objects)
    run_check(output="gs://raw/out", checkpoints="gs://raw/kept")
    assert set(server.objects) == before
    assert len(server.writes()) == 4


def test_check_without_an_answer_fails_in_time(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfer, "STALL_S", 0.2)
    server.fault = lambda _: 503
    assert error_of(data="gs://raw/ham").code == "storage.no_answer"
