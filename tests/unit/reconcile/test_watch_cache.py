"""The watch cache: the newest form wins, writes are read back, what a watch missed is found by a list."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.api.meta import FIELD_MANAGER, LABEL_MANAGED_BY, LABEL_MODEL, Key
from controller.reconcile.cache import KINDS, Cache, CachedKube, resync


def thing(name, version, *, kind="ModelSpec", namespace="a", labels=None, **more):
    meta = {"name": name, "namespace": namespace, "resourceVersion": str(version), "managedFields": [1]}
    return {"kind": kind, "metadata": {**meta, **({"labels": labels} if labels else {})}, **more}


class Live:
    """An API server that counts its reads."""

    def __init__(self, *objects):
        self.objects = list(objects)
        self.reads = 0

    async def get(self, key):
        self.reads += 1
        return next((o for o in self.objects if o["metadata"]["name"] == key.name), None)

    async def list(self, kind, *, namespace=None, labels=None):
        self.reads += 1
        found = [o for o in self.objects if o["kind"] == kind]
        return tuple(o for o in found if namespace in (None, o["metadata"]["namespace"]))

    async def annotate(self, key, annotations):
        return thing(key.name, 9, kind=key.kind, namespace=key.namespace, labels={LABEL_MODEL: "m"})

    async def patch_status(self, key, status, *, uid, version=""):
        return thing(key.name, 7, status=status)


def server(live: Live) -> Any:
    """Hand over a part of the port for the whole."""
    return live


def test_an_older_form_never_replaces_a_newer_one_and_managed_fields_are_dropped():
    cache = Cache()
    assert cache.put(thing("x", 10, spec=2))
    assert not cache.put(thing("x", 9, spec=1))
    assert not cache.put(thing("x", 10, spec=2))
    found = cache.get(Key("ModelSpec", "a", "x"))
    assert found is not None
    assert found["spec"] == 2
    assert "managedFields" not in found["metadata"]


def test_what_was_deleted_is_not_brought_back_by_an_older_event():
    cache = Cache()
    cache.put(thing("x", 5))
    assert cache.remove(thing("x", 6))
    assert not cache.put(thing("x", 5))
    assert cache.put(thing("x", 8))


def test_objects_are_found_by_label_and_only_by_their_present_labels():
    cache = Cache()
    cache.put(thing("x", 1, kind="Job", labels={LABEL_MODEL: "bikes"}))
    cache.put(thing("y", 2, kind="Job", labels={LABEL_MODEL: "cars"}))
    cache.put(thing("x", 3, kind="Job", labels={LABEL_MODEL: "cars"}))
    assert cache.select("Job", "a", {LABEL_MODEL: "bikes"}) == ()
    assert [o["metadata"]["name"] for o in cache.select("Job", "a", {LABEL_MODEL: "cars"})] == ["x", "y"]
    assert cache.select("Job", "b", {LABEL_MODEL: "cars"}) == ()


def test_a_list_forgets_what_is_gone_and_adds_what_is_unknown():
    cache = Cache()
    for version, name in enumerate(["gone", "stays"], 1):
        cache.put(thing(name, version))
    cache.put(thing("elsewhere", 3, namespace="b"))
    live = Live(thing("stays", 2), thing("new", 4))
    changed = asyncio.run(resync(server(live), cache, "ModelSpec", ["a"]))
    assert sorted(o["metadata"]["name"] for o in changed) == ["gone", "new"]
    assert {k.name for k in cache.keys("ModelSpec")} == {"stays", "new", "elsewhere"}


def test_what_came_through_the_watch_while_a_list_was_read_is_kept():
    cache = Cache()
    cache.put(thing("changed", 1))

    class Slow(Live):
        async def list(self, kind, *, namespace=None, labels=None):
            cache.put(thing("made-meanwhile", 9))
            cache.put(thing("changed", 10))
            cache.remove(thing("listed-and-deleted", 11))
            return (thing("listed-and-deleted", 5),)

    asyncio.run(resync(server(Slow()), cache, "ModelSpec", None))
    assert {k.name for k in cache.keys("ModelSpec")} == {"made-meanwhile", "changed"}


@pytest.mark.parametrize(
    ("synced", "kind", "namespace", "reads"),
    [
        pytest.param(True, "ModelSpec", "a", 0, id="a watched kind in a watched namespace costs no request"),
        pytest.param(False, "ModelSpec", "a", 1, id="before the first list all is read from the server"),
        pytest.param(True, "Service", "a", 0, id="what stands beside the servers costs no request either"),
        pytest.param(True, "ConfigMap", "a", 1, id="what is not watched is read from the server"),
        pytest.param(True, "ModelSpec", "b", 1, id="a namespace that is not watched is read from the server"),
    ],
)
def test_where_a_read_is_answered_from(synced, kind, namespace, reads):
    live = Live()
    kube = CachedKube(server(live), Cache(), namespaces=["a"])
    kube.synced = synced
    asyncio.run(kube.get(Key(kind, namespace, "x")))
    assert live.reads == reads


def test_a_write_is_read_back_at_once_and_a_reader_cannot_change_the_cache():
    cache = Cache()
    cache.put(thing("x", 1))
    kube = CachedKube(server(Live()), cache, namespaces=None)
    kube.synced = True

    async def story():
        key = Key("ModelSpec", "a", "x")
        await kube.patch_status(key, {"observedGeneration": 4}, uid="u")
        first = await kube.get(key)
        assert first is not None
        first["status"]["observedGeneration"] = 99
        return await kube.get(key)

    found: Any = asyncio.run(story())
    assert found["status"] == {"observedGeneration": 4}


def test_an_answer_that_the_watch_would_not_show_is_not_kept():
    cache = Cache()
    kube = CachedKube(server(Live()), cache, namespaces=None)
    asyncio.run(kube.annotate(Key("Job", "a", "unlabelled"), {}))
    assert not cache.keys("Job")
    assert LABEL_MANAGED_BY == "app.kubernetes.io/managed-by"
    assert FIELD_MANAGER == "mainspring"
    assert "Pod" in KINDS


def test_a_write_that_changed_something_is_told_since_its_echo_brings_nothing_new():
    told = []
    kube = CachedKube(server(Live()), Cache(), namespaces=None)
    kube.wrote = lambda manifest: told.append(manifest["metadata"]["resourceVersion"])

    async def story():
        key = Key("ModelSpec", "a", "x")
        await kube.patch_status(key, {}, uid="u")
        await kube.patch_status(key, {}, uid="u")
        await kube.annotate(key, {})

    asyncio.run(story())
    assert told == ["7", "9"]
    assert not kube.cache.put(thing("x", 9))
