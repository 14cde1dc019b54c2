"""The manifests that use a published model: `manifests/serving`, rendered and checked against Kubernetes' schemas."""

import kubernetes_validate
import pytest

from tests.integration.test_manifests import ROOT, VERSIONS, needs_kustomize, one, rendered

WITHOUT_SCHEMA = {"InferenceService"}


@needs_kustomize
@pytest.mark.parametrize("name", ["serving"])
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
