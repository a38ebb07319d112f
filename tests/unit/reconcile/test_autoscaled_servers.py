"""Where an autoscaler decides how many servers there are, nobody else does: whatever else changes about them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from controller.api.meta import Key, Manifest, key_of
from controller.reconcile.reconciler import reconcile_model
from tests.support.cluster_simulation import ClusterSimulation
from tests.unit.stories.cluster_begin import begin, spec

MODEL = Key("ModelSpec", "default", "bikes")


class Meanwhile:
    """An object store in which the autoscaler adds a server just before each Deployment is written."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.wrote: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def apply(self, manifest: Manifest) -> Manifest:
        if manifest["kind"] == "Deployment" and not self.wrote:
            self.wrote.append(manifest["spec"]["replicas"])
            await self._inner.patch_spec(key_of(manifest), {"replicas": 7})
        written: Manifest = await self._inner.apply(manifest)
        return written


async def scaled(s: ClusterSimulation) -> None:
    """Bring the first model up, and let its autoscaler make six servers of three."""
    s.load = lambda _: 6
    await begin(s, maxReplicas=8)
    assert list((await s.sizes()).values()) == [6]


def test_a_number_that_changes_while_the_servers_are_written_is_not_written_back():
    async def story():
        s = ClusterSimulation()
        await scaled(s)
        kube = Meanwhile(s.world.kube)
        s.world = replace(s.world, kube=kube)
        await s.store.apply(spec(maxReplicas=8, resources={"requests": {"cpu": "2"}}))
        again = await reconcile_model(s.world, MODEL)
        between = list((await s.sizes()).values())
        ready = await s.condition()
        await reconcile_model(s.world, MODEL)
        (servers,) = await s.deployments()
        return again.after_s, between, ready["status"], servers

    again, between, ready, servers = asyncio.run(story())
    assert between == [7], "the autoscaler's word counts"
    assert (again, ready) == (0.0, "True"), "nothing is wrong, it is only looked at anew"
    assert servers["spec"]["replicas"] == 7
    container = servers["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["requests"]["cpu"] == "2", "what people changed is there in the end"


def test_other_limits_are_the_autoscalers_to_keep():
    async def story():
        s = ClusterSimulation()
        await scaled(s)
        written: list[str] = []

        async def told(verb: str, what: Any) -> None:
            if verb == "apply":
                written.append(what["kind"])

        s.after_write = told
        s.restart()
        s.load = lambda _: 7
        await s.store.apply(spec(minReplicas=7, maxReplicas=8))
        await s.settle()
        return written, list((await s.sizes()).values())

    written, sizes = asyncio.run(story())
    assert written == ["HorizontalPodAutoscaler"]
    assert sizes == [7]


def test_servers_that_a_person_has_taken_away_come_back_though_there_is_an_autoscaler():
    async def story():
        s = ClusterSimulation()
        await scaled(s)
        s.load = None
        (servers,) = await s.deployments()
        await s.store.patch_spec(key_of(servers), {"replicas": 0})
        await s.run(20)
        return list((await s.sizes()).values())

    assert asyncio.run(story()) == [3]
