"""Stories on a cluster: whole servers or a Gateway split the requests, pods say what runs and why it does not.

Told and told again as in test_stories.py: golden transcripts, a crash after every write, stale reads, no events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controller.api.meta import Key, key_of
from tests.support import stories
from tests.support.cluster_simulation import ClusterSimulation
from tests.support.stories import golden
from tests.unit.stories.cluster_begin import GATEWAY, begin, spec
from tests.unit.stories.cluster_job_stories import JOB_STORIES

GOLDEN = Path(__file__).parent / "golden" / "cluster"


async def first_commit(s: ClusterSimulation) -> None:
    await begin(s)


async def better_takes_over(s: ClusterSimulation) -> None:
    s.start_s = 5
    await begin(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(120)


async def breach_gives_all_servers_back(s: ClusterSimulation) -> None:
    await begin(s)
    champion = (await s.status())["champion"]["revision"]
    s.error_rate = lambda revision: 0.0 if revision == champion else 0.2
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(60)


async def revert_serves_the_old_bytes(s: ClusterSimulation) -> None:
    s.start_s = 5
    await better_takes_over(s)
    s.told_before = s.writes[0]
    s.git.revert("Revert: More trees")
    await s.run(40)


async def revert_during_a_canary(s: ClusterSimulation) -> None:
    s.start_s = 5
    await begin(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(50)
    s.git.revert("Revert: More trees")
    await s.run(30)


async def an_autoscaler_owns_the_replicas(s: ClusterSimulation) -> None:
    s.start_s, s.load = 5, lambda _: 6
    await begin(s, maxReplicas=8, canary={"stepWeights": [20], "interval": "20s"})
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(100)


async def a_gateway_splits_the_requests(s: ClusterSimulation) -> None:
    s.start_s, s.load = 5, lambda _: 5
    await begin(s, route=GATEWAY, maxReplicas=8)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(120)


async def a_breach_behind_a_gateway(s: ClusterSimulation) -> None:
    await begin(s, route=GATEWAY)
    champion = (await s.status())["champion"]["revision"]
    s.error_rate = lambda revision: 0.0 if revision == champion else 0.2
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(60)


async def the_route_gets_another_host_name(s: ClusterSimulation) -> None:
    await begin(s, route=GATEWAY)
    await s.store.apply(spec(route={**GATEWAY, "hostnames": ["bikes.example.com"]}))
    await s.run(10)


async def the_route_is_taken_out_and_comes_back(s: ClusterSimulation) -> None:
    await begin(s, route=GATEWAY)
    await s.store.apply(spec())
    await s.run(20)
    assert await s.store.get(Key("HTTPRoute", "default", "bikes")) is None, "nothing keeps it up to date any more"
    await s.store.apply(spec(route=GATEWAY))
    await s.run(20)


async def servers_get_other_resources_one_by_one(s: ClusterSimulation) -> None:
    s.start_s = 5
    await begin(s)
    await s.store.apply(spec(resources={"requests": {"cpu": "2"}}, template={"nodeSelector": {"disk": "ssd"}}))
    await s.run(60)


async def somebody_gives_the_servers_another_image(s: ClusterSimulation) -> None:
    await begin(s)
    (deployment,) = await s.deployments()
    servers = deployment["spec"]["template"]["spec"]["containers"]
    patch = {"template": {"spec": {"containers": [{**servers[0], "image": "example.com/other:1"}]}}}
    await s.store.patch_spec(key_of(deployment), patch)
    await s.run(30)


async def the_nodes_are_full_during_a_canary(s: ClusterSimulation) -> None:
    s.room = 4
    canary = {"stepWeights": [10, 50], "interval": "20s", "progressDeadlineSeconds": 60}
    await begin(s, canary=canary)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(120)


async def the_nodes_are_full_at_the_promotion(s: ClusterSimulation) -> None:
    s.room, s.start_s = 4, 5
    await begin(s, canary={"stepWeights": [10], "interval": "20s"})
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(120)


async def servers_that_never_start_say_why(s: ClusterSimulation) -> None:
    await begin(s, canary={"stepWeights": [10], "interval": "20s", "progressDeadlineSeconds": 60})
    champion = (await s.status())["champion"]["revision"]
    s.never_ready = lambda revision: revision != champion
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(120)
    message = (await s.condition())["message"]
    assert "not ready after 1m" in message
    assert "; it last said: ArtifactTampered: model.skops is not what was recorded" in message


async def more_servers_are_asked_for_during_a_canary(s: ClusterSimulation) -> None:
    s.start_s = 5
    await begin(s)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(60)
    await s.store.apply(spec(minReplicas=6))
    await s.run(120)


async def what_stands_beside_the_servers_is_deleted(s: ClusterSimulation) -> None:
    await begin(s, maxReplicas=5)
    for kind in ("Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"):
        await s.store.delete(Key(kind, "default", "bikes"))
    await s.run(10)


STORIES: dict[str, Callable[[ClusterSimulation], Awaitable[None]]] = {
    f.__name__: f
    for f in (
        first_commit,
        better_takes_over,
        breach_gives_all_servers_back,
        revert_serves_the_old_bytes,
        revert_during_a_canary,
        an_autoscaler_owns_the_replicas,
        a_gateway_splits_the_requests,
        a_breach_behind_a_gateway,
        the_route_gets_another_host_name,
        the_route_is_taken_out_and_comes_back,
        servers_get_other_resources_one_by_one,
        somebody_gives_the_servers_another_image,
        the_nodes_are_full_during_a_canary,
        the_nodes_are_full_at_the_promotion,
        servers_that_never_start_say_why,
        more_servers_are_asked_for_during_a_canary,
        what_stands_beside_the_servers_is_deleted,
        *JOB_STORIES,
    )
}


def tell(
    story: Callable[[ClusterSimulation], Awaitable[None]], **options: Any
) -> tuple[ClusterSimulation, dict[str, object]]:
    return stories.tell(story, ClusterSimulation(**options))


@pytest.mark.parametrize("name", STORIES)
def test_story_on_a_cluster_reads_as_in_its_golden_file(name: str, request: pytest.FixtureRequest) -> None:
    simulation, _ = tell(STORIES[name])
    assert simulation.unanswered == 0
    assert min(simulation.answering, default=3) >= 3, "fewer servers answered than the champion has"
    transcript = "\n".join(simulation.lines) + "\n"
    assert transcript == golden(GOLDEN / f"{name}.txt", transcript, request)


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
