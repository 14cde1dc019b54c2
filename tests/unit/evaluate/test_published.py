"""The predictions of a published run, which may come from anyone."""

from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from components.evaluate.predict import published
from components.shared.published import find_file
from components.shared.records import Results, load_record
from tests.helpers.errors import raises_user_error
from tests.helpers.published_run import write_manifest, write_run


def open_run(folder: Path) -> published.Run:
    return published.open_run("run", partial(find_file, folder))


def test_open_run_reads_the_columns_of_predictions_only(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    path = folder / "predictions.parquet"
    written = pd.read_parquet(path)
    written.assign(extra="x").to_parquet(path, index=False)
    write_manifest(folder)
    pd.testing.assert_frame_equal(open_run(folder).predictions, written)


@pytest.mark.parametrize("most", [None, 1_000])
def test_open_run_with_more_predictions_than_images_is_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    """The results are from the same author, who may state any number: there is also a fixed limit."""
    folder = write_run(tmp_path / "run")
    results = load_record(folder / "metrics.json", Results)
    images = sum(of_class.images for name in ("validation", "test") for of_class in results.splits[name].values())
    rows = images * len(results.arms) * len(results.run.seeds) + 1 if most is None else most + 1
    monkeypatch.setattr(published, "MAX_ROWS", most or published.MAX_ROWS)
    first = pd.read_parquet(folder / "predictions.parquet").head(1)
    pd.concat([first] * rows).to_parquet(folder / "predictions.parquet", index=False)
    write_manifest(folder)
    monkeypatch.setattr(pd, "read_parquet", None)
    with raises_user_error("predictions.invalid", rows=rows):
        open_run(folder)
