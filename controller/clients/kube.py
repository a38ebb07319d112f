"""The Kube port on a real API server: server-side apply, status, watches, over plain dicts.

`controller/reconcile/kube.py` says what each method promises; `tests/contract/` holds this one and the local
store to it.  One field manager owns everything that is applied.  Nothing is cached: every read is a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from controller.api.meta import FIELD_MANAGER, Key, Manifest, WatchEvent, key_of
from controller.clients.errors import ClientError, Conflict, Denied, NotFound, Unavailable
from controller.clients.kube_errors import KIND_MISSING, Act
from controller.clients.kube_kinds import OPTIONAL, plain, received, resource_of, sendable
from controller.clients.kube_login import Login
from controller.clients.kube_rest import APPLY, MERGE, KubeRest
from controller.clients.kube_watch import BACKOFF_S, Follower, read_all

QUEUE: Final = 1_000
"""Most changes that wait for the reader of a watch; then the connection waits."""


class KubeClient:
    """Implements `controller.reconcile.kube.Kube`. Belongs to one event loop; close it with `aclose`."""

    def __init__(
        self,
        rest: KubeRest,
        *,
        field_manager: str = FIELD_MANAGER,
        selectors: Mapping[str, str] | None = None,
        backoff_s: Sequence[float] = BACKOFF_S,
        known: Callable[[Manifest], Manifest] = lambda item: item,
    ) -> None:
        """Use an API server.

        Args:
            rest: the server.
            field_manager: whose fields an apply sets and takes back.
            selectors: kind → label selector: what a watch of that kind is narrowed to, on the server.
            backoff_s: pauses between tries of a watch; the last one repeats.
            known: returns an object that a list brings in the form in which it is held already, if it is.
        """
        self.rest = rest
        self._known = known
        self._manager = field_manager
        self._selectors = dict(selectors or {})
        self._backoff_s = tuple(backoff_s)
        self._watches: dict[asyncio.Queue[WatchEvent | Exception], list[asyncio.Task[None]]] = {}

    @classmethod
    def connect(
        cls,
        kubeconfig: Path | None = None,
        context: str | None = None,
        *,
        field_manager: str = FIELD_MANAGER,
        selectors: Mapping[str, str] | None = None,
    ) -> KubeClient:
        """Prepare a client; nothing is read or sent before the first call.

        The credentials are, in this order: the given kubeconfig or context, the files of KUBECONFIG, the service
        account of the pod, the user's own kubeconfig.
        """
        return cls(KubeRest(Login(kubeconfig, context)), field_manager=field_manager, selectors=selectors)

    async def aclose(self) -> None:
        """End watches and close the connections."""
        for queue, tasks in list(self._watches.items()):
            await _cancel(tasks)
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(Unavailable("the connection to the API server was closed by this program"))
        await self.rest.aclose()

    async def get(self, key: Key) -> Manifest | None:
        """Read one object; None when there is none.

        Raises:
            NotFound: reason KindNotInstalled; the server does not know the kind.
            Denied: the right to read it is missing, or the kind is unknown.
            Unavailable: no answer.
        """
        resource = resource_of(key.kind)
        act = Act("get", resource, key.namespace, key.name)
        try:
            answer = await self.rest.call("GET", resource.path(key.namespace, key.name), act)
        except NotFound as error:
            if error.reason == KIND_MISSING and key.kind not in OPTIONAL:
                raise
            return None
        return received(answer, resource)

    async def refresh(self, key: Key) -> Manifest | None:
        """Read one object as it is at this moment: a read that names no version is answered by a quorum of etcd.

        Raises:
            NotFound, Denied, Unavailable: as `get`.
        """
        return await self.get(key)

    async def list(
        self, kind: str, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[Manifest, ...]:
        """Read all objects of a kind, in order of namespace and name; `labels` must all match.

        Raises:
            NotFound, Denied, Unavailable: as `get`.
        """
        resource = resource_of(kind)
        selector = ",".join(f"{name}={value}" for name, value in sorted((labels or {}).items()))
        try:
            items, _ = await read_all(self.rest, resource, namespace, selector, self._known)
        except NotFound as error:
            if error.reason == KIND_MISSING and kind in OPTIONAL:
                return ()
            raise
        return tuple(sorted(items, key=key_of))

    async def apply(self, manifest: Manifest) -> Manifest:
        """Create the object or merge the given fields into it; fields that the last apply gave alone go.

        Raises:
            Denied: invalid (reason Invalid), controlled by another object (OwnershipConflict), or not allowed.
            Conflict: `metadata.uid` or `metadata.resourceVersion` was given and is not the present one.
            NotFound, Unavailable: no such namespace or kind; no answer.
        """
        key, sent = sendable(manifest)
        if owner := _controller(sent):
            # The server itself lets the manager that named one owner name another.
            _check_owner(key, owner, await self.get(key))
        return await self._write("PATCH", key, "patch", body=sent, media=APPLY, force=True)

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object that must not exist yet; a status in the manifest is ignored.

        Raises:
            Conflict: reason AlreadyExists.
            Denied, NotFound, Unavailable: as `apply`; after Unavailable it may or may not exist.
        """
        key, sent = sendable(manifest)
        if "resourceVersion" in sent["metadata"]:
            raise Denied(
                f"{key} is invalid: metadata.resourceVersion: must not be set on an object to create",
                reason="Invalid",
            )
        return await self._write("POST", key, "create", body=sent)

    async def patch_status(self, key: Key, status: Manifest, *, uid: str, version: str = "") -> Manifest:
        """Replace the status of the object with this uid; an equal status writes nothing.

        Raises:
            NotFound: no such object, or another uid (it was deleted and made anew).
            Conflict: it has changed since it had the version that was given.
            Denied, Unavailable: as `apply`.
        """
        resource, wanted = resource_of(key.kind), plain(status, "status")
        present = await self.get(key)
        if present is None:
            raise NotFound(f"{key} does not exist; it may have been deleted meanwhile")
        if present["metadata"]["uid"] != uid:
            raise _anew(key, uid)
        if present.get("status") == wanted:
            return present
        meta = {"name": key.name, "namespace": key.namespace, "uid": uid}
        if version:
            if version != (now := present["metadata"]["resourceVersion"]):
                raise Conflict(f"{key} has version {now} by now, and {version} was read; read it again")
            meta["resourceVersion"] = version
        body = {"apiVersion": resource.api_version, "kind": key.kind, "metadata": meta, "status": wanted}
        try:
            return await self._write("PATCH", key, "patch", sub="status", body=body, media=APPLY, force=True)
        except Conflict as error:
            # All fields are taken over by force: only the uid can conflict, and a version.
            if version:
                raise
            raise _anew(key, uid) from error

    async def annotate(self, key: Key, annotations: Mapping[str, str | None]) -> Manifest:
        """Merge-patch annotations; None removes one. Does not change generation.

        Raises:
            NotFound: no such object.
            Denied, Unavailable: as `apply`.
        """
        body = {"metadata": {"annotations": dict(annotations)}}
        return await self._write("PATCH", key, "patch", body=body, media=MERGE)

    async def patch_spec(self, key: Key, patch: Manifest) -> Manifest:
        """JSON merge patch (RFC 7386) of the spec; moves generation when it changes something.

        Raises:
            NotFound: no such object.
            Denied: the result is invalid (reason Invalid), or the right is missing.
            Unavailable: no answer.
        """
        return await self._write("PATCH", key, "patch", body={"spec": dict(patch)}, media=MERGE)

    async def delete(self, key: Key, *, uid: str | None = None) -> None:
        """Delete an object and, in the background, everything whose owner it is. Gone already is fine.

        Raises:
            Conflict: `uid` was given and the object has another one.
            Denied, Unavailable: as `apply`.
        """
        resource = resource_of(key.kind)
        act = Act("delete", resource, key.namespace, key.name)
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self.rest.call("DELETE", resource.path(key.namespace, key.name), act, body=body)
        except NotFound as error:
            if error.reason == KIND_MISSING and key.kind not in OPTIONAL:
                raise

    async def watch(self, kinds: Collection[str]) -> AsyncIterator[WatchEvent]:
        """First every present object as Added, then each change as it happens, without end.

        An API server that is away is waited for; what changed meanwhile is told then, deletions too.

        Raises:
            Denied: a kind is unknown, or the right to watch it is missing at the beginning.
            NotFound: reason KindNotInstalled, at the beginning.
            Unavailable: the client was closed.
        """
        resources = [resource_of(kind) for kind in dict.fromkeys(kinds)]
        queue: asyncio.Queue[WatchEvent | Exception] = asyncio.Queue(QUEUE)

        async def follow(follower: Follower) -> None:
            try:
                await follower.run()
            except Exception as error:  # noqa: BLE001 - whatever it is, the reader must hear of it
                await queue.put(error)

        followers = [
            Follower(
                self.rest,
                resource,
                queue.put,
                selector=self._selectors.get(resource.kind, ""),
                backoff_s=self._backoff_s,
            )
            for resource in resources
        ]
        tasks = [asyncio.create_task(follow(follower)) for follower in followers]
        self._watches[queue] = tasks
        try:
            while True:
                event = await queue.get()
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self._watches.pop(queue, None)
            await _cancel(tasks)

    async def _write(
        self,
        method: str,
        key: Key,
        verb: str,
        *,
        body: Manifest,
        media: str = "application/json",
        sub: str = "",
        force: bool = False,
    ) -> Manifest:
        resource = resource_of(key.kind)
        params = {"fieldManager": self._manager, "fieldValidation": "Strict"} | (
            {"force": "true"} if force else {}
        )
        answer = await self.rest.call(
            method,
            resource.path(key.namespace, None if method == "POST" else key.name, sub),
            Act(verb, resource, key.namespace, key.name, sub),
            params=params,
            body=body,
            media=media,
        )
        return received(answer, resource)


def _controller(manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    references = manifest["metadata"].get("ownerReferences") or ()
    return next((ref for ref in references if isinstance(ref, dict) and ref.get("controller")), None)


def _check_owner(key: Key, mine: Mapping[str, Any], present: Manifest | None) -> None:
    """Refuse to take an object from another controller; one without a controller may be adopted."""
    theirs = _controller(present) if present is not None else None
    if theirs is not None and theirs["uid"] != mine.get("uid"):
        raise Denied(
            f"{key} is controlled by {theirs['kind']} {theirs['name']} (uid {theirs['uid']}), "
            f"not by {mine.get('kind')} {mine.get('name')} (uid {mine.get('uid')}); rename or delete one of them",
            reason="OwnershipConflict",
        )


def _anew(key: Key, uid: str) -> ClientError:
    return NotFound(f"{key} with uid {uid} is gone; another object has its name now")


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
