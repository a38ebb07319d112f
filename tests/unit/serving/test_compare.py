"""Disagreement: a challenger sends copies to the champion and counts what differs; copies are no traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import httpx
import orjson
import pytest

from controller.clients.telemetry import parse
from controller.serving.app import build
from controller.serving.compare import AWAY_S, Comparer, Target, disagreeing, target_of
from tests.support.serving_client import client_of

JSON = b"application/json"


class Counts:
    def __init__(self) -> None:
        self.requests = self.rows = self.disagreed = self.failed = 0

    def compared(self, rows: int, disagreed: int) -> None:
        self.requests, self.rows, self.disagreed = self.requests + 1, self.rows + rows, self.disagreed + disagreed

    def compare_failed(self) -> None:
        self.failed += 1


SAME: dict[str, tuple[list[Any], Any, bool, int]] = {
    "equal classes": (["a", "b"], ["a", "b"], True, 0),
    "another class": (["a", "b"], ["a", "c"], True, 1),
    "classes that are numbers": ([1, 2], [1, 3], True, 1),
    "numbers within the tolerance": ([1.0, -100.0], [1.09, -109.0], False, 0),
    "numbers beyond it": ([1.0, -100.0], [1.2, 100.0], False, 2),
    "zero beside nearly zero": ([0.0], [1e-9], False, 1),
    "truth and one are not the same": ([True], [False], False, 1),
    "a list of another length": ([1.0, 2.0], [1.0], False, 2),
    "no list at all": ([1.0], {"a": 1}, False, 1),
}


@pytest.mark.parametrize("what", SAME)
def test_rows_that_differ_are_counted(what: str) -> None:
    mine, its, classes, want = SAME[what]
    assert disagreeing(mine, its, 0.1, classes=classes) == want


def test_nothing_is_compared_unless_the_environment_says_so() -> None:
    assert target_of({}) is None
    told = {"MAINSPRING_COMPARE_URL": "http://a:8080/", "MAINSPRING_COMPARE_SHARE": "0.5"}
    assert target_of(told) == Target("http://a:8080", 0.5, 0.1)


def reached(counts: Counts, requests: int) -> bool:
    return counts.requests == requests


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0)


def comparing(answer: Callable[[httpx.Request], httpx.Response], share: float = 1.0) -> tuple[Comparer, Counts]:
    counts = Counts()
    comparer = Comparer(
        Target("http://champion", share, 0.1),
        counts,
        classes=True,
        client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer)),
    )
    return comparer, counts


def answering(predictions: Sequence[Any], status: int = 200) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, content=orjson.dumps({"predictions": predictions}))


def test_only_the_share_that_was_asked_for_is_copied() -> None:
    async def go() -> int:
        comparer, counts = comparing(answering(["a"]), share=0.25)
        for turn in range(1, 21):
            comparer.offer(JSON, b"", b"{}", ["a"])
            await until(partial(reached, counts, turn // 4))
        await comparer.close()
        return counts.requests

    assert asyncio.run(go()) == 5


OUTCOMES: dict[str, tuple[Callable[[httpx.Request], httpx.Response], tuple[int, int, int]]] = {
    "the same": (answering(["a", "b"]), (1, 0, 0)),
    "one row differs": (answering(["a", "c"]), (1, 1, 0)),
    "the champion refuses what the challenger takes": (answering([], 400), (1, 2, 0)),
    "the champion is too busy": (answering([], 429), (0, 0, 1)),
    "the champion fails": (answering([], 500), (0, 0, 1)),
    "an answer that is no JSON": (lambda _: httpx.Response(200, content=b"?"), (0, 0, 1)),
}


@pytest.mark.parametrize("what", OUTCOMES)
def test_an_answer_counts_as_what_it_is(what: str) -> None:
    answer, want = OUTCOMES[what]

    async def go() -> tuple[int, int, int]:
        comparer, counts = comparing(answer)
        comparer.offer(JSON, b"", b"{}", ["a", "b"])
        await until(lambda: counts.requests + counts.failed > 0)
        await comparer.close()
        return counts.requests, counts.disagreed, counts.failed

    assert asyncio.run(go()) == want


def test_a_champion_that_is_away_is_left_alone_and_no_request_waits() -> None:
    asked: list[int] = []

    def away(_: httpx.Request) -> httpx.Response:
        asked.append(1)
        raise httpx.ConnectError("refused")

    async def go() -> int:
        comparer, counts = comparing(away)
        comparer.offer(JSON, b"", b"{}", ["a"])
        await until(lambda: counts.failed == 1)
        started = asyncio.get_running_loop().time()
        for _ in range(1000):
            comparer.offer(JSON, b"", b"{}", ["a"])
        assert asyncio.get_running_loop().time() - started < AWAY_S[0]
        await asyncio.sleep(0)
        await comparer.close()
        return counts.failed

    assert asyncio.run(go()) == 1
    assert len(asked) == 1


def test_what_does_not_fit_is_left_out() -> None:
    gate = asyncio.Event()
    asked: list[int] = []

    async def slow(_: httpx.Request) -> httpx.Response:
        asked.append(1)
        await gate.wait()
        return httpx.Response(200, content=b'{"predictions":["a"]}')

    async def go() -> None:
        comparer = Comparer(
            Target("http://champion", 1.0, 0.1),
            Counts(),
            classes=True,
            client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(slow)),
        )
        for _ in range(100):
            comparer.offer(JSON, b"", b"{}", ["a"])
        comparer.offer(JSON, b"", b"x" * 300_000, ["a"])
        await until(lambda: len(asked) == 1)
        assert comparer.waiting <= 8
        gate.set()
        await comparer.close()

    asyncio.run(go())


def test_a_copy_is_answered_and_counted_as_no_request(pipeline, table) -> None:
    """Both servers are real: the challenger's calls the champion's through its own application."""
    from controller.serving.predict import request_body

    sample = request_body(table.head(1))

    async def go() -> tuple[dict[str, float], dict[str, float], bytes]:
        champion, challenger = client_of(pipeline, sample).state, client_of(pipeline, sample).state
        other = httpx.ASGITransport(app=build(champion))
        challenger.compare = Comparer(
            Target("http://champion", 1.0, 0.1),
            challenger.metrics,
            classes=True,
            client=lambda: httpx.AsyncClient(transport=other),
        )
        transport = httpx.ASGITransport(app=build(challenger))
        async with httpx.AsyncClient(transport=transport, base_url="http://challenger") as client:
            json = {"content-type": "application/json"}
            answer = await client.post("/invocations", content=request_body(table), headers=json)
            assert answer.status_code == 200
            await until(lambda: b"mainspring_compared_requests_total 1" in challenger.metrics.text())
        await challenger.compare.close()
        texts = [state.metrics.text() for state in (champion, challenger)]
        return parse(texts[0].decode()), parse(texts[1].decode()), texts[0]

    its, mine, text = asyncio.run(go())
    assert (mine["requests"], mine["compared_requests"], mine["compared"], mine["disagreed"]) == (1, 1, 60, 0)
    assert (its["requests"], its["rows"]) == (0, 0)
    assert not [name for name in its if name.startswith("p=")]
    assert b"mainspring_copied_requests_total 1" in text
