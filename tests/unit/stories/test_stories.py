"""Stories: what people do to a repository, and what the controller does about it, as transcripts.

Each story is told once and compared with its golden file, then again with a crash after every single write, with
stale reads, and with the actors in another order; the end must be the same. `pytest --update-golden` writes the
transcripts anew; they are read in review like code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controller.clients.errors import Unavailable
from tests.support import stories
from tests.support.simulation import Simulation
from tests.support.stories import FIRST, golden, spec

GOLDEN = Path(__file__).parent / "golden"


async def first_commit(s: Simulation) -> None:
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(spec())
    await s.run(60)
    s.told_before = s.writes[0]


async def readme_only(s: Simulation) -> None:
    await first_commit(s)
    s.git.commit("Say more", {"README.md": b"hello, world"})
    await s.run(20)


async def worse_is_refused(s: Simulation) -> None:
    await first_commit(s)
    s.git.commit("Try a shallow tree", {"quality": b"120"})
    await s.run(80)


async def better_takes_over(s: Simulation) -> None:
    await first_commit(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(240)


async def revert_serves_the_old_bytes(s: Simulation) -> None:
    await better_takes_over(s)
    s.told_before = s.writes[0]
    s.git.revert("Revert: More trees")
    await s.run(40)


async def breach_gives_all_traffic_back(s: Simulation) -> None:
    await first_commit(s)
    first = (await s.model())["status"]["champion"]["revision"]
    s.error_rate = lambda revision: 0.0 if revision == first else 0.2
    s.git.commit("More trees, and a bug", {"quality": b"50"})
    await s.run(200)


async def no_traffic_passes(s: Simulation) -> None:
    await first_commit(s)
    s.requests_per_s = 0.0
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(240)


async def training_fails_for_good(s: Simulation) -> None:
    await first_commit(s)
    s.fail_training = lambda job: True
    s.git.commit("Use temperature", {"quality": b"40"})
    await s.run(160)


async def training_fails_once(s: Simulation) -> None:
    s.fail_training = lambda job: job["metadata"]["name"].endswith("-train-1")
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(spec())
    await s.run(120)


async def newest_commit_waits_for_the_running_training(s: Simulation) -> None:
    await first_commit(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(15)
    s.git.commit("Even more trees", {"quality": b"48"})
    s.git.commit("The most trees", {"quality": b"45"})
    await s.run(400)


async def revert_during_a_canary(s: Simulation) -> None:
    await first_commit(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(60)
    s.git.revert("Revert: More trees")
    await s.run(60)


async def suspended(s: Simulation) -> None:
    await first_commit(s)
    await s.store.apply(spec(suspend=True))
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(60)


async def git_is_down(s: Simulation) -> None:
    await first_commit(s)
    s.git.error = Unavailable("git.example.com did not answer within 60 s; it is tried again", reason="GitTimeout")
    await s.run(60)
    s.git.error = None
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(240)


async def gate_is_tightened(s: Simulation) -> None:
    await first_commit(s)
    manifest = spec()
    manifest["spec"]["gates"][0]["max"] = 55
    await s.store.apply(manifest)
    await s.run(30)


async def gate_is_relaxed(s: Simulation) -> None:
    await worse_is_refused(s)
    s.told_before = s.writes[0]
    manifest = spec()
    manifest["spec"]["gates"] = [{"name": "good-enough", "metric": "rmse", "max": 200}]
    manifest["spec"]["gates"].append(
        {"name": "not-worse", "metric": "rmse", "champion": {"margin": -100, "mode": "Absolute"}}
    )
    await s.store.apply(manifest)
    await s.run(240)


async def champion_changes_while_the_next_one_trains(s: Simulation) -> None:
    await first_commit(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(60)
    s.train_s = 200
    s.git.commit("Even more trees", {"quality": b"48"})
    await s.run(700)


async def checks_change_after_a_refusal(s: Simulation) -> None:
    await worse_is_refused(s)
    s.told_before = s.writes[0]
    await s.store.apply(spec(checks=[{"name": "volume", "minRows": 10}]))
    await s.run(80)


async def bad_data_is_refused_until_the_check_is_relaxed(s: Simulation) -> None:
    await first_commit(s)
    strict: set[str] = set()
    for job in await s.store.list("Job"):
        strict.add(job["metadata"]["annotations"]["mainspring.dev/checks"])
    s.refuse_data = lambda job: job["metadata"]["annotations"]["mainspring.dev/checks"] in strict
    s.git.commit("New data", {"data.csv": b"3,4", "quality": b"50"})
    await s.run(90)
    await s.store.apply(spec(checks=[{"name": "nulls", "column": "temp", "maxNullFraction": 0.5}]))
    await s.run(240)


STORIES: dict[str, Callable[[Simulation], Awaitable[None]]] = {
    f.__name__: f
    for f in (
        first_commit,
        readme_only,
        worse_is_refused,
        better_takes_over,
        revert_serves_the_old_bytes,
        breach_gives_all_traffic_back,
        no_traffic_passes,
        training_fails_for_good,
        training_fails_once,
        newest_commit_waits_for_the_running_training,
        revert_during_a_canary,
        suspended,
        git_is_down,
        gate_is_tightened,
        gate_is_relaxed,
        champion_changes_while_the_next_one_trains,
        checks_change_after_a_refusal,
        bad_data_is_refused_until_the_check_is_relaxed,
    )
}


def tell(story: Callable[[Simulation], Awaitable[None]], **options: Any) -> tuple[Simulation, dict[str, object]]:
    return stories.tell(story, Simulation(**options))


@pytest.mark.parametrize("name", STORIES)
def test_story_reads_as_in_its_golden_file(name: str, request: pytest.FixtureRequest) -> None:
    simulation, _ = tell(STORIES[name])
    transcript = "\n".join(simulation.lines) + "\n"
    assert transcript == golden(GOLDEN / f"{name}.txt", transcript, request)


@pytest.mark.parametrize("name", STORIES)
def test_story_ends_the_same_after_a_crash_at_any_write(name: str) -> None:
    clean, want = tell(STORIES[name])
    told_before = 0 if name == "first_commit" else clean.told_before
    for write in range(told_before + 1, clean.writes[0] + 1):
        crashed, got = tell(STORIES[name], crash_at=write)
        assert got == want, f"crashed after write {write} of {clean.writes[0]}"
        assert len(crashed.jobs_started) == len(set(crashed.jobs_started)), "a Job ran twice"


@pytest.mark.parametrize("name", STORIES)
def test_story_ends_the_same_with_stale_reads(name: str) -> None:
    _, want = tell(STORIES[name])
    _, got = tell(STORIES[name], stale=True)
    assert got == want


@pytest.mark.parametrize("name", STORIES)
def test_story_ends_the_same_when_only_the_periodic_look_is_left(name: str) -> None:
    """Every event is missed: nothing is looked at but every 2 seconds, each object once."""
    _, want = tell(STORIES[name])
    _, got = tell(STORIES[name], look_every_s=2.0)
    assert got == want


@pytest.mark.parametrize("story", [better_takes_over, worse_is_refused, revert_serves_the_old_bytes])
def test_the_loss_of_all_objects_costs_no_training(story: Callable[[Simulation], Awaitable[None]]) -> None:
    """Git, MLflow and the key remain: the same bytes serve, what was refused stays refused, nothing is trained."""
    simulation = Simulation()

    async def go() -> tuple[dict[str, object], dict[str, object]]:
        await story(simulation)
        before = await simulation.end_state()
        message = (await simulation.model())["status"]["conditions"][0]["message"]
        simulation.lose_objects()
        await simulation.store.apply(spec())
        await simulation.run(60)
        after = await simulation.end_state()
        assert (await simulation.model())["status"]["conditions"][0]["message"] == message
        return before, after

    before, after = asyncio.run(go())
    assert after == {**before, "deployments": after["deployments"]}
    assert sorted(after["deployments"]) == sorted(after["route"])  # type: ignore[call-overload]
