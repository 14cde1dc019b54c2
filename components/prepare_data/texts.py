"""Many texts in a few bytes each: names, ids and paths, of which a Python string needs 50 bytes more."""

import ctypes
from abc import abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

# Encodes paths that are not UTF-8 as well, and the order of the bytes is that of the characters.
_CODE = ("utf-8", "surrogatepass")
CHUNK = 10_000
"""Strings of a column that are Python objects at a time."""
STRING = pd.StringDtype("pyarrow", na_value=np.nan)


def release_memory() -> None:
    """Return memory that is not used any more to the system, which the allocators of C and Arrow keep in pieces."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


class _Rows(Sequence[str]):
    """A sequence of texts that are made when they are used; a class implements `_text` and `__len__`."""

    @abstractmethod
    def _text(self, row: int) -> str:
        """Return the text of a row from 0 to the length − 1."""

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> list[str]: ...

    def __getitem__(self, at: int | slice) -> str | list[str]:
        """Return a text, or a list of some."""
        if isinstance(at, slice):
            return [self._text(row) for row in range(*at.indices(len(self)))]
        row = at + len(self) if at < 0 else at
        if not 0 <= row < len(self):
            raise IndexError(f"text {at} of {len(self)}")
        return self._text(row)


class Texts(_Rows):
    """A sequence of texts, to which others can be appended; it needs their bytes in UTF-8 and 8 more for each.

    Example:
        >>> list(Texts(["b", "a"]).sort())
        ['a', 'b']
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        """Keep some texts."""
        self._bytes, self._ends = bytearray(), array("q", [0])
        self.extend(texts)

    def append(self, text: str) -> None:
        """Append a text."""
        self._bytes += text.encode(*_CODE)
        self._ends.append(len(self._bytes))

    def extend(self, texts: Iterable[str]) -> None:
        """Append texts."""
        for text in texts:
            self.append(text)

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self._ends) - 1

    def _text(self, row: int) -> str:
        return self._bytes[self._ends[row] : self._ends[row + 1]].decode(*_CODE)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the texts."""
        start = 0
        for end in islice(self._ends, 1, None):
            yield self._bytes[start:end].decode(*_CODE)
            start = end

    def sort(self) -> "Texts":
        """Return the texts in the order of Python's strings."""
        order = pc.array_sort_indices(self._arrow(pa.large_binary()))
        return Texts(map(self.__getitem__, order.to_numpy().data))

    def series(self) -> pd.Series:
        """Return the texts, which must be UTF-8, as a column of strings that shares their memory.

        No text can be appended then.
        """
        return pd.Series(self._arrow(pa.large_string()), dtype=STRING)

    def _arrow(self, kind: pa.DataType) -> pa.Array:
        return pa.Array.from_buffers(kind, len(self), [None, pa.py_buffer(self._ends), pa.py_buffer(self._bytes)])


class Paths(_Rows):
    """A sequence of paths to which others can be appended; a folder is kept once for the paths that follow each other.

    Example:
        >>> Paths(["data/nv/1.jpg", "data/nv/2.jpg"])[1]
        'data/nv/2.jpg'
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        """Keep some paths."""
        self._folders, self._folder_of, self._names = Texts(), array("i"), Texts()
        for path in paths:
            self.append(path)

    def append(self, path: str) -> None:
        """Append a path."""
        folder, slash, name = path.rpartition("/")
        if not self._folders or self._folders[-1] != folder + slash:
            self._folders.append(folder + slash)
        self._folder_of.append(len(self._folders) - 1)
        self._names.append(name)

    def __len__(self) -> int:
        """Return the number of paths."""
        return len(self._names)

    def _text(self, row: int) -> str:
        return self._folders[self._folder_of[row]] + self._names[row]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the paths."""
        for folder, name in zip(self._folder_of, self._names, strict=True):
            yield self._folders[folder] + name


class Positions:
    """The positions of keys in a sequence whose keys can be computed again; a dictionary needs ten times as much."""

    def __init__(self, keys: Iterable[str], key_at: Callable[[int], str]) -> None:
        """Number keys.

        Args:
            keys: the key of each position, from 0.
            key_at: returns the key of a position.
        """
        hashes = np.fromiter(map(hash, keys), np.int64)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._order = hashes[order].data, order.data
        self._key_at = key_at

    def find(self, key: str) -> Iterator[int]:
        """Yield the positions of a key, in their order."""
        number, hashes = hash(key), self._hashes
        at = bisect_left(hashes, number)
        while at < len(hashes) and hashes[at] == number:
            if self._key_at(self._order[at]) == key:
                yield self._order[at]
            at += 1


def iterate(values: pd.Series) -> Iterator[str]:
    """Iterate over strings; pandas converts one at a time, which takes ten times as long, or all."""
    for start in range(0, len(values), CHUNK):
        yield from values.iloc[start : start + CHUNK].to_numpy(object)


def is_unique(values: pd.Series) -> bool:
    """Return whether no string is repeated; pandas' own needs ten times the memory."""
    ordered = values.array.take(values.argsort().to_numpy())
    return not (ordered[1:] == ordered[:-1]).any()


def first_rows(values: pd.Series | np.ndarray) -> np.ndarray:
    """Return for each of N values the first row that has it: (N,) int64."""
    codes, rows = pd.factorize(values)[0], np.arange(len(values))
    first = np.zeros(len(values), np.int64)
    first[codes[::-1]] = rows[::-1]
    return first[codes]


def have_several(keys: pd.Series, values: pd.Series) -> np.ndarray:
    """Return which of N rows have a key that also occurs with another value: (N,) bool."""
    first, codes = first_rows(keys), pd.factorize(values)[0]
    several = np.zeros(len(first), bool)
    several[first[codes != codes[first]]] = True
    return several[first]


def map_different(values: pd.Series, function: Callable[[str], str | None]) -> pd.Series:
    """Return the value of a function for each text, called once for each different one.

    Args:
        values: (N,) strings without nulls.
        function: returns a text, or None for a null.
    """
    codes, names = pd.factorize(values)
    results = pd.Series([function(name) for name in names], dtype=STRING)
    return pd.Series(results.array.take(codes), index=values.index)
