"""Compile the pipeline to YAML, identically in each run.

Images are named by the digests of `make push`, if there are any, otherwise by the hash of their content.
"""

import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

from kfp import compiler

from components.shared.files import write_text
from components.shared.parameters import choices, descriptions, help_text
from counterweight import build_images, parameters

DEFAULT = Path("build/pipeline.yaml")


def load_pipeline() -> Any:
    """Return the pipeline of `pipeline.py`, with descriptions and drop-downs in its form.

    Options are compiled in: call `components.placement.override_options` before. kfp's SDK cannot declare the allowed
    values of a parameter (kubeflow/pipelines#12601), although API server and UI support them.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="kfp")
    from pipeline import counterweight

    form = counterweight.pipeline_spec.root.input_definitions.parameters
    for name in descriptions():
        form[name].description = help_text(name)
    for name, values in choices().items():
        del form[name].literals[:]
        for choice in values:
            form[name].literals.add().string_value = choice
    return counterweight


def main(path: Path = DEFAULT, local_images: bool = False) -> None:
    """Compile `pipeline.py` to `path`.

    Args:
        path: of the YAML file.
        local_images: name the images by the hash of their content even if there are digests.

    Raises:
        UserError: the pushed images are of other code, or the placement file is invalid.
    """
    digests = {} if local_images else build_images.pinned()
    pipeline = load_pipeline()
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(path))
    text = path.read_text(encoding="utf-8")
    for reference, digest in digests.items():
        text = text.replace(f"image: {reference}\n", f"image: {digest}\n")
    write_text(path, text)


def run(words: list[str], out: TextIO) -> None:
    """Run the command; `out` receives the path."""
    given = parameters.assignments(words)
    parameters.use_placement(given)
    main()
    if not build_images.pinned():
        print(
            "warning: the images are not in a registry: nodes that lack them ask the default registry for these names; "
            "run make push REGISTRY=host/path first",
            file=sys.stderr,
        )
    print(DEFAULT, file=out, flush=True)
