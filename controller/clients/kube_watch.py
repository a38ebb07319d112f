"""Follows one kind on an API server: list, then watch, again and again, for as long as somebody listens.

What happened while the watch was cut is found by comparing the new list with what is known, deletions too.  After
the first list nothing ends it but its reader: a server that is away is tried again, ever more rarely.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from controller.api.meta import Key, Manifest, WatchEvent, key_of
from controller.clients.errors import ClientError, Conflict, NotFound, Unavailable
from controller.clients.kube_errors import EXPIRED, KIND_MISSING, Act, failure
from controller.clients.kube_kinds import OPTIONAL, Resource, received
from controller.clients.kube_rest import KubeRest

log = logging.getLogger(__name__)

PAGE: Final = 200
"""Objects in one answer of a list: as JSON with all that the server adds, about 2 MB."""
SERVER_S: Final = 300
"""After this many seconds the server ends a watch, and it is opened again."""
BACKOFF_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Pauses between tries; the last one repeats."""
ABSENT_S: Final = 60.0
"""How often a kind that a cluster need not have is looked for."""
_RESTARTS: Final = 3

Put = Callable[[WatchEvent], Awaitable[None]]


async def read_all(
    rest: KubeRest,
    resource: Resource,
    namespace: str | None = None,
    selector: str = "",
    known: Callable[[Manifest], Manifest] = lambda item: item,
) -> tuple[list[Manifest], str]:
    """Read all objects of a kind in pages, and the version of the whole.

    `known` may put an object in the place of an equal one, so that a large list is not held twice.
    A list that grows too old between two pages begins again; the fourth try takes it in one answer.
    """
    act = Act("list", resource, namespace)
    restarts = 0
    items: list[Manifest] = []
    more = ""
    while True:
        params = {"limit": str(PAGE)} if restarts < _RESTARTS else {}
        if selector:
            params["labelSelector"] = selector
        if more:
            params["continue"] = more
        try:
            answer = await rest.call("GET", resource.path(namespace), act, params=params)
        except Conflict as error:
            if error.reason != EXPIRED or not more:
                raise
            restarts, items, more = restarts + 1, [], ""
            continue
        items += [known(received(item, resource)) for item in answer.get("items") or ()]
        meta = answer.get("metadata") or {}
        more = meta.get("continue") or ""
        if not more:
            return items, str(meta.get("resourceVersion") or "")


class Follower:
    """What is known of one kind, and the version up to which it is known."""

    def __init__(
        self, rest: KubeRest, resource: Resource, put: Put, *, selector: str, backoff_s: Sequence[float]
    ) -> None:
        """Tell `put` of every change of objects that match `selector`."""
        self._rest = rest
        self._resource = resource
        self._put = put
        self._selector = selector
        self._backoff_s = backoff_s
        self._known: dict[Key, Manifest] = {}
        self._version = ""
        self._listed = False
        self._failures = 0

    async def run(self) -> None:
        """Follow without end.

        Raises:
            Denied, NotFound: the first list was refused: the right is missing, or the kind is not installed.
        """
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except Conflict as error:
                # What we know is too old: list at once, and only then wait if that is in vain too.
                self._version = ""
                await self._pause(error, at_once=self._failures == 0)
            except NotFound as error:
                await self._absent(error)
            except ClientError as error:
                if not self._listed and not isinstance(error, Unavailable):
                    raise
                await self._pause(error)

    async def _absent(self, error: NotFound) -> None:
        """Wait for a kind that is not installed, if it need not be."""
        if error.reason != KIND_MISSING or self._resource.kind not in OPTIONAL:
            if not self._listed:
                raise error
            self._version = ""
            await self._pause(error)
            return
        await self._replace([])
        self._version, self._listed = "", True
        await asyncio.sleep(ABSENT_S)

    async def _pause(self, error: ClientError, *, at_once: bool = False) -> None:
        self._failures += 1
        if at_once:
            return
        step = self._backoff_s[min(self._failures, len(self._backoff_s)) - 1]
        asked = getattr(error, "retry_after_s", None) or 0.0
        # Spread, so that all that lost the same server do not come back to it at once.
        pause = max(step * random.uniform(0.8, 1.2), asked)  # noqa: S311
        if self._failures in (1, 5):
            log.warning("watch of %s: %s; next try in %.0f s", self._resource.kind, error.message, pause)
        await asyncio.sleep(pause)

    async def _list(self) -> None:
        items, version = await read_all(self._rest, self._resource, selector=self._selector)
        await self._replace(items)
        self._version, self._listed = version, True

    async def _replace(self, items: list[Manifest]) -> None:
        """Tell how a whole list differs from what is known."""
        present = {key_of(item): item for item in items}
        for key in [key for key in self._known if key not in present]:
            await self._put(WatchEvent("Deleted", self._known.pop(key)))
        for item in present.values():
            await self._seen(item)

    async def _watch(self) -> None:
        """Read one watch until the server ends it."""
        act = Act("watch", self._resource)
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(SERVER_S),
            "resourceVersion": self._version,
        }
        if self._selector:
            params["labelSelector"] = self._selector
        opened = asyncio.get_running_loop().time()
        heard = False
        async with self._rest.stream(self._resource.path(), act, params=params) as answer:
            async for line in answer.aiter_lines():
                if line:
                    await self._told(act, line)
                    heard = True
        if heard or asyncio.get_running_loop().time() - opened > 1.0:
            self._failures = 0
            return
        # A server (or proxy) that hangs up at once would otherwise be asked without a pause.
        await self._pause(Unavailable("the server ended the watch at once"))

    async def _told(self, act: Act, line: str) -> None:
        try:
            event: dict[str, Any] = json.loads(line)
            kind, item = str(event["type"]), event["object"]
        except (ValueError, KeyError, TypeError):
            raise Unavailable(f"{act}: a line of the watch is no event: is a proxy in between?") from None
        if kind == "ERROR":
            raise failure(act, int(item.get("code") or 500), {}, json.dumps(item).encode())
        if kind == "BOOKMARK":
            self._version = str(item["metadata"]["resourceVersion"])
            return
        received(item, self._resource)
        if kind == "DELETED":
            if self._known.pop(key_of(item), None) is not None:
                await self._put(WatchEvent("Deleted", item))
        else:
            await self._seen(item)
        self._version = str(item["metadata"]["resourceVersion"])

    async def _seen(self, item: Manifest) -> None:
        key = key_of(item)
        known = self._known.get(key)
        if known is not None and _meta(known, "uid") != _meta(item, "uid"):
            await self._put(WatchEvent("Deleted", self._known.pop(key)))
            known = None
        if known is not None and _meta(known, "resourceVersion") == _meta(item, "resourceVersion"):
            return
        self._known[key] = item
        await self._put(WatchEvent("Added" if known is None else "Modified", item))


def _meta(item: Mapping[str, Any], name: str) -> Any:
    return item["metadata"].get(name)
