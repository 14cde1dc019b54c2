"""Checkpoints in object storage, on an emulator and on a server that fails; and where a run's are kept."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

emulator = pytest.importorskip("gcp_storage_emulator.server")

from components.shared import storage  # noqa: E402
from components.shared.checkpoint import Checkpoints  # noqa: E402
from components.shared.errors import UserError  # noqa: E402
from components.shared.storage import checkpoint_address, checkpoint_store  # noqa: E402
from tests.helpers.strict_storage import Server, strict_storage  # noqa: E402


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="raw")
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", "http://{}:{}".format(*server._api._httpd.socket.getsockname()))
        yield "gs://raw/a/run"
    server.stop()


@pytest.fixture
def strict() -> Iterator[Server]:
    with strict_storage() as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(storage, "STALL_S", 1.0)


@pytest.mark.parametrize("kind", ["folder", "gs"])
def test_bytes_come_back_and_each_work_has_its_own(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    place = str(tmp_path / "new" / "folder") if kind == "folder" else request.getfixturevalue("address")
    df, vasc = checkpoint_store(place, "train_gan-df"), checkpoint_store(place, "train_gan-vasc")
    assert df.read("checkpoint-a") is None
    large = os.urandom(storage.CHUNK + 5)
    df.write("checkpoint-a", b"one")
    vasc.write("checkpoint-a", large)
    df.write("checkpoint-a", b"two")
    assert checkpoint_store(place, "train_gan-df").read("checkpoint-a") == b"two"
    assert checkpoint_store(place, "train_gan-vasc").read("checkpoint-a") == large
    assert df.read("checkpoint-b") is None


def test_work_goes_on_from_the_newest_whole_checkpoint_in_a_bucket(address: str, capsys: pytest.CaptureFixture[str]):
    settings = {"dx": "df", "seed": 1}
    kept = Checkpoints(checkpoint_store(address, "work"), settings, "work")
    assert kept.load() is None
    for step in (1, 2, 3):
        kept.save({"step": step}, {"weights": np.full(3, step, np.float32)})
    facts, arrays = Checkpoints(checkpoint_store(address, "work"), settings, "work").load() or ({}, {})
    assert facts == {"step": 3}
    np.testing.assert_array_equal(arrays["weights"], [3, 3, 3])
    checkpoint_store(address, "work").write("checkpoint-b", b"half of it")
    facts, _ = Checkpoints(checkpoint_store(address, "work"), settings, "work").load() or ({}, {})
    assert facts == {"step": 2}
    assert "checkpoint-b is damaged" in capsys.readouterr().out
    with pytest.raises(UserError, match="other settings"):
        Checkpoints(checkpoint_store(address, "work"), settings | {"seed": 2}, "work").load()


def test_a_place_that_cannot_be_written_is_told_before_the_work(strict: Server):
    with pytest.raises(UserError, match="gs://other/run/df: not found; check the bucket's name"):
        checkpoint_store("gs://other/run", "df")
    strict.fault = lambda request: 403 if request.method != "GET" else None
    with pytest.raises(UserError, match="no permission to write; give this account the role Storage Object User"):
        checkpoint_store("gs://raw/run", "df")


def test_an_outage_costs_a_checkpoint_and_not_the_work(
    strict: Server, impatient: None, capsys: pytest.CaptureFixture[str]
):
    store = checkpoint_store("gs://raw/run/", "df")
    store.write("checkpoint-a", b"whole")
    strict.fault = lambda _: 503
    store.write("checkpoint-a", b"never arrives")
    assert "warning: this one could not be kept (gs://raw/run/df: object storage did not" in capsys.readouterr().out
    with pytest.raises(UserError, match="object storage did not answer as it should"):
        store.read("checkpoint-a")
    strict.fault = lambda request: "drop" if request.number == 1 else None
    assert store.read("checkpoint-a") == b"whole"
    store.write("checkpoint-b", b"later")
    assert strict.objects["run/df/checkpoint-b"].content == b"later"


@pytest.mark.parametrize("fault", [404, 410, 400, "cut", "drop"])
def test_a_lost_upload_session_is_begun_again(strict: Server, impatient: None, fault: int | str):
    store = checkpoint_store("gs://raw/run", "df")
    large = os.urandom(2 * storage.CHUNK + 5)
    strict.fault = lambda request: fault if request.method == "PUT" and request.number == 2 else None
    store.write("checkpoint-a", large)
    assert strict.objects["run/df/checkpoint-a"].content == large


@pytest.mark.parametrize("fault", [404, 400, 403])
def test_a_place_that_is_lost_meanwhile_costs_a_checkpoint(
    strict: Server, impatient: None, fault: int, capsys: pytest.CaptureFixture[str]
):
    store = checkpoint_store("gs://raw/run", "df")
    strict.fault = lambda request: fault if request.method != "GET" else None
    store.write("checkpoint-a", os.urandom(2 * storage.CHUNK + 5))
    assert "warning: this one could not be kept" in capsys.readouterr().out


def test_a_slow_checkpoint_takes_the_time_it_needs(strict: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "TIMEOUT_S", 2.0)
    monkeypatch.setattr(storage, "STALL_S", 2.5)
    store, content = checkpoint_store("gs://raw/run", "df"), os.urandom(12 << 20)
    strict.bytes_per_s = 4 << 20
    store.write("checkpoint-a", content)
    begun = time.monotonic()
    assert store.read("checkpoint-a") == content
    assert time.monotonic() - begun > storage.STALL_S


def test_what_arrived_wrong_is_not_kept(strict: Server, impatient: None):
    store = checkpoint_store("gs://raw/run", "df")
    store.write("checkpoint-a", b"whole")
    strict.fault = lambda request: "spoil" if "download" in request.path else None
    with pytest.raises(UserError, match="did not answer as it should"):
        store.read("checkpoint-a")


ON_CLUSTER = {"COUNTERWEIGHT_RUN": "run-1"}


@pytest.mark.parametrize("address", ["s3://bucket/prefix", "minio://bucket", "http://host/x"])
def test_other_places_are_one_sentence(address: str):
    with pytest.raises(UserError, match="checkpoints can't be kept there; give a folder, gs://bucket/prefix or none"):
        checkpoint_store(address, "df")
    with pytest.raises(UserError, match="choose auto, none or gs://bucket/prefix"):
        checkpoint_address(address, "gs://root/p/run-1/train-gan/salt/generators", ON_CLUSTER)


@pytest.mark.parametrize(
    ("asked", "folder", "artifact", "run", "address"),
    [
        ("auto", "", "gs://root/deep/p/run-1/train-gan/salt/generators", "run-1", "gs://root/deep/p/run-1/checkpoints"),
        ("auto", "/cache/x", "/cache/artifacts/p-2026/train-gan/generators", "", "/cache/x"),
        ("auto", "", "minio://mlpipeline/v2/p/run-1/train-gan/salt/generators", "run-1", ""),
        ("auto", "", "/elsewhere/generators", "", ""),
        ("none", "/cache/x", "gs://root/p/run-1/train-gan/salt/generators", "run-1", ""),
        ("gs://b/kept/", "", "minio://mlpipeline/v2/p/run-1/train-gan/salt/generators", "run-1", "gs://b/kept/run-1"),
    ],
)
def test_where_a_runs_checkpoints_are(asked: str, folder: str, artifact: str, run: str, address: str):
    environment = {"COUNTERWEIGHT_CHECKPOINTS": folder, "COUNTERWEIGHT_RUN": run}
    assert checkpoint_address(asked, artifact, {name: value for name, value in environment.items() if value}) == address


def test_nowhere_is_said(capsys: pytest.CaptureFixture[str]):
    checkpoint_address("auto", "minio://mlpipeline/v2/p/run-1/train-gan/salt/generators", ON_CLUSTER)
    assert "none are kept, since artifacts are at minio:// and not gs://" in capsys.readouterr().out
