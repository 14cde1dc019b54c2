"""The manifests that use a published model, `manifests/serving` and `manifests/demo`: rendered and checked."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest

from tests.integration.test_manifests import ROOT, VERSIONS, needs_kustomize, one, rendered

WITHOUT_SCHEMA = {"InferenceService"}


@needs_kustomize
@pytest.mark.parametrize("name", ["demo", "serving"])
@pytest.mark.parametrize("version", VERSIONS)
def test_rendered_object_meets_the_kubernetes_schema(name: str, version: str):
    objects = rendered(ROOT / name)
    home = f"counterweight-{name}"
    for each in objects:
        if each["kind"] not in WITHOUT_SCHEMA:
            assert kubernetes_validate.validate(each, version, strict=True) == version
        if each["kind"] == "Namespace":
            assert each["metadata"]["name"] == home
        else:
            assert each["metadata"]["namespace"] == home


@needs_kustomize
def test_served_model_has_an_account_and_no_privileges():
    objects = rendered(ROOT / "serving")
    predictor = one(objects, "InferenceService", "counterweight")["spec"]["predictor"]
    account = one(objects, "ServiceAccount", predictor["serviceAccountName"])
    assert account["automountServiceAccountToken"] is False
    assert predictor["model"]["modelFormat"]["name"] == "tensorflow"
    assert predictor["model"]["storageUri"].endswith("/export-savedmodel")
    context = predictor["model"]["securityContext"]
    assert (context["runAsNonRoot"], context["allowPrivilegeEscalation"]) == (True, False)


@needs_kustomize
def test_demo_has_no_privileges_and_no_network():
    objects = rendered(ROOT / "demo")
    pod = one(objects, "Deployment", "counterweight-demo")["spec"]["template"]
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert (spec["securityContext"]["runAsNonRoot"], spec["automountServiceAccountToken"]) == (True, False)
    context = container["securityContext"]
    assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
    assert context["capabilities"] == {"drop": ["ALL"]}
    volumes = {each["name"]: each for each in spec["volumes"]}
    claim = volumes["run"]["persistentVolumeClaim"]
    assert claim == {"claimName": "counterweight-run", "readOnly": True}
    assert one(objects, "PersistentVolumeClaim", claim["claimName"])
    service = one(objects, "Service", "counterweight-demo")["spec"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["ports"][0]["targetPort"] == container["ports"][0]["name"]
    policy = one(objects, "NetworkPolicy", "counterweight-demo")["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None,
    reason="THE DEMO IS NOT TESTED: the dependency group `demo` is not installed",
)
def test_demo_image_has_what_the_page_imports(tmp_path: Path):
    """The folders that the Dockerfile copies suffice, and its dependency groups exist."""
    project = ROOT.parent
    text = (project / "docker" / "demo" / "Dockerfile").read_text(encoding="utf-8")
    groups = re.search(r"^# groups: (.+)$", text, re.M)
    assert groups is not None
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    assert set(groups[1].split()) <= set(declared)
    for folder in re.findall(r"^COPY (\S+) /opt/counterweight/\S+$", text, re.M):
        shutil.copytree(
            project / folder, tmp_path / folder, ignore=shutil.ignore_patterns("component.py", "Dockerfile")
        )
    code = "import sys, counterweight.demo, counterweight.demo_page; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Packages of the other groups, which the image does not have.
    assert not set(done.stdout.split()) & {"kfp", "docker", "kfp_server_api", "kaggle"}
