"""A real Kubernetes node for tests, with a control plane of its own: containerd, kubelet, scheduler, proxy, DNS.

Pods run as on any cluster: security contexts, init containers, probes, Services, names, logs and exec are real.
Needs root on Linux and Debian's packages of `tests.cluster.packages`.  All of it lives in a `Sandbox`, so nothing
is left on the machine, and a control plane that other tests share never runs a pod.  No image registry is asked:
images are imported from archives.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.build import built
from tests.cluster.control_plane import ControlPlane
from tests.cluster.oci import Image, write_image, write_layer
from tests.cluster.packages import CNI, NODE, installed
from tests.cluster.processes import NotReady, Server, wait_until
from tests.cluster.sandbox import Sandbox, run

NAME = "node"
PAUSE = "mainspring.test/pause:1"
DEADLINE = 180.0
_CTR = ("ctr", "--namespace", "k8s.io")
_SOCKET = "/run/containerd/containerd.sock"
# What is written to `lib/node` is found here by those inside.
_INSIDE = Path("/var/lib/node")


class Node:
    """A running cluster of one node; see `start`.

    plane: its control plane (url, kubeconfig, request, apply); address: of the node; sandbox: where it runs, for
    commands next to the pods.  Pods and Services are reached from the machine at their addresses.
    """

    def __init__(self, directory: Path, sandbox: Sandbox, plane: ControlPlane) -> None:
        self.directory, self.sandbox, self.plane = directory, sandbox, plane
        self.address = sandbox.address
        self._files = directory / "lib" / "node"
        self._servers: list[Server] = []

    @classmethod
    def start(cls, directory: Path, *, audit: bool = False) -> Node:
        """Start a cluster in `directory` (made when missing) and wait until its node is ready for pods.

        Raises NotInstalled without root or packages, NotReady with the tails of the logs of what did not start;
        nothing is left running then.
        """
        installed(NODE, "a Kubernetes node")
        sandbox = Sandbox.start(directory / "node")
        try:
            plane = ControlPlane.start(
                directory / "control-plane", audit=audit, address=sandbox.machine, services=sandbox.services
            )
        except BaseException:
            sandbox.stop()
            raise
        node = cls(directory / "node", sandbox, plane)
        try:
            node._start_all()
        except BaseException:
            node.stop()
            raise
        return node

    def stop(self) -> None:
        """Stop everything; logs and the control plane's directory stay, images for the next node."""
        self.plane.stop()
        for server in reversed(self._servers):
            server.stop()
        self._servers.clear()
        self.sandbox.stop()
        shutil.rmtree(self.directory / "lib", ignore_errors=True)

    def import_image(self, image: Image) -> None:
        """Give the node an image, unless it has it; only layers that it lacks are read."""
        if image.name in self.images():
            return
        there = self.sandbox.images / "io.containerd.content.v1.content" / "blobs" / "sha256"
        command = self.sandbox.inside([*_CTR, "images", "import", "-"])
        with (
            (self.directory / "import.log").open("w+") as log,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log) as ctr,
        ):
            assert ctr.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # its exit code and log say why it left
                image.write(ctr.stdin, lambda digest: not (there / digest).exists())
                ctr.stdin.close()
            if code := ctr.wait():
                log.seek(0)
                raise NotReady(f"importing {image.name} ended with {code}: {log.read()[-2000:]}")

    def import_archive(self, archive: Path) -> None:
        """Give the node the image of an archive as `docker save` writes it; pods name it by its tag."""
        self.sandbox.run([*_CTR, "images", "import", str(archive)], seconds=600)

    def tag_image(self, name: str, other: str) -> None:
        """Give an image of the node another name too, in full: with its registry."""
        self.sandbox.run([*_CTR, "images", "tag", "--force", name, other])

    def images(self) -> set[str]:
        """The names of the images that pods can use."""
        return set(self.sandbox.run([*_CTR, "images", "list", "--quiet"]).split())

    def keep_images(self, names: set[str]) -> None:
        """Remove images that earlier runs left, all of ours but those of these names."""
        others = {name for name in self.images() if name.startswith("localhost/")} - names
        if others:
            self.sandbox.run([*_CTR, "images", "remove", "--sync", *sorted(others)])

    def kubectl(self, *arguments: str, seconds: float = 120) -> str:
        """Run kubectl as an administrator; its standard output.  Raises NotReady with what it said."""
        kubectl = [str(built() / "kube"), "kubectl", f"--kubeconfig={self.plane.kubeconfig}"]
        kubectl.append(f"--cache-dir={self.directory / 'kubectl'}")
        return run([*kubectl, *arguments], seconds)

    def _start_all(self) -> None:
        for name, content in self._configurations().items():
            file = self._files / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        self._start_containerd()
        if PAUSE not in self.images():
            self._import_pause()
        kube, kubeconfig = str(self.plane.kube), f"--kubeconfig={self.plane.kubeconfig}"
        kubelet = [kube, "kubelet", f"--kubeconfig={_INSIDE / 'kubelet.kubeconfig'}"]
        kubelet += [
            f"--config={_INSIDE / 'kubelet.yaml'}",
            f"--hostname-override={NAME}",
            f"--node-ip={self.address}",
        ]
        self._serve("kubelet", kubelet)
        scheduler = [kube, "kube-scheduler", kubeconfig, "--leader-elect=false", "--secure-port=0"]
        scheduler += [f"--authentication-kubeconfig={self.plane.kubeconfig}"]
        scheduler += [f"--authorization-kubeconfig={self.plane.kubeconfig}"]
        self._serve("kube-scheduler", scheduler)
        proxy = [kube, "kube-proxy", kubeconfig, "--proxy-mode=nftables", f"--hostname-override={NAME}"]
        proxy += [f"--cluster-cidr={self.sandbox.pods}"]
        # The table of connections belongs to the machine: its limits are left as they are.
        proxy += ["--conntrack-max-per-core=0", "--conntrack-min=0"]
        proxy += ["--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s"]
        self._serve("kube-proxy", proxy)
        self._serve("coredns", [kube, "coredns", "-conf", str(_INSIDE / "Corefile")])
        wait_until(self._ready, "waiting for the node to be ready", DEADLINE, *self._servers)

    def _start_containerd(self) -> None:
        """Start containerd on the images of earlier runs, and without their containers."""
        command = ["containerd", "--config", str(_INSIDE / "containerd.toml")]
        for _ in range(2):
            containerd = self._serve("containerd", command)
            wait_until(self._containerd_answers, "waiting for containerd", DEADLINE, containerd)
            old = self.sandbox.run([*_CTR, "containers", "list", "--quiet"]).split()
            if not old:
                return
            self.sandbox.run([*_CTR, "containers", "remove", *old])
            # It knows what it has removed only from its next start on.
            self._servers.remove(containerd)
            containerd.stop()
            shutil.rmtree(self.sandbox.images / "io.containerd.grpc.v1.cri", ignore_errors=True)
        raise NotReady("containerd still lists containers of an earlier run after they were removed")

    def _serve(self, name: str, command: list[str]) -> Server:
        server = Server(name, self.sandbox.inside(command), self.directory / f"{name}.log")
        self._servers.append(server)
        return server

    def _containerd_answers(self) -> bool:
        try:
            self.sandbox.run([*_CTR, "version"], seconds=20)
        except NotReady:
            return False
        return True

    def _ready(self) -> bool:
        nodes: list[dict[str, Any]] = self.plane.request("GET", "/api/v1/nodes")["items"]
        conditions = [each for node in nodes for each in node.get("status", {}).get("conditions", [])]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def _import_pause(self) -> None:
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            layer, archive = Path(scratch) / "layer.tar", Path(scratch) / "image.tar"
            write_layer(layer, {"/pause": built() / "pause"})
            write_image(archive, PAUSE, layer, {"Entrypoint": ["/pause"]})
            self.import_archive(archive)

    def _configurations(self) -> dict[str, str]:
        certificate, key = self.plane.authority.client("kubelet", f"system:node:{NAME}", "system:nodes")
        identity = json.loads(self.plane.kubeconfig.read_text())
        identity["users"][0]["user"] = {"client-certificate": str(certificate), "client-key": str(key)}
        return {
            "containerd.toml": _containerd(),
            "cni/10-bridge.conflist": json.dumps(_network(self.sandbox.pods)),
            "kubelet.yaml": yaml.safe_dump(_kubelet(self.sandbox, self.plane.ca)),
            "kubelet.kubeconfig": json.dumps(identity),
            "Corefile": _dns(self.address, self.plane.kubeconfig),
            # Names outside the cluster are nobody's business here.
            "resolv.conf": f"nameserver {self.address}\n",
        }


def _containerd() -> str:
    return f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
address = "{_SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI}"
conf_dir = "{_INSIDE / "cni"}"
"""


def _network(pods: str) -> dict[str, Any]:
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": pods}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "bridge", "plugins": [bridge, ports]}


def _kubelet(sandbox: Sandbox, authority: Path) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{sandbox.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "clusterDNS": [sandbox.address],
        "clusterDomain": "cluster.local",
        "resolvConf": str(_INSIDE / "resolv.conf"),
        "address": sandbox.address,
        # Tests wait for pods; a busy machine can afford to look more often.
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
    }


def _dns(address: str, kubeconfig: Path) -> str:
    return f""".:53 {{
    bind {address}
    errors
    cache 5
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig} test
        pods insecure
    }}
}}
"""
