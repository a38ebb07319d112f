"""Which replica leads: a coordination.k8s.io Lease, so that two operators never act at once.

`decide` and `Standing` are the rules, pure and without a clock; `Elector` carries them out through the Kube port.
Clocks of two machines are never compared: how old another's renewal is, is measured by our own monotonic clock.
Whoever could not renew for ten seconds leads no more, before anybody else may take over after fifteen; it goes
back to standing by, and may lead again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from controller.api.meta import FIELD_MANAGER, LABEL_MANAGED_BY, Key, Manifest
from controller.clients.errors import ClientError
from controller.reconcile.kube import Kube

log = logging.getLogger(__name__)

LEASE_S: Final = 15
RENEW_S: Final = 5.0
RETRY_S: Final = 2.0
GIVE_UP_S: Final = 10.0
Phase = Literal["Standby", "Leader"]


@dataclass(frozen=True, slots=True)
class Standing:
    """What one replica knows about the Lease."""

    phase: Phase = "Standby"
    renewed_at: float = 0.0
    """When the last renewal of ours that succeeded was begun, monotonic seconds."""
    seen: tuple[str, str] = ("", "")
    """Holder and its renewal, as last read."""
    seen_at: float = 0.0
    """When that was first read, monotonic seconds."""

    def noticed(self, spec: Manifest | None, now: float) -> Standing:
        """Take in what was read; a renewal that is new starts the other's time again."""
        seen = (str((spec or {}).get("holderIdentity") or ""), str((spec or {}).get("renewTime") or ""))
        return self if seen == self.seen else replace(self, seen=seen, seen_at=now)

    def may_take(self, spec: Manifest | None, me: str, now: float) -> bool:
        """Tell whether the Lease is ours, free, or was not renewed for its whole duration."""
        holder = str((spec or {}).get("holderIdentity") or "")
        if holder in ("", me):
            return True
        duration = float((spec or {}).get("leaseDurationSeconds") or LEASE_S)
        return self.seen == (holder, str((spec or {}).get("renewTime") or "")) and now - self.seen_at >= duration

    def renewed(self, begun: float) -> Standing:
        """Take in that we hold the Lease as of a write that began at `begun`."""
        return replace(self, phase="Leader", renewed_at=begun)

    def judged(self, now: float, *, held_by_other: bool = False) -> Standing:
        """Stand by when another holds it, or when no renewal has succeeded for ten seconds."""
        if self.phase == "Leader" and (held_by_other or self.left_s(now) <= 0):
            return replace(self, phase="Standby")
        return self

    def left_s(self, now: float) -> float:
        """Return for how long this replica may still act without a renewal, seconds; 0 or less: not any more."""
        return self.renewed_at + GIVE_UP_S - now if self.phase == "Leader" else 0.0


def wanted(spec: Manifest | None, me: str, at: str) -> Manifest:
    """Build the spec by which `me` holds the Lease from the one that was read."""
    before = spec or {}
    mine = before.get("holderIdentity") == me
    return {
        "holderIdentity": me,
        "leaseDurationSeconds": LEASE_S,
        "renewTime": at,
        "acquireTime": before.get("acquireTime") if mine and before.get("acquireTime") else at,
        "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if mine or not before else 1),
    }


class Elector:
    """Holds, or waits for, one Lease."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        me: str,
        now: Callable[[], datetime],
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Prepare; nothing is sent. `clock` is monotonic, seconds; the event loop's own by default."""
        self._kube = kube
        self.key = Key("Lease", namespace, name)
        self.me = me
        self._now = now
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self.standing = Standing()
        self.leading = asyncio.Event()
        self.over = asyncio.Event()
        """Set while this replica does not lead: what it was doing must not write any more."""
        self.over.set()
        self.led_from = 0.0
        """When this replica began to lead, for the last time, monotonic seconds."""
        self.asked = asyncio.Event()
        """Set once the Lease was asked for, whatever came of it."""
        self.heard: str = "the Lease was not asked for yet"
        """Why this replica does not lead, one sentence; empty while it does."""

    def may_act(self) -> bool:
        """Tell whether a write may leave now: asked before each, since a process may have stood still."""
        return self.leading.is_set() and self.standing.left_s(self._clock()) > 0

    async def run(self) -> None:
        """Take the Lease when it may be taken and renew it, without end."""
        while True:
            held = await self.attempt()
            pause = RENEW_S if held else RETRY_S
            if self.leading.is_set():
                # The end of the ten seconds is not slept through.
                left = self.standing.left_s(self._clock())
                await asyncio.sleep(max(0.0, min(pause, left)))
                self._judge()
            else:
                await asyncio.sleep(pause)

    async def attempt(self) -> bool:
        """Try once, for at most as long as a renewal may take; tell whether the Lease is held now."""
        begun, other = self._clock(), False
        left = self.standing.left_s(begun)
        try:
            async with asyncio.timeout(min(RENEW_S, left) if left > 0 else RENEW_S):
                held = await self._take(begun)
            other = not held
        except (ClientError, TimeoutError) as error:
            held = False
            why = error.message if isinstance(error, ClientError) else "no answer in time"
            self._hear(f"Lease {self.key.namespace}/{self.key.name}: {why}")
        self.standing = self.standing.renewed(begun) if held else self.standing
        self._judge(held_by_other=other)
        if self.standing.phase == "Leader" and not self.leading.is_set():
            self.heard, self.led_from = "", self._clock()
            log.info("%s leads: it holds Lease %s/%s", self.me, self.key.namespace, self.key.name)
            self.over.clear()
            self.leading.set()
        self.asked.set()
        return held and self.leading.is_set()

    def _judge(self, *, held_by_other: bool = False) -> None:
        self.standing = self.standing.judged(self._clock(), held_by_other=held_by_other)
        if self.standing.phase == "Standby" and self.leading.is_set():
            log.error("%s leads no more and stands by: %s", self.me, self.heard)
            self.leading.clear()
            self.over.set()

    def _hear(self, why: str) -> None:
        """Note why the Lease is not held; told once, not at every try."""
        if why != self.heard:
            log.warning("%s", why)
        self.heard = why

    async def _take(self, begun: float) -> bool:
        present = await self._kube.get(self.key)
        spec = (present or {}).get("spec")
        self.standing = self.standing.noticed(spec, begun)
        if not self.standing.may_take(spec, self.me, begun):
            self.heard = f"{spec['holderIdentity'] if spec else 'another replica'} leads"
            return False
        manifest = self._manifest(wanted(spec, self.me, micro(self._now())))
        if present is None:
            await self._kube.create(manifest)
        else:
            # Whoever wrote meanwhile was faster: the version makes that a Conflict.
            manifest["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"]
            await self._kube.apply(manifest)
        return True

    async def release(self) -> None:
        """Give the Lease back, so that a standby need not wait for its end. Losing this write is no harm."""
        if self.standing.phase != "Leader":
            return
        self.standing = replace(self.standing, phase="Standby")
        self.leading.clear()
        self.over.set()
        try:
            async with asyncio.timeout(RENEW_S):
                present = await self._kube.get(self.key)
                if present is None or present.get("spec", {}).get("holderIdentity") != self.me:
                    return
                # An apply could not take the holder away: the creation owns that field too.
                await self._kube.patch_spec(self.key, {"holderIdentity": None, "leaseDurationSeconds": 1})
                log.info("Lease %s/%s is given back", self.key.namespace, self.key.name)
        except (ClientError, TimeoutError) as error:
            log.warning("Lease %s could not be given back: %s", self.key.name, error or "no answer in time")

    def _manifest(self, spec: Manifest) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.key.name,
                "namespace": self.key.namespace,
                "labels": {LABEL_MANAGED_BY: FIELD_MANAGER},
            },
            "spec": dict(spec),
        }


def micro(at: datetime) -> str:
    """Write a moment (UTC) as the API server's MicroTime."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
