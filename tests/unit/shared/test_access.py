"""Names of stores in messages."""

import pytest

from components.shared.stores import access


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("http://user:secret@host:9000", "http://host:9000"),
        ("https://account.blob.example/?sig=secret", "https://account.blob.example/"),
        ("", ""),
    ],
)
def test_shown_endpoint_has_no_credentials(endpoint: str, shown: str):
    assert access._shown(endpoint) == shown
