"""Stories of rollouts that are judged on what the model says: each with its numbers, each with a crash."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from controller.api.meta import Manifest
from controller.clients.errors import Unavailable
from tests.support.predicting_simulation import EVEN, PredictingSimulation
from tests.support.stories import FIRST, golden, spec

GOLDEN = Path(__file__).parent / "golden" / "analysis"
OLD, NEW = "bikes-dd1196040a", "bikes-f68bd5cd56"
Story = Callable[[PredictingSimulation], Coroutine[Any, Any, None]]
ERRORS: dict[str, Any] = {"name": "errors", "metric": "request-error-rate", "max": 0.05, "minRequests": 5}
DRIFT = {"name": "drift", "metric": "prediction-drift", "max": 0.1}


def canary(*analysis: Mapping[str, Any], **changes: Any) -> Manifest:
    rule = {"stepWeights": [10, 50], "interval": "60s", "analysis": list(analysis or (ERRORS,)), **changes}
    return spec(serving={"canary": rule})


async def rollout(s: PredictingSimulation, seconds: float, manifest: Manifest) -> None:
    """Serve the first commit, then roll the second one out for a while; training takes 30 s from the 60th on."""
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(manifest)
    await s.run(60)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(20)
    s.told_before = s.writes[0]
    await s.run(seconds - 20)


def only(revision: str, value: Any, otherwise: Any) -> Callable[[str], Any]:
    return lambda name: value if name == revision else otherwise


async def one_class_for_everybody_goes_back(s: PredictingSimulation) -> None:
    s.predicts = only(NEW, {"no": 1.0}, EVEN)
    await rollout(s, 160, canary())
    assert "constant-predictions: only 'no' was predicted in 50 requests" in (await s.condition())["message"]
    assert await s.shares() == {OLD: 100}


async def predictions_that_drift_go_back(s: PredictingSimulation) -> None:
    s.requests_per_s = 100.0
    s.predicts = only(NEW, {"no": 0.3, "yes": 0.7}, EVEN)
    await rollout(s, 160, canary(DRIFT))
    assert "drift: distance 0.342 > 0.1 of 100 and 900 requests" in (await s.condition())["message"]
    assert (await s.check("drift"))["outcome"] == "Failed"
    assert await s.shares() == {OLD: 100}


async def predictions_that_are_alike_go_on(s: PredictingSimulation) -> None:
    await rollout(s, 220, canary(DRIFT, ERRORS))
    assert await s.shares() == {NEW: 100}
    found = await s.analysis()
    assert (found["passed"], [step["weight"] for step in found["steps"]]) == ("7/8", [10, 50])


async def what_the_champion_said_before_the_step_does_not_count(s: PredictingSimulation) -> None:
    began = s.clock.now()
    s.predicts = lambda _: EVEN if (s.clock.now() - began).total_seconds() > 90 else {"yes": 1.0}
    await rollout(s, 220, canary(DRIFT))
    assert await s.shares() == {NEW: 100}
    assert (await s.check("drift"))["value"] == 0.0


async def one_bad_measurement_of_two_is_borne(s: PredictingSimulation) -> None:
    s.fails_at = lambda revision, at: 0.5 if revision == NEW and 100 < at <= 110 else 0.0
    rule = {**ERRORS, "failureLimit": 2}
    await rollout(s, 240, canary(rule, measureEvery="20s", builtIn={"disabled": ["errors-beside-champion"]}))
    assert await s.shares() == {NEW: 100}


async def two_bad_measurements_go_back(s: PredictingSimulation) -> None:
    s.fails_at = lambda revision, at: 0.5 if revision == NEW and (at == 110 or 120 < at <= 130) else 0.0
    rule = {**ERRORS, "failureLimit": 2}
    await rollout(s, 240, canary(rule, measureEvery="20s", builtIn={"disabled": ["errors-beside-champion"]}))
    message = (await s.condition())["message"]
    assert "errors: error rate 25.0% > 5.0% of 20 requests (2 failed measurements)" in message
    assert await s.shares() == {OLD: 100}


async def a_dry_run_fails_and_goes_on(s: PredictingSimulation) -> None:
    s.predicts = only(NEW, {"no": 1.0}, EVEN)
    await rollout(s, 220, canary(builtIn={"dryRun": True}))
    assert await s.shares() == {NEW: 100}
    found = await s.check("constant-predictions")
    assert (found["outcome"], found["dryRun"], found["builtIn"]) == ("Failed", True, True)


async def too_few_requests_are_promoted_where_asked(s: PredictingSimulation) -> None:
    s.requests_per_s = 0.5
    await rollout(s, 240, canary({**ERRORS, "minRequests": 500}, onInconclusive="Promote"))
    assert await s.shares() == {NEW: 100}
    assert "onInconclusive: Promote" in s.entries()[-1].reason


async def too_few_requests_go_back_where_asked(s: PredictingSimulation) -> None:
    s.requests_per_s = 0.5
    await rollout(s, 240, canary({**ERRORS, "minRequests": 500}, onInconclusive="Rollback"))
    assert await s.shares() == {OLD: 100}
    assert "errors waits for 500 requests (3 so far); onInconclusive: Rollback" in s.entries()[-1].reason


async def requests_that_never_reach_the_challenger_go_back(s: PredictingSimulation) -> None:
    s.arrives = only(NEW, 0.0, 1.0)
    await rollout(s, 240, canary())
    assert "volume: 0 requests where 10% of 540 are 54: less than half" in (await s.condition())["message"]
    assert await s.shares() == {OLD: 100}


async def slower_than_the_champion_is_a_matter_of_the_margin(s: PredictingSimulation) -> None:
    relative = {"margin": -0.1, "mode": "Relative"}
    await rollout(s, 220, canary({"name": "p99", "metric": "request-duration-p99", "champion": relative}))
    assert await s.shares() == {NEW: 100}
    assert "improvement +0.0%, needed -10.0%" in s.entries()[-1].reason


async def figures_are_away_when_the_step_begins(s: PredictingSimulation) -> None:
    away = Unavailable(f"metrics of server {NEW}-0 could not be read", reason="TelemetryUnavailable")
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(canary(DRIFT, ERRORS))
    await s.run(60)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(20)
    s.traffic.error = away
    await s.run(60)
    assert (await s.status())["challenger"]["since"] == "", "the step has not begun: nothing is known of before"
    s.traffic.error = None
    await s.run(160)
    assert await s.shares() == {NEW: 100}


class Sales:
    """A Prometheus in which the new version sells nothing, and which is away when a test says so."""

    def __init__(self) -> None:
        self.away = False
        self.asked: list[tuple[str, str | None]] = []

    async def value(self, query: str, server: str | None = None) -> float:
        self.asked.append((query, server))
        if self.away:
            raise Unavailable("Prometheus at http://p:9090 did not answer", reason="PrometheusUnavailable")
        return 0.0 if query == 'sales{version="2"}' else 5.0


async def sales_that_fall_go_back(s: PredictingSimulation) -> None:
    sales = Sales()
    sales.away = True
    s.prometheus = sales
    query = {"query": 'sales{version="{{ .version }}"}', "direction": "Higher"}
    margin = {"margin": -0.05, "mode": "Relative"}
    await rollout(s, 120, canary({"name": "sales", "prometheus": query, "champion": margin}))
    message = (await s.condition())["message"]
    assert message == f"canary 10% of {NEW}: sales: Prometheus at http://p:9090 did not answer"
    sales.away = False
    await s.run(20)
    assert "sales: sales 0, champion 5: improvement -100.0%, needed -5.0%" in (await s.condition())["message"]
    assert await s.shares() == {OLD: 100}
    assert {q for q, _ in sales.asked} == {'sales{version="1"}', 'sales{version="2"}'}


DISAGREEMENT: dict[str, Any] = {"name": "same", "metric": "disagreement", "max": 0.05, "sample": 0.5}


async def a_model_that_disagrees_goes_back(s: PredictingSimulation) -> None:
    s.disagrees = only(NEW, 0.4, 0.0)
    await rollout(s, 160, canary(DISAGREEMENT))
    message = (await s.condition())["message"]
    assert "same: disagreement 40.0% > 5.0% of 20 rows in 20 requests that both were given" in message
    assert await s.shares() == {OLD: 100}


async def a_model_that_agrees_goes_on_and_its_servers_stay(s: PredictingSimulation) -> None:
    await rollout(s, 100, canary(DISAGREEMENT))
    begun = {d["metadata"]["name"]: d["spec"]["template"] for d in await s.store.list("Deployment")}
    await s.run(180)
    assert await s.shares() == {NEW: 100}
    (left,) = await s.store.list("Deployment")
    assert left["spec"]["template"] == begun[left["metadata"]["name"]], "its pods were replaced"
    (old,) = (name for name in begun if name.startswith(OLD))
    assert s.asked == {f"http://127.0.0.1:8080/default/{old}"}


SMOKE: dict[str, Any] = {"path": "smoke.json", "expect": {"rows": 1, "type": "Number"}}
REQUEST = b'{"dataframe_records": [{"temp": 20}]}'


async def smoke_test(s: PredictingSimulation) -> None:
    """Serve the first commit, then roll out one whose servers must answer a request first."""
    manifest = canary()
    manifest["spec"]["serving"]["smokeTest"] = SMOKE
    s.git.commit("Predict bikes", {**FIRST, "smoke.json": REQUEST})
    await s.store.apply(manifest)
    await s.run(60)
    s.told_before = s.writes[0]
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(60)


async def a_smoke_test_that_fails_keeps_all_requests_away(s: PredictingSimulation) -> None:
    s.smoke = only(NEW, "smoke test: prediction 1 is 'much', not a Number", "")
    await smoke_test(s)
    message = (await s.condition())["message"]
    assert f"servers of {NEW} fail the smoke test: prediction 1 is 'much', not a Number. {OLD} serves" in message
    assert await s.shares() == {OLD: 100}
    assert not [k for k in s.traffic.counted if k.startswith(NEW)], "it never got a request"


async def a_smoke_test_that_passes_is_part_of_the_servers(s: PredictingSimulation) -> None:
    await smoke_test(s)
    told = {}
    for deployment in await s.store.list("Deployment"):
        env = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        (text,) = (e["value"] for e in env if e["name"] == "MAINSPRING_SMOKE_TEST")
        told[deployment["metadata"]["name"].rpartition("-")[0]] = json.loads(text)
    want = {"body": REQUEST.decode(), "type": "application/json", "expect": {"status": 200, **SMOKE["expect"]}}
    assert told == {OLD: want, NEW: want}
    await s.run(160)
    assert await s.shares() == {NEW: 100}


async def a_smoke_test_whose_file_is_missing_stops_the_model(s: PredictingSimulation) -> None:
    s.git.commit("Predict bikes", FIRST)
    manifest = canary()
    manifest["spec"]["serving"]["smokeTest"] = SMOKE
    await s.store.apply(manifest)
    await s.run(20)
    assert (await s.condition())["reason"] == "PathNotFound"
    assert "serving.smokeTest.path: smoke.json is not in main@sha1:" in (await s.condition())["message"]


STORIES: dict[str, Story] = {
    f.__name__: f
    for f in (
        one_class_for_everybody_goes_back,
        predictions_that_drift_go_back,
        predictions_that_are_alike_go_on,
        what_the_champion_said_before_the_step_does_not_count,
        one_bad_measurement_of_two_is_borne,
        two_bad_measurements_go_back,
        a_dry_run_fails_and_goes_on,
        too_few_requests_are_promoted_where_asked,
        too_few_requests_go_back_where_asked,
        requests_that_never_reach_the_challenger_go_back,
        slower_than_the_champion_is_a_matter_of_the_margin,
        figures_are_away_when_the_step_begins,
        sales_that_fall_go_back,
        a_smoke_test_that_fails_keeps_all_requests_away,
        a_smoke_test_that_passes_is_part_of_the_servers,
        a_smoke_test_whose_file_is_missing_stops_the_model,
        a_model_that_disagrees_goes_back,
        a_model_that_agrees_goes_on_and_its_servers_stay,
    )
}


@pytest.mark.parametrize("name", STORIES)
def test_story_ends_as_told_and_reads_as_in_its_golden_file(name: str, request: pytest.FixtureRequest) -> None:
    simulation = PredictingSimulation()
    asyncio.run(STORIES[name](simulation))
    transcript = "\n".join(simulation.lines) + "\n"
    assert transcript == golden(GOLDEN / f"{name}.txt", transcript, request)


CRASHING = (
    a_smoke_test_that_fails_keeps_all_requests_away,
    one_class_for_everybody_goes_back,
    one_bad_measurement_of_two_is_borne,
    two_bad_measurements_go_back,
)


@pytest.mark.parametrize("story", CRASHING, ids=lambda f: f.__name__)
def test_story_ends_as_told_after_a_crash_at_any_write(story: Story) -> None:
    clean = PredictingSimulation()
    asyncio.run(story(clean))
    for write in range(clean.told_before + 1, clean.writes[0] + 1):
        crashed = PredictingSimulation(crash_at=write)
        asyncio.run(story(crashed))
        assert crashed.decisions() == clean.decisions(), f"crashed after write {write} of {clean.writes[0]}"


def test_the_ledger_keeps_the_numbers_of_every_step() -> None:
    s = PredictingSimulation()
    asyncio.run(predictions_that_are_alike_go_on(s))
    entry = s.entries()[-1]
    assert entry.kind == "Promoted"
    assert {k: v for k, v in entry.evidence.items() if not k.endswith(("volume", "champion"))} == {
        "step1.weight": 10.0,
        "step1.requests": 60.0,
        "step1.drift": 0.0,
        "step1.errors": 0.0,
        "step1.constant-predictions": 2.0,
        "step1.missing-values": 0.0,
        "step1.unseen-categories": 0.0,
        "step2.weight": 50.0,
        "step2.requests": 300.0,
        "step2.drift": 0.0,
        "step2.errors": 0.0,
        "step2.constant-predictions": 2.0,
        "step2.missing-values": 0.0,
        "step2.unseen-categories": 0.0,
    }
    assert {v.gate: v.outcome for v in entry.gates}["drift"] == "Passed"


def test_a_rollback_that_the_ledger_hears_of_late_keeps_its_numbers() -> None:
    s = PredictingSimulation()

    async def go() -> None:
        s.predicts = only(NEW, {"no": 1.0}, EVEN)
        await rollout(s, 70, canary())
        s.registry.down = True
        await s.run(60)
        s.registry.down = False
        await s.run(60)

    asyncio.run(go())
    entry = s.entries()[-1]
    assert entry.kind == "RolledBack"
    assert {v.gate: v.outcome for v in entry.gates}["constant-predictions"] == "Failed"
    assert entry.evidence["step1.requests"] >= 50


def test_what_a_status_remembers_stays_small() -> None:
    """A model with 600 different predictions costs a status no more than one with 32."""
    s = PredictingSimulation()
    values = {f"c{i}": 1 / 600 for i in range(600)}
    s.predicts = lambda _: values
    asyncio.run(rollout(s, 120, canary(DRIFT)))
    challenger = asyncio.run(s.status())["challenger"]
    assert (challenger["stage"], challenger["step"]) == ("Canary", 1)
    assert len([k for k in challenger["beside"] if "|p=" in k]) == len(challenger["cells"]) + 1 == 32
