"""The phases in their own containers, for a local run: as on a cluster without a right that they do not need.

Each runs as a user that is not root, on a read-only root, without capabilities and, unless it reads remote data,
without a network. Its /tmp is a volume of its own: image sets are decoded there, which memory may not hold.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import Mount

import docker
from components.container_images import PHASE_OF, image
from components.shared.errors import UserError
from counterweight.build_images import PHASES
from counterweight.tasks import CHECKPOINTS, ended

INPUTS = ("data", "data_split", "data_external")
"""The pipeline's parameters that may name a file or folder to read."""
LABEL = "counterweight.cache"
USER = 10001
"""Of the images. A container's group is root's then, which has no rights of its own, and may write where we let it."""
REMOTE = ("gs://", "kaggle")
LENT = (
    "GOOGLE_CLOUD_PROJECT",
    "STORAGE_EMULATOR_HOST",
    "KAGGLE_USERNAME",
    "KAGGLE_KEY",
    "KAGGLE_API_TOKEN",
    "HTTPS_PROXY",
    "NO_PROXY",
)
"""Variables of this process that a phase gets which reads remote data."""
OCCUPIED = ("/opt/venv", "/opt/counterweight", "/usr/bin", "/lib", "/etc", "/proc", "/sys", "/dev", "/tmp")  # noqa: S108
_FAILURES = (DockerException, requests.RequestException, OSError)


def connect() -> docker.DockerClient:
    """A client of the engine that answers: the one in DOCKER_HOST, Docker's, or Podman's at one of its usual sockets.

    kfp makes clients of its own, for which DOCKER_HOST is set.

    Raises:
        UserError: none answers.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    sockets = [] if "DOCKER_HOST" in os.environ else [f"{runtime}/podman/podman.sock", "/run/podman/podman.sock"]
    for socket in ["", *sockets]:
        try:
            client = docker.DockerClient(base_url=f"unix://{socket}") if socket else docker.from_env()
            client.ping()
        except _FAILURES:
            continue
        if socket:
            os.environ["DOCKER_HOST"] = f"unix://{socket}"
        return client
    raise UserError(
        "neither Docker nor Podman responds",
        "start one (Podman: `systemctl --user start podman.socket`), or remove RUNNER=containers",
        "containers.no_engine",
    )


class Container:
    """A task in its container.

    Attributes:
        lines: what it says, as it says it.
    """

    def __init__(self, container: Any) -> None:
        self._container = container
        self.lines = self._lines()

    def _lines(self) -> Iterator[str]:
        rest = b""
        with contextlib.suppress(*_FAILURES):  # `wait` says what became of it
            for chunk in self._container.logs(stream=True, follow=True):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield line.decode(errors="replace") + "\n"
        if rest:
            yield rest.decode(errors="replace") + "\n"

    def wait(self) -> str:
        """Waits for the end and removes the container; empty where all went well, else how it ended.

        The engine is not asked to remove it by itself: then its exit code would be lost with it.
        """
        try:
            code = self._container.wait()["StatusCode"]
            self._container.reload()
            out_of_memory = self._container.attrs["State"].get("OOMKilled")
            self._container.remove(v=True)
        except NotFound:
            return "its container was removed by another"
        except _FAILURES as error:
            return f"the engine did not say how it ended ({error})"
        if out_of_memory:
            return f"out of memory (exit code {code})"
        return ended(code)

    def kill(self) -> None:
        """Kills and removes it; with a client of its own, since a signal may have broken into a call of the other."""
        with contextlib.suppress(*_FAILURES), contextlib.closing(docker.from_env()) as client:
            client.containers.get(self._container.id).remove(v=True, force=True)


class Engine:
    """Starts the containers of one run, and sees that none is left behind.

    Args:
        values: the pipeline's parameters.
        output: the folder of the results.
        cache: the folder of finished tasks, on which the run holds a lock.
        scratch: for what is lent to the containers; deleted after the run.
        checkpoints: of those who train GANs.

    Raises:
        UserError: no engine answers, images are missing, or a folder can't be given to a container.
    """

    def __init__(self, values: Mapping[str, Any], output: Path, cache: Path, scratch: Path, checkpoints: Path) -> None:
        self.client = connect()
        info = self.client.info()
        options = info.get("SecurityOptions") or []
        rootless = info.get("Rootless") or "name=rootless" in options
        # Where this user's number means another one inside, or root, the containers share its group instead.
        self.shares_group = rootless or not os.getuid()
        self.user = f"{USER}:0" if self.shares_group else f"{os.getuid()}:{os.getgid()}"
        self.label = {LABEL: str(cache.resolve())}
        self.security = ["no-new-privileges"]
        if "name=selinux" in options:
            self.security.append("label=disable")  # rather than relabel the user's folders
        self.scratch = scratch
        self.sweep()
        self.images = {phase: self._image(phase) for phase in PHASES}
        if missing := [phase for phase, reference in self.images.items() if not reference]:
            raise UserError(
                f"no image of the current code of {', '.join(missing)} exists",
                "run `make images`",
                "containers.no_image",
                phases=list(missing),
            )
        given = {name: str(values[name]) for name in INPUTS if name in values}
        paths = {name: Path(value) for name, value in given.items()}
        self.inputs = [self._input(name, path) for name, path in paths.items() if path.is_absolute() and path.exists()]
        self.remote = any(value.startswith(REMOTE) for value in given.values())
        self.output = output
        self.results = self._mount("OUT", output, read_only=False)
        self._open(cache / "artifacts")
        self._open(checkpoints)
        self.checkpoints = checkpoints
        if output.exists():  # what can't be used comes out now, what isn't there is made when there are results
            self._open(output)

    def _image(self, phase: str) -> str:
        """The id of a phase's image; empty where there is none."""
        for prefix in ("", "localhost/"):  # under which Podman keeps what has no registry
            with contextlib.suppress(ImageNotFound):
                return str(self.client.images.get(f"{prefix}{image(phase)}").id)
        return ""

    def _mount(self, name: str, path: Path, read_only: bool) -> Mount:
        """A folder at its own place in the container."""
        if any(Path(place).is_relative_to(path) for place in OCCUPIED):
            raise UserError(
                f"{name} is {path}, which conflicts with a path inside the container",
                "use a separate folder",
                "containers.path_conflict",
                name=name,
            )
        return Mount(str(path), str(path), type="bind", read_only=read_only)

    def _input(self, name: str, path: Path) -> Mount:
        mode = path.stat().st_mode
        if self.shares_group and not mode & (0o050 if path.is_dir() else 0o040) and not mode & 0o004:
            raise UserError(
                f"{name} is {path}, which only its owner may read",
                "let its group read it (`chmod -R g+rX`)",
                "containers.private_folder",
                name=name,
            )
        return self._mount(name, path, read_only=True)

    def _open(self, folder: Path) -> None:
        """Lets the containers write to a folder of ours: where they share but the group, the group may."""
        folder.mkdir(parents=True, exist_ok=True)
        if not self.shares_group:
            return
        for place in (folder, *(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())):
            facts = place.stat()
            if facts.st_uid == os.getuid() and facts.st_gid == os.getgid():
                place.chmod(facts.st_mode & 0o7777 | 0o070)
            elif place == folder:
                raise UserError(
                    f"OUT is {folder}, which belongs to another user",
                    "choose another folder",
                    "containers.foreign_folder",
                )

    def start(self, task: str, command: list[str], volumes: dict[str, Any], environment: dict[str, str]) -> Container:
        """Starts a task.

        Args:
            task: its name.
            command: what kfp wants to be run: `sh -c` and its arguments.
            volumes: what kfp wants to be mounted.
            environment: further variables.

        Raises:
            UserError: the engine refuses.
        """
        phase = PHASE_OF.get(task, task)
        reads_input = phase in ("check_inputs", "prepare_data")
        reads_remote = self.remote and reads_input
        lent, mounts = self._lent() if reads_remote else ({}, [])
        writes_output = phase in ("check_inputs", "publish")  # check_inputs tries whether it is writable
        if writes_output:
            self._open(self.output)
        if phase == "train_gan":
            lent = {CHECKPOINTS: str(self.checkpoints)}
            mounts = [self._mount("the folder of checkpoints", self.checkpoints, read_only=False)]
        for source in volumes:
            Path(source).mkdir(parents=True, exist_ok=True)
        shell, flag, script, *rest = command
        try:
            container = self.client.containers.create(
                self.images[phase],
                [shell, flag, f"umask 002; {script}", *rest],
                user=self.user,
                environment={**lent, **environment},
                volumes=volumes,
                mounts=[
                    Mount("/tmp", None, type="volume"),  # noqa: S108
                    *(self.inputs if reads_input else []),
                    *([self.results] if writes_output else []),
                    *mounts,
                ],
                read_only=True,
                cap_drop=["ALL"],
                security_opt=self.security,
                # This machine's own, as a process has it: with its proxies and its names.
                network_mode="host" if reads_remote else "none",
                labels=self.label,
            )
            container.start()
        except _FAILURES as error:
            reason = error.explanation if isinstance(error, APIError) else error
            raise UserError(
                f"the container of {task} did not start: {reason}",
                "check the container engine",
                "containers.start_failed",
                task=task,
            ) from error
        return Container(container)

    def _lent(self) -> tuple[dict[str, str], list[Mount]]:
        """Variables and files by which remote data is reached."""
        lent = {name: os.environ[name] for name in LENT if name in os.environ}
        token = Path("~/.kaggle/kaggle.json").expanduser()
        with contextlib.suppress(OSError, ValueError, KeyError):
            found = json.loads(token.read_text(encoding="utf-8"))
            lent = {"KAGGLE_USERNAME": found["username"], "KAGGLE_KEY": found["key"]} | lent
        own = Path("~/.config/gcloud/application_default_credentials.json").expanduser()
        credentials = Path(os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or own)
        if not credentials.is_file():
            return lent, []
        copy = self.scratch / "credentials.json"
        copy.unlink(missing_ok=True)
        shutil.copyfile(credentials, copy)
        copy.chmod(0o440)
        inside = "/opt/credentials.json"
        mount = Mount(inside, str(copy), type="bind", read_only=True)
        return lent | {"GOOGLE_APPLICATION_CREDENTIALS": inside}, [mount]

    def sweep(self) -> None:
        """Removes what is left of this folder's runs, of one that was killed, say."""
        (name, value) = next(iter(self.label.items()))
        with contextlib.suppress(*_FAILURES):
            for container in self.client.containers.list(all=True, filters={"label": f"{name}={value}"}):
                with contextlib.suppress(*_FAILURES):
                    container.remove(v=True, force=True)
