"""Writes the compiled pipeline, identical from run to run: `python -m tools.compile [FILE]`."""

import sys
import warnings
from pathlib import Path

from kfp import compiler

DEFAULT = Path("build/pipeline.yaml")


def main(path: Path = DEFAULT) -> None:
    """Compiles `pipeline.py` to `path`."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="kfp")
    from pipeline import counterweight

    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(counterweight, str(path))
    print(path)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
