"""Where objects live on an API server, and how a manifest is made fit to be sent there.

A table of paths instead of discovery: the kinds are known, so that no request is spent on asking.  Nothing here
talks to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import quote

from controller.api.kinds import KINDS
from controller.api.meta import API_VERSION, API_VERSIONS, Key, Manifest
from controller.clients.errors import Denied


@dataclass(frozen=True, slots=True)
class Resource:
    """One namespaced kind and where it is served."""

    kind: str
    api_version: str
    plural: str

    @property
    def group(self) -> str:
        """The API group, empty for the core."""
        return self.api_version.rpartition("/")[0]

    @property
    def spoken(self) -> str:
        """Name of the resource as RBAC and kubectl write it: `jobs.batch`, `pods`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None, sub: str = "") -> str:
        """Build the path of an object, of all in a namespace, or of all."""
        parts = ["/apis" if self.group else "/api", self.api_version]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        return "/".join([*parts, sub] if sub else parts)


def _plural(kind: str) -> str:
    """Write a kind of Kubernetes as its paths do: `networkpolicies`, `jobs`."""
    word = kind.lower()
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


RESOURCES: Final[dict[str, Resource]] = {
    **{
        kind: Resource(kind, version, KINDS[kind].plural if kind in KINDS else _plural(kind))
        for kind, version in API_VERSIONS.items()
    },
    "Secret": Resource("Secret", "v1", "secrets"),
    "Lease": Resource("Lease", "coordination.k8s.io/v1", "leases"),
}
"""Every kind that the controller or the command line reads or writes."""

_WRITABLE: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
)
"""The metadata that a writer says; the two that it only compares with are among them."""

OWN: Final = frozenset(kind for kind, version in API_VERSIONS.items() if version == API_VERSION)
OPTIONAL: Final = frozenset({"HTTPRoute"})
"""Kinds that a cluster need not have: where they are not installed, there is no object of them."""


def resource_of(kind: str) -> Resource:
    """Find where a kind is served.

    Raises:
        Denied: reason Invalid; it is none of ours.
    """
    found = RESOURCES.get(kind)
    if found is None:
        raise Denied(
            f"{kind} is invalid: kind: unknown; known are {', '.join(sorted(RESOURCES))}", reason="Invalid"
        )
    return found


def sendable(manifest: Mapping[str, Any]) -> tuple[Key, Manifest]:
    """Copy a manifest as it is sent: nulls, status and the server's own metadata dropped, the namespace filled in.

    Raises:
        Denied: reason Invalid; it is not a JSON object of a known kind with a name.
    """
    copy = plain(manifest, "")
    copy.pop("status", None)
    kind, version, meta = str(copy.get("kind")), copy.get("apiVersion"), copy.get("metadata")
    wanted = resource_of(kind).api_version
    if version != wanted:
        raise Denied(f"{kind} is invalid: apiVersion: is {version!r}, expected {wanted}", reason="Invalid")
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str) or not meta["name"]:
        raise Denied(f"{kind} is invalid: metadata.name: a name is required", reason="Invalid")
    meta.setdefault("namespace", "default")
    if not isinstance(meta["namespace"], str) or not meta["namespace"]:
        raise Denied(f"{kind} is invalid: metadata.namespace: must be a name", reason="Invalid")
    copy["metadata"] = {name: meta[name] for name in _WRITABLE if name in meta}
    return Key(kind, meta["namespace"], meta["name"]), copy


def received(item: Manifest, resource: Resource) -> Manifest:
    """Complete an object of an answer: items of lists carry no kind; who wrote which field is left out."""
    item.setdefault("apiVersion", resource.api_version)
    item.setdefault("kind", resource.kind)
    item["metadata"].pop("managedFields", None)
    return item


def plain(value: Mapping[str, Any], field: str) -> Manifest:
    """Copy a part of a manifest, nulls dropped.

    Raises:
        Denied: reason Invalid; it is not JSON.
    """
    return cast(Manifest, _plain(value, field))


def _plain(value: Any, field: str) -> Any:
    if isinstance(value, Mapping):
        prefix = f"{field}." if field else ""
        for name in value:
            if not isinstance(name, str):
                raise Denied(
                    f"manifest is invalid: {field or 'manifest'}: the key {name!r} is not a string",
                    reason="Invalid",
                )
        return {name: _plain(item, f"{prefix}{name}") for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{field}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and value - value != 0.0:
        raise Denied(f"manifest is invalid: {field}: {value} is not a finite number", reason="Invalid")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    what = type(value).__name__
    raise Denied(
        f"manifest is invalid: {field}: {what} is not JSON; quote it to make it a string", reason="Invalid"
    )
