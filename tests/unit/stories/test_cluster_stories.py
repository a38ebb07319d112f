"""Stories on a cluster: whole servers or a Gateway split the requests, pods say what runs and why it does not.

Told and told again as in test_stories.py: golden transcripts, a crash after every write, stale reads, no events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controller.api.meta import Manifest
from tests.support.cluster_simulation import ClusterSimulation
from tests.unit.stories.test_stories import FIRST
from tests.unit.stories.test_stories import spec as plain_spec

GOLDEN = Path(__file__).parent / "golden" / "cluster"
SERVING: dict[str, Any] = {"minReplicas": 3, "canary": {"stepWeights": [10, 50], "interval": "20s"}}


def spec(training: dict[str, object] | None = None, **serving: object) -> Manifest:
    """Build the ModelSpec of the stories: three servers of the champion."""
    train = {"command": ["python", "train.py"], **(training or {})}
    return plain_spec(training=train, serving={**SERVING, **serving})


async def begin(s: ClusterSimulation, training: dict[str, object] | None = None, **serving: object) -> None:
    """Let the first model serve."""
    s.git.commit("Predict bikes", FIRST)
    await s.store.apply(spec(training, **serving))
    await s.run(60)
    s.told_before = s.writes[0]


async def first_commit(s: ClusterSimulation) -> None:
    await begin(s)


async def better_takes_over(s: ClusterSimulation) -> None:
    s.start_s = 5
    await begin(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(120)


STORIES: dict[str, Callable[[ClusterSimulation], Awaitable[None]]] = {
    f.__name__: f
    for f in (
        first_commit,
        better_takes_over,
    )
}


def tell(
    story: Callable[[ClusterSimulation], Awaitable[None]], **options: object
) -> tuple[ClusterSimulation, dict[str, object]]:
    simulation = ClusterSimulation(**options)  # type: ignore[arg-type]

    async def go() -> dict[str, object]:
        await story(simulation)
        return await simulation.end_state()

    return simulation, asyncio.run(go())


@pytest.mark.parametrize("name", STORIES)
def test_story_on_a_cluster_reads_as_in_its_golden_file(name: str, request: pytest.FixtureRequest) -> None:
    simulation, _ = tell(STORIES[name])
    transcript = "\n".join(simulation.lines) + "\n"
    file = GOLDEN / f"{name}.txt"
    if request.config.getoption("--update-golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(transcript)
    assert transcript == file.read_text()


@pytest.mark.parametrize("name", STORIES)
def test_story_on_a_cluster_ends_the_same_after_a_crash_at_any_write(name: str) -> None:
    clean, want = tell(STORIES[name])
    told_before = 0 if name == "first_commit" else clean.told_before
    for write in range(told_before + 1, clean.writes[0] + 1):
        crashed, got = tell(STORIES[name], crash_at=write)
        assert got == want, f"crashed after write {write} of {clean.writes[0]}"
        assert len(crashed.jobs_started) == len(set(crashed.jobs_started)), "a Job ran twice"
        assert crashed.unanswered == 0, f"crashed after write {write}: requests found no server"


@pytest.mark.parametrize("name", STORIES)
def test_story_on_a_cluster_ends_the_same_with_stale_reads(name: str) -> None:
    _, want = tell(STORIES[name])
    told, got = tell(STORIES[name], stale=True)
    assert got == want
    assert told.unanswered == 0


@pytest.mark.parametrize("name", STORIES)
def test_story_on_a_cluster_ends_the_same_when_only_the_periodic_look_is_left(name: str) -> None:
    """Every event is missed: nothing is looked at but every 2 seconds, each object once."""
    _, want = tell(STORIES[name])
    told, got = tell(STORIES[name], look_every_s=2.0)
    assert got == want
    assert told.unanswered == 0
