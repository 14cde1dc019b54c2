"""Data in object storage is refused before a run or schedule starts, with the error of the same folder."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from components.prepare_data import sources
from components.prepare_data.external import prepare_external
from components.prepare_data.prepare import check_listing
from components.shared.errors import UserError
from components.shared.image_set import METADATA
from components.shared.stores.gcs import GoogleStore
from components.shared.stores.protocol import Entry
from counterweight import release, schedule, submit
from tests.helpers.errors import raises_user_error
from tests.helpers.kfp_server import KfpServer
from tests.integration.counterweight.conftest import Command
from tests.unit.prepare_data.conftest import RawFolder, prepare_into, write_raw

PLACE = "gs://raw/sets/ham"


@pytest.fixture(autouse=True)
def compiled_once(package: submit.Package, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (submit, release):
        monkeypatch.setattr(module, "compile_package", lambda local_images: package)


@pytest.fixture
def folder(tmp_path: Path) -> RawFolder:
    return write_raw(tmp_path / "raw")


def upload(bucket: Any, folder: Path, prefix: str = "sets/ham") -> None:
    """Upload the tables of a folder, and its images as text: nothing may read them."""
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes() if path.suffix == ".csv" else b"not an image"
            bucket.blob(f"{prefix}/{path.relative_to(folder)}").upload_from_string(content)


def values(data: str, **others: str) -> dict[str, Any]:
    return submit.check_values({"data": "demo", "positive_classes": "auto"} | others) | {"data": data}


@pytest.mark.parametrize(
    ("change", "parameters", "code"),
    [
        ("", {"synthetic_classes": "MEL"}, "parameter.unknown_class"),
        ("", {"positive_classes": "melanoma"}, "parameter.unknown_class"),
        ("", {"data_columns": "dx:diagnosis"}, "metadata.unknown_column"),
        ("other columns", {}, "metadata.missing_column"),
        ("second table", {}, "metadata.several"),
        ("no table", {}, "metadata.missing"),
        ("no images", {}, "images.none"),
    ],
)
def test_check_data_of_an_address_is_that_of_the_folder(
    bucket: Any, folder: RawFolder, change: str, parameters: dict[str, str], code: str
):
    (table,) = folder.path.glob("*.csv")
    if change == "other columns":
        table.write_text("a,b\n1,2\n")
    elif change == "second table":
        table.with_name("other.csv").write_text(table.read_text() + "\n")
    elif change == "no table":
        table.unlink()
    elif change == "no images":
        for path in folder.path.rglob("*.jpg"):
            path.unlink()
    upload(bucket, folder.path)
    errors = []
    for place in (str(folder.path), PLACE):
        with pytest.raises(UserError) as caught:
            submit.check_data(values(place, **parameters), io.StringIO())
        errors.append(caught.value)
    local, stored = errors
    assert (local.code, stored.code) == (code, code)
    assert (str(stored), stored.hint) == tuple(
        text.replace(str(folder.path), PLACE) for text in (str(local), local.hint)
    )


def test_data_parameters_are_those_that_the_check_reads(folder: RawFolder):
    """Schedules that differ in none of them are checked once."""

    read: set[str] = set()

    class Recorded(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            read.add(name)
            return super().__getitem__(name)

    submit.check_data(Recorded(values(str(folder.path))), io.StringIO())
    assert read == set(submit.DATA_PARAMETERS)


def test_check_data_of_other_classes_elsewhere_is_a_user_error(bucket: Any, folder: RawFolder):
    upload(bucket, folder.path)
    for name in ("mel/1.jpg", "other/2.jpg"):
        bucket.blob(f"elsewhere/{name}").upload_from_string(b"not an image")
    with raises_user_error("external.unknown_class"):
        submit.check_data(values(PLACE) | {"data_external": "gs://raw/elsewhere"}, io.StringIO())


def test_check_listing_of_files_that_only_their_content_reveals_accepts_them(bucket: Any):
    bucket.blob("sets/ham/image").upload_from_string(b"unknown")
    check_listing(values(PLACE), 0, "none")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("df/", "", "folders.empty_class"),
        ("labels.json", '{"nv/0.jpg": "mel", "mel/1.jpg": "nv"}', "metadata.other_format"),
        ("labels.txt", "image,dx\nnv/0.jpg,mel\nmel/1.jpg,nv\n", "metadata.other_suffix"),
        ("train.txt", "nv/0.jpg\nmel/1.jpg\n", ""),
        ("empty", "", ""),
    ],
)
def test_check_listing_reads_folders_and_lists_beside_the_classes(bucket: Any, name: str, content: str, code: str):
    """Where no error is expected, the check continues to that of the positive classes."""
    for number in range(8):
        bucket.blob(f"sets/ham/{'mel' if number % 2 else 'nv'}/{number}.jpg").upload_from_string(b"not an image")
    bucket.blob(f"sets/ham/{name}").upload_from_string(content)
    with raises_user_error(code or "parameter.unknown_class"):
        check_listing(values(PLACE, positive_classes="MEL"), 0, "none")


def write_packed(folder: Path, name: str) -> None:
    """Write two classes as Parquet or arrays with more bytes of images than a request reads, or an invalid file."""
    folder.mkdir()
    pixels = np.random.default_rng(1).integers(0, 255, (60, 128, 128), np.uint8)
    labels = np.arange(60) % 2
    if name == "set.npz":
        np.savez(folder / name, train_images=pixels, train_labels=labels[:, None])
    elif name == "train.parquet":
        table = pd.DataFrame({"image": [image.tobytes() for image in pixels], "label": labels})
        table.to_parquet(folder / name, row_group_size=20)
    else:
        (folder / name).write_bytes(b"unknown")


@pytest.mark.parametrize(
    ("name", "parameters", "code"),
    [
        ("train.parquet", {}, ""),
        ("train.parquet", {"positive_classes": "MEL"}, "parameter.unknown_class"),
        ("train.parquet", {"synthetic_classes": "MEL"}, "parameter.unknown_class"),
        ("set.npz", {}, ""),
        ("set.npz", {"positive_classes": "MEL"}, "parameter.unknown_class"),
        ("invalid.parquet", {}, "metadata.not_parquet"),
        ("invalid.npz", {}, "arrays.missing"),
    ],
)
def test_check_listing_reads_the_classes_of_packed_files_alone(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, parameters: dict[str, str], code: str
):
    write_packed(tmp_path / "set", name)
    bucket.blob(f"sets/ham/{name}").upload_from_string((tmp_path / "set" / name).read_bytes())
    sizes: list[int] = []
    read_range = GoogleStore.read_range

    def count(store: GoogleStore, entry: Entry, start: int, length: int) -> bytes:
        data = read_range(store, entry, start, length)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(GoogleStore, "read_range", count)
    for place in (str(tmp_path / "set"), PLACE):
        with raises_user_error(code) if code else contextlib.nullcontext():
            check_listing(values(place, **parameters), 0, "none")
    assert name.startswith("invalid") or 0 < sum(sizes) < 300_000 < (tmp_path / "set" / name).stat().st_size


def test_submit_of_data_without_the_class_starts_nothing(kfp: KfpServer, do: Command, bucket: Any, folder: RawFolder):
    upload(bucket, folder.path)
    code, _, errors = do(submit, f"DATA={PLACE}", "PRESET=cpu", "synthetic_classes=MEL")
    assert code == 2
    assert errors.startswith("error: synthetic_classes lists MEL, which the data does not have\nhint: choose from ")
    assert kfp.tables["runs"] == kfp.tables["pipelines"] == []


def test_submit_without_access_to_the_data_warns_and_starts(kfp: KfpServer, do: Command):
    code, out, _ = do(submit, "DATA=gs://bucket/ham10000", "PRESET=cpu")
    assert code == 0
    assert "warning: the data was not checked from here: gs://bucket/ham10000: " in out
    assert len(kfp.tables["runs"]) == 1


@pytest.mark.parametrize(
    ("names", "code"), [((), "storage.empty"), (("a/1.jpg", "a//1.jpg", "b/2.jpg"), "storage.bad_name")]
)
def test_check_data_of_a_listing_that_no_run_can_use_is_an_error(bucket: Any, names: tuple[str, ...], code: str):
    for name in names:
        bucket.blob(f"sets/ham/{name}").upload_from_string(b"not an image")
    with raises_user_error(code):
        submit.check_data(values(PLACE), io.StringIO())


def test_schedule_of_data_without_the_class_names_the_schedule(
    kfp: KfpServer, do: Command, bucket: Any, folder: RawFolder, tmp_path: Path
):
    upload(bucket, folder.path)
    parameters = {"data": PLACE, "synthetic_classes": "MEL"}
    entry = {"name": "weekly", "cron": "0 0 3 * * 1", "enabled": True, "preset": "cpu", "parameters": parameters}
    (tmp_path / "schedules.yaml").write_text(yaml.safe_dump({"schedules": [entry]}))
    code, _, errors = do(schedule, f"FILE={tmp_path / 'schedules.yaml'}")
    assert code == 2
    assert "schedules.yaml: schedule weekly: synthetic_classes lists MEL" in errors
    assert kfp.tables["recurring_runs"] == []


def test_schedule_checks_the_data_again_for_other_arms(
    kfp: KfpServer, do: Command, bucket: Any, folder: RawFolder, tmp_path: Path
):
    """The second of two schedules on the same data has an arm that requires metadata, which the data lacks."""
    (table,) = folder.path.glob("*.csv")
    rows = pd.read_csv(table)
    rows.drop(columns=[name for name in METADATA if name in rows]).to_csv(table, index=False)
    upload(bucket, folder.path)
    entries = [
        {
            "name": arm.replace("_", "-"), "cron": "0 0 3 * * 1", "enabled": True, "preset": "cpu",
            "parameters": {"data": PLACE, "arms": f"baseline,oversampled,augmented,{arm}"},
        }
        for arm in ("class_weights", "metadata")
    ]  # fmt: skip
    (tmp_path / "schedules.yaml").write_text(yaml.safe_dump({"schedules": entries}))
    code, _, errors = do(schedule, f"FILE={tmp_path / 'schedules.yaml'}")
    assert code == 2
    assert "schedules.yaml: schedule metadata: the data has no age, sex or site" in errors


def test_prepare_of_another_layout_downloads_no_image(bucket: Any, folder: RawFolder, tmp_path: Path, monkeypatch: Any):
    """A run that starts in Kubeflow's form, which checks no data, fails before the download."""
    (table,) = folder.path.glob("*.csv")
    table.write_text("a,b\n1,2\n")
    upload(bucket, folder.path)
    monkeypatch.setattr(sources.bucket, "fetch", lambda data, scratch: pytest.fail("the data was downloaded"))
    with raises_user_error("metadata.missing_column"):
        prepare_into(tmp_path, PLACE)


def test_external_set_of_a_finished_run_is_refused_before_its_images_are_downloaded(
    bucket: Any, folder: RawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done = prepare_into(tmp_path / "out", folder.path)
    for name in ("mel/1.jpg", "other/2.jpg"):
        bucket.blob(f"elsewhere/{name}").upload_from_string(b"not an image")
    monkeypatch.setattr(sources, "fetch", lambda *_: pytest.fail("the external set was downloaded"))
    settings = {"image_size": 64, "duplicates": "refuse", "max_bad_images": 0, "splits": done.splits}
    with raises_user_error("external.unknown_class"):
        prepare_external("gs://raw/elsewhere", ["mel", "nv"], **settings, out=tmp_path / "later.parquet")
    with raises_user_error("metadata.missing"):
        prepare_external(
            "gs://raw/elsewhere", ["mel", "nv"], **settings, out=tmp_path / "later.parquet", columns=("dx:diagnosis",)
        )
    assert not (tmp_path / "later.parquet").exists()
