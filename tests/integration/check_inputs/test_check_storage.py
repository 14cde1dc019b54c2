"""What the first task of a run detects in object storage."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from components.check_inputs.check import Checked, check
from components.shared import parameters
from components.shared.champion import parse_choice
from components.shared.errors import UserError
from components.shared.records import Manifest, ManifestEntry
from components.shared.stores import transfer
from tests.helpers.example_results import example
from tests.helpers.strict_storage import Server, strict_storage

CANDIDATE = "augmented@1"
IMAGES = [f"{dx}/{letter}" for dx in ("mel", "nv") for letter in "abcdefghi"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transfer, "RETRY_DELAY_S", 0.01)
    monkeypatch.setattr(transfer, "POLL_S", 0.01)
    with strict_storage() as server:
        for name in IMAGES:
            server.put(f"ham/{name}.jpg", b"not an image")
        server.put("splits/a.csv", split_of(IMAGES))
        server.put("splits/train.csv", split_of(IMAGES, ("train",)))
        server.put("other/cat/a.jpg", b"not an image")
        yield server


def split_of(images: Sequence[str], splits: Sequence[str] = ("train", "validation", "test")) -> bytes:
    """Return a table that assigns images to splits, in turn."""
    rows = [f"{name},{splits[number % len(splits)]}" for number, name in enumerate(images)]
    return "\n".join(["image_id,split", *rows]).encode()


def run_check(in_pod: bool = True, **values: Any) -> Checked:
    options: dict[str, Any] = {"classifiers_per_task": 6}
    options |= {
        "checkpoints": values.pop("checkpoints", "auto"),
        "champion": values.pop("champion", "none"),
        "max_bad_images": 1,
        "metadata": "none",
        "synthetic_scope": "rare",
        "weights": "none",
    }
    environment = {"KAGGLE_USERNAME": "me", "KAGGLE_KEY": "k"}
    environment |= {"KUBERNETES_SERVICE_HOST": "10.0.0.1"} if in_pod else {}
    return check(parameters.defaults() | values, environment=environment, **options)


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
    server.put("ham/nv/new.jpg", b"another")
    identities.append(run_check(**inputs).data_identity)
    server.put("ham/nv/new.jpg", b"replace")
    identities.append(run_check(**inputs).data_identity)
    server.put("splits/a.csv", split_of(IMAGES[::-1]))
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
        ({"champion": "gs://raw/runs/absent"}, "champion.not_found"),
        ({"champion": "last", "output": "gs://other-bucket/out"}, "storage.not_found"),
    ],
)
def test_check_refuses_places_that_do_not_exist(server: Server, values: dict[str, Any], code: str):
    assert error_of(**values).code == code


@pytest.mark.parametrize(
    ("values", "code", "field", "value"),
    [
        ({"positive_classes": "Mel"}, "parameter.unknown_class", "name", "positive_classes"),
        ({"positive_classes": "mel,nv"}, "parameter.all_classes", "name", "positive_classes"),
        ({"synthetic_classes": "nevus"}, "parameter.unknown_class", "name", "synthetic_classes"),
        ({"data_split": "gs://raw/splits/train.csv"}, "split.empty_class", "split", "validation"),
        ({"data_external": "gs://raw/other"}, "external.unknown_class", "dx", "cat"),
        ({"synthetic": "gan,zoo=gs://raw/other"}, "synthetic.unknown_class", "dx", "cat"),
        ({"arms": "baseline,oversampled,augmented,metadata"}, "metadata.no_patients", "", None),
        ({"data_columns": "dx:diagnosis"}, "metadata.missing", "", None),
        ({"data": "kaggle", "positive_classes": "melanoma"}, "parameter.unknown_class", "name", "positive_classes"),
    ],
)
def test_check_in_a_pod_refuses_what_a_listing_reveals(
    server: Server, values: dict[str, Any], code: str, field: str, value: Any
):
    """Runs of Kubeflow's form have no other check before a task that trains; a local run has had it."""
    values = {"data": "gs://raw/ham", "positive_classes": "mel"} | values
    error = error_of(**values)
    assert (error.code, error.fields.get(field)) == (code, value)
    assert run_check(in_pod=False, **values).packs.real


def test_check_in_a_pod_accepts_the_classes_of_a_listing_without_reading_an_image(server: Server):
    run_check(data="gs://raw/ham", positive_classes="mel", synthetic_classes="nv", data_split="gs://raw/splits/a.csv")
    assert [request.path for request in server.requests if ".jpg" in request.path] == []


def test_check_in_a_pod_of_metadata_that_it_may_not_read_is_a_warning(server: Server, capfd: Any):
    """`prepare_data` may come from the cache."""
    server.put("tables/metadata.csv", b"image_id,dx")
    server.fault = lambda request: 403 if "metadata.csv" in request.path else None
    assert run_check(data="gs://raw/tables", positive_classes="other").packs.real
    warning = "warning: the data was not checked from here: gs://raw/tables/metadata.csv: no permission to read"
    assert f"counterweight check_inputs: {warning}" in capfd.readouterr().out


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


def put_run(server: Server, name: str, candidate: str | None, models: dict[str, str], size: int = 64) -> None:
    """Publish a run that has a manifest and results."""
    results = example(1)
    results["run"] |= {"image_size": size}
    text = json.dumps(results).encode()
    names = ["predictions.parquet", "splits.csv", *(f"models/{CANDIDATE}{suffix}" for suffix in (".json", ".keras"))]
    hashes = dict.fromkeys(names, "0" * 64) | models | {"metrics.json": hashlib.sha256(text).hexdigest()}
    entries = {file: ManifestEntry(sha256=digest, bytes=1) for file, digest in hashes.items()}
    manifest = Manifest(files=entries, candidate=candidate, promote_if="improved", verdict="improved")
    server.put(f"runs/{name}/metrics.json", text)
    server.put(f"runs/{name}/manifest.json", manifest.model_dump_json().encode())


def test_check_finds_the_newest_run_with_a_candidate(server: Server):
    assert parse_choice(run_check(champion="last", output="gs://raw/runs").champion).run is None
    model = f"models/{CANDIDATE}.keras"
    put_run(server, "c", model, {model: "c" * 64})
    put_run(server, "b", model, {model: "b" * 64})  # the newest with a candidate is neither first nor last by name
    put_run(server, "a", None, {model: "a" * 64})
    server.put("runs/d/metrics.json", b"{}")
    server.put("runs/e/part/manifest.json", b"{}")
    server.put("runs/f/manifest.json", b"{}")
    found = parse_choice(run_check(champion="last", output="gs://raw/runs/").champion).run
    assert found is not None
    assert (found.place, found.run, found.arm) == ("gs://raw/runs/b", "b", CANDIDATE)
    content = server.objects["runs/b/manifest.json"].content
    assert found.manifest_sha256 == hashlib.sha256(content).hexdigest()
    by_address = parse_choice(run_check(champion="gs://raw/runs/b", output="gs://raw/elsewhere").champion)
    assert by_address.run == found


def test_check_of_runs_without_new_data_keeps_the_champion(server: Server):
    """Their candidates are the same models: another champion would evaluate the run again each time."""
    model = f"models/{CANDIDATE}.keras"
    for name, digest in (("d", "a"), ("b", "b"), ("c", "b"), ("a", "b")):
        put_run(server, name, model, {model: digest * 64})
    found = parse_choice(run_check(champion="last", output="gs://raw/runs").champion).run
    assert found is not None
    assert found.run == "b"


def test_check_refuses_a_remote_champion_of_another_image_size(server: Server):
    put_run(server, "a", f"models/{CANDIDATE}.keras", {}, size=128)
    error = error_of(champion="last", output="gs://raw/runs")
    assert (error.code, error.fields["champion"], error.fields["image_size"]) == ("champion.other_size", 128, 64)
