"""Object storage: the only place that imports google-cloud-storage.

A call of any size either returns its result or raises a `UserError` at most `STALL_S` after the last byte that moved.
Until then, requests that fail temporarily (429, 5xx, a dropped connection) are repeated.

The client's `transfer_manager` is not used: after a failure it continues with all other files, it has one deadline for
the whole transfer, it reports no progress, and it does not verify what a repeated request returned.
"""

import base64
import errno
import io
import mimetypes
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import google_crc32c
import requests
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from components.shared.checkpoint import Folder, Store
from components.shared.errors import UserError
from components.shared.files import atomic_write
from components.shared.log import Progress, log_line

TIMEOUT_S = 10
"""How long one attempt of a request may receive nothing, or send no block of its body."""
STALL_S = 16
"""How long a thread may make no progress, over all attempts, before the whole call fails."""
POLL_S = 0.2
"""How often progress is printed and stalls are detected."""
RETRY_DELAY_S = 0.3
"""Before the second attempt of a request; doubles for each further one."""
MAX_PARALLEL_REQUESTS = 8
CHUNK_BYTES = 8 << 20
"""Part of a large file that is kept in memory and sent again after an error; at most one per thread."""
MAX_UPLOAD_ATTEMPTS = 3
"""Uploads of one file if the server lost or damaged what it received."""

CLOCK = time.monotonic
READ, WRITE = "read", "write"
_ROLES = {READ: "Storage Object Viewer", WRITE: "Storage Object User"}


def split_uri(uri: str) -> tuple[str, str]:
    """Return the bucket and the prefix of `gs://bucket/some/prefix`.

    Raises:
        UserError: `storage.invalid_address`.
    """
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket:
        raise UserError(
            f"{uri} is not an object storage address", "write gs://bucket/prefix", "storage.invalid_address", uri=uri
        )
    return bucket, prefix.strip("/")


class ListedObject(NamedTuple):
    """An object in a listing: its name relative to the prefix, its size in bytes, and the number of its version."""

    name: str
    size: int
    generation: int


def list_objects(uri: str) -> list[ListedObject]:
    """Return the objects below a prefix, or the one object of this name, sorted by name.

    Raises:
        UserError: as in `download_folder`.
    """
    bucket, prefix = split_uri(uri)
    with _translate_errors(uri, READ):
        storage = _Connection()
        blobs = _list_blobs(storage, bucket, f"{prefix}/" if prefix else "")
        if not blobs and prefix:
            blob = storage.call(lambda: storage.client.bucket(bucket).get_blob(prefix, **storage.options))
            blobs = {prefix.rpartition("/")[2]: blob} if blob else {}
    if not blobs:
        raise _empty_error(uri)
    return sorted(ListedObject(name, blob.size, blob.generation) for name, blob in blobs.items())


def download_folder(uri: str, folder: Path) -> None:
    """Download all objects below a prefix into a folder, in the generation that was listed, with verified checksums.

    Raises:
        UserError: `storage.not_found`, `storage.no_permission`, `storage.no_credentials`, `storage.no_answer`,
            `storage.empty`, or `storage.changed`: an object was replaced or removed during the download.
    """
    bucket, prefix = split_uri(uri)
    with _translate_errors(uri, READ):
        storage = _Connection()
        blobs = _list_blobs(storage, bucket, f"{prefix}/" if prefix else "")
        if not blobs:
            raise _empty_error(uri)
        jobs = [partial(storage.download, blob, folder / name) for name, blob in blobs.items()]
        storage.run(jobs, f"download {uri}", sum(blob.size for blob in blobs.values()))


def _list_blobs(storage: "_Connection", bucket: str, below: str) -> dict[str, Blob]:
    """Return the objects whose names can be a file's below a folder; relative name → object."""
    fields = "items(name,generation,size,crc32c,contentEncoding),nextPageToken"
    request = partial(storage.client.list_blobs, bucket, prefix=below, fields=fields, **storage.options)
    blobs = {blob.name.removeprefix(below): blob for blob in storage.call(lambda: list(request()))}
    return {name: blob for name, blob in blobs.items() if _is_relative_file(name)}


def _empty_error(uri: str) -> UserError:
    return UserError(f"{uri}: there are no objects below this prefix", "check its spelling", "storage.empty", uri=uri)


def download_file(uri: str, path: str | Path) -> None:
    """Download one object to a file, atomically.

    Raises:
        UserError: as in `download_folder`.
    """
    bucket, name = split_uri(uri)
    with _translate_errors(uri, READ):
        storage = _Connection()
        blob = storage.call(lambda: storage.client.bucket(bucket).get_blob(name, **storage.options)) if name else None
        if blob is None:
            raise UserError(
                f"{uri}: no such object exists", "check the bucket's name and the path", "storage.not_found", uri=uri
            )
        with atomic_write(path) as part:
            storage.run([partial(storage.download, blob, part)], f"download {uri}", blob.size)


class Prefix:
    """A place to publish to: the objects below `gs://bucket/prefix`.

    An object is written or removed only if it is in the version that this instance read last: concurrent changes raise
    an error and are never overwritten.

    Args:
        uri: the address.

    Raises:
        UserError: from every method: as in `download_folder`, or `storage.concurrent_write`.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.bucket, prefix = split_uri(uri)
        self.below = f"{prefix}/" if prefix else ""
        with _translate_errors(uri, WRITE):
            self._storage = _Connection()
        self._generations: dict[str, int] = {}
        """Name → generation that was read last; 0 if the object was absent."""
        self._crc32c: dict[Path, str] = {}

    def read(self, name: str) -> str | None:
        """Return an object's text; None if it does not exist."""
        with _translate_errors(self.uri, WRITE):
            return self._storage.call(partial(self._read, name))

    def modified(self, name: str) -> datetime | None:
        """Return when an object was written; None if it does not exist."""
        with _translate_errors(self.uri, WRITE):
            blob = self._storage.call(partial(self._look, name))
        return blob and blob.updated

    def find_existing(self, names: Collection[str]) -> set[str]:
        """Return the names of existing objects."""
        with _translate_errors(self.uri, WRITE):
            blobs = self._storage.run([partial(self._look, name) for name in names])
        return {name for name, blob in zip(names, blobs, strict=True) if blob}

    def find_unchanged(self, files: Mapping[str, tuple[Path, str]]) -> set[str]:
        """Return the names of the objects that already have the content of these files.

        Args:
            files: name → (file, its SHA-256).
        """
        with _translate_errors(self.uri, WRITE):
            are_unchanged = self._storage.run([partial(self._holds, name, *source) for name, source in files.items()])
        return {name for name, unchanged in zip(files, are_unchanged, strict=True) if unchanged}

    def upload(self, files: Mapping[str, tuple[Path, str]]) -> None:
        """Upload files in parallel, with their SHA-256 as metadata."""
        with _translate_errors(self.uri, WRITE):
            jobs = [partial(self._upload, name, *source) for name, source in files.items()]
            self._storage.run(jobs, f"upload {self.uri}", sum(path.stat().st_size for path, _ in files.values()))

    def write(self, name: str, text: str) -> None:
        """Write a small object in one request."""

        def write() -> None:
            blob = self._blob(name)
            try:
                blob.upload_from_string(
                    text.encode(),
                    "application/json",
                    if_generation_match=self._generations[name],
                    **self._storage.options,
                )
                self._generations[name] = blob.generation
            except exceptions.PreconditionFailed:
                if self._read(name) != text:  # otherwise an attempt whose answer was lost has written it
                    raise

        with _translate_errors(self.uri, WRITE):
            self._storage.call(write)

    def remove(self, names: Collection[str]) -> None:
        """Remove objects; missing ones are ignored."""

        def remove(name: str) -> None:
            if name not in self._generations:
                self._look(name)
            if generation := self._generations[name]:
                with suppress(exceptions.NotFound):
                    self._blob(name).delete(if_generation_match=generation, **self._storage.options)
            self._generations[name] = 0

        with _translate_errors(self.uri, WRITE):
            self._storage.run([partial(remove, name) for name in names])

    def _blob(self, name: str) -> Blob:
        blob = self._storage.client.bucket(self.bucket).blob(self.below + name, chunk_size=CHUNK_BYTES)
        blob.cache_control = "no-cache"  # otherwise a public object is served from a cache for an hour
        return blob

    def _look(self, name: str) -> Blob | None:
        blob = self._storage.client.bucket(self.bucket).get_blob(self.below + name, **self._storage.options)
        self._generations[name] = blob.generation if blob else 0
        return blob

    def _read(self, name: str) -> str | None:
        blob = self._look(name)
        return blob and blob.download_as_bytes(**self._storage.options).decode(errors="replace")

    def _holds(self, name: str, path: Path, sha256: str) -> bool:
        """Return whether an object has the content of a file, according to our hash and the hash of the server."""
        blob = self._look(name)
        if blob is None or blob.size != path.stat().st_size or (blob.metadata or {}).get("sha256") != sha256:
            return False
        if path not in self._crc32c:
            checksum = google_crc32c.Checksum()
            with path.open("rb") as file:
                for _ in checksum.consume(file, 1 << 20):
                    self._storage.watch.step()
            self._crc32c[path] = _base64(checksum)
        return blob.crc32c == self._crc32c[path]

    def _upload(self, name: str, path: Path, sha256: str) -> None:
        for attempts_left in reversed(range(MAX_UPLOAD_ATTEMPTS)):
            blob = self._blob(name)
            blob.metadata = {"sha256": sha256}
            try:
                with path.open("rb") as file:
                    blob.upload_from_file(
                        file,
                        size=path.stat().st_size,
                        content_type=mimetypes.guess_type(name)[0],
                        if_generation_match=self._generations[name],
                        checksum="crc32c",
                        **self._storage.options,
                    )
                return
            except exceptions.PreconditionFailed:
                if self._holds(name, path, sha256):  # an attempt whose answer was lost has written it
                    return
                raise
            except (exceptions.Forbidden, exceptions.Unauthorized):
                raise
            except DataCorruption:
                self._generations[name] = 0  # the client has removed it
                if not attempts_left:
                    raise
            except (exceptions.GoogleAPICallError, ValueError):  # ValueError: less arrived than was sent
                if not attempts_left:
                    raise


class Objects:
    """A store for checkpoints: objects below `gs://bucket/prefix`, which are written atomically.

    Each call opens a connection: calls are minutes apart, and an outage breaks a connection permanently.

    Args:
        uri: the address. A small object is written immediately, so that a missing permission is detected before hours
            of work.

    Raises:
        UserError: an object cannot be read, or the first one cannot be written. If a later checkpoint cannot be
            written, a warning is printed and the previous one stays the last.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.bucket, prefix = split_uri(uri)
        self.below = f"{prefix}/" if prefix else ""
        self._write("started", b"")

    def write(self, name: str, data: bytes) -> None:
        """See `Store`."""
        try:
            self._write(name, data)
        except UserError as error:
            log_line("checkpoints", f"warning: not written ({error}); the previous one is kept")

    def read(self, name: str) -> bytes | None:
        """See `Store`."""
        with _translate_errors(self.uri, READ):
            storage = _Connection()

            def read() -> bytes | None:
                blob = storage.client.bucket(self.bucket).get_blob(self.below + name, **storage.options)
                if blob is None:
                    return None
                buffer = io.BytesIO()  # written block by block: progress is visible to the watch
                blob.download_to_file(_Sink(buffer, storage.watch), checksum="crc32c", **storage.options)
                return buffer.getvalue()

            return storage.call(read)

    def _write(self, name: str, data: bytes) -> None:
        with _translate_errors(self.uri, WRITE):
            storage = _Connection()

            def upload() -> None:
                blob = storage.client.bucket(self.bucket).blob(self.below + name, chunk_size=CHUNK_BYTES)
                blob.upload_from_string(data, checksum="crc32c", **storage.options)

            storage.call(partial(_repeat_upload, upload))


def checkpoint_store(address: str, name: str) -> Store:
    """Return a store for the checkpoints of one training.

    Args:
        address: a folder, which is created if needed, or `gs://bucket/prefix`.
        name: name of the training, a folder below the address.

    Raises:
        UserError: the address is of another kind, or is not writable.
    """
    if address.startswith("gs://"):
        return Objects(f"{address.rstrip('/')}/{name}")
    if "://" in address:
        raise UserError(
            f"checkpoints is {address!r}, an unknown kind of address",
            "give a folder, gs://bucket/prefix or none",
            "checkpoints.invalid_address",
            value=address,
        )
    return Folder(Path(address) / name)


def checkpoint_address(option: str, artifact: str, environment: Mapping[str, str]) -> str:
    """Return the location of a run's checkpoints; empty if there is none.

    Args:
        option: `auto`, `none` or `gs://bucket/prefix`, below which each run has a folder.
        artifact: the address of an artifact of the run. On a cluster `auto` is beside it.
        environment: environment variables. COUNTERWEIGHT_CHECKPOINTS is the folder of `auto` in a local run, unset on a
            cluster; COUNTERWEIGHT_RUN is the run's id, which is a part of `artifact`, and unset in a local run.

    Raises:
        UserError: `checkpoints.invalid_address`.
    """
    folder, run = environment.get("COUNTERWEIGHT_CHECKPOINTS", ""), environment.get("COUNTERWEIGHT_RUN", "")
    if option == "none":
        return ""
    if option == "auto":
        root, separator, _ = artifact.partition(f"/{run}/")
        if not folder and not (artifact.startswith("gs://") and run and separator):
            scheme = artifact.partition("://")[0]
            log_line("checkpoints", f"disabled: artifacts are at {scheme}://, and checkpoints require gs://")
            return ""
        return folder or f"{root}/{run}/checkpoints"
    if not option.startswith("gs://"):
        raise UserError(
            f"checkpoints is {option!r}", "choose auto, none or gs://bucket/prefix", "checkpoints.invalid_address"
        )
    split_uri(option)
    return f"{option.rstrip('/')}/{run}".rstrip("/")


def _repeat_upload(upload: Callable[[], None]) -> None:
    """Upload again if the server lost the session, or received less than was sent."""
    for attempts_left in reversed(range(MAX_UPLOAD_ATTEMPTS)):
        try:
            upload()
            return
        except (exceptions.Forbidden, exceptions.Unauthorized):
            raise
        except (exceptions.GoogleAPICallError, DataCorruption):
            if not attempts_left:
                raise
        except ValueError as error:  # how the client reports that less arrived than was sent
            if not attempts_left:
                raise DataCorruption(None, str(error)) from error


class UnansweredError(UserError):
    """Object storage did not answer a request."""

    retryable = True


def _is_relative_file(name: str) -> bool:
    """Return whether an object's name, which is untrusted input, is that of a file below a folder."""
    path = PurePosixPath(name)
    is_a_file = path.parts and not name.endswith("/")  # a "folder" is an object with a slash at its end
    return bool(is_a_file and not path.is_absolute() and ".." not in path.parts and "\0" not in name)


def _base64(checksum: google_crc32c.Checksum) -> str:
    """Return a checksum in the notation of object storage."""
    return base64.b64encode(checksum.digest()).decode()


class _StalledError(Exception):
    """No progress for STALL_S."""


class _StoppedError(Exception):
    """Stops a thread whose call has failed."""


class _Watch:
    """Progress of the threads of one call.

    Args:
        clock: returns seconds; tests replace it.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.clock = clock or CLOCK
        self.bytes = 0
        self.stopped = False
        self.error: Exception | None = None
        """The last error that was followed by another attempt."""
        self.since: dict[int, float] = {}
        """Active thread → time of its last progress."""
        self._sent: dict[int, int] = {}
        """Thread → bytes of the current request's body that were sent in any attempt."""
        self._lock = threading.Lock()

    def step(self, count: int = 0) -> None:
        """Record progress of the calling thread: received bytes, or a finished request."""
        self._record_progress(count)
        self._sent[threading.get_ident()] = 0

    def sent(self, position: int) -> None:
        """Record how much of a request's body is sent; what an earlier attempt sent is no progress."""
        before = self._sent.get(threading.get_ident(), 0)
        if position > before:
            self._record_progress(position - before)
            self._sent[threading.get_ident()] = position

    def _record_progress(self, count: int) -> None:
        self.check()
        with self._lock:
            self.bytes += count
        self.since[threading.get_ident()] = self.clock()

    def stalled(self) -> bool:
        """Return whether a thread has made no progress for STALL_S."""
        now = self.clock()
        return now - min(self.since.copy().values(), default=now) > STALL_S

    def failed(self, error: Exception) -> None:
        """Record an error that is followed by another attempt."""
        self.check()
        self.error = error

    def check(self) -> None:
        """Stop the calling thread if the call has failed."""
        if self.stopped:
            raise _StoppedError


class _Body(io.BytesIO):
    """A request's body that is sent block by block, each with TIMEOUT_S; bytes would be sent as one block."""

    def __init__(self, body: bytes, watch: _Watch) -> None:
        super().__init__(body)
        self.watch, self.position = watch, 0

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self.position += len(block)
        self.watch.sent(self.position)
        return block

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self.position = super().seek(offset, whence)
        return self.position


class _Adapter(HTTPAdapter):
    """Reports each sent block and each complete answer to the watch."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__(pool_maxsize=MAX_PARALLEL_REQUESTS)
        self.watch = watch

    def send(self, request: requests.PreparedRequest, stream: bool = False, **more: Any) -> requests.Response:
        if isinstance(request.body, bytes):
            request = request.copy()  # another attempt reads the body again
            request.body = _Body(request.body, self.watch)
        response = super().send(request, stream=stream, **more)
        if not stream and response.content is not None and response.ok:
            self.watch.step()
        return response


class _Sink:
    """The file of a download; computes its checksum and reports progress."""

    def __init__(self, file: BinaryIO, watch: _Watch) -> None:
        self.file, self.watch, self.crc32c = file, watch, google_crc32c.Checksum()

    def write(self, block: bytes) -> int:
        self.watch.step(len(block))
        self.crc32c.update(block)
        return self.file.write(block)


class _Connection:
    """A client and the threads that use it."""

    def __init__(self) -> None:
        self.watch = _Watch()
        retry = DEFAULT_RETRY.with_timeout(None).with_delay(initial=RETRY_DELAY_S, maximum=2)  # `run` limits it
        self.options = {"retry": partial(retry, on_error=self.watch.failed), "timeout": TIMEOUT_S}
        self.client = self.call(self._connect)

    def _connect(self) -> Client:
        client = Client(project=None)  # the search for credentials may take long; no project is required
        client._bucket_metadata_cache = None  # tracing would read the bucket, which requires another permission
        for scheme in ("http://", "https://"):
            client._http.mount(scheme, _Adapter(self.watch))
        return client

    def call(self, job: Callable[[], Any]) -> Any:
        """Run one job and return its result."""
        return self.run([job])[0]

    def run(self, jobs: Sequence[Callable[[], Any]], label: str = "", total: int = 0) -> list[Any]:
        """Run jobs in threads and return their results; the first error stops all.

        Args:
            jobs: make requests with `options` through `client`.
            label: start of each progress line; empty for no progress.
            total: bytes of all jobs.

        Raises:
            _StalledError: a thread has made no progress for STALL_S.
        """
        todo = queue.SimpleQueue[tuple[int, Callable[[], Any]]]()
        for numbered in enumerate(jobs):
            todo.put(numbered)
        results: dict[int, Any] = {}
        finished = queue.SimpleQueue[BaseException | None]()

        def work() -> None:
            error: BaseException | None = None
            try:
                while not todo.empty():
                    self.watch.step()
                    number, job = todo.get_nowait()
                    results[number] = job()
            except queue.Empty:  # another thread took the last job
                pass
            except BaseException as raised:
                error = raised
            self.watch.since.pop(threading.get_ident(), None)
            finished.put(error)

        self.watch.bytes, self.watch.error = 0, None
        progress = Progress(label, total / 1e6, "MB")
        # Daemons: a thread that hangs in a system call must not keep the process alive.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(MAX_PARALLEL_REQUESTS, len(jobs)))]
        for thread in threads:
            thread.start()
        try:
            running = len(threads)
            while running:
                try:
                    error = finished.get(timeout=POLL_S)
                except queue.Empty:
                    if self.watch.stalled():
                        raise _StalledError from self.watch.error
                    if label and self.watch.bytes < total:
                        progress.update(self.watch.bytes / 1e6)
                    continue
                if error:
                    raise error
                running -= 1
        except BaseException:
            self.watch.stopped = True
            for thread in threads:
                thread.join(0.05)
            raise
        if label and jobs:
            progress.update(progress.total)
        return [results[number] for number in range(len(jobs))]

    def download(self, blob: Blob, path: Path) -> None:
        """Download an object in the generation that was listed."""
        packed = blob.content_encoding == "gzip"  # then the client unpacks and verifies
        crc32c = blob.crc32c  # the answer's headers replace the attribute
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                sink = _Sink(file, self.watch)
                blob.download_to_file(sink, checksum="crc32c" if packed else None, **self.options)
        except exceptions.NotFound as error:
            raise self._changed_error(blob, "was replaced or removed during the download") from error
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
                raise
            uri = f"gs://{blob.bucket.name}/{blob.name[:80]}"
            raise UserError(
                f"{uri} cannot be a file on this machine ({error.strerror})", "rename it", "storage.bad_name", uri=uri
            ) from error
        if not packed and _base64(sink.crc32c) != crc32c:
            raise self._changed_error(blob, "does not have the checksum that was listed")

    @staticmethod
    def _changed_error(blob: Blob, problem: str) -> UserError:
        uri = f"gs://{blob.bucket.name}/{blob.name}"
        hint = "rerun the command when nothing writes to the bucket"
        return UserError(f"{uri} {problem}", hint, "storage.changed", uri=uri)


@contextmanager
def _translate_errors(uri: str, access: str) -> Iterator[None]:
    """Turn what a request may raise into user errors.

    Args:
        uri: what the message begins with.
        access: `READ` or `WRITE`; decides which role the hint names.
    """

    def user_error(problem: str, hint: str, code: str) -> UserError:
        return UserError(f"{uri}: {problem}", hint, f"storage.{code}", uri=uri)

    check = "check the bucket's name and the prefix"
    try:
        yield
    except exceptions.NotFound as error:
        raise user_error("not found", check, "not_found") from error
    except exceptions.BadRequest as error:
        raise user_error("the request was rejected as invalid", check, "bad_request") from error
    except exceptions.PreconditionFailed as error:
        hint = "rerun the command when the other writer has finished"
        raise user_error("another program is writing there at the same time", hint, "concurrent_write") from error
    except exceptions.Forbidden as error:
        hint = f"give this account the role {_ROLES[access]} on the bucket"
        raise user_error(f"no permission to {access}", hint, "no_permission") from error
    except (exceptions.Unauthorized, GoogleAuthError) as error:
        if isinstance(error, TransportError):
            raise _no_answer(uri, error) from error
        hint = "run `gcloud auth application-default login`, or use Workload Identity"
        raise user_error("no valid Google credentials were found", hint, "no_credentials") from error
    except (_StalledError, exceptions.GoogleAPICallError, requests.RequestException, DataCorruption) as error:
        raise _no_answer(uri, error) from error


def _no_answer(uri: str, error: BaseException) -> UnansweredError:
    cause = error.__cause__ or error if isinstance(error, _StalledError) else error
    reason = f"nothing received for {STALL_S} s" if isinstance(cause, _StalledError) else type(cause).__name__
    return UnansweredError(
        f"{uri}: object storage did not answer ({reason})",
        "check the network and rerun the command",
        "storage.no_answer",
        uri=uri,
        reason=reason,
    )
