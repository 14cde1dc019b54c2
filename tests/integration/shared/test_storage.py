"""Object storage, on an emulator and on a stricter server: the same files as in the bucket, or one sentence, soon."""

import gzip
import os
import time

import pytest

pytest.importorskip("google.cloud.storage")
emulator = pytest.importorskip("gcp_storage_emulator.server")

from google.cloud.storage import Client  # noqa: E402

from components.shared import storage  # noqa: E402
from components.shared.errors import UserError  # noqa: E402
from tests.helpers.strict_storage import PAGE, strict_storage  # noqa: E402


@pytest.fixture(scope="module")
def bucket():
    """An empty bucket `raw` on a server of its own, which Google's client finds by a variable of the environment."""
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


@pytest.fixture
def impatient(monkeypatch):
    """A fraction of the time; that the whole stays below 30 s follows from the limits. Returns what is allowed."""
    assert storage.TIMEOUT_S <= storage.STALL_S <= 25
    monkeypatch.setattr(storage, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(storage, "STALL_S", 1.5)
    return 5


def put(bucket, files):
    for name, content in files.items():
        bucket.blob(name).upload_from_string(content)


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sentence(uri, folder, within=30):
    begun = time.monotonic()
    with pytest.raises(UserError) as caught:
        storage.download_folder(uri, folder)
    assert time.monotonic() - begun < within
    assert str(caught.value).startswith(uri)
    assert ";" in str(caught.value), "it says no mend"
    return str(caught.value)


@pytest.mark.parametrize(
    ("uri", "parts"),
    [("gs://b", ("b", "")), ("gs://b/", ("b", "")), ("gs://b/a/c/", ("b", "a/c")), ("gs://b//a", ("b", "a"))],
)
def test_addresses(uri, parts):
    assert storage.split_uri(uri) == parts


@pytest.mark.parametrize("uri", ["gs://", "gs:///a", "s3://b/a", "b/a", ""])
def test_what_is_no_address(uri):
    with pytest.raises(UserError, match="is not an object storage address; write gs://bucket/prefix"):
        storage.split_uri(uri)


def test_the_checksum_is_computed_in_c():
    assert storage.google_crc32c.implementation == "c"


def test_every_object_below_the_prefix_is_downloaded(bucket, tmp_path):
    below = {"HAM.csv": b"a,b\n", "part 1/ä.jpg": b"\xff\xd8", "a/b/c/empty": b"", "big": os.urandom(300_000)}
    put(bucket, {f"set/{name}": content for name, content in below.items()})
    put(bucket, {"set2/other": b"x", "set": b"x", "set/folder/": b""})
    for uri in ("gs://raw/set", "gs://raw/set/"):
        folder = tmp_path / str(len(uri))
        storage.download_folder(uri, folder)
        assert files_in(folder) == below


def test_one_object_is_downloaded_whole_or_not_at_all(bucket, strict, tmp_path, monkeypatch):
    content = os.urandom(300_000)
    strict.put("splits/a.csv", content)
    storage.download_file("gs://raw/splits/a.csv", tmp_path / "new" / "a.csv")
    assert files_in(tmp_path) == {"new/a.csv": content}
    for uri in ("gs://raw/splits", "gs://raw/splits/b.csv", "gs://raw", "gs://other/splits/a.csv"):
        with pytest.raises(UserError, match="there is no such object; check the bucket's name and the path"):
            storage.download_file(uri, tmp_path / "b.csv")
    strict.fault = lambda request: "spoil" if "download" in request.path else None
    with pytest.raises(UserError, match="its checksum is another"):
        storage.download_file("gs://raw/splits/a.csv", tmp_path / "new" / "a.csv")
    assert files_in(tmp_path) == {"new/a.csv": content}


def test_more_objects_than_a_page(strict, tmp_path):
    files = {f"{i:02}": os.urandom(i) for i in range(3 * PAGE + 1)}
    for name, content in files.items():
        strict.put(f"many/{name}", content)
    storage.download_folder("gs://raw/many", tmp_path)
    assert files_in(tmp_path) == files


def test_what_is_stored_packed_arrives_unpacked(strict, tmp_path):
    strict.put("set/a.csv", gzip.compress(b"a,b\n" * 9999), {"contentEncoding": "gzip"})
    storage.download_folder("gs://raw/set", tmp_path)
    assert files_in(tmp_path) == {"a.csv": b"a,b\n" * 9999}
    strict.fault = lambda request: "spoil" if "download" in request.path else None
    assert "did not answer as it should" in sentence("gs://raw/set", tmp_path)


def test_names_that_no_file_can_have(bucket, tmp_path):
    put(bucket, {"long/" + "x" * 300: b"x"})
    assert "can't become a file here (File name too long); rename it" in sentence("gs://raw/long", tmp_path / "1")
    put(bucket, {"both/a": b"x", "both/a/b": b"x"})
    assert "can't become a file here" in sentence("gs://raw/both", tmp_path / "2")


def test_names_that_lead_out_of_the_folder_are_passed_over(strict, tmp_path):
    """On the strict server: the emulator refuses such names, Google does not."""
    bad = ["../out", "a/../../out", "/abs", "..", f"{tmp_path}/abs", "folder/", "", "nul\0"]
    good = ["good/..hidden", "good/a..b", "back\\slash"]
    for name in bad + good:
        strict.put(f"hostile/{name}", b"content")
    folder = tmp_path / "inner" / "folder"
    storage.download_folder("gs://raw/hostile", folder)
    assert files_in(tmp_path) == {f"inner/folder/{name}": b"content" for name in good}


def test_a_missing_bucket_and_an_empty_prefix(bucket, tmp_path):
    assert "not found; check the bucket's name" in sentence("gs://no-such-bucket/a", tmp_path)
    assert "nothing stands below this prefix; check its spelling" in sentence("gs://raw/nothing", tmp_path)


def test_a_full_disk_is_no_fault_of_the_network(strict, tmp_path):
    strict.put("full/a", b"x")
    (tmp_path / "a").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        storage.download_folder("gs://raw/full", tmp_path)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "no valid Google credentials were found"),
        (403, "no permission to read; give this account the role Storage Object Viewer"),
        (404, "not found; check the bucket's name"),
        (400, "refused as a bad request; check the bucket's name"),
        (418, "object storage did not answer as it should"),
    ],
)
def test_refusals_are_told_apart(strict, tmp_path, status, said):
    strict.fault = lambda _: status
    assert said in sentence("gs://raw/a", tmp_path)
    assert len(strict.requests) == 1, "a refusal is final"


def test_no_credentials(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("GOOGLE", "GCLOUD", "CLOUDSDK", "STORAGE_", "GCE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # else the outcome depends on where the test runs
    text = sentence("gs://raw/a", tmp_path)
    assert "no valid Google credentials were found; run `gcloud auth application-default login`" in text


@pytest.mark.parametrize("change", [lambda objects: objects.put("set/b", b"new"), lambda it: it.objects.pop("set/b")])
def test_what_is_replaced_or_removed_after_it_was_listed_is_an_error(strict, tmp_path, change):
    for name in "abc":
        strict.put(f"set/{name}", b"old")
    strict.after = lambda request: change(strict) if "prefix" in request.query else None
    text = sentence("gs://raw/set", tmp_path)
    assert text.startswith("gs://raw/set/b was replaced or removed while it was read; run the same command again")


def test_a_replacement_behind_the_back_of_a_server_that_ignores_generations_is_noticed(bucket, tmp_path, monkeypatch):
    put(bucket, {"behind/a": b"old"})
    once = storage._Connection.once

    def listed(self, job):
        found = once(self, job)
        if isinstance(found, list):
            bucket.blob("behind/a").upload_from_string(b"new")
        return found

    monkeypatch.setattr(storage._Connection, "once", listed)
    assert "did not arrive as it was listed" in sentence("gs://raw/behind", tmp_path)


def test_a_download_that_breaks_off_goes_on_where_it_was(strict, tmp_path):
    content = os.urandom(1_000_000)
    strict.put("set/a", content)
    strict.fault = lambda request: "cut" if "download" in request.path and request.number == 1 else None
    storage.download_folder("gs://raw/set", tmp_path / "1")
    assert files_in(tmp_path / "1") == {"a": content}
    strict.requests.clear()
    strict.fault = lambda request: {1: "cut", 2: "spoil"}.get(request.number) if "download" in request.path else None
    assert "its checksum is another" in sentence("gs://raw/set", tmp_path / "2")


@pytest.mark.parametrize("fault", [503, 429, 408, "drop"])
def test_a_short_outage_is_ridden_out(strict, tmp_path, impatient, fault):
    strict.put("set/a", b"content")
    strict.fault = lambda request: fault if request.number <= 2 else None
    storage.download_folder("gs://raw/set", tmp_path)
    assert files_in(tmp_path) == {"a": b"content"}


@pytest.mark.parametrize("fault", [503, 429, "hang", "drop"])
@pytest.mark.parametrize("what", ["prefix", "alt"])
def test_a_server_in_trouble_is_given_up_in_time(strict, tmp_path, impatient, fault, what):
    for i in range(30):
        strict.put(f"set/{i:02}", b"content")
    strict.fault = lambda request: fault if what in request.query else None
    text = sentence("gs://raw/set", tmp_path, within=impatient)
    assert "object storage did not answer as it should" in text
    assert "check the network and run the same command again" in text
    asked = {request.path for request in strict.requests if "download" in request.path}
    assert len(asked) <= storage.PARALLEL, "what can't succeed is not begun"


def test_a_server_that_is_down_is_given_up_in_time(tmp_path, impatient, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    text = sentence("gs://raw/a", tmp_path, within=impatient)
    assert "object storage did not answer as it should (ConnectionError)" in text


def test_an_answer_that_comes_in_drops_is_given_up_in_time(strict, tmp_path, impatient):
    """No single wait is long: only the whole is."""
    for i in range(PAGE):
        strict.put(f"set/{i}", b"content")
    strict.bytes_per_s = 40
    assert "did not answer as it should" in sentence("gs://raw/set", tmp_path, within=impatient)


def test_a_slow_transfer_takes_the_time_it_needs(strict, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "TIMEOUT_S", 2.0)  # the system's buffers take up to a second's content at once
    monkeypatch.setattr(storage, "STALL_S", 2.5)
    content = os.urandom(12 << 20)
    strict.put("set/a", content)
    strict.bytes_per_s = 4 << 20
    begun = time.monotonic()
    storage.download_folder("gs://raw/set", tmp_path)
    assert time.monotonic() - begun > storage.STALL_S
    assert (tmp_path / "a").read_bytes() == content
    target = storage.Prefix("gs://raw/copy")
    wanted = {"b": (tmp_path / "a", "sha")}
    assert target.held(wanted) == set()
    target.put(wanted)
    assert strict.objects["copy/b"].content == content
    assert target.held(wanted) == {"b"}


def uploaded(strict, path):
    target = storage.Prefix("gs://raw/to")
    target.held({"a": (path, "sha")})
    target.put({"a": (path, "sha")})


@pytest.fixture
def large(tmp_path):
    """A file that is sent in three pieces."""
    path = tmp_path / "large"
    path.write_bytes(os.urandom(2 * storage.CHUNK + 5))
    return path


@pytest.mark.parametrize("fault", ["lose", "drop", 503])
def test_an_upload_survives_lost_requests_and_lost_answers(strict, large, fault):
    strict.fault = lambda request: fault if request.method != "GET" and request.number == 2 else None
    uploaded(strict, large)
    small = large.with_name("small")
    small.write_bytes(b"small")
    strict.requests.clear()
    strict.fault = lambda request: fault if request.method != "GET" and request.number == 1 else None
    uploaded(strict, small)
    assert strict.objects["to/a"].content == b"small"
    assert strict.objects["to/a"].metadata["metadata"] == {"sha256": "sha"}


def test_an_upload_begins_anew_when_the_server_has_forgotten_it(strict, large):
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
def test_what_another_has_written_meanwhile_is_not_overwritten(strict, large, change, before):
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
        with pytest.raises(UserError, match="something else writes there at the same time"):
            {
                "put": lambda: target.put({"a": (small, "sha")}),
                "put large": lambda: target.put({"a": (large, "sha")}),
                "write": lambda: target.write("a", "{}"),
                "remove": lambda: target.remove(["a"]),
            }[change]()
    assert strict.objects["to/a"].content == b"another's"
