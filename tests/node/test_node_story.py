"""The README's five minutes on a real node as they stand there, and the demo's story on what they left.

The chart, the images, Git and MLflow as pods, requests through the Service all the time.  The six steps are those
of `mainspring demo` and check their own promises; here stands what only a cluster can show.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from controller.api.meta import LABEL_MODEL
from controller.cli.demo import STEPS, Stage
from controller.cli.demo_stage import Traffic, read_rows
from tests.cluster.build import built
from tests.cluster.node import Node
from tests.cluster.processes import wait_until
from tests.node.stage import ClusterOperator, ClusterRepository, ClusterView, cluster_address, is_available
from tests.support.crash_end import Reader
from tests.support.helm import binary
from tests.support.operator_process import ROOT

EXAMPLE = ROOT / "examples" / "bikes"
NAMESPACE = "team"
STEP_LIMIT_S = 300.0
README_LIMIT_S = 900.0
DELETED_WITHIN_S = 180.0
MADE = "modelspecs,modelrevisions,jobs,configmaps,deployments,replicasets,services,poddisruptionbudgets,pods"
"""What a model is made of on a cluster."""


def commands() -> str:
    """Read the five minutes out of the README."""
    found = re.search(
        r"<!-- cluster -->\n```\n(.*?)```\n<!-- /cluster -->", (ROOT / "README.md").read_text(), re.S
    )
    assert found, "the README shows the five minutes between its two marks"
    return found[1]


@pytest.fixture(scope="module")
def first_model(node: Node, images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the README's commands; returns the repository that they made, and what they printed."""
    assert set(images) >= {"operator", "jobs", "server"}
    scratch = tmp_path_factory.mktemp("readme")
    tree, tools = scratch / "mainspring", scratch / "bin"
    for name in ("examples", "helm"):
        shutil.copytree(ROOT / name, tree / name)
    tools.mkdir()
    (tools / "helm").symlink_to(binary())
    (tools / "kubectl").write_text(f'#!/bin/sh\nexec {built() / "kube"} kubectl "$@"\n')
    (tools / "kubectl").chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", f"set -e\ntrap 'kill $(jobs -p)' EXIT\n{commands()}"],
        cwd=tree,
        env={
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(scratch),
            "KUBECONFIG": str(node.plane.kubeconfig),
            "GIT_CONFIG_NOSYSTEM": "1",
        },
        capture_output=True,
        text=True,
        timeout=README_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return tree / "first-model", done.stdout


def test_the_five_minutes_of_the_readme_end_with_a_served_model(first_model: tuple[Path, str]):
    _, printed = first_model
    shown = [line.split() for line in printed.splitlines() if line.startswith("modelspec.mainspring.dev/bikes ")]
    assert shown[-1][1] == "True", "column Ready of the table at the end"


async def play(node: Node, directory: Path) -> tuple[list[str], Traffic]:
    """Play all steps with requests from the first model on; returns what happened and the traffic."""
    repository = ClusterRepository(
        directory, EXAMPLE, push_to=f"{cluster_address(node, NAMESPACE, 'git')}/bikes.git"
    )
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
                sending = asyncio.create_task(traffic.run(cluster_address(node, NAMESPACE, "bikes")))
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


def test_the_story_of_the_demo_on_a_node(node: Node, first_model: tuple[Path, str]):
    node.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    happened, traffic = asyncio.run(play(node, first_model[0]))
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
    servers = kubectl("get", "-n", NAMESPACE, "deployments", "-l", f"{LABEL_MODEL}=bikes", "-o", "name")
    assert champion["revision"] in servers
    wait_until(lambda: is_available(node.plane, NAMESPACE, "mainspring"), "waiting for the operator", 60)


def test_a_deleted_model_takes_all_that_it_had_with_it_but_what_is_recorded(
    node: Node, first_model: tuple[Path, str]
):
    """Owner references alone do it, as for any Kubernetes object: no finalizer of ours can hang."""
    assert first_model

    def left() -> str:
        return node.kubectl("get", "-n", NAMESPACE, MADE, "-l", f"{LABEL_MODEL}=bikes", "-o", "name")

    registry = Reader(cluster_address(node, NAMESPACE, "mainspring-mlflow"), "bikes")
    before = (registry.versions(), registry.aliases(), registry.ledger(), sorted(registry.runs()))
    assert "service/bikes" in left()
    # First what would bring it back.
    node.kubectl("delete", "-n", NAMESPACE, "modelrepository/team", "modelspec/bikes", "--timeout=60s")
    wait_until(lambda: not left(), "waiting for servers, Jobs and revisions to go", DELETED_WITHIN_S)
    shown = node.kubectl("get", "-n", NAMESPACE, "modelspecs", "-o", "name")
    assert "bikes" not in shown
    assert is_available(node.plane, NAMESPACE, "mainspring"), "the operator goes on"
    after = (registry.versions(), registry.aliases(), registry.ledger(), sorted(registry.runs()))
    assert after == before, "what was decided and measured stays"
