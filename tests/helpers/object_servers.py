"""Servers of S3, Azure and Google Cloud Storage that a test starts, behind a proxy that can disturb any request."""

import base64
import hashlib
import hmac
import logging
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests

BUCKET = "raw"
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The public key of every emulator of Azure."""
AZURITE_FOLDER = Path(os.environ.get("AZURITE_FOLDER") or Path.home() / ".cache" / "counterweight" / "azurite")
"""Where `.ci/run` installs Azurite with npm."""
NOT_FORWARDED = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass
class Request:
    """A request. `number` counts those with the same method and path, from 1."""

    method: str
    path: str
    query: str
    number: int


Fault = Callable[[Request], Any]
"""Request → None; an HTTP status; (status, code of the store's error); or `hang` (no answer), `drop` (connection
closed, nothing done), `lose` (done, but the answer is lost), `cut` (half of the content, then closed)."""


class Proxy(ThreadingHTTPServer):
    """A server before a store.

    Attributes:
        fault: decides about each request.
        forget: names of request headers, in lower case, that it does not pass on.
        requests: all requests so far.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.fault: Fault = lambda _: None
        self.forget: set[str] = set()
        self.requests: list[Request] = []
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def writes(self) -> list[Request]:
        return [request for request in self.requests if request.method not in ("GET", "HEAD")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Proxy

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        with self.server.lock:
            number = 1 + sum((r.method, r.path) == (self.command, path) for r in self.server.requests)
            request = Request(self.command, path, url.query, number)
            self.server.requests.append(request)
        fault = self.server.fault(request)
        if fault == "hang":
            time.sleep(60)
        if fault in ("drop", "hang"):
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if isinstance(fault, int | tuple):
            status, code = fault if isinstance(fault, tuple) else (fault, "")
            content = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
            self._answer(status, {}, content, len(content))
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() not in self.server.forget | {"connection"}}
        # Not with `requests`, which would encode the path in its own way, so that the signature becomes invalid.
        with closing(HTTPConnection(urlsplit(self.server.target).netloc)) as connection:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        if fault == "lose":
            self.close_connection = True
            return
        kept = {k: v for k, v in answer.getheaders() if k.lower() not in NOT_FORWARDED}
        length = int(answer.headers.get("Content-Length", len(content)))
        if fault == "cut":
            self.close_connection = True
            content = content[: len(content) // 2]
        self._answer(answer.status, kept, content, length)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _answer(self, status: int, headers: dict[str, str], content: bytes, length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@dataclass
class Place:
    """A store with one bucket, `raw`.

    Attributes:
        scheme: of its addresses.
        proxy: before the server.
        variables: environment variables with which a client reaches it.
    """

    scheme: str
    proxy: Proxy
    variables: dict[str, str] = field(default_factory=dict)

    def uri(self, prefix: str) -> str:
        return f"{self.scheme}://{BUCKET}/{prefix}"

    def _client(self) -> Any:
        from obstore.store import AzureStore, S3Store

        kind = S3Store if self.scheme == "s3" else AzureStore
        endpoint = self.variables.get("AWS_ENDPOINT_URL") or self.variables.get("AZURE_STORAGE_ENDPOINT")
        target = str(endpoint).replace(self.proxy.address, self.proxy.target)
        return kind(BUCKET, config={"endpoint": target}, client_options={"allow_http": True})

    def _bucket(self) -> Any:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client

        options = {"api_endpoint": self.proxy.target}
        return Client("test", AnonymousCredentials(), client_options=options).bucket(BUCKET)

    def put(self, name: str, content: bytes) -> None:
        """Write an object past the proxy."""
        if self.scheme == "gs":
            self._bucket().blob(name).upload_from_string(content)
        else:
            self._client().put(name, content)

    def contents(self, below: str = "") -> dict[str, bytes]:
        """Return all objects below a prefix, read past the proxy."""
        if self.scheme == "gs":
            return {blob.name: blob.download_as_bytes() for blob in self._bucket().list_blobs(prefix=below)}
        client = self._client()
        names = [entry["path"] for page in client.list(below or None) for entry in page]
        return {name: bytes(client.get(name).bytes()) for name in names}


@contextmanager
def _proxied(scheme: str, target: str, variables: Callable[[str], dict[str, str]]) -> Iterator[Place]:
    proxy = Proxy(target)
    threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR_")):
                patch.delenv(name)
        place = Place(scheme, proxy, variables(proxy.address))
        for name, value in place.variables.items():
            patch.setenv(name, value)
        yield place
    proxy.shutdown()
    proxy.server_close()


@contextmanager
def s3_server() -> Iterator[str]:
    """Run moto and yield its address."""
    server = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@contextmanager
def s3_place(server: str) -> Iterator[Place]:
    """Empty the server, create the bucket, and point clients to it with environment variables."""
    requests.post(f"{server}/moto-api/reset", timeout=10).raise_for_status()
    requests.put(f"{server}/{BUCKET}", timeout=10).raise_for_status()
    with s3_clients(server) as place:
        yield place


@contextmanager
def s3_clients(server: str) -> Iterator[Place]:
    """Point clients to a server, through a proxy."""
    key = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    with _proxied("s3", server, lambda address: {**key, "AWS_ENDPOINT_URL": address}) as place:
        yield place


def azurite_command(*options: str) -> list[str]:
    """Return the command of Azurite; skip the test if it is not installed."""
    program = AZURITE_FOLDER / "node_modules/azurite/dist/src/blob/main.js"
    node = shutil.which("node")
    if not node or not program.is_file():
        pytest.skip("Azurite is not installed: make .venv/.azurite")
    common = "--silent --disableTelemetry --skipApiVersionCheck --blobHost 127.0.0.1"
    return [node, str(program), *common.split(), *options]


@contextmanager
def azure_server() -> Iterator[str]:
    """Run Azurite and yield its address."""
    command = azurite_command("--inMemoryPersistence", "--blobPort", "0")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    lines = iter(process.stdout.readline, "")
    port = next(match[1] for line in lines if (match := re.search(r"successfully listens on http://[^:]+:(\d+)", line)))
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(30)


@contextmanager
def azure_place(server: str) -> Iterator[Place]:
    """Create an empty container, and point clients to it with environment variables."""
    for method, expected in (("DELETE", (202, 404)), ("PUT", (201,))):
        assert container_request(server, method) in expected
    with azure_clients(server) as place:
        yield place


@contextmanager
def azure_clients(server: str) -> Iterator[Place]:
    """Point clients to a server, through a proxy."""
    variables = {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY}
    with _proxied("az", server, lambda at: {**variables, "AZURE_STORAGE_ENDPOINT": f"{at}/{ACCOUNT}"}) as place:
        yield place


def container_request(server: str, method: str) -> int:
    """Create or delete the container with a shared key; obstore has no such request."""
    headers = {"x-ms-date": datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT"), "x-ms-version": "2021-12-02"}
    lines = [f"{name}:{value}" for name, value in headers.items()]
    signed = "\n".join([method, *[""] * 11, *lines, f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}", "restype:container"])
    signature = hmac.new(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
    url = f"{server}/{ACCOUNT}/{BUCKET}?restype=container"
    return requests.request(method, url, headers=headers, timeout=10).status_code


@contextmanager
def gs_place() -> Iterator[Place]:
    """Run an emulator of Google Cloud Storage with an empty bucket, and point clients to it."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    with gs_clients("http://{}:{}".format(*server._api._httpd.socket.getsockname())) as place:
        yield place
    server.stop()


@contextmanager
def gs_clients(server: str) -> Iterator[Place]:
    """Point clients to an emulator, through a proxy."""
    with _proxied("gs", server, lambda address: {"STORAGE_EMULATOR_HOST": address}) as place:
        yield place


def free_port() -> int:
    """Return a port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
