# ruff: noqa: E501 - the tables have one case a line
"""What a real server does with clients that are slow, wrong or hostile; others are answered meanwhile."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from controller.serving.call import WAITING_MAX
from controller.serving.predict import request_body
from controller.serving.protocol import Protocol
from tests.support.serving_client import client_of
from tests.support.serving_models import as_artifact, digest_of
from tests.support.serving_process import Process

ROW = b'{"instances": [{"age": 40, "income": 2.5}]}'
JSON = {"content-type": "application/json"}
LIMIT = 16 * 2**20


@pytest.fixture(scope="module")
def process(tmp_path_factory, numeric, table):
    base = tmp_path_factory.mktemp("hostile")
    artifact = as_artifact(numeric, base / "artifact")
    (artifact / "sample.json").write_bytes(request_body(table[["age", "income"]].head(1)))
    with Process(artifact, digest_of(artifact), base, "--body-s", "0.5") as process:
        process.until_ready()
        yield process


@pytest.fixture(scope="module")
def client(numeric, table):
    with client_of(numeric, request_body(table[["age", "income"]].head(1))) as client:
        yield client


def answer_to(process, *parts: bytes) -> tuple[bytes, bytes]:
    """Send bytes and read until the server closes the connection; returns the status line and the rest."""
    with process.connect() as sock:
        for part in parts:
            sock.sendall(part)
        found = b""
        while data := sock.recv(65_536):
            found += data
    status, _, rest = found.partition(b"\r\n")
    return status, rest


def memory_of(process) -> int:
    """Give the most memory that the server ever had, in bytes."""
    lines = Path(f"/proc/{process.popen.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


HEAD = b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
WRONG = [
    ("both lengths", HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
    ("two lengths that differ", HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", b"400"),
    ("a length that is none", HEAD + b"content-length: x\r\n\r\n", b"400"),
    ("a bad chunk", HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n", b"400"),
    ("another coding before chunked", HEAD + b"transfer-encoding: gzip\r\n\r\nhello", b"400"),
    ("HTTP/0.9", b"GET /health\r\n\r\n", b"400"),
    ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello\r\n\r\n", b"400"),
    ("a zero byte in a name", b"GET / HTTP/1.1\r\nho\0st: x\r\n\r\n", b"400"),
    ("a zero byte in a value", b"GET / HTTP/1.1\r\nhost: x\0y\r\n\r\n", b"400"),
    ("a folded header", b"GET / HTTP/1.1\r\nhost: x\r\n  y: z\r\n\r\n", b"400"),
    ("a space before the colon", b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", b"400"),
    ("a very long path", b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", b"414"),
    ("a very long header", b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"a" * 70_000 + b"\r\n\r\n", b"431"),
    ("headers without end", b"GET / HTTP/1.1\r\n" + b"x-more: aaaaaaaaaaaaaaaa\r\n" * 4_000, b"431"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "status"), [w[1:] for w in WRONG], ids=[f"Q12 {w[0]}" for w in WRONG])
def test_what_is_no_proper_http_is_refused_and_the_connection_closed(sent, status, process):
    found, rest = answer_to(process, sent)
    assert found.split()[1] == status
    assert json.loads(rest.partition(b"\r\n\r\n")[2]).keys() == {"error_code", "message"}
    assert httpx.post(f"{process.url}/invocations", content=ROW, headers=JSON).status_code == 200


def test_q12_requests_that_come_at_once_are_answered_in_their_order(process):
    asked = [b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n", HEAD + b"content-length: 2\r\n\r\n{}"]
    last = b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    status, rest = answer_to(process, b"".join((*asked, last)))
    assert status == b"HTTP/1.1 200 OK"
    places = [rest.find(b"alive"), rest.find(b"BAD_REQUEST"), rest.rfind(b"\r\n\r\n7")]
    assert min(places) > 0
    assert places == sorted(places)


def test_q11_a_body_that_does_not_come_gets_408(process):
    status, rest = answer_to(process, HEAD + b"content-length: 100\r\n\r\n{")
    assert status == b"HTTP/1.1 408 Request Timeout"
    assert b"the body did not arrive within 0.5 s" in rest
    assert b"connection: close" in rest.lower()


def test_q11_idle_and_slow_connections_do_not_hold_up_others(process):
    idle = [process.connect() for _ in range(300)]
    try:
        for n, sock in enumerate(idle):
            if n % 2:
                sock.sendall(b"POST /invocations HTTP/1.1\r\nhos")
        answers = [httpx.post(f"{process.url}/invocations", content=ROW, headers=JSON) for _ in range(20)]
        assert {a.status_code for a in answers} == {200}
    finally:
        for sock in idle:
            sock.close()


class Transport:
    """A connection that keeps what is written to it."""

    def __init__(self) -> None:
        self.written, self.closed = b"", False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        return

    resume_reading = pause_reading

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default


def connection(app) -> tuple[Protocol, Transport]:
    """Open a connection to an application, of which a head may take 50 ms."""

    class Quick(Protocol):
        head_s = 0.05

    transport = Transport()
    config = Config(app, http=Quick, ws="none", log_level="critical")
    protocol = Quick(config, ServerState(), {}, asyncio.get_running_loop())
    protocol.connection_made(transport)  # type: ignore[arg-type]
    return protocol, transport


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        pytest.param(b"", b"", id="Q11 nothing at all"),
        pytest.param(b"GET / HTTP/1.1\r\nho", b"HTTP/1.1 408 Request Timeout", id="Q11 a part of a head"),
    ],
)
@pytest.mark.anyio
async def test_a_head_that_does_not_come_in_time_ends_the_connection(sent, said):
    async def nothing(scope, receive, send):
        raise AssertionError("no request was complete")

    protocol, transport = connection(nothing)
    if sent:
        protocol.data_received(sent)
    await until(lambda: transport.closed)
    assert transport.written.startswith(said)
    assert (b"the headers did not arrive in time" in transport.written) is bool(sent)


@pytest.mark.anyio
async def test_a_connection_that_was_answered_may_rest_and_a_large_body_is_no_head():
    async def read_all(scope, receive, send):
        while (await receive())["more_body"]:
            continue
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    protocol, transport = connection(read_all)
    for n in range(1, 3):
        protocol.data_received(HEAD + b"content-length: 300000\r\n\r\n")
        for _ in range(3):
            protocol.data_received(bytes(100_000))
        await until(lambda: transport.written.count(b"204 No Content") == n)  # noqa: B023 - awaited at once
    rested = asyncio.get_running_loop().time() + 4 * protocol.head_s
    await until(lambda: asyncio.get_running_loop().time() > rested)
    assert not transport.closed


def bomb(size: int) -> bytes:
    """Zeros, packed a thousandfold."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(2**20)
    return b"".join([*(packer.compress(block) for _ in range(size // 2**20)), packer.flush()])


def test_q09_a_bomb_gets_413_and_takes_no_memory(process):
    before = memory_of(process)
    data = bomb(2**30)
    assert len(data) < LIMIT
    answer = httpx.post(
        f"{process.url}/invocations", content=data, headers={**JSON, "content-encoding": "gzip"}, timeout=60
    )
    assert (answer.status_code, answer.json()["error_code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert answer.json()["message"] == "the body has more than 16,777,216 bytes when it is unpacked"
    assert memory_of(process) - before < 4 * LIMIT


def test_q08_a_gigabyte_gets_413_as_soon_as_the_limit_is_passed(process):
    before = memory_of(process)

    def endless():
        for _ in range(1024):
            yield bytes(2**20)

    connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)
    sent = 0
    connection.putrequest("POST", "/invocations")
    connection.putheader("content-type", "application/json")
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()
    try:
        for block in endless():
            connection.send(b"%x\r\n%b\r\n" % (len(block), block))
            sent += len(block)
    except OSError:
        assert sent < 4 * LIMIT
    assert sent < 2**30
    connection.close()
    assert memory_of(process) - before < 6 * LIMIT
    assert httpx.post(f"{process.url}/invocations", content=ROW, headers=JSON).status_code == 200


PACKED = gzip.compress(ROW)


@pytest.mark.parametrize(
    ("encoding", "body", "status", "said"),
    [
        pytest.param("gzip", PACKED, 200, "predictions", id="Q09 gzip"),
        pytest.param("x-gzip", PACKED, 200, "predictions", id="Q09 gzip by its old name"),
        pytest.param("GZIP", PACKED, 200, "predictions", id="Q09 gzip in capitals"),
        pytest.param("identity", ROW, 200, "predictions", id="Q09 not packed"),
        pytest.param("gzip", gzip.compress(ROW[:9]) + gzip.compress(ROW[9:]), 200, "predictions", id="Q09 two members"),
        pytest.param("gzip", ROW, 400, "the body is not gzip", id="Q09 said to be packed"),
        pytest.param("gzip", PACKED[:-9], 400, "gzip that was cut off", id="Q09 cut off"),
        pytest.param("gzip", PACKED + b"rest", 400, "the body is not gzip", id="Q09 a rest"),
        pytest.param("gzip", gzip.compress(PACKED), 400, "not UTF-8", id="Q09 packed twice, said once"),
        pytest.param("gzip", zlib.compress(ROW), 400, "the body is not gzip", id="Q09 deflate"),
        pytest.param("gzip, gzip", gzip.compress(PACKED), 415, "content-encoding gzip, gzip is not", id="Q09 twice"),
        pytest.param("br", PACKED, 415, "content-encoding br is not accepted", id="Q09 brotli"),
        pytest.param("zstd", PACKED, 415, "content-encoding zstd is not accepted", id="Q09 zstandard"),
    ],
)  # fmt: skip
def test_packed_bodies_are_unpacked_or_refused(encoding, body, status, said, client):
    answer = client.post("/invocations", content=body, headers={**JSON, "content-encoding": encoding})
    assert (answer.status_code, said in answer.text) == (status, True), answer.text


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("br, gzip;q=0.5", True), ("*", True), ("gzip;q=0", False), ("br", False), ("", False)],
)
def test_large_answers_are_packed_for_those_who_take_it(accepted, packed, client):
    body = json.dumps({"instances": [{"age": 40, "income": 2.5}] * 1000})
    answer = client.post("/invocations", content=body, headers={**JSON, "accept-encoding": accepted})
    assert (answer.headers.get("content-encoding") == "gzip") is packed
    assert len(answer.json()["predictions"]) == 1000
    small = client.post("/invocations", content=ROW, headers={**JSON, "accept-encoding": accepted})
    assert "content-encoding" not in small.headers


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD"])
def test_q14_nobody_is_told_that_pages_of_others_may_ask(method, client):
    answer = client.request(method, "/invocations", headers={"origin": "https://example.org"})
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.head("/health/ready").status_code == 200


@pytest.mark.parametrize(
    "path", ["/reload", "/admin", "/flush", "/shutdown", "/v2/repository/index", "/debug/pprof"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_q18_there_is_nothing_that_an_outsider_could_administer(method, path, client):
    assert client.request(method, path).status_code == 404


@pytest.mark.parametrize("name", ["x-mainspring-version", "x-mainspring-revision", "x-shadow"])
def test_q17_a_header_that_asks_for_another_model_changes_nothing(name, client):
    answer = client.post("/invocations", content=ROW, headers={**JSON, name: "other"})
    assert (answer.status_code, answer.headers.get(name)) == (200, "" if name != "x-shadow" else None)


@pytest.mark.anyio
async def test_more_requests_than_a_process_may_have_get_429_and_probes_are_answered(client):
    answers = []

    async def slow(scope, receive, send):
        answers.append(scope)
        await asyncio.get_running_loop().create_future()

    opened = [connection(slow)[0] for _ in range(WAITING_MAX + 1)]
    for protocol in opened:
        protocol.tasks = opened[0].tasks
        protocol.data_received(HEAD + b"content-length: %d\r\n\r\n" % len(ROW) + ROW)
    await until(lambda: len(answers) == len(opened))
    sent: list[dict] = []

    async def receive():
        return {"type": "http.request", "body": ROW, "more_body": False}

    async def send(message):
        sent.append(message)

    # The application of the client, with what the last and the first connection said of the process.
    for scope in (answers[-1], answers[0], {**answers[-1], "path": "/livez", "method": "GET"}):
        await client.app(scope, receive, send)
    assert [m["status"] for m in sent if "status" in m] == [429, 200, 200]
    assert (b"retry-after", b"1") in sent[0]["headers"]
    for task in list(opened[0].tasks):
        task.cancel()
    await until(lambda: not opened[0].tasks)


def test_q15_a_client_that_leaves_is_counted(process):
    def left() -> bool:
        return 'mainspring_requests_total{status="499"}' in httpx.get(f"{process.url}/metrics").text

    with process.connect() as sock:
        sock.sendall(HEAD + b"content-length: 100\r\n\r\n{")
        sock.shutdown(socket.SHUT_RDWR)
    until = time.monotonic() + 30
    while not left():
        assert time.monotonic() < until


def test_q10_a_deep_or_wide_body_takes_little_time(client):
    deep = b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for body in (deep, b"{" + b'"a":1,' * 200_000 + b'"b":1}'):
        started = time.process_time()
        assert client.post("/invocations", content=body, headers=JSON).status_code == 400
        assert time.process_time() - started < 2.0
