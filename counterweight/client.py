"""The way to a Kubeflow Pipelines API: its address, the credentials, how long to wait, and one sentence for whatever
goes wrong.

    KFP_HOST       where the API is, with http:// or https://
    KFP_NAMESPACE  the profile's namespace; for installations that separate users
    KFP_AUTH       none (default)
                   token: KFP_TOKEN, or the file KFP_TOKEN_FILE
                   cluster: the token that Kubernetes mounts for Kubeflow Pipelines (KFP_TOKEN_FILE for another place)
                   iap: an identity token of the Google credentials here, for the OAuth client KFP_IAP_CLIENT_ID

The API's generated classes send and read everything, over a connection of ours. `kfp.Client` is not used: it reads the
kube config of whoever calls it, waits without an end, and returns normally from a run that failed.
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
from urllib.parse import urlsplit

import kfp_server_api
import requests

from components.shared.errors import ExitCode, UserError
from counterweight import parameters

PATIENCE_S = 25.0
"""So long a call is tried, all attempts and pauses together."""
ATTEMPT_S = 10.0
PAUSE_S = 0.5
"""Before a call is repeated; doubled each time."""
LOOK_AGAIN_S = 2.0
"""The same for a call that makes something: the server may be about to finish it."""
LIMIT_BYTES = 64_000_000
"""Of an answer: a run of a hundred classes stays far below it."""
CLUSTER_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105 (a path)

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PASSING = (429, 500, 502, 503, 504)

T = TypeVar("T")


class ApiError(UserError):
    """The API can't be reached, or does not let us: exit code 5. The message is one sentence on one line."""

    exit_code = ExitCode.UNREACHABLE


class AbsentError(ApiError):
    """Nothing answers at this address, not even with an error of the API's."""


class UnansweredError(ApiError):
    """No answer, or one that may be another next time.

    Attributes:
        retry_after_s: seconds that the server asks us to wait.
        late: the time was over while the server may have been at work still.
    """

    def __init__(self, sentence: str, retry_after_s: float = 0.0, late: bool = False) -> None:
        super().__init__(sentence)
        self.retry_after_s, self.late = retry_after_s, late


class RejectedError(ApiError):
    """The API answered that the request can't be done as it is: exit code 2.

    Attributes:
        status: HTTP's, from 400 to 499.
    """

    exit_code = ExitCode.USER_ERROR

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


def address(host: str) -> str:
    """KFP_HOST, checked.

    Raises:
        UserError: it is not an address.
    """
    if not host:
        raise UserError(
            "KFP_HOST is not set; give the address of the Kubeflow Pipelines API, with http:// or https://."
        )
    try:
        parts = urlsplit(host)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or parts.query or parts.fragment or host != "".join(host.split()):
        raise UserError(f"KFP_HOST is {host!r}; write it as https://name or http://name:port, with a path if need be.")
    if parts.username is not None:
        raise UserError("KFP_HOST holds a user name or password; leave them out and set KFP_AUTH.")
    return host.rstrip("/")


def bearer(environment: Mapping[str, str], host: str) -> Callable[[], str]:
    """What gives the token of each request, empty for none: read or renewed each time, since tokens expire.

    Raises:
        UserError: KFP_AUTH, or what belongs to it, can't be used.
    """
    way = environment.get("KFP_AUTH") or "none"
    if way == "none":
        return lambda: ""
    if way not in ("token", "cluster", "iap"):
        raise UserError(f"KFP_AUTH is {way!r}; choose one of none, token, cluster, iap.")
    parts = urlsplit(host)
    name = parts.hostname or ""
    inside = way == "cluster" and ("." not in name or name.endswith(".svc") or ".svc." in name)
    if parts.scheme == "http" and name not in _LOOPBACK and not inside:
        raise UserError(f"KFP_HOST is {host}, and everybody on the way could read the token; use https://.")
    if way == "iap":
        return _identity_token(environment.get("KFP_IAP_CLIENT_ID", ""))
    literal = environment.get("KFP_TOKEN", "") if way == "token" else ""
    file = environment.get("KFP_TOKEN_FILE") or (CLUSTER_TOKEN if way == "cluster" else "")
    if bool(literal) == bool(file):
        raise UserError("KFP_AUTH is token; set either KFP_TOKEN or KFP_TOKEN_FILE.")

    def token() -> str:
        try:
            text = literal or Path(file).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the token file {file} can't be read; set KFP_TOKEN_FILE to one that can.") from error
        if not re.fullmatch(r"[\x21-\x7e]+", text.strip()):  # else it would stand in an error message of HTTP's
            raise UserError(f"the token in {'KFP_TOKEN' if literal else file} is empty or not one word; give another.")
        return text.strip()

    token()
    return token


def _identity_token(client_id: str) -> Callable[[], str]:
    """Google's identity tokens for an OAuth client, renewed before they expire."""
    if not client_id:
        raise UserError("KFP_AUTH is iap; set KFP_IAP_CLIENT_ID to the OAuth client of the proxy.")
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
                "no Google credentials here give identity tokens; set GOOGLE_APPLICATION_CREDENTIALS to a service "
                "account's, or run on a machine that has one."
            ) from error
        except exceptions.GoogleAuthError as error:
            raise UnansweredError(
                f"Google gives no identity token ({type(error).__name__}); check the network and the account's rights."
            ) from error
        return str(kept[0].token)

    return token


class _Answer:
    """What the generated classes expect of an answer."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str], data: bytes) -> None:
        self.status, self.reason, self.headers, self.data = status, reason, headers, data

    def getheader(self, name: str, default: str | None = None) -> str | None:
        return self.headers.get(name, default)

    def getheaders(self) -> Mapping[str, str]:
        return self.headers


class Connection(kfp_server_api.ApiClient):
    """Sends the generated classes' requests: one attempt each, within a time, redirected nowhere.

    Args:
        host: checked by `address`.
        token: as `bearer` gives it.

    Attributes:
        give_up: the moment, of `time.monotonic`, at which an attempt must be over.
    """

    def __init__(self, host: str, token: Callable[[], str]) -> None:
        super().__init__(kfp_server_api.Configuration(host=host))
        self.host, self.token = host, token
        self.give_up = float("inf")
        self.session = requests.Session()
        self.session.auth = self._sign  # with one of its own, requests does not read ~/.netrc
        if urlsplit(host).hostname in _LOOPBACK:
            self.session.trust_env = False  # a proxy elsewhere can't reach this machine's ports
        authorities = os.environ.get("REQUESTS_CA_BUNDLE") or ""
        if authorities and not Path(authorities).exists():
            raise UserError(
                f"REQUESTS_CA_BUNDLE is {authorities}, and there is no such file; give another or unset it."
            )
        self.verify = authorities or True
        self._secret = ""

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._secret:
            request.headers["Authorization"] = f"Bearer {self._secret}"
        return request

    def request(self, method: str, url: str, query_params: Any = None, headers: Any = None, post_params: Any = None,
                body: Any = None, _preload_content: bool = True, _request_timeout: Any = None) -> _Answer:  # fmt: skip
        """One attempt.

        Raises:
            ApiError: there is no answer, or not one that the API gives.
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
            raise ApiError(f"{self.host} answers, but not as the Kubeflow Pipelines API; check KFP_HOST and KFP_AUTH.")
        answer.data = answer.data or b"{}"
        return answer

    def deserialize(self, response: _Answer, response_type: str) -> Any:
        """As the base class does; whatever it stumbles over is the answer's fault."""
        try:
            return super().deserialize(response, response_type)
        except Exception as error:
            raise ApiError(f"{self.host} sends a {response_type} that can't be read; is it of version 2?") from error

    def send(self, method: str, url: str, **arguments: Any) -> _Answer:
        """One attempt; its answer is a success, of any content.

        Raises:
            ApiError: there is no answer, or it says that something is wrong.
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
                        raise ApiError(f"{self.host} sends more than {LIMIT_BYTES:,} bytes; check KFP_HOST.")
                return _Answer(response.status_code, response.reason, response.headers, bytes(data))

        try:
            answer = _within(seconds, attempt)
        except requests.exceptions.SSLError as error:
            raise ApiError(
                f"the certificate of {self.host} can't be verified; check KFP_HOST, or set REQUESTS_CA_BUNDLE to the "
                "file of its authority."
            ) from error
        except requests.exceptions.Timeout as error:
            sent_it = not isinstance(error, requests.exceptions.ConnectTimeout)
            raise UnansweredError(
                f"{self.host} does not answer; check KFP_HOST and the network.", late=sent_it
            ) from error
        except requests.exceptions.RequestException as error:
            raise UnansweredError(
                f"{self.host} can't be reached ({_why(error)}); check KFP_HOST and the network."
            ) from error
        if not 200 <= answer.status <= 299:
            raise self._error(method, urlsplit(url).path, answer)
        return answer

    def _error(self, method: str, path: str, answer: _Answer) -> ApiError:
        """What an answer that is no success means."""
        status = answer.status
        told, code = _message(answer.data)
        if self._secret:
            told = told.replace(self._secret, "…")
        told = f": {told.rstrip('.')}" if told else ""
        if 300 <= status <= 399:
            place = urlsplit(answer.getheader("Location") or "").hostname or "a login page"
            return ApiError(f"{self.host} sends to {place} instead of answering ({status}); set KFP_AUTH.")
        if status == 401:
            return ApiError(f"{self.host} does not take these credentials (401{told}); check KFP_AUTH and its token.")
        if status == 403:
            return ApiError(
                f"{method} {path} is not allowed (403{told}); ask for a role that may, or check KFP_NAMESPACE."
            )
        if status in _PASSING:
            wait = answer.getheader("Retry-After") or ""
            return UnansweredError(
                f"{self.host} fails ({status}{told}); try again later.",
                float(wait) if wait.isdecimal() else 0.0,
                late=status == 504,  # a proxy's patience was over, not the server's work
            )
        if status == 404 and code is None:
            return AbsentError(f"there is no Kubeflow Pipelines API at {self.host} (404 for {path}); check KFP_HOST.")
        return RejectedError(f"{self.host} refuses {method} {path} ({status}{told}); mend what it names.", status)


def _message(data: bytes) -> tuple[str, int | None]:
    """What an error's body says, at most 300 characters, and its gRPC code, if it is the API's at all."""
    try:
        body = json.loads(data)
        inner = next((d["message"] for d in body.get("details") or [] if d.get("message")), None)
        told = inner or body.get("message") or body.get("error_message") or body.get("error") or ""
        code = body.get("code") if isinstance(body.get("code"), int) else (2 if "error_message" in body else None)
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError):
        return "", None
    return str(told)[:300], code


def _why(error: BaseException | None) -> str:
    """The operating system's word for a broken connection, from the bottom of a library's exceptions."""
    seen = error
    while seen is not None:
        if isinstance(seen, ConnectionError | socket.gaierror):
            return seen.strerror or str(seen)
        seen = seen.__cause__ or seen.__context__
    return "broken off"


def _within(seconds: float, work: Callable[[], T]) -> T:
    """`work()`, or a timeout: in a thread that is left behind, because looking up a name can't be broken off."""
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
    """The API's services, and how they are called.

    Args:
        environment: the variables that this module's docstring names.

    Raises:
        UserError: one of them can't be used.
        ApiError: the API can't be reached, or does not let us.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.host = address(environment.get("KFP_HOST", ""))
        self.connection = Connection(self.host, bearer(environment, self.host))
        self.namespace = environment.get("KFP_NAMESPACE", "")
        self.experiments = kfp_server_api.ExperimentServiceApi(self.connection)
        self.pipelines = kfp_server_api.PipelineServiceApi(self.connection)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(self.connection)
        self.runs = kfp_server_api.RunServiceApi(self.connection)
        self.recurring_runs = kfp_server_api.RecurringRunServiceApi(self.connection)
        health = None
        with contextlib.suppress(AbsentError):  # a gateway may let nothing but the services through; they will tell
            health = self.call(kfp_server_api.HealthzServiceApi(self.connection).healthz_service_get_healthz)
        if health and health.multi_user and not self.namespace:
            raise UserError(f"{self.host} separates its users; set KFP_NAMESPACE to the namespace of your profile.")

    def call(self, method: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """A call that may be repeated, tried for `PATIENCE_S`.

        Raises:
            ApiError: it can't be done.
        """
        return self._patiently(lambda again: method(*arguments, **named), PAUSE_S)

    def create(self, make: Callable[[], T], find: Callable[[], T | None]) -> T:
        """A call that must not be done twice: before it is repeated, `find` looks whether it was done although the
        answer was lost. It is not repeated while the server may be at work on it still.

        Args:
            make: the call.
            find: what it makes, if it is there; its calls are tried once.

        Raises:
            ApiError: it can't be done, or is not known to be.
        """
        late = False

        def attempt(again: bool) -> T:
            nonlocal late
            found = find() if again else None
            if found is not None:
                return found
            if late:
                raise UnansweredError(
                    f"{self.host} does not answer; whether it did what it was asked for is not known."
                )
            try:
                return make()
            except UnansweredError as error:
                late = error.late
                raise
            except RejectedError as error:
                found = find() if error.status == 409 else None  # somebody else was faster
                if found is None:
                    raise
                return found

        return self._patiently(attempt, LOOK_AGAIN_S)

    def _patiently(self, attempt: Callable[[bool], T], pause: float) -> T:
        self.connection.give_up = time.monotonic() + PATIENCE_S
        again = False
        while True:
            try:
                return attempt(again)
            except UnansweredError as error:
                wait = max(pause * random.uniform(0.8, 1.2), error.retry_after_s)  # noqa: S311 (spreads the load)
                if time.monotonic() + wait > self.connection.give_up:
                    raise
                if not again:
                    print(f"{str(error).split(';')[0]}; trying for {PATIENCE_S:.0f} s", file=sys.stderr, flush=True)
            time.sleep(wait)
            again, pause = True, min(pause * 2, 8)

    def pages(self, method: Callable[..., Any], field: str, *arguments: Any, **named: Any) -> Iterator[Any]:
        """All entries of a list, page by page; each page is tried once. Wrap it in `call` where that is not enough."""
        token, seen = "", set[str]()
        while True:
            answer = method(*arguments, page_size=100, **named, **({"page_token": token} if token else {}))
            yield from getattr(answer, field) or []
            token = answer.next_page_token or ""
            if not token or token in seen:
                return
            seen.add(token)

    def named(self, method: Callable[..., Any], field: str, name: str, *arguments: Any, **named: Any) -> list[Any]:
        """The entries of a list whose display name is exactly `name`; the server is asked to leave out the others."""
        predicate = kfp_server_api.V2beta1Predicate(operation="EQUALS", key="display_name", string_value=name)
        wanted = self.connection.sanitize_for_serialization(kfp_server_api.V2beta1Filter(predicates=[predicate]))
        entries = self.pages(method, field, *arguments, filter=json.dumps(wanted), **named)
        return [entry for entry in entries if entry.display_name == name]


def settings(words: list[str]) -> dict[str, str]:
    """The words `NAME=value` as a dictionary, but for those that begin with KFP_: they go into the environment, where
    make puts them by itself.

    Raises:
        UserError: a word is not of this form, or a name stands twice.
    """
    given = parameters.assignments(words)
    os.environ.update({name: value for name, value in given.items() if name.startswith("KFP_")})
    return {name: value for name, value in given.items() if not name.startswith("KFP_")}
