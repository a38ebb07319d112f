"""A thousand models are held once: lists give back what is known, and what a reconcile changes stays its own."""

from __future__ import annotations

import json

import httpx
import pytest

from controller.api.meta import API_VERSION, Key
from controller.clients.kube import KubeClient
from controller.clients.kube_login import Login
from controller.clients.kube_rest import KubeRest
from controller.reconcile.cache import OURS, Cache, CachedKube, copied, resync

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


def model(version: int, name: str = "bikes") -> dict:
    meta = {"name": name, "namespace": "ml", "uid": name, "resourceVersion": str(version)}
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelSpec",
        "metadata": meta,
        "spec": {"gates": [{"max": version}]},
    }


@pytest.fixture
def server(tmp_path):
    """A server whose lists bring `listed`."""
    listed: list[dict] = []
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "ml"}}
    users = [{"name": "u", "user": {}}]
    file = tmp_path / "kubeconfig"
    file.write_text(
        json.dumps({"clusters": [cluster], "contexts": [context], "users": users, "current-context": "c"})
    )

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"metadata": {"resourceVersion": "9"}, "items": listed})

    cache = Cache()
    rest = KubeRest(Login(file), transport=httpx.MockTransport(answer))
    return KubeClient(rest, known=cache.same), cache, listed


async def test_a_list_of_what_is_known_is_not_held_a_second_time(server):
    live, cache, listed = server
    listed += [model(3), model(4, "trees")]
    await resync(live, cache, "ModelSpec", ["ml"])
    first = cache.get(Key("ModelSpec", "ml", "bikes"))
    found = await live.list("ModelSpec", namespace="ml")
    assert found[0] is first
    assert await resync(live, cache, "ModelSpec", ["ml"]) == []


async def test_a_list_that_brings_something_newer_is_taken_in(server):
    live, cache, listed = server
    listed.append(model(3))
    await resync(live, cache, "ModelSpec", ["ml"])
    listed[0] = model(5)
    changed = await resync(live, cache, "ModelSpec", ["ml"])
    assert [item["spec"] for item in changed] == [{"gates": [{"max": 5}]}]


async def test_what_a_reconcile_does_to_an_object_does_not_reach_the_cache(server):
    live, cache, _ = server
    cache.put(model(3))
    kube = CachedKube(live, cache, namespaces=["ml"])
    kube.synced = True
    (read,) = await kube.list(OURS[0], namespace="ml")
    read["spec"]["gates"][0]["max"] = 0
    kept = await kube.get(Key("ModelSpec", "ml", "bikes"))
    assert kept is not None
    assert kept["spec"]["gates"] == [{"max": 3}]


def test_a_copy_is_equal_and_shares_nothing_that_can_change():
    value = {"a": [{"b": None, "c": [1, 2.5, True, "x"]}], "d": {}}
    copy = copied(value)
    assert copy == value
    copy["a"][0]["c"].append(3)
    copy["d"]["e"] = 1
    assert value == {"a": [{"b": None, "c": [1, 2.5, True, "x"]}], "d": {}}
