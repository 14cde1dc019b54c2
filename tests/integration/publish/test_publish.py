"""Publication to a folder, to an emulator of object storage, and to a stricter one that can fail at any request."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from components.publish.publish import JOURNAL, named, publish
from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.image_set import iter_tables, read_header, write_image_set
from tests.helpers.strict_storage import Request, Server, strict_storage

ROOT = Path(__file__).resolve().parents[3]
Files = dict[str, Path]


def made(folder: Path, contents: dict[str, str]) -> Files:
    """Files to publish: name → a file with the content."""
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
    """Of another run: a file less, one the same, one changed, one more."""
    return made(
        tmp_path / "others",
        {"report.html": "report.html", "models/baseline.keras": "new", "models/baseline-seed2.keras": "two"},
    )


class Place:
    """Where a test publishes to, and what is there: name → content, and a mark that changes with each write."""

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
    """Whether exactly these files are there, and their manifest."""
    return {name: content for name, content in contents.items() if name != "manifest.json"} == {
        name: path.read_bytes() for name, path in files.items()
    } and set(json.loads(contents["manifest.json"])["files"]) == set(files)


def test_the_manifest_holds_the_hash_of_every_file(place: Place, files: Files, tmp_path: Path):
    assert publish(place.output, files, tmp_path / "copy", "worse") == place.output
    contents = place.contents()
    assert is_of(files, contents)
    manifest = json.loads(contents["manifest.json"])["files"]
    for name, path in files.items():
        assert manifest[name] == {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    assert (tmp_path / "copy").read_bytes() == contents["manifest.json"]


def test_again_changes_nothing(place: Place, files: Files, tmp_path: Path):
    publish(place.output, files, tmp_path / "copy", "worse")
    before = place.state()
    (tmp_path / "copy").unlink()
    publish(place.output, files, tmp_path / "copy", "worse")
    assert place.state() == before
    assert (tmp_path / "copy").exists()


def test_what_is_missing_or_damaged_is_put_right(place: Place, files: Files, tmp_path: Path):
    publish(place.output, files, tmp_path / "copy", "worse")
    before = place.state()
    place.put("report.html", b"damaged!!!!")
    publish(place.output, files, tmp_path / "copy", "worse")
    assert is_of(files, place.contents())
    assert {name for name, entry in place.state().items() if entry != before[name]} == {"report.html"}


def test_another_runs_files_go(place: Place, files: Files, others: Files, tmp_path: Path):
    publish(place.output, files, tmp_path / "copy", "worse")
    before = place.state()
    place.put("mine.txt", b"a user's own")
    publish(place.output, others, tmp_path / "copy", "worse")
    after = place.state()
    assert after.pop("mine.txt")[0] == b"a user's own"
    assert is_of(others, {name: content for name, (content, _) in after.items()})
    assert after["report.html"] == before["report.html"], "what both runs have is not written again"


def test_another_verdict_is_another_manifest(place: Place, files: Files, tmp_path: Path):
    publish(place.output, files, tmp_path / "copy", "worse")
    before = place.state()
    publish(place.output, files, tmp_path / "copy", "improved")
    assert {name for name, entry in place.state().items() if entry != before[name]} == {"manifest.json"}
    assert json.loads(place.contents()["manifest.json"])["candidate"] == "models/augmented.keras"


def test_runs_side_by_side(place: Place, files: Files, others: Files, tmp_path: Path):
    first = publish(place.output, files, tmp_path / "copy", "worse", run="counterweight-7k2p")
    second = publish(f"{place.output}/", others, tmp_path / "copy", "worse", run="counterweight-x.1")
    assert (first, second) == (f"{place.output}/counterweight-7k2p", f"{place.output}/counterweight-x.1")
    for run, own in (("counterweight-7k2p", files), ("counterweight-x.1", others)):
        contents = {n.removeprefix(f"{run}/"): c for n, c in place.contents().items() if n.startswith(f"{run}/")}
        assert is_of(own, contents)


@pytest.mark.parametrize("run", ["..", ".", "a/b", "/a", "a b", "ä", "a\n", "-"])
def test_a_runs_name_is_a_folders_name(run: str, files: Files, tmp_path: Path):
    with pytest.raises(UserError, match="give a name of letters, digits, dots and dashes"):
        publish(str(tmp_path / "out"), files, tmp_path / "copy", "worse", run=run)
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
def test_somebody_elses_manifest_is_known(files: Files, tmp_path: Path, text: str):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json is not of this pipeline"):
        publish(str(tmp_path / "out"), files, tmp_path / "copy", "worse")


@pytest.mark.parametrize("name", ["manifest.json", JOURNAL])
def test_somebody_elses_manifest_is_left_alone(place: Place, files: Files, tmp_path: Path, name: str):
    place.put(name, b"{}")
    with pytest.raises(UserError, match=f"{name} is not of this pipeline; give another folder as output, or remove it"):
        publish(place.output, files, tmp_path / "copy", "worse")
    assert place.contents() == {name: b"{}"}


@pytest.mark.parametrize("output", ["s3://bucket/x", "https://example.org"])
def test_an_unknown_address_is_refused(output: str, files: Files, tmp_path: Path):
    with pytest.raises(UserError, match=r"this kind of address is not known; give a folder or gs://bucket/prefix"):
        publish(output, files, tmp_path / "copy", "worse")


def test_a_file_is_no_folder(files: Files, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        publish(str(tmp_path / "file"), files, tmp_path / "copy", "worse")


def test_no_manifest_stands_beside_files_of_two_runs(files: Files, tmp_path: Path):
    """The second run's copy breaks off in the middle: the first one's manifest is gone by then."""
    out = tmp_path / "out"
    publish(str(out), files, tmp_path / "copy", "worse")
    for path in files.values():
        path.write_text("new")
    (out / "report.html").unlink()
    (out / "report.html").mkdir()  # a folder in the way
    with pytest.raises(IsADirectoryError):
        publish(str(out), files, tmp_path / "copy", "worse")
    assert not (out / "manifest.json").exists()
    (out / "report.html").rmdir()
    (out / ".part-abc.html").write_text("cut off")
    publish(str(out), files, tmp_path / "copy", "worse")
    assert is_of(files, {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()})


def consistent(place: Place) -> bool:
    """What a reader may rely on: where a manifest is, there is all that it lists."""
    contents = place.contents()
    if "manifest.json" not in contents:
        return True
    listed = json.loads(contents["manifest.json"])["files"]
    return all(len(contents.get(name, b"")) == entry["bytes"] for name, entry in listed.items()) and (
        "models/baseline-seed2.keras" not in listed or contents["models/baseline.keras"] == b"new"
    )


@pytest.mark.parametrize("fault", [403, "lose then 403"])
def test_cut_off_at_any_request_it_is_completed_by_the_next(
    files: Files, others: Files, tmp_path: Path, fault: str | int
):
    """Another run's results are replaced; each request that changes something is the last, once."""
    for last in range(1, 100):
        with strict_storage() as server:
            place = strict_place(server)
            publish(place.output, files, tmp_path / "copy", "worse")
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
                publish(place.output, others, tmp_path / "copy", "worse")
            server.fault = lambda _: None
            if not broken:
                assert last > 6, "nothing was cut off"
                return
            publish(place.output, others, tmp_path / "copy", "worse")
            assert is_of(others, place.contents())


def test_after_two_runs_that_were_cut_off_nothing_of_theirs_stays(files: Files, others: Files, tmp_path: Path):
    with strict_storage() as server:
        place = strict_place(server)
        for own in (files, others):
            server.fault = lambda _, server=server: 403 if len(server.writes()) > 3 else None
            with pytest.raises(UserError, match="no permission"):
                publish(place.output, own, tmp_path / "copy", "worse")
            server.fault = lambda _: None
            server.requests.clear()
        third = made(tmp_path / "third", {"report.html": "third"})
        publish(place.output, third, tmp_path / "copy", "worse")
        assert is_of(third, place.contents())


@pytest.mark.parametrize("fault", ["lose", "drop", 503])
def test_every_request_may_need_a_second_attempt(files: Files, others: Files, tmp_path: Path, fault: str | int):
    with strict_storage() as server:
        place = strict_place(server)
        publish(place.output, files, tmp_path / "copy", "worse")
        seen: set[tuple] = set()

        def once(request: Request) -> object:
            key = (request.method, request.path, len(server.writes()) if request.method == "POST" else 0)
            first = key not in seen and len(server.writes()) % 2 == 1
            seen.add(key)
            return fault if first else None

        server.fault = once
        publish(place.output, others, tmp_path / "copy", "worse")
        assert is_of(others, place.contents())


def test_two_publishers_never_both_succeed_with_a_mixture(files: Files, others: Files, tmp_path: Path):
    """The second publishes all of its own at any moment of the first."""
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
                    publish(place.output, others, tmp_path / "copy 2", "worse")

            server.after = meanwhile
            try:
                publish(place.output, files, tmp_path / "copy", "worse")
            except UserError:
                failed += 1
                publish(place.output, files, tmp_path / "copy", "worse")
            if not done:
                assert failed > 3
                return
            assert is_of(files, place.contents()) or is_of(others, place.contents())


def test_nothing_counts_if_a_file_is_lost_meanwhile(files: Files, tmp_path: Path):
    """As in an emulator that forgets everything when it is started again."""
    with strict_storage() as server:
        place = strict_place(server)

        def forget(_: Request) -> None:
            if "some/run/metrics.json" in server.objects:
                server.objects.clear()
                server.after = lambda _: None

        server.after = forget
        with pytest.raises(UserError, match="was changed while it was published; run the same command again"):
            publish(place.output, files, tmp_path / "copy", "worse")
        assert "manifest.json" not in place.contents()
        publish(place.output, files, tmp_path / "copy", "worse")
        assert is_of(files, place.contents())


PHASE = """
import json, sys
from pathlib import Path
from components.publish.publish import publish
from components.shared import storage
from components.shared.errors import exit_on_user_error
files, manifest, storage.STALL_S = json.loads(sys.argv[1])
with exit_on_user_error():
    publish("gs://raw/some/run", {name: Path(path) for name, path in files.items()}, manifest, "worse")
"""


@pytest.fixture
def start_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Starts an emulator that keeps its data on the disk, always at the same port."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")

    def start() -> Any:
        server = emulator.create_server("127.0.0.1", port, False, "raw", data_dir=str(tmp_path / "emulator"))
        server.start()
        return server

    return start


def test_storage_that_goes_down_ends_it_with_a_sentence_and_back_again_completes_it(
    tmp_path: Path, start_emulator: Callable
):
    files = made(tmp_path / "in", {f"{i:02}.bin": os.urandom(50_000).hex() for i in range(12)})

    def stored() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "emulator").rglob("some/run/*.*")}

    server = start_emulator()
    create, half_way, go_on = server._storage.create_file, threading.Event(), threading.Event()

    def create_and_wait(bucket: str, name: str, *rest: Any) -> None:
        create(bucket, name, *rest)
        if name.endswith("00.bin"):
            half_way.set()
            go_on.wait(10)

    server._storage.create_file = create_and_wait
    arguments = json.dumps([{name: str(path) for name, path in files.items()}, str(tmp_path / "copy"), 2])
    task = subprocess.Popen(
        [sys.executable, "-c", PHASE, arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert half_way.wait(60)
    go_on.set()
    server.stop()
    begun = time.monotonic()
    said, _ = task.communicate(timeout=30)
    assert time.monotonic() - begun < 15
    assert task.returncode == 2, said
    assert said.splitlines()[-1].startswith("counterweight error: gs://raw/some/run: object storage did not answer")
    assert "Traceback" not in said
    assert "manifest.json" not in stored()
    server = start_emulator()
    publish("gs://raw/some/run", files, tmp_path / "copy", "worse")
    server.stop()
    assert is_of(files, stored())


def test_an_outage_of_some_seconds_is_ridden_out(files: Files, tmp_path: Path, start_emulator: Callable):
    servers: list = []
    later = threading.Timer(2, lambda: servers.append(start_emulator()))
    later.start()
    publish("gs://raw/some/run", files, tmp_path / "copy", "worse")
    servers[0].stop()
    assert (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("promote_if", "with_verdicts"),
    [
        ("improved", {"improved"}),
        ("not_worse", {"improved", "no evidence"}),
        ("always", {"improved", "no evidence", "worse"}),
        ("never", set()),
    ],
)
def test_a_candidate_only_where_the_verdict_allows_it(
    promote_if: str, with_verdicts: set[str], files: Files, tmp_path: Path, capsys: pytest.CaptureFixture
):
    for verdict in ("improved", "no evidence", "worse"):
        publish(str(tmp_path / verdict), files, tmp_path / "copy", verdict, promote_if)
        manifest = json.loads((tmp_path / "copy").read_text())
        wanted = "models/augmented.keras" if verdict in with_verdicts else None
        assert (manifest["candidate"], manifest["promote_if"], manifest["verdict"]) == (wanted, promote_if, verdict)
        assert f"{wanted or 'no model'} is the candidate" in capsys.readouterr().out


def test_an_unknown_rule_is_refused(files: Files, tmp_path: Path):
    with pytest.raises(UserError, match="choose one of improved, not_worse, always, never"):
        publish(str(tmp_path / "out"), files, tmp_path / "copy", "improved", "sometimes")
    assert not (tmp_path / "out").exists()


class Run:
    """What a run hands over: models and records whose order says nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def model(self, name: str) -> Path:
        path = self.folder / f"{name}.keras"
        path.write_text(f"weights of {name}")
        return path

    def generator(self, task: str, dx: str) -> Path:
        (self.folder / task).mkdir(exist_ok=True)
        return self.model(f"{task}/{dx}")

    def record(self, name: str, *of_classes: dict[str, object], **facts: object) -> Path:
        path = self.folder / f"{name}.record"
        path.write_text(json.dumps(list(of_classes) or facts))
        return path


def test_names(tmp_path: Path, make_set: Callable[..., Path]):
    run = Run(tmp_path / "run")
    models, records = {}, {}
    for arm in ("baseline", "oversampled", "augmented"):
        own = {seed: run.model(f"{arm}{seed}") for seed in (7, 2, 3)}
        models[arm] = [own[3], own[7], own[2]]
        records[arm] = [
            run.record(f"{arm}{seed}", model_sha256=file_sha256(path), settings={"seed": seed})
            for seed, path in own.items()
        ]
    generators = {dx: run.generator("task-1" if dx == "df" else "task-2", dx) for dx in ("df", "vasc", "mel")}
    (run.folder / "task-3").mkdir()
    gans = {dx: {"dx": dx, "model_sha256": file_sha256(path)} for dx, path in generators.items()}
    gans["akiec"] = {"dx": "akiec", "failed": "a loss is not a number"}
    # A task of one class, one of two, and one whose class failed.
    tasks = [run.record("1", gans["df"]), run.record("2", gans["mel"], gans["vasc"]), run.record("3", gans["akiec"])]
    sets = [make_set(run.folder / "set-2", "train", {"vasc": 2, "nv": 1})]
    sets += [make_set(run.folder / f"set-{dx}", "train", {dx: 2} if dx else {}) for dx in ("", "df")]
    kept = {dx: {"dx": dx, "kid": 0.1} for dx in ("vasc", "nv", "df")}
    quality = [
        run.record("q2", kept["vasc"], kept["nv"]),
        run.record("q3", gans["akiec"]),
        run.record("q1", kept["df"]),
    ]
    files = named(
        models=models,
        records=records,
        generators=[run.folder / "task-2", run.folder / "task-3", run.folder / "task-1"],
        gan_records=tasks,
        gan_pages=[tmp_path / f"{number}.html" for number in (1, 2, 3)],
        synthetic_sets=sets,
        sheets=[tmp_path / f"sheet-{number}.html" for number in (2, 3, 1)],
        quality=quality,
        others={"splits.csv": tmp_path / "splits"},
        scratch=tmp_path,
    )
    for dx in ("df", "mel", "vasc", "akiec"):
        assert json.loads(files.pop(f"models/gan-{dx}.json").read_text()) == gans[dx]
    for dx in ("df", "vasc", "nv"):
        assert json.loads(files.pop(f"synthetic/{dx}.json").read_text()) == kept[dx]
    whole = pd.read_parquet(sets[0])
    for dx in ("vasc", "nv"):
        part = files.pop(f"synthetic/{dx}.parquet")
        own = whole[whole["dx"] == dx].reset_index(drop=True)
        pd.testing.assert_frame_equal(pd.read_parquet(part), own)
        assert read_header(part) == read_header(sets[0])
    expected = {"splits.csv": tmp_path / "splits"}
    for arm in models:
        for stem, seed in ((arm, 7), (f"{arm}-seed2", 2), (f"{arm}-seed3", 3)):
            expected[f"models/{stem}.keras"] = run.folder / f"{arm}{seed}.keras"
            expected[f"models/{stem}.json"] = run.folder / f"{arm}{seed}.record"
    for number, names in enumerate(("df", "mel+vasc", "akiec"), start=1):
        expected[f"models/gan-{names}.html"] = tmp_path / f"{number}.html"
    expected |= {f"models/gan-{dx}.keras": path for dx, path in generators.items()}
    expected["synthetic/df.parquet"] = run.folder / "set-df"
    expected["synthetic/df.html"] = tmp_path / "sheet-1.html"
    expected["synthetic/vasc+nv.html"] = tmp_path / "sheet-2.html"
    assert files == expected


def test_the_set_of_one_class_is_the_same_however_it_was_made(tmp_path: Path, make_set: Callable[..., Path]):
    alone = make_set(tmp_path / "alone", "train", {"df": 5})
    together = tmp_path / "together"
    with write_image_set(together, read_header(alone)) as out:
        for path in (alone, make_set(tmp_path / "other", "train", {"vasc": 3})):
            for table in iter_tables(path):
                out.write_table(table)
    rest: dict = {"models": {}, "records": {}, "generators": [], "gan_records": [], "gan_pages": [], "quality": []}
    files = named(**rest, synthetic_sets=[together], sheets=[tmp_path / "sheet"], others={}, scratch=tmp_path)
    assert file_sha256(files["synthetic/df.parquet"]) == file_sha256(alone)


def test_a_record_of_another_model_is_refused(tmp_path: Path):
    run = Run(tmp_path / "run")
    record = run.record("baseline", model_sha256="0" * 64, settings={"seed": 1})
    rest: dict = {
        "generators": [],
        "gan_records": [],
        "gan_pages": [],
        "synthetic_sets": [],
        "sheets": [],
        "quality": [],
        "others": {},
        "scratch": tmp_path,
    }
    with pytest.raises(UserError, match="the baseline model is not the one in its record"):
        named(models={"baseline": [run.model("baseline")]}, records={"baseline": [record]}, **rest)
