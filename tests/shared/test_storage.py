"""Object storage, with an emulator in this process: the same files as in the bucket, or one sentence, soon."""

import http.server
import json
import os
import re
import threading
import time
import urllib.parse
from contextlib import contextmanager

import pytest

from components.shared import storage
from components.shared.errors import UserError

google = pytest.importorskip("google.cloud.storage")
emulator = pytest.importorskip("gcp_storage_emulator.server")


@pytest.fixture(scope="module")
def bucket():
    """An empty bucket `raw` on a server of its own, which Google's client finds by a variable of the environment."""
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="raw")
    server.start()
    host, port = server._api._httpd.socket.getsockname()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
        yield google.Client(project="test").bucket("raw")
    server.stop()


def put(bucket, files):
    for name, content in files.items():
        bucket.blob(name).upload_from_string(content)


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sentence(uri, folder):
    begun = time.monotonic()
    with pytest.raises(UserError) as caught:
        storage.download_folder(uri, folder)
    assert time.monotonic() - begun < 30
    assert str(caught.value).startswith(f"{uri}: ")
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


def test_every_object_below_the_prefix_is_downloaded(bucket, tmp_path):
    below = {"HAM.csv": b"a,b\n", "part 1/ä.jpg": b"\xff\xd8", "a/b/c/empty": b"", "big": os.urandom(300_000)}
    put(bucket, {f"set/{name}": content for name, content in below.items()})
    put(bucket, {"set2/other": b"x", "set": b"x", "set/folder/": b""})
    for uri in ("gs://raw/set", "gs://raw/set/"):
        folder = tmp_path / str(len(uri))
        storage.download_folder(uri, folder)
        assert files_in(folder) == below


def test_more_objects_than_a_page(bucket, tmp_path, monkeypatch):
    put(bucket, {f"many/{i}": str(i) for i in range(40)})
    listed = google.Client.list_blobs
    monkeypatch.setattr(google.Client, "list_blobs", lambda *a, **k: listed(*a, **k, page_size=7))
    storage.download_folder("gs://raw/many", tmp_path)
    assert files_in(tmp_path) == {str(i): str(i).encode() for i in range(40)}


def test_names_that_no_file_can_have(bucket, tmp_path):
    put(bucket, {"long/" + "x" * 300: b"x"})
    assert "can't become a file here (File name too long); rename it" in sentence("gs://raw/long", tmp_path / "1")
    put(bucket, {"both/a": b"x", "both/a/b": b"x"})
    assert "can't become a file here" in sentence("gs://raw/both", tmp_path / "2")


def test_a_missing_bucket_and_an_empty_prefix(bucket, tmp_path):
    assert "not found; check the bucket's name" in sentence("gs://no-such-bucket/a", tmp_path)
    assert "nothing stands below this prefix; check its spelling" in sentence("gs://raw/nothing", tmp_path)


def test_a_full_disk_is_no_fault_of_the_network(bucket, tmp_path, monkeypatch):
    put(bucket, {"full/a": b"x"})

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(google.Blob, "download_to_filename", fail)
    with pytest.raises(OSError, match="No space left"):
        storage.download_folder("gs://raw/full", tmp_path)


@contextmanager
def server(answer):
    """A server that answers a path with (status, body); with no status it takes the connection and stays silent."""
    hits = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(urllib.parse.unquote(self.path))
            status, body = answer(hits[-1])
            if status is None:
                time.sleep(60)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.daemon_threads = True
    served.block_on_close = False
    threading.Thread(target=served.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{served.server_port}")
        yield hits
    served.shutdown()
    served.server_close()


def listing(names):
    """The JSON that lists objects, as Google sends it."""
    return json.dumps({"items": [{"name": name, "bucket": "raw", "id": name} for name in names]}).encode()


def test_names_that_lead_out_of_the_folder_are_passed_over(tmp_path):
    """On a server made by hand: the emulator refuses such names, Google does not."""
    bad = ["../out", "a/../../out", "/abs", "..", f"{tmp_path}/abs", "folder/", "", "nul\0"]
    good = ["good/..hidden", "good/a..b", "back\\slash"]
    names = listing([f"hostile/{name}" for name in bad + good])
    folder = tmp_path / "inner" / "folder"
    with server(lambda path: (200, names if "prefix=" in path else b"content")):
        storage.download_folder("gs://raw/hostile", folder)
    assert files_in(tmp_path) == {f"inner/folder/{name}": b"content" for name in good}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "no valid Google credentials were found"),
        (403, "no permission to read; give this account the role Storage Object Viewer"),
        (400, "not found; check the bucket's name"),
        (418, "object storage did not answer as it should"),
    ],
)
def test_refusals_are_told_apart(tmp_path, status, said):
    with server(lambda _: (status, b"{}")) as hits:
        assert said in sentence("gs://raw/a", tmp_path)
    assert sum("prefix=" in path for path in hits) == 1, "a refusal is final"


@pytest.fixture
def impatient(monkeypatch):
    """A tenth of the time: that the whole stays below 30 s follows from the two limits."""
    assert storage.TIMEOUT_S + storage.DEADLINE_S <= 25
    monkeypatch.setattr(storage, "TIMEOUT_S", storage.TIMEOUT_S / 10)
    monkeypatch.setattr(storage, "DEADLINE_S", storage.DEADLINE_S / 10)
    return (storage.TIMEOUT_S + storage.DEADLINE_S) * 1.5


@pytest.mark.parametrize("status", [503, 429, None])
def test_a_server_in_trouble_is_given_up_in_time(tmp_path, impatient, status):
    begun = time.monotonic()
    with server(lambda _: (status, b"{}")):
        text = sentence("gs://raw/a", tmp_path)
    assert time.monotonic() - begun < impatient
    assert "object storage did not answer as it should" in text
    assert "check the network" in text


def test_a_server_that_is_down_is_given_up_in_time(tmp_path, impatient, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    begun = time.monotonic()
    assert "object storage did not answer as it should (ConnectionError)" in sentence("gs://raw/a", tmp_path)
    assert time.monotonic() - begun < impatient


def test_a_server_that_goes_down_half_way_is_not_asked_for_every_other_file(tmp_path, impatient):
    names = listing([f"half/{i:03}" for i in range(300)])
    asked = set()

    def answer(path):
        if "prefix=" in path:
            return 200, names
        asked.update(re.findall(r"half/(\d+)", path))
        return (503 if len(asked) > 20 else 200), b"content"

    begun = time.monotonic()
    with server(answer):
        text = sentence("gs://raw/half", tmp_path)
    assert "object storage did not answer as it should" in text
    assert time.monotonic() - begun < 3 * impatient
    assert len(asked) < 60


def test_damaged_content_is_noticed(bucket, tmp_path, monkeypatch):
    put(bucket, {"damaged/a": b"whole"})
    from google.cloud.storage.exceptions import DataCorruption

    def fail(*_, **__):
        raise DataCorruption(None, "checksum mismatch")

    monkeypatch.setattr(google.Blob, "download_to_filename", fail)
    assert "(DataCorruption)" in sentence("gs://raw/damaged", tmp_path)


def test_no_credentials(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("GOOGLE", "GCLOUD", "CLOUDSDK", "STORAGE_", "GCE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # else the outcome depends on where the test runs
    text = sentence("gs://raw/a", tmp_path)
    assert "no valid Google credentials were found; run `gcloud auth application-default login`" in text
