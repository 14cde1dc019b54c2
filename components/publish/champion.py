"""Copy what a comparison with the champion needs from its published run, each file compared with the manifest."""

import shutil
import tempfile
from pathlib import Path

from components.shared import storage
from components.shared.champion import OPTIONAL_FILES, files_of, parse_choice
from components.shared.errors import UserError
from components.shared.files import atomic_folder, file_sha256
from components.shared.image_set import read_header
from components.shared.log import log_line
from components.shared.published import MANIFEST, open_files
from components.shared.records import Results, load_record, path_below, write_record

RECORD = "champion.json"


def read_champion(champion: str, training_data: str | Path, out: str | Path) -> None:
    """Copy the files of the champion, and check that its classes are those of the run.

    Args:
        champion: the text that `check_inputs` returned.
        training_data: folder that prepare_data wrote.
        out: folder to create, with `champion.json`, and if there is a champion its `manifest.json` and the files that a
            comparison needs, by their names in its run.

    Raises:
        UserError: `champion.changed`, `champion.other_classes`; or the run is damaged. Then nothing is written.
    """
    chosen = parse_choice(champion)
    with tempfile.TemporaryDirectory(prefix="counterweight-") as scratch, atomic_folder(out) as folder:
        write_record(folder / RECORD, chosen)
        if chosen.run is None:
            log_line("read_champion", f"champion is {chosen.requested}, but no earlier run has a candidate")
            return
        place = chosen.run.place
        fetch = storage.make_fetch(place, Path(scratch))
        if file_sha256(fetch(MANIFEST)) != chosen.run.manifest_sha256:
            raise UserError(
                f"champion is {place}, which was published again since this run started",
                "start the run again",
                "champion.changed",
                value=place,
            )
        manifest, file = open_files(place, fetch)
        results = load_record(file("metrics.json"), Results)
        classes = read_header(Path(training_data) / "train.parquet").classes
        if tuple(results.classes) != classes:
            raise UserError(
                f"champion is {place}, a run of the classes {', '.join(results.classes)[:300]}; this run has "
                f"{', '.join(classes)[:300]}",
                "set champion to a run of the same classes, or to none",
                "champion.other_classes",
                value=place,
                classes=list(results.classes),
            )
        names = [*files_of(results, chosen.run.arm), *(name for name in OPTIONAL_FILES if name in manifest.files)]
        shutil.copyfile(fetch(MANIFEST), folder / MANIFEST)
        for name in names:
            path = path_below(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file(name), path)
        log_line("read_champion", f"champion {chosen.run.run}, arm {chosen.run.arm}: {len(results.run.seeds)} models")
