"""What was decided before still stands: other bytes are another model, and what is not known is not deleted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controller.api.meta import ANNOTATION_REQUESTED_AT, Key
from controller.api.modelstatus import ChallengerStatus
from controller.plan.actions import DeleteManifest, RecordVerdict, SetWeights
from controller.plan.asked import asked_at
from controller.plan.canary import position
from controller.plan.ledger import Ledger
from controller.plan.model import plan_model
from controller.plan.observed import ModelSeen
from controller.plan.recall import without_word
from controller.plan.round import find_champion
from controller.plan.verdict import Unknown
from controller.reconcile import observe
from tests.support.hard_simulation import HardSimulation
from tests.unit.stories.test_more_stories import BETTER, A, better
from tests.unit.stories.test_stories import first_commit

KEY = Key("ModelSpec", "default", "bikes")
OTHER = "sha256:" + "9" * 64
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-02T12:00:00Z", NOON),
        ("2026-03-02T14:00:00+02:00", NOON),
        ("2026-03-02T12:00:00.000000+00:00", NOON),
        ("2026-03-02 12:00:00", NOON),
        ("1772452800", NOON),
        ("", None),
        ("now", None),
        ("99999999999999999999", None),
        ("0001-01-01T00:00:00+23:00", None),
    ],
)
def test_a_request_is_read_in_every_form_that_people_write(text: str, moment: datetime | None) -> None:
    assert asked_at({ANNOTATION_REQUESTED_AT: text}) == moment


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("AnalysisFailed: errors: 4 % > 1 %", "errors: 4 % > 1 %"),
        ("the servers are gone: all of them", "the servers are gone: all of them"),
        ("", ""),
    ],
)
def test_people_read_the_sentence_without_the_word_for_programs(reason: str, sentence: str) -> None:
    assert without_word(reason) == sentence


@pytest.mark.parametrize(
    ("weights", "step", "weight", "found"),
    [
        ([10, 50], 0, 10, 0),
        ([10, 50], 1, 50, 1),
        ([2, 10, 50], 0, 10, 1),
        ([20], 1, 50, 0),
        ([20, 60], 0, 10, 0),
        ([5, 20, 60], 1, 50, 2),
    ],
)
def test_a_canary_finds_its_place_in_changed_steps(weights: list[int], step: int, weight: int, found: int) -> None:
    challenger = ChallengerStatus(revision="r", stage="Canary", step=step, weight=weight)
    assert position(weights, challenger) == found


async def wants_the_first_again(digest: str) -> tuple[HardSimulation, ModelSeen]:
    """See a model whose Git asks for the first champion again, whose object now states another artifact."""
    s = HardSimulation()
    await first_commit(s)
    await better(s, 240)
    s.git.revert("Revert")
    s.clock.advance(10)
    seen = await observe.model(s.world, KEY)
    assert seen is not None
    first = seen.revisions[A]
    assert first.status.artifact is not None
    artifact = first.status.artifact.model_copy(update={"digest": digest or first.status.artifact.digest})
    changed = first.model_copy(update={"status": first.status.model_copy(update={"artifact": artifact})})
    return s, replace(seen, revisions={**seen.revisions, A: changed})


def test_the_same_bytes_stay_admitted() -> None:
    s, seen = asyncio.run(wants_the_first_again(""))
    judgement = plan_model(seen, s.clock.now()).status.judgement
    assert judgement is not None
    assert judgement.admitted


def test_other_bytes_of_the_same_inputs_are_judged_like_any_challenger() -> None:
    s, seen = asyncio.run(wants_the_first_again(OTHER))
    plan = plan_model(seen, s.clock.now())
    assert plan.status.judgement is not None
    assert not plan.status.judgement.admitted
    assert not [a for a in plan.actions if isinstance(a, RecordVerdict)]


def test_other_bytes_are_not_promoted_because_the_first_were_once() -> None:
    s, seen = asyncio.run(wants_the_first_again(OTHER))
    assert isinstance(seen.ledger, Ledger)
    entry = seen.ledger.admitted[A].model_copy(update={"digest": OTHER})
    ledger = replace(seen.ledger, admitted={**seen.ledger.admitted, A: entry})
    servers = seen.deployments[f"{BETTER}-{next(iter(seen.deployments)).rpartition('-')[2]}"]
    ready = replace(servers, name=servers.name.replace(BETTER, A), revision=A)
    plan = plan_model(
        replace(seen, ledger=ledger, deployments={**seen.deployments, ready.name: ready}), s.clock.now()
    )
    assert plan.status.stage == "Canary"
    assert not [a for a in plan.actions if isinstance(a, RecordVerdict)]


def test_nothing_is_deleted_while_nobody_knows_who_is_champion() -> None:
    async def see() -> tuple[HardSimulation, ModelSeen | None]:
        s = HardSimulation()
        await first_commit(s)
        return s, await observe.model(s.world, KEY)

    s, seen = asyncio.run(see())
    assert seen is not None
    assert seen.model is not None
    nothing = seen.model.status.model_copy(update={"champion": None})
    blank = seen.model.model_copy(update={"status": nothing})
    away = Unknown("RegistryUnavailable", "MLflow does not answer")
    plan = plan_model(replace(seen, model=blank, ledger=away, route=None), s.clock.now())
    assert not [a for a in plan.actions if isinstance(a, DeleteManifest)]


def test_a_champion_whose_own_entries_are_lost_is_found_by_its_object() -> None:
    async def see() -> ModelSeen | None:
        s = HardSimulation()
        await first_commit(s)
        return await observe.model(s.world, KEY)

    seen = asyncio.run(see())
    assert seen is not None
    assert seen.model is not None
    assert isinstance(seen.ledger, Ledger)
    only = replace(seen.ledger, entries=(), admitted={})
    champion = find_champion(replace(seen, ledger=only), seen.model.status)
    assert champion is not None
    assert champion.revision == A
    assert find_champion(replace(seen, ledger=only, revisions={}), seen.model.status) is None


@pytest.mark.parametrize(("ready", "routes"), [(0, 0), (1, 1)])
def test_nobody_is_sent_to_a_champion_without_a_ready_server(ready: int, routes: int) -> None:
    async def see() -> tuple[HardSimulation, ModelSeen | None]:
        s = HardSimulation()
        await first_commit(s)
        return s, await observe.model(s.world, KEY)

    s, seen = asyncio.run(see())
    assert seen is not None
    servers = {name: replace(d, ready=ready) for name, d in seen.deployments.items()}
    plan = plan_model(replace(seen, deployments=servers, route=None), s.clock.now())
    assert len([a for a in plan.actions if isinstance(a, SetWeights)]) == routes


def test_servers_that_still_get_requests_are_not_deleted() -> None:
    s, seen = asyncio.run(wants_the_first_again(""))
    champion = next(iter(seen.deployments.values()))
    old = replace(champion, name=champion.name.replace(BETTER, A), revision=A)
    deployments = {champion.name: champion, old.name: old}
    routed = replace(seen, deployments=deployments, route={champion.name: 50, old.name: 50}, ledger=seen.ledger)
    plan = plan_model(replace(routed, source=Unknown("GitTimeout", "Git does not answer")), s.clock.now())
    assert not [a for a in plan.actions if isinstance(a, DeleteManifest)]
    quiet = replace(routed, route={champion.name: 100}, source=Unknown("GitTimeout", "Git does not answer"))
    plan = plan_model(quiet, s.clock.now())
    assert [a.key.name for a in plan.actions if isinstance(a, DeleteManifest)] == [old.name]


def test_a_crash_right_after_a_rollback_is_recorded_brings_nothing_back() -> None:
    """The ledger has the rollback, the status still the canary, and the next commit is being trained."""

    async def see() -> tuple[HardSimulation, ModelSeen | None, ChallengerStatus]:
        s = HardSimulation()
        await first_commit(s)
        s.error_rate = lambda revision: 0.0 if revision == A else 0.2
        await better(s, 40)
        before = ChallengerStatus.model_validate((await s.status())["challenger"])
        await s.run(40)
        s.git.commit("Fix it", {"quality": b"48"})
        s.clock.advance(10)
        return s, await observe.model(s.world, KEY), before

    s, seen, before = asyncio.run(see())
    assert before.stage == "Canary"
    assert s.decisions()[-1] == ("RolledBack", BETTER)
    assert seen is not None
    assert seen.model is not None
    torn = seen.model.model_copy(update={"status": seen.model.status.model_copy(update={"challenger": before})})
    plan = plan_model(replace(seen, model=torn), s.clock.now())
    assert not [a for a in plan.actions if isinstance(a, SetWeights)]
    assert plan.status.previous is not None
    assert (plan.status.previous.revision, plan.status.previous.verdict) == (BETTER, "RolledBack")
    assert plan.status.challenger is not None
    assert plan.status.challenger.stage == "Training"
