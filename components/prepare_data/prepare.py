"""Phase 1: raw data in, a lesion-disjoint split of checked and resized images out.

Reads a source (see `sources`). Writes one image set for each split and a data profile. Bounded by the image codecs:
8,499 images of 200×150 px take some 6 s on two cores; memory does not grow with the number of images.
"""

import ctypes
import hashlib
import os
import signal
import sys
import tempfile
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from components.prepare_data import images, metadata, profile, sources, split, tree
from components.shared.errors import UserError, printable
from components.shared.files import all_written_whole
from components.shared.image_set import REAL, ROW_GROUP, Header, ImageSetWriter
from components.shared.progress import Progress, say


@dataclass
class Findings:
    """What was seen on the way, for the data profile.

    Attributes:
        left_out: (image id, reason) of each row that could not be used.
        notes: how many images were grey, had a palette, …, and were used.
        sizes: how many originals had which (width, height).
        without_row: image files that no row names.
        twins: images whose pixels are those of another lesion's image: if that is one lesion, the split can't know it.
        samples: PNG bytes of the first training images of each class.
    """

    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    without_row: int = 0
    twins: int = 0
    samples: dict[str, list[bytes]] = field(default_factory=dict)


def rare_classes(table: pd.DataFrame, wanted: str) -> list[str]:
    """The classes to rebalance, sorted.

    Args:
        table: dx of each image.
        wanted: `auto` for all but the largest class, or names with commas between them.

    Raises:
        UserError: an unknown class, or none.
    """
    counts = table["dx"].value_counts()
    if wanted.strip() == "auto":
        return sorted(set(counts.index) - {counts.index[0]})
    names = sorted({name.strip() for name in wanted.split(",") if name.strip()})
    unknown = [name for name in names if name not in counts.index]
    if unknown:
        raise UserError(
            f"rare_classes names {', '.join(unknown)}, which the data does not have; "
            f"choose from {', '.join(sorted(counts.index))}, or auto."
        )
    if not names:
        raise UserError("rare_classes is empty; name at least one class, or write auto.")
    return names


def _die_with_parent(parent: int) -> None:
    """Has Linux kill this worker with the phase: it would wait for work for ever."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was killed before we could ask
            os._exit(1)


def _read(paths: list[Path], size: int) -> list[images.Accepted | str]:
    return [images.read(path, size) for path in paths]


def _ahead(
    pool: ProcessPoolExecutor, chunks: list[pd.DataFrame], files: dict[str, Path], size: int
) -> Iterator[tuple[pd.DataFrame, list[images.Accepted | str]]]:
    """Decodes chunks in parallel and gives them in order; only a few are ahead of the writer, so that memory stays
    bounded."""
    # Some images a task: handing them over one by one costs a sixth of the rate.
    waiting: deque[tuple[pd.DataFrame, list[Future[list[images.Accepted | str]]]]] = deque()
    for chunk in [*chunks, None]:
        if chunk is not None:
            paths = [files[name] for name in chunk["image_id"]]
            parts = [paths[start : start + 32] for start in range(0, len(paths), 32)]
            waiting.append((chunk, [pool.submit(_read, part, size) for part in parts]))
        while waiting and (chunk is None or len(waiting) > 2):
            rows, futures = waiting.popleft()
            yield rows, [result for future in futures for result in future.result()]


def _why_missing(folder: Path) -> str:
    """Why a row may have no image file: a folder that was not entered is worth a word."""
    closed = tree.scan(folder).closed
    if not closed:
        return "no image file"
    return f"no image file; {printable(closed[0].name)} is a link or unreadable, and was not entered"


def _refuse_too_many(left_out: list[tuple[str, str]], max_bad_images: int) -> None:
    if len(left_out) > max_bad_images:
        listed = "; ".join(f"{name}: {reason}" for name, reason in left_out[:5])
        raise UserError(
            f"more than {max_bad_images} images can't be used ({listed}{'; …' if len(left_out) > 5 else ''}); "
            "mend or remove them, or raise max_bad_images."
        )


def prepare(
    data: str,
    image_size: int,
    rare: str,
    max_bad_images: int,
    seed: int,
    train: str | Path,
    validation: str | Path,
    test: str | Path,
    data_profile: str | Path,
) -> list[str]:
    """Checks, splits and resizes the images of a source.

    Args:
        data: `demo`, `kaggle`, `gs://bucket/prefix` or a folder.
        image_size: height and width to scale to, in pixels; a multiple of 16 from 32 to 512.
        rare: `auto` (all classes but the largest) or class names with commas between them.
        max_bad_images: so many images may be unusable; they are listed and left out.
        seed: of the split.
        train, validation, test: where the image sets go.
        data_profile: where the profile, an HTML file, goes.

    Returns:
        The rare classes, sorted.

    Raises:
        UserError: something about the data or the parameters can't be used; nothing is written then.
        OSError: nor when a disk is full or a folder can't be written.
    """
    if image_size % 16 or not 32 <= image_size <= 512:
        raise UserError(f"image_size is {image_size}; choose a multiple of 16 from 32 to 512.")
    if max_bad_images < 0:
        raise UserError(f"max_bad_images is {max_bad_images}; choose 0 or more.")
    if seed < 0:
        raise UserError(f"seed is {seed}; choose 0 or more.")
    say("prepare_data", f"reading {printable(data)}")
    with tempfile.TemporaryDirectory(prefix="counterweight-") as scratch, ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # Pillow warns of what is refused here anyway
        folder = sources.fetch(data, Path(scratch))
        table = metadata.read(folder)
        rare_names = rare_classes(table, rare)
        files = images.index(folder)
        findings = Findings(without_row=len(set(files) - set(table["image_id"])))
        # Not by `isin`: a file's name may hold what is no text, which pandas' strings can't.
        present = table["image_id"].map(lambda name: name in files)
        if not present.all():
            reason = _why_missing(folder)
            findings.left_out += [(name, reason) for name in table.loc[~present, "image_id"]]
        _refuse_too_many(findings.left_out, max_bad_images)
        header = Header(classes=tuple(sorted(table["dx"].unique())), image_size=image_size, split="")
        table = table[present]
        table = table.assign(split=split.assign(table, seed), source=REAL)

        # All four get their names together, at the very end.
        *sets, page = stack.enter_context(all_written_whole(train, validation, test, data_profile))
        writers = {
            name: stack.enter_context(closing(ImageSetWriter(part, replace(header, split=name))))
            for name, part in zip(split.SHARES, sets, strict=True)
        }
        chunks = [
            rows.iloc[start : start + ROW_GROUP]
            for _, rows in table.groupby(["split", "dx"])
            for start in range(0, len(rows), ROW_GROUP)
        ]
        progress = Progress("prepare_data", len(table), "images")
        accepted: list[pd.DataFrame] = []
        seen = 0
        # Processes: with threads the interpreter's lock costs a fifth of the codecs' rate.
        pool = ProcessPoolExecutor(initializer=_die_with_parent, initargs=(os.getpid(),))
        stack.callback(pool.shutdown, cancel_futures=True)
        for rows, results in _ahead(pool, chunks, files, image_size):
            good = [result for result in results if isinstance(result, images.Accepted)]
            findings.left_out += [
                (name, result)
                for name, result in zip(rows["image_id"], results, strict=True)
                if isinstance(result, str)
            ]
            _refuse_too_many(findings.left_out, max_bad_images)
            rows = rows[[isinstance(result, images.Accepted) for result in results]]
            rows = rows.assign(pixel_sha256=[image.pixel_sha256 for image in good])
            for image in good:
                findings.notes.update(image.notes)
                findings.sizes[image.size] += 1
            if len(rows):
                name, dx = rows["split"].iloc[0], rows["dx"].iloc[0]
                writers[name].write(rows, [image.png for image in good])
                if name == "train":
                    some = findings.samples.setdefault(dx, [])
                    some += [image.png for image in good[: 6 - len(some)]]
                accepted.append(rows)
            seen += len(results)
            progress.update(seen)

        used = pd.concat(accepted) if accepted else table.iloc[:0]
        for dx in header.classes:
            for name in writers:
                if not ((used["dx"] == dx) & (used["split"] == name)).any():
                    raise UserError(
                        f"no usable image of the class {dx} is left for {name}; mend the images that were left out, "
                        "add lesions, or leave the class out."
                    )
        of_pixels = used.groupby("pixel_sha256")["lesion_id"].transform("nunique")
        findings.twins = int((of_pixels > 1).sum())
        header = replace(
            header,
            data_sha256=_hash(used, ["image_id", "lesion_id", "dx", "pixel_sha256"]),
            split_sha256=_hash(used, ["image_id", "split"]),
        )
        for name, writer in writers.items():
            writer.header = replace(header, split=name)
        page.write_text(profile.render(printable(data), used, header, rare_names, findings), encoding="utf-8")
    if findings.twins:
        say(
            "prepare_data",
            f"{findings.twins} images have the pixels of another lesion's image: look at their lesion_id",
        )
    for name, reason in findings.left_out:
        say("prepare_data", f"left out {name}: {reason}")
    counts = ", ".join(f"{name} {n:,}" for name, n in used["split"].value_counts().items())
    say("prepare_data", f"{len(used):,} images ({counts}); to rebalance: {', '.join(rare_names)}")
    return rare_names


def _hash(table: pd.DataFrame, columns: list[str]) -> str:
    """SHA-256 of some columns, whatever the order of the rows."""
    rows = table.sort_values("image_id")[columns].to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(rows.encode()).hexdigest()
