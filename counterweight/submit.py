"""Start a run on a cluster.

A parameter of the command takes precedence over PARAMS, which takes precedence over PRESET. KFP_SERVICE_ACCOUNT names
the Kubernetes service account of the run's pods; `counterweight/client.py` documents the variables of the API. The
pipeline is uploaded as a version with the name of the git revision, or reused if it exists. With WAIT=1 on GitHub
Actions, the verdict and its table are appended to the summary of the job.
"""

import hashlib
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

from components.placement import override_options, placement
from components.prepare_data.prepare import check_listing_with_access
from components.shared.arms import GAN
from components.shared.champion import LAST, NONE, check_output
from components.shared.errors import ExitCode, UserError, printable
from components.shared.initial_weights import parse_weights
from components.shared.parameters import (
    FOLD,
    Parameters,
    arm_names,
    check,
    check_arms,
    defaults,
    parse,
    source_label,
    synthetic_sources,
)
from components.shared.safe_yaml import load_yaml
from components.shared.stores.addresses import ADDRESS_FORM, is_address
from components.shared.workflow_size import pack_classifiers
from counterweight import build_images, job_summary, parameters
from counterweight import plan as planning
from counterweight.client import AbsentError, Api, ApiError, RejectedError, UnansweredError, settings
from counterweight.logs import follow, switch, timeout

ROOT = Path(__file__).resolve().parent.parent
REMOTE_WORDS = {"data": ("demo", "kaggle"), "output": ("auto",), "data_external": ("none",)}
"""Parameters that name a place, and their values that name none."""
DATA_PARAMETERS = (
    "arms", "data", "data_columns", "data_duplicates", "data_external", "data_split", "positive_classes", "random_seed",
    "synthetic", "synthetic_classes", "synthetic_shares",
)  # fmt: skip
"""Parameters that `check_data` reads."""
MAX_RUN_NAME = 28
"""Characters of a run's name that the list in the UI shows."""

_PINNED_IMAGE = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9._-]+)+@sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Package:
    """The compiled pipeline.

    Attributes:
        name: of the pipeline.
        version: name of the version, from the git revision.
        content: the YAML.
        defaults: parameter → default.
    """

    name: str
    version: str
    content: bytes
    defaults: dict[str, Any]

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the content in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


def compile_package(local_images: bool = False) -> Package:
    """Compile `pipeline.py`.

    Args:
        local_images: name images that only the cluster's nodes have.

    Raises:
        UserError: `images.not_pushed`, `images.not_pinned`, or the placement file is invalid.
    """
    warnings.filterwarnings("ignore")  # of kfp, about its future versions
    from counterweight import compile as compiler

    if not local_images and not build_images.pinned():
        raise UserError(
            "there are no images in a registry: docker/digests.json does not exist",
            "run make push REGISTRY=host/path, or add LOCAL_IMAGES=1 if the nodes have the images, as with kind",
            "images.not_pushed",
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        compiler.main(path, local_images=local_images)
        content = path.read_bytes()
    if not local_images:
        check_images(content)
    from pipeline import counterweight

    spec = counterweight.pipeline_spec
    digest = hashlib.sha256(content).hexdigest()
    return Package(spec.pipeline_info.name, revision(ROOT, digest), content, defaults())


def check_images(content: bytes) -> None:
    """Check that a compiled pipeline names each image by its registry and digest.

    A name without registry and digest would resolve to a public registry, where others may own the name.

    Raises:
        UserError: `images.not_pinned`.
    """
    executors = next(yaml.safe_load_all(content))["deploymentSpec"]["executors"]
    for name in sorted({executor["container"]["image"] for executor in executors.values()}):
        if not _PINNED_IMAGE.fullmatch(name):
            raise UserError(
                f"the image {name} has no registry or no digest",
                "delete docker/digests.json and run make push REGISTRY=host/path",
                "images.not_pinned",
                image=name,
            )


def revision(root: Path, digest: str) -> str:
    """Return the short hash of the git commit.

    With changed files, or without git, it contains a part of the package's hash.

    Args:
        root: the working tree.
        digest: SHA-256 of the compiled package in hexadecimal; the package names images by the hash of their code.
    """

    def git(*arguments: str) -> str | None:
        program = shutil.which("git")
        done = program and subprocess.run([program, "-C", root, *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done and not done.returncode else None

    commit, changed = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain")
    if not commit or changed is None:
        return f"no-git-{digest[:8]}"
    return f"{commit}-dirty-{digest[:8]}" if changed else commit


def check_parameters(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the parameters of a file, each of its parameter's type.

    Args:
        given: the content of the YAML file.
        where: the file's name for messages.

    Raises:
        UserError: as in `parameters.check`.
    """
    values: dict[str, Any] = {}
    for key, value in given.items():
        try:
            values[str(key)] = _from_yaml(str(key), value)
        except UserError as error:
            raise add_location(error, where) from error
    return values


def _from_yaml(name: str, value: Any) -> Any:
    """Return the checked value of a parameter in YAML, where `1,2,3` and `1e3` are text, and `1` may be a class."""
    field = Parameters.model_fields.get(name)
    is_number = type(value) in (int, float)  # not a bool
    if isinstance(value, str) or (is_number and field is not None and field.annotation not in (int, float)):
        return parse({name: str(value)})[name]
    return check({name: value})[name]


def add_location(error: UserError, where: str) -> UserError:
    """Return the error with the file or entry before its message."""
    return UserError(f"{where}: {error}", error.hint, error.code, **error.fields)


def check_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return all parameters of a run on a cluster, after a check of values, places and the number of tasks.

    Raises:
        UserError: `parameter.unreachable`, `kaggle.no_credentials`, or as in `parameters.check`,
            `workflow_size.pack_classifiers` and `champion.check_output`.
    """
    complete = check(values)
    for name, words in REMOTE_WORDS.items():
        if complete[name] not in words and not is_address(complete[name]):
            choice = ", ".join((*words, ADDRESS_FORM))
            raise _unreachable(name, complete[name], f"choose from {choice}")
    if complete["data"] == "kaggle" and not placement().kaggle_secret:
        raise UserError(
            "data is kaggle, and no task has Kaggle credentials",
            "name a Kubernetes secret as kaggle_secret in the placement file",
            "kaggle.no_credentials",
        )
    for name, place in synthetic_sources(complete["synthetic"]).items():
        if name != GAN and not is_address(place):
            raise _unreachable(source_label(name), place, f"choose gan or {ADDRESS_FORM}")
    split = complete["data_split"]
    if split != "random" and not FOLD.fullmatch(split) and not is_address(split):
        choice = "choose from random, a fold such as 1/5, or a CSV in a bucket: gs://bucket/name.csv (or s3://, az://)"
        raise _unreachable("data_split", split, choice)
    options = placement().options
    pack_classifiers(arm_names(complete), complete["classifier_seeds"], options.classifiers_per_task)
    check_arms(complete, options.synthetic_scope)
    if options.champion not in (NONE, LAST) and not is_address(options.champion):
        raise _unreachable("champion", options.champion, f"choose from {NONE}, {LAST}, {ADDRESS_FORM}")
    if (file := parse_weights(options.weights)) and not is_address(file.place):
        raise _unreachable("weights", file.place, f"give {ADDRESS_FORM}")
    check_output(options.champion, complete["output"])
    return complete


def check_data(values: Mapping[str, Any], out: TextIO) -> None:
    """Check what the listing of the data reveals, with the errors of a local run.

    Without access from here, which only the cluster may have, it prints a warning: *Check inputs* does the same check.

    Raises:
        UserError: as in `prepare.check_listing_with_access`.
    """
    options = placement().options
    warning = check_listing_with_access(values, options.max_bad_images, options.metadata, options.synthetic_scope)
    if warning:
        print(warning, file=out, flush=True)


def _unreachable(name: str, value: str, hint: str) -> UserError:
    return UserError(
        f"{name} is {value!r}, which a cluster cannot read or write",
        hint,
        "parameter.unreachable",
        name=name,
        value=value,
    )


def arguments(given: Mapping[str, str]) -> dict[str, Any]:
    """Return all parameters of the run.

    Args:
        given: PARAMS, PRESET, and parameters by their names.

    Raises:
        UserError: as in `read_yaml`, `check_parameters`, `parse` and `check_values`.
    """
    given = dict(given)
    file = given.pop("PARAMS", "")
    of_file = check_parameters(read_yaml(Path(file), "PARAMS"), file) if file else {}
    data = given.get("data", "") or str(of_file.get("data", ""))
    _, of_preset, _ = parameters.choose_preset(given.pop("PRESET", ""), data)
    return check_values(of_preset | of_file | parse(given))


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """Return the content of a YAML file, which is a mapping.

    Args:
        path: of the file.
        what: the option that names it.

    Raises:
        UserError: `yaml.unreadable`, `yaml.invalid` or `yaml.not_a_mapping`.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{what} is {path}, which cannot be read ({error.strerror})",
            "name another file",
            "yaml.unreadable",
            path=str(path),
        ) from error
    except (ValueError, yaml.YAMLError) as error:  # a date such as 2026-13-99 is a ValueError
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise UserError(
            f"{what} is {path}, which is not valid YAML{line}", "correct the file", "yaml.invalid", path=str(path)
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"{what} is {path}, which is not a mapping of names to values",
            "write one NAME: value per line",
            "yaml.not_a_mapping",
            path=str(path),
        )
    return content


def find_pipeline(api: Api, name: str) -> Any:
    """Return the pipeline of this name, or None."""
    found = api.find_by_name(api.pipelines.pipeline_service_list_pipelines, "pipelines", name, **in_namespace(api))
    return found[0] if found else None


def in_namespace(api: Api) -> dict[str, str]:
    """Return the namespace as an argument of a call; empty without one."""
    return {"namespace": api.namespace} if api.namespace else {}


def find_version(api: Api, pipeline_id: str, name: str) -> Any:
    """Return the version of this name, or None."""
    method = api.pipelines.pipeline_service_list_pipeline_versions
    found = api.find_by_name(method, "pipeline_versions", name, pipeline_id)
    return found[0] if found else None


def upload(api: Api, package: Package, pipeline_name: str = "") -> tuple[str, str, str, bool]:
    """Upload the package unless it exists.

    A version of the same name with another package, compiled with another placement or other images from the same
    commit, is kept: this package gets a name with its hash.

    Args:
        api: the API.
        package: the compiled pipeline.
        pipeline_name: of the pipeline on the cluster; the package's by default.

    Returns:
        The ids of the pipeline and the version, the version's name, and whether it existed.

    Raises:
        ApiError: the API is unreachable or denies access.
    """
    mark = f"package sha256:{package.digest}"
    title = pipeline_name or package.name
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pipeline.yaml")
        path.write_bytes(package.content)

        def make_pipeline() -> Any:
            new = kfp_server_api.V2beta1Pipeline(name=title, display_name=title, namespace=api.namespace or None)
            try:
                return api.pipelines.pipeline_service_create_pipeline(new)
            except (AbsentError, RejectedError) as error:
                if isinstance(error, RejectedError) and error.status not in (404, 405, 501):
                    raise
                # If a gateway rejects this call, the upload of a first version creates the pipeline.
                return api.uploads.upload_pipeline(str(path), name=title, description=mark, **in_namespace(api))

        def make_version() -> Any:
            return api.uploads.upload_pipeline_version(
                str(path), pipelineid=key, name=name, display_name=name, description=mark
            )

        pipeline = api.call(find_pipeline, api, title)
        if pipeline is None:
            pipeline = api.create(make_pipeline, lambda: find_pipeline(api, title))
        key, name = pipeline.pipeline_id, package.version
        version = api.call(find_version, api, key, name)
        if version is not None and "sha256:" in (version.description or "") and mark not in version.description:
            name = f"{name}-{package.digest[:8]}"
            version = api.call(find_version, api, key, name)
        exists = version is not None
        version = version or api.create(make_version, lambda: find_version(api, key, name))
        return key, version.pipeline_version_id, name, exists


def find_or_create_experiment(api: Api, name: str) -> str:
    """Return the id of the experiment of this name, which is created if it does not exist.

    Raises:
        UserError: `experiment.archived`; the API would start the run, but no list shows it.
        ApiError: the API is unreachable or denies access.
    """

    def find() -> Any:
        found = api.find_by_name(
            api.experiments.experiment_service_list_experiments, "experiments", name, **in_namespace(api)
        )
        return found[0] if found else None

    def make() -> Any:
        new = kfp_server_api.V2beta1Experiment(display_name=name, namespace=api.namespace or None)
        return api.experiments.experiment_service_create_experiment(new)

    found = api.call(find) or api.create(make, find)
    if str(found.storage_state) == "ARCHIVED":
        raise UserError(
            f"the experiment {name} is archived",
            "restore it in the Kubeflow UI, or name another one in EXPERIMENT",
            "experiment.archived",
            experiment=name,
        )
    return str(found.experiment_id)


def run_name(data: str, preset: str, now: datetime) -> str:
    """Return `<data>-<preset>-<UTC minute>`, at most `MAX_RUN_NAME` characters.

    Example:
        >>> run_name("gs://bucket/ham10000", "full", datetime(2026, 2, 3, 4, 5, tzinfo=UTC))
        'ham10000-full-260203-0405'
    """
    end = f"-{preset}-{now.astimezone(UTC):%y%m%d-%H%M}"
    stem = re.sub(r"[^a-z0-9]+", "-", data.rstrip("/").rsplit("/", 1)[-1].lower())
    return (stem.strip("-")[: MAX_RUN_NAME - len(end)].strip("-") or "data") + end


def start_run(
    api: Api, name: str, ids: tuple[str, str], experiment_id: str, values: Mapping[str, Any], mlflow: str = ""
) -> Any:
    """Start a run once; a random text in its description identifies it if the answer is lost.

    Args:
        api: the API.
        name: of the run.
        ids: of the pipeline and its version.
        experiment_id: of its experiment.
        values: all parameters.
        mlflow: experiment of Kubeflow's MLflow plugin (KFP 2.17, KEP-12862); empty for the installation's default.

    Raises:
        ApiError: it was not started, or `run.unknown_outcome`.
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
        plugins_input={"mlflow": {"experiment_name": mlflow}} if mlflow else None,
    )

    def find() -> Any:
        runs = api.find_by_name(api.runs.run_service_list_runs, "runs", name, experiment_id=experiment_id)
        return next((run for run in runs if run.description == mark), None)

    try:
        return api.create(lambda: api.runs.run_service_create_run(new), find)
    except UnansweredError as error:
        raise ApiError(
            str(error), f"before you submit again, check whether a run {name} exists", "run.unknown_outcome", run=name
        ) from error
    except KeyboardInterrupt:
        print(f"interrupted: check whether a run {name} exists", file=sys.stderr)
        raise


def run(words: list[str], out: TextIO) -> int:
    """Run the command and return its exit code."""
    given = settings(words)
    parameters.use_placement(given)
    seconds, wait, local = timeout(given), switch(given, "WAIT"), switch(given, "LOCAL_IMAGES")
    group, mlflow = given.pop("EXPERIMENT", ""), given.pop("MLFLOW_EXPERIMENT", "")
    for option in ("TIMEOUT", "WAIT", "LOCAL_IMAGES"):
        given.pop(option, None)
    plan = planning.take_plan(given)
    given, options = parameters.split_options(given)
    override_options(options)
    values = arguments(given)
    check_data(values, out)
    package = compile_package(local)
    api = Api(os.environ)
    experiment_id = find_or_create_experiment(api, group or package.name)
    pipeline_id, version_id, version, exists = upload(api, package)
    print(f"pipeline {package.name}, version {version}: {'exists' if exists else 'uploaded'}", file=out, flush=True)
    preset, _, text = parameters.choose_preset(given.get("PRESET", ""), str(values["data"]))
    for line in (text, *(planning.announce(plan, values) if plan else ())):
        print(line, file=out, flush=True)
    name = run_name(str(values["data"]), preset, datetime.now(UTC))
    run = start_run(api, name, (pipeline_id, version_id), experiment_id, values, mlflow)
    link = f"{placement().ui.rstrip('/') or api.host}/#/runs/details/{printable(run.run_id or '')}"
    print(f"run {name}\n{link}", file=out, flush=True)
    code = follow(api, run.run_id, seconds, out) if wait else ExitCode.SUCCEEDED
    if code == ExitCode.FAILED:
        print(f"To see the logs of its failed tasks: make logs RUN={printable(run.run_id)}", file=out, flush=True)
    if wait and (summary := os.environ.get(job_summary.VARIABLE)):
        job_summary.append(summary, api, run.run_id, name, link, str(values["output"]), out)
    return code
