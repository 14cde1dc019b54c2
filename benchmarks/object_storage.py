"""Write and read many objects, compared with the bare clients: `python -m benchmarks.object_storage [MB=100]`.

    MB       size of all objects together (default 1000)
    OBJECTS  their number (default 1000)
    STORES   s3, gs, or both (default s3,gs); the emulator of Google Cloud Storage slows down with its content

Each measurement has its own process; both sides are measured alternately against one server on this machine, with eight
requests at a time. The server (moto for S3, gcp-storage-emulator) takes part of the time, as a network would.
"""

import asyncio
import json
import multiprocessing
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from benchmarks.machine import machine
from components.shared.errors import exit_on_user_error
from counterweight.parameters import assignments, words

ROUNDS = 3
PARALLEL = 8
BUCKET = "raw"


def ours_write(scheme: str, folder: Path) -> Callable[[], None]:
    """Publish the files of a folder; which objects exist is read before."""
    from components.shared.storage import Prefix

    files = {path.name: (path, path.name) for path in folder.iterdir()}
    target = Prefix(f"{scheme}://{BUCKET}/ours")
    target.find_existing(files)
    return lambda: target.upload(files)


def ours_read(scheme: str, folder: Path) -> Callable[[], None]:
    """Download them."""
    from components.shared.storage import download_folder

    return lambda: download_folder(f"{scheme}://{BUCKET}/ours", folder)


def bare_write(scheme: str, folder: Path) -> Callable[[], None]:
    """Write the same files with the client alone."""
    paths = list(folder.iterdir())
    if scheme == "gs":
        bucket = _google_bucket()
        return lambda: _in_threads(lambda path: bucket.blob(f"bare/{path.name}").upload_from_filename(path), paths)
    store = _s3_store()
    return lambda: _in_tasks(lambda path: store.put_async(f"bare/{path.name}", path), paths)


def bare_read(scheme: str, folder: Path) -> Callable[[], None]:
    """Read them with the client alone."""
    if scheme == "gs":
        bucket = _google_bucket()
        return lambda: _in_threads(
            lambda blob: blob.download_to_filename(folder / Path(blob.name).name),
            list(bucket.list_blobs(prefix="bare/")),
        )
    store = _s3_store()

    async def read(name: str) -> None:
        content = await (await store.get_async(name)).bytes_async()
        (folder / Path(name).name).write_bytes(content)

    return lambda: _in_tasks(read, [entry["path"] for page in store.list("bare") for entry in page])


def _google_bucket() -> Any:
    from google.cloud.storage import Client

    return Client(project="bench").bucket(BUCKET)


def _s3_store() -> Any:
    from obstore.store import S3Store

    return S3Store(BUCKET, client_options={"allow_http": True})


def _in_threads(work: Callable, items: list) -> None:
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(work, items))


def _in_tasks(work: Callable, items: list) -> None:
    async def run() -> None:
        limit = asyncio.Semaphore(PARALLEL)

        async def one(item: object) -> None:
            async with limit:
                await work(item)

        await asyncio.gather(*map(one, items))

    asyncio.run(run())


def measure_once(side: str, scheme: str, folder: Path) -> tuple[float, float]:
    """Return the seconds of one transfer, without imports, and the peak memory of its process in MiB."""
    import components.shared.stores.gcs
    import components.shared.stores.s3_azure  # noqa: F401

    work = globals()[side](scheme, folder)
    started = time.perf_counter()
    work()
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def server(scheme: str) -> Iterator[None]:
    """Run a store in another process, with an empty bucket, and point the clients to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    if scheme == "gs":
        command = ["gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]
        command += [f"--default-bucket={BUCKET}"]
        os.environ["STORAGE_EMULATOR_HOST"] = address
    else:
        command = ["moto.server", "-H", "127.0.0.1", "-p", str(port)]
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
        os.environ.update(keys | {"AWS_ENDPOINT_URL": address})
    process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                requests.get(address, timeout=10)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        if scheme == "s3":
            requests.put(f"{address}/{BUCKET}", timeout=10).raise_for_status()
        yield
    finally:
        process.terminate()
        process.wait(30)


def measure(scheme: str, megabytes: int, objects: int) -> dict[str, float]:
    """Return MB/s of both sides, their ratio and the peak memory of ours, for writing and reading."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, list[tuple[float, float]]] = {}
    with server(scheme), tempfile.TemporaryDirectory() as name:
        source = Path(name, "source")
        source.mkdir()
        for number in range(objects):
            (source / f"{number:06}.bin").write_bytes(os.urandom(megabytes * 1_000_000 // objects))
        for round_number in range(ROUNDS):
            for side in ("ours_write", "bare_write", "ours_read", "bare_read"):
                folder = source if side.endswith("write") else Path(name, f"{side}-{round_number}")
                folder.mkdir(exist_ok=True)
                with context.Pool(1) as pool:
                    found.setdefault(side, []).append(pool.apply(measure_once, (side, scheme, folder)))
    result: dict[str, float] = {}
    for verb in ("write", "read"):
        ours, bare = ([seconds for seconds, _ in found[f"{side}_{verb}"]] for side in ("ours", "bare"))
        result[f"{verb}_mb_per_s"] = round(megabytes / statistics.median(ours), 1)
        result[f"{verb}_ratio"] = round(statistics.median(b / o for b, o in zip(bare, ours, strict=True)), 2)
        result[f"{verb}_peak_mib"] = round(max(mib for _, mib in found[f"ours_{verb}"]))
        result[f"{verb}_bare_peak_mib"] = round(max(mib for _, mib in found[f"bare_{verb}"]))
    return result


def main() -> None:
    """Measure and print."""
    given = assignments(words(sys.argv[1:]))
    megabytes, objects = int(given.get("MB", "1000")), int(given.get("OBJECTS", "1000"))
    stores = given.get("STORES", "s3,gs").split(",")
    results = {scheme: measure(scheme, megabytes, objects) for scheme in stores}
    print(json.dumps({"machine": machine(), "megabytes": megabytes, "objects": objects, **results}, indent=1))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
