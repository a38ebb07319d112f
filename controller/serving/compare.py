"""Compares what this server answers with what the champion's answer to the same requests, in the background.

A sampled share of the requests is sent on as a copy, which the champion answers and neither counts nor logs.  At
most one copy is on its way and a few wait; whatever does not fit is left out, so that no request ever waits or
fails for it.  While the champion is away nothing is sent for a while.  Keeps no request longer than it takes.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from controller.serving.exchange import COPY_HEADER
from controller.serving.values import Scalar

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("mainspring.serving")

WAITING_MAX: Final = 8
BODY_MAX: Final = 262_144
"""Larger requests are not compared, bytes."""
ANSWER_MAX: Final = 4 << 20
TIMEOUT_S: Final = 5.0
PAUSE_S: Final = 0.05
"""Least time between two copies, seconds: at most 20 a second."""
AWAY_S: Final = (1.0, 60.0)
"""How long nothing is sent after the champion did not answer, doubled from the first to the last, seconds."""
_REFUSALS: Final = (400, 413, 415, 422)


class Told(Protocol):
    """What the comparison counts."""

    def compared(self, rows: int, disagreed: int) -> None:
        """Count one request that was compared."""
        ...

    def compare_failed(self) -> None:
        """Count one copy that the champion did not answer."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask, how often, and what counts as the same."""

    url: str
    """Address of the champion's servers, without a path."""
    share: float
    """Share of the requests that is copied, 0 to 1."""
    tolerance: float
    """By which share of the larger one two numbers may differ."""


@dataclass(frozen=True, slots=True)
class _Copy:
    headers: Mapping[bytes, bytes]
    body: bytes
    predictions: Sequence[Scalar]


def target_of(environment: Mapping[str, str] = os.environ) -> Target | None:
    """Read MAINSPRING_COMPARE_URL, _SHARE and _TOLERANCE; None where nothing is to be compared."""
    url = environment.get("MAINSPRING_COMPARE_URL", "")
    if not url:
        return None
    numbers = (float(environment.get(f"MAINSPRING_COMPARE_{name}", "0.1")) for name in ("SHARE", "TOLERANCE"))
    return Target(url.rstrip("/"), *numbers)


def disagreeing(mine: Sequence[Scalar], its: Any, tolerance: float, *, classes: bool) -> int:
    """Count the rows that two models predict differently.

    Args:
        mine: what one predicts.
        its: what the other answered; all rows count where that is no list of as many predictions.
        tolerance: by which share of the larger one two numbers may differ.
        classes: predictions are classes: only equal ones agree.

    >>> disagreeing([1.0, 2.0, "a"], [1.05, 3.0, "a"], 0.1, classes=False)
    1
    """
    if not isinstance(its, list) or len(its) != len(mine):
        return len(mine)
    return sum(not _same(a, b, 0.0 if classes else tolerance) for a, b in zip(mine, its, strict=True))


def _same(a: Any, b: Any, tolerance: float) -> bool:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    if a == b or not numbers or isinstance(a, bool) or isinstance(b, bool):
        return bool(a == b)
    return bool(abs(a - b) <= tolerance * max(abs(a), abs(b)))


class Comparer:
    """Sends copies and compares the answers; belongs to the event loop of the first request."""

    def __init__(
        self,
        target: Target,
        told: Told,
        *,
        classes: bool,
        client: Callable[[], httpx.AsyncClient] | None = None,
    ) -> None:
        self._target, self._told, self._classes = target, told, classes
        self._client = client or _client
        self._waiting: asyncio.Queue[_Copy] = asyncio.Queue(WAITING_MAX)
        self._task: asyncio.Task[None] | None = None
        self._credit = 0.0
        self._away_s = self._until = 0.0

    def offer(self, media: bytes, encoding: bytes, body: bytes, predictions: Sequence[Scalar]) -> None:
        """Take a request that was answered, if its turn has come and there is room. Never waits, never raises."""
        self._credit += self._target.share
        if self._credit < 1:
            return
        self._credit -= 1
        away = asyncio.get_running_loop().time() < self._until
        if away or len(body) > BODY_MAX or self._waiting.full():
            return
        headers = {b"content-type": media, COPY_HEADER: b"1"}
        if encoding:
            headers[b"content-encoding"] = encoding
        self._waiting.put_nowait(_Copy(headers, body, predictions))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    @property
    def waiting(self) -> int:
        """How many copies wait to be sent."""
        return self._waiting.qsize()

    async def close(self) -> None:
        """Give up what is on its way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        async with self._client() as client:
            while True:
                copy = await self._waiting.get()
                if await self._one(client, copy):
                    self._away_s = 0.0
                else:
                    self._rest()
                await asyncio.sleep(PAUSE_S)

    def _rest(self) -> None:
        """Leave the champion alone for a while, longer each time."""
        self._told.compare_failed()
        self._away_s = min(max(self._away_s * 2, AWAY_S[0]), AWAY_S[1])
        self._until = asyncio.get_running_loop().time() + self._away_s
        while not self._waiting.empty():
            self._waiting.get_nowait()

    async def _one(self, client: httpx.AsyncClient, copy: _Copy) -> bool:
        """Send a copy and compare; False when the champion gave no answer that says anything."""
        import httpx

        try:
            answer = await client.post(
                f"{self._target.url}/invocations", content=copy.body, headers=list(copy.headers.items())
            )
        except httpx.HTTPError as error:
            log.info("a copy was not answered: %s", type(error).__name__)
            return False
        rows = len(copy.predictions)
        if answer.status_code in _REFUSALS:
            self._told.compared(rows, rows)
            return True
        if answer.status_code != 200 or len(answer.content) > ANSWER_MAX:
            return False
        try:
            its = orjson.loads(answer.content).get("predictions")
        except (ValueError, AttributeError):
            return False
        differ = disagreeing(copy.predictions, its, self._target.tolerance, classes=self._classes)
        self._told.compared(rows, differ)
        return True


def _client() -> httpx.AsyncClient:
    import httpx

    return httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False)
