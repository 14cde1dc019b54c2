"""Names of stores in messages."""

import pytest

from components.shared.stores import access
from tests.helpers.errors import raises_user_error


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


@pytest.mark.parametrize(
    "endpoint",
    ["http://localhost:9000", "https://s3.example.com", "http://user:secret@host", "https://account.example/?sig=x"],
)
def test_endpoint_that_is_a_url_is_used(endpoint: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    assert access.access("s3").endpoint == endpoint


@pytest.mark.parametrize(("scheme", "name"), [("s3", "AWS_ENDPOINT_URL"), ("az", "AZURE_STORAGE_ENDPOINT")])
@pytest.mark.parametrize("endpoint", ["localhost:9000", "http://no such", "ftp://host", "http://", "http://:9000", "x"])
def test_endpoint_that_is_no_url_is_refused(scheme: str, name: str, endpoint: str, monkeypatch: pytest.MonkeyPatch):
    """Regression: obstore crashed."""
    monkeypatch.setenv(name, endpoint)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    with raises_user_error("storage.invalid_endpoint", name=name):
        access.access(scheme)


def test_refused_endpoint_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "user:secret@host:9000")
    with raises_user_error("storage.invalid_endpoint") as caught:
        access.access("s3")
    assert "host:9000" in str(caught.value)
    assert "secret" not in str(caught.value)
