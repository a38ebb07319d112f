"""One request on its way through a server: how it is counted, logged and answered, and what it may fail of.

Every answer says in its headers which model, revision, version and commit gave it.  Errors are one sentence in
JSON: what the client can mend with row and column, what it cannot without a traceback.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from controller.clients.errors import Denied
from controller.serving import exchange
from controller.serving.compare import Comparer
from controller.serving.engine import Engine, RowFailed, Served
from controller.serving.exchange import Head, Left, Refused
from controller.serving.invocations import BODY_MAX_BYTES, BadRequest
from controller.serving.metrics import Metrics
from controller.serving.pool import Full, Pool, TooSlow
from controller.serving.predictor import Predictor
from controller.serving.predlog import Record
from controller.serving.predlog_server import Logging
from controller.serving.protocol import WAITING
from controller.serving.shared import READY

log = logging.getLogger("mainspring.serving")

BODY_S: Final = 30.0
"""Longest that a request's body may take to arrive."""
WAITING_MAX: Final = 1024
"""Most requests that one process is answering, those in the event loop and those whose body comes included."""
OVERLOAD: Final = "too many requests are waiting; try again"
_NONE: Final[dict[str, int]] = {}
RETRY_S: Final = 1
"""When a client that was refused for load should try again."""
JSON: Final = b"application/json"
TEXT: Final = b"text/plain; charset=utf-8"
_RANDOM: Final = os.urandom(10).hex().encode()
_COUNT: Final = itertools.count()
_CODES: Final = {
    400: "BAD_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_INCOMPLETE",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL_ERROR",
    504: "DEADLINE_EXCEEDED",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """What is served: names as in the ModelSpec's status, and the digest that was verified."""

    model: str
    revision: str
    version: str
    commit: str
    digest: str

    def headers(self) -> dict[str, str]:
        """Give the headers that every answer carries."""
        pairs = (
            ("model", self.model),
            ("revision", self.revision),
            ("version", self.version),
            ("commit", self.commit),
        )
        return {f"x-mainspring-{k}": re.sub(r"[^\x21-\x7e]", "_", v) for k, v in pairs}


@dataclass(slots=True)
class State:
    """What changes while a server runs."""

    predictor: Predictor
    identity: Identity
    pool: Pool
    metrics: Metrics
    engine: Engine
    log: Logging | None = None
    """The prediction log; None: nothing is logged."""
    compare: Comparer | None = None
    """Compares answers with the champion's; None: nothing is compared."""
    unready: str = "no prediction was made yet"
    """Why this process is not ready; empty when it is."""
    draining: bool = False
    """True from the first signal to end."""
    since: str = ""
    """RFC 3339 moment of the start."""
    body_s: float = BODY_S
    """Longest that a request's body may take to arrive."""
    headers: list[exchange.Pair] = field(default_factory=list)
    """What every answer carries."""

    @property
    def why_unready(self) -> str:
        """Why the server is not ready: this process, or another one of its workers; empty when it is."""
        if self.draining:
            return "ending"
        if self.unready or self.metrics.shared.all_are(READY):
            return self.unready
        return "another worker has not predicted yet"


Answered = Callable[["Call"], Awaitable[None]]


@dataclass(slots=True)
class Call:
    """One request on its way through the application."""

    state: State
    scope: Any
    receive: Any
    send: Any
    name: bytes = b""
    """Its id: given by the client, or made up."""

    async def answer(
        self, status: int, content: bytes, media: bytes = JSON, *more: exchange.Pair, pack: bool = False
    ) -> None:
        """Send an answer with the headers that all answers carry."""
        headers = [*more, *self.state.headers]
        if self.name:
            headers.append((b"x-request-id", self.name))
        if self.state.draining:
            headers.append((b"connection", b"close"))
        await exchange.answer(self.send, status, content, media, headers, pack=pack)

    async def refuse(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Send an error in the form of the protocol that was asked."""
        pairs = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
        await self.answer(status, problem(self.scope["path"], status, message), JSON, *pairs)


def problem(path: str, status: int, message: str) -> bytes:
    """Write an error as the protocol of a path has it."""
    if path.startswith("/v2"):
        return orjson.dumps({"error": message})
    return orjson.dumps({"error_code": _CODES.get(status, "ERROR"), "message": message})


def _made_up() -> bytes:
    """Make up the id of a request: 32 hex digits that nobody else makes up.

    What is random of it is asked for once: asking the kernel for every request takes a tenth of its time.
    """
    return b"%s%012x" % (_RANDOM, next(_COUNT))


Work = tuple[Served, bytes, bytes, list[exchange.Pair]]
"""Predictions, and the answer with its media type and further headers."""


async def counted(call: Call, work: Callable[[Head], Awaitable[Work]]) -> None:
    """Answer one request for predictions, and count it however it ends."""
    started, state, head = time.perf_counter(), call.state, Head(call.scope)
    if head.copy:
        await _copied(call, head, work)
        return
    status, rows = 500, 0
    state.metrics.began()
    try:
        call.name = head.id or _made_up()
        if call.scope.get("state", _NONE).get(WAITING, 0) >= WAITING_MAX:
            raise Refused(429, OVERLOAD, {"retry-after": str(RETRY_S)})
        if head.id and not exchange.REQUEST_ID.fullmatch(head.id):
            call.name = _made_up()
            raise Refused(400, "x-request-id must be 1 to 128 letters, digits or ._:-")
        served, content, media, pairs = await work(head)
        status, rows = 200, len(served.predictions)
        state.metrics.timed(served.queue_s, served.predict_s)
        served.seen.count(state.metrics)
        if state.log is not None:
            await state.log.keep(_record(call, served))
        await call.answer(200, content, media, *pairs, pack=head.gzip and not pairs)
    except Refused as error:
        status = error.status
        await call.refuse(error.status, error.message, error.headers)
    except Left:
        status = 499
    finally:
        state.metrics.answered(status, time.perf_counter() - started, rows)


async def _copied(call: Call, head: Head, work: Callable[[Head], Awaitable[Work]]) -> None:
    """Answer a copy that a challenger sent to compare answers; it is no traffic, and nobody waits for it."""
    call.state.metrics.copied()
    try:
        _, content, media, pairs = await work(head)
        await call.answer(200, content, media, *pairs)
    except Refused as error:
        await call.refuse(error.status, error.message, error.headers)
    except Left:
        return


def _record(call: Call, served: Served) -> Record:
    table = served.table
    classes = call.state.predictor.classes or () if served.scores is not None else ()
    return Record(
        call.name.decode(),
        time.time_ns() // 1000,
        table.names,
        table.inputs,
        served.predictions,
        classes,
        served.scores,
    )


async def predicted(state: State, head: Head, parse: Any, data: bytes) -> Served:
    """Predict the rows of a body.

    Raises:
        Refused: with everything that can go wrong.
    """
    packed = head.encoding not in (b"", b"identity")

    def read(given: bytes) -> Any:
        return parse(exchange.unpacked(given, head.encoding, BODY_MAX_BYTES))

    try:
        return await state.engine.run(read if packed else parse, data, small=not packed)
    except BadRequest as error:
        raise Refused(400, error.message) from error
    except Full as error:
        raise Refused(429, OVERLOAD, {"retry-after": str(RETRY_S)}) from error
    except TooSlow as error:
        raise Refused(504, "the model did not answer in time") from error
    except Denied as error:
        log.error("%s: %s", error.reason, error.message)
        raise Refused(500, error.message) from error
    except Refused:
        raise
    except Exception as error:
        cause = (error.__cause__ or error) if isinstance(error, RowFailed) else error
        name = type(cause).__name__ + (f" for row {error.row}" if isinstance(error, RowFailed) else "")
        log.error("the model failed with %s", name, exc_info=cause)
        raise Refused(500, f"the model failed with {name}; the server's log says more") from error
