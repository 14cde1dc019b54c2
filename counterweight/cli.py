"""The command line: `counterweight COMMAND`, with `--help` for each; `make` calls the same commands."""

import importlib
import itertools
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import click

from components.shared import parameters
from components.shared.errors import ExitCode, UserError, did_you_mean
from components.shared.stores.addresses import ADDRESS_FORM
from counterweight.exit_codes import run_command
from counterweight.parameters import assignments, describe_option, preset_names, words

EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {code.meaning}" for code in ExitCode)


class Option(NamedTuple):
    """An option of a command.

    Attributes:
        word: the name in `NAME=value`.
        metavar: what the help shows as its value.
        text: what the help states about it.
    """

    word: str
    metavar: str
    text: str


class Command(NamedTuple):
    """A command.

    Attributes:
        module: in `counterweight`.
        text: what the help states about it; the list of commands shows the first sentence.
        options: name → option; a name may have aliases after a blank.
        takes_parameters: whether it takes the parameters and options of the pipeline, too.
    """

    module: str
    text: str
    options: dict[str, Option]
    takes_parameters: bool = False


CLUSTER = {"--run": Option("RUN", "ID", "Id of the run, the last part of its address.")}
WAITING = {
    "--wait": Option("WAIT", "[0|1]", "1: follow the run until it finishes. [default: 0]"),
    "--timeout": Option("TIMEOUT", "SECONDS", "How long to follow it. [default: 86400, a day]"),
}
DRY_RUN = {"--dry-run": Option("DRY_RUN", "[0|1]", "1: only print what would change. [default: 0]")}
LOCAL_IMAGES = {
    "--local-images": Option("LOCAL_IMAGES", "[0|1]", "1: use images that no registry has, as with kind. [default: 0]")
}
PLACEMENT = {
    "--placement": Option(
        "PLACEMENT", "FILE", "Nodes, resources, prices and options. [default: manifests/placement.yaml]"
    ),
}
IMAGES = {
    "--phases": Option("PHASES", "PHASE,…", "Phases whose images are built. [default: all]"),
    "--gpu": Option("GPU", "[tensorflow|jax]", "CUDA of this library for the phases that use a GPU. [default: none]"),
    **PLACEMENT,
    "--python-image": Option("PYTHON_IMAGE", "IMAGE", "Base image. [default: the one in docker/Dockerfile]"),
}
SCHEDULES = {"--file": Option("FILE", "FILE", "The recurring runs. [default: manifests/schedules.yaml]"), **DRY_RUN}
RUNNING = {
    "--data": Option("DATA", "PLACE", f"The images: demo, kaggle, {ADDRESS_FORM}, or a folder. [default: demo]"),
    "--preset": Option(
        "PRESET",
        f"[{'|'.join(preset_names())}]",
        "Replaces defaults below. [default: demo for generated images, else cpu]",
    ),
    "--external --data-external": Option(
        "EXTERNAL", "PLACE", f"Test images of another source: {ADDRESS_FORM}, or a folder. [default: none]"
    ),
}
CITING = {
    "--plan": Option(
        "PLAN",
        "FILE",
        "File written by `counterweight plan`; the report cites it and lists deviations.",
    )
}
RUN = {"--run": Option("RUN", "PLACE", "Folder or address of a finished run.")}
USING = {
    **RUN,
    "--arm": Option("ARM", "NAME", "Name of the arm. [default: the arm of the report's advice]"),
    "--out": Option("OUT", "FOLDER", "Folder of the results. [default: below the run's folder]"),
}
BAD_IMAGES = {
    "--max-bad-images": Option("max_bad_images", "INTEGER", "Maximum number of unusable images to skip. [default: 10]")
}

LOCAL = {
    "run": Command(
        "run",
        "Run the pipeline on this machine. Rerun the same command to resume.",
        RUNNING
        | {"--out --output": Option("OUT", "FOLDER", "Folder of the results. [default: runs/<run id>]")}
        | CITING
        | {
            "--runner": Option(
                "RUNNER", "[processes|containers]", "How tasks run; containers after `images`. [default: processes]"
            ),
        },
        True,
    ),
    "plan": Command(
        "plan",
        "Estimate power, time and cost of a run. Reads metadata only, and writes a plan that the report can cite.",
        RUNNING
        | {"--out": Option("OUT", "FILE", "File to write; another plan in it is not replaced. [default: plan.json]")}
        | PLACEMENT,
        True,
    ),
    "evaluate": Command(
        "evaluate",
        "Evaluate on external data, or pool folds. Uses the models of finished runs.",
        {
            "--run": Option("RUN", "PLACE,…", "Folder or address of a finished run; several are pooled."),
            "--external": Option("EXTERNAL", "PLACE", "Folder or address of external images."),
            "--out": Option("OUT", "FOLDER", "Folder of the results. [default: external/ in the run's folder]"),
            "--duplicates": Option(
                "duplicates",
                "[refuse|move_to_train]",
                "Action for external images of the run's lesions; move_to_train excludes them. [default: refuse]",
            ),
            "--data-columns": Option(
                "data_columns", "FIELD:COLUMN,…", "Columns of the external table, as for a run. [default: auto]"
            ),
            **BAD_IMAGES,
        },
    ),
    "predict": Command(
        "predict",
        "Score new images. They need no labels; the models are those of a finished run.",
        RUN
        | {"--data": Option("DATA", "PLACE", "Folder or address of images, in any layout; labels are ignored.")}
        | USING
        | BAD_IMAGES,
    ),
    "export": Command(
        "export",
        "Export a model or the synthetic images. Both come from a finished run.",
        RUN
        | {
            "--format": Option(
                "FORMAT", "[savedmodel|onnx|folder]", "Format of a model, or folder: the synthetic images as PNG files."
            )
        }
        | USING
        | {
            "--seeds": Option(
                "SEEDS", "[all|first]", "all: the mean over the seeds as one model; first: that of one. [default: all]"
            )
        },
    ),
    "demo": Command(
        "demo",
        "Show the models of a run on a local page.",
        {
            **RUN,
            "--host": Option("HOST", "ADDRESS", "Address to listen at. [default: 127.0.0.1, this machine only]"),
            "--port": Option("PORT", "INTEGER", "Port to listen at. [default: 7860]"),
        },
    ),
    "runs": Command(
        "runs",
        "List finished runs. Writes an index page into their folder.",
        {"--dir": Option("DIR", "FOLDER", "Folder of the runs. [default: runs]")},
    ),
    "compare": Command(
        "compare",
        "Compare two finished runs. Shows settings that differ, and paired differences if they share the split.",
        {
            "--run": Option("RUN", "PLACE,PLACE", "Folders or addresses of two finished runs."),
            "--out": Option("OUT", "FILE", "Page to write. [default: compare.html]"),
        },
    ),
}
ON_CLUSTER = {
    "compile": Command("compile", "Write the pipeline to build/pipeline.yaml.", PLACEMENT),
    "images": Command("build_images", "Build the images of the phases. Needs Docker or Podman.", IMAGES),
    "push": Command(
        "push_images",
        "Build and push the images. Writes docker/digests.json.",
        {"--registry": Option("REGISTRY", "HOST/PATH", "Where to push to: host[:port]/path.")} | IMAGES,
    ),
    "submit": Command(
        "submit",
        "Start a run on a cluster. With --wait, the exit code is that of the run.",
        RUNNING
        | {
            "--out --output": Option(
                "OUT", "ADDRESS", f"{ADDRESS_FORM} of the results. [default: an artifact of the run]"
            )
        }
        | CITING
        | {
            "--params": Option("PARAMS", "FILE", "YAML file of parameters. [default: none]"),
            "--experiment": Option(
                "EXPERIMENT", "NAME", "Experiment of the run; created if needed. [default: counterweight]"
            ),
            "--mlflow-experiment": Option(
                "MLFLOW_EXPERIMENT", "NAME", "Experiment in MLflow, if Kubeflow's MLflow plugin is set up."
            ),
        }
        | LOCAL_IMAGES
        | PLACEMENT
        | WAITING,
        True,
    ),
    "logs": Command(
        "logs",
        "Show a run's tasks and failure reasons. With --wait, the exit code is that of the run.",
        CLUSTER | {"--task": Option("TASK", "NAME", "Show the log of this task. [default: the failed ones]")} | WAITING,
    ),
    "terminate": Command("terminate", "Cancel a run.", CLUSTER),
    "schedule": Command("schedule", "Sync the recurring runs with their file.", SCHEDULES | PLACEMENT),
    "release": Command(
        "release",
        "Release the current version to the schedules. Then syncs them.",
        SCHEDULES | LOCAL_IMAGES | PLACEMENT,
    ),
    "prune": Command(
        "prune",
        "List or remove runs, versions and schedules. Only those of this pipeline.",
        {
            "--remove": Option("REMOVE", "KIND,…", "runs, versions or schedules. [default: only list]"),
            "--older": Option("OLDER", "DAYS", "Remove only what is older. [default: 30]"),
            **DRY_RUN,
        },
    ),
}
COMMANDS = LOCAL | ON_CLUSTER
CALLING_API = ON_CLUSTER.keys() - {"compile", "images", "push"}
"""Commands that take the variables of the API, which begin with KFP_."""

SECTIONS = {
    "Common": ("arms", "random_seed"),
    "Data": (
        "data_columns", "data_duplicates", "data_image_size", "data_split", "max_bad_images", "positive_classes",
    ),
    "Classifiers": ("classifier", "classifier_epochs", "classifier_seeds", "metadata", "weights"),
    "GANs": ("failed_class", "gan_architecture", "gan_kimg", "gan_shared_kimg"),
    "Synthetic images": (
        "synthetic", "synthetic_classes", "synthetic_per_class", "synthetic_scope", "synthetic_selection",
        "synthetic_shares", "synthetic_smoothing", "synthetic_until", "synthetic_weight",
    ),
    "Promotion": ("champion", "promote_if"),
    "Installation": ("checkpoints", "classifiers_per_task", "gans_per_task"),
}  # fmt: skip
"""Heading of the help → parameters and options of the pipeline below it; `RUNNING` and `--output` are the others."""


class _Command(click.Command):
    """A command whose help shows its options below headings."""

    def __init__(self, name: str, sections: Mapping[str, list[click.Parameter]], **others: Any) -> None:
        super().__init__(name, **others)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        for title, options in self.sections.items():
            shown = [*options, self.get_help_option(ctx)] if options is next(iter(self.sections.values())) else options
            with formatter.section(title):
                formatter.write_dl([record for option in shown if option and (record := option.get_help_record(ctx))])


class _Main(click.Group):
    """The group of all commands, whose help shows them below headings."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands."""
        for title, group in (("On this machine", LOCAL), ("On a cluster", ON_CLUSTER)):
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(99)) for name in group])


def _call(name: str, command: Command, known: list[str], arguments: list[str]) -> int | None:
    """Run a command.

    Raises:
        UserError: `arguments.unknown`, or the error of the command.
    """
    for word in assignments(arguments):
        if word not in known and not (name in CALLING_API and word.startswith("KFP_")):
            raise UserError(
                f"{word} is not an option of {name}",
                did_you_mean(word, known) or f"see `counterweight {name} --help`",
                "arguments.unknown",
                name=word,
            )
    module = importlib.import_module(f"counterweight.{command.module}")
    return module.run(arguments, sys.stdout)


def _build(name: str, command: Command) -> click.Command:
    words_of: dict[str, str] = {}
    sections: dict[str, list[click.Parameter]] = {}

    def add(title: str, flags: str, word: str, metavar: str, text: str) -> None:
        option = click.Option(flags.split(), metavar=metavar, help=text)
        words_of[str(option.name)] = word
        sections.setdefault(title, []).append(option)

    for flags, option in command.options.items():
        add("Common" if command.takes_parameters else "Options", flags, *option)
    known, example = list(words_of.values()), f"{next(iter(words_of.values()))}=…"
    if command.takes_parameters:
        for title, fields in SECTIONS.items():
            for field in fields:
                model = next(it for it in (parameters.Parameters, parameters.Options) if field in it.model_fields)
                add(title, f"--{field.replace('_', '-')}", field, *describe_option(field, model))
        known += [*parameters.Parameters.model_fields, *parameters.Options.model_fields]
        example += " or random_seed=…"

    def callback(make: bool, assigned: tuple[str, ...], **given: Any) -> None:
        arguments = words(["--make"]) if make else list(assigned)
        arguments += [f"{words_of[key]}={value}" for key, value in given.items() if value is not None]
        sys.exit(run_command(lambda: _call(name, command, known, arguments)))

    return _Command(
        name,
        sections,
        callback=callback,
        params=[
            *itertools.chain(*sections.values()),
            click.Option(["--make"], is_flag=True, hidden=True),
            click.Argument(["assigned"], nargs=-1, metavar="[NAME=value]..."),
        ],
        help=f"{command.text}\n\nNAME=value: the same options in make form, such as {example}",
        epilog=EXIT_CODES,
    )


@click.group(cls=_Main, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Find out which remedy for class imbalance works on your medical images."""


for _name, _command in COMMANDS.items():
    main.add_command(_build(_name, _command))
