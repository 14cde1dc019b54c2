"""A store that is killed in the middle of a publication, a download or a training: S3, Azure, Google Cloud Storage."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from components.prepare_data import sources
from components.publish.publish import JOURNAL, MANIFEST, publish
from components.shared.checkpoint import Checkpoints
from components.shared.records import Advice
from components.shared.storage import checkpoint_store
from components.shared.stores import transfer
from tests.helpers.errors import raises_user_error
from tests.helpers.killable_stores import SCHEMES, KillableStore, killable_store
from tests.helpers.object_servers import Place, Request

ROOT = Path(__file__).resolve().parents[3]
NAMES = {"s3": "the S3 store at http", "az": "Azure Blob Storage (http", "gs": "Google Cloud Storage"}
FILES = 12
ADVICE = Advice(arm="augmented@1", verdict="worse")
PUBLISH = """
import json, sys
from pathlib import Path
from components.publish.publish import publish
from components.shared.errors import exit_on_user_error
from components.shared.records import Advice
output, files, artifact = json.loads(sys.argv[1])
with exit_on_user_error():
    advice = Advice(arm="augmented@1", verdict="worse")
    publish(output, {name: Path(path) for name, path in files.items()}, artifact, "worse", advice)
"""


@pytest.fixture(params=SCHEMES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[KillableStore, Place]]:
    with killable_store(request.param, tmp_path / "store") as found:
        yield found


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:02}.bin").write_bytes(os.urandom(50_000))
    return {f"models/{path.name}": path for path in folder.iterdir()}


@contextmanager
def stalls(rate: float) -> Iterator[None]:
    """Let a stall take STALL_S divided by the rate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "CLOCK", lambda: rate * time.monotonic())
        yield


def kill_at(store: KillableStore, place: Place, number: int, is_counted: Callable[[Request], bool]) -> threading.Event:
    """Kill the store when the proxy receives a request, and return what is set then."""
    killed, lock, seen = threading.Event(), threading.Lock(), []

    def count(request: Request) -> str | None:
        with lock:
            seen.append(is_counted(request))
            if sum(seen) >= number and not killed.is_set():
                store.kill()
                killed.set()
        return None if store.is_ready.is_set() else "drop"

    place.proxy.fault = count
    return killed


def is_write(request: Request) -> bool:
    return request.method not in ("GET", "HEAD")


def check_failure(done: "subprocess.CompletedProcess[str]", place: Place) -> None:
    """Check that a process ended with one error, which names the store, and one hint."""
    lines = done.stdout.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert (done.returncode, len(errors)) == (2, 1), done.stdout + done.stderr
    assert NAMES[place.scheme] in errors[0]
    assert lines[-1].startswith("hint: ")
    assert "Traceback" not in done.stdout + done.stderr


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, timeout=100)


def verify(place: Place) -> "subprocess.CompletedProcess[str]":
    return run("-m", "scripts.verify_published", place.uri("out"))


def test_publication_to_a_killed_store_fails_and_is_completed_by_the_next(
    store: tuple[KillableStore, Place], files: dict[str, Path], tmp_path: Path
):
    process, place = store
    killed = kill_at(process, place, FILES // 2, is_write)
    arguments = [place.uri("out"), {name: str(path) for name, path in files.items()}, str(tmp_path / "artifact")]
    check_failure(run("-c", PUBLISH, json.dumps(arguments)), place)
    assert killed.is_set()
    assert not (tmp_path / "artifact").exists()

    process.start()
    place.proxy.fault = lambda _: None
    left = place.contents("out")
    assert f"out/{MANIFEST}" not in left
    assert len(left) < FILES
    if place.scheme != "az":  # Azurite writes its list of objects to the disk every few seconds
        assert f"out/{JOURNAL}" in left
    assert "has no manifest.json" in verify(place).stdout or not left

    publish(place.uri("out"), files, tmp_path / "artifact", "worse", ADVICE)
    expected = {f"out/{name}": path.read_bytes() for name, path in files.items()}
    found = place.contents("out")
    assert set(found) == {*expected, f"out/{MANIFEST}"}
    assert expected.items() <= found.items()
    assert verify(place).returncode == 0


def test_publication_to_a_killed_store_that_returns_succeeds(
    store: tuple[KillableStore, Place], files: dict[str, Path], tmp_path: Path
):
    process, place = store
    if place.scheme == "az":
        pytest.skip("Azurite forgets what it received in its last seconds")
    killed = kill_at(process, place, FILES // 2, is_write)
    restart = threading.Thread(target=lambda: killed.wait(60) and process.start())
    restart.start()
    with stalls(0.05):  # the start of a store takes long on a busy machine
        publish(place.uri("out"), files, tmp_path / "artifact", "worse", ADVICE)
    restart.join()
    assert killed.is_set()
    place.proxy.fault = lambda _: None
    assert set(place.contents("out")) == {*(f"out/{name}" for name in files), f"out/{MANIFEST}"}
    assert verify(place).returncode == 0


def test_reading_from_a_killed_store_fails_and_a_rerun_finishes(
    store: tuple[KillableStore, Place], files: dict[str, Path], tmp_path: Path
):
    process, place = store
    publish(place.uri("out"), files, tmp_path / "artifact", "worse", ADVICE)
    process.settle(place)
    killed = kill_at(process, place, FILES // 2, lambda request: request.method == "GET" and ".bin" in request.path)
    check_failure(verify(place), place)
    assert killed.is_set()
    with stalls(10), raises_user_error("storage.no_answer") as caught:
        sources.fetch(place.uri("out"), tmp_path / "images")
    assert caught.value.retryable

    process.start()
    place.proxy.fault = lambda _: None
    assert verify(place).returncode == 0
    folder = sources.fetch(place.uri("out"), tmp_path / "again")
    assert {path.name: path.read_bytes() for path in (folder / "models").iterdir()} == {
        path.name: path.read_bytes() for path in files.values()
    }


def test_training_continues_while_its_checkpoints_cannot_be_written(
    store: tuple[KillableStore, Place], capsys: pytest.CaptureFixture[str]
):
    process, place = store

    def opened() -> Checkpoints:
        return Checkpoints(checkpoint_store(place.uri("run"), "df"), {"seed": 1}, "train_gan df")

    saved = opened()
    saved.save({"step": 1}, {"weights": np.full(20_000, 1, np.float32)})
    process.settle(place)
    kill_at(process, place, 1, is_write)
    with stalls(10):
        saved.save({"step": 2}, {"weights": np.full(20_000, 2, np.float32)})
    printed = capsys.readouterr().out
    assert "warning: not written" in printed
    assert NAMES[place.scheme] in printed
    with stalls(10), raises_user_error("storage.no_answer"):
        opened()

    process.start()
    place.proxy.fault = lambda _: None
    state, arrays = opened().load() or ({}, {})
    assert state == {"step": 1}
    np.testing.assert_array_equal(arrays["weights"], np.full(20_000, 1, np.float32))
    saved.save({"step": 3}, {"weights": np.full(20_000, 3, np.float32)})
    assert (opened().load() or ({}, {}))[0] == {"step": 3}
