import numpy as np
import pytest

from components.shared.errors import UserError
from scripts import validation_table
from tests.helpers.published_run import write_run


def test_metrics_of_known_predictions():
    """A model that is certain and right has recall and AUC 1; class frequencies as scores rank nothing."""
    truth = np.array([0, 0, 1, 2])
    loss, auc, recall = validation_table.measure(truth, np.eye(3)[truth], [1, 2])
    assert (loss, auc, recall) == (0.0, 1.0, 1.0)
    same = np.tile([0.5, 0.25, 0.25], (4, 1))
    loss, auc, recall = validation_table.measure(truth, same, [1, 2])
    assert loss == pytest.approx((np.log(2) + 2 * np.log(4)) / 3)
    assert (auc, recall) == (0.5, 0.0)


def test_differences_are_those_to_the_control_of_the_first_run(tmp_path):
    """The control of the first run differs by 0 from itself; a better arm of another run has a lower loss."""
    runs = [write_run(tmp_path / "first"), write_run(tmp_path / "second", skill=3.0)]
    rows = {
        tuple(cell.strip(" `") for cell in line.split("|")[1:3]): [cell.strip() for cell in line.split("|")[3:-1]]
        for line in list(validation_table.table_of(runs))[2:]
    }
    assert rows["first", "oversampled"][1] == "+0.000 ± 0.000"
    assert rows["second", "augmented@1"][1].startswith("−")
    assert float(rows["second", "augmented@1"][0]) < float(rows["first", "augmented@1"][0])


def test_runs_of_another_split_are_refused(tmp_path):
    """Their validation images differ."""
    runs = [write_run(tmp_path / "first"), write_run(tmp_path / "second", split_sha256="f" * 64)]
    with pytest.raises(UserError, match="different splits or seeds"):
        list(validation_table.table_of(runs))


def test_one_seed_has_no_standard_error(tmp_path):
    """A spread needs two seeds."""
    lines = list(validation_table.table_of([write_run(tmp_path / "run", seeds=1)]))
    assert "± nan" not in "\n".join(lines)
