"""The demo's stage on a cluster: Git in a pod, the operator of the chart, and eyes that read the API server.

The six steps themselves are those of `mainspring demo`, unchanged; here is only what they play on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controller.api.meta import API_VERSION, Key, Manifest
from controller.cli.demo_stage import MODEL, Repository
from controller.cli.errors import Failure
from controller.clients.kube import KubeClient
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import wait_until

GIT_PORT = 8080
OPERATOR = "app.kubernetes.io/name=mainspring,app.kubernetes.io/component=operator"
_SCRIPT = Path(__file__).with_name("git_http.py")
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def git_pod(image: str, namespace: str) -> list[tuple[str, Manifest]]:
    """Write the objects of the Git server, each with the collection it belongs to."""
    meta = {"name": "git", "namespace": namespace, "labels": {"app": "git"}}
    container = {
        "name": "git",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "/script/git_http.py", "/repositories", str(GIT_PORT)],
        "ports": [{"containerPort": GIT_PORT}],
        "readinessProbe": {"tcpSocket": {"port": GIT_PORT}, "periodSeconds": 1},
        "securityContext": _RESTRICTED,
        "volumeMounts": [
            {"name": "script", "mountPath": "/script"},
            {"name": "repositories", "mountPath": "/repositories"},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    volumes = [
        {"name": "script", "configMap": {"name": "git"}},
        {"name": "repositories", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    template = {"metadata": {"labels": {"app": "git"}}, "spec": {"containers": [container], "volumes": volumes}}
    core, apps = f"/api/v1/namespaces/{namespace}", f"/apis/apps/v1/namespaces/{namespace}"
    script = {"git_http.py": _SCRIPT.read_text()}
    deployment = {"selector": {"matchLabels": {"app": "git"}}, "template": template}
    service = {"selector": {"app": "git"}, "ports": [{"port": 80, "targetPort": GIT_PORT}]}
    return [
        (f"{core}/configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": script}),
        (
            f"{apps}/deployments",
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": deployment},
        ),
        (f"{core}/services", {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service}),
    ]


def start_git(plane: ControlPlane, image: str, namespace: str) -> str:
    """Start the Git server and wait until it is ready; returns the address that pods and this host reach."""
    for collection, manifest in git_pod(image, namespace):
        plane.apply(manifest, collection)

    def available() -> bool:
        return is_available(plane, namespace, "git")

    wait_until(available, "waiting for the Git server's pod", 120)
    found = plane.request("GET", f"/api/v1/namespaces/{namespace}/services/git")
    return f"http://{found['spec']['clusterIP']}"


def is_available(plane: ControlPlane, namespace: str, name: str) -> bool:
    """Tell whether all servers of a Deployment are ready."""
    found = plane.request("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
    ready: int = found.get("status", {}).get("availableReplicas", 0)
    return bool(ready == found["spec"].get("replicas", 1))


class ClusterRepository(Repository):
    """The scratch repository, pushed after every commit; pods follow it by the name of its Service."""

    def __init__(self, path: Path, example: Path, *, url: str, push_to: str) -> None:
        super().__init__(path, example)
        self._url, self._push_to = url, push_to

    @property
    def url(self) -> str:
        """Address that the operator and the Jobs follow."""
        return self._url

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

    def __init__(self, plane: ControlPlane, namespace: str, url: str) -> None:
        self._plane, self._namespace, self._url = plane, namespace, url

    def start(self) -> None:
        """Have it follow the repository; a killed one is started again by its Deployment."""
        spec = {"url": self._url, "ref": {"branch": "main"}, "path": "deploy", "interval": "1s"}
        meta = {"name": "team", "namespace": self._namespace}
        manifest = {"apiVersion": API_VERSION, "kind": "ModelRepository", "metadata": meta, "spec": spec}
        self._plane.apply(manifest, f"/apis/{API_VERSION}/namespaces/{self._namespace}/modelrepositories")

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
