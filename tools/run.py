"""Runs the whole pipeline on this machine, each task in a process of its own: `python -m tools.run [NAME=value …]`.

    DATA    demo, kaggle, gs://bucket/prefix or a folder (default: the preset's, else demo)
    PRESET  demo, cpu or full (default demo)
    OUT     the folder of the results (default runs/<run id>)

and any pipeline parameter. Finished tasks are kept below runs/.cache: the same command goes on where it was stopped.
Exit codes: 0 done, 1 failed, 2 something that the user can mend, 130 interrupted.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from components.shared.errors import ERROR_PREFIX, EXIT_USER, UserError, as_user_error
from components.shared.progress import PREFIX, duration
from tools import parameters

BEGUN = time.monotonic()
ROOT = Path(__file__).resolve().parent.parent
CACHE = Path("runs/.cache")
EXIT_INTERRUPTED = 130


def data_version(data: str) -> str:
    """A fingerprint of the names, sizes and times of a folder's files, so that changed data is read again; "1" for
    other sources."""
    if "://" in data or not Path(data).is_dir():
        return "1"
    from components.prepare_data.images import SUFFIXES

    digest = hashlib.sha256()
    for folder, folders, names in os.walk(data):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or Path(name).suffix.lower() not in ("", ".csv", *SUFFIXES):
                continue  # results that were written into the data's own folder are no data
            with contextlib.suppress(OSError):
                facts = Path(folder, name).stat()
                digest.update(f"{folder}/{name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()[:16]


def arguments(words: list[str], defaults: dict[str, Any]) -> tuple[str, dict[str, Any], Path]:
    """What a command asks for.

    Args:
        words: `NAME=value`.
        defaults: of the pipeline's parameters.

    Returns:
        The run id, which is the same for the same command and data; all parameters; the folder of the results.

    Raises:
        UserError: something can't be used.
    """
    given = parameters.assignments(words)
    name = given.pop("PRESET", "demo")
    values = defaults | parameters.preset(name)
    for name_here, parameter in (("OUT", "output"), ("DATA", "data")):
        if name_here in given and parameter in given:
            raise UserError(f"{name_here} and {parameter} are the same; give one of them.")
    out = given.pop("OUT", "") or given.pop("output", "")
    if "://" in out:
        raise UserError(f"OUT is {out}; a local run writes to a folder on this machine, give one.")
    if given.get("DATA"):
        given["data"] = given["DATA"]
    given.pop("DATA", None)
    values |= parameters.typed(given, defaults)
    data = str(values["data"])
    if "://" not in data and data not in ("demo", "kaggle"):
        if data != data.encode(errors="replace").decode():
            raise UserError(f"DATA is {data!r}, which is not UTF-8; rename the folder.")
        if not Path(os.path.expanduser(data)).is_dir():  # noqa: PTH111 (Path's own raises where there is no such user)
            raise UserError(f"DATA is {data}, and there is no such folder; give demo, kaggle, gs://… or a folder.")
        values["data"] = str(Path(os.path.expanduser(data)).resolve())  # noqa: PTH111
    if "data_version" not in given:
        values["data_version"] = data_version(values["data"])
    asked = {key: value for key, value in values.items() if key != "output"}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(data).name or "data").strip("-").lower()[:24]
    run_id = f"{stem}-{name}-{digest}"
    folder = Path(os.path.expanduser(out or f"runs/{run_id}")).resolve()  # noqa: PTH111
    return run_id, values | {"output": str(folder)}, folder


def check_writable(folder: Path, what: str) -> None:
    """Finds out before hours of work whether a folder, which `what` names for the user, can be written.

    Raises:
        UserError: they can't.
    """
    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(f"{what} is {folder}, but {nearest} is a file; choose another folder.")
    probe = nearest / f".counterweight-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{what} is {folder}, which can't be written ({error.strerror}); choose another folder."
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
    """

    def __init__(self, console: TextIO, log: TextIO, scratch: Path) -> None:
        self.console, self.log, self.scratch = console, log, scratch
        self.mistakes: list[str] = []
        self.failed: list[str] = []
        self.ran = 0
        self._outside_s = 0.0
        self._idle_since: float | None = BEGUN
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.RLock()  # a signal's handler runs in the main thread, which may hold it
        self._stopping = False
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def show(self, text: str) -> None:
        """One line with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - BEGUN), 60)
        say(self.console, f"[{minutes:3}:{seconds:02}] {text}")

    def run(self, full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        """Stands in for `kfp.local.subprocess_task_handler.run_local_subprocess`: runs one task and returns its exit
        code."""
        with self._lock:
            if self._stopping:
                return EXIT_INTERRUPTED
            self.ran += 1
            if self._idle_since is not None:
                self._outside_s += time.monotonic() - self._idle_since
                self._idle_since = None
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                "TMPDIR": str(self.scratch),
                "TF_CPP_MIN_LOG_LEVEL": "2",
                # A user's own Keras settings would change results behind the cache's back.
                "KERAS_BACKEND": "tensorflow",
                "KERAS_HOME": str(self.scratch / "keras"),
                **(env_vars or {}),
            }
            # With exec the shell becomes the task's Python, so that what is asked of the child below holds for it.
            python = f"_KFP_RUNTIME=true exec {shlex.quote(sys.executable)} "
            command = [part.replace("_KFP_RUNTIME=true python3 ", python, 1) for part in full_command]
            parent = os.getpid()
            child = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                env=environment,
                start_new_session=True,
                preexec_fn=(lambda: self._die_with(parent)) if self._libc else None,
            )
            self._children.add(child)
        assert child.stdout is not None
        last: deque[str] = deque(maxlen=30)
        for line in child.stdout:
            last.append(line)
            if line.startswith(ERROR_PREFIX):
                self.mistakes.append(line.removeprefix(ERROR_PREFIX).strip())
            elif line.startswith(PREFIX):
                self.show(line.removeprefix(PREFIX).rstrip())
            self._keep(line)
        _, status, usage = os.wait4(child.pid, 0)
        code = child.returncode = os.waitstatus_to_exitcode(status)
        # On macOS it is in bytes.
        self._keep(f"{usage.ru_maxrss * (1 if sys.platform == 'darwin' else 1024) / 2**30:.2f} GiB at the peak\n")
        with self._lock:
            self._children.discard(child)
            if not self._children:
                self._idle_since = time.monotonic()
            if code and not self._stopping:
                self.failed = [*last, f"exit code {code}\n"]
                self._stopping = True  # what runs may finish, and is kept; nothing more is started
        return code

    def _keep(self, line: str) -> None:
        """Writes to the log; where it can't be, the run stops, since kfp would swallow the reason."""
        try:
            self.log.write(line)
        except OSError as error:
            self.mistakes.append(str(as_user_error(error) or error))
            self.stop()

    def _die_with(self, parent: int) -> None:
        """Asks Linux to kill this child when the run is killed: an orphan would train on unseen."""
        assert self._libc is not None
        self._libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was killed before we could ask
            os._exit(1)

    def outside_s(self) -> float:
        """Seconds in which no task ran, from the start of the program until now: what the pipeline itself costs."""
        return self._outside_s + (time.monotonic() - self._idle_since if self._idle_since is not None else 0)

    def stop(self) -> None:
        """Kills what runs and starts nothing more."""
        with self._lock:
            self._stopping = True
            for child in self._children:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)


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
            raise UserError("another run is going on in this folder; wait for it, or stop it first.") from None
        yield


def run(words: list[str], console: TextIO) -> int:
    """Does what the command asks for and returns the exit code."""
    warnings.filterwarnings("ignore")  # kfp's: image names, accelerators and limits mean nothing to a local run
    from kfp import local
    from kfp.local import subprocess_task_handler

    from pipeline import counterweight

    spec = counterweight.pipeline_spec.root.input_definitions.parameters
    defaults = {name: parameters.default_of(entry) for name, entry in spec.items()}
    run_id, values, folder = arguments(words, defaults)
    check_writable(folder, "OUT")
    check_writable(CACHE.resolve(), "the cache of finished tasks")
    with only_one():
        scratch = (CACHE / "scratch").resolve()
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
        scratch.mkdir(parents=True)
        log_path = CACHE / "logs" / f"{run_id}.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("w", encoding="utf-8") as log:
            runner = Runner(console, log, scratch)
            subprocess_task_handler.run_local_subprocess = runner.run
            # kfp's own puts this Python's path into a shell script unquoted, and into the task's input as well.
            subprocess_task_handler.replace_python_executable = lambda command, executable: command
            logging.basicConfig(stream=log)
            say(console, f"run {run_id}: results go to {_short(folder)}, all output to {log_path}")
            local.init(
                runner=local.SubprocessRunner(use_venv=False),
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
            try:
                with contextlib.redirect_stdout(log):
                    counterweight(**values)
            except KeyboardInterrupt:
                say(console, "\nstopped; the same command goes on from here.")
                return EXIT_INTERRUPTED
            except Exception as error:
                runner.stop()
                traceback.print_exc(file=log)
                mistake = as_user_error(error)
                if runner.mistakes or mistake:
                    raise UserError(runner.mistakes[0] if runner.mistakes else str(mistake)) from error
                say(console, "".join(runner.failed) or traceback.format_exc())
                say(console, f"the run failed; all output is in {log_path}")
                return 1
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        _conclude(folder, runner, console)
        return 0


def _short(path: Path) -> str:
    """A path as a person would type it from here."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _conclude(folder: Path, runner: Runner, console: TextIO) -> None:
    """Prints the comparison and where the report is."""
    from components.evaluate.report import render_text

    results = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    seconds = time.monotonic() - BEGUN
    took = f"{duration(seconds)} in {runner.ran} tasks, {runner.outside_s() / seconds:.1%} of it outside of them"
    # publish always runs: it is the one that finds out whether the folder is complete.
    if runner.ran == 1:
        took = f"{duration(seconds)}; every task but publish was done before"
    say(console, f"\n{render_text(results).rstrip()}\n\n{took}")
    say(console, f"report: {_short(folder / 'report.html')}")


def main() -> int:
    """The command line."""
    try:
        return run(parameters.words(sys.argv[1:]), sys.stdout)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        mistake = as_user_error(error)
        if mistake is None:
            raise
        print(f"error: {mistake}", file=sys.stderr)
        return EXIT_USER


if __name__ == "__main__":
    sys.exit(main())
