"""Writes the compiled pipeline, identical from run to run: `python -m counterweight.compile [FILE]`.

Images are named by the digests of `make push`, where there are any, else by the hash of their content.
"""

import sys
import warnings
from pathlib import Path

from kfp import compiler

from components.shared.files import write_text
from counterweight import build_images
from counterweight.exit_codes import run_command

DEFAULT = Path("build/pipeline.yaml")


def main(path: Path = DEFAULT) -> None:
    """Compiles `pipeline.py` to `path`.

    Raises:
        UserError: some of the images that were pushed are of other code.
    """
    digests = build_images.pinned()
    warnings.filterwarnings("ignore", category=FutureWarning, module="kfp")
    from pipeline import counterweight

    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(counterweight, str(path))
    text = path.read_text(encoding="utf-8")
    for reference, digest in digests.items():
        text = text.replace(f"image: {reference}\n", f"image: {digest}\n")
    write_text(path, text)
    print(path)


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(*map(Path, sys.argv[1:2]))))
