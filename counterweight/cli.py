"""The command line: `counterweight COMMAND`, with `--help` for each; `make` calls the same commands."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import click

from components.shared import parameters
from components.shared.errors import ExitCode
from components.shared.stores.addresses import ADDRESS_FORM
from counterweight.exit_codes import run_command
from counterweight.parameters import words

EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {code.meaning}" for code in ExitCode)

Options = dict[str, tuple[str, str]]
"""Option → the name in `NAME=value`, help."""

CLUSTER: Options = {"--run": ("RUN", "Id of the run, the last part of its address.")}
WAITING: Options = {
    "--wait": ("WAIT", "1: follow the run until it finishes."),
    "--timeout": ("TIMEOUT", "Seconds to follow it (default: a day)."),
}
IMAGES: Options = {
    "--phases": ("PHASES", "Phases, separated by commas (default: all)."),
    "--gpu": ("GPU", "tensorflow or jax: CUDA for the phases that use a GPU."),
    "--placement": ("PLACEMENT", "Another file than manifests/placement.yaml, which gives phases a GPU."),
    "--python-image": ("PYTHON_IMAGE", "Base image (default: the one in docker/Dockerfile)."),
}
FILE_OF_PLACEMENT: Options = {"--placement": ("PLACEMENT", "Another file than manifests/placement.yaml.")}
RUNNING: Options = {
    "--data": ("DATA", f"demo, kaggle, {ADDRESS_FORM}, or a folder."),
    "--preset": ("PRESET", "demo, cpu or full; by default, demo for generated images, else cpu."),
}
CITING: Options = {"--plan": ("PLAN", "Plan of `plan` that the report cites, with all deviations from it.")}

USING: Options = {
    "--run": ("RUN", "Folder or address of a finished run."),
    "--arm": ("ARM", "Name of the arm (default: the arm of the report's advice)."),
    "--out": ("OUT", "Folder of the results (default: below the run's folder)."),
}

COMMANDS: dict[str, tuple[str, str, Options, bool]] = {
    "run": (
        "run",
        "Run the complete pipeline on this machine; rerun the same command to resume.",
        RUNNING
        | {
            "--out": ("OUT", "Folder of the results (default: runs/<run id>)."),
            "--external": ("EXTERNAL", "Folder or address of external test images."),
            "--runner": ("RUNNER", "processes, or containers (after `images`)."),
        }
        | CITING,
        True,
    ),
    "plan": (
        "plan",
        "Plan a run from its metadata, and write the plan, before any result, to a file that a report can cite.",
        RUNNING
        | {
            "--out": ("OUT", "File to write (default: plan.json); it must not exist."),
            "--placement": ("PLACEMENT", "Another file than manifests/placement.yaml, whose prices give the cost."),
        },
        True,
    ),
    "runs": (
        "runs",
        "List the finished runs in a folder, and write an index page into it.",
        {"--dir": ("DIR", "Folder of the runs (default: runs).")},
        False,
    ),
    "evaluate": (
        "evaluate",
        "Evaluate a finished run on external data, or pool the folds of several runs.",
        {
            "--run": ("RUN", "Folder or address of a finished run; several, separated by commas, are pooled."),
            "--external": ("EXTERNAL", "Folder or address of external images."),
            "--out": ("OUT", "Folder of the results."),
            "--duplicates": ("duplicates", "refuse or move_to_train: exclude external images of the run's lesions."),
            "--data-columns": ("data_columns", "Columns of the external table, as for a run."),
            "--max-bad-images": ("max_bad_images", "Maximum number of unusable images to skip (default: 10)."),
        },
        False,
    ),
    "predict": (
        "predict",
        "Score new images, which need no labels, with the models of a finished run.",
        USING
        | {
            "--data": ("DATA", "Folder or address of images, in any layout; labels are ignored."),
            "--max-bad-images": ("max_bad_images", "Maximum number of unusable images to skip (default: 10)."),
        },
        False,
    ),
    "export": (
        "export",
        "Export the classifier of a finished run, or its synthetic images.",
        USING
        | {
            "--format": ("FORMAT", "savedmodel, onnx, or folder: the synthetic images as PNG files."),
            "--seeds": ("SEEDS", "all: the mean over the seeds as one model (default); first: the first seed's model."),
        },
        False,
    ),
    "demo": (
        "demo",
        "Show the models of a finished run on a local page.",
        {
            "--run": ("RUN", "Folder or address of a finished run."),
            "--host": ("HOST", "Address to listen at (default: 127.0.0.1, this machine only)."),
            "--port": ("PORT", "Port (default: 7860)."),
        },
        False,
    ),
    "compare": (
        "compare",
        "Compare two finished runs: settings that differ, and paired differences if they share the split.",
        {
            "--run": ("RUN", "Folders or addresses of two finished runs, separated by a comma."),
            "--out": ("OUT", "Page to write (default: compare.html)."),
        },
        False,
    ),
    "compile": ("compile", "Write the pipeline to build/pipeline.yaml.", {}, False),
    "images": ("build_images", "Build the images of the phases with Docker or Podman.", IMAGES, False),
    "push": (
        "build_images",
        "Build and push the images, and write docker/digests.json.",
        IMAGES | {"--registry": ("REGISTRY", "host[:port]/path to push to.")},
        False,
    ),
    "submit": (
        "submit",
        "Start a run on a cluster.",
        RUNNING
        | {
            "--out": ("OUT", f"{ADDRESS_FORM} of the results (default: an artifact of the run)."),
            "--external": ("EXTERNAL", f"{ADDRESS_FORM} of external test images."),
            "--params": ("PARAMS", "YAML file of parameters."),
            "--experiment": ("EXPERIMENT", "Experiment of the run; created if needed."),
            "--mlflow-experiment": (
                "MLFLOW_EXPERIMENT",
                "Experiment in MLflow, if Kubeflow's MLflow plugin is set up.",
            ),
            "--local-images": ("LOCAL_IMAGES", "1: use images that are not pushed to a registry, as with kind."),
        }
        | CITING
        | FILE_OF_PLACEMENT
        | WAITING,
        True,
    ),
    "schedule": (
        "schedule",
        "Sync the recurring runs with manifests/schedules.yaml.",
        {"--file": ("FILE", "Another file."), "--dry-run": ("DRY_RUN", "1: print the plan only.")} | FILE_OF_PLACEMENT,
        False,
    ),
    "release": (
        "release",
        "Release the current version to the schedules, and sync them.",
        {
            "--file": ("FILE", "Another file than manifests/schedules.yaml."),
            "--dry-run": ("DRY_RUN", "1: print the plan only."),
            "--local-images": ("LOCAL_IMAGES", "1: use images that are not pushed to a registry, as with kind."),
        }
        | FILE_OF_PLACEMENT,
        False,
    ),
    "prune": (
        "prune",
        "List or remove runs, versions and schedules of this pipeline.",
        {
            "--remove": ("REMOVE", "runs, versions or schedules, separated by commas (default: only list)."),
            "--older": ("OLDER", "Days: remove only what is older (default: 30)."),
            "--dry-run": ("DRY_RUN", "1: print the plan only."),
        },
        False,
    ),
    "logs": (
        "logs",
        "Show a run's tasks and failure reasons.",
        CLUSTER | {"--task": ("TASK", "Show the log of this task.")} | WAITING,
        False,
    ),
    "terminate": ("terminate", "Cancel a run.", CLUSTER, False),
}
"""Command → module, help, options, whether it takes the parameters and options of the pipeline."""


def _call(name: str, module_name: str, arguments: list[str]) -> int:
    module = importlib.import_module(f"counterweight.{module_name}")
    if module_name == "build_images":
        return run_command(lambda: module.run({"images": "build"}.get(name, name), arguments))
    if module_name == "compile":
        return run_command(module.main)
    if module_name == "evaluate":
        return run_command(lambda: module.evaluate(arguments))
    return run_command(lambda: module.run(arguments, sys.stdout))


def _build(name: str) -> click.Command:
    module_name, text, options, takes_parameters = COMMANDS[name]
    names = {option.removeprefix("--").replace("-", "_"): word for option, (word, _) in options.items()}
    declared: list[click.Parameter] = [
        click.Option([option], help=help_text, metavar="TEXT") for option, (_, help_text) in options.items()
    ]
    if takes_parameters:
        for model in (parameters.Parameters, parameters.Options):
            for parameter in model.model_fields:
                if f"--{parameter}" in options:  # `--data` is one of both
                    continue
                names[parameter] = parameter
                option = f"--{parameter.replace('_', '-')}"
                declared.append(click.Option([option], help=parameters.help_text(parameter, model), metavar="TEXT"))
    declared.append(click.Option(["--make"], is_flag=True, hidden=True))
    declared.append(click.Argument(["assignments"], nargs=-1, metavar="[NAME=value]..."))

    def callback(make: bool, assignments: tuple[str, ...], **given: Any) -> None:
        arguments = words(["--make"]) if make else list(assignments)
        arguments += [f"{names[key]}={value}" for key, value in given.items() if value is not None]
        sys.exit(_call(name, module_name, arguments))

    function: Callable[..., None] = callback
    return click.Command(name, callback=function, params=declared, help=text, epilog=EXIT_CODES)


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Find out which remedy for class imbalance works on your medical images."""


for _name in COMMANDS:
    main.add_command(_build(_name))
