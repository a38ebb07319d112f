"""What the parts of the runner share: the store, the directories, the interpreter, the clock, and Pod objects.

One pass of any number of runners at a time: whoever acts holds the lock of the root directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

from controller.api.conditions import timestamp
from controller.api.hashes import sha256
from controller.api.meta import API_VERSIONS, Key, Manifest, owner_reference
from controller.clients.errors import NotFound, Unavailable
from controller.local.merge import text_of
from controller.local.pods import PORT_ENV, Place, Plan
from controller.local.processes import Directories
from controller.reconcile.kube import Kube

PORTS: Final = range(20_000, 30_000)
"""Where servers listen: below the range from which the kernel takes ports of outgoing connections."""
LOCK_EVERY_S: Final = 0.02
OUTPUT_BYTES: Final = 10 * 2**30
"""Most bytes that one step of a Job may write, unless told otherwise."""

log = logging.getLogger("mainspring.runner")


@dataclass
class Machine:
    """This machine as the parts of the runner see it."""

    kube: Kube
    root: Path
    python: str
    extra_env: Mapping[str, str]
    """What every container gets besides its spec."""
    clock: Callable[[], datetime]
    step_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What containers of these names get besides."""
    output_bytes: int = OUTPUT_BYTES
    """Most bytes that one step of a Job may write."""
    directories: Directories = field(init=False)
    frozen: bool = False
    """While everything is being stopped: look and tell, but start nothing."""

    def __post_init__(self) -> None:
        if not Path("/proc/self/stat").exists():
            raise Unavailable(
                f"local mode watches its processes by /proc, which {sys.platform} does not have; use Linux",
                reason="PlatformNotSupported",
            )
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root = self.root.resolve()
        self.directories = Directories(self.root)

    def now(self) -> str:
        """Return the present moment, RFC 3339."""
        return timestamp(self.clock())

    def place(self, path: Path, *, port: int | None = None) -> Place:
        """Describe where the pod of a directory runs."""
        return Place(
            namespace=path.parent.name,
            name=path.name,
            directory=PurePosixPath(path),
            python=self.python,
            path=os.environ.get("PATH", os.defpath),
            extra_env=self.extra_env,
            step_env=self.step_env,
            port=port,
        )

    async def config_maps(self, namespace: str, template: Manifest) -> dict[str, Mapping[str, str]]:
        """Read the ConfigMaps that a pod template mounts; missing ones are left out."""
        names = {v["configMap"]["name"] for v in template["spec"].get("volumes", []) if "configMap" in v}
        found = {name: await self.kube.get(Key("ConfigMap", namespace, name)) for name in names}
        return {name: m.get("data", {}) for name, m in found.items() if m is not None}

    async def tell_pod(self, name: str, owner: Manifest, before: Manifest | None, plan: Plan | None) -> Manifest:
        """Return the Pod object of a pod, made first where it is missing; `plan` carries the real port."""
        if before is not None:
            return before
        template, meta = owner["spec"]["template"], owner["metadata"]
        extra = {"batch.kubernetes.io/job-name": meta["name"]} if owner["kind"] == "Job" else {}
        return await self.kube.apply(
            {
                "apiVersion": API_VERSIONS["Pod"],
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": meta["namespace"],
                    "labels": {**template.get("metadata", {}).get("labels", {}), **extra},
                    "ownerReferences": [owner_reference(owner)],
                },
                "spec": pod_spec(template["spec"], plan.port if plan else None),
            }
        )

    async def tell_status(self, kind: str, manifest: Manifest, status: Manifest) -> None:
        """Write a status; the object may be gone by now."""
        meta = manifest["metadata"]
        with contextlib.suppress(NotFound):  # it was deleted meanwhile: the next pass sees that
            await self.kube.patch_status(Key(kind, meta["namespace"], meta["name"]), status, uid=meta["uid"])

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold the lock of the root directory, also against other processes."""
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(LOCK_EVERY_S)
            yield
        finally:
            os.close(descriptor)


def pod_spec(spec: Manifest, port: int | None) -> Manifest:
    """Write a pod's spec as it really runs: the first container port is the one it got."""
    if port is None or not spec["containers"][0].get("ports"):
        return spec
    main: dict[str, Any] = dict(spec["containers"][0])
    main["ports"] = [{**main["ports"][0], "containerPort": port}, *main["ports"][1:]]
    env = [e for e in main.get("env", []) if e["name"] != PORT_ENV]
    main["env"] = [*env, {"name": PORT_ENV, "value": str(port)}]
    return {**spec, "containers": [main, *spec["containers"][1:]]}


def template_hash(template: Manifest) -> str:
    """Hash a pod template: ten digits tell the templates of one Deployment apart."""
    return sha256(text_of(template).encode()).rpartition(":")[2][:10]


def is_free(port: int) -> bool:
    """Tell whether a server could listen on a port of the loopback now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(taken: set[int]) -> int:
    """Choose a port that nobody listens on and that is not promised to another pod (`taken`).

    Raises:
        OSError: none is left.
    """
    for port in random.sample(PORTS, len(PORTS)):
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {PORTS.start} and {PORTS.stop}")


def age_of(mark: Mapping[str, Any], name: str = "at") -> float:
    """Return how many seconds ago a mark was set, on the clock that counts from boot."""
    age = time.monotonic() - float(mark[name])
    return age if age >= 0 else float("inf")
