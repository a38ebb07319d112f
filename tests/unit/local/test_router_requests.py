"""Promises of the router: exact shares, no request lost while somebody can answer, errors that name the model."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.local.router import BODY_MOST, build_app
from controller.local.router_config import Backend, Balancer, Routes, dump, load
from tests.unit.local.runner_world import until

pytestmark = pytest.mark.anyio
SILENT = "127.0.0.1:1"
"""Nobody listens there."""


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def servers():
    """Start servers that answer with a name, or break in a chosen way; yields the function that starts one."""
    started = []

    async def start(name, *, breaks=False, headers=b""):
        asked = []

        async def serve(reader, writer):
            with_body = await read_request(reader)
            asked.append(with_body)
            if not breaks:
                body = name.encode()
                head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n" % (
                    len(body),
                    headers,
                )
                writer.write(head + body)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        started.append(server)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked

    yield start
    for server in started:
        server.close()


async def read_request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


@asynccontextmanager
async def router(tmp_path, *backends, model="default/bikes"):
    config = tmp_path / "routes.json"
    config.write_text(dump({model: backends}))
    app = build_app(config)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://router", timeout=30) as client:
            yield client, config


async def test_shares_are_exact_and_the_header_names_the_backend(tmp_path, servers):
    one, _ = await servers("one")
    two, _ = await servers("two")
    async with router(tmp_path, Backend("b-1", 95, (one,)), Backend("b-2", 5, (two,))) as (client, _):
        answers = [await client.post("/default/bikes/predict", content=b"{}") for _ in range(100)]
    assert Counter(a.text for a in answers) == {"one": 95, "two": 5}
    assert {(a.text, a.headers["x-mainspring-backend"]) for a in answers} == {("one", "b-1"), ("two", "b-2")}


async def test_the_servers_of_one_backend_take_turns(tmp_path, servers):
    one, _ = await servers("one")
    two, _ = await servers("two")
    async with router(tmp_path, Backend("b", 100, (one, two))) as (client, _):
        answers = [(await client.get("/default/bikes/x")).text for _ in range(4)]
    assert answers == ["one", "two", "one", "two"]


async def test_path_query_body_and_headers_arrive_as_they_were_sent(tmp_path, servers):
    one, asked = await servers("one", headers=b"x-model: bikes\r\n")
    async with router(tmp_path, Backend("b", 100, (one,))) as (client, _):
        answer = await client.post(
            "/default/bikes/a%20b/c%2Fd?x=1&y=%20", content=b"rows", headers={"x-request-id": "r1"}
        )
    assert answer.headers["x-model"] == "bikes"
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a%20b/c%2Fd?x=1&y=%20 HTTP/1.1\r\n")
    assert b"x-request-id: r1" in head
    assert f"host: {one}".encode() in head.lower()
    assert body == b"rows"


@pytest.mark.parametrize("broken", ["refuses", "closes without an answer"])
async def test_a_server_that_breaks_is_skipped_and_counted(tmp_path, servers, broken):
    bad = SILENT if broken == "refuses" else (await servers("bad", breaks=True))[0]
    good, _ = await servers("good")
    async with router(tmp_path, Backend("b-1", 90, (bad,)), Backend("b-2", 10, (good,))) as (client, _):
        answers = [await client.post("/default/bikes/predict", content=b"{}") for _ in range(10)]
        counted = (await client.get("/_router/metrics")).json()["models"]["default/bikes"]
    assert [(a.status_code, a.text) for a in answers] == [(200, "good")] * 10
    assert (counted["requests"], counted["failures"], counted["retries"]) == (10, 0, 9)
    assert counted["backends"]["b-1"] == {"requests": 9, "failures": 9, "retries": 0}


async def test_another_server_of_the_same_backend_is_asked_first(tmp_path, servers):
    good, _ = await servers("good")
    other, asked = await servers("other")
    backends = (Backend("b-1", 99, (SILENT, good)), Backend("b-2", 1, (other,)))
    async with router(tmp_path, *backends) as (client, _):
        answers = {(await client.get("/default/bikes/x")).text for _ in range(10)}
    assert (answers, asked) == ({"good"}, [])


async def test_weight_zero_gets_nothing_unless_nobody_else_answers(tmp_path, servers):
    one, _ = await servers("one")
    zero, asked = await servers("zero")
    async with router(tmp_path, Backend("b-1", 100, (one,)), Backend("b-2", 0, (zero,))) as (client, config):
        for _ in range(20):
            assert (await client.get("/default/bikes/x")).text == "one"
        assert asked == []
        broken = (Backend("b-1", 100, (SILENT,)), Backend("b-2", 0, (zero,)))
        config.write_text(dump({"default/bikes": broken}))
        await reloaded(client, broken)
        assert (await client.get("/default/bikes/x")).text == "zero"


async def reloaded(client, backends, model="default/bikes"):
    generation, _ = load(dump({model: backends}))

    async def newest():
        return (await client.get("/_router/healthz")).json()["generation"] == generation

    await until(newest, "the router read its routes again")


async def test_new_weights_hold_from_the_first_request_after_they_were_read(tmp_path, servers):
    one, _ = await servers("one")
    two, _ = await servers("two")
    async with router(tmp_path, Backend("b-1", 90, (one,)), Backend("b-2", 10, (two,))) as (client, config):
        for _ in range(7):
            await client.get("/default/bikes/x")
        halves = (Backend("b-1", 50, (one,)), Backend("b-2", 50, (two,)))
        config.write_text(dump({"default/bikes": halves}))
        await reloaded(client, halves)
        answers = Counter([(await client.get("/default/bikes/x")).text for _ in range(50)])
    assert answers == {"one": 25, "two": 25}


async def test_a_broken_file_leaves_the_routes_as_they_are(tmp_path, servers):
    one, _ = await servers("one")
    async with router(tmp_path, Backend("b", 100, (one,))) as (client, config):
        assert (await client.get("/default/bikes/x")).text == "one"
        config.write_text("{")
        await client.get("/_router/healthz")
        assert (await client.get("/default/bikes/x")).text == "one"


@pytest.mark.parametrize(
    ("path", "backends", "status", "said"),
    [
        pytest.param("/default/cars/x", [], 404, "there is no model default/cars", id="an unknown model"),
        pytest.param("/default/bikes/x", [], 503, "model default/bikes has no server", id="no backend"),
        pytest.param(
            "/default/bikes/x",
            [Backend("b", 100, ())],
            503,
            "default/bikes has no server that is ready",
            id="no server",
        ),
        pytest.param(
            "/default/bikes/x",
            [Backend("b", 100, (SILENT,))],
            502,
            "no server of model default/bikes answered; 2 attempts, the last one: ConnectError",
            id="nobody answers",
        ),
    ],
)
async def test_errors_name_the_model_and_what_happened(tmp_path, path, backends, status, said):
    async with router(tmp_path, *backends) as (client, _):
        answer = await client.get(path)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


async def test_a_server_that_comes_back_while_the_request_waits_answers_it(tmp_path, servers):
    good, _ = await servers("good")
    async with router(tmp_path, Backend("b", 100, (SILENT,))) as (client, config):
        request = asyncio.create_task(client.get("/default/bikes/x"))

        async def waits():
            counted = (await client.get("/_router/metrics")).json()["models"]
            return counted.get("default/bikes", {}).get("backends")

        await until(waits, "the first attempt failed")
        config.write_text(dump({"default/bikes": [Backend("b", 100, (good,))]}))
        answer = await request
    assert (answer.status_code, answer.text) == (200, "good")


async def test_a_body_that_is_too_large_is_refused_and_reaches_no_server(tmp_path, servers):
    one, asked = await servers("one")
    async with router(tmp_path, Backend("b", 100, (one,))) as (client, _):
        answer = await client.post("/default/bikes/x", content=b"x" * (BODY_MOST + 1))

        async def chunks():
            for _ in range(17):
                yield b"x" * 1024 * 1024

        streamed = await client.post("/default/bikes/x", content=chunks())
    assert (answer.status_code, streamed.status_code) == (413, 413)
    assert "model default/bikes has more than 16,777,216 bytes" in answer.json()["error"]["message"]
    assert asked == []


async def test_health_tells_how_many_requests_each_server_works_on(tmp_path):
    release = asyncio.Event()

    async def slow(reader, writer):
        await read_request(reader)
        await release.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    endpoint = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, router(tmp_path, Backend("b", 100, (endpoint,))) as (client, _):
        request = asyncio.create_task(client.get("/default/bikes/x"))

        async def busy():
            return (await client.get("/_router/healthz")).json()["inflight"] == {endpoint: 1}

        await until(busy, "one request is under way")
        release.set()
        assert (await request).status_code == 204
        assert (await client.get("/_router/healthz")).json()["inflight"] == {}


weights = st.lists(st.integers(min_value=0, max_value=12), min_size=1, max_size=5).filter(any)


@given(weights)
def test_every_sum_of_weights_holds_the_exact_shares(given_weights):
    backends = [Backend(f"b-{i}", w, (f"host:{i}",)) for i, w in enumerate(given_weights)]
    balancer = Balancer(backends)
    for _ in range(3):
        chosen = Counter(balancer.in_turn()[0][0].weight for _ in range(sum(given_weights)))
        wanted: Counter[int] = Counter()
        for backend in backends:
            wanted[backend.weight] += backend.weight
        assert chosen == +wanted


@given(weights)
def test_everybody_who_is_ready_is_asked_before_a_request_is_lost(given_weights):
    backends = [Backend(f"b-{i}", w, (f"h:{i}", f"g:{i}")) for i, w in enumerate(given_weights)]
    asked = [endpoint for _, endpoint in Balancer(backends).in_turn()]
    assert sorted(asked) == sorted(e for b in backends for e in b.endpoints)


def test_a_missing_file_means_no_routes(tmp_path):
    assert Routes(tmp_path / "routes.json").find("default/bikes") is None
