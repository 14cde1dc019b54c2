"""The exit task against real servers on this machine."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.notify.notify import by_phase, notify, render

RATES = {
    "phases": {
        "train_gan": {"cpu": 4, "memory_gib": 8, "accelerators": 1, "price": 3.0},
        "train_classifier": {"cpu": 2, "memory_gib": 4, "accelerators": 0, "price": 0.5},
    },
    "currency": "EUR",
}
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def task(name: str, start: str, end: str | None, state: str = "SUCCEEDED") -> dict[str, Any]:
    times = {"start_time": f"2026-01-01T{start}:00Z"} | ({"end_time": f"2026-01-01T{end}:00Z"} if end else {})
    return {"display_name": name, "state": state, **times}


TASKS = [
    task("root", "08:00", "11:00"),
    task("train-gan", "08:00", "10:00"),
    task("train-gan-driver", "08:00", "09:00"),
    task("executor", "08:00", "10:00"),
    task("train-gan", "08:00", "08:30", "FAILED"),
    task("train-classifier", "08:00", "08:30"),
    task("train-classifier-2", "11:00", None, "RUNNING"),
]


@contextmanager
def server(answer: bytes = b"{}", status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server that answers everything alike, and what it was sent."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.append({"path": self.path, "authorization": self.headers.get("Authorization"), "body": body})
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *args: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}", seen
    finally:
        httpd.shutdown()
        httpd.server_close()


def call(tmp_path: Path, **given: Any) -> str:
    usual = {"state": "COMPLETE", "error": "", "run_id": "r1", "run_name": "cw", "data": "demo", "api": "", "token": ""}
    return notify(**(usual | {"ui": "", "rates": RATES, "webhook": "", "summary": tmp_path / "summary.md"} | given))


def test_time_and_cost_are_summed_by_phase():
    gan, classifier = by_phase(TASKS, RATES, NOW)
    assert (gan["tasks"], gan["failed"], gan["hours"]) == (2, 1, 2.5)
    assert (gan["cpu_h"], gan["memory_gib_h"], gan["accelerator_h"], gan["cost"]) == (10, 20, 2.5, 7.5)
    # What runs on counts until now; drivers, executors and the graph's own nodes are no tasks.
    assert (classifier["tasks"], classifier["hours"], classifier["cost"]) == (2, 1.5, 0.75)


@pytest.mark.parametrize("odd", [{}, {"display_name": "train-gan"}, task("train-gan", "12:00", "08:00")])
def test_a_task_without_sensible_times_took_none(odd: dict[str, Any]):
    assert sum(row["hours"] for row in by_phase([odd], RATES, NOW)) == 0


@pytest.mark.parametrize(
    ("state", "ended"),
    [("SUCCEEDED", "succeeded"), ("COMPLETE", "succeeded"), ("FAILED", "failed"), ("RUNNING", "ended"), ("", "ended")],
)
def test_the_states_of_both_stores_are_known(tmp_path: Path, state: str, ended: str):
    assert call(tmp_path, state=state) == ended
    assert (tmp_path / "summary.md").read_text().startswith(f"## cw on demo: {ended}\n")


def test_the_api_is_asked_with_the_token_and_the_webhook_gets_the_figures(tmp_path: Path):
    answer = json.dumps({"run_details": {"task_details": TASKS}}).encode()
    with server(answer) as (api, asked), server() as (hook, posted):
        ended = call(tmp_path, state="RUNNING", api=api, token="t0ken", ui="https://ui.example/", webhook=hook)
    assert ended == "failed"  # a task did, though the graph's node still runs
    assert asked == [{"path": "/apis/v2beta1/runs/r1", "authorization": "Bearer t0ken", "body": b""}]
    message = json.loads(posted[0]["body"])
    assert message["status"] == "failed"
    assert message["link"] == "https://ui.example/#/runs/details/r1"
    assert message["text"] == "cw on demo: failed\nhttps://ui.example/#/runs/details/r1"
    assert message["phases"][0]["cost"] == 7.5
    page = (tmp_path / "summary.md").read_text()
    assert "| train_gan | 2 | 1 | 2 h 30 min | 10.00 | 20.00 | 2.50 | 7.50 |" in page
    assert "<https://ui.example/#/runs/details/r1>" in page


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"run_details": null}', b"<html>log in</html>"])
def test_an_api_that_answers_otherwise_costs_only_the_table(tmp_path: Path, answer: bytes):
    with server(answer) as (api, _):
        assert call(tmp_path, api=api) == "succeeded"
    assert "|" not in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("webhook", ["http://127.0.0.1:9/secret", "file:///etc/passwd", "secret"])
def test_a_webhook_that_fails_fails_nothing_and_is_never_printed(
    tmp_path: Path, webhook: str, capsys: pytest.CaptureFixture[str]
):
    assert call(tmp_path, webhook=webhook) == "succeeded"
    said = capsys.readouterr().out
    assert "the webhook did not take the message" in said
    assert "secret" not in said
    assert "passwd" not in said


def test_a_webhook_that_refuses_is_told_by_its_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with server(status=410) as (hook, _):
        assert call(tmp_path, webhook=hook) == "succeeded"
    assert "(status 410)" in capsys.readouterr().out


def test_names_are_literal_text():
    page = render("<b>x</b> [a](b) | c\n# d", [], "EUR", "")
    assert page == r"## \<b\>x\</b\> \[a\](b) \| c\\n\# d" + "\n"
