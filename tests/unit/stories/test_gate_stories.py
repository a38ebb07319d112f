"""Stories of people who ask more of their models: what is measured again, what is only shown; nothing retrains."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from controller.api.hashes import canonical
from controller.api.meta import Key, Manifest
from tests.support.simulation import Simulation
from tests.support.stories import golden, spec
from tests.unit.stories.test_stories import GOLDEN, first_commit, tell, worse_is_refused

LIMIT = {"name": "good-enough", "metric": "rmse", "max": 200}
LENIENT = {"name": "not-worse", "metric": "rmse", "champion": {"margin": -100, "mode": "Absolute"}}


def asking(*rules: Manifest) -> Manifest:
    manifest = spec()
    manifest["spec"]["gates"] = [LIMIT, LENIENT, *rules]
    return manifest


async def a_gate_by_slice_is_asked_for_after_training(s: Simulation) -> None:
    """The refused model is measured again for what was not asked then, and takes over; nothing is trained."""
    await worse_is_refused(s)
    s.told_before = s.writes[0]
    rule = {"name": "weekends", "metric": "rmse", "slices": ["weekday"], "minRows": 100, "max": 150}
    await s.store.apply(asking(rule))
    await s.run(300)
    trained = [j for j in s.jobs_started if "-train-" in j]
    assert len(trained) == 2
    assert evaluations(s) == ["2"]


async def a_dry_run_fails_and_decides_nothing(s: Simulation) -> None:
    dry = {"name": "one-day", "metric": "rmse", "max": 1, "dryRun": True}
    s.git.commit("Predict bikes", {"train.py": b"fit()", "quality": b"60", "data.csv": b"1,2"})
    await s.store.apply(asking(dry))
    await s.run(60)
    status = (await s.model())["status"]
    assert status["champion"]["gates"] == "2/2"
    verdict = next(v for v in status["judgement"]["verdicts"] if v["gate"] == "one-day")
    assert (verdict["outcome"], verdict["dryRun"]) == ("Failed", True)


async def an_expression_with_what_was_never_measured_stops_the_model(s: Simulation) -> None:
    await first_commit(s)
    await s.store.apply(asking({"name": "calibrated", "cel": "!(metrics.mape > 0.2)"}))
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(120)
    status = (await s.model())["status"]
    assert status["previous"]["verdict"] == "Rejected"
    assert "there is no value mape" in status["previous"]["reason"]


async def the_trainers_word_is_believed_only_where_asked(s: Simulation) -> None:
    """The trainer claims half the error; only the gate that asks for its word sees that."""
    said = {"name": "said", "metric": "rmse", "from": "Trainer", "direction": "Lower", "max": 40}
    ours = {"name": "ours", "metric": "rmse", "max": 40}
    s.git.commit("Predict bikes", {"train.py": b"fit()", "quality": b"60", "data.csv": b"1,2"})
    await s.store.apply(asking(said, ours))
    await s.run(90)
    status = (await s.model())["status"]
    outcomes = {v["gate"]: v["outcome"] for v in status["judgement"]["verdicts"]}
    assert (outcomes["said"], outcomes["ours"]) == ("Passed", "Failed")
    assert await s.store.get(Key("HTTPRoute", "default", "bikes")) is None


def telling(**other: Any) -> Callable[[bytes], bytes]:
    """Make an evaluator that measures by something else than it was asked for."""

    def retold(report: bytes) -> bytes:
        said = json.loads(report)
        return canonical({**said, "evidence": {**said["evidence"], **other}})

    return retold


def evaluations(s: Simulation) -> list[str]:
    return [j.rpartition("-evaluate-")[2] for j in s.jobs_started if "-evaluate-" in j]


async def an_evaluator_that_compares_with_another_model_is_given_up(s: Simulation) -> None:
    """Every report names another champion: two evaluations, then a person is asked; with a good one it goes on."""
    await first_commit(s)
    s.told_before = s.writes[0]
    s.retell = telling(champion=f"sha256:{'f' * 64}")
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(1200, step_s=30)
    assert evaluations(s) == ["2", "3"]
    status = (await s.model())["status"]
    assert status["stage"] == "Stalled"
    s.retell = lambda report: report
    asked = {"mainspring.dev/requested-at": s.clock.now().isoformat()}
    await s.store.annotate(Key("ModelSpec", "default", "bikes"), asked)
    await s.run(300)
    assert evaluations(s) == ["2", "3", "4"]


async def an_evaluator_that_knows_no_slices_is_given_up_until_nothing_is_asked_of_it(s: Simulation) -> None:
    """An image of an older release cannot measure what a gate asks for; without that gate nothing is missing."""
    await worse_is_refused(s)
    s.told_before = s.writes[0]
    s.retell = telling(measures="")
    rule = {"name": "weekends", "metric": "rmse", "slices": ["weekday"], "minRows": 100, "max": 150}
    await s.store.apply(asking(rule))
    await s.run(1200, step_s=30)
    assert evaluations(s) == ["2", "3"]
    assert (await s.model())["status"]["stage"] == "Stalled"
    await s.store.apply(asking())
    await s.run(300)
    assert evaluations(s) == ["2", "3"]


STORIES = {
    f.__name__: f
    for f in (
        a_gate_by_slice_is_asked_for_after_training,
        a_dry_run_fails_and_decides_nothing,
        an_expression_with_what_was_never_measured_stops_the_model,
        the_trainers_word_is_believed_only_where_asked,
        an_evaluator_that_compares_with_another_model_is_given_up,
        an_evaluator_that_knows_no_slices_is_given_up_until_nothing_is_asked_of_it,
    )
}


@pytest.mark.parametrize("name", STORIES)
def test_gate_story_ends_as_told_and_reads_as_in_its_golden_file(
    name: str, request: pytest.FixtureRequest
) -> None:
    simulation, _ = tell(STORIES[name])
    transcript = "\n".join(simulation.lines) + "\n"
    assert transcript == golden(GOLDEN / f"{name}.txt", transcript, request)


def test_a_renewed_measurement_ends_the_same_after_a_crash_at_any_write() -> None:
    story = a_gate_by_slice_is_asked_for_after_training
    clean, want = tell(story)
    for write in range(clean.told_before + 1, clean.writes[0] + 1):
        simulation, got = tell(story, crash_at=write)
        assert got == want, f"crashed after write {write} of {clean.writes[0]}"
        assert len(simulation.jobs_started) == len(set(simulation.jobs_started)), "a Job ran twice"
