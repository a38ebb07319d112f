"""The object store as `mainspring plan` sees it: what is stored, what a file would make of it, and no writes.

The decisions are made by the code that acts; only the store under it is this one, which refuses every write.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, NoReturn

from controller.api.meta import Key, Manifest, key_of
from controller.clients.errors import Denied
from controller.reconcile.kube import Kube, WatchEvent


class ReadOnlyKube:
    """A `Kube` that lays objects over stored ones and refuses to write."""

    def __init__(self, inner: Kube) -> None:
        self._inner = inner
        self._laid: dict[Key, Manifest] = {}

    def lay(self, manifest: Manifest) -> None:
        """Let an object be seen as if it were stored so."""
        self._laid[key_of(manifest)] = manifest

    async def get(self, key: Key) -> Manifest | None:
        """Read one object, the laid one first."""
        return self._laid[key] if key in self._laid else await self._inner.get(key)

    async def refresh(self, key: Key) -> Manifest | None:
        """Read one object, the laid one first."""
        return self._laid[key] if key in self._laid else await self._inner.refresh(key)

    async def list(
        self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Manifest, ...]:
        """Read all objects of a kind, laid ones in place of stored ones."""
        stored = await self._inner.list(kind, namespace=namespace, labels=labels)
        found = {key_of(m): m for m in stored if key_of(m) not in self._laid}
        wanted = (labels or {}).items()
        for key, manifest in self._laid.items():
            given = manifest["metadata"].get("labels", {}).items()
            if key.kind == kind and namespace in (None, key.namespace) and wanted <= given:
                found[key] = manifest
        return tuple(found[key] for key in sorted(found))

    async def apply(self, manifest: Manifest) -> Manifest:
        """Refuse."""
        self._refuse(key_of(manifest))

    async def create(self, manifest: Manifest) -> Manifest:
        """Refuse."""
        self._refuse(key_of(manifest))

    async def patch_status(
        self,
        key: Key,
        status: Manifest,  # noqa: ARG002
        *,
        uid: str,  # noqa: ARG002
        version: str = "",  # noqa: ARG002
    ) -> Manifest:
        """Refuse."""
        self._refuse(key)

    async def annotate(self, key: Key, annotations: Mapping[str, str | None]) -> Manifest:  # noqa: ARG002
        """Refuse."""
        self._refuse(key)

    async def patch_spec(self, key: Key, patch: Manifest) -> Manifest:  # noqa: ARG002
        """Refuse."""
        self._refuse(key)

    async def delete(self, key: Key, *, uid: str | None = None) -> None:  # noqa: ARG002
        """Refuse."""
        self._refuse(key)

    def watch(self, kinds: Collection[str]) -> AsyncIterator[WatchEvent]:
        """Watch what is stored."""
        return self._inner.watch(kinds)

    @staticmethod
    def _refuse(key: Key) -> NoReturn:
        raise Denied(f"a plan changes nothing, and was about to write {key}", reason="ReadOnly")


def laid_over(stored: Manifest | None, given: Manifest, *, now: str) -> Manifest:
    """Build the object that applying `given` would leave: its spec, the stored identity and status."""
    meta: dict[str, Any] = given["metadata"]
    if stored is None:
        made = {"uid": "not-created-yet", "generation": 1, "resourceVersion": "0", "creationTimestamp": now}
        return {**given, "metadata": {"namespace": "default", **meta, **made}}
    kept = stored["metadata"]
    merged = {name: {**kept.get(name, {}), **meta.get(name, {})} for name in ("labels", "annotations")}
    status = {"status": stored["status"]} if "status" in stored else {}
    return {**given, "metadata": {**kept, **{k: v for k, v in merged.items() if v}}, **status}
