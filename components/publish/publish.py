"""Phase 6: the run's results under one folder or prefix, with a manifest of their hashes, written last.

Nothing counts for a reader until the manifest is there; publishing the same results again changes nothing; a
publication that was cut off is completed by the next.
"""

import json
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from components.shared.errors import UserError
from components.shared.files import PART, atomic_write, file_sha256, write_text
from components.shared.image_set import iter_tables, read_header, read_rows, write_image_set
from components.shared.log import log_line

MANIFEST = "manifest.json"
JOURNAL = ".publishing.json"
"""Beside the manifest while a publication is under way: all files that may be there, from whichever run."""
CANDIDATE = "models/augmented.keras"
"""What is proposed for use if the verdict allows it."""
PROMOTING: dict[str, Collection[str]] = {
    "improved": {"improved"},
    "not_worse": {"improved", "no evidence"},
    "always": {"improved", "no evidence", "worse"},
    "never": (),
}
"""promote_if → the verdicts with which there is a candidate."""


def named(
    models: Mapping[str, Sequence[str | Path]],
    records: Mapping[str, Sequence[str | Path]],
    generators: Sequence[str | Path],
    gan_records: Sequence[str | Path],
    gan_pages: Sequence[str | Path],
    synthetic_sets: Sequence[str | Path],
    sheets: Sequence[str | Path],
    quality: Sequence[str | Path],
    others: Mapping[str, str | Path],
    scratch: Path,
) -> dict[str, Path]:
    """Where each file goes: relative name → file.

    An arm's models, one a seed, stand in the order of their records: the first is `models/<arm>.keras`, the others have
    their seed in the name. Models and generators are matched with records by hash, not by their order; pages, which
    hold none, stand in the order of the records, and sheets in that of the synthetic sets. Of a class whose GAN failed
    there are only record and page.

    A task makes the GANs and images of one class or of several. What it wrote of several is taken apart, so that each
    class has its files whatever the tasks were; a page or sheet keeps the names of all its classes.

    Args:
        models, records: arm → `.keras` models and their JSON records.
        generators: folders of `.keras` generators.
        gan_records, gan_pages: JSON lists with a record for each class, and pages.
        synthetic_sets, sheets, quality: image sets, contact sheets, and JSON lists with an entry for each class.
        others: relative name → file, taken as they are.
        scratch: an empty folder for the parts of what is taken apart; it must stay until all is published.

    Raises:
        UserError: a record has no model of its hash.
    """
    files = {name: Path(path) for name, path in others.items()}
    for arm, own in records.items():
        by_hash = _by_hash(models[arm])
        for number, path in enumerate(own):
            facts = _facts(path)
            stem = f"models/{arm}-seed{facts['settings']['seed']}" if number else f"models/{arm}"
            files[f"{stem}.keras"] = _matching(facts, by_hash, f"the {arm} model")
            files[f"{stem}.json"] = Path(path)
    by_hash = _by_hash([path for folder in generators for path in Path(folder).glob("*.keras")])
    for of_task, page in zip(gan_records, gan_pages, strict=True):
        of_classes = _facts(of_task)
        for facts in of_classes:
            stem = f"models/gan-{facts['dx']}"
            if "failed" not in facts:
                files[f"{stem}.keras"] = _matching(facts, by_hash, f"the generator of {facts['dx']}")
            files[f"{stem}.json"] = _part(scratch / f"gan-{facts['dx']}.json", facts)
        files[f"models/gan-{'+'.join(facts['dx'] for facts in of_classes)}.html"] = Path(page)
    for of_task, sheet in zip(synthetic_sets, sheets, strict=True):
        names = [str(dx) for dx in read_rows(of_task, "train", ["dx"])["dx"].unique()]
        for dx in names:
            files[f"synthetic/{dx}.parquet"] = (
                Path(of_task) if len(names) == 1 else _of_class(of_task, dx, scratch / f"{dx}.parquet")
            )
        if names:
            files[f"synthetic/{'+'.join(names)}.html"] = Path(sheet)
    for of_task in quality:
        for facts in _facts(of_task):
            if "failed" not in facts:
                files[f"synthetic/{facts['dx']}.json"] = _part(scratch / f"quality-{facts['dx']}.json", facts)
    return files


def _facts(record: str | Path) -> Any:
    return json.loads(Path(record).read_text(encoding="utf-8"))


def _part(path: Path, facts: Any) -> Path:
    write_text(path, json.dumps(facts, indent=1))
    return path


def _of_class(image_set: str | Path, dx: str, path: Path) -> Path:
    """An image set of one class's rows."""
    with write_image_set(path, read_header(image_set)) as out:
        for table in iter_tables(image_set, dx):
            out.write_table(table)
    return path


def _by_hash(paths: Sequence[str | Path]) -> dict[str, Path]:
    return {file_sha256(path): Path(path) for path in paths}


def _matching(facts: Mapping[str, Any], by_hash: Mapping[str, Path], what: str) -> Path:
    if facts["model_sha256"] not in by_hash:
        raise UserError(f"{what} is not the one in its record; publish one run's files.")
    return by_hash[facts["model_sha256"]]


class Target(Protocol):
    """A place to publish to. `wanted` is name → (file, its SHA-256)."""

    def read(self, name: str) -> str | None:
        """A small file's text; None where there is none."""

    def held(self, wanted: Mapping[str, tuple[Path, str]]) -> set[str]:
        """The names under which the wanted content is there already."""

    def put(self, wanted: Mapping[str, tuple[Path, str]]) -> None:
        """Copies files there, each whole or not at all."""

    def write(self, name: str, text: str) -> None:
        """Writes a small file, whole or not at all."""

    def remove(self, names: Collection[str]) -> None:
        """Removes files, as far as they are there."""


class Folder:
    """A folder on this machine, as a place to publish to.

    Raises:
        UserError: it is a file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{path} is a file; give a folder's name as output.")

    def read(self, name: str) -> str | None:
        """A file's text; None where there is none."""
        path = self.path / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None

    def held(self, wanted: Mapping[str, tuple[Path, str]]) -> set[str]:
        """The names of those files that are there already with the content wanted."""
        there = {name for name in wanted if (self.path / name).is_file()}
        return {name for name in there if file_sha256(self.path / name) == wanted[name][1]}

    def put(self, wanted: Mapping[str, tuple[Path, str]]) -> None:
        """Copies files, and removes what is left of copies that were cut off."""
        for parent in {(self.path / name).parent for name in wanted}:
            for part in parent.glob(f"{PART}*"):
                part.unlink()
        for name, (path, _) in wanted.items():
            with atomic_write(self.path / name) as part:
                shutil.copyfile(path, part)

    def write(self, name: str, text: str) -> None:
        """Writes a small file."""
        write_text(self.path / name, text)

    def remove(self, names: Collection[str]) -> None:
        """Removes files, as far as they are there."""
        for name in names:
            (self.path / name).unlink(missing_ok=True)


def _target(place: str) -> Target:
    if place.startswith("gs://"):
        from components.shared import storage  # Google's client takes half a second

        return storage.Prefix(place)
    if "://" in place:
        raise UserError(f"{place}: this kind of address is not known; give a folder or gs://bucket/prefix as output.")
    return Folder(place)


def _listed(text: str | None, where: str) -> dict[str, Any]:
    """The files that a manifest or journal lists; none where there is no such file.

    Raises:
        UserError: it is somebody else's.
    """
    try:
        files = json.loads(text)["files"] if text is not None else {}
        paths = [PurePosixPath(name) for name in files]
        ours = all(set(entry) == {"sha256", "bytes"} for entry in files.values())
        if ours and not any(path.is_absolute() or ".." in path.parts or "\0" in str(path) for path in paths):
            return dict(files)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{where} is not of this pipeline; give another folder as output, or remove it.")


def _candidate(verdict: str, promote_if: str) -> str | None:
    if promote_if not in PROMOTING:
        raise UserError(f"promote_if is {promote_if!r}; choose one of {', '.join(PROMOTING)}.")
    candidate = CANDIDATE if verdict in PROMOTING[promote_if] else None
    log_line("publish", f"{candidate or 'no model'} is the candidate (verdict: {verdict}; promote_if: {promote_if})")
    return candidate


def publish(
    output: str,
    files: Mapping[str, Path],
    manifest: str | Path,
    verdict: str,
    promote_if: str = "improved",
    run: str = "",
) -> str:
    """Copies files below a folder or an address of object storage.

    Args:
        output: a folder, made if need be, or `gs://bucket/prefix`.
        files: relative name → file.
        manifest: where a copy of the manifest goes, for the pipeline.
        verdict: of the evaluation: `improved`, `no evidence` or `worse`.
        promote_if: with which verdict the augmented model is the candidate: `improved`, `not_worse`, `always`, `never`.
        run: a folder of its own below `output`, where several runs share one; none if empty.

    Returns:
        Where the files are.

    Raises:
        UserError: the place can't be used, promote_if is unknown, or another publishes there at the same time.
    """
    if run and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", run):
        raise UserError(f"run is {run!r}; give a name of letters, digits, dots and dashes.")
    candidate = _candidate(verdict, promote_if)
    place = f"{output.rstrip('/') or '/'}/{run}" if run else output
    target = _target(place)
    wanted = {name: (path, file_sha256(path)) for name, path in sorted(files.items())}
    entries = {name: {"sha256": sha256, "bytes": path.stat().st_size} for name, (path, sha256) in wanted.items()}
    content = {"files": entries, "candidate": candidate, "promote_if": promote_if, "verdict": verdict}
    text = json.dumps(content, indent=1) + "\n"

    there, journal = target.read(MANIFEST), target.read(JOURNAL)
    known = _listed(there, f"{place}/{MANIFEST}") | _listed(journal, f"{place}/{JOURNAL}")
    missing = wanted.keys() - target.held(wanted)
    complete = there == text and not missing
    if not complete:
        target.write(JOURNAL, json.dumps({"files": known | entries}))
        if there is not None and there != text:  # nothing counts from here on
            target.remove([MANIFEST])
            there = None
        target.remove(known.keys() - entries.keys())
        target.put({name: wanted[name] for name in wanted if name in missing})
        if missing and wanted.keys() != target.held(wanted):
            raise UserError(f"{place} was changed while it was published; run the same command again.")
        if there is None:
            target.write(MANIFEST, text)
    if journal is not None or not complete:
        target.remove([JOURNAL])
    write_text(manifest, text)
    log_line("publish", f"{len(files)} files in {place}")
    return place
