"""A Kubeflow Pipelines API for tests: the part of its API that the commands use, over a real socket.

It answers as the Go server of 2.17 does: unknown fields, unknown filter keys, a cron expression that robfig/cron 1.2
rejects and a parameter that the pipeline does not have are 400, an existing name is 409, a missing entry is 404, all
with the API's error JSON. Lists have pages with tokens that contain the filter, int64 is a string, 1970 means never.
Bodies are checked against the official models. Faults can be inserted before, within and after any answer. Runs come
from recordings (`record`) or from `life`.
"""

import base64
import json
import re
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import HTTP
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, unquote_plus, urlsplit

import kfp_server_api
import yaml

CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 412: 9, 429: 8, 500: 13, 501: 12, 503: 14, 504: 4}
NEVER = "1970-01-01T00:00:00Z"
FILTER_KEYS = {
    "experiments": {"experiment_id", "display_name", "name", "created_at", "description", "namespace", "storage_state"},
    "pipelines": {"pipeline_id", "display_name", "name", "created_at", "description", "namespace"},
    "pipeline_versions": {"pipeline_version_id", "display_name", "name", "created_at", "description", "status"},
    "runs": {"run_id", "display_name", "name", "created_at", "description", "namespace", "experiment_id", "state"},
    "recurring_runs": {"recurring_run_id", "display_name", "name", "created_at", "updated_at", "description"},
}

ENTRIES = {"experiments": "Experiment", "pipelines": "Pipeline", "pipeline_versions": "PipelineVersion"}
ENTRIES |= {"runs": "Run", "recurring_runs": "Job"}
KINDS: dict[str, tuple[str, str, Any]] = {
    "STRING": ("string", "string", str),
    "NUMBER_INTEGER": ("double or integer", "number", (int, float)),
    "NUMBER_DOUBLE": ("double or integer", "number", (int, float)),
    "LIST": ("list", "list", list),
}
"""Parameter type → its name and the name of its values in the API, and their Python type; an integer may be 32.5."""


class ProblemError(Exception):
    """Answer a request with an error, as gRPC's gateway writes it; without details if it has no such route."""

    def __init__(self, status: int, message: str, routed: bool = True) -> None:
        super().__init__(message)
        self.status, self.routed = status, routed

    def body(self) -> dict[str, Any]:
        code = CODES[self.status]
        if not self.routed:
            return {"code": code, "message": str(self)}
        inner = {"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": str(self)}
        return {"code": code, "message": f"Failed: InternalPrefix: {self}", "details": [inner]}


def parsed(data: Any, model: str) -> dict[str, Any]:
    """Return the JSON of a message after a check of its fields and types against the official model."""
    kind = getattr(kfp_server_api.models, model)
    if not kind.openapi_types:
        allowed = {v for k, v in vars(kind).items() if k.isupper()}
        if data not in allowed:
            raise ProblemError(400, f"invalid value for enum {model}: {data!r}")
        return data
    if not isinstance(data, dict):
        raise ProblemError(400, f"unexpected token {data!r} for {model}")
    types = {kind.attribute_map[name]: text for name, text in kind.openapi_types.items()}
    plain = {"str": str, "bool": bool, "int": int, "datetime": str, "object": (dict, str, int, float, bool, list)}
    for name, value in data.items():
        text = types.get(name)
        if text is None:
            raise ProblemError(400, f'unknown field "{name}"')
        if inner := re.fullmatch(r"dict\(str, (.*)\)", text):
            ok = isinstance(value, dict)
            for item in value.values() if ok and inner[1] not in plain else ():
                parsed(item, inner[1])
        elif inner := re.fullmatch(r"list\[(.*)\]", text):
            ok = isinstance(value, list)
            for item in value if ok and inner[1] not in plain else ():
                parsed(item, inner[1])
        elif name == "max_concurrency":  # an int64: a string or a number
            ok = isinstance(value, str | int) and str(value).isdecimal()
        elif text in plain:
            ok = isinstance(value, plain[text])
        else:
            ok = parsed(value, text) is not None
        if not ok:
            raise ProblemError(400, f"invalid value for {text} field {name}: {value!r}")
    return data


def written(data: dict[str, Any], model: str) -> dict[str, Any]:
    """Return the row as the official model encodes it, without fields that are not set."""
    kind = getattr(kfp_server_api.models, model)
    made = kind(**{name: data[key] for name, key in kind.attribute_map.items() if data.get(key) is not None})
    return kfp_server_api.ApiClient().sanitize_for_serialization(made)


@dataclass
class Fault:
    """A fault in the next `times` requests whose method and path match.

    Attributes:
        match: a regular expression for `METHOD /path`.
        kind: status, drop (before the work), lose (the answer, after the work), half (of the answer), slow, late (works
            only after `seconds`), html, redirect.
    """

    match: str
    kind: str
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "scripted"
    seconds: float = 0.0
    times: int = 1


class KfpServer:
    """The state of the API, and the requests it received.

    Attributes:
        asked: (method, path with query, body, headers) of each request.
        life: run states, one for each request for a run: (state, {task: state}); the last one is repeated.
        logs: pod → its log, as the API returns it where users have namespaces.
        ui_logs: (namespace, pod) → its log, as the UI at the same address returns it.
        token: what must be in the Authorization header, if anything.
    """

    def __init__(self, multi_user: bool = False) -> None:
        self.multi_user = multi_user
        self.token = ""
        self.asked: list[tuple[str, str, Any, dict[str, str]]] = []
        self.faults: list[Fault] = []
        self.tables: dict[str, list[dict[str, Any]]] = {name: [] for name in FILTER_KEYS}
        self.life: list[tuple[str, dict[str, str]]] = [("SUCCEEDED", {})]
        self.logs: dict[str, str] = {}
        self.ui_logs: dict[tuple[str, str], str] = {}
        self.artifacts: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.histories: dict[str, list[dict[str, Any]]] = {}
        self.seconds = 0
        self.lock = threading.RLock()
        self.url = ""

    def fault(self, match: str, kind: str, **rest: Any) -> None:
        self.faults.append(Fault(match, kind, **rest))

    def count(self, match: str) -> int:
        """Return the number of requests that match."""
        return sum(bool(re.match(match, f"{method} {path}")) for method, path, _, _ in self.asked)

    def now(self) -> str:
        self.seconds += 1
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_770_000_000 + self.seconds))

    def handle(self, method: str, target: str, body: Any) -> Any:
        """Return the JSON of the answer."""
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = parts.path
        if path == "/artifacts/get" and query.get("key") in self.artifacts:
            return self.artifacts[query["key"]]
        if path == "/k8s/pod/logs" and (found_log := self.ui_logs.get((query["podnamespace"], query["podname"]))):
            return found_log
        if log := re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path):
            return self.logs.get(
                unquote(log[2]), '{"error_message":"Failed to read logs","error_details":"pods not found"}'
            )
        for pattern, action in ROUTES.items():
            if found := re.fullmatch(pattern, f"{method} {path}"):
                with self.lock:
                    return action(self, query, body, *map(unquote, found.groups()))
        raise ProblemError(404 if method == "GET" else 501, "Not Found", routed=False)

    def healthz(self, query: Any, body: Any) -> Any:
        return {
            "commit_sha": "unknown",
            "tag_name": "unknown",
            "multi_user": self.multi_user,
            "pipeline_store": "database",
        }

    # Lists

    def page(self, table: str, key: str, query: dict[str, str], rows: list[dict[str, Any]], model: str) -> Any:
        wanted = query.get("filter", "")
        if token := query.get("page_token"):
            try:
                start, filtered = json.loads(base64.b64decode(token, validate=True))
            except ValueError:
                raise ProblemError(400, "Invalid page token") from None
            if wanted and wanted != filtered:
                raise ProblemError(400, "page token does not match the supplied sort by and/or filtering criteria.")
            wanted = filtered
        else:
            start = 0
        if wanted:
            rows = [row for row in rows if matches(row, wanted, FILTER_KEYS[table])]
        size = min(int(query.get("page_size") or 20), 200)
        answer: dict[str, Any] = {"total_size": len(rows)} if rows else {}
        if rows[start : start + size]:
            answer[key] = [written(row, model) for row in rows[start : start + size]]
        if len(rows) > start + size:
            answer["next_page_token"] = base64.b64encode(json.dumps([start + size, wanted]).encode()).decode()
        return answer

    def mine(self, table: str, query: dict[str, str]) -> list[dict[str, Any]]:
        """Return the rows of the requested experiment or namespace."""
        if experiment := query.get("experiment_id"):
            return [row for row in self.tables[table] if row.get("experiment_id") == experiment]
        if not self.multi_user:
            return self.tables[table]
        if not query.get("namespace"):
            raise ProblemError(400, "namespace is required in multi-user mode")
        return [row for row in self.tables[table] if row.get("namespace") == query["namespace"]]

    def get(self, table: str, name: str, value: str) -> dict[str, Any]:
        row = next((row for row in self.tables[table] if row[name] == value), None)
        if row is None:
            raise ProblemError(404, f"{ENTRIES[table]} {value} not found")
        return row

    def add(self, table: str, id_name: str, model: str, row: dict[str, Any]) -> dict[str, Any]:
        row = {**row, id_name: str(uuid.uuid4()), "created_at": self.now()}
        self.tables[table].append(row)
        return written(row, model)

    def unique(self, table: str, name: str, **where: Any) -> None:
        where = {key: value for key, value in where.items() if value is not None}
        for row in self.tables[table]:
            if row.get("name", row["display_name"]) == name and all(row.get(k) == v for k, v in where.items()):
                raise ProblemError(409, f"Failed to create. The name {name} already exists. Please specify a new name")

    # Experiments and pipelines

    def list_experiments(self, query: Any, body: Any) -> Any:
        return self.page("experiments", "experiments", query, self.mine("experiments", query), "V2beta1Experiment")

    def create_experiment(self, query: Any, body: Any) -> Any:
        row = parsed(body, "V2beta1Experiment")
        self.unique("experiments", row["display_name"], namespace=row.get("namespace"))
        return self.add("experiments", "experiment_id", "V2beta1Experiment", {**row, "storage_state": "AVAILABLE"})

    def list_pipelines(self, query: Any, body: Any) -> Any:
        return self.page("pipelines", "pipelines", query, self.mine("pipelines", query), "V2beta1Pipeline")

    def create_pipeline(self, query: Any, body: Any) -> Any:
        row = parsed(body, "V2beta1Pipeline")
        row.setdefault("name", row["display_name"])
        self.unique("pipelines", row["name"], namespace=row.get("namespace"))
        return self.add("pipelines", "pipeline_id", "V2beta1Pipeline", row)

    def upload_pipeline(self, query: Any, body: Any) -> Any:
        spec = uploaded_spec(body)
        name = query.get("name") or query.get("display_name") or "pipeline"
        named = {"display_name": name, "name": name, "namespace": query.get("namespace")}
        self.unique("pipelines", name)
        made = self.add("pipelines", "pipeline_id", "V2beta1Pipeline", named)
        version = {"pipeline_id": made["pipeline_id"], "display_name": name, "name": name, "pipeline_spec": spec}
        version["description"] = query.get("description")
        self.add("pipeline_versions", "pipeline_version_id", "V2beta1PipelineVersion", version)
        return made

    def upload_version(self, query: Any, body: Any) -> Any:
        spec = uploaded_spec(body)
        key = query.get("pipelineid", "")
        self.get("pipelines", "pipeline_id", key)
        name = query.get("name") or "pipeline"
        self.unique("pipeline_versions", name, pipeline_id=key)
        row = {"pipeline_id": key, "display_name": query.get("display_name") or name, "name": name}
        row |= {"description": query.get("description"), "pipeline_spec": spec}
        return self.add("pipeline_versions", "pipeline_version_id", "V2beta1PipelineVersion", row)

    def list_versions(self, query: Any, body: Any, key: str) -> Any:
        rows = [row for row in self.tables["pipeline_versions"] if row["pipeline_id"] == key]
        return self.page("pipeline_versions", "pipeline_versions", query, rows, "V2beta1PipelineVersion")

    def get_version(self, query: Any, body: Any, key: str, version: str) -> Any:
        return written(self.get("pipeline_versions", "pipeline_version_id", version), "V2beta1PipelineVersion")

    def source(self, row: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the version that a run starts: the named one, or the newest."""
        reference = row.get("pipeline_version_reference") or {}
        rows = [v for v in self.tables["pipeline_versions"] if v["pipeline_id"] == reference.get("pipeline_id")]
        if version := reference.get("pipeline_version_id"):
            rows = [v for v in rows if v["pipeline_version_id"] == version]
        if not rows:
            raise ProblemError(500, "Internal Server Error")
        newest = max(rows, key=lambda row: row["created_at"])
        inputs = newest["pipeline_spec"].get("pipeline_spec", newest["pipeline_spec"])["root"]["inputDefinitions"]
        for name, value in ((row.get("runtime_config") or {}).get("parameters") or {}).items():
            if name not in inputs["parameters"]:
                raise ProblemError(400, f"parameter(s) provided are not required by pipeline: {name}")
            expected, got, kind = KINDS[inputs["parameters"][name]["parameterType"]]
            if isinstance(value, bool) or not isinstance(value, kind):
                subject = "parameter value" if got == "number" else "input parameter"
                text = f"input parameter {name} requires type {expected}, but the {subject} is not of {got} value type"
                raise ProblemError(400, text)
        return reference, newest

    # Runs

    def create_run(self, query: Any, body: Any) -> Any:
        row = parsed(body, "V2beta1Run")
        if not row.get("display_name"):
            raise ProblemError(400, "The run name is empty. Please specify a valid name")
        self.get("experiments", "experiment_id", row.get("experiment_id", ""))
        reference, version = self.source(row)
        reference["pipeline_version_id"] = version["pipeline_version_id"]
        row |= {"state": "PENDING", "finished_at": NEVER, "storage_state": "AVAILABLE", "asked": 0}
        return self.add("runs", "run_id", "V2beta1Run", row)

    def list_runs(self, query: Any, body: Any) -> Any:
        return self.page("runs", "runs", query, self.mine("runs", query), "V2beta1Run")

    def get_run(self, query: Any, body: Any, key: str) -> Any:
        row = self.get("runs", "run_id", key)
        if row["state"] == "CANCELING":  # ends as FAILED; never ends if the workflow was deleted
            row["state"] = row["state"] if self.life[-1][0] == "CANCELING" else "FAILED"
        elif not row.get("state_history"):
            row["state"], row["tasks"] = self.life[min(row["asked"], len(self.life) - 1)]
            row["asked"] += 1
        if row["state"] in ("SUCCEEDED", "FAILED", "CANCELED"):
            row["finished_at"] = self.now()
        if row["state"] in ("SUCCEEDED", "FAILED") and key in self.histories:
            row["state_history"] = self.histories[key]
        if row["state"] == "FAILED" and not row.get("state_history"):
            row["state_history"] = [{"state": "FAILED", "error": {"code": 13, "message": "a task failed"}}]
        return written(row, "V2beta1Run")

    def get_workflow(self, query: Any, body: Any, key: str) -> Any:
        """Return the run as /apis/v1beta1 does, with its Workflow manifest."""
        row = self.get("runs", "run_id", key)
        manifest = row.get("manifest") or self.manifest(row.get("tasks") or {}, row["state"])
        if isinstance(manifest, list):
            manifest = manifest[min(row["asked"], len(manifest)) - 1]
        return {"run": {"id": key}, "pipeline_runtime": {"workflow_manifest": json.dumps(manifest)}}

    def manifest(self, tasks: dict[str, str], state: str) -> dict[str, Any]:
        """Return a Workflow with these tasks; `train-gan#1` is in iteration 1 of a loop, counted from 0."""
        phases = {"SUCCEEDED": "Succeeded", "FAILED": "Failed", "RUNNING": "Running", "PENDING": "Pending"}
        nodes: dict[str, Any] = {}
        for number, (name, task) in enumerate(tasks.items()):
            plain, _, item = name.partition("#")
            above = f"w(0).root(0).for-loop-1(0).iteration-iterations({item}:{item})(0)." if item else "w(0).root(0)."
            node = {"phase": phases[task], "startedAt": f"2026-02-01T00:00:{number:02}Z"}
            if task in ("SUCCEEDED", "FAILED"):
                node["finishedAt"] = f"2026-02-01T00:02:{number:02}Z"
            path, kind = f"{above}{plain}", "system-container"
            nodes[f"w-{number}"] = {"name": path, "type": "Retry", "templateName": f"{kind}-executor", **node}
            pod = {"name": f"{path}(0).executor(0)", "type": "Pod", "templateName": f"{kind}-impl", **node}
            nodes[f"w-{number}1"] = {**pod, "message": self.errors.get(name, "") if task == "FAILED" else ""}
        status = {"phase": phases.get(state, "Running"), "nodes": nodes}
        return {"metadata": {"name": "w", "namespace": "team"}, "spec": {}, "status": status}

    def record(self, name: str, *moments: str) -> str:
        """Add a recorded run and return its id.

        Args:
            name: of the recording.
            moments: times within the recording; the first requests get the run as it was then.
        """
        from tests.helpers import recordings

        row = recordings.load(name)[1]
        final = json.loads(recordings.load(name)[0]["pipeline_runtime"]["workflow_manifest"])
        if not row:  # of one run only the Workflow was recorded
            row = {"run_id": str(uuid.uuid4()), "display_name": name, "state": "FAILED"}
        history = row.pop("state_history", [])
        end = (row.pop("state"), {})
        self.tables["runs"].append({**row, "state": "PENDING", "asked": 0})
        self.tables["runs"][-1]["manifest"] = [*(recordings.manifest_as_of(name, at) for at in moments), final]
        self.life = [*(("RUNNING", {}) for _ in moments), end]
        self.histories[row["run_id"]] = history
        return str(row["run_id"])

    def delete_run(self, query: Any, body: Any, key: str) -> Any:
        self.tables["runs"].remove(self.get("runs", "run_id", key))
        return {}

    def delete_version(self, query: Any, body: Any, key: str, version: str) -> Any:
        self.tables["pipeline_versions"].remove(self.get("pipeline_versions", "pipeline_version_id", version))
        return {}

    def terminate(self, query: Any, body: Any, key: str) -> Any:
        row = self.get("runs", "run_id", key)
        if row["state"] not in ("PENDING", "RUNNING", "PAUSED"):
            raise ProblemError(400, f"Failed to terminate a run {key}. Row not found")
        row["state"], row["state_history"] = "CANCELING", [{"state": "CANCELING"}]
        return {}

    # Recurring runs

    def create_recurring(self, query: Any, body: Any) -> Any:
        row = parsed(body, "V2beta1RecurringRun")
        if not 1 <= int(row.get("max_concurrency") or 0) <= 10:
            raise ProblemError(400, "Max concurrency of a recurring run must be at least 1 and at most 10.")
        cron = ((row.get("trigger") or {}).get("cron_schedule") or {}).get("cron", "")
        if len(cron.split()) not in (5, 6) or "TZ" in cron:
            raise ProblemError(400, f"Schedule cron is not a supported format. Expected 5 to 6 fields: {cron}")
        self.get("experiments", "experiment_id", row.get("experiment_id", ""))
        self.source(row)
        row["max_concurrency"] = str(row["max_concurrency"])
        row["status"] = "ENABLED" if row.get("mode") == "ENABLE" else "DISABLED"
        row["mode"] = "ENABLE" if row["status"] == "ENABLED" else "DISABLE"
        return self.add("recurring_runs", "recurring_run_id", "V2beta1RecurringRun", row)

    def list_recurring(self, query: Any, body: Any) -> Any:
        rows = self.mine("recurring_runs", query)
        return self.page("recurring_runs", "recurringRuns", query, rows, "V2beta1RecurringRun")

    def switch(self, query: Any, body: Any, key: str, verb: str) -> Any:
        row = self.get("recurring_runs", "recurring_run_id", key)
        row["mode"], row["status"] = ("ENABLE", "ENABLED") if verb == "enable" else ("DISABLE", "DISABLED")
        return {}

    def delete_recurring(self, query: Any, body: Any, key: str) -> Any:
        self.tables["recurring_runs"].remove(self.get("recurring_runs", "recurring_run_id", key))
        return {}


V2 = "/apis/v2beta1"
ROUTES: dict[str, Callable[..., Any]] = {
    f"GET {V2}/healthz": KfpServer.healthz,
    f"GET {V2}/experiments": KfpServer.list_experiments,
    f"POST {V2}/experiments": KfpServer.create_experiment,
    f"GET {V2}/pipelines": KfpServer.list_pipelines,
    f"POST {V2}/pipelines": KfpServer.create_pipeline,
    f"POST {V2}/pipelines/upload": KfpServer.upload_pipeline,
    f"POST {V2}/pipelines/upload_version": KfpServer.upload_version,
    f"GET {V2}/pipelines/([^/]+)/versions": KfpServer.list_versions,
    f"GET {V2}/pipelines/([^/]+)/versions/([^/]+)": KfpServer.get_version,
    f"GET {V2}/runs": KfpServer.list_runs,
    f"POST {V2}/runs": KfpServer.create_run,
    f"GET {V2}/runs/([^/:]+)": KfpServer.get_run,
    "GET /apis/v1beta1/runs/([^/:]+)": KfpServer.get_workflow,
    f"DELETE {V2}/runs/([^/:]+)": KfpServer.delete_run,
    f"DELETE {V2}/pipelines/([^/]+)/versions/([^/]+)": KfpServer.delete_version,
    f"POST {V2}/runs/([^/:]+):terminate": KfpServer.terminate,
    f"GET {V2}/recurringruns": KfpServer.list_recurring,
    f"POST {V2}/recurringruns": KfpServer.create_recurring,
    f"POST {V2}/recurringruns/([^/:]+):(enable|disable)": KfpServer.switch,
    f"DELETE {V2}/recurringruns/([^/:]+)": KfpServer.delete_recurring,
}


@cache
def documents_of(content: bytes) -> list[Any]:
    return list(yaml.safe_load_all(content))


def uploaded_spec(body: Any) -> dict[str, Any]:
    """Return the pipeline of an upload, as the server stores it."""
    documents = documents_of(body) if isinstance(body, bytes) else []
    if not documents or "pipelineInfo" not in documents[0]:
        raise ProblemError(400, "Failed to read pipeline from file")
    return documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def matches(row: dict[str, Any], encoded: str, keys: set[str]) -> bool:
    """Return whether a row matches a filter, which the server URL-decodes twice."""
    try:
        predicates = json.loads(unquote_plus(encoded).replace('"stringValue":', '"string_value":'))["predicates"]
        predicates = [parsed(predicate, "V2beta1Predicate") for predicate in predicates]
    except (ValueError, KeyError, TypeError):
        raise ProblemError(400, f"failed to parse valid filter from {encoded!r}") from None
    for predicate in predicates:
        if predicate.get("key") not in keys:
            raise ProblemError(400, f"no support for filtering on unrecognized field {predicate.get('key')!r}")
        value, text = str(row.get(predicate["key"])).lower(), predicate["string_value"].lower()
        if predicate["operation"] not in ("EQUALS", "IS_SUBSTRING"):
            raise ProblemError(400, f"invalid predicate operation: {predicate['operation']}")
        if value != text if predicate["operation"] == "EQUALS" else text not in value:
            return False
    return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "kfp"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement of its head

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do(self) -> None:
        api: KfpServer = self.server.api  # type: ignore[attr-defined]
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = self.body(data)
        line = f"{self.command} {self.path}"
        with api.lock:
            api.asked.append((self.command, self.path, body, dict(self.headers)))
            fault = next((f for f in api.faults if f.times and re.match(f.match, line)), None)
            if fault:
                fault.times -= 1
        kind = fault.kind if fault else ""
        if kind == "drop":
            return self.hang_up()
        if fault and kind in ("slow", "late"):
            time.sleep(fault.seconds)
        if fault and kind == "redirect":
            return self.answer(
                302, b"<html>log in</html>", {"Location": "https://login.example.org/auth?rd=x", **fault.headers}
            )
        if kind == "html":
            return self.answer(200, b"<!DOCTYPE html><title>Log in</title>", {"Content-Type": "text/html"})
        try:
            if fault and kind == "status":
                raise ProblemError(fault.status, fault.message)
            if api.token and self.headers.get("Authorization") != f"Bearer {api.token}":
                raise ProblemError(401, f"Request header error: there is no user identity header in {self.headers}")
            result, status = api.handle(self.command, self.path, body), 200
        except ProblemError as problem:
            result, status = problem.body(), problem.status
        if kind == "lose":
            return self.hang_up()
        text = result.encode() if isinstance(result, str) else json.dumps(result).encode()
        self.answer(status, text, fault.headers if fault else {}, half=kind == "half")

    do_GET = do_POST = do_DELETE = do_PUT = do  # noqa: N815 (names of http.server)

    def body(self, data: bytes) -> Any:
        kind = self.headers.get("Content-Type") or ""
        if kind.startswith("multipart/form-data"):
            parts = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + data, policy=HTTP).iter_parts()
            return next(p.get_payload(decode=True) for p in parts if 'name="uploadfile"' in p["Content-Disposition"])
        try:
            return json.loads(data) if data else None
        except ValueError:
            return data

    def answer(self, status: int, data: bytes, headers: dict[str, str], half: bool = False) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if half else data)
        if half:
            self.hang_up()

    def hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that hang up, as some tests do."""


@contextmanager
def serving(api: KfpServer, certificate: str = "") -> Iterator[KfpServer]:
    """Serve the API on a free port of this machine, with TLS if there is a certificate file."""
    server = Server(("127.0.0.1", 0), Handler)
    server.api = api  # type: ignore[attr-defined]
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    api.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
