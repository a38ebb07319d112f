"""Stories of what goes wrong: MLflow away at each moment, servers that never come, people who change their minds.

Each story says at its end what must hold, and is compared with its golden transcript; those that change who gets
the requests are told again with a crash after every single write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controller.api.conditions import timestamp
from controller.api.meta import ANNOTATION_REQUESTED_AT, Key
from controller.clients.errors import Denied, Unavailable
from tests.support.hard_simulation import HardSimulation
from tests.support.stories import golden, spec
from tests.unit.stories.test_stories import first_commit

GOLDEN = Path(__file__).parent / "golden"
A = "bikes-dd1196040a"
BETTER = "bikes-f68bd5cd56"
"""Revisions of the first commit and of quality 50."""
Story = Callable[[HardSimulation], Coroutine[Any, Any, None]]


def canary_spec(**canary: Any) -> dict[str, Any]:
    """Build the stories' ModelSpec with another canary."""
    return spec(serving={"canary": {"stepWeights": [10, 50], "interval": "60s", **canary}})


async def better(s: HardSimulation, seconds: float) -> None:
    """Push the better model and let time pass."""
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(seconds)


async def ask(s: HardSimulation) -> None:
    """Do what `mainspring reconcile` does."""
    later = s.clock.now() + timedelta(seconds=1)
    await s.store.annotate(Key("ModelSpec", "default", "bikes"), {ANNOTATION_REQUESTED_AT: timestamp(later)})


# -- MLflow is away ----------------------------


async def mlflow_is_away_before_the_run_is_made(s: HardSimulation) -> None:
    await first_commit(s)
    s.registry.down = True
    await better(s, 30)
    assert not [j for j in s.jobs_started if BETTER in j]
    assert await s.shares() == {A: 100}
    s.registry.down = False
    await s.run(240)
    assert (await s.status())["champion"]["revision"] == BETTER
    assert s.jobs_started.count(f"{BETTER}-train-1") == 1


async def mlflow_is_away_at_registration(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 20)
    s.registry.fail["ensure_version"] = Unavailable("MLflow did not answer", reason="RegistryUnavailable")
    await s.run(300)
    assert (await s.status())["champion"]["revision"] == BETTER
    assert list(s.registry.models["bikes"].versions) == ["1", "2"]


async def mlflow_is_away_when_a_verdict_is_recorded(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 20)
    s.registry.fail["append_ledger"] = Unavailable("MLflow did not answer", reason="RegistryUnavailable")
    await s.run(300)
    assert s.decisions() == [(k, r) for r in (A, BETTER) for k in ("Admitted", "Promoted")]


async def mlflow_is_away_when_the_canary_has_passed(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 120)
    s.registry.down = True
    await s.run(120)
    status = await s.status()
    assert status["champion"]["revision"] == A, "nobody is champion without a record of it"
    assert status.get("previous", {}).get("revision") != A, "nothing was replaced yet"
    assert await s.shares() == {A: 50, BETTER: 50}, "the challenger gets no more than its step"
    s.registry.down = False
    await s.run(60)
    status = await s.status()
    assert status["champion"]["revision"] == BETTER
    assert (status["previous"]["revision"], status["previous"]["verdict"]) == (A, "Replaced")


async def mlflow_is_away_when_the_canary_breaks(s: HardSimulation) -> None:
    """The rollback acts at once, is not undone while nobody can record it, and is recorded later."""
    await first_commit(s)
    s.error_rate = lambda revision: 0.0 if revision == A else 0.2
    await better(s, 40)
    s.registry.down = True
    for _ in range(12):
        await s.run(10)
        if (await s.status()).get("previous", {}).get("verdict") == "RolledBack":
            assert await s.shares() == {A: 100}, "a revision that was taken out of the traffic came back"
    assert (await s.status())["previous"]["verdict"] == "RolledBack"
    assert ("RolledBack", BETTER) not in s.decisions()
    s.registry.down = False
    await s.run(120)
    assert s.decisions().count(("RolledBack", BETTER)) == 1
    assert await s.shares() == {A: 100}
    assert (await s.condition())["reason"] == "RolledBack"


async def mlflow_is_away_when_a_refusal_is_recorded(s: HardSimulation) -> None:
    await first_commit(s)
    s.git.commit("Try a shallow tree", {"quality": b"120"})
    await s.run(20)
    s.registry.fail["append_ledger"] = Unavailable("MLflow did not answer", reason="RegistryUnavailable")
    await s.run(60)
    assert s.decisions()[-1][0] == "Rejected"
    assert (await s.condition())["reason"] == "GateFailed"


async def the_alias_cannot_be_set(s: HardSimulation) -> None:
    """The alias is output only: whatever MLflow says to it, requests go where the ledger says."""
    await first_commit(s)
    await better(s, 40)
    calls = s.registry.set_alias

    async def refused(name: str, alias: str, version: str) -> None:
        raise Denied("MLflow refuses aliases to this user", reason="RegistryDenied")

    s.registry.set_alias = refused  # type: ignore[method-assign]
    await s.run(240)
    assert await s.shares() == {BETTER: 100}
    assert (await s.condition())["status"] == "True"
    assert "MLflow refuses aliases" in (await s.condition("Degraded"))["message"]
    s.registry.set_alias = calls  # type: ignore[method-assign]
    await s.run(60)
    assert s.registry.models["bikes"].aliases == {"default-champion": "2"}
    assert await s.condition("Degraded") == {}


# -- canaries ----------------------------


async def telemetry_is_away_during_a_canary(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 50)
    s.traffic.error = Unavailable("bikes-f68bd5cd56-0 did not answer", reason="TelemetryUnavailable")
    await s.run(120)
    assert (await s.status())["challenger"]["step"] == 0, "unknown is not zero: no step is passed"
    assert "did not answer" in (await s.condition())["message"]
    s.traffic.error = None
    await s.run(200)
    assert (await s.status())["champion"]["revision"] == BETTER


async def telemetry_never_comes_back(s: HardSimulation) -> None:
    await first_commit(s)
    await s.store.apply(canary_spec(progressDeadlineSeconds=120))
    await better(s, 50)
    s.traffic.error = Unavailable("bikes-f68bd5cd56-0 did not answer", reason="TelemetryUnavailable")
    await s.run(160)
    assert (await s.condition())["reason"] == "RolledBack"
    assert "longer than 2m" in (await s.condition())["message"]
    assert await s.shares() == {A: 100}


async def too_few_requests_until_the_deadline(s: HardSimulation) -> None:
    await first_commit(s)
    await s.store.apply(canary_spec(progressDeadlineSeconds=200))
    s.requests_per_s = 0.5
    await better(s, 120)
    assert "waits for 20 requests" in (await s.condition())["message"]
    await s.run(200)
    assert (await s.condition())["reason"] == "RolledBack"
    assert await s.shares() == {A: 100}
    assert len(await s.store.list("Deployment")) == 1


async def servers_of_the_challenger_never_come_up(s: HardSimulation) -> None:
    await first_commit(s)
    await s.store.apply(canary_spec(progressDeadlineSeconds=60))
    s.never_ready = lambda revision: revision != A
    await better(s, 60)
    assert await s.shares() == {A: 100}
    await s.run(120)
    assert (await s.condition())["reason"] == "RolledBack"
    assert "not ready after" in (await s.condition())["message"]


async def servers_of_the_challenger_die_in_the_canary(s: HardSimulation) -> None:
    """Nobody is sent to servers that are gone; when they are back the step begins again, not the next one."""
    await first_commit(s)
    await better(s, 50)
    assert await s.shares() == {A: 90, BETTER: 10}
    s.never_ready = lambda revision: revision == BETTER
    await s.run(120)
    assert await s.shares() == {A: 100}
    assert (await s.condition())["reason"] == "ServersNotReady"
    s.never_ready = lambda revision: False
    await s.run(20)
    assert await s.shares() == {A: 90, BETTER: 10}
    await s.run(200)
    assert await s.shares() == {BETTER: 100}


async def fewer_steps_during_a_canary(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 110)
    assert await s.shares() == {A: 50, BETTER: 50}
    await s.store.apply(canary_spec(stepWeights=[20]))
    await s.run(10)
    assert await s.shares() == {A: 80, BETTER: 20}
    await s.run(100)
    assert await s.shares() == {BETTER: 100}


async def more_steps_during_a_canary(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 50)
    await s.store.apply(canary_spec(stepWeights=[2, 5, 10, 20]))
    await s.run(20)
    assert await s.shares() == {A: 90, BETTER: 10}
    assert (await s.status())["challenger"]["step"] == 2
    await s.run(60)
    assert await s.shares() == {A: 80, BETTER: 20}


async def gates_are_tightened_during_a_canary(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 50)
    manifest = spec()
    manifest["spec"]["gates"][0]["max"] = 45
    await s.store.apply(manifest)
    await s.run(10)
    assert await s.shares() == {A: 100}
    assert (await s.condition())["reason"] == "GateFailed"
    await s.run(120)
    assert ("Promoted", BETTER) not in s.decisions()


async def replicas_are_changed_during_a_canary(s: HardSimulation) -> None:
    await first_commit(s)
    await s.store.apply(spec(serving={"minReplicas": 3, "canary": {"stepWeights": [10, 50], "interval": "60s"}}))
    await s.run(10)
    assert [d["spec"]["replicas"] for d in await s.store.list("Deployment")] == [3]
    await better(s, 50)
    await s.store.apply(canary_spec())
    await s.run(10)
    assert [d["spec"]["replicas"] for d in await s.store.list("Deployment")] == [1, 1]
    assert await s.shares() == {A: 90, BETTER: 10}


# -- people change their minds ----------------------------


async def a_revision_that_was_refused_is_asked_for_again(s: HardSimulation) -> None:
    await first_commit(s)
    s.git.commit("Try a shallow tree", {"quality": b"120"})
    await s.run(50)
    s.git.revert("Back")
    await s.run(20)
    assert (await s.condition())["status"] == "True"
    s.git.commit("Try it again", {"quality": b"120"})
    await s.run(60)
    assert (await s.condition())["reason"] == "GateFailed"
    assert len(s.jobs_started) == 2, "what was refused is not trained again"
    assert [k for k, _ in s.decisions()].count("Rejected") == 1


async def a_revert_is_reverted(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 240)
    s.git.revert("Revert: More trees")
    await s.run(20)
    assert await s.shares() == {A: 100}
    s.git.revert("Revert: Revert: More trees")
    await s.run(20)
    assert await s.shares() == {BETTER: 100}
    assert len(s.jobs_started) == 2


async def two_reverts_at_once(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 240)
    s.git.revert("Revert: More trees")
    s.git.revert("Revert: Revert: More trees")
    await s.run(60)
    assert await s.shares() == {BETTER: 100}
    assert s.decisions()[-1] == ("Promoted", BETTER)


async def a_rolled_back_revision_is_tried_again(s: HardSimulation) -> None:
    await first_commit(s)
    s.error_rate = lambda revision: 0.0 if revision == A else 0.2
    await better(s, 100)
    assert (await s.condition())["reason"] == "RolledBack"
    await ask(s)
    await s.run(90)
    assert (await s.condition())["reason"] == "RolledBack", "it breaks again, and is not tried a third time"
    assert [k for k, _ in s.decisions()].count("RolledBack") == 2
    await s.run(100)
    assert [k for k, _ in s.decisions()].count("RolledBack") == 2
    s.error_rate = lambda revision: 0.0
    await ask(s)
    await s.run(240)
    assert await s.shares() == {BETTER: 100}


async def a_new_commit_after_a_rollback(s: HardSimulation) -> None:
    """While the fix is trained, what was rolled back gets nothing."""
    await first_commit(s)
    s.error_rate = lambda revision: 0.2 if revision == BETTER else 0.0
    await better(s, 100)
    s.git.commit("Fix it", {"quality": b"48"})
    for _ in range(6):
        await s.run(10)
        assert BETTER not in await s.shares()
    await s.run(240)
    assert list(await s.shares()) not in ([A], [BETTER])


async def suspended_during_training(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 20)
    await s.store.apply(spec(suspend=True))
    await s.run(60)
    assert ("Admitted", BETTER) not in s.decisions()
    await s.store.apply(spec())
    await s.run(240)
    assert await s.shares() == {BETTER: 100}
    assert s.jobs_started.count(f"{BETTER}-train-1") == 1


async def suspended_during_a_canary(s: HardSimulation) -> None:
    """Nothing moves while suspended, and that time counts against no deadline."""
    await first_commit(s)
    await s.store.apply(canary_spec(progressDeadlineSeconds=200))
    await better(s, 50)
    manifest = canary_spec(progressDeadlineSeconds=200)
    manifest["spec"]["suspend"] = True
    await s.store.apply(manifest)
    await s.run(400)
    assert await s.shares() == {A: 90, BETTER: 10}
    s.traffic.error = Unavailable("bikes-f68bd5cd56-0 did not answer", reason="TelemetryUnavailable")
    await s.store.apply(canary_spec(progressDeadlineSeconds=200))
    await s.run(10)
    assert (await s.condition())["reason"] == "Progressing"
    s.traffic.error = None
    await s.run(240)
    assert await s.shares() == {BETTER: 100}


async def the_model_is_deleted_and_made_again(s: HardSimulation) -> None:
    """The ledger remains: the champion serves again, the same bytes, and nothing is trained."""
    await first_commit(s)
    await better(s, 240)
    before = (await s.status())["champion"]["digest"]
    await s.store.delete(Key("ModelSpec", "default", "bikes"))
    await s.run(10)
    assert await s.store.list("Deployment") == ()
    await s.store.apply(spec())
    await s.run(60)
    champion = (await s.status())["champion"]
    assert (champion["revision"], champion["digest"]) == (BETTER, before)
    assert await s.shares() == {BETTER: 100}
    assert len(s.jobs_started) == 2


async def the_spec_becomes_invalid_while_the_champion_serves(s: HardSimulation) -> None:
    await first_commit(s)
    manifest = spec(gates=[{"name": "good", "metric": "rmsee", "max": 100}])
    await s.store.apply(manifest)
    await s.run(20)
    ready = await s.condition()
    assert ready["reason"] == "InvalidSpec"
    assert 'did you mean "rmse"' in ready["message"]
    assert await s.shares() == {A: 100}
    assert (await s.status())["observedGeneration"] == (await s.model())["metadata"]["generation"]
    await s.store.apply(spec())
    await s.run(20)
    assert (await s.condition())["status"] == "True"


async def the_branch_is_missing(s: HardSimulation) -> None:
    await first_commit(s)
    source = {**spec()["spec"]["source"], "ref": {"branch": "mian"}}
    await s.store.apply(spec(source=source))
    await s.run(20)
    assert await s.condition("Stalled") != {}
    assert "the nearest is main" in (await s.condition())["message"]
    assert await s.shares() == {A: 100}


# -- the registry lies ----------------------------


def ledger_files(s: HardSimulation) -> tuple[dict[str, bytes], dict[str, str]]:
    run = next(r for r in s.registry.runs.values() if any(p.startswith("ledger/") for p in r.artifacts))
    return run.artifacts, run.tags


async def the_entry_that_made_the_champion_is_damaged(s: HardSimulation) -> None:
    """A later entry still names the champion: it goes on serving, and the damage is reported."""
    await first_commit(s)
    s.git.commit("Try a shallow tree", {"quality": b"120"})
    await s.run(60)
    files, _ = ledger_files(s)
    for path in ("ledger/000001.json", "ledger/000002.json"):
        files[path] = b"{}"
    s.restart()
    await s.run(40)
    assert await s.shares() == {A: 100}
    assert (await s.status())["champion"]["revision"] == A
    degraded = await s.condition("Degraded")
    assert degraded["reason"] == "LedgerDamaged"
    assert "entry 1 is ignored" in degraded["message"]
    assert (await s.condition())["reason"] != "InternalError"


async def someone_writes_a_forged_entry(s: HardSimulation) -> None:
    await first_commit(s)
    files, tags = ledger_files(s)
    files["ledger/000003.json"] = b'{"payload": "e30=", "payloadType": "x", "signatures": []}'
    tags["mainspring.ledger.000003"] = "0" * 64
    s.restart()
    await better(s, 300)
    assert await s.shares() == {BETTER: 100}
    assert (await s.status())["ledger"]["ignored"] == 1
    assert (await s.condition("Degraded"))["reason"] == "LedgerDamaged"


async def entries_are_removed(s: HardSimulation) -> None:
    await first_commit(s)
    await better(s, 240)
    files, tags = ledger_files(s)
    for store in (files, tags):
        for key in [k for k in store if "ledger" in k]:
            del store[key]
    s.restart()
    await s.run(60)
    assert "had 4: entries were removed" in (await s.condition("Degraded"))["message"]
    assert await s.shares() == {BETTER: 100}


STORIES: dict[str, Story] = {
    f.__name__: f
    for f in (
        mlflow_is_away_before_the_run_is_made,
        mlflow_is_away_at_registration,
        mlflow_is_away_when_a_verdict_is_recorded,
        mlflow_is_away_when_the_canary_has_passed,
        mlflow_is_away_when_the_canary_breaks,
        mlflow_is_away_when_a_refusal_is_recorded,
        the_alias_cannot_be_set,
        telemetry_is_away_during_a_canary,
        telemetry_never_comes_back,
        too_few_requests_until_the_deadline,
        servers_of_the_challenger_never_come_up,
        servers_of_the_challenger_die_in_the_canary,
        fewer_steps_during_a_canary,
        more_steps_during_a_canary,
        gates_are_tightened_during_a_canary,
        replicas_are_changed_during_a_canary,
        a_revision_that_was_refused_is_asked_for_again,
        a_revert_is_reverted,
        two_reverts_at_once,
        a_rolled_back_revision_is_tried_again,
        a_new_commit_after_a_rollback,
        suspended_during_training,
        suspended_during_a_canary,
        the_model_is_deleted_and_made_again,
        the_spec_becomes_invalid_while_the_champion_serves,
        the_branch_is_missing,
        the_entry_that_made_the_champion_is_damaged,
        someone_writes_a_forged_entry,
        entries_are_removed,
    )
}


CRASHING = (
    mlflow_is_away_when_the_canary_breaks,
    servers_of_the_challenger_die_in_the_canary,
    gates_are_tightened_during_a_canary,
)


@pytest.mark.parametrize("story", CRASHING, ids=lambda f: f.__name__)
def test_story_ends_as_told_after_a_crash_at_any_write(story: Story) -> None:
    clean = HardSimulation()
    asyncio.run(story(clean))
    first = HardSimulation()
    asyncio.run(first_commit(first))
    for write in range(first.writes[0] + 1, clean.writes[0] + 1):
        crashed = HardSimulation(crash_at=write)
        asyncio.run(story(crashed))
        assert crashed.decisions() == clean.decisions(), f"crashed after write {write} of {clean.writes[0]}"
        assert len(crashed.jobs_started) == len(set(crashed.jobs_started)), "a Job ran twice"


async def kinds(s: HardSimulation) -> dict[str, list[str]]:
    return {kind: [m["metadata"]["name"] for m in await s.store.list(kind)] for kind in ("Deployment", "Service")}


def test_a_crash_between_two_deletions_leaves_no_service_behind() -> None:
    clean = HardSimulation()

    async def go(s: HardSimulation) -> dict[str, list[str]]:
        await first_commit(s)
        await better(s, 240)
        return await kinds(s)

    want = asyncio.run(go(clean))
    assert len(want["Service"]) == len(want["Deployment"]) == 1
    for write in range(clean.writes[0] - 8, clean.writes[0] + 1):
        assert asyncio.run(go(HardSimulation(crash_at=write))) == want, f"crashed after write {write}"


@pytest.mark.parametrize("name", STORIES)
def test_story_ends_as_told_and_reads_as_in_its_golden_file(name: str, request: pytest.FixtureRequest) -> None:
    simulation = HardSimulation()
    asyncio.run(STORIES[name](simulation))
    transcript = "\n".join(simulation.lines) + "\n"
    assert transcript == golden(GOLDEN / f"{name}.txt", transcript, request)
