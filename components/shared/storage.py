"""Object storage: the only place that imports google-cloud-storage.

A call ends in one of two ways, however large the data are: what was asked for, or a `UserError` at most `STALL_S` after
the last byte that moved. Requests that failed for a moment (429, 5xx, a dropped connection) are repeated for as long.

The client's own `transfer_manager` is not used: after a failure it goes on with all other files, its deadline is one
for the whole, however large, and it neither says how far it is nor checks what a repeated request brought.
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
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

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
"""How long one attempt at a request may hear nothing, or not get rid of a block of its body."""
STALL_S = 16
"""How long a thread may go without a step forward, all attempts together, before the whole call is given up."""
PARALLEL = 8
"""Requests at a time."""
CHUNK = 8 << 20
"""Bytes of a large file that are in memory, and sent again if need be; each thread holds one such piece at the most."""
ATTEMPTS = 3
"""At one file, where the server has lost, or found damaged, what it had got of it."""

READ = "read; give this account the role Storage Object Viewer on the bucket"
WRITE = "write; give this account the role Storage Object User on the bucket"


def split_uri(uri: str) -> tuple[str, str]:
    """`gs://bucket/some/prefix` as (`bucket`, `some/prefix`).

    Raises:
        UserError: it is not of that form.
    """
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket:
        raise UserError(f"{uri} is not an object storage address; write gs://bucket/prefix.")
    return bucket, prefix.strip("/")


def download_folder(uri: str, folder: Path) -> None:
    """Downloads all objects below a prefix into a folder, several at a time, in the generation that was listed and
    checked against its checksum.

    Raises:
        UserError: no such bucket, no permission, no credentials, no connection, nothing below the prefix, or an object
            was replaced or removed meanwhile.
    """
    bucket, prefix = split_uri(uri)
    below = f"{prefix}/" if prefix else ""
    with _told(uri, READ):
        storage = _Connection()
        fields = "items(name,generation,size,crc32c,contentEncoding),nextPageToken"
        asked = partial(storage.client.list_blobs, bucket, prefix=below, fields=fields, **storage.options)
        listed = storage.once(lambda: list(asked()))
        wanted = [blob for blob in listed if _stays_below(blob.name.removeprefix(below))]
        if not wanted:
            raise UserError(f"{uri}: nothing stands below this prefix; check its spelling.")
        jobs = [partial(storage.download, blob, folder / blob.name.removeprefix(below)) for blob in wanted]
        storage.run(jobs, f"download {uri}", sum(blob.size for blob in wanted))


def download_file(uri: str, path: str | Path) -> None:
    """Downloads one object to a file, whole or not at all.

    Raises:
        UserError: as `download_folder`, or there is no such object.
    """
    bucket, name = split_uri(uri)
    with _told(uri, READ):
        storage = _Connection()
        blob = storage.once(lambda: storage.client.bucket(bucket).get_blob(name, **storage.options)) if name else None
        if blob is None:
            raise UserError(f"{uri}: there is no such object; check the bucket's name and the path.")
        with atomic_write(path) as part:
            storage.run([partial(storage.download, blob, part)], f"download {uri}", blob.size)


class Prefix:
    """A place to publish to: the objects below `gs://bucket/prefix`.

    Whatever is written or removed must be as it was when it was last looked at here: a change that another has made
    meanwhile is an error, never overwritten.

    Args:
        uri: the address.

    Raises:
        UserError: from every method: no such bucket, no permission, no credentials, no connection, or another writes to
            the same prefix.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.bucket, prefix = split_uri(uri)
        self.below = f"{prefix}/" if prefix else ""
        with _told(uri, WRITE):
            self._storage = _Connection()
        self._generations: dict[str, int] = {}
        """Of each object as it was seen last; 0 where there was none."""
        self._crc32c: dict[Path, str] = {}

    def read(self, name: str) -> str | None:
        """An object's text; None where there is none."""
        with _told(self.uri, WRITE):
            return self._storage.once(partial(self._read, name))

    def held(self, wanted: Mapping[str, tuple[Path, str]]) -> set[str]:
        """The names of those objects that are there already with the content wanted.

        Args:
            wanted: name → (file, its SHA-256).
        """
        with _told(self.uri, WRITE):
            found = self._storage.run([partial(self._holds, name, *source) for name, source in wanted.items()])
        return {name for name, there in zip(wanted, found, strict=True) if there}

    def put(self, wanted: Mapping[str, tuple[Path, str]]) -> None:
        """Uploads files, several at a time, with their SHA-256 as metadata."""
        with _told(self.uri, WRITE):
            jobs = [partial(self._upload, name, *source) for name, source in wanted.items()]
            self._storage.run(jobs, f"upload {self.uri}", sum(path.stat().st_size for path, _ in wanted.values()))

    def write(self, name: str, text: str) -> None:
        """Writes a small object, at once."""

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
                if self._read(name) != text:  # else an attempt whose answer was lost has written it
                    raise

        with _told(self.uri, WRITE):
            self._storage.once(write)

    def remove(self, names: Collection[str]) -> None:
        """Removes objects; those that are not there are left at that."""

        def remove(name: str) -> None:
            if name not in self._generations:
                self._look(name)
            if generation := self._generations[name]:
                with suppress(exceptions.NotFound):
                    self._blob(name).delete(if_generation_match=generation, **self._storage.options)
            self._generations[name] = 0

        with _told(self.uri, WRITE):
            self._storage.run([partial(remove, name) for name in names])

    def _blob(self, name: str) -> Blob:
        blob = self._storage.client.bucket(self.bucket).blob(self.below + name, chunk_size=CHUNK)
        blob.cache_control = "no-cache"  # a public object is else served from a cache for an hour
        return blob

    def _look(self, name: str) -> Blob | None:
        blob = self._storage.client.bucket(self.bucket).get_blob(self.below + name, **self._storage.options)
        self._generations[name] = blob.generation if blob else 0
        return blob

    def _read(self, name: str) -> str | None:
        blob = self._look(name)
        return blob and blob.download_as_bytes(**self._storage.options).decode(errors="replace")

    def _holds(self, name: str, path: Path, sha256: str) -> bool:
        """Whether an object holds a file: our hash for what it should be, the server's for what it is."""
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
        for attempts_left in reversed(range(ATTEMPTS)):
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
            except (exceptions.GoogleAPICallError, ValueError):  # the client's word for "less arrived than was sent"
                if not attempts_left:
                    raise


class Objects:
    """A place for checkpoints: objects below `gs://bucket/prefix`. An object is there whole or not at all.

    Each call has a connection of its own: it comes minutes after the last, and an outage ends a connection for good.

    Args:
        uri: the address. It is written to at once: what can't be comes out before hours of work.

    Raises:
        UserError: what is there can't be read; or at the start nothing can be written. When a later checkpoint can't be
            kept, that is said, and the one before it stays the last.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.bucket, prefix = split_uri(uri)
        self.below = f"{prefix}/" if prefix else ""
        self._write("begun", b"")

    def write(self, name: str, data: bytes) -> None:
        """See `Store`."""
        try:
            self._write(name, data)
        except UserError as error:
            log_line("checkpoints", f"warning: this one could not be kept ({error})")

    def read(self, name: str) -> bytes | None:
        """See `Store`."""
        with _told(self.uri, READ):
            storage = _Connection()

            def read() -> bytes | None:
                blob = storage.client.bucket(self.bucket).get_blob(self.below + name, **storage.options)
                if blob is None:
                    return None
                buffer = io.BytesIO()  # written block by block, so that a slow one is not taken for none
                blob.download_to_file(_Sink(buffer, storage.watch), checksum="crc32c", **storage.options)
                return buffer.getvalue()

            return storage.once(read)

    def _write(self, name: str, data: bytes) -> None:
        with _told(self.uri, WRITE):
            storage = _Connection()

            def upload() -> None:
                blob = storage.client.bucket(self.bucket).blob(self.below + name, chunk_size=CHUNK)
                blob.upload_from_string(data, checksum="crc32c", **storage.options)

            storage.once(partial(_repeated, upload))


def checkpoint_store(address: str, name: str) -> Store:
    """A place for the checkpoints of one piece of work.

    Args:
        address: a folder, made where it does not exist, or `gs://bucket/prefix`.
        name: of the work, below the address.

    Raises:
        UserError: the address is of another kind, or can't be written.
    """
    if address.startswith("gs://"):
        return Objects(f"{address.rstrip('/')}/{name}")
    if "://" in address:
        raise UserError(f"{address}: checkpoints can't be kept there; give a folder, gs://bucket/prefix or none.")
    return Folder(Path(address) / name)


def checkpoint_address(asked: str, artifact: str, environment: Mapping[str, str]) -> str:
    """Where a run's checkpoints are kept, empty for nowhere.

    Args:
        asked: `auto`, `none` or `gs://bucket/prefix`, below which each run has a folder of its own.
        artifact: the address of an artifact of the run. On a cluster `auto` means beside it.
        environment: of the process. COUNTERWEIGHT_CHECKPOINTS is what `auto` means in a local run, and absent on a
            cluster; COUNTERWEIGHT_RUN the run's id, which is a part of `artifact`, and absent in a local run.

    Raises:
        UserError: `asked` is none of these.
    """
    folder, run = environment.get("COUNTERWEIGHT_CHECKPOINTS", ""), environment.get("COUNTERWEIGHT_RUN", "")
    if asked == "none":
        return ""
    if asked == "auto":
        root, found, _ = artifact.partition(f"/{run}/")
        if not folder and not (artifact.startswith("gs://") and run and found):
            log_line(
                "checkpoints", f"none are kept, since artifacts are at {artifact.partition('://')[0]}:// and not gs://"
            )
            return ""
        return folder or f"{root}/{run}/checkpoints"
    if not asked.startswith("gs://"):
        raise UserError(f"checkpoints is {asked!r}; choose auto, none or gs://bucket/prefix.")
    split_uri(asked)
    return f"{asked.rstrip('/')}/{run}".rstrip("/")


def _repeated(upload: Callable[[], None]) -> None:
    """Does an upload again where the server forgot its session, or less arrived than was sent."""
    for attempts_left in reversed(range(ATTEMPTS)):
        try:
            upload()
            return
        except (exceptions.Forbidden, exceptions.Unauthorized):
            raise
        except (exceptions.GoogleAPICallError, DataCorruption):
            if not attempts_left:
                raise
        except ValueError as error:  # the client's word for "less arrived than was sent"
            if not attempts_left:
                raise DataCorruption(None, str(error)) from error


class UnansweredError(UserError):
    """Object storage was asked, and nothing came."""


def _stays_below(name: str) -> bool:
    """Whether an object's name can be a file's below a folder: another chose it, and one with `..` would leave it."""
    path = PurePosixPath(name)
    is_a_file = path.parts and not name.endswith("/")  # a "folder" is an object with a slash at its end
    return bool(is_a_file and not path.is_absolute() and ".." not in path.parts and "\0" not in name)


def _base64(checksum: google_crc32c.Checksum) -> str:
    """As object storage writes a checksum."""
    return base64.b64encode(checksum.digest()).decode()


class _StalledError(Exception):
    """Nothing has moved for STALL_S."""


class _StoppedError(Exception):
    """Ends a thread whose work nobody waits for any more."""


class _Watch:
    """What the threads of one call have moved, and when each of them last got on."""

    def __init__(self) -> None:
        self.bytes = 0
        self.stopped = False
        self.error: Exception | None = None
        """The last failure that led to another attempt."""
        self.since: dict[int, float] = {}
        """Thread at work → the time of its last step forward."""
        self._sent: dict[int, int] = {}
        """Thread → how much of the present request's body has been sent, in any attempt."""
        self._lock = threading.Lock()

    def step(self, count: int = 0) -> None:
        """The calling thread got on: so many bytes came, or a request is done."""
        self._moved(count)
        self._sent[threading.get_ident()] = 0

    def sent(self, position: int) -> None:
        """So much of a request's body is sent; what an earlier attempt has sent before is no step forward."""
        before = self._sent.get(threading.get_ident(), 0)
        if position > before:
            self._moved(position - before)
            self._sent[threading.get_ident()] = position

    def _moved(self, count: int) -> None:
        self.check()
        with self._lock:
            self.bytes += count
        self.since[threading.get_ident()] = time.monotonic()

    def failed(self, error: Exception) -> None:
        """An attempt failed, and another follows."""
        self.check()
        self.error = error

    def check(self) -> None:
        """Ends the calling thread if the call has been given up."""
        if self.stopped:
            raise _StoppedError


class _Body(io.BytesIO):
    """A request's body, read block by block: bytes would be sent as one, and have one TIMEOUT_S for all of it."""

    def __init__(self, body: bytes, watch: _Watch) -> None:
        super().__init__(body)
        self.watch = watch

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self.watch.sent(self.tell())
        return block


class _Adapter(HTTPAdapter):
    """Tells the watch of each block that is sent and each answer that has come whole."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__(pool_maxsize=PARALLEL)
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
    """A file that a download is written to."""

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
        retry = DEFAULT_RETRY.with_timeout(None).with_delay(initial=0.3, maximum=2)  # `run` is what ends it
        self.options = {"retry": partial(retry, on_error=self.watch.failed), "timeout": TIMEOUT_S}
        self.client = self.once(self._connected)

    def _connected(self) -> Client:
        client = Client(project=None)  # looks for credentials, which may take long; reading and writing need no project
        client._bucket_metadata_cache = None  # asks for the bucket (for tracing), which an account need not be allowed
        for scheme in ("http://", "https://"):
            client._http.mount(scheme, _Adapter(self.watch))
        return client

    def once(self, job: Callable[[], Any]) -> Any:
        """Does one job, and returns what it returns."""
        return self.run([job])[0]

    def run(self, jobs: Sequence[Callable[[], Any]], label: str = "", total: int = 0) -> list[Any]:
        """Does jobs in threads, says how far they are, and returns what they return; the first error ends all.

        Args:
            jobs: make requests with `options` through `client`.
            label: what a line of progress begins with; none is said without it.
            total: the bytes of all jobs.

        Raises:
            _StalledError: a thread has not got on for STALL_S.
        """
        todo = queue.SimpleQueue[tuple[int, Callable[[], Any]]]()
        for numbered in enumerate(jobs):
            todo.put(numbered)
        results: dict[int, Any] = {}
        ended = queue.SimpleQueue[BaseException | None]()

        def work() -> None:
            error: BaseException | None = None
            try:
                while not todo.empty():
                    self.watch.step()
                    number, job = todo.get_nowait()
                    results[number] = job()
            except queue.Empty:  # another thread was quicker
                pass
            except BaseException as raised:
                error = raised
            self.watch.since.pop(threading.get_ident(), None)
            ended.put(error)

        self.watch.bytes, self.watch.error = 0, None
        progress = Progress(label, total / 1e6, "MB")
        # Daemons: one that hangs in a system call must not keep the process from ending.
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(PARALLEL, len(jobs)))]
        for thread in threads:
            thread.start()
        try:
            running = len(threads)
            while running:
                try:
                    error = ended.get(timeout=0.2)
                except queue.Empty:
                    now = time.monotonic()
                    if now - min(self.watch.since.copy().values(), default=now) > STALL_S:
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
        """Downloads the generation of an object that was listed."""
        packed = blob.content_encoding == "gzip"  # then it is the client that unpacks and checks
        crc32c = blob.crc32c  # the answer's headers replace it
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                sink = _Sink(file, self.watch)
                blob.download_to_file(sink, checksum="crc32c" if packed else None, **self.options)
        except exceptions.NotFound as error:
            raise UserError(
                f"gs://{blob.bucket.name}/{blob.name} was replaced or removed while it was read; run the same command "
                "again when nothing writes there."
            ) from error
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
                raise
            raise UserError(
                f"gs://{blob.bucket.name}/{blob.name[:80]} can't become a file here ({error.strerror}); rename it."
            ) from error
        if not packed and _base64(sink.crc32c) != crc32c:
            raise UserError(
                f"gs://{blob.bucket.name}/{blob.name} did not arrive as it was listed (its checksum is another); run "
                "the same command again when nothing writes there."
            )


@contextmanager
def _told(uri: str, permission: str) -> Iterator[None]:
    """Turns what a request may raise into a sentence.

    Args:
        uri: what the sentence begins with.
        permission: what an account needs that is refused.
    """
    try:
        yield
    except exceptions.NotFound as error:
        raise UserError(f"{uri}: not found; check the bucket's name and the prefix.") from error
    except exceptions.BadRequest as error:
        raise UserError(f"{uri}: refused as a bad request; check the bucket's name and the prefix.") from error
    except exceptions.PreconditionFailed as error:
        raise UserError(
            f"{uri}: something else writes there at the same time; run the same command again when it has ended."
        ) from error
    except exceptions.Forbidden as error:
        raise UserError(f"{uri}: no permission to {permission}.") from error
    except (exceptions.Unauthorized, GoogleAuthError) as error:
        if isinstance(error, TransportError):
            raise UnansweredError(_no_answer(uri, error)) from error
        raise UserError(
            f"{uri}: no valid Google credentials were found; run `gcloud auth application-default login`, or use "
            "Workload Identity."
        ) from error
    except (_StalledError, exceptions.GoogleAPICallError, requests.RequestException, DataCorruption) as error:
        raise UnansweredError(_no_answer(uri, error)) from error


def _no_answer(uri: str, error: BaseException) -> str:
    cause = error.__cause__ or error if isinstance(error, _StalledError) else error
    reason = "nothing came" if isinstance(cause, _StalledError) else type(cause).__name__
    return (
        f"{uri}: object storage did not answer as it should ({reason}); check the network and run the same command "
        "again."
    )
