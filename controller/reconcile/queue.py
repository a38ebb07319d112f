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
from typing import Final, Protocol, Self

from controller.api.meta import Key
from controller.clients.errors import ClientError, Unavailable

log = logging.getLogger(__name__)
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_MOST_S: Final = 300.0
AWAY_MOST_S: Final = 45.0
"""The same, seconds, while something outside does not answer: nobody says when it is back, and nothing else wakes
what waits for it.  With the jitter all is tried within a minute after the return."""
DOUBLINGS: Final = 16


@dataclass(frozen=True, slots=True)
class Next:
    """When to look at an object again: after seconds, never by itself (None), or after a back-off."""

    after_s: float | None = None
    is_failure: bool = False
    most_s: float = BACKOFF_MOST_S
    """Longest back-off, seconds, before the jitter of a fifth."""

    @classmethod
    def done(cls) -> Self:
        """Look again only when something changes."""
        return cls()

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Look again after this many seconds."""
        return cls(after_s=seconds)

    @classmethod
    def failed(cls, error: ClientError | None = None) -> Self:
        """Look again after a back-off that doubles from 1 s to 5 min, to 45 s where time may help; with jitter."""
        return cls(is_failure=True, most_s=AWAY_MOST_S if isinstance(error, Unavailable) else BACKOFF_MOST_S)


class QueueObserver(Protocol):
    """Hears what a queue does, for figures."""

    def worked(self, kind: str, seconds: float, outcome: str) -> None:
        """One look ended: `ok`, `failed` (it is tried again) or `error` (it raised)."""
        ...

    def requeued(self, kind: str, why: str) -> None:
        """A key comes again by itself: `after`, `changed` or `backoff`."""
        ...


class Queue:
    """Works on keys with a bounded number of workers."""

    def __init__(
        self,
        work: Callable[[Key], Awaitable[Next]],
        *,
        workers: int = 32,
        drain_s: float = 0.0,
        observer: QueueObserver | None = None,
    ) -> None:
        """Prepare; `drain_s` is how long what is being worked on may go on after the stop, seconds."""
        self._drain_s = drain_s
        self.observer = observer
        self._work = work
        self._slots = asyncio.Semaphore(workers)
        self._due: list[tuple[float, int, Key]] = []
        self._when: dict[Key, float] = {}
        self._busy: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self.worked: set[Key] = set()
        """Keys that were worked on without failure since the start."""
        self._waiting: dict[Key, float] = {}
        """Keys that were taken and wait for a worker, and since when."""
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

    def clear(self) -> None:
        """Forget all keys that wait, and how often they failed; only while `run` does not run."""
        for kept in (self._due, self._when, self._again, self._failures):
            kept.clear()

    def depth(self) -> int:
        """Count the keys that are due or being worked on; those that wait for their time are none."""
        now = asyncio.get_running_loop().time()
        return len(self._busy) + sum(due <= now for due in self._when.values())

    def oldest_s(self) -> float:
        """Return for how long the oldest due key has waited, seconds; 0 when none waits."""
        now = asyncio.get_running_loop().time()
        began = [*self._when.values(), *self._waiting.values()]
        return max((now - due for due in began), default=0.0) if min(began, default=now) < now else 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then give what is being worked on `drain_s` seconds to end."""
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                delay = self._start_due()
                self._wake.clear()
                woken = asyncio.create_task(self._wake.wait())
                try:
                    await asyncio.wait({stopped, woken}, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    woken.cancel()
        finally:
            stopped.cancel()
            if self._busy and self._drain_s > 0 and stop.is_set():
                await asyncio.wait(set(self._busy.values()), timeout=self._drain_s)
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
            self._waiting[key] = due
            self._busy[key] = asyncio.create_task(self._one(key), name=str(key))
        return self._due[0][0] - now if self._due else None

    async def _one(self, key: Key) -> None:
        following, outcome, begun = Next.failed(), "error", asyncio.get_running_loop().time()
        try:
            async with self._slots:
                self._waiting.pop(key, None)
                begun = asyncio.get_running_loop().time()
                following = await self._work(key)
                outcome = "failed" if following.is_failure else "ok"
        except ClientError as error:
            following = Next.failed(error)
            log.warning("%s: %s", key, error.message)
        except Exception:
            # Whatever it is, one object must never end the others; the log has the traceback.
            log.exception("working on %s failed", key)
        finally:
            del self._busy[key]
            self._waiting.pop(key, None)
            if self.observer is not None:
                self.observer.worked(key.kind, asyncio.get_running_loop().time() - begun, outcome)
            self._after(key, following)

    def _after(self, key: Key, following: Next) -> None:
        if following.is_failure:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            pause = min(BACKOFF_FIRST_S * 2 ** min(count - 1, DOUBLINGS), following.most_s)
            self._again.discard(key)
            self._tell(key, "backoff")
            self.add(key, pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret
            return
        self._failures.pop(key, None)
        self.worked.add(key)
        if key in self._again:
            self._again.discard(key)
            self._tell(key, "changed")
            self.add(key)
        elif following.after_s is not None:
            self._tell(key, "after")
            self.add(key, following.after_s)

    def _tell(self, key: Key, why: str) -> None:
        if self.observer is not None:
            self.observer.requeued(key.kind, why)
