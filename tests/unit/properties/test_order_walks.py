"""Random walks of people who order things while the world breaks: what holds at every step, and how it ends.

A walk is a seed: commits, reverts, orders and their end, Git and MLflow away, servers that break, the controller
killed and started again. `python -m tests.unit.properties.test_order_walks FIRST COUNT` plays more of them.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from datetime import timedelta

import pytest

from controller.api.conditions import timestamp
from controller.api.meta import API_VERSION, Key, Manifest, key_of
from controller.clients.errors import Unavailable
from tests.support.hard_simulation import HardSimulation
from tests.support.stories import spec
from tests.unit.stories.test_stories import first_commit

STEPS = 20
SEEDS = range(6)
AWAY = Unavailable("git.example.com did not answer", reason="GitUnavailable")
QUALITIES = (b"60", b"55", b"50", b"48", b"45", b"120")
MODEL = Key("ModelSpec", "default", "bikes")
PAUSES = (0.0, 10.0, 20.0, 60.0, 120.0)


class World(HardSimulation):
    """A world whose Jobs wait for MLflow, as the real ones try again."""

    async def _run_job(self, job: Manifest) -> None:
        if not self.registry.down:
            await super()._run_job(job)


class Walk:
    """One walk: the world, its chance, and what was ordered."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.s = World(stale=seed % 3 == 2)
        self.seed, self.orders, self.did = seed, 0, ["first_commit"]
        self.broken: set[str] = set()

    async def play(self) -> None:
        s = self.s
        s.never_ready = lambda revision: revision in self.broken
        await first_commit(s)
        steps = (
            self.commit,
            self.revert,
            self.order,
            self.order,
            self.end,
            self.outage,
            self.servers,
            self.killed,
        )
        for _ in range(STEPS):
            step = self.rng.choice((*steps, self.answers, self.suspend))
            self.did.append(step.__name__)
            await step()
            await s.run(self.rng.choice(PAUSES))
            await self.hold()
        await self.rest()

    # -- what happens ----------------------------

    async def commit(self) -> None:
        self.s.git.commit("Another", {"quality": self.rng.choice(QUALITIES)})

    async def revert(self) -> None:
        if len(self.s.git.commits) > 1:
            self.s.git.revert("Revert")

    async def order(self) -> None:
        found = await self.s.store.list("ModelRevision")
        made = [r for r in found if "artifact" in (r.get("status") or {})]
        status = await self.s.status()
        serving, current = ((status.get(p) or {}).get("revision") for p in ("champion", "challenger"))
        action = self.rng.choice(("Promote", "Abort")) if current and self.rng.random() < 0.6 else "Rollback"
        others = [r for r in made if r["metadata"]["name"] not in (serving, current)]
        likely = [r for r in made if r["metadata"]["name"] == current] if action != "Rollback" else others
        chosen = self.rng.choice(likely if likely and self.rng.random() < 0.8 else made)
        self.orders += 1
        wanted: Manifest = {
            "modelRef": {"name": "bikes"},
            "action": action,
            "to": chosen["metadata"]["name"],
            "digest": chosen["status"]["artifact"]["digest"],
            "actor": "jane",
            "reason": "a walk",
            "expiresAt": timestamp(self.s.clock.now() + timedelta(seconds=self.rng.choice((60, 300, 3600)))),
        }
        self.did[-1] += f" {action} {wanted['to']}"
        meta = {"name": f"order-{self.orders:02d}"}
        await self.s.store.create(
            {"apiVersion": API_VERSION, "kind": "ModelOverride", "metadata": meta, "spec": wanted}
        )

    async def end(self) -> None:
        found = await self.s.store.list("ModelOverride")
        if found:
            await self.s.store.delete(key_of(self.rng.choice(found)))

    async def outage(self) -> None:
        if self.rng.random() < 0.5:
            self.s.registry.down = not self.s.registry.down
        else:
            self.s.git.error = None if self.s.git.error else AWAY

    async def servers(self) -> None:
        found = await self.s.store.list("Deployment")
        if found:
            self.broken ^= {self.rng.choice(found)["metadata"]["name"].rpartition("-")[0]}

    async def answers(self) -> None:
        bad = self.rng.choice(("", "", (await self.s.status()).get("challenger", {}).get("revision", "")))
        self.s.error_rate = lambda revision: 0.2 if bad and revision == bad else 0.0

    async def killed(self) -> None:
        self.s.crash_at = self.s.writes[0] + self.rng.randint(1, 8)
        self.s.restart()

    async def suspend(self) -> None:
        if self.rng.random() < 0.5:
            await self.s.store.patch_spec(MODEL, {"suspend": True})
            await self.s.run(10)
        await self.s.store.patch_spec(MODEL, {"suspend": False})

    # -- what must hold ----------------------------

    def must(self, holds: object, what: str) -> None:
        assert holds, f"seed {self.seed}: {what}; " + ", ".join(self.did)

    async def hold(self) -> None:
        s = self.s
        status, shares = await s.status(), await s.shares()
        champion = (status.get("champion") or {}).get("revision")
        ready = await s.condition()
        self.must(ready.get("reason") != "InternalError", f"{ready}")
        written = Counter(e.override.uid for e in s.entries() if e.override is not None)
        self.must(not [u for u, n in written.items() if n > 1], f"an order stands twice in the ledger: {written}")
        if ready.get("status") == "True":
            wanted = status["source"]["wanted"]
            self.must(
                champion == wanted and shares == {champion: 100}, f"Ready, {champion} {shares}, {wanted} asked"
            )
        held = [m for m in await s.store.list("ModelOverride") if self.active(m) == ("True", "Applied")]
        self.must(len(held) <= 1 or s.stale, f"two orders rule: {[m['metadata']['name'] for m in held]}")
        for found in held if len(held) == 1 and not s.stale else ():
            to, action = found["spec"]["to"], found["spec"]["action"]
            if action == "Rollback":
                self.must(champion == to, f"{to} was ordered, {champion} is champion")
                self.must(to in self.broken or shares == {to: 100}, f"{to} was ordered, {shares} is served")
            elif champion not in self.broken:
                self.must(to not in shares, f"{to} is kept out and gets {shares}")

    @staticmethod
    def active(found: Manifest) -> tuple[str, str]:
        told: Manifest = next(iter((found.get("status") or {}).get("conditions", ())), {})
        return told.get("status", ""), told.get("reason", "")

    async def rest(self) -> None:
        """Mend everything, end all orders: then Git rules, and nothing of what was ordered is left unwritten."""
        s = self.s
        s.registry.down, s.git.error = False, None
        s.error_rate = lambda _: 0.0
        self.broken.clear()
        await s.store.apply(spec())
        await s.run(60)
        for found in await s.store.list("ModelOverride"):
            await s.store.delete(key_of(found))
        await s.run(900, step_s=10)
        status, ready = await s.status(), await s.condition()
        stopped = ready["reason"] in ("RolledBack", "GateFailed", "GateInconclusive")
        self.must(ready["status"] == "True" or stopped, f"it comes to no rest: {ready}")
        self.must(status.get("override") is None, f"an order is left: {status.get('override')}")
        self.must(await s.condition("Overridden") == {}, "it is overridden by nothing")
        champion = status["champion"]["revision"]
        self.must(await s.shares() == {champion: 100}, f"{await s.shares()}, and {champion} is champion")
        said = [e for e in s.entries() if e.kind in ("Promoted", "RolledBack")][-1].champion
        self.must(champion == said, f"{champion} is champion, the ledger says {said}")


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_people_order_in_a_world_that_breaks_git_rules_at_the_end(seed: int) -> None:
    asyncio.run(Walk(seed).play())


if __name__ == "__main__":
    first, count = int(sys.argv[1]), int(sys.argv[2])
    wrong = 0
    for number in range(first, first + count):
        try:
            asyncio.run(Walk(number).play())
        except Exception as error:
            wrong += 1
            print(f"{type(error).__name__}: {error}"[:1500], flush=True)
    print(f"{count} walks, {wrong} wrong")
