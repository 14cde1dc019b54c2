"""Run the complete pipeline on this machine, each task in its own process or container.

    DATA    demo, kaggle, gs://bucket/prefix or a folder (default: the preset's, else demo)
    PRESET  demo, cpu or full (default demo)
    OUT     the folder of the results (default runs/<run id>)
    RUNNER  processes (default) or containers, each phase's in its own image, by Docker or Podman

and any pipeline parameter. Finished tasks are cached below runs/.cache: rerun the same command to resume.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from components.container_images import content
from components.placement import override_options
from components.shared.data_identity import data_identity
from components.shared.errors import ERROR_RECORD_PREFIX, ExitCode, UserError, as_user_error
from components.shared.log import PREFIX, duration
from components.shared.parameters import defaults, parse
from counterweight import parameters
from counterweight.exit_codes import run_command
from counterweight.tasks import CHECKPOINTS, Process, Task, phase_of

if TYPE_CHECKING:
    from counterweight.containers import Engine

BEGUN = time.monotonic()
ROOT = Path(__file__).resolve().parent.parent
CACHE = Path("runs/.cache")
RUNNERS = ("processes", "containers")
UNCACHED_TASKS = 2
"""check_inputs detects changed data, and publish an incomplete output, so both always run."""


def _local(value: str, name: str, words: tuple[str, ...]) -> str:
    """A file's or folder's whole path; an address, one of the words, and with `split` a fold (`2/5`), as they are.

    Args:
        value: what was given.
        name: how the user knows it.
        words: what is no path.

    Raises:
        UserError: there is no such file or folder.
    """
    if "://" in value or value in words or (name == "data_split" and re.fullmatch(r"\s*\d+\s*/\s*\d+\s*", value)):
        return value
    if value != value.encode(errors="replace").decode():
        raise UserError(f"{name} is {value!r}, which is not UTF-8", "rename it", "run.not_utf8", name=name)
    path = Path(os.path.expanduser(value))  # noqa: PTH111 (Path's own raises where there is no such user)
    if not (path.is_file() if name == "data_split" else path.is_dir()):
        kind = ("k/n for a fold", "CSV file") if name == "data_split" else ("gs://…", "folder")
        raise UserError(
            f"{name} is {value}, which is not an existing {kind[1]}",
            f"use {', '.join([*words, kind[0]])} or a {kind[1]}",
            "run.missing_path",
            name=name,
        )
    return str(path.resolve())


def arguments(words: list[str], default: dict[str, Any]) -> tuple[str, dict[str, Any], Path]:
    """What a command asks for.

    Args:
        words: `NAME=value`.
        default: of the pipeline's parameters.

    Returns:
        The run id, which is the same for the same command and data; all parameters; the folder of the results.

    Raises:
        UserError: something can't be used.
    """
    given = parameters.assignments(words)
    name = given.pop("PRESET", "demo")
    values = default | parameters.preset(name)
    for name_here, parameter in (("OUT", "output"), ("DATA", "data"), ("EXTERNAL", "data_external")):
        if name_here in given and parameter in given:
            raise UserError(
                f"{name_here} and {parameter} are the same parameter",
                "set one of them",
                "run.repeated_parameter",
                name=parameter,
            )
    out = given.pop("OUT", "") or given.pop("output", "")
    if "://" in out:
        raise UserError(
            f"OUT is {out}, but a local run writes to a folder on this machine", "name a folder", "run.remote_output"
        )
    for name_here, parameter in (("DATA", "data"), ("EXTERNAL", "data_external")):
        if value := given.pop(name_here, ""):
            given[parameter] = value
    values |= parse(given)
    data = str(values["data"])
    values["data"] = _local(data, "DATA", ("demo", "kaggle"))
    values["data_external"] = _local(str(values["data_external"]), "EXTERNAL", ("none",))
    values["data_split"] = _local(str(values["data_split"]), "data_split", ("random",))
    asked = {key: value for key, value in values.items() if key != "output"}
    places = (str(values[name]) for name in ("data", "data_external", "data_split"))
    identity = data_identity(*(place for place in places if "://" not in place))
    digest = hashlib.sha256(json.dumps([asked, identity], sort_keys=True).encode()).hexdigest()[:8]
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(data).name or "data").strip("-").lower()[:24]
    run_id = f"{stem}-{name}-{digest}"
    folder = Path(os.path.expanduser(out or f"runs/{run_id}")).resolve()  # noqa: PTH111
    return run_id, values | {"output": str(folder)}, folder


def chosen_runner(words: list[str]) -> tuple[str, list[str]]:
    """Where the tasks run, which changes nothing about them, and the other words.

    Raises:
        UserError: there is no such place.
    """
    given = [word.partition("=")[2] for word in words if word.startswith("RUNNER=")] or [RUNNERS[0]]
    if len(given) > 1 or given[0] not in RUNNERS:
        raise UserError(f"RUNNER is {' and '.join(given)}", f"choose from {', '.join(RUNNERS)}", "run.unknown_runner")
    return given[0], [word for word in words if not word.startswith("RUNNER=")]


def check_writable(folder: Path, what: str) -> None:
    """Finds out before hours of work whether a folder, which `what` names for the user, can be written.

    Raises:
        UserError: they can't.
    """
    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(
            f"{what} is {folder}, but {nearest} is a file", "choose another folder", "run.not_a_folder", name=what
        )
    probe = nearest / f".counterweight-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{what} is {folder}, which is not writable ({error.strerror})",
            "choose another folder",
            "run.not_writable",
            name=what,
        ) from error


def say(console: TextIO, text: str) -> None:
    """Prints a line; not with `print`, which kfp replaces while tasks run in parallel and does not always restore."""
    console.write(text + "\n")
    console.flush()


class Runner:
    """Runs tasks for `kfp.local`: shows what they say, keeps everything in a log, and leaves no process behind.

    Args:
        console: where progress goes.
        log: everything else.
        scratch: for the tasks' temporary files.
        checkpoints: of those who train GANs.
    """

    def __init__(self, console: TextIO, log: TextIO, scratch: Path, checkpoints: Path) -> None:
        self.console, self.log, self.scratch, self.checkpoints = console, log, scratch, checkpoints
        self.user_errors: list[UserError] = []
        self.failed: list[str] = []
        self.ran = 0
        self._outside_s = 0.0
        self._idle_since: float | None = BEGUN
        self._tasks: list[Task] = []
        self._lock = threading.RLock()  # a signal's handler runs in the main thread, which may hold it
        self._stopping = False

    def show(self, text: str) -> None:
        """One line with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - BEGUN), 60)
        say(self.console, f"[{minutes:3}:{seconds:02}] {text}")

    def run_process(self, full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        """Stands in for `kfp.local.subprocess_task_handler.run_local_subprocess`: runs one task and returns its exit
        code."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.scratch),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            # A user's own Keras settings would change results behind the cache's back.
            "KERAS_BACKEND": "tensorflow",
            "KERAS_HOME": str(self.scratch / "keras"),
            CHECKPOINTS: str(self.checkpoints),
            **(env_vars or {}),
        }
        return self._follow(phase_of(full_command), lambda: Process(full_command, environment))

    def run_container(
        self,
        engine: "Engine",
        command: list[str],
        volumes: dict[str, Any],
        environment: dict[str, str] | None = None,
        **others: Any,
    ) -> int:
        """Stands in for `kfp.local.docker_task_handler.run_docker_container`, which can take a failed task for a
        success. The client and the image among `others` are the engine's business."""
        phase = phase_of(command)
        return self._follow(phase, lambda: engine.start(phase, command, volumes, environment or {}))

    def _follow(self, phase: str, start: Callable[[], Task]) -> int:
        """Runs one task and returns 0, or 1 if it failed."""
        with self._lock:
            if self._stopping:
                return 1
            self.ran += 1
            if self._idle_since is not None:
                self._outside_s += time.monotonic() - self._idle_since
                self._idle_since = None
            try:
                task = start()
            except UserError as error:  # kfp would swallow it
                self.user_errors.append(error)
                self._stopping = True
                return 1
            self._tasks.append(task)
        last: deque[str] = deque(maxlen=30)
        for line in task.lines:
            last.append(line)
            if line.startswith(ERROR_RECORD_PREFIX):
                self.user_errors.append(UserError.from_json(line.removeprefix(ERROR_RECORD_PREFIX)))
            elif line.startswith(PREFIX):
                self.show(line.removeprefix(PREFIX).rstrip())
            self._keep(line)
        how = task.wait()
        with self._lock:
            self._tasks.remove(task)
            if not self._tasks:
                self._idle_since = time.monotonic()
            if how and not self._stopping:
                self.failed = [*last, f"{phase}: {how}\n"]
                self._keep(self.failed[-1])
                self._stopping = True  # what runs may finish, and is kept; nothing more is started
        return 1 if how else 0

    def _keep(self, line: str) -> None:
        """Writes to the log; where it can't be, the run stops, since kfp would swallow the reason."""
        try:
            self.log.write(line)
        except OSError as error:
            self.user_errors.append(as_user_error(error) or UserError(str(error), "check the disk", "run.log_failed"))
            self.stop()

    def outside_s(self) -> float:
        """Seconds in which no task ran, from the start of the program until now: what the pipeline itself costs."""
        return self._outside_s + (time.monotonic() - self._idle_since if self._idle_since is not None else 0)

    def stop(self) -> None:
        """Kills what runs and starts nothing more."""
        with self._lock:
            self._stopping = True
            for task in self._tasks:
                task.kill()


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Holds a lock on the cache: kfp's keys hold the paths of a run's files, and two runs would lose each other's.

    Raises:
        UserError: another process holds it.
    """
    path = CACHE / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                "another run is in progress in this directory",
                "wait until it has finished, or stop it",
                "run.in_progress",
            ) from None
        yield


def checkpoints_of(run_id: str) -> Path:
    """The folder of a run's checkpoints, as long as it has not ended well: none of another version of the code, whose
    training can't be gone on with."""
    place = (CACHE / "checkpoints").resolve()
    folder = place / f"{run_id}-{content('train_gan')}"
    for other in place.glob(f"{run_id}-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def without_retries(spec: Any) -> None:
    """Remove the retries from a pipeline: they are for lost nodes, and kfp would wait minutes between them."""
    for dag in (spec.root.dag, *(component.dag for component in spec.components.values())):
        for task in dag.tasks.values():
            task.ClearField("retry_policy")


def run(words: list[str], console: TextIO) -> int:
    """Run the pipeline and return the exit code."""
    warnings.filterwarnings("ignore")  # kfp's: image names, accelerators and limits mean nothing to a local run
    from kfp import local
    from kfp.local import docker_task_handler, subprocess_task_handler

    where, words = chosen_runner(words)
    given, options = parameters.split_options(parameters.assignments(words))
    override_options({"gans_per_task": "1", "classifiers_per_task": "1"} | options)
    from pipeline import counterweight

    run_id, values, folder = arguments([f"{name}={value}" for name, value in given.items()], defaults())
    check_writable(folder, "OUT")
    check_writable(CACHE.resolve(), "the task cache")
    with only_one():
        scratch = (CACHE / "scratch").resolve()
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
        scratch.mkdir(parents=True)
        checkpoints = checkpoints_of(run_id)
        engine = None
        if where == "containers":
            from counterweight.containers import Engine

            engine = Engine(values, folder, CACHE.resolve(), scratch, checkpoints)
        log_path = CACHE / "logs" / f"{run_id}.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("w", encoding="utf-8") as log:
            runner = Runner(console, log, scratch, checkpoints)
            subprocess_task_handler.run_local_subprocess = runner.run_process
            if engine:
                docker_task_handler.run_docker_container = partial(runner.run_container, engine)
            # kfp puts the path of Python into a shell script unquoted, and into the input of the task as well.
            subprocess_task_handler.replace_python_executable = lambda command, executable: command
            logging.basicConfig(stream=log)
            say(console, f"run {run_id}: results in {_short(folder)}, complete log in {log_path}")
            local.init(
                runner=local.DockerRunner() if engine else local.SubprocessRunner(use_venv=False),
                pipeline_root=str(CACHE / "artifacts"),
                workspace_root=str(scratch / "workspace"),
                enable_caching=True,
                cache_root=str(CACHE / "keys"),
            )

            def interrupted(number: int, frame: object) -> None:
                runner.stop()
                raise KeyboardInterrupt

            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, interrupted)
            without_retries(counterweight.pipeline_spec)
            try:
                with contextlib.redirect_stdout(log):
                    counterweight(**values)
            except KeyboardInterrupt:
                say(console, "\nstopped; rerun the same command to resume")
                return ExitCode.INTERRUPTED
            except Exception as error:
                runner.stop()
                traceback.print_exc(file=log)
                user_error = as_user_error(error)
                if runner.user_errors:
                    raise runner.user_errors[0] from error
                if user_error:
                    raise user_error from error
                say(console, "".join(runner.failed) or traceback.format_exc())
                say(console, f"the run failed; the complete log is in {log_path}")
                return 1
            finally:
                if engine:
                    engine.sweep()  # an interruption may fall between the start of a container and its registration
                shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(checkpoints, ignore_errors=True)
        _conclude(folder, runner, console)
        return 0


def _short(path: Path) -> str:
    """Return a path relative to the working directory, if it is below it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _conclude(folder: Path, runner: Runner, console: TextIO) -> None:
    """Print the comparison and the path of the report."""
    from components.evaluate.report import render_text

    results = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    seconds = time.monotonic() - BEGUN
    took = f"{duration(seconds)} in {runner.ran} tasks, {runner.outside_s() / seconds:.1%} of it between them"
    if runner.ran == UNCACHED_TASKS:
        took = f"{duration(seconds)}; all other tasks were cached"
    say(console, f"\n{render_text(results).rstrip()}\n\n{took}")
    say(console, f"report: {_short(folder / 'report.html')}")


if __name__ == "__main__":
    sys.exit(run_command(lambda: run(parameters.words(sys.argv[1:]), sys.stdout)))
