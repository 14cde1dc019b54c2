"""S3 and Azure Blob Storage: the only module that imports obstore.

Neither has a conditional upload of several parts, nor a conditional deletion: before these the version is compared,
and a change between this request and the next one goes unnoticed. Content is protected in transit by TLS and its
length; `manifest.json` has the hashes of what is published.
"""

import mimetypes
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import obstore
from obstore.exceptions import BaseError, InvalidPathError
from obstore.store import AzureStore, S3Store

from components.shared.errors import printable
from components.shared.stores import transfer
from components.shared.stores.access import access
from components.shared.stores.addresses import Address
from components.shared.stores.protocol import (
    ABSENT,
    CertificatesError,
    ChangedError,
    ConflictError,
    CredentialsError,
    Entry,
    ForbiddenError,
    InvalidNameError,
    MissingError,
    RegionError,
    RejectedError,
    StoreError,
    TemporaryError,
    UnconditionalError,
)
from components.shared.stores.transfer import Watch

SINGLE_BYTES = 16 << 20
"""Size up to which an object is written in one, conditional, request; it is in memory for each thread."""
READ_BYTES = 1 << 18
"""Minimum of a block that is received."""

_STATUS = re.compile(r"status code: (\d{3})|\(code: (\d{3})\)")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_CREDENTIAL_CODES = {
    "AuthenticationFailed",
    "AuthorizationFailure",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidAuthenticationInfo",
    "InvalidClientTokenId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
_REGION_CODES = {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
_SIGNS_OF_NO_CREDENTIAL = ("/latest/api/token", "/latest/meta-data", "/metadata/identity", "AssumeRoleWithWebIdentity")
"""Parts of the addresses at which a credential is requested."""
_SIGNS_OF_NO_TOKEN_FILE = ("federated token file", "Failed to read", "az account get-access-token")
"""Parts of what obstore reports if a token cannot be read on this machine."""
_SIGNS_OF_A_TOKEN_REQUEST = ("token request", "POST REDACTED", "//169.254.170.")
"""Parts of what obstore reports if a token cannot be requested; it hides the address of Amazon's token service."""
_MEANING: Mapping[str, type[StoreError]] = {
    **dict.fromkeys(_CREDENTIAL_CODES, CredentialsError),
    **dict.fromkeys(_REGION_CODES, RegionError),
    "BlobArchived": RejectedError,
    "BlobImmutableDueToPolicy": ForbiddenError,
    "ConditionalRequestConflict": TemporaryError,  # the next attempt compares versions again
    "ContainerBeingDeleted": MissingError,
    "OperationAborted": TemporaryError,
}
"""The store's code → error; takes precedence over the status."""
_FINAL: Mapping[int, type[StoreError]] = {
    301: RegionError,
    400: RejectedError,
    401: CredentialsError,
    403: ForbiddenError,
    404: MissingError,
    409: ConflictError,
    412: ConflictError,
    501: UnconditionalError,
}
"""HTTP status → error; others are temporary."""

Result = TypeVar("Result")


class ObstoreStore:
    """A bucket of S3, or a container of Azure; see `ObjectStore`. Versions are ETags.

    Args:
        address: scheme and bucket are used.
        watch: receives the progress.
    """

    def __init__(self, address: Address, watch: Watch) -> None:
        self.watch = watch
        self.checks_conditions = address.scheme == "az"
        self._pause = threading.Event()
        slowest_s = transfer.STALL_S + SINGLE_BYTES // transfer.SLOWEST_BYTES_PER_S
        try:
            # A timeout of reads would also limit how long the body of a write may take.
            self._reads = _open(address, {"timeout": "1day", "read_timeout": timedelta(seconds=transfer.TIMEOUT_S)})
            self._writes = _open(address, {"timeout": timedelta(seconds=slowest_s)})
            self._parts = _open(address, {"timeout": timedelta(seconds=slowest_s)}, _retries())
        except (BaseError, ValueError) as error:
            raise CredentialsError(_first_line(error)) from error

    def list(self, below: str) -> list[Entry]:
        """See `ObjectStore`."""

        def read_pages() -> list[Entry]:
            entries = []
            for page in self._reads.list(below or None):
                self.watch.step()
                entries += [_entry(meta, {}) for meta in page if meta["path"].startswith(below)]
            return entries

        entries = self._repeat(read_pages)
        folders = {name for entry in entries for name in _parents(entry.name)}
        return [entry for entry in entries if entry.size or entry.name not in folders]

    def look(self, name: str) -> Entry | None:
        """See `ObjectStore`."""

        def request() -> Entry:
            answer = self._reads.get(name, options={"head": True})
            return _entry(answer.meta, answer.attributes)

        try:
            return self._repeat(request)
        except MissingError:
            return None
        except (RejectedError, ForbiddenError) as error:  # the answer has no body, and so no reason
            self._repeat(lambda: next(iter(self._reads.list(name)), None))
            raise type(error)(error.reason or printable(name[:99])) from error  # only this object is refused

    def download(self, entry: Entry, file: BinaryIO) -> None:
        """See `ObjectStore`; continues where an answer broke off."""
        position = 0

        def receive() -> None:
            nonlocal position
            options: dict[str, Any] = {"if_match": f'"{entry.version}"'} if entry.version else {}
            if position:
                options["range"] = {"offset": position}
            for block in self._reads.get(entry.name, options=options).stream(min_chunk_size=READ_BYTES):
                file.write(block)
                position += len(block)
                self.watch.step(len(block))
            if position < entry.size:
                raise TemporaryError("the answer was truncated")

        try:
            self._repeat(receive)
        except (MissingError, ConflictError) as error:
            if isinstance(error, MissingError) and not entry.size:
                return  # `name/`, an empty "folder", whose slash obstore drops
            raise ChangedError("was replaced or removed during the download") from error
        if position != entry.size:
            raise ChangedError("does not have the size that was listed")

    def read_range(self, entry: Entry, start: int, length: int) -> bytes:
        """See `ObjectStore`."""
        options: dict[str, Any] = {"range": (start, start + length)}
        options |= {"if_match": f'"{entry.version}"'} if entry.version else {}
        try:
            return self._repeat(lambda: bytes(self._reads.get(entry.name, options=options).bytes()))
        except (MissingError, ConflictError) as error:
            raise ChangedError("was replaced or removed while it was read") from error

    def write(self, name: str, data: bytes, version: str | None) -> str:
        """See `ObjectStore`."""
        if len(data) > SINGLE_BYTES and version is None:
            self._write_parts(name, (data[i : i + transfer.CHUNK_BYTES] for i in _starts(len(data))), "", None)
            return ABSENT
        return self._write_once(name, data, "", version)

    def upload(self, name: str, path: Path, sha256: str, version: str) -> None:
        """See `ObjectStore`."""
        size = path.stat().st_size
        if size <= SINGLE_BYTES:
            self._write_once(name, path.read_bytes(), sha256, version)
            return
        with path.open("rb") as file:
            self._write_parts(name, (file.read(transfer.CHUNK_BYTES) for _ in _starts(size)), sha256, version)

    def delete(self, name: str, version: str) -> None:
        """See `ObjectStore`."""
        found = self.look(name)
        if found is None or version == ABSENT:
            return
        if found.version != version:
            raise ConflictError
        try:
            self._repeat(lambda: self._writes.delete(name))
        except MissingError:
            return

    def holds(self, entry: Entry, path: Path, sha256: str) -> bool:
        """See `ObjectStore`; compares our hash, which an object has from the request that wrote it."""
        return entry.size == path.stat().st_size and entry.sha256 == sha256

    def _write_once(self, name: str, data: bytes, sha256: str, version: str | None) -> str:
        mode: Any = "overwrite" if version is None else {"e_tag": f'"{version}"'} if version else "create"

        def request() -> str:
            self.watch.expect(len(data))
            attributes = _attributes(name, sha256)
            answer = self._writes.put(name, data, mode=mode, attributes=attributes, use_multipart=False)
            self.watch.step(len(data))
            return _version(answer["e_tag"])

        try:
            return self._repeat(request)
        except MissingError as error:
            if version and error.reason == "NoSuchKey":
                raise ConflictError from error
            raise

    def _write_parts(self, name: str, blocks: Iterable[bytes], sha256: str, version: str | None) -> None:
        """Write a large object in parts; if the writer is not closed, no object appears."""
        with _neutral_errors():
            writer = obstore.open_writer(
                self._parts,
                name,
                attributes=_attributes(name, sha256),
                buffer_size=transfer.CHUNK_BYTES,
                max_concurrency=1,
            )
            for block in blocks:
                self.watch.expect(2 * transfer.CHUNK_BYTES)
                writer.write(block)
                self.watch.step(len(block))
        found = self.look(name) if version is not None else None
        if version is not None and (found.version if found else ABSENT) != version:
            raise ConflictError
        with _neutral_errors():
            self.watch.expect(2 * transfer.CHUNK_BYTES)
            writer.close()
        self.watch.step()

    def _repeat(self, request: Callable[[], Result]) -> Result:
        """Make a request again while it fails temporarily; the watch limits how long."""
        delay_s = transfer.RETRY_DELAY_S
        while True:
            try:
                with _neutral_errors():
                    result = request()
                self.watch.step()
                return result
            except TemporaryError as error:
                self.watch.failed(error)
            self._pause.wait(delay_s)
            delay_s = min(2 * delay_s, transfer.MAX_RETRY_DELAY_S)


def _retries() -> dict[str, Any]:
    """Return how obstore repeats a request for a part, which we cannot: a writer that failed is unusable."""
    first, longest = (timedelta(seconds=delay) for delay in (transfer.RETRY_DELAY_S, transfer.MAX_RETRY_DELAY_S))
    backoff = {"init_backoff": first, "max_backoff": longest, "base": 2}
    return {"backoff": backoff, "max_retries": 1_000, "retry_timeout": timedelta(seconds=transfer.STALL_S)}


def _open(address: Address, timeouts: Mapping[str, Any], retries: Mapping[str, Any] | None = None) -> Any:
    """Return obstore's client of a bucket, with the credential that the environment has."""
    found = access(address.scheme)
    endpoint = found.endpoint
    client: dict[str, Any] = {"connect_timeout": timedelta(seconds=5), "allow_http": endpoint.startswith("http://")}
    if found.authorities:
        client["root_certificate"] = _read_authorities(found.authorities)
    config: Any = {"endpoint": endpoint.rstrip("/")} if endpoint else {}
    options: dict[str, Any] = {"client_options": {**client, **timeouts}, "retry_config": retries or {"max_retries": 0}}
    if address.scheme == "az":
        return AzureStore(address.bucket, config=config, **options)
    # A deletion of several objects reports a refusal in another form.
    return S3Store(address.bucket, config={**config, "disable_bulk_delete": True}, **options)


def _read_authorities(path: str) -> bytes:
    """Return the content of a file of certificates, which obstore would reject without a reason."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CertificatesError(f"{path}: {error.strerror}") from error
    if b"-----BEGIN " not in content:
        raise CertificatesError(f"{path} has no certificate in PEM form")
    return content


def _starts(size: int) -> range:
    """Return the positions at which the parts of a large object begin."""
    return range(0, size, transfer.CHUNK_BYTES)


def _parents(name: str) -> list[str]:
    """Return the names of the folders of an object; a "folder" may exist as an empty object, too."""
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _attributes(name: str, sha256: str) -> dict[str, str]:
    content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return {"Content-Type": content_type, "Cache-Control": "no-cache"} | ({"sha256": sha256} if sha256 else {})


def _entry(meta: Mapping[str, Any], attributes: Mapping[str, str]) -> Entry:
    version = _version(meta["e_tag"])
    return Entry(meta["path"], meta["size"], version, meta["last_modified"], attributes.get("sha256", ""))


def _version(e_tag: str | None) -> str:
    """Return an ETag without quotes, which listings of Azure lack."""
    return (e_tag or "").strip('"')


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].partition(": ")[2][:120]


@contextmanager
def _neutral_errors() -> Iterator[None]:
    """Turn obstore's exceptions into errors of `protocol`; what the files of this machine raise passes."""
    try:
        yield
    except (InvalidPathError, ValueError) as error:
        raise InvalidNameError(_first_line(error)) from error
    except (BaseError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _classify(error) from error


def _classify(error: Exception) -> StoreError:
    """Return the error for an answer, which obstore has as text only."""
    text = str(error)
    if any(sign in text for sign in _SIGNS_OF_NO_CREDENTIAL):
        return CredentialsError()
    if any(sign in text for sign in _SIGNS_OF_NO_TOKEN_FILE):
        return CredentialsError(_first_line(error))
    status = int(next((a or b for a, b in _STATUS.findall(text)), 0))
    code = next(iter(_CODE.findall(text)), "")
    if any(sign in text for sign in _SIGNS_OF_A_TOKEN_REQUEST):
        return CredentialsError(f"status {status}") if 400 <= status < 500 else TemporaryError("no token was issued")
    if kind := _MEANING.get(code):
        return kind(code)
    if not status and "incorrectly configured region" in text:
        return RegionError(code)
    if kind := _FINAL.get(status):
        return kind(code)
    return TemporaryError(f"status {status}" if status else "no connection")
