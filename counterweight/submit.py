"""Starts a run on a cluster: `python -m counterweight.submit [NAME=value …]`.

    PRESET      demo, cpu or full (default demo)
    PARAMS      a YAML file of parameters
    DATA        demo, kaggle or gs://bucket/prefix
    OUT         gs://bucket/prefix for the results
    EXPERIMENT  the experiment that the run belongs to (default: the pipeline's name); made if it is missing
    WAIT        1: follow the run to its end, task by task
    TIMEOUT     seconds to follow it (default: a day)
    PLACEMENT   another file than manifests/placement.yaml

and any pipeline parameter, which beats PARAMS, which beats PRESET. The API is where `counterweight/client.py` says;
KFP_SERVICE_ACCOUNT names another Kubernetes service account for the run's pods than the installation's default. The
pipeline is uploaded as a version named after the git revision, or reused where that is there already.

Exit codes: 0 started (with WAIT=1: succeeded), 1 failed, 2 something that the user can mend, 3 cancelled, 4 timeout
(the run goes on), 5 API not reachable or not allowed, 130 interrupted (the run goes on).
"""

import contextlib
import hashlib
import io
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import kfp_server_api
import yaml

from components.placement import FILE_VARIABLE, placement
from components.shared.errors import UserError, printable
from components.shared.parameters import defaults, parse
from counterweight import parameters
from counterweight.client import AbsentError, Api, ApiError, RejectedError, UnansweredError, settings
from counterweight.exit_codes import run_command
from counterweight.logs import follow, switch, timeout

ROOT = Path(__file__).resolve().parent.parent
REMOTE = {"data": ("demo", "kaggle"), "output": ("auto",), "data_external": ("none",)}
"""Parameters that say where something is, and their words that mean no place."""

_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/.*)?")


@dataclass(frozen=True)
class Package:
    """The compiled pipeline.

    Attributes:
        name: the pipeline's.
        version: named after the git revision.
        content: the YAML.
        defaults: parameter → default.
    """

    name: str
    version: str
    content: bytes
    defaults: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


def compiled() -> Package:
    """Compiles `pipeline.py`.

    Raises:
        UserError: the placement file can't be used.
    """
    warnings.filterwarnings("ignore")  # kfp's, of what it will change one day
    from counterweight import compile as compiler

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder, "pipeline.yaml")
        compiler.main(path)
        content = path.read_bytes()
    from pipeline import counterweight

    spec = counterweight.pipeline_spec
    digest = hashlib.sha256(content).hexdigest()
    return Package(spec.pipeline_info.name, revision(ROOT, digest), content, defaults())


def revision(root: Path, digest: str) -> str:
    """The short hash of git's commit; with what tells apart packages of the same commit where files were changed, or
    where there is no git.

    Args:
        root: the working tree.
        digest: of the compiled package, in hexadecimal. Images are named by hashes of their code in it.
    """

    def git(*arguments: str) -> str | None:
        program = shutil.which("git")
        done = program and subprocess.run([program, "-C", root, *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done and not done.returncode else None

    commit, changed = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain")
    if not commit or changed is None:
        return f"no-git-{digest[:8]}"
    return f"{commit}-dirty-{digest[:8]}" if changed else commit


def checked(given: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Parameters from a file, each of its parameter's type.

    Args:
        given: as YAML gives them.
        defaults: of the pipeline's parameters.
        where: names the file in a message.

    Raises:
        UserError: one can't be used.
    """
    words: dict[str, str] = {}
    for name, value in given.items():
        plain = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in plain):
            raise UserError(f"{where}: {name} is {value!r}; give text, a number or a list of numbers.")
        words[str(name)] = ",".join(map(str, plain))
    try:
        return parse(words)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def check_remote(values: Mapping[str, Any]) -> None:
    """Refuses what only this machine can reach.

    Raises:
        UserError: a parameter names a folder or file here.
    """
    for name, words in REMOTE.items():
        value = str(values.get(name, ""))
        if name not in values or value in words or _BUCKET.fullmatch(value):
            continue
        choice = ", ".join((*words, "gs://bucket/prefix"))
        raise UserError(f"{name} is {value!r}, which a cluster can't reach; choose from {choice}.")
    split = str(values.get("data_split", ""))
    if split.lower().endswith(".csv") and not _BUCKET.fullmatch(split):
        raise UserError(f"split is {split!r}, which a cluster can't reach; give it as gs://bucket/name.csv.")


def arguments(given: Mapping[str, str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of the run that a command asks for.

    Args:
        given: `NAME` → value, without the words that are not about parameters.
        defaults: of the pipeline's parameters.

    Raises:
        UserError: one can't be used on a cluster.
    """
    given = dict(given)
    name, file = given.pop("PRESET", "") or "demo", given.pop("PARAMS", "")
    values = dict(defaults) | checked(parameters.preset(name), defaults, f"preset {name}")
    if file:
        values |= checked(read_yaml(Path(file), "PARAMS"), defaults, file)
    for word, parameter in (("DATA", "data"), ("OUT", "output")):
        if word in given and parameter in given:
            raise UserError(f"{word} and {parameter} are the same; give one of them.")
        if value := given.pop(word, ""):
            given[parameter] = value
    values |= parse(given)
    check_remote(values)
    return values


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """A YAML file whose content is a mapping.

    Args:
        path: of the file.
        what: names it for the user.

    Raises:
        UserError: it can't be read, or is no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{what} is {path}, which can't be read ({error.strerror}); give another.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{what} is {path}, which is not YAML{line}; mend it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{what} is {path}, which holds no names with values; write one NAME: value a line.")
    return content


def find_pipeline(api: Api, name: str) -> Any:
    """The pipeline of this name, or None."""
    found = api.named(api.pipelines.pipeline_service_list_pipelines, "pipelines", name, **in_namespace(api))
    return found[0] if found else None


def in_namespace(api: Api) -> dict[str, str]:
    """The namespace as an argument; none where there is none."""
    return {"namespace": api.namespace} if api.namespace else {}


def uploaded(api: Api, package: Package) -> tuple[str, str, str, bool]:
    """Makes sure that the package is on the cluster.

    A version of this name that holds another package (compiled with another placement or other images, from the same
    commit) is left alone: this package gets a name with its hash.

    Returns:
        The ids of the pipeline and the version, the version's name, and whether it was there before.

    Raises:
        ApiError: the API can't be reached, or does not let us.
    """
    mark = f"package sha256:{package.digest}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        path.write_bytes(package.content)

        def make_pipeline() -> Any:
            new = kfp_server_api.V2beta1Pipeline(
                name=package.name, display_name=package.name, namespace=api.namespace or None
            )
            try:
                return api.pipelines.pipeline_service_create_pipeline(new)
            except (AbsentError, RejectedError) as error:
                if isinstance(error, RejectedError) and error.status not in (404, 405, 501):
                    raise
                # Where this call is not let through, the upload of a first version makes the pipeline.
                return api.uploads.upload_pipeline(str(path), name=package.name, description=mark, **in_namespace(api))

        def make_version() -> Any:
            return api.uploads.upload_pipeline_version(
                str(path), pipelineid=key, name=name, display_name=name, description=mark
            )

        def find_version() -> Any:
            found = api.named(api.pipelines.pipeline_service_list_pipeline_versions, "pipeline_versions", name, key)
            return found[0] if found else None

        pipeline = api.call(find_pipeline, api, package.name)
        if pipeline is None:
            pipeline = api.create(make_pipeline, lambda: find_pipeline(api, package.name))
        key, name = pipeline.pipeline_id, package.version
        version = api.call(find_version)
        if version is not None and "sha256:" in (version.description or "") and mark not in version.description:
            name = f"{name}-{package.digest[:8]}"
            version = api.call(find_version)
        there = version is not None
        version = version or api.create(make_version, find_version)
        return key, version.pipeline_version_id, name, there


def experiment(api: Api, name: str) -> str:
    """The id of the experiment of this name, which is made if it is missing.

    Raises:
        ApiError: the API can't be reached, or does not let us.
    """

    def find() -> Any:
        found = api.named(api.experiments.experiment_service_list_experiments, "experiments", name, **in_namespace(api))
        return found[0] if found else None

    def make() -> Any:
        new = kfp_server_api.V2beta1Experiment(display_name=name, namespace=api.namespace or None)
        return api.experiments.experiment_service_create_experiment(new)

    return (api.call(find) or api.create(make, find)).experiment_id


def run_name(pipeline: str, data: str, version: str, now: datetime) -> str:
    """`<pipeline>-<data>-<revision>-<UTC minute>`."""
    stem = re.sub(r"[^a-z0-9]+", "-", data.rstrip("/").rsplit("/", 1)[-1].lower()).strip("-")[:24] or "data"
    return f"{pipeline}-{stem}-{version}-{now.astimezone(UTC):%Y%m%d-%H%M}"


def started(api: Api, name: str, ids: tuple[str, str], experiment_id: str, values: Mapping[str, Any]) -> Any:
    """Starts a run, once: it carries a word of its own, by which it is known again if the answer is lost.

    Args:
        api: the API.
        name: the run's.
        ids: of the pipeline and its version.
        experiment_id: that it belongs to.
        values: all parameters.

    Raises:
        ApiError: it can't be started, or is not known to be.
    """
    mark = f"submission {secrets.token_hex(8)}"
    pipeline_id, version_id = ids
    new = kfp_server_api.V2beta1Run(
        display_name=name,
        description=mark,
        experiment_id=experiment_id,
        pipeline_version_reference=kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=pipeline_id, pipeline_version_id=version_id
        ),
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=dict(values)),
        service_account=os.environ.get("KFP_SERVICE_ACCOUNT") or None,
    )

    def find() -> Any:
        runs = api.named(api.runs.run_service_list_runs, "runs", name, experiment_id=experiment_id)
        return next((run for run in runs if run.description == mark), None)

    try:
        return api.create(lambda: api.runs.run_service_create_run(new), find)
    except UnansweredError as error:
        raise ApiError(f"{error} Before submitting again, look whether a run named {name} was started.") from error
    except KeyboardInterrupt:
        print(f"interrupted; look whether a run named {name} was started.", file=sys.stderr)
        raise


def run(words: list[str], out: TextIO) -> int:
    """Does what the command asks for and returns the exit code."""
    given = settings(words)
    if file := given.pop("PLACEMENT", ""):
        os.environ[FILE_VARIABLE] = file
    seconds, wait = timeout(given), switch(given, "WAIT")
    group = given.pop("EXPERIMENT", "")
    for name in ("TIMEOUT", "WAIT"):
        given.pop(name, None)
    package = compiled()
    values = arguments(given, package.defaults)
    api = Api(os.environ)
    pipeline_id, version_id, version, there = uploaded(api, package)
    print(
        f"pipeline {package.name}, version {version}: {'there already' if there else 'uploaded'}", file=out, flush=True
    )
    name = run_name(package.name, str(values["data"]), version, datetime.now(UTC))
    run = started(api, name, (pipeline_id, version_id), experiment(api, group or package.name), values)
    base = placement().ui.rstrip("/") or api.host
    print(f"run {name}\n{base}/#/runs/details/{printable(run.run_id or '')}", file=out, flush=True)
    return follow(api, run.run_id, seconds, out) if wait else 0


if __name__ == "__main__":
    sys.exit(run_command(lambda: run(parameters.words(sys.argv[1:]), sys.stdout)))
