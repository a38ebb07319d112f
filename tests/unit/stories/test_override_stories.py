"""Stories of people who go back by hand: rollback, promotion, abort, and the return of Git's word.

Each says at its end what must hold and is compared with its golden transcript; those that change who gets the
requests are told again with a crash after every single write, with stale reads, and with events that are missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.api.conditions import timestamp
from controller.api.meta import API_VERSION, Key, Manifest
from controller.clients.errors import Unavailable
from tests.support.hard_simulation import HardSimulation
from tests.support.stories import golden, spec
from tests.unit.stories.test_more_stories import BETTER, A, better, canary_spec
from tests.unit.stories.test_stories import first_commit

GOLDEN = Path(__file__).parent / "golden"
Story = Callable[[HardSimulation], Coroutine[Any, Any, None]]


async def digest_of(s: HardSimulation, revision: str) -> str:
    """Read the digest of a revision's artifact."""
    found = await s.store.get(Key("ModelRevision", "default", revision))
    assert found is not None
    return str(found["status"]["artifact"]["digest"])


async def order(s: HardSimulation, action: str, to: str, *, name: str = "", hours: float = 4, **spec: Any) -> str:
    """Do what `mainspring rollback`, `promote` and `abort` do."""
    name = name or f"bikes-{action.lower()}"
    wanted: Manifest = {
        "modelRef": {"name": "bikes"},
        "action": action,
        "to": to,
        "digest": spec.pop("digest", None) or await digest_of(s, to),
        "actor": "jane",
        "reason": "recall in DE fell",
        "expiresAt": timestamp(s.clock.now() + timedelta(hours=hours)),
        **spec,
    }
    await s.store.create(
        {"apiVersion": API_VERSION, "kind": "ModelOverride", "metadata": {"name": name}, "spec": wanted}
    )
    return name


async def active(s: HardSimulation, name: str) -> Manifest:
    """Read the condition Active of an order."""
    found = await s.store.get(Key("ModelOverride", "default", name))
    assert found is not None
    return dict(next(iter((found.get("status") or {}).get("conditions", ())), {}))


async def served(s: HardSimulation) -> None:
    """Let the better model have taken over from the first."""
    await first_commit(s)
    await better(s, 240)
    s.told_before = s.writes[0]
    assert await s.shares() == {BETTER: 100}


# -- rollback ----------------------------


async def a_person_rolls_back(s: HardSimulation) -> None:
    """The old bytes serve, nothing is trained, Git is named as not followed, the ledger names who and why."""
    await served(s)
    name = await order(s, "Rollback", A)
    await s.run(20)
    assert await s.shares() == {A: 100}
    assert len(s.jobs_started) == 2
    assert (await active(s, name))["reason"] == "Applied"
    ready, overridden = await s.condition(), await s.condition("Overridden")
    assert (ready["status"], ready["reason"]) == ("False", "Overridden")
    assert BETTER in ready["message"]
    assert "jane" in overridden["message"]
    assert "recall in DE fell" in overridden["message"]
    last = s.entries()[-1]
    assert (last.kind, last.revision, last.champion, last.author) == ("RolledBack", BETTER, A, "jane")
    assert last.override is not None
    assert last.override.name == name
    assert [d["metadata"]["name"].rpartition("-")[0] for d in await s.store.list("Deployment")] == [A]
    assert (await s.registry.get_aliases("bikes"))["default-champion"] == "1"


async def git_rules_again_after_the_end(s: HardSimulation) -> None:
    """It is announced before; then what Git asks for serves again, without a training or a canary."""
    await served(s)
    name = await order(s, "Rollback", A, hours=0.5)
    await s.run(60)
    assert (await s.condition("Overridden"))["reason"] == "Rollback"
    await s.run(1000, step_s=30)
    soon = await s.condition("Overridden")
    assert soon["reason"] == "ExpiresSoon"
    assert f"{BETTER}, rules again" in soon["message"]
    await s.run(900, step_s=30)
    assert await s.shares() == {BETTER: 100}
    assert (await active(s, name))["reason"] == "Expired"
    assert await s.condition("Overridden") == {}
    assert (await s.condition())["status"] == "True"
    assert len(s.jobs_started) == 2
    assert s.decisions()[-2:] == [("RolledBack", BETTER), ("Promoted", BETTER)]


STORIES: dict[str, Story] = {f.__name__: f for f in (a_person_rolls_back, git_rules_again_after_the_end)}


@pytest.mark.parametrize("name", STORIES)
def test_story_ends_as_told_and_reads_as_in_its_golden_file(name: str, request: pytest.FixtureRequest) -> None:
    simulation = HardSimulation()
    asyncio.run(STORIES[name](simulation))
    transcript = "\n".join(simulation.lines) + "\n"
    assert transcript == golden(GOLDEN / f"{name}.txt", transcript, request)
