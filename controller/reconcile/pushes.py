"""What a push sets going: the objects that use the repository are looked at, from a poll that begins now.

A push may arrive at any replica.  One that does not lead passes it on by an annotation on the canary's Lease,
which the leader watches; nothing of the request but the digest of a place is in it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection
from typing import Any, Final

from controller.api.meta import GROUP, Key, Manifest, key_of
from controller.clients.git import Mirrors
from controller.clients.git_types import GitRef, Head
from controller.reconcile.cache import Cache
from controller.reconcile.kube import Kube
from controller.reconcile.webhook import place_of, token_of

ANNOTATION_PUSHED: Final = f"{GROUP}/pushed"
"""On the canary's Lease: who took in a push, its number, and the digests of the places that were pushed to."""
PASSED_ON_MOST: Final = 8
"""Most places of one push that are passed on."""


@functools.lru_cache(maxsize=16_384)
def token_of_url(url: str) -> str:
    """Shorten the place that an address means."""
    return token_of(place_of(url))


class PushedMirrors(Mirrors):
    """Mirrors that are polled anew after a push, however fresh the last poll is."""

    def __init__(self, *args: Any, **more: Any) -> None:
        """Take what `Mirrors` takes."""
        super().__init__(*args, **more)
        self._pushes = 0
        self._pushed: dict[str, int] = {}
        self._seen: dict[tuple[str, GitRef, str], int] = {}
        """URL, ref and digest of the credential → the newest push that a poll has followed."""

    def pushed(self, tokens: Collection[str]) -> None:
        """Note a push to these places."""
        self._pushes += 1
        self._pushed.update(dict.fromkeys(tokens, self._pushes))

    async def resolve(self, url: str, ref: GitRef, *, max_age_s: float, **more: Any) -> Head:
        """Resolve as ever, but by a poll that begins now if there was a push since the last one."""
        credential = more.get("credential")
        key = (url, ref, credential.digest() if credential is not None else "")
        asked = self._pushed.get(token_of_url(url), 0)
        if asked <= self._seen.get(key, 0):
            return await super().resolve(url, ref, max_age_s=max_age_s, **more)
        head = await self.refresh(url, ref, **more)
        self._seen[key] = asked
        return head


class Pushes:
    """Wakes what a push concerns."""

    def __init__(
        self,
        *,
        cache: Cache,
        mirrors: PushedMirrors,
        live: Kube,
        lease: Key,
        me: str,
        add: Callable[[Key], None],
        leading: Callable[[], bool],
    ) -> None:
        """Prepare; `add` puts a key on the queue, `lease` is the canary's, `me` this replica."""
        self._cache, self._mirrors, self._live = cache, mirrors, live
        self._lease, self._me, self._add, self._leading = lease, me, add, leading
        self._count = itertools.count(1)
        self._heard = ""

    async def wake(self, places: frozenset[str]) -> int:
        """Have these places polled soon and return how many objects use them.

        Raises:
            ClientError: it could not be passed on to the leader.
        """
        tokens = frozenset(map(token_of, places))
        keys = self._users(tokens)
        if keys and self._leading():
            self._go(tokens, keys)
        elif keys:
            used = sorted(tokens & {token_of_url(url) for url in map(self._url, keys)})[:PASSED_ON_MOST]
            value = f"{self._me} {next(self._count)} {' '.join(used)}"
            await self._live.annotate(self._lease, {ANNOTATION_PUSHED: value})
        return len(keys)

    def heard(self, manifest: Manifest) -> None:
        """Take in a change of a Lease: another replica may have passed a push on."""
        if key_of(manifest) != self._lease:
            return
        value = str((manifest["metadata"].get("annotations") or {}).get(ANNOTATION_PUSHED, ""))
        before, self._heard = self._heard, value
        if value != before and self._leading():
            tokens = frozenset(value.split()[2:][:PASSED_ON_MOST])
            self._go(tokens, self._users(tokens))

    def _go(self, tokens: frozenset[str], keys: Collection[Key]) -> None:
        self._mirrors.pushed(tokens & {token_of_url(self._url(key)) for key in keys})
        for key in keys:
            self._add(key)

    def _users(self, tokens: frozenset[str]) -> list[Key]:
        keys = sorted(self._cache.keys("ModelRepository")) + sorted(self._cache.keys("ModelSpec"))
        return [key for key in keys if token_of_url(self._url(key)) in tokens]

    def _url(self, key: Key) -> str:
        spec = (self._cache.get(key) or {}).get("spec") or {}
        where = spec.get("source") if key.kind == "ModelSpec" else spec
        return str((where if isinstance(where, dict) else {}).get("url") or "")
