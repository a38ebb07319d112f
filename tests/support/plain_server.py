"""Plain requests to, and fresh namespaces on, a real API server, past the client that is tested."""

from __future__ import annotations

import ssl
import uuid
from typing import Any

import httpx


def http(control_plane: Any) -> httpx.Client:
    """Open a plain connection as an administrator."""
    return httpx.Client(
        base_url=control_plane.url,
        verify=ssl.create_default_context(cafile=str(control_plane.ca)),
        headers={"Authorization": f"Bearer {control_plane.token}"},
        timeout=30,
        trust_env=False,
    )


def fresh_namespace(control_plane: Any) -> str:
    """Make a namespace and return its name."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    with http(control_plane) as client:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        client.post("/api/v1/namespaces", json=body).raise_for_status()
    return name
