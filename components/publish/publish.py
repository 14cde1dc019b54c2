"""Phase 6: the run's results under one folder, with a manifest of their hashes, written last.

Nothing counts for a reader until the manifest is there; publishing the same results again changes nothing; a
publication that was cut off is completed by the next.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.shared.errors import UserError
from components.shared.files import PART, file_sha256, write_text, written_whole
from components.shared.image_set import read_rows
from components.shared.progress import say

MANIFEST = "manifest.json"


def named(
    models: Mapping[str, str | Path],
    records: Mapping[str, str | Path],
    generators: Sequence[str | Path],
    gan_records: Sequence[str | Path],
    gan_pages: Sequence[str | Path],
    synthetic_sets: Sequence[str | Path],
    sheets: Sequence[str | Path],
    others: Mapping[str, str | Path],
) -> dict[str, Path]:
    """Where each file goes: relative name → file.

    Generators and records are matched by hash, not by their order; pages, which hold none, stand in the order of the
    records, and sheets in that of the synthetic sets.

    Raises:
        UserError: a record has no generator of its hash.
    """
    files = {name: Path(path) for name, path in others.items()}
    for arm, path in models.items():
        files[f"models/{arm}.keras"] = Path(path)
        files[f"models/{arm}.json"] = Path(records[arm])
    by_hash = {file_sha256(path): Path(path) for path in generators}
    for path, page in zip(gan_records, gan_pages, strict=True):
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
        if facts["model_sha256"] not in by_hash:
            raise UserError(f"the generator of {facts['dx']} is not the one in its record; publish one run's files.")
        files[f"models/gan-{facts['dx']}.keras"] = by_hash[facts["model_sha256"]]
        files[f"models/gan-{facts['dx']}.json"] = Path(path)
        files[f"models/gan-{facts['dx']}.html"] = Path(page)
    for path, sheet in zip(synthetic_sets, sheets, strict=True):
        dx = read_rows(path, "train", ["dx"])["dx"].iloc[0]
        files[f"synthetic/{dx}.parquet"] = Path(path)
        files[f"synthetic/{dx}.html"] = Path(sheet)
    return files


def _published(manifest: Path) -> dict[str, object] | None:
    """What an earlier publication's manifest lists; None where there is none.

    Raises:
        UserError: it is somebody else's.
    """
    if not manifest.exists():
        return None
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        if all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in files):
            return dict(files)
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{manifest} is not of this pipeline; give another folder as output, or remove it.")


def publish(output: str, files: Mapping[str, Path], manifest: str | Path) -> str:
    """Copies files below a folder.

    Args:
        output: the run's folder; made if need be.
        files: relative name → file.
        manifest: where a copy of the manifest goes, for the pipeline.

    Returns:
        The folder.

    Raises:
        UserError: the folder can't be used.
    """
    if "://" in output:
        raise UserError(f"{output}: only a local folder can be published to; give a folder's name as output.")
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{output} is a file; give a folder's name as output.")
    entries = {
        name: {"sha256": file_sha256(path), "bytes": path.stat().st_size} for name, path in sorted(files.items())
    }
    text = json.dumps({"files": entries}, indent=1) + "\n"
    target = folder / MANIFEST
    before = _published(target)
    if before is not None and before != entries:  # another run's results are about to be replaced
        target.unlink()
        for name in before.keys() - entries.keys():
            (folder / name).unlink(missing_ok=True)
    for parent in {(folder / name).parent for name in files}:
        for part in parent.glob(f"{PART}*"):  # of a copy that was cut off
            part.unlink()
    for name, path in files.items():
        there = folder / name
        if there.exists() and file_sha256(there) == entries[name]["sha256"]:
            continue
        with written_whole(there) as part:
            shutil.copyfile(path, part)
    if not target.exists():
        write_text(target, text)
    write_text(manifest, text)
    say("publish", f"{len(files)} files in {folder}")
    return str(folder)
