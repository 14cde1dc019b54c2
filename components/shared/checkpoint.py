"""Checkpoints: what long work needs to go on where it was killed."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from components.shared.errors import UserError
from components.shared.files import PART, atomic_write
from components.shared.log import log_line

SLOTS = ("checkpoint-a", "checkpoint-b")
"""The last two checkpoints: each new one replaces the older."""


class Store(Protocol):
    """A place that keeps bytes under names."""

    def write(self, name: str, data: bytes) -> None:
        """Keeps the data, whole or not at all."""

    def read(self, name: str) -> bytes | None:
        """The data, or None where there is none of this name."""


class Folder:
    """A folder on this machine.

    Args:
        path: made where it does not exist. No other writes to it: what a killed writer left half-written is deleted.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        for part in self.path.glob(f"{PART}*"):
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
    """Bytes that are no whole pack."""


def pack(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """JSON values and arrays as bytes that know whether they are whole: their SHA-256, then an `.npz`."""
    buffer = io.BytesIO()
    members: dict[str, Any] = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays}
    np.savez(buffer, **members)
    content = buffer.getvalue()
    return hashlib.sha256(content).digest() + content


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `pack` was given.

    Raises:
        DamagedError: these are not the bytes that it made.
    """
    digest, content = data[:32], data[32:]
    if hashlib.sha256(content).digest() != digest:
        raise DamagedError("its bytes are not those that were written")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return json.loads(arrays.pop("facts").tobytes()), arrays
    except Exception as error:  # of whatever kind: NumPy, zipfile and json have a dozen for a file that is not theirs
        raise DamagedError("its hash is right, and it is no checkpoint") from error


class Checkpoints:
    """The last two checkpoints of one piece of work.

    Args:
        store: theirs alone.
        settings: all that decides the work's result, as JSON values.
        label: phase and class, for what is said.
    """

    def __init__(self, store: Store, settings: Mapping[str, Any], label: str) -> None:
        self.store, self.label = store, label
        self.settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._number = 0

    def save(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Replaces the older of the two."""
        self._number += 1
        about = {"settings": self.settings, "number": self._number, "facts": facts}
        self.store.write(SLOTS[self._number % 2], pack(about, arrays))

    def load(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """The newest one that is whole, or None.

        Raises:
            UserError: it is of other settings.
        """
        newest = None
        for slot in SLOTS:
            data = self.store.read(slot)
            if data is None:
                continue
            try:
                about, arrays = unpack(data)
                settings, number, facts = about["settings"], about["number"], about["facts"]
            except (DamagedError, KeyError, ValueError, TypeError) as error:
                log_line(self.label, f"warning: {slot} is damaged ({error}) and is left out")
                continue
            if settings != self.settings:
                raise UserError(
                    f"{self.label}: its checkpoints are of a run with other settings or data; give another folder for "
                    "checkpoints, or delete them."
                )
            if number > self._number:
                self._number, newest = number, (facts, arrays)
        return newest
