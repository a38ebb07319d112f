"""Our CRDs and fresh namespaces on a real API server, past the client that is tested."""

from __future__ import annotations

import json
import ssl
import time
import uuid
from typing import Any

import httpx

from controller.api.crd import crd as crd_of
from controller.api.kinds import KINDS

DEADLINE_SECONDS = 60.0
APPLY = {"Content-Type": "application/apply-patch+yaml"}
OWNER = {"fieldManager": "tests", "force": "true"}


def http(control_plane: Any) -> httpx.Client:
    """Open a plain connection as an administrator."""
    return httpx.Client(
        base_url=control_plane.url,
        verify=ssl.create_default_context(cafile=str(control_plane.ca)),
        headers={"Authorization": f"Bearer {control_plane.token}"},
        timeout=30,
        trust_env=False,
    )


def install(control_plane: Any) -> None:
    """Apply the CRDs and wait until the server serves them; may be called again."""
    with http(control_plane) as client:
        where = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for kind in KINDS:
            crd = crd_of(kind)
            answer = client.patch(
                f"{where}/{crd['metadata']['name']}", content=json.dumps(crd), headers=APPLY, params=OWNER
            )
            assert answer.is_success, answer.text
            path = f"/apis/{crd['spec']['group']}/v1alpha1/{crd['spec']['names']['plural']}"
            deadline = time.monotonic() + DEADLINE_SECONDS
            while client.get(path).status_code != 200:
                assert time.monotonic() < deadline, f"{path} is not served"


def fresh_namespace(control_plane: Any) -> str:
    """Make a namespace and return its name."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    with http(control_plane) as client:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        client.post("/api/v1/namespaces", json=body).raise_for_status()
    return name
