"""A Kubeflow Pipelines API on this machine, and the commands against it."""

import io
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from counterweight import client, logs, schedule, submit
from counterweight.exit_codes import run_command
from tests.helpers.compiled import quick_stack
from tests.helpers.kfp_server import KfpServer, serving

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kfp(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    """An API, named in the environment; pauses are short."""
    for name in ("HOST", "NAMESPACE", "AUTH", "TOKEN", "TOKEN_FILE", "IAP_CLIENT_ID", "SERVICE_ACCOUNT"):
        monkeypatch.setenv(f"KFP_{name}", "")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")  # no access to buckets from here
    for module, name, seconds in (
        (client, "PAUSE_S", 0.02),
        (client, "CREATE_PAUSE_S", 0.05),
        (logs, "FIRST_PAUSE_S", 0.01),
        (schedule, "SETTLE_S", 0.01),
    ):
        monkeypatch.setattr(module, name, seconds)
    with serving(KfpServer()) as api:
        monkeypatch.setenv("KFP_HOST", api.url)
        yield api


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket of an emulator, `raw`."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    client_library = pytest.importorskip("google.cloud.storage")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="raw")
    server.start()
    host, port = server._api._httpd.socket.getsockname()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
    yield client_library.Client(project="test").bucket("raw")
    server.stop()


@pytest.fixture(scope="session")
def package() -> submit.Package:
    """The compiled pipeline."""
    with quick_stack():
        return submit.compile_package(local_images=True)


@pytest.fixture
def do(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command's module as the command line does: exit code, output and errors."""

    def run(module: ModuleType, *words: str) -> tuple[int, str, str]:
        out = io.StringIO()
        code = run_command(lambda: module.run(list(words), out))
        return code, out.getvalue(), capsys.readouterr().err

    return run
