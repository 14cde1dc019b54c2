"""The compiled pipeline, as the Kubeflow backend reads it: graph, form, size, caching and placement."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.container_images import PHASE_OF
from components.placement import placement, set_plan
from components.shared import parameters
from components.shared.workflow_size import MAX_CLASS_GROUPS, MAX_CLASSIFIER_PACKS, group_classes, pack_classifiers
from counterweight import run
from counterweight.parameters import preset, preset_names
from counterweight.plan import MAX_PLAN_BYTES
from tests.helpers.compiled import Compiled, compile_pipeline, is_loop
from tests.helpers.workflow_estimate import argument_bytes, count_containers, status_bytes

KIB = 2**10
VISIBLE_CHARACTERS = 16
"""Of a node's name in the graph of Kubeflow's UI."""
HAM10000 = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_pipeline(tmp_path_factory.mktemp("build"))


def phase(name: str) -> str:
    """Return the phase of a task or an executor."""
    name = name.removeprefix("exec-").rstrip("-0123456789").replace("-", "_")
    return PHASE_OF.get(name, name)


def loop_over(compiled: Compiled, producer: str) -> list[str]:
    """Return the loops over the output of a task, or over an input of the nested pipeline."""
    return [n for n, t in compiled.loops().items() if producer in t["parameterIterator"]["items"]["inputParameter"]]


def iterations(compiled: Compiled, groups: int, real: int, synthetic: int) -> dict[str, int]:
    """Return the number of items of each loop."""
    items = {"class_groups": groups, "check-inputs-real": real, "check-inputs-synthetic": synthetic}
    return {name: count for source, count in items.items() for name in loop_over(compiled, source)}


# The graph


def test_compile_returns_the_same_bytes_every_time(compiled: Compiled, tmp_path: Path):
    assert compile_pipeline(tmp_path).content == compiled.content
    assert len(compiled.content) < 200_000


def test_root_is_flat_and_has_at_most_seven_tasks(compiled: Compiled):
    root = compiled.dags()["root"]
    assert sorted(task["taskInfo"]["name"] for task in root.values()) == [
        "Check inputs", "Evaluate", "Prepare data", "Publish", "Synthetic images", "train-on-real", "train-synthetic",
    ]  # fmt: skip


def root_artifacts(compiled: Compiled) -> list[tuple[str, str]]:
    """Return (task, artifact) of each artifact that the UI shows at the root."""
    components = compiled.spec["components"]
    return [
        (name, artifact)
        for name, task in compiled.dags()["root"].items()
        for artifact in components[task["componentRef"]["name"]].get("outputDefinitions", {}).get("artifacts", {})
    ]


def test_root_has_at_most_ten_artifacts(compiled: Compiled):
    artifacts = sorted(name.rpartition("train-classifier-")[2].lstrip("2-") for _, name in root_artifacts(compiled))
    assert artifacts == [
        "classifiers", "classifiers", "data_profile", "metrics", "published", "report", "results", "synthetic_images",
        "test_data", "training_data",
    ]  # fmt: skip


def ranks(compiled: Compiled) -> dict[str, int]:
    """Return the rank of each node at the root: tasks and artifacts below what they come from."""
    root = compiled.dags()["root"]
    artifacts = {f"{task}/{artifact}": task for task, artifact in root_artifacts(compiled)}
    parents: dict[str, set[str]] = {name: {task} for name, task in artifacts.items()}
    for name, task in root.items():
        sources = [
            entry["taskOutputArtifact"]
            for entry in task.get("inputs", {}).get("artifacts", {}).values()
            if "taskOutputArtifact" in entry
        ]
        parents[name] = {f"{it['producerTask']}/{it['outputArtifactKey']}" for it in sources}
        parents[name] |= set(task.get("dependentTasks", []))
    found: dict[str, int] = {}

    def rank(name: str) -> int:
        if name not in found:
            found[name] = 1 + max((rank(parent) for parent in parents[name]), default=-1)
        return found[name]

    return {name: rank(name) for name in parents}


def test_no_rank_of_the_root_has_more_than_six_nodes(compiled: Compiled):
    by_rank = list(ranks(compiled).values())
    assert max(by_rank.count(rank) for rank in set(by_rank)) <= 6


def test_display_names_are_fully_visible(compiled: Compiled):
    for name, task in compiled.tasks().items():
        assert len(task["taskInfo"]["name"]) <= VISIBLE_CHARACTERS, name


def test_nested_pipeline_trains_features_and_gans_and_collects(compiled: Compiled):
    nested = compiled.inside(compiled.dags()["root"]["make-synthetic-images"])
    (loop,) = (name for name, task in nested.items() if is_loop(task))
    assert set(nested) == {"read-other-data", "train-features", "pretrain-gan", loop, "balance-dataset"}
    assert set(compiled.inside(nested[loop])) == {"train-gan", "generate-images"}


def test_loops_iterate_over_return_values_of_tasks(compiled: Compiled):
    assert len(loop_over(compiled, "check-inputs-real")) == len(loop_over(compiled, "check-inputs-synthetic")) == 1
    assert len(loop_over(compiled, "class_groups")) == 1
    source = compiled.dags()["root"]["make-synthetic-images"]["inputs"]["parameters"]["class_groups"]
    assert source == {"taskOutputParameter": {"outputParameterKey": "Output", "producerTask": "prepare-data"}}


def test_loops_at_the_root_get_no_other_task_output(compiled: Compiled):
    """`kfp.local` replaces each of them by the loop's item."""
    for name in (*loop_over(compiled, "check-inputs-real"), *loop_over(compiled, "check-inputs-synthetic")):
        sources = compiled.loops()[name]["inputs"]["parameters"].values()
        assert sum("taskOutputParameter" in source for source in sources) == 1


def test_no_task_that_trains_reads_the_test_images(compiled: Compiled):
    readers = {
        name
        for name, task in compiled.tasks().items()
        for key, entry in task.get("inputs", {}).get("artifacts", {}).items()
        if "test_data" in (key, entry.get("taskOutputArtifact", {}).get("outputArtifactKey"))
    }
    nested = {"make-synthetic-images", "read-other-data"}
    assert readers == {"evaluate", "publish"} | nested, "publish copies splits.csv; read-other-data compares with them"


@pytest.mark.parametrize("name", ["train-gan", "generate-images", "balance-dataset"])
def test_tasks_of_the_rare_classes_download_no_image_of_another_class(compiled: Compiled, name: str):
    """`rare_data` has none, see tests/integration/train_features."""
    inputs = compiled.tasks()[name]["inputs"]["artifacts"]
    assert "rare_data" in str(inputs["rare_data"])
    assert not {"training_data", "test_data"} & set(inputs)
    assert "training_data" not in str(inputs)


def test_arms_differ_in_name_and_training_set_only(compiled: Compiled):
    real, synthetic = (compiled.tasks()[name]["inputs"] for name in ("train-classifier", "train-classifier-2"))
    packs = [it["parameters"]["pack"]["componentInputParameter"] for it in (real, synthetic)]
    assert [pack.removesuffix("-loop-item").rpartition("-")[2] for pack in packs] == ["real", "synthetic"]
    assert real["parameters"] == synthetic["parameters"] | {"pack": real["parameters"]["pack"]}
    assert real["parameters"]["synthetic_until"]["runtimeValue"]["constant"] == 1
    assert set(synthetic["artifacts"]) - set(real["artifacts"]) == {"synthetic_images"}


def test_only_evaluate_writes_metrics(compiled: Compiled):
    components = compiled.spec["components"]
    writers = {
        name
        for name, task in compiled.executed().items()
        for entry in components[task["componentRef"]["name"]].get("outputDefinitions", {}).get("artifacts", {}).values()
        if "Metrics" in entry["artifactType"]["schemaTitle"]
    }
    assert writers == {"evaluate"}


# The form


def test_form_is_the_parameter_model(compiled: Compiled):
    form = compiled.spec["root"]["inputDefinitions"]["parameters"]
    assert list(form) == list(parameters.defaults())
    for name, default in parameters.defaults().items():
        entry = form[name]
        assert entry["defaultValue"] == default, name
        assert entry["description"] == parameters.help_text(name)
        kinds = {str: "STRING", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", list: "LIST"}
        assert entry["parameterType"] == kinds[type(default)], name


def test_form_defaults_are_the_preset_for_cpus():
    assert parameters.defaults() == parameters.defaults() | preset("cpu")


def test_form_has_a_drop_down_for_each_parameter_with_choices(compiled: Compiled):
    form = compiled.spec["root"]["inputDefinitions"]["parameters"]
    literals = {name: tuple(entry["literals"]) for name, entry in form.items() if "literals" in entry}
    assert literals == parameters.choices()


def test_check_inputs_gets_every_parameter(compiled: Compiled):
    inputs = compiled.tasks()["check-inputs"]["inputs"]["parameters"]
    passed = {name for name, source in inputs.items() if source.get("componentInputParameter") == name}
    assert passed == set(parameters.defaults())


def test_prepare_data_gets_the_identity_of_the_data(compiled: Compiled):
    source = compiled.tasks()["prepare-data"]["inputs"]["parameters"]["data_identity"]
    assert source == {"taskOutputParameter": {"outputParameterKey": "data_identity", "producerTask": "check-inputs"}}


def test_options_are_compiled_in(tmp_path: Path):
    options = {"gans_per_task": 3, "failed_class": "continue", "checkpoints": "gs://bucket/x", "max_bad_images": 4}
    options["metadata"] = "late_fusion"
    compiled = compile_pipeline(tmp_path, {"options": options})
    tasks = compiled.tasks()

    def constant(task: str, name: str) -> Any:
        return tasks[task]["inputs"]["parameters"][name]["runtimeValue"]["constant"]

    assert constant("prepare-data", "gans_per_task") == 3
    assert constant("balance-dataset", "failed_class") == "continue"
    gan = compiled.platform["exec-train-gan"]
    kept = {"counterweight/checkpoints": "gs://bucket/x"}
    assert gan["podMetadata"]["annotations"] == kept | {"counterweight/failed-class": "continue"}
    for name in ("exec-pretrain-gan", "exec-train-classifier", "exec-train-classifier-2"):
        assert compiled.platform[name]["podMetadata"]["annotations"] == kept
    path = "metadata.annotations['counterweight/failed-class']"
    assert {"name": "COUNTERWEIGHT_FAILED_CLASS", "fieldPath": path} in gan["fieldPathAsEnv"]
    assert constant("check-inputs", "checkpoints") == "gs://bucket/x"
    assert constant("check-inputs", "max_bad_images") == constant("prepare-data", "max_bad_images") == 4
    for task in ("check-inputs", "train-classifier", "train-classifier-2"):
        assert constant(task, "metadata") == "late_fusion"


def test_plan_is_an_input_of_evaluate_alone_and_fits_into_its_arguments(compiled: Compiled, tmp_path: Path):
    """Quotes, of which a plan has many, are escaped in the arguments of a task."""
    text = '{"a": "b", ' * (MAX_PLAN_BYTES // 11)
    set_plan(text)
    try:
        citing = compile_pipeline(tmp_path)
    finally:
        set_plan("")
    tasks, cited = compiled.tasks(), citing.tasks()
    assert [name for name in tasks if tasks[name] != cited[name]] == ["evaluate"]
    assert cited["evaluate"]["inputs"]["parameters"]["plan"] == {"runtimeValue": {"constant": text}}
    assert citing.spec["components"] == compiled.spec["components"]
    assert argument_bytes(citing, "evaluate", iterations(citing, 1, 1, 1)) < 100 * KIB


@pytest.fixture(scope="module")
def comparing(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The pipeline with the option `champion`."""
    return compile_pipeline(tmp_path_factory.mktemp("comparing"), {"options": {"champion": "last"}})


def test_champion_is_read_before_anything_is_trained(comparing: Compiled):
    root = comparing.dags()["root"]
    assert root["read-champion"]["inputs"]["parameters"] == {
        "champion": {"taskOutputParameter": {"outputParameterKey": "champion_run", "producerTask": "check-inputs"}}
    }
    waiting = {name for name, task in root.items() if "read-champion" in task.get("dependentTasks", [])}
    (real,) = (n for n, t in root.items() if is_loop(t) and "make-synthetic-images" not in t["dependentTasks"])
    assert waiting == {"make-synthetic-images", real, "evaluate"}
    constant = comparing.tasks()["check-inputs"]["inputs"]["parameters"]["champion"]["runtimeValue"]["constant"]
    assert constant == "last"


def with_another_key(one: Compiled, other: Compiled) -> set[str]:
    """Return the tasks of one pipeline whose cache key differs in another: inputs, outputs, command or image."""

    def key(of: Compiled, name: str) -> tuple[Any, ...]:
        component = of.spec["components"][of.tasks()[name]["componentRef"]["name"]]
        executor = of.spec["deploymentSpec"]["executors"][component["executorLabel"]]
        return of.tasks()[name].get("inputs"), component, executor["container"]

    return {name for name in one.executed() if key(one, name) != key(other, name)}


def test_champion_restarts_no_gan_and_no_classifier(compiled: Compiled, comparing: Compiled):
    assert set(comparing.executed()) - set(compiled.executed()) == {"read-champion"}
    assert with_another_key(compiled, comparing) == {"check-inputs", "evaluate"}
    for name in set(DEPENDS_ON) - {"evaluate"}:
        assert depends_on(comparing, name) == DEPENDS_ON[name], name


def test_champion_in_the_cache_key_of_evaluate_is_the_hash_of_its_manifest(compiled: Compiled, comparing: Compiled):
    """The copy of its files is cached by what check_inputs returns, which contains the hash."""
    assert "champion" not in compiled.tasks()["evaluate"]["inputs"]["artifacts"]
    source = comparing.tasks()["evaluate"]["inputs"]["artifacts"]["champion"]
    assert source == {"taskOutputArtifact": {"outputArtifactKey": "champion_files", "producerTask": "read-champion"}}
    assert comparing.tasks()["read-champion"]["cachingOptions"] == {"enableCache": True}


@pytest.mark.parametrize(
    ("option", "tasks"),
    [
        ({"synthetic_until": 0.5}, {"train-classifier-2"}),
        ({"synthetic_weight": 0.5}, {"train-classifier", "train-classifier-2"}),
        ({"synthetic_smoothing": 0.2}, {"train-classifier", "train-classifier-2"}),
        (
            {"classifier": "convnext", "weights": f"gs://bucket/b.h5#sha256={'0' * 64}"},
            {"check-inputs", "train-classifier", "train-classifier-2"},
        ),
        ({"synthetic_selection": "label"}, {"generate-images"}),
        ({"synthetic_scope": "all"}, {"check-inputs", "read-other-data", "train-features", "train-classifier-2"}),
    ],
)
def test_option_restarts_what_it_changes_only(
    compiled: Compiled, tmp_path: Path, option: dict[str, Any], tasks: set[str]
):
    """Tasks after these run again if their results differ."""
    assert with_another_key(compiled, compile_pipeline(tmp_path, {"options": option})) == tasks


# Size


def tasks_of(compiled: Compiled, values: Mapping[str, Any]) -> tuple[int, int]:
    options = placement().options
    classes = values["synthetic_classes"]
    names = HAM10000[1:] if classes == "auto" else classes.split(",")
    groups = group_classes(names, options.gans_per_task)
    packs = pack_classifiers(parameters.arm_names(values), values["classifier_seeds"], options.classifiers_per_task)
    return count_containers(compiled, iterations(compiled, len(groups), len(packs.real), len(packs.synthetic)))


def test_demo_has_at_most_12_container_tasks_and_each_preset_at_most_40(compiled: Compiled):
    counts = {name: tasks_of(compiled, parameters.defaults() | preset(name))[0] for name in preset_names()}
    assert counts["demo"] <= 12
    assert max(counts.values()) <= 40


def test_largest_workflow_stays_below_half_of_argos_limit(compiled: Compiled):
    largest = iterations(compiled, MAX_CLASS_GROUPS, MAX_CLASSIFIER_PACKS, MAX_CLASSIFIER_PACKS)
    assert status_bytes(compiled, largest) < 512 * KIB


def test_arguments_of_the_largest_workflow_stay_below_half_of_argos_limit(compiled: Compiled):
    largest = iterations(compiled, MAX_CLASS_GROUPS, MAX_CLASSIFIER_PACKS, MAX_CLASSIFIER_PACKS)
    sizes = {name: argument_bytes(compiled, name, largest) for name in compiled.executed()}
    assert max(sizes.values()) < 64 * KIB, sizes


def test_estimate_counts_iterations_as_argo_does(compiled: Compiled):
    assert count_containers(compiled, iterations(compiled, 1, 1, 1)) == (12, 8)
    assert count_containers(compiled, iterations(compiled, 3, 2, 3)) == (19, 13)


# Caching


def test_check_inputs_and_publish_are_never_cached_and_everything_else_is(compiled: Compiled):
    for name, task in compiled.executed().items():
        assert bool(task.get("cachingOptions")) == (name not in ("check-inputs", "publish")), name


def test_run_id_is_no_parameter_of_a_cached_task(compiled: Compiled):
    """A run's id among a task's inputs would exclude every cached result of another run."""
    fields = {name: entry["fieldPathAsEnv"] for name, entry in compiled.platform.items() if "fieldPathAsEnv" in entry}
    kept = [
        {"fieldPath": "metadata.annotations['counterweight/checkpoints']", "name": "COUNTERWEIGHT_CHECKPOINTS"},
        {"fieldPath": "metadata.labels['pipeline/runid']", "name": "COUNTERWEIGHT_RUN"},
    ]
    policy = {
        "fieldPath": "metadata.annotations['counterweight/failed-class']",
        "name": "COUNTERWEIGHT_FAILED_CLASS",
    }
    others = {f"exec-{name}": kept for name in ("pretrain-gan", "train-classifier", "train-classifier-2")}
    assert fields == {"exec-train-gan": [policy, *kept]} | others
    for name, task in compiled.executed().items():
        if name != "publish":
            assert "{{$.pipeline_job" not in str(task.get("inputs")), name
        if name != "check-inputs":
            assert "checkpoints" not in task["inputs"]["parameters"], name


IDENTITY = {"data", "data_split"}
"""Parameters that `data_identity`, a value by which prepare_data is cached, depends on."""
OF_DATA = {*IDENTITY, "data_columns", "data_duplicates", "data_image_size", "random_seed", "synthetic_classes"}
OF_GANS = OF_DATA | {"gan_kimg", "gan_shared_kimg"}
OF_OTHERS = {"data_external", "synthetic", "synthetic_per_class"}
OF_IMAGES = OF_GANS | OF_OTHERS
OF_PACKS = {"arms", "classifier_seeds", "synthetic", "synthetic_shares"}
OF_CHECK: dict[str, set[str]] = {
    "data_identity": IDENTITY,
    "others_identity": {"data_external", "synthetic"},
    "train_gans": set(),
}
"""Output of check_inputs → parameters; `train_gans` is only whether `synthetic` names the GANs of the run."""
OF_REAL_CLASSIFIERS = OF_DATA | OF_PACKS | {"classifier_epochs", "synthetic_per_class"}
DEPENDS_ON = {
    "prepare-data": OF_DATA,
    "read-other-data": OF_DATA | OF_OTHERS,
    "train-features": OF_DATA,
    "pretrain-gan": OF_GANS - {"gan_kimg"},
    "train-gan": OF_GANS,
    "generate-images": OF_IMAGES,
    "balance-dataset": OF_IMAGES,
    "train-classifier": OF_REAL_CLASSIFIERS,
    "train-classifier-2": OF_IMAGES | OF_REAL_CLASSIFIERS,
    "evaluate": set(parameters.defaults()) - {"output"},
}
"""Task → the parameters that its cached result depends on, directly or through the tasks before it."""


def depends_on(compiled: Compiled, name: str) -> set[str]:
    """Return the parameters of the pipeline that reach a task, as values or in the artifacts of others."""
    dags = compiled.dags()
    of_task = {task: dag for dag, tasks in dags.items() for task in tasks}
    caller = {task["componentRef"]["name"]: (dag, task) for dag, tasks in dags.items() for task in tasks.values()}

    def of_output(dag: str, producer: str, key: str) -> set[str]:
        if producer == "check-inputs":
            return OF_CHECK.get(key, OF_PACKS)
        component = dags[dag][producer]["componentRef"]["name"]
        if component not in dags:
            return of_inputs(dag, dags[dag][producer])
        outputs = compiled.spec["components"][component]["dag"]["outputs"]
        found: set[str] = set()
        for kind in ("artifacts", "parameters"):
            for selectors in [outputs.get(kind, {}).get(key, {})]:
                for it in selectors.get("artifactSelectors", []) or selectors.get("valueFromParameter", []):
                    found |= of_output(component, it["producerSubtask"], it["outputArtifactKey"])
        return found

    def of_source(dag: str, source: Mapping[str, Any]) -> set[str]:
        for kind, key in (("taskOutputArtifact", "outputArtifactKey"), ("taskOutputParameter", "outputParameterKey")):
            if kind in source:
                return of_output(dag, source[kind]["producerTask"], source[kind][key])
        name = source.get("componentInputParameter") or source.get("componentInputArtifact")
        if not name:
            return set()
        if dag == "root":
            return {name}
        parent, task = caller[dag]
        if task.get("parameterIterator", {}).get("itemInput") == name:
            items = task["parameterIterator"]["items"]["inputParameter"]
            return of_source(parent, task["inputs"]["parameters"][items])
        inputs = task["inputs"]
        return of_source(parent, inputs.get("parameters", {}).get(name) or inputs.get("artifacts", {})[name])

    def of_inputs(dag: str, task: Mapping[str, Any]) -> set[str]:
        sources = [s for kind in ("parameters", "artifacts") for s in task.get("inputs", {}).get(kind, {}).values()]
        return set().union(*(of_source(dag, source) for source in sources))

    return of_inputs(of_task[name], dags[of_task[name]][name])


@pytest.mark.parametrize("task", DEPENDS_ON)
def test_cached_result_depends_on_these_parameters_only(compiled: Compiled, task: str):
    assert depends_on(compiled, task) == DEPENDS_ON[task]


def test_no_setting_of_the_evaluation_restarts_a_gan(compiled: Compiled):
    evaluation = {"positive_classes", "arms", "classifier_epochs", "classifier_seeds", "synthetic_shares", "output"}
    evaluation |= {"data_external"}
    for task in ("prepare-data", "train-features", "pretrain-gan", "train-gan"):
        assert not depends_on(compiled, task) & evaluation


def test_columns_are_an_input_of_check_inputs_prepare_data_and_evaluate_alone(compiled: Compiled):
    """They decide the ids of lesions, so the record of a run states them; *Read other data* is in another graph."""
    source = {"componentInputParameter": "data_columns"}
    given = {
        name: [key for key, value in task["inputs"].get("parameters", {}).items() if value == source]
        for name, task in compiled.executed().items()
    }
    assert {name: keys for name, keys in given.items() if keys} == {
        "check-inputs": ["data_columns"],
        "prepare-data": ["columns"],
        "evaluate": ["data_columns"],
    }


def test_keys_of_local_checkpoints_are_the_parameters_of_training():
    assert set(run.GAN_PARAMETERS) == OF_GANS
    which = {"arms", "classifier_seeds", "synthetic_shares"}  # these decide only which classifiers are trained
    # The external set travels with the synthetic images, but no classifier is trained on it.
    assert set(run.CLASSIFIER_PARAMETERS) == DEPENDS_ON["train-classifier-2"] - which - {"data_external"}


# Placement


def test_each_task_has_the_placement_of_its_phase(compiled: Compiled):
    for name, task in compiled.executed().items():
        resources = placement().phases[phase(name)]
        retry = task.get("retryPolicy", {})
        assert retry.get("maxRetryCount", 0) == resources.retries, name
        # Argo counts it from the first attempt's start: the last one must fit in.
        longest_s = float(retry["backoffMaxDuration"].removesuffix("s"))
        assert longest_s > (resources.retries + 1) * resources.timeout_h * 3600, name
    executors = compiled.spec["deploymentSpec"]["executors"]
    assert set(executors) == set(compiled.platform)
    for name, kubernetes in compiled.platform.items():
        resources = placement().phases[phase(name)]
        container = executors[name]["container"]["resources"]
        assert container["resourceMemoryLimit"] == container["resourceMemoryRequest"] == resources.memory
        assert container["resourceCpuLimit"] == container["resourceCpuRequest"] == resources.cpu
        assert ("accelerator" in container) == (phase(name) == "train_gan")
        assert kubernetes["activeDeadlineSeconds"] == str(round(resources.timeout_h * 3600))
        assert kubernetes["emptyDirMounts"] == [{"mountPath": "/tmp", "sizeLimit": "50Gi", "volumeName": "tmp"}]
        assert kubernetes["securityContext"] == {"runAsNonRoot": True}
        assert "cloud.google.com/gke-spot" in {entry["key"] for entry in kubernetes["tolerations"]}
    gpu = executors["exec-train-gan"]["container"]["resources"]["accelerator"]
    assert (gpu["resourceType"], gpu["resourceCount"]) == ("nvidia.com/gpu", "1")


def test_each_phase_has_its_own_image_pinned_by_content(compiled: Compiled):
    executors = compiled.spec["deploymentSpec"]["executors"]
    images = {name: entry["container"]["image"] for name, entry in executors.items()}
    assert len(set(images.values())) == len({phase(name) for name in images})
    for name, reference in images.items():
        repository, _, tag = reference.partition(":")
        assert repository == f"counterweight/{phase(name).replace('_', '-')}"
        assert len(tag) == 16
        assert set(tag) <= set("0123456789abcdef")


# Notification


@pytest.fixture(scope="module")
def notifying(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_pipeline(tmp_path_factory.mktemp("notifying"), {"webhook_secret": "counterweight-webhook"})


def test_without_a_notification_there_is_no_exit_handler(compiled: Compiled):
    assert not any("exit-handler" in name or name == "notify" for name in compiled.tasks())


def test_notify_runs_after_every_end_of_the_run(notifying: Compiled):
    root = notifying.dags()["root"]
    assert set(root) == {"exit-handler-1", "notify"}
    assert root["notify"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert root["notify"]["dependentTasks"] == ["exit-handler-1"]
    assert not root["notify"].get("cachingOptions")


def test_webhook_is_an_optional_secret(notifying: Compiled, tmp_path: Path):
    (secret,) = notifying.platform["exec-notify"]["secretAsEnv"]
    assert secret["keyToEnv"] == [{"envVar": "COUNTERWEIGHT_WEBHOOK", "secretKey": "url"}]
    assert secret["optional"] is True
    assert [name for name, entry in notifying.platform.items() if "secretAsEnv" in entry] == ["exec-notify"]
    without = compile_pipeline(tmp_path, {"notify": True})
    assert "secretAsEnv" not in without.platform["exec-notify"]


def test_golden_yaml_has_a_spec_and_a_platform(compiled: Compiled):
    assert len(list(yaml.safe_load_all(compiled.content))) == 2
