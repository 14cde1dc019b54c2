"""Collect the synthetic images of all classes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.balance_dataset.balance import balance
from components.shared.files import EXTERNAL
from components.shared.image_set import encode_png, pixel_sha256, read_header, read_rows, write_image_set
from components.shared.records import FailedGan, SyntheticSource, SyntheticSources, write_record
from tests.helpers.errors import raises_user_error


def write_folder(root: Path, *names: str) -> Path:
    """Write files whose content is their name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


SOURCE = SyntheticSource(
    place="/x", images={"df": 2}, available={"df": 2}, scaled=0, skipped=0, held_out=[], provenance=None
)


def write_synthetic(folder: Path, dx: str, count: int, train_set: Path, source: str = "") -> Path:
    """Write what generate_images writes for a class."""
    write_folder(folder, f"synthetic/{source}{dx}.json", f"synthetic/{source}{dx}.html")
    pixels = [np.full((32, 32, 3), n % 256, np.uint8) for n in range(count)]
    rows = pd.DataFrame(
        {
            "image_id": [f"{dx}-{n}" for n in range(count)],
            "dx": dx,
            "source": "gan",
            "pixel_sha256": [pixel_sha256(image) for image in pixels],
        }
    )
    with write_image_set(folder / "synthetic" / f"{source}{dx}.parquet", read_header(train_set)) as out:
        out.write(rows, [encode_png(image) for image in pixels])
    return folder


@pytest.fixture
def collect(training_data: Path, tmp_path: Path) -> Callable[..., Path]:
    """Run `balance` with the folders of two GAN tasks and the synthetic images of a test."""
    features = write_folder(tmp_path, "features.keras") / "features.keras"
    start = write_folder(tmp_path / "start", "start.bin", "models/shared.json", "models/shared.html")
    gans = [
        write_folder(tmp_path / f"gans-{dx}", *(f"models/gan-{dx}.{suffix}" for suffix in ("keras", "json", "html")))
        for dx in ("df", "vasc")
    ]

    def run(*synthetic: Path, failed_class: str = "continue", **described: SyntheticSource) -> Path:
        (tmp_path / "sources").mkdir(exist_ok=True)
        write_record(tmp_path / "sources" / "sources.json", SyntheticSources(sources=described))
        balance(training_data, features, start, gans, synthetic, tmp_path / "sources", failed_class, tmp_path / "out")
        return tmp_path / "out"

    return run


def test_balance_collects_the_files_of_all_tasks(
    collect: Callable[..., Path], training_data: Path, tmp_path: Path
) -> None:
    train_set = training_data / "train.parquet"
    sources = [write_synthetic(tmp_path / dx, dx, count, train_set) for dx, count in (("df", 3), ("vasc", 0))]
    write_folder(tmp_path / "sources", EXTERNAL)
    out = collect(*sources)
    models = ["features.keras", "shared.json", "shared.html"]
    models += [f"gan-{dx}.{suffix}" for dx in ("df", "vasc") for suffix in ("keras", "json", "html")]
    expected = {f"models/{name}" for name in models}
    expected |= {"sources.json", EXTERNAL}
    expected |= {f"synthetic/{dx}.{suffix}" for dx in ("df", "vasc") for suffix in ("parquet", "json", "html")}
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == expected
    for name in models[1:]:
        assert (out / "models" / name).read_text() == f"models/{name}"
    for source, dx in zip(sources, ("df", "vasc"), strict=True):
        name = f"synthetic/{dx}.parquet"
        assert (out / name).read_bytes() == (source / name).read_bytes()


def fail_gan(folder: Path, dx: str, failed: str = "DivergedError: loss") -> None:
    """Replace the record of a class by that of a GAN that failed."""
    failed_gan = FailedGan(
        dx=dx,
        architecture="dcgan",
        classes=["df", "nv", "vasc"],
        image_size=32,
        data_sha256="d" * 64,
        split_sha256="5" * 64,
        failed=failed,
    )
    write_record(folder / f"gans-{dx}" / "models" / f"gan-{dx}.json", failed_gan)


def test_balance_without_any_gan_states_why_one_failed(collect: Callable[..., Path], tmp_path: Path) -> None:
    """Regression: with `continue` and one rare class, the error named records that no one could read."""
    fail_gan(tmp_path, "df", "DivergedError: diverged after 0.3 kimg")
    (tmp_path / "gans-vasc" / "models" / "gan-vasc.json").unlink()
    with raises_user_error("balance_dataset.no_images", dx="df", count=1) as caught:
        collect()
    assert "that of df failed (DivergedError: diverged after 0.3 kimg)" in str(caught.value)
    fail_gan(tmp_path, "vasc")
    with raises_user_error("balance_dataset.no_images", dx="df", count=2):
        collect()
    assert not (tmp_path / "out").exists()


def test_balance_with_copies_only_fails(collect: Callable[..., Path], training_data: Path, tmp_path: Path) -> None:
    with raises_user_error("balance_dataset.only_copies", source="gan"):
        collect(write_synthetic(tmp_path / "vasc", "vasc", 0, training_data / "train.parquet"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["zoo", "synthetic"])
def test_balance_without_gans_collects_the_images_of_a_source(
    collect: Callable[..., Path], training_data: Path, tmp_path: Path, name: str
) -> None:
    """`synthetic` is the name of a source that has none."""
    given = write_synthetic(tmp_path / "given", "df", 2, training_data / "train.parquet", f"{name}/")
    for path in tmp_path.glob("gans-*/models/*.json"):
        path.unlink()
    out = collect(given, **{name: SOURCE})
    assert len(read_rows(out / "synthetic" / name / "df.parquet", "train")) == 2


def test_balance_with_failed_gans_only_fails_although_another_source_has_images(
    collect: Callable[..., Path], training_data: Path, tmp_path: Path
) -> None:
    """The arms of the GANs would equal the control."""
    given = write_synthetic(tmp_path / "given", "df", 2, training_data / "train.parquet", "zoo/")
    for dx in ("df", "vasc"):
        fail_gan(tmp_path, dx)
    with raises_user_error("balance_dataset.no_images"):
        collect(given, zoo=SOURCE)


def test_balance_with_a_gan_that_failed_in_another_run_fails_unless_the_run_continues_without_it(
    collect: Callable[..., Path], training_data: Path, tmp_path: Path
) -> None:
    of_gan = write_synthetic(tmp_path / "df", "df", 3, training_data / "train.parquet")
    (tmp_path / "gans-df" / "models" / "gan-df.json").unlink()
    fail_gan(tmp_path, "vasc")
    with raises_user_error("balance_dataset.failed_class", dx="vasc"):
        collect(of_gan, failed_class="fail")
    assert collect(of_gan).exists()


def test_balance_with_a_source_that_only_copies_fails(
    collect: Callable[..., Path], training_data: Path, tmp_path: Path
) -> None:
    of_gan = write_synthetic(tmp_path / "df", "df", 3, training_data / "train.parquet")
    with raises_user_error("balance_dataset.only_copies", source="stylegan"):
        collect(of_gan, stylegan=SOURCE)
    given = write_synthetic(tmp_path / "given", "df", 2, training_data / "train.parquet", "stylegan/")
    out = collect(of_gan, given, stylegan=SOURCE)
    assert len(read_rows(out / "synthetic" / "stylegan" / "df.parquet", "train")) == 2
    assert len(read_rows(out / "synthetic" / "df.parquet", "train")) == 3


def test_balance_with_images_of_another_run_fails(
    collect: Callable[..., Path], tmp_path: Path, make_set: Callable[..., Path]
) -> None:
    other = make_set(tmp_path / "other.parquet", "train", {"df": 4}, size=48)
    folder = write_synthetic(tmp_path / "df", "df", 3, other)
    with raises_user_error("image_set.mixed") as caught:
        collect(folder)
    assert caught.value.fields == {"path": str(folder / "synthetic" / "df.parquet")}
    assert not (tmp_path / "out").exists()
