"""Namespaces of tests: made with their service account, deleted without waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import wait_until


def made(plane: ControlPlane, name: str, labels: Mapping[str, str] | None = None) -> None:
    """Make a namespace and wait until pods may be made in it (its service account and root certificate exist)."""
    metadata = {"name": name, "labels": dict(labels or {})}
    plane.request("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def settled() -> bool:
        return _names(plane, name, "serviceaccounts") >= {"default"} and _names(plane, name, "configmaps") >= {
            "kube-root-ca.crt"
        }

    wait_until(settled, f"waiting for the service account of namespace {name}", 60)


def bind(plane: ControlPlane, namespace: str, person: str, role: str) -> None:
    """Give a person a ClusterRole in one namespace."""
    group = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": person},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": person}],
    }
    plane.apply(binding, f"/apis/{group}/v1/namespaces/{namespace}/rolebindings")


def unmade(plane: ControlPlane, name: str) -> None:
    """Ask for the namespace's end; the controllers go on with it while other tests run."""
    plane.request("DELETE", f"/api/v1/namespaces/{name}")


def _names(plane: ControlPlane, namespace: str, plural: str) -> set[str]:
    found: dict[str, Any] = plane.request("GET", f"/api/v1/namespaces/{namespace}/{plural}")
    return {item["metadata"]["name"] for item in found["items"]}
