"""Planted leaks, by content and not by name: what belongs together and stands on two sides ends the run, or moves."""

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from components.prepare_data.prepare import prepare_external
from components.shared.image_set import open_pixels, read_header, read_rows
from tests.helpers.errors import raises_user_error

SIZE = (200, 150)


def again(path, quality=75, change=lambda image: image):
    """The bytes of a picture that someone saved again."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        change(image.convert("RGB")).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


LEAKS = {
    "the same bytes": (lambda path: path.read_bytes(), "identical pixels"),
    "saved again": (lambda path: again(path, 70), "the same picture again"),
    "scaled": (lambda path: again(path, 80, lambda image: image.resize((188, 141))), "the same picture again"),
    "brighter": (
        lambda path: again(path, 80, lambda image: ImageEnhance.Brightness(image).enhance(1.1)),
        "the same picture again",
    ),
    "mirrored": (lambda path: again(path, 80, lambda image: image.transpose(0)), "the same picture again"),
    "turned": (lambda path: again(path, 80, lambda image: image.transpose(2)), "the same picture again"),
}


@pytest.fixture
def large(raw):
    """The raw folder with pictures of a size that a JPEG does not blur."""
    for index, row in enumerate(raw.rows):
        raw.draw(index, row["dx"], SIZE).save(raw.image(index), quality=95)
    return raw


@pytest.fixture
def sides(large, run):
    """Where the random split puts each image, and the first image of the class nv on each side."""
    rows = run(large.path, out="sides").rows().set_index("image_id")
    of_class = rows[rows["dx"] == "nv"]
    first = {side: of_class.index[of_class["split"] == side][0] for side in ("train", "validation", "test")}
    return rows, first


def file(raw, name) -> Path:
    return next(raw.path.rglob(f"{name}.jpg"))


def splits_file(path, rows, **changes):
    """A given split, with some images elsewhere."""
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["image_id", "lesion_id", "split", "anything"])
        writer.writerows([name, "not read", changes.get(name, row["split"]), ""] for name, row in rows.iterrows())
    return str(path)


@pytest.mark.parametrize("kind", LEAKS)
@pytest.mark.parametrize("between", [("train", "test"), ("train", "validation"), ("validation", "test")])
def test_a_picture_under_two_lesions_ends_the_run(large, run, sides, kind, between, capfd):
    _, first = sides
    one, other = (first[side] for side in between)
    copy, why = LEAKS[kind]
    file(large, other).write_bytes(copy(file(large, one)))
    with raises_user_error("leakage.found") as caught:
        run(large.path)
    for name, side in zip((one, other), between, strict=True):
        assert f"{name} ({side}, lesion " in str(caught.value)
    assert f": {why})" in str(caught.value)
    assert why in capfd.readouterr().out


@pytest.mark.parametrize("kind", LEAKS)
def test_or_all_images_of_both_lesions_move_to_train(large, run, sides, kind, capfd):
    rows, first = sides
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


def test_what_a_moved_lesion_belongs_together_with_moves_too(large, run, sides, tmp_path):
    """A chain: the training image again in validation, and another image of that lesion again in test."""
    rows, first = sides
    nv = rows[rows["dx"] == "nv"]
    twice = nv["lesion_id"].value_counts()
    one, two = nv.index[nv["lesion_id"] == twice.index[0]][:2]
    test = first["test"] if first["test"] not in (one, two) else nv.index[(nv["split"] == "test")][-1]
    given = {one: "validation", two: "validation"}
    train = next(name for name in nv.index[nv["split"] == "train"] if name not in (one, two))
    file(large, one).write_bytes(again(file(large, train)))
    file(large, test).write_bytes(again(file(large, two)))
    split = splits_file(tmp_path / "given.csv", rows, **given)
    after = run(large.path, split=split, duplicates="move_to_train").rows().set_index("image_id")
    assert (after.loc[[one, two, test, train], "split"] == "train").all()


def test_a_picture_twice_on_one_side_is_no_leak(large, run, sides):
    rows, _ = sides
    lesions = rows[(rows["dx"] == "nv") & (rows["split"] == "train")].drop_duplicates("lesion_id").index
    file(large, lesions[1]).write_bytes(again(file(large, lesions[0])))
    assert len(run(large.path).rows()) == len(rows)


def test_a_class_that_loses_its_test_lesions_ends_the_run(large, run, sides):
    rows, _ = sides
    df = rows[rows["dx"] == "df"]
    train, *_ = df.index[df["split"] == "train"]
    for name in df.index[df["split"] == "test"]:
        file(large, name).write_bytes(again(file(large, train)))
    with raises_user_error("split.empty_class"):
        run(large.path, duplicates="move_to_train")


def test_a_given_split_with_a_lesion_on_two_sides_ends_the_run_or_the_lesion_moves(large, run, sides, tmp_path):
    rows, _ = sides
    nv = rows[(rows["dx"] == "nv") & (rows["split"] == "train")]
    two = nv.index[nv["lesion_id"] == nv["lesion_id"].value_counts().index[0]][1]
    split = splits_file(tmp_path / "given.csv", rows, **{two: "test"})
    with raises_user_error("leakage.found"):
        run(large.path, split=split)
    after = run(large.path, split=split, duplicates="move_to_train").rows().set_index("image_id")["split"]
    assert after.sort_index().equals(rows["split"].sort_index())


def test_many_culprits_are_counted_and_some_are_named(large, run, sides, tmp_path, capfd):
    rows, _ = sides
    lesions = rows["lesion_id"].value_counts()
    torn = [rows.index[rows["lesion_id"] == lesion][-1] for lesion in lesions.index[lesions > 1]]
    other = {"train": "test", "validation": "train", "test": "train"}
    split = splits_file(tmp_path / "given.csv", rows, **{name: other[rows.loc[name, "split"]] for name in torn})
    with raises_user_error("leakage.found"):
        run(large.path, split=split)
    assert capfd.readouterr().out.count(": one lesion") == len(torn)


# Images from elsewhere.


@pytest.fixture
def elsewhere(large, tmp_path):
    """Another folder of other lesions, and a function that puts pictures into it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    rows = [("OTHER_L1", "OTHER_1", "nv"), ("OTHER_L1", "OTHER_2", "nv"), ("OTHER_L2", "OTHER_3", "mel")]

    def write(**pictures):
        with (folder / "other_metadata.csv").open("w", newline="") as out:
            csv.writer(out).writerows([("lesion_id", "image_id", "dx"), *rows])
        for number, (_, name, _) in enumerate(rows):
            large.draw(5000 + number, "nv", SIZE).save(folder / f"{name}.jpg", quality=95)
            if name in pictures:
                (folder / f"{name}.jpg").write_bytes(pictures[name])
        return folder

    write.rows = rows
    return write


def test_an_external_set(large, run, elsewhere, capfd):
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
    assert "mel 1\nimages of 1 lesions, nv 2\nimages of 1 lesions" in done.profile
    assert "external set: 3 images of 2 lesions" in capfd.readouterr().out


def test_no_external_set_is_a_set_without_rows(large, run):
    done = run(large.path)
    assert len(read_rows(done.set("external"), "external")) == 0
    assert read_header(done.set("external")).classes == ("df", "mel", "nv")


@pytest.mark.parametrize("kind", LEAKS)
@pytest.mark.parametrize("side", ["train", "validation", "test"])
def test_an_external_image_that_is_the_runs_ends_it_or_is_left_out(large, run, sides, elsewhere, kind, side):
    copy, why = LEAKS[kind]
    folder = str(elsewhere(OTHER_2=copy(file(large, sides[1][side]))))
    with raises_user_error("leakage.found") as caught:
        run(large.path, external=folder)
    assert "OTHER_2" in caught.value.fields["listed"][0]
    assert caught.value.fields["listed"][0].endswith(f": {why}")
    done = run(large.path, external=folder, duplicates="move_to_train")
    assert read_rows(done.set("external"), "external")["image_id"].tolist() == ["OTHER_3"]
    assert done.rows().set_index("image_id")["split"].sort_index().equals(sides[0]["split"].sort_index())


def test_an_external_lesion_that_is_the_runs_ends_it(large, run, sides, elsewhere):
    elsewhere.rows[0] = (sides[0].loc[sides[1]["train"], "lesion_id"], *elsewhere.rows[0][1:])
    with raises_user_error("leakage.found"):
        run(large.path, external=str(elsewhere()))


def test_external_classes_and_bad_images(large, run, elsewhere):
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
def test_images_of_a_finished_run_are_known_by_its_splits_csv(large, run, sides, elsewhere, tmp_path, kind):
    done = run(large.path, out="finished", image_size=64)
    copy, _ = LEAKS[kind]
    settings = {"classes": ("df", "mel", "nv"), "image_size": 64, "max_bad_images": 0}
    settings |= {"known": done.splits, "out": tmp_path / "later.parquet"}
    prepare_external(str(elsewhere()), duplicates="refuse", **settings)
    rows = read_rows(tmp_path / "later.parquet", "external")
    assert rows["image_id"].tolist() == ["OTHER_3", "OTHER_1", "OTHER_2"]
    assert read_header(tmp_path / "later.parquet").classes == ("df", "mel", "nv")
    folder = str(elsewhere(OTHER_2=copy(file(large, sides[1]["train"]))))
    (tmp_path / "later.parquet").unlink()
    with raises_user_error("leakage.found"):
        prepare_external(folder, duplicates="refuse", **settings)
    assert not (tmp_path / "later.parquet").exists()
    prepare_external(folder, duplicates="move_to_train", **settings)
    assert read_rows(tmp_path / "later.parquet", "external")["image_id"].tolist() == ["OTHER_3"]


@pytest.mark.parametrize(
    "text", ["image_id,lesion_id\nA,B\n", "image_id,lesion_id,dx,split,pixel_sha256,perceptual_hash\nA,B,nv,test,C,D\n"]
)
def test_a_file_that_does_not_say_what_a_run_has_used(elsewhere, tmp_path, text):
    (tmp_path / "splits.csv").write_text(text)
    with raises_user_error("external.no_splits"):
        prepare_external(str(elsewhere()), ["nv"], 32, "refuse", 0, tmp_path / "splits.csv", tmp_path / "out")
