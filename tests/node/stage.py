"""The demo's stage on a cluster: Git in a pod, the operator of the chart, and eyes that read the API server.

The six steps themselves are those of `mainspring demo`, unchanged; here is only what they play on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controller.api.meta import Key, Manifest
from controller.cli.demo_stage import MODEL, Repository
from controller.cli.errors import Failure
from controller.clients.kube import KubeClient
from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import Node

OPERATOR = "app.kubernetes.io/name=mainspring,app.kubernetes.io/component=operator"


def cluster_address(node: Node, namespace: str, service: str) -> str:
    """Read the address of a Service as this host reaches it, which knows no names of the cluster."""
    spec = node.plane.request("GET", f"/api/v1/namespaces/{namespace}/services/{service}")["spec"]
    return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"


def is_available(plane: ControlPlane, namespace: str, name: str) -> bool:
    """Tell whether all servers of a Deployment are ready."""
    found = plane.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
    ready: int = found.get("status", {}).get("availableReplicas", 0)
    return bool(ready == found["spec"].get("replicas", 1))


class ClusterRepository(Repository):
    """The repository that the README's commands made, pushed after every commit."""

    def __init__(self, path: Path, example: Path, *, push_to: str) -> None:
        super().__init__(path, example)
        self._push_to = push_to

    def create(self) -> str:
        """It is there already; returns its first commit."""
        return self._git("rev-parse", "HEAD")

    def commit(self, subject: str) -> str:
        """Commit everything and push."""
        commit = super().commit(subject)
        self._push()
        return commit

    def revert(self) -> str:
        """Revert the newest commit and push."""
        commit = super().revert()
        self._push()
        return commit

    def _push(self) -> None:
        # In one piece: the server in the pod reads no chunked body.
        self._git("-c", "http.postBuffer=100000000", "push", "--quiet", self._push_to, "HEAD:refs/heads/main")


class ClusterOperator:
    """The operator of the chart, killed by killing its pod."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane, self._namespace = plane, namespace

    def start(self) -> None:
        """Do nothing: its Deployment starts a killed one again."""

    def pods(self) -> list[Manifest]:
        """List its pods."""
        path = f"/api/v1/namespaces/{self._namespace}/pods?labelSelector={OPERATOR}"
        found: list[Manifest] = self._plane.request("GET", path)["items"]
        return found

    def kill(self) -> None:
        """End its pod at once: no handler runs, nothing is saved."""
        for pod in self.pods():
            path = f"/api/v1/namespaces/{self._namespace}/pods/{pod['metadata']['name']}"
            self._plane.request("DELETE", path, {"gracePeriodSeconds": 0})

    def check(self) -> None:
        """Raise when its container ended by itself."""
        for pod in self.pods():
            for status in pod.get("status", {}).get("containerStatuses", ()):
                if ended := status.get("lastState", {}).get("terminated"):
                    raise Failure(f"the operator ended with code {ended['exitCode']}: {ended.get('reason')}")


class ClusterView:
    """The objects as the API server shows them to anybody who may read."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._kube = KubeClient.connect(kubeconfig)
        self._namespace = namespace

    async def model(self) -> Manifest | None:
        """Read the ModelSpec; None before there is one."""
        return await self._kube.get(Key("ModelSpec", self._namespace, MODEL))

    async def list(self, kind: str) -> Any:
        """Read all objects of a kind."""
        return await self._kube.list(kind, namespace=self._namespace)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._kube.aclose()
