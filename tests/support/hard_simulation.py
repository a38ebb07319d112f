"""A simulated world in which more goes wrong: servers that never come up, and a look at all after each write.

Never decides anything itself; it only lets a test say what breaks, and asks back after every write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from controller.api.meta import LABEL_REVISION, Key, Manifest, key_of
from controller.api.statements import LedgerEntry
from controller.clients.errors import ClientError
from tests.support.simulation import WRITES, Simulation


class ToldKube:
    """Passes everything on, and tells after each write."""

    def __init__(self, inner: Any, told: Callable[[str, Any], Awaitable[None]]) -> None:
        self._inner = inner
        self._told = told

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in WRITES:
            return found

        async def write(*args: Any, **kwargs: Any) -> Any:
            result = await found(*args, **kwargs)
            await self._told(name, args[0])
            return result

        return write


@dataclass
class HardSimulation(Simulation):
    """A world that breaks where a test says so."""

    never_ready: Callable[[str], bool] = lambda _: False
    """Revision → whether none of its servers is ever ready."""
    after_write: Callable[[str, Any], Awaitable[None]] | None = None
    """Called after each write of the controller, with the verb and the object or its key."""
    events: list[tuple[str, str]] = field(default_factory=list)

    def restart(self) -> None:
        super().restart()
        if self.after_write is not None:
            self.world = replace(self.world, kube=ToldKube(self.world.kube, self.after_write))

    async def reconcile(self, key: Key) -> None:
        """Reconcile as the queue does: an outside error ends the look, not the world."""
        try:
            await super().reconcile(key)
        except ClientError as error:
            self.events.append((str(key), error.message))

    async def _run_deployment(self, deployment: Manifest) -> None:
        if not self.never_ready(deployment["metadata"]["labels"].get(LABEL_REVISION, "")):
            await super()._run_deployment(deployment)
            return
        status = {"replicas": deployment["spec"]["replicas"], "readyReplicas": 0}
        await self.store.patch_status(key_of(deployment), status, uid=deployment["metadata"]["uid"])
        pod = await self.store.get(Key("Pod", "default", f"{deployment['metadata']['name']}-0"))
        if pod is not None:
            unready = {"conditions": [{"type": "Ready", "status": "False"}], "podIP": "127.0.0.1"}
            await self.store.patch_status(key_of(pod), unready, uid=pod["metadata"]["uid"])

    # -- what a test asks ----------------------------

    async def condition(self, type_: str = "Ready", name: str = "bikes") -> Manifest:
        """Read a condition of a ModelSpec; empty when it is not there."""
        status = (await self.model(name)).get("status") or {}
        return next((c for c in status.get("conditions", ()) if c["type"] == type_), {})

    async def status(self, name: str = "bikes") -> Manifest:
        """Read the status of a ModelSpec."""
        return dict((await self.model(name)).get("status") or {})

    async def shares(self) -> dict[str, int]:
        """Read the route: percent by revision."""
        route = await self.store.get(Key("HTTPRoute", "default", "bikes"))
        backends = route["spec"]["rules"][0]["backendRefs"] if route else []
        return {b["name"].rpartition("-")[0]: b["weight"] for b in backends}

    def entries(self) -> list[LedgerEntry]:
        """Read all entries that the registry holds, whether it answers just now or not."""
        from controller.api.statements import LEDGER_TYPE, parse_entry
        from controller.clients.signing import Verifier

        verifier, found = Verifier([self.signer.public]), []
        for run in self.registry.runs.values():
            for path, data in run.artifacts.items():
                if path.startswith("ledger/"):
                    found.append(parse_entry(verifier.open(data, LEDGER_TYPE).payload))
        return sorted(found, key=lambda e: e.seq)

    def decisions(self) -> list[tuple[str, str]]:
        """Read the ledger as (kind, revision)."""
        return [(e.kind, e.revision) for e in self.entries()]
