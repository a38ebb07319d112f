"""The HTTP face of one model: /invocations in MLflow's protocol, health, metadata, metrics.

Every answer says in its headers which model, revision, version and commit gave it.  Errors are one sentence in
JSON: what the client can mend with row and column, what it cannot without a traceback.  Never loads anything.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from controller.clients.errors import Denied
from controller.serving import invocations
from controller.serving.invocations import BODY_MAX_BYTES, BadRequest
from controller.serving.metrics import Metrics
from controller.serving.pool import Full, Pool, TooSlow
from controller.serving.predictor import Predictor
from controller.serving.values import Scalar

log = logging.getLogger("mainspring.serving")

_CODES: Final = {
    400: "BAD_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_INCOMPLETE",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    500: "INTERNAL_ERROR",
    503: "RESOURCE_EXHAUSTED",
    504: "DEADLINE_EXCEEDED",
}
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_PARSERS: Final = {
    "application/json": invocations.parse_json,
    "text/csv": invocations.parse_csv,
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
    kinds: dict[str, str]
    """Kind of each column, where known."""
    unready: str = "no prediction was made yet"
    """Why the server is not ready; empty when it is."""
    draining: bool = False
    """True from the first signal to end."""
    since: str = ""
    """RFC 3339 moment of the start."""
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A request that ends with another status than 200."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


def build(state: State) -> Any:
    """Build the ASGI application."""
    state.headers = state.identity.headers()

    async def invoke(request: Request) -> Response:
        return await _invocations(request, state)

    async def live(_: Request) -> Response:
        alive = state.pool.alive
        return PlainTextResponse(
            "alive" if alive else "every prediction thread is in a call that does not end", 200 if alive else 503
        )

    async def ready(_: Request) -> Response:
        why = "ending" if state.draining else state.unready
        return PlainTextResponse(f"not ready: {why}" if why else "ready", 503 if why else 200)

    async def metadata(_: Request) -> Response:
        return JSONResponse(_metadata(state))

    async def version(_: Request) -> Response:
        return PlainTextResponse(state.identity.version)

    async def metrics(_: Request) -> Response:
        state.metrics.in_flight(state.pool.taken)
        return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def failed(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(error.status_code, str(error.detail), dict(error.headers or {}))

    routes = [
        Route("/invocations", invoke, methods=["POST"]),
        *(Route(path, live) for path in ("/health/live", "/livez")),
        *(Route(path, ready) for path in ("/health/ready", "/readyz", "/health", "/ping")),
        Route("/metadata", metadata),
        Route("/version", version),
        Route("/metrics", metrics),
    ]
    return _with_headers(Starlette(routes=routes, exception_handlers={HTTPException: failed}), state)


def _metadata(state: State) -> dict[str, Any]:
    who, predictor = state.identity, state.predictor
    return {
        "model": who.model,
        "revision": who.revision,
        "version": who.version,
        "commit": who.commit,
        "digest": who.digest,
        "format": predictor.format,
        "columns": None if predictor.columns is None else list(predictor.columns),
        "kinds": state.kinds,
        "packages": predictor.packages,
        "threads": state.pool.threads,
        "since": state.since,
    }


def _with_headers(app: Any, state: State) -> Any:
    """Add who answered to every response; a server that ends also asks clients to connect elsewhere."""
    fixed = [(k.encode(), v.encode("latin-1")) for k, v in state.headers.items()]

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        async def tell(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *fixed]
                if state.draining:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        await app(scope, receive, tell if scope["type"] == "http" else send)

    return outer


async def _invocations(request: Request, state: State) -> Response:
    started, status, rows = time.perf_counter(), 500, 0
    given = request.headers.get("x-request-id", "")
    name = given or uuid.uuid4().hex
    try:
        if given and not _REQUEST_ID.fullmatch(given):
            name = uuid.uuid4().hex
            raise Refused(400, "x-request-id must be 1 to 128 letters, digits or ._:-")
        parse = _parser(request)
        body = await _body(request)
        predictions = await _predicted(state, parse, body)
        status, rows = 200, len(predictions)
        response: Response = JSONResponse({"predictions": predictions})
    except Refused as error:
        status, response = error.status, _error(error.status, error.message, error.headers)
    except ClientDisconnect:
        status, response = 499, _error(408, "the client left before its request was complete", {})
    finally:
        state.metrics.answered(status, time.perf_counter() - started, rows)
    response.headers["x-request-id"] = name
    return response


def _parser(request: Request) -> Any:
    media, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.partition("charset=")[2].split(";")[0].strip(" \"'").lower()
    parse = _PARSERS.get(media.strip().lower())
    if parse is None:
        raise Refused(415, f"content-type must be {' or '.join(_PARSERS)}, not {media.strip()[:80] or 'absent'}")
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise Refused(415, f"charset must be utf-8, not {charset[:40]}")
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise Refused(415, f"content-encoding {encoding[:40]} is not accepted: send the body as it is")
    return parse


async def _body(request: Request) -> bytes:
    too_large = Refused(413, f"the body has more than {BODY_MAX_BYTES:,} bytes", {"connection": "close"})
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > BODY_MAX_BYTES:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_MAX_BYTES:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def _predicted(state: State, parse: Any, body: bytes) -> list[Scalar]:
    predictor, kinds = state.predictor, state.kinds

    def work() -> list[Scalar]:
        frame = parse(body, predictor.columns, kinds)
        try:
            return predictor.predict(frame)
        except Exception as error:
            if (refusal := invocations.refusal(frame, error)) is not None:
                raise refusal from error
            raise

    try:
        return await state.pool.call(work)
    except BadRequest as error:
        raise Refused(400, error.message) from error
    except Full as error:
        raise Refused(503, "too many requests are waiting; try again", {"retry-after": "1"}) from error
    except TooSlow as error:
        raise Refused(504, "the model did not answer in time") from error
    except Denied as error:
        log.error("%s: %s", error.reason, error.message)
        raise Refused(500, error.message) from error
    except Exception as error:
        log.error("the model failed: %s", type(error).__name__, exc_info=True)
        raise Refused(500, f"the model failed with {type(error).__name__}; the server's log says more") from error


def _error(status: int, message: str, headers: Mapping[str, str]) -> Response:
    body = json.dumps({"error_code": _CODES.get(status, "ERROR"), "message": message}, ensure_ascii=False)
    return Response(body, status, dict(headers), media_type="application/json")
