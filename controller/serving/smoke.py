"""The smoke test of a server: one request of the repository, answered as expected before any other is.

The request takes the way of every request through the application, and is neither counted nor logged.  A server
that fails it ends, and says of what: it never becomes ready.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from controller.clients.errors import Denied
from controller.serving.exchange import COPY_HEADER

VARIABLE: Final = "MAINSPRING_SMOKE_TEST"
"""JSON: `body`, `type` (media type) and `expect` as in the ModelSpec."""
MESSAGE_MAX: Final = 160
"""Longest message, characters: it travels in a pod's termination message."""


def pass_test(application: Any, environment: Mapping[str, str] = os.environ) -> None:
    """Send the request that the environment names, if it names one, and judge the answer.

    Raises:
        Denied: SmokeTestFailed: another answer than expected; one sentence.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        return
    told = json.loads(text)
    status, content = asyncio.run(_answer(application, told["body"].encode(), told["type"].encode()))
    if problem := wrong(told.get("expect") or {}, status, content):
        raise Denied(f"smoke test: {problem}"[:MESSAGE_MAX], reason="SmokeTestFailed")


async def _answer(application: Any, body: bytes, media: bytes) -> tuple[int, bytes]:
    """Ask the application without a socket; returns status and content."""
    sent: list[Any] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/invocations",
        "headers": [(b"content-type", media), (COPY_HEADER, b"1")],
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return int(sent[0]["status"]), b"".join(m.get("body", b"") for m in sent[1:])


def wrong(expect: Mapping[str, Any], status: int, content: bytes) -> str:
    """Say what is wrong with an answer; empty when nothing is.

    >>> wrong({"rows": 2, "among": ["yes", "no"]}, 200, b'{"predictions": ["yes", "maybe"]}')
    "prediction 2 is 'maybe', not one of yes, no"
    """
    wanted = expect.get("status", 200)
    if status != wanted:
        return f"status {status}, not {wanted}: {content[:80].decode(errors='replace')}"
    if status != 200:
        return ""
    try:
        predictions = orjson.loads(content)["predictions"]
    except (ValueError, KeyError, TypeError):
        return "the answer has no predictions"
    if (rows := expect.get("rows")) is not None and len(predictions) != rows:
        return f"{len(predictions)} predictions, not {rows}"
    return next((f"prediction {n} {p}" for n, v in enumerate(predictions, 1) if (p := _odd(expect, v))), "")


def _odd(expect: Mapping[str, Any], value: Any) -> str:
    """Say in what a prediction differs from what is expected; empty when in nothing."""
    least, most, among = expect.get("min"), expect.get("max"), expect.get("among")
    kind = "Boolean" if isinstance(value, bool) else "Text" if isinstance(value, str) else "Number"
    wanted = expect.get("type") or (kind if least is None and most is None else "Number")
    if kind != wanted:
        return f"is {value!r}, not a {wanted}"
    if least is not None and value < least:
        return f"is {value:g}, below {least:g}"
    if most is not None and value > most:
        return f"is {value:g}, above {most:g}"
    if among is not None and not _is_among(value, among):
        return f"is {value!r}, not one of {', '.join(among)}"
    return ""


def _is_among(value: Any, among: Sequence[str]) -> bool:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text in among or (isinstance(value, float) and value.is_integer() and str(int(value)) in among)
