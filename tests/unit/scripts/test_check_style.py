from pathlib import Path

import pytest

from scripts.check_style import findings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('x = "mend it"\n', ["mend"]),
        ("# It stands here, so many times.\n", ["stands", "so many"]),
        ('"""Fix the value."""\nx = 1\n', []),
        ("said_so = 1\n", ["said"]),
        ('x = f"{y} was drawn"\n', ["drawn"]),
        ("mendel = 1  # understands\n", []),
        ('row["drawn"] = record.drawn  # `drawn` is a key\n', []),
        ("Quality(drawn=1)\n", []),
        ('"""Images are drawn."""\n', ["drawn"]),
    ],
)
def test_findings_in_python_are_words_of_comments_strings_and_names(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    path = tmp_path / "module.py"
    path.write_text(text)
    assert [word for _, word, _ in findings(path)] == words


def test_findings_in_markdown_have_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# Title\n\nIt goes on\n")
    assert list(findings(path)) == [(3, "goes on", "continue, resume")]
