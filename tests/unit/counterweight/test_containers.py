"""Local runs in containers, without an engine; tests/e2e runs the containers."""

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests

from components.shared.parameters import Parameters
from counterweight import containers
from counterweight.containers import INPUTS, Container, Engine, check_not_private, list_published_folders
from tests.helpers.errors import raises_user_error


class StallingContainer:
    """A container whose log stream stalls; `states` are the engine's answers, None for no answer."""

    id = "container"

    def __init__(self, chunks: list[bytes], states: list[dict[str, Any] | None]) -> None:
        self.chunks, self.states, self.removed = chunks, states, False
        self.attrs: dict[str, Any] = {}

    def logs(self, **options: object) -> Iterator[bytes]:
        yield from self.chunks
        threading.Event().wait()

    def reload(self) -> None:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if state is None:
            raise requests.ReadTimeout("no answer")
        self.attrs = {"State": state}

    def remove(self, **options: object) -> None:
        self.removed = True


class Clock:
    """A clock that the container advances."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleep = time.sleep

    def monotonic(self) -> float:
        return self.now


RUNNING = {"Status": "running", "ExitCode": 0}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(containers, "SILENCE_S", 0.2)
    monkeypatch.setattr(containers, "time", clock)
    return clock


@pytest.mark.parametrize(("code", "reason"), [(0, ""), (3, "exit code 3")])
def test_container_with_a_stalled_log_finishes(code: int, reason: str):
    container = StallingContainer([b"one\ntw", b"o"], [RUNNING, None, RUNNING, {"Status": "exited", "ExitCode": code}])
    task = Container(container)
    assert list(task.lines) == ["one\n", "two\n"]
    assert task.wait() == reason
    assert container.removed


def test_container_of_an_engine_that_does_not_answer_fails(clock: Clock):
    class Silent(StallingContainer):
        def reload(self) -> None:
            clock.now += containers.ENGINE_TIMEOUT_S / 3
            super().reload()

    task = Container(Silent([b"one\n"], [None]))
    assert list(task.lines) == ["one\n"]
    assert task.wait() == "the engine did not return its exit code (no answer)"
    assert clock.now >= containers.ENGINE_TIMEOUT_S


def test_container_that_printed_until_the_engine_paused_succeeds(clock: Clock):
    """Regression: output counts as an answer; otherwise two failed requests after a long task would fail it."""

    class Talking(StallingContainer):
        def logs(self, **options: object) -> Iterator[bytes]:
            for _ in range(40):
                clock.now += containers.ENGINE_TIMEOUT_S / 10
                yield b"line\n"

    task = Container(Talking([], [None, None, {"Status": "exited", "ExitCode": 0}]))
    assert list(task.lines) == ["line\n"] * 40
    assert task.wait() == ""


def test_inputs_are_parameters_of_the_pipeline():
    assert set(INPUTS) <= set(Parameters.model_fields)


def test_folders_of_the_user_keep_their_permissions(tmp_path: Path):
    for name in (".ssh", "private", "models"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {"models/augmented.keras": {}, "report.html": {}}}))
    engine = Engine.__new__(Engine)
    engine.shares_group = True
    engine._allow_writes(tmp_path, list_published_folders(tmp_path))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_dir()}
    assert modes == {".ssh": 0o700, "private": 0o700, "models": 0o770}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"files": {"../x": {}, "/etc": {}}}'])
def test_list_published_folders_of_a_foreign_manifest_is_empty(tmp_path: Path, text: str):
    (tmp_path / "private").mkdir()
    (tmp_path / "manifest.json").write_text(text)
    assert list_published_folders(tmp_path) == []


def test_check_not_private_refuses_a_private_folder_with_other_files(tmp_path: Path):
    tmp_path.chmod(0o700)
    check_not_private(tmp_path / "new")
    check_not_private(tmp_path)
    (tmp_path / "notes.txt").touch()
    with raises_user_error("containers.private_output"):
        check_not_private(tmp_path)
    (tmp_path / "manifest.json").touch()
    check_not_private(tmp_path)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine without containers, in an environment without credentials."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "KAGGLE_", "SSL_", "REQUESTS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    engine = Engine.__new__(Engine)
    engine.scratch = tmp_path / "scratch"
    engine.scratch.mkdir()
    return engine


def test_credentials_are_never_readable_by_others(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original, modes = tmp_path / "key.json", []
    original.write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(original))
    copyfile = shutil.copyfile

    def copy(source: Path, target: Path) -> None:
        copyfile(source, target)
        modes.append(target.stat().st_mode & 0o777)

    monkeypatch.setattr(shutil, "copyfile", copy)
    engine._credentials()
    (copied,) = engine.scratch.iterdir()
    assert [*modes, copied.stat().st_mode & 0o777] == [0o600, 0o440]


@pytest.mark.parametrize("name", containers.CREDENTIAL_FILES)
def test_credential_files_are_mounted_and_their_variables_changed(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    original = tmp_path / "secret"
    original.write_text("old")
    monkeypatch.setenv(name, str(original))
    engine._credentials()
    original.write_text("rotated")
    variables, (mount,) = engine._credentials()
    assert variables == {name: mount["Target"]}
    assert mount["ReadOnly"]
    assert Path(mount["Source"]).read_text() == "rotated"
    assert "rotated" not in str(mount)


def test_credential_file_that_is_missing_is_named(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with raises_user_error("containers.unreadable_file", name="AWS_CA_BUNDLE"):
        engine._credentials()


def test_files_that_no_task_reads_are_not_passed(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert engine._credentials() == ({"AWS_REGION": "eu-central-1"}, [])


def test_google_login_is_mounted(engine: Engine, tmp_path: Path):
    login = tmp_path / "home/.config/gcloud/application_default_credentials.json"
    login.parent.mkdir(parents=True)
    login.write_text("{}")
    variables, (mount,) = engine._credentials()
    assert variables == {"GOOGLE_APPLICATION_CREDENTIALS": mount["Target"]}


@pytest.mark.parametrize(
    ("task", "mounted", "network"),
    [("check_inputs", True, "host"), ("read_champion", True, "host"), ("publish", False, "none")],
)
def test_only_tasks_that_read_the_champion_get_its_folder_and_a_network(
    tmp_path: Path, task: str, mounted: bool, network: str
):
    created: list[dict[str, Any]] = []

    def create(*_: object, **options: Any) -> Any:
        created.append(options)
        return SimpleNamespace(start=lambda: None, logs=lambda **_: iter(()))

    engine = Engine.__new__(Engine)
    engine.client = cast(Any, SimpleNamespace(containers=SimpleNamespace(create=create)))
    engine.images = dict.fromkeys(("check_inputs", "publish"), "image")
    engine.inputs, engine.remote, engine.checkpoints, engine.shares_group = [], False, {}, False
    engine.user, engine.security, engine.label, engine.scratch = "1:1", [], {}, tmp_path
    engine.output, engine.remote_champion = tmp_path / "out", True
    engine.weights, engine.remote_weights = [], False
    engine.results = engine._mount("OUT", Path("/home/user/runs/second"), read_only=False)
    engine.champion = [engine._mount("champion", Path("/home/user/runs"), read_only=True)]
    engine.start(task, ["sh", "-c", "true"], {}, {})
    mounts = {mount["Target"]: mount["ReadOnly"] for mount in created[0]["mounts"]}
    assert mounts.get("/home/user/runs") is (True if mounted else None)
    assert mounts["/home/user/runs/second"] is False
    assert created[0]["network_mode"] == network
