"""Names that every room shares: the API group, object keys, labels and annotations.

A Kubernetes object that is not one of our own kinds is a `Manifest`: a plain dict, as the API server sends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NewType

GROUP = "mainspring.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "mainspring"
"""One field manager for everything the controller owns."""

LABEL_MODEL = f"{GROUP}/model"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_REPOSITORY = f"{GROUP}/repository"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_USABLE_BY = f"{GROUP}/usable-by"
"""On Secrets: name of the one object of ours that may use it, or `Any`. (`*` is no label value.)"""
LABEL_JOB_NAME = "batch.kubernetes.io/job-name"

ANNOTATION_SOURCE_COMMIT = f"{GROUP}/source-commit"
"""On objects that a ModelRepository applied: the commit that the file came from."""
ANNOTATION_SOURCE_FILE = f"{GROUP}/source-file"
ANNOTATION_REQUESTED_AT = f"{GROUP}/requested-at"
"""Any new value asks for a look at once (`mainspring reconcile`)."""
ANNOTATION_PRUNE = f"{GROUP}/prune"
"""`disabled` keeps a ModelRepository from ever deleting the object."""
ANNOTATION_DIGEST = f"{GROUP}/digest"
"""On Deployments: digest of the model artifact that its servers must load."""
ANNOTATION_COMMIT = f"{GROUP}/commit"

Manifest = dict[str, Any]
Digest = NewType("Digest", str)
"""Content digest with its recipe or algorithm in front: `v1:<64 hex>` or `sha256:<64 hex>`."""
Commit = NewType("Commit", str)
"""A full Git object name: 40 or 64 lower-case hex digits."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which object: kind, namespace and name. Short enough to be a queue key."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Write the key as people type it, `ModelSpec/default/bikes`."""
        return f"{self.kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change of one object; `object` is its newest (for Deleted: its last) form."""

    type: Literal["Added", "Modified", "Deleted"]
    object: Manifest


API_VERSIONS: dict[str, str] = {
    "ModelSpec": API_VERSION,
    "ModelRevision": API_VERSION,
    "ModelRepository": API_VERSION,
    "ModelOverride": API_VERSION,
    "Job": "batch/v1",
    "Deployment": "apps/v1",
    "Service": "v1",
    "ConfigMap": "v1",
    "Pod": "v1",
    "Event": "v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1",
    "HorizontalPodAutoscaler": "autoscaling/v2",
}
"""Every kind that the controller reads or writes, and the API version it uses for it."""


def key_of(manifest: Manifest) -> Key:
    """Read the key of an object."""
    meta = manifest["metadata"]
    return Key(manifest["kind"], meta.get("namespace", "default"), meta["name"])


def owner_reference(owner: Manifest) -> Manifest:
    """Build the owner reference that makes `owner` the controller of another object."""
    meta = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }
