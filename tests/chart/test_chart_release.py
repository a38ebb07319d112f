"""The chart on a real API server: installed, upgraded, uninstalled; what must outlive it does."""

from __future__ import annotations

import base64
import secrets
import shutil
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.api.meta import API_VERSION, GROUP
from tests.cluster.namespaces import made
from tests.support.helm import CHART, Release, run, template
from tests.support.operator_process import ROOT

URI = "trackingURI=http://mlflow.example.internal:5000"
HERE = Path(__file__).parent
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def release(bare_plane):
    name = f"chart-{secrets.token_hex(4)}"
    made(bare_plane, name, {"pod-security.kubernetes.io/enforce": "restricted"})
    found = Release(bare_plane, name)
    yield found
    run("uninstall", "mainspring", "--namespace", name, kubeconfig=bare_plane.kubeconfig)


def model(namespace):
    manifest = yaml.safe_load((ROOT / "examples" / "bikes" / "model.yaml").read_text())
    manifest["metadata"]["namespace"] = namespace
    return manifest


def signing_key(release):
    return release.get("v1/secrets/mainspring-signing-key")


def test_it_installs_upgrades_and_leaves_kinds_objects_and_key_behind(release):
    notes = release.helm("install", "--set", URI)
    assert f"Mainspring 0.1.0 works in {release.namespace}" in notes
    first = signing_key(release)
    pem = base64.b64decode(first["data"]["key.pem"])
    assert isinstance(serialization.load_pem_private_key(pem, password=None), Ed25519PrivateKey)

    models = f"/apis/{API_VERSION}/namespaces/{release.namespace}/modelspecs"
    before = release.plane.apply(model(release.namespace), models)

    release.helm("upgrade", "--set", URI, "--set", "replicas=2", "--set", "settings.workers=4")
    deployment = release.get("apps/v1/deployments/mainspring")
    assert deployment["spec"]["replicas"] == 2
    env = {e["name"]: e.get("value") for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["MAINSPRING_WORKERS"] == "4"
    assert signing_key(release)["data"] == first["data"], "an upgrade must never change the signing key"

    release.helm("uninstall", "--wait")
    assert release.get("apps/v1/deployments/mainspring") is None
    assert release.get("rbac.authorization.k8s.io/v1/roles/mainspring") is None
    after = release.plane.request("GET", f"{models}/bikes")
    assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])
    assert signing_key(release)["data"] == first["data"]

    release.helm("install", "--set", URI)
    assert signing_key(release)["data"] == first["data"], "who installs again still signs with it"


def test_the_api_server_admits_the_operators_and_mlflows_pods_under_the_restricted_level(release):
    release.helm("install", "--set", "mlflow.enabled=true", "--set", "mlflow.persistence.enabled=false")
    for name in ("mainspring", "mainspring-mlflow"):
        template = release.get(f"apps/v1/deployments/{name}")["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": template["spec"]}
        path = f"/api/v1/namespaces/{release.namespace}/pods?dryRun=All"
        assert release.plane.request("POST", path, pod)["spec"]["containers"]


@pytest.mark.parametrize("name", sorted(file.stem for file in (HERE / "values").glob("*.yaml")))
def test_the_api_server_knows_every_field_that_is_rendered(bare_plane, name):
    text = template("--values", HERE / "values" / f"{name}.yaml", "--set", "crds.install=false")
    for manifest in filter(None, yaml.safe_load_all(text)):
        group = manifest["apiVersion"]
        if group.startswith("monitoring.coreos.com/"):
            continue
        manifest["metadata"].pop("namespace", None)
        plural = resource_path(manifest["kind"], group)
        bare_plane.request("POST", f"{plural}?dryRun=All&fieldValidation=Strict", manifest)


def resource_path(kind, group):
    """Where the kind is created, in namespace `default`."""
    root = "/api/v1" if group == "v1" else f"/apis/{group}"
    plural = f"{kind[:-1]}ies" if kind.endswith("cy") else f"{kind}s"
    everywhere = kind.startswith(("Cluster", "ValidatingAdmission"))
    return f"{root}/{plural.lower()}" if everywhere else f"{root}/namespaces/default/{plural.lower()}"


def test_an_upgrade_brings_new_fields_of_our_kinds(release, tmp_path):
    old = shutil.copytree(CHART, tmp_path / "mainspring")
    file = old / "files" / "crds" / "mainspring.dev_modelrepositories.yaml"
    crd = yaml.safe_load(file.read_text())
    fields = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del fields["timeout"]
    file.write_text(yaml.safe_dump(crd, sort_keys=False))

    def known():
        found = release.plane.request("GET", f"{CRDS}/modelrepositories.{GROUP}")
        return found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]

    release.helm("install", "--set", URI, chart=old)
    assert "timeout" not in known()
    release.helm("upgrade", "--set", URI)
    assert "timeout" in known()


def test_kinds_that_somebody_else_installs_are_left_alone(release):
    def versions():
        found = release.plane.request("GET", CRDS)["items"]
        return {c["metadata"]["name"]: c["metadata"]["resourceVersion"] for c in found}

    before = versions()
    release.helm("install", "--set", URI, "--set", "crds.install=false")
    assert versions() == before
