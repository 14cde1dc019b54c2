"""Read synthetic images that other generators made, and refuse those that have seen held-out images.

A generator that was trained on validation or test images reproduces some of them. Every image is therefore compared
with all held-out images: those that are near-duplicates are excluded, and more than chance explains fail the run.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd

from components.prepare_data import layouts, near_duplicates, sources
from components.prepare_data.decode_pool import Decoded, Findings, decode
from components.prepare_data.external import LABEL, iter_thumbnails
from components.prepare_data.layouts.dataset import ImageFiles
from components.prepare_data.near_duplicates import THUMBNAIL_PX
from components.prepare_data.prepare import check_source_classes, describe_source, keep_rows_with_files, write_rows
from components.shared.data_identity import PROVENANCE
from components.shared.errors import UserError, printable
from components.shared.image_set import Header
from components.shared.log import log_line
from components.shared.records import (
    Provenance,
    SyntheticSource,
    load_record,
)
from components.shared.seeds import derive_seed

POOL_RATIO = 5
"""Maximum number of images of a class that are read, as a multiple of the number that arms add."""
ACCUSED_PER_PAIR = 1e-7
"""Upper bound of the share of pairs of unrelated images that count as near-duplicates: none of 36 million pairs of
HAM10000 did; with a probability of 97 %, the share is below this."""
MAX_CHANCE = 1e-3
"""Probability with which innocent images fail a run."""
LISTED = 20


@dataclass(frozen=True)
class HeldOut:
    """Images that no generator may have seen.

    Attributes:
        names: what to call each in messages.
        hashes: their perceptual hashes.
        thumbnails: (N, 32, 32) uint8.
    """

    names: list[str]
    hashes: list[str]
    thumbnails: np.ndarray


def read_held_out(sets: Mapping[str, Path]) -> HeldOut:
    """Read the held-out image sets; split → path."""
    names: list[str] = []
    hashes: list[str] = []
    thumbnails: list[bytes] = []
    for split, path in sets.items():
        for table, some in iter_thumbnails(path):
            names += [f"{printable(name[:80])} ({split})" for name in table.column("image_id").to_pylist()]
            hashes += table.column("perceptual_hash").to_pylist()
            thumbnails += some
    pixels = np.frombuffer(b"".join(thumbnails), np.uint8).reshape(-1, THUMBNAIL_PX, THUMBNAIL_PX)
    return HeldOut(names, hashes, pixels)


def count_by_chance(pairs: int) -> int:
    """Return how many near-duplicates unrelated images may have, in a number of pairs that are compared.

    It is the quantile 1 − `MAX_CHANCE` of the Poisson distribution with the mean `pairs · ACCUSED_PER_PAIR`; of the
    normal distribution above a mean of 500, where the exponential would soon be 0.
    """
    mean, count = pairs * ACCUSED_PER_PAIR, 0
    if mean > 500:
        return math.ceil(mean + NormalDist().inv_cdf(1 - MAX_CHANCE) * math.sqrt(mean))
    term = total = math.exp(-mean)
    while total < 1 - MAX_CHANCE:
        count += 1
        term *= mean / count
        total += term
    return count


def _find_reproduced(name: str, decoded: Decoded, held_out: HeldOut) -> dict[int, str]:
    """Return row → held-out image that it reproduces.

    Raises:
        UserError: `synthetic.seen_held_out`: there are more than chance explains.
    """
    near = near_duplicates.pairs(
        decoded.thumbnails, held_out.hashes, held_out.thumbnails, rows=decoded.rows["file"].to_numpy()
    )
    found = {int(row): held_out.names[known] for row, known in reversed(near.tolist())}
    allowed = count_by_chance(len(decoded.rows) * len(held_out.names))
    listed = [f"{printable(decoded.rows['image_id'][row][:80])} reproduces {found[row]}" for row in sorted(found)]
    for line in listed[:LISTED]:
        log_line(LABEL, f"{name}: {line}")
    if len(found) > allowed:
        raise UserError(
            f"{len(found):,} of {len(decoded.rows):,} images of {name} reproduce held-out images "
            f"({'; '.join(listed[:3])}{'; …' * (len(found) > 3)})",
            "train the generator on the images of `train` in splits.csv only",
            "synthetic.seen_held_out",
            name=name,
            count=len(found),
            listed=listed[:100],
        )
    return found


def _choose(
    table: pd.DataFrame, rare: Sequence[str], classes: Sequence[str], name: str, limit: int, seed: int
) -> pd.DataFrame:
    """Return the rows of the rare classes, of each at most `limit` at random, in random order within a class."""
    check_source_classes(name, set(table["dx"]), rare, classes)
    if others := sorted(set(table["dx"]) - set(rare)):
        log_line(LABEL, f"{name}: the images of {', '.join(others)} are not used; synthetic_classes does not name them")
    chosen = []
    for dx in rare:
        of_class = table[table["dx"] == dx]
        order = np.random.default_rng(derive_seed(seed, "read_synthetic", name, dx)).permutation(len(of_class))
        chosen.append(of_class.iloc[order[:limit]])
    return pd.concat(chosen, ignore_index=True)


def _read_images(
    name: str, folder: Path, scratch: Path, findings: Findings, max_bad_images: int
) -> tuple[pd.DataFrame, ImageFiles]:
    """Return image_id and dx of the images of a source in any layout, and their files."""
    dataset = layouts.read(folder, scratch=scratch, min_classes=1)
    for line in describe_source(f"{name}: ", dataset.source):
        log_line(LABEL, line)
    table = keep_rows_with_files(dataset, findings, max_bad_images)
    findings.refuse_more_than(max_bad_images)
    return table[["image_id", "dx"]], dataset.files


def _read_provenance(name: str, folder: Path) -> Provenance | None:
    path = folder / PROVENANCE
    if not path.is_file():
        hint = f"add {PROVENANCE} with the fields generator and trained_on"
        log_line(LABEL, f"warning: {name} does not declare how its images were made; {hint}")
        return None
    return load_record(path, Provenance)


def read_source(
    name: str,
    place: str,
    rare: Sequence[str],
    header: Header,
    held_out: HeldOut,
    count: int,
    max_bad_images: int,
    seed: int,
    part: Path,
) -> SyntheticSource:
    """Write the image set of one source, and return its description."""
    log_line(LABEL, f"reading {printable(place)}, the synthetic images of {name}")
    with tempfile.TemporaryDirectory(prefix="counterweight-") as scratch:
        parts = [Path(scratch) / kind for kind in ("data", "images")]
        for each in parts:
            each.mkdir()
        folder, findings = sources.fetch(place, parts[0]), Findings()
        images, files = _read_images(name, folder, parts[1], findings, max_bad_images)
        available = {str(dx): int(number) for dx, number in images["dx"].value_counts().items()}
        table = _choose(images, rare, header.classes, name, POOL_RATIO * count, seed).assign(source=name)
        with decode(table, files, header.image_size, findings, max_bad_images, f"{LABEL} {name}") as decoded:
            found = _find_reproduced(name, decoded, held_out)
            rows = decoded.rows[~decoded.rows.index.isin(found)]
            rows = rows[~rows["pixel_sha256"].duplicated()]
            left = rows["dx"].value_counts()
            for dx in rare:
                if not left.get(dx, 0):
                    raise UserError(
                        f"no usable image of the class {dx} remains in {name}",
                        "add images that are no copies of held-out images",
                        "synthetic.no_images",
                        name=name,
                        dx=dx,
                    )
            rows = rows.assign(image_id=f"{name}-" + rows["image_id"], perceptual_hash=None, lesion_id=None)
            write_rows(part, header, decoded, rows)
        provenance = _read_provenance(name, folder)
    for image, reason in findings.skipped:
        log_line(LABEL, f"{name}: skipped {image}: {reason}")
    scaled = sum(n for size, n in findings.sizes.items() if size != (header.image_size, header.image_size))
    if scaled:
        log_line(LABEL, f"{name}: {scaled:,} images of another size were scaled to {header.image_size} px")
    log_line(LABEL, f"{name}: {len(rows):,} images; " + ", ".join(f"{dx} {left[dx]:,}" for dx in rare))
    return SyntheticSource(
        place=place,
        images={dx: int(left[dx]) for dx in rare},
        available=dict(sorted(available.items())),
        scaled=scaled,
        skipped=len(findings.skipped),
        held_out=[f"{decoded.rows['image_id'][row]} reproduces {found[row]}"[:500] for row in sorted(found)][:100],
        provenance=provenance,
    )
