"""What was seen through the watch, and the Kube port that answers from it.

Reads of watched kinds cost no request once all of them were listed; every write and every other read goes to the
API server.  The answer to a write is put into the cache, so that a reconcile sees what the last one did.  What a
watch has missed (deletions above all) is found by a whole list now and then.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Any

from controller.api.meta import FIELD_MANAGER, LABEL_MANAGED_BY, Key, Manifest, WatchEvent, key_of
from controller.reconcile.kube import Kube

OURS = ("ModelSpec", "ModelRevision", "ModelRepository", "ModelOverride")
LABELLED = (
    "Job",
    "Pod",
    "Deployment",
    "Service",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
    "HTTPRoute",
)
"""Watched only where they carry our label."""
KINDS = (*OURS, *LABELLED)
"""Everything that is watched, on a cluster and in local mode: a look at a model at rest reads nothing else."""
WORD_MOST = 64
"""Longest string that is looked for among those that are kept already."""
SELECTOR = {LABEL_MANAGED_BY: FIELD_MANAGER}


class Cache:
    """The newest known form of every watched object, with an index by label."""

    def __init__(self) -> None:
        self._objects: dict[Key, Manifest] = {}
        self._by_label: dict[tuple[str, str, str, str], set[Key]] = {}
        self._by_kind: dict[tuple[str, str], set[Key]] = {}
        self._gone: dict[Key, int] = {}
        """Objects that were deleted while their kind was being listed, and the version of the end."""

    def get(self, key: Key) -> Manifest | None:
        """Return the object, not a copy; None when it is not known."""
        return self._objects.get(key)

    def same(self, manifest: Manifest) -> Manifest:
        """Return the form of an object that is held already, if it is of the same version; else itself."""
        known = self._objects.get(key_of(manifest))
        return known if known is not None and version(known) == version(manifest) else manifest

    def keys(self, kind: str, namespaces: Collection[str] | None = None) -> set[Key]:
        """Name all known objects of a kind."""
        found = {k for (of, _), keys in self._by_kind.items() if of == kind for k in keys}
        return found if namespaces is None else {k for k in found if k.namespace in namespaces}

    def select(self, kind: str, namespace: str | None, labels: Mapping[str, str]) -> tuple[Manifest, ...]:
        """Return the objects that carry all labels, in order of namespace and name."""
        if namespace is None:
            keys = self.keys(kind)
        else:
            keys = set(self._by_kind.get((kind, namespace), ()))
            for name, value in labels.items():
                keys &= self._by_label.get((kind, namespace, name, value), set())
        found = (self._objects[key] for key in sorted(keys))
        return tuple(o for o in found if _carries(o, labels))

    def put(self, manifest: Manifest) -> bool:
        """Take in a form of an object unless a newer one is known; tell whether it was new."""
        key = key_of(manifest)
        known = self._objects.get(key)
        if known is not None and version(known) >= version(manifest):
            return False
        if version(manifest) <= self._gone.get(key, -1):
            return False
        self._drop(key)
        meta = {k: v for k, v in manifest["metadata"].items() if k != "managedFields"}
        self._objects[key] = held({**manifest, "metadata": meta})
        self._by_kind.setdefault((key.kind, key.namespace), set()).add(key)
        for name, value in (meta.get("labels") or {}).items():
            self._by_label.setdefault((key.kind, key.namespace, name, value), set()).add(key)
        return True

    def remove(self, manifest: Manifest) -> bool:
        """Take in that an object was deleted, unless one that is newer has its name now."""
        key = key_of(manifest)
        known = self._objects.get(key)
        if known is not None and version(known) > version(manifest):
            return False
        self._gone[key] = version(manifest)
        self._drop(key)
        return known is not None

    def replace(
        self, kind: str, namespaces: Collection[str] | None, found: Iterable[Manifest], before: Mapping[Key, int]
    ) -> list[Manifest]:
        """Take in a whole list: add what is unknown, forget what is gone; return what changed, in its last form.

        Args:
            kind: that was listed.
            namespaces: that were listed; None: all.
            found: the objects.
            before: version of every object of the kind that was known when the list began: what came since stays.
        """
        present = {key_of(m): m for m in found}
        changed = [m for m in present.values() if self.put(m)]
        for key in self.keys(kind, namespaces):
            known = self._objects[key]
            if key not in present and version(known) == before.get(key, -1):
                changed.append(known)
                self._drop(key)
        for key in [k for k in self._gone if k.kind == kind]:
            del self._gone[key]
        return changed

    def versions(self, kind: str) -> dict[Key, int]:
        """Return the version of every known object of a kind."""
        return {key: version(self._objects[key]) for key in self.keys(kind)}

    def _drop(self, key: Key) -> None:
        old = self._objects.pop(key, None)
        if old is None:
            return
        self._by_kind[key.kind, key.namespace].discard(key)
        for name, value in (old["metadata"].get("labels") or {}).items():
            self._by_label[key.kind, key.namespace, name, value].discard(key)


def version(manifest: Manifest) -> int:
    """Read the resource version as a number: API servers count upwards; -1 when it is none."""
    text = str(manifest["metadata"].get("resourceVersion") or "")
    return int(text) if text.isdecimal() else -1


def held(value: Any) -> Any:
    """Copy JSON to be kept: the many words that all objects share are kept once, which saves a third."""
    if type(value) is dict:
        return {sys.intern(name): held(item) for name, item in value.items()}
    if type(value) is list:
        return [held(item) for item in value]
    return sys.intern(value) if type(value) is str and len(value) <= WORD_MOST else value


def copied(value: Any) -> Any:
    """Copy JSON; several times quicker than `copy.deepcopy`, which looks for loops."""
    if type(value) is dict:
        return {name: copied(item) for name, item in value.items()}
    if type(value) is list:
        return [copied(item) for item in value]
    return value


def _carries(manifest: Manifest, labels: Mapping[str, str]) -> bool:
    own = manifest["metadata"].get("labels") or {}
    return all(own.get(name) == value for name, value in labels.items())


class CachedKube:
    """Implements the Kube port over another one and a cache."""

    def __init__(self, live: Kube, cache: Cache, *, namespaces: Collection[str] | None) -> None:
        """Use an API server; `namespaces` are those that are watched, None: all."""
        self.live = live
        self.cache = cache
        self._namespaces = namespaces
        self.synced = False
        """True once every watched kind was listed; before that, all reads are requests."""
        self.wrote: Callable[[Manifest], None] = lambda _: None
        """Told of every write that changed a watched object: its echo in the watch brings nothing new any more."""

    def _cached(self, kind: str, namespace: str | None) -> bool:
        if not self.synced or kind not in KINDS:
            return False
        return self._namespaces is None or (namespace is not None and namespace in self._namespaces)

    async def get(self, key: Key) -> Manifest | None:
        """Read one object, from the cache where it is watched."""
        if self._cached(key.kind, key.namespace):
            found: Manifest | None = copied(self.cache.get(key))
            return found
        return await self.live.get(key)

    async def refresh(self, key: Key) -> Manifest | None:
        """Read one object from the API server and remember the answer, also that there is none."""
        known = self.cache.get(key)
        found = await self.live.get(key)
        if found is not None:
            return self._keep(found)
        # What came through the watch while the answer was on its way is newer than the answer.
        if known is not None and self.cache.get(key) is known and self.cache.remove(known):
            self.wrote(known)
        return None

    async def list(
        self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Manifest, ...]:
        """Read all objects of a kind, from the cache where it is watched."""
        if self._cached(kind, namespace):
            return tuple(copied(m) for m in self.cache.select(kind, namespace, labels or {}))
        return await self.live.list(kind, namespace=namespace, labels=labels)

    async def apply(self, manifest: Manifest) -> Manifest:
        """Apply on the API server and remember the answer."""
        return self._keep(await self.live.apply(manifest))

    async def create(self, manifest: Manifest) -> Manifest:
        """Create on the API server and remember the answer."""
        return self._keep(await self.live.create(manifest))

    async def patch_status(self, key: Key, status: Manifest, *, uid: str, version: str = "") -> Manifest:
        """Write the status and remember the answer."""
        return self._keep(await self.live.patch_status(key, status, uid=uid, version=version))

    async def annotate(self, key: Key, annotations: Mapping[str, str | None]) -> Manifest:
        """Write annotations and remember the answer."""
        return self._keep(await self.live.annotate(key, annotations))

    async def patch_spec(self, key: Key, patch: Manifest) -> Manifest:
        """Write to the spec and remember the answer."""
        return self._keep(await self.live.patch_spec(key, patch))

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        """Delete on the API server; the watch tells when it is gone."""
        await self.live.delete(key, uid=uid)

    def watch(self, kinds: Collection[str]) -> AsyncIterator[WatchEvent]:
        """Watch the API server itself."""
        return self.live.watch(kinds)

    def _keep(self, answer: Manifest) -> Manifest:
        key = key_of(answer)
        watched = self._namespaces is None or key.namespace in self._namespaces
        labelled = key.kind not in LABELLED or _carries(answer, SELECTOR)
        if key.kind in KINDS and watched and labelled and self.cache.put(copied(answer)):
            self.wrote(answer)
        return answer


async def resync(kube: Kube, cache: Cache, kind: str, namespaces: Collection[str] | None) -> list[Manifest]:
    """List one kind whole and take it in; return what the watch had missed.

    Raises:
        ClientError: the list was refused or not answered; nothing was changed.
    """
    before = cache.versions(kind)
    labels = SELECTOR if kind in LABELLED else None
    found: list[Manifest] = []
    for namespace in [None] if namespaces is None else sorted(namespaces):
        found += await kube.list(kind, namespace=namespace, labels=labels)
    return cache.replace(kind, namespaces, found, before)
