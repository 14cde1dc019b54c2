"""Find the champion: the published run whose candidate is in use, with which a new run is compared.

A run may come from anyone. Its manifest, results and model are checked here, without loading the model.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from components.shared import storage
from components.shared.errors import UserError
from components.shared.files import file_sha256
from components.shared.log import log_line
from components.shared.published import MANIFEST, candidate_arm, classifier_stem, open_files
from components.shared.records import ChampionRun, ChosenChampion, Manifest, Results, load_record
from components.shared.stores.addresses import is_address

NONE, LAST = "none", "last"
"""Values of the option `champion` that are no places."""
OPTIONAL_FILES = ("reference.json", "reference.parquet", "models/features.keras")
"""Files from which the drift of the images is measured; a run of an earlier version has none."""


def choose(champion: str, output: str, image_size: int, scratch: Path) -> ChosenChampion:
    """Return the champion of a run.

    Args:
        champion: folder or address of a published run; or `last`, the newest one beside this run that has a candidate.
        output: where this run is published: an address below which each run has a folder, or the folder of this run.
        image_size: of this run, in pixels.
        scratch: folder for downloaded files.

    Raises:
        UserError: `champion.no_output`, `champion.own_output`, `champion.not_found`, `champion.no_candidate`,
            `champion.other_arm` or `champion.other_size`; or the run is damaged.
    """
    if champion != LAST:
        _refuse_own_output(champion, output)
    place = _find_last(output, scratch / "runs") if champion == LAST else champion
    if place is None:
        return ChosenChampion(requested=champion, run=None)
    run = _read(place, image_size, scratch / "run")
    if run is None:
        raise UserError(
            f"champion is {champion}, a run without a candidate",
            "give a run whose manifest.json names a candidate, or last, or none",
            "champion.no_candidate",
            value=champion,
        )
    return ChosenChampion(requested=champion, run=run)


def check_output(champion: str, output: str) -> None:
    """Check that there is a place in which `last` finds earlier runs.

    Raises:
        UserError: `champion.no_output`.
    """
    if champion == LAST and output == "auto":
        raise UserError(
            "champion is last, but output is auto, which keeps each run in a separate place",
            "set output to a place for all runs, or champion to the address of a run",
            "champion.no_output",
        )


def _refuse_own_output(champion: str, output: str) -> None:
    """Refuse the folder that this run will replace: without a candidate, no champion would remain.

    Raises:
        UserError: `champion.own_output`.
    """
    if not is_address(champion) and not is_address(output) and Path(champion).resolve() == Path(output).resolve():
        raise UserError(
            f"champion is {champion}, which is also the output of this run",
            "name another folder with OUT, or set champion to another run or none",
            "champion.own_output",
            value=champion,
        )


def _find_last(output: str, scratch: Path) -> str | None:
    """Return the place of the newest run that has a candidate; None if no run has one.

    Of several runs in a row whose candidates are the same models, it is the oldest: a run without new data, whose
    results come from the cache, does not become another champion.

    Raises:
        UserError: as in `_list_runs`, or a manifest cannot be read.
    """
    found, models = None, {}
    for number, place in enumerate(_list_runs(output)):
        try:
            manifest, _ = open_files(place, storage.make_fetch(place, scratch / str(number)))
        except UserError as error:
            if error.code not in ("record.invalid", "path.outside"):
                raise
            log_line("check_inputs", f"{place} is no champion: its manifest.json is not one of this version")
            continue
        arm = candidate_arm(manifest)
        if not arm:
            continue
        model = re.compile(rf"models/{re.escape(arm)}(-seed\d+)?\.\w+")
        of_run = {name: it.sha256 for name, it in manifest.files.items() if model.fullmatch(name)}
        if found is not None and of_run != models:
            break
        found, models = place, of_run
    return found


def _list_runs(output: str) -> Iterator[str]:
    """Yield the places of the published runs among which a new run is published, the newest first.

    Raises:
        UserError: as in `check_output` and `storage.folders_with`.
    """
    check_output(LAST, output)
    if is_address(output):
        names = (name for name in storage.folders_with(output, MANIFEST) if name.isprintable())
        yield from (f"{output.rstrip('/')}/{name}" for name in names)
        return
    own = Path(output).resolve()
    if not own.parent.is_dir():
        return
    found = []
    for entry in os.scandir(own.parent):
        manifest = Path(entry.path, MANIFEST)
        other = entry.name != own.name and entry.name.isprintable()
        if other and entry.is_dir(follow_symlinks=False) and manifest.is_file():
            found.append((manifest.stat().st_mtime_ns, entry.path))
    yield from (path for _, path in sorted(found, reverse=True))


def _read(place: str, image_size: int, scratch: Path) -> ChampionRun | None:
    """Return a run as the champion; None if it has no candidate.

    Raises:
        UserError: see `choose`.
    """
    fetch = storage.make_fetch(place, scratch)
    try:
        path = fetch(MANIFEST)
    except UserError as error:
        if error.code not in ("run.missing_file", "storage.not_found", "path.outside"):
            raise
        raise UserError(
            f"champion is {place}, which is no finished run",
            "give the folder or address of a published run, or last, or none",
            "champion.not_found",
            value=place,
        ) from error
    manifest, file = open_files(place, fetch)
    arm = candidate_arm(manifest)
    if not arm:
        return None
    results = load_record(file("metrics.json"), Results)
    if arm not in results.arms or results.run.folds:
        raise UserError(
            f"champion is {place}, whose candidate {manifest.candidate} is no arm of its results",
            "use the unchanged files of one run",
            "champion.other_arm",
            value=place,
            arm=arm,
        )
    if results.run.image_size != image_size:
        raise UserError(
            f"champion is {place}, a run with images of {results.run.image_size} px; this run has {image_size} px",
            f"set data_image_size to {results.run.image_size}, or champion to another run or none",
            "champion.other_size",
            value=place,
            champion=results.run.image_size,
            image_size=image_size,
        )
    check_files(place, manifest, results, arm)
    name = place.rstrip("/").rpartition("/")[2]
    return ChampionRun(place=place, run=name, manifest_sha256=file_sha256(path), arm=arm)


def files_of(results: Results, arm: str) -> list[str]:
    """Return the names of the files of a run that a comparison with its candidate needs."""
    stems = [classifier_stem(arm, seed, results.run.seeds[0]) for seed in results.run.seeds]
    models = [f"models/{stem}{suffix}" for stem in stems for suffix in (".json", ".keras")]
    return ["metrics.json", "predictions.parquet", "splits.csv", *models]


def check_files(place: str, manifest: Manifest, results: Results, arm: str) -> None:
    """Check that a manifest lists the files that a comparison needs.

    Raises:
        UserError: `run.missing_file`.
    """
    for name in files_of(results, arm):
        if name not in manifest.files:
            raise UserError(
                f"{place} has no {name}", "give the folder of a finished run", "run.missing_file", run=place, file=name
            )


def format_choice(chosen: ChosenChampion) -> str:
    """Return a champion as the text that one task passes to another."""
    return json.dumps(chosen.model_dump(), sort_keys=True)


def parse_choice(text: str) -> ChosenChampion:
    """Return the champion in a text of `format_choice`.

    Raises:
        UserError: `champion.invalid`.
    """
    try:
        return ChosenChampion.model_validate_json(text)
    except ValidationError as error:
        raise UserError(
            f"the champion is {text[:200]!r}, which check_inputs did not write",
            "start the run again",
            "champion.invalid",
        ) from error
