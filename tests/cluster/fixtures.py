"""Fixtures of tests that want a real Kubernetes; a test that asks for none of them builds and starts nothing.

`control_plane` and `node` are started once per test run and stopped at its end, also when tests fail.  This module
is loaded with every test run, so it imports what the fixtures need only inside of them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cluster.control_plane import ControlPlane
    from tests.cluster.node import Node


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with controllers, an audit log, our kinds and the Gateway API's; no pod ever runs there."""
    from tests.cluster.control_plane import ControlPlane
    from tests.cluster.definitions import apply_definitions

    plane = ControlPlane.start(tmp_path_factory.mktemp("control-plane"), audit=True)
    try:
        apply_definitions(plane)
        yield plane
    finally:
        plane.stop()


@pytest.fixture
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """The name of a fresh namespace of `control_plane` that has its service account; deleted afterwards."""
    from tests.cluster.namespaces import made, unmade

    name = f"test-{secrets.token_hex(4)}"
    made(control_plane, name)
    yield name
    unmade(control_plane, name)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A cluster with a node that runs pods, with the Gateway API's kinds; the chart brings ours.  Needs root."""
    from tests.cluster.definitions import apply_gateway_api
    from tests.cluster.node import Node

    running = Node.start(tmp_path_factory.mktemp("node"), audit=True)
    try:
        apply_gateway_api(running.plane)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def images(node: Node) -> dict[str, str]:
    """The names of our images by target (operator, jobs, server) and of their `base`; `node` has them all."""
    from tests.cluster.images import imported

    return imported(node)


@pytest.fixture
def restricted(node: Node) -> Iterator[str]:
    """A fresh namespace of `node` that takes only pods of the restricted standard; deleted afterwards."""
    from tests.cluster.namespaces import made, unmade

    name = f"test-{secrets.token_hex(4)}"
    made(node.plane, name, {"pod-security.kubernetes.io/enforce": "restricted"})
    yield name
    unmade(node.plane, name)
