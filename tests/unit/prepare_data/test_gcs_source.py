"""A bucket yields the same image sets as the folder; the split file can be in a bucket."""

import pytest
from google.cloud.storage import Client

server = pytest.importorskip("gcp_storage_emulator.server")


def test_prepare_from_a_bucket_yields_the_sets_of_the_folder(raw, run, monkeypatch):
    emulator = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket="raw")
    emulator.start()
    try:
        host, port = emulator._api._httpd.socket.getsockname()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
        bucket = Client(project="test").bucket("raw")
        for path in raw.path.rglob("*"):
            if path.is_file():
                bucket.blob(f"sets/ham/{path.relative_to(raw.path)}").upload_from_filename(path)
        from_bucket = run("gs://raw/sets/ham", out="bucket")
        bucket.blob("splits.csv").upload_from_filename(from_bucket.splits)
        again = run("gs://raw/sets/ham", out="again", split="gs://raw/splits.csv", seed=2)
    finally:
        emulator.stop()
    from_folder = run(raw.path, out="folder")
    for split in ("train", "validation", "test"):
        assert from_bucket.set(split).read_bytes() == from_folder.set(split).read_bytes()
        assert again.set(split).read_bytes() == from_bucket.set(split).read_bytes()
    assert "from <code>gs://raw/sets/ham</code>" in from_bucket.profile
