"""HTTP/1.1 as the fault proxy speaks it: requests and answers in bytes, bodies whole or piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

Event = dict[str, Any]
LIMIT = 64 * 1024 * 1024


class Upstream:
    """Our own connection to the API server, for one connection of a client."""

    def __init__(self, host: str, port: int, trust: ssl.SSLContext) -> None:
        self._where = (host, port, trust)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._headers: dict[str, str] = {}
        self._code = 0

    async def ask(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str]]:
        """Send a request and read the head of the answer."""
        if self._writer is None or self._writer.is_closing() or self._reader is None or self._reader.at_eof():
            host, port, trust = self._where
            self._reader, self._writer = await asyncio.open_connection(host, port, ssl=trust, limit=LIMIT)
        # Without it answers come as they are and may be read.
        sent = {k: v for k, v in headers.items() if k not in ("accept-encoding", "transfer-encoding", "host")}
        sent |= {"host": f"{self._where[0]}:{self._where[1]}"}
        if body or method in ("POST", "PUT", "PATCH"):
            sent["content-length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        self._writer.write(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
        await self._writer.drain()
        first, self._headers = await head(self._reader)
        self._code = int(first.split()[1])
        return self._code, self._headers

    async def body(self) -> AsyncIterator[bytes]:
        """Read the body piece by piece."""
        assert self._reader is not None
        if self._code in (204, 304):
            return
        if self._headers.get("transfer-encoding") == "chunked":
            while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            await self._reader.readuntil(b"\r\n")
        elif "content-length" in self._headers:
            yield await self._reader.readexactly(int(self._headers["content-length"]))
        else:
            yield await self._reader.read(-1)

    async def events(self) -> AsyncIterator[Event]:
        """Read the events of a watch."""
        rest = b""
        async for piece in self.body():
            *lines, rest = (rest + piece).split(b"\n")
            for line in filter(None, lines):
                yield json.loads(line)

    def close(self) -> None:
        """Break it off."""
        if self._writer is not None:
            self._writer.transport.abort()


async def head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """Read the first line and the headers, names in lower case."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.split(":", 1) for line in lines[1:] if line)
    return lines[0], {name.strip().lower(): value.strip() for name, value in headers.items()}


async def request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    """Read a whole request: method, target, headers, body."""
    first, headers = await head(reader)
    method, target, _ = first.split()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return method, target, headers, body


async def answered(
    writer: asyncio.StreamWriter, code: int, headers: dict[str, str], body: bytes, length: int | None = None
) -> None:
    kept = {
        k: v for k, v in headers.items() if k.lower() not in ("transfer-encoding", "content-length", "connection")
    }
    kept |= {"content-length": str(len(body) if length is None else length)}
    kept.setdefault("content-type", "application/json")
    lines = "".join(f"{name}: {value}\r\n" for name, value in kept.items())
    writer.write(f"HTTP/1.1 {code} X\r\n{lines}\r\n".encode("latin-1") + body)
    with contextlib.suppress(ConnectionError):  # who asked is gone: the next read says so
        await writer.drain()


def line_of(event: Event) -> bytes:
    """Write an event as a watch does."""
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def chunk(data: bytes) -> bytes:
    """Write one piece of a body of unknown length."""
    return b"%x\r\n%s\r\n" % (len(data), data)
