"""Judges finished runs again: `python -m counterweight.evaluate RUN=… [EXTERNAL=…] [OUT=…]`.

    RUN         a finished run's folder, or gs://bucket/prefix; with EXTERNAL its models are judged on those images.
                Several with commas between them: the folds of a k-fold run, pooled
    EXTERNAL    a folder, or gs://bucket/prefix, in HAM10000's layout; the classes may be some of the run's
    OUT         the folder of the results (default: external/ in the run's folder, where that is local)
    duplicates  refuse (default) images of the run among the external ones, or move_to_train: leave their lesions out
    max_bad_images  so many unusable external images are listed and left out (default 10)

Exit codes: 0 done, 1 failed, 2 something that the user can mend, 130 interrupted.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from components.shared.errors import UserError
from components.shared.files import atomic_write, write_text
from counterweight import parameters
from counterweight.exit_codes import run_command
from counterweight.run import check_writable

NAMES = ("RUN", "EXTERNAL", "OUT", "duplicates", "max_bad_images")


def arguments(words: list[str]) -> tuple[list[str], str, Path, str, int]:
    """Runs, external data (or ""), folder of the results, duplicates and max_bad_images.

    Raises:
        UserError: something can't be used.
    """
    given = parameters.assignments(words)
    for name in given:
        if name not in NAMES:
            raise UserError(f"{name} is not known here; choose from {', '.join(NAMES)}.")
    runs = [_place(run) for run in given.get("RUN", "").split(",") if run.strip()]
    external = _place(given.get("EXTERNAL", ""))
    out = given.get("OUT", "")
    if not runs:
        raise UserError("RUN is missing; give the folder of a finished run.")
    if len(runs) == 1 and not external:
        raise UserError("EXTERNAL is missing; give the images, or in RUN all folds of a k-fold run.")
    if len(runs) > 1 and external:
        raise UserError("EXTERNAL goes with one run; leave it out to pool folds, or give one run.")
    if not out and (len(runs) > 1 or "://" in runs[0]):
        raise UserError("OUT is missing; give a folder for the results.")
    if "://" in out:
        raise UserError(f"OUT is {out}; the results go to a folder on this machine, give one.")
    bad = given.get("max_bad_images", "10")
    if not bad.isdigit():
        raise UserError(f"max_bad_images is {bad!r}; give a whole number.")
    folder = Path(_place(out) if out else Path(runs[0], "external")).resolve()
    if any(folder == Path(run).resolve() for run in runs):
        raise UserError(f"OUT is {out}, the run itself; choose another folder, so that its results stay.")
    return runs, external, folder, given.get("duplicates", "refuse"), int(bad)


def _place(text: str) -> str:
    """A folder's name with the user's home filled in."""
    return text.strip() if "://" in text else os.path.expanduser(text.strip())  # noqa: PTH111 (Path's own may raise)


def opener(run: str, scratch: Path) -> Callable[[str], Path]:
    """Gives a function that finds one of a run's files here, downloaded into `scratch` where the run is elsewhere."""

    def local(name: str) -> Path:
        path = Path(run, name)
        if not path.is_file():
            raise UserError(f"{run} holds no {name}; give the folder of a finished run.")
        return path

    def remote(name: str) -> Path:
        from components.shared.storage import download_file

        path = scratch / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            download_file(f"{run.rstrip('/')}/{name}", path)
        return path

    return remote if "://" in run else local


def evaluate(words: list[str]) -> None:
    """Does what the command asks for."""
    runs, external, folder, duplicates, max_bad_images = arguments(words)
    check_writable(folder, "OUT")
    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
    from components.evaluate import reevaluate
    from components.evaluate.evaluate import sentence, write_pages
    from components.evaluate.gallery import Pictures
    from components.evaluate.report import render_text
    from components.prepare_data.prepare import prepare_external

    with tempfile.TemporaryDirectory(prefix="counterweight-") as name:
        scratch = Path(name)
        opened = [reevaluate.open_run(run, opener(run, scratch / str(number))) for number, run in enumerate(runs)]
        if external:
            images, run = scratch / "external", opened[0]
            size = run.results["run"]["image_size"]
            known = run.file("splits.csv")
            prepare_external(external, run.classes, size, duplicates, max_bad_images, known, images)
            results, table = reevaluate.outside(run, external, images)
        else:
            results, table = reevaluate.pooled(opened)
    write_text(folder / "metrics.json", json.dumps(results, indent=1))
    with atomic_write(folder / "predictions.parquet") as part:
        table.to_parquet(part, index=False)
    write_pages(results, Pictures(), folder / "report.html", folder / "comparison.md")
    seeds = results["run"]["seeds"]
    print(f"\n{render_text(results).rstrip()}\n")
    if external:
        print(f"{external}: {sentence(results['external'], seeds)}")
    print(f"report: {os.path.relpath(folder / 'report.html')}")


if __name__ == "__main__":
    sys.exit(run_command(lambda: evaluate(parameters.words(sys.argv[1:]))))
