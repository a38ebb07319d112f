"""Going back must not wait for Git: a repository that never answers holds up no order of a person."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from controller.api.meta import Key
from controller.clients.git_types import GitRef, Head
from controller.plan.verdict import Unknown
from controller.reconcile import observe
from tests.support.hard_simulation import HardSimulation
from tests.unit.stories.test_more_stories import A, better
from tests.unit.stories.test_override_stories import order
from tests.unit.stories.test_stories import first_commit

KEY = Key("ModelSpec", "default", "bikes")
PATIENCE_S = 10.0


def silent(s: HardSimulation) -> list[str]:
    """Let Git take every request and answer none; returns what became of them."""
    asked: list[str] = []

    async def resolve(url: str, ref: GitRef, **_: Any) -> Head:
        asked.append("asked")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asked.append("given up")
            raise
        raise AssertionError("nobody ends this wait")

    s.git.resolve = resolve  # type: ignore[method-assign]
    return asked


async def replaced() -> HardSimulation:
    s = HardSimulation()
    await first_commit(s)
    await better(s, 240)
    return s


def test_an_order_that_is_there_is_taken_up_without_a_word_to_git() -> None:
    async def go() -> tuple[list[str], Any]:
        s = await replaced()
        asked = silent(s)
        await order(s, "Rollback", A)
        return asked, await observe.model(s.world, KEY)

    asked, seen = asyncio.run(go())
    assert isinstance(seen.source, Unknown)
    assert seen.source.reason == "OrderFirst"
    assert asked == []


def test_a_look_that_waits_for_git_lets_go_of_it_when_a_person_orders_something() -> None:
    async def go() -> tuple[list[str], Any, float]:
        s = await replaced()
        asked = silent(s)
        look = asyncio.create_task(observe.model(s.world, KEY))
        async with asyncio.timeout(PATIENCE_S):
            while not asked:
                await asyncio.sleep(0.01)
        await order(s, "Rollback", A)
        begun = time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            seen = await look
        await asyncio.sleep(0)
        return asked, seen, time.monotonic() - begun

    asked, seen, took = asyncio.run(go())
    assert asked == ["asked", "given up"]
    assert seen.source.reason == "OrderFirst"
    assert [o.metadata.name for o in seen.overrides] == ["bikes-rollback"]
    assert took < 3 * observe.GIT_PATIENCE_S
