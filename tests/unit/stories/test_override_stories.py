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
from tests.unit.stories.test_more_stories import BETTER, A, better
from tests.unit.stories.test_stories import first_commit

GOLDEN = Path(__file__).parent / "golden"
Story = Callable[[HardSimulation], Coroutine[Any, Any, None]]


async def digest_of(s: HardSimulation, revision: str) -> str:
    """Read the digest of a revision's artifact."""
    found = await s.store.get(Key("ModelRevision", "default", revision))
    assert found is not None
    return str(found["status"]["artifact"]["digest"])


async def order(s: HardSimulation, action: str, to: str, *, name: str = "", hours: float = 4, **more: Any) -> str:
    """Do what `mainspring rollback`, `promote` and `abort` do."""
    name = name or f"bikes-{action.lower()}"
    wanted: Manifest = {
        "modelRef": {"name": "bikes"},
        "action": action,
        "to": to,
        "digest": more.pop("digest", None) or await digest_of(s, to),
        "actor": "jane",
        "reason": "recall in DE fell",
        "expiresAt": timestamp(s.clock.now() + timedelta(hours=hours)),
        **more,
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
    status = await s.status()
    assert status["champion"]["since"] == status["override"]["since"]
    assert (status["previous"]["revision"], status["previous"]["verdict"]) == (BETTER, "Replaced")
    assert "by order of jane" in status["previous"]["reason"]


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


async def the_order_is_deleted_before_its_end(s: HardSimulation) -> None:
    await served(s)
    name = await order(s, "Rollback", A)
    await s.run(30)
    await s.store.delete(Key("ModelOverride", "default", name))
    await s.run(30)
    assert await s.shares() == {BETTER: 100}
    assert await s.condition("Overridden") == {}
    assert (await s.condition())["status"] == "True"


async def git_is_reverted_while_the_order_holds(s: HardSimulation) -> None:
    """Then Git and what serves agree: Ready, and the end of the order changes nothing."""
    await served(s)
    await order(s, "Rollback", A, hours=0.1)
    await s.run(30)
    s.git.revert("Revert: More trees")
    await s.run(30)
    assert (await s.condition())["status"] == "True"
    assert (await s.condition("Overridden"))["status"] == "True"
    await s.run(400, step_s=20)
    assert await s.condition("Overridden") == {}
    assert await s.shares() == {A: 100}
    assert s.decisions()[-1] == ("RolledBack", BETTER)


async def git_and_mlflow_are_down_when_a_person_rolls_back(s: HardSimulation) -> None:
    """The requests move at once, stay where they are, and the ledger hears of it when it is back."""
    await served(s)
    s.git.error = Unavailable("git.example.com did not answer", reason="GitUnavailable")
    s.registry.down = True
    await order(s, "Rollback", A)
    await s.run(10)
    assert await s.shares() == {A: 100}
    for _ in range(6):
        await s.run(20)
        assert await s.shares() == {A: 100}
    assert (await s.status())["champion"]["revision"] == A
    assert s.decisions()[-1] == ("Promoted", BETTER)
    s.registry.down = False
    await s.run(60)
    assert s.decisions().count(("RolledBack", BETTER)) == 1
    s.git.error = None
    await s.run(30)
    assert (await s.condition())["reason"] == "Overridden"
    assert await s.shares() == {A: 100}


async def the_order_ends_while_mlflow_is_down(s: HardSimulation) -> None:
    """What an order did is written down before Git rules again, also when that is after its end."""
    await served(s)
    s.registry.down = True
    await order(s, "Rollback", A, hours=0.05)
    await s.run(300)
    assert await s.shares() == {A: 100}
    assert s.decisions()[-1] == ("Promoted", BETTER)
    s.registry.down = False
    await s.run(90)
    assert s.decisions()[-2:] == [("RolledBack", BETTER), ("Promoted", BETTER)]
    assert await s.shares() == {BETTER: 100}


async def a_person_rolls_back_during_a_canary(s: HardSimulation) -> None:
    """The newest challenger is out at once, and so is the champion."""
    await served(s)
    s.git.commit("Even more trees", {"quality": b"48"})
    await s.run(60)
    challenger = (await s.status())["challenger"]["revision"]
    assert await s.shares() == {BETTER: 90, challenger: 10}
    await order(s, "Rollback", A)
    s.never_ready = lambda revision: revision == A
    await s.run(20)
    assert await s.shares() == {BETTER: 100}, "the challenger is out before the old champion is back"
    ended = (await s.status())["previous"]
    assert (ended["revision"], ended["verdict"]) == (challenger, "Aborted")
    s.never_ready = lambda revision: False
    await s.run(20)
    assert await s.shares() == {A: 100}
    await s.run(200)
    assert await s.shares() == {A: 100}
    assert ("Promoted", challenger) not in s.decisions()


async def a_rollback_to_what_was_rolled_back_is_refused(s: HardSimulation) -> None:
    """It names who may serve instead, and stays refused whatever comes later."""
    await served(s)
    s.git.commit("Even more trees", {"quality": b"48"})
    s.error_rate = lambda revision: 0.0 if revision in (A, BETTER) else 0.2
    await s.run(150)
    bad = (await s.status())["previous"]["revision"]
    assert (await s.condition())["reason"] == "RolledBack"
    name = await order(s, "Rollback", bad)
    await s.run(20)
    refused = await active(s, name)
    assert (refused["status"], refused["reason"]) == ("False", "RefusedUnhealthy")
    assert "error rate" in refused["message"]
    assert f"mainspring rollback --to {A}" in refused["message"]
    assert await s.shares() == {BETTER: 100}
    assert await s.condition("Overridden") == {}


async def servers_of_a_rollback_never_come_up(s: HardSimulation) -> None:
    """Nobody is sent to servers that are not there; after five minutes it is refused and the servers go."""
    await served(s)
    s.never_ready = lambda revision: revision == A
    name = await order(s, "Rollback", A)
    await s.run(120)
    assert (await active(s, name))["reason"] == "Starting"
    assert await s.shares() == {BETTER: 100}
    await s.run(260)
    refused = await active(s, name)
    assert refused["reason"] == "RefusedUnhealthy"
    assert "no server of" in refused["message"]
    s.never_ready = lambda revision: False
    await s.run(60)
    assert await s.shares() == {BETTER: 100}
    assert [d["metadata"]["name"].rpartition("-")[0] for d in await s.store.list("Deployment")] == [BETTER]
    assert (await s.condition())["status"] == "True"


async def a_revision_that_nobody_knows_is_refused(s: HardSimulation) -> None:
    await served(s)
    name = await order(s, "Rollback", "bikes-0123456789", digest=f"sha256:{'0' * 64}")
    other = await order(s, "Rollback", A, name="other-bytes", digest=f"sha256:{'0' * 64}")
    await s.run(90)
    assert (await active(s, name))["reason"] == "RevisionUnknown"
    assert f"mainspring rollback --to {A}" in (await active(s, name))["message"]
    assert (await active(s, other))["reason"] == "RevisionUnknown"
    assert "the order names sha256:000" in (await active(s, other))["message"]
    assert await s.shares() == {BETTER: 100}


async def a_newer_order_rules(s: HardSimulation) -> None:
    """The older one is over for good: the end of the newer one brings Git's word back, not the older order."""
    await served(s)
    s.git.commit("Even more trees", {"quality": b"48"})
    await s.run(260)
    newest = (await s.status())["champion"]["revision"]
    older = await order(s, "Rollback", BETTER, name="older")
    await s.run(30)
    assert await s.shares() == {BETTER: 100}
    newer = await order(s, "Rollback", A, name="newer", hours=0.1)
    await s.run(30)
    assert await s.shares() == {A: 100}
    superseded = await active(s, older)
    assert (superseded["status"], superseded["reason"]) == ("False", "SupersededByNewer")
    assert newer in superseded["message"]
    await s.run(400, step_s=20)
    assert await s.shares() == {newest: 100}


# -- promotion and abort ----------------------------


async def a_person_promotes(s: HardSimulation) -> None:
    """The rest of the canary is skipped; what it passed, and who ordered it, is in the ledger."""
    await first_commit(s)
    s.told_before = s.writes[0]
    await better(s, 50)
    assert await s.shares() == {A: 90, BETTER: 10}
    name = await order(s, "Promote", BETTER)
    await s.run(20)
    assert await s.shares() == {BETTER: 100}
    assert (await active(s, name))["reason"] == "Done"
    assert (await s.condition())["status"] == "True"
    assert await s.condition("Overridden") == {}
    last = s.entries()[-1]
    assert (last.kind, last.revision, last.author) == ("Promoted", BETTER, "jane")
    assert last.override is not None
    assert ("Admitted", BETTER) in s.decisions()


async def a_promotion_passes_no_gate(s: HardSimulation) -> None:
    await first_commit(s)
    s.git.commit("Try a shallow tree", {"quality": b"120"})
    await s.run(60)
    worse = (await s.status())["previous"]["revision"]
    name = await order(s, "Promote", worse)
    await s.run(90)
    refused = await active(s, name)
    assert refused["reason"] == "RefusedUnhealthy"
    assert "no order passes a gate" in refused["message"]
    assert await s.shares() == {A: 100}


async def a_promotion_waits_for_the_ledger(s: HardSimulation) -> None:
    """Nobody is champion without a record of it, whoever orders it."""
    await first_commit(s)
    await better(s, 50)
    s.registry.down = True
    await order(s, "Promote", BETTER)
    await s.run(60)
    assert (await s.status())["champion"]["revision"] == A
    s.registry.down = False
    await s.run(60)
    assert await s.shares() == {BETTER: 100}


async def a_person_aborts(s: HardSimulation) -> None:
    """It gets no requests until the end of the order; then its canary begins anew, since Git still asks for it."""
    await first_commit(s)
    s.told_before = s.writes[0]
    await better(s, 50)
    name = await order(s, "Abort", BETTER, hours=0.2)
    await s.run(20)
    assert await s.shares() == {A: 100}
    ready = await s.condition()
    assert (ready["status"], ready["reason"]) == ("False", "Overridden")
    assert (await active(s, name))["reason"] == "Applied"
    last = s.entries()[-1]
    assert (last.kind, last.revision, last.champion, last.author) == ("RolledBack", BETTER, A, "jane")
    await s.run(500, step_s=20)
    assert await s.shares() == {A: 100}
    await s.run(240, step_s=20)
    assert BETTER in await s.shares()
    await s.run(240)
    assert await s.shares() == {BETTER: 100}
    assert len(s.jobs_started) == 2


async def a_fix_is_rolled_out_while_an_abort_holds(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 50)
    await order(s, "Abort", BETTER)
    await s.run(20)
    s.git.commit("Fix it", {"quality": b"48"})
    await s.run(300)
    champion = (await s.status())["champion"]["revision"]
    assert champion not in (A, BETTER)
    assert await s.shares() == {champion: 100}
    assert (await s.condition())["status"] == "True"
    assert (await s.condition("Overridden"))["reason"] == "Abort"


async def a_person_aborts_while_mlflow_is_down(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 50)
    s.registry.down = True
    await order(s, "Abort", BETTER)
    await s.run(10)
    assert await s.shares() == {A: 100}
    await s.run(60)
    assert await s.shares() == {A: 100}
    s.registry.down = False
    await s.run(60)
    assert s.decisions()[-1] == ("RolledBack", BETTER)


async def a_suspended_model_takes_no_order(s: HardSimulation) -> None:
    await served(s)
    await s.store.apply(spec(suspend=True))
    name = await order(s, "Rollback", A)
    await s.run(30)
    assert (await active(s, name))["reason"] == "Suspended"
    assert await s.shares() == {BETTER: 100}
    await s.store.apply(spec())
    await s.run(30)
    assert await s.shares() == {A: 100}


# -- how far back skips the canary ----------------------------


def window(revisions: int) -> Manifest:
    canary = {"stepWeights": [10, 50], "interval": "60s"}
    return spec(serving={"canary": canary, "rollbackWindow": {"revisions": revisions}})


async def a_revert_outside_the_window_takes_its_canary(s: HardSimulation) -> None:
    """Two champions ago: not trained and not judged anew, but not all requests at once either."""
    await served(s)
    await s.store.apply(window(1))
    s.git.commit("Even more trees", {"quality": b"48"})
    await s.run(260)
    s.git.commit_tree("Back to the beginning", dict(s.git.commits[0][1]))
    await s.run(20)
    shares = await s.shares()
    assert shares[A] == 10
    await s.run(200)
    assert await s.shares() == {A: 100}
    assert len(s.jobs_started) == 3


async def a_revert_inside_the_window_skips_it(s: HardSimulation) -> None:
    await served(s)
    await s.store.apply(window(1))
    s.git.revert("Revert: More trees")
    await s.run(20)
    assert await s.shares() == {A: 100}


STORIES: dict[str, Story] = {
    f.__name__: f
    for f in (
        a_person_rolls_back,
        git_rules_again_after_the_end,
        the_order_is_deleted_before_its_end,
        git_is_reverted_while_the_order_holds,
        git_and_mlflow_are_down_when_a_person_rolls_back,
        the_order_ends_while_mlflow_is_down,
        a_person_rolls_back_during_a_canary,
        a_rollback_to_what_was_rolled_back_is_refused,
        servers_of_a_rollback_never_come_up,
        a_revision_that_nobody_knows_is_refused,
        a_newer_order_rules,
        a_person_promotes,
        a_promotion_passes_no_gate,
        a_promotion_waits_for_the_ledger,
        a_person_aborts,
        a_fix_is_rolled_out_while_an_abort_holds,
        a_person_aborts_while_mlflow_is_down,
        a_suspended_model_takes_no_order,
        a_revert_outside_the_window_takes_its_canary,
        a_revert_inside_the_window_skips_it,
    )
}
CRASHING = (
    a_person_rolls_back,
    git_rules_again_after_the_end,
    git_and_mlflow_are_down_when_a_person_rolls_back,
    a_person_promotes,
    a_person_aborts,
)


@pytest.mark.parametrize("name", STORIES)
def test_story_ends_as_told_and_reads_as_in_its_golden_file(name: str, request: pytest.FixtureRequest) -> None:
    simulation = HardSimulation()
    asyncio.run(STORIES[name](simulation))
    transcript = "\n".join(simulation.lines) + "\n"
    assert transcript == golden(GOLDEN / f"{name}.txt", transcript, request)


@pytest.mark.parametrize("story", CRASHING, ids=lambda f: f.__name__)
def test_story_ends_as_told_after_a_crash_at_any_write(story: Story) -> None:
    clean = HardSimulation()
    asyncio.run(story(clean))
    for write in range(clean.told_before + 1, clean.writes[0] + 1):
        crashed = HardSimulation(crash_at=write)
        asyncio.run(story(crashed))
        assert crashed.decisions() == clean.decisions(), f"crashed after write {write} of {clean.writes[0]}"
        assert len(crashed.jobs_started) == len(set(crashed.jobs_started)), "a Job ran twice"


@pytest.mark.parametrize("how", [{"stale": True}, {"look_every_s": 2.0}], ids=["stale reads", "missed events"])
@pytest.mark.parametrize("story", CRASHING, ids=lambda f: f.__name__)
def test_story_ends_as_told_by_what_can_be_seen_late(story: Story, how: dict[str, Any]) -> None:
    clean, late = HardSimulation(), HardSimulation(**how)
    asyncio.run(story(clean))
    asyncio.run(story(late))
    assert late.decisions() == clean.decisions()
