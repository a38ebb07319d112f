"""Asking Prometheus: one number or none, only allowed servers, and every way in which there is no answer."""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from controller.clients.errors import ClientError, Denied, Unavailable
from controller.clients.prometheus import Prometheus


class Fake:
    """A server that answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.status, self.body = 200, b"{}"
        self.asked: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                fake.asked.append(form["query"][0])
                self.send_response(fake.status)
                self.send_header("content-length", str(len(fake.body)))
                self.end_headers()
                self.wfile.write(fake.body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def says(self, kind: str, result: Any) -> None:
        self.body = json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Fake]:
    fake = Fake()
    yield fake
    fake.close()


def ask(servers: list[str], query: str = "up", server: str | None = None) -> float:
    async def go() -> float:
        client = Prometheus(servers)
        try:
            return await client.value(query, server)
        finally:
            await client.close()

    return asyncio.run(go())


def series(value: str) -> dict[str, Any]:
    return {"metric": {}, "value": [1.0, value]}


ANSWERS = {
    "a vector with one series": ("vector", [series("0.25")], 0.25),
    "a scalar": ("scalar", [1.0, "3"], 3.0),
    "no data at all": ("vector", [], math.nan),
    "a number that is none": ("vector", [series("NaN")], math.nan),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_number_or_none_is_read(what: str, server: Fake) -> None:
    kind, result, want = ANSWERS[what]
    server.says(kind, result)
    assert ask([server.address], 'sum(x{a="b"})') == pytest.approx(want, nan_ok=True)
    assert server.asked == ['sum(x{a="b"})']


TROUBLE: dict[str, tuple[int, bytes, type[ClientError], str]] = {
    "a server error": (503, b"busy", Unavailable, "answered with status 503 and no JSON"),
    "a query that it refuses": (
        400,
        b'{"status":"error","error":"parse error"}',
        Denied,
        "parse error; correct it",
    ),
    "an answer that is no result": (
        200,
        b'{"status":"success","data":{}}',
        Unavailable,
        "answered what is no result",
    ),
    "an answer that is no object": (200, b"[]", Unavailable, "answered with status 200"),
    "a redirect": (302, b"{}", Unavailable, "answered with status 302"),
}


@pytest.mark.parametrize("what", TROUBLE)
def test_what_is_no_answer_says_why(what: str, server: Fake) -> None:
    server.status, server.body, kind, message = TROUBLE[what]
    with pytest.raises(kind, match=message):
        ask([server.address])


def test_several_series_are_not_guessed_about(server: Fake) -> None:
    server.says("vector", [series("1"), series("2")])
    with pytest.raises(Denied, match="gives 2 series, and it takes one number"):
        ask([server.address])


def test_a_server_that_is_away_is_unavailable(server: Fake) -> None:
    server.close()
    with pytest.raises(Unavailable, match="did not answer"):
        ask([server.address])


@pytest.mark.parametrize(
    ("servers", "server", "message"),
    [
        ([], None, "name it in the operator's setting MAINSPRING_PROMETHEUS"),
        (
            ["http://a:9090"],
            "http://169.254.169.254",
            "is not among the operator's Prometheus servers: http://a:9090",
        ),
    ],
    ids=["none is allowed", "another one than those allowed"],
)
def test_only_servers_of_the_settings_are_asked(servers: list[str], server: str | None, message: str) -> None:
    with pytest.raises(Denied, match=message):
        ask(servers, server=server)


def test_looks_in_quick_succession_ask_once(server: Fake) -> None:
    server.says("scalar", [1.0, "3"])
    now = [0.0]

    async def go() -> None:
        client = Prometheus([server.address], clock=lambda: now[0])
        try:
            for moment in (0.0, 1.0, 4.9, 5.1):
                now[0] = moment
                assert await client.value("up") == 3.0
        finally:
            await client.close()

    asyncio.run(go())
    assert len(server.asked) == 2
