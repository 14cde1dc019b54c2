"""What the first task of a run detects, without a store."""

from pathlib import Path
from typing import Any

import pytest

from components.check_inputs.check import PROBE, Checked, check
from components.shared import parameters
from components.shared.champion import parse_choice
from components.shared.data_identity import data_identity
from components.shared.errors import UserError
from components.shared.records import ChosenChampion
from components.shared.workflow_size import parse_pack

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def run_check(
    environment: dict[str, str] | None = None, options: dict[str, Any] | None = None, **values: Any
) -> Checked:
    own = {"classifiers_per_task": 2, "checkpoints": "auto", "champion": "none", "metadata": "none"}
    own |= {"max_bad_images": 0, "synthetic_scope": "rare", "weights": "none"}
    return check(parameters.defaults() | values, environment=environment or {}, **(own | (options or {})))


def error_of(
    environment: dict[str, str] | None = None, options: dict[str, Any] | None = None, **values: Any
) -> UserError:
    with pytest.raises(UserError) as caught:
        run_check(environment, options, **values)
    return caught.value


def test_check_of_the_untouched_form_in_a_pod_succeeds():
    checked = run_check(IN_POD)
    assert checked.packs.real[:2] == ["baseline:1*,baseline:2", "baseline:3,oversampled:1*"]
    assert len(checked.data_identity) == 16
    assert run_check(IN_POD) == checked


def test_check_accepts_whole_floats_as_the_api_passes_them():
    assert run_check(classifier_seeds=[4.0, 5.0], classifier_epochs=2.0, synthetic_shares=[1]).packs.synthetic == [
        "augmented@1:4*,augmented@1:5"
    ]


@pytest.mark.parametrize(
    ("name", "value"), [("classifier_epochs", 32.5), ("classifier_seeds", []), ("classifier_seeds", ["1"])]
)
def test_check_refuses_values_that_the_api_accepts(name: str, value: Any):
    error = error_of(**{name: value})
    assert (error.code, error.fields["name"]) == ("parameter.invalid", name)


@pytest.mark.parametrize("name", ["data", "data_external", "data_split"])
def test_check_in_a_pod_refuses_a_path_of_another_machine(name: str):
    error = error_of(IN_POD, **{name: "/data/ham10000"})
    assert (error.code, error.fields["name"]) == ("input.not_reachable", name)


@pytest.mark.parametrize("name", ["data", "data_external", "data_split"])
def test_check_refuses_a_path_that_does_not_exist(name: str, tmp_path: Path):
    error = error_of(**{name: str(tmp_path / "absent")})
    assert (error.code, error.fields["name"]) == ("input.missing", name)


def test_check_refuses_the_arm_metadata_if_all_arms_have_metadata():
    run_check(options={"metadata": "late_fusion"})  # `all` is without the arm
    arms = "baseline,oversampled,augmented,metadata"
    assert "metadata:1*" in ",".join(run_check(arms=arms).packs.real)
    error = error_of(arms=arms, options={"metadata": "late_fusion"})
    assert (error.code, error.fields) == ("arms.repeats_option", {"arm": "metadata"})


def test_check_of_arms_without_synthetic_images_trains_no_gan():
    """A loop needs an item, so that one task gets no classifier."""
    checked = run_check(arms="baseline,class_weights", classifier_seeds=[4])
    assert checked.packs.real == ["baseline:4*,class_weights:4*"]
    assert [parse_pack(pack) for pack in checked.packs.synthetic] == [[]]
    assert not checked.train_gans
    assert run_check().train_gans


def test_check_refuses_a_source_that_no_arm_uses(tmp_path: Path):
    error = error_of(arms="baseline,class_weights", synthetic=f"gan,zoo={tmp_path}")
    assert (error.code, error.fields) == ("arms.unused_source", {"arms": ["baseline", "class_weights"]})
    assert error.hint == "add oversampled and augmented to arms, or omit synthetic"
    run_check(arms="baseline,class_weights", synthetic="gan")


def test_check_refuses_an_arm_without_real_images():
    every = {"synthetic_scope": "all"}
    assert run_check(options=every, synthetic_shares=[0.25, 0.5]).packs.synthetic
    error = error_of(options=every, synthetic_shares=[0.25, 1.0])
    assert (error.code, error.fields) == ("arms.no_real_images", {"arm": "augmented@1"})


def test_check_of_a_fold_needs_no_file():
    assert run_check(IN_POD, data_split="2/5").packs.real


def test_check_in_a_pod_refuses_a_folder_as_output():
    assert error_of(IN_POD, output="runs/output").code == "output.not_reachable"


def test_check_of_an_output_folder_leaves_nothing_behind(tmp_path: Path):
    run_check(output=str(tmp_path / "new" / "folder"))
    assert list(tmp_path.iterdir()) == []


def test_check_refuses_an_output_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").touch()
    assert error_of(output=str(tmp_path / "file")).code == "output.is_a_file"


def test_check_refuses_an_output_that_is_not_writable():
    assert error_of(output="/proc/counterweight").code == "output.not_writable"


def test_check_refuses_more_tasks_than_a_workflow_holds():
    error = error_of(options={"classifiers_per_task": 1}, classifier_seeds=list(range(20)))
    assert error.code == "workflow.too_many_classifiers"
    assert run_check(synthetic_classes=",".join(f"class{n}" for n in range(60))).packs.real


def test_check_of_kaggle_requires_credentials(tmp_path: Path):
    home = {"HOME": str(tmp_path)}
    assert error_of(home, data="kaggle").code == "kaggle.no_credentials"
    assert run_check(home | {"KAGGLE_USERNAME": "me", "KAGGLE_KEY": "k"}, data="kaggle")
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "kaggle.json").write_text("{}")
    assert run_check(home, data="kaggle")


def test_data_identity_changes_with_a_file_of_the_data_only(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").write_text("one")
    first = data_identity(str(tmp_path))
    for name in ("report.html", "metrics.json", "df.keras", ".DS_Store"):
        (tmp_path / name).touch()
    assert data_identity(str(tmp_path)) == first
    (tmp_path / "sub" / "a.jpg").write_text("other")
    second = data_identity(str(tmp_path))
    assert second != first
    (tmp_path / "sub" / "a.jpg").rename(tmp_path / "sub" / "b.jpg")
    assert data_identity(str(tmp_path)) not in (first, second)


def test_data_identity_covers_every_place(tmp_path: Path):
    for name in ("data", "external"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_text(name)
    split = tmp_path / "split.csv"
    split.write_text("image_id,split\n")
    identities = [data_identity(str(tmp_path / "data"), "none", "random")]
    for change in ("", "one", "a third"):
        split.write_text(f"image_id,split\n{change}")
        identities.append(data_identity(str(tmp_path / "data"), str(tmp_path / "external"), str(split)))
    assert len(set(identities)) == 4


def test_data_identity_of_words_does_not_read_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    first = data_identity("demo", "none")
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "a.jpg").touch()
    assert data_identity("demo", "none") == first


def test_probe_is_hidden():
    assert PROBE.startswith(".")


# The champion; see also tests/integration/evaluate/test_champion.py


def test_check_without_a_champion_returns_no_text():
    assert run_check(IN_POD).champion == ""


def test_check_of_the_last_champion_returns_it_as_text(tmp_path: Path):
    text = run_check(options={"champion": "last"}, output=str(tmp_path / "run")).champion
    assert parse_choice(text) == ChosenChampion(requested="last", run=None)


def test_check_in_a_pod_refuses_a_champion_in_a_folder():
    error = error_of(IN_POD, {"champion": "runs/a"})
    assert (error.code, error.fields["name"]) == ("input.not_reachable", "champion")


@pytest.mark.parametrize(
    ("champion", "output", "code"), [("last", "auto", "champion.no_output"), ("absent", "auto", "champion.not_found")]
)
def test_check_refuses_a_champion_that_cannot_be_found(champion: str, output: str, code: str):
    assert error_of(options={"champion": champion}, output=output).code == code


def test_check_requires_the_file_of_weights(tmp_path: Path):
    options = {"weights": f"{tmp_path / 'body.h5'}#sha256={'0' * 64}"}
    assert error_of({}, options).code == "weights.unreadable"
    assert error_of(IN_POD, options).code == "input.not_reachable"
    (tmp_path / "body.h5").write_bytes(b"PK")
    assert error_of({}, options).code == "weights.unreadable"
    (tmp_path / "body.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert run_check({}, options).packs.real
