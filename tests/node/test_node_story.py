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
NAMESPACE = "story"
STEP_LIMIT_S = 300.0


VALUES = (
    *("--set", "mlflow.enabled=true", "--set", "mlflow.persistence.enabled=false"),
    *("--set", "git.protocols={http}", "--set", "git.allowedHosts={git}"),
)


@pytest.fixture(scope="module")
def installed(node: Node, images: dict[str, str]) -> str:
    """Install the chart as the README does; returns the address of the Git server."""
    assert set(images) == {"operator", "jobs", "server"}
    namespace = {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    node.plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": namespace}, "/api/v1/namespaces")
    Release(node.plane, NAMESPACE).helm("install", *VALUES, "--wait", "--timeout", "4m")
    return start_git(node, NAMESPACE)


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
