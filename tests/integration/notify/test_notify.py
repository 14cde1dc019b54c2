"""The exit task against real servers on this machine."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.notify import notify as module
from components.notify.notify import by_phase, notify, notify_safely, read_token, render
from components.shared.workflow import parse_run
from tests.helpers import recordings

PHASES = ("prepare_data", "train_gan", "train_classifier", "evaluate", "publish", "notify")
RATES = {
    "phases": {phase: {"cpu": 4, "memory_gib": 8, "accelerators": 1, "price": 36.0} for phase in PHASES},
    "currency": "EUR",
}
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
Seen = list[dict[str, Any]]


@contextmanager
def server(answer: bytes = b"{}", status: int = 200, **headers: str) -> Iterator[tuple[str, Seen]]:
    """Run an HTTP server with one answer; yield its address and the requests."""
    seen: Seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append(
                {"method": self.command, "path": self.path, "authorization": self.headers.get("Authorization")}
                | {"body": body}
            )
            self.send_response(status)
            for name, value in {"Content-Length": str(len(answer)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815 (name of http.server)

        def log_message(self, *args: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}", seen
    finally:
        httpd.shutdown()
        httpd.server_close()


def recorded(name: str, moment: str = "") -> bytes:
    """Return the API's answer about a recorded run, at a moment of it."""
    if not moment:
        return json.dumps(recordings.load(name)[0]).encode()
    manifest = json.dumps(recordings.manifest_as_of(name, moment))
    return json.dumps({"pipeline_runtime": {"workflow_manifest": manifest}}).encode()


def call(tmp_path: Path, **given: Any) -> str:
    usual = {"state": "COMPLETE", "error": "", "run_id": "r1", "run_name": "cw", "data": "demo", "api": "", "token": ""}
    return notify(**(usual | {"ui": "", "rates": RATES, "webhook": "", "summary": tmp_path / "summary.md"} | given))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    monkeypatch.setattr(module, "DEADLINE_S", 0.5)


def test_by_phase_sums_time_and_cost_of_all_pods():
    rows = {
        row["phase"]: row
        for row in by_phase(parse_run(recordings.load("succeeded-after-retries")[0]).tasks, RATES, NOW)
    }
    # train_gan: 56 s for vasc, 174 s for df in two pods; see the recording.
    assert rows["train_gan"]["tasks"] == 2
    assert rows["train_gan"]["hours"] == pytest.approx(230 / 3600)
    assert rows["train_gan"]["cost"] == pytest.approx(230 / 3600 * 36)
    assert (rows["train_classifier"]["tasks"], rows["train_classifier"]["cached"]) == (6, 2)
    assert (rows["prepare_data"]["cached"], rows["prepare_data"]["hours"]) == (1, 0)


@pytest.mark.parametrize(
    ("name", "moment", "ended"),
    [
        ("succeeded-after-retries", "2026-11-26T04:27:00Z", "succeeded"),
        ("succeeded-all-cached", "2026-11-26T04:09:05Z", "succeeded"),
        ("succeeded-details-frozen", "2026-11-26T04:06:06Z", "succeeded"),
        ("out-of-memory", "2026-11-26T04:29:15Z", "failed"),
        ("terminated", "", "cancelled"),
    ],
)
def test_notify_state_comes_from_the_manifest(tmp_path: Path, name: str, moment: str, ended: str):
    """The metadata store reports other states after retries, and with cached tasks."""
    wrong = "RUNNING" if ended == "succeeded" else "COMPLETE"
    with server(recorded(name, moment)) as (api, asked):
        assert call(tmp_path, state=wrong, api=api) == ended
    assert asked[0]["path"] == "/apis/v1beta1/runs/r1"


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        ("SUCCEEDED", "succeeded"),
        ("COMPLETE", "succeeded"),
        ("FAILED", "failed"),
        ("RUNNING", "unknown"),
        ("", "unknown"),
    ],
)
def test_notify_local_run_uses_the_given_state(tmp_path: Path, state: str, ended: str):
    assert call(tmp_path, state=state) == ended
    assert (tmp_path / "summary.md").read_text() == f"## cw on demo: {ended}\n"


def test_notify_sends_the_token_to_the_api_and_the_figures_to_the_webhook(tmp_path: Path):
    answer = recorded("out-of-memory", "2026-11-26T04:29:15Z")
    with server(answer) as (api, asked), server() as (hook, posted):
        call(tmp_path, api=api, token="t0ken", ui="https://ui.example/", webhook=hook)
    assert [request["authorization"] for request in asked] == ["Bearer t0ken"]
    assert [request["authorization"] for request in posted] == [None]
    message = json.loads(posted[0]["body"])
    assert message["status"] == "failed"
    assert message["link"] == "https://ui.example/#/runs/details/r1"
    assert "out of memory" in message["text"]
    assert message["cost"] == pytest.approx(sum(row["cost"] for row in message["phases"]))
    page = (tmp_path / "summary.md").read_text()
    assert "| train_classifier | 3 |  | 3 | 11 s | 0.00 | 0.11 |" in page
    assert "<https://ui.example/#/runs/details/r1>" in page
    assert "notify" not in page


def test_notify_outdated_manifest_reports_incomplete_figures(tmp_path: Path):
    with server(recorded("succeeded-details-frozen", "2026-11-26T04:02:00Z")) as (api, asked):
        assert call(tmp_path, api=api) == "succeeded"
    assert len(asked) > 1
    assert "incomplete" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{}",
        b'{"pipeline_runtime": null}',
        b"<html>log in</html>",
        b"[" * 100_000,
        b'{"pipeline_runtime": {"workflow_manifest": "{"}}',
        b"\xff\xfe",
    ],
)
def test_notify_unreadable_answer_is_reported_as_unknown_cost(tmp_path: Path, answer: bytes):
    with server(answer) as (api, _):
        assert call(tmp_path, api=api) == "succeeded"
    assert "Time and cost are unknown" in (tmp_path / "summary.md").read_text()


def test_notify_truncated_answer_is_reported_as_unknown_cost(tmp_path: Path):
    with server(b"{}", **{"Content-Length": "100"}) as (api, _):
        assert call(tmp_path, api=api) == "succeeded"


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 banana\r\n\r\n", b""])
def test_notify_answer_that_is_not_http_fails_nothing(
    tmp_path: Path, answer: bytes, capsys: pytest.CaptureFixture[str]
):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection = listener.accept()[0]
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert call(tmp_path, api=address, webhook=f"{address}/s3cret") == "succeeded"
    assert "s3cret" not in capsys.readouterr().out


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "])
def test_notify_slow_api_stops_at_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: bytes):
    """One byte per read, of the body or of a header, would never exceed the time limit of a single read."""
    monkeypatch.setattr(module, "DEADLINE_S", 0.3)
    started = time.monotonic()
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection = listener.accept()[0]
            connection.recv(1000)
            connection.sendall(begin)
            while not stop.wait(0.02):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        assert call(tmp_path, api=f"http://127.0.0.1:{listener.getsockname()[1]}") == "succeeded"
        assert time.monotonic() - started < module.REQUEST_S + 20
        stop.set()


@pytest.mark.parametrize("name", recordings.NAMES)
def test_notify_replay_of_each_recording_reports_its_state(tmp_path: Path, name: str):
    found = parse_run(recordings.load(name)[0])
    ended = found.handled if found.handled in module._FINISHED else "unknown"
    with server(recorded(name)) as (api, _):
        assert call(tmp_path, state="RUNNING", api=api) == ended
    assert ("incomplete" in (tmp_path / "summary.md").read_text()) == (ended == "unknown")


def test_notify_redirect_never_receives_the_token(tmp_path: Path):
    with server() as (other, received), server(b"", 302, Location=f"{other}/login") as (api, asked):
        assert call(tmp_path, api=api, token="t0ken") == "succeeded"
    assert (len(asked), received) == (1, [])


def test_notify_redirected_webhook_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with server() as (other, received), server(b"", 302, Location=other) as (hook, _):
        call(tmp_path, webhook=hook)
    assert received == []
    assert "the webhook did not accept the message (status 302)" in capsys.readouterr().out


@pytest.mark.parametrize("webhook", ["http://127.0.0.1:9/secret", "file:///etc/passwd", "secret", "http://[secret"])
def test_notify_failing_webhook_is_never_printed(tmp_path: Path, webhook: str, capsys: pytest.CaptureFixture[str]):
    assert call(tmp_path, webhook=webhook) == "succeeded"
    printed = capsys.readouterr().out
    assert "the webhook did not accept the message" in printed
    assert "secret" not in printed
    assert "passwd" not in printed


def test_notify_text_of_the_message_has_no_markup(tmp_path: Path):
    with server() as (hook, posted):
        call(tmp_path, state="FAILED", error="<!channel> <https://evil.example|more> & more", webhook=hook)
    text = json.loads(posted[0]["body"])["text"]
    assert text.endswith("(&lt;!channel&gt; &lt;https://evil.example|more&gt; &amp; more)")


def test_notify_secrets_in_an_error_are_hidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    call(
        tmp_path,
        state="FAILED",
        error="no access with t0ken at http://127.0.0.1:9/x",
        token="t0ken",
        webhook="http://127.0.0.1:9/x",
    )
    shown = capsys.readouterr().out + (tmp_path / "summary.md").read_text()
    assert "t0ken" not in shown
    assert "127.0.0.1" not in shown


def test_notify_safely_unexpected_error_succeeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    notify_safely(rates=None, summary=tmp_path / "summary.md")
    assert (tmp_path / "summary.md").exists()
    notify_safely(summary=tmp_path / "missing" / "folder" / "summary.md")
    assert "warning: the notification failed (TypeError)" in capsys.readouterr().out


def test_read_token_absent_or_malformed_is_empty(tmp_path: Path):
    (tmp_path / "token").write_text("two words")
    assert read_token(tmp_path / "token") == read_token(tmp_path / "absent") == ""
    (tmp_path / "token").write_text("abc\n")
    assert read_token(tmp_path / "token") == "abc"


def test_render_names_are_literal_text():
    page = render("<b>x</b> [a](b) | c\n# d", [], "EUR", "", [])
    assert page == r"## \<b\>x\</b\> \[a\](b) \| c\\n\# d" + "\n"
