"""Class folders of sets as people keep them: no class is lost, and no other folder becomes one."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.prepare_data import layouts
from components.prepare_data.scan import scan
from tests.helpers.errors import raises_user_error


@pytest.fixture
def raw(tmp_path):
    return tmp_path / "raw"


def lay_out(folder: Path, *names: str) -> Path:
    """Create empty files, which `inspect` does not open, and the folders whose names end with a slash."""
    for name in names:
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return folder


def images(*folders: str, count: int = 4) -> list[str]:
    """Return names of images that differ, in each folder."""
    return [f"{folder}/{at}-{number}.jpg" for at, folder in enumerate(folders) for number in range(count)]


def classes(folder: Path) -> dict[str, int]:
    return {str(dx): int(count) for dx, count in layouts.inspect(folder).table["dx"].value_counts().items()}


def test_scan_lists_folders_without_files(tmp_path):
    lay_out(tmp_path, "a/", "b/c/d/", "b/e/", "f/g/", "f/h/i.txt", "j/k/.hidden", "l/m.jpg")
    empty = [Path(path).relative_to(tmp_path).as_posix() for path in scan(tmp_path).empty]
    assert empty == ["a", "b", "b/c", "b/c/d", "b/e", "f/g", "j", "j/k"]
    assert scan(tmp_path / "a").empty == [str(tmp_path / "a")]


@pytest.mark.parametrize(
    ("around", "empty"),
    [
        ("", "df/"),
        ("", "df/2019/"),
        ("", "df/.gitkeep"),
        ("set/", "df/"),
        ("train/", "df/"),
        ("train/", "../test/df/"),
    ],
)
def test_read_an_empty_class_folder_raises(raw, around, empty):
    lay_out(raw, *images(f"{around}nv", f"{around}mel"), f"{around}{empty}")
    with raises_user_error("folders.empty_class", folders=["df"]):
        layouts.inspect(raw)


@pytest.mark.parametrize(
    "empty", ["val/nv/", "val/", "train/nv/left/", "train/unlabelled/", "notes/", "train/notes/readme.txt"]
)
def test_read_an_empty_folder_that_is_no_class_is_not_an_error(raw, empty):
    lay_out(raw, *images("train/nv", "train/mel", "test/nv", "test/mel"), empty)
    assert classes(raw) == {"mel": 8, "nv": 8}


def test_read_a_table_beside_an_empty_folder_is_not_an_error(raw):
    lay_out(raw, "images/a.jpg", "images/b.jpg", "df/")
    (raw / "labels.csv").write_text("image,label\na,nv\nb,mel\n")
    assert classes(raw) == {"mel": 1, "nv": 1}


@pytest.mark.parametrize(
    ("file", "suffix"),
    [
        ("mel/0.pgm", ".pgm"),
        ("mel/0.PPM", ".PPM"),
        ("mel/0.jpg_large", ".jpg_large"),
        ("mel/0.jpg~", ".jpg~"),
        ("mel/2019/0.nii.gz", ".nii.gz"),
        ("mel/IM0001", ""),
        ("nv/0.webp.part", ".part"),
    ],
)
def test_read_a_file_of_a_class_that_may_be_an_image_raises(raw, file, suffix):
    lay_out(raw, *images("nv", "df"), file)
    with raises_user_error("images.unsupported_suffix", suffix=suffix, count=1) as caught:
        layouts.inspect(raw)
    assert f"such as {file} (" in str(caught.value)


def test_read_files_of_a_class_that_are_no_images_is_not_an_error(raw):
    lay_out(
        raw,
        *images("set/train/nv", "set/train/mel"),
        "set/model.bin",
        "set/train/list.dat",
        "code/main.rs",
        "model/a.onnx",
    )
    others = (
        "a.txt",
        "a.XML",
        "a.json",
        "a.txt~",
        "Thumbs.db",
        "README",
        "sha256sums",
        "desktop.ini",
        "notes.ipynb",
        "a.pth",
    )
    lay_out(raw, *(f"set/train/nv/{name}" for name in others))
    assert classes(raw) == {"mel": 4, "nv": 4}


@pytest.mark.parametrize(
    ("files", "suffix", "count"),
    [
        (("nv/1.dcm", "nv/2.dcm", "mel/1.dcm"), ".dcm", 3),
        (("nv/1.pgm", "nv/2.pgm", "mel/1.pnm", "preview.png", "about.json"), ".pgm", 2),
        (("nv/IM1", "mel/IM1"), "", 2),
        (("nv/1.nii.gz", "mel/1.nii.gz"), ".nii.gz", 2),
    ],
)
def test_read_class_folders_without_an_image_that_is_read_names_the_suffix(raw, files, suffix, count):
    lay_out(raw, *files)
    with raises_user_error("images.unsupported_suffix", suffix=suffix, count=count):
        layouts.inspect(raw)


def test_read_rows_whose_images_are_packed_volumes_names_the_suffix(raw):
    lay_out(raw, "a.nii.gz", "b.nii.gz")
    (raw / "labels.csv").write_text("image,label\na,nv\nb,mel\n")
    cause = layouts.inspect(raw).cause
    assert cause is not None
    assert (cause.code, cause.fields) == ("images.unsupported_suffix", {"suffix": ".nii.gz", "count": 2})


LABELS = [("basel/0-0.jpg", "nv"), ("basel/0-1.jpg", "mel"), ("bern/1-0.jpg", "nv"), ("wien/2-1.jpg", "mel")]


def write_labels(path: Path) -> None:
    """Write the classes of images of three clinics, in the format of the suffix; `.list` is separated by blanks."""
    form = path.suffix
    if form == ".parquet":
        pq.write_table(pa.table({"file": [name for name, _ in LABELS], "dx": [dx for _, dx in LABELS]}), path)
    elif form == ".jsonl":
        path.write_text("".join(json.dumps({"file_name": name, "label": dx}) + "\n" for name, dx in LABELS))
    elif form == ".json":
        path.write_text(json.dumps({"info": {"year": 2019}, "images": dict(LABELS)}, indent=1))
    else:
        path.write_text("".join(f"{name}{',' if form == '.txt' else ' '}{dx}\n" for name, dx in LABELS))


@pytest.mark.parametrize(
    ("name", "form", "code"),
    [
        ("metadata.jsonl", ".jsonl", "metadata.other_format"),
        ("all.json", ".json", "metadata.other_format"),
        ("labels.txt", ".txt", "metadata.other_suffix"),
        ("val.TXT", ".list", "metadata.other_format"),
        ("metadata.parquet", ".parquet", "metadata.other_format"),
        ("about/train.parquet", ".parquet", "metadata.other_format"),
    ],
)
def test_read_metadata_of_a_format_that_is_not_read_beside_folders_raises(raw, name, form, code):
    lay_out(raw, *images("basel", "bern", "wien"), name, "about/readme.md")
    write_labels(raw / f"labels{form}")
    (raw / f"labels{form}").rename(raw / name)
    with raises_user_error(code) as caught:
        layouts.inspect(raw)
    assert f"; {name} is " in str(caught.value)
    assert "or move it out of the folder to read the classes from the folders" in caught.value.hint
    (raw / name).unlink()
    assert classes(raw) == {"basel": 4, "bern": 4, "wien": 4}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nv/0-0.json", '{"file": "0-0.jpg", "shape": [[1, 2]]}'),  # of one image
        ("nv/note.json", '{"file": "0-0.jpg", "original": "0-0.jpg"}'),
        ("config.json", '{"0": 1, "1": 2, "2": 0}'),
        ("README.txt", "Photographs, of 2019.\nAll but nv/0-0.jpg, nv/0-1.jpg are sharp.\nThe end.\nOf it."),
        ("train.txt", "nv/0-0.jpg\nnv/0-1.jpg\nmel/1-0.jpg\n"),
        ("classes.txt", "nv\nmel\n"),
    ],
)
def test_read_a_text_beside_folders_that_holds_no_classes_is_not_an_error(raw, name, text):
    lay_out(raw, *images("nv", "mel"), "nv/0.jpg", "mel/1.jpg", "mel/2.jpg")
    (raw / name).write_text(text)
    assert classes(raw) == {"nv": 5, "mel": 6}


def test_read_other_files_beside_folders_are_noted(raw):
    lay_out(raw, *images("nv", "mel"), "list.xlsx", "mel/more.ods")
    pq.write_table(pa.table({"x": [0.5, 1.5], "name": ["nv", "mel"]}), raw / "features.parquet")
    source = layouts.inspect(raw).source
    names = "list.xlsx, mel/more.ods, features.parquet"
    assert source.notes[0] == f"files that are no text tables are not read: {names}"


@pytest.mark.parametrize("around", ["", "PV/", "train/"])
def test_read_a_copy_of_the_data_in_itself_raises(raw, around):
    lay_out(raw, *images(*(f"{around}{folder}" for folder in ("rust", "scab", "healthy", "PV/rust", "PV/scab"))))
    with raises_user_error("folders.copy", folder="PV", below=["rust", "scab"]):
        layouts.inspect(raw)
    (raw / around / "PV").rename(raw / "../PV")
    assert classes(raw) == {"healthy": 4, "rust": 4, "scab": 4}


def test_read_a_folder_with_the_name_of_one_other_class_in_it_is_a_class(raw):
    lay_out(raw, *images("rust", "scab", "healthy/scab", "healthy/rust-free"))
    assert classes(raw) == {"healthy": 8, "rust": 4, "scab": 4}


@pytest.mark.parametrize(
    "pattern",
    [
        "seg_{}/seg_{}/{dx}",
        "set/seg_{}/seg_{}/{dx}",
        "seg_{}/{dx}",
        "{}_1/{dx}",
        "{}/{}/{dx}",
        "ISIC2018_{}ing_Input/{dx}",
    ],
)
def test_read_folders_that_name_a_split_are_the_split(raw, pattern):
    for split in ("train", "test"):
        lay_out(raw, *images(*(pattern.format(split, split, dx=dx) for dx in ("sea", "street"))))
    dataset = layouts.inspect(raw)
    assert classes(raw) == {"sea": 8, "street": 8}
    assert dataset.source.own_split
    by_split = dataset.table["image_id"].groupby(dataset.table["split"].astype(str)).agg(list)
    assert all("test" in name for name in by_split["test"])
    assert all("train" in name for name in by_split["train"])


def test_read_several_parts_of_a_split_are_the_split(raw):
    lay_out(
        raw, *images(*(f"{split}/{dx}" for split in ("train_1", "train_2", "val", "Test 1") for dx in ("nv", "df")))
    )
    dataset = layouts.inspect(raw)
    assert dict(dataset.table["split"].value_counts()) == {"train": 16, "validation": 8, "test": 8}


def test_read_a_folder_beside_splits_that_is_none_raises(raw):
    lay_out(raw, *images("seg_train/seg_train/sea", "seg_train/seg_train/street", "seg_test/seg_test/sea", "seg_pred"))
    with raises_user_error("folders.not_a_split", folders=["seg_pred"]):
        layouts.inspect(raw)


@pytest.mark.parametrize(
    "folders",
    [("train_station", "test_tube"), ("train station/north", "test tube/south"), ("stress_test", "blood_test")],
)
def test_read_classes_with_a_word_of_a_split_are_classes(raw, folders):
    lay_out(raw, *images(*folders))
    assert len(classes(raw)) == 2


@pytest.mark.parametrize(
    ("folders", "tops", "below"),
    [
        (("basel/nv", "basel/mel", "basel/df", "wien/nv", "wien/mel"), ["basel", "wien"], ["mel", "nv"]),
        (("left/0", "left/1", "right/0", "right/1"), ["left", "right"], ["0", "1"]),
        (("train/a/T1", "train/a/T2", "train/b/T2", "test/b/T1", "test/c"), ["a", "b"], ["T1", "T2"]),
        (("a/x", "a/y", "b/x", "b/y", "b/patient 1", "c"), ["a", "b"], ["x", "y"]),
    ],
)
def test_read_names_that_occur_in_several_folders_raises(raw, folders, tops, below):
    lay_out(raw, *images(*folders))
    with raises_user_error("folders.two_levels", folders=tops, below=below) as caught:
        layouts.inspect(raw)
    assert f"otherwise rename {below[0]} and the others to part_1" in caught.value.hint


@pytest.mark.parametrize("around", ["", "lung_colon_image_set/", "train/"])
@pytest.mark.parametrize(
    ("folders", "tops", "below"),
    [
        (
            tuple(f"colon_image_sets/colon_{dx}" for dx in ("aca", "n"))
            + tuple(f"lung_image_sets/lung_{dx}" for dx in ("aca", "n", "scc")),
            ["colon_image_sets", "lung_image_sets"],
            ["colon_aca", "colon_n", "lung_aca", "lung_n", "lung_scc"],
        ),
        (
            ("benign/nevus", "benign/wart/a", "malignant/melanoma", "malignant/bcc"),
            ["benign", "malignant"],
            ["bcc", "melanoma", "nevus", "wart"],
        ),
    ],
)
def test_read_groups_of_classes_raises(raw, around, folders, tops, below):
    """Regression: LC25000 was read as colon against lung."""
    lay_out(raw, *images(*(f"{around}{folder}" for folder in folders)))
    with raises_user_error("folders.two_levels", folders=tops, below=below) as caught:
        layouts.inspect(raw)
    assert f"if {below[0]} and the others are the classes, make them the top folders" in caught.value.hint


@pytest.mark.parametrize(
    "folders",
    [
        ("nv/anna 1", "nv/ben 2", "mel/cleo 3", "mel/dan 4"),
        ("nv/basel", "nv/wien", "mel/bern", "mel"),
        ("nv/basel", "nv/wien", "mel/bern"),
        ("nv/part_1", "nv/part_2", "mel/40X", "mel/100X"),
        tuple(f"{dx}/{dx}{chr(97 + n // 26)}{chr(97 + n % 26)}" for dx in ("nv", "mel") for n in range(51)),
    ],
)
def test_read_patients_or_sites_in_class_folders_are_parts(raw, folders):
    lay_out(raw, *images(*folders))
    assert set(classes(raw)) == {"mel", "nv"}


@pytest.mark.parametrize(
    "folders", [("nv/part_1", "nv/part_2", "mel/part_1", "mel/part_2"), ("0/part_1", "1/part_1", "1/part_2")]
)
def test_read_folders_renamed_as_the_hint_for_two_levels_says(raw, folders):
    lay_out(raw, *images(*folders))
    assert set(classes(raw)) == {folder.partition("/")[0] for folder in folders}


@pytest.mark.parametrize("name", ["patient{:05}/study1", "PAT_{}", "sub-{}", "40X/Case {}"])
def test_read_folders_of_patients_in_class_folders_group_their_images(raw, name):
    folders = [f"{dx}/{name.format(number)}" for dx in ("nv", "mel") for number in range(4)]
    lay_out(raw, *images(*folders, count=3))
    dataset = layouts.inspect(raw)
    assert dataset.source.unit == "patient"
    assert dataset.table["group_id"].nunique() == 4
    assert dataset.table["lesion_id"].nunique() == 8  # of each class
    noted = "the folders in the class folders are read as parts of a class: 40X"
    assert (noted in dataset.source.notes) == name.startswith("40X")


def test_read_folders_of_patients_in_two_splits_stay_together(raw):
    folders = [
        f"{split}/{dx}/patient {number}" for split in ("train", "test") for dx in ("nv", "mel") for number in "12"
    ]
    lay_out(raw, *images(*folders))
    assert layouts.inspect(raw).table.groupby("group_id")["split"].nunique().tolist() == [2, 2]


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        (("nv/40X", "nv/100X", "mel/40X", "mel/100X"), "100X, 40X"),
        (("nv/front", "nv/back", "mel/front", "mel"), "back, front"),
        (("test/nv/a", "train/mel/b/c", "train/nv"), "a, b"),
    ],
)
def test_read_folders_in_class_folders_are_noted(raw, folders, parts):
    lay_out(raw, *images(*folders))
    assert set(classes(raw)) == {"nv", "mel"}
    notes = layouts.inspect(raw).source.notes
    assert f"the folders in the class folders are read as parts of a class: {parts}" in notes


MASKS = (
    "mask_a.png", "a.mask.png", "a mask.png", "a_masks.png", "a_contour.bmp", "a_label.png", "a-overlay.jpg",
    "a_ROI.png", "a_annotated.jpg", "a_roi_2.png", "seg-a.png", "a__mask.png", "a_mask.gif", "GT a.png",
)  # fmt: skip


@pytest.mark.parametrize("mask", MASKS)
def test_read_a_mask_beside_its_image_is_not_read(raw, mask):
    lay_out(raw, *images("nv", "mel"), "nv/a.jpg", f"nv/{mask}", f"mel/{mask}" if mask != "a_mask.gif" else "mel/b.jpg")
    dataset = layouts.inspect(raw)
    assert classes(raw) == {"nv": 5, "mel": 5}
    assert f"1 images seem to be masks of others, such as nv/{mask}: they are not read" in dataset.source.notes


def test_read_rows_of_a_table_whose_names_end_as_masks_are_images(raw):
    lay_out(raw, "a.jpg", "a_roi.jpg", "b.jpg", "label_b.jpg")
    (raw / "labels.csv").write_text("image,dx\na,nv\na_roi,nv\nb,mel\nlabel_b,mel\n")
    assert sorted(layouts.inspect(raw).files) == ["a", "a_roi", "b", "label_b"]


def test_read_folders_of_systems_and_network_drives_are_skipped(raw):
    lay_out(raw, *images("nv", "mel", "nv/@eaDir/a.jpg", "$RECYCLE.BIN/a", "lost+found", "System Volume Information"))
    assert classes(raw) == {"nv": 4, "mel": 4}


@pytest.mark.parametrize("folder", ["thumbs", "Thumbnails", "thumbs_128", "old/cell_masks", "masks 2"])
def test_read_masks_or_thumbnails_below_a_class_raises(raw, folder):
    lay_out(raw, *images("set/train/nv", "set/train/mel", f"set/train/nv/{folder}/deeper"))
    with raises_user_error("folders.masks", folder=f"set/train/nv/{folder}", count=4):
        layouts.inspect(raw)


@pytest.mark.parametrize("names", [("with_mask", "without_mask"), ("real_images", "fake images", "Painted-Images 2")])
@pytest.mark.parametrize("around", ["", "face_mask/", "train/"])
def test_read_classes_that_all_end_as_stores_are_classes(raw, around, names):
    lay_out(raw, *images(*(f"{around}{name}" for name in names)))
    assert classes(raw) == {name.replace(" ", "_"): 4 for name in names}
    note = f"folders are read as classes that may be named after what they store: {', '.join(sorted(names))}"
    assert note in layouts.inspect(raw).source.notes
    lay_out(raw, f"{around}no_mask/")
    with raises_user_error("folders.empty_class", folders=["no_mask"]):
        layouts.inspect(raw)


@pytest.mark.parametrize(
    "names",
    [
        ("HAM10000_images_part_1", "HAM10000_images_part_2"),
        ("ISIC_Training_Input", "ISIC_Test_Input"),
        ("raw_images", "cropped_images"),
        ("images", "cell_masks"),
    ],
)
def test_read_stores_without_two_names_before_the_word_raises(raw, names):
    lay_out(raw, *images(*names))
    with raises_user_error("metadata.missing"):
        layouts.inspect(raw)


@pytest.mark.parametrize(
    "names",
    [
        ("part_1", "part_2"),
        ("p1", "p2"),
        ("batch1", "batch2", "batch3"),
        ("part_a", "part_b"),
        ("part 1 of 2", "part 2 of 2"),
        ("ISIC_p1", "ISIC_p2"),
        ("patient 1", "patient 2"),
        ("40X", "100X"),
        ("2019", "2020-05", "2020-05-31"),
        ("images", "batch1", "batch2"),
        ("scan1/left", "scan2/right"),
    ],
)
@pytest.mark.parametrize("around", ["", "set/", "train/"])
def test_read_parts_without_metadata_raises(raw, around, names):
    lay_out(raw, *images(*(f"{around}{name}" for name in names)))
    tops = sorted({name.partition("/")[0] for name in names})
    with raises_user_error("metadata.missing", folders=tops) as caught:
        layouts.inspect(raw)
    assert f"and its folders ({', '.join(tops)}) have the names of parts or stores" in str(caught.value)
    assert caught.value.hint.endswith("; rename the folders if they are classes")
    rows = [f"{path.stem},{'nv' if path.stem.endswith('-0') else 'mel'}" for path in raw.rglob("*.jpg")]
    (raw / "labels.csv").write_text("\n".join(["image,dx", *rows]))
    assert classes(raw) == {"mel": 3 * len(names), "nv": len(names)}


@pytest.mark.parametrize(
    "names",
    [
        tuple("0123456789"),
        ("grade_0", "grade_1"),
        ("stage1", "stage2", "stage3"),
        ("class0", "class1"),
        ("BIRADS-1", "BIRADS-2"),
        ("level2", "level3"),
        ("type1", "type2"),
        ("T1", "T2"),
        ("p53", "ki67"),
    ],
)
def test_read_numbered_classes_are_classes(raw, names):
    lay_out(raw, *images(*names))
    assert set(classes(raw)) == set(names)


@pytest.mark.parametrize("inside", [("p1", "p2"), ("images_1", "images_2"), ("p1",)])
@pytest.mark.parametrize("around", ["", "set/", "train/"])
def test_read_parts_of_one_class_beside_an_empty_one_names_the_empty_one(raw, around, inside):
    lay_out(raw, *images(*(f"{around}nv/{part}" for part in inside)), f"{around}mel/")
    with raises_user_error("folders.empty_class", folders=["mel"]):
        layouts.inspect(raw)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.txt", "nv/0-0.jpg\nnv/0-1.jpg\nmel/1-0.jpg\n"),
        ("split/test.TXT", "0-0\n\n1-0\n"),
        ("images.csv", "image_id\n0-0\n1-0\n"),
        ("images.csv", "0-0.jpg\n1-0.jpg\n"),
    ],
)
def test_read_a_list_of_images_beside_folders_is_noted(raw, name, text):
    lay_out(raw, *images("nv", "mel"), name)
    (raw / name).write_text(text)
    assert classes(raw) == {"nv": 4, "mel": 4}
    assert f"lists of images without classes are not read: {name}" in layouts.inspect(raw).source.notes


@pytest.mark.parametrize(
    ("name", "count", "images_each", "refused"),
    [
        ("IMD{:03}", 12, 2, True),
        ("{:05}", 12, 2, True),
        ("IMD{:03}/IMD{:03}_Dermoscopic_Image", 12, 1, True),
        ("IMD{:03}", 12, 3, False),
        ("IMD{:03}", 9, 2, False),
        ("{:02} albatross", 12, 2, False),
    ],
)
def test_read_many_numbered_folders_with_few_images_raises(raw, name, count, images_each, refused):
    lay_out(raw, *images(*(name.format(number, number) for number in range(count)), count=images_each))
    if not refused:
        assert len(classes(raw)) == count
        return
    with raises_user_error("folders.ids") as caught:
        layouts.inspect(raw)
    assert len(caught.value.fields["folders"]) == count


def test_read_too_many_folders_suggests_a_table(raw):
    lay_out(raw, *images(*(f"albatross {number} black" for number in range(101)), count=1))
    with raises_user_error("metadata.too_many_classes", classes=101) as caught:
        layouts.inspect(raw)
    assert "CSV with the columns image_id and dx" in caught.value.hint


def test_read_a_store_beside_classes_that_end_as_stores_raises(raw):
    lay_out(raw, *images("with_mask", "without_mask", "masks"))
    with raises_user_error("folders.not_a_class", folders=["masks"]):
        layouts.inspect(raw)


def test_read_a_class_folder_with_a_file_named_metrics_is_a_class(raw):
    lay_out(raw, *images("nv", "mel"), "mel/metrics.json")
    assert classes(raw) == {"nv": 4, "mel": 4}


@pytest.mark.parametrize("beside", ["manifest.json", "predictions.parquet", "splits.csv"])
def test_read_the_results_of_a_run_beside_class_folders_are_noted(raw, beside):
    lay_out(raw, *images("nv", "mel", "out/synthetic/nv"), "out/metrics.json", f"out/{beside}")
    assert classes(raw) == {"nv": 4, "mel": 4}
    assert "6 files are the results of a run and are not read: out" in layouts.inspect(raw).source.notes


def test_read_one_class_beside_a_packed_one_names_the_archive(raw):
    lay_out(raw, *images("nv"), "mel.zip")
    with raises_user_error("metadata.one_class", archives=["mel.zip"]) as caught:
        layouts.inspect(raw)
    assert caught.value.hint == "add images of another class, or unpack mel.zip if it holds one"
    (raw / "mel.zip").unlink()
    with raises_user_error("metadata.one_class", archives=[]):
        layouts.inspect(raw)


@pytest.mark.parametrize("name", ["holdout", "evaluation"])
def test_read_another_name_of_a_split_raises_and_is_read_if_renamed(raw, name):
    lay_out(raw, *images("train/nv", "train/mel", f"{name}/nv", f"{name}/mel"))
    with raises_user_error("folders.not_a_split", folders=[name]) as caught:
        layouts.inspect(raw)
    assert caught.value.hint.startswith(f"rename {name} to train, val or test if it is that split")
    (raw / name).rename(raw / "test")
    assert dict(layouts.inspect(raw).table["split"].value_counts()) == {"train": 8, "test": 8}
