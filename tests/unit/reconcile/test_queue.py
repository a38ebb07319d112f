"""The queue: one worker per key, doubles merged, failures back off alone, one slow object delays nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from controller.api.meta import Key
from controller.clients.errors import Unavailable
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
