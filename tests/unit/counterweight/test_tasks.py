import json
from pathlib import Path

import pytest

from components.shared.workflow_size import pack_classifiers
from counterweight.tasks import CHECKPOINTS, variables


def command(pack: str) -> list[str]:
    """Return what kfp runs."""
    given = json.dumps({"inputs": {"parameterValues": {"pack": pack}}})
    return ["sh", "-c", "python", "--executor_input", given, "--function_to_execute", "train_classifier"]


@pytest.mark.parametrize(
    ("arms", "pack", "share"),
    [
        (["baseline", "oversampled", "augmented@1"], "baseline:1*,baseline:2", "0.5"),
        (["baseline", "oversampled", "augmented@1"], "augmented@1:1*,augmented@1:2", "1.0"),
        (["baseline", "augmented@0.5", "augmented@1"], "augmented@1:1*,augmented@1:2", "0.5"),
        (["baseline", "augmented@0.5", "augmented@1"], "baseline:1*,baseline:2", "1.0"),
    ],
)
def test_classifiers_of_a_local_run_share_the_machine_with_the_other_task_of_their_loop(
    tmp_path: Path, arms: list[str], pack: str, share: str
) -> None:
    """Regression: a task that trains the classifiers of one arm had half of the CPUs while nothing ran beside it."""
    folders = {"train_classifier": tmp_path / "a", "train_gan": tmp_path / "b"}
    packs = pack_classifiers(arms, [1, 2], 2)
    found = variables("train_classifier", command(pack), folders, packs)
    assert (found["COUNTERWEIGHT_SHARE"], found[CHECKPOINTS]) == (share, str(tmp_path / "a"))
    assert "COUNTERWEIGHT_SHARE" not in variables("pretrain_gan", [], folders, packs)
    assert variables("evaluate", [], folders, packs) == {}
