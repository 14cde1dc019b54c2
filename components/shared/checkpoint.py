"""Checkpoints: saved training state, from which a killed task resumes."""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from components.shared.errors import UserError
from components.shared.files import TEMPORARY_PREFIX, atomic_write
from components.shared.log import log_line

SLOTS = ("checkpoint-a", "checkpoint-b")
"""Names of the last two checkpoints; each new one replaces the older."""


class Store(Protocol):
    """A store of bytes under names.

    Attributes:
        place: its folder or address, for messages.
    """

    place: str

    def write(self, name: str, data: bytes) -> None:
        """Write data atomically."""

    def read(self, name: str) -> bytes | None:
        """Return the data, or None if the name does not exist."""


class Folder:
    """A folder in the cache of a local run, whose checkpoints of other settings or data are replaced.

    Args:
        path: created if needed. It has one writer: partial files of a killed writer are deleted.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.place = Path(path), str(path)
        for part in self.path.glob(f"{TEMPORARY_PREFIX}*"):
            part.unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """See `Store`."""
        with atomic_write(self.path / name) as part:
            part.write_bytes(data)

    def read(self, name: str) -> bytes | None:
        """See `Store`."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None


class DamagedError(Exception):
    """Bytes that are not a complete pack."""


def pack(state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return JSON values and arrays as bytes: a SHA-256, then an `.npz`."""
    buffer = io.BytesIO()
    members: dict[str, Any] = {"state": np.frombuffer(json.dumps(state).encode(), np.uint8), **arrays}
    np.savez(buffer, **members)
    content = buffer.getvalue()
    return hashlib.sha256(content).digest() + content


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the arguments of `pack`.

    Raises:
        DamagedError: the bytes differ from those that `pack` returned.
    """
    digest, content = data[:32], data[32:]
    if hashlib.sha256(content).digest() != digest:
        raise DamagedError("its hash does not match")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(arrays.pop("state").tobytes()), arrays
    except Exception as error:  # NumPy, zipfile and json raise many exception types
        raise DamagedError("it is not a checkpoint") from error


def number(part: str, arrays: Iterable[Any]) -> dict[str, np.ndarray]:
    """Return copies of arrays or variables by names that sort in their order; `numbered` is the inverse."""
    return {f"{part}/{i:04d}": np.array(array) for i, array in enumerate(arrays)}


def numbered(part: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return the arrays that `number` named, in their order."""
    return [arrays[name] for name in sorted(arrays) if name.startswith(f"{part}/")]


class Checkpoints:
    """The last two checkpoints of one training.

    Args:
        store: used by this training only.
        settings: everything that the result depends on, as JSON values.
        label: phase and class, for messages.
    """

    def __init__(self, store: Store, settings: Mapping[str, Any], label: str) -> None:
        self.store, self.label = store, label
        self.settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._number = 0

    def save(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Write a checkpoint in place of the older of the two."""
        self._number += 1
        content = {"settings": self.settings, "number": self._number, "state": state}
        self.store.write(SLOTS[self._number % 2], pack(content, arrays))

    def save_last(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Write the checkpoint of a finished training, and empty the one before it, which may be large."""
        self.save(state, arrays)
        empty = {"settings": self.settings, "number": 0, "state": {}}
        self.store.write(SLOTS[(self._number + 1) % 2], pack(empty, {}))

    def load(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Return the newest complete checkpoint, or None.

        Raises:
            UserError: `checkpoints.other_settings`; in a `Folder`, those of other settings are skipped.
        """
        newest, others = None, False
        for slot in SLOTS:
            data = self.store.read(slot)
            if data is None:
                continue
            try:
                content, arrays = unpack(data)
                settings, number, state = content["settings"], content["number"], content["state"]
            except (DamagedError, KeyError, ValueError, TypeError) as error:
                log_line(self.label, f"warning: {slot} is damaged ({error}) and is skipped")
                continue
            if settings != self.settings:
                others = True
                if isinstance(self.store, Folder):
                    continue
                raise UserError(
                    f"{self.label}: the checkpoints in {self.store.place} belong to a run with other settings or data",
                    "choose another location for checkpoints, or delete them",
                    "checkpoints.other_settings",
                    label=self.label,
                    place=self.store.place,
                )
            if number > self._number:
                self._number, newest = number, (state, arrays)
        if others and newest is None:
            log_line(self.label, "starting again: the checkpoints are of other data or settings")
        return newest
