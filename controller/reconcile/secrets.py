"""Reads the Secrets that our objects name: by name, in their own namespace, and only if labelled for them.

Who may write a ModelSpec may not have the right to read Secrets, so a Secret must say itself who may use it: the
label `mainspring.dev/usable-by`.  What was read is kept for a few seconds, in memory only, so that many objects of
one namespace cost one request; Secrets are never listed or watched.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from controller.api.meta import LABEL_USABLE_BY, Key, Manifest
from controller.clients import credentials
from controller.clients.errors import Denied, NotFound

FRESH_S: Final = 5.0
"""How long a Secret is believed, seconds; a poll after that sees its new content."""
KEPT_MOST: Final = 1_000
ANYBODY: Final = "Any"
"""Value of the label for all objects of the namespace; no object of ours has a name with a capital letter."""


@dataclass(frozen=True, slots=True)
class User:
    """Who wants to use a Secret: an object of ours and the field that names the Secret."""

    key: Key
    field: str

    def __str__(self) -> str:
        """Write it for a person: `source.secretRef of ModelSpec churn`."""
        return f"{self.field} of {self.key.kind} {self.key.name}"


class Reads(Protocol):
    """Where Secrets are; the Kube port is one."""

    async def get(self, key: Key) -> Manifest | None:
        """Read one object; None when there is none."""
        ...


class SecretBook:
    """The Secrets that were read lately."""

    def __init__(self, kube: Reads, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube, self._clock = kube, clock
        self._known: dict[Key, tuple[float, Manifest | None]] = {}

    async def get(self, name: str, user: User, *, fresh: bool = False) -> credentials.Secret:
        """Read a Secret that the user names.

        Args:
            name: of the Secret, in the user's namespace.
            user: for whom.
            fresh: read it anew.

        Raises:
            NotFound: SecretNotFound. Denied: SecretNotUsable: its label does not admit the user; SecretInvalid;
            Forbidden: the operator has not the right to read it. Unavailable: no answer.
        """
        namespace = user.key.namespace
        found = await self._read(Key("Secret", namespace, name), fresh=fresh)
        if found is None:
            raise NotFound(
                f"Secret {name} ({user}) is not in namespace {namespace}: create it with the keys that "
                f"{credentials.PAGE} names, and then: {label_line(name, user)}",
                reason="SecretNotFound",
            )
        check_label(found, user)
        return credentials.of_manifest(found, str(user))

    async def find(self, name: str, user: User) -> credentials.Secret | None:
        """Read a Secret whose name nobody chose, and which needs no label therefore; None when there is none."""
        found = await self._read(Key("Secret", user.key.namespace, name), fresh=False)
        return credentials.of_manifest(found, str(user)) if found is not None else None

    async def _read(self, key: Key, *, fresh: bool) -> Manifest | None:
        known = self._known.get(key)
        if known is not None and not fresh and 0 <= self._clock() - known[0] < FRESH_S:
            return known[1]
        began = self._clock()
        found = await self._kube.get(key)
        self._known.pop(key, None)
        self._known[key] = (began, found)
        while len(self._known) > KEPT_MOST:
            del self._known[next(iter(self._known))]
        return found

    def forget(self) -> None:
        """Forget all that was read."""
        self._known.clear()


def check_label(manifest: Manifest, user: User) -> None:
    """Refuse a Secret that does not admit its user.

    Raises:
        Denied: SecretNotUsable; the message has the line that admits it.
    """
    meta = manifest["metadata"]
    admitted = (meta.get("labels") or {}).get(LABEL_USABLE_BY)
    if admitted in (ANYBODY, user.key.name):
        return
    what = "has no label" if admitted is None else f"admits {admitted or 'nobody'} by its label"
    change = " --overwrite" if admitted is not None else ""
    raise Denied(
        f"Secret {meta['name']} ({user}) in namespace {user.key.namespace} {what} {LABEL_USABLE_BY}, so it was "
        f"not used. If {user.key.name} may use it: {label_line(meta['name'], user, change)}"
        + (f" (or ={ANYBODY}, for every object there)" if admitted is not None else ""),
        reason="SecretNotUsable",
    )


def label_line(name: str, user: User, more: str = "") -> str:
    """Write the command that lets a user use a Secret."""
    return f"kubectl label secret {name} -n {user.key.namespace}{more} {LABEL_USABLE_BY}={user.key.name}"
