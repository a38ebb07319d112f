"""The router of local mode: one process in front of all model servers.

`/<namespace>/<model>/<path>` goes to one of the model's backends by weight.  A request is lost only when nobody
can answer it: a server that refuses or drops the connection is skipped, and the request goes to the next one
(predictions change nothing, so asking twice is safe).  Knows no object store; the runner tells it by a file.
Starts as `python -m controller.local.router --config <file> --port <n>`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from controller.local.router_config import Balancer, Routes

BODY_MOST: Final = 16 * 1024 * 1024
"""Largest request body."""
TIMEOUT_S: Final = 30.0
"""Longest wait for a server's answer."""
CONNECT_S: Final = 2.0
TRIES: Final = 8
"""How often one request is sent at most."""
PAUSE_S: Final = 0.1
"""After everybody refused: wait that long for news from the runner, then ask once more."""
BACKEND_HEADER: Final = "x-mainspring-backend"

_HOP: Final = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "trailers")
    + ("transfer-encoding", "upgrade", "content-length", "host", "expect")
)
_METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_BROKEN: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.RemoteProtocolError,
)


class Router:
    """Forwards requests; holds the connections and the counters."""

    def __init__(self, routes: Routes, client: httpx.AsyncClient) -> None:
        self._routes = routes
        self._client = client
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._inflight: Counter[str] = Counter()

    async def forward(self, request: Request) -> Response:
        """Answer one request to a model."""
        model = f"{request.path_params['namespace']}/{request.path_params['model']}"
        balancer = self._routes.find(model)
        if balancer is None:
            return _error(404, "ModelNotFound", f"there is no model {model}; its path is /<namespace>/<model>/…")
        self._counts[model, "", "requests"] += 1
        body = await _body(request)
        if body is None:
            return _error(413, "BodyTooLarge", f"the request to model {model} has more than {BODY_MOST:,} bytes")
        response = await self._ask(model, balancer, request, body)
        if response.status_code >= 502 and BACKEND_HEADER not in response.headers:
            self._counts[model, "", "failures"] += 1
        return response

    async def _ask(self, model: str, balancer: Balancer, request: Request, body: bytes) -> Response:
        last: Exception | None = None
        tries = 0
        for _ in range(2):
            for backend, endpoint in balancer.in_turn():
                if tries >= TRIES:
                    break
                if tries:
                    self._counts[model, backend.name, "retries"] += 1
                tries += 1
                self._counts[model, backend.name, "requests"] += 1
                try:
                    return await self._send(backend.name, endpoint, request, body)
                except _BROKEN as error:
                    self._counts[model, backend.name, "failures"] += 1
                    last = error
                except httpx.TimeoutException:
                    self._counts[model, backend.name, "failures"] += 1
                    text = f"model {model}: {backend.name} did not answer within {TIMEOUT_S:g} s"
                    return _error(504, "ModelTimeout", text)
            # The runner may just be taking a dead server out, or putting a new one in.
            await asyncio.sleep(PAUSE_S)
            self._routes.refresh(at_once=True)
            balancer = self._routes.find(model) or balancer
        if last is None:
            return _error(503, "ModelNotReady", f"model {model} has no server that is ready; try again soon")
        text = f"no server of model {model} answered; {tries} attempts, the last one: {type(last).__name__}"
        return _error(502, "ModelUnreachable", text)

    async def _send(self, backend: str, endpoint: str, request: Request, body: bytes) -> Response:
        path = request.path_params.get("path", "")
        url = httpx.URL(f"http://{endpoint}", raw_path=_raw_path(request, path))
        headers = [(k, v) for k, v in request.headers.raw if k.decode("latin-1") not in _HOP]
        outgoing = self._client.build_request(request.method, url, headers=headers, content=body)
        self._inflight[endpoint] += 1
        try:
            answer = await self._client.send(outgoing, stream=True)
            try:
                content = b"".join([chunk async for chunk in answer.aiter_raw()])
            finally:
                await answer.aclose()
        finally:
            self._inflight[endpoint] -= 1
            if not self._inflight[endpoint]:
                del self._inflight[endpoint]
        response = Response(content, status_code=answer.status_code)
        kept = [(k.lower(), v) for k, v in answer.headers.raw if k.lower().decode("latin-1") not in _HOP]
        length = [(k, v) for k, v in response.raw_headers if k == b"content-length"]
        if request.method == "HEAD":
            length = [(k.lower(), v) for k, v in answer.headers.raw if k.lower() == b"content-length"]
        response.raw_headers = [*kept, *length, (BACKEND_HEADER.encode(), backend.encode())]
        return response

    async def healthz(self, _: Request) -> Response:
        """Say that the router runs, which table is in force, and how many requests each server works on."""
        self._routes.refresh(at_once=True)
        return JSONResponse(
            {"status": "ok", "generation": self._routes.generation, "inflight": dict(self._inflight)}
        )

    async def metrics(self, _: Request) -> Response:
        """Count requests, failures and retries since the start, by model and by backend."""
        models: dict[str, dict[str, Any]] = {}
        for (model, backend, what), count in sorted(self._counts.items()):
            of_model = models.setdefault(model, {"requests": 0, "failures": 0, "retries": 0, "backends": {}})
            if not backend:
                of_model[what] += count
                continue
            zero = {"requests": 0, "failures": 0, "retries": 0}
            of_model["backends"].setdefault(backend, zero)[what] += count
            of_model["retries"] += count if what == "retries" else 0
        return JSONResponse({"models": models})


def _raw_path(request: Request, path: str) -> bytes:
    """Return the path after the model's name as the client wrote it, escapes included, with the query."""
    raw: bytes = request.scope.get("raw_path") or f"///{path}".encode()
    parts = raw.split(b"/", 3)
    query: bytes = request.scope.get("query_string", b"")
    return b"/" + (parts[3] if len(parts) > 3 else b"") + (b"?" + query if query else b"")


async def _body(request: Request) -> bytes | None:
    """Read the body; None if it is too large, without reading all of it."""
    try:
        if int(request.headers.get("content-length", "0")) > BODY_MOST:
            return None
    except ValueError:
        return None
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > BODY_MOST:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _error(status: int, reason: str, message: str) -> Response:
    return JSONResponse({"error": {"reason": reason, "message": message}}, status_code=status)


async def _client_left(_: Request, _error: Exception) -> Response:
    return Response(status_code=499)


def build_app(config: Path) -> Starlette:
    """Build the application that serves the routes of a file."""
    # Shorter than any server's keep-alive, so that a connection is not reused while its server closes it.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=200, keepalive_expiry=3.0)
    timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
    client = httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False, follow_redirects=False)
    router = Router(Routes(config), client)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    routes = [
        Route("/_router/healthz", router.healthz),
        Route("/_router/metrics", router.metrics),
        Route("/{namespace}/{model}", router.forward, methods=_METHODS),
        Route("/{namespace}/{model}/{path:path}", router.forward, methods=_METHODS),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={ClientDisconnect: _client_left})


def main(arguments: list[str] | None = None) -> None:
    """Run the router until SIGTERM."""
    parser = argparse.ArgumentParser(prog="mainspring-router", description="weighted router of local mode")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    uvicorn.run(
        build_app(given.config),
        host=given.host,
        port=given.port,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
        lifespan="on",
    )


if __name__ == "__main__":
    main()
