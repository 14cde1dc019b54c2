"""Tasks in real containers: failure reasons, permissions, and cleanup."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import docker
from components.shared.workflow_size import Packs
from counterweight.containers import LABEL, Container, Engine
from tests.helpers.errors import raises_user_error

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[3]
NO_PACKS = Packs([], [])
SMALL = [
    "RUNNER=containers",
    "data_image_size=32",
    "synthetic_classes=df,vasc",
    "synthetic_per_class=6",
    "gan_kimg=5",
    "gan_shared_kimg=0",
    "classifier_epochs=2",
    "classifier_seeds=1",
]


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "counterweight", "run", *SMALL, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(process: subprocess.Popen[str], text: str) -> str:
    """Read the output up to a line with `text`, and return it."""
    seen = ""
    for line in process.stdout or ():
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came:\n{seen}")


def containers(engine: docker.DockerClient, folder: Path) -> list[docker.models.containers.Container]:
    """Return the containers of the runs in a folder, running or not."""
    label = f"{LABEL}={(folder / 'runs/.cache').resolve()}"
    return engine.containers.list(all=True, filters={"label": label})


@pytest.fixture(scope="module")
def folder(built: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of all runs of this module, which prepare the data once."""
    return tmp_path_factory.mktemp("containers")


def start(engine: docker.DockerClient, reference: str, script: str, **more: object) -> Container:
    return Container(engine.containers.run(reference, ["sh", "-c", script], detach=True, network_mode="none", **more))


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("true", ""),
        ("exit 3", "exit code 3"),
        ("sleep 3; exit 1", "exit code 1"),
        ("exit 137", "killed by signal 9; the usual cause is a lack of memory"),
        ("exit 139", "killed by signal 11"),
    ],
)
def test_wait_returns_the_failure_reason(engine: docker.DockerClient, built: dict[str, str], script: str, how: str):
    task = start(engine, built["publish"], f"echo one; printf 'two é'; {script}")
    assert [line.rstrip("\n") for line in task.lines] == ["one", "two é"]
    assert task.wait() == how


def test_wait_out_of_memory_is_reported(engine: docker.DockerClient, built: dict[str, str]):
    if not engine.info().get("MemoryLimit"):
        pytest.skip("this engine cannot limit memory")
    task = start(
        engine, built["publish"], "python3 -c 'x = bytearray(10**9)'; exit $?", mem_limit="64m", memswap_limit="64m"
    )
    assert "".join(task.lines).strip() in ("", "Killed")
    # Not every engine hears of it from the kernel.
    assert task.wait() in ("out of memory (exit code 137)", "killed by signal 9; the usual cause is a lack of memory")


def test_start_grants_only_the_required_permissions(engine: docker.DockerClient, folder: Path):
    data = folder / "data"
    data.mkdir()
    data.chmod(0o755)
    parts = Engine(
        {"data": str(data)},
        folder / "out",
        folder / "runs/.cache",
        folder,
        {"train_gan": folder / "checkpoints"},
        NO_PACKS,
    )
    script = (
        "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status | tr -s '\\t' ' '; ls /sys/class/net; "
        f"for place in / {data} {folder}/runs /tmp {folder}/runs/.cache/artifacts; do "
        "(touch $place/probe && echo writes $place) 2>/dev/null; done; true"
    )
    artifacts = str(folder / "runs/.cache/artifacts")
    task = parts.start(
        "prepare_data", ["sh", "-c", script], {artifacts: {"bind": artifacts, "mode": "rw"}}, {"HOME": "/tmp"}
    )
    user, *others = "".join(task.lines).splitlines()
    assert task.wait() == ""
    assert int(user) > 0
    assert others == ["CapEff: 0000000000000000", "NoNewPrivs: 1", "lo", "writes /tmp", f"writes {artifacts}"]
    assert (Path(artifacts) / "probe").exists()
    assert not list(data.iterdir())
    script = "cd $COUNTERWEIGHT_CHECKPOINTS && mkdir -p df && echo $0 >> df/checkpoint-a"
    for name in ("train_gan", "pretrain_gan"):
        assert parts.start(name, ["sh", "-c", script, name], {}, {}).wait() == ""
    assert (folder / "checkpoints/df/checkpoint-a").read_text() == "train_gan\npretrain_gan\n"
    task = parts.start("generate_images", ["sh", "-c", "echo $COUNTERWEIGHT_CHECKPOINTS"], {}, {})
    assert ("".join(task.lines).strip(), task.wait()) == ("", "")
    parts.client.close()


def test_task_that_reads_remote_data_gets_the_files_of_credentials(
    engine: docker.DockerClient, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, content in (("AWS_CA_BUNDLE", "authority"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "token")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
        monkeypatch.setenv(name, str(tmp_path / name))
    parts = Engine(
        {"data": "s3://bucket/data"},
        folder / "out",
        folder / "runs/.cache",
        tmp_path,
        {"train_gan": tmp_path / "kept"},
        NO_PACKS,
    )
    script = (
        'cat "$AWS_CA_BUNDLE" "$AWS_WEB_IDENTITY_TOKEN_FILE"; echo; '
        '(echo x > "$AWS_CA_BUNDLE") 2>/dev/null || echo kept'
    )
    task = parts.start("prepare_data", ["sh", "-c", script], {}, {})
    assert "".join(task.lines).splitlines() == ["authoritytoken", "kept"]
    assert task.wait() == ""
    other = parts.start("train_gan", ["sh", "-c", 'echo "[$AWS_CA_BUNDLE]"; ls /opt'], {}, {})
    assert "credentials" not in "".join(other.lines)
    assert other.wait() == ""
    parts.client.close()


def test_run_with_invalid_data_prints_an_error_and_a_hint(folder: Path):
    empty = folder / "empty"
    empty.mkdir()
    process = command(folder, f"DATA={empty}")
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 2, output
    error, hint = output.splitlines()[-2:]
    assert error.startswith("error: ")
    assert "has no metadata file" in error
    assert hint.startswith("hint: ")
    assert "Traceback" not in output
    assert {path.name for path in (folder / "runs").iterdir()} == {".cache"}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["DATA=/"], "whose images the next run would read as data"),
        (["DATA=/opt"], "conflicts with a path inside the container"),
        (["OUT=/tmp"], "conflicts with a path inside the container"),
    ],
)
def test_run_with_a_reserved_folder_prints_an_error(folder: Path, words: list[str], error: str):
    process = command(folder, *words)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 2, output
    assert error in output


def test_run_fails_if_a_container_is_killed(engine: docker.DockerClient, folder: Path):
    process = command(folder)
    until(process, "train_gan")
    for container in containers(engine, folder):
        container.kill()
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 1, output
    assert "train_gan: killed by signal 9" in output
    assert "the run failed; the complete log is in " in output
    assert not containers(engine, folder)


def test_interrupted_run_removes_its_containers(engine: docker.DockerClient, folder: Path):
    process = command(folder)
    until(process, "train_gan")
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert "stopped; rerun the same command to resume" in output
    assert not containers(engine, folder)


def test_run_after_a_killed_one_removes_its_containers(engine: docker.DockerClient, folder: Path):
    process = command(folder)
    until(process, "train_gan")
    process.kill()
    process.wait(60)
    left = {container.id for container in containers(engine, folder)}
    assert left
    process = command(folder)
    until(process, "train_gan")
    now = {container.id for container in containers(engine, folder)}
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert not left & now
    deadline = time.monotonic() + 60
    while containers(engine, folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not containers(engine, folder)


def test_run_without_an_engine_prints_an_error(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    done = subprocess.run(
        [sys.executable, "-m", "counterweight", "run", "RUNNER=containers"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error == "error: neither Docker nor Podman responds"
    assert hint.startswith("hint: start one")


def test_engine_with_a_missing_image_raises_user_error(
    built: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("counterweight.containers.image", lambda phase: f"{built[phase]}{'0' * (phase == 'evaluate')}")
    with raises_user_error("containers.no_image") as caught:
        Engine({}, folder / "out", folder / "runs/.cache", folder, {"train_gan": folder / "checkpoints"}, NO_PACKS)
    assert caught.value.fields["phases"] == ["evaluate"]
