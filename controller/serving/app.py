"""The HTTP face of one model: predictions by MLflow's protocol and the Open Inference Protocol, health, metrics.

Bare ASGI: one look-up of the path, no framework.  What every request has in common is in `call.py`.  Never loads
anything.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from controller.serving import exchange, openapi, openinference
from controller.serving.call import JSON, TEXT, Answered, Call, State, Work, counted, predicted
from controller.serving.exchange import Head, Refused
from controller.serving.invocations import BODY_MAX_BYTES, BadRequest
from controller.serving.shared import READY

POST: Final[tuple[str, ...]] = ("POST",)
GET: Final[tuple[str, ...]] = ("GET", "HEAD")
METRICS: Final = b"text/plain; version=0.0.4; charset=utf-8"


def build(state: State) -> Any:
    """Build the ASGI application."""
    state.headers = [(k.encode(), v.encode("latin-1")) for k, v in state.identity.headers().items()]
    if not state.unready:
        state.metrics.shared.mine[READY] = 1.0
    pages: dict[str, Answered] = {
        **dict.fromkeys(("/health/live", "/livez"), _live),
        **dict.fromkeys(("/health/ready", "/readyz", "/health", "/ping"), _ready),
        "/metadata": _metadata,
        "/version": _version,
        "/metrics": _metrics,
        "/openapi.json": _openapi,
        "/docs": _docs,
        "/v2": _v2_server,
        "/v2/health/live": _v2_live,
        "/v2/health/ready": _v2_ready,
    }
    asked: dict[str, Answered] = {"/invocations": _invocations}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await _lifespan(scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        call = Call(state, scope, receive, send)
        handler, answered = asked.get(path), POST
        if handler is None:
            handler = pages.get(path)
            if handler is None and path.startswith("/v2/models/"):
                handler = _v2_model(call)
            if handler is not _v2_infer:
                answered = GET
        if handler is None:
            await call.refuse(404, "there is nothing here; /docs says what there is")
        elif method not in answered:
            await call.refuse(405, f"only {answered[0]} is answered here", {"allow": ", ".join(answered)})
        else:
            await handler(call)

    return app


def _described(state: State) -> openapi.Described:
    who = state.identity
    return openapi.Described(
        who.model, who.revision, who.version, who.commit, state.predictor, state.engine.kinds, state.engine.gaps
    )


async def _openapi(call: Call) -> None:
    await call.answer(200, orjson.dumps(openapi.document(_described(call.state))))


async def _docs(call: Call) -> None:
    # Nothing of it may be run, and nothing fetched, whatever a column is called.
    policy = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'")
    await call.answer(200, openapi.page(_described(call.state)), b"text/html; charset=utf-8", policy)


async def _lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Agree to start and to stop, for servers that ask; there is nothing to do for either."""
    while scope["type"] == "lifespan":
        moment = (await receive())["type"]
        await send({"type": f"{moment}.complete"})
        if moment == "lifespan.shutdown":
            return


async def _live(call: Call) -> None:
    alive = call.state.pool.alive
    said = b"alive" if alive else b"every prediction thread is in a call that does not end"
    await call.answer(200 if alive else 503, said, TEXT)


async def _ready(call: Call) -> None:
    why = call.state.why_unready
    await call.answer(503 if why else 200, f"not ready: {why}".encode() if why else b"ready", TEXT)


async def _version(call: Call) -> None:
    await call.answer(200, call.state.identity.version.encode(), TEXT)


async def _metrics(call: Call) -> None:
    logged = call.state.log.text() if call.state.log is not None else b""
    await call.answer(200, call.state.metrics.text() + logged, METRICS)


async def _metadata(call: Call) -> None:
    state = call.state
    who, predictor = state.identity, state.predictor
    found = {
        "model": who.model,
        "revision": who.revision,
        "version": who.version,
        "commit": who.commit,
        "digest": who.digest,
        "format": predictor.format,
        "form": predictor.form.name if predictor.form is not None else None,
        "columns": None if predictor.columns is None else list(predictor.columns),
        "kinds": state.engine.kinds,
        "packages": predictor.packages,
        "threads": state.pool.threads,
        "workers": state.metrics.shared.workers,
        "since": state.since,
    }
    await call.answer(200, orjson.dumps(found))


async def _invocations(call: Call) -> None:
    engine = call.state.engine
    readers = {"application/json": engine.read_json, "text/csv": engine.read_csv}

    async def work(head: Head) -> Work:
        # Most requests say just this.
        parse = engine.read_json if head.type == JSON else readers[head.media(readers)]
        data = await exchange.body(call.receive, head, BODY_MAX_BYTES, call.state.body_s)
        served = await predicted(call.state, head, parse, data)
        if call.state.compare is not None and not head.copy:
            call.state.compare.offer(head.type, head.encoding, data, served.predictions)
        return served, orjson.dumps({"predictions": served.predictions}), JSON, []

    await counted(call, work)


async def _v2_server(call: Call) -> None:
    await call.answer(200, orjson.dumps(openinference.server()))


async def _v2_live(call: Call) -> None:
    alive = call.state.pool.alive
    await call.answer(200 if alive else 503, orjson.dumps({"live": alive}))


async def _v2_ready(call: Call) -> None:
    why = call.state.why_unready
    await call.answer(503 if why else 200, orjson.dumps({"ready": not why, **({"error": why} if why else {})}))


def _v2_model(call: Call) -> Answered | None:
    """Find what answers a path of the model; None: it is of no model, or of another one."""
    found, who = openinference.place(call.scope["path"]), call.state.identity
    if found is None or found[0] != (who.model or found[0]) or found[1] not in (None, who.version):
        return None
    return {"infer": _v2_infer, "ready": _v2_model_ready, "": _v2_metadata}[found[2]]


async def _v2_model_ready(call: Call) -> None:
    why, name = call.state.why_unready, call.state.identity.model
    found = {"name": name, "ready": not why, **({"error": why} if why else {})}
    await call.answer(503 if why else 200, orjson.dumps(found))


async def _v2_metadata(call: Call) -> None:
    who, state = call.state.identity, call.state
    found = openinference.model(who.model, who.version, state.predictor, state.engine.kinds)
    await call.answer(200, orjson.dumps(found))


async def _v2_infer(call: Call) -> None:
    state, who = call.state, call.state.identity

    async def work(head: Head) -> Work:
        head.media(("application/json", "application/octet-stream") if head.split else ("application/json",))
        data = await exchange.body(call.receive, head, BODY_MAX_BYTES, state.body_s)
        asked = openinference.Inference(state.engine, state.predictor, head.split)
        served = await predicted(state, head, asked.read, data)
        if asked.id is not None and not head.id:
            call.name = asked.id.encode()
        try:
            return served, *asked.write(served, who.model, who.version, call.name.decode())
        except BadRequest as error:
            raise Refused(400, error.message) from error

    await counted(call, work)
