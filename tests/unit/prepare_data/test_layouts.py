"""Layouts: each is recognised by its content and read in one form, or refused with the fix for this very case."""

import hashlib
import io
import json
import math
import os
import shutil
import tracemalloc
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.prepare_data import layouts
from components.prepare_data.image_reader import Accepted
from components.prepare_data.image_reader import read as read_image
from components.prepare_data.layouts import medmnist, parquet
from components.shared.class_names import safe_class_name
from tests.helpers.errors import raises_user_error
from tests.helpers.raw_folders import COLUMNS, COUNTS, pattern_image, rows, write_images, write_table

CSV = "HAM10000_metadata.csv"
COUNTED = pa.proxy_memory_pool(pa.default_memory_pool())
"""Counts what one test allocates; it must exist as long as what was allocated."""


@pytest.fixture
def read(tmp_path):
    """Read a folder; images that are no files are stored beside it."""

    def read(folder: Path, columns: str = "auto", **options):
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        return layouts.read(folder, columns, scratch=scratch, **options)

    return read


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def classes(dataset) -> dict[str, int]:
    return {str(dx): int(count) for dx, count in dataset.table["dx"].value_counts().items()}


def test_read_ham10000_records_what_was_read(raw, read):
    path = write_table(raw / CSV, [[*row, "x"] for row in rows()], [*COLUMNS, "camera"])
    write_images(raw / "HAM10000_images_part_1", rows()[:10])
    write_images(raw / "HAM10000_images_part_2", rows()[10:])
    write_table(raw / "hmnist_28_28_RGB.csv", [[1, 2, 0]], ["pixel0000", "pixel0001", "label"])
    for name in (".DS_Store", "._HAM10000_metadata.csv", "Thumbs.db", "__MACOSX/HAM10000_metadata.csv"):
        (raw / name).parent.mkdir(exist_ok=True)
        (raw / name).write_bytes(b"\0\5")
    dataset = read(raw)
    assert classes(dataset) == COUNTS
    assert list(dataset.table["lesion_id"]) == [row[0] for row in rows()]
    assert list(dataset.table["group_id"]) == [row[0] for row in rows()]
    source = dataset.source
    assert (source.layout, source.unit, source.own_split, source.notes) == ("HAM10000", "lesion", False, [])
    (metadata,) = source.metadata
    assert (metadata.name, metadata.rows) == (CSV, 23)
    assert metadata.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.columns == dict(zip(COLUMNS, COLUMNS, strict=True))
    assert source.ignored == ["camera"]
    assert source.folders == {"HAM10000_images_part_2": 13, "HAM10000_images_part_1": 10}
    assert dataset.cause is None


@pytest.mark.parametrize(
    ("file", "dialect"),
    [
        ("HAM10000_metadata.tab", {"delimiter": "\t", "quoting": 1}),
        ("HAM10000_metadata", {}),
        (CSV, {"delimiter": ";"}),
        (CSV, {"encoding": "utf-16", "delimiter": "\t"}),
        (CSV, {"encoding": "utf-16-be"}),
        (CSV, {"encoding": "utf-32"}),
        (CSV, {"encoding": "utf-8-sig", "lineterminator": "\r\n", "quoting": 1}),
    ],
)
def test_read_other_dialects_gives_the_same_table(raw, read, tmp_path, file, dialect):
    write_table(raw / file, rows(), **dialect)
    write_images(raw, rows())
    write_table(tmp_path / "plain" / CSV, rows())
    write_images(tmp_path / "plain", rows())
    pd.testing.assert_frame_equal(read(raw).table, read(tmp_path / "plain").table)


def test_read_names_of_columns_that_contain_another_separator(raw, read):
    named = [[row[1], row[2], row[4], 70] for row in rows()]
    header = ["image_id", "dx", "age (years, about)", "weight (kg, with clothes, measured)"]
    raw.mkdir()
    (raw / CSV).write_text("\n".join(";".join(map(str, line)) for line in [header, *named]))
    write_images(raw, rows())
    assert classes(read(raw)) == COUNTS


@pytest.mark.parametrize(
    ("of_table", "of_file"),
    [
        ("{}.jpg", "{}.jpg"),
        ("{}.JPEG", "{}.jpg"),
        ("images/{}.jpg", "{}.jpg"),
        ("C:\\data\\images\\{}.jpg", "{}.png"),
        ("{}", "{}.jpg.jpg"),
        ("{}", "{}.jfif"),
        ("{}", "{}.JPG"),
        ("{}", "{}"),
    ],
)
def test_read_ids_with_suffix_path_or_other_spelling_finds_the_images(raw, read, of_table, of_file):
    write_table(raw / CSV, [[row[0], of_table.format(row[1]), *row[2:]] for row in rows()])
    write_images(raw / "images", rows(), lambda row: of_file.format(row[1]), "JPEG")
    dataset = read(raw)
    assert len(dataset.files) == 23
    assert all(name.endswith(row[1]) for name, row in zip(dataset.table["image_id"], rows(), strict=True))
    assert len(set(dataset.files.values())) == 23


def test_read_ids_in_other_case_finds_the_images(raw, read):
    write_table(raw / CSV, rows())
    write_images(raw, rows(), lambda row: f"{row[1].lower()}.jpg")
    assert len(read(raw).files) == 23


@pytest.mark.parametrize(("image", "dx"), [("image_id", "dx"), ("img_id", "diagnostic"), ("file_name", "label")])
def test_read_two_columns_that_name_different_images_raises(raw, read, image, dx):
    lines = [[str(n), f"{7 - n}.jpg", ("nv", "mel")[n // 4]] for n in range(8)]
    write_images(raw, lines, lambda row: row[1])
    write_table(raw / "labels.csv", lines, [image, "file", dx])
    for open_ in (read, layouts.inspect):
        with raises_user_error("metadata.two_image_columns", columns=[image, "file"], file="labels.csv"):
            open_(raw)
    for column, expected in (("file", 0), (image, 1)):
        table = read(raw, f"image_id:{column}").table
        (first,) = table.loc[table["image_id"] == "7", "dx"]
        assert first == ("nv", "mel")[expected]
    write_table(
        raw / "labels.csv", [[str(n), f"{n}.jpg", dx] for n, (_, _, dx) in enumerate(lines)], [image, "file", dx]
    )
    assert len(read(raw).files) == 8


def test_read_a_name_with_suffix_prefers_the_file_of_that_suffix(raw, read):
    lines = [[str(n), f"a{n}", ("nv", "mel")[n % 2]] for n in range(6)]
    for number, suffix in enumerate((".jpg", ".png")):
        write_images(raw / "i", lines[:: 1 - 2 * number], lambda row, suffix=suffix: row[1] + suffix)
    for suffix, spelled in ((".jpg", ".jpg"), (".png", ".PNG")):
        write_table(raw / "labels.csv", [[f"{row[1]}{spelled}", row[2]] for row in lines], ["file", "label"])
        for open_ in (read, layouts.inspect):
            assert {file.name for file in open_(raw).files.values()} == {f"a{n}{suffix}" for n in range(6)}
    write_table(raw / "labels.csv", [[row[1], row[2]] for row in lines], ["file", "label"])
    with raises_user_error("images.repeated_id"):
        read(raw)


def test_read_paths_chooses_between_files_of_one_name(raw, read):
    lines = [[f"{dx}/{n}.jpg", dx] for dx in ("cat", "dog") for n in range(4)]
    write_images(raw, lines, lambda row: row[0])
    write_table(raw / "labels.csv", lines, ["path", "label"])
    dataset = read(raw)
    assert dataset.source.layout == "table"
    assert {name: file.relative_to(raw).as_posix() for name, file in dataset.files.items()} == {
        line[0].removesuffix(".jpg"): line[0] for line in lines
    }


def test_read_repeated_ids_of_images_in_two_folders_suggests_paths(raw, read):
    for site in ("basel", "wien"):
        write_images(raw / site, rows())
    shutil.copytree(raw / "wien", raw / "copy")  # equal files
    shutil.rmtree(raw / "basel")
    named = [[row[1], row[2]] for row in rows()]
    write_table(raw / CSV, [*named, named[0]], ["image_id", "dx"])
    with raises_user_error("metadata.repeated_image") as caught:
        read(raw)
    assert "copy/ISIC_0024306.jpg, wien/ISIC_0024306.jpg" in caught.value.hint


def test_read_a_path_whose_folder_lacks_the_image_has_none(raw, read):
    lines = [[f"{dx}/{n}.jpg", dx] for dx in ("mel", "nv") for n in range(4)]
    write_images(raw, lines[:4], lambda row: row[0])
    write_table(raw / "labels.csv", lines, ["path", "label"])
    assert sorted(read(raw).files) == ["mel/0", "mel/1", "mel/2", "mel/3"]


def test_read_ids_of_which_one_file_could_be_both_raises(raw, read):
    write_table(raw / CSV, [["L1", "a", "nv"], ["L2", "A", "mel"]], COLUMNS[:3])
    write_images(raw, [["L1", "a"]])
    with raises_user_error("metadata.shared_file") as caught:
        read(raw)
    assert caught.value.fields == {"images": ["a", "A"], "file": "a.jpg"}


def test_read_class_folders(raw, read):
    write_images(raw / "around", rows(), lambda row: f"{row[2]}/part {row[1][-1]}/{row[1]}.jpg")
    dataset = read(raw)
    assert classes(dataset) == COUNTS
    assert dataset.source.layout == "class folders"
    assert dataset.source.unit == "image"
    assert dataset.table["image_id"].iloc[0] == "around/bcc/part 4/ISIC_0024324"
    assert (dataset.table["lesion_id"] == dataset.table["image_id"]).all()
    parts, unit, *_ = dataset.source.notes
    assert parts.endswith("read as parts of a class: part 0, part 1, part 2 and 7 more")
    assert "neither a lesion id nor a patient id" in unit


@pytest.mark.parametrize(
    "pattern",
    [
        "{split}/{dx}/{name}",
        "{dx}/{split}/{name}",
        "data/{split}/{dx}/{name}",
        "{split}_set/{dx}/{name}",
        "{split}Data/{dx}/{name}",
    ],
)
def test_read_class_folders_below_splits(raw, read, pattern):
    splits = ("train", "val", "test")
    write_images(
        raw,
        rows(),
        lambda row: pattern.format(split=splits[int(row[1][-1]) % 3], dx=row[2], name=f"{row[1]}.png"),
    )
    dataset = read(raw)
    assert classes(dataset) == COUNTS
    assert dataset.source.own_split
    by_name = {
        Path(name).name: split for name, split in zip(dataset.table["image_id"], dataset.table["split"], strict=True)
    }
    assert by_name == {row[1]: ("train", "validation", "test")[int(row[1][-1]) % 3] for row in rows()}


def test_read_class_folders_keeps_equal_names_apart_and_excludes_masks(raw, read):
    lines = [[f"{dx}/{n}.png", dx] for dx in ("cat", "dog") for n in range(4)]
    write_images(raw, lines, lambda row: row[0])
    write_images(raw, lines, lambda row: row[0].replace(".png", "_mask.png"))
    dataset = read(raw)
    assert sorted(dataset.table["image_id"]) == sorted(line[0].removesuffix(".png") for line in lines)
    assert "8 images seem to be masks of others, such as cat/0_mask.png: they are not read" in dataset.source.notes


def test_read_class_folders_keeps_images_that_end_as_masks_of_another_class(raw, read):
    lines = [["", f"{n}{end}", dx] for dx, end in (("cat", ""), ("dog", "_seg")) for n in range(4)]
    write_images(raw, lines, lambda row: f"{row[2]}/{row[1]}.png")
    assert classes(read(raw)) == {"cat": 4, "dog": 4}


def test_read_sets_masks_in_a_folder_of_their_own_aside(raw, read):
    write_table(raw / CSV, rows())
    write_images(raw / "images", rows())
    write_images(raw / "HAM10000_segmentations_lesion", rows(), lambda row: f"{row[1]}_segmentation.png")
    dataset = read(raw)
    assert dataset.source.folders == {"images": 23}
    assert dataset.source.notes == [
        "23 images seem to be masks of others, such as HAM10000_segmentations_lesion/ISIC_0024306_segmentation.png: "
        "they are not read"
    ]


@pytest.mark.parametrize(
    "stores",
    [
        ("images", "masks"),
        ("HAM10000_images_part_1", "HAM10000_images_part_2"),
        ("original/nv", "original/mel", "augmented/nv", "augmented/mel"),
        ("Originals", "resized_128"),
    ],
)
def test_read_folders_that_are_no_classes_raises(raw, read, stores):
    for store in stores:
        write_images(raw / store, rows())
    with raises_user_error("metadata.missing"):
        read(raw)


@pytest.mark.parametrize(
    "folders", [("fold1", "fold2"), ("seg_north", "seg_south"), ("patient1", "patient2", "patient3")]
)
def test_read_classes_below_other_folders_raises(raw, read, folders):
    images = [(folder, *row[1:3]) for row in rows({"mel": 6, "nv": 6}) for folder in folders]
    for number, (folder, name, dx) in enumerate(images):
        (raw / folder / dx).mkdir(parents=True, exist_ok=True)
        pattern_image(number).save(raw / folder / dx / f"{name}-{number}.png")
    with raises_user_error("folders.two_levels") as caught:
        read(raw)
    assert caught.value.fields == {"folders": sorted(folders), "below": ["mel", "nv"]}


@pytest.mark.parametrize("parts", [("40X", "100X"), ("patient 1", "patient 2"), ("images",)])
def test_read_class_folders_with_numbered_parts_are_classes(raw, read, parts):
    write_images(raw, rows(), lambda row: f"{row[2]}/{parts[int(row[1][-1]) % len(parts)]}/{row[1]}.jpg")
    assert classes(read(raw)) == COUNTS


@pytest.mark.parametrize("store", ["masks", "unlabeled", "nv_augmented"])
def test_read_a_store_beside_class_folders_raises(raw, read, store):
    write_images(raw, rows(), lambda row: f"{row[2]}/{row[1]}.jpg")
    write_images(raw / store, rows())
    with raises_user_error("folders.not_a_class") as caught:
        read(raw)
    assert caught.value.fields == {"folders": [store]}


def write_one_hot(path, ids, codes, akiec="AKIEC"):
    names = [akiec if row[2] == "akiec" else row[2].upper() for row in rows()]
    lines = [[i, *(float(dx == code) for code in codes)] for i, dx in zip(ids, names, strict=True)]
    write_table(path, lines, ["image", *codes])


def test_read_isic_2018_joins_the_lesions(raw, read):
    write_images(raw / "ISIC2018_Task3_Training_Input", rows())
    codes = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    write_one_hot(raw / "ISIC2018_Task3_Training_GroundTruth.csv", [row[1] for row in rows()], codes)
    groups = [[row[1], f"L{n // 2}" if row[2] == "nv" else row[0], "x"] for n, row in enumerate(rows())]
    write_table(
        raw / "ISIC2018_Task3_Training_LesionGroupings.csv", groups, ["image", "lesion_id", "diagnosis_confirm_type"]
    )
    dataset = read(raw)
    assert classes(dataset) == {"NV": 12, "MEL": 6, "BCC": 5}
    assert dataset.table["lesion_id"].nunique() == 6 + 11
    assert [it.rows for it in dataset.source.metadata] == [23, 23]
    assert dataset.source.columns["lesion_id"] == "lesion_id of ISIC2018_Task3_Training_LesionGroupings.csv"


def test_read_isic_2018_of_all_parts_is_their_split(raw, read):
    write_images(raw, rows())
    codes = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    lines = [[row[1], *(float(row[2].upper() == code) for code in codes)] for row in rows()]
    for part, some in (("Training", lines[::3]), ("Validation", lines[1::3]), ("Test", lines[2::3])):
        write_table(raw / f"ISIC2018_Task3_{part}_GroundTruth.csv", some, ["image", *codes])
    dataset = read(raw)
    assert dataset.source.own_split
    assert dict(dataset.table["split"].value_counts()) == {"train": 8, "validation": 8, "test": 7}


def test_read_isic_2019_with_missing_lesions_counts_them(raw, read):
    ids = [row[1] + "_downsampled" * (n % 3 == 0) for n, row in enumerate(rows())]
    write_images(raw / "ISIC_2019_Training_Input", [["", i] for i in ids])
    write_one_hot(raw / "ISIC_2019_Training_GroundTruth.csv", ids, ["MEL", "NV", "BCC", "AK", "BKL", "UNK"], "AK")
    lesions = [[i, "55", "" if n % 4 else f"BCN_{n:07}", "male"] for n, i in enumerate(ids)]
    write_table(raw / "ISIC_2019_Training_Metadata.csv", lesions, ["image", "age_approx", "lesion_id", "sex"])
    dataset = read(raw)
    assert classes(dataset) == {"NV": 12, "MEL": 6, "BCC": 5}
    assert len(dataset.files) == 23
    assert dataset.source.unit == "lesion"
    assert (dataset.table["age"] == 55).all()
    assert dataset.source.notes[0].startswith("17 images have no lesion id")
    assert dataset.table["group_id"].nunique() == 23


def test_read_one_hot_without_a_class_raises(raw, read):
    write_images(raw, rows())
    write_table(raw / "GroundTruth.csv", [[row[1], 0, 1, 1] for row in rows()], ["image", "MEL", "NV", "BCC"])
    with raises_user_error("metadata.not_one_hot") as caught:
        read(raw)
    assert caught.value.fields == {"line": 2}


@pytest.mark.parametrize("value", ["0.5", "nan", "2", "-1", "", "x"])
def test_read_one_hot_with_another_value_names_column_and_line(raw, read, value):
    write_images(raw, rows())
    lines = [[row[1], 1, 0, 0.0] for row in rows()]
    lines[3][2] = value
    write_table(raw / "GroundTruth.csv", lines, ["image", "MEL", "NV", "BCC"])
    with raises_user_error("metadata.class_value") as caught:
        read(raw)
    assert caught.value.fields == {"column": "NV", "line": 5}


def write_leaves(folder, image="image_id", form=str, further=()):
    """Write a set of leaves with one column per class, and further columns, which are name → function of the row."""
    lines = [[f"leaf{n}", *(form(int(n % 3 == code)) for code in range(3))] for n in range(12)]
    write_images(folder, lines, lambda row: f"{row[0]}.jpg")
    rows_ = [[*line, *(of(n) for _, of in further)] for n, line in enumerate(lines)]
    write_table(folder / "train.csv", rows_, [image, "healthy", "rust", "scab", *(name for name, _ in further)])


@pytest.mark.parametrize(
    ("image", "form"), [("image_id", str), ("file_name", float), ("path", bool), ("isic_id", "{}.".format)]
)
def test_read_one_column_per_class_of_any_names(raw, read, image, form):
    sex, flag = ("sex", lambda n: n % 2), ("camera", lambda n: f"c{n}")
    write_leaves(raw, image, form, [("lesion_id", lambda n: f"L{n // 6}"), sex, flag])
    for open_ in (read, layouts.inspect):
        dataset = open_(raw)
        assert classes(dataset) == {"healthy": 4, "rust": 4, "scab": 4}
        assert dict(zip(dataset.table["image_id"], dataset.table["dx"], strict=True))["leaf5"] == "scab"
        assert list(dataset.table["sex"].unique()) == ["0", "1"]
        assert dataset.table["group_id"].nunique() == 2
        assert dataset.source.columns["dx"] == "one column per class"
        assert dataset.source.ignored == ["camera"]
        assert "the class of an image is the column that has 1, of healthy, rust, scab" in dataset.source.notes


@pytest.mark.parametrize(("value", "code"), [("2", "metadata.class_value"), ("0", "metadata.not_one_hot")])
def test_read_one_column_per_class_with_a_wrong_row_below_the_first_ones_names_it(raw, read, value, code):
    write_leaves(raw)
    lines = [[f"leaf{n}", 1, 0] for n in range(9_000)]
    lines[8_000][1] = value
    write_table(raw / "train.csv", lines, ["image_id", "rust", "scab"])
    with raises_user_error(code, line=8_002):
        read(raw)


@pytest.mark.parametrize("names", [("train", "test"), ("Male", "Female"), ("rust",), ("label", "other")])
def test_read_columns_with_0_and_1_that_are_no_classes_are_refused(raw, read, names):
    lines = [[f"leaf{n}", *((n % 2, 1 - n % 2)[: len(names)])] for n in range(4)]
    write_images(raw, lines, lambda row: f"{row[0]}.jpg")
    write_table(raw / "train.csv", lines, ["file", *names])
    if "label" in names:
        assert classes(read(raw)) == {"0": 2, "1": 2}
    else:
        with raises_user_error("metadata.missing_column"):
            read(raw)


def test_read_one_column_per_class_with_decimal_commas(raw, read):
    hot = [(row[1], *("1,0" if row[2] == dx else "0,0" for dx in COUNTS)) for row in rows()]
    write_table(raw / "train.csv", hot, ["image", *COUNTS], delimiter=";")
    write_images(raw / "images", rows())
    assert classes(read(raw)) == COUNTS


@pytest.mark.parametrize(("one", "zero"), [("1", ""), ("1.0", "NaN"), ("0.8", "0.1"), ("0,8", "0,1")])
def test_read_one_column_per_class_without_zeros_or_with_probabilities_is_named(raw, read, one, zero):
    hot = [(row[1], *(one if row[2] == dx else zero for dx in COUNTS)) for row in rows()]
    names = ["healthy", "rust", "scab"]
    write_table(raw / "train.csv", hot, ["image", *names], delimiter=";")
    write_images(raw / "images", rows())
    with raises_user_error("metadata.not_one_hot", columns=names, file="train.csv") as caught:
        read(raw)
    assert "write 1 for the class of the image and 0 for the others" in caught.value.hint


@pytest.mark.parametrize(
    ("header", "suggested"),
    [
        (["id", "species"], ["image_id:id,dx:COLUMN"]),
        (["id_code", "diagnosis"], ["image_id:id_code,dx:diagnosis"]),
        (["image_name", "diagnosis", "target"], ["image_id:image_name,dx:diagnosis", "image_id:image_name,dx:target"]),
        (["clinic", "diagnosis", "derm"], ["image_id:clinic,dx:diagnosis", "image_id:derm,dx:diagnosis"]),
    ],
)
def test_read_unknown_columns_suggests_those_that_may_hold_image_and_class(raw, read, header, suggested):
    named = [(row[1], row[2], f"{row[1]}.jpg" if header[-1] == "derm" else row[2])[: len(header)] for row in rows()]
    write_table(raw / "train.csv", named, header)
    write_images(raw / "images", rows())
    with raises_user_error("metadata.missing_column", file="train.csv") as caught:
        read(raw)
    assert caught.value.hint.count("data_columns=") == len(suggested)
    for columns in suggested:
        assert f"data_columns={columns} " in caught.value.hint
        assert classes(read(raw, columns.replace("COLUMN", header[1]))) == COUNTS


def test_read_unknown_columns_of_several_tables_names_the_likeliest(raw, read):
    write_table(raw / "duplicates.csv", [(row[1], row[1]) for row in rows()], ["first_image", "second_image"])
    named = [(row[1], row[2], row[2]) for row in rows()[:9]]
    write_table(raw / "truth.csv", named, ["image_name", "diagnosis", "target"])
    write_images(raw / "images", rows())
    with raises_user_error("metadata.missing_column", file="truth.csv"):
        read(raw)
    with raises_user_error("metadata.unknown_column", file="truth.csv", columns=["class"]):
        read(raw, "image_id:image_name,dx:class")


def test_read_several_columns_with_1_in_a_row_are_named(raw, read):
    write_leaves(raw, further=[("sex", lambda n: n % 2), ("wet", lambda n: n % 2), ("camera", lambda n: f"c{n}")])
    with raises_user_error("metadata.not_one_hot", columns=["healthy", "rust", "scab", "wet"], file="train.csv"):
        read(raw)
    assert classes(read(raw, "dx:wet")) == {"0": 6, "1": 6}


def test_read_isic_with_lesions_in_the_ground_truth_uses_them(raw, read):
    write_images(raw, rows())
    codes = ("MEL", "NV", "BCC")
    lines = [
        [row[1], *(float(row[2].upper() == code) for code in codes), f"L{n // 2}", "clinic"]
        for n, row in enumerate(rows())
    ]
    write_table(raw / "GroundTruth.csv", lines, ["image", *codes, "lesion_id", "source"])
    dataset = read(raw)
    assert classes(dataset) == {"NV": 12, "MEL": 6, "BCC": 5}
    assert dataset.table["group_id"].nunique() == 12
    assert dataset.source.unit == "lesion"
    assert dataset.source.ignored == ["source"]


def test_read_isic_2019_ignores_the_weights_of_its_test_table(raw, read):
    write_images(raw, rows())
    lines = [[row[1], *(float(row[2].upper() == code) for code in ("MEL", "NV", "BCC")), 0.4, 1] for row in rows()]
    write_table(raw / "GroundTruth.csv", lines, ["image", "MEL", "NV", "BCC", "score_weight", "validation_weight"])
    dataset = read(raw)
    assert classes(dataset) == {"NV": 12, "MEL": 6, "BCC": 5}
    assert dataset.source.ignored == ["score_weight", "validation_weight"]


@pytest.mark.parametrize(("of_truth", "of_lesions"), [("{}.jpg", "{}"), ("{}", "{}.jpg"), ("{}_downsampled", "{}")])
def test_read_isic_joins_lesions_of_images_that_are_spelled_otherwise(raw, read, of_truth, of_lesions):
    ids = [of_truth.format(row[1]) for row in rows()]
    write_images(raw, [["", i.removesuffix(".jpg")] for i in ids])
    write_one_hot(raw / "GroundTruth.csv", ids, ["MEL", "NV", "BCC"])
    lesions = [[of_lesions.format(row[1]), f"L{n // 2}"] for n, row in enumerate(rows())]
    table = write_table(raw / "Lesions.csv", lesions, ["image", "lesion_id"])
    assert read(raw).table["lesion_id"].str.split().str[0].nunique() == 12
    for of_others in ("other{}", "isic_00{}"):  # the latter in other case
        others = [[of_others.format(24306 + n), "L"] for n in range(23)]
        write_table(table, others, ["image", "lesion_id"])
        with raises_user_error("metadata.no_match") as caught:
            read(raw)
        assert caught.value.fields == {"file": "Lesions.csv"}
    write_images(raw / "test", [["", f"other{n}"] for n in range(5)])
    write_table(table, [[f"other{n}", "L"] for n in range(5)], ["image", "lesion_id"])
    dataset = read(raw)
    assert [note for note in dataset.source.notes if note.startswith("Lesions.csv ")]
    assert dataset.source.unit == "image"


@pytest.mark.parametrize("value", ["NA", "nan", "N/A", "null", "#N/A", "<NA>", "(null)", "?", "..."])
def test_read_a_class_that_stands_for_a_missing_one_raises(raw, read, value):
    write_table(raw / CSV, [[*row[:2], value if n == 4 else row[2], *row[3:]] for n, row in enumerate(rows())])
    write_images(raw, rows())
    with raises_user_error("metadata.missing_value") as caught:
        read(raw)
    assert str(caught.value) == f"{CSV} has no dx ({value!r}) in line 6"


@pytest.mark.parametrize("value", ["none", "unknown"])
def test_read_none_and_unknown_are_classes(raw, read, value):
    write_table(raw / CSV, [[*row[:2], value if row[2] == "bcc" else row[2], *row[3:]] for row in rows()])
    write_images(raw, rows())
    assert classes(read(raw)) == {"nv": 12, "mel": 6, value: 5}


ARCHIVE = ("isic_id", "copyright_license", "age_approx", "diagnosis_1", "diagnosis_2", "diagnosis_3", "lesion_id")


def test_read_isic_archive_takes_the_finest_complete_diagnosis(raw, read):
    names = {"nv": "Nevus", "mel": "Melanoma, NOS", "bcc": "Basal cell carcinoma"}
    coarse = {"nv": "Benign", "mel": "Malignant", "bcc": "Malignant"}
    lines = [[row[1], "CC-0", "50", coarse[row[2]], "", names[row[2]], row[0]] for row in rows()]
    write_table(raw / "metadata.csv", lines, ARCHIVE)
    write_images(raw, rows())
    dataset = read(raw)
    assert classes(dataset) == {"Nevus": 12, "Melanoma_NOS": 6, "Basal_cell_carcinoma": 5}
    assert dataset.source.columns["dx"] == "diagnosis_3"
    assert dataset.source.renamed == {
        "Basal_cell_carcinoma": "Basal cell carcinoma",
        "Melanoma_NOS": "Melanoma, NOS",
    }
    assert classes(read(raw, "dx:diagnosis_1")) == {"Benign": 12, "Malignant": 11}
    with raises_user_error("metadata.unknown_column") as caught:
        read(raw, "dx:diagnosis_9")
    assert caught.value.fields["columns"] == ["diagnosis_9"]


def test_read_pad_ufes_groups_patients(raw, read):
    lines = [[f"PAT_{n // 3}", n % 3, row[2].upper(), f"{row[1]}.png", "60"] for n, row in enumerate(rows())]
    write_table(raw / "metadata.csv", lines, ["patient_id", "lesion_id", "diagnostic", "img_id", "age"])
    write_images(raw / "imgs_part_1", rows(), lambda row: f"{row[1]}.png")
    dataset = read(raw)
    assert dataset.source.layout == "PAD-UFES-20"
    assert classes(dataset) == {"NV": 12, "MEL": 6, "BCC": 5}
    assert dataset.table["lesion_id"].nunique() == 23  # numbers of lesions are unique within a patient only
    assert dataset.table["group_id"].nunique() == 8
    assert list(dataset.table["image_id"]) == [row[1] for row in rows()]


@pytest.mark.parametrize("columns", ["patientId,LesionID,ImageName,label", "PATIENTID,lesionid,imagename,Label"])
def test_read_columns_without_separators_are_recognised(raw, read, columns):
    lines = [[f"P{n // 4}", f"L{n // 2}", row[1], row[2]] for n, row in enumerate(rows())]
    write_table(raw / "list.csv", lines, columns.split(","))
    table = read(raw).table
    assert list(table["patient_id"]) == [line[0] for line in lines]
    assert table["group_id"].nunique() == 6


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("lesion", "lesion_id"),
        ("Lesion No.", "lesion_id"),
        ("nodule_key", "lesion_id"),
        ("pid", "patient_id"),
        ("Subject", "patient_id"),
        ("case_num", "patient_id"),
        ("patient_age", None),
        ("lesion_size_mm", None),
    ],
)
def test_read_notes_a_column_that_may_identify_lesions_or_patients_and_is_not_used(raw, read, column, field):
    named = [(row[1], row[2], f"A{number // 2}") for number, row in enumerate(rows())]
    write_table(raw / CSV, named, ["image_id", "dx", column])
    write_images(raw / "images", rows())
    dataset = read(raw)
    notes = [note for note in dataset.source.notes if "which is not used" in note]
    if field is None:
        assert not notes
        return
    (note,) = notes
    assert f"data_columns={field}:{column} " in note
    assert read(raw, f"{field}:{column}").table["group_id"].nunique() == 12


def test_read_takes_patient_numbers_as_patients(raw, read):
    named = [(row[1], row[2], number // 2) for number, row in enumerate(rows())]
    write_table(raw / CSV, named, ["image_id", "dx", "Patient No."])
    write_images(raw / "images", rows())
    dataset = read(raw)
    assert (dataset.source.unit, dataset.source.columns["patient_id"]) == ("patient", "Patient No.")


@pytest.mark.parametrize(("last", "noted"), [("Test", True), ("", False), ("unused", False)])
def test_read_notes_a_column_with_the_names_of_splits_that_is_not_used(raw, read, last, noted):
    parts = ["TRAIN"] * 15 + ["Test"] * 7 + [last]
    named = [(row[1], row[2], part) for row, part in zip(rows(), parts, strict=True)]
    write_table(raw / CSV, named, ["image_id", "dx", "partition"])
    write_images(raw / "images", rows())
    dataset = read(raw)
    assert any("data_columns=split:partition " in note for note in dataset.source.notes) == noted
    assert not dataset.source.own_split
    assert read(raw, "split:partition").source.own_split == noted


def test_read_named_columns(raw, read):
    lines = [[n, f"{row[1]}.jpg", row[2], f"P{n // 2}"] for n, row in enumerate(rows())]
    write_table(raw / "list.csv", lines, ["nr", "Bild", "Befund", "Fall"])
    write_images(raw, rows())
    with raises_user_error("metadata.missing_column") as caught:
        read(raw)
    assert caught.value.fields == {"file": "list.csv", "columns": ["nr", "Bild", "Befund", "Fall"]}
    assert "data_columns=image_id:Bild,dx:COLUMN" in caught.value.hint
    dataset = read(raw, "image_id:Bild, dx:Befund, lesion_id:Fall")
    assert dataset.source.layout == "table"
    assert classes(dataset) == COUNTS
    assert dataset.source.columns == {"image_id": "Bild", "dx": "Befund", "lesion_id": "Fall"}
    assert dataset.source.ignored == ["nr"]


def test_read_hugging_face_image_folder_with_splits(raw, read):
    for number, split in enumerate(("train", "validation", "test")):
        lines = [[f"images/{n}.png", dx] for n, dx in enumerate(("cat", "dog") * 3)]
        for n, line in enumerate(lines):
            path = raw / split / line[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            pattern_image(10 * number + n).save(path)
        write_table(raw / split / "metadata.csv", lines, ["file_name", "label"])
    dataset = read(raw)
    assert dataset.source.layout == "Hugging Face imagefolder"
    assert len(dataset.files) == 18


def test_read_several_tables_names_the_one_of_a_line(raw, read):
    for split in ("test", "train"):
        named = [(f"{row[1]}.jpg", "" if (split, n) == ("train", 4) else row[2]) for n, row in enumerate(rows())]
        write_table(raw / split / "metadata.csv", named, ["file_name", "label"])
        write_images(raw / split, rows())
    with raises_user_error("metadata.missing_value") as caught:
        read(raw)
    assert str(caught.value).endswith(" has no label in line 6 of train/metadata.csv")


def test_read_hugging_face_image_folder_takes_no_image_of_another_split(raw, read):
    for split, names in (("train", ("0", "1")), ("test", ("1", "2"))):
        write_table(
            raw / split / "metadata.csv", [[f"{n}.png", "ab"[int(n) % 2]] for n in names], ["file_name", "label"]
        )
    for name in ("train/0.png", "train/1.png", "train/2.png"):
        pattern_image(int(name[6])).save(raw / name)
    assert sorted(read(raw).files) == ["train/0", "train/1"]


def write_parquet(path, records, feature=None):
    table = pa.Table.from_pylist(records)
    if feature:
        table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": feature}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)


def encoded(seed):
    from components.shared.image_set import encode_png

    return encode_png(pattern_image(seed))


def test_read_hugging_face_parquet(raw, read):
    names = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    for number, split in enumerate(("train", "validation", "test")):
        records = [{"image": {"bytes": encoded(10 * number + n), "path": f"{n}.png"}, "label": n % 2} for n in range(6)]
        write_parquet(raw / "data" / f"{split}-00000-of-00001.parquet", records, names)
    dataset = read(raw)
    assert dataset.source.layout == "Parquet"
    assert classes(dataset) == {"cat": 9, "dog": 9}
    assert dataset.source.own_split
    assert dict(dataset.table["split"].value_counts()) == {"train": 6, "validation": 6, "test": 6}
    of_file = pattern_image(11)
    of_file.save(raw / "a.png")
    got = read_image(dataset.files["validation/1"], 32)
    assert isinstance(got, Accepted)
    assert got.pixel_sha256 == read_image(raw / "a.png", 32).pixel_sha256


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"label": pa.array(["a", "b"] * 6).dictionary_encode()}, {"a": 6, "b": 6}),
        ({"label": pa.array(["a", "b"] * 6, pa.large_string())}, {"a": 6, "b": 6}),
        ({"label": [0.0, 1.0] * 6}, {"0": 6, "1": 6}),
        ({"label": [0.0, 1.0] * 6, "names": ["cat", "dog"]}, {"cat": 6, "dog": 6}),
        ({"label": [True, False] * 6}, {"True": 6, "False": 6}),
        ({"label": ["a", "b"] * 6, "mask": [b"mask"] * 12}, {"a": 6, "b": 6}),
        ({"label": [0, 1, 2] * 4, "names": ["cat", "dog"]}, "metadata.unnamed_class"),
        (
            {"label": ["a", "b"] * 6, "image": None, "left": [b"l"] * 12, "right": [b"r"] * 12},
            "metadata.several_images",
        ),
        ({"label": ["a", "b"] * 6, "image": None, "images": [[{"bytes": b""}]] * 12}, "metadata.no_images"),
        ({"label": ["a", "b"] * 6, "image": ["1.png", "2.png"] * 6}, "metadata.no_images"),
        ({"caption": ["a", "b"] * 6}, "metadata.missing_column"),
        ({"label": [[0], [1, 2]] * 6}, "metadata.invalid_class"),
    ],
)
def test_read_parquet_of_other_types(raw, read, columns, expected):
    raw.mkdir()
    names, columns = columns.get("names"), {"image": [{"bytes": encoded(n)} for n in range(12)]} | columns
    table = pa.table({name: values for name, values in columns.items() if values is not None and name != "names"})
    if names:
        features = {"label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, raw / "all.parquet")
    if isinstance(expected, str):
        with raises_user_error(expected):
            read(raw)
    else:
        dataset = read(raw)
        assert classes(dataset) == expected
        assert isinstance(read_image(dataset.files[dataset.table["image_id"][0]], 32), Accepted)


def test_read_hugging_face_parquet_with_unpublished_classes_raises(raw, read):
    names = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    for split in ("train", "test"):
        labels = [n % 2 if split == "train" else -1 for n in range(6)]
        records = [{"image": {"bytes": encoded(n), "path": ""}, "label": label} for n, label in enumerate(labels)]
        write_parquet(raw / f"{split}.parquet", records, names)
    with raises_user_error("metadata.missing_value", column="dx") as caught:
        read(raw)
    assert "has no label in " in str(caught.value)


def test_read_parquet_with_ids_and_plain_bytes(raw, read):
    records = [
        {"photo": encoded(n), "image_id": f"I{n}", "lesion_id": f"L{n // 2}", "dx": "ab"[n % 4 // 2]} for n in range(8)
    ]
    write_parquet(raw / "all.parquet", records)
    table = read(raw).table
    assert list(table["image_id"]) == [f"I{n}" for n in range(8)]
    assert list(table["lesion_id"]) == [f"L{n // 2}" for n in range(8)]


def test_read_ignores_a_parquet_file_whose_name_is_not_text(raw, read):
    """Arrow only opens files whose names are UTF-8."""
    records = [{"image": {"bytes": encoded(n), "path": f"{n}.png"}, "label": "ab"[n % 2]} for n in range(8)]
    write_parquet(raw / "all.parquet", records)
    (raw / "all.parquet").rename(raw / os.fsdecode(b"\xe9.parquet"))
    assert len(read(raw).table) == 8


def parquet_rows(path="{}.png", **columns):
    """Return 8 rows with an image, a class and further columns, which are functions of the row's number."""
    return [
        {"image": {"bytes": encoded(n), "path": path.format(n)}, "label": "ab"[n % 2]}
        | {name: of(n) for name, of in columns.items()}
        for n in range(8)
    ]


@pytest.mark.parametrize(
    ("columns", "first", "column"),
    [
        ({"isic_id": "ISIC_{}".format}, "ISIC_0", "isic_id"),
        ({"img_id": "{}.png".format, "id": int}, "0", "img_id"),
        ({"id": "P{}".format}, "P0", "id"),
        ({"isic_id": "{}".format, "image_id": "I{}".format}, "I0", "image_id"),
        ({"id": lambda n: n // 2}, "all.parquet/0", "image"),  # repeated
        ({"id": lambda n: n - 1}, "all.parquet/0", "image"),  # a formula in spreadsheets
        ({"isic_id": lambda n: f"I{n}" if n else None}, "all.parquet/0", "image"),
        ({"id": int}, "all.parquet/0", "image"),  # the path is better than a number
        ({"id": lambda n: n + 1, "path": ""}, "1", "id"),
        ({"isic_id": lambda n: f"I{n}".encode()}, "I0", "isic_id"),
    ],
)
def test_read_parquet_prefers_its_own_ids(raw, read, columns, first, column):
    write_parquet(raw / "all.parquet", parquet_rows(**columns))
    dataset = read(raw)
    assert (dataset.table["image_id"][0], dataset.source.columns["image_id"]) == (first, column)
    pd.testing.assert_frame_equal(layouts.inspect(raw).table, dataset.table)


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (("data.parquet", "data_clean.parquet"), None),
        (("data.parquet", "data (1).parquet"), None),
        (("set_v1.parquet", "set_v2.parquet"), None),
        (("a/data.parquet", "b/data.parquet"), None),
        (("train.parquet", "train_small.parquet"), None),
        (("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"), 16),
        (("data/train-0.parquet", "data/test-0.parquet"), 16),
        (("train/0000.parquet", "validation/0000.parquet"), 16),
        (("part-1.parquet", "part-2.parquet"), 16),
    ],
)
def test_read_parquet_files_of_equal_columns_are_parts_by_their_names(raw, read, names, rows):
    for number, name in enumerate(names):
        write_parquet(raw / name, parquet_rows(f"{number}_{{}}.png"))
    if rows is None:
        with raises_user_error("metadata.several", files=sorted(names)):
            read(raw)
    else:
        assert len(read(raw).table) == rows


def test_read_parquet_classes_as_bytes_are_text(raw, read, tmp_path):
    write_parquet(raw / "all.parquet", [{"photo": encoded(n), "label": b"nv" if n % 2 else b"mel"} for n in range(8)])
    assert classes(read(raw)) == {"nv": 4, "mel": 4}
    (tmp_path / "copy").mkdir()
    with (raw / "all.parquet").open("rb") as file:
        parquet.copy_table(file, tmp_path / "copy" / "all.parquet")
    assert classes(layouts.inspect(tmp_path / "copy")) == {"nv": 4, "mel": 4}


def test_read_several_class_columns_are_refused_unless_the_layout_prefers_one(raw, read, tmp_path):
    two = ["benign", "malignant"]
    write_parquet(raw / "all.parquet", parquet_rows(category=lambda n: two[n // 4]))
    with raises_user_error("metadata.missing_column", columns=["image", "label", "category"]):
        read(raw)
    assert classes(read(raw, "dx:category")) == {"benign": 4, "malignant": 4}
    note = "the class is the column dx; set data_columns=dx:COLUMN for label"
    write_parquet(raw / "all.parquet", parquet_rows(dx=lambda n: two[n // 4]))
    dataset = read(raw)
    assert (classes(dataset), dataset.source.notes[0]) == ({"benign": 4, "malignant": 4}, note)
    lines = [[f"{n}.png", "ab"[n % 2], two[n // 4]] for n in range(8)]
    for image in ("file_name", "image_id"):
        folder = tmp_path / image
        write_images(folder, lines, lambda row: row[0])
        write_table(folder / "metadata.csv", lines, [image, "label", "diagnosis"])
        with raises_user_error("metadata.missing_column", columns=[image, "label", "diagnosis"]):
            read(folder)
        assert classes(read(folder, "dx:label")) == {"a": 4, "b": 4}
        write_table(folder / "metadata.csv", lines, [image, "label", "dx"])
        dataset = read(folder)
        assert (classes(dataset), dataset.source.notes[0]) == ({"benign": 4, "malignant": 4}, note)


def test_inspect_parquet_gives_the_rows_of_read_also_of_a_copy_without_images(raw, read, tmp_path):
    names = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    for split in ("train", "test"):
        records = [{"image": {"bytes": encoded(n), "path": f"{n}.png"}, "label": n % 2} for n in range(6)]
        write_parquet(raw / "a" / f"{split}.parquet", records, names)
    write_parquet(
        raw / "b" / "all.parquet", [{"photo": encoded(n), "id": f"I{n}", "dx": "ab"[n % 2]} for n in range(6)]
    )
    for folder in (raw / "a", raw / "b"):
        copy = tmp_path / "copy" / folder.name
        copy.mkdir(parents=True)
        for path in folder.iterdir():
            with path.open("rb") as file:
                parquet.copy_table(file, copy / path.name)
            assert encoded(1) in path.read_bytes()
            assert encoded(1) not in (copy / path.name).read_bytes()
        expected = read(folder).table
        pd.testing.assert_frame_equal(layouts.inspect(folder).table, expected)
        pd.testing.assert_frame_equal(layouts.inspect(copy).table, expected)


@pytest.mark.parametrize(
    ("names", "rows", "code", "fields"),
    [
        (["image", "label", "label"], 6, "metadata.repeated_column", {"column": "label"}),
        (["image", "label", "Label"], 6, "metadata.repeated_column", {"column": "label"}),
        (["image", "image", "label"], 6, "metadata.several_images", {"columns": ["image", "image"]}),
        (["image", "label", "note"], 0, "metadata.no_rows", {}),
        (["image", "label", "note", "note"], 6, None, {}),
    ],
)
def test_read_parquet_with_repeated_columns_or_no_rows(raw, read, tmp_path, names, rows, code, fields):
    raw.mkdir()
    values = {
        "image": [{"bytes": encoded(n), "path": f"{n}.png"} for n in range(6)],
        "label": ["a", "b"] * 3,
    }
    types = {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()})}
    arrays = [pa.array(values.get(name.lower(), ["x"] * 6)[:rows], types.get(name, pa.string())) for name in names]
    pq.write_table(pa.Table.from_arrays(arrays, names), raw / "all.parquet")
    (tmp_path / "copy").mkdir()
    with (raw / "all.parquet").open("rb") as file:
        parquet.copy_table(file, tmp_path / "copy" / "all.parquet")
    for open_ in (read, layouts.inspect):
        for folder in (raw, tmp_path / "copy"):
            if code:
                with raises_user_error(code, **fields):
                    open_(folder)
            else:
                assert classes(open_(folder)) == {"a": 3, "b": 3}


def write_repeated(path, image, label, rows):
    """Write a small file of which each row has the same image and class; each is stored once."""
    repeat = pa.array([0] * rows, pa.int32())
    images, labels = (pa.DictionaryArray.from_arrays(repeat, pa.array([value])) for value in (image, label))
    table = pa.table({"image": pa.StructArray.from_arrays([images], ["bytes"]), "label": labels})
    path.parent.mkdir(parents=True)
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 10_000


def copy_parquet(raw, folder):
    """Copy a file without its images, and return the folder."""
    folder.mkdir()
    with (raw / "all.parquet").open("rb") as file:
        parquet.copy_table(file, folder / "all.parquet")
    return folder


def test_read_parquet_with_one_image_in_all_rows_stores_it_once(raw, read, tmp_path):
    image = bytes(8 * 2**20)
    write_repeated(raw / "all.parquet", image, "a", 64)
    before = pa.default_memory_pool()
    pa.set_memory_pool(COUNTED)
    tracemalloc.start()
    try:
        dataset = read(raw, min_classes=1)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(image)  # 64 without the limits
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert len(image) < COUNTED.max_memory() < 6 * len(image)
    assert {(file.start, file.length) for file in dataset.files.values()} == {(0, len(image))}
    assert len(dataset.files) == 64
    assert (tmp_path / "scratch" / "parquet-images").stat().st_size == len(image)


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_read_parquet_of_other_encodings_is_unchanged(raw, read, tmp_path, encoding):
    raw.mkdir()
    records = [{"image": {"bytes": encoded(n % 5), "path": f"{n}.png"}, "label": "ab"[n % 2]} for n in range(40)]
    columns = dict.fromkeys(("image.bytes", "image.path", "label"), encoding)
    pq.write_table(pa.Table.from_pylist(records), raw / "all.parquet", use_dictionary=False, column_encoding=columns)
    dataset = read(raw)
    assert [dataset.files[f"all.parquet/{n}"].read() for n in range(40)] == [encoded(n % 5) for n in range(40)]
    copy = copy_parquet(raw, tmp_path / "copy")
    pd.testing.assert_frame_equal(layouts.inspect(copy).table, dataset.table)


@pytest.mark.parametrize(
    ("image", "label", "rows", "column", "limit"),
    [
        (bytes(parquet.MAX_BYTES + 1), "a", 2, "image", parquet.MAX_BYTES),
        (b"image", "a" * 300_000, 1_000, "label", parquet.MAX_TEXT_BYTES),
        (b"image", "ä" * (parquet.MAX_TEXT_BYTES // 2 + 1), 1_000, "label", parquet.MAX_TEXT_BYTES),
    ],
)
def test_read_parquet_with_a_long_value_raises(raw, read, tmp_path, image, label, rows, column, limit):
    write_repeated(raw / "all.parquet", image, label, rows)
    copy = copy_parquet(raw, tmp_path / "copy")
    assert (copy / "all.parquet").stat().st_size < 100_000
    with raises_user_error("metadata.value_too_long", column=column, limit=limit):
        read(raw)
    if column == "label":
        for folder in (raw, copy):
            with raises_user_error("metadata.value_too_long", column=column, limit=limit):
                layouts.inspect(folder)


def test_inspect_parquet_without_images_ignores_long_texts(tmp_path):
    path = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"long": ["a" * 3_000] * 3, "short": ["a", "b", None]}), path)
    assert parquet.first_texts(path) == ["a", "b"]


def test_read_parquet_without_memory_is_no_corrupt_file(raw, read, monkeypatch):
    write_repeated(raw / "all.parquet", b"image", "a", 2)

    def exhaust(file, *arguments, **options):
        raise pa.ArrowMemoryError("malloc of size 64 failed")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", exhaust)
    with pytest.raises(MemoryError):
        read(raw)


def test_read_corrupt_parquet_raises(raw, read):
    write_parquet(raw / "all.parquet", [{"image": {"bytes": encoded(n), "path": ""}, "label": n % 2} for n in range(8)])
    content = bytearray((raw / "all.parquet").read_bytes())
    content[4:2000] = bytes(1996)
    (raw / "all.parquet").write_bytes(content)
    with raises_user_error("metadata.not_parquet") as caught:
        read(raw)
    assert caught.value.fields == {"file": "all.parquet"}


def test_read_parquet_notes_a_file_without_classes(raw, read):
    records = [{"image": {"bytes": encoded(n), "path": ""}, "label": n % 2} for n in range(8)]
    write_parquet(raw / "train.parquet", records)
    write_parquet(raw / "test.parquet", [{"image": record["image"]} for record in records])
    dataset = read(raw)
    assert len(dataset.files) == 8
    assert dataset.source.notes[0] == (
        "1 Parquet files with images but without a column of classes are not read: test.parquet"
    )


def write_medmnist(path, shape=(28, 28), **changes):
    rng = np.random.default_rng(1)
    arrays = {}
    for split, count in (("train", 30), ("val", 12), ("test", 12)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, *shape), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **(arrays | changes))
    return arrays | changes


def test_inspect_medmnist_gives_the_rows_of_read_also_of_a_copy_without_images(raw, read, tmp_path):
    write_medmnist(raw / "set.npz")
    (tmp_path / "copy").mkdir()
    with (raw / "set.npz").open("rb") as file:
        medmnist.copy_table(file, tmp_path / "copy" / "set.npz")
    expected = read(raw).table
    pd.testing.assert_frame_equal(layouts.inspect(raw).table, expected)
    pd.testing.assert_frame_equal(layouts.inspect(tmp_path / "copy").table, expected)


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 1), (28, 28, 3), (64, 64, 3)])
def test_read_medmnist(raw, read, shape):
    arrays = write_medmnist(raw / "bloodmnist.npz", shape)
    dataset = read(raw)
    assert dataset.source.layout == "MedMNIST"
    assert classes(dataset) == {"0": 18, "1": 18, "2": 18}
    assert dict(dataset.table["split"].value_counts()) == {"train": 30, "validation": 12, "test": 12}
    stored = dataset.files["val/0000003"]
    assert np.array_equal(np.frombuffer(stored.read(), np.uint8).reshape(shape), arrays["val_images"][3])
    assert isinstance(read_image(stored, 32), Accepted)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"train_labels": np.zeros((30, 14), np.uint8)}, "arrays.labels"),
        ({"train_labels": np.arange(30) / 2}, "arrays.labels"),
        ({"train_labels": np.full(30, np.inf)}, "arrays.labels"),
        ({"train_labels": np.array(["a", "b"] * 15)}, "arrays.labels"),
        ({"train_labels": np.zeros((29, 1), np.uint8)}, "arrays.lengths"),
        ({"train_images": np.zeros((30, 28, 28), np.uint16)}, "arrays.images"),
        ({"train_images": np.zeros((30, 28, 28, 28), np.uint8)}, "arrays.images"),
        ({"train_images": np.array([{}] * 30, object)}, "arrays.invalid"),
    ],
)
def test_read_other_arrays_raises(raw, read, changes, code):
    write_medmnist(raw / "a.npz", **changes)
    with raises_user_error(code):
        read(raw)


def test_read_arrays_with_whole_floats_as_labels(raw, read):
    labels = {
        f"{split}_labels": (np.arange(n) % 3).astype(float) for split, n in (("train", 30), ("val", 12), ("test", 12))
    }
    write_medmnist(raw / "a.npz", **labels)
    assert classes(read(raw)) == {"0": 18, "1": 18, "2": 18}


def test_read_arrays_of_other_names_names_them(raw, read):
    raw.mkdir()
    np.savez(raw / "a.npz", x_train=np.zeros((4, 28, 28), np.uint8), y_train=np.arange(4))
    with raises_user_error("arrays.missing") as caught:
        read(raw)
    assert "x_train, y_train" in str(caught.value)


def write_claims(path, shape, content=b"", name="train_images", flags=0):
    """Write a set with an array whose header claims a shape, followed by some content."""
    write_medmnist(path)
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    members[f"{name}.npy"] = header.getvalue() + content
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    if flags:
        packed = bytearray(path.read_bytes())
        for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            start = packed.find(mark)
            while start >= 0:
                packed[start + offset] |= flags
                start = packed.find(mark, start + 4)
        path.write_bytes(packed)


@pytest.mark.parametrize(
    ("shape", "name", "code"),
    [
        ((30, 28, 28), "train_images", "arrays.truncated"),
        ((10**15, 28, 28), "train_images", "arrays.too_large"),
        ((2**23, 2**13, 2**13), "train_images", "arrays.truncated"),  # 2⁴⁹ bytes
        ((2**22, 2**21, 2**21), "train_images", "arrays.truncated"),  # 2⁶⁴ bytes, 0 in a 64-bit number
        ((-1, 28, 28), "train_images", "arrays.truncated"),
        ((-30, -28, 28), "train_images", "arrays.truncated"),
        ((30, 0, 28), "train_images", "arrays.images"),
        ((), "train_images", "arrays.images"),
        ((-1,), "train_labels", "arrays.truncated"),
        ((10**9,), "train_labels", "arrays.too_large"),
        ((10**6,), "train_labels", "arrays.truncated"),
    ],
)
def test_read_array_with_a_hostile_shape_raises(raw, read, tmp_path, shape, name, code):
    write_claims(raw / "a.npz", shape, b"\0", name)
    with raises_user_error(code, array=name):
        read(raw)
    assert sum(path.stat().st_size for path in (tmp_path / "scratch").iterdir()) < 2**20


@pytest.mark.parametrize("shape", [(100, 1_000_000), (1_000_000, 1, 100), (100, 0)])
def test_read_labels_of_another_shape_raises_before_they_are_read(raw, read, tmp_path, shape):
    write_claims(raw / "a.npz", shape, bytes(math.prod(shape)), "train_labels")
    tracemalloc.start()
    try:
        for attempt in (read, copy_arrays(tmp_path)):
            with raises_user_error("arrays.labels", array="train_labels"):
                attempt(raw)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


def copy_arrays(tmp_path):
    """Return a function that copies a set without its images."""

    def copy(raw):
        with (raw / "a.npz").open("rb") as file:
            medmnist.copy_table(file, tmp_path / "copy.npz")

    return copy


@pytest.mark.parametrize(("signs", "code"), [(1_000, "arrays.corrupt"), (9_000, "arrays.invalid")])
def test_read_array_whose_header_nests_expressions_raises(raw, read, tmp_path, signs, code):
    text = "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "-" * signs + "1,)}"
    write_claims(raw / "a.npz", (1,), name="train_labels")
    with zipfile.ZipFile(raw / "a.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["train_labels.npy"] = b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text.encode()
    with zipfile.ZipFile(raw / "a.npz", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    for attempt in (read, copy_arrays(tmp_path)):
        with raises_user_error(code):
            attempt(raw)


def test_read_array_that_exceeds_the_disk_raises(raw, read, tmp_path, monkeypatch):
    """A thousandth of the bytes holds an array of zeros."""
    write_claims(raw / "a.npz", (30, 2_000, 2_000), bytes(30 * 2_000 * 2_000))
    assert (raw / "a.npz").stat().st_size < 2**20
    usage = shutil.disk_usage(tmp_path)._replace(free=10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with raises_user_error("arrays.no_space", bytes=30 * 2_000 * 2_000):
        read(raw)


def test_read_array_whose_header_has_gigabytes_raises_before_it_is_read(raw, read):
    raw.mkdir()
    with zipfile.ZipFile(raw / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train_images.npy", b"")
        archive.writestr("train_labels.npy", b"\x93NUMPY\x02\0" + (2**31).to_bytes(4, "little"))
    with raises_user_error("arrays.invalid", array="train_labels"):
        read(raw)


def test_read_encrypted_arrays_raises(raw, read):
    write_claims(raw / "a.npz", (30, 28, 28), bytes(30 * 28 * 28), flags=1)
    with raises_user_error("arrays.corrupt"):
        read(raw)


def test_read_damaged_arrays_raises(raw, read):
    write_medmnist(raw / "a.npz", (64, 64, 3))
    content = bytearray((raw / "a.npz").read_bytes())
    content[2_000:2_400] = bytes(400)
    (raw / "a.npz").write_bytes(content)
    with raises_user_error("arrays.corrupt"):
        read(raw)


def test_read_two_sets_of_arrays_raises(raw, read):
    for name in ("a.npz", "b.npz"):
        write_medmnist(raw / name, (28, 28) if name == "a.npz" else (28, 28, 3))
    with raises_user_error("metadata.several"):
        read(raw)


def cause(dataset):
    """Return code and fields of the cause for which images are missing."""
    assert dataset.files == {}
    return dataset.cause.code, dataset.cause.fields


def test_read_with_packed_images_names_the_archive(raw, read):
    write_table(raw / "HAM10000_metadata", rows())
    write_images(raw, rows())
    with zipfile.ZipFile(raw / "HAM10000_images_part_1.zip", "w") as archive:
        for path in sorted(raw.glob("*.jpg")):
            archive.write(path, path.name)
            path.unlink()
    assert cause(read(raw)) == ("images.packed", {"archives": ["HAM10000_images_part_1.zip"], "count": 23})


def test_read_with_a_linked_folder_names_it_once(raw, read, tmp_path):
    write_table(raw / CSV, rows())
    write_images(tmp_path / "elsewhere", rows())
    (raw / "images").symlink_to("../elsewhere")
    dataset = read(raw)
    assert cause(dataset) == ("images.linked_folder", {"folder": "images"})
    assert f"cp -r {tmp_path / 'elsewhere'} images" in dataset.cause.hint


@pytest.mark.parametrize("suffix", [".dcm", ".heic"])
def test_read_with_unsupported_suffix_names_it(raw, read, suffix):
    write_table(raw / CSV, rows())
    write_images(raw, rows(), lambda row: f"{row[1]}{suffix}", "PNG")
    assert cause(read(raw)) == ("images.unsupported_suffix", {"suffix": suffix, "count": 23})


@pytest.mark.parametrize(("written", "count"), [("{}", 10), ("{}.0", 23), ("0{}", 23)])
def test_read_ids_that_a_program_has_read_as_numbers_shows_one_of_each(raw, read, written, count):
    write_table(raw / CSV, [(written.format(number), row[2]) for number, row in enumerate(rows())], ["image_id", "dx"])
    write_images(raw / "images", [(row, f"{number:02}") for number, row in enumerate(rows())])
    id_, file = written.format(0), "images/00.jpg"
    expected = {"id": id_, "file": file, "count": count}
    if written == "0{}":  # `00` to `09` are the names of files
        expected |= {"id": "010", "file": "images/10.jpg", "count": 13}
    error = read(raw).cause
    assert (error.code, error.fields) == ("images.changed_numbers", expected)


def test_read_with_other_names_shows_one_of_each(raw, read):
    write_table(raw / CSV, rows())
    write_images(raw, [["", str(n)] for n in range(5)])
    assert cause(read(raw)) == ("images.other_names", {"id": "ISIC_0024306", "file": "0.jpg", "count": 23})


def test_read_with_broken_links_names_one_and_its_target(raw, read, tmp_path):
    write_table(raw / CSV, rows())
    (raw / "images").mkdir()
    for row in rows():
        (raw / "images" / f"{row[1]}.jpg").symlink_to(tmp_path / "gone" / f"{row[1]}.jpg")
    (raw / "latest").symlink_to("nothing")  # without the name of an image
    dataset = read(raw)
    assert cause(dataset) == ("images.broken_links", {"link": f"images/{rows()[0][1]}.jpg", "count": 23})
    assert f"to {tmp_path}/gone/" in str(dataset.cause)


def test_read_class_folders_with_a_broken_link_raises(raw, read):
    write_images(raw, rows(), lambda row: f"{row[2]}/{row[1]}.jpg")
    (raw / "nv" / "another.jpg").symlink_to("gone.jpg")
    with raises_user_error("images.broken_links", count=1, link="nv/another.jpg"):
        read(raw)


def test_read_without_images_says_so(raw, read):
    write_table(raw / CSV, rows())
    assert cause(read(raw)) == ("images.none", {"count": 23})


def test_read_masks_of_the_same_name_names_both_folders_once(raw, read):
    write_table(raw / CSV, rows())
    write_images(raw / "images", rows())
    write_images(raw / "masks", rows()[::-1][:20], lambda row: f"{row[1]}.png")
    with raises_user_error("images.repeated_id") as caught:
        read(raw)
    assert caught.value.fields == {"folders": ["images", "masks"], "count": 20}
    assert "masks" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("nv", "nv"),
        ("nv lesions", "nv_lesions"),
        ("Melanoma, NOS", "Melanoma_NOS"),
        ("squamous cell carcinoma (invasive)", "squamous_cell_carcinoma"),
        ("nævus", "naevus"),
        ("große Fläche", "grosse_Flache"),
        ("Névus bénin", "Nevus_benin"),
        ("T1/T2", "T1_T2"),
        ("../x", None),
        ("<b>", None),
        ("黒色腫", None),
        ("", None),
    ],
)
def test_safe_class_name(name, safe):
    assert safe_class_name(name) == safe


@pytest.mark.parametrize("count", [2, 20])
def test_read_any_number_of_classes(raw, read, count):
    counts = {f"species {n}": 4 for n in range(count)}
    write_table(raw / "metadata.csv", rows(counts))
    write_images(raw, rows(counts))
    assert classes(read(raw)) == {f"species_{n}": 4 for n in range(count)}


@pytest.mark.parametrize(
    ("spelled", "read_as"),
    [(("1.0", "0.0"), {"1", "0"}), (("1", "0", "1.0", "0."), {"1", "0"}), (("1", "0,0", "1,0", "0"), {"1", "0"})],
)
def test_read_whole_numbers_as_classes_without_decimals(raw, read, spelled, read_as):
    images = [[*row[:2], spelled[n % len(spelled)], *row[3:]] for n, row in enumerate(rows())]
    write_table(raw / CSV, images)
    write_images(raw, images)
    dataset = read(raw)
    assert set(dataset.table["dx"]) == read_as
    assert "classes are whole numbers: 1.0 is read as 1" in dataset.source.notes


@pytest.mark.parametrize(("name", "code"), [("labels.txt", "metadata.other_suffix"), ("notes.txt", "metadata.missing")])
def test_read_a_table_with_the_suffix_txt_is_named(raw, read, name, code):
    write_images(raw, rows())
    if name == "labels.txt":
        write_table(raw / name, rows(), delimiter="\t")
    else:
        (raw / name).write_text("photographs of 2020\n")
    with raises_user_error(code):
        read(raw)


def test_read_a_comment_above_the_header_is_named(raw, read):
    path = write_table(raw / CSV, rows())
    path.write_text("# exported, 2024\n" + path.read_text())
    write_images(raw, rows())
    with raises_user_error("metadata.no_header"):
        read(raw)


@pytest.mark.parametrize(("of_table", "delimiter"), [("{}.jpg", ","), ("{}", ";"), ("images/{}", "\t")])
def test_read_a_table_without_a_header_row_is_named(raw, read, of_table, delimiter):
    write_images(raw / "images", rows())
    first, *lines = [[of_table.format(row[1]), row[2]] for row in rows()]
    write_table(raw / "labels.csv", lines, first, delimiter=delimiter)
    for columns in ("auto", "image_id:file,dx:label"):
        with raises_user_error("metadata.no_header", file="labels.csv") as caught:
            read(raw, columns)
        assert "has no header row" in str(caught.value)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b"])
def test_read_a_workbook_with_the_suffix_csv_is_named(raw, read, start):
    write_images(raw, rows())
    (raw / "labels.csv").write_bytes(start + b"[Content_Types].xml\n")
    with raises_user_error("metadata.not_utf8", file="labels.csv") as caught:
        read(raw)
    assert "is a workbook or an archive" in str(caught.value)


def test_read_notes_other_tables_that_list_images(raw, read):
    write_table(raw / CSV, rows())
    write_images(raw, rows())
    write_table(raw / "patients.csv", [[row[1], f"P{n}"] for n, row in enumerate(rows())], ["photo", "patient"])
    write_table(raw / "clinics.csv", [["A", "Bern"]], ["clinic", "place"])
    (raw / "copy").mkdir()
    shutil.copy(raw / CSV, raw / "copy" / CSV)
    note = f"patients.csv lists images, but is not read; add its columns (photo, patient) to {CSV} to use them"
    assert [it for it in read(raw).source.notes if "not read" in it] == [note]
    assert note in layouts.inspect(raw).source.notes
    codes = ("NV", "MEL", "BCC")
    lines = [[row[1], *(float(row[2].upper() == code) for code in codes)] for row in rows()]
    write_table(raw / CSV, lines, ["image", *codes])
    (raw / "copy" / CSV).unlink()
    assert read(raw).source.notes[0] == note


def test_read_ignores_a_given_split_in_the_folder(raw, read):
    write_table(raw / CSV, rows())
    write_images(raw, rows())
    split = write_table(raw / "splits.csv", [[row[1], row[2], "train"] for row in rows()], ["image_id", "dx", "split"])
    with raises_user_error("metadata.several"):
        read(raw)
    assert read(raw, ignore=split).source.metadata[0].name == CSV


def test_read_a_split_column_that_leaves_images_out_is_not_used(raw, read):
    write_table(raw / CSV, [[*row, ("train", "test", "")[n % 3]] for n, row in enumerate(rows())], [*COLUMNS, "split"])
    write_images(raw, rows())
    dataset = read(raw)
    assert dataset.table["split"].isna().all()
    assert "own split is not used" in dataset.source.notes[0]


def test_read_ignores_the_results_of_a_run_in_the_folder(raw, read):
    write_table(raw / CSV, rows())
    write_images(raw / "images", rows())
    write_table(raw / "out" / "splits.csv", [[row[1], row[2]] for row in rows()], ["image_id", "dx"])
    write_images(raw / "out" / "synthetic", rows()[:3])
    (raw / "out" / "metrics.json").write_text("{}")
    dataset = read(raw)
    assert dataset.source.folders == {"images": 23}
    assert len(dataset.files) == 23


def test_read_class_folders_with_a_linked_class_raises(raw, read, tmp_path):
    write_images(raw, rows(), lambda row: f"{row[2]}/{row[1]}.jpg")
    write_images(tmp_path / "df", rows())
    (raw / "df").symlink_to(tmp_path / "df")
    with raises_user_error("images.linked_folder") as caught:
        read(raw)
    assert caught.value.fields == {"folder": "df"}


def test_read_class_folders_with_unsupported_images_raises(raw, read):
    write_images(raw, rows(), lambda row: f"{row[2]}/{row[1]}" + (".heic" if row[2] == "bcc" else ".jpg"), "JPEG")
    with raises_user_error("images.unsupported_suffix") as caught:
        read(raw)
    assert caught.value.fields == {"suffix": ".heic", "count": 5}


def test_read_notes_packed_files_that_are_not_read(raw, read):
    write_images(raw, rows(), lambda row: f"{row[2]}/{row[1]}.jpg")
    with zipfile.ZipFile(raw / "df.zip", "w"):
        pass
    assert "packed files are not read: df.zip" in read(raw).source.notes


def test_read_parquet_with_one_path_for_all_images_numbers_them(raw, read):
    records = [{"image": {"bytes": encoded(n), "path": "image.png"}, "label": "ab"[n % 2]} for n in range(6)]
    write_parquet(raw / "train.parquet", records)
    assert list(read(raw).table["image_id"]) == [f"train/{n:07}" for n in range(6)]


def test_read_a_table_without_classes_beside_class_folders_suggests_both_ways(raw, read):
    write_images(raw, rows(), lambda row: f"{row[2]}/{row[1]}.jpg")
    table = write_table(raw / "ages.csv", [[row[1], "50"] for row in rows()], ["image", "age"])
    with raises_user_error("metadata.missing_column") as caught:
        read(raw)
    assert "move the file out of the folder" in caught.value.hint
    table.unlink()
    assert read(raw).source.layout == "class folders"


def test_read_masks_with_another_suffix_beside_the_images_are_named_once(raw, read):
    write_table(raw / CSV, rows())
    write_images(raw, rows())
    write_images(raw, rows()[::-1], lambda row: f"{row[1]}.png")
    with raises_user_error("images.repeated_id") as caught:
        read(raw)
    assert caught.value.fields == {"suffixes": [".jpg", ".png"], "count": 23}
    (raw / CSV).unlink()
    for path in [*raw.glob("*.jpg"), *raw.glob("*.png")]:
        at = raw / ("ab"[int(path.stem[-1]) % 2]) / path.name
        at.parent.mkdir(exist_ok=True)
        path.rename(at)
    with raises_user_error("images.repeated_id"):
        read(raw)


def test_read_masks_below_a_class_folder_raises(raw, read):
    write_images(raw, rows(), lambda row: f"{row[2]}/{row[1]}.jpg")
    write_images(raw / "nv" / "masks", rows()[:12], lambda row: f"m{row[1]}.png")
    with raises_user_error("folders.masks") as caught:
        read(raw)
    assert caught.value.fields == {"folder": "nv/masks", "count": 12}


def test_read_splits_beside_other_folders_are_no_classes(raw, read):
    write_images(raw, rows(), lambda row: f"{('train', 'test', 'unlabelled')[int(row[1][-1]) % 3]}/{row[1]}.jpg")
    with raises_user_error("folders.not_a_split", folders=["unlabelled"]) as caught:
        read(raw)
    assert "otherwise move it out of the data folder" in caught.value.hint


def test_read_accents_of_another_form_finds_the_images(raw, read):
    lines = [[row[0], f"Läsion {row[1]}", *row[2:]] for row in rows()]
    write_table(raw / CSV, lines)
    write_images(raw, lines, lambda row: unicodedata.normalize("NFD", f"{row[1]}.jpg"))
    assert len(read(raw).files) == 23


def test_read_packed_metadata_is_named(raw, read):
    write_images(raw, rows())
    (raw / "metadata.csv.gz").write_bytes(b"\x1f\x8b")
    with raises_user_error("metadata.packed"):
        read(raw)


@pytest.mark.parametrize(
    ("written", "years"), [("55,5", 55.5), ("045Y", 45.0), ("018M", 1.5), ("61 yrs", 61.0), ("inf", math.nan)]
)
def test_read_ages_with_a_comma_or_a_unit(raw, read, written, years):
    lines = [[*row[:4], written, *row[5:]] for row in rows()]
    write_table(raw / CSV, lines, delimiter=";")
    write_images(raw, rows())
    found = read(raw)
    assert found.table["age"].tolist() == pytest.approx([years] * len(lines), nan_ok=True)


def test_read_ages_that_are_no_numbers_are_noted_unless_they_mean_a_missing_one(raw, read):
    lines = [[*row[:4], "unknown" if n % 2 else "adult", *row[5:]] for n, row in enumerate(rows())]
    write_table(raw / CSV, lines)
    write_images(raw, rows())
    found = read(raw)
    assert found.table["age"].isna().all()
    assert f"{(len(lines) + 1) // 2} ages are not numbers, such as 'adult': they count as missing" in found.source.notes


@pytest.mark.parametrize("field", ["image_id", "lesion_id"])
@pytest.mark.parametrize("written", ["2.02301E+12", "2,02301E+12", "2E+09"])
def test_read_refuses_ids_that_a_spreadsheet_has_rounded(raw, read, field, written):
    """They would relate images of different lesions."""
    lines = rows()
    lines[3][COLUMNS.index(field)] = written
    write_table(raw / CSV, lines, delimiter=";")
    write_images(raw, rows())
    with raises_user_error("metadata.rounded_ids", column=field, line=5):
        read(raw)
