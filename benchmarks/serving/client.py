"""Sends one request again and again over kept connections, and says how long each answer took.

`python -m benchmarks.serving.client PORT PATH BODY-FILE CONNECTIONS SECONDS`.  A process of its own, so that its
processor time is not the server's.  Each connection sends when its answer has come: no pipelining, no think time.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

END = b"\r\n\r\n"
LENGTH = b"content-length:"


class Connection(asyncio.Protocol):
    """One connection that always has one request on its way, until the time is over."""

    def __init__(self, request: bytes, until: float, done: asyncio.Future[None]) -> None:
        self.request, self.until, self.done = request, until, done
        self.spent: list[float] = []
        self.failed = 0
        self.first_failure = b""
        self._came = b""
        self._begun = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        # uvloop's transport is none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count an answer once it is whole, and send again."""
        self._came += data
        head, found, rest = self._came.partition(END)
        if not found:
            return
        if not _is_whole(head.lower(), rest):
            return
        now = time.perf_counter()
        self.spent.append(now - self._begun)
        if b" 200 " not in head[:13]:
            self.failed += 1
            self.first_failure = self.first_failure or self._came[:300]
        self._came = b""
        if now < self.until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End; a connection that the server cut counts as a failure."""
        if time.perf_counter() < self.until:
            self.failed += 1
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self._begun = time.perf_counter()
        self._transport.write(self.request)


def _is_whole(head: bytes, rest: bytes) -> bool:
    """Say whether an answer has all of its body."""
    if LENGTH in head:
        return len(rest) >= int(head.partition(LENGTH)[2].partition(b"\r\n")[0])
    return b"chunked" not in head or rest.endswith(b"0\r\n\r\n")


async def measure(port: int, path: str, body: bytes, connections: int, seconds: float) -> dict[str, object]:
    """Send for so many seconds; returns requests, failures, requests/s, p50 and p99 in milliseconds."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    made: list[Connection] = []
    waiting: list[asyncio.Future[None]] = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        connection = Connection(head.encode() + body, begun + seconds, done)
        await loop.create_connection(lambda c=connection: c, "127.0.0.1", port)  # type: ignore[misc]
        made.append(connection)
        waiting.append(done)
    await asyncio.gather(*waiting)
    spent = sorted(s for c in made for s in c.spent)
    took = time.perf_counter() - begun
    return {
        "requests": len(spent),
        "failed": sum(c.failed for c in made),
        "said": next((c.first_failure.decode(errors="replace") for c in made if c.first_failure), ""),
        "rate": len(spent) / took,
        "p50_ms": 1000 * spent[len(spent) // 2] if spent else 0.0,
        "p99_ms": 1000 * spent[int(len(spent) * 0.99)] if spent else 0.0,
    }


if __name__ == "__main__":
    port, path, file, connections, seconds = sys.argv[1:]
    print(
        json.dumps(uvloop.run(measure(int(port), path, Path(file).read_bytes(), int(connections), float(seconds))))
    )
