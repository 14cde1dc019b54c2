"""Object storage: folders, published runs and checkpoints in a bucket of any store.

A call of any size either returns its result or raises a `UserError` at most `transfer.STALL_S` after the last byte that
moved. Until then, requests that fail temporarily (429, 5xx, a dropped connection) are repeated.
"""

import errno
import io
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

from components.shared.checkpoint import Folder, Store
from components.shared.errors import UserError, printable
from components.shared.files import atomic_write
from components.shared.log import log_line
from components.shared.published import Fetch, find_file
from components.shared.records import path_below
from components.shared.stores import transfer
from components.shared.stores.access import READ, WRITE, Access, access
from components.shared.stores.addresses import ADDRESS_FORM, Address, is_address, parse
from components.shared.stores.protocol import (
    ABSENT,
    MAX_UNPACKED_BYTES,
    CertificatesError,
    ChangedError,
    ConflictError,
    CredentialsError,
    DamagedError,
    Entry,
    ForbiddenError,
    InvalidNameError,
    MissingError,
    ObjectStore,
    RegionError,
    RejectedError,
    StoreError,
    TemporaryError,
    TooLargeError,
    UnconditionalError,
)
from components.shared.stores.transfer import StalledError, Watch

RANGE_BYTES = 2**16
"""Minimum size of a part of an object that is read."""


class ListedObject(NamedTuple):
    """An object in a listing.

    Attributes:
        name: relative to the prefix.
        size: in bytes.
        version: changes with each write.
        max_bytes: its size, or the maximum of a packed one when it is unpacked.
    """

    name: str
    size: int
    version: str
    max_bytes: int


class Listing(NamedTuple):
    """What is below a prefix.

    Attributes:
        objects: sorted by name.
        folders: names with a slash at their end, for which a console wrote an object without content. Google Cloud
            Storage only: the client of the others removes the slash.
    """

    objects: list[ListedObject]
    folders: list[str]


def list_objects(uri: str) -> list[ListedObject]:
    """Return the objects below a prefix, or the one object of this name, sorted by name.

    Raises:
        UserError: as in `download_folder`.
    """
    return list_tree(uri).objects


def list_tree(uri: str) -> Listing:
    """Return the objects below a prefix, as `list_objects`, and the folders that a console created.

    Raises:
        UserError: as in `download_folder`.
    """
    address = parse(uri)
    with _translate_errors(uri, READ):
        connection = _Connection(address)
        entries, folders = connection.list_tree()
        if not entries and address.prefix:
            entry = connection.call(lambda: connection.store.look(address.prefix))
            entries = {address.prefix.rpartition("/")[2]: entry} if entry else {}
    if not entries:
        raise _empty_error(uri)
    objects = [ListedObject(name, entry.size, entry.version, entry.max_bytes) for name, entry in entries.items()]
    return Listing(sorted(objects), folders)


def download_folder(uri: str, folder: Path) -> None:
    """Download all objects below a prefix into a folder, in the version that was listed.

    Raises:
        UserError: `storage.not_found`, `storage.no_permission`, `storage.no_credentials`, `storage.wrong_region`,
            `storage.no_answer`, `storage.empty`, `storage.changed`: an object was replaced or removed during the
            download, or `storage.too_large`: a packed one has too many bytes.
    """
    with _translate_errors(uri, READ):
        connection = _Connection(parse(uri))
        entries = connection.list_files()
        if not entries:
            raise _empty_error(uri)
        jobs = [partial(connection.download, entry, folder / name) for name, entry in entries.items()]
        connection.run(jobs, f"download {uri}", sum(entry.size for entry in entries.values()))


def _empty_error(uri: str) -> UserError:
    return UserError(f"{uri}: there are no objects below this prefix", "check its spelling", "storage.empty", uri=uri)


@contextmanager
def refuse_bad_name(uri: str) -> Iterator[None]:
    """Translate errors in creating a file with the name of an object.

    Raises:
        UserError: `storage.bad_name`: the name is too long, or another object's name is a folder of this one.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
            raise
        raise UserError(
            f"{uri[:99]} cannot be a file on this machine ({error.strerror})",
            "rename it",
            "storage.bad_name",
            uri=uri[:99],
        ) from error


def download_file(uri: str, path: str | Path) -> None:
    """Download one object to a file, atomically.

    Raises:
        UserError: as in `download_folder`.
    """
    address = parse(uri)
    name = address.prefix
    with _translate_errors(uri, READ):
        connection = _Connection(address)
        entry = connection.call(lambda: connection.store.look(name)) if name else None
        if entry is None:
            raise _no_object(uri)
        with atomic_write(path) as part:
            connection.run([partial(connection.download, entry, part)], f"download {uri}", entry.size)


class ObjectFile(io.RawIOBase):
    """One object as a file that is read by ranges; see `open_object`."""

    def __init__(self, uri: str, connection: "_Connection", entry: Entry) -> None:
        super().__init__()
        self._uri, self._connection, self._entry, self._position = uri, connection, entry, 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it can be read at any position."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Change the position."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._entry.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Read from the position on, with one request.

        Raises:
            UserError: as in `download_folder`.
        """
        start, length = self._position, min(len(buffer), self._entry.size - self._position)
        if length <= 0:
            return 0
        store = self._connection.store
        with _translate_errors(self._uri, READ), _name_changed(self._uri):
            data = self._connection.call(lambda: store.read_range(self._entry, start, length))
            if len(data) != length:
                raise DamagedError("sent another part than was requested")
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def open_object(uri: str) -> BinaryIO:
    """Open one object to read some of it; a packed one, which has no ranges, is downloaded to a temporary file.

    Raises:
        UserError: as in `download_file`.
    """
    with _translate_errors(uri, READ):
        address = parse(uri)
        connection = _Connection(address)
        entry = connection.call(lambda: connection.store.look(address.prefix))
        if entry is None:
            raise _no_object(uri)
        if entry.packed:
            file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 – the caller closes it
            try:
                connection.call(lambda: connection.receive(entry, file))
            except BaseException:
                file.close()
                raise
            file.seek(0)
            return file
    return io.BufferedReader(ObjectFile(uri, connection, entry), RANGE_BYTES)


@contextmanager
def _name_changed(uri: str) -> Iterator[None]:
    """Name the object that is no longer in the version that was listed.

    Raises:
        UserError: `storage.changed`.
    """
    try:
        yield
    except ChangedError as error:
        hint = "rerun the command when nothing writes to the bucket"
        raise UserError(f"{uri} {error.reason}", hint, "storage.changed", uri=uri) from error


def _no_object(uri: str) -> UserError:
    return UserError(
        f"{uri}: no such object exists", "check the bucket's name and the path", "storage.not_found", uri=uri
    )


def make_fetch(run: str, scratch: Path) -> Fetch:
    """Return a function from a name in a run to its local path; files of a remote run are downloaded into `scratch`."""

    def fetch_remote(name: str) -> Path:
        scratch.mkdir(parents=True, exist_ok=True)
        path = path_below(scratch, name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            download_file(f"{run.rstrip('/')}/{name}", path)
        return path

    return fetch_remote if is_address(run) else partial(find_file, run)


def folders_with(uri: str, name: str) -> list[str]:
    """Return the names directly below a prefix under which an object of this name exists, the newest first.

    Raises:
        UserError: as in `download_folder`, except that there may be no object.
    """
    with _translate_errors(uri, READ):
        entries = _Connection(parse(uri)).list_files()
    found = [(entry.modified, key.split("/")[0]) for key, entry in entries.items() if key.split("/")[1:] == [name]]
    return [folder for _, folder in sorted(found, key=lambda it: (it[0] is not None, it[0], it[1]), reverse=True)]


class Prefix:
    """A place to publish to: the objects below an address.

    An object is written or removed only if it is in the version that this instance read last: concurrent changes raise
    an error and are never overwritten, where the store has conditional requests.

    Args:
        uri: the address.

    Raises:
        UserError: from every method: as in `download_folder`, or `storage.concurrent_write`.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        address = parse(uri)
        self.below = address.below
        with _translate_errors(uri, WRITE):
            self._connection = _Connection(address)
        self._store = self._connection.store
        self._versions: dict[str, str] = {}
        """Name → version that was read last; `ABSENT` if the object was absent."""

    def read(self, name: str) -> str | None:
        """Return an object's text; None if it does not exist."""
        with _translate_errors(self.uri, WRITE):
            return self._connection.call(partial(self._read, name))

    def modified(self, name: str) -> datetime | None:
        """Return when an object was written; None if it does not exist."""
        with _translate_errors(self.uri, WRITE):
            entry = self._connection.call(partial(self._look, name))
        return entry and entry.modified

    def find_existing(self, names: Collection[str]) -> set[str]:
        """Return the names of existing objects."""
        with _translate_errors(self.uri, WRITE):
            entries = self._connection.run([partial(self._look, name) for name in names])
        return {name for name, entry in zip(names, entries, strict=True) if entry}

    def find_unchanged(self, files: Mapping[str, tuple[Path, str]]) -> set[str]:
        """Return the names of the objects that already have the content of these files.

        Args:
            files: name → (file, its SHA-256).
        """
        with _translate_errors(self.uri, WRITE):
            are_unchanged = self._connection.run(
                [partial(self._holds, name, *source) for name, source in files.items()]
            )
        return {name for name, unchanged in zip(files, are_unchanged, strict=True) if unchanged}

    def upload(self, files: Mapping[str, tuple[Path, str]]) -> None:
        """Upload files in parallel, with their SHA-256 as metadata."""
        with _translate_errors(self.uri, WRITE):
            jobs = [partial(self._upload, name, *source) for name, source in files.items()]
            self._connection.run(jobs, f"upload {self.uri}", sum(path.stat().st_size for path, _ in files.values()))

    def write(self, name: str, text: str) -> None:
        """Write a small object in one request."""

        def write() -> None:
            try:
                self._versions[name] = self._store.write(self.below + name, text.encode(), self._versions[name])
            except ConflictError:
                if self._read(name) != text:  # otherwise an attempt whose answer was lost has written it
                    raise

        with _translate_errors(self.uri, WRITE):
            self._connection.call(write)

    def remove(self, names: Collection[str]) -> None:
        """Remove objects; missing ones are ignored."""

        def remove(name: str) -> None:
            if name not in self._versions:
                self._look(name)
            self._store.delete(self.below + name, self._versions[name])
            self._versions[name] = ABSENT

        with _translate_errors(self.uri, WRITE):
            self._connection.run([partial(remove, name) for name in names])

    def check_writable(self, name: str) -> None:
        """Write and remove an object that does not exist yet, and check that the store honours conditions.

        Some stores that speak S3 ignore the condition of a write: a second run would overwrite the first.

        Raises:
            UserError: `storage.unconditional`, or as in `write` and `remove`.
        """
        self.remove([name])  # notes that it is absent
        self.write(name, "{}")
        with _translate_errors(self.uri, WRITE):
            honours = self._store.checks_conditions or self._connection.call(partial(self._is_kept, name))
        if not honours:
            del self._versions[name]
        self.remove([name])
        if not honours:
            raise _user_error(self.uri, WRITE, UnconditionalError())

    def _is_kept(self, name: str) -> bool:
        """Return whether the store refuses to write an existing object that must be absent."""
        try:
            self._store.write(self.below + name, b"[]", ABSENT)
        except ConflictError:
            return True
        return False

    def _look(self, name: str) -> Entry | None:
        entry = self._store.look(self.below + name)
        self._versions[name] = entry.version if entry else ABSENT
        return entry

    def _read(self, name: str) -> str | None:
        entry = self._look(name)
        return entry and self._connection.read(entry).decode(errors="replace")

    def _holds(self, name: str, path: Path, sha256: str) -> bool:
        """Return whether an object has the content of a file."""
        entry = self._look(name)
        return entry is not None and self._store.holds(entry, path, sha256)

    def _upload(self, name: str, path: Path, sha256: str) -> None:
        for attempts_left in reversed(range(transfer.MAX_UPLOAD_ATTEMPTS)):
            try:
                self._store.upload(self.below + name, path, sha256, self._versions[name])
                return
            except ConflictError:
                if self._holds(name, path, sha256):  # an attempt whose answer was lost has written it
                    return
                raise
            except (ForbiddenError, CredentialsError):
                raise
            except StoreError as error:
                if isinstance(error, DamagedError):
                    self._versions[name] = ABSENT
                if not attempts_left or self._connection.is_stalled(error):
                    raise


class Objects:
    """A store for checkpoints: objects below an address, which are written atomically.

    Each call opens a connection: calls are minutes apart, and an outage breaks a connection permanently.

    Args:
        uri: the address. A small object is written immediately, so that a missing permission is detected before hours
            of work.

    Raises:
        UserError: an object cannot be read, or the first one cannot be written. If a later checkpoint cannot be
            written, a warning is printed and the previous one stays the last.
    """

    def __init__(self, uri: str) -> None:
        self.place, self.address = uri, parse(uri)
        self._write("started", b"")

    def write(self, name: str, data: bytes) -> None:
        """See `Store`."""
        try:
            self._write(name, data)
        except UserError as error:
            log_line("checkpoints", f"warning: not written ({error}); the previous one is kept")

    def read(self, name: str) -> bytes | None:
        """See `Store`."""
        with _translate_errors(self.place, READ):
            connection = _Connection(self.address)

            def read() -> bytes | None:
                entry = connection.store.look(self.address.below + name)
                return entry and connection.read(entry)

            return connection.call(read)

    def _write(self, name: str, data: bytes) -> None:
        with _translate_errors(self.place, WRITE):
            connection = _Connection(self.address)
            write = partial(connection.store.write, self.address.below + name, data, None)
            connection.call(partial(_repeat_write, write, connection.is_stalled))


def checkpoint_store(address: str, name: str) -> Store:
    """Return a store for the checkpoints of one training.

    Args:
        address: a folder, which is created if needed, or an address of object storage.
        name: name of the training, a folder below the address.

    Raises:
        UserError: the address is of another kind, or is not writable.
    """
    if is_address(address):
        return Objects(f"{address.rstrip('/')}/{name}")
    if "://" in address:
        raise UserError(
            f"checkpoints is {address!r}, an unknown kind of address",
            f"give a folder, {ADDRESS_FORM} or none",
            "checkpoints.invalid_address",
            value=address,
        )
    return Folder(Path(address) / name)


def checkpoint_address(artifact: str, environment: Mapping[str, str]) -> str:
    """Return the location of a run's checkpoints; empty if there is none.

    Args:
        artifact: the address of an artifact of the run. On a cluster `auto` is beside it.
        environment: environment variables. COUNTERWEIGHT_CHECKPOINTS is `auto` (the default), `none`, an address of
            object storage, below which each run has a folder, or the folder of a local run. COUNTERWEIGHT_RUN is the
            run's id, which is a part of `artifact`, and unset in a local run.

    Raises:
        UserError: `checkpoints.invalid_address`.
    """
    place, run = environment.get("COUNTERWEIGHT_CHECKPOINTS") or "auto", environment.get("COUNTERWEIGHT_RUN", "")
    if place == "none":
        return ""
    if place == "auto":
        return _beside(artifact, run, environment)
    if "://" not in place:
        return place
    if not is_address(place):
        raise UserError(
            f"checkpoints is {place!r}", f"choose auto, none or {ADDRESS_FORM}", "checkpoints.invalid_address"
        )
    parse(place)
    return f"{place.rstrip('/')}/{run}".rstrip("/")


def _beside(artifact: str, run: str, environment: Mapping[str, str]) -> str:
    """Return the folder of checkpoints beside an artifact of a run; empty if this process cannot write there.

    Kubeflow's launcher writes artifacts with its own credential. For `minio://`, which is S3, and `s3://`, the task has
    one only if the placement file names it.
    """
    scheme, separator, path = artifact.partition("://")
    root, found, _ = path.partition(f"/{run}/")
    variables = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    has_key = any(environment.get(variable) for variable in variables)
    if run and separator and found and (scheme == "gs" or (scheme in ("s3", "minio") and has_key)):
        return f"{'gs' if scheme == 'gs' else 's3'}://{root}/{run}/checkpoints"
    reason = "the tasks have no key; set storage in the placement file" if scheme in ("s3", "minio") else "not a bucket"
    log_line("checkpoints", f"disabled: artifacts are at {scheme}:// ({reason})")
    return ""


def _repeat_write(write: Callable[[], str], is_stalled: Callable[[StoreError], bool]) -> None:
    """Write again if the server lost the upload, or received less than was sent."""
    for attempts_left in reversed(range(transfer.MAX_UPLOAD_ATTEMPTS)):
        try:
            write()
            return
        except (ForbiddenError, CredentialsError):
            raise
        except StoreError as error:
            if not attempts_left or is_stalled(error):
                raise


class NoAnswerError(UserError):
    """Object storage did not answer a request."""

    retryable = True


def _shown(name: str) -> str:
    """Return the beginning of an object's name on one line, for messages."""
    return printable(name[:99])


def _is_relative_file(name: str) -> bool:
    """Return whether an object's name, which is untrusted input, is that of a file below a folder."""
    path = PurePosixPath(name)
    is_a_file = path.parts and not name.endswith("/")  # a "folder" is an object with a slash at its end
    return bool(is_a_file and not path.is_absolute() and ".." not in path.parts and "\0" not in name)


class _Connection:
    """A store and the watch of the threads that use it."""

    def __init__(self, address: Address) -> None:
        self.address, self.watch = address, Watch()
        client = _client(address.scheme)  # outside of the watch: an import takes as long as the machine is busy
        self.store: ObjectStore = self.call(partial(client, address, self.watch))

    def call(self, job: Callable[[], Any]) -> Any:
        """Run one job and return its result."""
        return self.run([job])[0]

    def run(self, jobs: Sequence[Callable[[], Any]], label: str = "", total: int = 0) -> list[Any]:
        """Run jobs in threads; see `transfer.run`."""
        return transfer.run(self.watch, jobs, label, total)

    def is_stalled(self, error: StoreError) -> bool:
        """Record that an attempt failed, and return whether there is no time for another one."""
        self.watch.failed(error)
        return self.watch.stalled()

    def list_files(self) -> dict[str, Entry]:
        """Return the objects whose names can be a file's below a folder; name relative to the prefix → object.

        Raises:
            InvalidNameError: as in `list_tree`.
        """
        return self.list_tree()[0]

    def list_tree(self) -> tuple[dict[str, Entry], list[str]]:
        """Return the objects as `list_files`, and the names of folders, which have a slash at their end.

        Raises:
            InvalidNameError: two names lead to the same file, such as `a/b` and `a//b`.
        """
        below = self.address.below
        entries = {entry.name.removeprefix(below): entry for entry in self.call(partial(self.store.list, below))}
        files = {name: entry for name, entry in entries.items() if _is_relative_file(name)}
        if skipped := [name for name, entry in entries.items() if name not in files and entry.size]:
            log_line(
                "storage", f"warning: skipped {len(skipped):,} objects without a file's name: {_shown(skipped[0])}"
            )
        odd: dict[str, str] = {}
        for name in files:
            path = str(PurePosixPath(name))
            if path != name and (other := path if path in files else odd.setdefault(path, name)) != name:
                raise InvalidNameError(f"{_shown(other)} and {_shown(name)} lead to one file")
        return files, [name for name in entries if name.endswith("/") and _is_relative_file(name.rstrip("/"))]

    def read(self, entry: Entry) -> bytes:
        """Return the content of an object."""
        if entry.max_bytes > max(entry.size, MAX_UNPACKED_BYTES):
            raise TooLargeError(f"{_shown(entry.name)}, {entry.size:,} bytes")
        buffer = io.BytesIO()  # written block by block: progress is visible to the watch
        self.receive(entry, buffer)
        return buffer.getvalue()

    def receive(self, entry: Entry, file: BinaryIO) -> None:
        """Write the content of an object to a file."""
        try:
            self.store.download(entry, file)
        except ChangedError as error:
            raise TemporaryError(error.reason) from error

    def download(self, entry: Entry, path: Path) -> None:
        """Download an object in the version that was listed."""
        where = f"{self.address.scheme}://{self.address.bucket}/{entry.name}"
        try:
            with refuse_bad_name(where), _name_changed(where):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    self.store.download(entry, file)
        except (CredentialsError, ForbiddenError, RejectedError) as error:  # the listing was permitted
            raise type(error)(f"{error.reason or 'refused'}: {_shown(entry.name)}") from error


def _client(scheme: str) -> Callable[[Address, Watch], ObjectStore]:
    """Return the class for the stores of a scheme; only the client that is used is imported."""
    if scheme == "gs":
        from components.shared.stores.gcs import GoogleStore

        return GoogleStore
    from components.shared.stores.s3_azure import ObstoreStore

    return ObstoreStore


@contextmanager
def _translate_errors(uri: str, use: str) -> Iterator[None]:
    """Turn the errors of a store into user errors that name the store and the credential.

    Args:
        uri: what the message begins with.
        use: `READ` or `WRITE`; decides which permission the hint names.
    """
    try:
        yield
    except (StalledError, StoreError) as error:
        raise _user_error(uri, use, error) from error


def _user_error(uri: str, use: str, error: StalledError | StoreError) -> UserError:
    found = access(parse(uri).scheme)
    reason = f" ({error.reason})" if isinstance(error, StoreError) and error.reason else ""
    asked = f"{found.store} was asked with {found.credential}"
    match error:
        case MissingError():
            hint = f"check the bucket's name and the prefix; {asked}"
            return UserError(f"{uri}: not found{reason}", hint, "storage.not_found", uri=uri)
        case RejectedError():
            hint = f"check the bucket's name and the prefix; {asked}"
            return UserError(
                f"{uri}: the request was rejected as invalid{reason}", hint, "storage.bad_request", uri=uri
            )
        case RegionError():
            hint = f"set AWS_REGION to its region; {asked}"
            return UserError(f"{uri}: the bucket is in another region{reason}", hint, "storage.wrong_region", uri=uri)
        case ConflictError():
            hint = "rerun the command when the other writer has finished"
            return UserError(
                f"{uri}: another program is writing there at the same time", hint, "storage.concurrent_write", uri=uri
            )
        case UnconditionalError():
            hint = "upgrade the store, or give another output, such as auto"
            return UserError(
                f"{uri}: {found.store} has no conditional writes, without which two runs can overwrite each other",
                hint,
                "storage.unconditional",
                uri=uri,
            )
        case ForbiddenError():
            hint = f"give {found.credential} {found.grants[use]} in {found.store}"
            return UserError(f"{uri}: no permission to {use}{reason}", hint, "storage.no_permission", uri=uri)
        case CredentialsError():
            return UserError(
                f"{uri}: {found.credential} for {found.store} is missing or invalid{reason}",
                found.fix,
                "storage.no_credentials",
                uri=uri,
            )
        case CertificatesError():
            hint = "name a file of certificates in AWS_CA_BUNDLE, SSL_CERT_FILE or REQUESTS_CA_BUNDLE, or unset them"
            return UserError(
                f"{uri}: {found.store} cannot be verified{reason}", hint, "storage.bad_certificates", uri=uri
            )
        case TooLargeError():
            return UserError(
                f"{uri}: a packed object has too many bytes when it is unpacked{reason}",
                "check its content, and upload it without gzip encoding",
                "storage.too_large",
                uri=uri,
            )
        case InvalidNameError():
            return UserError(
                f"{uri}: an object's name cannot be that of a file{reason}", "rename it", "storage.bad_name", uri=uri
            )
    return _no_answer(uri, found, error)


def _no_answer(uri: str, found: Access, error: BaseException) -> NoAnswerError:
    cause = error.__cause__ or error if isinstance(error, StalledError) else error
    reason = getattr(cause, "reason", "") or f"nothing received for {transfer.STALL_S} s"
    return NoAnswerError(
        f"{uri}: {found.store} did not answer ({reason})",
        f"check the network and the endpoint, and rerun the command; it was asked with {found.credential}",
        "storage.no_answer",
        uri=uri,
        reason=reason,
    )
