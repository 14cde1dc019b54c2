import json
from pathlib import Path

import pytest

from components.publish.publish import named, publish
from components.shared.errors import UserError
from components.shared.files import file_sha256


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {}
    for name in ("report.html", "models/baseline.keras", "metrics.json"):
        path = tmp_path / "in" / name.replace("/", "-")
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        made[name] = path
    return made


def state(folder: Path) -> dict[str, tuple[int, str]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, file_sha256(p)) for p in folder.rglob("*") if p.is_file()
    }


def test_the_manifest_holds_the_hash_of_every_file(files: dict[str, Path], tmp_path: Path):
    out = tmp_path / "out"
    assert publish(str(out), files, tmp_path / "copy") == str(out)
    manifest = json.loads((out / "manifest.json").read_text())["files"]
    assert set(manifest) == set(files)
    for name, entry in manifest.items():
        assert entry == {"sha256": file_sha256(out / name), "bytes": (out / name).stat().st_size}
    assert (tmp_path / "copy").read_text() == (out / "manifest.json").read_text()


def test_again_changes_nothing_and_a_cut_off_one_is_completed(files: dict[str, Path], tmp_path: Path):
    out = tmp_path / "out"
    publish(str(out), files, tmp_path / "copy")
    before = state(out)
    publish(str(out), files, tmp_path / "copy")
    assert state(out) == before
    (out / "manifest.json").unlink()
    (out / "report.html").write_text("rep")  # cut off
    publish(str(out), files, tmp_path / "copy")
    assert {name: digest for name, (_, digest) in state(out).items()} == {n: d for n, (_, d) in before.items()}


def test_no_manifest_stands_beside_files_of_two_runs(files: dict[str, Path], tmp_path: Path):
    """The second run's copy breaks off in the middle: the first one's manifest is gone by then."""
    out = tmp_path / "out"
    publish(str(out), files, tmp_path / "copy")
    for path in files.values():
        path.write_text("new")
    (out / "report.html").unlink()
    (out / "report.html").mkdir()  # a folder in the way
    with pytest.raises(IsADirectoryError):
        publish(str(out), files, tmp_path / "copy")
    assert not (out / "manifest.json").exists()


def test_another_runs_files_and_cut_off_copies_go(files: dict[str, Path], tmp_path: Path):
    out = tmp_path / "out"
    publish(str(out), files, tmp_path / "copy")
    (out / "mine.txt").write_text("a user's own")
    (out / "models" / ".part-abc.keras").write_text("cut off")
    fewer = {name: path for name, path in files.items() if name != "report.html"}
    fewer["metrics.json"].write_text("new")
    publish(str(out), fewer, tmp_path / "copy")
    assert set(state(out)) == {"manifest.json", "metrics.json", "models/baseline.keras", "mine.txt"}


@pytest.mark.parametrize("text", ["{}", "[1]", "not json", '{"files": {"../x": 1}}', '{"files": {"/x": 1}}'])
def test_somebody_elses_manifest_is_left_alone(files: dict[str, Path], tmp_path: Path, text: str):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(text)
    with pytest.raises(UserError, match="is not of this pipeline"):
        publish(str(tmp_path / "out"), files, tmp_path / "copy")
    assert {name: path.read_text() for name, path in {"m": tmp_path / "out" / "manifest.json"}.items()} == {"m": text}


@pytest.mark.parametrize("output", ["s3://bucket/x", "https://example.org"])
def test_an_address_is_refused(output: str, files: dict[str, Path], tmp_path: Path):
    with pytest.raises(UserError, match="only a local folder"):
        publish(output, files, tmp_path / "copy")


def test_a_file_is_no_folder(files: dict[str, Path], tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        publish(str(tmp_path / "file"), files, tmp_path / "copy")


def test_generators_are_matched_by_hash_not_by_order(tmp_path: Path):
    generators, records = [], []
    for dx in ("df", "vasc"):
        path = tmp_path / f"{dx}.bin"
        path.write_text(dx)
        record = tmp_path / f"{dx}.json"
        record.write_text(json.dumps({"dx": dx, "model_sha256": file_sha256(path)}))
        generators.append(path)
        records.append(record)
    pages = [tmp_path / "page-df", tmp_path / "page-vasc"]
    files = named({}, {}, generators[::-1], records, pages, [], [], {})
    assert files["models/gan-df.keras"].read_text() == "df"
    assert files["models/gan-vasc.keras"].read_text() == "vasc"
    assert files["models/gan-vasc.html"] == pages[1]
    with pytest.raises(UserError, match="the generator of vasc is not the one in its record"):
        named({}, {}, generators[:1], records, pages, [], [], {})
