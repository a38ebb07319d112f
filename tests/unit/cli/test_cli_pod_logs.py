"""Logs of pods on a cluster: which training is meant, which of its steps have begun, what they wrote."""

from __future__ import annotations

import json

import httpx
import pytest

from controller.cli.podlogs import ClusterLogs, Log, started
from controller.clients.errors import Denied
from controller.clients.kube import KubeClient
from controller.clients.kube_login import Login
from controller.clients.kube_rest import KubeRest

pytestmark = pytest.mark.anyio

REVISION = "bikes-dd1196040a"


@pytest.fixture
def anyio_backend():
    return "asyncio"


def pod(name, job=None, made="2026-01-01T00:00:00Z", **states):
    labels = {"mainspring.dev/revision": REVISION} | ({"batch.kubernetes.io/job-name": job} if job else {})
    order = ["fetch", "train", "predict", "evaluate"] if job else ["server"]
    return {
        "metadata": {"name": name, "namespace": "ml", "labels": labels, "creationTimestamp": made},
        "spec": {
            "initContainers": [{"name": c} for c in order[:-1]],
            "containers": [{"name": order[-1]}],
        },
        "status": {
            "initContainerStatuses": [{"name": c, "state": {states.get(c, "waiting"): {}}} for c in order[:-1]],
            "containerStatuses": [{"name": order[-1], "state": {states.get(order[-1], "waiting"): {}}}],
        },
    }


PODS = [
    pod("old", f"{REVISION}-train-1", fetch="terminated", train="terminated"),
    pod("first-try", f"{REVISION}-train-2", fetch="terminated"),
    pod("second-try", f"{REVISION}-train-2", "2026-01-02T00:00:00Z", train="running", fetch="terminated"),
    pod("judged", f"{REVISION}-evaluate-3", fetch="terminated"),
    pod("server-x", server="running"),
    pod("server-y"),
]


@pytest.fixture
async def logs(tmp_path):
    def answer(request):
        if request.url.path.endswith("/pods"):
            assert request.url.params["labelSelector"] == f"mainspring.dev/revision={REVISION}"
            return httpx.Response(200, json={"metadata": {}, "items": PODS})
        if request.url.path.endswith("/second-try/log"):
            assert request.url.params["tailLines"] == "2"
            return httpx.Response(200, text=f"{request.url.params['container']} says\nlöss 0.5\n")
        said = {
            "kind": "Status",
            "code": 400,
            "message": 'container "server" in pod "server-y" is waiting to start',
        }
        return httpx.Response(400, json=said)

    file = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": "http://api.example.com"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    users = [{"name": "u", "user": {"token": "t"}}]
    file.write_text(
        json.dumps({"current-context": "c", "clusters": [cluster], "contexts": [context], "users": users})
    )
    kube = KubeClient(KubeRest(Login(file), transport=httpx.MockTransport(answer)))
    yield ClusterLogs(kube)
    await kube.aclose()


async def test_the_newest_training_is_meant_with_the_steps_that_have_begun(logs):
    attempt = await logs.attempt("ml", REVISION)
    assert attempt.number == 2
    assert attempt.logs == (Log("second-try", "fetch"), Log("second-try", "train"))


async def test_servers_are_the_pods_that_no_job_has(logs):
    assert await logs.servers("ml", [REVISION]) == [Log("server-x", "server")]


async def test_the_end_of_a_log_comes_from_the_api_server(logs):
    assert await logs.tail("ml", Log("second-try", "train"), 2) == ["train says", "löss 0.5"]


async def test_a_container_that_waits_says_so(logs):
    with pytest.raises(Denied, match="is waiting to start"):
        await logs.tail("ml", Log("server-y", "server"), 2)


def test_a_container_that_crashed_and_waits_to_start_again_has_a_log():
    crashed = pod("x")
    crashed["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 1}}
    assert started(crashed) == ["server"]
