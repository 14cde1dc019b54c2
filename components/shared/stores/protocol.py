"""What a store of objects does, and how its requests fail, whatever its client."""

from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

ABSENT = ""
"""The version of an object that does not exist."""

MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO = 64 * 2**20, 20
"""A packed object may have either size when it is unpacked: gzip can hold a thousand times its size."""


class Entry(NamedTuple):
    """An object in a store.

    Attributes:
        name: complete name within the bucket.
        size: in bytes.
        version: the generation or ETag; it changes with each write.
        modified: time of the write.
        sha256: the SHA-256 that was written with it; empty if there is none, or in a listing.
        checksum: the store's CRC32C in base64; empty if it computes none.
        packed: whether it is unpacked (gzip) when it is read.
    """

    name: str
    size: int
    version: str
    modified: datetime | None = None
    sha256: str = ""
    checksum: str = ""
    packed: bool = False

    @property
    def max_bytes(self) -> int:
        """Size of its content in bytes, or the maximum of a packed one."""
        return max(MAX_UNPACKED_BYTES, MAX_UNPACKED_RATIO * self.size) if self.packed else self.size


class ObjectStore(Protocol):
    """One bucket. Each method repeats requests that fail temporarily, and reports progress to the call's watch.

    Attributes:
        checks_conditions: whether every installation of the store honours the condition `version` of a write.

    Raises:
        StoreError: from every method.
    """

    checks_conditions: bool

    def list(self, below: str) -> list[Entry]:
        """Return the objects whose names begin with this."""

    def look(self, name: str) -> Entry | None:
        """Return an object without its content; None if it does not exist."""

    def download(self, entry: Entry, file: BinaryIO) -> None:
        """Write the content of an object, in the version of the entry, to a file.

        Raises:
            ChangedError: this version no longer exists, or has another content.
            TooLargeError: it is packed, and has more bytes than `Entry.max_bytes`.
        """

    def read_range(self, entry: Entry, start: int, length: int) -> bytes:
        """Return a part of an object that is not packed, in the version of the entry.

        Raises:
            ChangedError: this version no longer exists.
        """

    def write(self, name: str, data: bytes, version: str | None) -> str:
        """Write an object, if it is in this version, and return the new one; None writes in any case."""

    def upload(self, name: str, path: Path, sha256: str, version: str) -> None:
        """Write a file and its SHA-256, if the object is in this version."""

    def delete(self, name: str, version: str) -> None:
        """Delete an object, if it is in this version; an absent one is ignored."""

    def holds(self, entry: Entry, path: Path, sha256: str) -> bool:
        """Return whether an object has the content of a file."""


class StoreError(Exception):
    """A request that failed for good.

    Args:
        reason: a few words for the message; empty if there is nothing to add.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class MissingError(StoreError):
    """The bucket or the object does not exist."""


class ChangedError(StoreError):
    """An object is no longer as it was listed; the reason ends a sentence that begins with its address."""


class ConflictError(StoreError):
    """An object is in another version than the request demands."""


class UnconditionalError(StoreError):
    """The store does not implement conditional writes."""


class ForbiddenError(StoreError):
    """The credential lacks a permission."""


class CredentialsError(StoreError):
    """There is no credential, or the store does not accept it."""


class CertificatesError(StoreError):
    """The file of certificate authorities cannot be used."""


class RegionError(StoreError):
    """The bucket is in another region."""


class RejectedError(StoreError):
    """The request is invalid."""


class InvalidNameError(StoreError):
    """An object's name cannot be that of a file."""


class TooLargeError(StoreError):
    """A packed object has too many bytes when it is unpacked."""


class TemporaryError(StoreError):
    """There was no answer, or one that another attempt may avoid."""


class DamagedError(TemporaryError):
    """The store received something else than was sent, and keeps nothing."""
