"""The way to the API: every way in, every way to fail, over a real socket."""

import base64
import json
import os
import socket
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
from tests.helpers.kfp_server import KfpServer, serving
from tests.integration.counterweight.conftest import Command

TOKEN = "t0ken-of-a-secret"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


def last_token(kfp: KfpServer) -> str:
    return kfp.asked[-1][3].get("Authorization", "")


def test_nobody_is_signed_in_unless_asked(kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    client.Api(os.environ)
    assert last_token(kfp) == ""


def test_a_token_from_the_environment(kfp: KfpServer, monkeypatch: pytest.MonkeyPatch):
    kfp.token = TOKEN
    monkeypatch.setenv("KFP_AUTH", "token")
    monkeypatch.setenv("KFP_TOKEN", f"{TOKEN}\n")
    client.Api(os.environ)
    assert last_token(kfp) == f"Bearer {TOKEN}"


def test_a_clusters_token_is_read_anew_for_each_request(
    kfp: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
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


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A service account whose tokens come from this machine, each valid for a shorter time than the last is used."""
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
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
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


def test_identity_aware_proxy_gets_googles_token_renewed_as_it_expires(kfp: KfpServer, google: list[str]):
    api = client.Api(os.environ)
    assert last_token(kfp) == f"Bearer {google[0]}"
    api.call(api.runs.run_service_list_runs)
    assert len(google) == 2
    assert last_token(kfp) == f"Bearer {google[1]}"


def test_no_google_credentials_is_one_sentence(kfp: KfpServer, do: Command, google: list[str], tmp_path: Path):
    (tmp_path / "account.json").unlink()
    code, _, err = do(logs, "RUN=x")
    assert code == 2
    assert "no Google credentials here give identity tokens; set GOOGLE_APPLICATION_CREDENTIALS" in err


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"KFP_HOST": ""}, "KFP_HOST is not set"),
        ({"KFP_HOST": "localhost:8888"}, "KFP_HOST is 'localhost:8888'; write it as https://name"),
        ({"KFP_HOST": "ftp://x"}, "write it as https://name"),
        ({"KFP_HOST": "https://"}, "write it as https://name"),
        ({"KFP_HOST": "https://x/#/runs"}, "write it as https://name"),
        ({"KFP_HOST": "https://x:99999"}, "write it as https://name"),
        ({"KFP_HOST": "https://x y"}, "write it as https://name"),
        ({"KFP_HOST": "https://[x"}, "write it as https://name"),
        ({"KFP_HOST": "https://me:hunter2@x"}, "KFP_HOST holds a user name or password"),
        ({"KFP_AUTH": "basic"}, "KFP_AUTH is 'basic'; choose one of none, token, cluster, iap."),
        ({"KFP_AUTH": "token"}, "set either KFP_TOKEN or KFP_TOKEN_FILE"),
        ({"KFP_AUTH": "token", "KFP_TOKEN": "a", "KFP_TOKEN_FILE": "b"}, "set either KFP_TOKEN or KFP_TOKEN_FILE"),
        ({"KFP_AUTH": "token", "KFP_TOKEN_FILE": "/nowhere"}, "the token file /nowhere can't be read"),
        ({"KFP_AUTH": "token", "KFP_TOKEN": "hunter2 and\nmore"}, "the token in KFP_TOKEN is empty or not one word"),
        ({"KFP_AUTH": "token", "KFP_TOKEN": "hunter2", "KFP_HOST": "http://kfp.example.org"}, "could read the token"),
        ({"KFP_AUTH": "iap", "KFP_IAP_CLIENT_ID": "x", "KFP_HOST": "http://kfp.example.org"}, "could read the token"),
        ({"KFP_AUTH": "cluster", "KFP_HOST": "http://kfp.example.org"}, "could read the token"),
        ({"KFP_AUTH": "cluster"}, "the token file /var/run/secrets/kubeflow/pipelines/token can't be read"),
        ({"KFP_AUTH": "iap"}, "set KFP_IAP_CLIENT_ID"),
        ({"REQUESTS_CA_BUNDLE": "/nowhere"}, "REQUESTS_CA_BUNDLE is /nowhere, and there is no such file"),
    ],
)
def test_a_wrong_variable_is_one_sentence(
    kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, _, err = do(logs, "RUN=x")
    assert code == 2
    assert sentence in err
    assert "hunter2" not in err
    assert kfp.asked == []


@pytest.mark.parametrize("host", ["ml-pipeline", "ml-pipeline.kubeflow.svc", "ml-pipeline.kubeflow.svc.cluster.local"])
def test_inside_a_cluster_its_token_may_go_over_http(tmp_path: Path, host: str):
    (tmp_path / "token").write_text(TOKEN)
    variables = {"KFP_AUTH": "cluster", "KFP_TOKEN_FILE": str(tmp_path / "token")}
    assert client.bearer(variables, f"http://{host}:8888")() == TOKEN
    with pytest.raises(UserError):
        client.bearer({"KFP_AUTH": "token", "KFP_TOKEN": TOKEN}, f"http://{host}:8888")


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        (
            {"kind": "status", "status": 401, "message": f"bad {TOKEN}"},
            5,
            "does not take these credentials (401: bad …)",
        ),
        (
            {"kind": "status", "status": 403, "message": "no access"},
            5,
            "is not allowed (403: no access); ask for a role",
        ),
        ({"kind": "status", "status": 404}, 2, "there is no run x at"),
        ({"kind": "status", "status": 409}, 2, "(409: scripted); mend what it names."),
        ({"kind": "status", "status": 400}, 2, "(400: scripted)"),
        (
            {"kind": "status", "status": 429, "headers": {"Retry-After": "9"}},
            5,
            "fails (429: scripted); try again later",
        ),
        ({"kind": "status", "status": 500}, 5, "fails (500: scripted)"),
        ({"kind": "drop"}, 5, "can't be reached (Remote end closed connection without response)"),
        ({"kind": "half"}, 5, "can't be reached (broken off)"),
        ({"kind": "slow", "seconds": 3}, 5, "does not answer; check KFP_HOST"),
        ({"kind": "html"}, 5, "answers, but not as the Kubeflow Pipelines API; check KFP_HOST and KFP_AUTH."),
        ({"kind": "redirect"}, 5, "sends to login.example.org instead of answering (302); set KFP_AUTH."),
    ],
)
@pytest.mark.parametrize("path", ["healthz", "runs/x"])
def test_each_failure_has_its_code_and_its_sentence(
    kfp: KfpServer,
    do: Command,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    code: int,
    sentence: str,
    path: str,
):
    if path == "healthz" and fault.get("status") in (404,):
        sentence = "refuses GET /apis/v2beta1/healthz (404: scripted)"
    monkeypatch.setattr(client, "PATIENCE_S", 0.3)
    monkeypatch.setenv("KFP_AUTH", "token")
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    kfp.fault(f"GET /apis/v2beta1/{path}", times=99, **fault)
    begun = time.monotonic()
    got, out, err = do(logs, "RUN=x")
    assert got == code
    assert sentence in err
    assert TOKEN not in err + out
    assert err.count("error: ") == 1
    assert time.monotonic() - begun < 4


def test_the_time_to_wait_that_the_server_asks_for_is_waited(kfp: KfpServer):
    kfp.fault("GET /apis/v2beta1/healthz", "status", status=429, headers={"Retry-After": "1"})
    begun = time.monotonic()
    client.Api(os.environ)
    assert 1 <= time.monotonic() - begun < 10


def test_an_answer_of_another_shape_is_not_a_bug(kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch):
    for strange in ([], {"state": 5, "created_at": "yesterday"}, {"run_details": {"task_details": 5}}):
        monkeypatch.setitem(kfp_server.ROUTES, "GET /apis/v2beta1/runs/([^/:]+)", lambda *_, answer=strange: answer)
        code, _, err = do(logs, "RUN=x")
        assert (code, err.count("error: ")) == (5, 1), strange
    for strange in ({"state": {"is": 1}, "error": 5}, {"display_name": 5, "run_details": {"task_details": [{}]}}):
        monkeypatch.setitem(kfp_server.ROUTES, "GET /apis/v2beta1/runs/([^/:]+)", lambda *_, answer=strange: answer)
        assert do(logs, "RUN=x")[0] == 0, strange


def test_no_api_at_the_address(kfp: KfpServer, do: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kfp_server.Handler, "do_GET", lambda self: self.answer(404, b"<h1>nginx</h1>", {}))
    code, _, err = do(logs, "RUN=x")
    assert code == 5
    assert "there is no Kubeflow Pipelines API at" in err


def test_nobody_listens(do: Command, kfp: KfpServer, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("KFP_HOST", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setattr(client, "PATIENCE_S", 0.5)
        code, _, err = do(logs, "RUN=x")
    assert code == 5
    assert "can't be reached (Connection refused)" in err


def test_a_name_that_is_never_looked_up_ends_in_time(do: Command, kfp: KfpServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    monkeypatch.setattr(client, "PATIENCE_S", 0.5)
    begun = time.monotonic()
    assert do(logs, "RUN=x")[0] == 5
    assert time.monotonic() - begun < 4


def test_all_of_it_ends_within_half_a_minute():
    assert client.PATIENCE_S + client.ATTEMPT_S / 100 < 30
    assert client.ATTEMPT_S < client.PATIENCE_S


def certificate(folder: Path) -> Path:
    """A certificate of our own for 127.0.0.1, with its key."""
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


def test_a_certificate_is_verified(kfp: KfpServer, do: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(KfpServer(), str(certificate(tmp_path))) as api:
        monkeypatch.setenv("KFP_HOST", api.url)
        begun = time.monotonic()
        code, _, err = do(logs, "RUN=x")
        assert code == 5
        assert "the certificate of https://127.0.0.1" in err
        assert api.asked == []
        assert time.monotonic() - begun < 4
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        assert do(logs, "RUN=x")[0] == 2
        assert api.asked
