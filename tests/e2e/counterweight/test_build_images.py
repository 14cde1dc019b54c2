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
from typing import Any

import pytest
import yaml

import docker
from components.container_images import content, image
from counterweight import build_images
from counterweight import compile as compiling
from counterweight.containers import Container
from tests.helpers.errors import raises_user_error

ROOT = Path(__file__).resolve().parents[3]
WITH_TENSORFLOW = {"train_classifier", "train_features", "train_gan", "generate_images", "evaluate"}
TOOLS = ("pip", "pip3", "uv", "gcc", "cc", "g++", "make", "ld", "git", "curl", "wget")
LOOK = r"""
import ast, importlib, importlib.util, json, os, pathlib, shutil, sys
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
    ("step", "words", "code"),
    [
        ("build", ["PHASES=evaluat"], "images.unknown_choice"),
        ("build", ["GPU=torch"], "images.unknown_choice"),
        ("build", ["seed=1"], "images.unknown_option"),
        ("push", [], "images.no_registry"),
    ],
)
def test_run_with_invalid_option_raises_user_error(step: str, words: list[str], code: str):
    with raises_user_error(code):
        build_images.run(step, words)


@pytest.mark.parametrize("registry", ["--tls-verify=false", "http://host/x", "host/X", "host/../x y", "/x"])
def test_push_to_invalid_registry_raises_user_error(registry: str):
    with raises_user_error("images.invalid_registry"):
        build_images.push(registry, ["publish"])


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
    assert seen["writable"] == ["/tmp"]
    assert seen["caches"] == []
    assert not [name for name in seen["environment"] if re.search("TOKEN|SECRET|PASSWORD|KEY", name)]
    own = {
        str(path.relative_to(ROOT))
        for folder in (phase, "shared")
        for path in (ROOT / "components" / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name not in ("component.py", "Dockerfile")
    }
    assert set(seen["files"]) == own | {"LICENSE"}


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
    registry: str, built: dict[str, str], digests: Path, monkeypatch: pytest.MonkeyPatch
):
    flags = os.environ.get("PODMAN_PUSH_FLAGS", "")
    monkeypatch.setenv("PODMAN_PUSH_FLAGS", f"{flags} --tls-verify=false")  # Docker trusts local registries by default
    build_images.push(registry, ["balance_dataset"])
    build_images.push(registry, ["publish"])
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
