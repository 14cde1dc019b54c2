"""S3 on moto and Azure on Azurite: what every store does, and how its failures are reported."""

import json
import os
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from components.check_inputs.check import check
from components.prepare_data import sources
from components.publish.publish import publish
from components.shared import parameters, storage
from components.shared.data_identity import data_identity
from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.records import Advice
from components.shared.storage import checkpoint_store, make_fetch
from components.shared.stores import s3_azure, transfer
from scripts import verify_published
from tests.helpers.object_servers import BUCKET, Place, azure_place, azure_server, free_port, s3_place, s3_server

ADVICE = Advice(arm="augmented@1", verdict="worse")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture(scope="module")
def azure() -> Iterator[str]:
    with azure_server() as address:
        yield address


@pytest.fixture(params=["s3", "azure"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    server = request.getfixturevalue(request.param)
    with (s3_place if request.param == "s3" else azure_place)(server) as found:
        yield found


@pytest.fixture
def s3_only(s3: str) -> Iterator[Place]:
    with s3_place(s3) as found:
        yield found


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "RETRY_DELAY_S", 0.01)
    monkeypatch.setattr(transfer, "POLL_S", 0.01)


@pytest.fixture
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stall of STALL_S take a hundredth of it."""
    monkeypatch.setattr(transfer, "CLOCK", lambda: 100 * time.monotonic())


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def error_of(call: Callable[[], object]) -> UserError:
    with pytest.raises(UserError) as caught:
        call()
    assert caught.value.hint
    return caught.value


def made(folder: Path, content: dict[str, bytes]) -> dict[str, tuple[Path, str]]:
    files = {}
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        files[name] = (path, file_sha256(path))
    return files


def test_download_folder_downloads_every_object_below_the_prefix(place: Place, tmp_path: Path):
    below = {"HAM.csv": b"a,b\n", "part 1/ä%20.jpg": b"\xff\xd8", "a/b/c/empty": b"", "big": os.urandom(3 << 20)}
    below |= {f"many/{i:03}": b"x" * i for i in range(120)}
    for name, content in below.items():
        place.put(f"set/{name}", content)
    place.put("set2/other", b"x")
    storage.download_folder(place.uri("set/"), tmp_path / "all")
    assert files_in(tmp_path / "all") == below
    storage.download_file(place.uri("set/HAM.csv"), tmp_path / "one.csv")
    assert (tmp_path / "one.csv").read_bytes() == b"a,b\n"
    assert error_of(lambda: storage.download_folder(place.uri("nothing"), tmp_path)).code == "storage.empty"
    assert error_of(lambda: storage.download_file(place.uri("set/x"), tmp_path / "x")).code == "storage.not_found"


def test_open_object_reads_ranges_of_one_version(place: Place):
    content = os.urandom(300_000)
    place.put("set/a", content)
    with storage.open_object(place.uri("set/a")) as file:
        assert file.seek(-10, os.SEEK_END) == 299_990
        assert file.read(100) == content[-10:]
        file.seek(1000)
        assert file.read(100_000) == content[1000:101_000]
        place.put("set/a", content[::-1])
        file.seek(200_000)
        assert error_of(lambda: file.read(10)).code == "storage.changed"
    assert error_of(lambda: storage.open_object(place.uri("set/b"))).code == "storage.not_found"


def test_data_identity_changes_with_each_write(place: Place):
    place.put("set/a.jpg", b"one")
    identities = [data_identity(place.uri("set")), data_identity(place.uri("set/a.jpg"))]
    assert data_identity(place.uri("set")) == identities[0]
    place.put("set/a.jpg", b"two")
    identities += [data_identity(place.uri("set")), data_identity(place.uri("set/a.jpg"))]
    assert len(set(identities)) == 4


def test_prefix_writes_reads_and_removes(place: Place, tmp_path: Path):
    files = made(tmp_path, {"report.html": b"<html>", "models/big": os.urandom(s3_azure.SINGLE_BYTES + 5)})
    target = storage.Prefix(place.uri("to"))
    assert target.find_unchanged(files) == set()
    target.upload(files)
    assert place.contents("to") == {f"to/{name}": path.read_bytes() for name, (path, _) in files.items()}
    assert storage.Prefix(place.uri("to")).find_unchanged(files) == set(files)
    assert target.read("report.html") == "<html>"
    assert target.modified("report.html")
    assert target.modified("none") is None
    assert target.find_existing(["report.html", "none"]) == {"report.html"}
    target.write("report.html", "new")
    target.write("report.html", "newer")
    assert target.read("report.html") == "newer"
    target.remove(["report.html", "none"])
    assert list(place.contents("to")) == ["to/models/big"]


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("change", ["upload", "upload large", "write", "remove"])
def test_prefix_never_overwrites_a_concurrent_change(place: Place, tmp_path: Path, change: str, before: bytes | None):
    small = made(tmp_path, {"a": b"small"})
    large = {"a": made(tmp_path, {"large": os.urandom(s3_azure.SINGLE_BYTES + 5)})["large"]}
    if before:
        place.put("to/a", before)
    target = storage.Prefix(place.uri("to"))
    assert target.read("a") == (before and before.decode())
    place.put("to/a", b"another's")
    if change == "remove" and not before:
        target.remove(["a"])  # nothing was there to be removed
    else:
        calls: dict[str, Callable[[], object]] = {
            "upload": lambda: target.upload(small),
            "upload large": lambda: target.upload(large),
            "write": lambda: target.write("a", "{}"),
            "remove": lambda: target.remove(["a"]),
        }
        assert error_of(calls[change]).code == "storage.concurrent_write"
    assert place.contents("to") == {"to/a": b"another's"}


def test_checkpoints_are_kept(place: Place):
    store, large = checkpoint_store(place.uri("run"), "df"), os.urandom(2 * transfer.CHUNK_BYTES + 5)
    assert store.read("checkpoint-a") is None
    store.write("checkpoint-a", b"one")
    store.write("checkpoint-a", large)
    store.write("checkpoint-b", b"two")
    again = checkpoint_store(place.uri("run"), "df")
    assert (again.read("checkpoint-a"), again.read("checkpoint-b")) == (large, b"two")


def test_publish_writes_the_manifest_last_and_repeats_nothing(place: Place, tmp_path: Path):
    files = {name: path for name, (path, _) in made(tmp_path / "in", {"a.txt": b"a", "b/c.txt": b"c"}).items()}
    at = publish(place.uri("out"), files, tmp_path / "artifact", "worse", ADVICE, run="run-1")
    assert at == place.uri("out/run-1")
    found = place.contents("out/run-1")
    assert {name.removeprefix("out/run-1/") for name in found} == {"a.txt", "b/c.txt", "manifest.json"}
    written = [request.path for request in place.proxy.writes() if request.method == "PUT"]
    assert written[-1].endswith("manifest.json")
    place.proxy.requests.clear()
    publish(place.uri("out"), files, tmp_path / "artifact", "worse", ADVICE, run="run-1")
    assert place.proxy.writes() == []


def run_check(place: Place, **values: object) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    options = {
        "classifiers_per_task": 6,
        "checkpoints": place.uri("kept"),
        "champion": "none",
        "max_bad_images": 0,
        "metadata": "none",
        "synthetic_scope": "rare",
        "weights": "none",
    }
    check(parameters.defaults() | values, environment=environment, **options)  # type: ignore[arg-type]


def test_check_of_an_output_leaves_no_object(place: Place):
    run_check(place, output=place.uri("out"))
    assert place.contents() == {}


def test_check_refuses_a_store_that_ignores_conditions(s3_only: Place):
    s3_only.proxy.forget = {"if-none-match", "if-match"}
    error = error_of(lambda: run_check(s3_only, output=s3_only.uri("out")))
    assert error.code == "storage.unconditional"
    assert s3_only.proxy.address in str(error)
    assert s3_only.contents() == {}


@pytest.mark.parametrize("fault", [501])
def test_check_refuses_a_store_without_conditional_writes(s3_only: Place, fault: int):
    s3_only.proxy.fault = lambda request: fault if request.method == "PUT" else None
    assert error_of(lambda: run_check(s3_only, output=s3_only.uri("out"))).code == "storage.unconditional"


@pytest.mark.parametrize("fault", [500, 503, 429, 408, "drop", "cut", "lose"])
def test_transfers_survive_a_short_outage(place: Place, tmp_path: Path, fault: int | str):
    content = os.urandom(1 << 20)
    place.put("set/a", content)
    place.proxy.fault = lambda request: fault if request.number == 1 else None
    storage.download_folder(place.uri("set"), tmp_path / "down")
    assert files_in(tmp_path / "down") == {"a": content}
    files = made(tmp_path / "up", {"b": b"small"})
    target = storage.Prefix(place.uri("to"))
    target.find_unchanged(files)
    target.upload(files)
    assert place.contents("to") == {"to/b": b"small"}


@pytest.mark.parametrize("fault", [503, 429, "hang", "drop"])
@pytest.mark.parametrize("verb", ["list", "object"])
def test_download_fails_in_time_if_requests_fail(
    place: Place, tmp_path: Path, fast_clock: None, fault: int | str, verb: str
):
    for i in range(20):
        place.put(f"set/{i:02}", b"content")
    place.proxy.fault = lambda request: fault if ("prefix=" in request.query) == (verb == "list") else None
    error = error_of(lambda: storage.download_folder(place.uri("set"), tmp_path))
    assert (error.code, error.retryable) == ("storage.no_answer", True)  # type: ignore[attr-defined]
    assert place.proxy.address in str(error)
    asked = {request.path for request in place.proxy.requests if "prefix=" not in request.query}
    assert len(asked) <= transfer.MAX_PARALLEL_REQUESTS, "no download starts after the failure"


@pytest.mark.parametrize("fault", [429, 503, "hang", "drop"])
def test_upload_fails_in_time_and_leaves_no_manifest(place: Place, tmp_path: Path, fast_clock: None, fault: int | str):
    files = {name: path for name, (path, _) in made(tmp_path / "in", {"a.txt": b"a", "b.txt": b"b"}).items()}
    place.proxy.fault = lambda request: fault if request.method == "PUT" and request.path.endswith("b.txt") else None
    error = error_of(lambda: publish(place.uri("out"), files, tmp_path / "artifact", "worse", ADVICE))
    assert error.code == "storage.no_answer"
    assert "out/manifest.json" not in place.contents()
    place.proxy.fault = lambda _: None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "CLOCK", time.monotonic)
        publish(place.uri("out"), files, tmp_path / "artifact", "worse", ADVICE)
    assert set(place.contents()) == {"out/a.txt", "out/b.txt", "out/manifest.json"}


def is_last_part(place: Place, request: object) -> bool:
    """Return whether a request is one of those that end a large upload."""
    return ("partNumber=2" if place.scheme == "s3" else "comp=blocklist") in request.query  # type: ignore[attr-defined]


def test_large_upload_survives_a_short_outage(place: Place, tmp_path: Path):
    files = made(tmp_path, {"a": os.urandom(s3_azure.SINGLE_BYTES + 5)})
    target = storage.Prefix(place.uri("to"))
    target.find_unchanged(files)
    place.proxy.fault = lambda request: 503 if is_last_part(place, request) and request.number <= 8 else None
    target.upload(files)
    assert place.contents("to") == {"to/a": files["a"][0].read_bytes()}


def test_large_upload_that_breaks_off_leaves_nothing(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfer, "STALL_S", 2)
    files = made(tmp_path, {"a": os.urandom(s3_azure.SINGLE_BYTES + 5)})
    target = storage.Prefix(place.uri("to"))
    target.find_unchanged(files)
    place.proxy.fault = lambda request: 503 if is_last_part(place, request) else None
    assert error_of(lambda: target.upload(files)).code == "storage.no_answer"
    assert place.contents("to") == {}


def test_download_of_truncated_answers_fails(place: Place, tmp_path: Path, fast_clock: None):
    place.put("set/a", os.urandom(1 << 20))
    place.proxy.fault = lambda request: "cut" if request.path.endswith("set/a") and request.method == "GET" else None
    error = error_of(lambda: storage.download_file(place.uri("set/a"), tmp_path / "a"))
    assert error.code in ("storage.no_answer", "storage.changed")
    assert files_in(tmp_path) == {}


def test_download_fails_if_an_object_changes_after_the_listing(place: Place, tmp_path: Path):
    place.put("set/a", b"old")

    def replace(request: object) -> None:
        if "prefix=" not in request.query and request.method == "GET":  # type: ignore[attr-defined]
            place.put("set/a", b"new")

    place.proxy.fault = replace
    assert error_of(lambda: storage.download_folder(place.uri("set"), tmp_path)).code == "storage.changed"


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ((403, "AccessDenied"), "no_permission", ["{store}", "{credential}", "{read}"]),
        ((403, "InvalidAccessKeyId"), "no_credentials", ["{store}", "{credential}", "InvalidAccessKeyId"]),
        ((403, "SignatureDoesNotMatch"), "no_credentials", ["{store}", "{credential}"]),
        ((400, "ExpiredToken"), "no_credentials", ["{store}", "{credential}", "ExpiredToken"]),
        ((401, ""), "no_credentials", ["{store}", "{credential}"]),
        ((400, "AuthorizationHeaderMalformed"), "wrong_region", ["{store}", "{credential}", "AWS_REGION"]),
        ((301, "PermanentRedirect"), "wrong_region", ["{store}", "AWS_REGION"]),
        ((400, "InvalidRequest"), "bad_request", ["{store}", "{credential}"]),
        ((404, "NoSuchBucket"), "not_found", ["{store}", "{credential}", "NoSuchBucket"]),
    ],
)
def test_refusals_name_the_store_and_the_credential(
    place: Place, tmp_path: Path, fault: tuple[int, str], code: str, words: list[str]
):
    place.proxy.fault = lambda _: fault
    error = error_of(lambda: storage.download_folder(place.uri("a"), tmp_path))
    names = {
        "store": place.proxy.address,
        "credential": "AWS_ACCESS_KEY_ID" if place.scheme == "s3" else "AZURE_STORAGE_ACCOUNT_KEY",
        "read": "s3:GetObject" if place.scheme == "s3" else "Storage Blob Data Reader",
    }
    assert error.code == f"storage.{code}"
    assert len(place.proxy.requests) == 1, "a refusal is final"
    for word in words:
        assert word.format(**names) in error.lines()


def test_refusal_without_a_reason_is_explained_by_a_listing(place: Place, tmp_path: Path):
    """The answer to HEAD has no body."""
    place.proxy.fault = lambda request: 400 if request.method == "HEAD" else (400, "ExpiredToken")
    error = error_of(lambda: storage.download_file(place.uri("a/b"), tmp_path / "b"))
    assert (error.code, "ExpiredToken" in str(error)) == ("storage.no_credentials", True)


def test_refusal_of_one_object_names_it(place: Place, tmp_path: Path):
    """As by a policy, or by a proxy that encodes the characters of a name in another way, so that no signature fits."""
    place.put("a/with|{}.jpg", b"x")
    place.proxy.fault = lambda request: (403, "AuthenticationFailed") if "|{}" in request.path else None
    calls: list[tuple[str, Callable[[], object]]] = [
        ("no_credentials", lambda: storage.download_folder(place.uri("a"), tmp_path / "out")),
        ("no_permission", lambda: storage.download_file(place.uri("a/with|{}.jpg"), tmp_path / "b")),
        ("no_permission", lambda: storage.Prefix(place.uri("a")).read("with|{}.jpg")),
    ]  # the answer to HEAD has no reason
    for code, call in calls:
        error = error_of(call)
        assert (error.code, "a/with|{}.jpg)" in str(error)) == (f"storage.{code}", True)


def test_read_only_bucket_is_refused(place: Place):
    place.proxy.fault = lambda request: (403, "AccessDenied") if request.method == "PUT" else None
    error = error_of(lambda: run_check(place, output=place.uri("out")))
    assert error.code == "storage.no_permission"
    assert ("s3:PutObject" if place.scheme == "s3" else "Storage Blob Data Contributor") in error.hint
    assert error_of(lambda: checkpoint_store(place.uri("run"), "df")).code == "storage.no_permission"


def test_missing_bucket_is_refused(place: Place, tmp_path: Path):
    other = f"{place.scheme}://absent/a"
    for call in (
        lambda: storage.download_folder(other, tmp_path),
        lambda: run_check(place, output=other),
        lambda: checkpoint_store(other, "df"),
    ):
        assert error_of(call).code == "storage.not_found"


def test_wrong_key_is_refused(azure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Azurite verifies signatures; moto does not."""
    with azure_place(azure) as place:
        for key in ("QUJD", "%%"):
            monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", key)
            error = error_of(lambda: storage.download_folder(place.uri("a"), tmp_path))
            assert error.code == "storage.no_credentials"


@pytest.fixture
def user(s3: str, s3_only: Place) -> Iterator[dict[str, str]]:
    """The variables of a user who may only read, on a server that verifies signatures and permissions."""
    boto3 = pytest.importorskip("boto3")
    iam = boto3.client("iam", endpoint_url=s3, region_name="us-east-1")
    iam.create_user(UserName="reader")
    statement = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=policy)
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    s3_only.put("set/a", b"content")
    requests.post(f"{s3}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()
    yield {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    requests.post(f"{s3}/moto-api/reset-auth", data=b"inf", timeout=10).raise_for_status()


def test_s3_that_verifies_keys_refuses_wrong_ones_and_writes_of_a_reader(
    s3_only: Place, user: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wrong = {**user, "AWS_SECRET_ACCESS_KEY": "wrong"}
    for values, reason in ((s3_only.variables, "InvalidAccessKeyId"), (wrong, "SignatureDoesNotMatch")):
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        error = error_of(lambda: storage.download_folder(s3_only.uri("set"), tmp_path / "none"))
        assert (error.code, reason in str(error)) == ("storage.no_credentials", True)
    for name, value in user.items():
        monkeypatch.setenv(name, value)
    storage.download_folder(s3_only.uri("set"), tmp_path / "out")
    assert files_in(tmp_path / "out") == {"a": b"content"}
    assert error_of(lambda: run_check(s3_only, output=s3_only.uri("out"))).code == "storage.no_permission"


def test_server_that_is_down_is_named(place: Place, tmp_path: Path, fast_clock: None, monkeypatch: pytest.MonkeyPatch):
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{address}/account")
    error = error_of(lambda: storage.download_folder(place.uri("a"), tmp_path))
    assert (error.code, error.fields["reason"]) == ("storage.no_answer", "no connection")
    assert address in str(error)


def test_missing_credentials_are_named(s3_only: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    error = error_of(lambda: storage.download_folder(s3_only.uri("a"), tmp_path))
    assert error.code == "storage.no_credentials"
    assert "AWS_ACCESS_KEY_ID is not set" in str(error)


TOKENS = {
    "the role in AWS_ROLE_ARN": {"AWS_WEB_IDENTITY_TOKEN_FILE": "{file}", "AWS_ROLE_ARN": "arn:aws:iam::1:role/x"},
    "the role of EKS Pod Identity": {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "{closed}",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "{file}",
    },
    "Workload Identity": {
        "AZURE_FEDERATED_TOKEN_FILE": "{file}",
        "AZURE_CLIENT_ID": "client",
        "AZURE_TENANT_ID": "tenant",
        "AZURE_AUTHORITY_HOST": "{closed}",
    },
}
"""Credential → the variables that name its token."""


@pytest.fixture(params=TOKENS)
def token(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, Path]:
    """A scheme, its credential, and the file of its token, which does not exist."""
    file, closed = tmp_path / "token", f"http://127.0.0.1:{free_port()}"
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_")):
            monkeypatch.delenv(name)
    values = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_STS": closed, "AZURE_STORAGE_ACCOUNT_NAME": "account"}
    for name, value in (values | TOKENS[request.param]).items():
        monkeypatch.setenv(name, value.format(file=file, closed=closed))
    return "az" if "AZURE_CLIENT_ID" in TOKENS[request.param] else "s3", request.param, file


def test_missing_file_of_a_token_is_named_with_the_credential(token: tuple[str, str, Path], tmp_path: Path):
    scheme, credential, _ = token
    error = error_of(lambda: storage.download_folder(f"{scheme}://raw/a", tmp_path / "out"))
    assert error.code == "storage.no_credentials"
    assert credential in str(error)


def test_token_that_is_not_issued_is_named_with_the_credential(
    token: tuple[str, str, Path], tmp_path: Path, fast_clock: None
):
    scheme, credential, file = token
    file.write_text("token")
    error = error_of(lambda: storage.download_folder(f"{scheme}://raw/a", tmp_path / "out"))
    assert error.code == "storage.no_answer"
    assert credential in error.hint


def test_missing_account_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in list(os.environ):
        if name.startswith("AZURE_"):
            monkeypatch.delenv(name)
    error = error_of(lambda: storage.download_folder("az://raw/a", tmp_path))
    assert error.code == "storage.no_credentials"
    assert "AZURE_STORAGE_ACCOUNT_NAME is not set" in str(error)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_bad_file_of_certificates_is_named(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    error = error_of(lambda: storage.download_folder(place.uri("a"), tmp_path / "out"))
    assert error.code == "storage.bad_certificates"
    assert str(path) in str(error)


def test_download_on_a_full_disk_raises_oserror(place: Place, tmp_path: Path):
    place.put("full/a", b"x")
    (tmp_path / "a").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        storage.download_folder(place.uri("full"), tmp_path)


def test_empty_folders_of_a_console_are_no_obstacle(s3_only: Place, tmp_path: Path):
    for name in ("set/part/", "set/empty/"):
        requests.put(f"{s3_only.proxy.target}/raw/{name}", timeout=10).raise_for_status()
    s3_only.put("set/part/a.csv", b"a")
    storage.download_folder(s3_only.uri("set"), tmp_path)
    assert files_in(tmp_path) == {"part/a.csv": b"a", "empty": b""}


def test_names_that_cannot_be_files_are_refused(s3_only: Place, tmp_path: Path):
    s3_only.put("long/" + "x" * 300, b"x")
    assert error_of(lambda: storage.download_folder(s3_only.uri("long"), tmp_path)).code == "storage.bad_name"
    assert error_of(lambda: storage.download_folder(s3_only.uri("a//b"), tmp_path)).code == "storage.bad_name"
    for number, name in enumerate(("a//b.jpg", "a/../b.jpg", "/b.jpg", "tab\t.jpg")):
        put_exactly(s3_only, f"bad{number}/{name}")
        error = error_of(lambda number=number: storage.download_folder(s3_only.uri(f"bad{number}"), tmp_path / "out"))
        assert error.code == "storage.bad_name"
        assert not (tmp_path / "out").exists()


def put_exactly(place: Place, name: str) -> None:
    """Write an object of any name; obstore and requests resolve dots and double slashes."""
    connection = HTTPConnection(place.proxy.target.removeprefix("http://"))
    connection.request("PUT", f"/{BUCKET}/{quote(name)}", b"x")
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize(
    "name",
    [
        "a b#c?d%2Fe.jpg",
        "plus+and&=.jpg",
        "star*tilde~.jpg",
        "e\u0301.jpg",
        "\u00e9.jpg",
        "..hidden",
        "dot./a",
        "100%.jpg",
        "braces{}[]()|^.jpg",
        "quotes'\"`<>.jpg",
        "signs!@$,;:.jpg",
    ],
)
def test_unusual_names_are_read_and_written(place: Place, tmp_path: Path, name: str):
    place.put(f"set/{name}", b"content")
    storage.download_folder(place.uri("set"), tmp_path / "out")
    assert files_in(tmp_path / "out") == {name: b"content"}
    files, target = made(tmp_path / "in", {name: b"another"}), storage.Prefix(place.uri("to"))
    target.find_unchanged(files)
    target.upload(files)
    assert place.contents("to") == {f"to/{name}": b"another"}


def test_conflict_of_two_writes_at_one_moment_is_tried_again(place: Place):
    """S3 answers 409 to one of two conditional writes at the same moment; Azure to operations on a container."""
    target = storage.Prefix(place.uri("to"))
    assert target.read("a") is None
    conflict = (409, "ConditionalRequestConflict" if place.scheme == "s3" else "OperationAborted")
    place.proxy.fault = lambda request: conflict if request.method == "PUT" and request.number <= 2 else None
    target.write("a", "mine")
    assert place.contents("to") == {"to/a": b"mine"}
    place.put("to/a", b"another's")
    place.proxy.requests.clear()
    error = error_of(lambda: target.write("a", "newer"))
    assert error.code == "storage.concurrent_write"
    assert place.contents("to") == {"to/a": b"another's"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("BlobAlreadyExists", "concurrent_write"),
        ("BlobImmutableDueToPolicy", "no_permission"),
        ("ContainerBeingDeleted", "not_found"),
        ("BlobArchived", "bad_request"),
    ],
)
def test_status_409_is_explained_by_its_code(place: Place, code: str, expected: str):
    target = storage.Prefix(place.uri("to"))
    assert target.read("a") is None
    place.proxy.fault = lambda request: (409, code) if request.method == "PUT" else None
    assert error_of(lambda: target.write("a", "mine")).code == f"storage.{expected}"


def test_commands_and_phases_read_what_was_published(place: Place, tmp_path: Path):
    files = {name: path for name, (path, _) in made(tmp_path / "in", {"a.csv": b"image_id,split", "b": b"b"}).items()}
    publish(place.uri("out"), files, tmp_path / "artifact", "worse", ADVICE)
    fetch = make_fetch(place.uri("out/"), tmp_path / "scratch")
    manifest = json.loads(fetch("manifest.json").read_text(encoding="utf-8"))
    for name, entry in manifest["files"].items():
        assert file_sha256(fetch(name)) == entry["sha256"]
    folder = sources.fetch(place.uri("out"), tmp_path / "data")
    assert set(files_in(folder)) == {"a.csv", "b", "manifest.json"}
    assert verify_published.main(place.uri("out")) == 0
    place.put("out/b", b"another")
    assert verify_published.main(place.uri("out")) == 1


def test_folders_with_an_object_are_those_directly_below_the_prefix(place: Place):
    for name in ("a/manifest.json", "b/manifest.json", "b/part/manifest.json", "c/report.html", "manifest.json"):
        place.put(f"runs/{name}", b"{}")
    assert sorted(storage.folders_with(place.uri("runs/"), "manifest.json")) == ["a", "b"]
    assert storage.folders_with(place.uri("absent"), "manifest.json") == []
