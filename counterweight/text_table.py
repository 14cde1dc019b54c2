"""Tables of text for the terminal."""

from collections.abc import Iterator, Sequence

from components.shared.errors import printable

MAX_TEXT = 60
"""Characters of a cell; longer texts are cut."""


def table_lines(rows: Sequence[Sequence[str]], numbers: bool = False) -> Iterator[str]:
    """Yield the lines of a table, whose cells may be untrusted text.

    Args:
        rows: of equal length, at least one.
        numbers: whether all columns but the first are aligned to the right.

    Example:
        >>> list(table_lines([["class", "images"], ["df", "7"]], numbers=True))
        ['class  images', 'df          7']
    """
    shown = [[_short(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    for row in shown:
        cells = [f"{cell:{'>' if numbers and column else '<'}{widths[column]}}" for column, cell in enumerate(row)]
        yield "  ".join(cells).rstrip()


def _short(text: str) -> str:
    text = printable(text).replace("−", "-")  # a terminal may lack the minus sign
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"
