"""The threads that predict, and the bounded queue before them.

A full queue refuses at once rather than making everybody wait.  A prediction that takes too long is given up by
its request, but its thread stays taken, since a thread cannot be stopped: when all are, the server is not alive.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

QUEUE_MAX: Final = 64
"""Most requests that are with the model or wait for it."""
TIMEOUT_S: Final = 30.0
"""Longest that a request waits for its prediction, the queue included."""

Result = TypeVar("Result")


class Full(Exception):
    """Too many requests are waiting."""


class TooSlow(Exception):
    """The model did not answer in time."""


class Pool:
    """Runs predictions in threads; used from one event loop.

    Args:
        parallel: whether the model may predict in several threads at once; else there is one.
        queue: most calls at once, waiting ones included.
        timeout_s: seconds after which a call is given up.
    """

    def __init__(self, *, parallel: bool, queue: int = QUEUE_MAX, timeout_s: float = TIMEOUT_S) -> None:
        self.threads = min(os.cpu_count() or 1, 8) if parallel else 1
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix="predict")
        self._queue, self._timeout_s = queue, timeout_s
        self.taken = 0
        """Calls that were not finished, given-up ones included."""
        self.stuck = 0
        """Given-up calls that a thread is still in."""
        self.tell: Callable[[bool], None] = lambda hangs: None  # noqa: ARG005 - whoever wants to know sets it
        """Is told whenever that changes whether every thread is in such a call."""

    @property
    def alive(self) -> bool:
        """False when every thread is in a call that was given up."""
        return self.stuck < self.threads

    async def call(self, work: Callable[[], Result]) -> Result:
        """Run `work` in a thread.

        Raises:
            Full, TooSlow. Whatever `work` raises.
        """
        if self.taken >= self._queue:
            raise Full
        loop = asyncio.get_running_loop()
        self.taken += 1
        future = self._executor.submit(work)
        given_up = False

        def finished(_: Future[Result]) -> None:
            self.taken -= 1
            if given_up:
                self.stuck -= 1
                self.tell(not self.alive)

        # A loop that has ended counts nothing any more.
        future.add_done_callback(lambda f: None if loop.is_closed() else loop.call_soon_threadsafe(finished, f))
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), self._timeout_s)
        except TimeoutError as error:
            if future.done():
                raise
            if not future.cancel():
                given_up = True
                self.stuck += 1
                self.tell(not self.alive)
            raise TooSlow from error

    def close(self) -> None:
        """Drop what waits; what runs is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)
