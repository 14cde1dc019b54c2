"""Object storage, on an emulator and on a strict server: the files of the bucket, or a user error in time."""

import gzip
import os
import time
from datetime import UTC, datetime

import pytest

pytest.importorskip("google.cloud.storage")
emulator = pytest.importorskip("gcp_storage_emulator.server")

from google.cloud.storage import Client  # noqa: E402

from components.prepare_data.sources import bucket as source  # noqa: E402
from components.shared import storage  # noqa: E402
from components.shared.errors import UserError  # noqa: E402
from components.shared.stores import addresses, gcs, protocol, transfer  # noqa: E402
from components.shared.stores.protocol import Entry  # noqa: E402
from tests.helpers.errors import raises_user_error  # noqa: E402
from tests.helpers.strict_storage import PAGE, Clock, strict_storage  # noqa: E402


@pytest.fixture(scope="module")
def bucket():
    """An empty bucket `raw` on a separate server, which Google's client finds by an environment variable."""
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="raw")
    server.start()
    host, port = server._api._httpd.socket.getsockname()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
        yield Client(project="test").bucket("raw")
    server.stop()


@pytest.fixture
def strict():
    with strict_storage() as server:
        yield server


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(transfer, "RETRY_DELAY_S", 0.01)
    monkeypatch.setattr(transfer, "POLL_S", 0.01)


@pytest.fixture
def fast_clock(monkeypatch):
    """Let a stall of STALL_S take a hundredth of it, and a request time out after 0.1 s."""
    assert transfer.TIMEOUT_S <= transfer.STALL_S <= 25, "so that a call ends within 30 s"
    monkeypatch.setattr(transfer, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(transfer, "CLOCK", lambda: 100 * time.monotonic())


def put(bucket, files):
    for name, content in files.items():
        bucket.blob(name).upload_from_string(content)


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def error_of(uri, folder):
    with pytest.raises(UserError) as caught:
        storage.download_folder(uri, folder)
    assert str(caught.value).startswith(uri)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("gs://buc_ket", ("gs", "buc_ket", "")),
        ("gs://bucket/", ("gs", "bucket", "")),
        ("s3://bucket/a/c/", ("s3", "bucket", "a/c")),
        ("az://container//a", ("az", "container", "a")),
        ("s3://" + "b" * 63, ("s3", "b" * 63, "")),
        ("az://" + "b" * 63 + "/" + "a" * 99, ("az", "b" * 63, "a" * 99)),
    ],
)
def test_parse_returns_scheme_bucket_and_prefix(uri, parts):
    assert addresses.parse(uri) == parts


@pytest.mark.parametrize(
    "uri",
    [
        *("gs://", "gs:///a", "s3://b/a", "az://-ab", "az://a_b", "az://ab", "s3://Bucket", "s3://buc_ket"),
        *("ftp://bucket/a", "bucket/a", "", "az://" + "b" * 64, "s3://" + "b" * 64),
    ],
)
def test_parse_refuses_another_address(uri):
    with pytest.raises(UserError) as caught:
        addresses.parse(uri)
    assert caught.value.code == "storage.invalid_address"


def test_checksum_is_computed_in_c():
    assert gcs.google_crc32c.implementation == "c"


def test_download_folder_downloads_every_object_below_the_prefix(bucket, tmp_path):
    below = {"HAM.csv": b"a,b\n", "part 1/ä.jpg": b"\xff\xd8", "a/b/c/empty": b"", "big": os.urandom(300_000)}
    put(bucket, {f"set/{name}": content for name, content in below.items()})
    put(bucket, {"set2/other": b"x", "set": b"x", "set/folder/": b""})
    for uri in ("gs://raw/set", "gs://raw/set/"):
        folder = tmp_path / str(len(uri))
        storage.download_folder(uri, folder)
        assert files_in(folder) == below


def test_download_file_is_atomic(bucket, strict, tmp_path, monkeypatch):
    content = os.urandom(300_000)
    strict.put("splits/a.csv", content)
    storage.download_file("gs://raw/splits/a.csv", tmp_path / "new" / "a.csv")
    assert files_in(tmp_path) == {"new/a.csv": content}
    for uri in ("gs://raw/splits", "gs://raw/splits/b.csv", "gs://raw", "gs://other/splits/a.csv"):
        with pytest.raises(UserError) as caught:
            storage.download_file(uri, tmp_path / "b.csv")
        assert caught.value.code == "storage.not_found"
    strict.fault = lambda request: "spoil" if "download" in request.path else None
    with pytest.raises(UserError) as caught:
        storage.download_file("gs://raw/splits/a.csv", tmp_path / "new" / "a.csv")
    assert caught.value.code == "storage.changed"
    assert files_in(tmp_path) == {"new/a.csv": content}


def test_open_object_reads_ranges_of_one_version(strict):
    content = os.urandom(300_000)
    strict.put("set/a", content)
    with storage.open_object("gs://raw/set/a") as file:
        file.seek(-10, os.SEEK_END)
        assert file.read(100) == content[-10:]
        file.seek(1000)
        assert file.read(100_000) == content[1000:101_000]
        strict.put("set/a", content[::-1])
        file.seek(200_000)
        with raises_user_error("storage.changed"):
            file.read(10)
    strict.put("set/packed", gzip.compress(content), {"contentEncoding": "gzip"})
    with storage.open_object("gs://raw/set/packed") as file:
        file.seek(1000)
        assert file.read(10) == content[1000:1010]


def test_download_folder_reads_all_pages_of_a_listing(strict, tmp_path):
    files = {f"{i:02}": os.urandom(i) for i in range(3 * PAGE + 1)}
    for name, content in files.items():
        strict.put(f"many/{name}", content)
    storage.download_folder("gs://raw/many", tmp_path)
    assert files_in(tmp_path) == files


def test_download_folder_unpacks_gzip(strict, tmp_path):
    strict.put("set/a.csv", gzip.compress(b"a,b\n" * 9999), {"contentEncoding": "gzip"})
    storage.download_folder("gs://raw/set", tmp_path)
    assert files_in(tmp_path) == {"a.csv": b"a,b\n" * 9999}
    strict.fault = lambda request: "spoil" if "download" in request.path else None
    assert error_of("gs://raw/set", tmp_path).code == "storage.no_answer"


def test_packed_objects_that_unpack_to_more_than_the_limit_fail(strict, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "MAX_UNPACKED_BYTES", 10_000)
    content = bytes(2_000_000)
    packed = gzip.compress(content)
    assert protocol.MAX_UNPACKED_RATIO * len(packed) < 50_000
    strict.put("set/a.csv", packed, {"contentEncoding": "gzip"})
    strict.put("set/manifest.json", packed, {"contentEncoding": "gzip"})
    calls = (
        lambda: storage.download_folder("gs://raw/set", tmp_path),
        lambda: storage.download_file("gs://raw/set/a.csv", tmp_path / "b.csv"),
        lambda: storage.open_object("gs://raw/set/a.csv"),
        lambda: storage.Prefix("gs://raw/set").read("manifest.json"),
    )
    for call in calls:
        with raises_user_error("storage.too_large"):
            call()
    assert all(path.stat().st_size < 50_000 for path in tmp_path.iterdir())
    strict.put("set/a.csv", content)
    storage.download_file("gs://raw/set/a.csv", tmp_path / "b.csv")
    assert (tmp_path / "b.csv").stat().st_size == len(content)


@pytest.mark.parametrize(("name", "reproduced"), [("a.csv", False), ("a.parquet", False), ("a.jpg", True)])
def test_copy_listing_of_a_packed_table_that_may_be_large_is_left_out(strict, tmp_path, name, reproduced):
    size = source.MAX_TABLE_BYTES // protocol.MAX_UNPACKED_RATIO + 1
    strict.put(f"set/{name}", os.urandom(size), {"contentEncoding": "gzip"})
    assert source.copy_listing("gs://raw/set", tmp_path / "large") == reproduced
    strict.put(f"set/{name}", gzip.compress(b"image_id,dx\n"), {"contentEncoding": "gzip"})
    if name != "a.parquet":
        assert source.copy_listing("gs://raw/set", tmp_path / "small")
        assert (tmp_path / "small" / name).read_bytes() == (b"" if reproduced else b"image_id,dx\n")


def test_download_folder_with_impossible_file_names_fails(bucket, tmp_path):
    put(bucket, {"long/" + "x" * 300: b"x"})
    assert error_of("gs://raw/long", tmp_path / "1").code == "storage.bad_name"
    put(bucket, {"both/a": b"x", "both/a/b": b"x"})
    assert error_of("gs://raw/both", tmp_path / "2").code == "storage.bad_name"


@pytest.mark.parametrize("other", ["a//b.jpg", "a/./b.jpg", "./a/b.jpg"])
def test_download_folder_refuses_two_names_of_one_file(strict, tmp_path, other):
    strict.put("set/a/b.jpg", b"one")
    strict.put(f"set/{other}", b"another")
    error = error_of("gs://raw/set", tmp_path / "out")
    assert (error.code, other in str(error)) == ("storage.bad_name", True)
    assert not (tmp_path / "out").exists()


def test_download_folder_skips_names_outside_the_folder(strict, tmp_path, capsys):
    """On the strict server: the emulator refuses such names, Google does not."""
    bad = ["../out", "a/../../out", "/abs", "..", f"{tmp_path}/abs", "folder/", "", "nul\0"]
    good = ["good/..hidden", "good/a..b", "back\\slash"]
    for name in bad + good:
        strict.put(f"hostile/{name}", b"content")
    folder = tmp_path / "inner" / "folder"
    storage.download_folder("gs://raw/hostile", folder)
    assert files_in(tmp_path) == {f"inner/folder/{name}": b"content" for name in good}
    assert "warning: skipped 8 objects without a file's name: " in capsys.readouterr().out


def test_download_folder_of_nothing_fails(bucket, tmp_path):
    assert error_of("gs://no-such-bucket/a", tmp_path).code == "storage.not_found"
    assert error_of("gs://raw/nothing", tmp_path).code == "storage.empty"


def test_download_folder_on_a_full_disk_raises_oserror(strict, tmp_path):
    strict.put("full/a", b"x")
    (tmp_path / "a").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        storage.download_folder("gs://raw/full", tmp_path)


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "no_credentials"), (403, "no_permission"), (404, "not_found"), (400, "bad_request"), (418, "no_answer")],
)
def test_download_folder_translates_refusals(strict, tmp_path, status, code):
    strict.fault = lambda _: status
    error = error_of("gs://raw/a", tmp_path)
    assert error.code == f"storage.{code}"
    assert ("Storage Object Viewer" in error.hint) == (status == 403)
    assert len(strict.requests) == 1, "a refusal is final"
    assert "Google Cloud Storage" in error.lines()
    assert "gcloud login or Workload Identity" in error.lines()


def test_download_folder_without_credentials_fails(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("GOOGLE", "GCLOUD", "CLOUDSDK", "STORAGE_", "GCE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # else the outcome depends on where the test runs
    assert error_of("gs://raw/a", tmp_path).code == "storage.no_credentials"


@pytest.mark.parametrize("content", [None, "{", '{"type": "unknown"}'])
def test_download_folder_with_a_bad_key_fails(tmp_path, monkeypatch, content):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    key = tmp_path / "key.json"
    if content:
        key.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    error = error_of("gs://raw/a", tmp_path / "out")
    assert error.code == "storage.no_credentials"
    assert "the file in GOOGLE_APPLICATION_CREDENTIALS" in str(error)


def test_download_folder_with_a_bad_file_of_certificates_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "https://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    error = error_of("gs://raw/a", tmp_path)
    assert error.code == "storage.bad_certificates"
    assert str(tmp_path / "none.pem") in str(error)


@pytest.mark.parametrize("change", [lambda objects: objects.put("set/b", b"new"), lambda it: it.objects.pop("set/b")])
def test_download_folder_fails_if_an_object_changes_after_the_listing(strict, tmp_path, change):
    for name in "abc":
        strict.put(f"set/{name}", b"old")
    strict.after = lambda request: change(strict) if "prefix" in request.query else None
    error = error_of("gs://raw/set", tmp_path)
    assert (error.code, error.fields["uri"]) == ("storage.changed", "gs://raw/set/b")


def test_download_folder_detects_a_replacement_that_the_server_hides(bucket, tmp_path, monkeypatch):
    put(bucket, {"behind/a": b"old"})
    call = storage._Connection.call

    def listed(self, job):
        found = call(self, job)
        if isinstance(found, list):
            bucket.blob("behind/a").upload_from_string(b"new")
        return found

    monkeypatch.setattr(storage._Connection, "call", listed)
    assert error_of("gs://raw/behind", tmp_path).code == "storage.changed"


def test_download_folder_resumes_an_interrupted_download(strict, tmp_path):
    content = os.urandom(1_000_000)
    strict.put("set/a", content)
    strict.fault = lambda request: "cut" if "download" in request.path and request.number == 1 else None
    storage.download_folder("gs://raw/set", tmp_path / "1")
    assert files_in(tmp_path / "1") == {"a": content}
    strict.requests.clear()
    strict.fault = lambda request: {1: "cut", 2: "spoil"}.get(request.number) if "download" in request.path else None
    assert error_of("gs://raw/set", tmp_path / "2").code == "storage.changed"


@pytest.mark.parametrize("fault", [503, 429, 408, "drop"])
def test_download_folder_survives_a_short_outage(strict, tmp_path, fault):
    strict.put("set/a", b"content")
    strict.fault = lambda request: fault if request.number <= 2 else None
    storage.download_folder("gs://raw/set", tmp_path)
    assert files_in(tmp_path) == {"a": b"content"}


@pytest.mark.parametrize("fault", [503, 429, "hang", "drop"])
@pytest.mark.parametrize("what", ["prefix", "alt"])
def test_download_folder_fails_in_time_if_requests_fail(strict, tmp_path, fast_clock, fault, what):
    for i in range(30):
        strict.put(f"set/{i:02}", b"content")
    strict.fault = lambda request: fault if what in request.query else None
    assert error_of("gs://raw/set", tmp_path).code == "storage.no_answer"
    asked = {request.path for request in strict.requests if "download" in request.path}
    assert len(asked) <= transfer.MAX_PARALLEL_REQUESTS, "no download starts after the failure"


def test_download_folder_of_truncated_answers_fails(strict, tmp_path, fast_clock):
    strict.put("set/a", os.urandom(1_000_000))
    strict.fault = lambda request: "cut" if "download" in request.path else None
    assert error_of("gs://raw/set", tmp_path).code in ("storage.no_answer", "storage.changed")


def test_download_folder_fails_in_time_if_the_server_is_down(tmp_path, fast_clock, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    error = error_of("gs://raw/a", tmp_path)
    assert (error.code, error.fields["reason"]) == ("storage.no_answer", "ConnectionError")


def test_download_folder_fails_in_time_if_an_answer_trickles(strict, tmp_path, fast_clock):
    """No single wait is long: only the whole is."""
    for i in range(PAGE):
        strict.put(f"set/{i}", b"content")
    strict.bytes_per_s = 400
    assert error_of("gs://raw/set", tmp_path).code == "storage.no_answer"


def test_download_folder_over_a_slow_connection_succeeds(strict, tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(transfer, "CLOCK", clock)
    content = os.urandom(20 << 20)
    strict.put("set/a", content)
    # The system's buffers take up to 10 MiB at once.
    strict.bytes_per_s, strict.sleep = 1 << 20, clock.sleep
    storage.download_folder("gs://raw/set", tmp_path)
    assert clock.now > transfer.STALL_S
    assert (tmp_path / "a").read_bytes() == content
    target = storage.Prefix("gs://raw/copy")
    files = {"b": (tmp_path / "a", "sha")}
    assert target.find_unchanged(files) == set()
    started = clock.now
    target.upload(files)
    assert clock.now - started > transfer.STALL_S
    assert strict.objects["copy/b"].content == content
    assert target.find_unchanged(files) == {"b"}


def uploaded(strict, path):
    target = storage.Prefix("gs://raw/to")
    target.find_unchanged({"a": (path, "sha")})
    target.upload({"a": (path, "sha")})


@pytest.fixture
def large(tmp_path):
    """A file that is sent in three pieces."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(2 * transfer.CHUNK_BYTES + 5))
    return path


@pytest.mark.parametrize("fault", ["lose", "drop", 503])
def test_upload_survives_lost_requests_and_lost_answers(strict, large, fault):
    strict.fault = lambda request: fault if request.method != "GET" and request.number == 2 else None
    uploaded(strict, large)
    small = large.with_name("small")
    small.write_bytes(b"small")
    strict.requests.clear()
    strict.fault = lambda request: fault if request.method != "GET" and request.number == 1 else None
    uploaded(strict, small)
    assert strict.objects["to/a"].content == b"small"
    assert strict.objects["to/a"].metadata["metadata"] == {"sha256": "sha"}


def test_upload_restarts_if_the_server_lost_it(strict, large):
    def forget(request):
        if request.method == "PUT" and len(strict.uploads) == 1:
            strict.uploads["1"] = (
                (*strict.uploads["1"][:2], bytearray()) if request.number == 2 else strict.uploads["1"]
            )
        if request.method == "PUT" and request.number == 2:
            del strict.uploads["1"]

    strict.after = forget
    uploaded(strict, large)
    assert strict.objects["to/a"].content == large.read_bytes()
    assert len(strict.uploads) == 1


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("change", ["put", "put large", "write", "remove"])
def test_prefix_never_overwrites_a_concurrent_change(strict, large, change, before):
    small = large.with_name("small")
    small.write_bytes(b"small")
    if before:
        strict.put("to/a", before)
    target = storage.Prefix("gs://raw/to")
    assert target.read("a") == (before and before.decode())
    strict.put("to/a", b"another's")
    if change == "remove" and not before:
        target.remove(["a"])  # nothing was there to be removed
    else:
        with pytest.raises(UserError) as caught:
            {
                "put": lambda: target.upload({"a": (small, "sha")}),
                "put large": lambda: target.upload({"a": (large, "sha")}),
                "write": lambda: target.write("a", "{}"),
                "remove": lambda: target.remove(["a"]),
            }[change]()
        assert caught.value.code == "storage.concurrent_write"
    assert strict.objects["to/a"].content == b"another's"


def test_list_objects_returns_names_sizes_and_generations(strict):
    strict.put("set/b", b"two")
    strict.put("set/a/c", b"one!")
    first = storage.list_objects("gs://raw/set/")
    assert [(entry.name, entry.size) for entry in first] == [("a/c", 4), ("b", 3)]
    assert storage.list_objects("gs://raw/set/b") == [first[1]]
    strict.put("set/b", b"new")
    assert storage.list_objects("gs://raw/set")[1].version > first[1].version
    with pytest.raises(UserError) as caught:
        storage.list_objects("gs://raw/other")
    assert caught.value.code == "storage.empty"


def test_prefix_reports_existing_and_modified_objects(strict):
    strict.put("to/a", b"x")
    target = storage.Prefix("gs://raw/to")
    assert target.find_existing(["a", "b"]) == {"a"}
    assert target.modified("b") is None


def test_folders_with_an_object_are_listed_by_its_time(monkeypatch: pytest.MonkeyPatch):
    """The newest run is the one whose manifest was written last; a store may not know the time."""
    days = {"b/manifest.json": 3, "c/manifest.json": 1, "a/manifest.json": 2, "d/manifest.json": None}
    entries = {
        name: Entry(name, 1, "1", None if day is None else datetime(2026, 1, day, tzinfo=UTC))
        for name, day in days.items()
    }
    with strict_storage():
        monkeypatch.setattr(storage._Connection, "list_files", lambda _: entries)
        assert storage.folders_with("gs://raw/runs", "manifest.json") == ["b", "a", "c", "d"]
