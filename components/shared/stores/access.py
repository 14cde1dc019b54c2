"""Which store an address leads to, which credential is used there, and what it must permit.

The clients read the variables of their credentials themselves; only this module reads the environment in addition.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from components.shared.errors import UserError

READ, WRITE = "read", "write"


@dataclass(frozen=True)
class Access:
    """How this process reaches a store.

    Attributes:
        store: its name and, unless it is the cloud's own, its endpoint.
        endpoint: from the environment; empty for the cloud's own.
        credential: the one that is used.
        fix: how to supply another one, as a hint.
        authorities: file of additional certificate authorities; empty for none.
        grants: `READ` or `WRITE` → what the credential must be given.
    """

    store: str
    endpoint: str
    credential: str
    fix: str
    grants: Mapping[str, str]
    authorities: str = ""


def _first(environment: Mapping[str, str], found: Mapping[str, str], otherwise: str) -> str:
    """Return the text of the first variable that is set."""
    return next((text for variable, text in found.items() if environment.get(variable)), otherwise)


def _value(environment: Mapping[str, str], *variables: str) -> str:
    return next((environment[variable] for variable in variables if environment.get(variable)), "")


def _endpoint(environment: Mapping[str, str], *variables: str) -> str:
    """Return the first of these variables that is set; obstore crashes if it is no URL.

    Raises:
        UserError: `storage.invalid_endpoint`.
    """
    name = next((variable for variable in variables if environment.get(variable)), "")
    value = environment[name] if name else ""
    if value and not re.fullmatch(r"https?://([^\s/@]*@)?[A-Za-z0-9._-]+(:\d{1,5})?([/?]\S*)?", value):
        raise UserError(
            f"{name} is {value.rpartition('@')[2]!r}",
            "write it as https://host or http://host:port",
            "storage.invalid_endpoint",
            name=name,
        )
    return value


def access(scheme: str) -> Access:
    """Return how this process reaches the store of a scheme.

    Raises:
        UserError: `storage.invalid_endpoint`.
    """
    environment = os.environ
    return {"gs": _gcs, "s3": _s3, "az": _azure}[scheme](environment)


def _gcs(environment: Mapping[str, str]) -> Access:
    credential = _first(
        environment,
        {"GOOGLE_APPLICATION_CREDENTIALS": "the file in GOOGLE_APPLICATION_CREDENTIALS"},
        "the gcloud login or Workload Identity",
    )
    fix = "run `gcloud auth application-default login`, or use Workload Identity"
    grants = {READ: "the role Storage Object Viewer", WRITE: "the role Storage Object User"}
    return Access("Google Cloud Storage", "", credential, fix, grants)


def _shown(endpoint: str) -> str:
    """Return an endpoint for messages, without a password or token in it."""
    parts = urlsplit(endpoint)
    return endpoint and f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _s3(environment: Mapping[str, str]) -> Access:
    endpoint = _endpoint(environment, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    credential = _first(
        environment,
        {
            "AWS_ACCESS_KEY_ID": "the key in AWS_ACCESS_KEY_ID",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "the role in AWS_ROLE_ARN",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "the role of EKS Pod Identity",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "the role of the container",
        },
        "the role of this machine (AWS_ACCESS_KEY_ID is not set)",
    )
    fix = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL unless the store is Amazon's"
    grants = {
        READ: "s3:ListBucket and s3:GetObject",
        WRITE: "s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject",
    }
    store = f"the S3 store at {_shown(endpoint)}" if endpoint else "Amazon S3"
    return Access(store, endpoint, credential, fix, grants, _value(environment, "AWS_CA_BUNDLE", "SSL_CERT_FILE"))


def _azure(environment: Mapping[str, str]) -> Access:
    endpoint = _endpoint(environment, "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
    account = environment.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    credential = _first(
        environment,
        {
            "AZURE_STORAGE_ACCOUNT_KEY": "the key in AZURE_STORAGE_ACCOUNT_KEY",
            "AZURE_STORAGE_SAS_TOKEN": "the token in AZURE_STORAGE_SAS_TOKEN",
            "AZURE_CLIENT_SECRET": "the application in AZURE_CLIENT_ID",
            "AZURE_FEDERATED_TOKEN_FILE": "Workload Identity",
            "AZURE_USE_AZURE_CLI": "the login of `az login`",
        },
        "the identity of this machine (AZURE_STORAGE_ACCOUNT_KEY is not set)",
    )
    fix = "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or use Workload Identity"
    where = _shown(endpoint) or (
        f"the account {account}" if account else "no account: AZURE_STORAGE_ACCOUNT_NAME is not set"
    )
    grants = {READ: "the role Storage Blob Data Reader", WRITE: "the role Storage Blob Data Contributor"}
    authorities = environment.get("SSL_CERT_FILE", "")
    return Access(f"Azure Blob Storage ({where})", endpoint, credential, fix, grants, authorities)
