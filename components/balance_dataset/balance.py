"""Phase 4: the two balanced arms.

Reads the training set and the synthetic sets. Writes the augmented arm (both together) and its control, the
oversampled arm: the same number of additional images in each class, but repeated real ones. Streams row groups; a
repeated image is a number in its row, not a copy.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from components.shared.errors import UserError
from components.shared.files import write_text
from components.shared.image_set import iter_tables, read_header, read_rows, write_image_set
from components.shared.log import log_line
from components.shared.seeds import derive_seed


def repeats(real: int, added: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `real` images counts so that they count `real + added` times, as evenly as can be.

    Returns:
        (real,) int64, at least 1; which ones count once more is drawn by `rng`.
    """
    counts = np.full(real, 1 + added // real)
    counts[rng.permutation(real)[: added % real]] += 1
    return counts


def balance(
    train_set: str | Path,
    synthetic_sets: Sequence[str | Path],
    seed: int,
    augmented: str | Path,
    oversampled: str | Path,
    summary: str | Path,
) -> None:
    """Writes both arms.

    Args:
        train_set: real images of the split `train`.
        synthetic_sets: sets of some rare classes each, made from that training set.
        seed: decides which real images count once more than others.
        augmented, oversampled: where the image sets go.
        summary: where the counts, a Markdown table, go.

    Raises:
        UserError: a set is of another split or size, or of a class that the training set lacks.
    """
    header = read_header(train_set)
    real = read_rows(train_set, "train", ["dx"])["dx"].value_counts()
    added = dict.fromkeys(header.classes, 0)
    for path in synthetic_sets:
        if read_header(path) != header:
            raise UserError(f"{path} was not made from this training set; take both from one run.")
        for dx, count in read_rows(path, "train", ["dx"])["dx"].value_counts().items():
            added[str(dx)] += int(count)
    if synthetic_sets and not any(added.values()):
        raise UserError("no class has a synthetic image, since every GAN failed; look at their records.")
    with write_image_set(augmented, header) as out:
        for path in (train_set, *synthetic_sets):
            for table in iter_tables(path):
                out.write_table(table)
    with write_image_set(oversampled, header) as out:
        for dx in header.classes:
            rng = np.random.default_rng(derive_seed(seed, "balance_dataset", dx))
            counts = repeats(int(real[dx]), added[dx], rng)
            begin = 0
            for table in iter_tables(train_set, dx):
                part = pa.array(counts[begin : begin + table.num_rows], pa.int32())
                out.write_table(table.set_column(table.schema.names.index("repeat"), "repeat", part))
                begin += table.num_rows
    lines = ["| class | real | synthetic (augmented) | repeated (oversampled) | together |", "|---|--:|--:|--:|--:|"]
    lines += [
        f"| {dx} | {real[dx]:,} | {added[dx]:,} | {added[dx]:,} | {real[dx] + added[dx]:,} |" for dx in header.classes
    ]
    write_text(summary, "\n".join(lines) + "\n")
    log_line("balance_dataset", f"{real.sum():,} real images and {sum(added.values()):,} added, synthetic or repeated")
