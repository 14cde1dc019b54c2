"""The parameter model, as commands, form and the first task check values."""

import pkgutil
from typing import Any

import pytest

from components.shared import parameters
from components.shared.errors import UserError
from components.shared.workflow_size import (
    MAX_CLASSIFIER_PACKS,
    Job,
    describe_pack,
    group,
    group_classes,
    pack_classifiers,
    parse_pack,
)
from components.train_gan import architectures


def error_of(values: dict[str, Any]) -> UserError:
    with pytest.raises(UserError) as caught:
        parameters.check(values)
    return caught.value


def test_defaults_are_valid_and_alphabetical_and_at_most_18():
    defaults = parameters.defaults()
    assert parameters.check({}) == defaults
    assert list(defaults) == sorted(defaults)
    assert len(defaults) <= 18


def test_every_parameter_has_a_description_and_an_allowed_form():
    for name in parameters.defaults():
        assert len(parameters.descriptions()[name]) > 10
        assert parameters.allowed(name)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("data", "Accepts demo, kaggle, gs://bucket/prefix (or s3://, az://) or a folder."),
        ("data_external", "Accepts none, gs://bucket/prefix (or s3://, az://) or a folder."),
        ("data_split", "Accepts random, k/n (fold k of n), or a CSV file with the columns image_id and split."),
        ("data_duplicates", "One of: refuse, move_to_train."),
        ("classifier_epochs", "A whole number from 1 to 1,000,000."),
    ],
)
def test_help_text_keeps_the_case_of_values(name: str, ending: str):
    assert parameters.help_text(name) == f"{parameters.descriptions()[name]} {ending}"


def test_descriptions_name_the_values_of_their_choices():
    for model, name in ((parameters.Parameters, "data_duplicates"), (parameters.Options, "failed_class")):
        for value in parameters.choices(model)[name]:
            assert value in parameters.descriptions(model)[name]


def test_choices_match_the_modules_that_implement_them():
    modules = {module.name for module in pkgutil.iter_modules(architectures.__path__)}
    assert set(parameters.choices(parameters.Options)["gan_architecture"]) == modules


def test_check_turns_whole_floats_of_json_into_integers():
    checked = parameters.check({"classifier_epochs": 3.0, "classifier_seeds": [1.0, 2], "gan_kimg": 4})
    assert (checked["classifier_epochs"], checked["classifier_seeds"], checked["gan_kimg"]) == (3, [1, 2], 4.0)
    assert isinstance(checked["classifier_epochs"], int)
    assert isinstance(checked["gan_kimg"], float)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classifier_epochs", 32.5),
        ("classifier_epochs", 0),
        ("classifier_epochs", True),
        ("classifier_seeds", []),
        ("classifier_seeds", ["1"]),
        ("classifier_seeds", [1, 1]),
        ("classifier_seeds", [-1]),
        ("classifier_seeds", list(range(21))),
        ("synthetic", ""),
        ("synthetic", "gan,gan"),
        ("synthetic", "/a,/b"),
        ("synthetic", "a=/x,a=/y"),
        ("synthetic", "a=/x,b=/x"),
        ("synthetic", "gan=/x"),
        ("synthetic", "zoo=gan"),
        ("synthetic", "augmented=/x"),
        ("synthetic", "oversampled=/x"),
        ("synthetic", "external=/x"),
        ("synthetic", "zoo=gs://b"),
        ("synthetic", "a=/1,b=/2,c=/3,d=/4,e=/5,f=/6"),
        ("data", ""),
        ("data", "ftp://bucket/x"),
        ("data", "s3://Bucket/x"),
        ("data", "az://con_tainer/x"),
        ("data", "gs://b"),
        ("data", "two\nlines"),
        ("data_image_size", 50),
        ("data_image_size", 4096),
        ("data_split", "6/5"),
        ("data_split", "0/5"),
        ("gan_kimg", float("nan")),
        ("gan_kimg", 0),
        ("gan_kimg", 10**400),
        ("gan_kimg", "3"),
        ("positive_classes", "a;b"),
        ("data_columns", "file"),
        ("data_columns", "image_id:"),
        ("data_columns", "photo:file"),
        ("data_columns", "image_id:file,dx:file"),
        ("data_columns", "dx:a,dx:b"),
        ("data", "gs://bucket/data.zip"),
        ("data", "az://container/images?sv=1&sig=abc"),
        ("random_seed", 2**53 + 1),
        ("synthetic_classes", "df,df"),
        ("synthetic_classes", "../x"),
        ("synthetic_per_class", 0),
        ("arms", "baseline"),
        ("arms", "oversampled,class_weights"),
        ("arms", "baseline,augmented"),
        ("arms", "baseline,class_weights,metadata"),
        ("arms", "baseline,oversampled,augmented,smote"),
        ("arms", "all,baseline"),
        ("arms", "augmented@0.5"),
        ("synthetic_shares", [0.0]),
        ("synthetic_shares", [1.01]),
        ("synthetic_shares", [0.5, 0.5]),
        ("synthetic_shares", [0.125]),
        ("synthetic_shares", []),
        ("synthetic_shares", ["half"]),
    ],
)
def test_check_refuses_what_kubeflow_accepts(name: str, value: Any):
    error = error_of({name: value})
    assert (error.code, error.fields["name"]) == ("parameter.invalid", name)
    assert error.hint.startswith("give ")


def test_check_refuses_an_unknown_name():
    error = error_of({"seed": 1})
    assert (error.code, error.fields["name"]) == ("parameter.unknown", "seed")


def test_parse_returns_each_parameters_type():
    given = {"random_seed": "7", "gan_kimg": "3", "synthetic_classes": "df", "classifier_seeds": "[4, 2]"}
    assert parameters.parse(given) == {
        "random_seed": 7,
        "gan_kimg": 3.0,
        "synthetic_classes": "df",
        "classifier_seeds": [4, 2],
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("random_seed", "1.5"),
        ("random_seed", ""),
        ("gan_kimg", "much"),
        ("gan_kimg", "nan"),
        ("gan_kimg", "inf"),
        ("classifier_seeds", ""),
        ("classifier_seeds", "1,x"),
    ],
)
def test_parse_refuses_text_of_another_type(name: str, text: str):
    with pytest.raises(UserError) as caught:
        parameters.parse({name: text})
    assert (caught.value.code, caught.value.fields) == ("parameter.invalid", {"name": name, "value": text})


def test_group_balances_the_tasks():
    assert group([1, 2, 3, 4, 5], 2) == ["1,2", "3,4", "5"]
    assert group([1, 2, 3, 4], 3) == ["1,2", "3,4"]
    assert group([], 2) == []


@pytest.mark.parametrize(
    ("count", "per_task", "tasks"), [(20, 1, 20), (21, 1, 11), (22, 2, 11), (41, 2, 14), (100, 1, 20)]
)
def test_group_classes_never_needs_more_tasks_than_a_workflow_holds(count: int, per_task: int, tasks: int):
    """Regression: a run with 21 rare classes failed after all images had been decoded."""
    names = [f"class{n}" for n in range(count)]
    groups = group_classes(names, per_task)
    assert (len(groups), ",".join(groups).split(",")) == (tasks, names)
    assert group_classes([], per_task) == []


def test_pack_classifiers_refuses_more_tasks_than_a_workflow_holds():
    with pytest.raises(UserError) as caught:
        pack_classifiers(["baseline"], range(MAX_CLASSIFIER_PACKS + 1), 1)
    assert caught.value.code == "workflow.too_many_classifiers"
    assert caught.value.fields["limit"] == MAX_CLASSIFIER_PACKS


def test_pack_classifiers_separates_arms_with_synthetic_images_and_marks_the_first_seed():
    packs = pack_classifiers(["baseline", "class_weights", "augmented@0.5"], [7, 2], 3)
    assert packs.real == ["baseline:7*,baseline:2", "class_weights:7*,class_weights:2"]
    assert packs.synthetic == ["augmented@0.5:7*,augmented@0.5:2"]
    assert parse_pack(packs.synthetic[0]) == [Job("augmented@0.5", 7, True), Job("augmented@0.5", 2, False)]
    assert describe_pack(packs.real[0]) == ["baseline", "seeds 7,2"]


def test_parse_columns_returns_the_named_ones():
    assert parameters.parse_columns("auto") == {}
    assert parameters.parse_columns("image_id:file name, dx:Label,lesion_id:patient") == {
        "image_id": "file name",
        "dx": "Label",
        "lesion_id": "patient",
    }


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        (["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"], ["mel", "bcc", "akiec"]),
        (["AKIEC", "BCC", "MEL", "NV"], []),
        (["bcc", "mel", "nv"], []),
        (["akiec", "bcc", "mel"], []),
        (["cat", "dog"], []),
    ],
)
def test_positive_classes_auto_takes_ham10000s_names_only(classes: list[str], found: list[str]):
    assert parameters.positive_classes("auto", classes) == found


@pytest.mark.parametrize(
    ("classes", "part"),
    [
        ("basal cell carcinoma,melanoma", "the class 'basal cell carcinoma' is called basal_cell_carcinoma here"),
        ("seborrheic_keratosis_irritated_variant", "is called seborrheic_keratosis_irritated here"),
        ("mel,,bcc", "it is not a list of class names, separated by commas"),
        ("a;b", "it is not a list of class names, separated by commas"),
        ("名", "no class is called '名'"),
    ],
)
def test_classes_in_another_form_are_refused_with_their_form(classes: str, part: str):
    for name in ("positive_classes", "synthetic_classes"):
        with pytest.raises(UserError) as caught:
            parameters.check({name: classes})
        assert part in str(caught.value)
        assert caught.value.code == "parameter.invalid"


def test_positive_classes_that_are_named_must_exist():
    assert parameters.positive_classes("b, a", ["a", "b", "c"]) == ["b", "a"]
    assert parameters.positive_classes("", ["a", "b"]) == []
    for selection, code in (("mel,a", "parameter.unknown_class"), ("a,b", "parameter.all_classes")):
        with pytest.raises(UserError) as caught:
            parameters.positive_classes(selection, ["a", "b"])
        assert (caught.value.code, caught.value.fields["name"]) == (code, "positive_classes")
