"""Phase 1 as a whole: a raw folder becomes image sets and a profile, or an error and no output."""

import errno
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.prepare_data import prepare as phase
from components.prepare_data import sources
from components.shared.arms import Scope
from components.shared.data_identity import input_identity
from components.shared.errors import ERROR_RECORD_PREFIX, UserError, as_user_error
from components.shared.image_set import decode_png, pixel_sha256, read_header
from components.shared.records import DataSource, load_record
from tests.helpers.errors import raises_user_error
from tests.unit.prepare_data.conftest import RawFolder

SPLITS = ("train", "validation", "test")
ROOT = Path(__file__).resolve().parents[3]


def python(script, *arguments, **environment):
    """Run a script in a separate process, with additional environment variables."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60)


@pytest.fixture
def refused(run, tmp_path):
    """Prepare a folder that must be refused; return the error's code, after a check that nothing was written."""

    def refused(data, **changes):
        with pytest.raises((UserError, OSError)) as caught:
            run(data, out="refused", **changes)
        error = as_user_error(caught.value)
        assert error is not None, repr(caught.value)
        out = tmp_path / "refused"
        assert not out.exists() or list(out.rglob("*")) == []
        assert str(error).isprintable()
        assert error.hint
        return error.code

    return refused


def test_prepare_writes_the_image_sets(raw, run):
    done = run(raw.path)
    assert done.rare == ["df", "mel"]
    training = [
        "training_data/classes.json",
        "training_data/train.parquet",
        "training_data/validation.parquet",
    ]
    test = [
        "test_data/data_source.json",
        "test_data/splits.csv",
        "test_data/test.parquet",
    ]
    assert done.left_behind() == sorted(["profile.html", *training, *test])
    rows = done.rows().set_index("image_id")
    given = pd.DataFrame(raw.rows).set_index("image_id")
    assert sorted(rows.index) == sorted(given.index)
    for column in ("lesion_id", "dx", "dx_type", "sex", "localization"):
        assert (rows[column] == given[column].reindex(rows.index)).all()
    assert (rows["age"] == given["age"].astype(float).reindex(rows.index)).all()
    assert (rows["source"] == "real").all()
    assert (rows["repeat"] == 1).all()
    assert rows[["model_sha256", "seed", "index"]].isna().all(axis=None)
    assert (rows.groupby("lesion_id")["split"].nunique() == 1).all()
    assert (rows.groupby("dx")["split"].nunique() == 3).all()
    headers = [read_header(done.set(split)) for split in SPLITS]
    assert [header.split for header in headers] == list(SPLITS)
    for header in headers:
        assert header.classes == ("df", "mel", "nv")
        assert header.image_size == 32
        assert len(header.data_sha256) == len(header.split_sha256) == 64
    assert len({(header.data_sha256, header.split_sha256) for header in headers}) == 1


def test_prepare_only_resizes_the_images(raw, run):
    done = run(raw.path, image_size=48)
    for split in SPLITS:
        for _, row in pd.read_parquet(done.set(split)).iterrows():
            got = decode_png(row["image"]["bytes"])
            assert got.shape == (48, 48, 3)
            assert row["image"]["path"] == f"{row['image_id']}.png"
            assert row["pixel_sha256"] == pixel_sha256(got)
            with Image.open(next(raw.path.rglob(f"{row['image_id']}.jpg"))) as image:
                assert np.array_equal(got, np.asarray(image.resize((48, 48), Image.Resampling.LANCZOS)))


def test_prepare_with_the_same_seed_ignores_order_and_nesting(raw, run):
    first = run(raw.path, out="first")
    raw.write(raw.rows[::-1])
    for path in list(raw.path.rglob("*.jpg")):
        (raw.path / "a" / path.stem[-1]).mkdir(parents=True, exist_ok=True)
        path.rename(raw.path / "a" / path.stem[-1] / path.name)
    second = run(raw.path, out="second")
    for split in SPLITS:
        assert first.set(split).read_bytes() == second.set(split).read_bytes()
    # Only the hash of the metadata and the folders of the images differ.
    before, after = (
        re.sub(r"<code>[0-9a-f]{64}</code>|<tr><th>images</th>.*</tr>\n", "", done.profile) for done in (first, second)
    )
    assert before == after


def test_prepare_with_another_seed_changes_only_the_split(raw, run):
    first, second = run(raw.path, out="first"), run(raw.path, out="second", seed=2)
    one, two = read_header(first.set("train")), read_header(second.set("train"))
    assert one.data_sha256 == two.data_sha256
    assert one.split_sha256 != two.split_sha256
    assert set(first.rows()["image_id"]) == set(second.rows()["image_id"])


def test_prepare_with_changed_pixels_or_lesions_changes_the_data_hash(raw, run):
    hashes = {read_header(run(raw.path, out="0").set("train")).data_sha256}
    raw.draw(200, "nv").save(raw.image(0))
    hashes.add(read_header(run(raw.path, out="1").set("train")).data_sha256)
    raw.rows[0]["lesion_id"] = "another"
    hashes.add(read_header(run(raw.write().path, out="2").set("train")).data_sha256)
    assert len(hashes) == 3


def test_prepare_sorts_rows_by_class_across_row_groups(raw, run, monkeypatch):
    monkeypatch.setattr(phase, "ROW_GROUP", 3)
    done = run(raw.path)
    for split in SPLITS:
        rows = pd.read_parquet(done.set(split))
        assert rows["dx"].tolist() == sorted(rows["dx"])
        assert rows.groupby("dx")["image_id"].apply(lambda ids: ids.is_monotonic_increasing).all()
        assert max(pq.read_metadata(done.set(split)).row_group(i).num_rows for i in range(3)) <= 3


def test_prepare_with_its_own_splits_csv_reproduces_the_split(raw, run):
    done = run(raw.path, seed=7)
    rows = done.rows().sort_values("image_id", ignore_index=True)
    table = pd.read_csv(done.splits)
    columns = ["image_id", "lesion_id", "dx", "split", "pixel_sha256", "perceptual_hash"]
    assert list(table) == columns
    assert table.equals(rows[columns].astype(table.dtypes))
    again = run(raw.path, out="again", seed=99, split=str(done.splits))
    for split in SPLITS:
        assert again.set(split).read_bytes() == done.set(split).read_bytes()
    assert (again.splits).read_bytes() == (done.splits).read_bytes()


def test_prepare_with_a_given_split_excludes_images_and_skips_unlisted_ones(raw, run, refused, tmp_path, capfd):
    table = pd.read_csv(run(raw.path).splits)
    nv = table.index[(table["dx"] == "nv") & (table["split"] == "train")]
    out, unnamed = table["image_id"][nv[0]], table["image_id"][nv[1]]
    table.loc[nv[0], "split"] = "none"
    table.drop(index=nv[1]).to_csv(tmp_path / "given.csv", index=False)
    given = str(tmp_path / "given.csv")
    assert refused(raw.path, split=given) == "images.too_many_unusable"
    done = run(raw.path, split=given, max_bad_images=1)
    assert set(table["image_id"]) - set(done.rows()["image_id"]) == {out, unnamed}
    assert "1 images are excluded by the split" in done.profile
    assert "1 images are excluded by the split" in capfd.readouterr().out


def test_prepare_over_all_folds_tests_each_image_once(raw, run):
    tested = [run(raw.path, out=f"fold{k}", split=f"{k}/4").rows().query("split == 'test'") for k in range(1, 5)]
    images = pd.concat(tested)["image_id"]
    assert images.is_unique
    assert set(images) == {row["image_id"] for row in raw.rows}


@pytest.mark.parametrize(
    ("rare", "names"),
    [("auto", ["df", "mel"]), (" auto ", ["df", "mel"]), ("mel", ["mel"]), ("mel, df,mel,", ["df", "mel"])],
)
def test_prepare_returns_the_rare_classes(raw, run, rare, names):
    assert run(raw.path, rare=rare).rare == names


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rare": "melanoma"}, "parameter.unknown_class"),
        ({"rare": ""}, "parameter.empty"),
        ({"rare": " , "}, "parameter.empty"),
        ({"image_size": 0}, "parameter.invalid"),
        ({"image_size": 100}, "parameter.invalid"),
        ({"image_size": 528}, "parameter.invalid"),
        ({"max_bad_images": -1}, "parameter.invalid"),
        ({"seed": -1}, "parameter.invalid"),
        ({"duplicates": "keep"}, "parameter.invalid"),
        ({"split": "most"}, "split.unknown"),
        ({"split": "9/5"}, "split.unknown_fold"),
    ],
)
def test_prepare_with_an_invalid_parameter_raises(raw, refused, changes, code):
    assert refused(raw.path, **changes) == code


# Invalid folders.


def test_prepare_without_a_usable_folder_raises(tmp_path, refused):
    (tmp_path / "file").touch()
    assert refused(tmp_path / "nowhere") == "data.missing_folder"
    assert refused(tmp_path / "file") == "data.not_a_folder"
    assert refused("https://example.org/data") == "data.unknown_address"
    assert refused(" ") == "data.empty"
    assert refused("~nobody-of-this-name/data") == "data.unknown_user"
    assert refused("a\0b") == "data.missing_folder"
    assert refused("x" * 5000) == "file.name_too_long"
    assert refused(tmp_path) == "metadata.missing"


def test_prepare_with_a_row_without_image_skips_it(raw, run, refused):
    name = raw.rows[3]["image_id"]
    raw.image(3).unlink()
    assert refused(raw.path) == "images.missing"
    done = run(raw.path, max_bad_images=1)
    assert name not in set(done.rows()["image_id"])
    assert f"<code>{name}</code>: no image file" in done.profile


def test_check_listing_with_half_of_the_images_states_their_number(raw):
    """Regression: the hint for HAM10000 with one of its two folders of images was to train on half of the data."""

    def check(limit: int) -> None:
        phase.check_listing(VALUES | {"data": str(raw.path)}, limit, "none")

    gone = [path for path in sorted(raw.path.rglob("*.jpg")) if "part_2" in path.parent.name]
    kept = gone[0].read_bytes()
    for path in gone:
        path.unlink()
    with raises_user_error("images.missing", count=17, rows=34, id=gone[0].stem) as caught:
        check(10)
    assert f"17 of 34 rows of HAM10000_metadata.csv have no image file, such as {gone[0].stem}" in str(caught.value)
    assert caught.value.hint == "add the missing images, or remove the rows"
    for path in gone[1:]:
        path.write_bytes(kept)
    with raises_user_error("images.missing", count=1) as caught:
        check(0)
    assert "raise max_bad_images" in caught.value.hint
    check(1)


def test_prepare_with_a_linked_folder_reports_why_images_are_missing(raw, run, refused, tmp_path):
    part = raw.path / "HAM10000_images_part_1"
    part.rename(tmp_path / "elsewhere")
    part.symlink_to(tmp_path / "elsewhere")
    assert refused(raw.path) == "images.linked_folder"
    part.rename(os.fsdecode(os.fsencode(raw.path) + b"/\xff\n"))
    assert refused(raw.path) == "images.linked_folder"
    assert len(run(raw.path, max_bad_images=17).rows()) == len(raw.rows) - 17


@pytest.mark.parametrize("bad", [1, 3])
def test_prepare_skips_at_most_max_bad_images(raw, run, refused, bad):
    indexes = raw.of("nv")[:bad]
    raw.image(indexes[0]).write_bytes(b"")
    for index in indexes[1:]:
        raw.image(index).write_bytes(raw.image(index).read_bytes()[:200])
    assert refused(raw.path, max_bad_images=bad - 1) == "images.too_many_unusable"
    done = run(raw.path, max_bad_images=bad)
    assert len(done.rows()) == len(raw.rows) - bad
    assert f"<li>{bad} skipped:" in done.profile


def test_prepare_counts_missing_and_bad_images_together(raw, run, refused):
    one, two, *_ = raw.of("nv")
    raw.image(one).unlink()
    raw.image(two).write_text("not an image")
    assert refused(raw.path, max_bad_images=1) == "images.too_many_unusable"
    assert len(run(raw.path, max_bad_images=2).rows()) == len(raw.rows) - 2


def test_prepare_with_many_bad_images_raises(raw, refused):
    for path in raw.path.rglob("*.jpg"):
        path.unlink()
    assert refused(raw.path) == "images.none"


def test_prepare_with_a_class_without_images_raises(raw, refused):
    for index in raw.of("df"):
        raw.image(index).unlink()
    assert refused(raw.path, max_bad_images=100) == "split.empty_class"


def test_prepare_with_a_class_without_test_images_raises(raw, run, refused):
    rows = run(raw.path).rows()
    for name in rows[(rows["dx"] == "df") & (rows["split"] == "test")]["image_id"]:
        next(raw.path.rglob(f"{name}.jpg")).write_bytes(b"\xff\xd8\xff")
    assert refused(raw.path, max_bad_images=100) == "split.empty_class"


def test_prepare_with_too_few_lesions_raises(raw, refused):
    lesions = sorted({raw.rows[index]["lesion_id"] for index in raw.of("df")})
    raw.write([row for row in raw.rows if row["lesion_id"] not in lesions[2:]])
    assert refused(raw.path) == "split.too_few_lesions"


def test_prepare_with_one_class_raises(raw, refused):
    raw.write([row for row in raw.rows if row["dx"] == "nv"])
    assert refused(raw.path) == "metadata.one_class"


def test_prepare_with_a_repeated_row_raises(raw, refused):
    raw.write([*raw.rows, raw.rows[5]])
    assert refused(raw.path) == "metadata.repeated_image"


def test_prepare_with_two_images_of_one_id_raises(raw, refused):
    raw.draw(250, "nv").save(raw.path / f"{raw.rows[0]['image_id']}.png")
    assert refused(raw.path) == "images.repeated_id"


def test_prepare_with_paths_out_of_the_folder_as_image_ids_finds_no_file(raw, refused, tmp_path):
    raw.draw(1, "nv").save(tmp_path / "outside.jpg")
    for name in ("../outside", "../outside.jpg", str(tmp_path / "outside")):
        raw.rows[0]["image_id"] = name
        assert refused(raw.write().path) == "images.missing"


def test_prepare_counts_converted_images(raw, run):
    exif = Image.Exif()
    exif[0x0112] = 3
    images = [Image.open(raw.image(index)).copy() for index in range(4)]
    images[0].convert("L").save(raw.image(0))
    images[1].convert("P").save(raw.image(1), "PNG")
    images[2].save(raw.image(2), exif=exif)
    images[3].transpose(Image.Transpose.ROTATE_180).save(raw.image(3), "PNG", exif=exif)
    raw.draw(99, "nv", (64, 48)).save(raw.path / "no_row.jpg")
    done = run(raw.path)
    assert len(done.rows()) == len(raw.rows)
    for line in ("1 grey: used", "1 palette: used", "2 rotated: used", "1 image files without a row: not used"):
        assert f"<li>{line}</li>" in done.profile
    rows = pd.concat(pd.read_parquet(done.set(split)) for split in SPLITS).set_index("image_id")
    upright = decode_png(rows.loc[raw.rows[3]["image_id"], "image"]["bytes"])
    assert np.array_equal(upright, np.asarray(images[3].resize((32, 32), Image.Resampling.LANCZOS)))
    grey = decode_png(rows.loc[raw.rows[0]["image_id"], "image"]["bytes"])
    assert (grey == grey[..., :1]).all()


def test_prepare_with_loops_pipes_and_junk_files_succeeds(raw, run):
    folder = raw.path
    (folder / "loop").symlink_to(".")
    (folder / "root").symlink_to("/")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "HAM10000_metadata")
    (folder / "ISIC_9999999.jpg").mkdir()
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "ISIC_0000000.jpg").write_text("junk")
    (folder / "._ISIC_0000000.jpg").write_text("junk")
    (folder / 'two\nlines "quoted" \'.jpg').write_text("junk")
    (folder / ("x" * 250 + ".jpg")).write_text("junk")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.jpg")).write_text("junk")
    done = run(folder)
    assert len(done.rows()) == len(raw.rows)
    assert "<li>3 image files without a row: not used</li>" in done.profile


@pytest.mark.parametrize("name", [b"\xff\xfe", b"two\nlines", b"<script>", "Übung 2".encode()])
def test_prepare_with_an_unusual_folder_name_succeeds(raw, run, name, capsys):
    folder = Path(os.fsdecode(os.fsencode(raw.path.parent) + b"/" + name))
    raw.path.rename(folder)
    done = run(folder)
    assert len(done.rows()) == len(raw.rows)
    assert "<script>" not in done.profile
    assert all(line.startswith("counterweight prepare_data: ") for line in capsys.readouterr().out.splitlines())


def test_prepare_with_markup_and_control_characters_escapes_them(raw, run):
    raw.rows[0] |= {"sex": "<script>alert(1)</script>", "localization": "a\nb\0c\x1b[31m", "lesion_id": "<b>&\"'"}
    done = run(raw.write().path)
    assert "<script" not in done.profile
    assert "\x1b" not in done.profile
    assert done.rows().set_index("image_id").loc[raw.rows[0]["image_id"], "lesion_id"] == "<b>&\"'"


# Outputs that cannot be written.


def test_prepare_with_an_output_below_a_file_raises(raw, tmp_path, refused):
    (tmp_path / "file").touch()
    assert refused(raw.path, training_data=tmp_path / "file" / "training") == "file.not_a_folder"
    assert refused(raw.path, test_data=tmp_path / "file" / "a" / "test") == "file.not_a_folder"


def test_prepare_with_a_folder_as_profile_raises(raw, tmp_path, refused):
    (tmp_path / "folder").mkdir()
    assert refused(raw.path, data_profile=tmp_path / "folder") == "file.is_a_folder"


def test_prepare_with_a_long_output_name_raises(raw, tmp_path, refused):
    assert refused(raw.path, training_data=tmp_path / ("x" * 300) / "training") == "file.name_too_long"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_prepare_without_permission_raises(raw, tmp_path):
    """Each case runs in a fork of a process that drops root once it has imported everything."""
    script = """
import os, sys, tempfile
from pathlib import Path
from components.shared.errors import exit_on_user_error
from components.prepare_data.prepare import prepare

raw, closed, opened = map(Path, sys.argv[1:])
def run(name, out, max_bad_images=0):
    print(name, flush=True)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        return
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    with exit_on_user_error():
        prepare(str(raw), "random", "refuse", 32, "auto", max_bad_images, 1, *(out / name for name in "tep"))
    sys.exit()

with tempfile.TemporaryDirectory() as out:
    prepare(str(raw), "random", "refuse", 32, "auto", 0, 1, *(Path(out) / name for name in "tep"))
run("# output", closed)
image = next(raw.rglob("ISIC_0000000.jpg"))
image.chmod(0)
(raw / "lost+found").mkdir(mode=0)
run("# image", opened)
run("# allowed", opened, 1)
image.parent.chmod(0)
run("# part", opened)
next(raw.glob("*.csv")).chmod(0)
run("# metadata", opened)
raw.chmod(0)
run("# folder", opened)
"""
    # Up to pytest's folder below the temporary directory; with xdist there is one more level.
    for folder in [tmp_path, *tmp_path.parents]:
        folder.chmod(0o755)
        if folder.name.startswith("pytest-of-"):
            break
    closed, opened = tmp_path / "closed", tmp_path / "opened"
    closed.mkdir(mode=0o755)
    opened.mkdir()
    opened.chmod(0o777)
    done = python(script, raw.path, closed, opened)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    output = {part.split("\n")[0]: part.split("\n")[1:-1] for part in done.stdout.split("# ")[1:]}
    codes = {case: int(lines[-1]) for case, lines in output.items()}
    assert codes == {"output": 2, "image": 2, "allowed": 0, "part": 2, "metadata": 2, "folder": 2}
    prefix = ERROR_RECORD_PREFIX
    last = {
        name: UserError.from_json(lines[-4].removeprefix(prefix)).code for name, lines in output.items() if codes[name]
    }
    assert last == {
        "output": "file.permission",
        "image": "images.too_many_unusable",
        "part": "images.closed_folder",
        "metadata": "file.permission",
        "folder": "data.permission",
    }
    assert list(closed.iterdir()) == []
    assert sorted(path.name for path in opened.iterdir()) == ["e", "p", "t"]


@contextmanager
def small_disk(path, size):
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def can_mount():
    if os.geteuid() != 0:
        return False
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(probe, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_mount(), reason="needs root, to mount a small disk")
@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.8, 0.95])
def test_prepare_on_a_full_disk_leaves_no_files(raw, run, tmp_path, part):
    """No file remains, even if some of the sets are already complete when the disk is full."""
    whole = sum(path.stat().st_size for path in run(raw.path).out.iterdir())
    with small_disk(tmp_path / "small", max(4096, int(part * whole) // 4096 * 4096)) as disk:
        with pytest.raises((UserError, OSError)) as caught:
            run(raw.path, out=disk)
        assert as_user_error(caught.value).code == "file.disk_full"
        assert list(disk.iterdir()) == []


def test_prepare_above_the_file_size_limit_leaves_no_files(raw, tmp_path):
    """The same without root: a write above the limit fails with EFBIG."""
    out = tmp_path / "out"
    script = f"""
import resource, signal
from components.shared.errors import exit_on_user_error
from components.prepare_data.prepare import prepare
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
with exit_on_user_error():
    outputs = [{str(out)!r} + "/" + name for name in "tep"]
    prepare({str(raw.path)!r}, "random", "refuse", 64, "auto", 0, 1, *outputs)
"""
    done = python(script)
    assert done.returncode == 2, done.stderr
    assert done.stderr == ""
    assert '"code": "file.file_too_large"' in done.stdout
    assert list(out.iterdir()) == []


def test_prepare_with_a_late_error_leaves_no_files(raw, refused, monkeypatch):
    def render(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(phase.profile, "render", render)
    assert refused(raw.path) == "file.disk_full"


def test_prepare_that_fails_keeps_the_earlier_result(raw, run):
    done = run(raw.path)
    before = {path: path.read_bytes() for path in done.out.rglob("*") if path.is_file()}
    raw.image(0).write_bytes(b"")
    with raises_user_error("images.too_many_unusable"):
        run(raw.path)
    assert {path: path.read_bytes() for path in done.out.rglob("*") if path.is_file()} == before


def test_prepare_leaves_no_temporary_files(raw, run, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    run(raw.path)
    raw.image(0).write_bytes(b"")
    with raises_user_error("images.too_many_unusable"):
        run(raw.path)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_prepare_does_not_change_the_raw_folder(raw, run):
    before = {path: path.stat().st_mtime_ns for path in raw.path.rglob("*")}
    run(raw.path)
    assert {path: path.stat().st_mtime_ns for path in raw.path.rglob("*")} == before


# Sources.


def test_prepare_from_kaggle_without_credentials_raises(tmp_path, monkeypatch):
    """Run in a separate process, since the client reads its credentials on import."""
    script = f"""
from components.shared.errors import exit_on_user_error
from components.prepare_data.prepare import prepare
with exit_on_user_error():
    outputs = [{str(tmp_path)!r} + "/" + name for name in "tep"]
    prepare("kaggle", "random", "refuse", 32, "auto", 0, 1, *outputs)
"""
    for name in [name for name in os.environ if name.startswith("KAGGLE")]:
        monkeypatch.delenv(name)
    done = python(script, HOME=str(tmp_path), KAGGLE_CONFIG_DIR=str(tmp_path / "none"))
    assert done.returncode == 2, done.stderr
    assert done.stderr == ""
    records = [line for line in done.stdout.splitlines() if line.startswith(ERROR_RECORD_PREFIX)]
    assert [UserError.from_json(line.removeprefix(ERROR_RECORD_PREFIX)).code for line in records] == [
        "kaggle.no_credentials"
    ]
    assert done.stdout.splitlines()[-2:][0].startswith("error: ")
    assert done.stdout.splitlines()[-1].startswith("hint: ")
    assert not list(tmp_path.glob("[tep]"))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("demo", "demo"),
        ("kaggle", "kaggle"),
        ("gs://bucket/p", "bucket"),
        ("s3://bucket/p", "bucket"),
        ("demo/", "folder"),
        ("/kaggle", "folder"),
    ],
)
def test_sources_handle_their_values(data, name):
    chosen = next(source for source in sources.SOURCES if source.handles(data))
    assert chosen.__name__.rpartition(".")[2] == name


def test_prepare_with_data_that_changes_while_it_is_read_raises(raw, run, refused, monkeypatch):
    identity = input_identity(str(raw.path), "random")
    assert run(raw.path, data_identity=identity).rare == ["df", "mel"]
    resolve = phase.leakage.resolve

    def edit(*given):
        raw.image(0).write_bytes(raw.image(1).read_bytes())
        return resolve(*given)

    monkeypatch.setattr(phase.leakage, "resolve", edit)
    assert refused(raw.path, data_identity=identity) == "input.changed"


VALUES = {
    "data": "demo",
    "data_columns": "auto",
    "data_duplicates": "refuse",
    "data_external": "none",
    "data_split": "random",
    "positive_classes": "auto",
    "random_seed": 1,
    "synthetic_classes": "auto",
    "arms": "all",
    "synthetic": "gan",
    "synthetic_shares": [1.0],
}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"synthetic_classes": "MEL"}, "parameter.unknown_class"),
        ({"positive_classes": "melanoma"}, "parameter.unknown_class"),
        ({"positive_classes": "df,mel,nv"}, "parameter.all_classes"),
        ({"data_columns": "dx:diagnosis"}, "metadata.unknown_column"),
    ],
)
def test_check_listing_refuses_names_that_the_data_lacks(raw, changes, code):
    phase.check_listing(VALUES | {"data": str(raw.path), "positive_classes": "mel"}, 0, "none")
    with raises_user_error(code):
        phase.check_listing(VALUES | {"data": str(raw.path)} | changes, 0, "none")


@pytest.mark.parametrize("name", ["positive_classes", "synthetic_classes"])
@pytest.mark.parametrize("layout", ["Parquet", "arrays", "demo", "kaggle"])
def test_check_listing_refuses_other_classes_of_data_that_is_no_folder_of_images(tmp_path, layout, name):
    data, known = str(tmp_path), "1" if layout in ("Parquet", "arrays") else "mel"
    if layout == "Parquet":
        pd.DataFrame({"image": [b"unread"] * 6, "label": [0, 1] * 3}).to_parquet(tmp_path / "all.parquet")
    elif layout == "arrays":
        labels = np.arange(6, dtype=np.uint8)[:, None] % 2
        np.savez(tmp_path / "set.npz", train_images=np.zeros((6, 28, 28), np.uint8), train_labels=labels)
    else:
        data = layout
    phase.check_listing(VALUES | {"data": data, name: known}, 0, "none")
    with raises_user_error("parameter.unknown_class", name=name):
        phase.check_listing(VALUES | {"data": data, name: f"{known},other"}, 0, "none")


def test_check_listing_refuses_missing_images_and_other_classes_elsewhere(raw, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    for number, dx in enumerate(("mel", "mel", "other")):
        (elsewhere / dx).mkdir(parents=True, exist_ok=True)
        raw.draw(900 + number, "mel").save(elsewhere / dx / f"{number}.png")
    with raises_user_error("external.unknown_class"):
        phase.check_listing(VALUES | {"data": str(raw.path), "data_external": str(elsewhere)}, 0, "none")
    for path in raw.path.rglob("*.jpg"):
        path.unlink()
    with raises_user_error("images.none"):
        phase.check_listing(VALUES | {"data": str(raw.path)}, 10, "none")


def write_folders(folder: Path, raw: RawFolder, **counts: int) -> Path:
    """Write a folder of images of each class."""
    for dx, count in counts.items():
        for number in range(count):
            (folder / dx).mkdir(parents=True, exist_ok=True)
            raw.draw(900 + number, "mel").save(folder / dx / f"{dx}{number}.png")
    return folder


def test_check_listing_names_the_fix_if_the_split_of_the_data_lacks_a_class(raw, tmp_path):
    for part, counts in {"train": {"rust": 6, "scab": 6}, "val": {"rust": 2}, "test": {"rust": 2, "scab": 2}}.items():
        write_folders(tmp_path / "own" / part, raw, **counts)
        for path in (tmp_path / "own" / part).rglob("*.png"):
            path.rename(path.with_name(f"{part}-{path.name}"))
    with raises_user_error("split.empty_class", dx="scab", split="validation") as caught:
        phase.check_listing(VALUES | {"data": str(tmp_path / "own")}, 0, "none")
    assert "data_split" in caught.value.hint
    phase.check_listing(VALUES | {"data": str(tmp_path / "own"), "data_split": "1/2"}, 0, "none")


def test_check_listing_names_the_fix_if_the_file_of_the_split_lacks_validation(raw, tmp_path):
    parts = ["train", "test"] * len(raw.rows)
    lines = [f"{row['image_id']},{part}" for row, part in zip(raw.rows, parts, strict=False)]
    (tmp_path / "given.csv").write_text("image_id,split\n" + "\n".join(lines))
    with raises_user_error("split.empty_class", dx="df", split="validation") as caught:
        phase.check_listing(VALUES | {"data": str(raw.path), "data_split": str(tmp_path / "given.csv")}, 0, "none")
    assert "in the file of data_split" in caught.value.hint


def test_check_listing_refuses_synthetic_images_of_other_classes(raw, tmp_path):
    """Before a classifier is trained on real images, which needs none of them."""

    def check(scope: Scope = "rare", **counts: int) -> None:
        place = write_folders(tmp_path / "-".join(counts), raw, **counts)
        phase.check_listing(VALUES | {"data": str(raw.path), "synthetic": f"gan,zoo={place}"}, 0, "none", scope)

    check(df=1, mel=1)
    with raises_user_error("synthetic.unknown_class", name="zoo", dx="other"):
        check(df=1, mel=1, other=1)
    with raises_user_error("synthetic.missing_class", name="zoo", classes=["df"]):
        check(mel=1)
    with raises_user_error("synthetic.missing_class", name="zoo", classes=["nv"]):
        check("all", df=1, mel=1)


def test_check_listing_refuses_splits_that_cannot_be_used(raw, tmp_path):
    """Nothing is downloaded or decoded before."""
    table = pd.read_csv(raw.metadata)

    def check(split: str, data: Path = raw.path, duplicates: str = "refuse") -> None:
        phase.check_listing(VALUES | {"data": str(data), "data_split": split, "data_duplicates": duplicates}, 0, "none")

    def write(split: pd.Series | str, suffix: str = "") -> str:
        rows = table[["image_id"]].assign(image_id=table["image_id"] + suffix, split=split)
        rows.to_csv(tmp_path / "split.csv", index=False)
        return str(tmp_path / "split.csv")

    check("random")
    with raises_user_error("split.unknown_name"):
        check(write("foo"))
    with raises_user_error("split.empty_class"):
        check(write("train"))
    with raises_user_error("split.other_names", id=table["image_id"].min(), count=len(table)):
        check(write("train", suffix="x"))
    with raises_user_error("split.too_few_lesions"):
        check("1/20")
    with raises_user_error("split.too_few_lesions", dx="rust"):
        check("random", write_folders(tmp_path / "small", raw, rust=1, scab=9))
    each = table.groupby("dx").cumcount() % 3
    divided = write(each.map({0: "train", 1: "validation", 2: "test"}))
    assert table["lesion_id"].nunique() < len(table)
    with raises_user_error("leakage.found"):
        check(divided)
    check(divided, duplicates="move_to_train")


def test_check_listing_refuses_data_without_the_metadata_that_a_classifier_requires(raw):
    values = VALUES | {"data": str(raw.path)}
    with_arm = values | {"arms": "baseline,oversampled,augmented,metadata"}
    for row in raw.rows:
        row |= {"age": "1000", "sex": "unknown", "localization": "back"}
    raw.write()
    phase.check_listing(with_arm, 0, "none")
    for row in raw.rows:
        row["localization"] = ""
    raw.write()
    phase.check_listing(values, 0, "none")
    for given, option in ((with_arm, "none"), (values, "late_fusion")):
        with raises_user_error("metadata.no_patients"):
            phase.check_listing(given, 0, option)


def test_prepare_medmnist_uses_its_split_and_states_the_unit(run, tmp_path, capfd):
    rng, arrays = np.random.default_rng(1), {}
    for split, count in (("train", 30), ("val", 12), ("test", 12)):
        coarse = rng.integers(0, 255, (count, 7, 7), np.uint8)
        arrays[f"{split}_images"] = coarse.repeat(4, axis=1).repeat(4, axis=2)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    (tmp_path / "raw").mkdir()
    np.savez_compressed(tmp_path / "raw" / "pneumoniamnist.npz", **arrays)
    done = run(tmp_path / "raw")
    rows = done.rows()
    assert dict(rows["split"].value_counts()) == {"train": 30, "validation": 12, "test": 12}
    assert (rows["image_id"].str.partition("/")[0].replace("val", "validation") == rows["split"]).all()
    output = capfd.readouterr().out
    assert "the data states a split, which is used" in output
    assert "layout: MedMNIST" in output
    assert "neither a lesion id nor a patient id" in output
    source = load_record(done.out / "test_data" / "data_source.json", DataSource)
    assert (source.layout, source.unit, source.own_split) == ("MedMNIST", "image", True)
    text = done.profile.replace("\n", " ")
    assert "lesions" not in text.partition("What was read")[0]
    assert "that of the data itself" in text


def test_prepare_class_folders_without_validation_takes_it_from_train(run, raw, tmp_path):
    folder = tmp_path / "folders"
    for number in range(80):
        at = folder / ("test" if number % 4 == 0 else "train") / ("df", "nv")[number // 4 % 2]
        at.mkdir(parents=True, exist_ok=True)
        raw.draw(number, ("df", "nv")[number // 4 % 2]).save(at / f"{number}.png")
    rows = run(folder).rows()
    assert (rows["split"] == "test").sum() == 20
    assert set(rows.loc[rows["split"] == "test", "image_id"].str.partition("/")[0]) == {"test"}
    assert (rows.groupby("dx")["split"].nunique() == 3).all()
    folds = run(folder, out="fold", split="1/4").rows()
    assert set(folds.loc[folds["split"] == "test", "image_id"].str.partition("/")[0]) == {"test", "train"}


def test_prepare_with_a_given_split_in_the_data_folder_is_no_second_metadata_file(raw, run):
    done = run(raw.path)
    split = raw.path / "splits.csv"
    split.write_bytes(done.splits.read_bytes())
    again = run(raw.path, out="again", split=str(split))
    assert again.splits.read_bytes() == done.splits.read_bytes()
