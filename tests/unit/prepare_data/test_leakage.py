"""Leakage between splits is detected by content: the run fails, or the lesions concerned move to train."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from components.prepare_data import leakage
from components.prepare_data.external import prepare_external
from components.prepare_data.near_duplicates import perceptual_hashes
from components.shared.image_set import open_pixels, read_header, read_rows
from counterweight import cli
from tests.helpers.errors import raises_user_error
from tests.unit.prepare_data.conftest import SPLITS, prepare_into, write_raw

SIZE = (200, 150)


def resave(path, quality=75, change=lambda image: image):
    """Return the bytes of an image that was changed and re-encoded."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        change(image.convert("RGB")).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


LEAKS = {
    "same bytes": (lambda path: path.read_bytes(), "identical pixels"),
    "re-encoded": (lambda path: resave(path, 70), "near-duplicate"),
    "scaled": (lambda path: resave(path, 80, lambda image: image.resize((188, 141))), "near-duplicate"),
    "brighter": (
        lambda path: resave(path, 80, lambda image: ImageEnhance.Brightness(image).enhance(1.1)),
        "near-duplicate",
    ),
    "mirrored": (lambda path: resave(path, 80, lambda image: image.transpose(0)), "near-duplicate"),
    "rotated": (lambda path: resave(path, 80, lambda image: image.transpose(2)), "near-duplicate"),
}


def enlarge(raw):
    """Make the images of a raw folder large enough to survive JPEG compression."""
    for index, row in enumerate(raw.rows):
        raw.draw(index, row["dx"], SIZE).save(raw.image(index), quality=95)
    return raw


@pytest.fixture
def large(raw):
    """The raw folder with large images."""
    return enlarge(raw)


@pytest.fixture(scope="module")
def assigned(tmp_path_factory):
    """The rows of the random split of `large`, and the first image of the class nv in each split."""
    folder = tmp_path_factory.mktemp("assigned")
    rows = prepare_into(folder / "out", enlarge(write_raw(folder / "raw")).path).rows().set_index("image_id")
    of_class = rows[rows["dx"] == "nv"]
    first = {split: of_class.index[of_class["split"] == split][0] for split in ("train", "validation", "test")}
    return rows, first


def file(raw, name) -> Path:
    return next(raw.path.rglob(f"{name}.jpg"))


def splits_file(path, rows, **changes):
    """Write a split file with some images in other splits; return its path."""
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["image_id", "lesion_id", "split", "anything"])
        writer.writerows([name, "not read", changes.get(name, row["split"]), ""] for name, row in rows.iterrows())
    return str(path)


@pytest.mark.parametrize("kind", LEAKS)
@pytest.mark.parametrize("between", [("train", "test"), ("train", "validation"), ("validation", "test")])
def test_prepare_with_an_image_in_two_splits_raises(large, run, assigned, kind, between, capfd):
    _, first = assigned
    one, other = (first[split] for split in between)
    copy, why = LEAKS[kind]
    file(large, other).write_bytes(copy(file(large, one)))
    with raises_user_error("leakage.found") as caught:
        run(large.path)
    for name, split in zip((one, other), between, strict=True):
        assert f"{name} ({split}, lesion " in str(caught.value)
    assert f": {why})" in str(caught.value)
    assert why in capfd.readouterr().out


@pytest.mark.parametrize("kind", LEAKS)
def test_prepare_with_move_to_train_moves_all_images_of_both_lesions(large, run, assigned, kind, capfd):
    rows, first = assigned
    file(large, first["test"]).write_bytes(LEAKS[kind][0](file(large, first["validation"])))
    done = run(large.path, duplicates="move_to_train")
    after = done.rows().set_index("image_id")
    lesions = rows.loc[[first["test"], first["validation"]], "lesion_id"]
    moved = rows["lesion_id"].isin(lesions)
    assert (after.loc[rows.index[moved], "split"] == "train").all()
    assert after.loc[rows.index[~moved], "split"].equals(rows.loc[~moved, "split"])
    assert f"{moved.sum()} images of 2\nlesions were moved to train" in done.profile
    assert f"{moved.sum()} images of 2 lesions were moved to train" in capfd.readouterr().out
    splits = pd.read_csv(done.splits).set_index("image_id")
    assert (splits.loc[rows.index[moved], "split"] == "train").all()


def test_prepare_with_move_to_train_follows_chains_of_lesions(large, run, assigned, tmp_path):
    """A training image recurs in validation, and another image of that lesion recurs in test."""
    rows, first = assigned
    nv = rows[rows["dx"] == "nv"]
    twice = nv["lesion_id"].value_counts()
    one, two = nv.index[nv["lesion_id"] == twice.index[0]][:2]
    test = first["test"] if first["test"] not in (one, two) else nv.index[(nv["split"] == "test")][-1]
    given = {one: "validation", two: "validation"}
    train = next(name for name in nv.index[nv["split"] == "train"] if name not in (one, two))
    file(large, one).write_bytes(resave(file(large, train)))
    file(large, test).write_bytes(resave(file(large, two)))
    split = splits_file(tmp_path / "given.csv", rows, **given)
    after = run(large.path, split=split, duplicates="move_to_train").rows().set_index("image_id")
    assert (after.loc[[one, two, test, train], "split"] == "train").all()


def test_prepare_with_an_image_twice_in_one_split_succeeds(large, run, assigned):
    rows, _ = assigned
    lesions = rows[(rows["dx"] == "nv") & (rows["split"] == "train")].drop_duplicates("lesion_id").index
    file(large, lesions[1]).write_bytes(resave(file(large, lesions[0])))
    assert len(run(large.path).rows()) == len(rows)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_prepare_with_a_held_out_image_under_several_lesion_ids_uses_it_once(large, run, assigned, split, capfd):
    rows, _ = assigned
    first, *others = rows[(rows["dx"] == "nv") & (rows["split"] == split)].drop_duplicates("lesion_id").index[:2]
    for name in others:
        file(large, name).write_bytes(file(large, first).read_bytes())
    done = run(large.path)
    assert set(rows.index) - set(done.rows()["image_id"]) == set(others)
    listed = pd.read_csv(done.splits).set_index("image_id")["split"]
    assert set(listed.index) == set(rows.index)
    assert set(listed[others]) == {"none"}
    assert "each would count as a lesion" in done.profile
    assert "1 of them are excluded from validation and test" in capfd.readouterr().out
    again = run(large.path, out="again", split=str(done.splits))
    assert set(again.rows()["image_id"]) == set(done.rows()["image_id"])


def test_prepare_folds_of_data_with_an_image_under_two_lesion_ids_have_one_data_hash(raw, run):
    """Regression: the second lesion is excluded where it would be tested, so the folds could not be pooled."""
    rows = run(raw.path, out="before", split="1/2").rows()
    one, two = rows[(rows["dx"] == "nv") & (rows["split"] == "test")].drop_duplicates("lesion_id")["image_id"][:2]
    file(raw, two).write_bytes(file(raw, one).read_bytes())
    done = [run(raw.path, out=f"fold{k}", split=f"{k}/2", duplicates="move_to_train") for k in (1, 2)]
    assert [two in set(fold.rows()["image_id"]) for fold in done] == [False, True]
    headers = [read_header(fold.set("test")) for fold in done]
    assert headers[0].data_sha256 == headers[1].data_sha256
    assert headers[0].split_sha256 != headers[1].split_sha256


def test_prepare_with_an_external_image_under_several_lesion_ids_uses_it_once(large, run, elsewhere, tmp_path, capfd):
    large.draw(5000, "nv", SIZE).save(tmp_path / "outside.jpg", quality=95)
    outside = (tmp_path / "outside.jpg").read_bytes()
    done = run(large.path, external=str(elsewhere(OTHER_1=outside, OTHER_2=outside, OTHER_3=outside)))
    rows = read_rows(done.set("external"), "external")
    assert rows["image_id"].tolist() == ["OTHER_1", "OTHER_2"]
    assert "external: excluded 1 images" in capfd.readouterr().out


def test_prepare_with_a_class_that_loses_its_test_lesions_raises(large, run, assigned):
    rows, _ = assigned
    df = rows[rows["dx"] == "df"]
    train, *_ = df.index[df["split"] == "train"]
    for name in df.index[df["split"] == "test"]:
        file(large, name).write_bytes(resave(file(large, train)))
    with raises_user_error("split.empty_class"):
        run(large.path, duplicates="move_to_train")


def test_prepare_with_a_lesion_in_two_given_splits_raises_or_moves_it(large, run, assigned, tmp_path):
    rows, _ = assigned
    nv = rows[(rows["dx"] == "nv") & (rows["split"] == "train")]
    two = nv.index[nv["lesion_id"] == nv["lesion_id"].value_counts().index[0]][1]
    split = splits_file(tmp_path / "given.csv", rows, **{two: "test"})
    with raises_user_error("leakage.found"):
        run(large.path, split=split)
    after = run(large.path, split=split, duplicates="move_to_train").rows().set_index("image_id")["split"]
    assert after.sort_index().equals(rows["split"].sort_index())


def test_prepare_logs_all_offending_pairs(large, run, assigned, tmp_path, capfd):
    rows, _ = assigned
    lesions = rows["lesion_id"].value_counts()
    divided = [rows.index[rows["lesion_id"] == lesion][-1] for lesion in lesions.index[lesions > 1]]
    other = {"train": "test", "validation": "train", "test": "train"}
    split = splits_file(tmp_path / "given.csv", rows, **{name: other[rows.loc[name, "split"]] for name in divided})
    with raises_user_error("leakage.found"):
        run(large.path, split=split)
    assert capfd.readouterr().out.count(": same lesion") == len(divided)


# The external set.


@pytest.fixture
def elsewhere(large, tmp_path):
    """A function that writes a folder of other lesions, with the given images in it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    rows = [("OTHER_L1", "OTHER_1", "nv"), ("OTHER_L1", "OTHER_2", "nv"), ("OTHER_L2", "OTHER_3", "mel")]

    def write(**images):
        with (folder / "other_metadata.csv").open("w", newline="") as out:
            csv.writer(out).writerows([("lesion_id", "image_id", "dx"), *rows])
        for number, (_, name, _) in enumerate(rows):
            large.draw(5000 + number, "nv", SIZE).save(folder / f"{name}.jpg", quality=95)
            if name in images:
                (folder / f"{name}.jpg").write_bytes(images[name])
        return folder

    write.rows = rows
    return write


def test_prepare_with_an_external_set_writes_its_images(large, run, elsewhere, capfd):
    done = run(large.path, external=str(elsewhere()))
    path = done.set("external")
    header, own = read_header(path), read_header(done.set("test"))
    assert header.split == "external"
    assert (header.classes, header.image_size) == (own.classes, own.image_size)
    assert len({header.data_sha256, own.data_sha256, header.split_sha256, own.split_sha256}) == 4
    rows = read_rows(path, "external")
    assert rows["image_id"].tolist() == ["OTHER_3", "OTHER_1", "OTHER_2"]
    assert rows["split"].eq("external").all()
    assert rows["source"].eq("real").all()
    with open_pixels(path, "external") as pixels:
        assert pixels.labels.tolist() == [1, 2, 2]
    assert not set(pd.read_csv(done.splits)["image_id"]) & set(rows["image_id"])
    assert "external: 3 images of 2 lesions" in capfd.readouterr().out


@pytest.mark.parametrize("kind", LEAKS)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_prepare_with_an_external_image_of_the_run_raises_or_excludes_it(large, run, assigned, elsewhere, kind, split):
    copy, why = LEAKS[kind]
    folder = str(elsewhere(OTHER_2=copy(file(large, assigned[1][split]))))
    with raises_user_error("leakage.found") as caught:
        run(large.path, external=folder)
    assert "OTHER_2" in caught.value.fields["listed"][0]
    assert caught.value.fields["listed"][0].endswith(f": {why}")
    done = run(large.path, external=folder, duplicates="move_to_train")
    assert read_rows(done.set("external"), "external")["image_id"].tolist() == ["OTHER_3"]
    assert done.rows().set_index("image_id")["split"].sort_index().equals(assigned[0]["split"].sort_index())


def test_prepare_with_an_external_lesion_of_the_run_raises(large, run, assigned, elsewhere):
    elsewhere.rows[0] = (assigned[0].loc[assigned[1]["train"], "lesion_id"], *elsewhere.rows[0][1:])
    with raises_user_error("leakage.found"):
        run(large.path, external=str(elsewhere()))


def test_prepare_checks_the_classes_and_images_of_the_external_set(large, run, elsewhere):
    elsewhere.rows[:] = [("OTHER_L1", "OTHER_1", "nv"), ("OTHER_L1", "OTHER_2", "nv")]
    folder = elsewhere(OTHER_2=b"")
    with raises_user_error("images.too_many_unusable"):
        run(large.path, external=str(folder))
    done = run(large.path, external=str(folder), max_bad_images=1)
    assert read_rows(done.set("external"), "external")["image_id"].tolist() == ["OTHER_1"]
    elsewhere.rows.append(("OTHER_L3", "OTHER_3", "scc"))
    with raises_user_error("external.unknown_class"):
        run(large.path, external=str(elsewhere()))


@pytest.mark.parametrize("kind", LEAKS)
def test_prepare_external_detects_images_of_a_finished_run(large, run, assigned, elsewhere, tmp_path, kind):
    done = run(large.path, out="finished", image_size=64)
    copy, _ = LEAKS[kind]
    settings = {"classes": ("df", "mel", "nv"), "image_size": 64, "max_bad_images": 0}
    settings |= {"splits": done.splits, "out": tmp_path / "later.parquet"}
    prepare_external(str(elsewhere()), duplicates="refuse", **settings)
    rows = read_rows(tmp_path / "later.parquet", "external")
    assert rows["image_id"].tolist() == ["OTHER_3", "OTHER_1", "OTHER_2"]
    assert read_header(tmp_path / "later.parquet").classes == ("df", "mel", "nv")
    folder = str(elsewhere(OTHER_2=copy(file(large, assigned[1]["train"]))))
    (tmp_path / "later.parquet").unlink()
    with raises_user_error("leakage.found"):
        prepare_external(folder, duplicates="refuse", **settings)
    assert not (tmp_path / "later.parquet").exists()
    prepare_external(folder, duplicates="move_to_train", **settings)
    assert read_rows(tmp_path / "later.parquet", "external")["image_id"].tolist() == ["OTHER_3"]


@pytest.mark.parametrize(
    "text", ["image_id,lesion_id\nA,B\n", "image_id,lesion_id,dx,split,pixel_sha256,perceptual_hash\nA,B,nv,test,C,D\n"]
)
def test_prepare_external_with_another_csv_raises(elsewhere, tmp_path, text):
    (tmp_path / "splits.csv").write_text(text)
    with raises_user_error("external.no_splits"):
        prepare_external(str(elsewhere()), ["nv"], 32, "refuse", 0, tmp_path / "splits.csv", tmp_path / "out")


def test_resolve_of_thousands_of_copies_pairs_each_once():
    count = 4000
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32), np.uint8)
    rows = pd.DataFrame(
        {
            "image_id": [f"image {n}" for n in range(count)],
            "lesion_id": [f"lesion {n}" for n in range(count)],
            "group_id": [f"lesion {n}" for n in range(count)],
            "split": ["train", "test"] * (count // 2),
            "pixel_sha256": "0" * 64,
            "perceptual_hash": perceptual_hashes(image)[0],
            "file": range(count),
        }
    )
    thumbnails = np.repeat(image, count, axis=0)
    assert len(leakage.pairs(rows, thumbnails, (rows["split"] == "test").to_numpy()).first) == count - 1
    with raises_user_error("leakage.found"):
        leakage.resolve(rows, thumbnails, "refuse")
    moved = leakage.resolve(rows, thumbnails, "move_to_train")[0]
    assert set(moved["split"]) == {"train"}


def write_copies(folder, counts, copies, seed=1):
    """Write images and rotated, scaled and brightened copies of some, each under another name and lesion id."""
    rng, lines, n = np.random.default_rng(seed), [], 0
    for dx, count in counts.items():
        for number in range(count):
            original = textured(1000 * ord(dx[0]) + number)
            for copy in range(copies + 1):
                cut = rng.uniform(0, 5) if copy else 0
                changed = original.rotate(rng.uniform(-15, 15) if copy else 0)
                changed = changed.crop((cut, cut, 96 - cut, 72 - cut)).resize((96, 72))
                name = f"{rng.integers(2**40):012}"
                changed.save(folder / f"{name}.png")
                lines.append((name, name, dx))
                n += 1
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("lesion_id", "image_id", "dx"), *lines])


def textured(seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize((96, 72), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("policy", ["refuse", "move_to_train"])
def test_prepare_with_systematic_copies_refuses_with_any_policy(tmp_path, run, policy):
    folder = tmp_path / "copied"
    folder.mkdir()
    write_copies(folder, {"df": 30, "nv": 30}, copies=3)
    with raises_user_error("leakage.found") as caught:
        run(folder, duplicates=policy)
    assert "held-out images have a near-duplicate" in str(caught.value)
    assert "move_to_train" not in caught.value.hint


def test_prepare_with_names_that_extend_others_keeps_copies_in_one_split(tmp_path, run):
    folder = tmp_path / "copied"
    folder.mkdir()
    write_copies(folder, {"df": 8, "nv": 8}, copies=3)
    with (folder / "metadata.csv").open() as file:
        header, *lines = csv.reader(file)
    renamed = []
    for row, (_, name, dx) in enumerate(lines):
        new = f"I{row // 4}" + (f"_aug{row % 4}" if row % 4 else "")
        (folder / f"{name}.png").rename(folder / f"{new}.png")
        renamed.append((new, new, dx))
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *renamed])
    rows = run(folder).rows()
    base = rows["image_id"].str.partition("_")[0]
    assert (rows.groupby(base)["split"].nunique() == 1).all()
    assert (rows.groupby(base)["lesion_id"].nunique() == 1).all()
    assert rows["lesion_id"].nunique() == 16


def test_prepare_with_names_that_state_a_change_in_two_given_splits_raises(tmp_path, run, capfd):
    """The images have unrelated content, so that only their names relate them."""
    for number in range(18):
        dx, split = ("df", "nv")[number % 2], SPLITS[number // 2 % 3]
        path = tmp_path / "given" / split / dx / f"{dx}{number}{'_aug1' * (number == 12)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        textured(number).save(path)
    run(tmp_path / "given")
    textured(99).save(tmp_path / "given" / "test" / "df" / "df12.png")
    with raises_user_error("leakage.found"):
        run(tmp_path / "given", out="again")
    assert "df12_aug1" in capfd.readouterr().out


def write_patients(folder: Path, prefix: str, patients: list[str], first: int = 0, lesions: bool = False) -> Path:
    """Write a folder of unrelated images with alternating classes, one for each patient, with or without lesion ids."""
    folder.mkdir()
    lines = []
    for n, patient in enumerate(patients):
        textured(first + n).save(folder / f"{prefix}{n}.png")
        lines.append((f"{prefix}{n}", ("df", "nv")[n % 2], patient, f"{prefix}L{n}")[: 3 + lesions])
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image_id", "dx", "patient_id", "lesion_id")[: 3 + lesions], *lines])
    return folder


def test_prepare_keeps_a_patient_in_one_split(tmp_path, run):
    done = run(write_patients(tmp_path / "patients", "I", [f"P{n // 4}" for n in range(60)]))
    rows = done.rows()
    patient = rows["image_id"].str[1:].astype(int) // 4
    assert (rows.groupby(patient)["split"].nunique() == 1).all()
    assert rows["lesion_id"].nunique() == 30  # a patient counts once in each class
    assert (rows.groupby("dx")["split"].nunique() == 3).all()
    assert "images of <b>30</b> patients" in done.profile.replace("\n", " ")


def test_prepare_external_detects_patients_of_a_finished_run(tmp_path, run):
    patients = ["", *(f"P{n // 4}" for n in range(59))]
    done = run(write_patients(tmp_path / "patients", "I", patients, lesions=True), image_size=64)
    # The other folder has a patient of the run, a new one, and one who is unknown, as in the run.
    folder = str(write_patients(tmp_path / "elsewhere", "E", ["P3", "Q1", "", "P3"], first=500, lesions=True))
    settings = {"classes": ("df", "nv"), "image_size": 64, "max_bad_images": 0}
    settings |= {"splits": done.splits, "out": tmp_path / "later.parquet"}
    with raises_user_error("leakage.found") as caught:
        prepare_external(folder, duplicates="refuse", **settings)
    assert [line.rpartition(": ")[2] for line in caught.value.fields["listed"]] == ["same patient"] * 2
    (option,) = re.findall(r"(\w+)=\w+ in make evaluate", caught.value.hint)
    assert option in [known.word for known in cli.COMMANDS["evaluate"].options.values()]
    prepare_external(folder, duplicates="move_to_train", **settings)
    assert sorted(read_rows(tmp_path / "later.parquet", "external")["image_id"]) == ["E1", "E2"]


def test_prepare_external_excludes_all_images_of_a_patient_with_a_copy_from_the_run(tmp_path, run):
    done = run(write_patients(tmp_path / "patients", "I", [f"P{n // 4}" for n in range(60)], lesions=True))
    folder = write_patients(tmp_path / "elsewhere", "E", ["Q1", "Q1", "Q2", "", ""], first=500, lesions=True)
    for name, number in (("E0", 7), ("E3", 9)):  # copies, under ids of another clinic
        textured(number).save(folder / f"{name}.png")
    out = tmp_path / "later.parquet"
    prepare_external(str(folder), ("df", "nv"), 32, "move_to_train", 0, done.splits, out)
    assert sorted(read_rows(out, "external")["image_id"]) == ["E2", "E4"]


def test_prepare_external_reads_the_columns_that_are_named(tmp_path, run):
    done = run(write_patients(tmp_path / "patients", "I", [f"P{n // 4}" for n in range(60)]), image_size=64)
    folder = write_patients(tmp_path / "elsewhere", "E", ["Q1", "Q2"], first=500)
    table = folder / "metadata.csv"
    table.write_text(table.read_text().replace("dx", "finding"))
    settings = {"classes": ("df", "nv"), "image_size": 64, "max_bad_images": 0, "duplicates": "refuse"}
    settings |= {"splits": done.splits, "out": tmp_path / "later.parquet"}
    with raises_user_error("metadata.unknown_column"):
        prepare_external(str(folder), **settings, columns=("dx:diagnosis",))
    prepare_external(str(folder), **settings, columns=("dx:finding",))
    assert read_rows(tmp_path / "later.parquet", "external")["dx"].tolist() == ["df", "nv"]


def numbered(lesions: list[str], classes: list[str], seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return rows of unrelated images, and their thumbnails."""
    thumbnails = np.random.default_rng(seed).integers(0, 256, (len(lesions), 32, 32)).astype(np.uint8)
    rows = pd.DataFrame(
        {
            "image_id": [f"image-{seed}-{n}" for n in range(len(lesions))],
            "lesion_id": lesions,
            "dx": classes,
            "split": "train",
            "pixel_sha256": [f"{seed}-{n}" for n in range(len(lesions))],
            "perceptual_hash": perceptual_hashes(thumbnails),
            "file": range(len(lesions)),
        }
    )
    return rows, thumbnails


@pytest.mark.parametrize(
    ("lesions", "classes", "known", "known_classes", "kept"),
    [
        # A lesion that has two classes in one of the sets was given the class as a part of its id.
        (["L", "M"], ["mel", "nv"], ["L mel", "L nv"], ["mel", "nv"], [False, True]),
        (["L mel", "L nv", "M"], ["mel", "nv", "nv"], ["L"], ["mel"], [False, False, True]),
    ],
)
def test_external_only_compares_lesions_of_several_classes(
    lesions: list[str], classes: list[str], known: list[str], known_classes: list[str], kept: list[bool]
) -> None:
    rows, thumbnails = numbered(lesions, classes, 1)
    of_run, known_thumbnails = numbered(known, known_classes, 2)
    found = leakage.external_only(rows, thumbnails, of_run, known_thumbnails, "move_to_train")
    assert found.tolist() == kept
    with raises_user_error("leakage.found"):
        leakage.external_only(rows, thumbnails, of_run, known_thumbnails, "refuse")
