"""Addresses of objects and prefixes: the only place that defines the schemes and their rules for names of buckets."""

import re
from typing import NamedTuple

from components.shared.errors import UserError

BUCKETS = {
    "gs": r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]",
    "s3": r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
    "az": r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]",
}
"""Scheme → form of a bucket's name; in Azure a bucket is a container."""
ADDRESS = "(?:" + "|".join(f"{scheme}://{bucket}" for scheme, bucket in BUCKETS.items()) + ")(?:/.*)?"
"""Regular expression of an address."""
ADDRESS_FORM = "gs://bucket/prefix (or s3://, az://)"
"""For hints and documentation."""


class Address(NamedTuple):
    """An address: its scheme, a bucket, and a prefix or name without slashes at its ends."""

    scheme: str
    bucket: str
    prefix: str

    @property
    def below(self) -> str:
        """Return what the names of the objects below the prefix begin with."""
        return f"{self.prefix}/" if self.prefix else ""


def is_signed(place: str) -> bool:
    """Return whether a place has the signature of a shared address, which is a secret."""
    return bool(re.search(r"[?&](sig|x-amz-signature|x-goog-signature)=", place, re.IGNORECASE))


def is_address(place: str) -> bool:
    """Return whether a place begins like an address of object storage."""
    return place.partition("://")[0] in BUCKETS and "://" in place


def parse(uri: str) -> Address:
    """Return the parts of an address.

    Raises:
        UserError: `storage.invalid_address` or `storage.signed_address`.

    Example:
        >>> parse("s3://bucket/some/prefix/")
        Address(scheme='s3', bucket='bucket', prefix='some/prefix')
    """
    if not re.fullmatch(ADDRESS, uri):
        raise UserError(
            f"{uri} is not an object storage address", f"write {ADDRESS_FORM}", "storage.invalid_address", uri=uri
        )
    if is_signed(uri):
        raise UserError(
            f"{uri} contains a signature, which is a secret",
            "give the address without it; for Azure, set AZURE_STORAGE_SAS_TOKEN",
            "storage.signed_address",
            uri=uri,
        )
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    return Address(scheme, bucket, prefix.strip("/"))
