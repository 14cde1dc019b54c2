"""The images of the phases: content, permissions, digests, and the references in a compiled pipeline."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import docker
from components.container_images import content, image
from counterweight import build_images, push_images
from counterweight import compile as compiling
from counterweight.containers import Container
from tests.helpers.errors import raises_user_error

ROOT = Path(__file__).resolve().parents[3]
WITH_TENSORFLOW = {"train_classifier", "train_features", "train_gan", "generate_images", "evaluate"}
PINNED = build_images.python_image()
BESIDE = {"check_inputs": ["prepare_data"]}
"""Phase → the phases whose code its image has, too."""
TOOLS = ("pip", "pip3", "uv", "gcc", "cc", "g++", "make", "ld", "git", "curl", "wget")
LOOK = r"""
import ast, importlib, importlib.metadata, importlib.util, json, os, pathlib, shutil, sys
here = pathlib.Path("/opt/counterweight")
places = "/opt/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"
files = sorted(str(path.relative_to(here)) for path in here.rglob("*") if path.is_file())
def writable(path):
    try:
        (pathlib.Path(path) / "probe").touch()
        return True
    except OSError:
        return False
def imported(module, seen):
    # All imports of a file, at any level, and those of the project's modules that it imports.
    path = here / (module.replace(".", "/") + ".py")
    path = path if path.exists() else path.with_suffix("") / "__init__.py"
    if module in seen or not path.exists():
        return
    seen.add(module)
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.startswith("components"):
                imported(name, seen)
            else:
                seen.add(name.partition(".")[0])
needed = set()
for name in files:
    if name.endswith(".py") and "/shared/" not in name:
        module = name[:-3].replace("/", ".").removesuffix(".__init__")
        imported(module, needed)
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:  # reported as missing
            needed.add(error.name)
missing = sorted(name for name in needed if importlib.util.find_spec(name) is None)
os.environ["_KFP_RUNTIME"] = "true"  # as KFP sets it in a task: kfp then imports the standard library only
importlib.import_module("kfp.dsl.executor_main")
print(json.dumps({
    "user": os.getuid(),
    "missing": missing,
    "files": files,
    "tools": [name for name in sys.argv[1:] if shutil.which(name, path=places)],
    "installers": [name for name in ("pip", "uv", "ensurepip") if importlib.util.find_spec(name)],
    "tensorflow": importlib.util.find_spec("tensorflow") is not None,
    "packages": len({found.name.lower() for found in importlib.metadata.distributions()}),
    "writable": [path for path in ("/", "/opt/venv", "/opt/counterweight", "/etc", "/tmp") if writable(path)],
    "caches": [str(path) for path in pathlib.Path("/").glob("*/.cache")],
    "environment": dict(os.environ),
}))
"""


@pytest.fixture
def digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a temporary path that replaces docker/digests.json."""
    path = tmp_path / "digests.json"
    monkeypatch.setattr(build_images, "DIGESTS", path)
    return path


def pushed() -> dict[str, dict[str, str]]:
    """Return the content of docker/digests.json after a push of all phases."""
    return {
        phase: {
            "content": content(phase),
            "image": f"registry.test/x/{phase}@sha256:{hashlib.sha256(phase.encode()).hexdigest()}",
        }
        for phase in build_images.PHASES
    }


def test_every_phase_has_a_dockerfile():
    assert sorted(path.parent.name for path in (ROOT / "components").glob("*/component.py")) == build_images.PHASES


def test_content_changes_with_the_files_of_the_image_only(tmp_path: Path):
    for name in ("components", "docker"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "digests.json"))
    shutil.copy(ROOT / "uv.lock", tmp_path)
    before = {phase: content(phase) for phase in build_images.PHASES}

    def changed(file: str) -> set[str]:
        """Return the phases whose hash depends on a file."""
        path = tmp_path / file
        old = path.read_bytes()
        path.write_bytes(old + b"\n")
        found = {phase for phase in build_images.PHASES if content(phase, tmp_path) != before[phase]}
        path.write_bytes(old)
        return found

    assert {phase: content(phase, tmp_path) for phase in build_images.PHASES} == before
    assert changed("components/publish/publish.py") == {"publish"}
    assert changed("components/publish/Dockerfile") == {"publish"}
    assert changed("components/prepare_data/prepare.py") == {"check_inputs", "prepare_data"}
    for file in ("components/shared/files.py", "docker/Dockerfile", "docker/install.sh", "uv.lock"):
        assert changed(file) == set(build_images.PHASES)


def test_uv_version_is_the_same_in_makefile_and_image():
    of_makefile = re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text())
    of_image = re.search(r"ARG UV_VERSION=(\S+)", (ROOT / "docker/Dockerfile").read_text())
    assert of_makefile
    assert of_image
    assert of_makefile[1] == of_image[1]


@pytest.mark.parametrize("library", build_images.LIBRARIES)
def test_lock_file_has_cuda_for_each_library(library: str):
    groups = ["kfp", "images", "train", "report", f"cuda-{library}"]
    uv = Path(sys.executable).parent / "uv"
    done = subprocess.run(
        [str(uv), "export", "--locked", "--no-default-groups", *(f"--group={group}" for group in groups)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"^nvidia-cudnn-cu12==", done.stdout, re.MULTILINE)
    assert bool(re.search(r"^jaxlib==", done.stdout, re.MULTILINE)) == (library == "jax")
    assert bool(re.search(r"^tensorflow==", done.stdout, re.MULTILINE)) == (library == "tensorflow")
    assert not re.search(r"^tensorflow-cpu==", done.stdout, re.MULTILINE)


def test_pinned_without_a_push_is_empty(digests: Path):
    assert build_images.pinned() == {}


def test_compile_after_a_push_names_digests(digests: Path, tmp_path: Path):
    digests.write_text(json.dumps(pushed()))
    compiling.main(tmp_path / "pipeline.yaml")
    spec = next(iter(yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())))
    named = {entry["container"]["image"] for entry in spec["deploymentSpec"]["executors"].values()}
    assert named <= {entry["image"] for entry in pushed().values()}
    assert len(named) >= 7
    assert all("@sha256:" in reference for reference in named)


@pytest.mark.parametrize("problem", ["stale", "missing"])
def test_compile_with_stale_or_missing_digest_is_refused(digests: Path, tmp_path: Path, problem: str):
    known = pushed()
    if problem == "stale":
        known["evaluate"]["content"] = "0" * 16
    else:
        del known["evaluate"]
    digests.write_text(json.dumps(known))
    with raises_user_error("images.stale_digests") as caught:
        compiling.main(tmp_path / "pipeline.yaml")
    assert caught.value.fields["phases"] == ["evaluate"]
    assert not (tmp_path / "pipeline.yaml").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"evaluate": {}}', '{"evaluate": 1}'])
def test_pinned_with_a_corrupt_file_raises_user_error(digests: Path, text: str):
    digests.write_text(text)
    with raises_user_error("images.invalid_digests"):
        build_images.pinned()


@pytest.mark.parametrize(
    ("module", "words", "code"),
    [
        (build_images, ["PHASES=evaluat"], "images.unknown_choice"),
        (build_images, ["GPU=torch"], "images.unknown_choice"),
        (push_images, ["PHASES=evaluat"], "images.unknown_choice"),
        (push_images, [], "images.no_registry"),
    ],
)
def test_run_with_invalid_option_raises_user_error(module: ModuleType, words: list[str], code: str):
    with raises_user_error(code):
        module.run(words, sys.stdout)


@pytest.mark.parametrize("registry", ["--tls-verify=false", "http://host/x", "host/X", "host/../x y", "/x"])
def test_push_to_invalid_registry_raises_user_error(registry: str):
    with raises_user_error("images.invalid_registry"):
        build_images.push(registry, ["publish"])


def documented_packages() -> dict[str, list[int]]:
    """Return the numbers of Python packages in the table of docs/guides/operations.md, phase → one for each row."""
    text = (ROOT / "docs/guides/operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+`) \| [\d,]+ \| (\d+) \|$", text, re.MULTILINE)
    return {
        phase: [int(count) for names, count in rows if f"`{phase}`" in names.split(", ")]
        for phase in build_images.PHASES
    }


@pytest.mark.engine
@pytest.mark.parametrize("phase", build_images.PHASES)
def test_image_contains_only_its_phase(engine: docker.DockerClient, built: dict[str, str], phase: str):
    found = engine.images.get(built[phase])
    limit = 2.2e9 if phase in WITH_TENSORFLOW else 0.8e9
    assert 0 < found.attrs["Size"] < limit
    labels = found.labels
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    assert re.fullmatch(r"([0-9a-f]{40}(-dirty)?|unknown)", labels["org.opencontainers.image.revision"])
    assert labels["org.opencontainers.image.source"]
    assert labels[build_images.START_LABEL] in (PINNED, PINNED.partition("@")[0])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", found.attrs["Config"]["User"])

    task = Container(
        engine.containers.run(
            found.id,
            ["python3", "-c", LOOK, *TOOLS],
            read_only=True,
            tmpfs={"/tmp": "mode=1777"},
            network_mode="none",
            cap_drop=["ALL"],
            detach=True,
        )
    )
    output = list(task.lines)
    assert task.wait() == "", output
    seen: dict[str, Any] = json.loads(output[-1])
    assert seen["user"] == 10001
    # JAX is in the images for GPUs only.
    assert seen["missing"] == (["jax"] if phase in ("train_gan", "train_classifier") else [])
    assert seen["tools"] == seen["installers"] == []
    assert seen["tensorflow"] == (phase in WITH_TENSORFLOW)
    assert [seen["packages"]] == documented_packages()[phase]
    assert seen["writable"] == ["/tmp"]
    assert seen["caches"] == []
    assert not [name for name in seen["environment"] if re.search("TOKEN|SECRET|PASSWORD|KEY", name)]
    own = {
        str(path.relative_to(ROOT))
        for folder in (phase, "shared", *BESIDE.get(phase, []))
        for path in (ROOT / "components" / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name not in ("component.py", "Dockerfile")
    }
    assert set(seen["files"]) == own | {"LICENSE"}


@pytest.fixture(scope="module")
def small(engine: docker.DockerClient) -> str:
    """The smallest image, which is built if it is missing."""
    build_images.build(["notify"])
    return image("notify")


def tag(reference: str, name: str) -> None:
    """Give an image another name; the API of Podman would complete the name in another way."""
    subprocess.run([build_images.engine(), "tag", reference, name], check=True)


def start_of(engine: docker.DockerClient, reference: str) -> str:
    """Return the image that an image was built from."""
    return str(engine.images.get(reference).labels[build_images.START_LABEL])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Yield the address of a registry that runs on a free port."""
    server = shutil.which("docker-registry") or shutil.which("registry")
    if not server:
        pytest.skip("docker-registry is not installed (Debian: apt-get install docker-registry)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(settings))
    process = subprocess.Popen(
        [server, "serve", str(tmp_path / "registry.yaml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"127.0.0.1:{port}/team"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.engine
def test_push_records_the_digest_of_the_registry(
    engine: docker.DockerClient, registry: str, small: str, digests: Path, monkeypatch: pytest.MonkeyPatch
):
    flags = os.environ.get("PODMAN_PUSH_FLAGS", "")
    monkeypatch.setenv("PODMAN_PUSH_FLAGS", f"{flags} --tls-verify=false")  # Docker trusts local registries by default
    # Where the pinned image cannot be pulled, the images start from a local one, which must be accepted explicitly.
    start = start_of(engine, small)
    for phase in ("balance_dataset", "publish"):
        push_images.run([f"REGISTRY={registry}", f"PHASES={phase}", f"PYTHON_IMAGE={start}"], sys.stdout)
    known = json.loads(digests.read_text())
    assert set(known) == {"balance_dataset", "publish"}
    for phase, entry in known.items():
        assert entry["content"] == content(phase) == image(phase).rpartition(":")[2]
        name, _, digest = entry["image"].partition("@")
        host, _, repository = name.partition("/")
        request = urllib.request.Request(
            f"http://{host}/v2/{repository}/manifests/{digest}",
            headers={
                "Accept": "application/vnd.oci.image.manifest.v1+json, "
                "application/vnd.docker.distribution.manifest.v2+json"
            },
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            manifest = answer.read()
        assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == digest
    assert known["balance_dataset"]["image"] != known["publish"]["image"]


@pytest.mark.engine
def test_push_to_unreachable_registry_raises_user_error(built: dict[str, str], digests: Path):
    with raises_user_error("images.build_failed") as caught:
        build_images.push("127.0.0.1:1/team", ["publish"])
    assert caught.value.fields["phase"] == "publish"
    assert not digests.exists()


@pytest.fixture
def namesake(engine: docker.DockerClient, registry: str, small: str) -> Iterator[str]:
    """Yield name and tag of a local image, at a registry that does not have it."""
    name = f"{registry}/python:3.11-slim"
    tag(small, name)
    yield name
    engine.images.remove(name)


def allow_pulls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Podman pull from a registry without TLS, as Docker does from a local one."""
    flags = os.environ.get("PODMAN_BUILD_FLAGS", "").replace("--pull=never", "")
    monkeypatch.setenv("PODMAN_BUILD_FLAGS", f"{flags} --tls-verify=false")


@pytest.mark.engine
def test_start_is_the_pinned_image_if_it_can_be_pulled(
    namesake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    allow_pulls(monkeypatch)
    command, file = build_images.engine(), tmp_path / "digest"
    podman = ["--tls-verify=false", f"--digestfile={file}"] if command == "podman" else []
    pushed = subprocess.run([command, "push", *podman, namesake], check=True, capture_output=True, text=True)
    digest = re.search(r"sha256:[0-9a-f]{64}", file.read_text() if podman else pushed.stdout)
    assert digest
    pinned = f"{namesake}@{digest[0]}"
    assert build_images.available_start(command, pinned, must_be_pinned=True) == pinned
    assert "warning" not in capsys.readouterr().out
    subprocess.run([command, "rmi", pinned], capture_output=True)  # its name by digest, which stays with the image


@pytest.mark.engine
def test_start_is_the_local_namesake_of_an_image_that_cannot_be_pulled(
    namesake: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    allow_pulls(monkeypatch)
    command, pinned = build_images.engine(), f"{namesake}@sha256:{'0' * 64}"
    assert build_images.available_start(command, pinned) == namesake
    assert f"warning: images start from the local {namesake}" in capsys.readouterr().out
    with raises_user_error("images.base_not_pinned") as caught:
        build_images.available_start(command, pinned, must_be_pinned=True)
    assert f"PYTHON_IMAGE={namesake}" in caught.value.hint
    with raises_user_error("images.no_base"):
        build_images.available_start(command, pinned.replace("3.11", "3.10"))


@pytest.mark.engine
def test_registry_that_does_not_answer_is_given_up(engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch):
    allow_pulls(monkeypatch)
    monkeypatch.setattr(build_images, "START_LIMIT_S", 3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        name = f"127.0.0.1:{silent.getsockname()[1]}/python:3.11-slim"
        with raises_user_error("images.no_base") as caught:
            build_images.available_start(build_images.engine(), f"{name}@sha256:{'0' * 64}")
        assert "not finished after 3 s" in str(caught.value)


@pytest.mark.engine
def test_no_registry_is_asked_if_the_flags_forbid_it(monkeypatch: pytest.MonkeyPatch, engine: docker.DockerClient):
    if build_images.engine() != "podman":
        pytest.skip("Docker has no such flag")
    monkeypatch.setenv("PODMAN_BUILD_FLAGS", f"{os.environ.get('PODMAN_BUILD_FLAGS', '')} --pull=never")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(0.1)
        name = f"127.0.0.1:{silent.getsockname()[1]}/python:3.11-slim"
        with raises_user_error("images.no_base"):
            build_images.available_start("podman", f"{name}@sha256:{'0' * 64}")
        with pytest.raises(TimeoutError):
            silent.accept()


@pytest.mark.engine
def test_build_from_another_image_replaces_the_image(
    engine: docker.DockerClient, small: str, capsys: pytest.CaptureFixture[str]
):
    other, start = "counterweight/base:other", start_of(engine, small)
    tag(start, other)
    for name, printed in ((other, "built in"), (start, "built in"), (start, "up to date")):
        build_images.build(["notify"], start=name)
        assert printed in capsys.readouterr().out
        assert start_of(engine, small) == name
    subprocess.run([build_images.engine(), "rmi", other], check=True, capture_output=True)
