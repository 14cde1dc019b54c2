"""Stores in separate processes, which tests kill with SIGKILL and start again with the objects that they had."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import requests

from tests.helpers.object_servers import (
    BUCKET,
    Place,
    azure_clients,
    azurite_command,
    container_request,
    free_port,
    gs_clients,
    s3_clients,
)

SCHEMES = ("s3", "az", "gs")
STARTS = 60
"""Attempts to start a store."""
_MOTO = """
import threading
from moto.moto_api._internal.recorder.models import Recorder
from moto.server import main

lock, record = threading.Lock(), Recorder._record_request

def record_alone(*arguments, **named):
    with lock:  # requests in parallel would write into one line
        record(*arguments, **named)

Recorder._record_request = record_alone
main(["-H", "127.0.0.1", "-p", "{port}"])
"""


class KillableStore:
    """A store of one scheme with the bucket `raw`.

    moto keeps objects in memory: it records all requests, and a restart repeats them.

    Args:
        scheme: `s3`, `az` or `gs`.
        folder: for its objects.

    Attributes:
        is_ready: whether it runs and has all its objects.
    """

    def __init__(self, scheme: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.scheme, self.folder, self.port = scheme, folder, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.recording = folder / "requests.jsonl"
        self.is_ready = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def _command(self) -> list[str]:
        if self.scheme == "s3":
            return [sys.executable, "-c", _MOTO.format(port=self.port)]
        if self.scheme == "az":
            return azurite_command("--location", str(self.folder), "--blobPort", str(self.port))
        options = ["start", "--host", "127.0.0.1", "--port", str(self.port), "--default-bucket", BUCKET, "--quiet"]
        return [sys.executable, "-m", "gcp_storage_emulator", "--data-dir", str(self.folder), *options]

    def start(self) -> None:
        """Start the store, and wait until it answers; a connection of a client may have its port for a moment."""
        for _ in range(STARTS):
            if self._runs():
                break
            time.sleep(1)
        else:
            raise AssertionError(f"{self._command()} does not start")
        if self.scheme == "az":
            assert container_request(self.address, "PUT") in (201, 409)
        elif self.scheme == "s3" and not self._replay():
            requests.put(f"{self.address}/{BUCKET}", timeout=10).raise_for_status()
        self.is_ready.set()

    def _runs(self) -> bool:
        """Start the process, and return whether it accepts connections before it ends."""
        recorder = {"MOTO_ENABLE_RECORDING": "1", "MOTO_RECORDER_FILEPATH": str(self.recording)}
        self._process = subprocess.Popen(
            self._command(), env={**os.environ, **recorder}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            time.sleep(0.05)
        return False

    def _replay(self) -> bool:
        """Repeat the complete requests of the recording; return whether there were any."""
        if not self.recording.exists():
            return False
        whole, _, _ = self.recording.read_bytes().rpartition(b"\n")
        self.recording.write_bytes(whole + b"\n")
        requests.post(f"{self.address}/moto-api/recorder/replay-recording", timeout=60).raise_for_status()
        return True

    def settle(self, place: Place) -> None:
        """Wait until the store has saved all objects: Azurite saves its list of them every few seconds."""
        listing = self.folder / "__azurite_db_blob__.json"
        while self.scheme == "az" and any(name not in listing.read_text() for name in place.contents()):
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill the store."""
        self.is_ready.clear()
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


@contextmanager
def killable_store(scheme: str, folder: Path) -> Iterator[tuple[KillableStore, Place]]:
    """Start a store, and point clients to it through a proxy."""
    store = KillableStore(scheme, folder)
    store.start()
    clients: dict[str, Callable[[str], AbstractContextManager[Place]]] = {
        "s3": s3_clients,
        "az": azure_clients,
        "gs": gs_clients,
    }
    try:
        with clients[scheme](store.address) as place:
            yield store, place
    finally:
        store.kill()
