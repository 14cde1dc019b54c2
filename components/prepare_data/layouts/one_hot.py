"""Tables with one column per class, which has 1 for the images of the class and 0 for all others."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from components.prepare_data.layouts.splits import split_of
from components.prepare_data.layouts.tables import Table, join_some, normalise, read_start, refuse_repeated
from components.prepare_data.texts import Texts
from components.shared.errors import UserError

ONE_HOT = "one column per class"
"""In place of the name of a column."""
_WORDS = {"false": 0.0, "true": 1.0}
_SEXES = frozenset(["male", "female", "m", "f", "man", "woman"])


def _number(value: str) -> float | None:
    """Return 0 or 1, also with a decimal comma; None for other values."""
    number = _share(value)
    return number if number in (0, 1) else None


def _share(value: str) -> float | None:
    """Return a number from 0 to 1, which may be a probability; None for other values."""
    try:
        number = _WORDS[value.lower()] if value.lower() in _WORDS else float(value.replace(",", "."))
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None


def binary_columns(path: Path, others: Iterable[str]) -> list[str]:
    """Return the columns that have 0 and 1 only in the first rows of a table, without some others.

    Raises:
        UserError: the file does not hold a table.
    """
    return _columns(path, others, lambda values: all(_number(value) is not None for value in values))


def share_columns(path: Path, others: Iterable[str]) -> list[str]:
    """Return the columns that have numbers from 0 to 1 and missing values in the first rows, without some others.

    Raises:
        UserError: the file does not hold a table.
    """

    def accept(values: Sequence[str]) -> bool:
        known = [value for value in values if value.lower() not in ("", "nan")]
        return bool(known) and all(_share(value) is not None for value in known)

    return _columns(path, others, accept)


def _columns(path: Path, others: Iterable[str], accept: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return the columns whose values in the first rows are accepted, without some others."""
    header, *rows = read_start(path) or [[]]
    rows = [row for row in rows if len(row) == len(header)]
    left = [at for at, name in enumerate(header) if name and name not in set(others)] if rows else []
    return [header[at] for at in left if accept([row[at] for row in rows])]


def find_classes(path: Path, others: Iterable[str]) -> list[str]:
    """Return the columns of which exactly one has 1 in each of the first rows; none if they are splits or sexes.

    Args:
        path: the table.
        others: columns that are no classes.
    """
    columns = binary_columns(path, others)
    header, *rows = read_start(path) or [[]]
    at = [header.index(name) for name in columns]
    sums = {sum(_number(row[column]) or 0 for column in at) for row in rows if len(row) == len(header)}
    return columns if sums == {1} and not are_no_classes(columns) else []


def are_no_classes(columns: Sequence[str]) -> bool:
    """Return whether columns are fewer than two, or splits or sexes."""
    names = {normalise(name) for name in columns}
    return len(names) < 2 or all(map(split_of, names)) or names <= _SEXES


def read_classes(table: Table, columns: Sequence[str]) -> Texts:
    """Return the class of each row: the column with 1.

    Raises:
        UserError: `metadata.repeated_column`; `metadata.not_one_hot`: a row has no class or several;
            `metadata.class_value`: a value is neither 0 nor 1.
    """
    refuse_repeated(table.path, table.header, columns)
    values = [table.column(column) for column in columns]
    classes = Texts()
    for row, line in enumerate(table.lines):
        numbers = [_number(column[row]) for column in values]
        if None in numbers:
            column, value = columns[numbers.index(None)], values[numbers.index(None)][row]
            raise UserError(
                f"{table.path.name} has {value[:40]!r} as {column} in line {line}; one column per class needs 0 or 1",
                "correct the value, or remove the column if it is no class",
                "metadata.class_value",
                column=column,
                line=line,
            )
        set_ = [column for column, number in zip(columns, numbers, strict=True) if number]
        if len(set_) != 1:
            raise UserError(
                f"{table.path.name} has {len(set_) or 'no'} classes in line {line}; one column per class needs one 1",
                "correct the line, or use a table with the class in one column",
                "metadata.not_one_hot",
                line=line,
            )
        classes.append(set_[0])
    return classes


def note_classes(columns: Sequence[str]) -> str:
    """Return a note that names the columns."""
    return f"the class of an image is the column that has 1, of {join_some(columns, 20)}"
