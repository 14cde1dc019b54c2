"""What a local run makes of its command line."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components import placement
from components.shared.errors import UserError
from components.shared.parameters import defaults
from counterweight import parameters, run
from tests.helpers.errors import raises_user_error


def arguments(*words: str) -> tuple[str, dict[str, Any], Path]:
    given, _ = parameters.split_options(parameters.assignments(list(words)))
    return run.arguments(given, defaults())


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
    other = parameters.choose_preset("demo", "gs://b/x")[2]
    assert other == "preset demo (synthetic_classes not applied: it names demo classes)"


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


@pytest.fixture
def override(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A function that sets options of the installation."""

    def set_options(**options: str) -> None:
        monkeypatch.setattr(placement, "_overrides", options)
        placement.placement.cache_clear()

    yield set_options
    placement.placement.cache_clear()


@pytest.mark.parametrize(
    "option", [{"gan_architecture": "dcgan"}, {"metadata": "late_fusion"}, {"synthetic_until": 0.5}]
)
def test_arguments_give_another_option_another_run_id(override: Callable[..., None], option: dict[str, str]):
    first = arguments()[0]
    override(**option)
    assert arguments()[0] != first


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
    ("words", "code"),
    [
        (["OUT=gs://bucket/x"], "run.remote_output"),
        (["data_split=no.csv"], "run.missing_path"),
        (["EXTERNAL=/no/folder"], "run.missing_path"),
        (["data_split=."], "run.missing_path"),
        (["DATA=~nobody-of-this-name/x"], "run.missing_path"),
    ],
)
def test_arguments_refuse_what_a_local_run_cannot_use(words: list[str], code: str):
    with raises_user_error(code):
        arguments(*words)


def key(phase: str, *words: str) -> str:
    return run.checkpoint_key(phase, arguments("DATA=demo", *words)[1])


@pytest.mark.parametrize("phase", run.CHECKPOINTED)
def test_checkpoint_key_ignores_settings_of_the_evaluation(phase: str):
    for word in ("positive_classes=mel", "classifier_seeds=5", "OUT=elsewhere", "arms=all", "synthetic_shares=0.5"):
        assert key(phase, word) == key(phase)
    for word in ("gan_kimg=3", "random_seed=2", "data_image_size=48", "data_split=1/5", "synthetic_classes=df"):
        assert key(phase, word) != key(phase)


def test_checkpoint_key_of_gans_ignores_settings_of_classifiers(tmp_path: Path):
    (tmp_path / "df.png").write_bytes(b"x")
    for word in ("classifier_epochs=3", "synthetic_per_class=7", f"synthetic=gan,other={tmp_path}"):
        assert key("train_gan", word) == key("train_gan")
        assert key("train_classifier", word) != key("train_classifier")
    before = key("train_classifier", f"synthetic=gan,other={tmp_path}")
    (tmp_path / "df.png").write_bytes(b"other")
    assert key("train_classifier", f"synthetic=gan,other={tmp_path}") != before


def test_checkpoint_key_of_gans_ignores_the_option_metadata(override: Callable[..., None]):
    before = {phase: key(phase) for phase in run.CHECKPOINTED}
    override(metadata="late_fusion")
    assert key("train_gan") == before["train_gan"]
    assert key("train_classifier") != before["train_classifier"]


def test_checkpoint_folders_delete_those_of_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "CACHE", tmp_path)
    values = arguments("DATA=demo")[1]
    old = [tmp_path / "checkpoints" / f"{key(phase)}-of-other-code" for phase in run.CHECKPOINTED]
    other = tmp_path / "checkpoints" / f"{key('train_gan', 'random_seed=2')}-x"
    for folder in (*old, other):
        folder.mkdir(parents=True)
    folders = run.checkpoint_folders(values)
    assert len(set(folders.values())) == 2
    assert folders == run.checkpoint_folders(values)
    assert not any(folder.exists() for folder in old)
    assert other.exists()


def test_checkpoints_of_trainings_that_another_run_stopped_remain(tmp_path: Path):
    """Arms and seeds are not in the key, so a run with fewer arms has the folder of the stopped one."""
    trainings = ("baseline-seed1", "baseline-seed4", "class_weights-seed1")
    names = [f"train_classifier-{training}-float32" for training in trainings]
    for name in names:
        (tmp_path / "classifiers" / name).mkdir(parents=True)
    for name in ("train_gan-df", "pretrain_gan"):
        (tmp_path / "gans" / name).mkdir(parents=True)
    folders = {"train_gan": tmp_path / "gans", "train_classifier": tmp_path / "classifiers", "other": tmp_path / "none"}
    values = arguments("DATA=demo", "arms=baseline,logit_adjustment", "classifier_seeds=1,2")[1]
    run.delete_checkpoints(folders, values)
    assert sorted(path.name for path in folders["train_classifier"].iterdir()) == names[1:]
    assert len(list(folders["train_gan"].iterdir())) == 2
    run.delete_checkpoints(folders, arguments("DATA=demo", "arms=baseline,oversampled,augmented")[1])
    assert not folders["train_gan"].exists()


def test_arguments_with_the_last_champion_give_each_run_a_folder_in_the_output(tmp_path: Path):
    """Otherwise a run without a candidate would replace the run that has one."""
    placement.override_options({"champion": "last"})
    run_id, values, folder = arguments(f"OUT={tmp_path}")
    assert folder == tmp_path / run_id
    assert values["output"] == str(folder)
    assert arguments()[2] == Path("runs", run_id).resolve()


def test_resolve_options_returns_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first").mkdir()
    resolved = [run.resolve_options({"champion": value})["champion"] for value in ("first", "last", "none", "gs://a/b")]
    assert resolved == [str(tmp_path / "first"), "last", "none", "gs://a/b"]
    assert run.resolve_options({"gans_per_task": "1"}) == {"gans_per_task": "1"}
    with raises_user_error("run.missing_path", name="champion"):
        run.resolve_options({"champion": "absent"})


def test_resolve_options_adds_the_hash_of_a_file_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "body.h5").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert run.resolve_options({"weights": "body.h5"}) == {"weights": f"{tmp_path}/body.h5#sha256={digest}"}
    remote = f"gs://a/body.h5#sha256={'0' * 64}"
    for text in ("none", remote):
        assert run.resolve_options({"weights": text}) == {"weights": text}
    with raises_user_error("weights.other_hash", sha256=digest):
        run.resolve_options({"weights": f"body.h5#sha256={'0' * 64}"})
    with raises_user_error("run.missing_path", name="weights"):
        run.resolve_options({"weights": "absent.h5"})
