"""Check the prose of the repository against STYLE.md: banned words in documentation, docstrings, comments and messages.

`python -m scripts.check_style [PATH …]` prints each finding as `file:line: word: suggestion` and exits with 1 if there
are any. The default is all files that git does not ignore.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BANNED = {
    r"mend(s|ed|ing)?": "fix",
    r"anew": "again",
    r"whoever": "anyone, readers",
    r"whatever (it|they|the)": "rewrite",
    r"culprits?": "offending",
    r"so many": "number of, at most N",
    r"at the (most|least)": "at most, at least",
    r"of (its|their|his) own": "separate, own",
    r"for ever": "forever",
    r"(is|are|was|were|be) left out": "is skipped, is excluded",
    r"(go|goes|went|going|gone) on": "continue, resume",
    r"ruler": "feature extractor",
    r"(tell|tells|told)": "report, print, return",
    r"(say|says|said)": "report, log, state",
    r"(stands|stood)": "is",
    r"(wants|wanted)": "requires, needs",
    r"(drawn|drew|draws)": "sampled, generated",
    r"pictures?": "image",
    r"begun": "started",
    r"facts": "record",
    r"judge[sd]?": "evaluate, compare",
    r"chances": "probabilities",
    r"(far|further) as it goes": "rewrite",
    r"one sentence": "one-line message",
    r"mistakes?": "error",
    r"accus(e|es|ed|ing)": "flag",
    r"brings": "adds, contributes",
    r"owed": "not yet measured",
    r"for want of": "for lack of",
    r"(is|are) no (number|file|folder|path|error|parameter|image)": "is not a …",
    r"hands? on": "passes on",
    r"too (large|much|big) for the memory": "not enough memory",
    r"befell?": "happened",
    r"looked? after": "monitor",
    r"(quarter|half) turns?": "rotation",
    r"the (one|ones) (that|which) (is|are) there": "the existing one",
    r"(what|who) is there": "what exists",
}
"""Pattern → what to write instead; whole words, in any case."""
BANNED_IN_NAMES = {
    "said",
    "told",
    "tell",
    "drawn",
    "judged",
    "judge",
    "begun",
    "picture",
    "pictures",
    "ruler",
    "mend",
    "chances",
    "culprits",
    "facts",
}
"""Parts of identifiers, between underscores."""
SUFFIXES = {".py", ".md", ".yaml", ".yml", ".j2", ".sh", ".toml", ".cff", ""}
SKIPPED = {
    "CHANGELOG.md",
    "LICENSE",
    "STYLE.md",
    "scripts/check_style.py",
    "tests/unit/scripts/test_check_style.py",
    "uv.lock",
}
"""Files that quote the banned words or legal texts, or are written by a program."""
RECORD_KEYS = ("drawn", "draws")
"""Banned words that are keys of records in metrics.json, whose names do not change: allowed as a key, not in prose."""
_KEY = re.compile("|".join(rf"(?<=[\"'`]){key}(?=[\"'`])|(?<=\.){key}\b|\b{key}(?=\s?[:=])" for key in RECORD_KEYS))
_PATTERN = re.compile("|".join(rf"(?P<p{i}>\b(?:{pattern})\b)" for i, pattern in enumerate(BANNED)), re.IGNORECASE)
_SUGGESTIONS = list(BANNED.values())


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of what a person reads in a file: in Python, its comments, strings and odd names."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        # Python 3.12 splits f-strings into parts of their own kinds.
        if token.type in (tokenize.COMMENT, tokenize.STRING) or "FSTRING_MIDDLE" in tokenize.tok_name[token.type]:
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line
        elif (
            token.type == tokenize.NAME
            and token.string not in RECORD_KEYS
            and BANNED_IN_NAMES & set(token.string.lower().split("_"))
        ):
            yield token.start[0], " ".join(token.string.split("_"))


def findings(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, word, suggestion) for each banned word in a file."""
    for number, line in prose(path):
        for match in _PATTERN.finditer(_KEY.sub("", line)):
            name = match.lastgroup
            assert name is not None
            yield number, match[0], _SUGGESTIONS[int(name[1:])]


def tracked_files(paths: list[str]) -> list[Path]:
    """Return the files at or below the paths that contain prose and that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *paths]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split("\0") if name and name not in SKIPPED]
    return [ROOT / name for name in names if Path(name).suffix in SUFFIXES and (ROOT / name).exists()]


def main(paths: list[str]) -> int:
    """Print the findings in the files at or below the paths, and return the exit code."""
    count = 0
    for path in tracked_files(paths):
        for number, word, suggestion in findings(path):
            print(f"{path.relative_to(ROOT)}:{number}: {word}: {suggestion}")
            count += 1
    print(f"{count} banned words" if count else "no banned words", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
