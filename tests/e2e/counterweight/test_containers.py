"""Tasks in real containers: how they end is what the run says, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import docker
from components.shared.errors import UserError
from counterweight.containers import LABEL, Container, Engine

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[3]
SMALL = ["RUNNER=containers", "image_size=32", "rare_classes=df,vasc", "gan_kimg=5", "classifier_epochs=2"]


def command(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "counterweight.run", *SMALL, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(process: subprocess.Popen[str], text: str) -> str:
    """Reads output up to a line with `text`."""
    seen = ""
    for line in process.stdout or ():
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came:\n{seen}")


def containers(engine: docker.DockerClient, folder: Path) -> list[docker.models.containers.Container]:
    """Those of the runs in a folder, running or not."""
    label = f"{LABEL}={(folder / 'runs/.cache').resolve()}"
    return engine.containers.list(all=True, filters={"label": label})


@pytest.fixture(scope="module")
def folder(built: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of this file go, so that they prepare the data once."""
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
def test_how_a_container_ends_is_told(engine: docker.DockerClient, built: dict[str, str], script: str, how: str):
    task = start(engine, built["publish"], f"echo one; printf 'two é'; {script}")
    assert [line.rstrip("\n") for line in task.lines] == ["one", "two é"]
    assert task.wait() == how


def test_a_container_without_memory_says_so(engine: docker.DockerClient, built: dict[str, str]):
    if not engine.info().get("MemoryLimit"):
        pytest.skip("OUT OF MEMORY IS NOT TESTED: this engine can't limit memory")
    task = start(
        engine, built["publish"], "python3 -c 'x = bytearray(10**9)'; exit $?", mem_limit="64m", memswap_limit="64m"
    )
    assert "".join(task.lines).strip() in ("", "Killed")
    # Not every engine hears of it from the kernel.
    assert task.wait() in ("out of memory (exit code 137)", "killed by signal 9; the usual cause is a lack of memory")


def test_a_phase_has_no_more_rights_than_it_needs(engine: docker.DockerClient, folder: Path):
    data = folder / "data"
    data.mkdir()
    data.chmod(0o755)
    parts = Engine({"data": str(data)}, folder / "out", folder / "runs/.cache", folder, folder / "checkpoints")
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
    for name in ("train_gan", "shared_pretraining"):
        assert parts.start(name, ["sh", "-c", script, name], {}, {}).wait() == ""
    assert (folder / "checkpoints/df/checkpoint-a").read_text() == "train_gan\nshared_pretraining\n"
    task = parts.start("generate_images", ["sh", "-c", "echo $COUNTERWEIGHT_CHECKPOINTS"], {}, {})
    assert ("".join(task.lines).strip(), task.wait()) == ("", "")
    parts.client.close()


def test_a_users_mistake_is_one_sentence(folder: Path):
    empty = folder / "empty"
    empty.mkdir()
    process = command(folder, f"DATA={empty}")
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 2, output
    assert f"{empty.name} holds no metadata file" in output
    assert output.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in output
    assert {path.name for path in (folder / "runs").iterdir()} == {".cache"}


@pytest.mark.parametrize("words", [["DATA=/"], ["DATA=/opt"], ["OUT=/tmp"]])
def test_a_folder_in_the_way_is_one_sentence(folder: Path, words: list[str]):
    process = command(folder, *words)
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 2, output
    assert "stands in a container's way" in output


def test_a_phase_that_is_killed_fails_the_run(engine: docker.DockerClient, folder: Path):
    process = command(folder)
    until(process, "train_gan")
    for container in containers(engine, folder):
        container.kill()
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 1, output
    assert "train_gan: killed by signal 9" in output
    assert "the run failed; all output is in runs/.cache/logs" in output
    assert not containers(engine, folder)


def test_an_interrupted_run_leaves_no_container(engine: docker.DockerClient, folder: Path):
    process = command(folder)
    until(process, "train_gan")
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert "the same command goes on from here" in output
    assert not containers(engine, folder)


def test_the_next_run_removes_what_a_killed_one_left(engine: docker.DockerClient, folder: Path):
    process = command(folder)
    until(process, "train_gan")
    process.kill()
    process.wait(10)
    left = {container.id for container in containers(engine, folder)}
    assert left
    process = command(folder)
    until(process, "train_gan")
    now = {container.id for container in containers(engine, folder)}
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    assert not left & now
    deadline = time.monotonic() + 10
    while containers(engine, folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not containers(engine, folder)


def test_without_an_engine_it_is_one_sentence(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    done = subprocess.run(
        [sys.executable, "-m", "counterweight.run", "RUNNER=containers"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: neither Docker nor Podman answers; start one")
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_image_is_one_sentence(built: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("counterweight.containers.image", lambda phase: f"{built[phase]}{'0' * (phase == 'evaluate')}")
    with pytest.raises(UserError, match="there is no image of the present code of evaluate; run make images"):
        Engine({}, folder / "out", folder / "runs/.cache", folder, folder / "checkpoints")
