"""Stories of people who go back by hand on a cluster: servers change hands one by one, or a Gateway's weights do.

No request finds no server, and never fewer servers answer than the champion has: told, told with MLflow away, and
told again with a crash after every write, stale reads and missed events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import stories
from tests.support.cluster_simulation import ClusterSimulation
from tests.support.stories import golden
from tests.unit.stories.cluster_begin import GATEWAY, begin
from tests.unit.stories.test_more_stories import BETTER, A
from tests.unit.stories.test_override_stories import active, order

GOLDEN = Path(__file__).parent / "golden" / "cluster"
Story = Callable[[ClusterSimulation], Awaitable[None]]


async def replaced(s: ClusterSimulation, **serving: Any) -> None:
    """Let a better model have taken over."""
    s.start_s = 5
    await begin(s, **serving)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(120)
    s.told_before = s.writes[0]
    assert await s.sizes() == {BETTER: 3}


async def a_person_rolls_whole_servers_back(s: ClusterSimulation) -> None:
    await replaced(s)
    await order(s, "Rollback", A)
    await s.run(60)
    assert await s.sizes() == {A: 3}
    assert s.decisions()[-1] == ("RolledBack", BETTER)


async def a_person_rolls_back_behind_a_gateway(s: ClusterSimulation) -> None:
    await replaced(s, route=GATEWAY)
    await order(s, "Rollback", A)
    await s.run(60)
    assert await s.shares() == {A: 100}
    assert await s.sizes() == {A: 3}


async def whole_servers_go_back_while_mlflow_is_down(s: ClusterSimulation) -> None:
    """Servers are what splits the requests: they must go although nobody can write it down."""
    await replaced(s)
    s.registry.down = True
    await order(s, "Rollback", A)
    await s.run(90)
    assert await s.sizes() == {A: 3}
    assert s.decisions()[-1] == ("Promoted", BETTER)
    s.registry.down = False
    await s.run(60)
    assert s.decisions()[-1] == ("RolledBack", BETTER)


async def a_person_aborts_a_canary_of_whole_servers(s: ClusterSimulation) -> None:
    s.start_s = 5
    await begin(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(50)
    s.registry.down = True
    name = await order(s, "Abort", BETTER)
    await s.run(30)
    assert await s.sizes() == {A: 3}
    assert (await active(s, name))["reason"] == "Applied"
    s.registry.down = False
    await s.run(60)
    assert s.decisions()[-1] == ("RolledBack", BETTER)


async def a_person_promotes_whole_servers(s: ClusterSimulation) -> None:
    s.start_s = 5
    await begin(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(50)
    await order(s, "Promote", BETTER)
    await s.run(60)
    assert await s.sizes() == {BETTER: 3}


async def a_breach_gives_servers_back_while_mlflow_is_down(s: ClusterSimulation) -> None:
    """The same without a person: a rollback by the analysis must not wait for its record either."""
    await begin(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(40)
    s.registry.down = True
    s.error_rate = lambda revision: 0.2 if revision == BETTER else 0.0
    await s.run(60)
    assert await s.sizes() == {A: 3}
    s.registry.down = False
    await s.run(60)
    assert s.decisions()[-1] == ("RolledBack", BETTER)


STORIES: dict[str, Story] = {
    f.__name__: f
    for f in (
        a_person_rolls_whole_servers_back,
        a_person_rolls_back_behind_a_gateway,
        whole_servers_go_back_while_mlflow_is_down,
        a_person_aborts_a_canary_of_whole_servers,
        a_person_promotes_whole_servers,
        a_breach_gives_servers_back_while_mlflow_is_down,
    )
}
AGAIN = (a_person_rolls_whole_servers_back, a_person_rolls_back_behind_a_gateway)


def tell(story: Story, **options: Any) -> tuple[ClusterSimulation, dict[str, object]]:
    return stories.tell(story, ClusterSimulation(**options))


@pytest.mark.parametrize("name", STORIES)
def test_story_on_a_cluster_reads_as_in_its_golden_file(name: str, request: pytest.FixtureRequest) -> None:
    simulation, _ = tell(STORIES[name])
    assert simulation.unanswered == 0
    assert min(simulation.answering, default=3) >= 3, "fewer servers answered than the champion has"
    transcript = "\n".join(simulation.lines) + "\n"
    assert transcript == golden(GOLDEN / f"{name}.txt", transcript, request)


@pytest.mark.parametrize("story", AGAIN, ids=lambda f: f.__name__)
def test_story_on_a_cluster_ends_the_same_after_a_crash_at_any_write(story: Story) -> None:
    clean, want = tell(story)
    for write in range(clean.told_before + 1, clean.writes[0] + 1):
        crashed, got = tell(story, crash_at=write)
        assert got == want, f"crashed after write {write} of {clean.writes[0]}"
        assert crashed.unanswered == 0, f"crashed after write {write}: requests found no server"


@pytest.mark.parametrize("how", [{"stale": True}, {"look_every_s": 2.0}], ids=["stale reads", "missed events"])
@pytest.mark.parametrize("story", AGAIN, ids=lambda f: f.__name__)
def test_story_on_a_cluster_ends_the_same_by_what_can_be_seen_late(story: Story, how: dict[str, Any]) -> None:
    _, want = tell(story)
    told, got = tell(story, **how)
    assert got == want
    assert told.unanswered == 0
