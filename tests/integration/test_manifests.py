"""The objects that `kubectl apply -k` would send: rendered by the real tool, checked against Kubernetes' schemas.

Schemas of custom resources (Kueue, KServe) are in no package: those objects are checked for their references only, and
the test prints that of Kueue's.
"""

import itertools
import json
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2] / "manifests"
VERSIONS = ("1.30", "1.36")
OVERLAYS = sorted(path.name for path in (ROOT / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (ROOT / "components").iterdir())
SETTINGS = {
    "gpus": "3",
    "pipeline-root": "gs://a-bucket/root",
    "runner-identity": "runner@a-project.iam.gserviceaccount.com",
    "ci-identity": "ci@a-project.iam.gserviceaccount.com",
    "s3-providers": "s3:\n  default:\n    credentials:\n      fromEnv: true\n",
}
# Secrets and ConfigMaps that runs may read and that others create: KFP, or the user by the README's commands.
FOREIGN = {"mlpipeline-minio-artifact", "counterweight-s3", "kfp-launcher"}
CLUSTER_WIDE = {"Namespace", "ClusterQueue", "ResourceFlavor"}

KUSTOMIZE = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
needs_kustomize = pytest.mark.skipif(
    not shutil.which(KUSTOMIZE[0]), reason="NOTHING IS RENDERED: neither kubectl nor kustomize is installed"
)


def combinations() -> Iterator[tuple[str, ...]]:
    """Yield every sensible set of components: at most one pipeline root, spot GPUs with Kueue, single-user last."""
    roots = [(), ("pipeline-root-kfp",), ("pipeline-root-gcs",), ("pipeline-root-s3",)]
    queues = [(), ("gpu-quota",), ("kueue",), ("kueue", "spot-gpus"), ("gpu-quota", "kueue", "spot-gpus")]
    identities = [(), ("workload-identity",)]
    installs = [(), ("single-user",)]
    for parts in itertools.product(identities, roots, queues, installs):
        yield tuple(itertools.chain.from_iterable(parts))


def rendered(folder: Path) -> tuple[dict, ...]:
    done = subprocess.run([*KUSTOMIZE, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # kustomize warns of deprecated fields
    return tuple(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict, ...]]:
    """Return the rendered objects of overlays, combinations of components and the controller's settings, by name."""
    copy = tmp_path_factory.mktemp("manifests")
    shutil.copytree(ROOT, copy, dirs_exist_ok=True)
    settings = yaml.safe_load((ROOT / "overlays/prod/settings.yaml").read_text(encoding="utf-8"))
    folders = {f"overlay {name}": ROOT / "overlays" / name for name in OVERLAYS}
    for components in combinations():
        name = "+".join(components) or "nothing"
        folders[name] = copy / "overlays" / name
        folders[name].mkdir()
        (folders[name] / "settings.yaml").write_text(yaml.safe_dump(settings | {"data": SETTINGS}))
        kustomization = {
            "resources": ["../../base", "settings.yaml"],
            "components": [f"../../components/{component}" for component in components],
        }
        (folders[name] / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    folders["workflow-controller"] = ROOT / "workflow-controller"
    with ThreadPoolExecutor() as threads:
        return dict(zip(folders, threads.map(rendered, folders.values()), strict=True))


def of(objects: tuple[dict, ...], kind: str) -> list[dict]:
    return [each for each in objects if each["kind"] == kind]


def one(objects: tuple[dict, ...], kind: str, name: str) -> dict:
    (found,) = (each for each in of(objects, kind) if each["metadata"]["name"] == name)
    return found


def test_combinations_cover_every_component():
    assert set(itertools.chain.from_iterable(combinations())) == set(COMPONENTS)


def test_kustomizations_use_every_file():
    used = set()
    for path in ROOT.rglob("kustomization.yaml"):
        kustomization = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name in [*kustomization.get("resources", []), *kustomization.get("components", [])]:
            target = (path.parent / name).resolve()
            used.add(target / "kustomization.yaml" if target.is_dir() else target)
            assert target.exists(), f"{path} names {name}"
    files = {path for path in ROOT.glob("*/**/*.yaml") if path.name != "kustomization.yaml"}
    assert files <= used


@pytest.mark.parametrize("version", VERSIONS)
def test_file_meets_the_kubernetes_schema(version: str):
    """Without kustomize, this is the only check of the objects."""
    checked = 0
    for path in ROOT.glob("*/**/*.yaml"):
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if not each["apiVersion"].startswith(("kustomize.config.k8s.io/", "kueue.x-k8s.io/", "serving.kserve.io/")):
                assert kubernetes_validate.validate(each, version, strict=True) == version
                checked += 1
    assert checked >= 20


@needs_kustomize
@pytest.mark.parametrize("version", VERSIONS)
def test_rendered_object_meets_the_kubernetes_schema(variants: dict[str, tuple[dict, ...]], version: str):
    objects = {json.dumps(each, sort_keys=True): each for group in variants.values() for each in group}
    checked, without = 0, set()
    for each in objects.values():
        try:
            assert kubernetes_validate.validate(each, version, strict=True) == version
            checked += 1
        except kubernetes_validate.SchemaNotFoundError:
            without.add(f"{each['apiVersion']} {each['kind']}")
    assert checked >= 30
    assert without == {f"kueue.x-k8s.io/v1beta2 {kind}" for kind in ("ClusterQueue", "LocalQueue", "ResourceFlavor")}
    warnings.warn(f"no schema at hand, not validated: {', '.join(sorted(without))}", stacklevel=1)


@needs_kustomize
def test_schema_detects_a_wrong_field(variants: dict[str, tuple[dict, ...]]):
    policy = one(variants["nothing"], "NetworkPolicy", "counterweight-deny")
    wrong = policy | {"spec": policy["spec"] | {"podSelectors": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@needs_kustomize
def test_objects_are_in_one_namespace(variants: dict[str, tuple[dict, ...]]):
    for name, objects in variants.items():
        home = "kubeflow" if "single-user" in name or name == "workflow-controller" else "counterweight"
        for each in objects:
            expected = None if each["kind"] in CLUSTER_WIDE else home
            assert each["metadata"].get("namespace") == expected, (name, each["kind"], each["metadata"])
        for binding in of(objects, "RoleBinding"):
            assert [subject["namespace"] for subject in binding["subjects"]] == [home]
        for queue in of(objects, "ClusterQueue"):
            assert queue["spec"]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": home}}
        assert [each["metadata"]["name"] for each in of(objects, "Namespace")] == (
            [home] if home == "counterweight" else []
        )


@needs_kustomize
def test_objects_are_unique(variants: dict[str, tuple[dict, ...]]):
    for objects in variants.values():
        keys = [(each["kind"], each["metadata"]["name"]) for each in objects]
        assert len(keys) == len(set(keys))


@needs_kustomize
def test_bindings_name_existing_roles_and_accounts(variants: dict[str, tuple[dict, ...]]):
    for objects in variants.values():
        accounts = {each["metadata"]["name"] for each in of(objects, "ServiceAccount")}
        roles = {each["metadata"]["name"] for each in of(objects, "Role")}
        for binding in of(objects, "RoleBinding"):
            assert binding["roleRef"]["kind"] == "Role"
            assert binding["roleRef"]["name"] in roles
            assert {subject["kind"] for subject in binding["subjects"]} == {"ServiceAccount"}
            assert {subject["name"] for subject in binding["subjects"]} <= accounts
        assert not of(objects, "ClusterRole")
        assert not of(objects, "ClusterRoleBinding")


@needs_kustomize
def test_roles_have_no_wildcard(variants: dict[str, tuple[dict, ...]]):
    for objects in variants.values():
        for role in of(objects, "Role"):
            for rule in role["rules"]:
                words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
                assert not [word for word in words if "*" in word]
                assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
                if {"secrets", "configmaps"} & set(rule["resources"]):
                    assert rule["verbs"] == ["get"]
                    assert set(rule["resourceNames"]) <= FOREIGN


@needs_kustomize
def test_runner_reads_only_the_key_of_its_object_store(variants: dict[str, tuple[dict, ...]]):
    for name, objects in variants.items():
        rules = [rule for role in of(objects, "Role") for rule in role["rules"] if "secrets" in rule["resources"]]
        named = {secret for rule in rules for secret in rule["resourceNames"]}
        if "pipeline-root-s3" in name:
            assert named == {"counterweight-s3"}
        elif "pipeline-root-kfp" in name or name == "overlay dev":
            assert named == {"mlpipeline-minio-artifact"}
        else:
            assert not named


@needs_kustomize
def test_manifests_apply_no_secret_and_no_settings(variants: dict[str, tuple[dict, ...]]):
    for objects in variants.values():
        assert not of(objects, "Secret")
        assert "counterweight-settings" not in {each["metadata"]["name"] for each in objects}


@needs_kustomize
def test_namespace_enforces_restricted_pod_security(variants: dict[str, tuple[dict, ...]]):
    for name in OVERLAYS:
        labels = one(variants[f"overlay {name}"], "Namespace", "counterweight")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        assert labels["app.kubernetes.io/part-of"] == "kubeflow-profile"


@needs_kustomize
def test_network_policies_allow_only_what_runs_need(variants: dict[str, tuple[dict, ...]]):
    for name, objects in variants.items():
        if name == "workflow-controller":
            continue
        policies = of(objects, "NetworkPolicy")
        assert not [policy for policy in policies if policy["spec"].get("ingress")]
        runs = [{"key": "workflows.argoproj.io/workflow", "operator": "Exists"}]
        selector = {"matchExpressions": runs} if "single-user" in name else {}
        assert all(policy["spec"]["podSelector"] == selector for policy in policies)
        deny = one(objects, "NetworkPolicy", "counterweight-deny")
        assert set(deny["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        assert "egress" not in deny["spec"]
        rules = [rule for policy in policies for rule in policy["spec"].get("egress", [])]
        assert all(rule["to"] and rule["ports"] for rule in rules)
        ports = {port["port"] for rule in rules for port in rule["ports"]}
        metadata_server = {80, 988} if "workload-identity" in name or name == "overlay prod" else set()
        assert ports == {53, 443, 6443, 8080, 8333, 8887, 8888} | metadata_server


@needs_kustomize
def test_settings_reach_the_objects(variants: dict[str, tuple[dict, ...]]):
    everything = variants["workload-identity+pipeline-root-s3+gpu-quota+kueue+spot-gpus"]
    for account in ("runner", "ci"):
        annotations = one(everything, "ServiceAccount", f"counterweight-{account}")["metadata"]["annotations"]
        assert annotations == {"iam.gke.io/gcp-service-account": SETTINGS[f"{account}-identity"]}
    quota = one(everything, "ResourceQuota", "counterweight-gpus")
    assert quota["spec"]["hard"] == {"requests.nvidia.com/gpu": "3"}
    groups = one(everything, "ClusterQueue", "counterweight")["spec"]["resourceGroups"]
    for group in groups:
        for flavor in group["flavors"]:
            assert [resource["name"] for resource in flavor["resources"]] == group["coveredResources"]
    assert groups[1]["flavors"][0]["resources"] == [{"name": "nvidia.com/gpu", "nominalQuota": "3"}]
    launcher = one(everything, "ConfigMap", "kfp-launcher")["data"]
    assert launcher["defaultPipelineRoot"] == SETTINGS["pipeline-root"]
    assert launcher["providers"] == SETTINGS["s3-providers"]


@needs_kustomize
def test_queue_flavor_and_spot_nodes_match(variants: dict[str, tuple[dict, ...]]):
    objects = variants["overlay prod"]
    local = one(objects, "LocalQueue", "counterweight")
    queue = one(objects, "ClusterQueue", local["spec"]["clusterQueue"])
    cpu, gpu = (group["flavors"][0]["name"] for group in queue["spec"]["resourceGroups"])
    assert one(objects, "ResourceFlavor", cpu)["spec"] == {}
    spec = one(objects, "ResourceFlavor", gpu)["spec"]
    assert spec["nodeLabels"] == {"cloud.google.com/gke-spot": "true"}
    assert [(each["key"], each["value"]) for each in spec["tolerations"]] == [*spec["nodeLabels"].items()]
    assert one(variants["kueue"], "ResourceFlavor", gpu)["spec"] == {}


@needs_kustomize
def test_retry_policy_is_conditional_and_keeps_kfps_defaults(variants: dict[str, tuple[dict, ...]]):
    (config,) = variants["workflow-controller"]
    # The object is KFP's: another key here would replace KFP's.
    assert list(config["data"]) == ["workflowDefaults"]
    spec = yaml.safe_load(config["data"]["workflowDefaults"])["spec"]
    assert spec["ttlStrategy"]["secondsAfterCompletion"] == 3600
    retry = spec["templateDefaults"]["retryStrategy"]
    assert (retry["retryPolicy"], retry["limit"]) == ("Always", "2")
    assert set(retry) == {"retryPolicy", "limit", "expression"}
    assert retry["expression"].count("(") == retry["expression"].count(")")


RETRIED = [
    ("Error", "", "pod deleted"),
    ("Failed", "1", "main: Error (exit code 1)"),
    ("Failed", "137", "main: Error (exit code 137)"),
    ("Failed", "", "The node was low on resource: memory."),
    ("Failed", "", "Pod was evicted"),
    ("Failed", "", "Preempted in order to admit critical pod"),
    ("Failed", "", "Pod was terminated in response to imminent node shutdown."),
]
NOT_RETRIED = [
    ("Failed", "137", "main: OOMKilled (exit code 137)"),
    ("Failed", "", "Pod was active on the node longer than the specified deadline"),
    ("Failed", "1", 'main: Error (exit code 1): counterweight-error: {"code": "input.missing"}'),
    ("Failed", "-1", ""),  # a DAG
    ("Error", "-1", ""),
]


def matches(expression: str, status: str, exit_code: str, message: str) -> bool:
    """Evaluate the policy's condition, whose few operators have an equivalent in Python."""
    code = re.sub(
        r'lastRetry\.message matches ("[^"]*")', r"bool(re.search(\1, message))", " ".join(expression.split())
    )
    for operator, python in (("&&", " and "), ("||", " or "), ("!(", "not (")):
        code = code.replace(operator, python)
    code = code.replace("asInt(lastRetry.exitCode)", "int(exit_code or -1)")
    code = code.replace("lastRetry.status", "status").replace("lastRetry.message", "message")
    return bool(eval(code, {"re": re}, {"status": status, "exit_code": exit_code, "message": message}))


@pytest.mark.parametrize(("status", "exit_code", "message"), [*RETRIED, *NOT_RETRIED])
def test_retry_policy_repeats_lost_pods_and_not_user_errors(status: str, exit_code: str, message: str):
    config = yaml.safe_load((ROOT / "workflow-controller" / "retries.yaml").read_text(encoding="utf-8"))
    defaults = yaml.safe_load(config["data"]["workflowDefaults"])["spec"]["templateDefaults"]
    expected = (status, exit_code, message) in RETRIED
    assert matches(defaults["retryStrategy"]["expression"], status, exit_code, message) == expected


def test_readme_states_that_the_retry_policy_changes_every_pipeline():
    for name in ("README.md", "workflow-controller/retries.yaml"):
        text = " ".join((ROOT / name).read_text(encoding="utf-8").lower().split())
        assert "changes every pipeline of the cluster" in text or "the retry policy of every pipeline" in text


def test_readme_names_every_part():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = set(re.findall(r"^\| `([^`]+)` \|", text, re.M))
    folders = {"base", "workflow-controller", "serving", "demo"}
    folders |= {f"components/{name}" for name in COMPONENTS} | {f"overlays/{name}" for name in OVERLAYS}
    assert folders <= table
    # schedules.yaml belongs to `make schedule`.
    assert all((ROOT / name).exists() for name in table - {"schedules.yaml"})
    assert f"{len(list(combinations()))} combinations" in text


def test_operations_links_exist():
    page = ROOT.parent / "docs" / "guides" / "operations.md"
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target
