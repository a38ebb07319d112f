"""The queue: one worker per key, doubles merged, failures back off alone, one slow object delays nobody."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from controller.api.meta import Key
from controller.clients.errors import ClientError, Denied, Unavailable
from controller.reconcile.queue import Next, Queue

A, B = Key("ModelSpec", "default", "a"), Key("ModelSpec", "default", "b")


def run(
    work: Callable[[Key], Awaitable[Next]], story: Callable[[Queue], Awaitable[None]], workers: int = 8
) -> None:
    async def go() -> None:
        queue, stop = Queue(work, workers=workers), asyncio.Event()
        running = asyncio.create_task(queue.run(stop))
        async with asyncio.timeout(10):
            await story(queue)
            stop.set()
            await running

    asyncio.run(go())


def test_a_key_is_never_worked_on_twice_at_once_and_changes_meanwhile_are_not_lost() -> None:
    active, most = 0, 0
    done: list[Key] = []
    release = asyncio.Event()
    again = asyncio.Event()

    async def work(key: Key) -> Next:
        nonlocal active, most
        active += 1
        most = max(most, active)
        if not done:
            await release.wait()
        active -= 1
        done.append(key)
        if len(done) == 2:
            again.set()
        return Next.done()

    async def story(queue: Queue) -> None:
        queue.add(A)
        while not active:
            await asyncio.sleep(0)
        queue.add(A)
        queue.add(A)
        release.set()
        await again.wait()

    run(work, story)
    assert (most, done) == (1, [A, A])


def test_an_object_that_hangs_or_fails_delays_no_other() -> None:
    served = asyncio.Event()

    async def work(key: Key) -> Next:
        if key == A:
            await asyncio.Event().wait()
        served.set()
        return Next.done()

    async def story(queue: Queue) -> None:
        queue.add(A)
        queue.add(B)
        await served.wait()

    run(work, story)


def test_a_failure_is_tried_again_and_a_bug_ends_nothing() -> None:
    seen: list[Key] = []
    twice = asyncio.Event()

    async def work(key: Key) -> Next:
        seen.append(key)
        if key == B:
            raise KeyError("a bug")
        if len([k for k in seen if k == A]) == 2:
            twice.set()
            return Next.done()
        raise Unavailable("the store does not answer")

    async def story(queue: Queue) -> None:
        queue.add(B)
        queue.add(A)
        await twice.wait()

    run(work, story)
    assert seen[:2] == [B, A]


def test_a_look_is_taken_again_after_its_time() -> None:
    count = 0
    third = asyncio.Event()

    async def work(key: Key) -> Next:
        nonlocal count
        count += 1
        if count == 3:
            third.set()
        return Next.after(0.01)

    async def story(queue: Queue) -> None:
        queue.add(A)
        await third.wait()

    run(work, story)


class Skipping(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 0.0
        outer = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> Any:
                found = super().select(0 if timeout is not None else None)
                if not found and timeout:
                    outer.now += timeout
                return found

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


DAY_S = 86_400.0


def looks(error: ClientError, away_s: float, *, raised: bool = False) -> list[float]:
    """Work on a key while something is away for so long; returns when it was looked at, seconds."""
    seen: list[float] = []
    back = asyncio.Event()

    async def work(key: Key) -> Next:
        seen.append(asyncio.get_running_loop().time())
        if seen[-1] >= away_s:
            back.set()
            return Next.done()
        if raised:
            raise error
        return Next.failed(error)

    async def go() -> None:
        queue, stop = Queue(work), asyncio.Event()
        running = asyncio.create_task(queue.run(stop))
        queue.add(A)
        await back.wait()
        stop.set()
        await running

    with asyncio.Runner(loop_factory=Skipping) as runner:
        runner.run(go())
    return seen


@pytest.mark.parametrize(
    "away_s",
    [
        pytest.param(20.0, id="20 seconds"),
        pytest.param(600.0, id="10 minutes"),
        pytest.param(DAY_S, id="a day"),
    ],
)
@pytest.mark.parametrize(
    "raised", [False, True], ids=["an action could not be done", "the look could not be taken"]
)
def test_what_waits_for_something_that_was_away_goes_on_within_a_minute_of_its_return(away_s, raised):
    seen = looks(Unavailable("mlflow.example.com did not answer"), away_s, raised=raised)
    assert away_s <= seen[-1] <= away_s + 60
    assert len(seen) <= 8 + away_s / 30, "it is not asked all the time either"


def test_what_only_a_person_can_mend_is_looked_at_every_few_minutes():
    seen = looks(Denied("the right to create Jobs is missing"), DAY_S)
    pauses = [b - a for a, b in itertools.pairwise(seen)]
    assert 240 <= max(pauses) <= 360
    assert len(seen) < DAY_S / 200
