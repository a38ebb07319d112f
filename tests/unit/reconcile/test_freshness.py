"""An operator whose lists are old does nothing because of what is past, above all nothing that stands for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from controller.api.meta import Key, Manifest, key_of
from controller.clients.errors import Unavailable
from controller.reconcile.cache import KINDS, Cache, CachedKube
from controller.reconcile.reconciler import reconcile_model, reconcile_revision
from tests.support.simulation import Simulation
from tests.support.stories import FIRST, spec

MODEL = Key("ModelSpec", "default", "bikes")


@dataclass
class Told:
    """A story that has come to a revert, and an operator that was started on what was listed before it."""

    s: Simulation
    cache: Cache
    better: str
    """Revision that served when the list was made, and serves no more."""


async def ledger(s: Simulation) -> list[tuple[str, str]]:
    """Read what was recorded: kind and revision of each entry."""
    s.world.ledger.forget()
    found: Any = await s.world.ledger.read("bikes", "default")
    return [(entry.kind, entry.revision) for entry in found.entries]


def begin_on(s: Simulation, lists: Mapping[str, Sequence[Manifest]]) -> Cache:
    """Start the operator anew on these lists; returns its cache."""
    cache = Cache()
    for found in lists.values():
        for manifest in found:
            cache.put(manifest)
    s.restart()
    kube = CachedKube(s.world.kube, cache, namespaces=None)
    kube.synced = True
    s.world = replace(s.world, kube=kube)
    return cache


async def told(past_of: tuple[str, ...] = KINDS) -> Told:
    """Tell the story: a better commit takes over, then a person asks for the commit before it."""
    s = Simulation()
    first = s.git.commit("Predict bikes", FIRST)
    await s.store.apply(spec())
    await s.run(60)
    s.git.commit("More trees", {"quality": b"50"})
    await s.run(240)
    better = (await s.model())["status"]["champion"]["revision"]
    past = {kind: await s.store.list(kind) for kind in past_of}
    manifest = spec()
    manifest["spec"]["source"]["ref"] = {"commit": first}
    await s.store.apply(manifest)
    await s.run(60)
    assert (await s.model())["status"]["champion"]["revision"] != better
    others = {kind: await s.store.list(kind) for kind in KINDS}
    return Told(s, begin_on(s, {**others, **past}), better)


@pytest.mark.parametrize(
    "past_of",
    [
        pytest.param(KINDS, id="all lists are old"),
        pytest.param(("ModelSpec",), id="the list of ModelSpecs is old"),
        pytest.param(("ModelRevision", "Deployment"), id="the lists of revisions and servers are old"),
    ],
)
def test_what_an_old_list_asks_for_is_never_promoted(past_of):
    async def story():
        t = await told(past_of)
        before = await ledger(t.s)
        for _ in range(8):
            await reconcile_model(t.s.world, MODEL)
        return before, await ledger(t.s), await t.s.model(), t.better

    before, after, model, better = asyncio.run(story())
    assert after == before
    assert after.count(("Promoted", better)) == 1
    assert model["status"]["champion"]["revision"] != better


def test_an_outdated_plan_does_nothing_and_the_next_one_is_of_the_present(caplog):
    caplog.set_level(logging.INFO, "controller.reconcile.freshness")

    async def story():
        t = await told()
        written = t.s.writes[0]
        again = await reconcile_model(t.s.world, MODEL)
        assert t.s.writes[0] == written
        assert t.cache.get(MODEL) == await t.s.store.get(MODEL)
        return again

    assert asyncio.run(story()).after_s == 0.0
    assert "ModelSpec/default/bikes has changed since it was read" in caplog.text
    assert "nothing is done, it is looked at anew" in caplog.text


def test_nothing_is_done_while_nobody_can_say_whether_a_plan_is_of_the_present():
    class Away:
        """An API server that answers no read of a single object."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        async def get(self, key: Key) -> Any:
            raise Unavailable(f"{key} was not answered")

    async def story():
        t = await told()
        kube: Any = t.s.world.kube
        kube.live = Away(kube.live)
        before, written = await ledger(t.s), t.s.writes[0]
        with pytest.raises(Unavailable):
            await reconcile_model(t.s.world, MODEL)
        return before == await ledger(t.s) and written == t.s.writes[0]

    assert asyncio.run(story())


def test_a_revision_that_only_the_past_asks_for_is_not_trained():
    async def story():
        s = Simulation()
        first = s.git.commit("Predict bikes", FIRST)
        await s.store.apply(spec())
        await s.run(60)
        s.git.commit("More trees", {"quality": b"50"})
        await reconcile_model(s.world, MODEL)
        past = {kind: await s.store.list(kind) for kind in KINDS}
        wanted = (await s.model())["status"]["challenger"]["revision"]
        manifest = spec()
        manifest["spec"]["source"]["ref"] = {"commit": first}
        await s.store.apply(manifest)
        await s.run(60)
        begin_on(s, past)
        for _ in range(4):
            await reconcile_revision(s.world, Key("ModelRevision", "default", wanted))
        return [j["metadata"]["name"] for j in await s.store.list("Job")], wanted

    jobs, wanted = asyncio.run(story())
    assert len(jobs) == 1
    assert not jobs[0].startswith(wanted)


def test_a_status_of_the_past_takes_nothing_back_that_was_measured_since():
    async def story():
        s = Simulation()
        s.git.commit("Predict bikes", FIRST)
        await s.store.apply(spec())
        await reconcile_model(s.world, MODEL)
        asked = await s.store.list("ModelRevision")
        await s.settle()
        training = {kind: await s.store.list(kind) for kind in KINDS} | {"ModelRevision": asked}
        await s.run(60)
        before = (await s.store.list("ModelRevision"))[0]
        cache = begin_on(s, training)
        key = key_of(before)
        again = await reconcile_revision(s.world, key)
        assert cache.get(key) == before, "the operator knows the present now"
        return before, await s.store.get(key), again.after_s

    before, after, again = asyncio.run(story())
    assert before["status"]["evidence"]
    assert after == before
    assert again == 0.0


def test_an_object_that_is_gone_is_forgotten():
    async def story():
        t = await told()
        await t.s.store.delete(MODEL)
        written = t.s.writes[0]
        await reconcile_model(t.s.world, MODEL)
        again = await reconcile_model(t.s.world, MODEL)
        return again.after_s, t.cache.get(MODEL), t.s.writes[0] - written

    assert asyncio.run(story()) == (None, None, 0)
