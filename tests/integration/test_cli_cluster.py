"""Every verb on a real API server: it says what it says on the local state that the same objects lie in."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from controller.api.meta import Key, key_of
from controller.cli.cluster import operator_settings, world_of
from controller.clients.kube import KubeClient
from tests.cluster.definitions import apply_definitions
from tests.support.cli_session import mainspring, model, refused, stored, tell
from tests.support.plain_server import fresh_namespace, http

CHAMPION, REFUSED = "bikes-dd1196040a", "bikes-4b78198ae3"


def client(control_plane):
    return KubeClient.connect(control_plane.kubeconfig)


async def copied(control_plane, namespace, *objects):
    """Put objects with their statuses on the server."""
    kube = client(control_plane)
    for item in objects:
        meta = {k: v for k, v in item["metadata"].items() if k in ("name", "labels", "annotations")}
        made = await kube.create({**item, "metadata": {**meta, "namespace": namespace}})
        if "status" in item:
            await kube.patch_status(key_of(made), item["status"], uid=made["metadata"]["uid"])
    await kube.aclose()


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    state = tmp_path_factory.mktemp("local") / "state"
    tell(state, refused)
    return state


@pytest.fixture(scope="module")
def cluster(request, state):
    """A namespace with what the local state has, and the options that lead to it."""
    control_plane = request.getfixturevalue("control_plane")
    namespace = fresh_namespace(control_plane)
    objects = [stored(state, "ModelSpec", "bikes")]
    objects += [stored(state, "ModelRevision", name) for name in (CHAMPION, REFUSED)]
    asyncio.run(copied(control_plane, namespace, *objects))
    return Cluster(control_plane, namespace)


class Cluster:
    def __init__(self, control_plane, namespace):
        self.control_plane, self.namespace = control_plane, namespace
        self.options = ["--kubeconfig", str(control_plane.kubeconfig)]

    def __call__(self, *args, **more):
        return mainspring(Path("nowhere"), *args, "-n", self.namespace, *self.options, **more)

    def run(self, work):
        async def done():
            kube = client(self.control_plane)
            try:
                return await work(kube)
            finally:
                await kube.aclose()

        return asyncio.run(done())


def links_of_the_revision(answer):
    return [line for line in answer.lines if line.split()[0] not in ("job", "server")]


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(["get", "mspec", "-o", "name"], id="get"),
        pytest.param(["gates", "bikes"], id="gates"),
        pytest.param(["compare", CHAMPION, REFUSED], id="compare"),
        pytest.param(["trace", f"modelrevision/{CHAMPION}"], id="trace"),
        pytest.param(["logs", "bikes"], id="logs of a training whose pod is gone"),
    ],
)
def test_a_verb_says_the_same_as_on_the_local_state(cluster, state, args):
    local, remote = mainspring(state, *args), cluster(*args)
    if args[0] == "trace":  # the objects below a revision were not copied
        local.out, remote.out = (links_of_the_revision(answer) for answer in (local, remote))
    assert remote.out == local.out
    assert remote.err.partition(" [asked")[0].strip() == local.err.strip()
    assert remote.code == local.code or args[0] == "trace"


def test_explain_says_what_blocks(cluster, state):
    answer = cluster("explain", "modelspec/bikes")
    assert answer.code == 0, answer.err
    local = mainspring(state, "explain", "modelspec/bikes").lines[0]
    assert answer.lines[0] == local.replace("namespace default", f"namespace {cluster.namespace}")
    assert "GateFailed" in answer.out


def test_history_tells_what_objects_remember_where_the_ledger_cannot_be_verified(cluster):
    answer = cluster("history", "bikes")
    assert answer.code == 0, answer.err
    assert "this is what the objects remember" in answer.err
    assert "set MAINSPRING_TRUSTED_KEYS to a file with the operator's public key" in answer.err
    assert CHAMPION in answer.out


def test_apply_creates_changes_and_leaves_alone(cluster, tmp_path):
    file = tmp_path / "other.json"
    for spec, word in (({}, "created"), ({"suspend": True}, "configured"), ({"suspend": True}, "unchanged")):
        file.write_text(json.dumps(model("other", **spec)))
        answer = cluster("apply", "-f", str(file))
        # The first write after the creation stores the default status.
        assert answer.out in (f"modelspec.mainspring.dev/other {word}\n",), answer.err


def test_an_order_is_written_under_the_name_that_the_server_knows_and_ended(cluster):
    said = cluster("rollback", "bikes", "--to", CHAMPION, "--reason", "recall fell", "--timeout", "0")
    assert said.code == 0, said.err
    assert f"to {CHAMPION} (version 1" in said.lines[0]
    assert ", by order of admin, until " in said.lines[0]
    (made,) = json.loads(cluster("get", "movr", "-o", "json").out)["items"]
    model = json.loads(cluster("get", "mspec/bikes", "-o", "json").out)
    assert made["spec"]["actor"] == "admin"
    assert made["spec"]["digest"] == model["status"]["champion"]["digest"]
    assert made["metadata"]["ownerReferences"][0]["uid"] == model["metadata"]["uid"]
    assert "not looked at yet" in cluster("explain", f"movr/{made['metadata']['name']}").lines[0]
    dry = cluster("rollback", "bikes", "--to", CHAMPION, "--reason", "recall fell", "--dry-run")
    assert dry.lines[-1] == "Nothing was changed.", dry.err
    assert len(json.loads(cluster("get", "movr", "-o", "json").out)["items"]) == 1
    ended = cluster("rollback", "bikes", "--end")
    assert ended.out == f"modeloverride.mainspring.dev/{made['metadata']['name']} deleted\n"


def test_suspend_and_resume_move_the_spec(cluster):
    assert cluster("suspend", "modelspec/bikes").out == (
        "modelspec/bikes suspended; what serves goes on serving\n"
    )
    assert cluster("suspend", "modelspec/bikes").out == "modelspec/bikes was suspended already\n"
    assert cluster("resume", "modelspec/bikes").out == "modelspec/bikes resumed\n"


def test_reconcile_asks_for_a_look_and_says_who_does_not_look(cluster):
    answer = cluster("reconcile", "modelspec/bikes", "--wait", "--timeout", "1")
    assert "asked for a look at" in answer.out
    assert "no look within 1s; is the operator running?" in answer.err
    assert answer.code == 1


def test_an_error_says_which_cluster_was_asked(cluster):
    answer = cluster("explain", "modelspec/bykes")
    assert 'no ModelSpec "bykes"' in answer.err
    assert "did you mean bikes?" in answer.err
    assert f"[asked the cluster of {cluster.control_plane.kubeconfig}: it was named]" in answer.err


def test_a_context_that_is_not_there_is_named(cluster):
    answer = cluster("get", "--context", "elsewhere")
    assert answer.code == 1
    assert 'has no context "elsewhere"; there is: ' in answer.err


def test_state_and_cluster_together_are_a_usage_error(cluster):
    answer = cluster("get", "--state", "x")
    assert answer.code == 2
    assert "give --state for the local state, or --kubeconfig and --context, not both" in answer.err


def test_without_n_the_namespace_is_that_of_the_context(cluster, tmp_path):
    text = cluster.control_plane.kubeconfig.read_text()
    config = yaml.safe_load(text)
    config["contexts"][0]["context"]["namespace"] = cluster.namespace
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    answer = mainspring(Path("nowhere"), "get", "mspec/bikes", "-o", "name", "--kubeconfig", str(file))
    assert answer.out == "modelspec.mainspring.dev/bikes\n", answer.err


def test_the_plugin_of_kubectl_works_on_the_cluster(cluster, tmp_path):
    script = Path(sys.executable).with_name("kubectl-mainspring")
    done = subprocess.run(
        [str(script), "get", "mspec/bikes", "-n", cluster.namespace, "-o", "name"],
        env={"KUBECONFIG": str(cluster.control_plane.kubeconfig), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.stdout == "modelspec.mainspring.dev/bikes\n", done.stderr


def checks(answer):
    return {row["check"]: row for row in json.loads(answer.out)}


@pytest.fixture
def no_operator(cluster):
    """No Lease of an operator that another test ran: doctor looks in every namespace."""

    async def forget(kube):
        for lease in await kube.list("Lease"):
            if lease["metadata"]["name"] == "mainspring":
                await kube.delete(key_of(lease))

    cluster.run(forget)


@pytest.mark.usefixtures("no_operator")
def test_doctor_says_what_is_right_and_what_to_do(cluster):
    answer = cluster("doctor")
    assert answer.code == 1
    assert "✓   API server" in answer.out
    found = checks(cluster("doctor", "-o", "json"))
    for name in ("API server", "clock", "CRD modelspecs", "CRD modelrevisions", "CRD modelrepositories"):
        assert found[name]["ok"] is True, found[name]
    assert found["rights of you"]["ok"] is True
    assert found["operator"]["ok"] is False
    assert "no operator has ever run" in found["operator"]["found"]
    assert "helm upgrade --install" in found["operator"]["do"]


@pytest.mark.usefixtures("no_operator")
def test_doctor_finds_a_held_and_an_expired_lease(cluster):
    def lease(renewed):
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "mainspring", "namespace": cluster.namespace},
            "spec": {"holderIdentity": "pod-1", "renewTime": renewed, "leaseDurationSeconds": 15},
        }

    cluster.run(lambda kube: kube.apply(lease("2999-01-01T00:00:00.000000Z")))
    assert checks(cluster("doctor", "-o", "json"))["operator"]["ok"] is True
    made = cluster.run(lambda kube: kube.apply(lease("2020-01-01T00:00:00.000000Z")))
    found = checks(cluster("doctor", "-o", "json"))["operator"]
    assert found["ok"] is False
    assert "has expired; pod-1 held it last" in found["found"]
    cluster.run(lambda kube: kube.delete(key_of(made)))


def test_doctor_names_a_git_repository_and_an_mlflow_that_do_not_answer(cluster, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    found = checks(cluster("doctor", "-o", "json"))
    (git,) = [row for name, row in found.items() if name.startswith("Git ")]
    assert git["ok"] is False
    assert "git ls-remote" in git["do"]
    assert found["MLflow"]["ok"] is False


def test_doctor_finds_crds_of_another_version(cluster):
    name = "modelrepositories.mainspring.dev"
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    patch = [
        {
            "op": "remove",
            "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/prunelimitpercent",
        }
    ]
    with http(cluster.control_plane) as server:
        props = server.get(path).json()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        gone = next(field for field in props["properties"] if field.startswith("prune") and field != "prune")
        patch[0]["path"] = f"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/{gone}"
        server.patch(path, json=patch, headers={"Content-Type": "application/json-patch+json"}).raise_for_status()
    try:
        found = checks(cluster("doctor", "-o", "json"))["CRD modelrepositories"]
        assert found["ok"] is False
        assert "another version of Mainspring" in found["found"]
    finally:
        apply_definitions(cluster.control_plane)
    assert checks(cluster("doctor", "-o", "json"))["CRD modelrepositories"]["ok"] is True


def test_doctor_of_a_server_that_is_away_says_one_thing(tmp_path):
    file = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    users = [{"name": "u", "user": {"token": "t"}}]
    file.write_text(
        json.dumps({"current-context": "c", "clusters": [cluster], "contexts": [context], "users": users})
    )
    answer = mainspring(tmp_path, "doctor", "--kubeconfig", str(file), "-o", "json")
    assert answer.code == 1
    (row,) = json.loads(answer.out)
    assert row["check"] == "API server"
    assert "no connection to http://127.0.0.1:9" in row["found"]


class Model(BaseHTTPRequestHandler):
    """Answers as a model server does."""

    def do_POST(self):
        rows = json.loads(self.rfile.read(int(self.headers["content-length"])))["dataframe_records"]
        body = json.dumps({"predictions": [len(rows)]}).encode()
        self.send_response(200 if self.path == "/invocations" else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Mainspring-Revision", CHAMPION)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Keep the test's output quiet."""


def own_address():
    """Find this machine's address on its network: an API server forwards nothing to loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return probe.getsockname()[0]


def made(api, path, item):
    """Create a pod; a new namespace has its service account only after a moment."""
    deadline = time.monotonic() + 30
    while not (answer := api.post(path, json=item)).is_success:
        assert time.monotonic() < deadline, answer.text


def test_predict_asks_a_model_that_only_the_clusters_network_knows(cluster):
    address = own_address()
    server = ThreadingHTTPServer((address, 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = {"name": "http", "port": server.server_port, "protocol": "TCP"}
    # The API server forwards to pods only: the endpoint must be the address of one.
    pod = {"metadata": {"name": "bikes"}, "spec": {"containers": [{"name": "server", "image": "server"}]}}
    target = {"ip": address, "targetRef": {"kind": "Pod", "name": "bikes", "namespace": cluster.namespace}}
    endpoints = {"metadata": {"name": "bikes"}, "subsets": [{"addresses": [target], "ports": [port]}]}

    async def served(kube):
        item = await kube.get(Key("ModelSpec", cluster.namespace, "bikes"))
        status = {**item["status"], "url": f"http://bikes.{cluster.namespace}.svc:8080"}
        await kube.patch_status(key_of(item), status, uid=item["metadata"]["uid"])

    cluster.run(served)
    core = f"/api/v1/namespaces/{cluster.namespace}"
    service = {"metadata": {"name": "bikes"}, "spec": {"ports": [{"name": "http", "port": 8080}]}}
    with http(cluster.control_plane) as api:
        made(api, f"{core}/pods", pod)
        api.patch(
            f"{core}/pods/bikes/status",
            json={"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}},
            headers={"Content-Type": "application/merge-patch+json"},
        ).raise_for_status()
        api.post(f"{core}/services", json=service).raise_for_status()
        api.post(f"{core}/endpoints", json=endpoints).raise_for_status()
    try:
        answer = cluster("predict", "bikes", "--row", '{"hour": 8}')
    finally:
        server.shutdown()
        server.server_close()
    assert answer.lines == ["1", f"from {CHAMPION}, commit unknown"], answer.err


def test_plan_takes_address_and_image_from_the_operator(cluster):
    container = {
        "name": "operator",
        "image": "mainspring-operator",
        "env": [{"name": "MAINSPRING_SERVER_IMAGE", "value": "images.example.com/server:1"}],
    }
    labels = {"app.kubernetes.io/name": "mainspring"}
    operator = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "mainspring", "namespace": cluster.namespace, "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }

    async def read(kube):
        made = await kube.apply(operator)
        world = world_of(kube, await operator_settings(kube))
        await kube.delete(key_of(made))
        return world

    assert cluster.run(read).settings.runtime == "images.example.com/server:1"


@pytest.fixture(scope="module")
def stranger(cluster, tmp_path_factory):
    """The options of somebody whom nobody has granted anything: a service account."""
    with http(cluster.control_plane) as server:
        path = f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts"
        server.post(path, json={"metadata": {"name": "stranger"}}).raise_for_status()
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = server.post(f"{path}/stranger/token", json=asked)
        answer.raise_for_status()
    config = yaml.safe_load(cluster.control_plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": answer.json()["status"]["token"]}
    file = tmp_path_factory.mktemp("stranger") / "kubeconfig"
    file.write_text(json.dumps(config))
    return ["-n", cluster.namespace, "--kubeconfig", str(file)]


def test_who_may_not_hears_which_right_is_missing(cluster, stranger):
    answer = mainspring(Path("nowhere"), "get", "mspec", *stranger)
    assert answer.code == 1
    assert (
        f"system:serviceaccount:{cluster.namespace}:stranger may not list ModelSpec in namespace "
        f"{cluster.namespace}: a Role or ClusterRole must grant it verb list on resource modelspecs"
    ) in answer.err


def test_doctor_lists_the_rights_that_are_missing(cluster, stranger):
    found = checks(mainspring(Path("nowhere"), "doctor", "-o", "json", *stranger))
    rights = found["rights of you"]
    assert rights["ok"] is False
    assert "get modelspecs.mainspring.dev" in rights["found"]
    assert "get pods/log" in rights["found"]
    assert f"kubectl auth can-i get modelspecs.mainspring.dev -n {cluster.namespace}" in rights["do"]
    operator = checks(mainspring(Path("nowhere"), "doctor", "--operator", "-o", "json", *stranger))
    assert "patch modelspecs.mainspring.dev/status" in operator["rights of the operator"]["found"]
