"""Which implementations of the Kube port the contract suite runs on: the local store, and a real API server.

The tests call nothing but the port, each in a namespace of its own.
"""

from __future__ import annotations

import uuid

import pytest

from controller.clients.kube import KubeClient
from controller.local.store import Store
from tests.support.plain_server import fresh_namespace

IMPLEMENTATIONS = ("local", "server")


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    return request.param


@pytest.fixture
async def kube(implementation, request, tmp_path):
    if implementation == "local":
        store = Store.open(tmp_path / "state" / "objects.db")
        yield store
        store.close()
        return
    client = KubeClient.connect(request.getfixturevalue("control_plane").kubeconfig)
    yield client
    await client.aclose()


@pytest.fixture
def namespace(implementation, request):
    if implementation == "local":
        return f"contract-{uuid.uuid4().hex[:10]}"
    return fresh_namespace(request.getfixturevalue("control_plane"))
