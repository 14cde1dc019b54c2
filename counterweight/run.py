"""Run the complete pipeline on this machine, each task in its own process or container.

Finished tasks are cached below runs/.cache. With champion=last, each run has a folder <run id> in OUT.

On a terminal, a table shows the state and progress of each task. In a pipe, in CI, in a pod, and with NO_COLOR or
TERM=dumb, progress is printed as lines.
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
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from components.container_images import content
from components.placement import option_settings, override_options, placement
from components.shared.arms import GAN, uses_synthetic
from components.shared.champion import LAST, NONE
from components.shared.data_identity import data_identity
from components.shared.errors import ERROR_RECORD_PREFIX, ExitCode, UserError, as_user_error
from components.shared.files import file_sha256
from components.shared.initial_weights import MARK, other_hash
from components.shared.log import PREFIX, duration
from components.shared.parameters import (
    FOLD,
    arm_names,
    check_arms,
    defaults,
    format_sources,
    parse,
    source_label,
    synthetic_sources,
)
from components.shared.places import refuse_file
from components.shared.records import Results, load_record
from components.shared.stores.addresses import ADDRESS_FORM
from components.shared.workflow_size import Packs, pack_classifiers
from counterweight import parameters
from counterweight.output_lock import lock_output
from counterweight.task_table import PER_CLASS, TaskTable, class_labels, is_interactive, planned_labels, task_labels
from counterweight.tasks import Process, Task, phase_of, variables

if TYPE_CHECKING:
    from counterweight.containers import Engine

START_S = time.monotonic()
CACHE = Path("runs/.cache")
GAN_PARAMETERS = (
    "data", "data_columns", "data_duplicates", "data_image_size", "data_split", "gan_kimg", "gan_shared_kimg",
    "random_seed", "synthetic_classes",
)  # fmt: skip
"""Parameters that the training of GANs depends on; a test compares them with the compiled pipeline."""
CLASSIFIER_PARAMETERS = (*GAN_PARAMETERS, "classifier_epochs", "synthetic", "synthetic_per_class")
"""Parameters that the training of one classifier depends on; `arms`, shares and seeds only decide which are trained."""
CODE_OF_GANS = ("prepare_data", "train_features", "train_gan")
CHECKPOINTED = {
    "train_gan": (GAN_PARAMETERS, CODE_OF_GANS),
    "train_classifier": (
        CLASSIFIER_PARAMETERS,
        (*CODE_OF_GANS, "generate_images", "balance_dataset", "train_classifier"),
    ),
}
"""Phase that writes checkpoints → the parameters and the phases whose code its training depends on."""
RUNNERS = ("processes", "containers")
PER_TASK = {"gans_per_task": "1", "classifiers_per_task": "3"}
"""Options of a local run unless the user gives others: smaller tasks, so that a change repeats less."""
UNCACHED_TASKS = 2
"""check_inputs detects changed data, and publish an incomplete output, so both always run."""


def _resolve_path(value: str, name: str, words: tuple[str, ...]) -> str:
    """Return the absolute path of a file or folder; return addresses, keywords and folds (`2/5`) unchanged.

    Args:
        value: the value of the parameter.
        name: the parameter's name for the user.
        words: its keywords, which are not paths.

    Raises:
        UserError: `run.missing_path` or `run.not_utf8`.
    """
    if "://" in value or value in words or (name == "data_split" and FOLD.fullmatch(value)):
        return value
    if value != value.encode(errors="replace").decode():
        raise UserError(f"{name} is {value!r}, which is not UTF-8", "rename it", "run.not_utf8", name=name)
    path = Path(os.path.expanduser(value))  # noqa: PTH111 (`Path.expanduser` raises for an unknown user)
    if path.is_file() and name != "data_split":
        raise refuse_file(name, value)
    if not (path.is_file() if name == "data_split" else path.is_dir()):
        kind = ("k/n for a fold", "CSV file") if name == "data_split" else (ADDRESS_FORM, "folder")
        raise UserError(
            f"{name} is {value}, which is not an existing {kind[1]}",
            f"use {', '.join([*words, kind[0]])} or a {kind[1]}",
            "run.missing_path",
            name=name,
        )
    return str(path.resolve())


def _resolve_sources(values: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the parameter `synthetic` with absolute paths, and the places in it.

    Raises:
        UserError: as in `_resolve_path`, or `run.comma`.
    """
    sources = {
        name: _resolve_path(place, source_label(name), (GAN,))
        for name, place in synthetic_sources(str(values["synthetic"])).items()
    }
    for place in sources.values():
        if "," in place:
            raise UserError(
                f"synthetic names {place}, which contains a comma", "rename the folder", "run.comma", value=place
            )
    return format_sources(sources), [place for name, place in sources.items() if name != GAN]


def _refuse_output_in(sources: Iterable[str], folder: Path) -> None:
    """Refuse results inside a folder of images: the next run would read them as data."""
    for source in sources:
        if Path(source).is_dir() and folder.is_relative_to(source):
            raise UserError(
                f"OUT is {folder}, inside {source}, whose images the next run would read as data",
                "name a folder outside it with OUT",
                "run.output_in_data",
                output=str(folder),
                data=source,
            )


def arguments(given: Mapping[str, str], default: dict[str, Any]) -> tuple[str, dict[str, Any], Path]:
    """Return run id, parameters and output folder of a command.

    Args:
        given: PRESET, and parameters by their names.
        default: default values of the pipeline's parameters.

    Returns:
        The run id, which is the same for the same command and data; all parameters; the folder of the results.

    Raises:
        UserError: an argument is invalid.
    """
    given = dict(given)
    preset, of_preset, _ = parameters.choose_preset(given.pop("PRESET", ""), given.get("data", ""))
    out = given.pop("output", "")
    if "://" in out:
        raise UserError(
            f"OUT is {out}, but a local run writes to a folder on this machine", "name a folder", "run.remote_output"
        )
    values = default | of_preset | parse(given)
    data = str(values["data"])
    values["data"] = _resolve_path(data, "DATA", ("demo", "kaggle"))
    values["data_external"] = _resolve_path(str(values["data_external"]), "EXTERNAL", ("none",))
    values["data_split"] = _resolve_path(str(values["data_split"]), "data_split", ("random",))
    values["synthetic"], places = _resolve_sources(values)
    settings = {key: value for key, value in values.items() if key != "output"}
    settings |= option_settings()
    sources = (*(str(values[name]) for name in ("data", "data_external", "data_split")), *places)
    _refuse_output_in(sources, Path(os.path.expanduser(out or "runs")).resolve())  # noqa: PTH111
    identity = data_identity(*(source for source in sources if "://" not in source))
    digest = hashlib.sha256(json.dumps([settings, identity], sort_keys=True).encode()).hexdigest()[:8]
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(data).name or "data").strip("-").lower()[:24]
    run_id = f"{stem}-{preset}-{digest}"
    beside = placement().options.champion == LAST  # each run keeps its folder, so that the next one finds its candidate
    folder = Path(os.path.expanduser(f"{out or 'runs'}/{run_id}" if beside or not out else out)).resolve()  # noqa: PTH111
    return run_id, values | {"output": str(folder)}, folder


def resolve_options(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options of a command with absolute paths; the hash of a file of weights is added if it is missing.

    Raises:
        UserError: `run.missing_path`, `weights.other_hash`, or the file cannot be read.
    """
    resolved = dict(options)
    if "champion" in options:
        resolved["champion"] = _resolve_path(options["champion"], "champion", (NONE, LAST))
    place, mark, digest = options.get("weights", NONE).partition(MARK)
    if place != NONE and "://" not in place:
        path = Path(os.path.expanduser(place)).resolve()  # noqa: PTH111
        if not path.is_file():
            raise UserError(
                f"weights is {place}, which is not an existing file",
                "give the path of a file of Keras ending in .h5",
                "run.missing_path",
                name="weights",
            )
        found = file_sha256(path)
        if mark and digest != found:
            raise other_hash(place, found)
        resolved["weights"] = f"{path}{MARK}{found}"
    return resolved


def split_runner(words: list[str]) -> tuple[str, list[str]]:
    """Return RUNNER and the other words. It is not part of the run id, because the results are the same.

    Raises:
        UserError: `run.unknown_runner`.
    """
    names = [word.partition("=")[2] for word in words if word.startswith("RUNNER=")] or [RUNNERS[0]]
    if len(names) > 1 or names[0] not in RUNNERS:
        raise UserError(f"RUNNER is {' and '.join(names)}", f"choose from {', '.join(RUNNERS)}", "run.unknown_runner")
    return names[0], [word for word in words if not word.startswith("RUNNER=")]


def check_writable(folder: Path, name: str) -> None:
    """Check, before hours of work, that a folder can be written or created.

    Args:
        folder: the folder.
        name: how error messages call it.

    Raises:
        UserError: `run.not_a_folder` or `run.not_writable`.
    """
    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(
            f"{name} is {folder}, but {nearest} is a file", "choose another folder", "run.not_a_folder", name=name
        )
    probe = nearest / f".counterweight-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{name} is {folder}, which is not writable ({error.strerror})",
            "choose another folder",
            "run.not_writable",
            name=name,
        ) from error


class Runner:
    """Run tasks for `kfp.local`: print their progress, log all output, and kill them when the run stops.

    Args:
        console: receives the progress.
        log: receives the complete output.
        scratch: folder of temporary files.
        checkpoints: phase → the folder of its checkpoints.
        packs: the classifiers of the run's tasks.
        table: shows the progress instead of lines on `console`; None for lines.

    Attributes:
        user_errors: errors that tasks reported, or that prevented one from starting.
        failure: last lines of the output of the first task that failed, and the reason.
        task_count: number of tasks that were started.
    """

    def __init__(
        self,
        console: TextIO,
        log: TextIO,
        scratch: Path,
        checkpoints: Mapping[str, Path],
        packs: Packs,
        table: TaskTable | None = None,
    ) -> None:
        self.console, self.log, self.scratch, self.checkpoints = console, log, scratch, checkpoints
        self.packs = packs
        self.table = table
        self.user_errors: list[UserError] = []
        self.failure: list[str] = []
        self.task_count = 0
        self._overhead_s = 0.0
        self._idle_since: float | None = START_S
        self._tasks: list[Task] = []
        self._lock = threading.RLock()  # a signal's handler runs in the main thread, which may hold it
        self._stopping = False
        self._killed = False
        self._thread = threading.local()
        """The task that the current thread executes: `labels`, and whether it was `started`, that is, not cached."""

    def show(self, text: str) -> None:
        """Print a line with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - START_S), 60)
        print(f"[{minutes:3}:{seconds:02}] {text}", file=self.console, flush=True)

    def execute_task(self, execute: Callable[..., tuple[dict[str, Any], Any]], **details: Any) -> Any:
        """Execute a task, or take its result from the cache, and keep its rows of the table up to date.

        Replaces `kfp.local.orchestrator.task_executor.execute_single_task`, which is `execute`, on a terminal.
        """
        from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils
        from kfp.local.status import Status

        assert self.table is not None
        component, labels = "", [details["task_name"]]
        given: dict[str, Any] = {}
        try:
            specification = details["components"][details["task_spec"].component_ref.name]
            container = details["executors"][specification.executor_label].container
            component = phase_of([*container.command, *container.args])
            given = OrchestratorUtils.make_task_arguments(details["task_spec"].inputs, details["io_store"])
            labels = task_labels(component, given)
        except Exception:  # an error of the display does not fail the run
            traceback.print_exc(file=self.log)
        self._thread.labels, self._thread.started = labels, False
        outputs, status = execute(**details)
        if status == Status.SUCCESS:
            self.table.end(labels, "done" if self._thread.started else "cached")
            if component == "prepare_data":
                for name in PER_CLASS:
                    self.table.expand(name, class_labels(name, ",".join(outputs["Output"])))
        elif self._thread.started:
            self.table.end(labels, "stopped" if self._killed else "failed")
        return outputs, status

    def run_process(self, full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        """Run a task in a process and return 0, or 1 if it failed.

        Replaces `kfp.local.subprocess_task_handler.run_local_subprocess`.
        """
        environment = {
            # In a pod, a local run may use folders; the tasks refuse them if they seem to be the cluster's.
            **{name: value for name, value in os.environ.items() if name != "KUBERNETES_SERVICE_HOST"},
            "PYTHONPATH": str(self.scratch / "code"),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.scratch),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            # The user's Keras settings would change results without changing the cache key.
            "KERAS_BACKEND": "tensorflow",
            "KERAS_HOME": str(self.scratch / "keras"),
            **variables(phase_of(full_command), full_command, self.checkpoints, self.packs),
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
        """Run a task in a container and return 0, or 1 if it failed.

        Replaces `kfp.local.docker_task_handler.run_docker_container`, which can report a failed task as succeeded. Its
        other arguments, a client and an image, are unused: the engine has its own.
        """
        phase = phase_of(command)
        return self._follow(phase, lambda: engine.start(phase, command, volumes, environment or {}))

    def _follow(self, phase: str, start: Callable[[], Task]) -> int:
        """Start a task, process its output until it finishes, and return 0, or 1 if it failed."""
        with self._lock:
            if self._stopping:
                return 1
            self.task_count += 1
            if self._idle_since is not None:
                self._overhead_s += time.monotonic() - self._idle_since
                self._idle_since = None
            try:
                task = start()
            except UserError as error:  # kfp would swallow it
                self.user_errors.append(error)
                self._stopping = True
                return 1
            self._tasks.append(task)
        if self.table:
            self._thread.started = True
            self.table.start(self._thread.labels)
        last_lines: deque[str] = deque(maxlen=30)
        for line in task.lines:
            last_lines.append(line)
            if line.startswith(ERROR_RECORD_PREFIX):
                self.user_errors.append(UserError.from_json(line.removeprefix(ERROR_RECORD_PREFIX)))
            elif line.startswith(PREFIX):
                text = line.removeprefix(PREFIX).rstrip()
                if self.table:
                    self.table.update(self._thread.labels, text)
                else:
                    self.show(text)
            self._log(line)
        reason = task.wait()
        with self._lock:
            self._tasks.remove(task)
            if not self._tasks:
                self._idle_since = time.monotonic()
            if reason and not self._stopping:
                self.failure = [*last_lines, f"{phase}: {reason}\n"]
                self._log(self.failure[-1])
                self._stopping = True  # running tasks may finish, so that they are cached; no more are started
        return 1 if reason else 0

    def _log(self, line: str) -> None:
        """Write to the log; if that fails, stop the run, because kfp would swallow the exception."""
        try:
            self.log.write(line)
        except OSError as error:
            self.user_errors.append(as_user_error(error) or UserError(str(error), "check the disk", "run.log_failed"))
            self.stop()

    def overhead_s(self) -> float:
        """Return the seconds since the start of the program in which no task ran."""
        return self._overhead_s + (time.monotonic() - self._idle_since if self._idle_since is not None else 0)

    def stop(self) -> None:
        """Kill the running tasks, and start no more."""
        with self._lock:
            self._stopping = self._killed = True
            for task in self._tasks:
                task.kill()


@contextlib.contextmanager
def lock_cache() -> Iterator[None]:
    """Hold a lock on the cache: its keys contain paths, so two runs at once would overwrite each other's files.

    Raises:
        UserError: `run.in_progress`.
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


def checkpoint_key(phase: str, values: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits of everything that the training of a phase depends on, except for the code.

    A run with other settings of the evaluation has the same key, and resumes the training of an interrupted one.
    """
    names, _ = CHECKPOINTED[phase]
    settings = {name: values[name] for name in names}
    sources = [str(values[name]) for name in ("data", "data_split")]
    if "synthetic" in settings:
        sources += [place for place in synthetic_sources(values["synthetic"]).values() if place != GAN]
    identity = data_identity(*(source for source in sources if "://" not in source))
    options = {
        name: value for name, value in option_settings().items() if phase != "train_gan" or name == "gan_architecture"
    }
    text = json.dumps([settings, options, identity], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checkpoint_folders(values: Mapping[str, Any]) -> dict[str, Path]:
    """Return phase → the folder of its checkpoints, and delete those of other versions of the code."""
    parent = (CACHE / "checkpoints").resolve()
    folders = {}
    for phase, (_, phases) in CHECKPOINTED.items():
        key = checkpoint_key(phase, values)
        code = hashlib.sha256(" ".join(map(content, phases)).encode()).hexdigest()[:16]
        folders[phase] = parent / f"{key}-{code}"
        for other in parent.glob(f"{key}-*"):
            if other != folders[phase]:
                shutil.rmtree(other, ignore_errors=True)
    return folders


def delete_checkpoints(folders: Mapping[str, Path], values: Mapping[str, Any]) -> None:
    """Delete the checkpoints of the trainings that a run has finished.

    Other ones with the same key are of a run with other arms or seeds, which was stopped.

    Args:
        folders: from `checkpoint_folders`.
        values: the run's parameters.
    """
    arms, seeds = arm_names(values), values["classifier_seeds"]
    finished = [f"train_classifier-{arm}-seed{seed}-" for arm in arms for seed in seeds]
    if GAN in synthetic_sources(values["synthetic"]) and uses_synthetic(arms):
        finished += ["pretrain_gan", "train_gan-"]
    for folder in folders.values():
        for training in folder.glob("*"):
            if training.name.startswith(tuple(finished)):
                shutil.rmtree(training, ignore_errors=True)
        with contextlib.suppress(OSError):  # it has other trainings, or does not exist
            folder.rmdir()


def let_loops_read_named_outputs() -> None:
    """Let `kfp.local` loop over any output of a task: it only knows those that are named `Output`."""
    from kfp.local import io

    get_parent_input = io.IOStore.get_parent_input

    def get(store: Any, key: str) -> Any:
        try:
            return get_parent_input(store, key)
        except ValueError:
            task, _, output = key.removeprefix("pipelinechannel--").rpartition("-")
            return store.get_task_output(task, output)

    io.IOStore.get_parent_input = get


def remove_retries(spec: Any) -> None:
    """Remove the retries from a pipeline: they are for lost nodes, and kfp would wait minutes between them."""
    for dag in (spec.root.dag, *(component.dag for component in spec.components.values())):
        for task in dag.tasks.values():
            task.ClearField("retry_policy")


def run(words: list[str], out: TextIO) -> int:
    """Run the pipeline and return the exit code."""
    warnings.filterwarnings("ignore")  # kfp warns that a local run ignores images, accelerators and limits
    from kfp import local
    from kfp.local import cache, docker_task_handler, logging_utils, subprocess_task_handler
    from kfp.local.orchestrator import task_executor

    from components.prepare_data.prepare import check_listing
    from counterweight import plan as planning
    from counterweight.task_cache import VerifiedCache, copy_code

    runner_name, words = split_runner(words)
    given, options = parameters.split_options(parameters.assignments(words))
    plan = planning.take_plan(given)
    override_options(PER_TASK | resolve_options(options))
    from pipeline import counterweight

    run_id, values, folder = arguments(given, defaults())
    if runner_name == "containers":
        from counterweight.containers import check_paths

        check_paths(values, folder)
    chosen = placement().options
    check_arms(values, chosen.synthetic_scope)
    check_listing(values, chosen.max_bad_images, chosen.metadata, chosen.synthetic_scope)
    check_writable(folder, "OUT")
    check_writable(CACHE.resolve(), "the task cache")
    with lock_cache(), lock_output(folder):
        scratch = (CACHE / "scratch").resolve()
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
        scratch.mkdir(parents=True)
        executors = counterweight.pipeline_spec.deployment_spec["executors"]
        copy_code(scratch / "code", {executors[name]["container"]["image"] for name in executors})
        cache.LocalCache = VerifiedCache
        checkpoints = checkpoint_folders(values)
        packs = pack_classifiers(arm_names(values), values["classifier_seeds"], chosen.classifiers_per_task)
        engine = None
        if runner_name == "containers":
            from counterweight.containers import Engine

            engine = Engine(values, folder, CACHE.resolve(), scratch, checkpoints, packs)
        log_path = CACHE / "logs" / f"{run_id}.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("w", encoding="utf-8") as log:
            interactive = is_interactive(out, os.environ)
            table = TaskTable(out, planned_labels(values), START_S) if interactive else None
            runner = Runner(out, log, scratch, checkpoints, packs, table)
            if table:
                task_executor.execute_single_task = partial(runner.execute_task, task_executor.execute_single_task)
            subprocess_task_handler.run_local_subprocess = runner.run_process
            if engine:
                docker_task_handler.run_docker_container = partial(runner.run_container, engine)
            # Tasks that run in parallel replace `print` by one that indents, and the last to end does not restore it.
            logging_utils.indented_print = lambda num_spaces=4: contextlib.nullcontext()
            # kfp puts the path of Python into a shell script unquoted, and into the input of the task as well.
            subprocess_task_handler.replace_python_executable = lambda command, executable: command
            logging.basicConfig(stream=log)
            print(f"run {run_id}: results in {_relative(folder)}, complete log in {log_path}", file=out, flush=True)
            _, _, preset = parameters.choose_preset(given.get("PRESET", ""), given.get("data", ""))
            for line in (preset, *(planning.announce(plan, values) if plan else ())):
                print(line, file=out, flush=True)
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
            remove_retries(counterweight.pipeline_spec)
            let_loops_read_named_outputs()
            try:
                with table or contextlib.nullcontext(), contextlib.redirect_stdout(log):
                    counterweight(**values)
            except KeyboardInterrupt:
                print("\nstopped; rerun the same command to resume", file=out, flush=True)
                return ExitCode.INTERRUPTED
            except Exception as error:
                runner.stop()
                traceback.print_exc(file=log)
                user_error = as_user_error(error)
                if runner.user_errors:
                    raise runner.user_errors[0] from error
                if user_error:
                    raise user_error from error
                print("".join(runner.failure) or traceback.format_exc(), file=out, flush=True)
                print(f"the run failed; the complete log is in {log_path}", file=out, flush=True)
                return 1
            finally:
                if engine:
                    # An interruption may come between the start of a container and its registration.
                    engine.remove_containers()
                shutil.rmtree(scratch, ignore_errors=True)
        delete_checkpoints(checkpoints, values)
        _print_results(folder, runner, out)
        return 0


def _relative(path: Path) -> str:
    """Return a path relative to the working directory, if it is below it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _print_results(folder: Path, runner: Runner, console: TextIO) -> None:
    """Print the comparison, the duration and the path of the report."""
    from components.evaluate.report.page import render_text

    results = load_record(folder / "metrics.json", Results)
    seconds = time.monotonic() - START_S
    took = f"{duration(seconds)} in {runner.task_count} tasks, {runner.overhead_s() / seconds:.1%} of it between them"
    if runner.task_count == UNCACHED_TASKS:
        took = f"{duration(seconds)}; all other tasks were cached"
    print(f"\n{render_text(results).rstrip()}\n\n{took}", file=console, flush=True)
    print(f"report: {_relative(folder / 'report.html')}", file=console, flush=True)
