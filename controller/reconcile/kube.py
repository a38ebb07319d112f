"""The Kube port: what the reconcilers need from an object store, and nothing more.

`local/store.py` implements it on SQLite, `clients/kube.py` on a real API server; one contract suite
(`tests/contract/`) runs on both.  Nothing above this port knows which of the two it talks to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Protocol

from controller.api.meta import Key, Manifest
from controller.api.meta import WatchEvent as WatchEvent


class Kube(Protocol):
    """Objects with the semantics of the Kubernetes API."""

    async def get(self, key: Key) -> Manifest | None:
        """Read one object; None when there is none."""
        ...

    async def refresh(self, key: Key) -> Manifest | None:
        """Read one object as it is at this moment, past every cache, which takes it in; None: there is none."""
        ...

    async def list(
        self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Manifest, ...]:
        """Read all objects of a kind, in order of namespace and name; `labels` must all match."""
        ...

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply of exactly the fields given: create, or merge by key and by named list.

        Fields that the previous apply set and this one lacks are removed.  `status` is ignored.  An apply
        that changes nothing leaves resourceVersion and generation alone.

        Raises:
            Denied: the object is owned by another controller (its owner reference has another uid).
        """
        ...

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object that must not exist yet.

        Raises:
            Conflict: reason AlreadyExists.
        """
        ...

    async def patch_status(self, key: Key, status: Manifest, *, uid: str, version: str = "") -> Manifest:
        """Replace the status of the object with this uid; spec and metadata stay as they are.

        A status that equals the present one writes nothing.

        Args:
            key: the object.
            status: all of it.
            uid: of the object that it is about.
            version: resourceVersion of the object as it was read; empty: whatever it is now.

        Raises:
            NotFound: no such object, or another uid (it was deleted and made anew).
            Conflict: it has changed since it had that version.
        """
        ...

    async def annotate(self, key: Key, annotations: Mapping[str, str | None]) -> Manifest:
        """Merge-patch annotations; None removes one. Does not change generation.

        Raises:
            NotFound: no such object.
        """
        ...

    async def patch_spec(self, key: Key, patch: Manifest) -> Manifest:
        """JSON merge patch (RFC 7386) of the spec, as `kubectl patch --type=merge` does. Moves generation.

        Raises:
            NotFound: no such object.
        """
        ...

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        """Delete an object and, in the background, everything whose owner it is. Gone already is fine.

        Raises:
            Conflict: `uid` was given and the object has another one.
        """
        ...

    def watch(self, kinds: Collection[str]) -> AsyncIterator[WatchEvent]:
        """First every present object as Added, then each change as it happens, without end.

        Changes between two looks may be merged into one event; the last state is never missed.
        """
        ...
