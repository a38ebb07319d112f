"""A model at rest on a cluster costs the API server nothing: no write, and no read either."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.api.meta import Key, key_of
from controller.reconcile.cache import KINDS, Cache, CachedKube, resync
from controller.reconcile.controller import owners
from controller.reconcile.reconciler import RECONCILERS
from tests.support.cluster_simulation import ClusterSimulation
from tests.unit.stories.cluster_begin import GATEWAY, begin

pytestmark = pytest.mark.anyio


class Told:
    """An API server that tells what it is asked for."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.asked.append(f"{name} {args[0]}")
            return await found(*args, **kwargs)

        return call


async def watched(s: ClusterSimulation) -> Told:
    """Let the controller read through the watch's cache, as the operator does."""
    told = Told(s.store)
    live: Any = told
    cache = Cache()
    for kind in KINDS:
        await resync(s.store, cache, kind, None)
    kube = CachedKube(live, cache, namespaces=None)
    kube.synced = True
    s.world = replace(s.world, kube=kube)
    return told


@pytest.mark.parametrize(
    "serving",
    [
        pytest.param({}, id="whole servers split the requests"),
        pytest.param({"route": GATEWAY}, id="a Gateway splits the requests"),
        pytest.param({"maxReplicas": 8}, id="an autoscaler owns the replicas"),
    ],
)
async def test_a_look_at_a_model_at_rest_asks_the_api_server_nothing(serving: dict[str, Any]) -> None:
    s = ClusterSimulation()
    await begin(s, **serving)
    ready = await s.condition()
    assert ready["status"] == "True", ready["message"]
    told = await watched(s)
    looked = [key_of(m) for kind in RECONCILERS for m in await s.store.list(kind)]
    assert {k.kind for k in looked} == {"ModelSpec", "ModelRevision"}
    for _ in range(3):
        for key in looked:
            await RECONCILERS[key.kind](s.world, key)
        s.clock.advance(60)
    assert told.asked == []


async def test_every_object_that_is_made_is_watched_and_wakes_its_model() -> None:
    s = ClusterSimulation()
    await begin(s, maxReplicas=8, route=GATEWAY)
    cache = Cache()
    for kind in KINDS:
        await resync(s.store, cache, kind, None)
    made = ("Job", "Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "HTTPRoute", "Pod")
    for kind in made:
        found = await s.store.list(kind)
        assert found, f"the story makes no {kind}"
        for manifest in found:
            assert cache.get(key_of(manifest)) is not None, f"{key_of(manifest)} carries no label that is watched"
            woken = {key.kind for key in owners(manifest)}
            assert woken & {"ModelSpec", "ModelRevision"}, f"nobody is woken by {key_of(manifest)}"


async def test_what_is_deleted_beside_the_servers_comes_back_by_the_event_alone() -> None:
    s = ClusterSimulation()
    await begin(s, maxReplicas=8)
    await watched(s)
    for kind in ("Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"):
        key = Key(kind, "default", "bikes")
        gone = await s.store.get(key)
        assert gone is not None
        await s.store.delete(key)
        cached: Any = s.world.kube
        cached.cache.remove(gone)
        for owner in owners(gone):
            await RECONCILERS[owner.kind](s.world, owner)
        assert await s.store.get(key) is not None, f"{key} was not made again"
