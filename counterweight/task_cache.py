"""Keep the cache of local runs correct: verify files taken from it, and run tasks from code that cannot change."""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.local import cache

from components.container_images import BASE, ROOT, image
from components.shared.errors import UserError
from components.shared.files import file_sha256, write_text


class VerifiedCache(cache.LocalCache):
    """kfp's cache of local runs, which identifies files by their content and verifies those that it returns.

    kfp identifies an input by its path, which contains the time of the run: data that were copied or checked out again
    would train everything again, although *Prepare data* writes the same bytes. Of an output, kfp checks only that the
    file exists: after a power failure it may be empty, and a user or program may have edited it.
    """

    def __init__(self, cache_root: str) -> None:
        super().__init__(cache_root)
        self._of_uri: dict[str, str] = {}

    def compute_key(
        self,
        component_name: str,
        image: str,
        full_command: list[str],
        arguments: dict[str, Any],
        env_vars: dict[str, str] | None = None,
        custom_cache_key: str | None = None,
    ) -> str:
        """Return the key of a task, with the content of its input files in place of their paths."""
        by_content = {name: self._by_content(value) for name, value in arguments.items()}
        return super().compute_key(component_name, image, full_command, by_content, env_vars, custom_cache_key)

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        """Store the outputs of a task, and the hashes of their files."""
        write_text(self._hashes_path(key), json.dumps(_hash_files(outputs)))
        super().put(key, outputs)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the outputs of a task; None, so that the task runs again, if they are missing, damaged or changed."""
        outputs = super().get(key)
        if outputs is None:
            return None
        try:
            expected = json.loads(self._hashes_path(key).read_text(encoding="utf-8"))
            damaged = expected != _hash_files(outputs)
        except (OSError, ValueError):
            damaged = True
        if damaged:
            logging.warning("cached files of %s are damaged or have changed; the task runs again", sorted(outputs))
        return None if damaged else outputs

    def _by_content(self, value: object) -> object:
        """Return an argument, with hashes as the addresses of the artifacts in it.

        A run never changes an artifact, so each is read once.
        """
        if isinstance(value, list):
            return [self._by_content(item) for item in value]
        if not isinstance(value, dsl.Artifact) or "://" in value.uri:
            return value
        if value.uri not in self._of_uri:
            root = Path(value.uri)
            found = [[str(file.relative_to(root)), file_sha256(file)] for file in _files(root)]
            self._of_uri[value.uri] = hashlib.sha256(json.dumps(found).encode()).hexdigest()
        return type(value)(name=value.name, uri=f"sha256:{self._of_uri[value.uri]}", metadata=value.metadata)

    def _hashes_path(self, key: str) -> Path:
        return Path(self.cache_root, f"{key}.sha256.json")


def _hash_files(outputs: Mapping[str, Any]) -> dict[str, str]:
    """Return path → SHA-256 of all files of the artifacts among a task's outputs."""
    return {str(file): file_sha256(file) for path in _artifact_paths(outputs) for file in _files(path)}


def _artifact_paths(outputs: Mapping[str, Any]) -> Iterator[Path]:
    for value in outputs.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dsl.Artifact) and "://" not in item.uri:
                yield Path(item.uri)


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def copy_code(folder: Path, images: set[str]) -> None:
    """Copy the code of the phases to a folder, from which the tasks of a run import it.

    A task imports its code when it starts, hours after its cache key was computed. If a file is edited in between, the
    result of the new code would be cached as that of the old code.

    Args:
        folder: a folder to create.
        images: the image references of the compiled pipeline, which contain hashes of the code.

    Raises:
        UserError: `run.code_changed`.
    """
    shutil.copytree(ROOT / "components", folder / "components")
    for name in BASE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    phases = [path.parent.name for path in (folder / "components").glob("*/component.py")]
    if not images <= {image(phase, folder) for phase in phases}:
        raise UserError("the code changed while the run started", "rerun the command", "run.code_changed")
