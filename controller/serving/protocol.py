"""uvicorn's HTTP connection, with limits that it has not: how large the head of a request is, and how slow.

Whoever opens a connection and says nothing, or says its headers a letter at a time, is let go; whoever never ends
them is refused before they fill memory.  What is no HTTP gets one sentence and a closed connection.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES: Final = 65_536
"""Largest head: request line and headers."""
URL_BYTES: Final = 8_192
HEAD_S: Final = 10.0
"""Longest that a head may take, from its first byte or from the connection on."""
WAITING: Final = "mainspring-waiting"
"""In the state of a request: how many were being answered when it came."""
_WORDS: Final = {
    400: ("BAD_REQUEST", "this is not HTTP/1.1 as a server may read it"),
    408: ("REQUEST_INCOMPLETE", "the headers did not arrive in time"),
    414: ("URI_TOO_LONG", f"the path has more than {URL_BYTES:,} bytes"),
    431: ("HEADERS_TOO_LARGE", f"the headers have more than {HEAD_BYTES:,} bytes"),
}


class _Refused(Exception):
    """The head cannot be taken; ends the parsing."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    head_s = HEAD_S
    _in_head = _in_body = False
    _begun = _head_bytes = 0
    _large = False
    _refusal = 400
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a head."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._timer = self.loop.call_later(self.head_s, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._unset()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, as long as the head is not too large."""
        self._large, self._begun, idle = len(data) > URL_BYTES, 0, not self._in_body
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            # What came may also be the rest of a request, or whole requests, before this head.
            self._head_bytes += len(data) if self._begun == 0 or (self._begun == 1 and idle) else 0
            if self._head_bytes > HEAD_BYTES:
                self._refuse(431)
            elif self._timer is None:
                self._timer = self.loop.call_later(self.head_s, self._late)

    def on_message_begin(self) -> None:
        """Expect a head."""
        self._in_head = True
        self._begun += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Go on to the body."""
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            raise _Refused
        if self._large:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            self._refusal = 414 if len(self.url) > URL_BYTES else 431 if size > HEAD_BYTES else 400
            if self._refusal != 400:
                raise _Refused
        self._unset()
        self._in_head, self._in_body, self._head_bytes = False, True, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Be ready for another request."""
        self._in_body = False
        super().on_message_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Tell the application how many requests are being answered before this one."""
        cycle.scope["state"][WAITING] = len(self.tasks)
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Refuse what cannot be read, in the form of all errors."""
        self._refuse(self._refusal)

    def _late(self) -> None:
        self._timer = None
        if self._in_head:
            self._refuse(408)
        else:
            self.transport.close()

    def _refuse(self, status: int) -> None:
        code, message = _WORDS[status]
        content = orjson.dumps({"error_code": code, "message": message})
        head: Any = (
            STATUS_LINE[status],
            b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(content),
        )
        self.transport.write(b"".join((*head, content)))
        self.transport.close()

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
