"""Describe the files that a run publishes, for the documentation; a test compares the list with a run."""

import re
from dataclasses import dataclass

from components.shared.arms import CONTROLS, SOURCE_NAME

INTRODUCTION = """# Outputs

Files in the results folder, or below `gs://bucket/prefix/<run id>`. In the names, `<arm>` is an
[arm](../concepts/arms.md), such as `baseline` or `augmented@0.25`, `<N>` a seed, `<class>` a class that gets
synthetic images, and `<source>` a generator
[other than the GANs of the run](../concepts/arms.md#images-of-other-generators). [Records](records.md) lists the fields
of the JSON files.

"""
END = """
A classifier's name has no seed for the run's first seed. The same seeds give the same models, synthetic images and
predictions, byte for byte, on the same kind of machine with the same library versions. Records also contain durations.
"""
PLACEHOLDERS = {
    "<class>": r"[A-Za-z0-9][A-Za-z0-9_-]*",
    "<arm>": rf"(?:{'|'.join(CONTROLS)}|{SOURCE_NAME}@[0-9.]+)",
    "<source>": SOURCE_NAME,
    "<N>": r"[0-9]+",
}


@dataclass(frozen=True)
class Output:
    """A file, or several that differ in the placeholders of their name.

    Attributes:
        name: path below the results, with placeholders.
        content: description for the table.
        always: whether each run has it.
    """

    name: str
    content: str
    always: bool = True

    def matches(self, path: str) -> bool:
        """Return whether a path is one of these files."""
        parts = re.split(r"(<[a-zA-Z]+>)", self.name)
        return bool(re.fullmatch("".join(PLACEHOLDERS.get(part) or re.escape(part) for part in parts), path))


OUTPUTS = (
    Output("report.html", "verdict, remedy, effects with intervals, all arms and shares, curves, images and their "
           "quality; one file without JavaScript"),
    Output("metrics.json", "all figures, a [Results](records.md#results) record; "
           "[Statistics](../concepts/statistics.md) defines them"),
    Output("comparison.md", "verdict, remedy and tables, as the Kubeflow UI shows them"),
    Output("model_card.md", "the items of TRIPOD+AI, filled from the run; unknown ones are marked"),
    Output("data_sheet.md", "the data, real and synthetic, and what is not known about it"),
    Output("predictions.parquet", "probabilities of each arm and seed for each validation, test and external image"),
    Output("reference.parquet", "at most 20,000 training images: features, class, and a copy of at most 64 px"),
    Output("reference.json", "the distance to them above which a new image is unlike them"),
    Output("examples.parquet", "four test images of each class, for `make demo`"),
    Output("splits.csv", "split, lesion, patient (if known) and hashes of each image; usable as `data_split`"),
    Output("data_profile.html", "the data, and what was skipped and why"),
    Output(
        "manifest.json",
        "SHA-256 of each file, written last; the advice, and the candidate that it leads to; the champion, if any",
    ),
    Output("models/<arm>.keras", "classifier of the run's first seed"),
    Output("models/<arm>.json", "its record"),
    Output("models/<arm>.html", "its learning curves"),
    Output("models/<arm>-seed<N>.keras", "classifier of another seed", always=False),
    Output("models/<arm>-seed<N>.json", "its record", always=False),
    Output("models/<arm>-seed<N>.html", "its learning curves", always=False),
    Output("models/gan-<class>.keras", "generator of a class; absent if its GAN failed, or none was trained",
           always=False),
    Output("models/gan-<class>.json", "its record, or the error", always=False),
    Output("models/gan-<class>.html", "training progress", always=False),
    Output("models/shared.json", "record of shared pretraining, with `gan_shared_kimg` above 0", always=False),
    Output("models/shared.html", "its training progress", always=False),
    Output("models/features.keras", "the feature extractor"),
    Output("synthetic/<class>.parquet", "the images of the GAN, with the origin of each", always=False),
    Output("synthetic/<class>.json", "their quality", always=False),
    Output("synthetic/<class>.html", "a contact sheet", always=False),
    Output("synthetic/<source>/<class>.parquet", "the images of another generator", always=False),
    Output("synthetic/<source>/<class>.json", "their quality", always=False),
    Output("synthetic/<source>/<class>.html", "a contact sheet", always=False),
    Output("sources.json", "the other generators and what was read from them"),
    Output("data_source.json", "what was read as the data: layout, metadata, columns, folders"),
)  # fmt: skip


def page() -> str:
    """Return the page of outputs, without the notice that it is generated."""
    rows = "".join(f"| `{output.name}` | {output.content} |\n" for output in OUTPUTS)
    return f"{INTRODUCTION}| file | content |\n|---|---|\n{rows}{END}"
