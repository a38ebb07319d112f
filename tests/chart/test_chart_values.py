"""What the chart renders from values: as the golden files say, with every setting in reach, and nothing misspelt.

Each file of tests/chart/values has a golden file; `pytest --update-golden` writes them anew, and they are read in
review like code.  The kinds are left out of them: they are compared with crds/ byte by byte.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from controller import __version__
from controller.reconcile.settings import OperatorSettings
from tests.cluster.build import KUBERNETES
from tests.support.helm import CHART, run, template
from tests.support.operator_process import ROOT

HERE = Path(__file__).parent
SETS = sorted(file.stem for file in (HERE / "values").glob("*.yaml"))
URI = ("--set", "trackingURI=http://mlflow.example.internal:5000")


def rendered(name):
    return template("--values", HERE / "values" / f"{name}.yaml")


def objects(text):
    """Kind and name → object."""
    return {(m["kind"], m["metadata"]["name"]): m for m in yaml.safe_load_all(text) if m}


def operator_env(text):
    (pod,) = [
        m["spec"]["template"]["spec"]
        for (kind, _), m in objects(text).items()
        if kind == "Deployment" and m["metadata"]["labels"]["app.kubernetes.io/component"] == "operator"
    ]
    return {e["name"]: e.get("value", "of-the-pod") for e in pod["containers"][0]["env"]}


@pytest.mark.parametrize("name", SETS)
def test_values_render_as_the_golden_file_says(name, request):
    parts = [p for p in re.split(r"(?m)^---\n", rendered(name)) if "kind: CustomResourceDefinition" not in p]
    text = re.sub(r"(?m)^(  key\.pem: )\S{20,}$", r"\1<made once>", "---\n".join(parts))
    text = re.sub(r"(?m)^(  mainspring\.json: ).*$", r"\1<files/dashboard.json>", text)
    golden = HERE / "golden" / f"{name}.yaml"
    if request.config.getoption("--update-golden"):
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("name", SETS)
def test_helm_lints_it_strictly(name):
    values = HERE / "values" / f"{name}.yaml"
    code, out, err = run("lint", "--strict", CHART, "--kube-version", KUBERNETES, "--values", values)
    assert code == 0, out + err


def test_the_chart_brings_the_kinds_of_crds_and_never_takes_them_away():
    written = {f.name: f.read_text() for f in (ROOT / "crds").glob("*.yaml")}
    copies = {f.name: f.read_text() for f in (CHART / "files" / "crds").glob("*.yaml")}
    assert copies == written, "make generate writes both"
    found = {n: m for (kind, n), m in objects(rendered("default")).items() if kind == "CustomResourceDefinition"}
    for text in written.values():
        crd = yaml.safe_load(text)
        brought = found.pop(crd["metadata"]["name"])
        assert brought["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert brought == crd
    assert not found


def test_the_chart_has_the_version_of_the_program():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_every_setting_of_the_operator_can_be_set():
    env = operator_env(rendered("everything"))
    assert {f"MAINSPRING_{f.name.upper()}" for f in fields(OperatorSettings)} <= set(env)
    read = OperatorSettings.read(env)
    assert (read.namespaces, read.workers, read.identity) == (("team-a", "team-b"), 4, "one")
    assert read.tracking_uri == "http://spring-mlflow.team.svc:5001"


def test_the_defaults_are_those_of_the_operator():
    read = OperatorSettings.read(operator_env(rendered("default")))
    said_by_the_chart = {
        "namespaces": ("team",),
        "lease_namespace": "team",
        "tracking_uri": "http://mlflow.example.internal:5000",
        "signing_key": Path("/etc/mainspring/signing-key/key.pem"),
        "mirrors": Path("/var/lib/mainspring/mirrors"),
        "jobs_image": "mainspring-jobs:0.1.0",
        "server_image": "mainspring-server:0.1.0",
        "identity": "of-the-pod",
    }
    for field in fields(OperatorSettings):
        assert getattr(read, field.name) == said_by_the_chart.get(field.name, field.default), field.name


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("trackingUri=http://x", "trackingUri"),
        ("settings.worker=4", "worker"),
        ("settings.workers=0", "/settings/workers"),
        ("mlflow.persistence.enable=false", "enable"),
        ("image.tag=1", "image"),
        ("watchNamespaces={Team A}", "/watchNamespaces/0"),
        ("images.server.digest=latest", "/images/server/digest"),
        ("git.protocols={file}", "/git/protocols/0"),
        ("trackingURI=mlflow:5000", "/trackingURI"),
        ("trustedKeys.old=not-a-key", "/trustedKeys/old"),
        ("extraEnv[0].name=MAINSPRING_WORKERS", "/extraEnv/0/name"),
    ],
)
def test_a_value_that_is_wrong_is_refused_by_name(wrong, said):
    with pytest.raises(RuntimeError, match="don't meet the specifications") as refused:
        template(*URI, "--set", wrong)
    assert said in str(refused.value)


def test_two_replicas_must_not_have_one_name():
    with pytest.raises(RuntimeError, match="two of one name would both lead"):
        template(*URI, "--set", "replicas=2", "--set", "settings.identity=me")


def test_an_installation_that_names_no_mlflow_is_told_what_to_say():
    with pytest.raises(RuntimeError, match="trackingURI is needed: the address of an MLflow server"):
        template()


def test_every_default_is_in_the_schema_and_every_value_of_the_schema_has_a_default():
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())

    def paths(node, at=""):
        if "$ref" in node:
            node = schema["definitions"][node["$ref"].rpartition("/")[2]]
        below = node.get("properties", {}) if node.get("additionalProperties") is False else {}
        for name, inner in below.items():
            yield f"{at}/{name}"
            yield from paths(inner, f"{at}/{name}")

    def given(node, at=""):
        for name, inner in node.items():
            yield f"{at}/{name}"
            if isinstance(inner, dict):
                yield from given(inner, f"{at}/{name}")

    defaults = set(given(yaml.safe_load((CHART / "values.yaml").read_text())))
    wanted = set(paths(schema)) - {"/global"}
    free = {p for p in wanted if p.endswith("/claims")}
    assert wanted - free <= defaults
    template(*URI)
