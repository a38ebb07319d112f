"""Requests go the quick way where aiohttp is, and nobody can tell but by the processor time."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from controller.clients import wire

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@contextlib.asynccontextmanager
async def serving(talk) -> AsyncIterator[str]:
    """Listen on loopback; `talk` gets what a client sent first, and returns what is answered."""
    heard: list[asyncio.StreamWriter] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                said = talk(head)
                if said is None:
                    return
                writer.write(said)
                if not said.endswith(b"keep"):
                    writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in heard:
            writer.close()


def quick(**limits) -> httpx.AsyncClient:
    transport = wire.transport(trust_env=False)
    assert transport is not None
    return httpx.AsyncClient(transport=transport, trust_env=False, timeout=httpx.Timeout(5.0, **limits))


async def test_an_answer_comes_as_it_was_sent():
    def talk(head):
        assert head.startswith(b"GET /a%2Fb?c=d HTTP/1.1\r\n")
        assert b"x-asked: yes" in head.lower()
        return b"HTTP/1.1 418 I'm a teapot\r\nx-said: one\r\nx-said: two\r\nContent-Length: 4\r\n\r\nkeep"

    async with serving(talk) as url, quick() as client:
        answer = await client.get(f"{url}/a%2Fb?c=d", headers={"x-asked": "yes"})
    assert (answer.status_code, answer.content) == (418, b"keep")
    assert answer.headers.get_list("x-said") == ["one", "two"]


async def test_redirects_are_not_followed_and_cookies_not_kept():
    asked = []

    def talk(head):
        asked.append(head)
        return b"HTTP/1.1 302 F\r\nLocation: /other\r\nSet-Cookie: a=b\r\nContent-Length: 4\r\n\r\nkeep"

    async with serving(talk) as url, quick() as client:
        found = [(await client.get(url)).status_code for _ in range(2)]
    assert found == [302, 302]
    assert not any(b"/other" in head for head in asked)


CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        pytest.param(b"", httpx.RemoteProtocolError, id="the server hangs up at once"),
        pytest.param(CUT, httpx.RemoteProtocolError, id="the answer is cut off"),
        pytest.param(b"nonsense\r\n\r\n", httpx.RemoteProtocolError, id="the answer is no HTTP"),
        pytest.param(None, httpx.ReadTimeout, id="the server says nothing"),
    ],
)
async def test_what_goes_wrong_is_told_in_the_words_of_httpx(said, wanted):
    async with serving(lambda _: said) as url, quick(read=0.2) as client:
        with pytest.raises(wanted):
            await client.post(url, content=b"")


async def test_nobody_there_is_a_connection_error():
    async with serving(lambda _: b"") as url:
        pass
    async with quick() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_a_file_is_sent_bit_by_bit_with_its_length():
    async def bits():
        yield b"ab"
        yield b"cd"

    got = []

    async def one(reader, writer):
        got.append(await reader.readuntil(b"\r\n\r\n"))
        got.append(await reader.readexactly(4))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    async with server, quick() as client:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await client.put(url, content=bits(), headers={"Content-Length": "4"})
    assert got[1] == b"abcd"
    assert b"chunked" not in got[0].lower()


@pytest.mark.parametrize(
    ("environment", "trust_env", "goes_quick"),
    [
        pytest.param({}, True, True, id="no proxy"),
        pytest.param({"HTTPS_PROXY": "http://proxy:3128"}, True, False, id="a proxy is named"),
        pytest.param({"HTTPS_PROXY": "http://proxy:3128"}, False, True, id="a proxy is named and not heeded"),
        pytest.param({"NO_PROXY": "localhost"}, True, True, id="only what needs no proxy is named"),
    ],
)
def test_a_proxy_is_left_to_httpx(monkeypatch, environment, trust_env, goes_quick):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (wire.transport(trust_env=trust_env) is not None) == goes_quick


def test_without_aiohttp_httpx_takes_its_own_connections(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert wire.transport(trust_env=False) is None
