"""Runs Deployments: so many servers of the present template, each on a port of its own, ready by its probe.

New servers are ready before old ones go, and whoever goes is out of the router before it is told to stop.
A crash is the shim's business (it starts the server again); a lost shim is replaced here by a new pod.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import httpx

from controller.api.meta import Manifest
from controller.clients.errors import Denied
from controller.local.pod_status import deployment_status, pod_status, trouble_of
from controller.local.pods import MissingConfigMap, plan_pod
from controller.local.processes import PodDirectory, Seen
from controller.local.runner_machine import Machine, free_port, template_hash

PROBE_TIMEOUT_S = 1.0
PROBE_AGAIN_S = 1.0
"""A server that is ready is asked again after that long; one that is not, in every pass."""
FAILURES = 3
"""Failed probes in a row before a running server is taken out, as in Kubernetes."""


Pair = tuple[PodDirectory, Seen]


@dataclass(frozen=True, slots=True)
class Server:
    """One pod of a Deployment that may get requests or will soon."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    port: int
    ready: bool


@dataclass(slots=True)
class _Probed:
    ready: bool = False
    failures: int = 0
    at: float = float("-inf")


class Probes:
    """Knows which servers are ready; asks them over HTTP."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str, int], _Probed] = {}
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def look(self, pods: Iterable[tuple[PodDirectory, Seen, Manifest | None]]) -> dict[str, bool]:
        """Tell of the pods of one namespace by name which are ready; all are asked at the same time."""
        found = await asyncio.gather(*(self._one(d, seen, pod) for d, seen, pod in pods))
        return dict(found)

    async def _one(self, directory: PodDirectory, seen: Seen, pod: Manifest | None) -> tuple[str, bool]:
        name, main = directory.name, seen.plan.containers[-1].name
        if not seen.running(main) or seen.stop:
            return name, False
        if seen.plan.probe is None:
            return name, True
        run = seen.runs[main]
        # A server that crashed is another one: it must prove itself again.
        key = (directory.namespace, name, str(run["identity"]), int(run["count"]))
        if key not in self._known:
            self._known[key] = _Probed(ready=_was_ready(pod, int(run["count"])))
        known = self._known[key]
        if known.ready and time.monotonic() - known.at < PROBE_AGAIN_S:
            return name, True
        passed = await self._ask(f"http://127.0.0.1:{seen.plan.port}{seen.plan.probe}")
        known.at = time.monotonic()
        known.failures = 0 if passed else known.failures + 1
        known.ready = passed or (known.ready and known.failures < FAILURES)
        return name, known.ready

    async def _ask(self, url: str) -> bool:
        if self._client is None:
            limits = httpx.Limits(max_keepalive_connections=0)
            self._client = httpx.AsyncClient(
                timeout=PROBE_TIMEOUT_S,
                limits=limits,
                trust_env=False,
                verify=False,  # noqa: S501  # plain http
            )
        try:
            answer = await self._client.get(url)
        except httpx.HTTPError:
            return False
        return 200 <= answer.status_code < 400

    def forget(self, present: Iterable[tuple[str, str]]) -> None:
        """Forget pods that are gone."""
        alive = set(present)
        self._known = {key: probed for key, probed in self._known.items() if key[:2] in alive}


def _was_ready(pod: Manifest | None, count: int) -> bool:
    """Tell whether the controller before us found this very server ready."""
    status = (pod or {}).get("status", {})
    mains = status.get("containerStatuses", ())
    return any(c["ready"] and c["restartCount"] == count for c in mains)


async def keep_deployment(
    machine: Machine,
    deployment: Manifest,
    mine: list[Pair],
    pods: Mapping[tuple[str, str], Manifest],
    probes: Probes,
    taken: set[int],
) -> list[Server]:
    """Bring one Deployment a step further and write what is.

    Args:
        machine: where it runs.
        deployment: as read from the store in this pass.
        mine: the directories that this Deployment owns.
        pods: all Pod objects by namespace and name.
        probes: knows who is ready.
        taken: ports that are promised; new ones are added.

    Returns:
        Its servers that are not being stopped.
    """
    meta, spec = deployment["metadata"], deployment["spec"]
    namespace, wanted, template = meta["namespace"], int(spec.get("replicas", 1)), template_hash(spec["template"])
    trouble = ""
    if not machine.frozen:
        missing = wanted - sum(seen.plan.template == template and _lasts(seen) for _, seen in mine)
        trouble, begun = await _begin(machine, deployment, missing, template, taken)
        mine = [*mine, *begun]
    ready = await probes.look((d, seen, pods.get((namespace, d.name))) for d, seen in mine)
    kept = [] if machine.frozen else _settle(mine, ready, wanted, template)
    new = [(d, seen) for d, seen in kept if seen.plan.template == template]
    stopping = {d.name for d, _ in mine} - {d.name for d, _ in kept}
    trouble = trouble or next((t for d, seen in new if not ready[d.name] and (t := trouble_of(d.name, seen))), "")
    await _tell(machine, deployment, mine, pods, {n: ready[n] and n not in stopping for n in ready})
    status = deployment_status(
        deployment,
        updated=len(new),
        replicas=len(kept),
        ready=sum(ready[d.name] for d, _ in kept),
        trouble=trouble,
        now=machine.now(),
    )
    await machine.tell_status("Deployment", deployment, status)
    labels = spec["template"].get("metadata", {}).get("labels", {})
    return [Server(namespace, d.name, labels, seen.plan.port or 0, ready[d.name]) for d, seen in kept]


def _lasts(seen: Seen) -> bool:
    return not seen.stop and seen.state in ("New", "Running")


def _settle(mine: list[Pair], ready: Mapping[str, bool], wanted: int, template: str) -> list[Pair]:
    """Mark the pods that are to go; returns the others, those of the present template first."""
    staying: list[Pair] = []
    for directory, seen in mine:
        if _lasts(seen):
            staying.append((directory, seen))
            if seen.state == "New":
                directory.start()
        elif not seen.stop:
            directory.mark_stop({"at": time.monotonic(), "reason": "Lost"})
    # The ready ones first: what is not ready serves nobody and goes first.
    staying.sort(key=lambda pair: (not ready[pair[0].name], _number(pair[0].name)))
    new = [pair for pair in staying if pair[1].plan.template == template]
    old = [pair for pair in staying if pair[1].plan.template != template]
    needed = max(0, wanted - sum(ready[d.name] for d, _ in new))
    for going, reason in ((new[wanted:], "ScaledDown"), (old[needed:], "Replaced")):
        for directory, _ in going:
            directory.mark_stop({"at": time.monotonic(), "reason": reason})
    return new[:wanted] + old[:needed]


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


async def _begin(
    machine: Machine, deployment: Manifest, missing: int, template: str, taken: set[int]
) -> tuple[str, list[Pair]]:
    """Prepare and start pods, `<deployment>-<n>` with the lowest numbers that are free.

    Returns:
        What kept it from starting all of them, and the pods begun.
    """
    meta, pod_template = deployment["metadata"], deployment["spec"]["template"]
    begun: list[Pair] = []
    numbers = itertools.count()
    while len(begun) < missing:
        directory = machine.directories.pod(meta["namespace"], f"{meta['name']}-{next(numbers)}")
        if directory.exists():
            continue
        port = free_port(taken)
        try:
            config = await machine.config_maps(meta["namespace"], pod_template)
            plan = plan_pod(
                pod_template,
                machine.place(directory.path, port=port),
                owner=meta["uid"],
                template_hash=template,
                restart=True,
                deadline=None,
                config_map=config.get,
            )
        except MissingConfigMap as missing_map:
            return f"pod {directory.name}: {missing_map}", begun
        except Denied as refusal:
            return refusal.message, begun
        taken.add(port)
        directory.prepare(plan)
        directory.start()
        seen = directory.look()
        if seen is None:
            return f"pod {directory.name} vanished", begun
        begun.append((directory, seen))
    return "", begun


async def _tell(
    machine: Machine,
    deployment: Manifest,
    mine: list[Pair],
    pods: Mapping[tuple[str, str], Manifest],
    ready: Mapping[str, bool],
) -> None:
    for directory, seen in mine:
        known = pods.get((directory.namespace, directory.name))
        pod = await machine.tell_pod(directory.name, deployment, known, seen.plan)
        before, now = pod.get("status", {}), machine.now()
        await machine.tell_status(
            "Pod", pod, pod_status(seen, ready=ready[directory.name], before=before, now=now)
        )
