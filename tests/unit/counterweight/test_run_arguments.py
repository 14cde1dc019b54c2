"""What a local run makes of its command line."""

from pathlib import Path
from typing import Any

import pytest

from components import placement
from components.shared.errors import UserError
from components.shared.parameters import defaults
from counterweight import parameters, run
from tests.helpers.errors import raises_user_error


def arguments(*words: str) -> tuple[str, dict[str, Any], Path]:
    return run.arguments(list(words), defaults())


def test_arguments_give_the_same_command_the_same_run_id():
    first, values, folder = arguments("random_seed=3")
    assert arguments("PRESET=demo", "random_seed=3")[0] == first
    assert arguments("random_seed=4")[0] != first
    assert arguments("random_seed=3", "OUT=/tmp/elsewhere")[0] == first
    assert folder == Path("runs", first).resolve()
    assert values["output"] == str(folder)


def test_arguments_take_precedence_over_the_preset_and_it_over_the_default(tmp_path: Path):
    values = arguments("PRESET=cpu", "gan_kimg=1", f"DATA={tmp_path}")[1]
    assert (values["gan_kimg"], values["data_image_size"], values["random_seed"]) == (1.0, 64, 1)
    assert values["data"] == str(tmp_path)


def test_arguments_with_the_results_inside_the_data_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The results contain images, which the next run would read."""
    (tmp_path / "data" / "df").mkdir(parents=True)
    data = tmp_path / "data"
    for words in ([f"DATA={data}"], ["DATA=demo", f"synthetic={data}"], [f"DATA={tmp_path}", f"EXTERNAL={data}"]):
        with raises_user_error("run.output_in_data", output=str(data / "df" / "out")):
            arguments(*words, f"OUT={data / 'df' / 'out'}")
    assert arguments(f"DATA={data}", f"OUT={tmp_path / 'data-results'}")[2] == tmp_path / "data-results"
    monkeypatch.chdir(data)
    with raises_user_error("run.output_in_data"):
        arguments("DATA=.")


def test_arguments_give_changed_data_another_run_id(tmp_path: Path):
    (tmp_path / "a.jpg").write_text("one")
    first = arguments(f"DATA={tmp_path}")[0]
    assert arguments(f"DATA={tmp_path}")[0] == first
    (tmp_path / "a.jpg").write_text("other")
    assert arguments(f"DATA={tmp_path}")[0] != first


@pytest.mark.parametrize(
    ("words", "preset", "rare"),
    [
        ([], "demo", "df,vasc"),
        (["DATA=demo"], "demo", "df,vasc"),
        (["DATA=kaggle"], "cpu", "auto"),
        (["DATA=kaggle", "PRESET=demo"], "demo", "auto"),
        (["DATA=kaggle", "PRESET=demo", "synthetic_classes=df"], "demo", "df"),
        (["data=gs://bucket/images"], "cpu", "auto"),
    ],
)
def test_arguments_choose_the_preset_for_the_data(words: list[str], preset: str, rare: str):
    run_id, values, _ = arguments(*words)
    assert f"-{preset}-" in run_id
    assert values["synthetic_classes"] == rare


def test_choose_preset_explains_the_choice():
    assert parameters.choose_preset("", "demo")[2] == "preset demo, chosen for the demo data"
    assert parameters.choose_preset("", "gs://b/x")[2] == "preset cpu, chosen for data other than demo"
    assert parameters.choose_preset("demo", "gs://b/x")[2].endswith(
        "without synthetic_classes=df,vasc, which names classes of the demo data"
    )


@pytest.mark.parametrize(
    ("file", "code"),
    [("ham.zip", "data.packed"), ("metadata.csv", "data.not_a_folder"), ("notes", "data.not_a_folder")],
)
@pytest.mark.parametrize("name", ["DATA", "EXTERNAL"])
def test_arguments_with_a_file_as_data_say_what_it_is(tmp_path: Path, file: str, code: str, name: str):
    (tmp_path / file).touch()
    with pytest.raises(UserError) as caught:
        arguments(f"{name}={tmp_path / file}")
    assert (caught.value.code, caught.value.fields["name"]) == (code, name)


def test_arguments_give_another_architecture_another_run_id(monkeypatch: pytest.MonkeyPatch):
    first = arguments()[0]
    monkeypatch.setattr(placement, "_overrides", {"gan_architecture": "dcgan"})
    placement.placement.cache_clear()
    assert arguments()[0] != first
    placement.placement.cache_clear()


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("data_split=2/5", "data_split"),
        ("data_split=gs://bucket/s.csv", "data_split"),
        ("data_split=random", "data_split"),
        ("data_external=gs://bucket/x", "data_external"),
        ("EXTERNAL=none", "data_external"),
    ],
)
def test_arguments_leave_values_that_are_no_path_unchanged(word: str, name: str):
    assert arguments(word)[1][name] == word.partition("=")[2]


@pytest.mark.parametrize(
    "words",
    [
        ["OUT=gs://bucket/x"],
        ["data_split=no.csv"],
        ["EXTERNAL=/no/folder"],
        ["data_split=."],
        ["DATA=~nobody-of-this-name/x"],
        ["OUT=a", "output=b"],
        ["DATA=demo", "data=demo"],
    ],
)
def test_arguments_refuse_what_a_local_run_cannot_use(words: list[str]):
    with pytest.raises(UserError):
        arguments(*words)


def test_gan_key_ignores_settings_of_the_evaluation():
    values = arguments("DATA=demo")[1]
    for word in ("positive_classes=mel", "classifier_epochs=3", "classifier_seeds=5", "OUT=elsewhere", "arms=all"):
        assert run.gan_key(arguments("DATA=demo", word)[1]) == run.gan_key(values)
    for word in ("gan_kimg=3", "random_seed=2", "data_image_size=48", "data_split=1/5", "synthetic_classes=df"):
        assert run.gan_key(arguments("DATA=demo", word)[1]) != run.gan_key(values)


def test_checkpoint_folder_is_shared_by_runs_with_the_same_gans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "CACHE", tmp_path)
    (tmp_path / "checkpoints" / "0123-of-other-code").mkdir(parents=True)
    folder = run.checkpoint_folder("0123")
    assert folder == run.checkpoint_folder("0123") != run.checkpoint_folder("4567")
    assert not (tmp_path / "checkpoints" / "0123-of-other-code").exists()
