"""Access to a Kubeflow Pipelines API: address, credentials, time limits and errors.

    KFP_HOST       where the API is, with http:// or https://
    KFP_NAMESPACE  the profile's namespace; for installations that separate users
    KFP_AUTH       none (default)
                   token: KFP_TOKEN, or the file KFP_TOKEN_FILE
                   cluster: the token that Kubernetes mounts for Kubeflow Pipelines (KFP_TOKEN_FILE for another place)
                   iap: an identity token of the Google credentials here, for the OAuth client KFP_IAP_CLIENT_ID

The API's generated classes encode and decode all messages; this module sends them. `kfp.Client` is not used: it reads
the caller's kube config, waits without a time limit, and returns normally from a run that failed.
"""

import contextlib
import json
import os
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import kfp_server_api
import requests

from components.shared.errors import ExitCode, UserError
from components.shared.workflow import Workflow, parse_run
from counterweight import parameters

CALL_LIMIT_S = 25.0
"""Time limit of a call, including repeated attempts and pauses."""
ATTEMPT_S = 10.0
PAUSE_S = 0.5
"""Pause before a call is repeated; doubled each time."""
CREATE_PAUSE_S = 2.0
"""The same for a call that creates something: the server may still be processing it."""
LIMIT_BYTES = 64_000_000
"""Size limit of an answer; a run with the most tasks that are allowed has about 10 MB."""
CLUSTER_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105 (a path)

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PASSING = (429, 500, 502, 503, 504)

T = TypeVar("T")


class ApiError(UserError):
    """The API is unreachable or denies access: exit code 5."""

    exit_code = ExitCode.UNREACHABLE


class AbsentError(ApiError):
    """Nothing answers at this address, not even with an error of the API."""


class UnansweredError(ApiError):
    """No answer, or an error that may pass.

    Attributes:
        retry_after_s: seconds that the server requests as a pause.
        late: whether the time limit was reached while the server may still have been processing the request.
    """

    retry_after_s = 0.0
    late = False

    def after(self, seconds: float, late: bool) -> "UnansweredError":
        """Set the attributes and return the error."""
        self.retry_after_s, self.late = seconds, late
        return self


class RejectedError(ApiError):
    """The API rejected the request: exit code 2."""

    exit_code = ExitCode.USER_ERROR

    @property
    def status(self) -> int:
        """HTTP status, from 400 to 499."""
        return int(self.fields.get("status", 400))


def address(host: str) -> str:
    """Return KFP_HOST without a final slash, after a check.

    Raises:
        UserError: `api.no_address`, `api.invalid_address` or `api.password_in_address`.
    """
    if not host:
        raise UserError(
            "KFP_HOST is not set",
            "set it to the address of the Kubeflow Pipelines API, with http:// or https://",
            "api.no_address",
        )
    if re.match(r"[^/]*//[^/?#]*@", host):
        raise UserError(
            "KFP_HOST contains a user name or password", "remove them and set KFP_AUTH", "api.password_in_address"
        )
    try:
        parts = urlsplit(host)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")  # labels that are empty or too long
    except ValueError:
        known = False
    if not known or parts.query or parts.fragment or host != "".join(host.split()):
        raise UserError(
            f"KFP_HOST is {host!r}",
            "write it as https://name or http://name:port, with a path if needed",
            "api.invalid_address",
            host=host,
        )
    return host.rstrip("/")


def make_token_reader(environment: Mapping[str, str], host: str) -> Callable[[], str]:
    """Return a function that returns the token of a request, empty for none.

    It reads or renews the token each time, because tokens expire.

    Raises:
        UserError: `api.invalid_auth`, `api.token_over_http`, `api.token_twice`, `api.token_unreadable` or
            `api.invalid_token`.
    """
    way = environment.get("KFP_AUTH") or "none"
    if way == "none":
        return lambda: ""
    if way not in ("token", "cluster", "iap"):
        raise UserError(f"KFP_AUTH is {way!r}", "choose one of none, token, cluster, iap", "api.invalid_auth", auth=way)
    parts = urlsplit(host)
    name = parts.hostname or ""
    inside = way == "cluster" and ("." not in name or name.endswith((".svc", ".svc.cluster.local")))
    if parts.scheme == "http" and name not in _LOOPBACK and not inside:
        raise UserError(
            f"KFP_HOST is {host}, and the token would be sent without encryption",
            "use https://",
            "api.token_over_http",
            host=host,
        )
    if way == "iap":
        return _identity_token(environment.get("KFP_IAP_CLIENT_ID", ""))
    literal = environment.get("KFP_TOKEN", "") if way == "token" else ""
    file = environment.get("KFP_TOKEN_FILE") or (CLUSTER_TOKEN if way == "cluster" else "")
    if bool(literal) == bool(file):
        raise UserError(
            f"KFP_AUTH is token, and {'both' if literal else 'neither'} KFP_TOKEN {'and' if literal else 'nor'} "
            f"KFP_TOKEN_FILE {'are' if literal else 'is'} set",
            "set one of them",
            "api.token_twice" if literal else "api.no_token",
        )

    def token() -> str:
        try:
            text = literal or Path(file).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"the token file {file} cannot be read",
                "set KFP_TOKEN_FILE to a readable file",
                "api.token_unreadable",
                path=file,
            ) from error
        if not re.fullmatch(r"[\x21-\x7e]+", text.strip()):  # otherwise an error message of `requests` contains it
            raise UserError(
                f"the token in {'KFP_TOKEN' if literal else file} is empty or not one word",
                "set another token",
                "api.invalid_token",
            )
        return text.strip()

    token()
    return token


def _identity_token(client_id: str) -> Callable[[], str]:
    """Return a function that returns Google's identity token for an OAuth client, renewed before it expires."""
    if not client_id:
        raise UserError(
            "KFP_AUTH is iap, and KFP_IAP_CLIENT_ID is not set",
            "set it to the OAuth client of the proxy",
            "api.no_client_id",
        )
    from google.auth import exceptions
    from google.auth.transport.requests import Request
    from google.oauth2 import id_token

    kept: list[Any] = []

    def token() -> str:
        try:
            if not kept:
                kept.append(id_token.fetch_id_token_credentials(client_id, Request()))
            if not kept[0].valid:
                kept[0].refresh(Request())
        except exceptions.DefaultCredentialsError as error:
            raise UserError(
                "the Google credentials of this machine cannot create identity tokens",
                "set GOOGLE_APPLICATION_CREDENTIALS to the key of a service account, or use a machine that has one",
                "api.no_identity",
            ) from error
        except exceptions.GoogleAuthError as error:
            raise UnansweredError(
                f"Google returned no identity token ({type(error).__name__})",
                "check the network and the permissions of the account",
                "api.identity_failed",
            ) from error
        return str(kept[0].token)

    return token


class _Answer:
    """An answer, with the methods that the generated classes call."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str], data: bytes) -> None:
        self.status, self.reason, self.headers, self.data = status, reason, headers, data

    def getheader(self, name: str, default: str | None = None) -> str | None:
        return self.headers.get(name, default)

    def getheaders(self) -> Mapping[str, str]:
        return self.headers


class Connection(kfp_server_api.ApiClient):
    """Sends the requests of the generated classes: one attempt each, with a time limit, without redirects.

    Args:
        host: checked by `address`.
        token: function that `make_token_reader` returns.

    Attributes:
        give_up: time limit of the attempt, in seconds of `time.monotonic`.
    """

    def __init__(self, host: str, token: Callable[[], str]) -> None:
        super().__init__(kfp_server_api.Configuration(host=host))
        self.host, self.token = host, token
        self.give_up = float("inf")
        self.session = requests.Session()
        self.session.auth = self._sign  # otherwise `requests` reads ~/.netrc
        if urlsplit(host).hostname in _LOOPBACK:
            self.session.trust_env = False  # a proxy cannot reach the ports of this machine
        authorities = os.environ.get("REQUESTS_CA_BUNDLE") or ""
        if authorities and not Path(authorities).exists():
            raise UserError(
                f"REQUESTS_CA_BUNDLE is {authorities}, which does not exist",
                "set it to another file, or unset it",
                "api.no_ca_bundle",
                path=authorities,
            )
        self.verify = authorities or True
        self._secret = ""

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._secret:
            request.headers["Authorization"] = f"Bearer {self._secret}"
        return request

    def request(self, method: str, url: str, query_params: Any = None, headers: Any = None, post_params: Any = None,
                body: Any = None, _preload_content: bool = True, _request_timeout: Any = None) -> _Answer:  # fmt: skip
        """Send a request once and return the answer, which is JSON.

        Raises:
            ApiError: as in `send`, or `api.not_kubeflow`.
        """
        headers = dict(headers or {})
        sent: dict[str, Any] = {"json": body} if body is not None else {}
        if headers.get("Content-Type") == "multipart/form-data":
            del headers["Content-Type"]  # requests writes it, with the boundary
            sent = {"files": post_params}
        answer = self.send(method, url, params=query_params, headers=headers, **sent)
        try:
            understood = isinstance(json.loads(answer.data or b"{}"), dict)
        except (ValueError, RecursionError):
            understood = False
        if not understood:
            raise ApiError(
                f"{self.host} answers, but not as a Kubeflow Pipelines API",
                "check KFP_HOST and KFP_AUTH",
                "api.not_kubeflow",
            )
        answer.data = answer.data or b"{}"
        return answer

    def deserialize(self, response: _Answer, response_type: str) -> Any:
        """Decode an answer as the base class does; every error means that the answer is invalid."""
        try:
            return super().deserialize(response, response_type)
        except Exception as error:
            raise ApiError(
                f"{self.host} returned a {response_type} that cannot be read",
                "check that it is a Kubeflow Pipelines API of version 2",
                "api.unreadable_answer",
            ) from error

    def send(self, method: str, url: str, **arguments: Any) -> _Answer:
        """Send a request once and return the answer, which has a status of success and any content.

        Raises:
            ApiError: `api.bad_certificate`, `api.no_answer`, `api.unreachable`, `api.answer_too_large`, or an error
                status: `api.redirect`, `api.unauthorized`, `api.forbidden`, `api.unavailable`, `api.absent`,
                `api.rejected`.
        """
        seconds = max(min(ATTEMPT_S, self.give_up - time.monotonic()), 0.1)

        def attempt() -> _Answer:
            self._secret = self.token()
            with self.session.request(
                method, url, timeout=seconds, allow_redirects=False, stream=True, verify=self.verify, **arguments
            ) as response:
                data = bytearray()
                for chunk in response.iter_content(1 << 16):
                    data += chunk
                    if len(data) > LIMIT_BYTES:
                        raise ApiError(
                            f"{self.host} returned more than {LIMIT_BYTES:,} bytes",
                            "check KFP_HOST",
                            "api.answer_too_large",
                        )
                return _Answer(response.status_code, response.reason, response.headers, bytes(data))

        try:
            answer = _run_with_time_limit(seconds, attempt)
        except requests.exceptions.SSLError as error:
            raise ApiError(
                f"the certificate of {self.host} cannot be verified",
                "check KFP_HOST, or set REQUESTS_CA_BUNDLE to the certificate of its authority",
                "api.bad_certificate",
            ) from error
        except requests.exceptions.Timeout as error:
            sent_it = not isinstance(error, requests.exceptions.ConnectTimeout)
            unanswered = UnansweredError(
                f"{self.host} does not answer", "check KFP_HOST and the network", "api.no_answer"
            )
            raise unanswered.after(0, late=sent_it) from error
        except requests.exceptions.RequestException as error:
            raise UnansweredError(
                f"{self.host} is unreachable ({_network_reason(error)})",
                "check KFP_HOST and the network",
                "api.unreachable",
            ) from error
        if not 200 <= answer.status <= 299:
            raise self._error(method, urlsplit(url).path, answer)
        return answer

    def _error(self, method: str, path: str, answer: _Answer) -> ApiError:
        """Return the error that an answer with an error status means."""
        status = answer.status
        message, code = _message(answer.data)
        if self._secret:
            message = message.replace(self._secret, "…")
        detail = f": {message.rstrip('.')}" if message else ""
        if 300 <= status <= 399:
            place = urlsplit(answer.getheader("Location") or "").hostname or "a login page"
            return ApiError(
                f"{self.host} redirects to {place} ({status})", "set KFP_AUTH", "api.redirect", status=status
            )
        if status == 401:
            return ApiError(
                f"{self.host} rejects the credentials (401{detail})",
                "check KFP_AUTH and its token",
                "api.unauthorized",
                status=status,
            )
        if status == 403:
            return ApiError(
                f"{method} {path} is not allowed (403{detail})",
                "use a role that is allowed to, or check KFP_NAMESPACE",
                "api.forbidden",
                status=status,
            )
        if status in _PASSING:
            wait = answer.getheader("Retry-After") or ""
            passing = UnansweredError(
                f"{self.host} fails ({status}{detail})", "try again later", "api.unavailable", status=status
            )
            # At 504 a proxy's time limit was reached; the server may still be processing the request.
            return passing.after(float(wait) if wait.isdecimal() else 0.0, late=status == 504)
        if status == 404 and code is None:
            return AbsentError(
                f"there is no Kubeflow Pipelines API at {self.host} (404 for {path})",
                "check KFP_HOST",
                "api.absent",
                status=status,
            )
        return RejectedError(
            f"{self.host} rejects {method} {path} ({status}{detail})",
            "correct the value that the message names",
            "api.rejected",
            status=status,
        )


def _message(data: bytes) -> tuple[str, int | None]:
    """Return the message of an error, at most 300 characters, and its gRPC code; None if it is not from the API."""
    try:
        body = json.loads(data)
        inner = next((d["message"] for d in body.get("details") or [] if d.get("message")), None)
        message = inner or body.get("message") or body.get("error_message") or body.get("error") or ""
        code = body.get("code") if isinstance(body.get("code"), int) else (2 if "error_message" in body else None)
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        return "", None
    return str(message)[:300], code


def _network_reason(error: BaseException | None) -> str:
    """Return the operating system's reason for a broken connection, from the causes of an exception."""
    seen = error
    while seen is not None:
        if isinstance(seen, ConnectionError | socket.gaierror):
            return seen.strerror or str(seen)
        seen = seen.__cause__ or seen.__context__
    return "connection closed"


def _run_with_time_limit(seconds: float, work: Callable[[], T]) -> T:
    """Return `work()` or raise a timeout.

    The work is done in a thread that is abandoned after the timeout, because resolving a name cannot be interrupted.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise requests.exceptions.Timeout
    return results[0]


class Api:
    """The services of the API, and calls with repeated attempts.

    Args:
        environment: the variables in this module's docstring.

    Raises:
        UserError: a variable is invalid, or `api.no_namespace`.
        ApiError: the API is unreachable or denies access.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.host = address(environment.get("KFP_HOST", ""))
        self.connection = Connection(self.host, make_token_reader(environment, self.host))
        self.namespace = environment.get("KFP_NAMESPACE", "")
        self.experiments = kfp_server_api.ExperimentServiceApi(self.connection)
        self.pipelines = kfp_server_api.PipelineServiceApi(self.connection)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(self.connection)
        self.runs = kfp_server_api.RunServiceApi(self.connection)
        self.recurring_runs = kfp_server_api.RecurringRunServiceApi(self.connection)
        health = None
        with contextlib.suppress(AbsentError):  # a gateway may only pass requests to the services
            health = self.call(kfp_server_api.HealthzServiceApi(self.connection).healthz_service_get_healthz)
        if health and health.multi_user and not self.namespace:
            raise UserError(
                f"{self.host} has a namespace for each user, and KFP_NAMESPACE is not set",
                "set KFP_NAMESPACE to the namespace of your profile",
                "api.no_namespace",
            )

    def call(self, method: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """Call a method that may be repeated, for `CALL_LIMIT_S`.

        Raises:
            ApiError: all attempts failed.
        """
        return self._repeat(lambda again: method(*arguments, **keywords), PAUSE_S)

    def create(self, make: Callable[[], T], find: Callable[[], T | None]) -> T:
        """Create something once.

        Before a call is repeated, `find` checks whether it succeeded although the answer was lost. It is not repeated
        while the server may still be processing it.

        Args:
            make: the call.
            find: returns what the call creates, or None; its own calls are tried once.

        Raises:
            ApiError: all attempts failed, or `api.unknown_outcome`.
        """
        late = False

        def attempt(again: bool) -> T:
            nonlocal late
            found = find() if again else None
            if found is not None:
                return found
            if late:
                raise UnansweredError(
                    f"{self.host} does not answer, and it is unknown whether the request succeeded",
                    "check in the Kubeflow UI before you repeat the command",
                    "api.unknown_outcome",
                )
            try:
                return make()
            except UnansweredError as error:
                late = error.late
                raise
            except RejectedError as error:
                found = find() if error.status == 409 else None  # created meanwhile by another command
                if found is None:
                    raise
                return found

        return self._repeat(attempt, CREATE_PAUSE_S)

    def _repeat(self, attempt: Callable[[bool], T], pause: float) -> T:
        self.connection.give_up = time.monotonic() + CALL_LIMIT_S
        again = False
        while True:
            try:
                return attempt(again)
            except UnansweredError as error:
                wait = max(pause * random.uniform(0.8, 1.2), error.retry_after_s)  # noqa: S311 (spreads the load)
                if time.monotonic() + wait > self.connection.give_up:
                    raise
                if not again:
                    print(f"warning: {error}; retrying for {CALL_LIMIT_S:.0f} s", file=sys.stderr, flush=True)
            time.sleep(wait)
            again, pause = True, min(pause * 2, 8)

    def workflow(self, run_id: str) -> Workflow:
        """Return a run's tasks, from its Workflow manifest.

        Raises:
            ApiError: the API does not return the run.
            UserError: `workflow.absent`, `workflow.offloaded` or `workflow.unreadable`.
        """
        url = f"{self.host}/apis/v1beta1/runs/{quote(run_id, safe='')}"
        return parse_run(json.loads(self.call(self.connection.request, "GET", url).data))

    def pages(self, method: Callable[..., Any], field: str, *arguments: Any, **keywords: Any) -> Iterator[Any]:
        """Yield all entries of a list, page by page; each page is requested once."""
        token, seen = "", set[str]()
        while True:
            answer = method(*arguments, page_size=100, **keywords, **({"page_token": token} if token else {}))
            yield from getattr(answer, field) or []
            token = answer.next_page_token or ""
            if not token or token in seen:
                return
            seen.add(token)

    def find_by_name(
        self, method: Callable[..., Any], field: str, name: str, *arguments: Any, **keywords: Any
    ) -> list[Any]:
        """Return the entries of a list with this display name; the server filters them."""
        predicate = kfp_server_api.V2beta1Predicate(operation="EQUALS", key="display_name", string_value=name)
        wanted = self.connection.sanitize_for_serialization(kfp_server_api.V2beta1Filter(predicates=[predicate]))
        entries = self.pages(method, field, *arguments, filter=json.dumps(wanted), **keywords)
        return [entry for entry in entries if entry.display_name == name]


def settings(words: list[str]) -> dict[str, str]:
    """Return the words `NAME=value` as a dictionary, without those that begin with KFP_.

    Those are written to the environment, as make does.

    Raises:
        UserError: as in `parameters.assignments`.
    """
    given = parameters.assignments(words)
    os.environ.update({name: value for name, value in given.items() if name.startswith("KFP_")})
    return {name: value for name, value in given.items() if not name.startswith("KFP_")}
