"""What `kubectl apply -k` would send: rendered by the real tool, checked against Kubernetes' own schemas.

Schemas of custom resources (Kueue) are in no package: those objects are checked here for their references only, and the
test output says so.
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
# Secrets and ConfigMaps that runs may read and that others make: KFP itself, or the user by the README's commands.
FOREIGN = {"mlpipeline-minio-artifact", "counterweight-s3", "kfp-launcher"}
CLUSTER_WIDE = {"Namespace", "ClusterQueue", "ResourceFlavor"}

KUSTOMIZE = ["kubectl", "kustomize"] if shutil.which("kubectl") else ["kustomize", "build"]
needs_kustomize = pytest.mark.skipif(
    not shutil.which(KUSTOMIZE[0]), reason="NOTHING IS RENDERED: neither kubectl nor kustomize is here"
)


def combinations() -> Iterator[tuple[str, ...]]:
    """Every sensible set of components: one pipeline root or none, spot GPUs only with Kueue, single-user last."""
    roots = [(), ("pipeline-root-kfp",), ("pipeline-root-gcs",), ("pipeline-root-s3",)]
    queues = [(), ("gpu-quota",), ("kueue",), ("kueue", "spot-gpus"), ("gpu-quota", "kueue", "spot-gpus")]
    identities = [(), ("workload-identity",)]
    installs = [(), ("single-user",)]
    for parts in itertools.product(identities, roots, queues, installs):
        yield tuple(itertools.chain.from_iterable(parts))


def rendered(folder: Path) -> tuple[dict, ...]:
    done = subprocess.run([*KUSTOMIZE, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # a warning of kustomize's is a deprecated field
    return tuple(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict, ...]]:
    """Overlays, combinations of components and the controller's settings: name → rendered objects."""
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


def test_every_component_is_in_some_combination():
    assert set(itertools.chain.from_iterable(combinations())) == set(COMPONENTS)


def test_every_file_is_used_and_every_file_named_is_there():
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
def test_every_file_meets_kubernetes_own_schema_as_it_stands(version: str):
    """Without kustomize this is all that is checked of the objects."""
    checked = 0
    for path in ROOT.glob("*/**/*.yaml"):
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if not each["apiVersion"].startswith(("kustomize.config.k8s.io/", "kueue.x-k8s.io/")):
                assert kubernetes_validate.validate(each, version, strict=True) == version
                checked += 1
    assert checked >= 20


@needs_kustomize
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_meets_kubernetes_own_schema(variants: dict[str, tuple[dict, ...]], version: str):
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
def test_a_wrong_field_would_be_noticed(variants: dict[str, tuple[dict, ...]]):
    policy = one(variants["nothing"], "NetworkPolicy", "counterweight-deny")
    wrong = policy | {"spec": policy["spec"] | {"podSelectors": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@needs_kustomize
def test_everything_stands_in_the_one_namespace(variants: dict[str, tuple[dict, ...]]):
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
def test_no_object_is_there_twice(variants: dict[str, tuple[dict, ...]]):
    for objects in variants.values():
        keys = [(each["kind"], each["metadata"]["name"]) for each in objects]
        assert len(keys) == len(set(keys))


@needs_kustomize
def test_bindings_name_roles_and_accounts_that_exist(variants: dict[str, tuple[dict, ...]]):
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
def test_rights_are_named_one_by_one(variants: dict[str, tuple[dict, ...]]):
    for objects in variants.values():
        for role in of(objects, "Role"):
            for rule in role["rules"]:
                said = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
                assert not [word for word in said if "*" in word]
                assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
                if {"secrets", "configmaps"} & set(rule["resources"]):
                    assert rule["verbs"] == ["get"]
                    assert set(rule["resourceNames"]) <= FOREIGN


@needs_kustomize
def test_a_run_reads_no_secret_but_the_key_of_its_object_store(variants: dict[str, tuple[dict, ...]]):
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
def test_nothing_secret_and_no_local_settings_are_applied(variants: dict[str, tuple[dict, ...]]):
    for objects in variants.values():
        assert not of(objects, "Secret")
        assert "counterweight-settings" not in {each["metadata"]["name"] for each in objects}


@needs_kustomize
def test_the_namespace_enforces_restricted_pod_security(variants: dict[str, tuple[dict, ...]]):
    for name in OVERLAYS:
        labels = one(variants[f"overlay {name}"], "Namespace", "counterweight")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        assert labels["app.kubernetes.io/part-of"] == "kubeflow-profile"


@needs_kustomize
def test_the_network_is_closed_but_for_what_runs_need(variants: dict[str, tuple[dict, ...]]):
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
def test_the_settings_arrive(variants: dict[str, tuple[dict, ...]]):
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
def test_the_queue_its_flavor_and_spot_nodes_hang_together(variants: dict[str, tuple[dict, ...]]):
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
def test_the_retry_policy_repeats_under_a_condition_and_keeps_what_kfp_ships(variants: dict[str, tuple[dict, ...]]):
    (config,) = variants["workflow-controller"]
    # The object is KFP's: any other key here would be taken from it.
    assert list(config["data"]) == ["workflowDefaults"]
    spec = yaml.safe_load(config["data"]["workflowDefaults"])["spec"]
    assert spec["ttlStrategy"]["secondsAfterCompletion"] == 3600
    retry = spec["templateDefaults"]["retryStrategy"]
    assert (retry["retryPolicy"], retry["limit"]) == ("Always", "2")
    assert set(retry) == {"retryPolicy", "limit", "expression"}
    assert retry["expression"].count("(") == retry["expression"].count(")")


def test_the_readme_names_every_part_and_nothing_that_is_not_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = set(re.findall(r"^\| `([^`]+)` \|", text, re.M))
    folders = {"base", "workflow-controller"}
    folders |= {f"components/{name}" for name in COMPONENTS} | {f"overlays/{name}" for name in OVERLAYS}
    assert folders <= table
    # schedules.yaml belongs to `make schedule`.
    assert all((ROOT / name).exists() for name in table - {"schedules.yaml"})
    assert f"{len(list(combinations()))} combinations" in text


def test_operations_links_lead_somewhere():
    page = ROOT.parent / "docs" / "operations.md"
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists()
