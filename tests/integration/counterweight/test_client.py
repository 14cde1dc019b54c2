"""Access to the API: every kind of credentials and every failure, over a real socket."""

import base64
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from components.shared.errors import UserError
from counterweight import client, logs
from tests.helpers import kfp_server
from tests.helpers.errors import raises_user_error
from tests.helpers.kfp_server import KfpServer, serving
from tests.integration.counterweight.conftest import Command

TOKEN = "t0ken-of-a-secret"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


def last_token(kfp: KfpServer) -> str:
    return kfp.asked[-1][3].get("Authorization", "")


def test_bearer_none_sends_no_token(kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    client.Api(os.environ)
    assert last_token(kfp) == ""


def test_bearer_token_from_the_environment_is_sent(kfp: KfpServer, monkeypatch: pytest.MonkeyPatch):
    kfp.token = TOKEN
    monkeypatch.setenv("KFP_AUTH", "token")
    monkeypatch.setenv("KFP_TOKEN", f"{TOKEN}\n")
    client.Api(os.environ)
    assert last_token(kfp) == f"Bearer {TOKEN}"


def test_bearer_cluster_token_is_read_for_each_request(kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "token"
    file.write_text("first\n")
    kfp.token = "first"
    monkeypatch.setenv("KFP_AUTH", "cluster")
    monkeypatch.setattr(client, "CLUSTER_TOKEN", str(file))
    api = client.Api(os.environ)
    file.write_text("second")
    kfp.token = "second"
    api.call(api.runs.run_service_list_runs)
    assert last_token(kfp) == "Bearer second"


class Clock:
    """A clock that only pauses of the client advance."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the client: its pauses take no time."""
    clock = Clock()
    monkeypatch.setattr(client, "time", clock)
    return clock


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A service account with tokens from this machine, each of which expires before it is used again."""
    given: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            part = [{"alg": "RS256"}, {"exp": int(time.time()) + 5, "aud": "client", "n": len(given)}]
            given.append(".".join([*(encoded(json.dumps(p).encode()) for p in part), "sig"]))
            body = json.dumps({"id_token": given[-1]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    account = {
        "type": "service_account",
        "client_email": "ci@project.iam.gserviceaccount.com",
        "private_key": PEM,
        "private_key_id": "1",
        "token_uri": f"http://127.0.0.1:{server.server_port}/token",
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setenv("KFP_AUTH", "iap")
    monkeypatch.setenv("KFP_IAP_CLIENT_ID", "client")
    yield given
    server.shutdown()
    server.server_close()


def test_bearer_iap_token_is_renewed_before_it_expires(kfp: KfpServer, google: list[str]):
    api = client.Api(os.environ)
    assert last_token(kfp) == f"Bearer {google[0]}"
    api.call(api.runs.run_service_list_runs)
    assert len(google) == 2
    assert last_token(kfp) == f"Bearer {google[1]}"


def test_bearer_without_google_credentials_is_a_user_error(kfp: KfpServer, google: list[str], tmp_path: Path):
    (tmp_path / "account.json").unlink()
    with pytest.raises(UserError) as caught:
        client.Api(os.environ)
    assert (caught.value.code, caught.value.exit_code) == ("api.no_identity", 2)


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"KFP_HOST": ""}, "api.no_address"),
        ({"KFP_HOST": "localhost:8888"}, "api.invalid_address"),
        ({"KFP_HOST": "ftp://x"}, "api.invalid_address"),
        ({"KFP_HOST": "https://"}, "api.invalid_address"),
        ({"KFP_HOST": "https://x/#/runs"}, "api.invalid_address"),
        ({"KFP_HOST": "https://x:99999"}, "api.invalid_address"),
        ({"KFP_HOST": "https://x y"}, "api.invalid_address"),
        ({"KFP_HOST": "https://[x"}, "api.invalid_address"),
        ({"KFP_HOST": "http://a..b"}, "api.invalid_address"),
        ({"KFP_HOST": f"http://{'a' * 64}.x"}, "api.invalid_address"),
        ({"KFP_HOST": "https://me:hunter2@x"}, "api.password_in_address"),
        ({"KFP_HOST": "https://me:hunter2@x?a=1"}, "api.password_in_address"),
        ({"KFP_HOST": "https://x?key=hunter2"}, "api.invalid_address"),
        ({"KFP_AUTH": "basic"}, "api.invalid_auth"),
        ({"KFP_AUTH": "token"}, "api.no_token"),
        ({"KFP_AUTH": "token", "KFP_TOKEN": "a", "KFP_TOKEN_FILE": "b"}, "api.token_twice"),
        ({"KFP_AUTH": "token", "KFP_TOKEN_FILE": "/nowhere"}, "api.token_unreadable"),
        ({"KFP_AUTH": "token", "KFP_TOKEN": "hunter2 and\nmore"}, "api.invalid_token"),
        ({"KFP_AUTH": "token", "KFP_TOKEN": "hunter2", "KFP_HOST": "http://kfp.example.org"}, "api.token_over_http"),
        ({"KFP_AUTH": "iap", "KFP_IAP_CLIENT_ID": "x", "KFP_HOST": "http://kfp.example.org"}, "api.token_over_http"),
        ({"KFP_AUTH": "cluster", "KFP_HOST": "http://kfp.example.org"}, "api.token_over_http"),
        ({"KFP_AUTH": "cluster", "KFP_HOST": "http://a.svc.evil.example"}, "api.token_over_http"),
        ({"KFP_AUTH": "cluster"}, "api.token_unreadable"),
        ({"KFP_AUTH": "iap"}, "api.no_client_id"),
        ({"REQUESTS_CA_BUNDLE": "/nowhere"}, "api.no_ca_bundle"),
    ],
)
def test_api_invalid_variable_is_a_user_error(
    kfp: KfpServer, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], code: str
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        client.Api(os.environ)
    assert (caught.value.code, caught.value.exit_code, kfp.asked) == (code, 2, [])
    assert "hunter2" not in caught.value.lines()
    assert caught.value.hint


@pytest.mark.parametrize("host", ["ml-pipeline", "ml-pipeline.kubeflow.svc", "ml-pipeline.kubeflow.svc.cluster.local"])
def test_bearer_cluster_token_is_allowed_over_http_within_the_cluster(tmp_path: Path, host: str):
    (tmp_path / "token").write_text(TOKEN)
    variables = {"KFP_AUTH": "cluster", "KFP_TOKEN_FILE": str(tmp_path / "token")}
    assert client.make_token_reader(variables, f"http://{host}:8888")() == TOKEN
    with raises_user_error("api.token_over_http"):
        client.make_token_reader({"KFP_AUTH": "token", "KFP_TOKEN": TOKEN}, f"http://{host}:8888")


@pytest.mark.parametrize(
    ("fault", "exit_code", "code"),
    [
        ({"kind": "status", "status": 401, "message": f"bad {TOKEN}"}, 5, "api.unauthorized"),
        ({"kind": "status", "status": 403, "message": "no access"}, 5, "api.forbidden"),
        ({"kind": "status", "status": 404}, 2, "run.unknown"),
        ({"kind": "status", "status": 409}, 2, "api.rejected"),
        ({"kind": "status", "status": 400}, 2, "api.rejected"),
        ({"kind": "status", "status": 429, "headers": {"Retry-After": "9"}}, 5, "api.unavailable"),
        ({"kind": "status", "status": 500}, 5, "api.unavailable"),
        ({"kind": "drop"}, 5, "api.unreachable"),
        ({"kind": "half"}, 5, "api.unreachable"),
        ({"kind": "slow", "seconds": 20}, 5, "api.no_answer"),
        ({"kind": "html"}, 5, "api.not_kubeflow"),
        ({"kind": "redirect"}, 5, "api.redirect"),
    ],
)
@pytest.mark.parametrize("path", ["healthz", "runs/x"])
def test_api_failure_has_its_codes(
    kfp: KfpServer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    exit_code: int,
    code: str,
    path: str,
):
    monkeypatch.setattr(client, "PAUSE_S", 5)
    if fault["kind"] == "slow":
        monkeypatch.setattr(client, "ATTEMPT_S", 0.2)
    monkeypatch.setenv("KFP_AUTH", "token")
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    kfp.fault(f"GET /apis/v2beta1/{path}", times=99, **fault)
    with pytest.raises(UserError) as caught:
        logs.run(["RUN=x"], sys.stdout)
    expected = "api.rejected" if (path, code) == ("healthz", "run.unknown") else code
    assert (caught.value.exit_code, caught.value.code) == (exit_code, expected)
    assert TOKEN not in caught.value.lines()
    assert clock.now <= client.CALL_LIMIT_S


def test_api_retry_after_is_respected(kfp: KfpServer, clock: Clock):
    kfp.fault("GET /apis/v2beta1/healthz", "status", status=429, headers={"Retry-After": "1"})
    client.Api(os.environ)
    assert clock.now == 1


@pytest.mark.parametrize("answer", [[], {"state": 5, "created_at": "yesterday"}, {"run_details": {"task_details": 5}}])
def test_api_answer_of_another_shape_is_an_api_error(kfp: KfpServer, monkeypatch: pytest.MonkeyPatch, answer: Any):
    monkeypatch.setitem(kfp_server.ROUTES, "GET /apis/v2beta1/runs/([^/:]+)", lambda *_: answer)
    with pytest.raises(client.ApiError):
        logs.run(["RUN=x"], sys.stdout)


@pytest.mark.parametrize("answer", [{"state": {"is": 1}, "error": 5}, {"display_name": 5, "state_history": [{}]}])
def test_api_run_with_odd_fields_is_listed(
    kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
):
    monkeypatch.setitem(kfp_server.ROUTES, "GET /apis/v2beta1/runs/([^/:]+)", lambda *_: answer)
    manifest = json.dumps(kfp.manifest({}, "RUNNING"))
    run = {"pipeline_runtime": {"workflow_manifest": manifest}}
    monkeypatch.setitem(kfp_server.ROUTES, "GET /apis/v1beta1/runs/([^/:]+)", lambda *_: run)
    assert do(logs, "RUN=x")[0] == 0


def test_api_absent_at_the_address_is_an_api_error(kfp: KfpServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kfp_server.Handler, "do_GET", lambda self: self.answer(404, b"<h1>nginx</h1>", {}))
    with pytest.raises(client.ApiError) as caught:
        logs.run(["RUN=x"], sys.stdout)
    assert caught.value.code == "api.absent"


def test_api_refused_connection_is_an_api_error(kfp: KfpServer, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("KFP_HOST", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setattr(client, "CALL_LIMIT_S", 0.2)
        with pytest.raises(client.ApiError) as caught:
            logs.run(["RUN=x"], sys.stdout)
    assert caught.value.code == "api.unreachable"
    assert "Connection refused" in caught.value.message


def test_api_host_name_without_answer_respects_the_time_limit(
    do: Command, kfp: KfpServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(120))
    monkeypatch.setattr(client, "CALL_LIMIT_S", 0.5)
    start = time.monotonic()
    assert do(logs, "RUN=x")[0] == 5
    assert time.monotonic() - start < 60


def test_api_time_limits_are_below_half_a_minute():
    assert client.CALL_LIMIT_S + client.ATTEMPT_S / 100 < 30
    assert client.ATTEMPT_S < client.CALL_LIMIT_S


def certificate(folder: Path) -> Path:
    """Return a self-signed certificate for 127.0.0.1 with its key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(KEY, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_text(built.public_bytes(serialization.Encoding.PEM).decode() + PEM)
    return path


def test_api_certificate_is_verified(
    kfp: KfpServer, do: Command, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with serving(KfpServer(), str(certificate(tmp_path))) as api:
        monkeypatch.setenv("KFP_HOST", api.url)
        code, _, err = do(logs, "RUN=x")
        assert code == 5
        assert "the certificate of https://127.0.0.1" in err
        assert api.asked == []
        assert clock.now == 0, "it is not repeated"
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        assert do(logs, "RUN=x")[0] == 2
        assert api.asked
