"""The operator on a real API server: it says what is wrong, hands over, outlives an outage, notices deafness."""

from __future__ import annotations

import signal

import pytest
import yaml

from controller.api.meta import API_VERSION, Key
from controller.clients.errors import ClientError
from tests.support.git_repos import GitServer, Scratch
from tests.support.operator_process import ROOT, OperatorProcess, ready, wait_until, with_client
from tests.support.plain_server import fresh_namespace


@pytest.fixture(scope="module")
def kubeconfig(control_plane):
    return control_plane.kubeconfig


@pytest.fixture
def place(control_plane, kubeconfig):
    """A namespace of its own for every test."""
    return fresh_namespace(control_plane)


@pytest.fixture
def start(tmp_path, kubeconfig, place):
    """Start replicas; they end with the test."""
    started = []

    def one(name, **settings):
        process = OperatorProcess(tmp_path, kubeconfig, name, NAMESPACES=place, LEASE_NAMESPACE=place, **settings)
        started.append(process)
        return process

    yield one
    for process in started:
        process.__exit__()


def repository(place, name, url):
    spec = {"url": url, "ref": {"branch": "main"}, "interval": "1s", "timeout": "10s"}
    meta = {"name": name, "namespace": place}
    return {"apiVersion": API_VERSION, "kind": "ModelRepository", "metadata": meta, "spec": spec}


def model(place):
    """The example's ModelSpec; its repository does not exist."""
    manifest = yaml.safe_load((ROOT / "examples" / "bikes" / "model.yaml").read_text(encoding="utf-8"))
    manifest["metadata"]["namespace"] = place
    manifest["spec"]["source"]["url"] = "https://git.example.invalid/bikes.git"
    return manifest


def create(kubeconfig, manifest):
    return with_client(kubeconfig, lambda kube: kube.create(manifest))


def answered(kubeconfig, place, name):
    return ready(kubeconfig, Key("ModelRepository", place, name)).get("reason")


def test_it_syncs_a_repository_over_http_says_what_it_cannot_reach_and_ends_in_order(
    tmp_path, kubeconfig, place, start
):
    Scratch.create(tmp_path / "git" / "models.git").commit({"readme.txt": b"nothing of ours"})
    with GitServer(tmp_path / "git") as git:
        operator = start("only", ALLOWED_HOSTS="127.0.0.1", GIT_PROTOCOLS="http,https")
        wait_until(lambda: operator.ready_as("leader"), operator.log.read_text())
        create(kubeconfig, repository(place, "here", git.url("models.git")))
        create(kubeconfig, repository(place, "nowhere", "https://git.example.invalid/x.git"))
        create(kubeconfig, model(place))
        key = Key("ModelRepository", place, "here")
        wait_until(lambda: ready(kubeconfig, key).get("status") == "True", "the repository is Ready")
        said = wait_until(
            lambda: ready(kubeconfig, Key("ModelRepository", place, "nowhere")), "the other one has a condition"
        )
        assert said["status"] in ("False", "Unknown")
        assert "git.example.invalid" in said["message"]
        said = wait_until(lambda: ready(kubeconfig, Key("ModelSpec", place, "bikes")), "the model has a condition")
        assert said["status"] in ("False", "Unknown")
        assert said["message"]
        figures = operator.ask("/metrics").text
        assert 'mainspring_reconciles_total{kind="ModelRepository",outcome="ok"}' in figures
        assert "mainspring_leader 1.0" in figures
        assert 'mainspring_conditions{kind="ModelRepository",status="True",type="Ready"} 1.0' in figures
        assert place not in figures
        assert "bikes" not in figures
        with_client(kubeconfig, lambda kube: kube.delete(key))
        wait_until(
            lambda: 'mainspring_objects{kind="ModelRepository"} 1.0' in operator.ask("/metrics").text,
            "the deletion is seen",
        )
        assert operator.ask("/healthz").status_code == 200
        assert operator.terminate() < 25
    assert operator.process.returncode == 0
    lease = with_client(kubeconfig, lambda kube: kube.get(Key("Lease", place, "mainspring")))
    assert not lease["spec"].get("holderIdentity")


def test_a_second_replica_waits_warm_and_takes_over_after_a_kill(kubeconfig, place, start):
    first = start("first")
    wait_until(lambda: first.ready_as("leader"), "the first leads")
    second = start("second")
    wait_until(lambda: second.ready_as("standby"), "the second stands by")
    create(kubeconfig, repository(place, "one", "https://git.example.invalid/x.git"))
    wait_until(lambda: answered(kubeconfig, place, "one"), "the first has worked")
    assert "mainspring_reconciles_total{" not in second.ask("/metrics").text
    first.process.send_signal(signal.SIGKILL)
    wait_until(lambda: second.ready_as("leader"), "the second leads", within_s=25)
    create(kubeconfig, repository(place, "two", "https://git.example.invalid/x.git"))
    wait_until(lambda: answered(kubeconfig, place, "two"), "the second has worked")


def test_it_outlives_the_api_servers_absence_and_leads_again(control_plane, kubeconfig, place, start):
    operator = start("lasting")
    wait_until(lambda: operator.ready_as("leader"), "it leads")
    control_plane.stop_api()
    try:
        # Who cannot renew must not go on: another might lead.
        wait_until(lambda: operator.ready_as("standby"), "it stands by", within_s=20)
        assert operator.ask("/healthz").text == "alive\n"
        newcomer = start("newcomer")
        wait_until(lambda: newcomer.ask("/healthz") is not None, "the newcomer answers")
        assert newcomer.ask("/healthz").status_code == 200
        assert newcomer.ask("/readyz").status_code == 503
    finally:
        control_plane.start_api()

    def put():
        try:
            return create(kubeconfig, repository(place, "late", "https://git.example.invalid/x.git"))
        except ClientError:
            return None

    wait_until(put, "the API server is back", within_s=60)
    wait_until(lambda: answered(kubeconfig, place, "late"), "somebody has worked", within_s=60)
    leaders = {p.log.stem for p in (operator, newcomer) if p.ready_as("leader")}
    assert len(leaders) == 1
    assert operator.process.poll() is None


def test_a_deaf_watch_is_noticed(kubeconfig, place, start):
    operator = start("deaf", DEAF_AFTER="5")
    wait_until(lambda: operator.ready_as("leader"), "it leads")
    wait_until(lambda: "mainspring_watch_echo_owed_seconds 0.0" in operator.ask("/metrics").text, "it hears")
    canary = Key("Lease", place, "mainspring-canary")
    unlabelled = {"app.kubernetes.io/managed-by": "nobody"}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    meta = {"name": canary.name, "namespace": place, "labels": unlabelled}
    # Without our label the server leaves the object out of the watch: from here on no echo comes.
    with_client(kubeconfig, lambda kube: kube.apply({**lease, "metadata": meta}))
    said = wait_until(
        lambda: (answer := operator.ask("/healthz")) is not None and answer.status_code == 503 and answer.text,
        "it counts as deaf",
    )
    assert said.startswith("the watch is deaf: no echo of our own write for ")
