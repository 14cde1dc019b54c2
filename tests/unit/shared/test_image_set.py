"""The image set: round trip, other tools, and no synthetic image in validation or test."""

import contextlib
import errno
import hashlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.shared import image_set
from components.shared.errors import UserError, as_user_error
from components.shared.image_set import (
    REAL,
    SCHEMA,
    Header,
    decode_png,
    encode_png,
    iter_tables,
    open_pixels,
    pixel_sha256,
    read_header,
    read_rows,
    refuse_overlap,
    seen_hashes,
    write_image_set,
)
from tests.helpers.errors import raises_user_error

HEADER = Header(classes=("df", "mel", "nv"), image_size=16, split="train", data_sha256="d" * 64, split_sha256="5" * 64)


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), np.uint8)


def table(dx, count, **columns):
    rows = {"image_id": [f"{dx}-{i}" for i in range(count)], "lesion_id": [f"{dx}-l{i}" for i in range(count)]}
    return pd.DataFrame(rows).assign(dx=dx, source=REAL, **columns)


def write(path, split="train", groups=(("df", 3), ("mel", 5), ("nv", 7)), **columns):
    header = Header(**{**vars(HEADER), "split": split})
    with write_image_set(path, header) as out:
        for dx, count in groups:
            write_group(out, table(dx, count, **columns), images(count, len(dx)))
    return path


def write_group(out, rows, pixels):
    out.write(rows.assign(pixel_sha256=[pixel_sha256(image) for image in pixels]), [encode_png(p) for p in pixels])


def write_rows(path, split, rows, error=None):
    with write_image_set(path, Header(**{**vars(HEADER), "split": split})) as out:
        write_group(out, rows, images(len(rows)))
        if error:
            raise error


def test_image_set_round_trip_keeps_rows_and_pixels(tmp_path):
    rows = table("df", 2, dx_type=["histo", None], age=[45.0, np.nan], sex=["male", "unknown"], localization=None)
    pixels = images(2)
    rows["pixel_sha256"] = [pixel_sha256(image) for image in pixels]
    with write_image_set(tmp_path / "set", HEADER) as out:
        out.write(rows, [encode_png(image) for image in pixels])
    got = pd.read_parquet(tmp_path / "set")
    assert list(got) == SCHEMA.names
    assert got["age"].dtype == np.float32
    assert got["age"].tolist()[0] == 45
    assert np.isnan(got["age"][1])
    assert got["dx_type"].tolist()[0] == "histo"
    assert got[["model_sha256", "seed", "index", "localization"]].isna().all(axis=None)
    for (_, row), image in zip(got.iterrows(), pixels, strict=True):
        assert np.array_equal(decode_png(row["image"]["bytes"]), image)
        assert row["image"]["path"] == f"{row['image_id']}.png"
    assert read_header(tmp_path / "set") == HEADER


def test_write_without_repeat_counts_each_image_once(tmp_path):
    assert read_rows(write(tmp_path / "a"), "train")["repeat"].tolist() == [1] * 15
    rows = read_rows(write(tmp_path / "b", groups=[("df", 3)], repeat=[2, 0, 7]), "train")
    assert rows["repeat"].tolist() == [2, 0, 7]


def test_read_rows_returns_all_columns_except_the_image(tmp_path):
    rows = read_rows(write(tmp_path / "set"), "train")
    assert list(rows) == [name for name in SCHEMA.names if name != "image"]
    assert list(read_rows(tmp_path / "set", "train", ["dx", "repeat"])) == ["dx", "repeat"]
    assert list(read_rows(tmp_path / "set", "train", ["split"])) == ["split"]


def test_write_image_set_with_a_late_header_writes_it(tmp_path):
    with write_image_set(tmp_path / "set", Header(classes=("df",), image_size=16, split="train")) as out:
        out.write(table("df", 1), [encode_png(images(1)[0])])
        out.header = HEADER
    assert read_header(tmp_path / "set") == HEADER


def test_image_set_has_the_metadata_of_hugging_face(tmp_path):
    metadata = pq.read_metadata(write(tmp_path / "set")).metadata
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert list(features) == SCHEMA.names
    assert features["image"] == {"_type": "Image"}
    assert features["age"] == {"dtype": "float32", "_type": "Value"}
    assert features["repeat"] == {"dtype": "int32", "_type": "Value"}
    assert {feature["_type"] for feature in features.values()} == {"Image", "Value"}
    schema = pq.read_schema(tmp_path / "set")
    assert schema.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize("split", ["validation", "test", "external"])
def test_write_of_a_synthetic_image_to_a_held_out_split_fails(tmp_path, split):
    rows = table("df", 2).assign(source=[REAL, "dcgan"])
    with pytest.raises(ValueError, match=f"synthetic images in the split '{split}'"):
        write_rows(tmp_path / "set", split, rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("split", ["validation", "test", "external"])
@pytest.mark.parametrize("source", ["dcgan", None])
def test_read_of_a_synthetic_image_in_a_held_out_split_fails(tmp_path, split, source):
    """The reader checks, too, since a file may come from elsewhere."""
    whole = pq.read_table(write(tmp_path / "set", split))
    sources = pa.array([REAL] * 14 + [source])
    forged = whole.set_column(whole.schema.get_field_index("source"), "source", sources)
    header = {b"counterweight": pq.read_metadata(tmp_path / "set").metadata[b"counterweight"]}
    pq.write_table(forged.replace_schema_metadata(header), tmp_path / "forged")
    with raises_user_error("image_set.synthetic_in_held_out"):
        read_rows(tmp_path / "forged", split)
    with raises_user_error("image_set.synthetic_in_held_out"), open_pixels(tmp_path / "forged", split):
        pass


def test_write_of_a_synthetic_image_to_train_succeeds(tmp_path):
    with write_image_set(tmp_path / "set", HEADER) as out:
        write_group(out, table("df", 2).assign(source="dcgan", lesion_id=None), images(2))
    assert set(read_rows(tmp_path / "set", "train")["source"]) == {"dcgan"}
    with open_pixels(tmp_path / "set", "train") as pixels:
        assert not pixels.real.any()


def forge(path, **columns):
    """Replace columns of an image set."""
    whole = pq.read_table(path)
    for name, values in columns.items():
        column = whole.schema.get_field_index(name)
        whole = whole.set_column(column, name, pa.array(values, whole.schema.field(column).type))
    header = {b"counterweight": pq.read_metadata(path).metadata[b"counterweight"]}
    pq.write_table(whole.replace_schema_metadata(header), path)


@pytest.mark.parametrize("digest", ["0" * 64, "", None])
def test_open_pixels_with_a_wrong_hash_fails(tmp_path, digest):
    """The leakage guard compares hashes, so a forged hash must not pass."""
    write(tmp_path / "set", "test")
    hashes = read_rows(tmp_path / "set", "test")["pixel_sha256"].tolist()
    forge(tmp_path / "set", pixel_sha256=[*hashes[:9], digest, *hashes[10:]])
    with (
        raises_user_error("image_set.pixel_mismatch"),
        open_pixels(tmp_path / "set", "test"),
    ):
        pass
    with open_pixels(tmp_path / "set", "test", "mel") as pixels:
        assert pixels.pixel_sha256.tolist() == hashes[3:8]


def test_image_set_without_rows_can_be_read(tmp_path):
    header = Header(**{**vars(HEADER), "split": "external"})
    with write_image_set(tmp_path / "set", header) as out:
        out.write(table("df", 0), [])
    assert read_header(tmp_path / "set") == header
    assert list(read_rows(tmp_path / "set", "external")) == [name for name in SCHEMA.names if name != "image"]
    assert list(iter_tables(tmp_path / "set")) == []
    with open_pixels(tmp_path / "set", "external") as pixels:
        assert pixels.images.shape == (0, 16, 16, 3)
        assert seen_hashes(pixels) == []
    assert list(pd.read_parquet(tmp_path / "set")) == SCHEMA.names


def test_seen_hashes_are_those_of_the_real_images(tmp_path):
    write(tmp_path / "validation", "validation")
    with write_image_set(tmp_path / "train", HEADER) as out:
        write_group(out, table("df", 4).assign(source=[REAL, "dcgan", REAL, "dcgan"]), images(4, 9))
    with (
        open_pixels(tmp_path / "train", "train") as train,
        open_pixels(tmp_path / "validation", "validation") as validation,
    ):
        got = seen_hashes(train, validation)
    real = [images(4, 9)[0], images(4, 9)[2], *images(3, 2), *images(5, 3), *images(7, 2)]
    assert got == sorted({pixel_sha256(image)[:16] for image in real})


@pytest.mark.parametrize("split", ["validation", "test", "external"])
@pytest.mark.parametrize(("source", "kind"), [("dcgan", "synthetic"), (REAL, "training")])
def test_refuse_overlap_with_a_shared_image_fails_independent_of_its_row(tmp_path, split, source, kind):
    write(tmp_path / "held_out", split)
    planted = images(7, 2)[4]
    for name, pixels in (("planted", planted), ("clean", images(1, 50)[0])):
        with write_image_set(tmp_path / name, HEADER) as out:
            write_group(out, table("mel", 1).assign(image_id="other", lesion_id="other", source=source), pixels[None])
    refuse_overlap(tmp_path / "held_out", split, [tmp_path / "clean"])
    with raises_user_error(f"leakage.{kind}_image"):
        refuse_overlap(tmp_path / "held_out", split, [tmp_path / "clean", tmp_path / "planted"])


def test_refuse_overlap_with_a_shared_lesion_fails(tmp_path):
    write(tmp_path / "test", "test")
    with write_image_set(tmp_path / "train", HEADER) as out:
        write_group(out, table("mel", 2).assign(lesion_id=["other", "nv-l3"]), images(2, 50))
    with raises_user_error("leakage.lesion"):
        refuse_overlap(tmp_path / "test", "test", [tmp_path / "train"])


@pytest.mark.parametrize(("held", "meant"), [("train", "test"), ("test", "train"), ("validation", "test")])
def test_read_of_the_wrong_split_fails(tmp_path, held, meant):
    write(tmp_path / "set", held)
    with raises_user_error("image_set.wrong_split"):
        read_rows(tmp_path / "set", meant)
    with raises_user_error("image_set.wrong_split"), open_pixels(tmp_path / "set", meant):
        pass


def test_rows_of_another_split_fail_in_writer_and_reader(tmp_path):
    tables = list(iter_tables(write(tmp_path / "test", "test")))
    with (
        pytest.raises(ValueError, match="in the split 'train'"),
        write_image_set(tmp_path / "t", HEADER) as out,
    ):
        out.write_table(tables[0])
    whole = pq.read_table(tmp_path / "test")
    header = {b"counterweight": json.dumps(vars(HEADER)).encode()}
    pq.write_table(whole.replace_schema_metadata(header), tmp_path / "forged")
    with raises_user_error("image_set.mixed_splits"):
        read_rows(tmp_path / "forged", "train")


def test_write_table_copies_row_groups_unchanged(tmp_path):
    write(tmp_path / "one")
    with write_image_set(tmp_path / "two", read_header(tmp_path / "one")) as out:
        for group in iter_tables(tmp_path / "one"):
            out.write_table(group)
    assert pq.read_table(tmp_path / "two").equals(pq.read_table(tmp_path / "one"))


def test_iter_tables_of_a_class_skips_other_row_groups(tmp_path, monkeypatch):
    write(tmp_path / "set")
    assert [group.num_rows for group in iter_tables(tmp_path / "set")] == [3, 5, 7]
    read = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda file, i: read.append(i) or original(file, i))
    (only,) = iter_tables(tmp_path / "set", "mel")
    assert only.column("dx").to_pylist() == ["mel"] * 5
    assert read == [1], "row groups of other classes are not read"
    assert list(iter_tables(tmp_path / "set", "nothing")) == []


def test_iter_tables_of_a_mixed_row_group_returns_the_rows_of_the_class(tmp_path):
    with write_image_set(tmp_path / "set", HEADER) as out:
        mixed = pd.concat([table("df", 2), table("nv", 2), table("mel", 1)])
        out.write(mixed, [encode_png(image) for image in images(5)])
    (only,) = iter_tables(tmp_path / "set", "nv")
    assert only.column("image_id").to_pylist() == ["nv-0", "nv-1"]


def test_open_pixels_returns_images_and_labels(tmp_path):
    write(tmp_path / "set")
    with open_pixels(tmp_path / "set", "train") as pixels:
        assert np.array_equal(pixels.images, np.concatenate([images(3, 2), images(5, 3), images(7, 2)]))
        assert pixels.labels.tolist() == [0] * 3 + [1] * 5 + [2] * 7
        assert pixels.repeat.tolist() == [1] * 15
        assert pixels.real.all()
        assert pixels.header == HEADER
    with open_pixels(tmp_path / "set", "train", "mel") as pixels:
        assert np.array_equal(pixels.images, images(5, 3))
        assert pixels.labels.tolist() == [1] * 5


def test_open_pixels_of_a_class_without_images_is_empty(tmp_path):
    with open_pixels(write(tmp_path / "set"), "train", "akiec") as pixels:
        assert pixels.images.shape == (0, 16, 16, 3)
        assert pixels.labels.shape == (0,)


def test_open_pixels_deletes_its_file(tmp_path, monkeypatch):
    write(tmp_path / "set")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with open_pixels(tmp_path / "set", "train"):
        assert list((tmp_path / "tmp").iterdir())
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_open_pixels_on_a_full_disk_raises_an_error(tmp_path, monkeypatch):
    """The pixels are in a memory-mapped file: without allocation, a full disk would kill the process (SIGBUS)."""
    write(tmp_path / "set", groups=[("df", 100)])
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]).returncode:
        pytest.skip("may not mount")
    try:
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        with pytest.raises(OSError, match="No space left") as caught, open_pixels(tmp_path / "set", "train"):
            pass
        assert as_user_error(caught.value).code == "file.disk_full"
        caught = None  # its frames reference the mapping
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_write_image_set_names_the_file_at_the_end(tmp_path):
    with write_image_set(tmp_path / "set", HEADER) as out:
        out.write(table("df", 1), [encode_png(images(1)[0])])
        assert not (tmp_path / "set").exists()
    assert (tmp_path / "set").exists()
    with pytest.raises(RuntimeError):
        write_rows(tmp_path / "other", "train", table("df", 1), RuntimeError)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_image_set_with_special_characters_in_its_path_can_be_read(tmp_path):
    path = tmp_path / "ü\n%20#?*.parquet"
    assert len(read_rows(write(path), "train")) == 15


def test_write_image_set_that_fails_at_the_end_closes_its_file(tmp_path, monkeypatch):
    def fail(writer):
        writer.is_open = False  # otherwise Arrow retries when the writer is deleted
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(image_set.pq.ParquetWriter, "close", fail)
    with pytest.raises(OSError, match="No space") as caught:
        write(tmp_path / "set")
    # Only in this folder: files that other tests left open may be closed at any time.
    still_open = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert [path for path in still_open if path.startswith(str(tmp_path))] == []
    assert list(tmp_path.iterdir()) == []
    assert as_user_error(caught.value).code == "file.disk_full"


def test_read_header_of_another_file_fails(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("dx\nnv\n")
    pq.write_table(pa.table({"dx": ["nv"]}), tmp_path / "plain")
    wrong_types = (
        {"classes": 1},
        {"classes": [1]},
        {"image_size": "16"},
        {"split": None},
        {"split_sha256": 1},
        {"x": 1},
    )
    headers = [json.dumps({**vars(HEADER), **change}).encode() for change in wrong_types]
    for number, header in enumerate((b"{}", b"[]", b"1", b"not JSON", *headers)):
        schema = pa.schema([("dx", pa.string())], metadata={b"counterweight": header})
        pq.write_table(pa.table({"dx": ["nv"]}, schema=schema), tmp_path / f"header-{number}")
    whole = write(tmp_path / "set").read_bytes()
    (tmp_path / "set").unlink()
    (tmp_path / "truncated").write_bytes(whole[:-50])
    for path in tmp_path.iterdir():
        with raises_user_error("image_set.invalid"):
            read_header(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_read_header_of_a_corrupt_file_raises_only_user_errors(tmp_path, data):
    whole = bytearray(write(tmp_path / "set", groups=[("df", 1)]).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(-300, -1))] = data.draw(st.integers(0, 255))
    (tmp_path / "corrupt").write_bytes(whole)
    with contextlib.suppress(UserError):
        read_header(tmp_path / "corrupt")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_png_round_trip_is_lossless(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    assert np.array_equal(decode_png(encode_png(pixels)), pixels)
    assert pixel_sha256(pixels) == pixel_sha256(np.asfortranarray(pixels))


def test_hash_rows_is_that_of_one_sorted_csv_whatever_the_order_and_the_blocks(monkeypatch):
    rows = pd.DataFrame({"image_id": list("cabde"), "dx": ["nv", "df", 'a,"b"', "nv", None], "other": range(5)})
    text = 'image_id,dx\na,df\nb,"a,""b"""\nc,nv\nd,nv\ne,\n'
    for blocks in (image_set.HASHED_ROWS, 2):
        monkeypatch.setattr(image_set, "HASHED_ROWS", blocks)
        for some in (rows, rows.sort_values("image_id")):
            assert image_set.hash_rows(some, ["image_id", "dx"]) == hashlib.sha256(text.encode()).hexdigest()
    empty = hashlib.sha256(b"image_id,dx\n").hexdigest()
    assert image_set.hash_rows(rows.iloc[:0], ["image_id", "dx"]) == empty
