"""Print the tables of a results page in Markdown: `python -m scripts.results_tables RUN [IMAGE.jpg]`.

All figures are those of `RUN/metrics.json`. With a second argument, the first images of each class, not selected, are
written as a contact sheet, one row per class.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from components.evaluate.report.formatting import effect_name
from components.shared import html_page
from components.shared.errors import UserError, exit_on_user_error
from components.shared.image_set import decode_png, iter_tables
from components.shared.records import ArmResults, Difference, Results, SyntheticDetails, load_record

SHOWN = 12
METRICS = {
    "rare_recall": "mean recall of the rare classes",
    "balanced_accuracy": "balanced accuracy",
    "macro_auc": "macro AUC",
    "balanced_log_loss": "balanced log loss",
    "corrected_recall": "prior-corrected recall",
    "malignant_sensitivity": "sensitivity, positive classes",
}
"""The metrics whose differences are shown, by their names in the record."""


def _number(value: float | None, signed: bool = False) -> str:
    if value is None:
        return ""
    return f"{value:{'+' if signed else ''}.3f}".replace("-", "−")


def difference_cells(difference: Difference) -> str:
    """Return value and interval as two cells of a table; empty if undefined."""
    value, low, high = (_number(it, signed=True) for it in (difference.value, difference.low, difference.high))
    return f"{value} | {low} to {high}" if low and high else f"{value} | "


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table whose first column is text and whose others are figures."""
    yield f"| {' | '.join(header)} |"
    yield "|---|" + "--:|" * (len(header) - 1)
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def arms_table(results: Results) -> Iterator[str]:
    """Yield the lines of the table of arms: figures of each, and its gain on the baseline."""
    header = ["arm", "mean recall, rare classes", "balanced accuracy", "macro AUC", "balanced log loss"]
    header += ["prior-corrected recall", "validation log loss", "gain", "interval"]
    gains = {it.arm: difference_cells(it) for it in results.effect.remedies}

    def row(arm: str, of: ArmResults) -> Sequence[str]:
        figures = of.rare_recall, of.balanced_accuracy, of.macro_auc, of.balanced_log_loss
        more = of.corrected_recall, of.validation_log_loss
        return (f"`{arm}`", *(_number(it) for it in (*figures, *more)), gains.get(arm, " | "))

    yield from markdown_table(header, (row(*item) for item in results.arms.items()))


def effect_title(results: Results) -> str:
    """Return the name of the effect, with a capital."""
    name = effect_name(results.effect.arm)
    return f"{name[0].upper()}{name[1:]}"


def effects_table(results: Results) -> Iterator[str]:
    """Yield the lines of the table of differences: the effect, every share, and what metadata adds."""
    effect, title, rows = results.effect, effect_title(results), []
    rows.append((f"{title}: `{effect.arm}` − `{effect.reference}`", difference_cells(effect)))
    rows += [(f"`{it.arm}` − `{effect.reference}`, all shares at once", difference_cells(it)) for it in effect.doses]
    if best := effect.augmented_minus_best_control:
        rows.append((f"`{effect.arm}` − `{effect.best_control}` (the best control)", difference_cells(best)))
    others, metadata = effect.by_metric, effect.metadata
    rows += [
        (f"{title} on {METRICS[name]}", difference_cells(others[name].effect)) for name in METRICS if name in others
    ]
    rows += [
        (f"`metadata` − `oversampled`, {METRICS[name]}", difference_cells(metadata[name]))
        for name in METRICS
        if name in metadata
    ]
    yield from markdown_table(("difference", "value", "interval"), rows)


def classes_table(results: Results) -> Iterator[str]:
    """Yield the lines of the table of classes: recall in each arm, and the effect."""
    names = list(results.arms)
    header = ("class", "test lesions", *(f"`{name}`" for name in names), effect_title(results), "interval")

    def row(dx: str) -> Sequence[str]:
        difference = results.effect.by_class.get(dx)
        lesions = str(difference.lesions) if difference else ""
        mark = " *" if dx in results.run.rare_classes else ""
        recalls = (_number(results.arms[name].recall[dx]) for name in names)
        return (f"{dx}{mark}", lesions, *recalls, difference_cells(difference) if difference else " | ")

    yield from markdown_table(header, map(row, results.classes))


def images_table(results: Results) -> Iterator[str]:
    """Yield the lines of the table of synthetic images."""
    header = ["class", "real images", "kimg", "KID", "texture", "coverage", "separability"]
    header += ["of the spectrum", "label fidelity", "recall on validation", "copies"]

    def row(key: str, of: SyntheticDetails) -> Sequence[str]:
        numbers = [of.kid, of.texture, of.coverage, of.separability, of.separability_spectrum]
        numbers += [of.label_fidelity, of.validation_recall]
        counts = (str(it) if it is not None else "" for it in (of.real_images, of.kimg))
        return (key, *counts, *(_number(it) for it in numbers), str(of.copies) if of.copies is not None else "")

    yield from markdown_table(header, (row(*item) for item in results.synthetic.items()))


def write_sheet(folder: Path, path: Path, shown: int) -> None:
    """Write the first images of each class that has enough, not selected, one row per class; nothing if none has.

    Args:
        folder: with the image sets.
        path: JPEG file to write.
        shown: images of each class.
    """
    rows: dict[str, list[np.ndarray]] = {}
    for table in (table for file in sorted(folder.glob("*.parquet")) for table in iter_tables(file)):
        for dx, image in zip(table.column("dx").to_pylist(), table.column("image").to_pylist(), strict=True):
            if len(of_class := rows.setdefault(dx, [])) < shown:
                of_class.append(decode_png(image["bytes"]))
    if whole := [image for of_class in rows.values() if len(of_class) == shown for image in of_class]:
        Image.fromarray(html_page.contact_sheet(np.stack(whole), shown)).save(path, quality=85)


def main(given: Sequence[str]) -> None:
    """Print the tables of a finished run, and write the images if a path is given.

    Raises:
        UserError: `results_tables.arguments`: no run, or more than a run and a path.
    """
    if len(given) not in (1, 2):
        raise UserError(
            f"{len(given)} arguments are given",
            "give the folder of a finished run, and optionally a path for the images",
            "results_tables.arguments",
        )
    run, *sheets = map(Path, given)
    results = load_record(run / "metrics.json", Results)
    images = [images_table] if results.synthetic else []
    for table in (arms_table, effects_table, classes_table, *images):
        print("\n".join(table(results)))
    seconds = sum(model.seconds for arm in results.arms.values() for model in arm.models.values())
    print(f"verdict: {results.verdict}; training of all classifiers: {seconds / 60:.0f} min")
    for sheet in sheets:
        write_sheet(run / "synthetic", sheet, SHOWN)


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
