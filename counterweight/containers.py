"""Run the tasks of a local run in containers, each with the fewest possible privileges.

A container has an unprivileged user, a read-only root file system, no capabilities and, unless its task reads remote
data, no network. Its /tmp is a volume: decoded image sets are stored there, which may be larger than memory.
"""

import contextlib
import json
import os
import queue
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import Mount

import docker
from components.container_images import PHASE_OF, image
from components.placement import placement
from components.publish.publish import JOURNAL
from components.shared.arms import GAN
from components.shared.champion import LAST
from components.shared.errors import UserError
from components.shared.initial_weights import parse_weights
from components.shared.parameters import source_label, synthetic_sources
from components.shared.published import MANIFEST
from components.shared.stores.addresses import BUCKETS
from components.shared.workflow_size import Packs
from counterweight.build_images import PHASES, explain_missing
from counterweight.tasks import describe_failure
from counterweight.tasks import variables as task_variables

INPUTS = ("data", "data_split", "data_external")
"""Pipeline parameters that may name a local file or folder."""
LABEL = "counterweight.cache"
"""Label of all containers; its value is the folder of the task cache."""
USER = 10001
"""User of the images. Its group is root, which gives no privileges but can be given access to folders."""
REMOTE = (*(f"{scheme}://" for scheme in BUCKETS), "kaggle")
"""Beginnings of `data` values that need a network."""
CREDENTIAL_VARIABLES = (
    "GOOGLE_CLOUD_PROJECT",
    "STORAGE_EMULATOR_HOST",
    "KAGGLE_USERNAME",
    "KAGGLE_KEY",
    "KAGGLE_API_TOKEN",
    "HTTPS_PROXY",
    "NO_PROXY",
)
CREDENTIAL_PREFIXES = ("AWS_", "AZURE_")
"""Environment variables, and beginnings of their names, that are passed to a task that reads remote data."""
CREDENTIAL_FILES = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AWS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
)
"""Environment variables that name a file, which such a task needs, too."""
UNREAD_FILES = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE")
"""Environment variables that name files which no task reads: they are not passed."""
SILENCE_S = 30.0
"""Seconds without output after which the engine is asked whether the container still runs."""
ENGINE_TIMEOUT_S = 300.0
"""Seconds without an answer of the engine after which a task fails."""
RESERVED_PATHS = ("/opt/venv", "/opt/counterweight", "/usr/bin", "/lib", "/etc", "/proc", "/sys", "/dev", "/tmp")  # noqa: S108
_FAILURES = (DockerException, requests.RequestException, OSError)


def connect() -> docker.DockerClient:
    """Return a client of the engine in DOCKER_HOST, of Docker, or of Podman at one of its usual sockets.

    For Podman, this sets DOCKER_HOST, because kfp creates its own clients.

    Raises:
        UserError: `containers.no_engine`.
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


def list_folders(folder: Path) -> list[Path]:
    """Return the direct subfolders of a folder, without links; none if it does not exist."""
    return [path for path in folder.glob("*") if path.is_dir() and not path.is_symlink()]


def list_published_folders(output: Path) -> list[Path]:
    """Return the direct subfolders that an earlier publication created, and not, for example, the user's `.ssh`."""
    names: set[str] = set()
    for listing in (MANIFEST, JOURNAL):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            files = json.loads((output / listing).read_text(encoding="utf-8"))["files"]
            names |= {name.partition("/")[0] for name in files}
    return [path for path in list_folders(output) if path.name in names]


def check_not_private(output: Path) -> None:
    """Check that a folder of results, whose group may write afterwards, is not a private folder of the user.

    Raises:
        UserError: `containers.private_output`.
    """
    if not output.is_dir() or output.stat().st_mode & 0o020 or not any(output.iterdir()):
        return
    if not any((output / name).exists() for name in (MANIFEST, JOURNAL)):
        raise UserError(
            f"OUT is {output}, which contains other files and which its group may not write",
            "choose a new folder, or let its group write (`chmod g+rwx`)",
            "containers.private_output",
            path=str(output),
        )


class Container:
    """A task in a container.

    Attributes:
        lines: its output, line by line, while it runs.
    """

    def __init__(self, container: Any) -> None:
        self._container = container
        self._answered_s = time.monotonic()
        self.lines = self._lines()

    def _lines(self) -> Iterator[str]:
        chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=1000)
        threading.Thread(target=self._read_log, args=(chunks,), daemon=True).start()
        rest = b""
        while True:
            try:
                chunk = chunks.get(timeout=SILENCE_S)
            except queue.Empty:
                if self._is_running():
                    continue
                break  # the stream of the log stalled
            self._answered_s = time.monotonic()
            if chunk is None:
                break
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace") + "\n"
        if rest:
            yield rest.decode(errors="replace") + "\n"

    def _read_log(self, chunks: "queue.Queue[bytes | None]") -> None:
        """Pass the output on, in a separate thread: a read from an engine that hangs has no time limit."""
        with contextlib.suppress(*_FAILURES):  # `wait` returns the reason
            for chunk in self._container.logs(stream=True, follow=True):
                chunks.put(chunk)
        chunks.put(None)

    def _is_running(self) -> bool:
        """Return whether the container runs; True while the engine does not answer, for at most `ENGINE_TIMEOUT_S`."""
        try:
            self._container.reload()
        except NotFound:
            return False
        except _FAILURES:
            return time.monotonic() - self._answered_s < ENGINE_TIMEOUT_S
        self._answered_s = time.monotonic()
        return self._container.attrs["State"]["Status"] not in ("exited", "dead", "stopped")

    def wait(self) -> str:
        """Wait until the container finishes, remove it, and return why it failed; empty if it succeeded.

        The engine does not remove it automatically, because its exit code would be lost.
        """
        pause_s = 0.05
        while self._is_running():
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, SILENCE_S)
        try:
            self._container.reload()
            state = self._container.attrs["State"]
            code, out_of_memory = state["ExitCode"], state.get("OOMKilled")
            self._container.remove(v=True)
        except NotFound:
            return "its container was removed by another process"
        except _FAILURES as error:
            return f"the engine did not return its exit code ({error})"
        if out_of_memory:
            return f"out of memory (exit code {code})"
        return describe_failure(code)

    def kill(self) -> None:
        """Kill and remove the container, with a new client: a signal may have interrupted a call of the other."""
        with contextlib.suppress(*_FAILURES), contextlib.closing(docker.from_env()) as client:
            client.containers.get(self._container.id).remove(v=True, force=True)


def _given_places(values: Mapping[str, Any]) -> dict[str, str]:
    """Return name → place of each input of a run."""
    given = {name: str(values[name]) for name in INPUTS if name in values}
    sources = synthetic_sources(values.get("synthetic", GAN))
    return given | {source_label(name): place for name, place in sources.items()}


def _refuse_reserved(name: str, path: Path) -> None:
    if any(Path(reserved).is_relative_to(path) for reserved in RESERVED_PATHS):
        raise UserError(
            f"{name} is {path}, which conflicts with a path inside the container",
            "use a separate folder",
            "containers.path_conflict",
            name=name,
        )


def check_paths(values: Mapping[str, Any], output: Path) -> None:
    """Check that no input and no output of a run conflicts with a path inside the containers.

    Raises:
        UserError: `containers.path_conflict`.
    """
    for name, place in (*_given_places(values).items(), ("OUT", str(output))):
        if Path(place).is_absolute():
            _refuse_reserved(name, Path(place))


def _credential_files(environment: Mapping[str, str]) -> dict[str, Path]:
    """Return the files of credentials and certificates that the environment names, by variable.

    Raises:
        UserError: `containers.unreadable_file`.
    """
    files = {name: Path(environment[name]).expanduser() for name in CREDENTIAL_FILES if environment.get(name)}
    for name, path in files.items():
        if not path.is_file() or not os.access(path, os.R_OK):
            raise UserError(
                f"{name} is {path}, which is not a readable file",
                f"correct or unset {name}",
                "containers.unreadable_file",
                name=name,
                path=str(path),
            )
    default = Path("~/.config/gcloud/application_default_credentials.json").expanduser()
    if "GOOGLE_APPLICATION_CREDENTIALS" not in files and default.is_file():
        files["GOOGLE_APPLICATION_CREDENTIALS"] = default
    return files


class Engine:
    """Start the containers of one run, and remove them.

    Args:
        values: the parameters of the pipeline.
        output: folder of the results.
        cache: folder of the task cache, on which the run holds a lock.
        scratch: folder for copies of credentials; deleted after the run.
        checkpoints: phase → the folder of its checkpoints.
        packs: the classifiers of the run's tasks.

    Raises:
        UserError: no engine responds, an image is missing, or a folder cannot be mounted.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        output: Path,
        cache: Path,
        scratch: Path,
        checkpoints: Mapping[str, Path],
        packs: Packs,
    ) -> None:
        self.client = connect()
        info = self.client.info()
        options = info.get("SecurityOptions") or []
        rootless = info.get("Rootless") or "name=rootless" in options
        # If the user's id is mapped to another one inside, or is root, the containers share its group instead.
        self.shares_group = rootless or not os.getuid()
        self.user = f"{USER}:0" if self.shares_group else f"{os.getuid()}:{os.getgid()}"
        self.label = {LABEL: str(cache.resolve())}
        self.security = ["no-new-privileges"]
        if "name=selinux" in options:
            self.security.append("label=disable")  # the alternative is to relabel the user's folders
        self.scratch = scratch
        self.remove_containers()
        self.images = {phase: self._find_image(phase) for phase in PHASES}
        if missing := [phase for phase, reference in self.images.items() if not reference]:
            raise explain_missing(missing)
        given = _given_places(values)
        paths = {name: Path(value) for name, value in given.items()}
        self.inputs = [
            self._mount_input(name, path) for name, path in paths.items() if path.is_absolute() and path.exists()
        ]
        self.remote = any(value.startswith(REMOTE) for value in given.values())
        self.output = output
        champion = placement().options.champion
        beside = output.parent if champion == LAST else Path(champion)
        reachable = beside.is_absolute() and beside.exists()
        self.champion = [self._mount_input("champion", beside)] if reachable else []
        self.remote_champion = champion.startswith(REMOTE)
        weights = parse_weights(placement().options.weights)
        self.remote_weights = weights is not None and weights.place.startswith(REMOTE)
        local = weights is not None and not self.remote_weights
        self.weights = [self._mount_input("weights", Path(weights.place))] if weights and local else []
        if self.remote or self.remote_champion or self.remote_weights:
            _credential_files(os.environ)  # fails early if one cannot be read
        self.results = self._mount("OUT", output, read_only=False)
        for folder in (cache / "artifacts", *checkpoints.values()):
            self._allow_writes(folder, list_folders(folder))
        self.checkpoints = checkpoints
        self.packs = packs
        if self.shares_group:
            check_not_private(output)
        if output.exists():  # fails early if it is unusable; a new folder is created with the first results
            self._allow_writes(output, list_published_folders(output))

    def _find_image(self, phase: str) -> str:
        """Return the id of a phase's image; empty if it does not exist."""
        for prefix in ("", "localhost/"):  # Podman's prefix for images without a registry
            with contextlib.suppress(ImageNotFound):
                return str(self.client.images.get(f"{prefix}{image(phase)}").id)
        return ""

    def _mount(self, name: str, path: Path, read_only: bool) -> Mount:
        """Return a mount of a folder at the same path in the container.

        Raises:
            UserError: `containers.path_conflict`.
        """
        _refuse_reserved(name, path)
        return Mount(str(path), str(path), type="bind", read_only=read_only)

    def _mount_input(self, name: str, path: Path) -> Mount:
        """Return a read-only mount of an input.

        Raises:
            UserError: `containers.private_folder` or `containers.path_conflict`.
        """
        mode = path.stat().st_mode
        if self.shares_group and not mode & (0o050 if path.is_dir() else 0o040) and not mode & 0o004:
            raise UserError(
                f"{name} is {path}, which only its owner may read",
                "let its group read it (`chmod -R g+rX`)",
                "containers.private_folder",
                name=name,
            )
        return self._mount(name, path, read_only=True)

    def _allow_writes(self, folder: Path, subfolders: list[Path]) -> None:
        """Create a folder and let the containers write to it: if they share only the group, the group may write.

        Args:
            folder: the folder.
            subfolders: existing ones that the containers write to; other ones keep their permissions.

        Raises:
            UserError: `containers.foreign_folder`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if not self.shares_group:
            return
        for path in (folder, *subfolders):
            status = path.stat()
            if status.st_uid == os.getuid() and status.st_gid == os.getgid():
                path.chmod(status.st_mode & 0o7777 | 0o070)
            elif path == folder:
                raise UserError(
                    f"OUT is {folder}, which belongs to another user",
                    "choose another folder",
                    "containers.foreign_folder",
                )

    def start(self, task: str, command: list[str], volumes: dict[str, Any], environment: dict[str, str]) -> Container:
        """Start a task.

        Args:
            task: its name.
            command: the command from kfp, `sh -c` and its arguments.
            volumes: the volumes from kfp.
            environment: additional environment variables.

        Raises:
            UserError: `containers.start_failed`.
        """
        phase = PHASE_OF.get(task, task)
        reads_input = phase in ("check_inputs", "prepare_data")
        reads_champion = task in ("check_inputs", "read_champion")
        reads_weights = phase in ("check_inputs", "train_classifier")
        reads_remote = (self.remote and reads_input) or (self.remote_champion and reads_champion)
        reads_remote = reads_remote or (self.remote_weights and reads_weights)
        variables, mounts = self._credentials() if reads_remote else ({}, [])
        writes_output = phase in ("check_inputs", "publish")  # check_inputs checks that it is writable
        if writes_output:
            self._allow_writes(self.output, list_published_folders(self.output))
        if phase in self.checkpoints:
            variables = variables | task_variables(phase, command, self.checkpoints, self.packs)
            mounts = [*mounts, self._mount("the folder of checkpoints", self.checkpoints[phase], read_only=False)]
        for source in volumes:
            Path(source).mkdir(parents=True, exist_ok=True)
        shell, flag, script, *rest = command
        try:
            container = self.client.containers.create(
                self.images[phase],
                [shell, flag, f"umask 002; {script}", *rest],
                user=self.user,
                environment={**variables, **environment},
                volumes=volumes,
                mounts=[
                    Mount("/tmp", None, type="volume"),  # noqa: S108
                    *(self.inputs if reads_input else []),
                    *(self.champion if reads_champion else []),
                    *(self.weights if reads_weights else []),
                    *([self.results] if writes_output else []),
                    *mounts,
                ],
                read_only=True,
                cap_drop=["ALL"],
                security_opt=self.security,
                # The network of the host has the same proxies and host names as a process.
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

    def _credentials(self) -> tuple[dict[str, str], list[Mount]]:
        """Return the variables and mounts with the credentials for remote data.

        The values are passed to the engine, not in a command; a mount is of a copy, which the group may read.
        """
        variables = {
            name: value
            for name, value in os.environ.items()
            if (name in CREDENTIAL_VARIABLES or name.startswith(CREDENTIAL_PREFIXES)) and name not in UNREAD_FILES
        }
        token_file = Path("~/.kaggle/kaggle.json").expanduser()
        with contextlib.suppress(OSError, ValueError, KeyError):
            token = json.loads(token_file.read_text(encoding="utf-8"))
            variables = {"KAGGLE_USERNAME": token["username"], "KAGGLE_KEY": token["key"]} | variables
        mounts = []
        for name, path in _credential_files(os.environ).items():
            inside = f"/opt/credentials-{name.lower()}"
            mounts.append(Mount(inside, str(self._copy_secret(name, path)), type="bind", read_only=True))
            variables[name] = inside
        return variables, mounts

    def _copy_secret(self, variable: str, path: Path) -> Path:
        """Copy a file that others must never be able to read; a token may have changed since the last task."""
        copy = self.scratch / f"credentials-{variable.lower()}"
        copy.unlink(missing_ok=True)
        copy.touch(mode=0o600, exist_ok=False)  # before the content is in it
        shutil.copyfile(path, copy)
        copy.chmod(0o440)
        return copy

    def remove_containers(self) -> None:
        """Remove all containers of runs with this cache, such as those of a killed run."""
        (name, value) = next(iter(self.label.items()))
        with contextlib.suppress(*_FAILURES):
            for container in self.client.containers.list(all=True, filters={"label": f"{name}={value}"}):
                with contextlib.suppress(*_FAILURES):
                    container.remove(v=True, force=True)
