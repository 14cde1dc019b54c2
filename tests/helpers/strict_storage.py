"""Object storage as strict as Google's and as unreliable as a network; the emulator accepts more.

It checks preconditions, generations and checksums, paginates listings, and lets a test disturb any request.
"""

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c
import pytest

PAGE = 3
"""Objects in one page of a listing."""
START = datetime(2026, 11, 26, tzinfo=UTC)
"""An object is modified as many seconds later as its generation."""


def crc32c(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


@dataclass
class Stored:
    content: bytes
    generation: int
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Request:
    """The request that a fault decides about. `number` counts the requests with the same method and path, from 1."""

    method: str
    path: str
    query: dict[str, str]
    number: int


Fault = Callable[[Request], Any]
"""Request → None; an HTTP status; or `hang` (no answer), `drop` (connection closed, nothing done), `lose` (done, but
the answer is lost), `cut` (half of the content, then closed), `spoil` (one byte of the content wrong)."""


class Clock:
    """A clock that only the server's pauses advance, so that a test does not depend on real time.

    A process that pauses cannot stall: the server waits until its data is taken, except for what the system buffers.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Advance the clock, and give other threads a fiftieth of the time."""
        self.now += seconds
        time.sleep(seconds / 50)


class Server(ThreadingHTTPServer):
    """One bucket, `raw`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        # Else the system takes a whole chunk of an upload at once, and its client waits without progress.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, tuple[dict[str, str], dict[str, Any], bytearray]] = {}
        self.requests: list[Request] = []
        self.fault: Fault = lambda _: None
        self.after: Callable[[Request], None] = lambda _: None
        """Called between two requests, to simulate another client."""
        self.bytes_per_s = 0
        """Rate at which bodies are read and content is sent; 0 for no limit."""
        self.sleep: Callable[[float], None] = time.sleep
        """Waits between two blocks of these."""
        self.lock = threading.RLock()
        self.generation = 1000

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""

    def put(self, name: str, content: bytes, metadata: dict[str, Any] | None = None) -> Stored:
        with self.lock:
            self.generation += 1
            self.objects[name] = Stored(content, self.generation, metadata or {})
            return self.objects[name]

    def writes(self) -> list[Request]:
        return [request for request in self.requests if request.method != "GET"]


class RefusedError(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        path = unquote(url.path)
        with self.server.lock:
            number = 1 + sum((r.method, r.path) == (self.command, path) for r in self.server.requests)
            request = Request(self.command, path, query, number)
            self.server.requests.append(request)
        fault = self.server.fault(request)
        if fault == "hang":
            time.sleep(60)
        if fault == "drop":
            self.close_connection = True
            return
        body = self._body()
        try:
            if isinstance(fault, int):
                raise RefusedError(fault)
            with self.server.lock:
                status, headers, content = self._answer(request, body)
        except RefusedError as refused:
            status, headers = refused.status, {}
            content = json.dumps({"error": {"code": status, "message": "refused"}}).encode()
        self.server.after(request)
        if fault == "lose":
            self.close_connection = True
            return
        if fault == "spoil":
            content = bytes([content[0] ^ 1]) + content[1:]
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if fault == "cut":
            self.close_connection = True
            content = content[: len(content) // 2]
        self._transfer_paced(len(content), lambda start, size: self.wfile.write(content[start : start + size]))

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _transfer_paced(self, length: int, move: Callable[[int, int], Any]) -> None:
        rate = self.server.bytes_per_s
        block = max(rate // 20, 1) if rate else max(length, 1)
        for start in range(0, length, block):
            move(start, min(block, length - start))
            if rate:
                self.server.sleep(block / rate)

    def _body(self) -> bytes:
        body = bytearray()
        self._transfer_paced(
            int(self.headers.get("Content-Length", 0)), lambda _, size: body.extend(self.rfile.read(size))
        )
        return bytes(body)

    def _resource(self, name: str) -> dict[str, Any]:
        stored = self.server.objects[name]
        return {
            **stored.metadata,
            "name": name,
            "bucket": "raw",
            "generation": str(stored.generation),
            "size": str(len(stored.content)),
            "crc32c": crc32c(stored.content),
            "updated": (START + timedelta(seconds=stored.generation)).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }

    def _json(self, value: Any) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, json.dumps(value).encode()

    def _precondition(self, query: dict[str, str], name: str) -> None:
        stored = self.server.objects.get(name)
        wanted = query.get("ifGenerationMatch")
        if wanted is not None and int(wanted) != (stored.generation if stored else 0):
            raise RefusedError(412)

    def _answer(self, request: Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upload, media, bucket, name = re.fullmatch(
            r"(/upload|/resumable)?(/download)?/storage/v1/b/([^/]+)/o(?:/(.*))?", request.path, re.DOTALL
        ).groups()
        if bucket != "raw":
            raise RefusedError(404)
        if upload:
            return self._upload(request, body)
        if not name:
            return self._list(request.query)
        stored = self.server.objects.get(name)
        if stored is None or request.query.get("generation", str(stored.generation)) != str(stored.generation):
            raise RefusedError(404)
        self._precondition(request.query, name)
        if request.method == "DELETE":
            del self.server.objects[name]
            return 204, {}, b""
        if not media:
            return self._json(self._resource(name))
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Goog-Generation": str(stored.generation),
            "X-Goog-Hash": f"crc32c={crc32c(stored.content)}",
        }
        if part := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, content = int(part[1]), stored.content[: int(part[2]) + 1 if part[2] else None]
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(stored.content)}"
            return 206, headers, content[start:]
        if encoding := stored.metadata.get("contentEncoding"):
            headers["Content-Encoding"] = encoding
        return 200, headers, stored.content

    def _list(self, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        names = sorted(name for name in self.server.objects if name.startswith(query.get("prefix", "")))
        start = int(query.get("pageToken", 0))
        items = [self._resource(name) for name in names[start : start + PAGE]]
        if asked := re.search(r"items\(([^)]*)\)", query.get("fields", "")):
            items = [{key: item[key] for key in asked[1].split(",") if key in item} for item in items]
        page: dict[str, Any] = {"items": items}
        if start + PAGE < len(names):
            page["nextPageToken"] = str(start + PAGE)
        return self._json(page)

    def _upload(self, request: Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        kind = request.query["uploadType"]
        if request.method == "POST" and kind == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            _, meta, content, _ = re.split(rb"(?:^|\r\n)--" + re.escape(boundary) + rb"(?:--|\r\n)", body)
            return self._store(
                request.query, json.loads(meta.split(b"\r\n\r\n", 1)[1]), content.split(b"\r\n\r\n", 1)[1]
            )
        if request.method == "POST":
            meta = json.loads(body)
            self._precondition(request.query, meta["name"])
            upload_id = str(len(self.server.uploads) + 1)
            self.server.uploads[upload_id] = (request.query, meta, bytearray())
            here = f"http://{self.headers['Host']}/resumable/storage/v1/b/raw/o"
            return 200, {"Location": f"{here}?uploadType=resumable&upload_id={upload_id}"}, b""
        if request.query["upload_id"] not in self.server.uploads:
            raise RefusedError(404)
        query, meta, got = self.server.uploads[request.query["upload_id"]]
        start, total = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers["Content-Range"]).groups()
        if start is not None:
            if int(start) > len(got):
                raise RefusedError(400)
            got.extend(body[len(got) - int(start) :])  # bytes that exist already are skipped
        if total == str(len(got)):
            if wanted := self.headers.get("X-Goog-Hash"):
                meta = {**meta, "crc32c": wanted.removeprefix("crc32c=")}
            return self._store(query, meta, bytes(got))
        return 308, {"Range": f"bytes=0-{len(got) - 1}"} if got else {}, b""

    def _store(self, query: dict[str, str], meta: dict[str, Any], content: bytes) -> tuple[int, dict[str, str], bytes]:
        name = meta.pop("name")
        if meta.pop("crc32c", crc32c(content)) != crc32c(content):
            raise RefusedError(400)
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        if meta.pop("md5Hash", md5) != md5:
            raise RefusedError(400)
        self._precondition(query, name)
        self.server.put(name, content, meta)
        return self._json(self._resource(name))


@contextmanager
def strict_storage() -> Iterator[Server]:
    """Run a server, and point Google's client to it with an environment variable."""
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
        yield server
    server.shutdown()
    server.server_close()
