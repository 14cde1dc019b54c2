"""Google Cloud Storage: the only module that imports google-cloud-storage.

The client's `transfer_manager` is not used: after a failure it continues with all other files, it has one deadline for
the whole transfer, it reports no progress, and it does not verify what a repeated request returned.
"""

import base64
import io
import mimetypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import requests
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from components.shared.errors import printable
from components.shared.stores import transfer
from components.shared.stores.addresses import Address
from components.shared.stores.protocol import (
    ABSENT,
    CertificatesError,
    ChangedError,
    ConflictError,
    CredentialsError,
    DamagedError,
    Entry,
    ForbiddenError,
    MissingError,
    RejectedError,
    TemporaryError,
    TooLargeError,
)
from components.shared.stores.transfer import Watch


class GoogleStore:
    """A bucket; see `ObjectStore`. Versions are generations.

    Args:
        address: the bucket is used.
        watch: receives the progress.
    """

    checks_conditions = True

    def __init__(self, address: Address, watch: Watch) -> None:
        self.watch = watch
        retry = DEFAULT_RETRY.with_timeout(None)  # `transfer.run` limits it
        retry = retry.with_delay(initial=transfer.RETRY_DELAY_S, maximum=transfer.MAX_RETRY_DELAY_S)
        self._options = {"retry": partial(retry, on_error=self._failed), "timeout": transfer.TIMEOUT_S}
        with _neutral_errors():
            client = Client(project=None)  # the search for credentials may take long; no project is required
            client._bucket_metadata_cache = None  # tracing would read the bucket, which requires another permission
            for scheme in ("http://", "https://"):
                client._http.mount(scheme, _Adapter(watch))
            self._bucket = client.bucket(address.bucket)
        self._crc32c: dict[Path, str] = {}

    def list(self, below: str) -> list[Entry]:
        """See `ObjectStore`."""
        fields = "items(name,generation,size,updated,crc32c,contentEncoding),nextPageToken"
        with _neutral_errors():
            return [_entry(blob) for blob in self._bucket.list_blobs(prefix=below, fields=fields, **self._options)]

    def look(self, name: str) -> Entry | None:
        """See `ObjectStore`."""
        with _neutral_errors():
            blob = self._bucket.get_blob(name, **self._options)
        return blob and _entry(blob)

    def download(self, entry: Entry, file: BinaryIO) -> None:
        """See `ObjectStore`."""
        blob = self._bucket.blob(entry.name, generation=int(entry.version))
        sink = _Sink(file, self.watch, entry)
        try:
            with _neutral_errors():  # of a packed object the client verifies the checksum
                blob.download_to_file(sink, checksum="crc32c" if entry.packed else None, **self._options)
        except MissingError as error:
            raise ChangedError("was replaced or removed during the download") from error
        if not entry.packed and _base64(sink.crc32c) != entry.checksum:
            raise ChangedError("does not have the checksum that was listed")

    def read_range(self, entry: Entry, start: int, length: int) -> bytes:
        """See `ObjectStore`."""
        blob = self._bucket.blob(entry.name, generation=int(entry.version))
        try:
            with _neutral_errors():
                # The checksum of the store is that of the whole object.
                return blob.download_as_bytes(start=start, end=start + length - 1, checksum=None, **self._options)
        except MissingError as error:
            raise ChangedError("was replaced or removed while it was read") from error

    def write(self, name: str, data: bytes, version: str | None) -> str:
        """See `ObjectStore`."""
        blob = self._blob(name)
        try:
            with _neutral_errors():
                content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
                blob.upload_from_string(data, content_type, checksum="crc32c", **self._condition(version))
        except ValueError as error:  # how the client reports that less arrived than was sent
            raise TemporaryError(str(error)) from error
        return str(blob.generation)

    def upload(self, name: str, path: Path, sha256: str, version: str) -> None:
        """See `ObjectStore`."""
        blob = self._blob(name)
        blob.metadata = {"sha256": sha256}
        try:
            with _neutral_errors(), path.open("rb") as file:
                blob.upload_from_file(
                    file,
                    size=path.stat().st_size,
                    content_type=mimetypes.guess_type(name)[0],
                    checksum="crc32c",
                    **self._condition(version),
                )
        except ValueError as error:
            raise TemporaryError(str(error)) from error

    def delete(self, name: str, version: str) -> None:
        """See `ObjectStore`."""
        if version != ABSENT:
            with suppress(MissingError), _neutral_errors():
                self._blob(name).delete(**self._condition(version))

    def holds(self, entry: Entry, path: Path, sha256: str) -> bool:
        """See `ObjectStore`; compares our hash and the hash of the server."""
        if entry.size != path.stat().st_size or entry.sha256 != sha256:
            return False
        if path not in self._crc32c:
            checksum = google_crc32c.Checksum()
            with path.open("rb") as file:
                for _ in checksum.consume(file, 1 << 20):
                    self.watch.step()
            self._crc32c[path] = _base64(checksum)
        return entry.checksum == self._crc32c[path]

    def _blob(self, name: str) -> Blob:
        blob = self._bucket.blob(name, chunk_size=transfer.CHUNK_BYTES)
        blob.cache_control = "no-cache"  # otherwise a public object is served from a cache for an hour
        return blob

    def _condition(self, version: str | None) -> dict[str, Any]:
        """Return the options of a request that demands a version; generation 0 is that of an absent object."""
        return self._options | ({} if version is None else {"if_generation_match": int(version or 0)})

    def _failed(self, error: Exception) -> None:
        self.watch.failed(TemporaryError(type(error).__name__))


def _entry(blob: Blob) -> Entry:
    return Entry(
        name=blob.name,
        size=blob.size,
        version=str(blob.generation),
        modified=blob.updated,
        sha256=(blob.metadata or {}).get("sha256", ""),
        checksum=blob.crc32c or "",
        packed=blob.content_encoding == "gzip",
    )


def _base64(checksum: google_crc32c.Checksum) -> str:
    """Return a checksum in the notation of object storage."""
    return base64.b64encode(checksum.digest()).decode()


@contextmanager
def _neutral_errors() -> Iterator[None]:
    """Turn the client's exceptions into errors of `protocol`."""
    try:
        yield
    except exceptions.NotFound as error:
        raise MissingError from error
    except exceptions.BadRequest as error:
        raise RejectedError from error
    except exceptions.PreconditionFailed as error:
        raise ConflictError from error
    except exceptions.Forbidden as error:
        raise ForbiddenError from error
    except exceptions.Unauthorized as error:
        raise CredentialsError from error
    except GoogleAuthError as error:
        kind = TemporaryError if isinstance(error, TransportError) else CredentialsError
        raise kind(type(error).__name__) from error
    except DataCorruption as error:  # of an upload: the client has removed it
        raise DamagedError(type(error).__name__) from error
    except (exceptions.GoogleAPICallError, requests.RequestException) as error:
        raise TemporaryError(type(error).__name__) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise CertificatesError(str(error).partition(": ")[2]) from error  # requests names the path after a colon


class _Body(io.BytesIO):
    """A request's body that is sent block by block, each with TIMEOUT_S; bytes would be sent as one block."""

    def __init__(self, body: bytes, watch: Watch) -> None:
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

    def __init__(self, watch: Watch) -> None:
        super().__init__(pool_maxsize=transfer.MAX_PARALLEL_REQUESTS)
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

    def __init__(self, file: BinaryIO, watch: Watch, entry: Entry) -> None:
        self.file, self.watch, self.entry, self.crc32c = file, watch, entry, google_crc32c.Checksum()
        self.length = 0

    def write(self, block: bytes) -> int:
        self.watch.step(len(block))
        self.length += len(block)
        if self.entry.packed and self.length > self.entry.max_bytes:
            raise TooLargeError(f"{printable(self.entry.name[:99])}, {self.entry.size:,} bytes")
        self.crc32c.update(block)
        return self.file.write(block)
