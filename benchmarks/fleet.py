"""A fleet of served models on an API server, made without training a thousand times: one is real, the rest are it.

One model goes through the real reconcilers (commit, training, gates, champion) in the simulated world with the
settings of a cluster; its objects and its ledger are copied under other names, the ledger is signed anew.  What
stands on the server afterwards is at rest: the operator that looks at it must find nothing to do.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from controller.api.meta import FIELD_MANAGER, Manifest, key_of
from controller.api.statements import LEDGER_TYPE
from controller.clients.git import GitPolicy, Mirrors
from controller.clients.git_types import Head
from controller.clients.kube_kinds import resource_of, sendable
from controller.plan.pods import PodSettings
from controller.plan.servers import LABEL_COMPONENT
from controller.reconcile.settings import OperatorSettings
from controller.reconcile.world import Settings
from tests.cluster.control_plane import ControlPlane
from tests.support.git_repos import GitServer, Scratch
from tests.support.simulation import Simulation
from tests.support.stories import spec

NAMESPACE = "fleet"
REPOSITORY = "models.git"
FILES = {"train.py": b"fit()", "quality": b"60", "data.csv": b"1,2", "README.md": b"hello"}
STEM = "model-00000"
AT_ONCE = 32
_MADE = ("ModelRevision", "Deployment", "Service", "PodDisruptionBudget", "Pod")
"""What stands beside a served ModelSpec; its Job has expired."""


def cluster_url(namespace: str, name: str) -> str:
    """Say where a model answers, as the operator does."""
    return f"http://{name}.{namespace}.svc:8080"


def name_of(number: int) -> str:
    """Name a model of the fleet."""
    return f"model-{number:05d}"


@dataclass(frozen=True)
class Template:
    """The one model that is real."""

    objects: tuple[Manifest, ...]
    """The ModelSpec first; each with its status."""
    ledger: tuple[dict[str, Any], ...]
    """Payloads of its ledger, number 1 first."""
    digest: str
    """Of the artifact that its servers have loaded."""

    def of(self, number: int) -> list[Manifest]:
        """Write the objects of one model of the fleet."""
        text = json.dumps(self.objects).replace(STEM, name_of(number))
        objects: list[Manifest] = json.loads(text)
        return objects

    def at(self, port: int) -> Template:
        """Have all servers answer on this port of loopback."""
        objects: tuple[Manifest, ...] = tuple(json.loads(json.dumps(self.objects)))
        for pod in (m for m in objects if m["kind"] == "Pod"):
            pod["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": port}]
        return replace(self, objects=objects)


def build(scratch: Path, git: GitServer, *, interval: str) -> Template:
    """Bring one model to where it serves.

    Args:
        scratch: directory of its own.
        git: server of a directory that holds the repository, with `FILES` on its branch main.
        interval: of the ModelSpecs' look at Git.
    """

    async def go() -> Template:
        s, mirrors = await _served(scratch, git, interval)
        found = [m for kind in ("ModelSpec", *_MADE) for m in await s.store.list(kind, namespace=NAMESPACE)]
        pods = [m for m in found if LABEL_COMPONENT in m["metadata"].get("labels", {})]
        digest = found[0]["status"]["champion"]["digest"]
        for pod in pods:
            s.traffic.counted[f"{pod['metadata']['name']}|digest={digest}"] = 1.0
        await s.settle()
        found[0] = await s.store.get(key_of(found[0])) or {}
        deployment = next(m for m in found if m["kind"] == "Deployment")
        objects = [m for m in found if m["kind"] != "Pod"] + [_pod(pods[0], deployment)]
        envelopes = await s.registry.read_ledger(STEM, NAMESPACE)
        ledger = [json.loads(s.world.ledger.verifier.open(e, LEDGER_TYPE).payload) for e in envelopes]
        mirrors.close()
        return Template(tuple(objects), tuple(ledger), digest)

    return asyncio.run(go())


async def _served(scratch: Path, git: GitServer, interval: str) -> tuple[Simulation, Mirrors]:
    """Let one model be trained, judged and served, with the settings of a cluster."""
    s = Simulation()
    policy = GitPolicy(protocols=frozenset({"http"}), allowed_hosts=("127.0.0.1",))
    mirrors = Mirrors(scratch / "mirrors", policy)
    image = OperatorSettings(tracking_uri="http://127.0.0.1:9", signing_key=scratch).server_image
    settings = Settings(
        runtime=image,
        tracking_uri="http://127.0.0.1:9",
        resync_s=600.0,
        pods=PodSettings(hardened=True, server_image=image),
    )
    s.world = replace(s.world, git=mirrors, settings=settings, url_of=cluster_url)
    manifest = spec()
    manifest["metadata"] = {"name": STEM, "namespace": NAMESPACE}
    manifest["spec"]["source"] |= {"url": git.url(REPOSITORY), "interval": interval}
    await s.store.apply(manifest)
    commit = Scratch(git.root / REPOSITORY).git("rev-parse", "main")
    s.git.commits.append((Head(commit, "refs/heads/main", "Ada", datetime.now(UTC), "Train", ""), dict(FILES)))
    await s.run(120)
    return s, mirrors


def _pod(plain: Manifest, deployment: Manifest) -> Manifest:
    """Write the server's pod as its Deployment would: the simulated one has no spec to speak of."""
    described = json.loads(json.dumps(deployment["spec"]["template"]["spec"]))
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-03-02T08:01:00Z"}
    status = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": [ready]}
    return {**plain, "spec": described, "status": status}


async def seed(plane: ControlPlane, template: Template, numbers: Iterable[int]) -> None:
    """Write models of the fleet to the server, their statuses too."""
    pace = asyncio.Semaphore(AT_ONCE)
    async with session(plane) as http:

        async def one(number: int) -> None:
            async with pace:
                await _write(http, template.of(number))

        await asyncio.gather(*(one(n) for n in numbers))


def session(plane: ControlPlane) -> aiohttp.ClientSession:
    """Open connections to the server as an administrator."""
    tls = ssl.create_default_context(cafile=str(plane.ca))
    return aiohttp.ClientSession(
        plane.url,
        connector=aiohttp.TCPConnector(limit=AT_ONCE, ssl=tls),
        headers={"Authorization": f"Bearer {plane.token}", "User-Agent": "benchmark"},
    )


async def _write(http: aiohttp.ClientSession, objects: list[Manifest]) -> None:
    """Write the objects of one model, owners first, so that each names the uid that the server gave."""
    uids: dict[str, str] = {}
    for manifest in objects:
        for owner in manifest["metadata"].get("ownerReferences", ()):
            owner["uid"] = uids[owner["uid"]]
        mine = manifest["metadata"].pop("uid")
        manifest["metadata"].pop("resourceVersion", None)
        key, sent = sendable(manifest)
        path = resource_of(key.kind).path(key.namespace)
        made = await _sent(http, "POST", path, sent, "application/json")
        uids[mine] = made["metadata"]["uid"]
        if status := manifest.get("status"):
            head = {"apiVersion": manifest["apiVersion"], "kind": key.kind, "metadata": {"name": key.name}}
            where = f"{path}/{key.name}/status"
            body = {**head, "status": status}
            await _sent(http, "PATCH", where, body, "application/apply-patch+yaml")


async def _sent(http: aiohttp.ClientSession, method: str, path: str, body: Manifest, media: str) -> Manifest:
    query = {"fieldManager": FIELD_MANAGER} | ({"force": "true"} if method == "PATCH" else {})
    headers = {"Content-Type": media}
    async with http.request(method, path, params=query, data=json.dumps(body), headers=headers) as answer:
        text = await answer.text()
        assert answer.ok, f"{method} {path}: {answer.status} {text[:500]}"
        found: Manifest = json.loads(text)
        return found


def make_namespace(plane: ControlPlane, name: str = NAMESPACE) -> None:
    """Make a namespace with the service account that pods need; no controller is there to make it."""
    meta = {"metadata": {"name": name}}
    plane.request("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", **meta})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    plane.request("POST", f"/api/v1/namespaces/{name}/serviceaccounts", account)
