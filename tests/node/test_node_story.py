"""The demo's story on a real node: the chart, the images, Git and MLflow as pods, requests through the Service.

Six steps: commit, README-only commit, worse commit, better commit, revert, killed controller.  The steps are those
of `mainspring demo` and check their own promises; here stands what only a cluster can show.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

import controller
from controller.cli.demo import STEPS, Stage
from controller.cli.demo_stage import Traffic, read_rows
from tests.cluster.node import Node
from tests.cluster.processes import wait_until
from tests.node.stage import ClusterOperator, ClusterRepository, ClusterView, is_available, start_git
from tests.support.helm import Release

EXAMPLE = Path(controller.__file__).parent.parent / "examples" / "bikes"
NAMESPACE = "team"
STEP_LIMIT_S = 300.0


def values(images: dict[str, str]) -> dict[str, object]:
    """Write the values of a trial on one node without a registry or volumes."""
    named = {}
    for target, name in images.items():
        repository, _, tag = name.rpartition(":")
        named[target] = {"repository": repository, "tag": tag}
    return {
        "images": {**named, "pullPolicy": "Never"},
        "mlflow": {"enabled": True, "persistence": {"enabled": False}},
        "git": {"allowedHosts": ["git"], "protocols": ["http"]},
    }


@pytest.fixture(scope="module")
def images(node: Node) -> dict[str, str]:
    """Names of our images by target, on the node."""
    from tests.cluster.images import on_node

    return on_node(node)


@pytest.fixture(scope="module")
def installed(node: Node, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Install the chart as the README does; returns the address of the Git server."""
    namespace = {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    node.plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": namespace}, "/api/v1/namespaces")
    scratch = tmp_path_factory.mktemp("installed")
    file = scratch / "values.json"
    file.write_text(json.dumps(values(images)))
    Release(node.plane, NAMESPACE).helm("install", "--values", str(file), "--wait", "--timeout", "4m")
    (scratch / "git").mkdir()
    return start_git(node, images["jobs"], NAMESPACE, scratch / "git")


async def play(node: Node, address: str, scratch: Path) -> tuple[list[str], Traffic]:
    """Play all steps with requests from the first model on; returns what happened and the traffic."""
    (scratch / "repository").mkdir()
    url = "http://git/bikes.git"
    repository = ClusterRepository(scratch / "repository", EXAMPLE, url=url, push_to=f"{address}/bikes.git")
    view = ClusterView(node.plane.kubeconfig, NAMESPACE)
    traffic = Traffic(read_rows(EXAMPLE / "data" / "bikes.csv", "bikers"), keep_alive=False)
    told: list[str] = []
    operator = ClusterOperator(node.plane, NAMESPACE)
    stage = Stage(repository, operator, traffic, view, told.append, STEP_LIMIT_S)
    sending: asyncio.Task[None] | None = None
    happened: list[str] = []
    try:
        for name, step in STEPS:
            happened.append(f"{name}: {await step(stage)}")
            if sending is None:
                service = node.plane.request("GET", f"/api/v1/namespaces/{NAMESPACE}/services/bikes")
                port = service["spec"]["ports"][0]["port"]
                sending = asyncio.create_task(traffic.run(f"http://{service['spec']['clusterIP']}:{port}"))
    except Exception as error:
        error.add_note("\n".join([*happened, *told[-40:]]))
        raise
    finally:
        if sending is not None:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):  # it was asked to end
                await sending
        await view.aclose()
    return happened, traffic


def test_the_story_of_the_demo_on_a_node(node: Node, installed: str, tmp_path: Path):
    happened, traffic = asyncio.run(play(node, installed, tmp_path))
    print("\n".join(happened))
    assert len(happened) == len(STEPS)
    assert traffic.failed == 0, traffic.failures[:5]
    assert traffic.answered > 500
    kubectl = node.kubectl
    assert "condition met" in kubectl(
        "wait", "-n", NAMESPACE, "modelspec/bikes", "--for=condition=Ready", "--timeout=30s"
    )
    shown = kubectl("get", "-n", NAMESPACE, "mspec")
    print(shown)
    assert "bikes" in shown
    assert "True" in shown
    champion = json.loads(kubectl("get", "-n", NAMESPACE, "modelspec/bikes", "-o", "json"))["status"]["champion"]
    servers = kubectl("get", "-n", NAMESPACE, "deployments", "-l", "mainspring.dev/modelspec=bikes", "-o", "name")
    assert champion["revision"] in servers
    wait_until(lambda: is_available(node.plane, NAMESPACE, "mainspring"), "waiting for the operator", 60)
