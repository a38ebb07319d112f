"""What must hold after every single write, whatever people, servers, Git and MLflow do in whatever order.

The whole controller runs on the simulated world; Hypothesis chooses the events. Nothing here says what the end is:
only what must never be seen on the way, and that in the end nothing moves any more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.api.meta import LABEL_REVISION, Key, Manifest
from controller.clients.errors import Unavailable
from controller.reconcile.jobs import has_ended
from tests.support.hard_simulation import HardSimulation
from tests.support.stories import FIRST, spec

EVENTS = st.one_of(
    st.tuples(st.just("commit"), st.sampled_from([b"60", b"55", b"50", b"45", b"120"])),
    st.tuples(st.just("revert"), st.none()),
    st.tuples(st.just("errors"), st.sampled_from([0.0, 0.2])),
    st.tuples(st.just("requests"), st.sampled_from([0.0, 0.2, 10.0])),
    st.tuples(st.sampled_from(["registry", "git", "telemetry"]), st.booleans()),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("steps"), st.sampled_from([[10, 50], [20], [2, 5, 10]])),
    st.tuples(st.just("servers"), st.booleans()),
    st.tuples(st.just("training"), st.booleans()),
    st.tuples(st.just("crash"), st.integers(1, 12)),
)
STEPS = st.lists(st.tuples(EVENTS, st.sampled_from([0.0, 10.0, 40.0, 80.0])), min_size=2, max_size=9)


class Watched(HardSimulation):
    """Checks the world after each write of the controller."""

    quiet = False
    """True while nothing may be written but statuses: the model is suspended."""

    async def check(self, verb: str, what: Any) -> None:
        kind = what.kind if isinstance(what, Key) else what["kind"]
        # Events tell, and a revision may note how a Job ended that ran already.
        if self.quiet and kind != "Event":
            assert verb == "patch_status", f"{verb} of {kind} while suspended"
        if kind == "HTTPRoute":
            await self._check_route(what)
        if kind == "Deployment" and verb == "delete":
            route = await self.store.get(Key("HTTPRoute", "default", "bikes"))
            assert what.name not in _backends(route), f"{what.name} was deleted while it got requests"
        if kind == "Job":
            running = [j for j in await self.store.list("Job") if not has_ended(j)]
            revisions = {j["metadata"]["labels"][LABEL_REVISION] for j in running}
            assert len(revisions) == len(running), "one revision is trained twice at once"
        if kind == "ModelSpec" and verb == "patch_status":
            await self._check_status()

    async def _check_route(self, manifest: Manifest) -> None:
        shares = _backends(manifest)
        assert sum(shares.values()) == 100
        assert len(shares) <= 2, "more than one challenger"
        for name in shares:
            found = await self.store.get(Key("Deployment", "default", name))
            ready = ((found or {}).get("status") or {}).get("readyReplicas", 0)
            assert ready > 0, f"{name} gets {shares[name]}% and has no ready server"

    async def _check_status(self) -> None:
        manifest = await self.model()
        status = manifest["status"]
        assert status["observedGeneration"] <= manifest["metadata"]["generation"]
        for condition in status["conditions"]:
            assert len(condition["message"]) <= 1024
            assert "\n" not in condition["message"]
            assert condition["reason"] != "InternalError"
        challenger = status.get("challenger")
        assert challenger is None or challenger["revision"] != (status.get("champion") or {}).get("revision")


def _backends(route: Manifest | None) -> dict[str, int]:
    return {b["name"]: b["weight"] for b in route["spec"]["rules"][0]["backendRefs"]} if route else {}


async def happens(s: Watched, event: tuple[str, Any], wanted: dict[str, Any], head: str) -> None:
    """Let one thing happen."""
    what, value = event
    away = Unavailable("it did not answer", reason="Away")
    match what:
        case "commit":
            s.git.commit(f"Quality {value.decode()}", {"quality": value})
        case "revert" if len(s.git.commits) > 1:
            s.git.revert("Revert")
        case "errors":
            s.error_rate = lambda revision: 0.0 if revision == head else value
        case "requests":
            s.requests_per_s = value
        case "registry":
            s.registry.down = value
        case "git":
            s.git.error = away if value else None
        case "telemetry":
            s.traffic.error = away if value else None
        case "suspend" | "steps":
            wanted[what] = value
            await s.store.apply(asked(wanted))
            s.quiet = wanted["suspend"]
        case "servers":
            s.never_ready = lambda revision: value and revision != head
        case "training":
            s.fail_training = lambda job: value
        case "crash":
            s.crash_at = s.writes[0] + value
            s.restart()


def asked(wanted: dict[str, Any]) -> Manifest:
    """Build the ModelSpec that people want now."""
    canary = {"stepWeights": wanted["steps"], "interval": "60s", "progressDeadlineSeconds": 300}
    return spec(suspend=wanted["suspend"], serving={"canary": canary})


async def tell(steps: list[tuple[tuple[str, Any], float]]) -> Watched:
    """Play the events, then end all trouble and let the world come to rest."""
    s = Watched(train_s=20)
    s.after_write = s.check
    s.restart()
    wanted: dict[str, Any] = {"suspend": False, "steps": [10, 50]}
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(asked(wanted))
    await s.run(40, step_s=20)
    head = (await s.status())["champion"]["revision"]
    for event, seconds in steps:
        await happens(s, event, wanted, head)
        if seconds:
            await s.run(seconds, step_s=20)
    for event in (("registry", False), ("git", False), ("telemetry", False), ("suspend", False)):
        await happens(s, event, wanted, head)
    s.crash_at = None
    s.restart()
    await s.run(900, step_s=30)
    return s


def check_history(s: Watched) -> None:
    """Check what the ledger and the Jobs say at the end."""
    admitted: set[str] = set()
    for kind, revision in s.decisions():
        if kind == "Admitted":
            admitted.add(revision)
        assert kind != "Promoted" or revision in admitted, f"{revision} was promoted before it was admitted"
    assert [e.seq for e in s.entries()] == list(range(1, len(s.entries()) + 1))
    assert max(Counter(s.jobs_started).values()) == 1, "an attempt ran twice"


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_no_order_of_events_breaks_what_must_always_hold(steps: list[tuple[tuple[str, Any], float]]) -> None:
    async def go() -> None:
        s = await tell(steps)
        check_history(s)
        before, status = s.writes[0], await s.status()
        await s.settle()
        assert s.writes[0] == before, (
            f"still writing at rest: {status['stage']} {status['conditions'][0]['message']}"
        )
        assert status["stage"] in ("Serving", "Stalled"), (
            f"{status['stage']}: {status['conditions'][0]['message']}"
        )
        served = await s.shares()
        assert served == {status["champion"]["revision"]: 100}

    asyncio.run(go())
