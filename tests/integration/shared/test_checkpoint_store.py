"""Checkpoints in object storage, on an emulator and on a server that fails; and where a run's are kept."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

emulator = pytest.importorskip("gcp_storage_emulator.server")

from components.shared.checkpoint import Checkpoints  # noqa: E402
from components.shared.errors import UserError  # noqa: E402
from components.shared.storage import checkpoint_address, checkpoint_store  # noqa: E402
from components.shared.stores import transfer  # noqa: E402
from tests.helpers.strict_storage import Clock, Server, strict_storage  # noqa: E402


@contextmanager
def raises(code: str) -> Iterator[None]:
    with pytest.raises(UserError) as caught:
        yield
    assert caught.value.code == code


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


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "RETRY_DELAY_S", 0.01)
    monkeypatch.setattr(transfer, "POLL_S", 0.01)


@pytest.mark.parametrize("kind", ["folder", "gs"])
def test_store_returns_what_was_written_below_its_name(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    place = str(tmp_path / "new" / "folder") if kind == "folder" else request.getfixturevalue("address")
    df, vasc = checkpoint_store(place, "train_gan-df"), checkpoint_store(place, "train_gan-vasc")
    assert df.read("checkpoint-a") is None
    large = os.urandom(transfer.CHUNK_BYTES + 5)
    df.write("checkpoint-a", b"one")
    vasc.write("checkpoint-a", large)
    df.write("checkpoint-a", b"two")
    assert checkpoint_store(place, "train_gan-df").read("checkpoint-a") == b"two"
    assert checkpoint_store(place, "train_gan-vasc").read("checkpoint-a") == large
    assert df.read("checkpoint-b") is None


def test_checkpoints_in_a_bucket_load_the_newest_complete_one(address: str, capsys: pytest.CaptureFixture[str]):
    settings = {"dx": "df", "seed": 1}
    kept = Checkpoints(checkpoint_store(address, "work"), settings, "work")
    assert kept.load() is None
    for step in (1, 2, 3):
        kept.save({"step": step}, {"weights": np.full(3, step, np.float32)})
    state, arrays = Checkpoints(checkpoint_store(address, "work"), settings, "work").load() or ({}, {})
    assert state == {"step": 3}
    np.testing.assert_array_equal(arrays["weights"], [3, 3, 3])
    checkpoint_store(address, "work").write("checkpoint-b", b"half of it")
    state, _ = Checkpoints(checkpoint_store(address, "work"), settings, "work").load() or ({}, {})
    assert state == {"step": 2}
    assert "checkpoint-b is damaged" in capsys.readouterr().out
    with pytest.raises(UserError) as caught:
        Checkpoints(checkpoint_store(address, "work"), settings | {"seed": 2}, "work").load()
    assert (caught.value.code, caught.value.fields["place"]) == ("checkpoints.other_settings", f"{address}/work")


def test_checkpoint_store_that_is_not_writable_fails_at_once(strict: Server):
    with raises("storage.not_found"):
        checkpoint_store("gs://other/run", "df")
    strict.fault = lambda request: 403 if request.method != "GET" else None
    with raises("storage.no_permission"):
        checkpoint_store("gs://raw/run", "df")


def test_write_during_an_outage_prints_a_warning(
    strict: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    store = checkpoint_store("gs://raw/run/", "df")
    store.write("checkpoint-a", b"whole")
    strict.fault = lambda _: 503
    with monkeypatch.context() as patch:
        patch.setattr(transfer, "CLOCK", lambda: 100 * time.monotonic())
        store.write("checkpoint-a", b"never arrives")
        assert "warning: not written (gs://raw/run/df: Google Cloud Storage did not" in capsys.readouterr().out
        with raises("storage.no_answer"):
            store.read("checkpoint-a")
    strict.fault = lambda request: "drop" if request.number == 1 else None
    assert store.read("checkpoint-a") == b"whole"
    store.write("checkpoint-b", b"later")
    assert strict.objects["run/df/checkpoint-b"].content == b"later"


@pytest.mark.parametrize("fault", [404, 410, 400, "cut", "drop"])
def test_write_restarts_a_lost_upload(strict: Server, fault: int | str):
    store = checkpoint_store("gs://raw/run", "df")
    large = os.urandom(2 * transfer.CHUNK_BYTES + 5)
    strict.fault = lambda request: fault if request.method == "PUT" and request.number == 2 else None
    store.write("checkpoint-a", large)
    assert strict.objects["run/df/checkpoint-a"].content == large


@pytest.mark.parametrize("fault", [404, 400, 403])
def test_write_to_a_lost_bucket_prints_a_warning(strict: Server, fault: int, capsys: pytest.CaptureFixture[str]):
    store = checkpoint_store("gs://raw/run", "df")
    strict.fault = lambda request: fault if request.method != "GET" else None
    store.write("checkpoint-a", os.urandom(2 * transfer.CHUNK_BYTES + 5))
    assert "warning: not written" in capsys.readouterr().out


def test_write_of_a_slow_checkpoint_succeeds(strict: Server, monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    monkeypatch.setattr(transfer, "CLOCK", clock)
    store, content = checkpoint_store("gs://raw/run", "df"), os.urandom(20 << 20)
    # Each chunk takes longer than STALL_S.
    strict.bytes_per_s, strict.sleep = transfer.CHUNK_BYTES // 20, clock.sleep
    store.write("checkpoint-a", content)
    written = clock.now
    # The system's buffers take up to 10 MiB of an answer at once.
    strict.bytes_per_s = 1 << 20
    assert store.read("checkpoint-a") == content
    assert clock.now - written > transfer.STALL_S


def test_read_of_a_spoilt_answer_fails(strict: Server):
    store = checkpoint_store("gs://raw/run", "df")
    store.write("checkpoint-a", b"whole")
    strict.fault = lambda request: "spoil" if "download" in request.path else None
    with raises("storage.no_answer"):
        store.read("checkpoint-a")


ON_CLUSTER = {"COUNTERWEIGHT_RUN": "run-1"}


@pytest.mark.parametrize("address", ["ftp://bucket/prefix", "minio://bucket", "http://host/x"])
def test_checkpoint_address_refuses_other_places(address: str):
    with raises("checkpoints.invalid_address"):
        checkpoint_store(address, "df")
    with raises("checkpoints.invalid_address"):
        environment = {**ON_CLUSTER, "COUNTERWEIGHT_CHECKPOINTS": address}
        checkpoint_address("gs://root/p/run-1/train-gan/salt/generators", environment)


@pytest.mark.parametrize(
    ("place", "artifact", "run", "address"),
    [
        ("auto", "gs://root/deep/p/run-1/train-gan/salt/generators", "run-1", "gs://root/deep/p/run-1/checkpoints"),
        ("", "gs://root/p/run-1/train-gan/salt/generators", "run-1", "gs://root/p/run-1/checkpoints"),
        ("auto", "minio://mlpipeline/v2/p/run-1/train-gan/salt/generators", "run-1", ""),
        ("auto", "/elsewhere/generators", "", ""),
        ("/cache/x", "/cache/artifacts/p-2026/train-gan/generators", "", "/cache/x"),
        ("none", "gs://root/p/run-1/train-gan/salt/generators", "run-1", ""),
        ("gs://bucket/kept/", "minio://mlpipeline/v2/p/run-1/x/salt/y", "run-1", "gs://bucket/kept/run-1"),
        ("s3://bucket/kept", "minio://mlpipeline/v2/p/run-1/x/salt/y", "run-1", "s3://bucket/kept/run-1"),
    ],
)
def test_checkpoint_address_of_each_place(place: str, artifact: str, run: str, address: str):
    environment = {"COUNTERWEIGHT_CHECKPOINTS": place, "COUNTERWEIGHT_RUN": run}
    assert checkpoint_address(artifact, environment) == address


@pytest.mark.parametrize("scheme", ["minio", "s3"])
def test_checkpoint_address_beside_artifacts_in_s3_requires_a_key(scheme: str):
    artifact = f"{scheme}://mlpipeline/v2/p/run-1/train-gan/salt/generators"
    assert checkpoint_address(artifact, ON_CLUSTER) == ""
    environment = {**ON_CLUSTER, "AWS_ACCESS_KEY_ID": "key"}
    assert checkpoint_address(artifact, environment) == "s3://mlpipeline/v2/p/run-1/checkpoints"


def test_checkpoint_address_prints_why_checkpoints_are_disabled(capsys: pytest.CaptureFixture[str]):
    checkpoint_address("minio://mlpipeline/v2/p/run-1/train-gan/salt/generators", ON_CLUSTER)
    assert "disabled: artifacts are at minio://" in capsys.readouterr().out
