"""Publication to a folder, to an emulator of object storage, and to a strict server that can fail at any request."""

import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.publish.publish import JOURNAL, collect, publish
from components.shared.errors import ERROR_RECORD_PREFIX, UserError, as_user_error
from components.shared.files import EXTERNAL, file_sha256
from components.shared.records import (
    Advice,
    Champion,
    ChampionComparison,
    ChampionRun,
    Drift,
    Manifest,
    Verdict,
    load_record,
)
from tests.helpers.strict_storage import Request, Server, strict_storage

ADVICE = Advice(arm="augmented@0.5", verdict="improved")
VERDICTS: tuple[Verdict, ...] = ("improved", "no evidence", "worse", "not established")
ROOT = Path(__file__).resolve().parents[3]
Files = dict[str, Path]


@contextmanager
def raises(code: str) -> Iterator[None]:
    with pytest.raises(UserError) as caught:
        yield
    assert caught.value.code == code


def made(folder: Path, contents: dict[str, str]) -> Files:
    """Write files to publish; return name → file."""
    files = {}
    for name, content in contents.items():
        files[name] = folder / name.replace("/", "-")
        folder.mkdir(exist_ok=True)
        files[name].write_text(content)
    return files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return made(tmp_path / "in", {name: name for name in ("report.html", "models/baseline.keras", "metrics.json")})


@pytest.fixture
def others(tmp_path: Path) -> Files:
    """The files of another run: one is removed, one unchanged, one changed, one added."""
    return made(
        tmp_path / "others",
        {"report.html": "report.html", "models/baseline.keras": "new", "models/baseline-seed2.keras": "two"},
    )


class Place:
    """A place to publish to, with its content: name → bytes, and a mark that changes with each write."""

    def __init__(self, output: str, state: Callable[[], dict[str, tuple[bytes, object]]], put: Callable) -> None:
        self.output, self.state, self.put = output, state, put

    def contents(self) -> dict[str, bytes]:
        return {name: content for name, (content, _) in self.state().items()}


@pytest.fixture(scope="module")
def emulator_address() -> Iterator[str]:
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="raw")
    server.start()
    yield "http://{}:{}".format(*server._api._httpd.socket.getsockname())
    server.stop()


@pytest.fixture(params=["folder", "emulator", "strict"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    if request.param == "folder":
        out = tmp_path / "out"

        def state() -> dict[str, tuple[bytes, object]]:
            found = [path for path in out.rglob("*") if path.is_file()]
            return {str(path.relative_to(out)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}

        def put(name: str, content: bytes) -> None:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)

        yield Place(str(out), state, put)
    elif request.param == "emulator":
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("emulator_address"))
        bucket = pytest.importorskip("google.cloud.storage").Client(project="test").bucket("raw")
        below = f"{tmp_path.name}/run/"
        yield Place(
            f"gs://raw/{tmp_path.name}/run",
            lambda: {
                blob.name.removeprefix(below): (bucket.blob(blob.name).download_as_bytes(), blob.generation)
                for blob in bucket.list_blobs(prefix=below)
            },
            lambda name, content: bucket.blob(below + name).upload_from_string(content),
        )
    else:
        with strict_storage() as server:
            yield strict_place(server)


def strict_place(server: Server) -> Place:
    return Place(
        "gs://raw/some/run",
        lambda: {
            name.removeprefix("some/run/"): (stored.content, stored.generation)
            for name, stored in server.objects.copy().items()
        },
        lambda name, content: server.put(f"some/run/{name}", content),
    )


def is_of(files: Files, contents: dict[str, bytes]) -> bool:
    """Return whether exactly these files and their manifest exist."""
    return {name: content for name, content in contents.items() if name != "manifest.json"} == {
        name: path.read_bytes() for name, path in files.items()
    } and set(json.loads(contents["manifest.json"])["files"]) == set(files)


def test_publish_writes_the_hash_of_every_file(place: Place, files: Files, tmp_path: Path):
    assert publish(place.output, files, tmp_path / "artifact", "worse", ADVICE) == place.output
    contents = place.contents()
    assert is_of(files, contents)
    manifest = json.loads(contents["manifest.json"])["files"]
    for name, path in files.items():
        assert manifest[name] == {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    assert (tmp_path / "artifact" / "manifest.json").read_bytes() == contents["manifest.json"]


def test_publish_of_folders_excludes_the_external_set(tmp_path: Path):
    for name in (EXTERNAL, "sources.json", "synthetic/df.json"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_text("{}")
    assert set(collect([tmp_path / "images"], {})) == {"sources.json", "synthetic/df.json"}


def test_publish_of_the_same_files_changes_nothing(place: Place, files: Files, tmp_path: Path):
    publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
    before = place.state()
    (tmp_path / "artifact" / "manifest.json").unlink()
    publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
    assert place.state() == before
    assert (tmp_path / "artifact" / "manifest.json").exists()


def test_publish_replaces_its_damaged_file(place: Place, files: Files, tmp_path: Path):
    publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
    before = place.state()
    place.put("report.html", b"damaged!!!!")
    publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
    assert is_of(files, place.contents())
    assert {name for name, entry in place.state().items() if entry != before[name]} == {"report.html"}


def test_publish_of_another_run_removes_the_earlier_runs_files(
    place: Place, files: Files, others: Files, tmp_path: Path
):
    publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
    before = place.state()
    place.put("mine.txt", b"a user's own")
    publish(place.output, others, tmp_path / "artifact", "worse", ADVICE)
    after = place.state()
    assert after.pop("mine.txt")[0] == b"a user's own"
    assert is_of(others, {name: content for name, (content, _) in after.items()})
    assert after["report.html"] == before["report.html"], "what both runs have is not written again"


def test_publish_with_another_verdict_replaces_the_manifest_only(place: Place, files: Files, tmp_path: Path):
    publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
    before = place.state()
    publish(place.output, files, tmp_path / "artifact", "improved", ADVICE)
    assert {name for name, entry in place.state().items() if entry != before[name]} == {"manifest.json"}
    assert json.loads(place.contents()["manifest.json"])["candidate"] == "models/augmented@0.5.keras"


def test_publish_to_a_bucket_gives_each_run_a_folder(files: Files, others: Files, tmp_path: Path):
    with strict_storage() as server:
        check_runs_side_by_side(strict_place(server), files, others, tmp_path)


def check_runs_side_by_side(place: Place, files: Files, others: Files, tmp_path: Path) -> None:
    first = publish(place.output, files, tmp_path / "artifact", "worse", ADVICE, run="counterweight-7k2p")
    second = publish(f"{place.output}/", others, tmp_path / "artifact", "worse", ADVICE, run="counterweight-x.1")
    assert (first, second) == (f"{place.output}/counterweight-7k2p", f"{place.output}/counterweight-x.1")
    for run, own in (("counterweight-7k2p", files), ("counterweight-x.1", others)):
        contents = {n.removeprefix(f"{run}/"): c for n, c in place.contents().items() if n.startswith(f"{run}/")}
        assert is_of(own, contents)


@pytest.mark.parametrize("run", ["..", ".", "a/b", "/a", "a b", "ä", "a\n", "-"])
def test_publish_refuses_a_run_name_that_is_not_a_folder_name(run: str, files: Files, tmp_path: Path):
    with raises("publish.invalid_run"):
        publish(str(tmp_path / "out"), files, tmp_path / "artifact", "worse", ADVICE, run=run)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[1]",
        "not json",
        '{"files": ["a.js"]}',
        '{"files": {"a.js": "/static/a.js"}}',
        '{"files": {"../x": {"sha256": "", "bytes": 1}}}',
        '{"files": {"/x": {"sha256": "", "bytes": 1}}}',
        '{"files": {"\\u0000": {"sha256": "", "bytes": 1}}}',
    ],
)
def test_publish_with_a_foreign_manifest_fails(files: Files, tmp_path: Path, text: str):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(text)
    with raises("publish.foreign_manifest"):
        publish(str(tmp_path / "out"), files, tmp_path / "artifact", "worse", ADVICE)


@pytest.mark.parametrize("name", ["manifest.json", JOURNAL])
def test_publish_leaves_a_foreign_manifest_unchanged(place: Place, files: Files, tmp_path: Path, name: str):
    place.put(name, b"{}")
    with raises("publish.foreign_manifest"):
        publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
    assert place.contents() == {name: b"{}"}


@pytest.mark.parametrize("output", ["ftp://bucket/x", "https://example.org"])
def test_publish_to_an_unknown_address_fails(output: str, files: Files, tmp_path: Path):
    with raises("output.invalid_address"):
        publish(output, files, tmp_path / "artifact", "worse", ADVICE)


def test_publish_to_a_file_fails(files: Files, tmp_path: Path):
    (tmp_path / "file").touch()
    with raises("output.is_a_file"):
        publish(str(tmp_path / "file"), files, tmp_path / "artifact", "worse", ADVICE)


def test_publish_to_a_disk_without_space_leaves_the_earlier_run(
    files: Files, others: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    publish(str(out), files, tmp_path / "artifact", "worse", ADVICE)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="No space left") as caught:
        publish(str(out), others, tmp_path / "artifact", "worse", ADVICE)
    error = as_user_error(caught.value)
    assert error is not None
    assert (error.code, error.fields["path"]) == ("file.disk_full", str(out))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_publish_interrupted_leaves_no_manifest_beside_files_of_two_runs(files: Files, tmp_path: Path):
    """The copy of the second run fails midway; by then, the manifest of the first run is removed."""
    out = tmp_path / "out"
    publish(str(out), files, tmp_path / "artifact", "worse", ADVICE)
    for path in files.values():
        path.write_text("new")
    (out / "report.html").unlink()
    (out / "report.html").mkdir()  # a folder in the way
    with pytest.raises(IsADirectoryError):
        publish(str(out), files, tmp_path / "artifact", "worse", ADVICE)
    assert not (out / "manifest.json").exists()
    (out / "report.html").rmdir()
    (out / ".part-abc.html").write_text("cut off")
    publish(str(out), files, tmp_path / "artifact", "worse", ADVICE)
    assert is_of(files, {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()})


def consistent(place: Place) -> bool:
    """Return whether all files that a manifest lists exist, which readers rely on."""
    contents = place.contents()
    if "manifest.json" not in contents:
        return True
    listed = json.loads(contents["manifest.json"])["files"]
    return all(len(contents.get(name, b"")) == entry["bytes"] for name, entry in listed.items()) and (
        "models/baseline-seed2.keras" not in listed or contents["models/baseline.keras"] == b"new"
    )


@pytest.mark.parametrize("fault", [403, "lose then 403"])
def test_publish_interrupted_at_any_request_is_completed_by_the_next(
    files: Files, others: Files, tmp_path: Path, fault: str | int
):
    """The results of another run are replaced; the process stops once after each request that changes something."""
    for last in range(1, 100):
        with strict_storage() as server:
            place = strict_place(server)
            publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
            server.requests.clear()
            broken: list[bool] = []

            def seen(_: Request, place: Place = place) -> None:
                assert consistent(place)

            def cut(request: Request, server: Server = server, last: int = last, broken: list = broken) -> object:
                if len(server.writes()) >= last:
                    broken.append(True)
                    return "lose" if fault != 403 and len(broken) == 1 else 403
                return None

            server.after, server.fault = seen, cut
            with suppress(UserError):
                publish(place.output, others, tmp_path / "artifact", "worse", ADVICE)
            server.fault = lambda _: None
            if not broken:
                assert last > 6, "nothing was cut off"
                return
            publish(place.output, others, tmp_path / "artifact", "worse", ADVICE)
            assert is_of(others, place.contents())


def test_publish_after_two_interrupted_runs_removes_their_files(files: Files, others: Files, tmp_path: Path):
    with strict_storage() as server:
        place = strict_place(server)
        for own in (files, others):
            server.fault = lambda _, server=server: 403 if len(server.writes()) > 3 else None
            with raises("storage.no_permission"):
                publish(place.output, own, tmp_path / "artifact", "worse", ADVICE)
            server.fault = lambda _: None
            server.requests.clear()
        third = made(tmp_path / "third", {"report.html": "third"})
        publish(place.output, third, tmp_path / "artifact", "worse", ADVICE)
        assert is_of(third, place.contents())


@pytest.mark.parametrize("fault", ["lose", "drop", 503])
def test_publish_repeats_any_request_that_fails_once(files: Files, others: Files, tmp_path: Path, fault: str | int):
    with strict_storage() as server:
        place = strict_place(server)
        publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
        seen: set[tuple] = set()

        def once(request: Request) -> object:
            key = (request.method, request.path, len(server.writes()) if request.method == "POST" else 0)
            first = key not in seen and len(server.writes()) % 2 == 1
            seen.add(key)
            return fault if first else None

        server.fault = once
        publish(place.output, others, tmp_path / "artifact", "worse", ADVICE)
        assert is_of(others, place.contents())


def test_publish_by_two_runs_at_once_never_mixes_their_files(files: Files, others: Files, tmp_path: Path):
    """The second run publishes completely, at any moment of the first."""
    failed = 0
    for moment in range(1, 100):
        with strict_storage() as server:
            place = strict_place(server)
            done: list[bool] = []

            def meanwhile(
                _: Request, place: Place = place, server: Server = server, done: list = done, moment: int = moment
            ) -> None:
                if len(server.requests) >= moment and not done:
                    done.append(True)
                    publish(place.output, others, tmp_path / "artifact 2", "worse", ADVICE)

            server.after = meanwhile
            try:
                publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
            except UserError:
                failed += 1
                publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
            if not done:
                assert failed > 3
                return
            assert is_of(files, place.contents()) or is_of(others, place.contents())


def test_publish_writes_no_manifest_if_a_file_is_lost_meanwhile(files: Files, tmp_path: Path):
    """An emulator, for example, loses its data when it restarts."""
    with strict_storage() as server:
        place = strict_place(server)

        def forget(_: Request) -> None:
            if "some/run/metrics.json" in server.objects:
                server.objects.clear()
                server.after = lambda _: None

        server.after = forget
        with raises("publish.concurrent_write"):
            publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
        assert "manifest.json" not in place.contents()
        publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
        assert is_of(files, place.contents())


PHASE = """
import json, sys
from pathlib import Path
from components.publish.publish import publish
from components.shared.errors import exit_on_user_error
from components.shared.records import Advice
from components.shared.stores import transfer
files, manifest, transfer.STALL_S = json.loads(sys.argv[1])
with exit_on_user_error():
    advice = Advice(arm="augmented@1", verdict="worse")
    publish("gs://raw/some/run", {name: Path(path) for name, path in files.items()}, manifest, "worse", advice)
"""


@pytest.fixture
def start_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """Start an emulator that keeps its data on disk, always at the same port."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")

    started: list[Any] = []

    def start() -> Any:
        server = emulator.create_server("127.0.0.1", port, False, "raw", data_dir=str(tmp_path / "emulator"))
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:  # after a failed test, its thread would keep the process alive
        with suppress(Exception):
            server.stop()


def test_publish_fails_during_an_outage_and_completes_after_it(tmp_path: Path, start_emulator: Callable):
    files = made(tmp_path / "in", {f"{i:02}.bin": os.urandom(50_000).hex() for i in range(12)})

    def stored() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "emulator").rglob("some/run/*.*")}

    server = start_emulator()
    create, half_way, resume = server._storage.create_file, threading.Event(), threading.Event()

    def create_and_wait(bucket: str, name: str, *rest: Any) -> None:
        create(bucket, name, *rest)
        if name.endswith("00.bin"):
            half_way.set()
            resume.wait(60)

    server._storage.create_file = create_and_wait
    arguments = json.dumps([{name: str(path) for name, path in files.items()}, str(tmp_path / "artifact"), 5])
    task = subprocess.Popen(
        [sys.executable, "-c", PHASE, arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert half_way.wait(60)
    resume.set()
    server.stop()
    printed, _ = task.communicate(timeout=120)
    assert task.returncode == 2, printed
    record = next(line for line in printed.splitlines() if line.startswith(ERROR_RECORD_PREFIX))
    assert UserError.from_json(record.removeprefix(ERROR_RECORD_PREFIX)).code == "storage.no_answer"
    assert "Traceback" not in printed
    assert "manifest.json" not in stored()
    server = start_emulator()
    publish("gs://raw/some/run", files, tmp_path / "artifact", "worse", ADVICE)
    server.stop()
    assert is_of(files, stored())


def test_publish_survives_an_outage(files: Files, tmp_path: Path, start_emulator: Callable):
    servers: list = []
    later = threading.Timer(0.5, lambda: servers.append(start_emulator()))
    later.start()
    publish("gs://raw/some/run", files, tmp_path / "artifact", "worse", ADVICE)
    servers[0].stop()
    assert (tmp_path / "artifact" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("promote_if", "with_verdicts"),
    [
        ("improved", {"improved"}),
        ("not_worse", {"improved", "no evidence"}),
        ("always", {"improved", "no evidence", "worse", "not established"}),
        ("never", set()),
    ],
)
def test_publish_names_a_candidate_only_if_the_verdict_allows_it(
    promote_if: str, with_verdicts: set[str], files: Files, tmp_path: Path, capsys: pytest.CaptureFixture
):
    for verdict in ("improved", "no evidence", "worse", "not established"):
        publish(str(tmp_path / verdict), files, tmp_path / "artifact", verdict, ADVICE, promote_if)
        manifest = json.loads((tmp_path / "artifact" / "manifest.json").read_text())
        expected = "models/augmented@0.5.keras" if verdict in with_verdicts else None
        assert (manifest["candidate"], manifest["promote_if"], manifest["verdict"]) == (expected, promote_if, verdict)
        assert f"candidate: {expected or 'none'}" in capsys.readouterr().out


PAIRS = [
    ("improved", {("improved", "improved")}),
    ("not_worse", set(itertools.product(("improved", "no evidence"), repeat=2))),
    ("always", set(itertools.product(VERDICTS, repeat=2))),
    ("never", set()),
]
"""promote_if → pairs of verdicts with which there is a candidate."""


@pytest.mark.parametrize(("promote_if", "pairs"), PAIRS)
def test_publish_proposes_the_arm_of_the_advice_only_if_both_verdicts_allow_it(
    promote_if: str, pairs: set[tuple[str, str]], files: Files, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """Regression: synthetic images that help were the candidate although the report advised another remedy."""
    promoted = set()
    for verdict, advised in itertools.product(VERDICTS, repeat=2):
        out, advice = tmp_path / f"{verdict} {advised}", Advice(arm="class_weights", verdict=advised)
        publish(str(out), files, tmp_path / "artifact", verdict, advice, promote_if)
        manifest = load_record(out / "manifest.json", Manifest)
        assert manifest.advice == advice
        assert manifest.candidate in (None, "models/class_weights.keras")
        assert f"verdict: {verdict}; advice on class_weights: {advised}; promote_if" in capsys.readouterr().out
        promoted |= {(verdict, advised)} if manifest.candidate else set()
    assert promoted == pairs


def champion(verdict: Verdict) -> Champion:
    comparison = ChampionComparison(
        seeds=2, lesions=1, rare_lesions=1, excluded_lesions=0, excluded_images=0, seen_validation_images=0, few=True,
        figures={}, permutation=None, verdict=verdict,
    )  # fmt: skip
    drift = Drift(
        images=[1, 1], classes={}, class_distance=0.0, class_p=None, sex_distance=None, site_distance=None,
        median_age=None, appearance=None, appearance_p=None,
    )  # fmt: skip
    run = ChampionRun(place="gs://b/first", run="first", manifest_sha256="0" * 64, arm="augmented@1")
    return Champion(run=run, comparison=comparison, drift=drift)


@pytest.mark.parametrize(("promote_if", "pairs"), PAIRS)
def test_publish_with_a_champion_names_a_candidate_only_if_both_verdicts_allow_it(
    promote_if: str, pairs: set[tuple[str, str]], files: Files, tmp_path: Path
):
    promoted = set()
    for verdict, against in itertools.product(VERDICTS, repeat=2):
        out = tmp_path / f"{verdict} {against}"
        publish(str(out), files, tmp_path / "artifact", verdict, ADVICE, promote_if, champion=champion(against))
        manifest = load_record(out / "manifest.json", Manifest)
        assert manifest.champion is not None
        assert manifest.champion.model_dump() == {"run": "first", "manifest_sha256": "0" * 64, "verdict": against}
        promoted |= {(verdict, against)} if manifest.candidate else set()
    assert promoted == pairs


def test_publish_without_an_earlier_candidate_promotes_by_the_verdict_alone(files: Files, tmp_path: Path):
    none = Champion(run=None, comparison=None, drift=None)
    publish(str(tmp_path / "out"), files, tmp_path / "artifact", "improved", ADVICE, "improved", champion=none)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["candidate"] == "models/augmented@0.5.keras"
    assert "champion" not in manifest


def test_publish_with_an_unknown_promote_if_fails(files: Files, tmp_path: Path):
    with raises("parameter.invalid"):
        publish(str(tmp_path / "out"), files, tmp_path / "artifact", "improved", ADVICE, "sometimes")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["report.html", "models/baseline.keras"])
def test_publish_never_replaces_a_file_that_it_did_not_write(place: Place, files: Files, tmp_path: Path, name: str):
    place.put(name, b"of a user")
    with pytest.raises(UserError) as caught:
        publish(place.output, files, tmp_path / "artifact", "worse", ADVICE)
    assert caught.value.code == "publish.foreign_files"
    assert caught.value.fields["names"] == [name]
    assert place.contents() == {name: b"of a user"}


def test_publish_to_a_folder_accepts_a_file_that_has_the_content_already(files: Files, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_bytes(b"report.html")
    publish(str(out), files, tmp_path / "artifact", "worse", ADVICE)
    assert is_of(files, {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()})


def test_publish_does_not_follow_a_link_in_the_output(files: Files, tmp_path: Path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    (out / "report.html").symlink_to(outside)
    with raises("publish.foreign_files"):
        publish(str(out), files, tmp_path / "artifact", "worse", ADVICE)
    assert not outside.exists()


def test_publish_to_auto_writes_the_artifact_and_returns_its_address(files: Files, tmp_path: Path):
    artifact = tmp_path / "published"
    place = publish(
        "auto", files, artifact, "worse", ADVICE, run="run-1", artifact_address="minio://b/p/run-1/publish/1/x"
    )
    assert place == "minio://b/p/run-1/publish/1/x"
    assert is_of(files, {str(p.relative_to(artifact)): p.read_bytes() for p in artifact.rglob("*") if p.is_file()})


def test_publish_of_cached_results_returns_the_earlier_publication(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    results = "gs://root/counterweight/run-1/evaluate/77/results"
    with strict_storage() as server:
        place = strict_place(server)
        first = publish(place.output, files, tmp_path / "a", "worse", ADVICE, run="run-1", results_address=results)
        before = place.state()
        arguments = {"results_address": results, "finished": "2026-11-26 03:10 UTC"}
        second = publish(place.output, files, tmp_path / "b", "worse", ADVICE, run="run-2", **arguments)
        assert first == second == f"{place.output}/run-1"
        assert place.state() == before
        printed = capsys.readouterr().out
        assert "no new data: run run-1 computed these results at 2026-11-26 03:10 UTC" in printed
        assert re.search(r"unchanged since 2026-11-26 00:\d\d UTC", printed)
        place.put("run-1/manifest.json", b"{}")
        third = publish(place.output, files, tmp_path / "c", "worse", ADVICE, run="run-2", **arguments)
        assert third == f"{place.output}/run-2", "an incomplete earlier publication does not count"
