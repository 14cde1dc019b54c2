"""`runs`: the finished runs in a folder as a table and as a page; what is no finished run, with the reason."""

import io
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

from counterweight import runs
from tests.helpers.errors import raises_user_error
from tests.helpers.published_run import write_manifest, write_run


def list_runs(folder: Path) -> list[str]:
    """Return the lines that the command prints."""
    out = io.StringIO()
    assert runs.run([f"DIR={folder}"], out) == 0
    return out.getvalue().splitlines()


def test_runs_lists_finished_runs_the_newest_first_with_effect_and_best_arm(tmp_path: Path):
    write_run(tmp_path / "first", seeds=2)
    write_run(tmp_path / "second", seeds=3, data="demo", split="2/5")
    os.utime(tmp_path / "first" / "manifest.json", (1_700_000_000, 1_700_000_000))
    lines = list_runs(tmp_path)
    assert [line.split()[0] for line in lines[:3]] == ["run", "second", "first"]
    effect = json.loads((tmp_path / "second" / "metrics.json").read_text())["effect"]
    assert re.search(r"second +\d{4}-\d\d-\d\d \d\d:\d\d +demo +2/5 +3, 3 seeds +GAN effect", lines[1])
    assert f"{effect['value']:+.3f} ({effect['low']:+.3f} to {effect['high']:+.3f})" in lines[1]
    assert "augmented 100 %: " in lines[1]  # the arm with the lowest loss on validation
    assert re.search(r"first +2023-11-14 22:13 +ham10000 +random +3, 2 seeds", lines[2])
    assert lines[3] == f"finished runs: 2; index: {tmp_path / 'index.html'}"


def test_runs_page_links_each_report(tmp_path: Path):
    write_run(tmp_path / "a run")
    write_run(tmp_path / "b")
    (tmp_path / "b" / "report.html").unlink()
    write_manifest(tmp_path / "b")
    list_runs(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert [unquote(address) for address in re.findall('href="([^"]*)"', page)] == ["./a run/report.html"]
    assert list_runs(tmp_path)[0].startswith("run ")  # its own page is replaced


def test_runs_unfinished_changed_old_and_foreign_folders_are_listed_with_the_reason(tmp_path: Path):
    write_run(tmp_path / "good")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "good")
    (tmp_path / "loop").symlink_to("loop")
    write_run(tmp_path / "changed")
    with (tmp_path / "changed" / "metrics.json").open("a") as file:
        file.write(" ")
    old = json.loads((write_run(tmp_path / "old") / "metrics.json").read_text())
    del old["effect"]["best"]
    (tmp_path / "old" / "metrics.json").write_text(json.dumps(old))
    write_manifest(tmp_path / "old")
    for name, text in (("garbage", "\0"), ("foreign", "[]"), ("deep", "[" * 100_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(text)
    write_run(tmp_path / "without")
    (tmp_path / "without" / "metrics.json").unlink()
    lines = list_runs(tmp_path)
    assert [line.split()[0] for line in lines[:2]] == ["run", "good"]
    reasons = dict(re.fullmatch(r"not a finished run: (\w+): (.+)", line).groups() for line in lines[2:-1])  # type: ignore[union-attr]
    assert list(reasons) == ["changed", "deep", "empty", "foreign", "garbage", "link", "loop", "old", "without"]
    assert reasons["loop"] == "Too many levels of symbolic links"
    assert "has no manifest.json" in reasons["empty"]
    assert "effect.best" in reasons["old"]
    assert "differs from the published file" in reasons["changed"]
    assert "does not exist" in reasons["without"]


HOSTILE = [
    "<script>alert(1)</script>",
    "x\x1b[31m\ny",
    "javascript:alert(1)",
    b"\xff\xfe".decode(errors="surrogateescape"),
    "a&b'\"#%",
]


def test_runs_hostile_names_and_values_are_escaped(tmp_path: Path):
    for number, name in enumerate(HOSTILE):
        run = write_run(tmp_path / "plain", data=f"<img src=x onerror=alert({number})>", split="\x1b]0;x")
        run.rename(tmp_path / name.replace("/", ":"))
        (tmp_path / f"{name.replace('/', ':')} unfinished").mkdir()
    lines = list_runs(tmp_path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert lines[-1].startswith("finished runs: 5; ")
    assert "\x1b" not in page + "".join(lines)
    assert "<script" not in page
    assert "<img" not in page
    addresses = re.findall('href="([^"]*)"', page)
    assert len(addresses) == 5
    assert all(re.fullmatch(r"\./[A-Za-z0-9%_.~-]+/report\.html", address) for address in addresses)


def test_runs_without_a_run_says_so(tmp_path: Path):
    assert list_runs(tmp_path) == [f"finished runs: 0; index: {tmp_path / 'index.html'}"]
    assert "There is no finished run." in (tmp_path / "index.html").read_text()


def test_runs_invalid_folder_is_a_user_error(tmp_path: Path):
    run = write_run(tmp_path / "runs" / "a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("<title>My pages</title>")
    for words, code in (
        ([f"DIR={tmp_path / 'nowhere'}"], "runs.missing_folder"),
        (["DIR=\0"], "runs.missing_folder"),
        ([f"DIR={run}"], "runs.is_a_run"),
        ([f"DIR={tmp_path / 'mine'}"], "runs.foreign_index"),
        (["DIR"], "arguments.not_an_assignment"),
    ):
        with raises_user_error(code):
            runs.run(words, io.StringIO())
    assert (tmp_path / "mine" / "index.html").read_text() == "<title>My pages</title>"
