"""Synthetic images of other generators: what is read, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.prepare_data.other_data import read_other_data
from components.prepare_data.synthetic import ACCUSED_PER_PAIR, POOL_RATIO, count_by_chance
from components.shared.data_identity import others_identity
from components.shared.image_set import decode_png, iter_tables, open_pixels, read_header, read_rows
from components.shared.records import SyntheticSources, load_record
from tests.helpers.errors import raises_user_error
from tests.unit.prepare_data.conftest import Prepared, draw, prepare_into, write_raw

COUNT = 3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The prepared raw folder, whose rare classes are df and mel."""
    folder = tmp_path_factory.mktemp("prepared")
    return prepare_into(folder / "out", write_raw(folder / "raw").path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six images of each rare class, of another size, in class folders; none is in the data."""
    for number, dx in enumerate(["df"] * 6 + ["mel"] * 6):
        (tmp_path / "source" / dx).mkdir(parents=True, exist_ok=True)
        draw(1000 + number, dx, (48, 48)).save(tmp_path / "source" / dx / f"{number}.png")
    return tmp_path / "source"


@pytest.fixture
def read(prepared: Prepared, tmp_path: Path) -> Callable[..., Path]:
    def run(synthetic: str, **changes: Any) -> Path:
        values = {"count": COUNT, "max_bad_images": 0, "seed": 1} | changes
        folders = {name: prepared.out / name for name in ("training_data", "test_data")}
        read_other_data(synthetic=synthetic, **folders, **values, out=tmp_path / "out")
        return tmp_path / "out"

    return run


def images_of(path: Path, dx: str) -> list[np.ndarray]:
    return [decode_png(row["bytes"]) for table in iter_tables(path, dx) for row in table.column("image").to_pylist()]


def test_read_other_data_writes_an_image_set_of_each_source(
    read: Callable[..., Path], source: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (source / "provenance.json").write_text(json.dumps({"generator": "StyleGAN2-ADA", "trained_on": "train"}))
    other = tmp_path / "other"
    shutil.copytree(source, other, ignore=shutil.ignore_patterns("provenance.json"))
    out = read(f"gan, stylegan={source}, zoo={other}")
    assert {path.name for path in out.iterdir()} == {"sources.json", "stylegan.parquet", "zoo.parquet"}
    described = load_record(out / "sources.json", SyntheticSources).sources
    assert described["stylegan"].images == described["stylegan"].available == {"df": 6, "mel": 6}
    assert (described["stylegan"].scaled, described["stylegan"].held_out) == (12, [])
    assert described["stylegan"].provenance is not None
    assert described["stylegan"].provenance.generator == "StyleGAN2-ADA"
    assert described["zoo"].provenance is None
    printed = capsys.readouterr().out
    assert "zoo does not declare how its images were made; add provenance.json" in printed
    assert "12 images of another size were scaled to 32 px" in printed
    path = out / "stylegan.parquet"
    assert read_header(path) == read_header(prepared.set("train"))
    rows = read_rows(path, "train")
    assert set(rows["source"]) == {"stylegan"}
    assert rows["lesion_id"].isna().all()
    assert sorted(rows["image_id"])[:2] == ["stylegan-df/0", "stylegan-df/1"]
    with open_pixels([prepared.set("train"), path], "train") as pixels:
        assert int((pixels.source == "stylegan").sum()) == 12
    wanted = np.asarray(Image.open(source / "df" / "0.png").resize((32, 32), Image.Resampling.LANCZOS))
    assert any(np.array_equal(image, wanted) for image in images_of(path, "df"))


def test_read_other_data_of_every_class_requires_and_reads_images_of_every_class(
    read: Callable[..., Path], source: Path, prepared: Prepared
):
    with raises_user_error("synthetic.missing_class"):
        read(f"zoo={source}", scope="all")
    classes = read_header(prepared.set("train")).classes
    for number, dx in enumerate(set(classes) - {"df", "mel"}):
        (source / dx).mkdir()
        draw(2000 + number, dx, (48, 48)).save(source / dx / "0.png")
    described = load_record(read(f"zoo={source}", scope="all") / "sources.json", SyntheticSources).sources
    assert set(described["zoo"].images) == set(classes)


def test_read_other_data_without_other_sources_writes_an_empty_list(read: Callable[..., Path]):
    out = read("gan")
    assert [path.name for path in out.iterdir()] == ["sources.json"]
    assert load_record(out / "sources.json", SyntheticSources).sources == {}


def test_read_other_data_takes_a_random_part_of_a_large_source(read: Callable[..., Path], source: Path):
    first, again = (read_rows(read(f"{source}", count=1) / "synthetic.parquet", "train") for _ in range(2))
    assert first["dx"].value_counts().to_dict() == {"df": POOL_RATIO, "mel": POOL_RATIO}
    assert first["image_id"].tolist() == again["image_id"].tolist()
    other = read_rows(read(f"{source}", count=1, seed=2) / "synthetic.parquet", "train")
    assert first["image_id"].tolist() != other["image_id"].tolist()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_read_other_data_refuses_a_generator_that_has_seen_held_out_images(
    read: Callable[..., Path], source: Path, prepared: Prepared, split: str, tmp_path: Path
):
    """The image is brighter, flipped and saved as JPEG."""
    table = next(iter_tables(prepared.set(split), "df"))
    pixels = decode_png(table.column("image")[0].as_py()["bytes"])[:, ::-1]
    brighter = np.clip(pixels.astype(int) + 12, 0, 255).astype(np.uint8)
    Image.fromarray(brighter).save(source / "df" / "seen.jpg", quality=92)
    with raises_user_error("synthetic.seen_held_out", name="stylegan", count=1) as caught:
        read(f"stylegan={source}")
    name = table.column("image_id")[0].as_py()
    assert caught.value.fields["listed"] == [f"df/seen reproduces {name} ({split})"]
    assert not (tmp_path / "out").exists()


def test_read_other_data_accepts_copies_of_training_images(read: Callable[..., Path], source: Path, prepared: Prepared):
    """generate_images drops them, and counts them."""
    Image.fromarray(images_of(prepared.set("train"), "df")[0]).save(source / "df" / "copy.png")
    assert len(read_rows(read(f"{source}") / "synthetic.parquet", "train")) == 13


def test_read_other_data_excludes_held_out_images_that_chance_explains(
    read: Callable[..., Path], source: Path, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("components.prepare_data.synthetic.ACCUSED_PER_PAIR", 0.01)
    Image.fromarray(images_of(prepared.set("test"), "df")[0]).save(source / "df" / "seen.png")
    out = read(f"{source}")
    assert len(load_record(out / "sources.json", SyntheticSources).sources["synthetic"].held_out) == 1
    assert "synthetic-seen" not in set(read_rows(out / "synthetic.parquet", "train")["image_id"])


def test_count_by_chance_is_a_quantile_of_the_poisson_distribution():
    from scipy import stats

    for pairs in (0, 1_000, 10**7, 10**8, 10**9):
        assert count_by_chance(pairs) == stats.poisson.ppf(0.999, pairs * ACCUSED_PER_PAIR)
    # The normal approximation is off by less than one standard deviation's hundredth at this mean, 10,000.
    assert count_by_chance(10**11) == pytest.approx(stats.poisson.ppf(0.999, 10_000), abs=2)


def test_read_other_data_with_unusable_classes_fails(read: Callable[..., Path], source: Path):
    (source / "mel").rename(source / "melanoma")
    with raises_user_error("synthetic.unknown_class", name="zoo", dx="melanoma"):
        read(f"zoo={source}")
    shutil.rmtree(source / "melanoma")
    with raises_user_error("synthetic.missing_class", name="zoo", classes=["mel"]):
        read(f"zoo={source}")


def test_read_other_data_with_images_that_cannot_be_read_fails(read: Callable[..., Path], source: Path):
    (source / "df" / "broken.png").write_bytes(b"no image")
    with raises_user_error("images.too_many_unusable"):
        read(f"zoo={source}")
    assert read(f"zoo={source}", max_bad_images=1).exists()


def test_read_other_data_with_an_unusable_external_set_leaves_nothing_behind(
    read: Callable[..., Path], source: Path, tmp_path: Path
):
    with raises_user_error("data.missing_folder"):
        read(f"zoo={source}", external=str(tmp_path / "nowhere"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_read_other_data_refuses_a_generator_that_has_seen_the_external_set(
    read: Callable[..., Path], source: Path, tmp_path: Path
):
    for number, dx in enumerate(("df", "mel", "nv")):
        (tmp_path / "elsewhere" / dx).mkdir(parents=True)
        draw(3000 + number, dx, (48, 48)).save(tmp_path / "elsewhere" / dx / f"{dx}.png")
    external = str(tmp_path / "elsewhere")
    assert len(read_rows(read(f"zoo={source}", external=external) / "external.parquet", "external")) == 3
    shutil.copy(tmp_path / "elsewhere" / "mel" / "mel.png", source / "mel" / "seen.png")
    with raises_user_error("synthetic.seen_held_out", name="zoo") as caught:
        read(f"zoo={source}", external=external)
    assert caught.value.fields["listed"][0].endswith("(external)")


@pytest.mark.parametrize("changed", ["source", "elsewhere"])
def test_read_other_data_of_a_place_that_changed_meanwhile_fails(
    read: Callable[..., Path], source: Path, tmp_path: Path, changed: str
):
    external = tmp_path / "elsewhere"
    (external / "df").mkdir(parents=True)
    draw(3000, "df", (48, 48)).save(external / "df" / "0.png")
    identity = others_identity(f"zoo={source}", str(external))
    assert read(f"zoo={source}", identity=identity, external=str(external)).exists()
    draw(4000, "df", (48, 48)).save(tmp_path / changed / "df" / "new.png")
    with raises_user_error("input.changed"):
        read(f"zoo={source}", identity=identity, external=str(external))


def test_read_other_data_with_an_invalid_provenance_fails(read: Callable[..., Path], source: Path):
    (source / "provenance.json").write_text('{"generator": "x"}')
    with raises_user_error("record.invalid"):
        read(f"zoo={source}")


def test_others_identity_changes_with_the_provenance(source: Path):
    """Otherwise the old declaration would be taken from the cache."""
    first = others_identity(f"zoo={source}", "none")
    (source / "provenance.json").write_text("{}")
    assert others_identity(f"zoo={source}", "none") != first


def test_read_other_data_counts_rows_without_an_image(read: Callable[..., Path], source: Path):
    rows = [f"{path.parent.name}/{path.name},{path.parent.name}" for path in source.glob("*/*.png")]
    (source / "table.csv").write_text("\n".join(["image_id,dx", *rows, "df/absent.png,df"]) + "\n")
    with raises_user_error("images.missing", count=1):
        read(f"zoo={source}")
    out = read(f"zoo={source}", max_bad_images=1)
    assert load_record(out / "sources.json", SyntheticSources).sources["zoo"].skipped == 1
