"""Read text tables as they are found: separators, encodings, quotes and line ends of spreadsheets and repositories."""

import codecs
import csv
import io
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from components.prepare_data.texts import Texts
from components.shared.errors import UserError
from components.shared.files import file_sha256

START_BYTES = 65_536
"""Beginning of a file from which its encoding and separator are detected."""
SEPARATORS = ",;\t|"

_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/")
_WEB_PAGE = re.compile(rb"\s*<(!doctype\s+html|html)\b", re.IGNORECASE)
_PACKED = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b")
"""Beginnings of workbooks, of zip archives, and of gzip."""
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_JOINED = re.compile(r"^(image|img|isic|lesion|patient|subject|case)(id|name)$")
"""Names of columns that are often spelled without a separator."""
_ADDRESS = re.compile(rb"\s*[a-z][a-z0-9+.-]{1,9}://\S+\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """A text table.

    Attributes:
        path: its file.
        header: names of the columns, as they are spelled, on one line.
        columns: the values of each column, without surrounding blanks.
        lines: the last line number of each row.
    """

    path: Path
    header: list[str]
    columns: list[Texts]
    lines: Sequence[int]

    def column(self, name: str) -> Texts:
        """Return the values of a column, by its exact name."""
        return self.columns[self.header.index(name)]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lines)

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file in hexadecimal."""
        return file_sha256(self.path)


def normalise(name: str) -> str:
    """Return the name of a column in lower case, with `_` between words.

    Example:
        >>> normalise("Image ID"), normalise("patientId"), normalise("LESIONID"), normalise("Case No.")
        ('image_id', 'patient_id', 'lesion_id', 'case_no')
    """
    words = re.sub(r"[\s_.-]+", "_", _HUMP.sub("_", name.strip()).lower()).rstrip("_")
    return _JOINED.sub(r"\1_\2", words)


def refuse_repeated(path: Path, header: Sequence[str], columns: Iterable[str]) -> None:
    """Raise if a column that is used exists more than once.

    Raises:
        UserError: `metadata.repeated_column`.
    """
    counts = Counter(map(normalise, header))
    for column in columns:
        if counts[normalise(column)] > 1:
            raise UserError(
                f"{path.name} has the column {column} more than once",
                "keep only one of them",
                "metadata.repeated_column",
                column=column,
            )


def _refuse_others(path: Path, start: bytes) -> None:
    """Raise if the file holds a workbook, an archive, a link, a large-file pointer or a web page instead of a table."""
    if start.startswith(_PACKED):
        raise UserError(
            f"{path.name} is a workbook or an archive, not a text table",
            "open it in a spreadsheet program and save it as CSV in UTF-8, or unpack it",
            "metadata.not_utf8",
            file=path.name,
        )
    if _POINTER.match(start):
        raise UserError(
            f"{path.name} holds a pointer to a large file instead of the table",
            "fetch the file itself, with `git lfs pull` in its repository",
            "metadata.pointer",
            file=path.name,
        )
    if _WEB_PAGE.match(start):
        raise UserError(
            f"{path.name} holds a web page instead of the table",
            "download the file again, with the link that the page's download button has",
            "metadata.web_page",
            file=path.name,
        )
    if _ADDRESS.fullmatch(start):
        link = start.decode(errors="replace").strip()[:200]
        raise UserError(
            f"{path.name} holds a link instead of the table ({link})",
            "download what the link leads to, and save it under this name",
            "metadata.link",
            file=path.name,
        )


def _encoding(start: bytes) -> str:
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(start) > 3 and not start[0] and start[1] and not start[2] and start[3]:
        return "utf-16-be"
    if len(start) > 3 and start[0] and not start[1] and start[2] and not start[3]:
        return "utf-16-le"
    return "utf-8-sig"


def _separator(header: str, row: str) -> str:
    """Return the separator of which the first row has as many as the header, or that is most frequent in the header.

    Args:
        header: the first line; what is in quotes does not count.
        row: the line after it.
    """
    names, values = (re.sub(r'"[^"]*"', "", line) for line in (header, row))
    return max(SEPARATORS, key=lambda it: (0 < names.count(it) == values.count(it), names.count(it)))


@contextmanager
def _open(path: Path) -> Iterator[tuple[TextIO, str]]:
    """Yield the text of a table and its separator.

    Raises:
        UserError: the file does not hold a table.
    """
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    _refuse_others(path, start)
    encoding = _encoding(start)
    text = start.decode(encoding, errors="ignore")
    lines = (line for line in text.splitlines() if line.strip())
    first = next(lines, "")
    while first.count('"') % 2 and (more := next(lines, None)) is not None:  # a quoted name with a line break
        first += more
    try:
        with path.open(encoding=encoding, newline="") as file:
            yield file, _separator(first, next(lines, ""))
    except UnicodeError as error:
        raise UserError(f"{path.name} is not UTF-8 text", "save it as CSV in UTF-8", "metadata.not_utf8") from error


def _names(header: list[str]) -> list[str]:
    """Return the names of columns without line breaks."""
    return [" ".join(name.split()) for name in header]


def read_start(path: Path) -> list[list[str]]:
    """Return the header and the first rows, without those that are blank.

    Raises:
        UserError: the file does not hold a table.
    """
    with _open(path) as (file, separator):
        text = file.read(START_BYTES)
    # A quoted name may contain line breaks.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != "\t")
    rows = [[field.strip() for field in row] for row in reader]
    if len(text) == START_BYTES and len(rows) > 1:
        del rows[-1]  # it may be cut off
    rows = [row for row in rows if any(row)]
    if rows and rows[0][0].lower() == "sep=":  # a line that some programs write for Excel
        del rows[0]
    return [_names(rows[0]), *rows[1:]] if rows else []


def read_header(path: Path) -> list[str]:
    """Return the names of the columns; an empty list for an empty file.

    Raises:
        UserError: the file does not hold a table.
    """
    return next(iter(read_start(path)), [])


def read_table(path: Path) -> Table:
    """Read a table and skip blank rows.

    pandas is not used because it treats a row with too many fields as one with an index, and shifts the columns.

    Raises:
        UserError: the file does not hold a table, or a row is longer or shorter than the header.
    """
    header: list[str] = []
    columns: list[Texts] = []
    lines = array("q")
    with _open(path) as (file, separator):
        # A tab is also a blank, so blanks after it must not be skipped.
        reader = csv.reader(file, strict=True, delimiter=separator, skipinitialspace=separator != "\t")
        try:
            for row in reader:
                fields = [field.strip() for field in row]
                if not any(fields) or (not header and fields[0].lower() == "sep="):
                    continue
                if not header:
                    header, columns = _names(fields), [Texts() for _ in fields]
                    continue
                if len(fields) != len(header):
                    raise UserError(
                        f"{path.name} has {len(fields)} fields in line {reader.line_num}, {len(header)} in its header",
                        "fix that line, or export the file again",
                        "metadata.invalid_csv",
                        line=reader.line_num,
                    )
                for column, field in zip(columns, fields, strict=True):
                    column.append(field)
                lines.append(reader.line_num)
        except csv.Error as error:
            raise UserError(
                f"{path.name} is not valid CSV ({error}, line {reader.line_num})",
                "fix the line or export the file again",
                "metadata.invalid_csv",
                line=reader.line_num,
            ) from error
    if not header:
        raise UserError(
            f"{path.name} is empty", "provide a CSV with the columns image_id, dx and lesion_id", "metadata.empty"
        )
    return Table(path, header, columns, lines)


def join_some(values: Sequence[object], limit: int = 3) -> str:
    """Join the first few values for a message."""
    names = [str(value)[:80] for value in values[:limit]]
    more = len(values) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
