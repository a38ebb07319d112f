"""A simulated world whose servers also count what they predict, as real ones do.

Decides nothing; a test says what each revision predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.api.meta import LABEL_REVISION, Key, Manifest, key_of, owner_reference
from controller.api.reports import Termination
from controller.reconcile.world import PrometheusPort
from controller.serving.step import termination_text
from tests.support.hard_simulation import HardSimulation
from tests.support.simulation import START

EVEN = {"no": 0.7, "yes": 0.3}


@dataclass
class PredictingSimulation(HardSimulation):
    """A world in which predictions are counted by value."""

    predicts: Callable[[str], Mapping[str, float]] = lambda _: EVEN
    """Revision → share of each predicted value."""
    fails_at: Callable[[str, float], float] = lambda revision, at: 0.0
    """Revision and seconds since the beginning → share of its answers that are errors."""
    arrives: Callable[[str], float] = lambda _: 1.0
    """Revision → share of its requests that reach it."""

    disagrees: Callable[[str], float] = lambda _: 0.0
    """Revision → share of its compared rows that the champion predicts otherwise."""
    asked: set[str] = field(default_factory=set)
    """Whose answers servers compared theirs with."""
    smoke: Callable[[str], str] = lambda _: ""
    """Revision → what its servers fail in their smoke test; empty: they pass it."""
    prometheus: PrometheusPort | None = None
    """What checks of canaries ask."""

    def restart(self) -> None:
        super().restart()
        self.world = replace(self.world, prometheus=self)

    async def value(self, query: str, server: str | None = None) -> float:
        """Ask the Prometheus of the test."""
        assert self.prometheus is not None
        return await self.prometheus.value(query, server)

    async def _run_deployment(self, deployment: Manifest) -> None:
        """Let servers fail their smoke test as the kubelet would tell it: ended, and started again in vain."""
        revision = deployment["metadata"]["labels"].get(LABEL_REVISION, "")
        env = {e["name"]: e["value"] for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
        problem = self.smoke(revision)
        if not problem or "MAINSPRING_SMOKE_TEST" not in env:
            await super()._run_deployment(deployment)
            return
        status = {"replicas": deployment["spec"]["replicas"], "readyReplicas": 0}
        await self.store.patch_status(key_of(deployment), status, uid=deployment["metadata"]["uid"])
        pod = await self.store.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{deployment['metadata']['name']}-0",
                    "namespace": "default",
                    "labels": deployment["spec"]["template"]["metadata"]["labels"],
                    "ownerReferences": [owner_reference(deployment)],
                },
                "spec": {"containers": [{"name": "server"}]},
            }
        )
        said = termination_text(Termination(outcome="Invalid", reason="SmokeTestFailed", message=problem))
        waiting = {"reason": "CrashLoopBackOff", "message": f"back-off 10s restarting pod {'x' * 120}"}
        server = {
            "name": "server",
            "ready": False,
            "state": {"waiting": waiting},
            "lastState": {"terminated": {"exitCode": 3, "message": said}},
        }
        await self.store.patch_status(key_of(pod), {"containerStatuses": [server]}, uid=pod["metadata"]["uid"])

    async def _serve(self, seconds: float) -> None:
        at = (self.clock.moment - START).total_seconds()
        for route in await self.store.list("HTTPRoute"):
            for backend in route["spec"]["rules"][0]["backendRefs"]:
                revision, pod = backend["name"].rpartition("-")[0], f"{backend['name']}-0"
                requests = self.requests_per_s * seconds * backend["weight"] / 100 * self.arrives(revision)
                if not requests:
                    continue
                self.traffic.add(pod, requests, requests * self.fails_at(revision, at), 0.02)
                counts = {f"p={value}": share * requests for value, share in self.predicts(revision).items()}
                counts |= await self._compared(backend["name"], requests)
                for name, count in {"rows": requests, **counts}.items():
                    self.traffic.counted[f"{pod}|{name}"] = self.traffic.counted.get(f"{pod}|{name}", 0.0) + count

    async def _compared(self, deployment: str, requests: float) -> dict[str, float]:
        """Count what servers compare that were told to; nothing where they were not."""
        found = await self.store.get(Key("Deployment", "default", deployment))
        assert found is not None
        env = {e["name"]: e["value"] for e in found["spec"]["template"]["spec"]["containers"][0]["env"]}
        if "MAINSPRING_COMPARE_URL" not in env:
            return {}
        self.asked.add(env["MAINSPRING_COMPARE_URL"])
        copies = requests * float(env["MAINSPRING_COMPARE_SHARE"])
        differ = copies * self.disagrees(deployment.rpartition("-")[0])
        return {"compared_requests": copies, "compared": copies, "disagreed": differ}

    async def analysis(self) -> dict[str, Any]:
        """Read what was measured in the last canary."""
        found: dict[str, Any] = (await self.status())["analysis"]
        return found

    async def check(self, name: str) -> dict[str, Any]:
        """Read one check of the last canary."""
        found = (c for c in (await self.analysis())["checks"] if c["name"] == name)
        return next(found)
