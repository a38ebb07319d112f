"""Which implementations of the Kube port the contract suite runs on.

A real API server becomes a second name in `IMPLEMENTATIONS` with a branch in `kube`.  It needs our CRDs, the
kube-controller-manager (for cascade deletion), and a `namespace` fixture that makes the namespace it returns.
The tests stay as they are: they call nothing but the port, each in a namespace of its own.
"""

from __future__ import annotations

import uuid

import pytest

from controller.local.store import Store

IMPLEMENTATIONS = ("local",)


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(params=IMPLEMENTATIONS)
def kube(request, tmp_path):
    store = Store.open(tmp_path / "state" / "objects.db")
    yield store
    store.close()


@pytest.fixture
def namespace():
    return f"contract-{uuid.uuid4().hex[:10]}"
