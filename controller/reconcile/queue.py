"""The keyed queue: one worker per key at a time, doubles merged, look again after a while, back off on failure.

Bounded in how many keys are worked on at once, so that one slow object delays the others only by its own slot.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Self

from controller.api.meta import Key
from controller.clients.errors import ClientError

log = logging.getLogger(__name__)
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MOST_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Next:
    """When to look at an object again: after seconds, never by itself (None), or after a back-off."""

    after_s: float | None = None
    is_failure: bool = False

    @classmethod
    def done(cls) -> Self:
        """Look again only when something changes."""
        return cls()

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Look again after this many seconds."""
        return cls(after_s=seconds)

    @classmethod
    def failed(cls) -> Self:
        """Look again after a back-off that doubles from 1 s to 5 min, with jitter."""
        return cls(is_failure=True)


class Queue:
    """Works on keys with a bounded number of workers."""

    def __init__(self, work: Callable[[Key], Awaitable[Next]], *, workers: int = 32) -> None:
        self._work = work
        self._slots = asyncio.Semaphore(workers)
        self._due: list[tuple[float, int, Key]] = []
        self._when: dict[Key, float] = {}
        self._busy: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self.worked: set[Key] = set()
        """Keys that were worked on without failure since the start."""
        self._count = itertools.count()
        self._wake = asyncio.Event()

    def add(self, key: Key, after_s: float = 0.0) -> None:
        """Ask for a look at a key; an earlier look that is already due is kept."""
        if key in self._busy:
            if after_s <= 0:
                self._again.add(key)
            return
        due = asyncio.get_running_loop().time() + after_s
        if key in self._when and self._when[key] <= due:
            return
        self._when[key] = due
        heapq.heappush(self._due, (due, next(self._count), key))
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then let what is being worked on end."""
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                delay = self._start_due()
                self._wake.clear()
                woken = asyncio.create_task(self._wake.wait())
                await asyncio.wait({stopped, woken}, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
        finally:
            stopped.cancel()
            for task in list(self._busy.values()):
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)

    def _start_due(self) -> float | None:
        now = asyncio.get_running_loop().time()
        while self._due and self._due[0][0] <= now:
            due, _, key = heapq.heappop(self._due)
            if self._when.get(key) != due:
                continue
            del self._when[key]
            self._busy[key] = asyncio.create_task(self._one(key), name=str(key))
        return self._due[0][0] - now if self._due else None

    async def _one(self, key: Key) -> None:
        following = Next.failed()
        try:
            async with self._slots:
                following = await self._work(key)
        except ClientError as error:
            log.warning("%s: %s", key, error.message)
        except Exception:
            # Whatever it is, one object must never end the others; the log has the traceback.
            log.exception("working on %s failed", key)
        finally:
            del self._busy[key]
            self._after(key, following)

    def _after(self, key: Key, following: Next) -> None:
        if following.is_failure:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            pause = min(BACKOFF_FIRST_S * 2 ** (count - 1), BACKOFF_MOST_S)
            self._again.discard(key)
            self.add(key, pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret
            return
        self._failures.pop(key, None)
        self.worked.add(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif following.after_s is not None:
            self.add(key, following.after_s)
