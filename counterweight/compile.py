"""Compile the pipeline to YAML, identically in each run: `python -m counterweight.compile [FILE]`.

Images are named by the digests of `make push`, if there are any, otherwise by the hash of their content.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

from kfp import compiler

from components.shared import parameters
from components.shared.files import write_text
from counterweight import build_images
from counterweight.exit_codes import run_command

DEFAULT = Path("build/pipeline.yaml")


def load_pipeline() -> Any:
    """Return the pipeline of `pipeline.py`, with descriptions and drop-downs in its form.

    Options are compiled in: call `components.placement.override_options` before. kfp's SDK cannot declare the allowed
    values of a parameter (kubeflow/pipelines#12601), although API server and UI support them.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="kfp")
    from pipeline import counterweight

    form = counterweight.pipeline_spec.root.input_definitions.parameters
    for name in parameters.descriptions():
        form[name].description = parameters.help_text(name)
    for name, choices in parameters.choices().items():
        del form[name].literals[:]
        for choice in choices:
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
    print(path)


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(Path(sys.argv[1]) if sys.argv[1:] else DEFAULT)))
