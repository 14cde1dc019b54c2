"""Copy a run's files to one folder or prefix, with a manifest of their hashes that is written last.

A publication is complete when its manifest exists. Publishing the same results again changes nothing; an interrupted
publication is completed by the next one.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import pyarrow.parquet as pq
from pydantic import ValidationError

from components.shared import storage
from components.shared.errors import UserError
from components.shared.files import EXTERNAL, NOTHING, TEMPORARY_PREFIX, atomic_write, file_sha256, write_text
from components.shared.log import log_line
from components.shared.parameters import Options, check
from components.shared.published import MANIFEST
from components.shared.records import (
    Advice,
    Champion,
    ClassifierRecord,
    ComparedChampion,
    Manifest,
    ManifestEntry,
    TrainedGan,
    load_gan_record,
    load_record,
    path_below,
)
from components.shared.stores.addresses import ADDRESS_FORM, is_address

JOURNAL = ".publishing.json"
"""Exists beside the manifest during a publication; lists all files that may exist, of any run."""
VERDICTS_OF_PROMOTION: dict[str, Collection[str]] = {
    "improved": {"improved"},
    "not_worse": {"improved", "no evidence"},
    "always": {"improved", "no evidence", "worse", "not established"},
    "never": (),
}
"""promote_if → the accepted verdicts: of the evaluation, of its advice and, with a champion, of the comparison."""
AUTO = "auto"
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Files = Mapping[str, tuple[Path, str]]
"""Relative name → file, its SHA-256."""


def collect(folders: Sequence[str | Path], others: Mapping[str, str | Path]) -> dict[str, Path]:
    """Return the files to publish, after a check that each is complete.

    Args:
        folders: their files keep their names relative to the folder.
        others: relative name → file.

    Returns:
        Relative name → file.

    Raises:
        UserError: `publish.name_conflict`, `publish.damaged`: a file is missing, truncated, or does not match its
            record; `record.invalid`.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(Path(folder).rglob("*")):
            if not path.is_file() or path.name.startswith(".") or path.name in (EXTERNAL, NOTHING):
                continue
            name = path.relative_to(folder).as_posix()
            if name in files or name in others or name == MANIFEST:
                raise UserError(
                    f"{name} is an output of two tasks",
                    "publish the files of one run",
                    "publish.name_conflict",
                    name=name,
                )
            files[name] = path_below(folder, name)
    files |= {name: Path(path) for name, path in others.items()}
    for name, path in files.items():
        if problem := _find_damage(name, path, files):
            raise UserError(
                f"{name} {problem}",
                "delete the artifacts of the run, or change a parameter, so that the task runs again",
                "publish.damaged",
                name=name,
                problem=problem,
            )
    return files


def _find_damage(name: str, path: Path, files: Mapping[str, Path]) -> str:
    """Return how a file is damaged, as the end of a sentence; empty if it is complete."""
    if not path.is_file():
        return "is missing"
    if not path.stat().st_size:
        return "is empty"
    try:
        if path.suffix == ".json" or name.endswith(".json"):
            json.loads(path.read_text(encoding="utf-8"))
        elif name.endswith(".html"):
            if b"</html>" not in path.read_bytes()[-64:].lower():
                return "is truncated"
        elif name.endswith(".parquet"):
            pq.read_metadata(path)
        elif name.endswith(".keras"):
            return _find_model_damage(name, path, files)
    except (ValueError, OSError, RecursionError):  # pyarrow's errors are subclasses of these
        return "is truncated"
    return ""


def _find_model_damage(name: str, path: Path, files: Mapping[str, Path]) -> str:
    record = files.get(f"{name.removesuffix('.keras')}.json")
    if record is None:  # the feature extractor, and a classifier's seeds share no record with another model
        return "" if path.read_bytes()[:2] == b"PK" else "is truncated"
    if PurePosixPath(name).name.startswith("gan-"):
        gan = load_gan_record(record)
        expected = gan.model_sha256 if isinstance(gan, TrainedGan) else ""
    else:
        expected = load_record(record, ClassifierRecord).model_sha256
    return "" if file_sha256(path) == expected else "does not match its record"


class Target(Protocol):
    """A place to publish to."""

    def read(self, name: str) -> str | None:
        """Return a small file's text; None if it does not exist."""

    def modified(self, name: str) -> datetime | None:
        """Return when a file was written; None if it does not exist."""

    def find_existing(self, names: Collection[str]) -> set[str]:
        """Return the names of the files that exist."""

    def find_unchanged(self, files: Files) -> set[str]:
        """Return the names of the files that exist with this content."""

    def upload(self, files: Files) -> None:
        """Copy files, each atomically."""

    def write(self, name: str, text: str) -> None:
        """Write a small file atomically."""

    def remove(self, names: Collection[str]) -> None:
        """Remove files; missing ones are ignored."""


class Folder:
    """A folder on this machine, as a place to publish to.

    Raises:
        UserError: `output.is_a_file`.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{path} is a file", "give the name of a folder", "output.is_a_file", path=path)

    def read(self, name: str) -> str | None:
        """See `Target`."""
        path = self.path / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None

    def modified(self, name: str) -> datetime | None:
        """See `Target`."""
        path = self.path / name
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else None

    def find_existing(self, names: Collection[str]) -> set[str]:
        """See `Target`; a link counts, even if it leads nowhere."""
        return {name for name in names if (self.path / name).exists() or (self.path / name).is_symlink()}

    def find_unchanged(self, files: Files) -> set[str]:
        """See `Target`."""
        existing = {name for name in files if (self.path / name).is_file()}
        return {name for name in existing if file_sha256(self.path / name) == files[name][1]}

    def upload(self, files: Files) -> None:
        """See `Target`; partial files of interrupted copies are removed."""
        for parent in {(self.path / name).parent for name in files}:
            for part in parent.glob(f"{TEMPORARY_PREFIX}*"):
                part.unlink()
        for name, (path, _) in files.items():
            with atomic_write(self.path / name) as part:
                shutil.copyfile(path, part)

    def write(self, name: str, text: str) -> None:
        """See `Target`."""
        write_text(self.path / name, text)

    def remove(self, names: Collection[str]) -> None:
        """See `Target`."""
        for name in names:
            path_below(self.path, name).unlink(missing_ok=True)

    def check_space(self, size: int) -> None:
        """Raise an `OSError` if the disk has less space than `size` bytes."""
        path = self.path.absolute()
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        if shutil.disk_usage(existing).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))


def _open_target(place: str) -> Target:
    if is_address(place):
        return storage.Prefix(place)
    if "://" in place:
        raise UserError(
            f"output is {place}, an unknown kind of address",
            f"give auto, {ADDRESS_FORM} or a folder",
            "output.invalid_address",
            value=place,
        )
    return Folder(place)


def _parse_listing(text: str | None, where: str) -> dict[str, ManifestEntry]:
    """Return the files that a manifest or journal lists; none if it does not exist.

    Raises:
        UserError: `publish.foreign_manifest`: another program wrote it.
    """
    if text is None:
        return {}
    try:
        files = json.loads(text)["files"]
        return Manifest(files=files, candidate=None, promote_if="", verdict="").files
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise UserError(
            f"{where} is not a manifest of this pipeline",
            "give another output, or remove the file",
            "publish.foreign_manifest",
            path=where,
        ) from error


def _choose_candidate(verdict: str, advice: Advice, promote_if: str, champion: ComparedChampion | None) -> str | None:
    """Return the first model of the arm of the advice if `promote_if` accepts all verdicts; else None."""
    check({"promote_if": promote_if}, Options)
    verdicts = {verdict, advice.verdict, *([champion.verdict] if champion else [])}
    accepted = verdicts <= set(VERDICTS_OF_PROMOTION[promote_if])
    candidate = f"models/{advice.arm}.keras" if accepted else None
    found = f"verdict: {verdict}; advice on {advice.arm}: {advice.verdict}"
    found += f"; against the champion {champion.run}: {champion.verdict}" if champion else ""
    log_line("publish", f"candidate: {candidate or 'none'} ({found}; promote_if: {promote_if})")
    return candidate


def _describe_champion(champion: Champion | None) -> ComparedChampion | None:
    """Return the champion for the manifest; None if the run was not compared with one."""
    if champion is None or champion.run is None or champion.comparison is None:
        return None
    return ComparedChampion(
        run=champion.run.run,
        manifest_sha256=champion.run.manifest_sha256,
        verdict=champion.comparison.verdict,
    )


def publish(
    output: str,
    files: Mapping[str, Path],
    artifact: str | Path,
    verdict: str,
    advice: Advice,
    promote_if: str = "improved",
    run: str = "",
    artifact_address: str = "",
    results_address: str = "",
    finished: str = "",
    champion: Champion | None = None,
) -> str:
    """Copy files to the output of a run.

    Args:
        output: `auto` for the folder `artifact`, a folder that is created if needed, or an address, below
            which each run has a folder.
        files: relative name → file.
        artifact: folder to create; with another output it holds a copy of the manifest only.
        verdict: verdict of the evaluation.
        advice: advice of the evaluation; the first model of its arm is proposed for use if `promote_if` is met.
        promote_if: `improved`, `not_worse`, `always` or `never`; see `VERDICTS_OF_PROMOTION`.
        run: id of the run.
        artifact_address: where Kubeflow stores the artifact.
        results_address: where Kubeflow stores the results; it contains the id of the run that computed them.
        finished: when they were computed.
        champion: the comparison with the champion; its verdict must meet `promote_if`, too.

    Returns:
        The place of the files.

    Raises:
        UserError: the place cannot be used, has files of others, or changes during the publication.
    """
    if run and not RUN_NAME.fullmatch(run):
        raise UserError(f"run is {run!r}", "give letters, digits, dots and dashes", "publish.invalid_run", value=run)
    compared = _describe_champion(champion)
    candidate = _choose_candidate(verdict, advice, promote_if, compared)
    sources = {name: (path, file_sha256(path)) for name, path in sorted(files.items())}
    entries = {name: {"sha256": sha256, "bytes": path.stat().st_size} for name, (path, sha256) in sources.items()}
    content = {"files": entries, "candidate": candidate, "promote_if": promote_if, "verdict": verdict}
    content |= {"advice": advice.model_dump()}
    content |= {"champion": compared.model_dump()} if compared else {}
    text = json.dumps(content, indent=1) + "\n"

    computed_by = _find_producer(results_address, run)
    if computed_by:
        log_line("publish", f"no new data: run {computed_by} computed these results{finished and f' at {finished}'}")
    if output == AUTO:
        _publish_to(Folder(str(artifact)), str(artifact), sources, entries, text)
        place = artifact_address or str(artifact)
    else:
        shared = "://" in output  # a folder on this machine belongs to one run
        place = f"{output.rstrip('/')}/{run}" if shared and run else output
        earlier = f"{output.rstrip('/')}/{computed_by}" if shared and computed_by else ""
        if earlier and _is_published(earlier, text):
            place = earlier
        else:
            _publish_to(_open_target(place), place, sources, entries, text)
        write_text(Path(artifact) / MANIFEST, text)
    log_line("publish", f"{len(files)} files in {place}")
    return place


def _find_producer(address: str, run: str) -> str:
    """Return the run that computed an artifact, if it is another one: it was taken from the cache.

    Kubeflow's addresses end in `<run>/<task>/<execution>/<name>`.
    """
    parts = address.split("/")
    producer = parts[-4] if "://" in address and len(parts) >= 6 else ""
    return producer if run and run not in parts and RUN_NAME.fullmatch(producer) else ""


def _is_published(place: str, text: str) -> bool:
    """Return whether a complete publication with this manifest exists, and report its time."""
    target = _open_target(place)
    if target.read(MANIFEST) != text or target.read(JOURNAL) is not None:
        return False
    modified = target.modified(MANIFEST)
    log_line(
        "publish", f"unchanged since {modified:%Y-%m-%d %H:%M} UTC: {place}" if modified else f"unchanged: {place}"
    )
    return True


def _publish_to(target: Target, place: str, sources: Files, entries: Mapping[str, Any], text: str) -> None:
    """Copy missing files, remove other files of an earlier run, and write the manifest last."""
    manifest, journal = target.read(MANIFEST), target.read(JOURNAL)
    owned = _parse_listing(manifest, f"{place}/{MANIFEST}") | _parse_listing(journal, f"{place}/{JOURNAL}")
    missing = sources.keys() - target.find_unchanged(sources)
    if foreign := sorted(target.find_existing(missing - owned.keys())):
        raise UserError(
            f"{place} contains files that this pipeline did not write: {', '.join(foreign[:3])}",
            "give another output, or move them",
            "publish.foreign_files",
            place=place,
            names=foreign,
        )
    complete = manifest == text and not missing
    if isinstance(target, Folder):  # before the publication that is there becomes incomplete
        target.check_space(sum(sources[name][0].stat().st_size for name in missing))
    if not complete:
        listing = {name: entry.model_dump() for name, entry in owned.items()} | dict(entries)
        target.write(JOURNAL, json.dumps({"files": listing}))
        if manifest is not None and manifest != text:  # from here on, no publication is complete
            target.remove([MANIFEST])
            manifest = None
        target.upload({name: sources[name] for name in sources if name in missing})
        target.remove(owned.keys() - entries.keys())
        if missing and sources.keys() != target.find_unchanged(sources):
            raise UserError(
                f"{place} was changed during the publication",
                "rerun the command when nothing else writes there",
                "publish.concurrent_write",
                place=place,
            )
        if manifest is None:
            target.write(MANIFEST, text)
    if journal is not None or not complete:
        target.remove([JOURNAL])
