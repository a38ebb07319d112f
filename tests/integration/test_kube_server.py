"""The client on a real API server that goes away and comes back, and with more objects than one page."""

from __future__ import annotations

import asyncio

import pytest

from controller.api.meta import Key, key_of
from controller.clients.errors import Unavailable
from controller.clients.kube import KubeClient
from controller.clients.kube_login import Login
from controller.clients.kube_rest import KubeRest
from controller.clients.kube_watch import PAGE
from tests.support.plain_server import fresh_namespace

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 60


@pytest.fixture
def anyio_backend():
    return "asyncio"


def config(namespace, name, level="1"):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"level": level},
    }


async def seen(events, namespace, type_, name):
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for event in events:
            meta = event.object["metadata"]
            if (event.type, meta["namespace"], meta["name"]) == (type_, namespace, name):
                return event.object
    raise AssertionError("the watch ended")


@pytest.fixture(scope="module")
def own_plane(tmp_path_factory):
    """A control plane that nobody else uses: its API server is stopped here."""
    from tests.cluster.control_plane import ControlPlane

    plane = ControlPlane.start(tmp_path_factory.mktemp("away"), controllers=False)
    yield plane
    plane.stop()


async def test_a_server_that_goes_away_and_comes_back(own_plane):
    namespace = fresh_namespace(own_plane)
    kube = KubeClient(KubeRest(Login(own_plane.kubeconfig)), backoff_s=(0.2,))
    made = await kube.create(config(namespace, "first"))
    events = kube.watch(["ConfigMap"])
    await seen(events, namespace, "Added", "first")
    await asyncio.to_thread(own_plane.stop_api)
    with pytest.raises(Unavailable, match="no connection to https://"):
        await kube.get(key_of(made))
    with pytest.raises(Unavailable):
        await kube.apply(config(namespace, "first", "2"))
    await asyncio.to_thread(own_plane.start_api)
    # Nothing is told twice, and nothing that happens now is missed.
    changed = await kube.apply(config(namespace, "first", "3"))
    assert await seen(events, namespace, "Modified", "first") == changed
    await kube.delete(key_of(made))
    assert (await seen(events, namespace, "Deleted", "first"))["metadata"]["uid"] == made["metadata"]["uid"]
    await kube.aclose()


async def test_a_list_of_several_pages_is_whole_and_in_order(own_plane):
    namespace = fresh_namespace(own_plane)
    kube = KubeClient.connect(own_plane.kubeconfig)
    wanted = [f"n{number:04}" for number in range(PAGE + 20)]
    await asyncio.gather(*(kube.create(config(namespace, name)) for name in reversed(wanted)))
    found = await kube.list("ConfigMap", namespace=namespace)
    assert [item["metadata"]["name"] for item in found if item["metadata"]["name"].startswith("n0")] == wanted
    assert await kube.get(Key("ConfigMap", namespace, "none")) is None
    await kube.aclose()
